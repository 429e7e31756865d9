"""`harness tune`: from a recipe to a run, with everything that changes the trained weights shown first."""

from __future__ import annotations

from pathlib import Path

import click

from harness.cli.context import Context
from harness.extras import require


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe, as in tune.method.rank=8."
)
@click.option("--run", "run_name", metavar="NAME", help="Name of the run directory. [default: the recipe's name]")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run (its name or directory).")
@click.option("--overwrite", is_flag=True, help="Remove a run of that name first.")
@click.option("--plan", "only_plan", is_flag=True, help="Show the plan of the run, with its time and memory, and end.")
@click.option("--json", "as_json", is_flag=True, help="With --plan: as JSON.")
@click.option("--nproc", type=click.IntRange(1), metavar="N", help="Tune in N processes, one for each accelerator.")
@click.option("--nnodes", type=click.IntRange(1), default=1, metavar="M", help="Of M machines, each with --nproc.")
@click.option("--node-rank", type=click.IntRange(0), default=0, metavar="K", help="This machine's number, from 0.")
@click.option("--rdzv", metavar="HOST:PORT", help="Where the machines meet: a free port of machine 0.")
@click.option(
    "--max-restarts",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    metavar="R",
    help="Times that all processes go on from the last checkpoint after one was lost.",
)
@click.pass_context
def tune(
    click_context: click.Context,
    recipe: Path | None,
    sets: tuple[str, ...],
    run_name: str | None,
    resume: str | None,
    overwrite: bool,
    only_plan: bool,
    as_json: bool,
    nproc: int | None,
    nnodes: int,
    node_rank: int,
    rdzv: str | None,
    max_restarts: int,
) -> None:
    """Tune a model as RECIPE says, or go on with a run.

    \b
    harness tune recipes/seedling/demo.yaml
    harness tune recipes/seedling/demo.yaml --plan
    harness tune recipes/seedling/demo.yaml --set tune.method.rank=8 --run rank-8
    harness tune --resume rank-8
    harness tune recipes/seedling/demo.yaml --nproc 2
    """
    context: Context = click_context.obj
    if (recipe is None) == (resume is None):
        raise click.UsageError("give either a RECIPE or --resume RUN")
    if as_json and not only_plan:
        raise click.UsageError("--json goes with --plan")
    if only_plan and (recipe is None or overwrite):
        raise click.UsageError("--plan shows the plan of a RECIPE: --resume and --overwrite do not go with it")
    if resume is not None and (sets or run_name or overwrite):
        raise click.UsageError("--resume goes on with the run as it is: --set, --run and --overwrite do not go with it")
    _check_machines(nproc, nnodes, node_rank, rdzv, only_plan)
    require("torch", "tuning")
    require("peft", "tuning")

    from harness_tuning import session

    if only_plan:
        assert recipe is not None
        session.show_plan(context, recipe, sets, run_name, as_json)
    elif nproc is not None:
        from harness_tuning.launch import Launch, launch

        if recipe is not None and node_rank == 0:
            session.make_way(context, recipe, sets, run_name, overwrite)
        words = _words(context, recipe, sets, run_name, resume)
        launch(Launch(nproc, nnodes, node_rank, rdzv, max_restarts), words)
    else:
        session.tune(context, recipe, sets, run_name, resume, overwrite)


def _check_machines(nproc: int | None, nnodes: int, node_rank: int, rdzv: str | None, only_plan: bool) -> None:
    """Raise UsageError for options of several processes that do not go together."""
    if nproc is None and (nnodes > 1 or rdzv is not None or node_rank):
        raise click.UsageError("--nnodes, --node-rank and --rdzv go with --nproc N, the processes of each machine")
    if nproc is not None and only_plan:
        raise click.UsageError(
            "--plan is of one process, and --nproc does not go with it: a run shows its own plan first"
        )
    if nnodes > 1 and rdzv is None:
        raise click.UsageError(f"--nnodes {nnodes} needs --rdzv HOST:PORT, where the machines meet")
    if node_rank >= nnodes:
        raise click.UsageError(
            f"--node-rank {node_rank}: the machines are numbered 0 to {nnodes - 1} (--nnodes {nnodes})"
        )
    host, _, port = (rdzv or "host:1").rpartition(":")
    if not host or not port.isdigit():
        raise click.UsageError(f"--rdzv {rdzv}: expected HOST:PORT, as in node-0:29500")


def _words(
    context: Context,
    recipe: Path | None,
    sets: tuple[str, ...],
    run_name: str | None,
    resume: str | None,
) -> list[str]:
    """Return the words behind `harness` that each process is started with."""
    plugins = (word for file in context.plugin_files for word in ("--plugin", str(file)))
    words = [*plugins, "--runs", str(context.runs_folder), "tune"]
    words += [] if recipe is None else [str(recipe)]
    words += [word for value in sets for word in ("--set", value)]
    words += [] if run_name is None else ["--run", run_name]
    words += [] if resume is None else ["--resume", resume]
    return words
