"""Distributions of plugins: built as wheels, installed in folders of their own, and found by their entry points."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def output_of(command: list[object], folder: Path, path: str | None = None) -> str:
    """What a command writes in `folder`, with `path` before the others on PYTHONPATH; it has to succeed."""
    places = os.pathsep.join(filter(None, [path, *sys.path]))
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=os.environ | {"PYTHONPATH": places, "NO_COLOR": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def installed(source: Path, folder: Path) -> Path:
    """Build a wheel of a copy of `source`, and install it below `folder`; return where."""
    copy, wheels, target = folder / "source", folder / "wheels", folder / "site"
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    output_of([*pip, "wheel", "--no-deps", "--no-build-isolation", "--quiet", "-w", wheels, copy], folder)
    (wheel,) = wheels.glob("*.whl")
    output_of([*pip, "install", "--no-deps", "--quiet", "--target", target, wheel], folder)
    return target


def keeps_its_promises(source: Path, name: str, folder: Path) -> None:
    """Require of an installed distribution that it is found, keeps the laws of its kind, and passes its own tests."""
    target = installed(source, folder)
    harness = [sys.executable, "-m", "harness"]
    (work := folder / "work").mkdir()
    assert str(target) in output_of([*harness, "plugins", "list"], work, str(target))
    output_of([*harness, "plugins", "check", name], work, str(target))
    shutil.copytree(source / "tests", work / "tests")
    if (source / "conftest.py").is_file():
        shutil.copy(source / "conftest.py", work)
    tested = output_of([sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"], work, str(target))
    assert " passed" in tested and "failed" not in tested
