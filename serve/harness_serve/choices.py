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


def with_remotes(variants: tuple[Variant, ...]) -> tuple[tuple[Variant, ...], tuple[Variant, ...]]:
    """Return the variants whose weights are here, and the remote ones. Raises HarnessError where all are remote."""
    from harness.variants import require_here

    local = tuple(variant for variant in variants if variant.remote is None)
    if not local:
        require_here(variants[0], "served alone")
    return local, tuple(variant for variant in variants if variant.remote is not None)


def engine_and_options(
    context: Context, variants: tuple[Variant, ...], settings: dict[str, Any], remotes: tuple[Variant, ...] = ()
) -> tuple[Engine, Any]:
    """Return the engine and its options: the recipe's `serve` section, overridden by the command line."""
    from harness.checks.serving import engine_of, validated

    engine, chosen = engine_of(context.plugins, variants, settings["engine"], settings["sets"])
    chosen |= {key: settings[key] for key in ("host", "port", "dtype", "api_key") if settings[key] is not None}
    if settings["allow_hosts"]:
        chosen["allow_hosts"] = settings["allow_hosts"]
    if settings["api_key"] is None and "HARNESS_API_KEY" in os.environ:  # click takes an empty variable for none
        chosen["api_key"] = os.environ["HARNESS_API_KEY"]
    _set_keys(context, engine, chosen, settings["keys_file"])
    if remotes:
        if "remotes" not in engine.options.model_fields:
            raise harness.HarnessError(f"{remotes[0].name}: the engine {engine.name} serves no remote models")
        chosen["remotes"] = {variant.name: variant.remote for variant in remotes}
    return engine, validated(engine, chosen)


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
