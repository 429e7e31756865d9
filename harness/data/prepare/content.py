"""The content of an item, without its id, file and source: its text, its words, and a hash that is the same everywhere.

Mixtures, splits and duplicates all go by `digest_of`, so that rows that one of them takes for equal are equal for all.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator

from harness.nouns import DataItem, Message, Preference, messages_of

_BLANKS = bytes.maketrans(b"\t\n\r\x0b\x0c", b"     ")
# Scripts written without spaces: Thai and Lao, Myanmar, Khmer, kana, Chinese characters. Each character is a word
# there.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\W{_UNSPACED}]+")


def text_of(item: DataItem) -> str:
    """Return the text of all messages, thoughts before words, in order, one below the other."""
    return "\n".join(
        f"{message.reasoning}\n{message.content}" if message.reasoning else message.content
        for message in messages_of(item)
    )


def words_of(text: str) -> list[str]:
    """Return the words of a text in lower case, without punctuation; in scripts that have no spaces, its characters."""
    return _WORD.findall(text.lower())


def word_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield where in `text.lower()` the words of `words_of` begin and end."""
    return (match.span() for match in _WORD.finditer(text.lower()))


def digest_of(item: DataItem, *, prompt_only: bool = False) -> bytes:
    """Return 16 bytes that are equal for items of equal content, whatever their ids, file, source and order.

    Roles, texts, thoughts, tool calls and the tools offered count; runs of blanks count as one. Only ASCII blanks, and
    no Unicode tables, so that no version of Python sees it differently. `prompt_only` leaves out the tools and the
    completions of a preference, so that rows which differ in these alone are on one side of a split.
    """
    if isinstance(item, Preference):
        parts = (item.prompt,) if prompt_only else (item.prompt, item.chosen, item.rejected)
    else:
        parts = (item.messages,)
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(b"\x1c")
        digest.update(b"\x1d".join(_bytes_of(part)))
    if item.tools and not prompt_only:
        digest.update(b"\x1c" + json.dumps(item.tools, sort_keys=True, default=str).encode())
    return digest.digest()


def keyed(digest: bytes, purpose: str) -> int:
    """Return 64 bits drawn from a digest; for another purpose they are others."""
    return int.from_bytes(hashlib.blake2b(digest + purpose.encode(), digest_size=8).digest())


def _bytes_of(messages: Iterable[Message]) -> Iterator[bytes]:
    for message in messages:
        yield message.role.encode() + b"\x1e" + _single_blanks(message.content.encode())
        if message.reasoning:
            yield b"reasoning\x1e" + _single_blanks(message.reasoning.encode())
        for call in message.tool_calls:
            arguments = json.dumps(dict(call.arguments), sort_keys=True, default=str)
            yield call.name.encode() + b"\x1f" + arguments.encode()


def _single_blanks(text: bytes) -> bytes:
    """Return `b" ".join(text.split())`, without an object for every word: a text may have a hundred megabytes."""
    text = text.translate(_BLANKS)
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text.strip(b" ")
