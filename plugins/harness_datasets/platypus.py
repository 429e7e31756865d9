"""Open-Platypus rows: alpaca rows with a `data_source`, selected by source and filtered by similarity.

The similarity filter is that of Lee et al. 2023 (arXiv:2308.07317), section 2.2: of instructions that are equal, or
whose cosine similarity is above 0.8, the one with the longest answer is kept. The paper compares embeddings of a
sentence-transformers model: `measure: embeddings`. The default, `measure: words`, needs no model and is less precise:
the cosine of the sets of words, |A and B| / sqrt(|A| |B|).
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

import harness
from harness.data import LeftOut, take
from harness.nouns import Row
from harness_datasets import alpaca
from harness_datasets.choices import seen_names

LEFT_OUT = "similar to row"  # a field that `gather` adds to a row that it leaves out, so that the core counts it


class PlatypusOptions(harness.Options):
    """Options of `platypus`: the sources to keep or drop, and the highest `similarity` that two kept rows may have."""

    keep_sources: tuple[str, ...] = ()
    drop_sources: tuple[str, ...] = ()
    similarity: Annotated[float, Field(gt=0, lt=1)] | None = None
    measure: Literal["words", "embeddings"] = "words"
    embedder: str = "sentence-transformers/all-MiniLM-L6-v2"


def convert(row: Row, options: PlatypusOptions) -> harness.Conversation | LeftOut:
    """Convert one row. It is left out if its source is not wanted, or if it is too similar to a row that is kept."""
    if not _is_wanted(row, options):
        return LeftOut("a source that is not wanted")
    if LEFT_OUT in row:
        return LeftOut("too similar to a row that is kept")
    return alpaca.convert(row, options)


def _is_wanted(row: Row, options: PlatypusOptions) -> bool:
    if not options.keep_sources and not options.drop_sources:
        return True
    source = take(row, "data_source", str)
    return source not in options.drop_sources and (not options.keep_sources or source in options.keep_sources)


def gather(rows: Iterable[tuple[int, Row]], options: PlatypusOptions) -> Iterator[tuple[int, Row]]:
    """Yield the rows; rows that are too similar to another one are marked as left out.

    Without `similarity` the rows are streamed. With it, all rows are in memory: the longest answer may come last.

    Raises:
        DataError: after the last row, if none of the rows has one of the sources in the options.
    """
    asked = {"keep_sources": options.keep_sources, "drop_sources": options.drop_sources}
    checked = seen_names(rows, "data_source", asked)
    if options.similarity is None:
        yield from checked
        return
    held = list(checked)
    readable = [at for at, (_, row) in enumerate(held) if _is_readable(row) and _is_wanted(row, options)]
    readable.sort(key=lambda at: -len(held[at][1]["output"]))  # the longest answer first: it is the one to keep
    texts = [_instruction(held[at][1]) for at in readable]
    similar_to = _by_words if options.measure == "words" else _by_embeddings(options.embedder)
    kept_of = dict(zip(readable, similar_to(texts, options.similarity), strict=True))
    for at, (number, row) in enumerate(held):
        kept = kept_of.get(at)
        yield number, row if kept is None else {**row, LEFT_OUT: held[readable[kept]][0]}


def _is_readable(row: Row) -> bool:
    """Return True if a row can be compared; `convert` refuses the others."""
    return (
        isinstance(row.get("instruction"), str)
        and isinstance(row.get("output"), str)
        and isinstance(row.get("data_source", ""), str)
    )


def _instruction(row: Row) -> str:
    extra = row.get("input")
    return f"{row['instruction']} {extra}" if isinstance(extra, str) and extra else str(row["instruction"])


def _by_words(texts: list[str], limit: float) -> list[int | None]:
    """Return for each text the index of an earlier kept text with a cosine above `limit`; None if the text is kept.

    Words are looked up from the rarest on. Two sets with a cosine above `limit` share a word among the rarest
    `len - ceil(limit² len) + 1` of each (prefix filtering: Bayardo, Ma and Srikant 2007), so few pairs are compared.
    Memory grows with the number of words in all texts, not with the number of pairs.
    """
    sets = [frozenset(re.findall(r"\w+", text.lower())) or frozenset([text]) for text in texts]
    common = Counter(word for words in sets for word in words)
    kept_with: defaultdict[str, list[int]] = defaultdict(list)
    matches: list[int | None] = []
    for index, words in enumerate(sets):
        rarest = sorted(words, key=lambda word: (common[word], word))
        rarest = rarest[: len(words) - math.ceil(limit * limit * len(words)) + 1]
        near = (other for word in rarest for other in kept_with[word])
        match = next((other for other in near if _cosine(words, sets[other]) > limit), None)
        matches.append(match)
        if match is None:
            for word in rarest:
                kept_with[word].append(index)
    return matches


def _cosine(one: frozenset[str], other: frozenset[str]) -> float:
    return len(one & other) / math.sqrt(len(one) * len(other))


def _by_embeddings(model: str) -> Callable[[list[str], float], list[int | None]]:
    """Return a function like `_by_words` that compares embeddings of a sentence-transformers model."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise harness.HarnessError(
            "measure: embeddings needs sentence-transformers: `pip install sentence-transformers`. "
            "measure: words needs nothing"
        ) from None
    import numpy

    def find(texts: list[str], limit: float) -> list[int | None]:
        if not texts:
            return []
        vectors: Any = SentenceTransformer(model).encode(texts, normalize_embeddings=True)
        matches: list[int | None] = []
        kept: list[int] = []
        stored = numpy.empty_like(vectors)  # [n, d]; the first len(kept) rows are those of the kept texts
        for index, vector in enumerate(vectors):
            scores = stored[: len(kept)] @ vector
            best = int(scores.argmax()) if kept else 0
            match = kept[best] if kept and scores[best] > limit else None
            matches.append(match)
            if match is None:
                stored[len(kept)] = vector
                kept.append(index)
        return matches

    return find


DATASET = harness.Dataset(
    "platypus",
    "alpaca rows with data_source; keep or drop by source, similarity filter",
    convert,
    options=PlatypusOptions,
    gather=gather,
    fields=(("instruction", "input?", "output", "data_source", "system?", "history?"),),
    metadata=(LEFT_OUT, "id"),
    yields="conversations",
)
