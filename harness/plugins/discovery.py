"""Loading plugins so that a broken one is reported and rolled back while the rest works.

Installed plugins come through the entry-point group `harness`, single files through `--plugin FILE` or
`[tool.harness] plugins` in pyproject.toml. Of an installed one the index tells what it registers, and it is imported
when something of its is used. Registration hooks are called one plugin at a time and only when a kind is first asked
for, so that every failure has a name and `harness --help` stays quick.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import sys
import time
import warnings
from collections.abc import Callable, Container, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

import pluggy

from harness.contract.deprecation import Deprecation
from harness.contract.hooks import Hooks
from harness.contract.kinds import KINDS
from harness.errors import ENDINGS, PluginError
from harness.plugins.api import require_api, require_hooks
from harness.plugins.index import Before, Index, Record
from harness.plugins.installed import Installed, only_entries
from harness.plugins.kinds import Registries
from harness.plugins.reading import Reads, loaded_modules, reading
from harness.plugins.registry import Claim, PluginInfo, Registry, reason_of
from harness.plugins.undisturbed import undisturbed

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from harness.contract import Dataset, Diagnosis

T = TypeVar("T")


class Plugins(Registries):
    """The loaded plugins and what they register.

    Args:
        files: single-file plugins that somebody named just now, loaded last; a missing one is an error.
        configured: those of `configured_files`, loaded before them; a missing one is left out like any broken one.
        commands: the names of the core's own commands, which no plugin can take.
        entries: the entry points to load, past the index. [default: those of HARNESS_ONLY_PLUGINS, or the installed
            ones]
        strict: raise PluginError for a broken plugin, as with HARNESS_STRICT_PLUGINS=1.
    """

    def __init__(
        self,
        files: Sequence[Path] = (),
        configured: Sequence[Path] = (),
        commands: Container[str] = (),
        *,
        entries: Sequence[EntryPoint] | None = None,
        strict: bool = False,
    ) -> None:
        self.since_ns = time.time_ns()
        self._warned: set[str] = set()
        self._reads: dict[str, Reads] = {}
        self.loaded: dict[str, PluginInfo] = {}
        self.failed: dict[str, PluginInfo] = {}
        disabled = os.environ.get("HARNESS_DISABLE_PLUGINS", "").split(",")
        self.disabled: set[str] = {name.strip() for name in disabled if name.strip()}
        self.strict = strict or os.environ.get("HARNESS_STRICT_PLUGINS", "") not in ("", "0")
        self._registries: dict[str, Registry[Any]] = {
            kind.plural: Registry(kind, commands if kind.name == "command" else (), self.loaded, self._load)
            for kind in KINDS
        }
        self._asked: set[str] = set()
        self._registered: set[tuple[str, str]] = set()  # kinds and plugins whose hooks were called
        self._manager = pluggy.PluginManager("harness")
        self._manager.add_hookspecs(Hooks)
        entries = only_entries() if entries is None else entries
        self._index = Index() if entries is None else None
        self._installed: dict[str, Installed] = {}
        self._spared: dict[str, Record] = {}  # plugins that are known from the index, and not imported
        known = self._index.installed() if self._index else map(Installed.of, entries or ())
        for entry in sorted(known, key=lambda entry: entry.order):
            self._load_installed(entry)
        self._write_index()
        for file in configured:
            if file.stem not in self.disabled and not file.is_file():
                self._fail(
                    PluginInfo(file.stem, file.stem, "", str(file)), "no such file; [tool.harness] plugins names it"
                )
            else:
                self._load_file(file)
        named = {file.resolve() for file in configured}
        for file in files:
            if file.resolve() not in named or not file.is_file():
                named.add(file.resolve())
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
            self._register_late(info)

    def registered_by(self, plugin: str) -> dict[str, list[str]]:
        """Return what `plugin` registers, by kind, after every registration hook was called."""
        self.load_all()
        return {kind: names for kind, registry in self._registries.items() if (names := registry.owned_by(plugin))}

    def diagnoses(self) -> list[Diagnosis]:
        """Return what each plugin says of this machine; one that fails is reported."""
        self._load(None)
        diagnoses = []
        for info in list(self.loaded.values()):
            diagnoses += (
                self._attempt(info, "diagnose failed", partial(self._call, "diagnose", info), "its diagnosis") or []
            )
        return diagnoses

    def source_of(self, plugin: str) -> str:
        """Return what to import of a loaded plugin: its file, or the module that its entry point names."""
        entry = self._installed.get(plugin)
        return self.loaded[plugin].path if entry is None else entry.module

    def read_by(self, plugin: str) -> Reads:
        """Return what the code of `plugin` has read while it was loaded and registered things."""
        return self._reads.get(plugin, Reads())

    def load_all(self) -> None:
        """Import every plugin and call every registration hook, so that every failure is known."""
        self._load(None)
        for kind in self._registries:
            self.registry(kind)

    # Loading

    def _load_installed(self, entry: Installed) -> None:
        """Take what the index knows of a plugin, or import it."""
        info = entry.info
        if self.disabled & {info.name, entry.name, entry.owner} or self._is_taken(info):
            return
        self._installed[info.name] = entry
        record = self._index.record_of(entry) if self._index else None
        if record is None:
            self._import(info)
            return
        self._spared[info.name] = record
        info = replace(info, path=record.path, import_s=record.import_s)
        if record.error:
            self._fail(info, record.error, details=record.details)
        else:
            self.loaded[info.name] = info

    def _import(self, info: PluginInfo, known: Record | None = None) -> PluginInfo | None:
        """Import an installed plugin, and have the index keep what it registers, or why it cannot be imported.

        A kind of which it registers other things than are `known`, though no file has changed, is asked each time.
        """
        entry, before, began = self._installed[info.name], Before(), time.perf_counter()
        self._reads.pop(info.name, None)
        plugin = self._attempt(info, "import failed", entry.load)
        now = replace(info, path=str(getattr(plugin, "__file__", None) or entry.value))
        now = replace(now, import_s=time.perf_counter() - began)
        added = plugin is not None and self._add(now, plugin)
        if self._index is not None:
            kinds = {kind.plural: self._claims_of(kind.plural, now) for kind in KINDS if added}
            if known and not known.error:
                kinds = {kind: claims if claims == known.kinds.get(kind) else None for kind, claims in kinds.items()}
            failed = None if added else self.failed[info.name]
            problem = (failed.error or "", failed.details) if failed else ("", "")
            record = Record(now.path, now.import_s, kinds, *problem)
            self._index.keep(entry, record, before, self.read_by(info.name))
        return now if added else None

    def _claims_of(self, kind: str, info: PluginInfo) -> list[dict[str, Any]] | None:
        """Return what a plugin registers of one kind; None where that fails, which is reported when it is asked for."""
        trial: Registry[Any] = Registry(self._registries[kind].kind, self._registries[kind].reserved)
        hook = partial(self._call, trial.kind.hook, info, register=partial(trial.add, info))
        silence = io.StringIO()
        try:
            with reading() as reads, contextlib.redirect_stdout(silence), contextlib.redirect_stderr(silence):
                if hook():
                    return None
        except ENDINGS:
            raise
        except BaseException:
            return None
        self._reads.setdefault(info.name, Reads()).add(reads)
        return [
            {"name": one.name, "under": one.under, "summary": one.summary, "default": one.default}
            for one in trial.claims
        ]

    def _load(self, name: str | None) -> bool:
        """Import a plugin that the index has spared, in the place of what is known of it; every one of them for None.

        Returns False where there was none.
        """
        names = [name] if name in self._spared else list(self._spared) if name is None else []
        for name in names:
            if (record := self._spared.pop(name, None)) is None:
                continue  # another one that was imported here has used it
            for kind, registry in self._registries.items():
                registry.remove(name)
                self._registered.discard((kind, name))
            self.failed.pop(name, None)
            if (info := self._import(self._installed[name].info, record)) is None:
                self.loaded.pop(name, None)
                continue
            if record.error:
                print(f"plugin {info}: it can be imported now", file=sys.stderr)
            self._register_late(info)
        if names:
            self._write_index()
            self.imported = loaded_modules()
        return bool(names)

    def _register_late(self, info: PluginInfo) -> None:
        """Register a plugin's things of the kinds that were asked for before; shapes are added to datasets, last."""
        for kind in sorted(self._asked, key=lambda kind: kind == "datasets"):
            self._register_all(self._registries[kind], [info])

    def _is_taken(self, info: PluginInfo) -> bool:
        """Return True, and report it, where another plugin has the name."""
        if (other := self.loaded.get(info.name)) is not None:
            self._fail(info, f"two plugins are named {info.name!r}: {other} and {info}")
        return other is not None

    def _write_index(self) -> None:
        if self._index is not None:
            self._index.write()

    def _load_file(self, file: Path) -> None:
        info = PluginInfo(file.stem, file.stem, "", str(file))
        if file.stem in self.disabled:
            return
        if not file.is_file():
            raise PluginError(f"--plugin {file}: no such file")
        spec = importlib.util.spec_from_file_location(f"harness_plugin_{file.stem}", file)
        if spec is None or spec.loader is None:
            raise PluginError(f"--plugin {file}: not a Python file (its name should end in .py)")
        if self._is_taken(info):
            return
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
            with undisturbed() as changed, reading() as reads, contextlib.redirect_stdout(sys.stderr):
                return load()
        except ENDINGS:
            raise
        except BaseException as error:
            self._fail(info, f"{otherwise}: {reason_of(error, info)}", left_out)
            return None
        finally:
            self._reads.setdefault(info.name, Reads()).add(reads)
            for what in changed:
                self._warn(info, f"it changed {what}, which was put back")

    def _add(self, info: PluginInfo, plugin: ModuleType) -> bool:
        try:
            require_api(getattr(plugin, "harness_api", None))
            require_hooks(plugin, self._manager)
            self._manager.register(plugin, name=info.name)
        except Exception as error:
            self._fail(info, reason_of(error, info))
            return False
        self.loaded[info.name] = info
        return True

    # Registering. A hook that fails takes back what its plugin registered of that kind, so that what a registry holds
    # does not depend on which kinds were asked for before.

    def registry(self, kind: str) -> Registry[Any]:
        """Return the registry called `kind`, such as `datasets`."""
        registry = self._registries[kind]
        if kind not in self._asked:
            self._asked.add(kind)
            self._register_all(registry, list(self.loaded.values()))
            self._write_index()
        return registry

    def _register_all(self, registry: Registry[Any], infos: Sequence[PluginInfo]) -> None:
        """Register what plugins have of one kind; a shape is used by its name like a dataset, and is one too."""
        kind, called = registry.kind, set()
        parts = ("datasets", "shapes") if kind.plural == "datasets" else (kind.plural,)
        for info in infos:
            if (kind.plural, info.name) in self._registered:
                continue
            record = self._spared.get(info.name)
            known = [record.kinds.get(part) for part in parts] if record else [None]
            if record and None in known:
                self._load(info.name)  # which registers this kind of it, too
                continue
            self._registered.add((kind.plural, info.name))
            if record:
                for claim in (claim for claims in known for claim in claims or ()):
                    self._warn(info, registry.claim(Claim(plugin=info, **claim)))
            else:
                called.add(info.name)
                register = partial(self._register, registry, info)
                self._attempt(info, f"{kind.hook} failed", register, f"its {kind.plural} are left out")
                self._compare(info, kind.plural, [one.name for one in registry.claims if one.plugin.name == info.name])
        if kind.plural == "datasets":
            self._add_shapes(registry, called)

    def _add_shapes(self, datasets: Registry[Dataset], owners: Container[str]) -> None:
        for entry in [entry for entry in self.shapes.at_hand if entry.plugin.name in owners]:
            try:
                warning = datasets.add(entry.plugin, entry.item.as_dataset(datasets[entry.item.into]))
            except PluginError as error:
                self._fail(entry.plugin, f"shape {entry.name!r}: {error}", "this shape is left out")
                self._compare(entry.plugin, "shapes", [])
            else:
                self._warn(entry.plugin, warning)

    def _compare(self, info: PluginInfo, kind: str, names: list[str]) -> None:
        """Have the index ask a plugin for a kind each time, where it registered other things than the index has."""
        if self._index is not None and (entry := self._installed.get(info.name)) is not None:
            self._index.compare(entry, kind, names)

    def _register(self, registry: Registry[Any], info: PluginInfo) -> None:
        """Call the kind's hook on one plugin. A thing that cannot be registered is reported; the others stay."""

        def register(item: Any, under: str | None = None) -> None:
            try:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", Deprecation)
                    warning = registry.add(info, item, under)
            except PluginError as error:
                if self.strict:
                    raise  # and the hook fails with it
                self._fail(
                    info, f"{registry.kind.hook} failed: {error}", left_out=f"this {registry.kind.name} is left out"
                )
            else:
                for one in caught:
                    self._warn(info, f"{item.name!r}: {one.message}")
                self._warn(info, warning)

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

    def _warn(self, info: PluginInfo, warning: str | None) -> None:
        if warning:
            print(f"warning: plugin {info}: {warning}", file=sys.stderr)

    def _fail(self, info: PluginInfo, reason: str, left_out: str = "it is left out", details: str = "") -> None:
        """Report what of a plugin is `left_out`, and why, and go on (or not, if plugins are strict)."""
        error = sys.exception()
        import traceback

        details = "".join(traceback.format_exception(error)) if error else details
        key = info.name if info.name not in self.failed else f"{info}: {reason}"
        self.failed[key] = replace(info, error=reason, details=details)
        if self.strict:
            raise PluginError(f"plugin {info}: {reason}") from error
        if (warning := f"plugin {info}: {reason}; {left_out}") not in self._warned:
            self._warned.add(warning)
            print(f"warning: {warning}", file=sys.stderr)
