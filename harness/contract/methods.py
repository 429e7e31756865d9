"""Methods: the choice of the weights that are trained, and how they are saved."""

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
    """A choice of weights to train. `apply(model, options)` returns the model with its trainable parameters marked.

    `save(model, folder)` writes the trained weights: an `adapter` in PEFT's format, or a whole `model`.
    `default` selects it in recipes that name none; first-party only.

    The others are for methods that need them:
    `check(recipe)` raises HarnessError, before anything is loaded, for a recipe that the method cannot be used with.
    `quantize(model, options, device)` stores the base otherwise while it is trained on, and puts it on the device.
    `changes_base(options)` says how the base that is trained on differs from the one in its files, or None: then the
    saved adapter is loaded again on the base of the files, which serving loads, and measured there.
    `rate_factor(name, options)` returns the factor of the learning rate of the weight of that name.
    `whole(options)` says why the trained weights are merged and saved as a whole model, or None.
    `starts_from(options)` returns the folder of the adapter that is trained on, for a method that starts from one.
    """

    name: str
    description: str
    options: type[Options]
    apply: Callable[[Any, Any], Any]
    save: Callable[[Any, Path], None]
    produces: Literal["adapter", "model"]
    default: bool = False
    check: Callable[[Any], None] | None = None
    quantize: Callable[[Any, Any, Any], Any] | None = None
    changes_base: Callable[[Any], str | None] | None = None
    rate_factor: Callable[[str, Any], float] | None = None
    whole: Callable[[Any], str | None] | None = None
    starts_from: Callable[[Any], Path] | None = None


def check_method(method: Method) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_functions(method, apply="model, options", save="model, folder")
    extras = {
        "check": "recipe", "quantize": "model, options, device", "changes_base": "options",
        "rate_factor": "name, options", "whole": "options", "starts_from": "options",
    }  # fmt: skip
    require_functions(method, **{key: value for key, value in extras.items() if getattr(method, key) is not None})
    require_options(method)
    require_texts(method, "description")
    if method.produces not in ("adapter", "model"):
        raise PluginError(f"{method.name!r} produces {method.produces!r}, expected 'adapter' or 'model'")
