"""The pace of a run: tokens a second, model-FLOPs use, memory, and the time that is left."""

from __future__ import annotations

import time

import torch

from harness_tuning.device import peak_memory_bytes
from harness_tuning.flops import Work
from harness_tuning.learner import Figures
from harness_tuning.trial import Estimate

MEASURED_STEPS = 5  # that the trial before the first step counts for in the time that is left


class Pace:
    """The clock of a run's steps, from `go_on` to each step's figures.

    Args:
        peak_flops: operations a second that the devices of all processes do at most.
        steps_left: when this session began.
    """

    def __init__(
        self, work: Work, peak_flops: float, estimate: Estimate, steps_left: int, device: torch.device
    ) -> None:
        self.work, self.peak_flops, self.estimate, self.device = work, peak_flops, estimate, device
        self.steps_left, self.steps_done, self.began = steps_left, 0, time.perf_counter()
        self.last = self.began

    def go_on(self) -> None:
        """Begin to count anew, after something that was no step."""
        self.last = time.perf_counter()

    def of_step(self, figures: Figures) -> tuple[float, dict[str, float]]:
        """Return the seconds that a step took, and what they say of its pace."""
        now = time.perf_counter()
        seconds, self.last, self.steps_done = now - self.last, now, self.steps_done + 1
        flops = self.work.flops(figures.tokens, figures.supervised, figures.pairs)
        # What was measured before the first step counts as some steps, so that the time left does not jump about.
        measured = now - self.began + MEASURED_STEPS * self.estimate.step_seconds
        step_seconds = measured / (self.steps_done + MEASURED_STEPS)
        return seconds, {
            "tokens_per_s": round(figures.tokens / seconds, 1),
            "supervised_tokens_per_s": round(figures.supervised / seconds, 1),
            "padded_tokens_per_s": round(figures.padded / seconds, 1),
            "model_flops_use": float(f"{flops / seconds / self.peak_flops:.3g}"),
            "peak_memory_bytes": peak_memory_bytes(self.device),
            "seconds_left": round((self.steps_left - self.steps_done) * step_seconds, 3),
        }
