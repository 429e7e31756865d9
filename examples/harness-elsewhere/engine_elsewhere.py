"""An engine in one file: a server that somebody else started, at a port of this machine or of another.

harness --plugin examples/harness-elsewhere/engine_elsewhere.py serve RUN --engine elsewhere --port 8001

It should answer under the names of the variants (`--served-model-name`). It tells neither token ids nor
log-probabilities here, so that parity and adapters are shown as unverified.
"""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

import pydantic

import harness
from harness.contract import Endpoint


class ElsewhereOptions(harness.Options):
    """The four that `harness serve` sets of any engine."""

    host: str = "127.0.0.1"
    port: int = 8001
    api_key: pydantic.SecretStr | None = None
    allow_hosts: tuple[str, ...] = ()


def unable(variants: tuple[Any, ...], options: ElsewhereOptions) -> str | None:
    """Return why these variants cannot be served here, or None."""
    url, key = place_of(options)
    try:
        missing = sorted({variant.name for variant in variants} - models_at(url, key))
    except harness.ModelError as error:
        return str(error)
    return f"the server at {url} does not know {missing[0]!r}: start it under that name" if missing else None


def place_of(options: ElsewhereOptions) -> tuple[str, str | None]:
    """Return the server's URL, and the key that it asks for."""
    key = options.api_key.get_secret_value() if options.api_key else None
    return f"http://{options.host}:{options.port}/v1", key


def models_at(url: str, key: str | None) -> set[str]:
    """Return the names that the server answers to. Raises harness.ModelError where it does not answer."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{url}/models", headers=headers), timeout=10) as answer:
            return {model["id"] for model in json.load(answer)["data"]}
    except (urllib.error.URLError, ValueError, KeyError, TypeError) as error:
        raise harness.ModelError(f"no server answers at {url}/models: {error}. Start it, or name its --port") from None


@contextlib.contextmanager
def start(variants: tuple[Any, ...], options: ElsewhereOptions, report: Callable[[str], None]) -> Iterator[Endpoint]:
    """Yield the endpoint of the server; nothing was started, and nothing is stopped."""
    url, key = place_of(options)
    report(f"the server at {url}")
    if reason := unable(variants, options):
        raise harness.ModelError(reason)
    yield Endpoint(url, tuple(variant.name for variant in variants), api_key=key)


@harness.hookimpl
def register_engines(register: Callable[[harness.Engine], None]) -> None:
    register(harness.Engine("elsewhere", "a server that runs already", ElsewhereOptions, start, unable=unable))
