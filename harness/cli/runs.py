"""`harness runs`: what was tuned, how it ended, what it holds on disk; and removing it."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import click

from harness.cli.context import Context
from harness.cli.lazy import OpenGroup
from harness.errors import RunError, nearest
from harness.plugins.registry import FIRST_PARTY
from harness.run import Run, list_runs

STYLES = {
    "finished": "green",
    "failed": "red",
    "unreadable": "red",
    "interrupted": "yellow",
    "killed": "yellow",
    "working": "cyan",
}


@click.group(cls=OpenGroup, name="runs", help="List, show, compare, merge, export and remove runs.")
def command() -> None:
    pass


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def list_command(context: Context, as_json: bool) -> None:
    """List the runs, oldest first: how each ended, on which model, how long it took, its last loss and evaluations."""
    broken: list[RunError] = []
    rows = [summary(run) for run in list_runs(context.runs_folder, context.plugins, broken)]
    if as_json:
        click.echo(
            json.dumps({"runs": rows, "unreadable": [str(error) for error in broken]}, indent=2, ensure_ascii=False)
        )
        return
    from rich.markup import escape

    if not rows and not broken:
        click.echo(f"no runs in {context.runs_folder}/: `harness demo` makes one, and so does `harness tune RECIPE`")
        return
    table = context.table("run", "outcome", "model", "method", "started", "took", "train loss", "evaluations")
    for row in rows:
        style = STYLES.get(row["outcome"], "")
        table.add_row(
            f"[bold]{escape(row['name'])}[/bold]",
            f"[{style}]{row['outcome']}[/{style}]" if style else escape(row["outcome"]),
            escape(Path(row["model"]).name),
            escape(_method_name(row["method"])),
            (row["started"] or "").replace("T", " ")[:16],
            _took(row["seconds"]),
            "" if row["last_loss"] is None else f"{row['last_loss']:.4f}",
            escape(", ".join(row["evaluations"])),
        )
    context.console.print(table)
    for error in broken:
        context.console.print(f"[red]unreadable[/red]  {escape(str(error))}", soft_wrap=True)


@command.command()
@click.argument("name", metavar="RUN")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(context: Context, name: str, as_json: bool) -> None:
    """Show one run: its recipe, the digest of its manifest, its metrics in short, and what its folders take on disk."""
    run = find_run(context, name)
    recipe = run.folder / "recipe.yaml"
    details = summary(run) | {
        "folder": str(run.folder),
        "manifest_sha256": hashlib.sha256((run.folder / "manifest.json").read_bytes()).hexdigest(),
        "recipe_sha256": run.manifest.get("recipe_sha256"),
        "versions": (run.manifest.get("sessions") or [{}])[-1].get("versions", {}),
        "added_tokens": run.added_tokens,
        "metrics": _metrics_summary(run),
        "size_bytes": {part.name: _size_bytes(part) for part in sorted(run.folder.iterdir()) if part.name != ".lock"},
        "recipe": recipe.read_text(encoding="utf-8") if recipe.is_file() else None,
    }
    if as_json:
        click.echo(json.dumps(details, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape
    from rich.syntax import Syntax

    console = context.console
    style = STYLES.get(details["outcome"], "default")
    console.print(
        f"[bold]{escape(run.name)}[/bold]  [{style}]{details['outcome']}[/{style}]  {escape(str(run.folder))}",
        soft_wrap=True,
    )
    facts = {
        "started": f"{details['started'] or 'never'}, took {_took(details['seconds']) or '?'} in "
        f"{details['sessions']} session(s)",
        "manifest": f"sha256 {details['manifest_sha256']}",
        "metrics": ", ".join(f"{key.replace('_', ' ')} {value:.6g}" for key, value in details["metrics"].items())
        or "none",
        "evaluations": ", ".join(details["evaluations"]) or "none",
        "versions": ", ".join(f"{package} {version}" for package, version in details["versions"].items()) or "?",
        "on disk": ", ".join(f"{part} {_size(size)}" for part, size in details["size_bytes"].items()),
    }
    if details["added_tokens"]:
        facts["added tokens"] = ", ".join(f"{token} ({id})" for token, id in details["added_tokens"].items())
    for key, value in facts.items():
        console.print(f"  [dim]{key:<12}[/dim] {escape(value)}", soft_wrap=True)
    if details["recipe"]:
        console.print(Syntax(details["recipe"], "yaml", background_color="default", word_wrap=True))


@command.command()
@click.argument("name", metavar="RUN")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@click.pass_obj
def remove(context: Context, name: str, yes: bool) -> None:
    """Remove a run and everything in its folder. Asks first; refuses a run that a process is working in."""
    run = find_run(context, name)
    with run.locked():
        if not yes:
            size = _size(_size_bytes(run.folder))
            click.confirm(f"Remove {run.folder} ({run.outcome}, {size}) for good?", abort=True)
        # Renamed first, so that a half-removed folder is never taken for a run.
        doomed = run.folder.with_name(f".{run.name}.removed-{os.getpid()}")
        run.folder.replace(doomed)
        shutil.rmtree(doomed)
    click.echo(f"removed {run.folder}")


def find_run(context: Context, name: str) -> Run:
    """Return the run called `name`, or in the folder `name`.

    Raises RunError, naming the nearest, where there is none.
    """
    for folder in (context.runs_folder / name, Path(os.path.expanduser(name))):  # noqa: PTH111 - Path's raises
        if os.path.isfile(folder / "manifest.json"):  # noqa: PTH113 - as above
            return Run.open(folder.resolve(), context.plugins)
    names = [path.parent.name for path in context.runs_folder.glob("*/manifest.json")]
    raise RunError(
        f"no run is named {name!r} in {context.runs_folder}/.{nearest(name, names)} `harness runs list` shows the runs"
    )


def summary(run: Run) -> dict[str, Any]:
    """Return a run in one row, from its manifest, metrics and folder names. Needs no plugin of the recipe."""
    sessions = run.manifest.get("sessions") or []
    outcome = run.outcome
    if outcome == "started":  # a process that was killed could not say so
        outcome = "working" if run.in_use() else "killed"
    metrics = _metrics(run)
    losses = [line["loss"] for line in metrics if isinstance(line.get("loss"), int | float)]
    return {
        "name": run.name,
        "outcome": outcome,
        "model": str((run.manifest.get("model") or {}).get("path", "?")),
        "method": _recipe_value(run, "tune", "method"),
        "started": sessions[0].get("started") if sessions else None,
        "sessions": len(sessions),
        "seconds": _seconds(sessions),
        "last_loss": losses[-1] if losses else None,
        "evaluations": sorted({path.stem for path in run.evaluations_folder.rglob("*.json")}),
    }


def _method_name(method: Any) -> str:
    """Return the name of a recipe's method, which is a section, or in older runs a name alone; `?` for none."""
    name = method.get("name") if isinstance(method, dict) else method
    return str(name or "?").removeprefix(f"{FIRST_PARTY}:")


