"""The command in this process, and plugins without those that happen to be installed."""

from __future__ import annotations

import contextlib
import importlib.metadata
import io
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from harness.cli.main import main
from harness.plugins import Plugins
from harness.plugins.discovery import ENTRY_POINT_GROUP, OUR_DISTRIBUTION


class Done(NamedTuple):
    """The end of a command: its exit status, and the text it wrote to each stream."""

    code: int
    out: str
    err: str


def run(
    command: str,
    *arguments: object,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    modules: Sequence[ModuleType] = (),
) -> Done:
    """Run `harness COMMAND` in this process and return how it ended; a crash of the command is raised as it is.

    It knows the harness's own plugins, `modules`, and files named with `--plugin`; what else is installed on this
    machine, or named by a pyproject.toml, stays out.

    Args:
        command: the words after `harness`, as a shell would split them: `run("data preview rows.jsonl --count 2")`.
        arguments: more words, taken as they are, such as paths.
        cwd: the folder to run it in.
        env: environment variables to set meanwhile. Unless it has COLUMNS and NO_COLOR, tables are 200 columns wide and
            without colours.
        modules: plugins of the test, as an entry point would name them.
    """
    entries = [*_first_party(), *map(_entry_of, modules)]
    out, err = _stream(), _stream()
    settings = {"COLUMNS": "200", "NO_COLOR": "1"} | dict(env or {})
    with (
        _environment(settings),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main([*shlex.split(command), *map(str, arguments)], entries)
            code = 0
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
    return Done(code, _text(out), _text(err))


def plugins(*sources: Path | str | ModuleType, first_party: bool = False, strict: bool = True) -> Plugins:
    """Load plugins from files and modules; whatever else is installed stays out.

    Args:
        sources: paths of single-file plugins, and modules as an entry point would name them.
        first_party: load what comes with the harness too.
        strict: raise PluginError for a broken plugin, instead of leaving it out with a warning.
    """
    entries = [_entry_of(source) for source in sources if isinstance(source, ModuleType)]
    if first_party:
        entries += _first_party()
    files = [Path(source) for source in sources if not isinstance(source, ModuleType)]
    return Plugins(files, entries=entries, strict=strict)


def _entry_of(module: ModuleType) -> importlib.metadata.EntryPoint:
    return importlib.metadata.EntryPoint(module.__name__, module.__name__, ENTRY_POINT_GROUP)


def _first_party() -> list[importlib.metadata.EntryPoint]:
    installed = importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)
    return [entry for entry in installed if entry.dist and entry.dist.name == OUR_DISTRIBUTION]


def _stream() -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)


def _text(stream: io.TextIOWrapper) -> str:
    stream.seek(0)
    return stream.read()


@contextlib.contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
