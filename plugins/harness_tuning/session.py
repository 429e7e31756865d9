"""The session of `harness tune`: a run opened or begun, its plan shown, its steps followed, and its end recorded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.cli.context import Context
from harness.contract.events import Finished, Started
from harness.errors import ENDINGS
from harness.run import Events, Run
from harness_tuning.launch import LAUNCHED, STOPS, begin_to_stop, reporting
from harness_tuning.world import World

if TYPE_CHECKING:
    from harness.recipe import Recipe
    from harness_tuning.loop import Tuner, TuningData

EXIT_INTERRUPTED = 130  # as a shell reports a program that Ctrl-C ended


def tune(
    context: Context,
    recipe: Path | None,
    sets: tuple[str, ...],
    run_name: str | None,
    resume: str | None,
    overwrite: bool,
) -> None:
    """Tune as a recipe says, or go on with the run `resume`."""
    with reporting(), World.joined() as world:
        context.console.quiet = not world.is_main
        with world.main_first():
            if world.restarts and (lost := _lost_run(context, recipe, sets, run_name, resume)) is not None:
                run = lost
            elif resume is not None:
                run = _unfinished_run(context, resume)
            elif recipe is not None and world.is_main:
                run = _new_run(context, recipe, sets, run_name, overwrite)
            elif recipe is not None:
                run = Run.open(_recipe_and_folder(context, recipe, sets, run_name)[1], context.plugins)
        if run.outcome == "finished":  # a process was lost after the result was saved
            return
        if world.is_main:
            _tune(context, run, world, is_new=resume is None)
        else:
            _help_to_tune(context, run, world)


def _has_stepped(run: Run) -> bool:
    """Return whether the run has done a step: one that failed before has nothing to keep, and would block its name."""
    return run.metrics_path.exists() and '"loss"' in run.metrics_path.read_text(encoding="utf-8")


def _unfinished_run(context: Context, name: str) -> Run:
    run = Run.open(_folder_of(context, name), context.plugins)
    if run.outcome == "finished":
        raise harness.RunError(f"the run {run.name} has finished; there is nothing to go on with")
    return run


def _lost_run(
    context: Context, recipe: Path | None, sets: tuple[str, ...], run_name: str | None, resume: str | None
) -> Run | None:
    """Return the run that the processes were tuning before one of them was lost; None where it had not begun."""
    folder = _folder_of(context, resume) if recipe is None else _recipe_and_folder(context, recipe, sets, run_name)[1]
    return Run.open(folder, context.plugins) if (folder / "manifest.json").is_file() else None


def _folder_of(context: Context, name: str | None) -> Path:
    """Return the folder of a run that is named, or given as a folder."""
    folder = Path(str(name))
    return folder if (folder / "manifest.json").is_file() else context.runs_folder / folder


def _new_run(context: Context, recipe_path: Path, sets: tuple[str, ...], run_name: str | None, overwrite: bool) -> Run:
    recipe, folder = _recipe_and_folder(context, recipe_path, sets, run_name)
    _make_way(context, folder, overwrite)
    return Run.create(folder, recipe, context.plugins)


def _make_way(context: Context, folder: Path, overwrite: bool) -> None:
    if overwrite and (folder / "manifest.json").is_file():
        with Run.open(folder, context.plugins).locked():
            shutil.rmtree(folder)
    Run.require_free(folder, context.plugins)


def make_way(context: Context, recipe: Path, sets: tuple[str, ...], run_name: str | None, overwrite: bool) -> None:
    """Raise a recipe's mistakes, and have no run in the folder of the one to come: what is there later is that one."""
    _make_way(context, _recipe_and_folder(context, recipe, sets, run_name)[1], overwrite)


