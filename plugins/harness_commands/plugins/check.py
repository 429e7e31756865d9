"""`harness plugins check`: a plugin tried by the laws of what it registers, and the time that its import takes."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import click

from harness.cli.context import Context
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.testing.checking import Report

SIGNS = {"kept": "green", "broken": "red", "doubtful": "yellow", "not tried": "dim"}


@click.command()
@click.argument("source", metavar="NAME|FILE")
@click.option(
    "--rows", type=click.Path(path_type=Path, exists=True), metavar="FILE", help="Rows for datasets that bring none."
)
@click.option(
    "--set", "sets", multiple=True, metavar="NAME.KEY=VALUE", help="A value for an option that has no default."
)
@click.option("--strict", is_flag=True, help="Exit 1 for what is doubtful, too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def check(context: Context, source: str, rows: Path | None, sets: tuple[str, ...], strict: bool, as_json: bool) -> None:
    """Try a plugin by the laws of what it registers. Exits 1 if one is broken.

    NAME is an installed plugin's, FILE a single-file plugin. It is loaded beside everything else that is installed.
    Objectives, methods, templates and engines are tried on a tiny model. A law is kept, broken, doubtful (authors may
    mean it), or not tried, with the reason.
    """
    from harness.testing.checking import examine, loaded

    environment = dict(os.environ)  # the plugin may change it
    plugins, name = loaded(source)
    timed = plugins.source_of(name) if name in plugins.loaded else None
    report = examine(plugins, name, rows, dict(map(_pair, sets)), timed, environment)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2, ensure_ascii=False))
    else:
        _print(context, report)
    outcomes = {finding.outcome for finding in report.findings}
    if "broken" in outcomes or (strict and "doubtful" in outcomes):
        raise SystemExit(1)


def _pair(written: str) -> tuple[str, object]:
    key, equals, value = written.partition("=")
    if not equals or "." not in key:
        raise HarnessError(f"--set {written}: expected NAME.KEY=VALUE, as in --set diary.file=events.txt")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def _print(context: Context, report: Report) -> None:
    from rich.markup import escape

    console = context.console
    console.print(f"[bold]{escape(report.plugin)}[/bold] {report.version}  {escape(report.path)}", soft_wrap=True)
    before = ""
    for finding in report.findings:
        if finding.where != before:
            before = finding.where
            console.print(f"\n{escape(before)}", soft_wrap=True)
        style = SIGNS[finding.outcome]
        message = f": {escape(finding.message)}" if finding.message else ""
        console.print(f"  [{style}]{finding.outcome:<9}[/{style}]  {escape(finding.law)}{message}", soft_wrap=True)
    counts: Counter[str] = Counter(finding.outcome for finding in report.findings)
    console.print("\n" + ", ".join(f"{counts[outcome]} {outcome}" for outcome in SIGNS if counts[outcome]))
