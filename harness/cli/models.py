"""`harness models`: put a model of the hub or a GGUF file into the models folder, and list what is there."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from harness.cli.context import Context
from harness.cli.lazy import OpenGroup
from harness.errors import ModelError, nearest

MODELS = click.option(
    "--models",
    type=click.Path(path_type=Path, file_okay=False),
    default=".models",
    show_default=True,
    envvar="HARNESS_MODELS",
    metavar="DIR",
    help="The models folder.",
)


@click.group(cls=OpenGroup, name="models", help="Fetch models, as folders, and list them.")
def command() -> None:
    pass


@command.command()
@click.argument("source", metavar="SOURCE")
@click.option("--file", metavar="FILE.gguf", help="Of a hub id: this GGUF file instead of its safetensors.")
@click.option("--revision", metavar="REV", help="Of a hub id: a branch, tag or commit instead of the main branch.")
@click.option("--name", metavar="NAME", help="The folder's name; that of the repository or the file where left out.")
@click.option(
    "--origin", metavar="TEXT", help="Of a GGUF file: what the record says it came from, instead of its path."
)
@click.option("--force", is_flag=True, help="Replace a model of that name.")
@MODELS
@click.pass_obj
def fetch(
    context: Context,
    source: str,
    file: str | None,
    revision: str | None,
    name: str | None,
    origin: str | None,
    force: bool,
    models: Path,
) -> None:
    """Put a model into the models folder: an ordinary folder, with a record of where it came from in its source.json.

    \b
    SOURCE is
      owner/name      a model of the hub, at the commit that its branch is at now; safetensors only
      ./model.gguf    a GGUF file; its weights are dequantised to bfloat16. With --file also one of the hub

    Of a download that breaks off, the files that came whole are kept for the next call. Nothing half-made is ever in
    the place of a model.
    """
    from harness.recipe import HUB_ID

    if not sys.stderr.isatty():
        _no_progress_bars()
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf" or path.is_file():
        if file or revision:
            raise click.UsageError("--file and --revision are of a hub id, and SOURCE is a file.")
        folder = _fetch_gguf(path, name or path.name.removesuffix(path.suffix), origin, models, force)
    elif path.is_dir():
        raise ModelError(f"{source} is a folder; `model: {{path: {source}}}` in a recipe uses it as it is")
    elif "/" in source and HUB_ID.fullmatch(source):
        if origin:
            raise click.UsageError("--origin is of a file, and SOURCE is a hub id.")
        folder = _fetch_hub(source, file, revision, name or source.split("/")[1], models, force)
    else:
        raise ModelError(f"{source!r} is neither a hub id (owner/name) nor a GGUF file (*.gguf)")
    _say(folder)


def _fetch_gguf(path: Path, name: str, origin: str | None, models: Path, force: bool) -> Path:
    from harness.hashing import sha256_of_file
    from harness.model.folders import Source, building, require_space
    from harness.model.gguf import GgufHeader, convert

    if not path.is_file():
        near = nearest(path.name, [other.name for other in path.parent.glob("*.gguf")])
        raise ModelError(f"{path}: no such file.{near}")
    header = GgufHeader.read(path)
    with building(models, name, "gguf", force=force) as work:
        require_space(work, 2 * header.parameters)
        done = convert(header, work / "model")
        record = Source(origin or str(path.resolve()), None, path.name, {path.name: sha256_of_file(path)}, done)
        record.write(work / "model")
    return models / name


def _fetch_hub(hub_id: str, file: str | None, revision: str | None, name: str, models: Path, force: bool) -> Path:
    from harness.model import hub
    from harness.model.folders import building, check_folder, require_space
    from harness.model.gguf import GgufHeader, convert

    if file is not None and not file.endswith(".gguf"):
        raise ModelError(f"--file {file}: only GGUF files are fetched one by one; without --file the whole model is")
    model = hub.find_model(hub_id, revision)
    files = model.model_files() if file is None else (model.find(file),)
    size = sum(file.size_bytes for file in files)
    click.echo(f"{hub_id} at {model.commit}: {len(files)} files, {size / 1e6:.0f} MB", err=True)
    with building(models, name, f"{model.commit}{'-gguf' if file else ''}", force=force) as work:
        hashes = hub.download(model, files, work / "download")
        if file is None:
            check_folder(work / "download")
            (work / "download").rename(work / "model")
            hub.source_of(model, hashes).write(work / "model")
        else:
            header = GgufHeader.read(work / "download" / file)
            require_space(work, 2 * header.parameters)
            done = convert(header, work / "model")
            hub.source_of(model, hashes, file, done).write(work / "model")
    return models / name


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@MODELS
@click.pass_obj
def list_command(context: Context, as_json: bool, models: Path) -> None:
    """List the models in the models folder: architecture, parameters, dtype, size on disk, and where each came from."""
    from harness.model import folders as model_folders

    models_found = model_folders.list_models(models)
    if as_json:
        click.echo(json.dumps([model_folders.as_json(model) for model in models_found], indent=2, ensure_ascii=False))
        return
    if not models_found:
        click.echo(f"no models in {models}/: `harness models fetch SOURCE` puts one there")
        return
    from rich.markup import escape

    table = context.table("model", "architecture", "parameters", "dtype", "size", "source")
    for model in models_found:
        if model.problem:
            table.add_row(
                f"[bold]{escape(model.name)}[/bold]", "[red]unreadable[/red]", "", "", "", escape(model.problem)
            )
            continue
        source = model.source
        table.add_row(
            f"[bold]{escape(model.name)}[/bold]",
            escape(model.architecture or "?"),
            _count(model.parameters),
            model.dtype or "?",
            f"{model.size_bytes / 1e6:.0f} MB",
            escape(
                f"{source.short}; {source.done}" if source and source.done else source.short if source else "unknown"
            ),
        )
    context.console.print(table)


def _say(folder: Path) -> None:
    from harness.model.folders import Source, list_models

    summary: Any = next(model for model in list_models(folder.parent) if model.name == folder.name)
    record = Source.read(folder)
    assert record is not None
    click.echo(f"{folder}: {summary.architecture}, {_count(summary.parameters)} parameters, {summary.dtype}")
    click.echo(f"  from {record.short}; {record.done or 'as published'}")


def _count(parameters: int | None) -> str:
    if parameters is None:
        return "?"
    return f"{parameters / 1e9:.2f} B" if parameters >= 1e9 else f"{parameters / 1e6:.1f} M"


def _no_progress_bars() -> None:
    """Leave the progress bars of the libraries out of what is no terminal; they ask before they are imported."""
    os.environ["TQDM_DISABLE"] = os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
