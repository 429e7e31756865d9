"""Loading plugins so that a broken one is reported and rolled back while the rest works.

Installed plugins come through the entry-point group `harness`, single files through `--plugin FILE` or
`[tool.harness] plugins` in pyproject.toml. Registration hooks are called one plugin at a time and only when a kind is
first asked for, so that every failure has a name and `harness --help` stays quick.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from harness import hookspecs
from harness.errors import ENDINGS, HarnessError, PluginError, known_names, nearest
from harness.reading import Reads, loaded_modules, reading
from harness.registry import KINDS, PluginInfo, Registry

if TYPE_CHECKING:
    import click

    from harness.declarations import Dataset, Engine, Evaluation, Filter, Method, Objective, Template, Tracker

ENTRY_POINT_GROUP = "harness"
T = TypeVar("T")


class Plugins:
    """The loaded plugins and what they register."""

    def __init__(self, files: Sequence[Path] = (), configured: Sequence[Path] = ()) -> None:
        """Load the installed plugins, then single files.

        Args:
            files: those that somebody named just now; a missing one is an error.
            configured: those of `configured_files`, loaded before them; a missing one is left out like any broken one.
        """
        self.since_ns = time.time_ns()
        self._reads: dict[str, Reads] = {}
        self.loaded: dict[str, PluginInfo] = {}
        self.failed: dict[str, PluginInfo] = {}
        disabled = os.environ.get("HARNESS_DISABLE_PLUGINS", "").split(",")
        self.disabled: set[str] = {name.strip() for name in disabled if name.strip()}
        self.strict = os.environ.get("HARNESS_STRICT_PLUGINS", "") not in ("", "0")
        self._registries: dict[str, Registry[Any]] = {kind: Registry(kind) for kind in KINDS}
        self._asked: set[str] = set()
        self._manager = pluggy.PluginManager("harness")
        self._manager.add_hookspecs(hookspecs)
        for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda entry: entry.name):
            self._load_entry_point(entry)
        for file in configured:
            if file.stem not in self.disabled and not file.is_file():
                self._fail(PluginInfo(file.stem, "", str(file)), "no such file; [tool.harness] plugins names it")
            else:
                self._load_file(file)
        for file in files:
            self._load_file(file)
        self.imported = loaded_modules()

    # What was registered, by kind. The first look calls that kind's hook.

    @property
    def datasets(self) -> Registry[Dataset]:
        return self._registry("datasets")

    @property
    def filters(self) -> Registry[Filter]:
        return self._registry("filters")

    @property
    def templates(self) -> Registry[Template]:
        return self._registry("templates")

    @property
    def objectives(self) -> Registry[Objective]:
        return self._registry("objectives")

    @property
    def methods(self) -> Registry[Method]:
        return self._registry("methods")

    @property
    def evaluations(self) -> Registry[Evaluation]:
        return self._registry("evaluations")

    @property
    def engines(self) -> Registry[Engine]:
        return self._registry("engines")

    @property
    def trackers(self) -> Registry[Tracker]:
        return self._registry("trackers")

    @property
    def commands(self) -> Registry[click.Command]:
        return self._registry("commands")

    def registered_by(self, plugin: str) -> dict[str, list[str]]:
        """What `plugin` registers, by kind, after every registration hook was called."""
        self.load_all()
        return {kind: names for kind in KINDS if (names := self._registries[kind].owned_by(plugin))}

    def load_all(self) -> None:
        """Call every registration hook, so that every failure is known."""
        for kind in KINDS:
            self._registry(kind)

    def read_by(self, plugin: str) -> Reads:
        """What the code of `plugin` has read while it was loaded and registered things."""
        return self._reads.get(plugin, Reads())

    def watch(self, watcher: object) -> None:
        """Add an object with lifecycle hooks (a tracker) for the rest of this process.

        Raises:
            PluginError: where it has none, or one that does not exist.
        """
        self._check_hooks(watcher)
        self._manager.register(watcher)

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a lifecycle hook on every plugin. One that raises is reported and not called again."""
        for plugin in list(self._manager.get_plugins()):
            try:
                self._call(hook, plugin, **arguments)
            except ENDINGS:
                raise
            except BaseException as error:
                name = self._manager.get_name(plugin) or type(plugin).__name__
                known = self.loaded.get(name, PluginInfo(name, "", type(plugin).__module__))
                self._fail(known, f"{hook} raised {type(error).__name__}: {error}", plugin)

    # Loading

    def _load_entry_point(self, entry: importlib.metadata.EntryPoint) -> None:
        dist = entry.dist
        version = dist.version if dist else ""
        info = PluginInfo(entry.name, version, entry.value)
        if entry.name in self.disabled:
            return
        module = self._attempt(info, "import failed", entry.load)
        if module is not None:
            path = str(getattr(module, "__file__", None) or entry.value)
            self._add(PluginInfo(entry.name, version, path, distribution=dist.name if dist else ""), module)

    def _load_file(self, file: Path) -> None:
        info = PluginInfo(file.stem, "", str(file))
        if file.stem in self.disabled:
            return
        if not file.is_file():
            raise PluginError(f"--plugin {file}: no such file")
        spec = importlib.util.spec_from_file_location(f"harness_plugin_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise PluginError(f"--plugin {file}: not a Python file (its name should end in .py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        execute = spec.loader.exec_module
        if self._attempt(info, "import failed", lambda: execute(module) or module) is None:
            del sys.modules[spec.name]
        else:
            self._add(info, module)

    def _attempt(
        self, info: PluginInfo, otherwise: str, load: Callable[[], T], plugin: object | None = None
    ) -> T | None:
        """What `load` gives. Where it raises, the plugin is left out, for a reason that begins with `otherwise`.

        A module that calls sys.exit() must not end the command. What a plugin prints is none of the command's output.
        """
        try:
            with reading() as reads, contextlib.redirect_stdout(sys.stderr):
                return load()
        except ENDINGS:
            raise
        except BaseException as error:
            told = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            self._fail(info, f"{otherwise}: {told}", plugin)
            return None
        finally:
            self._reads.setdefault(info.name, Reads()).add(reads)

    def _add(self, info: PluginInfo, plugin: ModuleType) -> None:
        try:
            if info.name in self.loaded:
                raise PluginError(f"two plugins are named {info.name!r}: {self.loaded[info.name]} and {info}")
            self._check_hooks(plugin)
            self._manager.register(plugin, name=info.name)
        except Exception as error:
            self._fail(info, str(error))
            return
        self.loaded[info.name] = info

    def _check_hooks(self, plugin: object) -> None:
        if plugin is None:
            raise PluginError("found None, expected an object with hooks")
        hooks = 0
        known = {name for name in vars(hookspecs) if self._manager.parse_hookspec_opts(hookspecs, name) is not None}
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            if options is None:
                if name in known and inspect.isroutine(getattr(plugin, name)):
                    raise PluginError(f"{name} is not marked: put @harness.hookimpl above it")
                continue
            hooks += 1
            hook = options.get("specname") or name
            if hook not in known:
                raise PluginError(f"there is no hook {hook!r}.{nearest(hook, known)} Hooks: {known_names(known)}")
        if not hooks:
            raise PluginError(f"it has no hook: mark a function with @harness.hookimpl. Hooks: {known_names(known)}")

    # Calling

    def _registry(self, kind: str) -> Registry[Any]:
        registry = self._registries[kind]
        if kind not in self._asked:
            self._asked.add(kind)
            for info in list(self.loaded.values()):
                plugin = self._manager.get_plugin(info.name)
                assert plugin is not None
                self._attempt(info, f"register_{kind} failed", partial(self._register, kind, info, plugin), plugin)
        return registry

    def _register(self, kind: str, info: PluginInfo, plugin: object) -> None:
        registry = self._registries[kind]
        returned = self._call(f"register_{kind}", plugin, register=partial(registry.add, info))
        if returned:
            raise PluginError(f"register_{kind} returned {returned[0]!r}; call `register(...)` with it instead")

    def _call(self, hook: str, plugin: object, **arguments: Any) -> list[Any]:
        """Call a hook on one plugin; what it returned, without None."""
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        returned: list[Any] = self._manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)
        return returned

    def _fail(self, info: PluginInfo, reason: str, plugin: object | None = None) -> None:
        """Report a plugin, take back all it registered, and go on without it (or not, if plugins are strict)."""
        error = sys.exception()
        import traceback

        details = "".join(traceback.format_exception(error)) if error else ""
        failed = PluginInfo(info.name, info.version, info.path, reason, details)
        if plugin is not None and self._manager.is_registered(plugin):
            self._manager.unregister(plugin)
            self.loaded.pop(info.name, None)
            for registry in self._registries.values():
                registry.forget(info.name)
        key = info.name if info.name not in self.failed and info.name not in self.loaded else str(info)
        self.failed[key] = failed
        if self.strict:
            raise PluginError(f"plugin {info}: {reason}") from error
        print(f"warning: plugin {info} is left out: {reason}", file=sys.stderr)


def configured_files(start: Path | None = None) -> list[Path]:
    """The plugin files under `[tool.harness] plugins` of the nearest pyproject.toml at or above `start`."""
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        pyproject = folder / "pyproject.toml"
        if not pyproject.is_file():
            continue
        import tomllib

        try:
            tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PluginError(f"{pyproject}: not valid TOML: {error}") from None
        except OSError as error:
            raise PluginError(f"{pyproject}: cannot be read: {error.strerror}") from None
        table: Any = tables
        for key in ("tool", "harness"):
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise PluginError(f"{pyproject}: [tool.harness] should be a table, found {table!r}")
        for key in set(table) - {"plugins"}:
            print(
                f"warning: {pyproject}: [tool.harness] has no key {key!r}.{nearest(key, ['plugins'])}", file=sys.stderr
            )
        files = table.get("plugins", [])
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise PluginError(f"{pyproject}: [tool.harness] plugins should be a list of file names")
        return [folder / file for file in files]
    return []
