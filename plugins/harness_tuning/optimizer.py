"""AdamW on float32 copies of the trained weights, and the learning rate at each step.

The model computes in bf16; small updates would vanish there, so the weights that count are the copies. Gradients are
added into them in float32 as soon as autograd has computed them, and the bf16 gradient is let go.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from harness.recipe import TuneSpec


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) with float32 master weights."""

    def __init__(self, model: torch.nn.Module, spec: TuneSpec, head: torch.nn.Module | None = None) -> None:
        named = [*model.named_parameters(), *(head.named_parameters("head") if head is not None else ())]
        self.weights = {name: weight for name, weight in named if weight.requires_grad}
        self.masters = {
            name: weight if weight.dtype == torch.float32 else weight.detach().float().requires_grad_()
            for name, weight in self.weights.items()
        }
        for name, weight in self.weights.items():
            if self.masters[name] is not weight:
                weight.register_post_accumulate_grad_hook(_move_gradient_to(self.masters[name]))
        decayed = [master for master in self.masters.values() if master.ndim >= 2]
        others = [master for master in self.masters.values() if master.ndim < 2]  # norms and biases do not decay
        groups = [{"params": decayed, "weight_decay": spec.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.adamw = torch.optim.AdamW(
            [group for group in groups if group["params"]], lr=spec.learning_rate, betas=(spec.beta1, spec.beta2)
        )

    def step(self, learning_rate: float, max_grad_norm: float | None) -> float:
        """Update the weights once. Return the gradient's norm before it was clipped."""
        norm = torch.nn.utils.clip_grad_norm_(list(self.masters.values()), max_grad_norm or math.inf)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.publish()
        return float(norm)

    def publish(self) -> None:
        """Round the master weights into the model."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                if self.masters[name] is not weight:
                    weight.copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Return everything an exact resume needs, as named tensors."""
        tensors = {f"master/{name}": master.detach() for name, master in self.masters.items()}
        for name, master in self.masters.items():
            for key, value in self.adamw.state[master].items():
                tensors[f"{key}/{name}"] = value
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """Put back what `state` gave. Raises KeyError where the weights are not the same ones."""
        with torch.no_grad():
            for name, master in self.masters.items():
                master.copy_(tensors[f"master/{name}"])
                if f"step/{name}" not in tensors:  # no batch has reached it yet
                    continue
                self.adamw.state[master] = {
                    key: tensors[f"{key}/{name}"].clone().to("cpu" if key == "step" else master.device)
                    for key in ("step", "exp_avg", "exp_avg_sq")
                }
        self.publish()


def _move_gradient_to(master: Tensor) -> Callable[[Tensor], None]:
    def move(weight: Tensor) -> None:
        gradient = weight.grad.float()
        master.grad = gradient if master.grad is None else master.grad.add_(gradient)
        weight.grad = None

    return move


def learning_rate_at(step: int, total_steps: int, spec: TuneSpec) -> float:
    """Return the learning rate of step 1..total_steps: linear warm-up, then cosine or linear decay, or none.

    Without warm-up the first step has the whole learning rate, as the last step of a warm-up has.
    """
    warmup = max(1, math.ceil(spec.warmup_ratio * total_steps))
    if step <= warmup:
        return spec.learning_rate * step / warmup
    floor = spec.min_learning_rate_ratio
    done = (step - warmup) / (total_steps - warmup + 1)  # the last step still moves the weights
    shape = {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[spec.schedule]
    return spec.learning_rate * (floor + (1 - floor) * shape if spec.schedule != "constant" else 1.0)
