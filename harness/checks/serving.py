"""An engine that has started and passed its checks: what `harness serve` shows and `harness evaluate` asks."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydantic
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness.checks.agreement import Agreement, verify
from harness.checks.parity import Parity, require_parity
from harness.contract import Endpoint, Engine
from harness.errors import HarnessError, known_names, nearest
from harness.model.templates import with_chat_folders
from harness.variants import Variant

if TYPE_CHECKING:
    from harness.plugins import Plugins


@dataclass(frozen=True, slots=True)
class Checked:
    """A running engine, the variants with their chat folders, and the outcome of both checks."""

    endpoint: Endpoint
    variants: tuple[Variant, ...]
    parity: Parity
    agreements: list[Agreement]


@contextlib.contextmanager
def started(
    engine: Engine,
    options: Any,
    variants: Sequence[Variant],
    plugins: Plugins,
    report: Callable[[str], None] = lambda waiting_for: None,
) -> Iterator[Checked]:
    """Start an engine for the variants and check it; yields it once nothing is at odds with training.

    Raises:
        HarnessError: where the variants cannot share an engine, it does not start, or a check fails.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-chat-"))) / "chat"
        asked = with_chat_folders(variants, plugins, folder)
        endpoint = stack.enter_context(engine.start(asked, options, report))
        yield checked(endpoint, asked, getattr(options, "dtype", None), report)


def checked(
    endpoint: Endpoint,
    variants: tuple[Variant, ...],
    dtype: str | None = None,
    report: Callable[[str], None] = lambda waiting_for: None,
) -> Checked:
    """Return a running engine with its checks: parity of prompts, and of the answers of every run's adapter.

    Where the engine has several copies of the model, each is asked, and the last one's figures are returned.

    Raises:
        HarnessError: at the first difference.
    """
    for headers in endpoint.replicas or ({},):
        asked = replace(endpoint, headers={**endpoint.headers, **headers})
        parity = require_parity(asked, variants, report)
        agreements = verify(asked, variants, dtype, report)
    return Checked(endpoint, variants, parity, agreements)


def engine_of(
    plugins: Plugins, variants: Sequence[Variant], name: str | None = None, sets: Sequence[str] = ()
) -> tuple[Engine, dict[str, Any]]:
    """Return the engine and its options: those of the first run's recipe, under `serve`, with `sets` over them.

    Args:
        name: another engine than the recipe's, whose options are left aside then.
        sets: KEY=VALUE, as a person types them.

    Raises:
        HarnessError: for an option that the engine does not have.
    """
    run = next((variant.run for variant in variants if variant.run is not None), None)
    options: dict[str, Any] = {}
    used = plugins.engines.default
    if run is not None and run.recipe.serve is not None:
        options = run.recipe.serve.model_dump(exclude_unset=True)
        used = options.pop("engine", used)
    if name is not None and name != used:
        options, used = {}, name
    engine = plugins.engines[used]
    for item in sets:
        key, equals, value = item.partition("=")
        if not equals:
            raise HarnessError(f"--set {item}: expected KEY=VALUE, as in --set max_model_len=2048")
        if key not in engine.options.model_fields:
            raise HarnessError(
                f"--set {item}: the engine {used} has no option {key!r}.{nearest(key, engine.options.model_fields)} "
                f"It has: {known_names(engine.options.model_fields)}"
            )
        options[key] = _value(value)
    return engine, options


def validated(engine: Engine, options: Mapping[str, Any]) -> Any:
    """Return the options of an engine as its class takes them. Raises HarnessError for values that it refuses."""
    try:
        return engine.options.model_validate(options)
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise HarnessError(f"the options of the engine {engine.name}: {problems}") from None


def _value(text: str) -> Any:
    """Return a value as YAML reads it: a number, a list, true, or else the text itself."""
    try:
        return YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise HarnessError(f"--set: {text!r} is not valid YAML: {error}") from None
