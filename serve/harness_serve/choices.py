"""The engine of `harness serve` and its options: the recipe's, overridden by the command line and the environment."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.cli.context import Context

if TYPE_CHECKING:
    from harness.contract import Engine
    from harness.variants import Variant
    from harness_serve.keys import KeyFile


def engine_and_options(context: Context, variants: tuple[Variant, ...], settings: dict[str, Any]) -> tuple[Engine, Any]:
    """Return the engine and its options: the recipe's `serve` section, overridden by the command line."""
    import pydantic

    run = next((variant.run for variant in variants if variant.run is not None), None)
    chosen: dict[str, Any] = {}
    name = context.plugins.engines.default
    if run is not None and run.recipe.serve is not None:
        chosen = run.recipe.serve.model_dump(exclude_unset=True)
        name = chosen.pop("engine", name)
    if settings["engine"] is not None and settings["engine"] != name:
        chosen, name = {}, settings["engine"]  # the recipe's options are those of another
    engine = context.plugins.engines[name]
    for item in settings["sets"]:
        key, equals, value = item.partition("=")
        if not equals:
            raise harness.HarnessError(f"--set {item}: expected KEY=VALUE, as in --set max_model_len=2048")
        if key not in engine.options.model_fields:
            raise harness.HarnessError(
                f"--set {item}: the engine {name} has no option {key!r}."
                f"{harness.errors.nearest(key, engine.options.model_fields)} "
                f"It has: {harness.errors.known_names(engine.options.model_fields)}"
            )
        chosen[key] = _value(value)
    chosen |= {key: settings[key] for key in ("host", "port", "dtype", "api_key") if settings[key] is not None}
    if settings["allow_hosts"]:
        chosen["allow_hosts"] = settings["allow_hosts"]
    if settings["api_key"] is None and "HARNESS_API_KEY" in os.environ:  # click takes an empty variable for none
        chosen["api_key"] = os.environ["HARNESS_API_KEY"]
    _set_keys(context, engine, chosen, settings["keys_file"])
    try:
        return engine, engine.options.model_validate(chosen)
    except pydantic.ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors())
        raise harness.HarnessError(f"the options of the engine {name}: {problems}") from None


def _set_keys(context: Context, engine: Engine, chosen: dict[str, Any], path: Path | None) -> None:
    """Set the engine's file of named keys, where there is one; without a key of the starter's, one that nobody sees."""
    from harness_serve.keys_command import opened

    if path is not None and not path.is_file():
        raise harness.HarnessError(f"--keys {path}: no such file; `harness keys make NAME --file {path}` begins it")
    file = opened(context, path)
    if not file.active():
        if path is not None:
            raise harness.HarnessError(
                f"--keys {path}: it has no key that opens anything; `harness keys make NAME` makes one"
            )
        return
    if "keys" not in engine.options.model_fields:
        if path is not None:
            raise harness.HarnessError(f"--keys: the engine {engine.name} knows no named keys, only --api-key")
        click.echo(f"{file.path} is left aside: the engine {engine.name} knows no named keys", err=True)
        return
    chosen["keys"] = file.path
    chosen.setdefault("api_key", secrets.token_urlsafe(32))  # with which page and checks ask


def named_keys(options: Any) -> KeyFile | None:
    """Return the file of named keys among an engine's options."""
    from harness_serve.keys import KeyFile

    path = getattr(options, "keys", None)
    return KeyFile(path) if path is not None else None


def _value(text: str) -> Any:
    """Return a value as YAML reads it: a number, a list, true, or else the text itself."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe").load(text)
    except (YAMLError, ValueError, RecursionError) as error:
        raise harness.HarnessError(f"--set: {text!r} is not valid YAML: {error}") from None
