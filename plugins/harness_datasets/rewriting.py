"""Rewriting of benchmarks' rows to the columns of the tasks that phrase them."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from typing import Any

import harness
from harness.data import shown, take
from harness.nouns import Row

LANGUAGES = {
    "ar": "Arabic", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English", "es": "Spanish",
    "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "gu": "Gujarati", "he": "Hebrew",
    "hi": "Hindi", "hu": "Hungarian", "id": "Indonesian", "is": "Icelandic", "it": "Italian", "ja": "Japanese",
    "kk": "Kazakh", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian", "nl": "Dutch", "no": "Norwegian",
    "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian", "sk": "Slovak", "sv": "Swedish",
    "ta": "Tamil", "tr": "Turkish", "uk": "Ukrainian", "vi": "Vietnamese", "zh": "Chinese",
}  # fmt: skip
_ASKED = {"cause": "What was the cause of this?", "effect": "What happened as a result?"}


def _shuffled(question: str, choices: Sequence[str]) -> list[str]:
    """Return the choices in an order drawn from the text, for files in which the right one comes first."""
    return sorted(choices, key=lambda one: hashlib.blake2b(f"{question}\0{one}".encode("utf-8", "replace")).digest())


def copa(row: dict[str, Any]) -> Row:
    if row["asked"] not in _ASKED:
        raise harness.DataError(f"the question is {shown(row['asked'])}: expected {' or '.join(_ASKED)}")
    return {**row, "asked": _ASKED[row["asked"]]}


def without_question_mark(row: dict[str, Any]) -> Row:
    return {**row, "question": take(row, "question", str).rstrip("? ")}


def sciq(row: dict[str, Any]) -> Row:
    choices = [row["answer"], *(row.pop(f"distractor{number}") for number in (1, 2, 3))]
    return {**row, "choices": _shuffled(row["question"], choices)}


def dream(row: dict[str, Any]) -> Row:
    lines = row["context"]
    return {**row, "context": "\n".join(lines) if isinstance(lines, list) else lines}


def numbered(columns: Sequence[str], first: int, answer: str, choices: str, row: dict[str, Any]) -> Row:
    """Return the row with its columns of choices as one list, and the position counted from `first` from 0."""
    label = str(row.pop("label")).strip()
    texts = [row.pop(column) for column in columns]
    if not (label.lstrip("-").isdigit() and int(label) - first < len(texts)):
        raise harness.DataError(f"the label is {shown(label)}: expected one of {first} to {first + len(texts) - 1}")
    return {**row, choices: texts, answer: int(label) - first if int(label) >= first else ""}


def titled(row: dict[str, Any]) -> Row:
    """Return a row of AG News' own CSV, its title before its description."""
    return {**row, "text": f"{take(row, 'title', str)}\n\n{take(row, 'text', str)}"}


def by_letter(columns: Sequence[str], row: dict[str, Any]) -> Row:
    """Return the row with its columns of choices as one list."""
    return {**row, "choices": [row.pop(column) for column in columns]}


def stem(row: dict[str, Any]) -> Row:
    """Return a row whose question is an object of its `stem` and its `choices`."""
    question = take(row, "question", dict)
    if other := next((key for key in question if key not in ("stem", "choices", "question_concept")), None):
        raise harness.DataError(f"the key {other!r} of 'question' would be lost: {shown(question[other])}")
    return {**row, "question": take(question, "stem", str), "choices": take(question, "choices", list)}


def keyed(row: dict[str, Any]) -> Row:
    """Return a row whose choices are an object by letter, and which has the answer as a letter and in words."""
    options = take(row, "choices", dict)
    if (meant := options.get(row["letter"])) != row["answer"]:
        raise harness.DataError(f"the answer {shown(row['answer'])} is not the option {row['letter']}, {shown(meant)}")
    return {"question": row["question"], "choices": list(options.values()), "answer": row["answer"]}


def lettered(row: dict[str, Any]) -> Row:
    """Return a row of AQuA, whose choices begin with their letters: `A)12`."""
    choices = take(row, "choices", list)
    if wrong := [text for text in choices if not re.match(r"[A-Z]\)", str(text))]:
        raise harness.DataError(f"a choice should begin with its letter, as in A)12, found {shown(wrong[0])}")
    return {**row, "choices": [text[2:].strip() for text in choices]}


def swag(row: dict[str, Any]) -> Row:
    """Return the row with its two sentences as the context, or checked to be in the context that it has."""
    sentences = {name: take(row, name, str) for name in ("sent1", "sent2") if name in row}
    context = take(row, "context", str, " ".join(sentences.values()))
    for name, text in sentences.items():
        if " ".join(text.split()) not in " ".join(context.split()):
            raise harness.DataError(
                f"the column {name!r} would be lost: it is not in 'startphrase', which should be sent1 and sent2. "
                f"Without a column 'startphrase', both are read ({name} is {shown(text)}, "
                f"startphrase is {shown(context)})"
            )
    rest = {name: value for name, value in row.items() if name not in sentences} | {"context": context}
    return numbered([f"ending{number}" for number in range(4)], 0, "label", "endings", rest)


def truthful(row: dict[str, Any]) -> Row:
    targets = row.pop("targets")
    right = [text for text, label in zip(targets["choices"], targets["labels"], strict=True) if label == 1]
    if len(right) != 1:
        raise harness.DataError(f"one of the choices should be right, found {len(right)}")
    return {**row, "choices": _shuffled(row["question"], targets["choices"]), "answer": right[0]}


def translation(row: dict[str, Any]) -> Row:
    texts = take(row, "translation", dict)
    if len(texts) != 2 or (unknown := [code for code in texts if code.partition("_")[0] not in LANGUAGES]):
        raise harness.DataError(
            f"the translation should have two languages by their codes, found {', '.join(map(str, texts))}"
            + (f"; the code {unknown[0]!r} is not known" if len(texts) == 2 else "")
        )
    (source, text), (target, translated) = texts.items()
    names = [LANGUAGES[code.partition("_")[0]] for code in (source, target)]
    return {"source": text, "target": translated, "source_language": names[0], "target_language": names[1]}
