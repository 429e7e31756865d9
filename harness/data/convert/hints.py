"""Refusals of `auto`: what a file has, what the nearest dataset lacks or would lose, and recipe lines to paste.

Lines to paste are printed only after they were tried on the sampled rows: every row is read, and no column is lost.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from difflib import get_close_matches
from itertools import permutations
from typing import NamedTuple

from harness.contract import Dataset
from harness.data.convert.accounting import MARK, MOST_ALIKE, as_yaml, is_empty
from harness.data.convert.fields import is_true_or_false, nearest_alternative, present_fields
from harness.data.convert.sample import SampledRows
from harness.errors import listed
from harness.nouns import Match, Row

MOST_RENAMED = 2  # columns that are proposed to be renamed
MOST_UNKNOWN = 6  # columns of which these are chosen
MOST_HINTS = 4
NEAR = 0.5  # the share of a dataset's needed fields from which on it is worth a mention
PASTE = "To paste into a recipe's `data.train` (of a FILE, the same as `--dataset NAME --set 'KEY=VALUE'`)"

Try = Callable[[Dataset, SampledRows], Match]  # a dataset on sampled rows
Recognised = Callable[[SampledRows], str | None]  # the dataset that fits sampled rows


def lines_to_paste(dataset: str, seen: SampledRows, columns: Mapping[str, str] | None = None) -> str:
    """Return the source that reads a file as a dataset, as the lines of a recipe."""
    lines = [f"- dataset: {dataset}", f"  path: {as_yaml(seen.path)}"]
    if renames := {**seen.columns, **(columns or {})}:
        lines.append(f"  columns: {{{', '.join(f'{ours}: {as_yaml(theirs)}' for ours, theirs in renames.items())}}}")
    if seen.key:
        lines.append(f"  rows: {as_yaml(seen.key)}")
    if seen.unread:
        lines.append(f"  unread: [{', '.join(map(as_yaml, seen.unread))}]")
    return "".join(f"\n    {line}" for line in lines)


def several_fit(datasets: Mapping[str, Dataset], rivals: list[Match], seen: SampledRows) -> str:
    """Say that several datasets fit equally well, with the lines to paste for each."""
    names = " and ".join(repr(rival.dataset) for rival in rivals)
    choices = "".join(
        f"\n  {match.dataset}: {datasets[match.dataset].description}; {match.why}{lines_to_paste(match.dataset, seen)}"
        for match in rivals
    )
    return (
        f"{names} fit equally well, so nothing is guessed. Name one, with --dataset on the command line. "
        f"{PASTE}, one of:{choices}"
    )


def nothing_fits(
    matches: list[Match], seen: SampledRows, datasets: Sequence[Dataset], attempt: Try, recognised: Recognised
) -> str:
    """Say what the rows have, why the nearest datasets do not read them, and which lines would make them readable."""
    number, row = seen.rows[0]
    present = present_fields(row)
    has = f"row {number} has {listed(present, 12) or 'no fields'}"
    # Of several with these fields: one with marks of its own would have taken the rows; then those that read most.
    places = {dataset.name: (-dataset.rank, -sum(map(len, dataset.fields))) for dataset in datasets}
    near = [match for match in matches if match.named]
    most = max((match.named for match in near), default=0)
    top = [match for match in near if match.named == most]
    if near and most >= len(present) and not any(match.unread for match in top):
        return _all_known(top, near, seen, places, {dataset.name: dataset.description for dataset in datasets})
    by_name = {dataset.name: dataset for dataset in datasets}
    tried = [(match, attempt(by_name[match.dataset], seen.without(match.unread))) for match in near]
    losing = [match for match, trial in tried if match.unread and trial.read]
    failing = [replace(match, error=trial.error, unread=()) for match, trial in tried if not trial.read]
    most_read = max((match.named for match in losing), default=0)
    reasons = losing + [match for match in failing if match.named > most_read] if losing else failing
    renamings = list(renaming_ways(seen, datasets, attempt))
    if reasons:
        message = f"no dataset fits: {has}; none reads that without loss:{_refusals(reasons, places)}"
    else:
        message = f"no dataset fits: {has}.{_not_rows(seen, recognised) or _nearest(row, datasets, renamings)}"
    if pasted := [
        f"\n  if {_meant(columns)}:{lines_to_paste(name, seen, columns)}"
        for name, columns, lost in renamings
        if not lost
    ]:
        return f"{_stopped(message)}{PASTE}:{''.join(pasted)}"
    for name, columns, lost in () if losing else renamings:
        message = _stopped(message) + (
            f"If {_meant(columns)}, {name!r} reads the rows, but for {listed(map(repr, lost))}, which would be lost; "
            f"to train without: {_in_a_line(name, seen, columns, lost)}"
        )
    if not reasons and not renamings and (texts := _plain(seen, datasets, attempt)):
        first = " (if the first line is no header, add one, or it is lost)" if number > 1 else ""
        return f"{_stopped(message)}{PASTE}, by what they mean{first}:{texts}"
    return f"{_stopped(message)}`harness data list` shows what is known; another format is a plugin of 15 lines"


def _stopped(message: str) -> str:
    return message if message.endswith("\n") else f"{message} " if message.endswith(".") else f"{message}. "


def _meant(columns: Mapping[str, str]) -> str:
    return " and ".join(f"{theirs!r} is its {ours}" for ours, theirs in columns.items())


def _in_a_line(dataset: str, seen: SampledRows, columns: Mapping[str, str], lost: Iterable[str]) -> str:
    """Return a source that renames columns and leaves others out, as one line of a recipe."""
    renames = ", ".join(f"{ours}: {as_yaml(theirs)}" for ours, theirs in {**seen.columns, **columns}.items())
    unread = ", ".join(map(as_yaml, (*seen.unread, *lost)))
    path = as_yaml(seen.path)
    return f"`- {{dataset: {dataset}, path: {path}, columns: {{{renames}}}, unread: [{unread}]}}`"


def plain_ways(seen: SampledRows, datasets: Iterable[Dataset], attempt: Try) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the datasets whose plainest rows these few texts can be, with the columns to rename, in each order."""
    names = list(dict.fromkeys(name for _, row in seen.rows for name, value in row.items() if not is_empty(value)))
    if {"role", "content"} <= set(names):  # messages, each on its own
        return
    if not all(isinstance(row.get(name), str) for _, row in seen.rows for name in names):
        return
    for dataset in datasets:
        for theirs in permutations(names) if len(dataset.plain) == len(names) <= MOST_RENAMED else ():
            columns = dict(zip(dataset.plain, theirs, strict=True))
            if attempt(dataset, seen.under(columns)).read == 1:
                yield dataset.name, columns


