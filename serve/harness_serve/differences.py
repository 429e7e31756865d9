"""Marks on the words in which answers side by side differ."""

from __future__ import annotations

import difflib
import functools
import itertools
import re
from collections.abc import Sequence
from typing import NamedTuple

MOST_WORDS = 3_000  # of one answer; comparing takes their product
# Pieces of rendered HTML: a formula or a button, which are left whole, a tag, an entity or a word, and the rest.
PIECE = re.compile(r"(<math\b.*?</math>|<button\b.*?</button>|<[^>]*>|&#?\w+;|\w+(?:['’]\w+)*|\s+|.)", re.DOTALL)


class Marked(NamedTuple):
    """An answer with its marks, and the words of it that stand in every other one: `shared` of `words`."""

    html: str
    shared: int
    words: int


@functools.lru_cache(maxsize=128)
def marked(answers: tuple[str, ...]) -> tuple[Marked, ...] | None:
    """Mark in each answer the words that another one does not have there.

    Args:
        answers: rendered HTML, as `markup.markdown` returns it.

    Returns:
        None where an answer is too long to compare.
    """
    pieces = [PIECE.findall(answer) for answer in answers]
    words = [[at for at, piece in enumerate(its) if _is_word(piece)] for its in pieces]
    if max(map(len, words)) > MOST_WORDS:
        return None
    texts = [[its[at] for at in at_words] for its, at_words in zip(pieces, words, strict=True)]
    common = [set(range(len(its))) for its in texts]
    for one, other in itertools.combinations(range(len(texts)), 2):
        blocks = difflib.SequenceMatcher(None, texts[one], texts[other], autojunk=False).get_matching_blocks()
        common[one] &= {block.a + step for block in blocks for step in range(block.size)}
        common[other] &= {block.b + step for block in blocks for step in range(block.size)}
    answers_marked = []
    for its, at_words, same in zip(pieces, words, common, strict=True):
        different = {at for place, at in enumerate(at_words) if place not in same}
        answers_marked.append(Marked(_with_marks(its, different), len(same), len(at_words)))
    return tuple(answers_marked)


def _is_word(piece: str) -> bool:
    return not piece.isspace() and (piece[0] != "<" or piece.startswith("<math"))


def _with_marks(pieces: Sequence[str], different: set[int]) -> str:
    """Return HTML with one mark around each run of different words, and the spaces between them."""
    written: list[str] = []
    at = 0
    while at < len(pieces):
        if at not in different:
            written.append(pieces[at])
            at += 1
            continue
        end = last = at + 1
        while end < len(pieces) and (end in different or pieces[end].isspace()):
            end += 1
            last = end if end - 1 in different else last
        written.append(f'<mark class="differs">{"".join(pieces[at:last])}</mark>')
        at = last
    return "".join(written)
