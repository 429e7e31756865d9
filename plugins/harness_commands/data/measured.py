"""The figures of `harness data stats` and their names, for the terminal and for the page."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from harness.errors import DataError

if TYPE_CHECKING:
    from harness.data import SourceReport
    from harness.data.prepare.data_statistics import Lengths, Statistics


@dataclass(frozen=True)
class Measured:
    """The statistics of some data, the account of each source, and what was wrong on the way."""

    title: str
    statistics: Statistics
    reports: list[SourceReport]
    problems: list[DataError] = field(default_factory=list)
    max_tokens: int | None = None
    template: str | None = None
    no_tokens: str | None = None
    no_languages: str | None = None

    def as_dict(self) -> dict[str, Any]:
        found = self.statistics.as_dict()
        if self.max_tokens is not None and self.statistics.tokens.n:
            found["longer_than_max_tokens"] = round(self.statistics.tokens.share_above(self.max_tokens), 4)
        return found | {
            "files": [
                {"dataset": report.source, "path": report.path, "rows": report.rows, "kept": report.kept, "left_out": dict(report.left_out)}
                for report in self.reports
            ],
            "wrong": len(self.problems),
            "tokens_not_counted": self.no_tokens,
            "languages_not_told": self.no_languages,
        }  # fmt: skip


def summary_of(measured: Measured) -> list[tuple[str, str]]:
    """What is said of the data as a whole: names and values."""
    found = measured.statistics
    unit = "tokens" if found.tokens.n else "characters"
    rows = sum(report.rows for report in measured.reports)
    lines = [("rows read", f"{rows:,}")]
    if found.conversations:
        lines.append(("conversations", f"{found.conversations:,}"))
    if found.preferences:
        lines.append(("preferences", f"{found.preferences:,}"))
    lines.append(("exact duplicates", f"{found.duplicates:,} ({found.duplicates / found.items:.1%})"))
    if found.tokens.n:
        lines.append(("tokens", f"{found.tokens.total:,}"))
    lines += [
        ("characters", f"{found.characters.total:,}"),
        (f"{unit} learnt", f"{found.supervised_share:.1%}"),
    ]
    if found.tool_calls or found.with_tools:
        lines += [("tool calls", f"{found.tool_calls:,}"), ("tools offered in", f"{found.with_tools:,}")]
    if measured.max_tokens and found.tokens.n:
        above = found.tokens.share_above(measured.max_tokens)
        lines.append((f"longer than {measured.max_tokens:,} tokens", f"{above:.1%}"))
    if measured.problems:
        lines.append(("rows that are wrong", f"{len(measured.problems):,}"))
    return lines


def lengths_of(measured: Measured) -> list[tuple[str, Lengths]]:
    """The lengths that were counted, with what they count."""
    found = measured.statistics
    token = "tokens a sequence" if found.preferences else "tokens a conversation"
    named = [(token, found.tokens), ("characters", found.characters), ("turns", found.turns)]
    return [(name, lengths) for name, lengths in named if lengths.n]


def shares_of(measured: Measured) -> list[tuple[str, dict[str, int]]]:
    """What was counted by name: messages by role, items by language, script and source."""
    from harness.data.prepare.data_statistics import LANGUAGE_SAMPLE

    found = measured.statistics
    drawn = f" (of {LANGUAGE_SAMPLE:,} items drawn at random)" if found.is_language_sampled else ""
    languages = [(f"language{drawn}", dict(found.languages.most_common()))] if found.languages else []
    return [
        ("messages by role", dict(found.roles.most_common())),
        *languages,
        ("script", dict(found.scripts.most_common())),
        ("source", dict(found.sources.most_common())),
    ]
