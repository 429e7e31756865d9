"""The engine of one `harness serve`: started and checked, started again where it ends, with what was added since."""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness.checks.serving import Checked, checked, started
from harness.hashing import sha256_of_files
from harness.model.templates import with_chat_folders
from harness.run import Run
from harness.variants import require_words, resolve_variant, tuned_of

if TYPE_CHECKING:
    from harness.contract import Endpoint, Engine
    from harness.contract.engines import Control
    from harness.plugins import Plugins
    from harness.variants import Variant

MOST_RESTARTS = 5  # in a row, after 1, 2, 4, ... seconds
SETTLED_S = 300.0  # an engine that ran so long ends a row
HASH_DIGITS = 8
POLL_S = 0.2

Report = Callable[[str], None]


def quiet(waiting_for: str) -> None:
    """Report nothing."""


class Supervisor:
    """An engine and what it serves. `variants` answer now; `endpoint.models` has their names, and those of remote ones.

    `notice` says what is the matter, for people at the page; it is empty while the engine runs.
    """

    endpoint: Endpoint
    variants: tuple[Variant, ...]

    def __init__(
        self,
        engine: Engine,
        options: Any,
        variants: Sequence[Variant],
        plugins: Plugins,
        runs_folder: Path,
        remotes: Sequence[Variant] = (),
    ) -> None:
        self.engine, self.options, self.plugins, self.runs_folder = engine, options, plugins, runs_folder
        self.notice = ""
        self.left_out: dict[str, str] = {}
        self._named, self._remotes = tuple(variants), tuple(remotes)
        self._added: list[Variant] = []
        self._used: set[str] = set()
        self._weights: dict[str, str] = {}  # the hash of each adapter that is served, by its name
        self._kept = contextlib.ExitStack()  # folders
        self._life = contextlib.ExitStack()  # the engine that runs
        self._lock = threading.RLock()  # held while the engine, or what it serves, changes
        self._folder = Path(self._kept.enter_context(tempfile.TemporaryDirectory(prefix="harness-serving-")))

    def __enter__(self) -> Supervisor:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._life.close()
        finally:
            self._kept.close()

    @property
    def control(self) -> Control | None:
        return self.endpoint.control

    def start(self, report: Report = quiet) -> Checked:
        """Start the engine and check it. Raises HarnessError as `started` does."""
        with self._lock:
            self._named = with_chat_folders(self._named, self.plugins, self._folder / "chat")
            return self._begin(report)

    def _begin(self, report: Report) -> Checked:
        variants = self._servable()
        self._weights = {its.name: _hash_of(its.adapter) for its in variants if its.adapter is not None}
        ready = self._life.enter_context(started(self.engine, self.options, variants, self.plugins, report))
        names = (*ready.endpoint.models, *(variant.name for variant in self._remotes))
        self.endpoint = replace(ready.endpoint, models=names)
        self.variants = (*ready.variants, *self._remotes)
        self.notice = ""
        return ready

    def _servable(self) -> tuple[Variant, ...]:
        """Return the variants whose files are still there. Those of the first start have been checked by then."""
        variants: list[Variant] = []
        for variant in (*self._named, *self._added):
            why = self.engine.refuses(variant) if self._used and self.engine.refuses is not None else None
            if why is None:
                variants.append(variant)
            else:
                self.left_out[variant.name] = why
        self._used.update(variant.name for variant in variants)
        if not variants:
            raise harness.HarnessError("nothing is left to serve: " + "; ".join(self.left_out.values()))
        return tuple(variants)

    def watch(self, say: Report) -> None:
        """Start the engine again whenever it ends; does not return.

        Raises:
            HarnessError: where it ended MOST_RESTARTS times in a row.
        """
        failures = 0
        while True:
            began = time.monotonic()
            reason = self._wait_for_its_end()
            failures = 1 if time.monotonic() - began > SETTLED_S else failures + 1
            with self._lock:
                while reason is not None:
                    if failures > MOST_RESTARTS:
                        raise harness.HarnessError(f"the engine ended {failures} times in a row; at last: {reason}")
                    reason = self._start_again(reason, failures, say)
                    failures += reason is not None

    def _start_again(self, reason: str, failures: int, say: Report) -> str | None:
        """Start the engine after a pause; returns why it did not start, or None where it runs."""
        pause = 2 ** (failures - 1)
        self.notice = "The engine has ended and is being started again. Answers that were under way are cut."
        say(f"{reason}\nIt is started again in {pause} s (try {failures} of {MOST_RESTARTS}).")
        with contextlib.suppress(harness.HarnessError):  # of checks that hung on it
            self._life.close()
        self._life = contextlib.ExitStack()
        time.sleep(pause)
        try:
            self._begin(quiet)
        except harness.HarnessError as error:
            return str(error)
        for name, why in self.left_out.items():
            say(f"{name} is left out: {why}")
        say(f"The engine runs again: {', '.join(self.endpoint.models)}")
        return None

    def _wait_for_its_end(self) -> str:
        """Return why the engine has ended, once it has."""
        if self.control is not None:
            while (why := self.control.ended()) is None:
                time.sleep(POLL_S)
            return why
        missed = 0
        while missed < 5:  # an engine that says nothing of its end
            time.sleep(2)
            missed = 0 if _answers(self.endpoint) else missed + 1
        return f"the engine does not answer any more; its log: {self.endpoint.settings.get('log', 'unknown')}"

    def add(self, text: str, report: Report = quiet) -> dict[str, Any]:
        """Serve the adapter of a run or a folder, under a name with the hash of its files; returns what was checked.

        Nobody can ask it before it passed the checks that a start makes, on every replica. One that is served already,
        under whatever name, is not `added` again.

        Raises:
            HarnessError: where it cannot be served beside the others, or a check fails; nothing is changed then.
        """
        with self._changing() as control:
            variant = resolve_variant(text, self.runs_folder, self.plugins)
            require_words(variant, "served")
            if variant.adapter is None:
                raise harness.HarnessError(
                    f"{variant.name} is a whole model and no adapter: `harness serve {text}` starts an engine for it"
                )
            local = tuple(other for other in self.variants if other.remote is None)
            with contextlib.ExitStack() as undo:
                copy = Path(tempfile.mkdtemp(prefix="added-", dir=self._folder))
                undo.callback(shutil.rmtree, copy)
                held = self._held(variant, copy)
                assert held.adapter is not None
                weights = _hash_of(held.adapter)
                if twin := next((name for name, its in self._weights.items() if its == weights), None):
                    return {"name": twin, "added": False, "agreements": [], "compared": []}
                staged = replace(
                    held,
                    name=self._unused(f"{variant.name}-{weights[:HASH_DIGITS]}"),
                    chat_folder=held.chat_folder or local[0].chat_folder,
                )
                report(f"the engine to load {staged.name}")
                control.load(staged, local)
                undo.callback(control.unload, staged.name)
                ready = self._checked(staged, control, report)
                undo.pop_all()
            control.publish(staged.name)
            self._added.append(staged)
            self._weights[staged.name] = weights
            self._show((*self.variants, staged), (*self.endpoint.models, staged.name))
            return {
                "name": staged.name,
                "added": True,
                "agreements": [dataclasses.asdict(agreement) for agreement in ready.agreements],
                "compared": ready.parity.compared,
            }

    def _held(self, variant: Variant, folder: Path) -> Variant:
        """Return the variant from a copy of its files: what is served cannot change or go away."""
        try:
            return self._copied(variant, folder)
        except OSError as error:
            raise harness.HarnessError(f"{variant.name}: its files cannot be read: {error}") from None

    def _unused(self, name: str) -> str:
        """Return the name, with a number where it was used: the engine's prefix cache knows adapters by names alone."""
        unused, number = name, 1
        while unused in self._used:
            number += 1
            unused = f"{name}-{number}"
        self._used.add(unused)
        return unused

    def _copied(self, variant: Variant, folder: Path) -> Variant:
        """Return the variant from a copy of its adapter, and of what a run has beside it for engine and checks.

        Raises OSError.
        """
        assert variant.adapter is not None
        if (run := variant.run) is None:
            return replace(variant, adapter=shutil.copytree(variant.adapter, folder, dirs_exist_ok=True))
        copy = folder / run.name
        for part in (run.adapter_folder, run.chat_folder):
            shutil.copytree(part, copy / part.name, dirs_exist_ok=True)
        for name in ("manifest.json", "recipe.yaml", "probes.json"):
            if (run.folder / name).is_file():
                shutil.copy2(run.folder / name, copy)
        return tuned_of(Run.open(copy, self.plugins))

    def _checked(self, staged: Variant, control: Control, report: Report) -> Checked:
        """Check a loaded adapter as a start does. Raises HarnessError."""
        models = (self.endpoint.models[0], staged.name)
        asked = replace(self.endpoint, models=models, api_key=control.key)
        return checked(asked, (staged,), getattr(self.options, "dtype", None), report)

    def remove(self, name: str) -> dict[str, Any]:
        """Serve an adapter no more. Raises HarnessError for what is none."""
        with self._changing() as control:
            adapters = [variant.name for variant in self.variants if variant.adapter is not None]
            if name not in adapters:
                near = harness.errors.nearest(name, adapters)
                raise harness.HarnessError(
                    f"{name!r} is no adapter that is served.{near} There are: {harness.errors.known_names(adapters)}"
                )
            if len(self.variants) - len(self._remotes) == 1:
                raise harness.HarnessError(f"{name} is the only variant that is served")
            is_freed = control.unload(name)
            self._added = [variant for variant in self._added if variant.name != name]
            self._named = tuple(variant for variant in self._named if variant.name != name)
            self._weights.pop(name, None)
            left = tuple(variant for variant in self.variants if variant.name != name)
            self._show(left, tuple(model for model in self.endpoint.models if model != name))
            return {"name": name, "slot_freed": is_freed}

    def answer(self, question: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """Answer `harness adapters`: `do` is add, remove or list. Raises HarnessError."""
        match question.get("do"):
            case "add":
                return self.add(str(question["variant"]), report)
            case "remove":
                return self.remove(str(question["name"]))
            case "list":
                return self.listed()
        raise harness.HarnessError(f"nothing is known of {question.get('do')!r}; expected add, remove or list")

    def listed(self) -> dict[str, Any]:
        """Return the adapters that are served, for people and programs."""
        room = self.control.capacity if self.control is not None else None
        added = {variant.name for variant in self._added}
        adapters = [
            {"name": variant.name, "added": variant.name in added, "run": variant.run.name if variant.run else None}
            for variant in self.variants
            if variant.adapter is not None
        ]
        capacity = None if room is None else {"slots": room.slots, "rank": room.rank, "modules": sorted(room.modules)}
        return {"adapters": adapters, "capacity": capacity, "notice": self.notice}

    @contextlib.contextmanager
    def _changing(self) -> Any:
        """Hold the engine still while its adapters change; yields its control."""
        if not self._lock.acquire(timeout=1.0):
            raise harness.HarnessError(self.notice or "another adapter is being added or removed: try again")
        try:
            if self.control is None:
                raise harness.HarnessError(f"the engine {self.engine.name} takes no adapters while it serves")
            if (why := self.control.ended()) is not None:
                raise harness.HarnessError(why)
            yield self.control
        finally:
            self._lock.release()

    def _show(self, variants: tuple[Variant, ...], models: tuple[str, ...]) -> None:
        self.variants, self.endpoint = variants, replace(self.endpoint, models=models)


def _hash_of(adapter: Path) -> str:
    return sha256_of_files(adapter, "adapter_*")


def _answers(endpoint: Endpoint) -> bool:
    headers = {"Authorization": f"Bearer {endpoint.api_key}"} if endpoint.api_key else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{endpoint.url}/models", headers=headers), timeout=60):
            return True
    except (OSError, http.client.HTTPException):  # no connection, a torn one, or no answer in time
        return False
