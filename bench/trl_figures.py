"""Losses of TRL's own trainers on given log-probabilities, which tests/tuning/test_losses.py compares ours with.

    .venv-trl/bin/python bench/trl_figures.py

writes tests/data/trl_losses.json. Each loss is TRL's own code: its trainer's method is called with a model that
answers with the log-probabilities below.
"""

from __future__ import annotations

import json
from collections import defaultdict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import MagicMock

import torch
import trl
from trl.experimental.cpo.cpo_trainer import CPOTrainer
from trl.experimental.orpo.orpo_trainer import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer

OUT = Path(__file__).resolve().parents[1] / "tests" / "data" / "trl_losses.json"
PAIRS, LENGTH = 8, 24


def main() -> None:
    """Draw log-probabilities, ask TRL for the losses, and write both."""
    torch.manual_seed(0)
    lengths = torch.randint(2, LENGTH, (2 * PAIRS,))
    mask = (torch.arange(LENGTH + 1)[None] < 1 + lengths[:, None]) & (torch.arange(LENGTH + 1)[None] > 0)
    policy = -torch.rand(2 * PAIRS, LENGTH) * 4 * mask[:, 1:]
    reference = -torch.rand(2 * PAIRS, LENGTH) * 4 * mask[:, 1:]
    given = {
        "lengths": lengths.tolist(),  # the chosen completions', then the rejected ones'
        "logprobs": policy.sum(1).tolist(),
        "reference": reference.sum(1).tolist(),
    }
    completions = Completions(policy, reference, mask, lengths)
    losses = {
        "dpo": [
            figures(partial(dpo, completions), loss=loss, beta=beta, label_smoothing=smoothing)
            for loss, beta, smoothing in (
                ("sigmoid", 0.1, 0.0), ("sigmoid", 0.5, 0.0), ("ipo", 0.1, 0.0), ("ipo", 0.4, 0.0),
                ("robust", 0.1, 0.1), ("robust", 0.3, 0.4),
            )
        ],
        "kto": [
            figures(partial(kto, completions), beta=beta, desirable_weight=good, undesirable_weight=bad, kl=kl)
            for beta, good, bad, kl in (
                (0.1, 1.0, 1.0, 0.0), (0.1, 1.33, 1.0, 2.5), (0.5, 0.7, 1.2, 0.8), (0.1, 1.0, 1.0, -3.0),
            )
        ],
        "orpo": [figures(partial(orpo, completions), beta=beta) for beta in (0.1, 1.0)],
        "simpo": [
            figures(partial(simpo, completions), beta=beta, gamma_beta_ratio=ratio, label_smoothing=smoothing)
            for beta, ratio, smoothing in ((2.0, 0.5, 0.0), (10.0, 0.3, 0.0), (2.5, 0.55, 0.1))
        ],
    }  # fmt: skip
    scores, margins = torch.randn(2 * PAIRS) * 2, torch.rand(PAIRS)
    given |= {"scores": scores.tolist(), "margins": margins.tolist()}
    losses["reward"] = [
        {"margins": with_margins, "center": center, "value": reward(scores, margins if with_margins else None, center)}
        for with_margins, center in ((False, 0.0), (True, 0.0), (True, 0.01))
    ]
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(
        json.dumps({"trl": trl.__version__, "torch": torch.__version__, **given, "losses": losses}, indent=1) + "\n"
    )
    print(f"{OUT}: TRL {trl.__version__}")


def trainer(**attributes: Any) -> Any:
    """Return what a trainer's method asks of `self`."""
    accelerator = MagicMock(device=torch.device("cpu"))
    accelerator.gather.side_effect = accelerator.gather_for_metrics.side_effect = lambda value: value
    metrics: Any = defaultdict(lambda: defaultdict(list))
    return SimpleNamespace(
        accelerator=accelerator, _metrics=metrics, _total_train_tokens=0, _tp_size=1, aux_loss_enabled=False,
        model=SimpleNamespace(training=True), args=SimpleNamespace(gradient_checkpointing_kwargs=None),
        precompute_ref_logps=True, **attributes,
    )  # fmt: skip


