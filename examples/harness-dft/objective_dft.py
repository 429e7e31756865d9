"""An objective in one file: DFT (Wu et al. 2025, https://arxiv.org/abs/2508.05629).

harness --plugin examples/harness-dft/objective_dft.py tune RECIPE --set tune.objective=dft

The loss of each token is that of `sft` times the token's own probability, through which no gradient goes: a token that
the model finds very unlikely pulls less. Once tuned, the run is evaluated, compared and served without this file.
"""

from __future__ import annotations

from typing import Any

import harness


class DftOptions(harness.Options):
    """Keys that `tune.objective` accepts beside the name. At least `floor` of each token's loss counts."""

    floor: float = 0.0


def loss(policy: Any, batch: Any, options: DftOptions) -> harness.Loss:
    """Return the sum over the supervised tokens, and the mean probability that these have."""
    logprobs = policy.logprobs(batch)
    probability = logprobs.detach().exp()
    total = -(probability.clamp(min=options.floor) * logprobs).sum()
    return harness.Loss(
        {"tokens": harness.Term(total)}, {"probability": harness.Metric(probability.sum(), len(probability))}
    )


def units(batch: Any) -> dict[str, float]:
    """Count the supervised tokens."""
    return {"tokens": batch.supervised}


@harness.hookimpl
def register_objectives(register: Any) -> None:
    register(harness.Objective("dft", "DFT: the likelihood, by how likely it is already", DftOptions, loss, units))
