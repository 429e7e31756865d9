"""First-party tuning: its objectives and methods, and the `tune` command around our loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import harness

if TYPE_CHECKING:
    import click


@harness.hookimpl
def register_objectives(register: Callable[[harness.Objective], None]) -> None:
    from harness_tuning.objectives import dpo, kto, orpo, pretrain, reward, sft, simpo

    for module in (sft, pretrain, dpo, kto, orpo, simpo, reward):
        register(module.OBJECTIVE)


@harness.hookimpl
def register_methods(register: Callable[[harness.Method], None]) -> None:
    from harness_tuning.methods import dora, from_run, full, lora, qlora

    register(lora.LORA)
    register(dora.DORA)
    register(qlora.QLORA)
    register(full.FULL)
    register(from_run.FROM_RUN)


@harness.hookimpl
def diagnose() -> harness.Diagnosis:
    return harness.Diagnosis("tuning", "harness tune, and everything that loads a model")


@harness.hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    from harness_tuning.command import tune

    register(tune)
