"""Methods: which weights move, and how what was learnt is saved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.contract.checking import require_functions, require_options, require_texts
from harness.errors import PluginError

if TYPE_CHECKING:
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Method:
    """Which weights move. `apply(model, options)` returns the model to train, its trainable parameters marked.

    `save(model, folder)` writes what was learnt: an `adapter` in PEFT's format, or a whole `model`.
    `default` makes it the one of recipes that name none; first-party only.
    """

    name: str
    description: str
    options: type[Options]
    apply: Callable[[Any, Any], Any]
    save: Callable[[Any, Path], None]
    produces: Literal["adapter", "model"]
    default: bool = False


def check_method(method: Method) -> None:
    """Refuse a declaration that would break where a recipe uses it. Raises PluginError."""
    require_functions(method, apply="model, options", save="model, folder")
    require_options(method)
    require_texts(method, "description")
    if method.produces not in ("adapter", "model"):
        raise PluginError(f"{method.name!r} produces {method.produces!r}, expected 'adapter' or 'model'")
