"""The processes that tune together, and what each has of the weights. `launch` starts them.

Only these two files know torch.distributed.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

# The others wait while the main process encodes data. One that ends is noticed at once, by its closed connection or by
# the agent that started it.
PATIENCE = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that tune one run: its rank, and how many there are, on all machines and on this one.

    `restarts` counts how often all of them were started again, after one had failed. `positions` is the size of a batch
    that they are to begin with where one ran out of memory.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: int = 0
    positions: int | None = None

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[World]:
        """Join the processes that an agent of torchrun's kind started, for the block; else be one process alone."""
        numbers = {name: int(os.environ.get(name, default)) for name, default in NUMBERS.items()}
        rank, size, local_rank, local_size, restarts = numbers.values()
        if size == 1:
            yield cls(restarts=restarts)
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(local_rank)
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
        try:
            yield cls(rank, size, local_rank, local_size, restarts, int(os.environ.get(POSITIONS, 0)) or None)
        finally:
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Return whether this process writes to the run and talks to people."""
        return self.rank == 0

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Run the block in the main process, then in the others, which see what it has written."""
        if self.size > 1 and not self.is_main:
            dist.barrier()
        yield
        if self.size > 1 and self.is_main:
            dist.barrier()

    def wait_for_all(self) -> None:
        """Return when all processes have come here."""
        if self.size > 1:
            dist.barrier()

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Run the block in one process of each machine after the other."""
        turns = self.local_size if self.size > 1 else 0
        for _ in range(self.local_rank if turns else 0):
            dist.barrier()
        yield
        for _ in range(turns - self.local_rank):
            dist.barrier()

    def any(self, flag: bool, device: torch.device) -> bool:
        """Return whether the flag is set in any process."""
        return self.sum({"flag": flag}, device)["flag"] > 0

    def sum(self, figures: Mapping[str, float], device: torch.device) -> dict[str, float]:
        """Return each figure summed over all processes, in float64. All of them call it with the same names."""
        if self.size == 1:
            return dict(figures)
        names = sorted(figures)
        values = torch.tensor([figures[name] for name in names], dtype=torch.float64, device=device)
        dist.all_reduce(values)
        return dict(zip(names, values.tolist(), strict=True))

    def sum_tensors(self, tensors: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
        """Return tensors on the CPU summed over all processes. All of them call it with the same names and shapes."""
        if self.size == 1:
            return dict(tensors)
        summed = {}
        for name in sorted(tensors):
            total = tensors[name].to(device)
            dist.all_reduce(total)
            summed[name] = total.cpu()
        return summed

    def least(self, figures: Sequence[float], device: torch.device) -> list[float]:
        """Return the least of each figure over all processes."""
        if self.size == 1:
            return list(figures)
        values = torch.tensor(figures, dtype=torch.float64, device=device)
        dist.all_reduce(values, dist.ReduceOp.MIN)
        least: list[float] = values.tolist()
        return least

    def add_gradients(self, masters: Sequence[Tensor]) -> None:
        """Sum the gradients of float32 weights over all processes, in one exchange."""
        if self.size == 1 or not masters:
            return
        gradients = [torch.zeros_like(master) if master.grad is None else master.grad for master in masters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for master, part in zip(masters, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            master.grad = part.view_as(master)

    def copy_from_main(self, weights: Iterable[Tensor]) -> None:
        """Give weights that every process has as a whole the values of the main process's."""
        if self.size > 1:
            for weight in weights:
                dist.broadcast(weight.detach(), 0)

    def norm(self, whole: Tensor, parts: Tensor) -> Tensor:
        """Return the norm of gradients, from that of those that are whole here and that of this process's parts."""
        squares = parts.double().square()
        dist.all_reduce(squares)
        return (whole.double().square() + squares).sqrt().to(whole.dtype)


RESTARTS, POSITIONS = "HARNESS_RESTARTS", "HARNESS_POSITIONS"
NUMBERS = {
    "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", RESTARTS: "0"
}  # fmt: skip


def shard(units: Sequence[torch.nn.Module], whole: Iterable[torch.nn.Parameter], device: torch.device) -> None:
    """Let each process keep a part of the weights of `units`, which gather them while they compute (FSDP2).

    The last unit holds the others, and is called by itself. Gradients of the parts are summed over all processes.

    Args:
        whole: weights that every process keeps.
    """
    mesh, kept = init_device_mesh(device.type, (dist.get_world_size(),)), set(whole)
    for unit in units:
        sharded: Any = fully_shard(
            unit, mesh=mesh, ignored_params=kept, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32),
            reshard_after_forward=True,
        )  # fmt: skip
        sharded.set_gradient_divide_factor(1.0)
        sharded.set_force_sum_reduction_for_comms(True)  # gloo knows no other
    for weight in kept:
        weight.data = weight.data.to(device)


def is_lost_connection(error: BaseException) -> bool:
    """Return whether an error says that another process is gone."""
    is_backend = isinstance(error, dist.DistBackendError | dist.DistNetworkError)
    return is_backend or (isinstance(error, RuntimeError) and "gloo" in str(error).lower())


def is_part(weight: Tensor) -> bool:
    """Return whether each process has only a part of a weight."""
    return isinstance(weight, DTensor)


def own_part(weight: Tensor) -> Tensor:
    """Return what this process has of a weight, or of its gradient, in the same memory."""
    return weight.detach().to_local() if isinstance(weight, DTensor) else weight


def part_of(weight: Tensor, whole: Tensor) -> Tensor:
    """Return this process's part of a tensor that is laid out as the weight is."""
    if not isinstance(weight, DTensor) or whole.shape != weight.shape:
        return whole
    parts, rank = whole.chunk(dist.get_world_size()), dist.get_rank()
    return parts[rank] if rank < len(parts) else whole[:0]


def gathered(weight: Tensor, part: Tensor) -> Tensor:
    """Return the whole of a tensor from the parts of all processes, laid out as the weight is. All of them call it."""
    if not isinstance(weight, DTensor) or part.shape != weight.to_local().shape:
        return part
    whole: Tensor = DTensor.from_local(
        part, weight.device_mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride()
    ).full_tensor()
    return whole
