"""Data that a model writes: the command `generate` (self-instruct) and the data set that reads what it wrote."""

from collections.abc import Callable

import click

import harness


@harness.hookimpl
def register_datasets(register: Callable[[harness.Dataset], None]) -> None:
    from harness_generation import rows

    register(rows.DATASET)


@harness.hookimpl
def register_commands(register: Callable[[click.Command], None]) -> None:
    from harness_generation import command

    register(command.command)
