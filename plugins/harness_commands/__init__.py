"""First-party commands over the core's libraries: `harness data ...`, `harness template ...`, `harness demo`, and some
of `harness runs`."""

from __future__ import annotations

from collections.abc import Callable

import harness


@harness.hookimpl
def register_commands(register: Callable[..., None]) -> None:
    from harness_commands import ask, data, demo, recipe, template
    from harness_commands.plugins.check import check
    from harness_commands.plugins.new import new
    from harness_commands.plugins.show import show
    from harness_commands.runs.card import card
    from harness_commands.runs.diff import diff
    from harness_commands.runs.export import export
    from harness_commands.runs.merge import merge

    register(ask.command)
    register(data.command)
    register(demo.command)
    register(recipe.command)
    register(template.command)
    for command in (card, diff, export, merge):
        register(command, under="runs")
    for command in (check, new, show):
        register(command, under="plugins")
