"""Another tool's configuration on its way into a recipe: the keys, and what became of each of them.

Nothing is passed over silently: a key that no rule names is reported as not carried over, with its line.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml.comments import CommentedMap

# needless: a recipe does without it; left: it is lost, for a reason; unknown: no rule names it.
Outcome = Literal["carried", "changed", "needless", "left", "unknown"]
EMPTY: tuple[Any, ...] = (None, "", [], {}, False, 0)


@dataclass(frozen=True, slots=True)
class Line:
    """One key of the other tool, with its line in the file and its value, and what became of it."""

    line: int
    key: str
    value: Any
    outcome: Outcome
    became: str


@dataclass
class Carried:
    """A configuration that is read key by key, the recipe that comes of it, and the account of every key."""

    path: Path
    tree: CommentedMap
    recipe: dict[str, Any] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value without accounting for it; the default for an empty one."""
        value = self.tree.get(key)
        return default if value is None or value == "" else value

    def note(self, key: str, outcome: Outcome, became: str) -> None:
        """Account for a key that is there; one without a value needs no account."""
        if key not in self.tree or key in self.seen:
            return
        self.seen.add(key)
        if self.tree[key] is None or self.tree[key] == "":
            return
        self.lines.append(Line(self.tree.lc.key(key)[0] + 1, key, self.tree[key], outcome, became))

    def carry(self, key: str, where: str, value: Any = None) -> None:
        """Put a value at a place of the recipe, as it is unless another is given."""
        if self.get(key) is None:
            self.note(key, "carried", "")
            return
        value = self.tree[key] if value is None else value
        put(self.recipe, where, value)
        self.note(key, "carried", f"{where}: {_shown(value)}")

    def change(self, key: str, where: str, value: Any, why: str) -> None:
        """Put another value at a place of the recipe, and say why it is another."""
        put(self.recipe, where, value)
        self.note(key, "changed", f"{where}: {_shown(value)} ({why})")

    def spare(self, keys: Iterable[str], why: str) -> None:
        """Account for keys that a recipe does without, for a reason: none of them changes the result."""
        for key in keys:
            self.note(key, "needless", why)

    def lose(self, keys: Iterable[str], why: str, *, off: bool = False) -> None:
        """Account for keys that have no counterpart where they are on, or with `off` where they are switched off."""
        for key in keys:
            if (self.tree.get(key) is False) if off else (self.tree.get(key) not in EMPTY):
                self.note(key, "left", why)

    def finish(self) -> None:
        """Account for every key that no rule has named."""
        for key in self.tree:
            off = self.tree[key] in EMPTY
            self.note(key, "needless" if off else "unknown", "is off" if off else "no rule for this key")

    @property
    def account(self) -> list[Line]:
        """The lines in the order of the file."""
        return sorted(self.lines, key=lambda line: line.line)


def put(tree: dict[str, Any], where: str, value: Any) -> None:
    """Put a value at `tune.method.rank` of a tree."""
    *parents, last = where.split(".")
    for parent in parents:
        tree = tree.setdefault(parent, {})
    tree[last] = value


def _shown(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else text[:59] + "…"
