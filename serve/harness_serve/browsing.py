"""The kept ballots drawn as HTML, filtered: what was asked and answered, and the verdict."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from harness.nouns import Ballot
from harness_serve.markup import markdown

if TYPE_CHECKING:
    from harness.votes.store import Ballots

ON_A_PAGE = 20


class Filter(NamedTuple):
    """The ballots that are wanted; what is empty is not asked for."""

    person: str = ""
    variant: str = ""
    verdict: str = ""
    text: str = ""

    def of(self, ballots: Iterable[Ballot]) -> list[Ballot]:
        """Return the ballots that fit, the latest first."""
        return [ballot for ballot in ballots if self._fits(ballot)][::-1]

    def _fits(self, ballot: Ballot) -> bool:
        kind = ballot.verdict.kind if ballot.verdict else ""
        return (
            self.person in ("", ballot.annotator)
            and self.verdict in ("", kind)
            and (not self.variant or any(side.variant == self.variant for side in ballot.sides))
            and (not self.text or self.text.lower() in _texts(ballot).lower())
        )


def seen_by(ballots: Ballots, person: str) -> list[Ballot]:
    """Return the closed ballots that a person may see: their own; without a name, everyone's.

    A ballot that is not closed may still be judged, by someone who is not to know the names.
    """
    closed = ballots.matching(state="revealed", annotator=person) if person else ballots.matching(state="revealed")
    return [ballot for ballot in closed if ballot.verdict is not None]


def ballots_html(ballots: Sequence[Ballot], wanted: Filter, number: int = 0) -> str:
    """Return one page of ballots as HTML, with the link that downloads them all."""
    if not ballots:
        return '<p class="empty">No votes here yet. A vote appears once you go on from it.</p>'
    last = (len(ballots) - 1) // ON_A_PAGE
    first = min(number, last) * ON_A_PAGE
    shown = ballots[first : first + ON_A_PAGE]
    query = html.escape("?" + urlencode({name: value for name, value in wanted._asdict().items() if value}))
    counted = f"{first + 1} to {first + len(shown)} of {len(ballots)}"
    link = f'<a href="/votes.jsonl{query}" download="votes.jsonl">Download as JSONL</a>'
    return f'<p class="count"><span>{counted}</span>{link}</p>{"".join(map(_ballot_html, shown))}'


def rows(ballots: Iterable[Ballot]) -> str:
    """Return ballots as JSONL, the rows that `dataset: votes` reads."""
    return "".join(json.dumps(row_of(ballot), ensure_ascii=False) + "\n" for ballot in ballots)


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
    marks = ["cut at the most tokens"] if side.finish == "length" else []
    marks += [f"says who it is: {side.reveals}"] if side.reveals else []
    chips = "".join(f'<span class="mark">{html.escape(mark)}</span>' for mark in marks)
    is_best = ballot.verdict is not None and ballot.verdict.best == position
    header = f'<header><span class="dot dot-{position}"></span>{html.escape(side.variant)}{chips}</header>'
    answer = f'<div class="answer">{markdown(side.answer)}</div>'
    return f'<section class="chat{" best" if is_best else ""}">{header}{answer}</section>'
