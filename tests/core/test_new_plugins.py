"""`harness plugins new`: what it writes passes its own test, the check of its laws, and ruff, at once."""

from __future__ import annotations

import importlib
import inspect
import itertools
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from harness_commands.plugins.new import USES

from harness.contract.kinds import KINDS
from tests.distributions import keeps_its_promises, output_of

pytestmark = pytest.mark.slow

KIND_NAMES = [kind.name for kind in KINDS]
HEAVY = {"template", "objective", "method", "engine"}


def ruff(folder: Path, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ruff", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_a_new_distribution_passes_its_own_test(kind, tmp_path, harness_here, monkeypatch):
    if kind in HEAVY:
        pytest.importorskip("torch")
    done = harness_here("plugins new", kind, f"my_{kind}")
    assert done.code == 0, done.err
    folder = tmp_path / f"harness-my-{kind}"
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    module = project["entry-points"]["harness"][f"my_{kind}"]
    assert (folder / "LICENSE").is_file() and (folder / ".github/workflows/test.yml").is_file()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.syspath_prepend(folder / "tests")
    tests = importlib.import_module(f"test_my_{kind}")
    run = [test for name, test in vars(tests).items() if name.startswith("test_")]
    assert len(run) == 2 and tests.plugin.__name__ == module
    for number, test in enumerate(run):
        (own := tmp_path / str(number)).mkdir()
        test(**({"tmp_path": own} if inspect.signature(test).parameters else {}))


def test_what_is_new_is_as_ruff_likes_it(tmp_path, harness_here):
    for kind in KIND_NAMES:
        assert harness_here("plugins new", kind, f"my-{kind}").code == 0
        assert harness_here("plugins new --single-file", kind, f"one_{kind}").code == 0
    ruff(tmp_path, "check")
    ruff(tmp_path, "format", "--check")


@pytest.mark.parametrize("kind", sorted({*KIND_NAMES} - {"command"}))
def test_the_command_that_uses_it_has_the_options_that_it_is_shown_with(kind, harness_here):
    words = shlex.split(USES[kind])
    command = list(itertools.takewhile(lambda word: word.isalpha() and word.islower(), words))
    done = harness_here(*command, "--help")
    assert done.code == 0 and {word for word in words if word.startswith("--")} <= set(done.out.split())


@pytest.mark.parametrize("kind", sorted(set(KIND_NAMES) - HEAVY))
def test_a_new_single_file_passes_the_check(kind, tmp_path, harness_here):
    assert harness_here("plugins new --single-file", kind, f"my_{kind}").code == 0
    before = set(tmp_path.iterdir())
    done = harness_here("plugins check --strict", tmp_path / f"my_{kind}.py")
    assert done.code == 0 and set(tmp_path.iterdir()) - {tmp_path / "__pycache__"} == before, done.out


@pytest.mark.parametrize(
    "kind", [kind if kind == "command" else pytest.param(kind, marks=pytest.mark.soak) for kind in KIND_NAMES]
)
def test_a_new_distribution_is_built_installed_found_checked_and_tested(kind, tmp_path, harness_here):
    if kind in HEAVY:
        pytest.importorskip("torch")
    assert harness_here("plugins new", kind, "greet").code == 0
    (own := tmp_path / "own").mkdir()
    keeps_its_promises(tmp_path / "harness-greet", "greet", own)


@pytest.mark.soak
def test_what_is_new_is_typed(tmp_path, harness_here):
    for kind in KIND_NAMES:
        assert harness_here("plugins new", kind, f"my_{kind}").code == 0
    packages = [tmp_path / f"harness-my-{kind}" / f"harness_my_{kind}" for kind in KIND_NAMES]
    output_of([sys.executable, "-m", "mypy", "--strict", "--explicit-package-bases", *packages], tmp_path)


def test_nothing_is_overwritten(tmp_path, harness_here):
    (tmp_path / "mine.py").write_text("mine")
    done = harness_here("plugins new --single-file filter mine")
    assert done.code == 1 and "mine.py is there already" in done.err and (tmp_path / "mine.py").read_text() == "mine"
    wrong = harness_here("plugins new filter ../evil")
    assert wrong.code == 1 and "cannot be a plugin's name" in wrong.err
