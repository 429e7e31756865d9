"""First-party serving: the engine `vllm`, the commands around it, and the page to compare variants on."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    import click


@harness.hookimpl
def register_engines(register: Callable[[harness.Engine], None]) -> None:
    from harness_serve.engine import ENGINE

    register(ENGINE)


@harness.hookimpl
def diagnose() -> harness.Diagnosis:
    from harness_serve.diagnosis import diagnosis

    return diagnosis()


@harness.hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    from harness_serve.adapters_command import adapters
    from harness_serve.command import serve
    from harness_serve.keys_command import keys
    from harness_serve.votes_command import votes

    register(adapters)
    register(serve)
    register(keys)
    register(votes)
