"""The leaderboard drawn as HTML: places with intervals, who beat whom, and what speaks against the order."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from harness import intervals
from harness.intervals import Scale

if TYPE_CHECKING:
    from harness.measure.leaderboard import Leaderboard, Place

STYLE = (
    intervals.STYLE
    + """\
.standings table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
.standings th, .standings td { text-align: left; padding: 8px 14px 8px 0; border: none; }
.standings tr { border-bottom: 1px solid var(--line); }
.standings thead th { color: var(--soft); font-weight: 500; font-size: .85rem; }
.standings tbody th { font-weight: 600; overflow-wrap: anywhere; }
.standings .rank { width: 3em; color: var(--soft); }
.standings .estimate { min-width: 120px; max-width: 340px; } .standings .zero { stroke: var(--line); }
.standings .count, .standings small { color: var(--soft); font-size: .85rem; }
.standings .warnings { color: var(--warm); font-size: .9rem; padding-left: 1.2em; }
.standings .matrix { overflow-x: auto; margin-top: 18px; } .standings summary { cursor: pointer; color: var(--soft); }
"""
)


def standings_html(board: Leaderboard) -> str:
    """Return the leaderboard as HTML without scripts, for the page and for a file."""
    parts = [f'<p class="count">{html.escape(counted(board))}</p>']
    if board.places:
        parts.append(_places_html(board.places))
        parts.append(f'<p class="count">{_explained(board)}</p>')
    elif board.problem and board.votes:
        parts.append(f'<p class="problem" role="status">No order yet: {html.escape(board.problem)}.</p>')
    if board.warnings:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in board.warnings)
        parts.append(f'<ul class="warnings">{lines}</ul>')
    if board.wins or board.ties:
        parts.append(_matrix_html(board))
    return f'<section class="standings">{"".join(parts)}</section>'


def counted(board: Leaderboard) -> str:
    """Return how many votes of how many people there are, and what was left out, as a sentence or two."""
    if not board.votes:
        return "No blind votes yet. They come from the arena, where names are hidden until the vote."
    people = "1 person" if board.people == 1 else f"{board.people} people"
    votes = f"{board.votes} blind vote{'' if board.votes == 1 else 's'} of {people}."
    left_out = ", ".join(f"{reason} ({count})" for reason, count in board.left_out.items())
    return f"{votes} Left out: {left_out}." if left_out else votes


def _explained(board: Leaderboard) -> str:
    parts = [
        "A strength that is 1 higher wins 73 % of the votes that are no tie (log odds).",
        "Lines are 95 % intervals that hold for all variants at once, with each person's votes taken together; "
        "variants whose order they leave open share a rank.",
    ]
    if board.agreement is not None:
        parts.append(
            f"People who judged the same answers agree by &alpha; = {board.agreement:.2f} (1: always; 0: as by chance)."
        )
    return " ".join(parts)


def _places_html(places: Sequence[Place]) -> str:
    ends = [end for place in places for end in (place.interval or (place.strength,))]
    scale = Scale.around(ends)
    rows = "".join(
        f'<tr><td class="rank">{place.rank}</td><th scope="row">{html.escape(place.variant)}</th>'
        f"<td>{_drawn(place, scale)}</td><td>{_signed(place.strength)}</td>"
        f"<td>{place.win_rate.value:.0%}</td><td>{place.votes}</td></tr>"
        for place in places
    )
    titles = "".join(f"<th>{title}</th>" for title in ("rank", "variant", "", "strength", "win rate", "votes"))
    return f'<table class="places"><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>'


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _drawn(place: Place, scale: Scale) -> str:
    """Return a strength with its interval on the scale that all places share."""
    label = _signed(place.strength)
    if (interval := place.interval) is not None:
        label += f", from {_signed(interval.low)} to {_signed(interval.high)}"
    return intervals.interval_svg(scale, place.strength, place.interval, "strength", label)


def _matrix_html(board: Leaderboard) -> str:
    """Return who beat whom: the wins of each row against each column, a tie counting half, of the votes on the two."""
    seen = {name for pair in (*board.wins, *board.ties) for name in pair}
    names = [place.variant for place in board.places if place.variant in seen]
    names += sorted(seen - set(names))
    titles = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    rows = "".join(
        f'<tr><th scope="row">{html.escape(name)}</th>'
        + "".join(f"<td>{_cell(board.wins, board.ties, name, other)}</td>" for other in names)
        + "</tr>"
        for name in names
    )
    return (
        '<details class="matrix"><summary>Who beat whom</summary><table><thead><tr><th></th>'
        f"{titles}</tr></thead><tbody>{rows}</tbody></table></details>"
    )


def _cell(wins: Mapping[tuple[str, str], float], ties: Mapping[tuple[str, str], float], name: str, other: str) -> str:
    if name == other:
        return ""
    won, tied = wins.get((name, other), 0.0), ties.get((name, other), 0.0)
    n = won + tied + wins.get((other, name), 0.0)
    return f"{(won + tied / 2) / n:.0%} <small>of {n:.3g}</small>" if n else "–"
