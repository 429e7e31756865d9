"""Thoughts and words of an answer, told apart by the template's marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from harness.template.encode import BoundTemplate


def thoughts_and_words(
    template: BoundTemplate, prompt_ids: Sequence[int], ids: Sequence[int]
) -> tuple[str, Sequence[int]]:
    """Return the thoughts that an answer begins with, as text, and the ids of its words.

    What the template writes before words, such as a channel, belongs to neither.
    """
    if not template.habits.marks:
        return "", ids
    opening, closing = template.habits.marks
    before_words = [between for before, between, _ in template.habits.frames if not before]
    words = _without(template, (lead for lead in before_words if closing not in lead), ids)
    if len(words) < len(ids):
        return "", words
    opens, closes = template.ids_of([opening, closing])
    begun = [*prompt_ids[-len(opens) - 2 :], *ids[: len(opens) + 2]]  # a line end may stand beside a mark
    opened, closed = (_places(mark, begun) for mark in (opens, closes))
    end = next(iter(_places(closes, ids)), None)
    if end is None and max(opened, default=-1) <= max(closed, default=-1):
        return "", ids
    thoughts = template.decoded(ids[:end])
    thoughts = (thoughts.partition(opening)[2] if opening in thoughts else thoughts).strip()
    if end is None:
        return thoughts, ids[:0]
    leads = (between.partition(closing)[2] for _, between, _ in template.habits.frames)
    return thoughts, _without(template, leads, ids[end + len(closes) :])


def _without(template: BoundTemplate, leads: Iterable[str], ids: Sequence[int]) -> Sequence[int]:
    """Return the ids without the first of the texts that they begin with."""
    for lead in template.ids_of(sorted({lead for lead in leads if lead}, key=len, reverse=True)):
        if list(ids[: len(lead)]) == lead:
            return ids[len(lead) :]
    return ids


def _places(mark: Sequence[int], ids: Sequence[int]) -> list[int]:
    return [at for at in range(len(ids) - len(mark) + 1) if list(ids[at : at + len(mark)]) == list(mark)]
