"""`harness votes`: what people judged: counted, ranked, made into data, and forgotten where a person asks for it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.contract import Dataset
    from harness.measure.leaderboard import Leaderboard
    from harness.nouns import Ballot, DataItem
    from harness.votes.store import Ballots

DATABASE = click.option(
    "--votes", default="votes.db", show_default=True, metavar="DATABASE",
    help="The database: a SQLite file or a SQLAlchemy URL.",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(name="votes")
def votes() -> None:
    """Look at what people judged on the page, rank the variants, and make tuning data of it."""


@votes.command(name="list")
@DATABASE
@click.option("--annotator", metavar="NAME", help="Only those of this person.")
@click.option("--variant", metavar="NAME", help="Only those that this variant is on.")
@JSON
@click.pass_obj
def list_command(context: Context, votes: str, annotator: str | None, variant: str | None, as_json: bool) -> None:
    """List the ballots: when, whose, which variants in which order, and the verdict; what is void is counted."""
    its = [
        ballot
        for ballot in _opened(votes)
        if annotator in (None, ballot.annotator)
        and (variant is None or variant in [side.variant for side in ballot.sides])
    ]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(ballot) for ballot in its], indent=2, default=str))
        return
    from rich.markup import escape

    table = context.table("ballot", "when", "who", "sides", "verdict", "question")
    for ballot in its:
        if ballot.verdict is None:
            continue
        best = ballot.verdict.best
        verdict = ballot.verdict.kind if best is None else ballot.sides[best].variant
        sides = " | ".join(side.variant + (" (cut)" if side.finish == "length" else "") for side in ballot.sides)
        question = str(ballot.sides[0].messages[-1].get("content", "")) if ballot.sides[0].messages else ""
        table.add_row(
            str(ballot.id), f"{ballot.created_at:%Y-%m-%d %H:%M}", escape(ballot.annotator or "–"),
            escape(sides) + ("" if ballot.blind else " [dim](named)[/dim]"), escape(verdict), escape(question[:60]),
        )  # fmt: skip
    if table.row_count:
        context.console.print(table)
    states = Counter(ballot.state for ballot in its)
    context.console.print(", ".join(f"{count} {state}" for state, count in states.items()) or "no ballots")


@votes.command()
@DATABASE
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Also as one HTML file.")
@JSON
@click.pass_obj
def leaderboard(context: Context, votes: str, out: Path | None, as_json: bool) -> None:
    """Rank the variants by blind votes: strengths with intervals by person, and what speaks against the order.

    Ranks are shared while intervals overlap. The last line says how few votes change the order when they are dropped.
    """
    from harness.measure.leaderboard import leaderboard as ranked

    board = ranked(_opened(votes))
    if out is not None:
        from harness.files import write_text
        from harness.pages import page
        from harness_serve.standings import STYLE, standings_html

        lead = "Blind votes of people on answers side by side."
        write_text(out, page("Leaderboard", lead, standings_html(board), STYLE))
    if as_json:
        click.echo(json.dumps(_as_dict(board), indent=2))
        return
    from rich.markup import escape

    if board.problem:
        context.console.print(f"[yellow]no order yet[/yellow]: {escape(board.problem)}")
    if board.places:
        table = context.table("rank", "variant", "strength", "95 % interval", "win rate", "votes")
        for place in board.places:
            interval = "" if place.interval is None else f"{place.interval.low:+.2f} to {place.interval.high:+.2f}"
            figures = (f"{place.strength:+.2f}", interval, f"{place.win_rate.value:.0%}", str(place.votes))
            table.add_row(str(place.rank), escape(place.variant), *figures)
        context.console.print(table)
    left_out = "".join(f", {count} left out where {reason}" for reason, count in board.left_out.items())
    context.console.print(f"[dim]{board.votes} blind votes of {board.people} people{left_out}[/dim]")
    for line in board.warnings:
        context.console.print(f"[yellow]{escape(line)}[/yellow]", soft_wrap=True)


@votes.command()
@click.argument("out", type=click.Path(path_type=Path), metavar="FILE")
@DATABASE
@click.option("--both-bad", is_flag=True, help="Take answers that were all bad as rejected ones, alone.")
@click.pass_obj
def export(context: Context, out: Path, votes: str, both_bad: bool) -> None:
    """Write the votes as preferences (.jsonl or .parquet), for `dataset: preferences` and other tools.

    Ties, equal and empty answers and a better answer that was cut are left out, and counted. A SQLite file can also be
    tuned on as it is, with `dataset: votes`.
    """
    from harness.data.export import check_writable, write_items

    check_writable(out)
    dataset = context.plugins.datasets["votes"]
    lengths: list[tuple[int, int]] = []
    left_out: Counter[str] = Counter()
    options = {"both_bad": "reject" if both_bad else "leave_out"}
    written = write_items(_preferences(_opened(votes), dataset, options, left_out, lengths), out)
    click.echo(f"{out}: {written.rows} rows for `dataset: {written.form}`, sha256 {written.sha256[:12]}")
    for reason, count in left_out.items():
        click.echo(f"left out: {count}, {reason}")
    if lengths:
        longer = sum(chosen > rejected for chosen, rejected in lengths)
        means = [sum(side) / len(lengths) for side in zip(*lengths, strict=True)]
        click.echo(
            f"length: the better answer is the longer one in {longer} of {len(lengths)} "
            f"({means[0]:.0f} characters on average, the other {means[1]:.0f})"
        )


@votes.command()
@click.argument("annotator")
@DATABASE
@click.confirmation_option("--yes", prompt="Delete every ballot of this person, for good?")
def forget(annotator: str, votes: str) -> None:
    """Delete every ballot of a person, with what was asked and answered."""
    count = _opened(votes).forget(annotator)
    if not count:
        raise HarnessError(f"{votes} has no ballots of {annotator!r}")
    click.echo(f"{count} ballots of {annotator} are deleted")


def _opened(database: str) -> Ballots:
    """Open a votes database that is there. Raises HarnessError for a file that is not."""
    from harness.votes.store import Ballots, is_there

    if not is_there(database):
        raise HarnessError(f"{database}: no such votes database; `harness serve --votes {database}` keeps one")
    return Ballots(database)


def _preferences(
    ballots: Ballots, dataset: Dataset, options: dict[str, Any], left_out: Counter[str], lengths: list[tuple[int, int]]
) -> Iterator[DataItem]:
    """Yield the preferences that the dataset makes of each judged ballot; what it leaves out is counted."""
    from harness.data import LeftOut

    settings = dataset.options.model_validate(options)
    for ballot in ballots:
        if ballot.verdict is None or ballot.state == "void":
            continue
        converted = dataset.convert(_row(ballot), settings)
        if isinstance(converted, LeftOut):
            left_out[converted.reason] += 1
            continue
        for preference in converted:
            if preference.chosen:
                answers = (preference.chosen, preference.rejected)
                chosen, rejected = (sum(len(turn.content) for turn in its) for its in answers)
                lengths.append((chosen, rejected))
            yield preference


def _row(ballot: Ballot) -> dict[str, Any]:
    """Return a ballot as the row that `dataset: votes` reads."""
    assert ballot.verdict is not None
    sides = [
        {"variant": side.variant, "messages": side.messages, "answer": side.answer, "finish": side.finish}
        for side in ballot.sides
    ]
    return {
        "id": ballot.id,
        "system_prompt": ballot.system_prompt,
        "verdict": ballot.verdict.kind,
        "best": ballot.verdict.best,
        "sides": sides,
    }


def _as_dict(board: Leaderboard) -> dict[str, Any]:
    """Return the leaderboard as plain data, without its fit."""
    places = [place._asdict() | {"win_rate": place.win_rate.value} for place in board.places]
    pairs = {"wins": board.wins, "ties": board.ties}
    return {
        "votes": board.votes,
        "people": board.people,
        "left_out": board.left_out,
        "problem": board.problem,
        "places": places,
        **{name: [[*names, count] for names, count in counts.items()] for name, counts in pairs.items()},
        "never_compared": board.apart,
        "first_side": board.side._asdict(),
        "agreement": board.agreement,
        "fragility": None if board.fragility is None else board.fragility._asdict(),
        "warnings": board.warnings,
    }
