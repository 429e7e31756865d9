"""The model as a run begins with it: its method applied, on its device or shared out, its probes measured on the base.

Where each process has the whole model, the base is measured before the method is applied. A model that is shared out
among processes (FSDP2) gets its adapter first, on the CPU, and is measured without it afterwards. Its adapter and the
output head, which the loss asks chunk by chunk, stay whole in every process.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import torch
from transformers.modeling_layers import GradientCheckpointingLayer

import harness
from harness.checks.methods import require_model
from harness.data import EncodedData
from harness.model.buffers import keep_few_shapes
from harness.model.forward import causal_lm, check_forward, decoder_of
from harness.model.kernels import CPU
from harness.model.load import Attention, fastest_attention, load_model
from harness.recipe import Recipe
from harness.template import BoundTemplate
from harness_tuning.device import free_memory_bytes
from harness_tuning.fit import computing
from harness_tuning.fused import fuse_adapters
from harness_tuning.fused_layers import NOT_HERE, FusedLayers, check_as_begun, fuse_layers, go_on_as
from harness_tuning.gates import check_applied
from harness_tuning.optimizer import OPTIMIZERS_8BIT
from harness_tuning.precision import in_float32, leave_to_itself
from harness_tuning.probes import choose_probes, mean_difference, measure_probes
from harness_tuning.world import World, shard

USABLE = 0.7  # of an accelerator's free memory, for weights and the optimizer; the rest is for a batch
BYTES_OF_TRAINED = 16  # a float32 copy, its gradient and two means


@dataclass(slots=True)
class Beginning:
    """A run's model before its first step, and what it was begun from.

    Args:
        starts_from: the folder of the adapter that the method goes on with, if it does.
        fused_before: what was fused when the run began that goes on.
        whole: why the run saves a merged model, where it does; `changes_base`: how the method changes the base.
        quantizing_changed: log-probabilities of the probes, in nats, on average.
        exact: the first probe of the base in float32.
        parameters: of the base; `size_bytes` is their size.
    """

    recipe: Recipe
    method: harness.Method
    data: Sequence[EncodedData]
    template: BoundTemplate
    device: torch.device
    world: World
    added: Sequence[int]
    whole: str | None
    changes_base: str | None
    starts_from: Path | None
    fused_before: Mapping[str, Any] | None
    model: Any = None
    is_sharded: bool = False
    attention: Attention = Attention("sdpa")  # noqa: RUF009 - it is frozen
    probes: list[dict[str, Any]] = field(default_factory=list)
    probes_of_base: list[list[float]] = field(default_factory=list)
    exact: list[list[float]] = field(default_factory=list)
    quantizing_changed: float | None = None
    fused: FusedLayers = FusedLayers(reason=NOT_HERE)  # noqa: RUF009 - it is frozen
    parameters: int = 0
    size_bytes: int = 0

    def load(self) -> Any:
        """Load the base model, and return it. One that is shared out has its adapter from here on."""
        spec, world = self.recipe.tune, self.world
        if spec.parallel == "fsdp" and world.size > 1 and (reason := self._why_not_shared_out()) is not None:
            raise harness.HarnessError(
                f"tune.parallel: fsdp shares the weights out among {world.size} processes, and {reason}. Use "
                f"tune.parallel: data, where each process has the whole model"
            )
        torch.manual_seed(spec.seed)
        keep_few_shapes()
        go_on_as(self.fused_before)
        with world.in_turn() if spec.parallel == "fsdp" else contextlib.nullcontext():  # one whole model on a machine
            base = load_model(
                self.recipe.model, for_tuning=True, added_ids=tuple(self.added), device=self._first_home()
            )
            self.parameters = sum(weight.numel() for weight in base.parameters())
            self.size_bytes = sum(weight.numel() * weight.element_size() for weight in base.parameters())
            self.is_sharded = self._is_to_be_shared_out()
            if self.is_sharded:
                with self._computing(f"the method {self.method.name}"):
                    self.model = self._applied(base)
                    self._share_out()
        return base

    def adapt(self, base: Any) -> None:
        """Apply the method to the base on its device, and measure the probes on the base."""
        self.probes = choose_probes(self.data[-1], self.template, self.recipe.data)
        if self.is_sharded:
            with _without_adapter(self.model):
                self._measure_base(base)
                self.exact = self._exactly(base)
        else:
            self._adapt_on_device(base)
        with self._computing(f"the method {self.method.name}"):
            check_applied(self.model, self.method.name, self.exact, self.probes, self.starts_from)

    def _adapt_on_device(self, base: Any) -> None:
        method = self.method
        if method.quantize is None:
            base = base.to(self.device)
        self._measure_base(base)
        with self._computing(f"the method {method.name}"):
            if method.quantize is not None:
                base = method.quantize(base, self.recipe.tune.method, self.device)
                self.quantizing_changed = mean_difference(measure_probes(base, self.probes), self.probes_of_base)
            self.exact = self._exactly(base)
            self.model = self._applied(base)

    def _first_home(self) -> torch.device:
        """Return the device to load the base on: the CPU where it may not fit on the accelerator as it is."""
        may_be_shared_out = self.world.size > 1 and self.recipe.tune.parallel != "data"
        return CPU if may_be_shared_out or self.method.quantize is not None else self.device

    def _measure_base(self, base: Any) -> None:
        with self._computing("the check of a few tokens"):
            self.attention = fastest_attention(base)
            check_forward(base, torch.tensor([list(self.data[0].examples[0].input_ids)], device=base.device))
            self.probes_of_base = measure_probes(base, self.probes)

    def _exactly(self, base: Any) -> list[list[float]]:
        with in_float32():
            return measure_probes(base, self.probes[:1])

    def _applied(self, base: Any) -> Any:
        model = self.method.apply(base, self.recipe.tune.method)
        require_model(model, self.method.name)
        model.train()
        fuse_adapters(model)
        if next(model.parameters()).device.type == self.device.type:  # else they are shared out later
            self.fused = fuse_layers(model)
            if (warning := check_as_begun(self.fused, self.fused_before)) is not None and self.world.is_main:
                click.echo(f"warning: {warning}", err=True)
        return model

    def _computing(self, what: str) -> AbstractContextManager[None]:
        return computing(self.recipe.model.path, what)

    def _is_to_be_shared_out(self) -> bool:
        """Return whether each process keeps a part of the weights: as the recipe says, or as memory asks for it."""
        world, wanted = self.world, self.recipe.tune.parallel
        if world.size == 1 or wanted != "auto":
            return world.size > 1 and wanted == "fsdp"
        free = None if self.device.type == "cpu" else free_memory_bytes(self.device)
        if free is None or self._why_not_shared_out() is not None:
            return False
        trained = self.parameters if self.method.produces == "model" else 0
        return world.any(self.size_bytes + BYTES_OF_TRAINED * trained > USABLE * free, self.device)

    def _why_not_shared_out(self) -> str | None:
        """Return what of the recipe does not go with weights that are shared out; None where all does."""
        if self.method.quantize is not None:
            return f"`method: {self.method.name}` has them in 4 bits, which cannot be gathered"
        if self.changes_base is not None:
            return f"the start of the adapter changes the base ({self.changes_base})"
        if self.whole is not None and self.method.produces == "adapter":
            return f"the run would save a merged model: {self.whole}"
        if self.method.produces == "model" and self.recipe.tune.optimizer in OPTIMIZERS_8BIT:
            return f"tune.optimizer: {self.recipe.tune.optimizer} rounds its state in blocks of whole weights"
        return None

    def _share_out(self) -> None:
        """Share out the decoder's weights layer by layer; what an adapter trains and the output head stay whole.

        Raises:
            HarnessError: where an adapter is on a tensor of stacked experts, which PEFT exchanges in each forward pass.
        """
        lm = causal_lm(self.model)
        decoder = decoder_of(lm)
        config = getattr(self.model, "peft_config", {}).get("default")
        if getattr(config, "target_parameters", None):
            raise harness.HarnessError(
                "tune.parallel: fsdp shares the weights out, and this adapter is on tensors of stacked experts, which "
                "PEFT exchanges while it computes. Set tune.method.experts: false, or use tune.parallel: data"
            )
        whole = {*lm.get_output_embeddings().parameters()}
        if self.method.produces == "adapter":
            whole |= {weight for weight in self.model.parameters() if weight.requires_grad}
        layers = [module for module in decoder.modules() if isinstance(module, GradientCheckpointingLayer)]
        units = [*layers, decoder]
        shard(units, whole, self.device)
        for unit in units:
            leave_to_itself(unit)
        lm._is_fsdp_managed_module = True  # so that `generate` goes on in all processes until the last is done


@contextlib.contextmanager
def _without_adapter(model: Any) -> Iterator[None]:
    """Compute as the base does, for the block; a model without an adapter is the base."""
    with model.disable_adapter() if hasattr(model, "disable_adapter") else contextlib.nullcontext():
        yield
