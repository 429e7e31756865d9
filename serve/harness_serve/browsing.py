"""The kept ballots drawn as HTML, filtered: what was asked and answered, and the verdict."""

from __future__ import annotations

import html
import itertools
import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from harness.nouns import Ballot
from harness_serve.markup import markdown

if TYPE_CHECKING:
    from harness.votes.store import Ballots

ON_A_PAGE = 20
AT_ONCE = 500  # ballots that are read from the database together


class Filter(NamedTuple):
    """The ballots that are wanted; what is empty is not asked for."""

    person: str = ""
    variant: str = ""
    verdict: str = ""
    text: str = ""

    def of(self, ballots: Ballots, viewer: str) -> Iterator[Ballot]:
        """Yield the ballots that fit and that a person may see, the latest first; few are in memory at once."""
        fields = self._values(viewer)
        first = 0
        while fields is not None and (some := ballots.latest(first, AT_ONCE, self.variant, **fields)):
            yield from (ballot for ballot in some if self.text.lower() in _texts(ballot).lower())
            first += len(some)

    def page(self, ballots: Ballots, viewer: str, number: int) -> tuple[list[Ballot], int, int]:
        """Return the ballots of one page, the number of the first of them, from 0, and the number of all.

        After the last page comes the last page again.
        """
        fields = self._values(viewer)
        if fields is None:
            return [], 0, 0
        count = sum(1 for _ in self.of(ballots, viewer)) if self.text else ballots.count(self.variant, **fields)
        first = min(number, max(0, count - 1) // ON_A_PAGE) * ON_A_PAGE
        if self.text:
            return list(itertools.islice(self.of(ballots, viewer), first, first + ON_A_PAGE)), first, count
        return ballots.latest(first, ON_A_PAGE, self.variant, **fields), first, count

    def _values(self, viewer: str) -> dict[str, str] | None:
        """Return the values of a ballot's fields that are wanted of those that a person may see; None for none.

        People see the closed ballots of their own; without a name, everyone's. A ballot that is not closed may still
        be judged, by someone who is not to know the names.
        """
        if viewer and self.person not in ("", viewer):
            return None
        person = viewer or self.person
        kept = {"state": "revealed", "annotator": person, "verdict": self.verdict}
        return {name: value for name, value in kept.items() if value}


class Page(NamedTuple):
    """One page of ballots, drawn."""

    html: str
    number: int = 0
    is_last: bool = True


def ballots_html(ballots: Ballots, wanted: Filter, viewer: str, number: int = 0) -> Page:
    """Return one page of the ballots that a person may see, with a link to download all.

    After the last page comes the last page again.
    """
    shown, first, count = wanted.page(ballots, viewer, number)
    if not shown:
        none = "No votes here yet. A vote appears once you go on from it."
        return Page(f'<p class="empty">{"No vote fits these filters." if any(wanted) else none}</p>')
    query = html.escape("?" + urlencode({name: value for name, value in wanted._asdict().items() if value}))
    counted = f"{first + 1} to {first + len(shown)} of {count}"
    link = f'<a href="/votes.jsonl{query}" download="votes.jsonl">Download as JSONL</a>'
    drawn = f'<p class="count"><span>{counted}</span>{link}</p>{"".join(map(_ballot_html, shown))}'
    return Page(drawn, first // ON_A_PAGE, first + len(shown) >= count)


def rows(ballots: Iterable[Ballot]) -> Iterator[str]:
    """Yield ballots as lines of JSON, the rows that `dataset: votes` reads."""
    for ballot in ballots:
        yield json.dumps(row_of(ballot), ensure_ascii=False) + "\n"


def row_of(ballot: Ballot) -> dict[str, Any]:
    """Return a judged ballot as the row that `dataset: votes` reads."""
    assert ballot.verdict is not None
    fields = ("variant", "recipe_sha256", "messages", "answer", "finish", "tokens")
    return {
        "id": ballot.id,
        "created_at": ballot.created_at.isoformat(),
        "annotator": ballot.annotator,
        "blind": ballot.blind,
        "system_prompt": ballot.system_prompt,
        "sampling": dict(ballot.sampling),
        "verdict": ballot.verdict.kind,
        "best": ballot.verdict.best,
        "sides": [{name: getattr(side, name) for name in fields} for side in ballot.sides],
    }


def question_of(ballot: Ballot) -> str:
    """Return what the last turn of a ballot asks."""
    messages = ballot.sides[0].messages
    return str(messages[-1].get("content", "")) if messages else ""


def _texts(ballot: Ballot) -> str:
    return "\n".join([question_of(ballot), *(side.answer for side in ballot.sides)])


def _ballot_html(ballot: Ballot) -> str:
    assert ballot.verdict is not None
    best = ballot.verdict.best
    verdict = {"tie": "tie", "bad": "all bad"}.get(ballot.verdict.kind) or f"✓ {ballot.sides[best or 0].variant}"
    marks = [verdict, *ballot.reasons, *([] if ballot.blind else ["names shown"]), ballot.category]
    marks += ["repeat"] if ballot.repeat_of is not None else []
    who = f"{html.escape(ballot.annotator)} · " if ballot.annotator else ""
    chips = "".join(f'<span class="mark">{html.escape(mark)}</span>' for mark in marks if mark)
    when = f"{who}{ballot.created_at:%Y-%m-%d %H:%M} · ballot {ballot.id}"
    sides = "".join(_side_html(ballot, position) for position in range(len(ballot.sides)))
    return (
        f'<details class="ballot"><summary><b>{html.escape(question_of(ballot)[:160])}</b>{chips}'
        f'<small>{when}</small></summary><div class="sides">{sides}</div></details>'
    )


def _side_html(ballot: Ballot, position: int) -> str:
    side = ballot.sides[position]
    marks = ["cut at the token limit"] if side.finish == "length" else []
    marks += [f"says who it is: {side.reveals}"] if side.reveals else []
    chips = "".join(f'<span class="mark">{html.escape(mark)}</span>' for mark in marks)
    is_best = ballot.verdict is not None and ballot.verdict.best == position
    header = f'<header><span class="dot dot-{position}"></span>{html.escape(side.variant)}{chips}</header>'
    answer = f'<div class="answer">{markdown(side.answer)}</div>'
    return f'<section class="chat{" best" if is_best else ""}">{header}{answer}</section>'
