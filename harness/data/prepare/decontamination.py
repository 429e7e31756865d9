"""Decontamination: rows to be trained on that share a run of words with an item they are to be evaluated on.

The n-grams of the evaluation items are held as hashes; the rows stream past. Words are compared in lower case and
without punctuation, 13 in a row, as in appendix C of Brown et al. 2020 (GPT-3).
"""

from __future__ import annotations

import bisect
import functools
import itertools
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from harness.contract import EvaluationContext
from harness.data.prepare.content import text_of, word_spans, words_of
from harness.data.reports import Overlap
from harness.errors import DataError
from harness.nouns import DataItem

if TYPE_CHECKING:
    from harness.plugins import Plugins
    from harness.recipe import DataRecipe, DecontaminateSpec

_PREFIX = 3  # words that are looked up first; nearly all places in the rows are done with after that


def evaluation_texts(recipe: DataRecipe, plugins: Plugins) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of every item of those of the recipe's evaluations that have texts."""
    context = EvaluationContext(recipe, plugins)
    for options in recipe.evaluate:
        evaluation = plugins.evaluations[options.evaluation]
        if evaluation.texts is not None:
            for id, text in evaluation.texts(options, context):
                yield f"{evaluation.name} {id}", text


class Decontamination:
    """The n-grams of the evaluation items. `overlap(item)` finds one of them in an item."""

    def __init__(self, spec: DecontaminateSpec, evaluation: Iterable[tuple[str, str]]) -> None:
        """Args: evaluation: (id, text) of each evaluation item; an item may give several texts, one after the other.

        Raises:
            DataError: where there is not one item long enough to compare with.
        """
        self._vocabulary: dict[str, int] = {}
        self._ids: list[str] = []
        self._words = array("I")  # of all items, one behind the other
        self._starts = array("Q")  # where each item's begin, and where the last one's end
        self._ngrams: dict[int, int] = {}  # hash of an n-gram -> where it is in _words
        self._lengths: dict[int, tuple[int, ...]] = {}  # hash of a prefix -> the lengths of the n-grams that begin so
        all_ids: set[str] = set()
        for id, text in evaluation:
            words = words_of(text)
            all_ids.add(id)
            if len(words) < spec.min_words:
                continue
            self._ids.append(id)
            self._starts.append(len(self._words))
            self._words.extend(self._vocabulary.setdefault(word, len(self._vocabulary)) for word in words)
        self._starts.append(len(self._words))
        self.too_short = len(all_ids.difference(self._ids))
        if not self._ids:
            raise DataError(
                "data.decontaminate has nothing to compare with: no evaluation of the recipe tells its items"
                if not self.too_short
                else f"data.decontaminate has nothing to compare with: all {self.too_short:,} evaluation items have "
                f"fewer than min_words = {spec.min_words} words"
            )
        self._index(spec)

    def overlap(self, item: DataItem) -> Overlap | None:
        """Return the first overlap of an item with an evaluation item, as far as it goes; None if there is none."""
        text = text_of(item)
        known = self._vocabulary
        words = [known.get(word, -1) for word in words_of(text)]
        for start in range(len(words) - _PREFIX + 1):
            if words[start] < 0:
                continue
            for length in self._lengths.get(hash(tuple(words[start : start + _PREFIX])), ()):
                ngram = words[start : start + length]
                at = self._ngrams.get(hash(tuple(ngram)))
                if at is None or len(ngram) < length or self._words[at : at + length].tolist() != ngram:
                    continue
                number, end = self._item_at(at)
                while start + length < len(words) and at + length < end:
                    if words[start + length] != self._words[at + length]:
                        break
                    length += 1
                return Overlap(item.id, self._ids[number], _cut(text, start, length))
        return None

    def _index(self, spec: DecontaminateSpec) -> None:
        """Index every n-gram but those of a task's own phrasing, which more than `shared_by` items have."""
        shared: Counter[int] = Counter()
        for _, numbers in itertools.groupby(range(len(self._ids)), key=self._ids.__getitem__):
            shared.update({key for number in numbers for _, _, key in self._ngrams_of(number, spec.ngram)})
        lengths: dict[int, int] = {}  # as bits: most prefixes begin one length, and a set each would take 200 bytes
        for number in range(len(self._ids)):
            for at, length, key in self._ngrams_of(number, spec.ngram):
                if shared[key] <= spec.shared_by:
                    self._ngrams.setdefault(key, at)
                    prefix = hash(tuple(self._words[at : at + _PREFIX]))
                    lengths[prefix] = lengths.get(prefix, 0) | 1 << length
        self._lengths = {prefix: _bits(bits) for prefix, bits in lengths.items()}

    def _ngrams_of(self, number: int, ngram: int) -> Iterator[tuple[int, int, int]]:
        """Yield the place of each n-gram of an item, its length and its hash. A shorter item is one itself."""
        start, end = self._starts[number], self._starts[number + 1]
        length = min(ngram, end - start)
        for at in range(start, end - length + 1):
            yield at, length, hash(tuple(self._words[at : at + length]))

    def _item_at(self, at: int) -> tuple[int, int]:
        """Return the number of the item whose words hold position `at`, and where that item ends."""
        number = bisect.bisect_right(self._starts, at) - 1
        return number, self._starts[number + 1]


def _cut(text: str, start: int, length: int) -> str:
    """Return `length` words of the text from the word `start` on, with what is between them."""
    spans = list(word_spans(text))
    if len(text) != len(lower := text.lower()):  # a few letters are longer in lower case, and everything has moved
        text = lower
    return text[spans[start][0] : spans[start + length - 1][1]]


@functools.cache
def _bits(bits: int) -> tuple[int, ...]:
    """Return which bits are set, the highest first."""
    return tuple(bit for bit in range(bits.bit_length() - 1, -1, -1) if bits >> bit & 1)
