"""Checks of answers by program: what the tasks beside this file ask lm-eval to call."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets

DATA = Path(__file__).resolve().parent.parent / "data"
SIGN_OFF = "Kind regards, Fernhill Library"
# Beginnings of words in American spelling, of which the questions provoke many. Words in -ize count too.
AMERICAN = re.compile(
    r"\b(?:(?:color|flavor|favor|neighbor|honor|humor(?!ous)|labor(?!ator)|odor|vapor|harbor|savor|behavior"
    r"|center|theater|fiber|liter(?:s\b|\b)"
    r"|gray|cozy|plow|jewelry|travel(?:ing|ed|er)|model(?:ing|ed)|label(?:ing|ed)|analyz|catalog(?!ue)|skillful)\w*"
    r"|(?:organ|real|recogn|memor|apolog|custom|min[i]m|max[i]m|prior[i]t|moistur|summar|emphas|util|special"
    r"|steril)iz\w*)",
    re.IGNORECASE,
)


def json_items(**_: Any) -> datasets.DatasetDict:
    """The held-out messages; and as `train` those of tuning, which examples in the prompt are taken from."""
    return _splits(test="json.test.jsonl", train="json.train.jsonl")


def tone_items(**_: Any) -> datasets.DatasetDict:
    """The held-out questions to the house style."""
    return _splits(test="tone.test.jsonl")


def alpaca_items(**_: Any) -> datasets.DatasetDict:
    """The held-out instructions."""
    return _splits(test="alpaca.test.jsonl")


def _splits(**files: str) -> datasets.DatasetDict:
    return datasets.DatasetDict({split: datasets.Dataset.from_list(_items(file)) for split, file in files.items()})


def _items(file: str) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (DATA / file).read_text(encoding="utf-8").splitlines()]
    for row in rows:
        if messages := row.pop("messages", None):  # a row of tuning
            row |= {"prompt": messages[-2]["content"], "answer": messages[-1]["content"]}
        elif isinstance(row.get("answer"), dict):  # whose keys are another row's no columns
            row["answer"] = json.dumps(row["answer"], ensure_ascii=False)
    return rows


def score_json(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Four marks of one answer.

    right: it is a JSON object with exactly the wanted keys, each with the wanted value. parses: it is JSON (and not
    null). keys: it is an object with exactly these keys. salvaged: the first {...} in it is right, whatever stands
    around that.
    """
    wanted, answer = json.loads(doc["answer"]), results[0]
    answered, salvaged = _parsed(answer), _parsed(answer[answer.find("{") : answer.find("}") + 1])
    return {
        "right": float(_is_right(answered, wanted)),
        "parses": float(answered is not None),
        "keys": float(isinstance(answered, dict) and answered.keys() == wanted.keys()),
        "salvaged": float(_is_right(salvaged, wanted)),
    }


def _parsed(text: str) -> Any:
    """The JSON of a text; None where it is none, or an object gives a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_without_repeats)
    except ValueError:
        return None


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a key is given twice")
    return dict(pairs)


def _is_right(answered: Any, wanted: dict[str, str | None]) -> bool:
    return (
        isinstance(answered, dict)
        and answered.keys() == wanted.keys()
        and all(_comparable(answered[key]) == _comparable(value) for key, value in wanted.items())
    )


def _comparable(value: Any) -> Any:
    """A value without what does not count: case, white space at the edges, and whether 4 is a number or a text."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return str(value).strip().casefold() if is_number or isinstance(value, str) else value


def score_tone(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """Five marks of one answer, and `right`: all five.

    sentence: it begins with one sentence, on a line of its own. points: then come exactly three lines that begin with
    "- ". sign_off: the last line is the sign-off. british: no word is spelt the American way. about: it has a word of
    the question's subject.
    """
    lines = [line.strip() for line in results[0].strip().splitlines() if line.strip()]
    dashed = [line.startswith("- ") and len(line) > 2 for line in lines]
    marks = {
        "sentence": bool(lines) and not dashed[0] and re.fullmatch(r"[^.?!]*[.?!]", lines[0]) is not None,
        "points": dashed[1:4] == [True] * 3 and sum(dashed) == 3 and len(lines) <= 5,
        "sign_off": bool(lines) and lines[-1] == SIGN_OFF,
        "british": bool(lines) and AMERICAN.search(results[0]) is None,
        "about": any(re.search(rf"\b{re.escape(word)}", results[0], re.IGNORECASE) for word in doc["about"]),
    }
    return {"right": float(all(marks.values())), **{name: float(mark) for name, mark in marks.items()}}


def score_alpaca(doc: dict[str, Any], results: list[str]) -> dict[str, float]:
    """`right`: the wanted answer, white space at the edges aside. `found`: the answer holds it, in any case."""
    wanted, answer = doc["output"], results[0]
    return {"right": float(answer.strip() == wanted), "found": float(wanted.casefold() in answer.casefold())}
