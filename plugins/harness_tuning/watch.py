"""Watches over a run: a loss that jumps, and a validation loss that no longer falls. Numbers only."""

from __future__ import annotations

import json
import statistics
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

WINDOW = 64  # losses that a new one is compared with
FEWEST = 16  # with fewer, nothing is called a spike
DEVIATIONS = 8.0  # of a normal distribution's standard deviations, estimated by the median absolute deviation
SHARE = 0.25  # of the median: what a loss that hardly varies must exceed beside
NORMAL = 1.4826  # standard deviations of a normal distribution in a median absolute deviation


@dataclass(slots=True)
class Spikes:
    """The last losses, to see when one is far above them."""

    losses: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    @classmethod
    def after(cls, losses: Iterable[float]) -> Spikes:
        """Return the state after these losses, those of a run that is resumed."""
        return cls(deque(losses, maxlen=WINDOW))

    def exceeded(self, loss: float) -> float | None:
        """Take a step's loss. Return the median of those before it where it is a spike, else None.

        A spike is above the median of the last 64 losses by more than 8 of their standard deviations, estimated by
        1.4826 times their median absolute deviation, and by more than a quarter of the median.
        """
        before = list(self.losses)
        self.losses.append(loss)
        if len(before) < FEWEST:
            return None
        median = statistics.median(before)
        deviation = NORMAL * statistics.median(abs(other - median) for other in before)
        return median if loss - median > max(DEVIATIONS * deviation, SHARE * abs(median)) else None


@dataclass(frozen=True, slots=True)
class Best:
    """The lowest validation loss after a step that was trained, and how many validations since brought nothing new.

    `reference` is the last loss that was lower than the one before it by more than `min_delta`.
    """

    step: int = 0
    loss: float | None = None
    reference: float | None = None
    stale: int = 0

    def after(self, step: int, loss: float, min_delta: float) -> Best:
        """Return what holds after a validation."""
        lowest = (step, loss) if self.loss is None or loss < self.loss else (self.step, self.loss)
        if self.reference is None or loss < self.reference - min_delta:
            return Best(*lowest, reference=loss)
        return Best(*lowest, reference=self.reference, stale=self.stale + 1)


def rewound(metrics: Path, size_bytes: int, cut: bool = True) -> Spikes:
    """Cut metrics.jsonl at the length it had at the checkpoint: the steps behind it are done again.

    Return the state of the watch over the losses that stay.
    """
    if not metrics.exists():
        return Spikes()
    if cut:
        with metrics.open("r+b") as file:
            file.truncate(size_bytes)
    kept = metrics.read_bytes()[:size_bytes].decode("utf-8")
    lines = map(json.loads, kept.splitlines())
    return Spikes.after(line["loss"] for line in lines if "loss" in line)
