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
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from harness.contract.hooks import HOOKS, Hooks
from harness.contract.kinds import KINDS
from harness.errors import ENDINGS, HarnessError, PluginError, known_names, nearest
from harness.plugins.api import require_api
from harness.plugins.reading import Reads, loaded_modules, reading
from harness.plugins.registry import FIRST_PARTY, PluginInfo, Registry

if TYPE_CHECKING:
    import click

    from harness.contract import (
        Dataset,
        Diagnosis,
        Engine,
        Evaluation,
        Filter,
        Method,
        Objective,
        Shape,
        Template,
        Tracker,
    )

ENTRY_POINT_GROUP = "harness"
OUR_DISTRIBUTION = "instruct-harness"
T = TypeVar("T")


class Plugins:
    """The loaded plugins and what they register.

    Args:
        files: single-file plugins that somebody named just now, loaded last; a missing one is an error.
        configured: those of `configured_files`, loaded before them; a missing one is left out like any broken one.
        commands: the names of the core's own commands, which no plugin can take.
        entries: the entry points to load. [default: the installed ones]
        strict: raise PluginError for a broken plugin, as with HARNESS_STRICT_PLUGINS=1.
    """

    def __init__(
        self,
        files: Sequence[Path] = (),
        configured: Sequence[Path] = (),
        commands: Container[str] = (),
        *,
        entries: Sequence[importlib.metadata.EntryPoint] | None = None,
        strict: bool = False,
    ) -> None:
        self.since_ns = time.time_ns()
        self._reads: dict[str, Reads] = {}
        self.loaded: dict[str, PluginInfo] = {}
        self.failed: dict[str, PluginInfo] = {}
        disabled = os.environ.get("HARNESS_DISABLE_PLUGINS", "").split(",")
        self.disabled: set[str] = {name.strip() for name in disabled if name.strip()}
        self.strict = strict or os.environ.get("HARNESS_STRICT_PLUGINS", "") not in ("", "0")
        self._registries: dict[str, Registry[Any]] = {
            kind.plural: Registry(kind, commands if kind.name == "command" else (), self.loaded) for kind in KINDS
        }
        self._asked: set[str] = set()
        self._manager = pluggy.PluginManager("harness")
        self._manager.add_hookspecs(Hooks)
        if entries is None:
            entries = tuple(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP))
        for entry in sorted(entries, key=_first_party_first):
            self._load_entry_point(entry)
        for file in configured:
            if file.stem not in self.disabled and not file.is_file():
                self._fail(
                    PluginInfo(file.stem, file.stem, "", str(file)), "no such file; [tool.harness] plugins names it"
                )
            else:
                self._load_file(file)
        known = {file.resolve() for file in configured}
        for file in files:
            if file.resolve() not in known or not file.is_file():
                known.add(file.resolve())
                self._load_file(file)
        self.imported = loaded_modules()

    def add_file(self, file: Path) -> None:
        """Load one more single-file plugin, which a recipe names; one that is loaded already is left as it is."""
        known = (*self.loaded.values(), *self.failed.values())
        if file.resolve() in {Path(info.path).resolve() for info in known}:
            return
        self._load_file(file)
        self.imported = loaded_modules()
        if (info := self.loaded.get(file.stem)) is not None:
            for kind in sorted(self._asked, key=lambda kind: kind == "datasets"):  # which shapes are added to, last
                self._register_all(self._registries[kind], [info])

    # What was registered, by kind. The first look calls that kind's hook.

    @property
    def datasets(self) -> Registry[Dataset]:
        return self._registry("datasets")

    @property
    def shapes(self) -> Registry[Shape]:
        return self._registry("shapes")

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

    def registry(self, kind: str) -> Registry[Any]:
        """Return the registry called `kind`, such as `datasets`."""
        return self._registry(kind)

    def registered_by(self, plugin: str) -> dict[str, list[str]]:
        """Return what `plugin` registers, by kind, after every registration hook was called."""
        self.load_all()
        return {kind: names for kind, registry in self._registries.items() if (names := registry.owned_by(plugin))}

    def diagnoses(self) -> list[Diagnosis]:
        """Return what each plugin says of this machine; one that fails is reported."""
        diagnoses = []
        for info in list(self.loaded.values()):
            diagnoses += (
                self._attempt(info, "diagnose failed", partial(self._call, "diagnose", info), "its diagnosis") or []
            )
        return diagnoses

    def read_by(self, plugin: str) -> Reads:
        """Return what the code of `plugin` has read while it was loaded and registered things."""
        return self._reads.get(plugin, Reads())

    def load_all(self) -> None:
        """Call every registration hook, so that every failure is known."""
        for kind in self._registries:
            self._registry(kind)

    # Loading

    def _load_entry_point(self, entry: importlib.metadata.EntryPoint) -> None:
        owner = _owner_of(entry)
        name = entry.name if owner == entry.name else f"{owner}/{entry.name}"
        info = PluginInfo(name, owner, entry.dist.version if entry.dist else "", entry.value)
        if self.disabled & {name, entry.name, owner}:
            return
        began = time.perf_counter()
        module = self._attempt(info, "import failed", entry.load)
        if module is not None:
            path = str(getattr(module, "__file__", None) or entry.value)
            distribution = entry.dist.name if entry.dist else ""
            seconds = time.perf_counter() - began
            self._add(replace(info, path=path, distribution=distribution, import_s=seconds), module)

    def _load_file(self, file: Path) -> None:
        info = PluginInfo(file.stem, file.stem, "", str(file))
        if file.stem in self.disabled:
            return
        if not file.is_file():
            raise PluginError(f"--plugin {file}: no such file")
        spec = importlib.util.spec_from_file_location(f"harness_plugin_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise PluginError(f"--plugin {file}: not a Python file (its name should end in .py)")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module
        execute, began = spec.loader.exec_module, time.perf_counter()
        if self._attempt(info, "import failed", lambda: execute(module) or module) is None:
            del sys.modules[spec.name]
        else:
            self._add(replace(info, import_s=time.perf_counter() - began), module)

    def _attempt(
        self, info: PluginInfo, otherwise: str, load: Callable[[], T], left_out: str = "it is left out"
    ) -> T | None:
        """Return the result of `load`; if it raises, report what is `left_out`.

        The reported reason begins with `otherwise`.

        A module that calls sys.exit() must not end the command. What a plugin prints is none of the command's output.
        """
        try:
            with reading() as reads, contextlib.redirect_stdout(sys.stderr):
                return load()
        except ENDINGS:
            raise
        except BaseException as error:
            reason = str(error) if isinstance(error, HarnessError) else f"{type(error).__name__}: {error}"
            self._fail(info, f"{otherwise}: {reason}", left_out)
            return None
        finally:
            self._reads.setdefault(info.name, Reads()).add(reads)

    def _add(self, info: PluginInfo, plugin: ModuleType) -> None:
        try:
            if info.name in self.loaded:
                raise PluginError(f"two plugins are named {info.name!r}: {self.loaded[info.name]} and {info}")
            require_api(getattr(plugin, "harness_api", None))
            self._check_hooks(plugin)
            self._manager.register(plugin, name=info.name)
        except Exception as error:
            self._fail(info, str(error))
            return
        self.loaded[info.name] = info

    def _check_hooks(self, plugin: ModuleType) -> None:
        hooks = 0
        for name in dir(plugin):
            options = self._manager.parse_hookimpl_opts(plugin, name)
            if options is None:
                if name in HOOKS and inspect.isroutine(getattr(plugin, name)):
                    raise PluginError(f"{name} is not marked: put @harness.hookimpl above it")
                continue
            hooks += 1
            hook = options.get("specname") or name
            if hook not in HOOKS:
                raise PluginError(f"there is no hook {hook!r}.{nearest(hook, HOOKS)} Hooks: {known_names(HOOKS)}")
            given = getattr(self._manager.hook, hook).spec.argnames
            takes = inspect.signature(getattr(plugin, name)).parameters.values()
            needs = [one.name for one in takes if one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty]
            if unknown := [argument for argument in needs if argument not in given]:
                raise PluginError(
                    f"{name} takes {unknown[0]!r}, which the hook does not give: "
                    f"write `def {name}({', '.join(given)}):`"
                )
        if not hooks:
            raise PluginError(f"it has no hook: mark a function with @harness.hookimpl. Hooks: {known_names(HOOKS)}")

    # Registering. A hook that fails takes back what its plugin registered of that kind, so that what a registry holds
    # does not depend on which kinds were asked for before.

    def _registry(self, kind: str) -> Registry[Any]:
        registry = self._registries[kind]
        if kind not in self._asked:
            self._asked.add(kind)
            self._register_all(registry, list(self.loaded.values()))
        return registry

    def _register_all(self, registry: Registry[Any], infos: Sequence[PluginInfo]) -> None:
        """Register what plugins have of one kind; a shape is used by its name like a dataset, and is one too."""
        for info in infos:
            register = partial(self._register, registry, info)
            self._attempt(info, f"{registry.kind.hook} failed", register, f"its {registry.kind.plural} are left out")
        if registry.kind.plural == "datasets":
            self._add_shapes(registry, {info.name for info in infos})

    def _add_shapes(self, datasets: Registry[Dataset], owners: Container[str]) -> None:
        for entry in [entry for entry in self.shapes.entries if entry.plugin.name in owners]:
            try:
                warning = datasets.add(entry.plugin, entry.item.as_dataset(datasets[entry.item.into]))
            except PluginError as error:
                self._fail(entry.plugin, f"shape {entry.name!r}: {error}", "this shape is left out")
            else:
                if warning:
                    print(f"warning: plugin {entry.plugin}: {warning}", file=sys.stderr)

    def _register(self, registry: Registry[Any], info: PluginInfo) -> None:
        """Call the kind's hook on one plugin. A thing that cannot be registered is reported; the others stay."""

        def register(item: Any, under: str | None = None) -> None:
            try:
                warning = registry.add(info, item, under)
            except PluginError as error:
                if self.strict:
                    raise  # and the hook fails with it
                self._fail(
                    info, f"{registry.kind.hook} failed: {error}", left_out=f"this {registry.kind.name} is left out"
                )
            else:
                if warning:
                    print(f"warning: plugin {info}: {warning}", file=sys.stderr)

        try:
            if returned := self._call(registry.kind.hook, info, register=register):
                raise PluginError(f"it returned {returned[0]!r:.200}; call `register(...)` with it instead")
        except BaseException:
            registry.remove(info.name)
            raise

    def _call(self, hook: str, info: PluginInfo, **arguments: Any) -> list[Any]:
        """Call a hook on one plugin; return what it returned, without None."""
        plugin = self._manager.get_plugin(info.name)
        others = [other for other in self._manager.get_plugins() if other is not plugin]
        returned: list[Any] = self._manager.subset_hook_caller(hook, remove_plugins=others)(**arguments)
        return returned

    def _fail(self, info: PluginInfo, reason: str, left_out: str = "it is left out") -> None:
        """Report what of a plugin is `left_out`, and why, and go on (or not, if plugins are strict)."""
        error = sys.exception()
        import traceback

        details = "".join(traceback.format_exception(error)) if error else ""
        key = info.name if info.name not in self.failed else f"{info}: {reason}"
        self.failed[key] = replace(info, error=reason, details=details)
        if self.strict:
            raise PluginError(f"plugin {info}: {reason}") from error
        print(f"warning: plugin {info}: {reason}; {left_out}", file=sys.stderr)


def _owner_of(entry: importlib.metadata.EntryPoint) -> str:
    """Return the distribution that an entry point came with; `harness` for our own."""
    distribution = entry.dist.name if entry.dist else entry.name
    return FIRST_PARTY if distribution == OUR_DISTRIBUTION else distribution


def _first_party_first(entry: importlib.metadata.EntryPoint) -> tuple[bool, str, str]:
    return _owner_of(entry) != FIRST_PARTY, _owner_of(entry), entry.name


def configured_files(start: Path | None = None) -> list[Path]:
    """Return the plugin files under `[tool.harness] plugins` of the nearest pyproject.toml at or above `start`."""
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
            near = nearest(key, ["plugins"])
            print(f"warning: {pyproject}: [tool.harness] has no key {key!r}.{near}", file=sys.stderr)
        files = table.get("plugins", [])
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise PluginError(f"{pyproject}: [tool.harness] plugins should be a list of file names")
        return [folder / file for file in files]
    return []