def _recipe_and_folder(
    context: Context, path: Path, sets: tuple[str, ...], run_name: str | None
) -> tuple[Recipe, Path]:
    from harness.recipe import NAME, load_recipe

    if run_name is not None and not re.fullmatch(NAME, run_name):
        raise harness.RunError(
            f"--run {run_name}: a run's name has letters, digits, '.', '_' and '-', and begins with neither of the "
            f"last three"
        )
    recipe = load_recipe(path, context.plugins, sets)
    return recipe, context.runs_folder / (run_name or recipe.name)


def show_plan(context: Context, path: Path, sets: tuple[str, ...], run_name: str | None, as_json: bool) -> None:
    """Show the plan of a run in a temporary folder, which is removed."""
    from harness_tuning import plan

    recipe, folder = _recipe_and_folder(context, path, sets, run_name)
    with tempfile.TemporaryDirectory(prefix="harness-plan-") as temporary:
        tuner = _started(context, Run.create(Path(temporary) / folder.name, recipe, context.plugins), World())
    rows = plan.plan_rows(tuner, folder)
    if as_json:
        click.echo(json.dumps(plan.as_json(tuner, rows), ensure_ascii=False, indent=2))
    else:
        context.console.print(plan.as_table(rows))


def _started(context: Context, run: Run, world: World, events: Events | None = None) -> Tuner:
    """Return the run's tuner with model and data in memory, ready for its next step."""
    from harness.model.load import pick_device
    from harness.model.templates import bind_template
    from harness_tuning.loop import Tuner

    recipe, console = run.recipe, context.console
    method = context.plugins.methods[recipe.tune.method.name]
    if method.check is not None:
        method.check(recipe)
    with console.status("Reading and encoding the data"), world.main_first():  # the others find it in the cache
        template = bind_template(recipe.template, recipe.model, context.plugins)
        data = _load_data(recipe, context, template)
    tuner = Tuner(run, context.plugins, template, data, pick_device(), events, world)
    with console.status(f"Loading {recipe.model.short_name}, and trying a few batches"):
        tuner.start()
    return tuner


def _tune(context: Context, run: Run, world: World, *, is_new: bool) -> None:
    """Tune, and write the run; one that fails before its first step leaves nothing behind."""
    with run.locked():
        try:
            _tune_and_show(context, run, world, Events.to(run.recipe.track, context.plugins))
        except ENDINGS:
            raise
        except BaseException:
            if is_new and not _has_stepped(run):
                run.discard()
            raise


def _help_to_tune(context: Context, run: Run, world: World) -> None:
    """Take part in the steps of a run that the main process writes."""
    from harness_tuning.saving import keep_weights

    with _stop_on_signals() as stop:
        tuner = _started(context, run, world)
        for _ in tuner.steps(stop):
            pass
    if not tuner.is_done:
        world.wait_for_all()
        raise SystemExit(EXIT_INTERRUPTED)
    if tuner.is_sharded:
        keep_weights(tuner)


def _tune_and_show(context: Context, run: Run, world: World, events: Events) -> None:
    from harness.model.load import pick_device
    from harness_tuning import plan
    from harness_tuning.record import record
    from harness_tuning.saving import keep_weights, save_result

    recipe, console = run.recipe, context.console
    with contextlib.ExitStack() as last, run.session(str(pick_device())) as session, _stop_on_signals() as stop:
        tuner = _started(context, run, world, events)
        record(tuner)
        console.print(plan.as_table(plan.plan_rows(tuner, run.folder)))
        resolved = recipe.model_dump(mode="json")
        # Last, so that the manifest has the outcome, whatever it is.
        last.callback(lambda: events.send(Finished(run.name, run.folder, run.outcome)))
        events.send(Started(run.name, run.folder, resolved, tuner.progress.step, tuner.total_steps))
        began = time.perf_counter()
        with console.status("Computing what the objective needs of the starting state"):
            tuner.prepare()
        validation = _learn(context, tuner, stop)
        if not tuner.is_done:
            console.print(
                f"\nStopped after step {tuner.progress.step} of {tuner.total_steps}; nothing is lost. Go on with:\n"
                f"  {context.typed('tune', '--resume', str(run.folder))}",
                soft_wrap=True,
            )
            session["outcome"] = "interrupted"
        else:
            with console.status("Saving"):
                keep_weights(tuner)
                save_result(tuner)
    if session["outcome"] == "interrupted":
        world.wait_for_all()  # the end of one ends the others
        raise SystemExit(EXIT_INTERRUPTED)
    _show_result(context, tuner, time.perf_counter() - began, validation)


