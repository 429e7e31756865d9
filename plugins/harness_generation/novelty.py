"""Is an instruction new? Its ROUGE-L with every instruction kept so far is below a threshold.

ROUGE-L (Lin 2004) of two texts of m and n words is the F1 of their longest common subsequence L: 2 L / (m + n). Two facts
spare most comparisons. L is at most the shorter length, so texts of very different length are never similar. And a text
that is similar to one of m words shares at least s of them, where s follows from the threshold; so at least one of
its m - s + 1 rarest words is shared, and only texts with one of those are compared. What is compared is exact.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Sequence

_WORD = re.compile(r"[^\W_]+")
_SLACK = 1e-9  # of floating point, so that 0.7 is 0.7


def words_of(text: str) -> list[str]:
    """Lower-case words: for ASCII text the same as rouge-score's, without its stemmer."""
    return _WORD.findall(text.lower())


class NoveltyIndex:
    """Texts kept so far. Memory: four bytes a word, twice, and each distinct word once."""

    def __init__(self, threshold: float = 0.7) -> None:
        self.threshold = threshold
        self._ids: dict[str, int] = {}
        self._texts: list[array[int]] = []  # of each text, its words
        self._holders: list[array[int]] = []  # of each word, the texts that hold it

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, text: str) -> None:
        """Keep a text, whatever it is similar to."""
        ids = array("I", (self._ids.setdefault(word, len(self._ids)) for word in words_of(text)))
        self._holders += (array("I") for _ in range(len(self._ids) - len(self._holders)))
        for word in set(ids):
            self._holders[word].append(len(self._texts))
        self._texts.append(ids)

    def similar(self, text: str) -> tuple[int, float] | None:
        """The first text found whose ROUGE-L with `text` is the threshold or more, as (index, ROUGE-L); None if it is new."""
        words = words_of(text)
        length = len(words)
        places: dict[int, int] = {}  # of each word, a bit for each position where it stands
        occurrences: list[int] = []
        for position, word in enumerate(words):
            if (known := self._ids.get(word)) is not None:
                places[known] = places.get(known, 0) | 1 << position
                occurrences.append(known)
        shortest = math.ceil(length * self.threshold / (2 - self.threshold) - _SLACK)
        longest = math.floor(length * (2 - self.threshold) / self.threshold + _SLACK) if self.threshold else math.inf
        unknown = length - len(occurrences)
        rare = length - max(1, shortest) + 1 - unknown  # a similar text shares `shortest` words or more
        if rare <= 0:
            return None
        occurrences.sort(key=lambda word: len(self._holders[word]))
        seen: set[int] = set()
        for rarest in dict.fromkeys(occurrences[:rare]):
            for index in self._holders[rarest]:
                if index in seen:
                    continue
                seen.add(index)
                other = self._texts[index]
                if shortest <= len(other) <= longest:
                    score = 2 * _common(other, places, length) / (length + len(other))
                    if score >= self.threshold - _SLACK:
                        return index, score
        return None


def _common(other: Sequence[int], places: dict[int, int], length: int) -> int:
    """The length of the longest common subsequence, by bits (Hyyrö 2004): 0 bits of `left` are matched positions."""
    full = (1 << length) - 1
    left = full
    for word in other:
        if matched := left & places.get(word, 0):
            left = ((left + matched) | (left - matched)) & full
    return length - left.bit_count()
