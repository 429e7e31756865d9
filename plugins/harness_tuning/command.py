"""`harness tune`: from a recipe to a run, with everything that changes what the model learns shown first."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.cli.context import Context
from harness.contract.events import Finished, Started
from harness.extras import require
from harness.run import Events, Run

if TYPE_CHECKING:
    from harness.recipe import Recipe
    from harness_tuning.loop import Tuner, TuningData

MOST_SAID = 5  # control-token strings in the data that the plan names
EXIT_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path), required=False)
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="Override a key of the recipe, as in tune.method.rank=8."
)
@click.option("--run", "run_name", metavar="NAME", help="Name of the run directory. [default: the recipe's name]")
@click.option("--resume", metavar="RUN", help="Go on with an interrupted run (its name or directory).")
@click.option("--overwrite", is_flag=True, help="Remove a run of that name first.")
@click.pass_obj
def tune(
    context: Context,
    recipe: Path | None,
    sets: tuple[str, ...],
    run_name: str | None,
    resume: str | None,
    overwrite: bool,
) -> None:
    """Tune a model as RECIPE says, or go on with a run.

    \b
    harness tune recipes/seedling/demo.yaml
    harness tune recipes/seedling/demo.yaml --set tune.method.rank=8 --run rank-8
    harness tune --resume rank-8
    """
    if (recipe is None) == (resume is None):
        raise click.UsageError("give either a RECIPE or --resume RUN")
    require("torch", "tuning")
    require("peft", "tuning")
    if resume is not None:
        if sets or run_name or overwrite:
            raise click.UsageError(
                "--resume goes on with the run as it is: --set, --run and --overwrite do not go with it"
            )
        run = _existing_run(context, resume)
        if run.outcome == "finished":
            raise harness.RunError(f"the run {run.name} has finished; there is nothing to go on with")
    else:
        assert recipe is not None
        run = _new_run(context, recipe, sets, run_name, overwrite)
    with run.locked():
        events = Events()
        try:
            events = Events.to(run.recipe.track, context.plugins)
            _tune(context, run, events)
        except Exception as error:
            if run.metrics_path.exists():
                events.send(Finished(run.name, run.folder, "failed"))
            if not isinstance(error, harness.HarnessError):
                raise
            if resume is None and not run.metrics_path.exists():
                run.discard()
            raise


def _existing_run(context: Context, name: str) -> Run:
    folder = Path(name) if (Path(name) / "manifest.json").is_file() else context.runs_folder / name
    return Run.open(folder, context.plugins)


def _new_run(context: Context, recipe_path: Path, sets: tuple[str, ...], run_name: str | None, overwrite: bool) -> Run:
    import shutil

    from harness.recipe import NAME, load_recipe

    if run_name is not None and not re.fullmatch(NAME, run_name):
        raise harness.RunError(
            f"--run {run_name}: a run's name has letters, digits, '.', '_' and '-', and begins with neither of the last three"
        )
    recipe = load_recipe(recipe_path, context.plugins, sets)
    folder = context.runs_folder / (run_name or recipe.name)
    if overwrite and (folder / "manifest.json").is_file():
        with Run.open(folder, context.plugins).locked():
            shutil.rmtree(folder)
    return Run.create(folder, recipe, context.plugins)


def _tune(context: Context, run: Run, events: Events) -> None:
    from harness.model.load import bind_template, pick_device
    from harness_tuning.loop import Tuner

    recipe, console = run.recipe, context.console
    device = pick_device()
    with run.session(str(device)) as session, _stop_on_signals() as stop:
        with console.status("Reading and encoding the data"):
            template = bind_template(recipe.template, recipe.model, context.plugins)
            data = _load_data(recipe, context, template)
        tuner = Tuner(run, context.plugins, template, data, device, events)
        with console.status(f"Loading {recipe.model.short_name}"):
            tuner.start()
        _show_plan(context, recipe, tuner)
        resolved = recipe.model_dump(mode="json")
        events.send(Started(run.name, run.folder, resolved, tuner.progress.step, tuner.total_steps))
        began = time.perf_counter()
        validation = _learn(context, tuner, stop)
        if tuner.progress.step < tuner.total_steps:
            console.print(
                f"\nStopped after step {tuner.progress.step} of {tuner.total_steps}; nothing is lost. Go on with:\n"
                f"  harness tune --resume {run.folder}",
                soft_wrap=True,
            )
            session["outcome"] = "interrupted"
        else:
            with console.status("Saving"):
                tuner.finish()
    events.send(Finished(run.name, run.folder, session["outcome"]))  # once the manifest says so
    if session["outcome"] == "interrupted":
        raise SystemExit(EXIT_INTERRUPTED)
    _show_result(context, tuner, time.perf_counter() - began, validation)


def _load_data(recipe: Recipe, context: Context, template: Any) -> TuningData:
    from harness.data import evaluation_texts
    from harness.data.cache.store import cached_data
    from harness_tuning.loop import TuningData

    def say(what: str) -> None:
        context.console.print(what, markup=False, style="dim", soft_wrap=True)

    evaluation = evaluation_texts(recipe, context.plugins)  # read only where the recipe compares with it
    return TuningData(*cached_data(recipe.data, context.plugins, template, evaluation, say))


def _show_plan(context: Context, recipe: Recipe, tuner: Tuner) -> None:
    """Everything that decides what the model learns, before it learns it."""
    from rich.table import Table
    from rich.text import Text

    spec, data = recipe.tune, tuner.data
    plan = Table.grid(padding=(0, 2))
    plan.add_column(style="dim")
    plan.add_column(overflow="fold")

    def row(about: str, told: str) -> None:
        plan.add_row(about, Text(told))  # not markup: it quotes the data, and names of tokens such as [/INST]

    row("run", str(tuner.run.folder))
    row(
        "model",
        f"{recipe.model.path}  ({tuner.parameters / 1e6:,.1f} M parameters, {recipe.model.dtype}, on {tuner.device})",
    )
    stops = " ".join(tuner.template.stop_tokens)
    row("template", f"{tuner.template.name}; an answer ends with {stops}")
    row("", f"before the first question, where the data bring no system prompt: {tuner.template.opening!r}")
    if recipe.template.add_tokens:
        for line in _added_tokens(tuner):
            row(*line)
    for report in data.train.reports:
        out = "".join(f"; {count:,} left out: {reason}" for reason, count in report.left_out.items())
        again = f", used {report.used:,} times" if report.used != report.kept else ""
        row("train", f"{report.source}  {report.path}  {report}{again}{out}")
        for token, count in report.escaped.most_common(MOST_SAID):
            row("", f"{count:,} of them say {token}, which stays text: it is no control token there")
    if data.train.report:
        for line in data.train.report.lines():
            row("", line)
    cut = (
        f"; {data.train.overlong:,} longer than {recipe.data.max_tokens} tokens: {recipe.data.on_overlong}"
        if data.train.overlong
        else ""
    )
    share = data.train.supervised / data.train.tokens
    cached = "; from cache" if data.train.from_cache else ""
    row("", f"{data.train.tokens:,} tokens, {data.train.supervised:,} of them ({share:.0%}) learnt{cut}{cached}")
    if data.validation:
        row(
            "validation",
            f"{len(data.validation.examples):,} conversations, {data.validation.supervised:,} learnt tokens",
        )
    own = ", ".join(
        f"{key} {value}"
        for part in (spec.objective, spec.method)
        for key, value in part.model_dump(exclude={"name"}).items()
    )
    share = f"{tuner.trainable:,} weights move ({tuner.trainable / tuner.parameters:.1%})"
    row("method", f"{tuner.objective.name}, {tuner.method.name}: {share}" + (f"; {own}" if own else ""))
    row(
        "steps",
        f"{tuner.total_steps:,} of at most {spec.batch_tokens:,} x {spec.accumulate} tokens; learning rate {spec.learning_rate:g}, "
        f"{spec.schedule} after {spec.warmup_ratio:.0%} warm-up; seed {spec.seed}",
    )
    if tuner.progress.step:
        row("goes on", f"from step {tuner.progress.step:,}")
    context.console.print(plan)


def _added_tokens(tuner: Tuner) -> Iterator[tuple[str, str]]:
    """The rows of the plan that say what the tokenizer was given, and what becomes of it."""
    if not tuner.added:
        yield "added tokens", "none: the tokenizer has all that the template writes"
        return
    named = ", ".join(f"{token} ({id})" for token, id in tuner.added.items())
    first = min(tuner.added.values())
    yield "added tokens", f"{named}: their embeddings begin as the mean of the {first:,} before them, and are trained"
    if tuner.merges:
        size = f"{tuner.size_bytes / 1e9:,.1f} GB" if tuner.size_bytes >= 1e9 else f"{tuner.size_bytes / 1e6:,.1f} MB"
        yield (
            "",
            f"the run saves a whole model ({size}), the adapter merged into it: an adapter cannot carry embeddings",
        )


def _learn(context: Context, tuner: Tuner, stop: Any) -> list[float]:
    """Run the steps under a progress bar (or, without a terminal, a line now and then). Returns validation losses."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    validation: list[float] = []
    terminal = context.console.is_terminal
    columns = (
        TextColumn("tuning"), BarColumn(bar_width=32), MofNCompleteColumn(),
        TextColumn("loss [bold]{task.fields[loss]}[/bold]"), TextColumn("{task.fields[rate]} tokens/s"),
        TextColumn("[dim]ETA[/dim]"), TimeRemainingColumn(compact=True),
    )  # fmt: skip
    every = max(1, tuner.total_steps // 20)
    smoothed, began, before = None, time.perf_counter(), tuner.progress
    with Progress(*columns, console=context.console, disable=not terminal) as bar:
        task = bar.add_task("", total=tuner.total_steps, completed=tuner.progress.step, loss="-", rate="-")
        for metrics in tuner.steps(stop):
            if "validation_loss" in metrics:
                validation.append(metrics["validation_loss"])
                bar.console.print(f"step {metrics['step']:>6,}  validation loss {metrics['validation_loss']:.4f}")
                continue
            smoothed = metrics["loss"] if smoothed is None else 0.9 * smoothed + 0.1 * metrics["loss"]
            elapsed = time.perf_counter() - began
            rate = (metrics["tokens"] - before.tokens) / elapsed
            bar.update(task, completed=metrics["step"], loss=f"{smoothed:.4f}", rate=f"{rate:,.0f}")
            step = int(metrics["step"])
            if not terminal and (step % every == 0 or step == tuner.total_steps):
                left = (tuner.total_steps - step) * elapsed / (step - before.step)
                context.console.print(
                    f"step {step:>6,} of {tuner.total_steps:,}  loss {smoothed:.4f}  {rate:,.0f} tokens/s  ETA {left:,.0f} s"
                )
    return validation


def _show_result(context: Context, tuner: Tuner, seconds: float, validation: list[float]) -> None:
    run = tuner.run
    whole = tuner.merges or tuner.method.produces == "model"
    merged = run.manifest.get("merging_changed_nats")
    merging = (
        f"[dim]merged: rounding to {run.recipe.model.dtype} changed log-probabilities by {merged:.2g} nats[/dim]\n"
        if merged is not None
        else ""
    )
    change = f"; validation loss {validation[0]:.4f} → {validation[-1]:.4f}" if len(validation) > 1 else ""
    context.console.print(
        f"\n[bold green]Tuned[/bold green] {run.name} in {seconds:,.0f} s, {tuner.progress.tokens:,} tokens, peak memory "
        f"{peak_memory_gib(tuner.device):.2f} GiB{change}\n"
        f"{merging}[dim]{'model' if whole else 'adapter'}, chat template, metrics and loss curve are in[/dim] {run.folder}\n\n"
        f"  harness evaluate {run.name}@base {run.name}\n  harness compare {run.name}@base {run.name}\n  harness serve {run.name}",
        soft_wrap=True,
    )


def peak_memory_gib(device: Any) -> float:
    """The most memory that was taken: of the accelerator, or of this process on a CPU."""
    import resource

    import torch

    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Any]:
    """Yields a function that says whether Ctrl-C or SIGTERM has come. A second Ctrl-C stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        click.echo("\nstopping after this step; Ctrl-C again stops at once, from the last checkpoint", err=True)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
