"""The memory that a batch takes, and the split and checkpointing with which a step fits into what is free.

The estimate runs the loss of the batch and its gradient once on tensors that have shapes and no contents (torch's
FakeTensorMode), and counts the bytes that are alive at once: activations, a chunk of logits, gradients. Beside it stand
the weights and the optimizer's gradients and moments; on a CPU, products that are kept compiled, of as many shapes as
are kept, and what the C library's allocator loses between blocks of batches of other sizes. Workspaces of kernels are
not counted: a tenth of the memory is left for these.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch._guards import detect_fake_mode
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.nn.utils.stateless import _reparametrize_module
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary
from transformers import masking_utils
from transformers.modeling_layers import GradientCheckpointingLayer

from harness.errors import first_line
from harness.model.buffers import KEPT_SHAPES, SHAPE_BYTES
from harness.model.forward import causal_lm
from harness.recipe import TuneSpec
from harness_tuning.batching import SMALLEST_TOKENS, Part, Split
from harness_tuning.device import free_memory_bytes, taken_bytes
from harness_tuning.learner import Learner, with_extras
from harness_tuning.sources import Epochs

USABLE = 0.9  # of the memory that is free
NEGLIGIBLE_BYTES = 2**28
CPU_GAPS = 0.25  # of a batch's bytes, which lie free between others; bench/memory.py saw 0.13 to 0.5
OPTIMIZER_BYTES = 4 + 8  # of a trained weight: its gradient and AdamW's two means, in float32
SHARES = (0.0, 0.5, 1.0)  # of the layers, whose activations are computed twice instead of kept
SEARCHED_STEPS = 200  # of the plan, for its widest batch


@dataclass(frozen=True, slots=True)
class Fit:
    """A split with which a step fits, the share of layers that are checkpointed, and what is taken at the peak.

    `growth_bytes` are those of the widest batch and of the optimizer, beside what was taken before; None where they are
    not estimated, with the reason where the model cannot be run on empty tensors.
    """

    split: Split
    checkpointed: float
    growth_bytes: int | None
    why_not: str | None = None

    def __str__(self) -> str:
        again = f", {self.checkpointed:.0%} of the layers computed twice" if self.checkpointed else ""
        return f"at most {self.split.positions:,} positions at once{again}"


def fit(learner: Learner, source: Epochs, spec: TuneSpec, begun: float | None = None) -> Fit:
    """Return the split and the checkpointing with which a step fits into the memory of every process, and apply them.

    `begun` is the share of checkpointed layers of a run that goes on; its split is in its checkpoint.
    """
    if learner.is_sharded:  # not estimated; smaller batches, where one runs out
        begun = begun or float(spec.gradient_checkpointing is not False)
    if begun is not None:
        checkpoint_layers(learner.model, begun)
        return Fit(source.split, begun, None)
    free = free_memory_bytes(learner.device)
    room = None if free is None else int(USABLE * free) - taken_bytes(learner.device)
    best = largest_fit(learner, source, spec, room)
    positions, share = learner.world.least([best.split.positions, -best.checkpointed], learner.device)
    source.split = replace(best.split, positions=int(positions))
    checkpoint_layers(learner.model, -share)
    return replace(best, split=source.split, checkpointed=-share)


def largest_fit(learner: Learner, source: Epochs, spec: TuneSpec, room: int | None) -> Fit:
    """Return the largest split with the fewest checkpointed layers whose step takes at most `room` bytes.

    Where none does, it is the smallest, and the trial tells. A model that is small beside the room is not estimated.
    """
    shares = SHARES if spec.gradient_checkpointing == "auto" else (float(spec.gradient_checkpointing),)
    whole, least = source.split, max(source.sizes.widest(), min(source.split.positions, SMALLEST_TOKENS))
    best = Fit(whole, shares[0], None)
    if room is None or bound_bytes(learner, whole.positions) < min(NEGLIGIBLE_BYTES, room):
        return best
    for share in shares:
        checkpoint_layers(learner.model, share)
        positions = whole.positions
        while True:
            source.split = replace(whole, positions=positions)
            try:
                growth = growth_bytes(learner, source, widest_part(source))
            except NotEstimated as error:
                return Fit(source.split, share, None, str(error))
            best = Fit(source.split, share, growth)
            if growth <= room:
                return best
            if spec.microbatch_tokens != "auto" or positions <= least:
                break
            scaled = int(positions * room / growth) if room > 0 else 0  # a part does not grow with it: it may take less
            positions = max(least, min(positions // 2, scaled))
    return best


def bound_bytes(learner: Learner, positions: int) -> int:
    """Return more bytes than a batch can take: four copies of what goes in and out of each linear layer, in float32."""
    linear = [module for module in learner.model.modules() if isinstance(module, torch.nn.Linear)]
    return int(16 * positions * sum(module.in_features + module.out_features for module in linear))


def widest_part(source: Epochs) -> Part:
    """Return the batch with the most positions among the first steps of the plan."""
    steps = range(1, min(source.total_steps, source.schedule.total_steps(1), SEARCHED_STEPS) + 1)
    return max((source.parts(step)[0] for step in steps), key=lambda part: part.positions)


class NotEstimated(Exception):
    """A model that does not compute on tensors without contents: one with kernels of its own, say."""


def growth_bytes(learner: Learner, source: Epochs, part: Part) -> int:
    """Return the bytes that a step with this batch takes beside the weights. Raises NotEstimated."""
    try:
        batch = batch_bytes(learner, source.batch(part))
    except Exception as error:  # whatever a model's own code raises; its batches are tried instead
        raise NotEstimated(f"{type(error).__name__}: {first_line(error)}") from error
    weight: Tensor = causal_lm(learner.model).get_input_embeddings().weight
    is_cpu = weight.device.type == "cpu"
    gaps = int(CPU_GAPS * batch) if is_cpu else 0
    compiled = KEPT_SHAPES * SHAPE_BYTES if is_cpu and weight.dtype != torch.float32 else 0  # float32's: not oneDNN's
    return batch + gaps + OPTIMIZER_BYTES * learner.trainable + compiled


def batch_bytes(learner: Learner, batch: Any) -> int:
    """Return the most bytes that the loss of a batch and its gradient hold at once, beside the weights."""
    mode = detect_fake_mode(list(learner.model.parameters())) or FakeTensorMode()
    learner.model.train()
    with _empty_weights(learner, mode) as weights, one_sequence_a_row(), mode, Held() as held:
        for weight in weights:
            held.leave_out(weight)
        some = _empty(batch, mode)
        with torch.no_grad():
            some = learner.prepared(some)
            if learner.objective.observe is not None:  # whose means cannot be read: any figures take their place
                seen = learner.objective.observe(learner.policy, [some], learner.options)
                some = with_extras(some, {name: some.figures(name, 0.0) for name in seen})
        # Not `learner.loss`, which compares with units that are counted from what the tensors hold.
        loss = learner.objective.loss(learner.policy, some, learner.options)
        loss.mean(dict.fromkeys(loss.terms, 1.0)).backward()
    return int(held.most)


@contextmanager
def one_sequence_a_row() -> Iterator[None]:
    """Keep transformers from looking for packed sequences in rows, which needs their contents; else it masks all rows.

    Rows that are packed have their mask already, or their documents beside it.
    """
    search = masking_utils.find_packed_sequence_indices
    masking_utils.find_packed_sequence_indices = lambda position_ids: None
    try:
        yield
    finally:
        masking_utils.find_packed_sequence_indices = search


@contextmanager
def _empty_weights(learner: Learner, mode: FakeTensorMode) -> Iterator[list[Tensor]]:
    """Put empty tensors in the place of all weights and buffers for the block; no gradient reaches the real ones."""
    modules = torch.nn.ModuleList([learner.model, *([learner.policy.head] if learner.policy.head else [])])
    known: dict[int, Tensor] = {}
    empty = {}
    for name, tensor in [*modules.named_parameters(remove_duplicate=False), *modules.named_buffers()]:
        if id(tensor) not in known:
            fake = _empty(tensor.detach(), mode).requires_grad_(tensor.requires_grad)
            if fake.requires_grad:
                fake.register_post_accumulate_grad_hook(_let_go)
            known[id(tensor)] = fake
        empty[name] = known[id(tensor)]
    with _reparametrize_module(modules, empty):
        yield list(known.values())


def _let_go(weight: Tensor) -> None:
    """Drop the gradient: it is added into the float32 one, which is counted for itself."""
    weight.grad = None


def _empty(value: Any, mode: FakeTensorMode) -> Any:
    """Return a value with every tensor in it exchanged for one that has its shape and no contents."""
    if isinstance(value, FakeTensor):
        return value.clone() if value.fake_mode is not mode else value.detach()
    if isinstance(value, Tensor):
        return mode.from_tensor(value)
    if isinstance(value, dict):
        return {key: _empty(one, mode) for key, one in value.items()}
    if isinstance(value, tuple):
        return tuple(_empty(one, mode) for one in value)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{one.name: _empty(getattr(value, one.name), mode) for one in fields(value)})
    return value


def checkpoint_layers(model: Any, share: float) -> None:
    """Let a share of the layers compute their activations again in the backward pass, instead of keeping them.

    Chen et al. 2016, https://arxiv.org/abs/1604.06174.
    """
    lm = causal_lm(model)
    if not share:
        if lm.is_gradient_checkpointing:
            lm.gradient_checkpointing_disable()
        return
    lm.gradient_checkpointing_enable({"use_reentrant": False})
    layers = [module for module in lm.modules() if isinstance(module, GradientCheckpointingLayer)]
    for layer in layers[round(share * len(layers)) :]:
        layer.gradient_checkpointing = False


class Held(TorchDispatchMode):  # type: ignore[misc,unused-ignore]  # torch types it where it is installed
    """Counts the bytes of all tensors that are made while it is on: those alive now, and at the most."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self._known = WeakIdKeyDictionary()
        self._left_out: list[torch.UntypedStorage] = []  # kept alive, since what is known is known by its identity

    def leave_out(self, tensor: Tensor) -> None:
        """Do not count this tensor, nor views of it."""
        self._left_out.append(storage := tensor.untyped_storage())
        self._known[storage] = True

    def add(self, tensor: Tensor) -> None:
        """Count a tensor until its memory is let go."""
        storage = tensor.untyped_storage()
        if storage not in self._known:
            self._known[storage] = True
            self.now += (size := storage.nbytes())
            self.most = max(self.most, self.now)
            weakref.finalize(storage, self._let_go, size)

    def _let_go(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out