def _plain(seen: SampledRows, datasets: Iterable[Dataset], attempt: Try) -> str:
    """Return the lines that read rows of a few texts as the plainest rows of some datasets, in each order."""
    ways = plain_ways(seen, datasets, attempt)
    return "".join(f"\n  if {_meant(columns)}:{lines_to_paste(name, seen, columns)}" for name, columns in ways)


def _all_known(
    top: list[Match],
    near: list[Match],
    seen: SampledRows,
    places: Mapping[str, tuple[int, int]],
    descriptions: Mapping[str, str],
) -> str:
    """Say why the datasets that know every field of the rows do not read them, the likeliest first."""

    def likelihood(match: Match) -> tuple[bool, float, int, int]:
        rank, extent = places[match.dataset]
        names_another = any(repr(other.dataset) in str(match.error) for other in top)
        return names_another, -match.read, abs(rank), extent

    losing = [] if any(match.read for match in top) else [match for match in near if match.unread]
    losing = [match for match in losing if places[match.dataset][0] <= 0]
    top = [match for match in top if places[match.dataset][0] <= 0] or top
    return _unreadable(sorted(top, key=likelihood), seen.path, descriptions) + (
        f". Others would lose a column:{_refusals(losing, places).rstrip()}" if losing else ""
    )


def _unreadable(top: list[Match], path: str, descriptions: Mapping[str, str]) -> str:
    """Say why datasets that know all fields of the rows do not read them, the likeliest first."""
    best, *others = top
    message = (
        f"the rows have the fields of {best.dataset!r}, which reads {best.read:.0%} of them: {best.error}. "
        f"`harness data validate --dataset {best.dataset} {shlex.quote(path)}` shows every row that is wrong"
    )
    if best.read:
        message += "; `on_bad_row: drop` in the source leaves them out and counts them"
    message += f". {best.dataset!r} is: {descriptions[best.dataset]}"
    if also := [match for match in others if match.read == best.read][: MOST_HINTS - 1]:
        message += ". Other datasets have these fields too:"
        message += "".join(f"\n  {match.dataset}: {match.error}" for match in also)
    return message


def losing_least(matches: list[Match]) -> list[Match]:
    """Return the matches without those that would lose all that another would lose, and more."""
    losing = [set(match.unread) for match in matches if match.unread]
    return [match for match in matches if not any(other < set(match.unread) for other in losing)]


