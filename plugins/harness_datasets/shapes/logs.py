"""Rewriting of logged and written chats: turns under other names of keys, lists of texts, transcripts, segments."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import harness
from harness.data import OtherKindError, shown, take
from harness.nouns import Row
from harness_datasets import turns
from harness_datasets.keys import MARKS
from harness_datasets.shapes.chats import entries

_LOG_KEYS = ("role", "content")
EXCHANGES = (  # keys of a question and its answer in an entry of a list
    *(("input", "output"), ("human", "assistant"), ("user", "assistant"), ("human", "gpt"), ("human", "bot")),
    *(
        ("question", "answer"),
        ("prompt", "response"),
        ("user", "bot"),
        ("query", "response"),
        ("instruction", "output"),
    ),
)
SPEAKER_KEYS = ("speaker", "author", "sender", "role", "from")
SAID_KEYS = ("text", "content", "value", "utterance", "message")
_SPEAKERS = turns.SPEAKERS | {
    "customer": "user", "client": "user", "person": "user", "prompter": "user", "q": "user", "question": "user",
    "bot": "assistant", "ai": "assistant", "agent": "assistant", "chatbot": "assistant", "a": "assistant",
    "answer": "assistant", "instruction": "user", "response": "assistant",
}  # fmt: skip
_CHATML = re.compile(r"<\|im_start\|>\s*(\w+)\n(.*?)(?:<\|im_end\|>\n?|(?=<\|im_start\|>)|\Z)", re.DOTALL)
_INST = re.compile(r"\s*(?:<s>)?\s*\[INST\](.*?)\[/INST\](.*?)(?:</s>|(?=\[INST\])|(?=<s>)|\Z)", re.DOTALL)
_LLAMA_SYSTEM = re.compile(r"\s*<<SYS>>\s*(.*?)\s*<</SYS>>\s*", re.DOTALL)
_END = re.compile(r"(<\|endoftext\|>|<\|end\|>|</s>)\s*\Z")
_LINES = (  # the speaker that begins a turn, as dumps write it
    re.compile(r"(?:^|\s*)<\|(system|user|assistant)\|>\s*"),
    re.compile(r"(?:^|\s*)###\s*(Human|User|Assistant|System|Instruction|Response|Question|Answer)\s*:\s*"),
    re.compile(r"(?:^|\s*\n)\s*\[(USER|ASSISTANT|SYSTEM|HUMAN|BOT|AI)\]:?[ \t]*"),
    re.compile(r"(?:^|\s*\n)\s*<(user|assistant|system|human|bot)>:?[ \t]*"),
    re.compile(r"(?:^|\s*\n)\s*(User|Human|Assistant|System|Bot|AI|USER|ASSISTANT|SYSTEM):[ \t]*"),
)


def chat_log(row: Row) -> Row:
    """Rewrite a log of role and content; what else a message has is metadata of the log."""
    return {"messages": [{key: entry.get(key) for key in _LOG_KEYS} for _, entry in entries(row, "messages")]}


def exchanges(row: Row) -> Row:
    """Rewrite a list of questions and answers, under one of the pairs of names in EXCHANGES.

    The first may have a `system` prompt.
    """
    messages = []
    for number, entry in _objects(row):
        pairs = [pair for pair in EXCHANGES if pair[1] in entry and pair[0] in entry]
        if not pairs:
            raise OtherKindError(f"entry {number} has no question with its answer. It has: {', '.join(entry)}")
        if len(pairs) > 1:
            raise harness.DataError(f"entry {number} may have several answers: {', '.join(entry)}")
        question, answer = pairs[0]
        if system := take(entry, "system", str, ""):
            messages.append({"role": "system", "content": system})
        asked = turns.text_of(entry, question, number)
        messages += [{"role": "user", "content": asked}] if asked else []
        messages.append({"role": "assistant", "content": turns.text_of(entry, answer, number)})
    return {"messages": messages, "id": row.get("id")}


def _objects(row: Row) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield (number, entry) of the turns. Raises OtherKindError for turns of which one is no object."""
    listed = row["conversation"]
    if not isinstance(listed, str | list) or (
        isinstance(listed, list) and not all(isinstance(one, Mapping) for one in listed)
    ):
        raise OtherKindError("the turns are not objects")
    return entries(row, "conversation")


