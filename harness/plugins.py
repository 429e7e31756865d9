"""Loading plugins so that a broken one is reported and rolled back while the rest works.

Installed plugins come through the entry-point group `harness`, single files through `--plugin FILE` or
`[tool.harness] plugins` in pyproject.toml. Registration hooks are called one plugin at a time and only when a kind is
first asked for, so that every failure has a name and `harness --help` stays quick.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pluggy

from harness import hookspecs
from harness.commands import CORE_COMMANDS
from harness.errors import HarnessError, PluginError, UnknownNameError, known_names, nearest

if TYPE_CHECKING:
    import click

    from harness.declarations import Dataset, Engine, Evaluation, Filter, Method, Objective, Template, Tracker

ENTRY_POINT_GROUP = "harness"
# What a plugin can do wrong while it loads; a module that calls sys.exit() must not end the command.
BROKEN = (Exception, SystemExit)
KINDS = ("datasets", "filters", "templates", "objectives", "methods", "evaluations", "engines", "trackers", "commands")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """Where a plugin comes from, and why it failed where it did."""

    name: str
    version: str
    path: str
    error: str | None = None
    details: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})".replace("  ", " ")


@dataclass(slots=True)
class Registry(Mapping[str, T], Generic[T]):
    """The registered things of one kind by name; looking up an unknown name is an error that helps."""

    kind: str
    _items: dict[str, T] = field(default_factory=dict)
    _owners: dict[str, PluginInfo] = field(default_factory=dict)

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            singular = self.kind.removesuffix("s")
            raise UnknownNameError(
                f"no {singular} is named {name!r}.{nearest(name, self._items)}\n"
                f"Registered {self.kind}: {known_names(self._items)}. `harness plugins list` says who brings what."
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def owner(self, name: str) -> PluginInfo:
        """The plugin that registered `name`."""
        return self._owners[name]

    def owned_by(self, plugin: str) -> list[str]:
        """The names that `plugin` registered."""
        return sorted(name for name, owner in self._owners.items() if owner.name == plugin)

    def _add(self, owner: PluginInfo, item: T) -> None:
        expected = _class_of(self.kind)
        if not isinstance(item, expected):
            raise PluginError(
                f"register was given {item!r}, expected a {expected.__module__.split('.')[0]}.{expected.__name__}"
            )
        name = getattr(item, "name", None)
        if not isinstance(name, str) or not name:
            raise PluginError(f"register was given {item!r}, which has no name")
        if not name.isprintable() or " " in name:
            raise PluginError(f"{name!r} cannot be typed as a name: leave out spaces and control characters")
        if self.kind != "commands":
            _check_declared(item)
        if self.kind == "commands" and name in CORE_COMMANDS:
            raise PluginError(f"{name!r} is a command of the harness itself; give yours another name")
        if name in self._items:
            raise PluginError(
                f"{self.kind.removesuffix('s')} {name!r} is already registered by {self._owners[name]}; "
                f"{owner} claims it too. Disable one with HARNESS_DISABLE_PLUGINS={owner.name}"
            )
        self._items[name], self._owners[name] = item, owner

    def _forget(self, plugin: str) -> None:
        for name in self.owned_by(plugin):
            del self._items[name], self._owners[name]


def _check_declared(item: Any) -> None:
    """Raises PluginError for a declaration that would break where a recipe uses it."""
    from harness.declarations import Dataset, Template
    from harness.options import Options

    options = getattr(item, "options", Options)
    optional = isinstance(item, Dataset | Template) and options is None
    if not optional and not (isinstance(options, type) and issubclass(options, Options)):
        raise PluginError(f"{item.name!r} has the options {options!r}, expected a subclass of harness.Options")
    for part in ("convert", "jinja", "stop_tokens", "apply", "save", "loss", "run", "start", "create"):
        if hasattr(item, part) and not callable(getattr(item, part)):
            raise PluginError(f"{item.name!r}: {part} should be a function, found {getattr(item, part)!r}")
    if getattr(item, "produces", "model") not in ("adapter", "model"):
        raise PluginError(f"{item.name!r} produces {item.produces!r}, expected 'adapter' or 'model'")
    if isinstance(item, Dataset):
        _check_signatures(item)
    source = getattr(item, "source", None)
    if source is not None and not isinstance(source, str | os.PathLike):
        raise PluginError(f"{item.name!r}: the source should be a path, found {source!r}")


def _check_signatures(dataset: Dataset) -> None:
    """Raise PluginError where a function of a dataset cannot be called as the core does it."""
    parameters = {
        "convert": ("row", "options"),
        "gather": ("rows", "options"),
        "resolve": ("path", "datasets", "options"),
    }
    for name, expected in parameters.items():
        if (function := getattr(dataset, name)) is None:
            continue
        try:
            signature = inspect.signature(function)
        except ValueError:  # some functions written in C have none
            continue
        try:
            signature.bind(*expected)
        except TypeError:
            raise PluginError(
                f"{dataset.name!r}: {name} is {name}{signature}, expected {name}({', '.join(expected)}): `options` is the source as "
                f"the recipe has it, with the keys that the data set adds. Write `def {name}({', '.join(expected)}):`"
            ) from None


def _class_of(kind: str) -> type:
    """The class of what is registered under `kind`. Looked up late: declarations are not needed for `--help`."""
    if kind == "commands":
        import click

        return click.Command
    from harness import declarations

    declared: type = getattr(declarations, kind.removesuffix("s").capitalize())
    return declared


class Plugins:
    """The loaded plugins and what they register."""

    def __init__(self, files: Sequence[Path] = ()) -> None:
        """Args: files: single-file plugins, loaded after the installed ones."""
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
        for file in files:
            self._load_file(file)

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

    def watch(self, watcher: object) -> None:
        """Add an object with lifecycle hooks (a tracker) for the rest of this process."""
        self._check_hooks(watcher)
        self._manager.register(watcher)

    def notify(self, hook: str, **arguments: Any) -> None:
        """Call a lifecycle hook on every plugin. One that raises is reported and not called again."""
        for plugin in list(self._manager.get_plugins()):
            try:
                self._call(hook, plugin, **arguments)
            except BROKEN as error:
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
        try:
            module = entry.load()
        except BROKEN as error:
            self._fail(info, f"import failed: {type(error).__name__}: {error}")
            return
        self._add(PluginInfo(entry.name, version, str(getattr(module, "__file__", None) or entry.value)), module)

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
        try:
            spec.loader.exec_module(module)
        except BROKEN as error:
            del sys.modules[spec.name]
            self._fail(info, f"import failed: {type(error).__name__}: {error}")
            return
        self._add(info, module)

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
        known = {name for name in vars(hookspecs) if self._manager.parse_hookspec_opts(hookspecs, name) is not None}
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            if options is None:
                if name in known and inspect.isfunction(getattr(plugin, name)):
                    raise PluginError(f"{name} is not marked: put @harness.hookimpl above it")
                continue
            hook = options.get("specname") or name
            if hook not in known:
                raise PluginError(f"there is no hook {hook!r}.{nearest(hook, known)} Hooks: {known_names(known)}")

    # Calling

    def _registry(self, kind: str) -> Registry[Any]:
        registry = self._registries[kind]
        if kind not in self._asked:
            self._asked.add(kind)
            for info in list(self.loaded.values()):
                plugin = self._manager.get_plugin(info.name)
                assert plugin is not None
                try:
                    returned = self._call(
                        f"register_{kind}", plugin, register=lambda item, owner=info: registry._add(owner, item)
                    )
                    if returned:
                        raise PluginError(
                            f"register_{kind} returned {returned[0]!r}; call `register(...)` with it instead"
                        )
                except BROKEN as error:
                    told = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
                    self._fail(info, f"register_{kind} failed: {told}", plugin)
        return registry

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
                registry._forget(info.name)
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
        files = table.get("plugins", [])
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise PluginError(f"{pyproject}: [tool.harness] plugins should be a list of file names")
        return [folder / file for file in files]
    return []
