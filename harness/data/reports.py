"""Reports on data: what became of the rows of each source, counted as they pass from room to room."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

_OF_THIS_ROW = re.compile(r"\bfound .*|\b\d+\b", re.DOTALL)  # in the reason why a row cannot be converted
_MOST_REASONS = 20  # kinds of bad rows that are counted apart
_LONGEST_REASON = 160  # characters


@dataclass(slots=True)
class SourceReport:
    """Counts of the rows of one source, by what became of them.

    `rows` were read, `kept` items became of them, and what was left out is counted by reason in `left_out`. `used` is
    how often the kept items are used in all, since a mixture may repeat them; `tokens` and `supervised` count the
    tokens of that use. `escaped` counts the items that hold a control token's string, which stays text.
    `with_thoughts` counts the items that have thoughts; `one_an_answer` those that are one example an answer, and
    `examples` all examples of that use. `written_ends` counts the rows whose texts have line ends written as `\\n`,
    which stay as they are. `overlong` counts the items that were longer than the recipe's limit, `beyond_positions`
    those that were only longer than the model reaches. `parted` counts the items that became several, `parts` these, of
    all use. `weighted` counts the items with a weight other than 1, `weight` is the sum of all weights of that use.
    `lengths` counts `pairs` of a chosen and a rejected completion, those whose chosen one is `longer`, and the
    supervised tokens of the `chosen` and the `rejected` ones: what is tuned on them learns to write as long.
    `ids` are the ids of what was left out by reason, recorded by whoever sets it to a dict.
    """

    source: str
    path: str
    rows: int = 0
    kept: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    used: int = 0
    tokens: int = 0
    supervised: int = 0
    escaped: Counter[str] = field(default_factory=Counter)
    with_thoughts: int = 0
    examples: int = 0
    one_an_answer: int = 0
    written_ends: int = 0
    overlong: int = 0
    beyond_positions: int = 0
    parted: int = 0
    parts: int = 0
    weighted: int = 0
    weight: float = 0.0
    lengths: Counter[str] = field(default_factory=Counter)
    ids: dict[str, list[str]] | None = None

    def __str__(self) -> str:
        """Return how much of it was kept: of rows, or of items where rows became several."""
        rows = f"{self.rows:,} row{'' if self.rows == 1 else 's'}"
        if self.kept + self.left_out.total() > self.rows:
            return f"{self.kept:,} item{'' if self.kept == 1 else 's'} from {rows}"
        return f"{self.kept:,} of {rows}"

    def notes(self) -> list[str]:
        """Return what a person may want to say otherwise in the source, with the line for it."""
        if not self.written_ends:
            return []
        rows = f"{self.written_ends:,} row{' has' if self.written_ends == 1 else 's have'}"
        return [
            f"{Path(self.path).name}: {rows} `\\n` in a text, which stays these two characters. Where it means a line "
            f"end, as in FLAN's files, say so in the source: `unescape_newlines: true` "
            f"(of a FILE: `--set unescape_newlines=true`)"
        ]

    def leave_out(self, id: str, reason: str) -> None:
        """Count a row or item that is left out, and list it if the ids are asked for."""
        self.left_out[reason] += 1
        if self.ids is not None:
            self.ids.setdefault(reason, []).append(id)

    def drop_bad(self, id: str, dataset: str, reason: str) -> None:
        """Count a row that cannot be converted, by the kind of the reason: by what it says but for the row's own."""
        kind = " ".join(_OF_THIS_ROW.sub(lambda part: "N" if part[0].isdigit() else "found otherwise", reason).split())
        name = f"{dataset}: a bad row, {kind[:_LONGEST_REASON]}"
        if name not in self.left_out and sum(": a bad row, " in known for known in self.left_out) >= _MOST_REASONS:
            name = f"{dataset}: a bad row, for another reason"
        self.leave_out(id, name)


@dataclass(frozen=True, slots=True)
class Overlap:
    """A row that shares words with an evaluation item: both ids, and the text as it stands in the row."""

    id: str
    evaluation_id: str
    text: str

    def __str__(self) -> str:
        return f"{self.id} shares with {self.evaluation_id}: {self.text!r}"


@dataclass(slots=True)
class DataReport:
    """Counts of all rows of a recipe's training sources, complete once they have been prepared.

    `train` and `held_out` have a report for each source: of what is trained on, and of what is held out for
    validation. Of each report in `train`, rows that became one item each are `kept` or in `left_out`. `overlapping`
    counts the items that overlap with an evaluation item; `overlaps` are the first of them.
    """

    train: tuple[SourceReport, ...]
    held_out: tuple[SourceReport, ...]
    overlapping: int = 0
    overlaps: list[Overlap] = field(default_factory=list)

    def lines(self) -> list[str]:
        """Return the mixture as it came out, and what overlaps with the evaluations, for people."""
        out = [note for report in self.train for note in report.notes()] + mixture_lines(self.train)
        if self.overlapping:
            out.append(f"{self.overlapping:,} rows overlap with evaluation items, such as {self.overlaps[0]}")
        return out


def mixture_lines(reports: Sequence[SourceReport]) -> list[str]:
    """Return, for people, each source's share of the rows and, once encoded, of the supervised tokens."""
    if len(reports) < 2:
        return []
    used, supervised = (sum(getattr(report, name) for report in reports) for name in ("used", "supervised"))
    shares = (
        f"{report.source} {Path(report.path).name} {report.used / max(used, 1):.1%}"
        + (f" ({report.supervised / supervised:.1%})" if supervised else "")
        for report in reports
    )
    return [f"mixture, in rows{' (in supervised tokens)' if supervised else ''}: {', '.join(shares)}"]
