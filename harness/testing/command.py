"""The command in this process, and plugins without those that happen to be installed."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from harness.cli.main import main
from harness.plugins import Plugins
from harness.plugins.installed import ENTRY_POINT_GROUP, ONLY, own_entries


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
    machine, or named by a pyproject.toml, stays out. So do the processes that it starts.

    Args:
        command: the words after `harness`, as a shell would split them: `run("data preview rows.jsonl --count 2")`.
        arguments: more words, taken as they are, such as paths.
        cwd: the folder to run it in.
        env: environment variables to set meanwhile. Unless it has COLUMNS and NO_COLOR, tables are 200 columns wide and
            without colours.
        modules: plugins of the test, as an entry point would name them.
    """
    out, err = _stream(), _stream()
    settings = {
        "COLUMNS": "200",
        "NO_COLOR": "1",
        ONLY: ",".join(module.__name__ for module in modules),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),  # a process that the command starts imports the same
        **(env or {}),
    }
    with (
        _environment(settings),
        contextlib.chdir(cwd or Path.cwd()),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main([*shlex.split(command), *map(str, arguments)])
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
    modules = [source.__name__ for source in sources if isinstance(source, ModuleType)]
    entries = [EntryPoint(name, name, ENTRY_POINT_GROUP) for name in modules]
    files = [Path(source) for source in sources if not isinstance(source, ModuleType)]
    return Plugins(files, entries=[*(own_entries() if first_party else ()), *entries], strict=strict)


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
