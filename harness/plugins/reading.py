"""Record of the files and folders that Python code opens while it runs, and of the hosts that it contacts.

The cache of prepared data asks this of plugins, whose results depend on more than their own code. The interpreter's
audit events tell; they see what Python opens, not what a library's native code opens by itself.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote, urlsplit

_CORE = f"{Path(__file__).parents[1]}{os.sep}"
_CALLERS = tuple(
    str(Path(_CORE, name))
    for name in (
        "plugins/discovery.py",
        "plugins/installed.py",
        "data/convert/conversion.py",
        "data/convert/sources.py",
        "data/prepare/cleaning.py",
    )
)
_STDLIB = tuple({f"{sysconfig.get_path(name)}{os.sep}" for name in ("stdlib", "platstdlib")})
_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
_MACHINE = ("/proc/", "/sys/", "/dev/")  # the machine as it is now, which libraries ask when they are imported
_FILES = ("open", "sqlite3.connect")
_FOLDERS = ("os.listdir", "os.scandir")


@dataclass(frozen=True, slots=True)
class Reads:
    """Absolute paths of the files and folders that were read, and the addresses that were asked."""

    files: set[str] = field(default_factory=set)
    folders: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)

    def add(self, other: Reads) -> None:
        """Take in what another one holds."""
        self.files.update(other.files)
        self.folders.update(other.folders)
        self.hosts.update(other.hosts)


@contextmanager
def reading() -> Iterator[Reads]:
    """Collect what plugins read in the block, in any thread of this process. The harness's own reading is left out."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_heard)
    reads = Reads()
    _collecting[id(reads)] = reads
    try:
        yield reads
    finally:
        del _collecting[id(reads)]


def is_installed(path: str) -> bool:
    """Return True for a file of Python's library or of an installed package, which change with their versions."""
    return any(part in path for part in _INSTALLED) or path.startswith(_STDLIB)


def is_of_python(path: str) -> bool:
    """Return True for a file of Python's own library."""
    return path.startswith(_STDLIB) and not any(part in path for part in _INSTALLED)


def existing_file(name: str) -> Path | None:
    """Return the file of that name, or the archive that holds it."""
    if os.path.isfile(name):  # noqa: PTH113 - asked of some thousand modules, and a Path takes as long as the question
        return Path(name)
    return next((place for place in Path(name).parents if place.is_file()), None)


def loaded_modules() -> frozenset[tuple[str, str | None]]:
    """Return names and files of the modules that are loaded: another file under the same name is another module."""
    return frozenset(
        (name, getattr(module, "__dict__", {}).get("__file__")) for name, module in list(sys.modules.items())
    )


_hooked: list[bool] = []  # an audit hook is there for as long as the process
_collecting: dict[int, Reads] = {}


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    if not _collecting or not (event in _FILES or event in _FOLDERS or event == "socket.connect"):
        return
    try:
        if not _is_a_plugin_s(sys._getframe(1)):
            return
        if event == "socket.connect":
            if isinstance(arguments[1], tuple):  # a text is the name of a socket on this machine
                for reads in tuple(_collecting.values()):
                    reads.hosts.add(str(arguments[1][0]))
        elif (path := _path_of(event, arguments)) is not None:
            for reads in tuple(_collecting.values()):
                (reads.files if event in _FILES else reads.folders).add(path)
    except (TypeError, ValueError, OSError):
        return  # what has no name: the call itself tells what is wrong with it


def _is_a_plugin_s(frame: FrameType | None) -> bool:
    """Return True while a plugin reads: the core called code of others, or the thread does not belong to the core."""
    if frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        return False
    below, ours = "", False  # the code that the frame called, and whether the core was met
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(_CORE):
            if name in _CALLERS and below and not below.startswith(_CORE):
                return True
            ours = True
        if not name.startswith(("<frozen", *_STDLIB)) or any(part in name for part in _INSTALLED):
            below = name
        frame = frame.f_back
    return not ours


def _path_of(event: str, arguments: tuple[Any, ...]) -> str | None:
    path = arguments[0] if arguments[0] is not None else "."
    if isinstance(path, int):
        return None
    if event == "open" and arguments[2] & (os.O_WRONLY | os.O_TRUNC | os.O_EXCL):
        return None  # written, not read
    path = os.fsdecode(path)
    if event == "sqlite3.connect":
        if path == ":memory:" or not path:
            return None
        if path.startswith("file:"):
            path = unquote(urlsplit(path).path)
    path = str(Path(path).absolute())
    return None if path.startswith(_MACHINE) else path
