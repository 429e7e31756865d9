"""An engine without a model: it serves variants by a FakeEndpoint, and answers what the test says."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pydantic

from harness.contract.engines import Endpoint, Engine
from harness.options import Options
from harness.testing.endpoint import Answer, FakeEndpoint


class FakeEngineOptions(Options):
    """The options that `harness serve` sets of any engine."""

    host: str = "127.0.0.1"
    port: int = 0
    api_key: pydantic.SecretStr | None = None
    allow_hosts: tuple[str, ...] = ()


def fake_engine(answer: Answer | str = "The heron.", name: str = "fake") -> Engine:
    """Return an engine that answers every request with `answer`, under the names of its variants.

    It listens at a free port of 127.0.0.1, whatever port it is given.
    """

    @contextlib.contextmanager
    def start(variants: tuple[Any, ...], options: Any, report: Callable[[str], None]) -> Iterator[Endpoint]:
        names = tuple(variant.name for variant in variants)
        report("the fake engine")
        with FakeEndpoint(answer, models=names) as served:
            yield Endpoint(served.url, names)

    return Engine(name, "answers what a test says", FakeEngineOptions, start)
