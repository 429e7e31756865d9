"""The index of installed plugins: what each registers, so that one is imported only when something of its is used.

A plugin's record holds while the files are as they were that its modules came from, and those that it read while it
registered things. Of a library that it uses, the file of the package stands for all: another version has another one.
A plugin that could not be imported is tried again when its files, the installed packages or the environment's variables
change. What cannot be known is not kept: one that asked the network is imported each time, and a kind whose
registration failed is asked each time. The index only saves time: one that cannot be read or written costs some.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import harness
from harness.errors import HarnessError
from harness.files import cache_folder, write_json
from harness.plugins.installed import Installed, installed
from harness.plugins.reading import Reads, existing_file, is_installed, is_of_python

_MOST = 2_000  # files that one plugin is watched by
_SCANS = 8  # values of `sys.path` whose entry points are kept
_SETTLED_NS = 2 * 10**9  # what was written more recently could change again without a new time
_PASSING = ("PWD", "OLDPWD", "SHLVL", "_", "COLUMNS", "LINES")  # variables that decide nothing


@dataclass(frozen=True, slots=True)
class Record:
    """The outcome of importing a plugin: by kind, what it registers as a registry's `Claim` has it; or the error.

    None stands for a kind that has to be asked.
    """

    path: str
    import_s: float
    kinds: dict[str, list[dict[str, Any]] | None] = field(default_factory=dict)
    error: str = ""
    details: str = ""
    state: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Before:
    """The time before a plugin is imported, and the modules that were there."""

    at: int = field(default_factory=time.time_ns)
    modules: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))


class Index:
    """The records of this environment's plugins, in a file of the cache folder."""

    def __init__(self) -> None:
        self._file: Path | None = None
        self._kept: dict[str, Any] = {}
        self._changed = False
        with suppress(OSError, RuntimeError, ValueError):  # no home, no cache, or one that is torn
            here = [os.path.realpath(sys.prefix), sys.version, harness.__file__, harness.__version__]
            self._file = cache_folder() / "plugins" / f"{_digest(here)[:16]}.json"
            kept = json.loads(self._file.read_bytes())
            if isinstance(kept, dict) and all(isinstance(kept.get(part), dict) for part in ("records", "scans")):
                self._kept = kept

    @property
    def _records(self) -> dict[str, Any]:
        records: dict[str, Any] = self._kept.setdefault("records", {})
        return records

    @property
    def _scans(self) -> dict[str, Any]:
        scans: dict[str, Any] = self._kept.setdefault("scans", {})
        return scans

    def installed(self) -> list[Installed]:
        """Return the installed entry points; nothing is read while all folders of `sys.path` are as they were."""
        here = _digest(sys.path)[:16]  # `python -m harness` has another first place in each folder
        with suppress(KeyError, TypeError, ValueError):  # of another form, or the first
            scan = self._scans[here]
            known = [Installed(*entry) for entry in scan["entries"]]
            if scan["folders"] == _folders() and scan["lists"] == _lists(known):
                return known
        at, folders, entries = time.time_ns(), _folders(), installed()
        self._changed = self._scans.pop(here, None) is not None or self._changed
        if at - max((seen for seen in folders.values() if seen is not None), default=0) > _SETTLED_NS:
            kept = {"folders": folders, "lists": _lists(entries), "entries": entries}
            self._kept["scans"] = dict([*self._scans.items(), (here, kept)][-_SCANS:])
            self._changed = True
        self._leave_out_gone({_key(entry) for entry in entries})
        return entries

    def record_of(self, entry: Installed) -> Record | None:
        """Return the record of a plugin, where all that it depends on is as it was."""
        with suppress(KeyError, TypeError, ValueError, AttributeError):  # of another form
            record = Record(**self._records[_key(entry)])
            state = record.state
            same = (
                state["origin"] == _origin(entry)
                and all(_unchanged(path, kept, state["at"]) for path, kept in state["files"].items())
                and all(_names_in(path) == kept for path, kept in state["folders"].items())
                and (not record.error or state["surroundings"] == _surroundings())
            )
            return record if same else None
        return None

    def keep(self, entry: Installed, record: Record, before: Before, reads: Reads) -> None:
        """Keep the record of a plugin that was imported just now; `reads` is what it read."""
        self._changed = self._records.pop(_key(entry), None) is not None or self._changed
        own = tuple(f"{place}{os.sep}" for place in _places(entry))
        files, folders = (
            {path for path in paths if path.startswith(own) or not is_installed(path)}
            for paths in (reads.files, reads.folders)
        )
        files |= {*_watched(entry, before.modules), *(_package_of(entry) if record.error else ())}
        is_new = any((_changed_ns(path) or 0) > before.at for path in (*files, *folders))
        if is_new or reads.hosts or len(files) + len(folders) > _MOST:
            return
        record.state.update(
            at=time.time_ns(),
            origin=_origin(entry),
            files={path: _state(path) for path in sorted(files)},
            folders={path: _names_in(path) for path in sorted(folders)},
            surroundings=_surroundings() if record.error else None,
        )
        self._records[_key(entry)] = asdict(record)
        self._changed = True

    def compare(self, entry: Installed, kind: str, names: list[str]) -> None:
        """Have a plugin asked for a kind each time, where it registered other things than its record has."""
        kinds = self._records.get(_key(entry), {}).get("kinds", {})
        if kinds.get(kind) is not None and sorted(known["name"] for known in kinds[kind]) != sorted(names):
            kinds[kind] = None
            self._changed = True

    def write(self) -> None:
        """Write what changed. Of two processes the later one's records stay: the other's are made again."""
        if self._changed and self._file is not None:
            self._changed = False
            with suppress(OSError, HarnessError):  # read-only, or full
                write_json(self._file, self._kept)

    def _leave_out_gone(self, known: set[str]) -> None:
        """Leave out records of what is in none of the places any more that this process looks at, or looked at."""
        looked_at = set(map(os.path.realpath, sys.path))
        for key in set(self._records) - known:
            folder = key.split("\n")[0]
            if folder in looked_at or not Path(folder).is_dir():
                del self._records[key]
                self._changed = True


