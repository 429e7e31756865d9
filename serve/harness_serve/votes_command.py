"""`harness votes`: what people judged: counted, ranked, made into data, and forgotten where a person asks for it."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError, known_names, nearest

if TYPE_CHECKING:
    from harness.contract import Dataset
    from harness.measure.leaderboard import Leaderboard
    from harness.nouns import Ballot, DataItem, Preference, Side
    from harness.plugins import Plugins
    from harness.run import Run
    from harness.votes.store import Ballots

DATABASE = click.option(
    "--votes", default="votes.db", show_default=True, metavar="DATABASE",
    help="The database: a SQLite file or a SQLAlchemy URL.",
)  # fmt: skip
CATEGORY = click.option("--category", metavar="NAME", help="Only votes on prompts of this category.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(name="votes")
def votes() -> None:
    """Look at what people judged on the page, rank the variants, and make tuning data of it."""


@votes.command(name="list")
@DATABASE
@click.option("--annotator", metavar="NAME", help="Only those of this person.")
@click.option("--variant", metavar="NAME", help="Only those that this variant is on.")
@CATEGORY
@JSON
@click.pass_obj
def list_command(
    context: Context, votes: str, annotator: str | None, variant: str | None, category: str | None, as_json: bool
) -> None:
    """List the ballots: when, whose, which variants in which order, and the verdict; what is void is counted."""
    its = list(_opened(votes))
    for of, wanted in (("annotator", annotator), ("variant", variant), ("category", category)):
        if wanted is not None:
            its = _only(its, votes, of, wanted)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(ballot) for ballot in its], indent=2, default=str))
        return
    from rich.markup import escape

    from harness_serve.browsing import question_of

    table = context.table("ballot", "when", "who", "sides", "verdict", "question")
    for ballot in its:
        if ballot.verdict is None:
            continue
        best = ballot.verdict.best
        verdict = ballot.verdict.kind if best is None else ballot.sides[best].variant
        sides = " | ".join(side.variant + _marks(side) for side in ballot.sides)
        question = question_of(ballot)
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
@click.option(
    "--control",
    default="",
    metavar="LOOKS",
    help="Compare at equal looks: `length`, `format` or `length,format` of the answers as covariates.",
)
@CATEGORY
@JSON
@click.pass_obj
def leaderboard(
    context: Context, votes: str, out: Path | None, control: str, category: str | None, as_json: bool
) -> None:
    """Rank the variants by blind votes: strengths with intervals by person, and what speaks against the order.

    Ranks are shared while intervals overlap. The last line says how few votes change the order when they are dropped.
    """
    from harness.measure.leaderboard import leaderboard as ranked
    from harness.measure.styled import COVARIATES

    controlled = [name.strip() for name in control.split(",") if name.strip()]
    if unknown := [name for name in controlled if name not in COVARIATES]:
        raise HarnessError(f"--control {unknown[0]}: expected {' or '.join(COVARIATES)}, or both as length,format")
    chosen = list(_opened(votes))
    board = ranked(chosen if category is None else _only(chosen, votes, "category", category), controlled)
    if out is not None:
        from harness.files import write_output
        from harness.pages import page
        from harness_serve.standings import STYLE, standings_html

        lead = "Blind votes of people on answers side by side."
        write_output(out, page("Leaderboard", lead, standings_html(board), STYLE))
        click.echo(f"written: {out}", err=as_json)
    if as_json:
        click.echo(json.dumps(_as_dict(board), indent=2))
        return
    from rich.markup import escape

    from harness_serve.standings import counted

    if board.problem and board.votes:
        context.console.print(f"[yellow]no order yet[/yellow]: {escape(board.problem)}", soft_wrap=True)
    if board.places:
        table = context.table("rank", "variant", "strength", "95 % interval", "win rate", "votes")
        for place in board.places:
            interval = "" if place.interval is None else f"{place.interval.low:+.2f} to {place.interval.high:+.2f}"
            figures = (f"{place.strength:+.2f}", interval, f"{place.win_rate.value:.0%}", str(place.votes))
            table.add_row(str(place.rank), escape(place.variant), *figures)
        context.console.print(table)
    else:
        for (winner, loser), count in sorted(board.wins.items()):
            ties, lost = board.ties.get((winner, loser), 0), board.wins.get((loser, winner), 0)
            shown = f"{winner} won {count:.3g} of {count + ties + lost:.3g} votes against {loser}"
            context.console.print(escape(shown), soft_wrap=True)
    for name, effect in board.effects.items():
        error = "" if effect.stderr is None else f" (standard error {effect.stderr:.2f})"
        where = "log odds for an answer that differs in it as much as answers usually do"
        context.console.print(f"[dim]{name}: {effect.value:+.2f}{error} {where}[/dim]", soft_wrap=True)
    context.console.print(f"[dim]{escape(counted(board))}[/dim]", soft_wrap=True)
    for line in board.warnings:
        context.console.print(f"[yellow]{escape(line)}[/yellow]", soft_wrap=True)


@votes.command()
@click.argument("out", type=click.Path(path_type=Path), metavar="FILE")
@DATABASE
@click.option("--both-bad", is_flag=True, help="With --form feedback: take answers that were all bad, too.")
@click.option(
    "--form",
    type=click.Choice(["preferences", "feedback", "messages"]),
    default="preferences",
    show_default=True,
    help="Pairs of a chosen and a rejected answer; single answers that are good or bad; or the chosen answers alone.",
)
@click.pass_obj
def export(context: Context, out: Path, votes: str, both_bad: bool, form: str) -> None:
    """Write the votes as tuning data (.jsonl or .parquet), for `dataset: preferences` and other tools.

    Ties, equal and empty answers and a better answer that was cut are left out, and counted. A SQLite file can also be
    tuned on as it is, with `dataset: votes`.
    """
    from harness.data.export import check_writable, write_items

    if both_bad and form != "feedback":
        raise HarnessError(f"--both-bad needs --form feedback: in {form} one answer is the better one")
    check_writable(out)
    dataset = context.plugins.datasets["votes"]
    lengths: list[tuple[int, int]] = []
    left_out: Counter[str] = Counter()
    options = {"both_bad": "reject" if both_bad else "leave_out"}
    preferences = _preferences(_opened(votes), dataset, options, left_out, lengths)
    written = write_items((item for preference in preferences for item in _in_form(preference, form)), out)
    click.echo(f"{out}: {written.rows} rows for `dataset: {written.form}`, sha256 {written.sha256[:12]}")
    for reason, count in left_out.items():
        click.echo(f"left out: {count}, {reason}")
    if lengths:
        click.echo(_length_bias(lengths))


@votes.command(name="tune")
@click.argument("recipe", type=click.Path(path_type=Path))
@DATABASE
@click.option("--run", "name", required=True, metavar="NAME", help="Name of the new run.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe.")
@click.option("--overwrite", is_flag=True, help="Remove a run of that name first.")
@click.option("--no-serve", is_flag=True, help="Stop after the comparison, and print the command that serves both.")
@click.option("--port", default=8000, show_default=True, help="Port of the endpoint.")
@click.option("--ui-port", default=7860, show_default=True, help="Port of the page.")
@click.pass_context
def tune_command(
    ctx: click.Context, recipe: Path, votes: str, name: str, sets: tuple[str, ...], overwrite: bool, no_serve: bool,
    port: int, ui_port: int,
) -> None:  # fmt: skip
    """Tune on the votes, compare the new variant with its parent, and serve both for the next round.

    RECIPE reads `dataset: votes`, as recipes/from-votes.yaml does; its votes are those of --votes. The parent is the
    run that the recipe goes on from (`method: from_run`), or else the base model. Each step is the command that is
    printed above it.
    """
    from harness.cli.steps import run_step
    from harness.run import Run

    context: Context = ctx.obj
    ballots = _opened(votes)
    if "://" in votes:
        raise HarnessError(
            f"--votes {votes}: `dataset: votes` reads SQLite files; `harness votes export` writes a file"
        )
    overrides = [f"--set={one}" for one in (*_sets_of_votes(recipe, votes, context.plugins), *sets)]
    lengths: list[tuple[int, int]] = []
    left_out: Counter[str] = Counter()
    pairs = sum(1 for _ in _preferences(ballots, context.plugins.datasets["votes"], {}, left_out, lengths))
    click.echo(f"{votes}: {pairs} pairs" + "".join(f"; {count} left out, {why}" for why, count in left_out.items()))
    if not lengths:
        raise HarnessError(
            f"{votes} has no vote to tune on: people vote on the page of `harness serve --votes {votes}`"
        )
    click.echo(_length_bias(lengths))
    run_step(ctx, "tune", str(recipe), "--run", name, *["--overwrite"] * overwrite, *overrides)
    run = Run.open(context.runs_folder / name, context.plugins)
    parent = _parent_of(run, context.plugins)
    run_step(ctx, "evaluate", parent, name, "--recipe", str(run.folder / "recipe.yaml"), "--backend", "local")
    run_step(ctx, "compare", parent, name)
    serve = ("serve", parent, name, "--votes", votes, "--port", str(port), "--ui-port", str(ui_port))
    if no_serve:
        click.echo(f"\nfor the next round: {context.typed(*serve)}")
    else:
        run_step(ctx, *serve)


@votes.command()
@click.argument("annotator")
@DATABASE
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
def forget(annotator: str, votes: str, yes: bool) -> None:
    """Delete every ballot of a person, with what was asked and answered. Asks first."""
    ballots = _opened(votes, reads=False)
    if not (theirs := _only(list(ballots), votes, "annotator", annotator)):
        raise HarnessError(f"{votes} has no ballots")
    counted = f"{len(theirs)} ballot{'s' if len(theirs) > 1 else ''} of {annotator}"
    if not yes:
        click.confirm(f"Delete {counted} from {votes}, with what was asked and answered, for good?", abort=True)
    ballots.forget(annotator)
    click.echo(f"deleted {counted}")


def _opened(database: str, *, reads: bool = True) -> Ballots:
    """Open a votes database that is there. Raises HarnessError for a file that is not."""
    from harness.votes.store import Ballots, is_there

    if not is_there(database):
        raise HarnessError(f"{database}: no such votes database; `harness serve --votes {database}` keeps one")
    return Ballots(database, reads=reads)


def _only(ballots: Sequence[Ballot], votes: str, of: str, wanted: str) -> list[Ballot]:
    """Return the ballots of an annotator or a category, or with a variant. Raises HarnessError where there are none."""
    kept = [ballot for ballot in ballots if wanted in _names(ballot, of)]
    if ballots and not kept:
        names = {name for ballot in ballots for name in _names(ballot, of)} - {""}
        there = f" There are: {known_names(sorted(names))}" if names else ""
        raise HarnessError(f"{votes}: no ballots of the {of} {wanted!r}.{nearest(wanted, names)}{there}")
    return kept


def _names(ballot: Ballot, of: str) -> list[str]:
    return [side.variant for side in ballot.sides] if of == "variant" else [getattr(ballot, of)]


def _length_bias(lengths: Sequence[tuple[int, int]]) -> str:
    """Return a line on the characters of better and worse answers: what is tuned on learns to write as long."""
    longer = sum(chosen > rejected for chosen, rejected in lengths)
    means = [sum(side) / len(lengths) for side in zip(*lengths, strict=True)]
    return (
        f"length: the better answer is the longer one in {longer} of {len(lengths)} "
        f"({means[0]:.0f} characters on average, the other {means[1]:.0f})"
    )


def _sets_of_votes(recipe: Path, votes: str, plugins: Plugins) -> list[str]:
    """Return overrides by which each `dataset: votes` of a recipe reads this database. Raises HarnessError for none."""
    from harness.recipe.document import plain, read_document

    data = plain(read_document(recipe).tree).get("data")
    train = data.get("train") if isinstance(data, dict) else None
    sources = train if isinstance(train, list) else []
    known = plugins.datasets
    names = [str(one.get("dataset")) if isinstance(one, dict) else "" for one in sources]
    at = [place for place, one in enumerate(names) if one in known and known[one] is known["votes"]]
    if not at:
        raise HarnessError(f"{recipe}: data.train has no `dataset: votes`, as {{dataset: votes, path: {votes}}}")
    return [f"data.train.{place}.path={Path(votes).resolve()}" for place in at]


def _parent_of(run: Run, plugins: Plugins) -> str:
    """Return the variant that a run began as: the run whose adapter it goes on from, or its base model."""
    method = run.recipe.tune.method
    starts_from = plugins.methods[method.name].starts_from
    if starts_from is None:
        return f"{run.name}@base"
    parent = starts_from(method).resolve().parent
    return parent.name if parent.parent == run.folder.resolve().parent else str(parent)


def _preferences(
    ballots: Ballots, dataset: Dataset, options: dict[str, Any], left_out: Counter[str], lengths: list[tuple[int, int]]
) -> Iterator[Preference]:
    """Yield the preferences that the dataset makes of each judged ballot; what it leaves out is counted."""
    from harness.data import LeftOut
    from harness_serve.browsing import row_of

    settings = dataset.options.model_validate(options)
    for ballot in ballots:
        if ballot.verdict is None or ballot.state == "void":
            continue
        if ballot.repeat_of is not None:
            left_out["earlier answers were shown again"] += 1
            continue
        converted = dataset.convert(row_of(ballot), settings)
        if isinstance(converted, LeftOut):
            left_out[converted.reason] += 1
            continue
        for preference in converted:
            if preference.chosen:
                answers = (preference.chosen, preference.rejected)
                chosen, rejected = (sum(len(turn.content) for turn in its) for its in answers)
                lengths.append((chosen, rejected))
            yield preference


def _in_form(preference: Preference, form: str) -> Iterator[DataItem]:
    """Yield a preference as it is, as single answers, or as the conversation with the chosen answer."""
    from harness.nouns import Conversation

    if form == "preferences":
        yield preference
    elif form == "feedback":
        id, both = preference.id, preference.chosen and preference.rejected
        if preference.chosen:
            yield dataclasses.replace(preference, rejected=(), id=f"{id}+" if both else id)
        if preference.rejected:
            yield dataclasses.replace(preference, chosen=(), id=f"{id}-" if both else id)
    elif preference.chosen:
        yield Conversation((*preference.prompt, *preference.chosen), id=preference.id)


def _marks(side: Side) -> str:
    """Return what a reader of the list should know of a side's answer."""
    return (" (cut)" if side.finish == "length" else "") + (" (says who it is)" if side.reveals else "")


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
        "first_to_finish": board.finish._asdict(),
        "effects": {name: effect._asdict() for name, effect in board.effects.items()},
        "agreement": board.agreement,
        "fragility": None if board.fragility is None else board.fragility._asdict(),
        "warnings": board.warnings,
    }
