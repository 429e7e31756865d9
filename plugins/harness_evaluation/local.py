"""The weights behind a local Backend, for evaluations that batch by themselves."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from harness.contract import Backend
from harness.measure.answers import innermost

if TYPE_CHECKING:
    from harness.model.load import LoadedVariant
    from harness.variants import Variant


def variant_of(backend: Backend) -> Variant:
    """Return the variant behind a Backend of this machine: one with the capability `template`."""
    here: Any = innermost(backend)
    variant: Variant = here.variant
    return variant


def loaded_of(backend: Backend) -> LoadedVariant:
    """Return the variant that a Backend holds in this process: one with the capability `weights`."""
    local: Any = innermost(backend)
    loaded: LoadedVariant = local.loaded
    return loaded


@contextlib.contextmanager
def in_batches(backend: Backend, size: int | None = None, tokens: int | None = None) -> Iterator[None]:
    """Let a Backend in this process ask `size` at once, or score rows of `tokens`; an engine decides that itself."""
    if "weights" not in backend.capabilities:
        yield
        return
    local: Any = innermost(backend)
    before = local.batch_size, local.batch_tokens
    local.batch_size, local.batch_tokens = size or tokens, tokens or local.batch_tokens
    try:
        yield
    finally:
        local.batch_size, local.batch_tokens = before
