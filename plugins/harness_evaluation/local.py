"""The weights behind a local Backend, for evaluations that batch by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.contract import Backend
from harness.contract.backends import Capability
from harness.measure.answers import innermost

if TYPE_CHECKING:
    from harness.model.load import LoadedVariant

LOCAL: tuple[Capability, ...] = ("template", "score", "weights")


def loaded_of(backend: Backend) -> LoadedVariant:
    """Return the variant that a Backend holds in this process: one with the capability `weights`."""
    local: Any = innermost(backend)
    loaded: LoadedVariant = local.loaded
    return loaded


def in_batches(backend: Backend, size: int) -> None:
    """Let a Backend in this process ask `size` at once; an engine decides that itself."""
    if "weights" in backend.capabilities:
        local: Any = innermost(backend)
        local.batch_size = size
