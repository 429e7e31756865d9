"""Memory of the device that tuning runs on: taken now, taken at the most, and free."""

from __future__ import annotations

import resource
from pathlib import Path

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """Return the most memory that was taken: of the accelerator, or of this process on a CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # KiB on Linux


def taken_bytes(device: torch.device) -> int:
    """Return the memory that this process takes now."""
    if device.type == "cuda":
        return int(torch.cuda.memory_allocated(device))
    return (_kib(Path("/proc/self/status"), "VmRSS:") or 0) * 1024


def free_memory_bytes(device: torch.device) -> int | None:
    """Return the memory that this process may take in all; None where the system does not say.

    Of an accelerator that is shared, it is the process's share (`torch.cuda.set_per_process_memory_fraction`).
    """
    if device.type == "cuda":
        free, whole = torch.cuda.mem_get_info(device)
        share = torch.cuda.get_per_process_memory_fraction(device.index)
        return int(min(free + torch.cuda.memory_reserved(device), share * whole))
    taken = _kib(Path("/proc/self/status"), "VmRSS:")
    free = _kib(Path("/proc/meminfo"), "MemAvailable:")
    if taken is None or free is None:
        return None
    limit = _text(Path("/sys/fs/cgroup/memory.max")).strip()
    machine = (free + taken) * 1024
    return min(machine, int(limit)) if limit.isdigit() else machine


def _kib(path: Path, name: str) -> int | None:
    values = (line.split()[1] for line in _text(path).splitlines() if line.startswith(name))
    return next(map(int, values), None)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