def _recipe_value(run: Run, *keys: str) -> Any:
    """Return a value of the saved recipe, without its plugins; None where there is none."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe").load((run.folder / "recipe.yaml").read_text(encoding="utf-8"))
        for key in keys:
            value = value[key]
    except (OSError, YAMLError, KeyError, TypeError, ValueError):
        return None
    return value


def _metrics(run: Run) -> list[dict[str, Any]]:
    """Return the lines of metrics.jsonl; one that was cut off in mid-write is passed over."""
    lines = []
    if run.metrics_path.is_file():
        for line in run.metrics_path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                continue
            if isinstance(entry, dict):
                lines.append(entry)
    return lines


def _metrics_summary(run: Run) -> dict[str, float]:
    """Return the number of steps, and the first, last and lowest value of each loss."""
    metrics = _metrics(run)
    values_by_name: dict[str, float] = {}
    steps = [line["step"] for line in metrics if isinstance(line.get("step"), int)]
    if steps:
        values_by_name["steps"] = max(steps)
    for key in sorted({key for line in metrics for key in line if key == "loss" or key.endswith("_loss")}):
        values = [line[key] for line in metrics if isinstance(line.get(key), int | float)]
        if values:
            values_by_name |= {f"first_{key}": values[0], f"last_{key}": values[-1], f"lowest_{key}": min(values)}
    return values_by_name


def _seconds(sessions: list[dict[str, Any]]) -> float | None:
    """Return the total duration of the sessions in seconds; a session without an end is not counted."""
    total = None
    for session in sessions:
        try:
            started, ended = (datetime.datetime.fromisoformat(session[key]) for key in ("started", "ended"))
        except (KeyError, TypeError, ValueError):
            continue
        total = (total or 0.0) + (ended - started).total_seconds()
    return total


def _took(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _size_bytes(path: Path) -> int:
    if path.is_dir() and not path.is_symlink():
        return sum(_size_bytes(child) for child in path.iterdir())
    return path.lstat().st_size


def _size(size_bytes: float) -> str:
    for unit in ("B", "KB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
