"""Refusals of `auto`: what a file has, what the nearest dataset lacks or would lose, and recipe lines to paste.

Lines to paste are printed only after they were tried on the sampled rows: every row is read, and no column is lost.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import permutations

from harness.contract import Dataset
from harness.data.convert.accounting import is_empty
from harness.data.convert.fields import is_true_or_false, nearest_alternative, present_fields
from harness.data.convert.sample import SampledRows
from harness.errors import listed, nearest
from harness.nouns import Match, Row

MOST_RENAMED = 2  # columns that are proposed to be renamed
MOST_HINTS = 4
NEAR = 0.5  # the share of a dataset's needed fields from which on it is worth a mention
PASTE = "To paste into a recipe's `data.train`"

Try = Callable[[Dataset, Mapping[str, str]], Match]  # a dataset on the sampled rows, with further columns renamed


def lines_to_paste(dataset: str, seen: SampledRows, columns: Mapping[str, str] | None = None) -> str:
    """Return the source that reads a file as a dataset, as the lines of a recipe."""
    lines = [f"- dataset: {dataset}", f"  path: {_quoted(seen.path)}"]
    if renames := {**seen.columns, **(columns or {})}:
        lines.append(f"  columns: {{{', '.join(f'{ours}: {_quoted(theirs)}' for ours, theirs in renames.items())}}}")
    if seen.unread:
        lines.append(f"  unread: [{', '.join(map(_quoted, seen.unread))}]")
    return "".join(f"\n    {line}" for line in lines)


def _quoted(name: str) -> str:
    """Return a scalar as YAML; only plain words and paths need no quotes."""
    plain = name.replace("/", "").replace(".", "").replace("_", "").replace("-", "")
    is_word = plain.isalnum() and not plain.isdigit() and name[0] not in "-." and name.lower() not in _YAML_WORDS
    return name if is_word else "'" + name.replace("'", "''") + "'"


_YAML_WORDS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}


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


def nothing_fits(matches: list[Match], seen: SampledRows, datasets: Sequence[Dataset], attempt: Try) -> str:
    """Say what the rows have, and why the nearest datasets do not read them."""
    number, row = seen.rows[0]
    has = f"row {number} has {listed(present_fields(row), 12) or 'no fields'}"
    hints = list(_renamings(row, datasets, attempt))
    if near := [match for match in matches if match.named]:
        # Of several with these fields: one with marks of its own would have taken the rows; then those that read most.
        places = {dataset.name: (-dataset.rank, -sum(map(len, dataset.fields))) for dataset in datasets}

        def likelihood(match: Match) -> tuple[int, int]:
            rank, extent = places[match.dataset]
            return abs(rank), extent

        most = max(match.named for match in near)
        top = [match for match in near if match.named == most]
        if most >= len(present_fields(row)) and not any(match.unread for match in top):
            losing = [] if any(match.read for match in top) else [match for match in near if match.unread]
            return _unreadable(sorted(top, key=lambda match: (-match.read, likelihood(match))), seen.path) + (
                f". Others would lose a column:{_refusals(losing, places).rstrip()}" if losing else ""
            )
        message = f"no dataset fits: {has}; none reads that without loss:{_refusals(near, places)}"
    else:
        message = f"no dataset fits: {has}.{_not_rows(seen)}"
        nearness = max((nearest_alternative(dataset, row) for dataset in datasets), default=None)
        proposed = {dataset.name for dataset, _ in hints}
        if nearness and nearness.score[0] >= NEAR and (not hints or nearness.dataset in proposed):
            message += f" The nearest is {nearness.dataset!r}, which also needs {listed(nearness.missing)}"
    stop = "" if message.endswith("\n") else " " if message.endswith(".") else ". "
    if hints:
        shown = "".join(
            f"\n  if {' and '.join(f'{theirs!r} is its {ours}' for ours, theirs in columns.items())}:"
            f"{lines_to_paste(dataset.name, seen, columns)}"
            for dataset, columns in hints
        )
        return f"{message}{stop}{PASTE}:{shown}"
    return f"{message}{stop}`harness data list` shows what is known; another format is a plugin of 15 lines"


def _unreadable(top: list[Match], path: str) -> str:
    """Say why datasets that know all fields of the rows do not read them, the likeliest first."""
    best, *others = top
    message = (
        f"the rows have the fields of {best.dataset!r}, which reads {best.read:.0%} of them: {best.error}. "
        f"`harness data validate --dataset {best.dataset} {shlex.quote(path)}` shows every row that is wrong"
    )
    if best.read:
        message += "; `on_bad_row: drop` in the source leaves them out and counts them"
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
    near = [match for match in near if places[match.dataset][0] <= 0] or near
    near = losing_least(near)
    ordered = sorted(near, key=lambda match: (-match.named, len(match.unread), places[match.dataset]))
    some = [match for match in ordered if match.named >= ordered[0].named - 1][:MOST_HINTS]
    return "".join(f"\n  {match.dataset}: {match.error}" for match in some) + "\n"


def _renamings(row: Row, datasets: Iterable[Dataset], attempt: Try) -> Iterator[tuple[Dataset, dict[str, str]]]:
    """Yield datasets with columns to rename for them.

    These are names that may be meant, and a trial has shown that the rows fit.
    """
    candidates = []
    for dataset in datasets:
        near = nearest_alternative(dataset, row)
        unknown = [name for name in near.unknown if not is_empty(row[name])]
        fitting = [
            columns
            for columns in _pairings(near.missing, unknown)
            if all(_may_be(dataset, ours, theirs, row) for ours, theirs in columns.items())
        ]
        if len(fitting) == 1:  # of both orders of two answers, one would prefer the rejected answers
            candidates.append((len(fitting[0]), dataset.name, dataset, fitting[0]))
    shown = 0
    for _, _, dataset, columns in sorted(candidates, key=lambda candidate: candidate[:2]):
        match = attempt(dataset, columns)
        if match.read == 1 and not match.unread:
            yield dataset, columns
            shown += 1
        if shown == MOST_HINTS:
            return


def _may_be(dataset: Dataset, ours: str, theirs: str, row: Row) -> bool:
    """Return True for names much alike, for one with further words, and for a column of true and false as the label."""
    if ours == dataset.label and is_true_or_false(row[theirs]):
        return True
    return bool(nearest(ours, [theirs])) or ours in theirs.split("_")


def _pairings(missing: Iterable[str], unknown: Iterable[str]) -> Iterator[dict[str, str]]:
    """Yield each way to give every unknown column one of the missing names, where that is few and leaves none over."""
    ours, theirs = sorted(missing), sorted(unknown)
    if 0 < len(ours) == len(theirs) <= MOST_RENAMED:
        for order in permutations(theirs):
            yield dict(zip(ours, order, strict=True))


def _not_rows(seen: SampledRows) -> str:
    """Say what to do about a row that is more than one row, or less."""
    row = seen.rows[0][1]
    filled = [name for name, value in row.items() if not is_empty(value)]
    lists = [name for name in filled if isinstance(row[name], list) and isinstance(row[name][0], Mapping)]
    if len(seen.rows) == len(lists) == 1:
        others = listed(name for name in filled if name != lists[0])
        how = f"written into a file alone, they are read without {others}" if others else "write it alone into a file"
        return f" The list {lists[0]!r} may hold the rows: {how}."
    if present_fields(row) >= {"role", "content"}:
        return (
            ' A row with role and content is one message: a row of `messages` is {"messages": [...]}, a conversation.'
        )
    return ""
