"""Each kind of plugin has a complete example, a distribution of its own, which is installed as others would."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from harness.contract.kinds import KINDS
from harness.testing import plugins
from tests.distributions import keeps_its_promises

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "examples").glob("*/pyproject.toml"))


def entry_of(folder: Path) -> tuple[str, Path]:
    """The name of the plugin and its file."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    ((name, module),) = project["entry-points"]["harness"].items()
    file = folder / f"{module}.py"
    return name, file if file.is_file() else folder / module / "__init__.py"


def test_every_kind_has_one() -> None:
    kit = plugins(*(entry_of(folder)[1] for folder in FOLDERS if folder.name != "harness-riddles"), first_party=True)
    kinds = {kind for info in kit.loaded.values() if not info.distribution for kind in kit.registered_by(info.name)}
    assert kinds >= {kind.plural for kind in KINDS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_distribution_says_what_it_is(folder: Path) -> None:
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["description"] and project["license"] and project["readme"] == "README.md"
    assert any(need.startswith("instruct-harness") for need in project["dependencies"])
    assert list(folder.glob("tests/test_*.py")) and (folder / "README.md").is_file()


@pytest.mark.soak
@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_its_wheel_is_installed_found_checked_and_tested(folder: Path, tmp_path: Path) -> None:
    keeps_its_promises(folder, entry_of(folder)[0], tmp_path)
