"""The lot that draws the arena's pairs: all alike, or those first whose votes say most about the order."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.votes.store import Ballots

EVERY = 10  # votes after which the chances are computed again


class Lot:
    """The chances of each pair of variants. `by_information` computes them from the votes so far."""

    def __init__(self, ballots: Ballots, *, by_information: bool = False) -> None:
        self.ballots = ballots
        self.by_information = by_information
        self._known: Mapping[frozenset[str], float] = {}
        self._at: tuple[Any, ...] = ()
        self._lock = threading.Lock()

    def weights(self, models: Sequence[str]) -> Mapping[frozenset[str], float] | None:
        """Return the chances of each pair, in any unit; None where all are alike."""
        if not self.by_information or len(models) < 3:
            return None
        from harness.measure.leaderboard import usable
        from harness.measure.pairing import pair_weights
        from harness.measure.strengths import outcomes_of

        with self._lock:
            now = (len(self.ballots) // EVERY, *models)
            if now != self._at:
                self._known, self._at = pair_weights(models, outcomes_of(usable(self.ballots)[0])), now
            return self._known
