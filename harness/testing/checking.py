"""The check of a plugin: it is loaded as a user's machine would load it, and what it registers is tried by its laws."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from harness.contract.kinds import KINDS
from harness.errors import PluginError, known_names, nearest
from harness.plugins import Plugins
from harness.plugins.registry import FIRST_PARTY, SLOW_S, PluginInfo
from harness.testing.command import plugins as load
from harness.testing.laws import process
from harness.testing.laws.law import Doubtful, Finding, Kit, NotTried, Outcome, laws_of, tried

SHOWN_S = 0.02
TIMED = """
import importlib, importlib.util, sys
import harness
[getattr(harness, name) for name in harness.__all__]
from harness.testing.laws.process import report, state
name = sys.argv[1]
for imported in sys.argv[2:]:
    importlib.import_module(imported)
before = state()
print("BEGIN", file=sys.stderr)
if name.endswith(".py"):
    spec = importlib.util.spec_from_file_location("timed_plugin", name)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))
else:
    importlib.import_module(name)
print("END", file=sys.stderr)
report(before)
"""


@dataclass(frozen=True, slots=True)
class Report:
    """The outcome of a check: what was loaded, its findings in order, and the time that its import took.

    `imports` are the packages that it imports with the seconds that each takes in a new process.
    """

    plugin: str
    version: str
    path: str
    import_s: float
    imports: Mapping[str, float]
    findings: tuple[Finding, ...]

    @property
    def broken(self) -> list[Finding]:
        """The laws that are broken."""
        return [finding for finding in self.findings if finding.outcome == "broken"]

    def as_dict(self) -> dict[str, Any]:
        """Return the report as JSON data."""
        return asdict(self) | {"imports": dict(self.imports), "broken": len(self.broken)}

    def __str__(self) -> str:
        return "\n".join(f"{one.where}: {one.law}: {one.outcome}. {one.message}".rstrip(". ") for one in self.findings)


def check(
    source: str | Path | ModuleType,
    *,
    rows: Path | None = None,
    options: Mapping[str, Any] | None = None,
    strict: bool = False,
) -> Report:
    """Check a plugin: a file, a module, or the name of an installed one. A test fails with all that is broken.

    Args:
        source: `riddles.py`, a module, or a name that `harness plugins list` shows.
        rows: a file for datasets that bring no data.
        options: values for options without a default, as `{"diary.file": "events.txt"}`.
        strict: fail for what is only doubtful, too.

    Raises:
        AssertionError: naming each broken law.
        PluginError: where no plugin has that name.
    """
    if isinstance(source, ModuleType):
        kit = load(source, first_party=True, strict=False)
        report = examine(kit, source.__name__, rows, options)
    else:
        report = examine(*loaded(source), rows, options)
    failed = [one for one in report.findings if one.outcome == "broken" or (strict and one.outcome == "doubtful")]
    if failed:
        raise AssertionError("\n".join(f"{one.where}: {one.law}: {one.message}" for one in failed))
    return report


def loaded(source: str | Path) -> tuple[Plugins, str]:
    """Return the plugins of this machine with `source` among them, and its name. Raises PluginError for no such one."""
    file = Path(source)
    if file.suffix == ".py":
        return Plugins([file]), file.stem
    kit = Plugins()
    known = {**kit.loaded, **kit.failed}
    named = [name for name, info in known.items() if source in (name, name.rpartition("/")[2], info.distribution)]
    if len(named) > 1:
        raise PluginError(f"{str(source)!r} may be {' or '.join(named)}: write the whole name")
    if not named:
        raise PluginError(
            f"no plugin is named {str(source)!r}.{nearest(str(source), known)} Loaded: {known_names(known)}. A "
            f"single-file plugin is checked by its path: `harness plugins check riddles.py`"
        )
    return kit, named[0]


def examine(
    kit: Plugins,
    name: str,
    rows: Path | None = None,
    options: Mapping[str, Any] | None = None,
    timed: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Report:
    """Return the findings about one plugin of `kit`; with its module or file as `timed`, and what its import takes."""
    kit.load_all()
    info = kit.loaded.get(name) or kit.failed[name]
    findings = [_loads(kit, name)]
    imports: dict[str, float] = {}
    seconds = info.import_s
    if name in kit.loaded:
        if timed is not None:
            seconds, imports, changed = import_times(timed, environment)
            findings += [_is_quick(name, seconds, imports), _leaves_the_process(name, changed)]
        findings += _metadata(info)
        with tempfile.TemporaryDirectory(prefix="harness-check-") as folder:
            findings += _things(Kit(kit, info, Path(folder), rows, options))
    return Report(info.name, info.version, info.path, round(seconds, 4), imports, tuple(findings))


def import_times(
    target: str, environment: Mapping[str, str] | None = None
) -> tuple[float, dict[str, float], list[str]]:
    """Return the seconds that importing a module or file takes in a new process, and those of other packages in it.

    The third is what it changes in that process. `environment` are the variables before it was imported in this one.
    """
    done = _imported(environment, target)
    lines = re.findall(
        r"import time:\s+(\d+) \|\s+(\d+) \| ( *)(\S+)", done.stderr.partition("BEGIN\n")[2].partition("END\n")[0]
    )
    times: dict[str, float] = defaultdict(float)
    for own, _, _, module in lines:
        times[module.partition(".")[0]] += int(own) / 1e6
    own_name = Path(target).stem if target.endswith(".py") else target.partition(".")[0]
    passed_over = {own_name, "harness", *sys.stdlib_module_names}
    slow = {name: round(took, 4) for name, took in times.items() if name not in passed_over and took >= SHOWN_S}
    if "torch" in times:  # what torch itself changes is no plugin's doing
        done = _imported(environment, target, "torch")
    changed = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else []
    return sum(times.values()), dict(sorted(slow.items(), key=lambda one: -one[1])), changed


def _imported(environment: Mapping[str, str] | None, target: str, *before: str) -> subprocess.CompletedProcess[str]:
    """Import a module or file in a new process, after the modules `before`, and report the time of each import."""
    command = [sys.executable, "-X", "importtime", "-c", TIMED, target, *before]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def _loads(kit: Plugins, name: str) -> Finding:
    if (failed := kit.failed.get(name)) is not None:
        return Finding("plugin", name, "it loads and registers", "broken", failed.error or "")
    registered = {kind: names for kind, names in kit.registered_by(name).items() if names}
    if not registered:
        return Finding("plugin", name, "it loads and registers", "doubtful", "it registers nothing")
    what = "; ".join(f"{kind} {known_names(names)}" for kind, names in registered.items())
    return Finding("plugin", name, "it loads and registers", "kept", what)


def _is_quick(name: str, seconds: float, imports: Mapping[str, float]) -> Finding:
    heaviest = ", ".join(f"{name} {took:.2f} s" for name, took in list(imports.items())[:4])
    message = f"{seconds:.2f} s" + (f", of which {heaviest}" if heaviest else "")
    if seconds < SLOW_S:
        return Finding("plugin", name, "its import is quick", "kept", message)
    advice = ". Commands that use it wait for that: import what is heavy in the functions that need it"
    return Finding("plugin", name, "its import is quick", "doubtful", message + advice)


def _leaves_the_process(name: str, changed: list[str]) -> Finding:
    """Return the finding about what others in the process rely on."""
    claim = "its import changes nothing else"
    if not changed:
        return Finding("plugin", name, claim, "kept")
    outcome: Outcome = "broken" if any(what.startswith(process.OTHERS) for what in changed) else "doubtful"
    message = f"it changes {', '.join(changed)}: do that where it is needed, and put it back"
    return Finding("plugin", name, claim, outcome, message)


def _metadata(info: PluginInfo) -> Iterator[Finding]:
    """Yield the finding about the distribution of an installed plugin: summary, licence, the harness it needs."""
    if not info.distribution:
        return
    data = importlib.metadata.metadata(info.distribution)
    needs = importlib.metadata.requires(info.distribution) or []

    def trial() -> None:
        if "Summary" not in data:
            raise Doubtful("pyproject.toml has no `description`")
        if "License-Expression" not in data and "License" not in data:
            raise Doubtful("pyproject.toml states no `license`")
        if info.owner != FIRST_PARTY and not any(re.match(r"instruct[-_.]harness\b", need) for need in needs):
            raise Doubtful("its dependencies do not name instruct-harness, so that any version of it is taken")

    yield tried("its distribution says what it is", "plugin", info.name, trial, info.path)


def _things(kit: Kit) -> Iterator[Finding]:
    """Yield the findings about everything that the plugin registered."""
    shapes = {entry.name for entry in kit.plugins.shapes.entries if entry.plugin.name == kit.info.name}
    for kind in KINDS:
        for entry in kit.plugins.registry(kind.plural).entries:
            if entry.plugin.name != kit.info.name or (kind.name == "dataset" and entry.name in shapes):
                continue
            try:
                laws = laws_of(kind.name)
            except NotTried as reason:
                yield Finding(kind.name, entry.name, "its laws", "not tried", str(reason))
                continue
            for claim, law in laws.items():
                yield tried(claim, kind.name, entry.name, partial(law, kit, kind, entry), kit.info.path)
