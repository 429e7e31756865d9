"""The three laws of import, and what a bare install can do without torch."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = sorted(path for parent in ("plugins", "serve") for path in (ROOT / parent).glob("harness_*") if path.is_dir())
HEAVY = {"torch", "transformers", "peft", "vllm", "gradio", "datasets", "lm_eval", "matplotlib", "scipy", "sqlalchemy"}


def imported(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every module that a file in `folder` imports, anywhere in it, by its first name."""
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module or ""]
            for name in names:
                yield path.relative_to(ROOT), name.split(".")[0]


def test_the_core_imports_no_plugin():
    assert [(path, name) for path, name in imported(ROOT / "harness") if name.startswith("harness_")] == []


@pytest.mark.parametrize("folder", PLUGINS, ids=lambda folder: folder.name)
def test_a_first_party_plugin_imports_no_other(folder):
    others = {other.name for other in PLUGINS} - {folder.name}
    assert [(path, name) for path, name in imported(folder) if name in others] == []


LISTING = """
import sys
try:
    exec(sys.argv[1])
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *{module.split(".")[0] for module in sys.modules})
"""
SOME_ROWS = ROOT / "recipes" / "seedling" / "data" / "validation.messages.jsonl"


def loaded_after(code: str) -> set[str]:
    """The top-level modules in a fresh process after it ran `code`."""
    done = subprocess.run([sys.executable, "-c", LISTING, code], check=True, capture_output=True, text=True)
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import harness",
        "import harness; [getattr(harness, name) for name in harness.__all__]",
        "from harness.cli import main; main(['--help'])",
        "from harness.cli import main; main(['plugins', 'list', '--json'])",
        "from harness.cli import main; main(['data', 'list'])",
        "from harness.cli import main; main(['runs', 'list'])",
        "from harness.cli import main; main(['doctor', '--json'])",
        f"from harness.cli import main; main(['data', 'preview', '--dataset', 'messages', {str(SOME_ROWS)!r}])",
    ],
    ids=["import", "every public name", "--help", "plugins list", "data list", "runs list", "doctor", "data preview"],
)
def test_no_heavy_import(code):
    assert loaded_after(code) & HEAVY == set()


def test_help_does_not_wait_for_pydantic_and_yaml():
    assert loaded_after("from harness.cli import main; main(['--help'])") & {"pydantic", "ruamel"} == set()


def test_every_public_name_is_there_and_documented():
    import harness

    for name in harness.__all__:
        assert getattr(harness, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Datset'"):
        harness.Datset  # noqa: B018