def _key(entry: Installed) -> str:
    return "\n".join((entry.folder, entry.distribution, entry.version, entry.name, entry.value))


# Where plugins come from


def _folders() -> dict[str, int | None]:
    """Return when each place of `sys.path` got or lost an entry: pip adds and removes folders there."""
    return {place: _changed_ns(place or ".") for place in dict.fromkeys(sys.path)}


def _lists(entries: list[Installed]) -> dict[str, int | None]:
    """Return when the lists of entry points of these distributions were written: a checkout's is written in place."""
    lists: dict[str, int | None] = {}
    for folder, name, version in {(entry.folder, entry.distribution, entry.version) for entry in entries}:
        stem = name.replace("-", "_")
        for metadata in (f"{stem}-{version}.dist-info", f"{stem}.egg-info"):
            path = os.path.join(folder, metadata, "entry_points.txt")  # noqa: PTH118 - at each start
            if (changed := _changed_ns(path)) is not None:
                lists[path] = changed
    return lists


def _changed_ns(path: str) -> int | None:
    try:
        return os.stat(path).st_mtime_ns  # noqa: PTH116 - at each start, and a Path takes as long again
    except OSError:
        return None


def _origin(entry: Installed) -> str | None:
    """Return the file that importing the plugin's package would begin with: another folder may come first now."""
    try:
        spec = importlib.util.find_spec(entry.module.partition(".")[0])
    except (ImportError, ValueError, AttributeError):
        return None
    return None if spec is None else spec.origin or str(next(iter(spec.submodule_search_locations or ()), None))


def _places(entry: Installed) -> list[str]:
    """Return the folders of the plugin's package; none for a module alone."""
    return list(getattr(sys.modules.get(entry.module.partition(".")[0]), "__path__", ()))


def _package_of(entry: Installed) -> Iterator[str]:
    """Yield the code of the plugin's package, whether it can be imported or not."""
    if (origin := _origin(entry)) is not None:
        yield origin
        if Path(origin).name == "__init__.py":
            yield from map(str, Path(origin).parent.rglob("*.py"))


def _surroundings() -> str:
    """Return a hash of all that a failed import may be mended by, besides the plugin's files."""
    variables = {name: value for name, value in os.environ.items() if name not in _PASSING}
    return _digest([sorted(variables.items()), _folders()])


# What a plugin depends on


def _watched(entry: Installed, modules: frozenset[str]) -> Iterator[str]:
    """Yield the files of a plugin's modules, of what these have loaded, and of what they name."""
    own = entry.module.partition(".")[0]
    names = {name for name in sys.modules if name.partition(".")[0] == own}
    named = {top for name in names for top in _named_in(sys.modules[name])}
    for name in {*names, *named, *set(sys.modules) - modules}:
        top = name.partition(".")[0]
        if top == "harness" and own != "harness":
            continue
        file = _file_of(name)
        if file is not None and top != own and is_installed(file):
            file = None if is_of_python(file) else _file_of(top)
        if file is not None:
            yield file


def _named_in(module: ModuleType) -> Iterator[str]:
    """Yield the packages whose modules, classes and functions a module has names for."""
    for value in list(object.__getattribute__(module, "__dict__").values()):  # a lazy module stays as it is
        if isinstance(value, ModuleType):
            name = object.__getattribute__(value, "__dict__").get("__name__")
        else:
            name = value.__module__ if isinstance(value, type | FunctionType) else None
        if isinstance(name, str):
            yield name


def _file_of(name: str) -> str | None:
    module = sys.modules.get(name)
    place = None if module is None else object.__getattribute__(module, "__dict__").get("__file__")
    if not isinstance(place, str):
        return None
    return str(file) if (file := existing_file(os.path.abspath(place))) else None  # noqa: PTH100


def _state(path: str) -> list[Any] | None:
    """Return size, times, inode and hash of a file; None where there is none."""
    with suppress(OSError):
        return [*_signature(path), hashlib.sha256(Path(path).read_bytes()).hexdigest()]
    return None


def _signature(path: str) -> list[int]:
    status = os.stat(path)  # noqa: PTH116 - of every file at each start
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _unchanged(path: str, kept: list[Any] | None, at: int) -> bool:
    """Return True while a file has the content it had; its hash is asked only where its times do not tell."""
    try:
        signature = _signature(path)
    except OSError:
        return kept is None
    if kept is None:
        return False
    is_settled = at - max(kept[1:3]) > _SETTLED_NS
    return (is_settled and signature == kept[:4]) or _state(path)[4:] == kept[4:]  # type: ignore[index]


def _names_in(path: str) -> str | None:
    try:
        return _digest(sorted(os.listdir(path)))  # noqa: PTH208
    except OSError:
        return None


def _digest(value: Any) -> str:
    return hashlib.sha256(repr(value).encode(errors="surrogateescape")).hexdigest()
