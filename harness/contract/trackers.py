"""Trackers: what follows a run, by its events."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.contract.checking import require_functions, require_options, require_texts

if TYPE_CHECKING:
    from harness.contract.events import Event
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Tracker:
    """Follows a run. `create(options)` returns a function that is called with each event, in order.

    Events are frozen data, see `harness.contract.events`. A tracker that raises is reported and not called again; the
    run goes on. `default` switches it on in recipes that have no `track`; first-party only.
    """

    name: str
    description: str
    options: type[Options]
    create: Callable[[Any], Callable[[Event], None]]
    default: bool = False


def check_tracker(tracker: Tracker) -> None:
    """Refuse a declaration that would break where a recipe uses it. Raises PluginError."""
    require_functions(tracker, create="options")
    require_options(tracker)
    require_texts(tracker, "description")
