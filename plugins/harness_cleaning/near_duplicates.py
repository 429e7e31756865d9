"""The filter `near_duplicates`: of rows whose question and answer have mostly the same words, the first is kept.

MinHash (Broder 1997) with locality-sensitive hashing: a text is a set of word n-grams, `num_perm` minima of the set
estimate the Jaccard similarity of two texts, and rows that share a band of minima are compared. rensa computes the
minima. The index is our own, because it takes 400 bytes a row; those of rensa and datasketch take 2,000 and more.
"""

from __future__ import annotations

import hashlib
import json
import operator
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Annotated, Literal

from pydantic import Field

import harness
from harness.data import words_of
from harness.extras import require
from harness.nouns import DataItem, Message

SEED = 42  # of the permutations
RECALL = 0.95  # the share of pairs exactly at the threshold that share a band
SHARED_BY = 3  # rows, after which a line of a question is the phrasing of a task, or a passage asked about often
SHARED_WORDS = 8  # that a line has at least to be looked for in other rows
MAX_COMPARED = 256  # earlier rows that a row is compared with: boilerplate puts thousands into one band


class NearOptions(harness.Options):
    """Options of `near_duplicates`.

    Two rows are duplicates if the estimated Jaccard similarity of their word n-grams is `threshold` or more: that of
    their questions (`of: question`), that of their answers (`of: answer`), or each of the two (`of: both`). The answers
    are what is trained on. The question is the rest, without lines that it shares with several other rows.
    """

    of: Literal["question", "answer", "both"] = "both"
    threshold: Annotated[float, Field(gt=0, le=1)] = 0.8
    ngram: Annotated[int, Field(gt=0)] = 3
    num_perm: Annotated[int, Field(ge=16, le=1024)] = 128


def near(options: NearOptions) -> Callable[[DataItem], str | None]:
    """Return a function that finds near duplicates. It keeps the minima of each kept row in memory."""
    minhash = require("rensa", "cleaning").RMinHash
    index = SimilarityIndex(options.num_perm, options.threshold, 2 if options.of == "both" else 1)
    lines = SharedLines()

    def minima_of(words: list[str]) -> list[int] | None:
        if not (grams := ngrams(words, options.ngram)):
            return None
        sketch = minhash(num_perm=options.num_perm, seed=SEED)
        sketch.update(grams)
        minima: list[int] = sketch.digest()
        return minima

    def judge(item: DataItem) -> str | None:
        question, answer = _sides(item)
        compared = []
        if options.of != "answer":
            compared.append(minima_of(lines.unshared(question)))
        if options.of != "question":
            compared.append(minima_of(words_of(answer)))
        if not any(compared):
            return None
        return None if index.add(*compared) else f"is {options.threshold:.0%} or more like an earlier row"

    return judge


def _sides(item: DataItem) -> tuple[str, str]:
    """Return the text that is read, and the text that is trained on with the calls in it."""
    if isinstance(item, harness.Conversation):
        question = [message for message in item.messages if not message.is_trained]
        return _text(question), _text(message for message in item.messages if message.is_trained)
    return _text(item.prompt), _text(item.chosen + item.rejected)


def _text(messages: Iterable[Message]) -> str:
    texts = []
    for message in messages:
        texts.append(message.content)
        texts += (f"{call.name} {json.dumps(dict(call.arguments), default=str)}" for call in message.tool_calls)
    return "\n".join(texts)


class SharedLines:
    """Counts of the lines of questions, to tell a shared definition or passage from what a row asks itself.

    A Bloom filter that counts: two places a line, and the lower count holds. It has one size for any number of rows.
    """

    def __init__(self) -> None:
        self._counts = bytearray(1 << 24)

    def unshared(self, question: str) -> list[str]:
        """Return the words of a question without the lines that more than SHARED_BY earlier questions have.

        A question that consists of such lines keeps the rarest of them: a copy of it has the same.
        """
        counted = [(words, self._count(words)) for line in question.splitlines() if (words := words_of(line))]
        limit = max(SHARED_BY, min((times for _, times in counted), default=0))
        return [word for words, times in counted if times <= limit for word in words]

    def _count(self, words: list[str]) -> int:
        """Return in how many earlier lines these words were, and count this one."""
        if len(words) < SHARED_WORDS:
            return 0
        digest = hashlib.blake2b(" ".join(words).encode(), digest_size=6).digest()
        places = int.from_bytes(digest[:3]), int.from_bytes(digest[3:])
        times = min(self._counts[place] for place in places)
        for place in places:
            self._counts[place] = min(255, max(self._counts[place], times + 1))
        return times


