"""Events on their way to trackers: all are sent from here, and a tracker that fails does not stop the run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from harness.contract.events import Event, frozen
from harness.errors import ENDINGS, PluginError

if TYPE_CHECKING:
    from harness.plugins import Plugins
    from harness.recipe import TrackSpec

Receiver = Callable[[Event], None]


class Events:
    """Sends each event to every tracker, in order. One that raises is reported by name and not called again."""

    def __init__(self, receivers: Iterable[tuple[str, Receiver]] = ()) -> None:
        self._receivers = list(receivers)

    @classmethod
    def to(cls, trackers: Iterable[TrackSpec], plugins: Plugins) -> Events:
        """Return the events of a recipe's `track`, without those of a run whose plugin is gone.

        Raises PluginError for a tracker that cannot be created.
        """
        receivers = []
        for spec in (spec for spec in trackers if spec.tracker in plugins.trackers):
            entry = plugins.trackers.entry(spec.tracker)
            about = f"tracker {entry.name!r} of plugin {entry.plugin}"
            try:
                receiver = entry.item.create(spec)
            except ENDINGS:
                raise
            except BaseException as error:  # sys.exit() of a plugin must not end the run
                raise PluginError(f"{about}: create raised {type(error).__name__}: {error}") from error
            if not callable(receiver):
                raise PluginError(
                    f"{about}: create returned {receiver!r:.100}, expected a function that takes an event"
                )
            receivers.append((about, receiver))
        return cls(receivers)

    def send(self, event: Event) -> None:
        """Call every tracker with the event, which none of them can change for the others."""
        event = frozen(event)
        for about, receiver in list(self._receivers):
            try:
                receiver(event)
            except ENDINGS:
                raise
            except BaseException as error:
                self._receivers.remove((about, receiver))
                cause = f"{type(event).__name__}: {type(error).__name__}: {error}"
                print(f"warning: {about} is not called again; it failed at {cause}", file=sys.stderr)
