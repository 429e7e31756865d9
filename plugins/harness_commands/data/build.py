"""`harness data build`: the prepared data as one file, with a card that says what they are and where they come from."""

from __future__ import annotations

import hashlib
import io
import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import DataError, HarnessError
from harness.files import write_text
from harness.pages import names_of
from harness_commands.data.reading import (
    Part,
    Reading,
    Stream,
    dataset_option,
    json_option,
    not_read,
    part_option,
    path_argument,
    print_passed_over,
    read_items,
    set_option,
    what_to_read,
)  # fmt: skip

if TYPE_CHECKING:
    from harness.data import SourceReport
    from harness.data.export import Written


@click.command()
@path_argument
@dataset_option
@set_option
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="A .jsonl or .parquet file; the card is FILE with .md.",
)
@part_option
@json_option
@click.pass_obj
def build(
    context: Context, path: str | None, dataset: str | None, sets: tuple[str, ...], out: Path, part: Part, as_json: bool
) -> None:
    """Write the prepared data of RECIPE (or of FILE) as one file of rows, with a data card beside it.

    Conversations become rows of `messages`, preferences rows of `preferences`, and completions that are good or bad by
    themselves rows of `feedback`: what the datasets of these names read.
    """
    from harness.data.export import check_writable, write_items

    check_writable(out)
    card = out.with_suffix(".md")
    _check_may_replace(out, card)
    reading = what_to_read(context, path, dataset, part, sets)
    stream = read_items(context, reading, "building")
    written = write_items((prepared.item for prepared in stream.items for _ in range(prepared.times)), out)
    given = [part for override in sets for part in ("--set", override)]
    arguments = [*([path] if path else []), *(["--dataset", dataset] if dataset else []), *given, "--out", str(out)]
    command = f"harness data build {shlex.join(arguments)}"
    command += f" --part {part}" if reading.recipe and part != "train" else ""
    write_text(card, _card(context, reading, stream, written, out, part, command))
    if as_json:
        files = [_account(report) for report in stream.reports]
        summary: dict[str, Any] = {
            "out": str(out),
            "card": str(card),
            "dataset": written.form,
            "rows": written.rows,
            "size_bytes": written.size_bytes,
            "sha256": written.sha256,
            "sources": files,
            "recognised": reading.as_dict(),
        }
        click.echo(json.dumps(summary, indent=2, ensure_ascii=False))
        return
    console = context.console
    for report in stream.reports:
        print_passed_over(context, report.path)
        left = "".join(f"; {count:,} left out: {reason}" for reason, count in report.left_out.items())
        console.print(
            f"{report.path}: {report}{_again(report)}{left}",
            markup=False,
            soft_wrap=True,
        )
    for line in stream.mixture():
        console.print(line, markup=False, soft_wrap=True)
    console.print(
        f"{out}: {written.rows:,} rows of {written.form}, {written.size_bytes:,} bytes", markup=False, soft_wrap=True
    )
    console.print(f"{card}: where they come from", markup=False, soft_wrap=True)


def _mark(out: Path) -> str:
    """Return the line that marks a card as that of `out`: `mix.jsonl` and `mix.parquet` have the same card name."""
    return f"<!-- Written by `harness data build` for {out.name}. -->"


def _check_may_replace(out: Path, card: Path) -> None:
    """Raise HarnessError if `out` or `card` exists and was not written by an earlier build of `out`."""
    ours = card.is_file() and _mark(out) in card.read_text(encoding="utf-8", errors="replace")[:500]
    for file in (out, card):
        if file.exists() and not ours:
            raise HarnessError(
                f"{file} exists and is not from an earlier `harness data build` of {out.name} (which leaves a card, "
                f"{card.name}, beside its data): remove it, or choose another --out"
            )


# The card


