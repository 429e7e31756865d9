"""`harness demo`: the whole loop on the seedling, with the very commands a user would type."""

from __future__ import annotations

import time
from pathlib import Path

import click

from harness.cli.context import Context
from harness.cli.steps import run_step

RECIPE = Path("recipes", "seedling", "demo.yaml")
RUN = "demo"


@click.command(name="demo")
@click.option("--no-serve", is_flag=True, help="Stop after the report.")
@click.option("--port", default=8000, show_default=True, help="Port of the endpoint.")
@click.option("--ui-port", default=7860, show_default=True, help="Port of the page.")
@click.pass_context
def command(ctx: click.Context, no_serve: bool, port: int, ui_port: int) -> None:
    """Tune the seedling for a few minutes, evaluate, compare and report base and tuned, and serve both with a page.

    Each step is the command that is printed above it.
    """
    context: Context = ctx.obj
    recipe = _find_recipe()
    began = time.perf_counter()
    base, examples = f"{RUN}@base", recipe.with_name("examples.json")
    run_step(ctx, "tune", str(recipe), "--run", RUN, "--overwrite")
    run_step(ctx, "evaluate", base, RUN, "--backend", "local")  # of a toy, an engine is started by serving alone
    run_step(ctx, "compare", base, RUN)
    run_step(ctx, "report", RUN, "--out", str(context.runs_folder / RUN / "report.html"))
    context.console.print(f"\n[dim]{time.perf_counter() - began:.0f} s so far[/dim]")
    if not no_serve:
        run_step(ctx, "serve", base, RUN, "--port", str(port), "--ui-port", str(ui_port), "--examples", str(examples))


def _find_recipe() -> Path:
    """Return the seedling's recipe: in the working directory, or the one that comes along."""
    from harness_commands.recipe.shipped import find_recipe

    return RECIPE if RECIPE.is_file() else find_recipe("seedling/demo").path