def _load_data(recipe: Recipe, context: Context, template: Any) -> TuningData:
    from harness.data import Reader, evaluation_texts
    from harness.data.cache.store import cached_data
    from harness.model.configs import load_config, positions_of
    from harness_tuning.loop import TuningData

    def say(what: str) -> None:
        context.console.print(what, markup=False, style="dim", soft_wrap=True)

    evaluation = evaluation_texts(recipe, context.plugins)  # read only where the recipe compares with it
    reader = Reader.of(recipe.tune.objective, context.plugins, positions_of(load_config(recipe.model)))
    return TuningData(*cached_data(recipe.data, context.plugins, template, evaluation, say, reader=reader))


def _learn(context: Context, tuner: Tuner, stop: Any) -> list[float]:
    """Run the steps under a progress bar (or, without a terminal, a line now and then). Returns validation losses."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    from harness_tuning.plan import duration, gib

    validation: list[float] = []
    terminal = context.console.is_terminal
    columns = (
        TextColumn("tuning"), BarColumn(bar_width=32), MofNCompleteColumn(),
        TextColumn("loss (smoothed) [bold]{task.fields[loss]}[/bold]{task.fields[watched]}"),
        TextColumn("{task.fields[rate]} tokens/s"),
        TextColumn("[dim]MFU {task.fields[use]}  {task.fields[memory]}  ETA {task.fields[left]}[/dim]"),
    )  # fmt: skip
    every = max(1, tuner.total_steps // 20)
    cost, smoothed = tuner.estimate, None
    with Progress(*columns, console=context.console, disable=not terminal) as bar:
        task = bar.add_task(
            "", total=tuner.total_steps, completed=tuner.progress.step, loss="-", rate=f"{cost.tokens_per_s:,.0f}",
            left=duration(cost.seconds), use="-", memory="-", watched="",
        )  # fmt: skip
        for metrics in tuner.steps(stop):
            if "validation_loss" in metrics:
                validation.append(metrics["validation_loss"])
                watched = _watched(metrics, "validation_")
                bar.console.print(
                    f"step {metrics['step']:>6,}  validation loss {metrics['validation_loss']:.4f}{watched}"
                )
                continue
            smoothed = metrics["loss"] if smoothed is None else 0.9 * smoothed + 0.1 * metrics["loss"]
            if "spike_above" in metrics:
                bar.console.print(_spike(tuner, metrics), style="yellow", markup=False, soft_wrap=True)
            step, left = int(metrics["step"]), duration(metrics["seconds_left"])
            rate, use = f"{metrics['tokens_per_s']:,.0f}", f"{metrics['model_flops_use']:.0%}"
            memory, watched = gib(metrics["peak_memory_bytes"]), _watched(metrics)
            bar.update(
                task, completed=step, loss=f"{smoothed:.4f}", rate=rate, left=left, use=use, memory=memory,
                watched=watched,
            )  # fmt: skip
            if not terminal and (step % every == 0 or step == tuner.total_steps):
                context.console.print(
                    f"step {step:>6,} of {tuner.total_steps:,}  loss (smoothed) {smoothed:.4f}{watched}  "
                    f"{rate} tokens/s  ETA {left}",
                    soft_wrap=True,
                )
    return validation


def _watched(metrics: dict[str, float], prefix: str = "") -> str:
    """Return what is watched of pairs: how often the chosen one has the higher reward, and by how much."""
    if f"{prefix}reward_accuracy" not in metrics:
        return ""
    accuracy, margin = (metrics[f"{prefix}reward_{name}"] for name in ("accuracy", "margin"))
    return f"  rewards right {accuracy:.0%}, apart by {margin:.3g}"


def _spike(tuner: Tuner, metrics: dict[str, float]) -> str:
    """Say that a step's loss is a spike, what it came from, and what is done about it."""
    step = int(metrics["step"])
    return (
        f"step {step:>6,}  loss {metrics['loss']:.4f} is a spike above the usual {metrics['spike_above']:.4f}; its "
        f"{tuner.rows_of_spike}" + ("; the run stops, as tune.on_spike says" if tuner.spec.on_spike == "stop" else "")
    )