def answering(logprobs: torch.Tensor) -> Any:
    """Return a model whose log-probabilities are these [d, s]."""
    zeros = torch.zeros_like(logprobs)
    return lambda **inputs: SimpleNamespace(
        log_probs=logprobs, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool(), log_sum_sq_probs=zeros
    )


class Completions(NamedTuple):
    """Log-probabilities of tokens [d, s] under policy and reference, the completions' mask and lengths."""

    policy: torch.Tensor
    reference: torch.Tensor
    mask: torch.Tensor
    lengths: torch.Tensor

    def inputs(self) -> dict[str, torch.Tensor]:
        """Return the batch that both trainers with a reference take."""
        ids = torch.zeros_like(self.mask, dtype=torch.long)
        return {"input_ids": ids, "attention_mask": ids + 1, "completion_mask": self.mask.long()}

    def means(self) -> tuple[torch.Tensor, ...]:
        """Return the mean log-probabilities a token of the chosen and of the rejected completions."""
        return (self.policy.sum(1) / self.lengths).chunk(2)


def figures(of: Any, **options: Any) -> dict[str, Any]:
    """Return the options with the loss that TRL has for them."""
    return {**options, "value": of(**options)}


def dpo(given: Completions, *, loss: str, beta: float, label_smoothing: float) -> float:
    """Return the mean loss of the pairs."""
    own = trainer(
        beta=beta, label_smoothing=label_smoothing, loss_types=[loss], loss_weights=[1.0], ld_alpha=None,
        f_divergence_type="reverse_kl", use_weighting=False,
    )  # fmt: skip
    chosen, rejected = given.reference.sum(1).chunk(2)
    inputs = given.inputs() | {"ref_chosen_logps": chosen, "ref_rejected_logps": rejected}
    return float(DPOTrainer._compute_loss(own, answering(given.policy), inputs, False))


def kto(given: Completions, *, beta: float, desirable_weight: float, undesirable_weight: float, kl: float) -> float:
    """Return the mean loss of the completions, given the mean log-ratio of the mismatched pairs."""
    own = trainer(
        beta=beta, desirable_weight=desirable_weight, undesirable_weight=undesirable_weight, loss_type="kto",
        calculate_KL=True,
    )  # fmt: skip
    own._compute_kl_logps = lambda model, batch: torch.full((2 * PAIRS,), kl)
    inputs = given.inputs() | {
        "label": torch.tensor([True] * PAIRS + [False] * PAIRS),
        "ref_logps": given.reference.sum(1),
        "ref_KL_logps": torch.zeros(2 * PAIRS),
    }
    return float(KTOTrainer._compute_loss(own, answering(given.policy), inputs, False))


def orpo(given: Completions, *, beta: float) -> float:
    """Return the mean of the odds ratio's part of the loss, with its weight."""
    return -float(ORPOTrainer.odds_ratio_loss(trainer(beta=beta), *given.means())[0].mean())


def simpo(given: Completions, *, beta: float, gamma_beta_ratio: float, label_smoothing: float) -> float:
    """Return the mean loss of the pairs."""
    gamma = gamma_beta_ratio * beta
    own = trainer(beta=beta, simpo_gamma=gamma, label_smoothing=label_smoothing, loss_type="simpo", alpha=0.0)
    return float(CPOTrainer.cpo_loss(own, *given.means())[0].mean())


def reward(scores: torch.Tensor, margins: torch.Tensor | None, center: float) -> float:
    """Return the mean loss of the pairs."""
    own = trainer()
    own.args.center_rewards_coefficient = center or None
    inputs = {"attention_mask": torch.ones(2 * PAIRS, 2)} | ({} if margins is None else {"margin": margins})
    return float(RewardTrainer.compute_loss(own, lambda **inputs: SimpleNamespace(logits=scores[:, None]), inputs))


if __name__ == "__main__":
    main()