def ngrams(words: Sequence[str], length: int) -> list[str]:
    """Return all runs of `length` words; all words as one where there are fewer."""
    if len(words) <= length:
        return [" ".join(words)] if words else []
    return [" ".join(words[start : start + length]) for start in range(len(words) - length + 1)]


class SimilarityIndex:
    """An index of rows by the MinHash signatures of their texts, looked up by the bands that they share.

    A row has `texts` texts, and each must be similar. It is looked up by all together: the minima of a union are the
    lower ones, and the union is as similar as the least similar of its parts at least. One byte
    of each minimum is kept, and two rows are compared by it (Li and König 2010, "b-bit minwise hashing"). The bands are
    a hash table with chains, in arrays: an entry is (row, band), and `_next` leads to the one before it.
    """

    def __init__(self, num_perm: int, threshold: float, texts: int = 1) -> None:
        self.num_perm, self.threshold, self.texts = num_perm, threshold, texts
        self.rows = rows_per_band(num_perm, threshold)
        self.bands = num_perm // self.rows
        self._signatures = bytearray()
        self._keys = array("I")  # of each entry, 32 bits of its band's hash
        self._next = array("I")  # of each entry, the next in its chain, plus one; 0 at the end
        self._heads = array("I", bytes(4 << 12))

    def __len__(self) -> int:
        return len(self._signatures) // (self.texts * self.num_perm)

    def add(self, *texts: Sequence[int] | None) -> bool:
        """Add a row and return True, unless a similar row is in the index. It has the minima of each of its texts.

        None stands for a text without words, which is similar to another one only.
        """
        signatures = [bytes(value & 0xFF for value in minima or bytes(self.num_perm)) for minima in texts]
        minima = [min(values) for values in zip(*filter(None, texts), strict=True)]
        keys = [
            hash((band, *minima[band * self.rows : (band + 1) * self.rows])) & 0xFFFFFFFF for band in range(self.bands)
        ]
        for row in self._candidates(keys):
            if all(
                self._similarity(signature, row, text) >= self.threshold for text, signature in enumerate(signatures)
            ):
                return False
        if len(self._keys) + len(keys) > len(self._heads):
            self._grow()
        mask = len(self._heads) - 1
        for key in keys:
            self._next.append(self._heads[key & mask])
            self._keys.append(key)
            self._heads[key & mask] = len(self._keys)
        self._signatures += b"".join(signatures)
        return True

    def _candidates(self, keys: Sequence[int]) -> Iterator[int]:
        """Yield rows that share a band, each once, the newest of each band first."""
        mask, seen = len(self._heads) - 1, set()
        for key in keys:
            entry = self._heads[key & mask]
            while entry:
                row = (entry - 1) // self.bands
                if self._keys[entry - 1] == key and row not in seen:
                    if len(seen) == MAX_COMPARED:
                        return
                    seen.add(row)
                    yield row
                entry = self._next[entry - 1]

    def _similarity(self, signature: bytes, row: int, text: int = 0) -> float:
        """Return the estimated Jaccard similarity, corrected for the 1 in 256 bytes that are equal by chance."""
        start = (row * self.texts + text) * self.num_perm
        other = self._signatures[start : start + self.num_perm]
        equal = sum(map(operator.eq, signature, other)) / self.num_perm
        return (equal - 1 / 256) / (1 - 1 / 256)

    def _grow(self) -> None:
        """Double the number of heads and rebuild the chains."""
        self._heads = array("I", bytes(8 * len(self._heads)))
        mask = len(self._heads) - 1
        for entry, key in enumerate(self._keys):
            self._next[entry] = self._heads[key & mask]
            self._heads[key & mask] = entry + 1


def rows_per_band(num_perm: int, threshold: float) -> int:
    """Return the largest band size with which two rows at the threshold share a band in `RECALL` of the cases.

    Two rows of similarity s share one of b bands of r minima with probability 1 - (1 - s^r)^b.
    """
    for rows in range(num_perm, 1, -1):
        if 1 - (1 - threshold**rows) ** (num_perm // rows) >= RECALL:
            return rows
    return 1


FILTERS = (
    harness.Filter(
        "near_duplicates", "rows whose question and answer have nearly the same words (MinHash)", NearOptions, near
    ),
)
