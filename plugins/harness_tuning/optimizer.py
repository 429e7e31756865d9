"""AdamW on float32 copies of the trained weights, and the learning rate at each step.

The model computes in bf16; small updates would vanish there, so the weights that count are the copies. Gradients are
added into them in float32 as soon as autograd has computed them, and the bf16 gradient is let go.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from harness.errors import HarnessError
from harness.extras import require
from harness.recipe import TuneSpec
from harness_tuning.world import World, gathered, is_part, own_part, part_of


class MasterAdamW:
    """AdamW (Loshchilov & Hutter 2019, https://arxiv.org/abs/1711.05101) with float32 master weights.

    Of a weight that is shared out among processes, each has the master of its part.

    Args:
        rate_factor: from the name of a weight to the factor of its learning rate, such as LoRA+ sets for B.
        head: a module beside the model that is trained with it.
        world: the processes that have parts of weights, or gradients to add.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        spec: TuneSpec,
        rate_factor: Callable[[str], float] = lambda name: 1.0,
        head: torch.nn.Module | None = None,
        world: World | None = None,
    ) -> None:
        self.world = world or World()
        of_head = () if head is None else tuple(head.named_parameters("head"))
        named = [*model.named_parameters(), *of_head]
        self.of_head = {name for name, _ in of_head}
        self.weights = {name: weight for name, weight in named if weight.requires_grad}
        self.masters = {
            name: weight if weight.dtype == torch.float32 and not is_part(weight) else _master(weight)
            for name, weight in self.weights.items()
        }
        self.parts = {name for name, weight in self.weights.items() if is_part(weight)}
        for name, weight in self.weights.items():
            if self.masters[name] is not weight:
                weight.register_post_accumulate_grad_hook(_move_gradient_to(self.masters[name]))
        groups: dict[tuple[bool, float], list[Tensor]] = defaultdict(list)
        for name, master in self.masters.items():
            groups[master.ndim >= 2, rate_factor(name)].append(master)  # norms and biases do not decay
        self.adamw = _adamw(spec)(
            [
                {"params": masters, "weight_decay": spec.weight_decay if decays else 0.0, "rate_factor": factor}
                for (decays, factor), masters in sorted(groups.items(), key=lambda group: group[0], reverse=True)
            ],
            lr=spec.learning_rate,
            betas=(spec.beta1, spec.beta2),
        )
        self.is_broken = torch.zeros(())  # 1 after a gradient that was not finite

    @property
    def is_half(self) -> bool:
        """True where a weight that moves is float16, whose small gradients vanish unless they are scaled."""
        return any(weight.dtype == torch.float16 for weight in self.weights.values())

    def add_gradients(self) -> None:
        """Sum the gradients of all processes; those of parts are sums already."""
        self.world.add_gradients([master for name, master in self.masters.items() if name not in self.parts])

    def divide_gradients(self, divisor: float) -> None:
        """Divide the masters' gradients, in float32."""
        for master in self.masters.values():
            if master.grad is not None:
                master.grad.div_(divisor)

    def step(self, learning_rate: float, max_grad_norm: float | None) -> Tensor:
        """Update the weights once. Return the gradient's norm before it was clipped, on the device.

        A gradient that is not finite moves nothing, and neither does any after it: the weights stay as they were until
        somebody has looked at its norm. With torch's AdamW nothing waits for the device.
        """
        norm = self._norm()
        torch.nn.utils.clip_grads_with_norm_(list(self.masters.values()), max_grad_norm or math.inf, norm)
        self.is_broken = torch.maximum(self.is_broken.to(norm.device), (~torch.isfinite(norm)).float())
        if isinstance(self.adamw, torch.optim.AdamW):
            self.adamw.found_inf = self.is_broken  # which its fused kernel asks before it writes
        elif self.is_broken:
            self.adamw.zero_grad(set_to_none=True)
            return norm.detach()
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate * group["rate_factor"]
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)
        self.publish()
        return norm.detach()

    def _norm(self) -> Tensor:
        """Return the norm of the whole gradient."""
        whole, parts = (
            [
                master.grad
                for name, master in self.masters.items()
                if (name in self.parts) is of_parts and master.grad is not None
            ]
            for of_parts in (False, True)
        )
        norm = torch.nn.utils.get_total_norm(whole)
        return self.world.norm(norm, torch.nn.utils.get_total_norm(parts)) if self.parts else norm

    def publish(self) -> None:
        """Round the master weights into the model."""
        with torch.no_grad():
            for name, weight in self.weights.items():
                if self.masters[name] is not weight:
                    own_part(weight).copy_(self.masters[name])

    def state(self) -> dict[str, Tensor]:
        """Return everything an exact resume needs, as named tensors; of weights that are shared out, on the CPU.

        The other processes, which return nothing of those, call it too.
        """
        tensors = {}
        for name, master in self.masters.items():
            for key, value in {"master": master.detach(), **self.adamw.state[master]}.items():
                tensor = value if isinstance(value, Tensor) else torch.tensor(value)
                if name in self.parts:
                    tensor = gathered(self.weights[name], tensor).cpu()
                    if not self.world.is_main:
                        continue
                tensors[f"{key}/{name}"] = tensor
        return tensors

    def gathered_weights(self) -> dict[str, Tensor]:
        """Return the model's weights that are trained, whole and on the CPU. All processes call it."""
        model = {name: weight for name, weight in self.weights.items() if name not in self.of_head}
        return {name: gathered(weight, own_part(weight)).detach().cpu() for name, weight in model.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave, one tensor at a time. Raises KeyError where the weights are not the same ones."""
        kinds: dict[str, list[str]] = {name: [] for name in self.masters}
        for key in tensors:
            kind, _, name = key.partition("/")
            if name in kinds and kind != "master":  # else the random state
                kinds[name].append(kind)
        with torch.no_grad():
            for name, master in self.masters.items():
                weight = self.weights[name]
                master.copy_(part_of(weight, tensors[f"master/{name}"]))
                if kinds[name]:  # else no batch has reached it yet
                    self.adamw.state[master] = {
                        kind: self._as_it_was(kind, part_of(weight, tensors[f"{kind}/{name}"]), master.device)
                        for kind in kinds[name]
                    }
        self.publish()

    def _as_it_was(self, kind: str, value: Tensor, device: torch.device) -> Tensor | int:
        if kind != "step":
            return value.to(device)
        if not isinstance(self.adamw, torch.optim.AdamW):  # bitsandbytes counts in Python
            return int(value)
        return value.to(device if self.adamw.defaults["fused"] else "cpu")


OPTIMIZERS_8BIT = {"adamw_8bit": "AdamW8bit", "paged_adamw_8bit": "PagedAdamW8bit"}


def check_optimizer(spec: TuneSpec, device: torch.device) -> None:
    """Raise HarnessError where the optimizer that the recipe names cannot run on the device."""
    if spec.optimizer in OPTIMIZERS_8BIT:
        require("bitsandbytes", "quantization")
    if spec.optimizer == "paged_adamw_8bit" and device.type == "cpu":
        raise HarnessError(
            "tune.optimizer: paged_adamw_8bit moves its state between an accelerator and the CPU, and there is no "
            "accelerator here. Set tune.optimizer: adamw_8bit, which holds the same 8-bit state in memory"
        )


def _adamw(spec: TuneSpec) -> Callable[..., Any]:
    """Return the constructor of the optimizer that the recipe names."""
    if spec.optimizer in OPTIMIZERS_8BIT:
        constructor: Callable[..., Any] = getattr(
            require("bitsandbytes", "quantization").optim, OPTIMIZERS_8BIT[spec.optimizer]
        )
        return constructor
    return partial(torch.optim.AdamW, fused=True)  # one pass over each weight, on a CPU too


def _master(weight: Tensor) -> Tensor:
    """Return a float32 copy of what this process has of a weight."""
    return own_part(weight).detach().to(torch.float32, copy=True).requires_grad_()


def _move_gradient_to(master: Tensor) -> Callable[[Tensor], None]:
    def move(weight: Tensor) -> None:
        gradient = own_part(weight.grad).float()
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