def spoken(row: Row) -> Row:
    """Rewrite a list of turns that name their speaker and the text in other ways than role and content."""
    messages = []
    for number, entry in _objects(row):
        names = [[key for key in keys if entry.get(key) is not None] for keys in (SPEAKER_KEYS, SAID_KEYS)]
        if not all(names) or entry.keys() >= {"role", "content"} or entry.keys() >= {"from", "value"}:
            raise OtherKindError(f"entry {number} has no speaker with a text. It has: {', '.join(entry)}")
        if several := next((keys for keys in names if len(keys) > 1), None):
            raise harness.DataError(f"turn {number}: {' and '.join(map(repr, several))} may both be meant")
        (speaker,), (text,) = names
        role = turns.speaker_of(entry[speaker], number, _SPEAKERS)
        marks = {key: entry[key] for key in MARKS if key in entry}
        messages.append({"role": role, "content": turns.text_of(entry, text, number)} | marks)
    return {"messages": messages, "system": row.get("system"), "id": row.get("id")}


def in_turns(row: Row) -> Row:
    """Rewrite UltraChat's list of texts, of which the user says the first, the assistant the second, and so on."""
    texts = turns.list_of(row, "conversation")
    if not texts or not all(isinstance(text, str) for text in texts):
        raise OtherKindError(f"the turns should be a list of texts, found {shown(texts)}")
    roles = ("user", "assistant")
    messages = [{"role": roles[number % 2], "content": text} for number, text in enumerate(texts)]
    return {"messages": messages, "id": row.get("id")}


def transcript(row: Row) -> Row:
    """Rewrite a chat that was written into one text: ChatML, `[INST]`, `### Human:`, `[USER]` or `User:`.

    Raises:
        OtherKindError: for a text that does not begin with a speaker, and for one without an answer.
    """
    if not isinstance(text := row["conversation"], str):
        raise OtherKindError("the chat is no text")
    read = _rendered(text) or _by_lines(text)
    if not read or not any(role == "assistant" for role, _ in read):
        raise OtherKindError("the text is no chat: it has no speaker at its beginning, or no answer")
    return {"messages": [{"role": role, "content": words} for role, words in read], "id": row.get("id")}


def _rendered(text: str) -> list[tuple[str, str]]:
    """Return (role, text) of a chat in the control tokens of ChatML or Llama 2; empty for any other text."""
    if text.lstrip().startswith("<|im_start|>"):
        if _CHATML.sub("", text).strip():
            raise harness.DataError(f"not all of the text is in turns of <|im_start|>: {shown(_CHATML.sub('', text))}")
        return [(_role(match[1], number), match[2]) for number, match in enumerate(_CHATML.finditer(text), 1)]
    if not text.lstrip().startswith(("<s>[INST]", "[INST]", "<s> [INST]")):
        return []
    if _INST.sub("", text).strip():
        raise harness.DataError(f"not all of the text is in turns of [INST]: {shown(_INST.sub('', text).strip())}")
    read: list[tuple[str, str]] = []
    for match in _INST.finditer(text):
        asked, answered = match[1].strip(), match[2].strip()
        if not read and (system := _LLAMA_SYSTEM.match(asked)):
            read.append(("system", system[1]))
            asked = asked[system.end() :]
        read += [("user", asked), ("assistant", answered)]
    return read


def _by_lines(text: str) -> list[tuple[str, str]]:
    """Return (role, text) of a chat whose turns begin with their speakers, who alternate; empty for any other text."""
    for pattern in _LINES:
        if pattern.match(text):
            _, *parts = pattern.split(text)
            pairs = zip(parts[::2], parts[1::2], strict=True)
            read = [(_role(name, number), _END.sub("", words).strip()) for number, (name, words) in enumerate(pairs, 1)]
            first = int(read[0][0] == "system")
            roles = [role for role, _ in read[first:]]
            return read if roles == [("user", "assistant")[number % 2] for number in range(len(roles))] else []
    return []


def _role(name: str, number: int) -> str:
    return turns.speaker_of(name, number, _SPEAKERS)


def prompts(row: Row) -> Row:
    """Rewrite a prompt without an answer, text or messages: nothing in it is trained on."""
    if isinstance(row["prompt"], str):
        messages: list[dict[str, Any]] = [{"role": "user", "content": row["prompt"]}]
    else:
        messages = [dict(message) for _, message in entries(row, "prompt")]
    for message in messages:
        if message.get("role") == "assistant":
            message["weight"] = 0
    return {"messages": messages, "system": row.get("system"), "id": row.get("id")}


def segments(row: Row) -> Row:
    """Rewrite Axolotl's segments of a text: what has the label true is the assistant's, the rest is what it is asked.

    Neighbours of one label are one message. The dataset is meant for the template `plain`, which adds nothing between.
    """
    messages: list[dict[str, Any]] = []
    for number, segment in entries(row, "segments"):
        label = segment.get("label")
        if not isinstance(label, bool):
            raise harness.DataError(f"segment {number}: the label should be true or false, found {shown(label)}")
        role, text = "assistant" if label else "user", turns.text_of(segment, "text", number)
        if messages and messages[-1]["role"] == role:
            text = messages.pop()["content"] + text
        messages.append({"role": role, "content": text})
    return {"messages": messages, "id": row.get("id")}
