"""`harness demo`: the whole loop on the seedling, with the very commands a user would type."""

from __future__ import annotations

import time
from pathlib import Path

import click

import harness
from harness.cli.context import Context
from harness.errors import HarnessError

RECIPE = Path("recipes", "seedling", "demo.yaml")
RUN = "demo"


@click.command(name="demo")
@click.option("--no-serve", is_flag=True, help="Stop after the report.")
@click.option("--port", default=8000, show_default=True, help="Port of the endpoint.")
@click.option("--ui-port", default=7860, show_default=True, help="Port of the page.")
@click.pass_context
def command(ctx: click.Context, no_serve: bool, port: int, ui_port: int) -> None:
    """Tune the seedling for about a minute, evaluate, compare and report base and tuned, and serve both with a page.

    Each step is the command that is printed above it.
    """
    context: Context = ctx.obj
    recipe = _find_recipe()
    began = time.perf_counter()
    base, examples = f"{RUN}@base", recipe.with_name("examples.json")
    _run(ctx, "tune", str(recipe), "--run", RUN, "--overwrite")
    _run(ctx, "evaluate", base, RUN, "--backend", "local")  # of a toy, an engine is started by serving alone
    _run(ctx, "compare", base, RUN)
    _run(ctx, "report", RUN, "--out", str(context.runs_folder / RUN / "report.html"))
    context.console.print(f"\n[dim]{time.perf_counter() - began:.0f} s so far[/dim]")
    if not no_serve:
        _run(ctx, "serve", base, RUN, "--port", str(port), "--ui-port", str(ui_port), "--examples", str(examples))


def _run(ctx: click.Context, name: str, *arguments: str) -> None:
    """Run another command of `harness` in this process (importing torch once is enough), showing it first."""
    context: Context = ctx.obj
    context.console.print(f"\n[bold cyan]$ harness {name} {' '.join(arguments)}[/bold cyan]", soft_wrap=True)
    root = ctx.find_root().command
    assert isinstance(root, click.Group)
    step = root.get_command(ctx, name)
    if step is None:
        raise HarnessError(f"the demo needs `harness {name}`, which no plugin brings; see `harness plugins list`")
    names = ctx.help_option_names  # a command keeps those that it is first asked with
    step.main(list(arguments), f"harness {name}", standalone_mode=False, obj=context, help_option_names=names)


def _find_recipe() -> Path:
    """Return the seedling's recipe: in the working directory, or in the clone this package is run from."""
    for folder in (Path(), Path(harness.__file__).resolve().parents[1]):
        if (folder / RECIPE).is_file():
            return folder / RECIPE
    raise HarnessError(f"the demo's recipe {RECIPE} is not here: run `harness demo` in a clone of the repository")
