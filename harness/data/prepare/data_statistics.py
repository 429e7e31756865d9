"""Statistics of data: rows, turns, roles, lengths, languages, scripts, sources, duplicates.

Read in one pass. What is kept grows with the number of different lengths, and by one digest of 16 bytes an item.
Languages are told of a sample, since that takes a millisecond an item.
"""

from __future__ import annotations

import functools
import json
import math
import random
import re
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from harness.data.prepare.content import digest_of
from harness.data.prepare.language import Languages, said_in
from harness.nouns import Conversation, Example, Message, Preference

SCRIPT_SAMPLE = 2000  # characters of an item that its script is told from
LANGUAGE_SAMPLE = 2000  # items whose language is told, drawn at random where there are more
IN_DOUBT = "in doubt"


@dataclass(slots=True)
class Lengths:
    """Counts of lengths, exact."""

    counts: Counter[int] = field(default_factory=Counter)

    def add(self, length: int, times: int = 1) -> None:
        self.counts[length] += times

    @property
    def n(self) -> int:
        return self.counts.total()

    @property
    def total(self) -> int:
        return sum(length * count for length, count in self.counts.items())

    @property
    def mean(self) -> float:
        return self.total / self.n if self.counts else 0.0

    def quantile(self, q: float) -> int:
        """Return the smallest length that at least a share q of the items do not exceed; 0 where there are none."""
        below, wanted = 0, q * self.n
        for length in sorted(self.counts):
            below += self.counts[length]
            if below >= wanted:
                return length
        return 0

    def share_above(self, limit: int) -> float:
        """Return the share of items that are longer than `limit`."""
        return sum(count for length, count in self.counts.items() if length > limit) / self.n if self.counts else 0.0

    def bins(self, most: int = 24) -> list[Bin]:
        """Return at most `most` bins of one round width up to the 99th percentile, and one for what is longer."""
        if not self.counts:
            return []
        low, high, top = min(self.counts), max(self.counts), self.quantile(0.99)
        width = round_width((top - low + 1) / max(1, most - 2))
        start = low // width * width
        edges = list(range(start, top + width, width))
        counted: Counter[int] = Counter()
        for length, count in self.counts.items():
            counted[min((length - start) // width, len(edges))] += count
        bins = [Bin(edge, edge + width - 1, counted[index]) for index, edge in enumerate(edges)]
        while len(bins) > 1 and not bins[-1].count and not counted[len(edges)]:
            bins.pop()
        return bins + ([Bin(bins[-1].high + 1, high, counted[len(edges)], beyond=True)] if counted[len(edges)] else [])

    def as_dict(self) -> dict[str, Any]:
        if not self.counts:
            return {"n": 0}
        return {
            "n": self.n,
            "total": self.total,
            "mean": round(self.mean, 2),
            "min": min(self.counts),
            "median": self.quantile(0.5),
            "p90": self.quantile(0.9),
            "p99": self.quantile(0.99),
            "max": max(self.counts),
            "histogram": [asdict(bin) for bin in self.bins()],
        }


@dataclass(frozen=True, slots=True)
class Bin:
    """`count` items with a length in low..high, both included; `beyond` is the open one at the end."""

    low: int
    high: int
    count: int
    beyond: bool = False

    def __str__(self) -> str:
        return (
            f"{self.low:,} and more"
            if self.beyond
            else f"{self.low:,}"
            if self.low == self.high
            else f"{self.low:,}–{self.high:,}"
        )


@dataclass(slots=True)
class Statistics:
    """The figures of some data. `sequences` are what a tokenizer sees: a conversation is one, a preference two."""

    conversations: int = 0
    preferences: int = 0
    duplicates: int = 0
    with_tools: int = 0
    tool_calls: int = 0
    turns: Lengths = field(default_factory=Lengths)
    characters: Lengths = field(default_factory=Lengths)
    supervised_characters: int = 0
    tokens: Lengths = field(default_factory=Lengths)
    supervised_tokens: int = 0
    roles: Counter[str] = field(default_factory=Counter)
    languages: Counter[str] = field(default_factory=Counter)
    scripts: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    _seen: set[bytes] = field(default_factory=set)
    _added: int = 0
    _sample: list[tuple[str, int]] = field(default_factory=list)
    _random: random.Random = field(default_factory=lambda: random.Random(0))

    @property
    def items(self) -> int:
        return self.conversations + self.preferences

    @property
    def supervised_share(self) -> float:
        """The share that is trained on: of the tokens if they were counted, else of the characters."""
        if self.tokens.n:
            return self.supervised_tokens / self.tokens.total
        return self.supervised_characters / self.characters.total if self.characters.total else 0.0

    def add(self, item: Conversation | Preference, times: int = 1) -> None:
        """Count one item that is used `times` times; repeating it on purpose makes no duplicate of it."""
        if isinstance(item, Conversation):
            self.conversations += times
            sides = [item.messages]
            trained = sum(_length(message) for message in item.messages if message.is_trained)
        else:
            self.preferences += times
            sides = [item.prompt, item.chosen, item.rejected]
            trained = sum(_length(message) for side in sides[1:] for message in side)
        messages = [message for side in sides for message in side]
        self.turns.add(len(messages) if isinstance(item, Conversation) else len(item.prompt) + 1, times)
        self.characters.add(sum(map(_length, messages)), times)
        self.supervised_characters += times * trained
        for message in messages:
            self.roles[message.role] += times
        self.with_tools += times * bool(item.tools)
        self.tool_calls += times * sum(len(message.tool_calls) for message in messages)
        self.scripts[script_of("\n".join(message.content for message in messages))] += times
        self.sources[item.source or "not stated"] += times
        digest = digest_of(item)
        self.duplicates += digest in self._seen
        self._seen.add(digest)
        self._draw(item, times)

    def add_encoded(self, example: Example, times: int = 1) -> None:
        """Count the tokens of a sequence."""
        self.tokens.add(len(example), times)
        self.supervised_tokens += times * example.supervised

    def count_languages(self) -> None:
        """Fill `languages`, once everything was added: all items, or LANGUAGE_SAMPLE of them, drawn at random.

        Raises:
            MissingExtraError: without the extra `cleaning`.
        """
        identifier = Languages()
        self.languages.clear()
        for text, times in self._sample:
            self.languages[identifier.of(text) or IN_DOUBT] += times

    @property
    def is_language_sampled(self) -> bool:
        """True if there are more items than the languages are told of."""
        return self._added > LANGUAGE_SAMPLE

    def _draw(self, item: Conversation | Preference, times: int) -> None:
        """Keep each item with the same probability (Algorithm R of Vitter 1985)."""
        self._added += 1
        at = len(self._sample) if self._added <= LANGUAGE_SAMPLE else self._random.randrange(self._added)
        if at < LANGUAGE_SAMPLE:
            self._sample[at : at + 1] = [(said_in(item), times)]

    def as_dict(self) -> dict[str, Any]:
        return {
            "items": self.items,
            "conversations": self.conversations,
            "preferences": self.preferences,
            "exact_duplicates": self.duplicates,
            "with_tools": self.with_tools,
            "tool_calls": self.tool_calls,
            "roles": dict(self.roles.most_common()),
            "turns": self.turns.as_dict(),
            "characters": self.characters.as_dict(),
            "tokens": self.tokens.as_dict() if self.tokens.n else None,
            "supervised_tokens": self.supervised_tokens if self.tokens.n else None,
            "supervised_characters": self.supervised_characters,
            "supervised_share": round(self.supervised_share, 4),
            "languages": dict(self.languages.most_common()) or None,
            "languages_told_of": len(self._sample) if self.languages else None,
            "scripts": dict(self.scripts.most_common()),
            "sources": dict(self.sources.most_common()),
        }


def script_of(text: str) -> str:
    """Return the script that most of the letters at the beginning of a text are in; `none` where it has no letters."""
    head = text[:SCRIPT_SAMPLE]
    if head.isascii():
        return "Latin" if re.search(r"[A-Za-z]", head) else "none"
    letters_in = {name: len(letters.findall(head)) for name, letters in _scripts().items()}
    other = sum(char.isalpha() for char in head) - sum(letters_in.values())
    # Japanese is written with Chinese characters too; it is the kana that tell them apart.
    if letters_in["Japanese"] * 5 >= letters_in["Chinese"] > 0:
        letters_in["Japanese"] += letters_in.pop("Chinese")
    name, count = max(letters_in.items(), key=lambda entry: entry[1])
    return name if count and count >= other else "other" if other > 0 else "none"


@functools.cache
def _scripts() -> dict[str, re.Pattern[str]]:
    """Return patterns for the letters of each script, by the blocks of the Unicode standard."""
    blocks = {
        "Latin": "A-Za-zªºÀ-ÖØ-öø-ʯḀ-ỿ",
        "Greek": "Ͱ-Ͽἀ-῿",
        "Cyrillic": "Ѐ-ԯ",
        "Armenian": "\u0530-\u058f",
        "Hebrew": "\u0590-\u05ff",
        "Arabic": "\u0600-\u06ff\u0750-\u077f\ufb50-\ufdff\ufe70-\ufeff",
        "Devanagari": "\u0900-\u097f",
        "Bengali": "\u0980-\u09ff",
        "Tamil": "\u0b80-\u0bff",
        "Telugu": "\u0c00-\u0c7f",
        "Thai": "\u0e00-\u0e7f",
        "Georgian": "\u10a0-\u10ff",
        "Ethiopic": "\u1200-\u137f",
        "Korean": "\u1100-\u11ff\uac00-\ud7af",
        "Japanese": "\u3040-\u30ff",
        "Chinese": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    }
    return {name: re.compile(f"[{block}]") for name, block in blocks.items()}


def _length(message: Message) -> int:
    """Count the characters of a message, those of its tool calls included."""
    calls = sum(
        len(call.name) + len(json.dumps(dict(call.arguments), ensure_ascii=False, default=str))
        for call in message.tool_calls
    )
    return len(message.content) + calls


def round_width(least: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50, … that is at least `least`."""
    if least <= 1:
        return 1
    power = 10 ** math.floor(math.log10(least))
    return next(int(step * power) for step in (1, 2, 5, 10) if step * power >= least)