def _refusals(near: list[Match], places: Mapping[str, tuple[int, int]]) -> str:
    """Return the reasons of the datasets whose fields are there; those that know most of the rows first.

    If some would read the rows, but for columns, these are enough, with those that know as many fields; one that
    stands in for another needs no mention, and neither does one that would lose all that another loses, and more.
    """
    most = max((match.named for match in near if match.unread), default=0)
    near = [match for match in near if match.unread or match.named >= most]
    proper = max((match.named for match in near if places[match.dataset][0] <= 0), default=0)
    near = [match for match in near if places[match.dataset][0] <= 0 or match.named > proper]
    near = losing_least(near)
    ordered = sorted(near, key=lambda match: (-match.named, len(match.unread), places[match.dataset]))
    some = [match for match in ordered if match.named >= ordered[0].named - 1][:MOST_HINTS]
    return "".join(f"\n  {match.dataset}: {match.error}" for match in some) + "\n"


def _nearest(row: Row, datasets: Sequence[Dataset], renamings: Sequence[Renaming]) -> str:
    """Name the dataset whose fields the row comes nearest to, where one of its columns may be what is missing."""
    near = max((nearest_alternative(dataset, row) for dataset in datasets if not dataset.rank), default=None)
    proposed = {renaming.dataset for renaming in renamings}
    if near is None or not near.missing or near.score[0] < NEAR or len(near.unknown) < len(near.missing):
        return ""
    if proposed and near.dataset not in proposed:
        return ""
    return f" The nearest is {near.dataset!r}, which also needs {listed(near.missing)}."


class Renaming(NamedTuple):
    """A dataset, the columns to rename for it, and the columns that it would lose then."""

    dataset: str
    columns: dict[str, str]
    lost: tuple[str, ...]


def renaming_ways(seen: SampledRows, datasets: Iterable[Dataset], attempt: Try) -> Iterator[Renaming]:
    """Yield datasets with columns to rename for them, those that lose nothing first.

    These are names that may be meant, and a trial has shown that the rows fit.
    """
    row = seen.rows[0][1]
    candidates = []
    for dataset in datasets:
        near = nearest_alternative(dataset, row)
        unknown = [name for name in near.unknown if not is_empty(row[name])]
        fitting = [
            columns
            for columns in _pairings(near.missing, unknown)
            if all(_may_be(dataset, ours, theirs, row, len(columns) == 1) for ours, theirs in columns.items())
        ]
        # Of both orders of two answers, one would prefer the rejected answers.
        if len(fitting) == 1 and dataset.rank >= 0:
            lost = tuple(name for name in unknown if name not in fitting[0].values())
            candidates.append((len(lost), abs(dataset.rank), len(fitting[0]), dataset.name, dataset, fitting[0], lost))
    shown = 0
    for *_, dataset, columns, lost in sorted(candidates, key=lambda candidate: candidate[:4]):
        match = attempt(dataset, seen.under(columns).without(lost))
        if match.read == 1 and not match.unread:
            yield Renaming(dataset.name, columns, lost)
            shown += 1
        if shown == (1 if lost else MOST_HINTS):
            return


def _may_be(dataset: Dataset, ours: str, theirs: str, row: Row, is_alone: bool) -> bool:
    """Return True for names much alike, for one with further words, and for a column of true and false as the label.

    `is_alone` says that no other column is renamed: then ours may be the one with further words. A mark of what is not
    trained on is no label: an answer that is left out is not a bad one.
    """
    if ours == dataset.label and is_true_or_false(row[theirs]):
        return not MARK.search(theirs)
    return (
        bool(get_close_matches(ours, [theirs], 1, MOST_ALIKE))
        or ours in theirs.split("_")
        or (is_alone and theirs in ours.split("_"))
    )


def _pairings(missing: Iterable[str], unknown: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield each way to give the missing names to unknown columns, where these names are few."""
    ours, theirs = sorted(missing), sorted(unknown)
    if 0 < len(ours) <= MOST_RENAMED and len(ours) <= len(theirs) <= MOST_UNKNOWN:
        for order in permutations(theirs, len(ours)):
            yield dict(zip(ours, order, strict=True))


def _not_rows(seen: SampledRows, recognised: Recognised) -> str:
    """Say what to do about a row that is more than one row, or less."""
    row = seen.rows[0][1]
    filled = [name for name, value in row.items() if not is_empty(value)]
    lists = [name for name in filled if isinstance(row[name], list) and isinstance(row[name][0], Mapping)]
    if len(seen.rows) == 1 and lists and seen.key is None:
        ways = [
            f" The list {name!r} may hold the rows: `rows: {as_yaml(name)}` in the source (of a FILE: `--set "
            f"{shlex.quote(f'rows={as_yaml(name)}')}`) reads {len(row[name])} of them"
            + (f", as {dataset!r}" if (dataset := recognised(seen.within(name))) else "")
            + (f", and not {others}." if (others := listed(one for one in filled if one != name)) else ".")
            for name in lists[:MOST_HINTS]
        ]
        return "".join(ways)
    if present_fields(row) >= {"role", "content"}:
        return (
            ' A row with role and content is one message: a row of `messages` is {"messages": [...]}, a conversation.'
        )
    return ""
