"""The processes that tune together. The only file that knows torch.distributed."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that tune one run: its rank, and how many there are."""

    rank: int = 0
    size: int = 1

    @classmethod
    @contextmanager
    def joined(cls) -> Iterator[World]:
        """Join the processes that torchrun started, for the block; without torchrun, be one process alone."""
        if int(os.environ.get("WORLD_SIZE", "1")) == 1:
            yield cls()
            return
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        try:
            yield cls(dist.get_rank(), dist.get_world_size())
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
        if self.size == 1:
            return
        gradients = [torch.zeros_like(master) if master.grad is None else master.grad for master in masters]
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(flat)
        for master, part in zip(masters, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            master.grad = part.view_as(master)