def _card(
    context: Context, reading: Reading, stream: Stream, written: Written, out: Path, part: Part, command: str
) -> str:  # fmt: skip
    """Return the data card: rows, sources and licences, rows left out, and the command that repeats the build."""
    from harness import __version__

    reports = stream.reports
    names = names_of([report.path for report in reports])  # the card is published beside the data
    kinds = {"messages": "conversations", "preferences": "preferences", "feedback": "completions, each good or bad"}
    lines = [
        f"# {out.stem}",
        "",
        _mark(out),
        "",
        f"{written.rows:,} {kinds[written.form]} in `{out.name}`, read as the dataset `{written.form}`:",
        "",
        "```yaml",
        "data:",
        f"  {part}:",
        f"  - dataset: {written.form}",
        f"    path: {out.name}",
        "```",
        "",
        f"SHA-256 `{written.sha256}`, {written.size_bytes:,} bytes. Built by instruct-harness {__version__}.",
        "",
        "## Sources",
        "",
        "| dataset | file | licence | rows read | kept | used | SHA-256 of the file |",
        "|---|---|---|---:|---:|---:|---|",
    ]
    for report, name in zip(reports, names, strict=True):
        licence = context.plugins.datasets[report.source].licence
        cells = [
            report.source,
            name,
            licence,
            f"{report.rows:,}",
            f"{report.kept:,}",
            f"{report.used:,}",
            _hashes(report.path),
        ]
        lines.append(f"| {' | '.join(_cell(cell) for cell in cells)} |")
    lines += [
        "",
        "A licence is what the dataset declares; where it is not stated, the file's publisher says what it is.",
        "",
    ]
    lines += ["## What was left out", ""]
    left_out = [
        f"- `{name}`: {count:,}: {reason}"
        for report, name in zip(reports, names, strict=True)
        for reason, count in report.left_out.items()
    ]
    lines += [*(left_out or ["Nothing."]), ""]
    if reading.recipe:
        lines += ["Nothing is measured against `data.max_tokens` here: tuning does that, with its tokenizer.", ""]
    if mixture := stream.mixture():
        lines += ["## What it came to", "", *(f"- {line}" for line in mixture), ""]
    if reading.recognised:
        lines += ["## What was recognised", ""]
        for index, match in reading.recognised.items():
            lines.append(f"- `{names[index]}` as `{match.dataset}` (sure: {match.sureness:.0%}): {match.why}")
        lines.append("")
    lines += ["## To repeat it", "", "```bash", command, "```", ""]
    if reading.recipe:
        lines += [
            "with these data in the recipe:",
            "",
            "```yaml",
            _yaml({"data": _without_folders(reading.recipe.data.model_dump(mode="json"))}),
            "```",
            "",
        ]
    return "\n".join(lines)


def _without_folders(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data of a recipe with the paths of its sources as on a page that is sent on."""
    sources = [source for part in ("train", "validation") for source in data[part] if source["path"]]
    for source, name in zip(sources, names_of([source["path"] for source in sources]), strict=True):
        source["path"] = name
    return data


def _yaml(value: Any) -> str:
    from ruamel.yaml import YAML

    out = io.StringIO()
    yaml = YAML()
    yaml.default_flow_style = False
    yaml.width = 120
    yaml.dump(value, out)
    return out.getvalue().rstrip()


def _hashes(where: str) -> str:
    """Return the SHA-256 of a local file; for several files, one SHA-256 over their names and hashes."""
    from harness.data.read.storage import files_of, local_path

    try:
        files = [local_path(file) for file in files_of(where)]
    except DataError:  # a hub dataset, whose revision says it all
        files = []
    if not files or not all(file.is_file() for file in files):
        return "not a local file"
    digests = []
    for file in files:
        with file.open("rb") as opened:
            digests.append(hashlib.file_digest(opened, "sha256").hexdigest())
    if len(digests) == 1:
        return digests[0]
    together = "".join(f"{digest}  {file.name}\n" for digest, file in zip(digests, files, strict=True))
    return f"{hashlib.sha256(together.encode()).hexdigest()} ({len(files)} files)"


def _again(report: SourceReport) -> str:
    return f", used {report.used:,} times" if report.used != report.kept else ""


def _account(report: SourceReport) -> dict[str, Any]:
    return {
        "dataset": report.source,
        "path": report.path,
        "rows": report.rows,
        "kept": report.kept,
        "used": report.used,
        "left_out": dict(report.left_out),
        "not_read": not_read(report.path),
    }


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