def _show_result(context: Context, tuner: Tuner, seconds: float, validation: list[float]) -> None:
    from harness_tuning import plan
    from harness_tuning.device import peak_memory_bytes

    run = tuner.run
    whole = tuner.merges or tuner.method.produces == "model"
    merged = run.manifest.get("merging_changed_nats")
    merging = (
        f"[dim]merged: rounding to {run.recipe.model.dtype} changed log-probabilities by {merged:.2g} nats[/dim]\n"
        if merged is not None
        else ""
    )
    if (moved := run.manifest.get("serving_changed_nats")) is not None:
        merging += (
            f"[dim]{tuner.changes_base}; on the base that serving loads ({run.recipe.model.dtype}) the adapter's "
            f"log-probabilities differ by {moved:.2g} nats from those in training[/dim]\n"
        )
    # Without `evaluate` in the recipe there is nothing to measure with, and nothing to compare.
    commands = ("evaluate", "compare") if run.recipe.evaluate else ()
    measure = "".join(f"  {context.typed(command, f'{run.name}@base', run.name)}\n" for command in commands)
    if tuner.head is not None:
        use: tuple[str, ...] = ("score", run.name, "FILE")
    elif not whole and plan.why_not_served(tuner, run.adapter_folder) is not None:
        use = ("runs", "merge", run.name)  # as the plan has warned
    else:
        use = ("serve", run.name)
    kept = ", metrics and loss curve" if (run.folder / "loss.png").is_file() else " and metrics"
    change = f"; validation loss {validation[0]:.4f} → {validation[-1]:.4f}" if len(validation) > 1 else ""
    ended = _ending(run.manifest)
    context.console.print(
        f"\n[bold green]Tuned[/bold green] {run.name} in {seconds:,.0f} s, {tuner.progress.tokens:,} tokens, peak "
        f"memory {peak_memory_bytes(tuner.device) / 2**30:.2f} GiB{change}\n"
        f"{ended}{merging}[dim]{'model' if whole else 'adapter'}, chat template{kept} are in[/dim] "
        f"{run.folder}\n\n"
        f"{measure}  {context.typed(*use)}",
        soft_wrap=True,
    )


def _ending(manifest: dict[str, Any]) -> str:
    """Say why the run ended before its last step, and which step's weights are kept where it is not the last's."""
    lines = ""
    if (early := manifest.get("stopped_early")) is not None:
        stale = early["stale_validations"]
        lines += f"stopped early after step {early['step']:,}: {stale} validations in a row brought nothing new\n"
    if (kept := manifest.get("kept") or {}).get("which") == "best":
        loss = kept["validation_loss"]
        lines += f"kept: the weights after step {kept['step']:,}, of the lowest validation loss ({loss:.4f})\n"
    return lines


@contextlib.contextmanager
def _stop_on_signals() -> Iterator[Any]:
    """Yield a function that returns whether Ctrl-C, SIGTERM or SIGHUP has come. A second one stops at once."""
    asked: list[int] = []

    def ask(number: int, frame: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)
        if LAUNCHED not in os.environ:  # else the one that has started this process says it
            begin_to_stop(number)

    hears_hangup = signal.getsignal(signal.SIGHUP) != signal.SIG_IGN  # not under nohup
    heard = [number for number in STOPS if number != signal.SIGHUP or hears_hangup]
    before = {number: signal.signal(number, ask) for number in heard}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
