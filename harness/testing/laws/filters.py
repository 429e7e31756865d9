"""Laws of filters: a verdict on any item, in few words, and the same in every pass."""

from __future__ import annotations

from typing import Any

from harness.contract.kinds import Kind
from harness.errors import HarnessError, shown
from harness.nouns import Conversation, DataItem, Preference
from harness.plugins.registry import Entry
from harness.testing.laws.items import conversations, preferences
from harness.testing.laws.law import Doubtful, Kit, NotTried

LONGEST_REASON = 80  # characters


def judges_any_item(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require None or a short reason for conversations and preferences."""
    judge = _created(kit, kind, entry)
    if not callable(judge):
        raise HarnessError(f"create returned {judge!r:.80}, expected a function that takes an item")
    for item in _items():
        verdict = judge(item)
        if verdict is not None and (not isinstance(verdict, str) or not verdict.strip()):
            raise HarnessError(f"it gave {verdict!r:.80} for {_name(item)}, expected None or a reason in a few words")
        if verdict and len(verdict) > LONGEST_REASON:
            raise Doubtful(
                f"its reason has {len(verdict)} characters: {shown(verdict)}. Reasons are counted; keep it short"
            )


def judges_the_same_in_every_pass(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require equal verdicts of two passes: `create` makes a function with a state of its own."""
    first, second = (list(map(_created(kit, kind, entry), _items())) for _ in range(2))
    for item, one, other in zip(_items(), first, second, strict=True):
        if one != other:
            raise HarnessError(f"the second pass judges {_name(item)} otherwise: {one!r}, then {other!r}")


LAWS = {"any item gets a verdict": judges_any_item, "passes agree": judges_the_same_in_every_pass}


def _created(kit: Kit, kind: Kind, entry: Entry[Any]) -> Any:
    """Return the function that judges. Raises NotTried where the filter refuses its own defaults."""
    try:
        return entry.item.create(kit.options(kind, entry))
    except HarnessError as error:
        raise NotTried(f"{error} (--set {entry.name}.KEY=VALUE)") from error


def _items() -> list[Conversation | Preference]:
    return [*conversations(), *preferences()]


def _name(item: DataItem) -> str:
    return f"a {type(item).__name__}"
