"""The documentation site: every page has its place, every sentence is short, and the walk through it works."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
CONFIG = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]
GENERATED = {"commands.md", "reference.md"}  # from the texts of the code
PROSE = sorted(path for path in DOCS.glob("*.md") if path.name not in GENERATED)
MOST_WORDS, MOST_WORDS_OF_A_PAGE = 18, 22  # of a sentence, on average


def pages_of(nav: list[Any]) -> Iterator[str]:
    for entry in nav:
        for value in entry.values():
            yield from [value] if isinstance(value, str) else pages_of(value)


def test_every_page_has_its_place_in_the_navigation() -> None:
    named = list(pages_of(CONFIG["nav"]))
    assert sorted(named) == sorted(path.name for path in DOCS.glob("*.md"))


def test_the_order_is_that_of_a_newcomer() -> None:
    titles = [title for entry in CONFIG["nav"] for title in entry]
    wanted = ["Your own data, start to end", "Plugin cookbook", "Reference", "When something fails", "What fits where",
              "Explanations", "Beside other tools"]  # fmt: skip
    assert [title for title in titles if title in wanted] == wanted and titles[0] == wanted[0]


def sentences(text: str) -> list[str]:
    """Return the sentences of a page's prose: no code, tables or headings; an item of a list is one or more."""
    text = re.sub(r"```.*?```|<!--.*?-->", "", text, flags=re.DOTALL)
    lines = [line for line in text.splitlines() if not re.match(r"(    |\||#|$)", line) or not line]
    prose = re.sub(r"^\s*(?:[-*]|\d+\.) ", "\n\n", "\n".join(lines), flags=re.MULTILINE)
    prose = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", prose).replace("**", "")
    found = (part for block in prose.split("\n\n") for part in re.split(r"(?<=[.!?])\s+(?=\S)", block.strip()))
    return [sentence for sentence in found if len(sentence.split()) > 1]


def test_sentences_are_short_on_average() -> None:
    """Over the site; of a page with many figures and conditions, somewhat longer ones."""
    lengths = {page.name: [len(one.split()) for one in sentences(page.read_text())] for page in PROSE}
    every = [length for page in lengths.values() for length in page]
    assert sum(every) / len(every) <= MOST_WORDS
    assert {name for name, page in lengths.items() if sum(page) / len(page) > MOST_WORDS_OF_A_PAGE} == set()


@pytest.mark.slow
def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """A link or an anchor that leads nowhere is an error; the network is not there."""
    pytest.importorskip("zensical")
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("zensical.toml", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    nowhere = {"HTTP_PROXY": "http://127.0.0.1:9", "HTTPS_PROXY": "http://127.0.0.1:9", "PATH": "/usr/bin:/bin"}
    nowhere["PYTHONPATH"] = str(tmp_path / "docs")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "--clean"],
        cwd=tmp_path, env=nowhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in pages_of(CONFIG["nav"]):
        page = (tmp_path / CONFIG["site_dir"] / name).with_suffix(".html").read_text()
        assert not re.findall(r'<(?:script|img|link rel="stylesheet")[^>]+(?:src|href)="https?://[^"]+', page), name
        assert not re.findall(r'href="\.\./[^"]*"', page), name  # the folder above is not published
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    cookbook = (tmp_path / CONFIG["site_dir"] / "plugins.html").read_text()
    targets = set(re.findall(rf'href="{re.escape(source)}/blob/main/([^"]+)"', cookbook))
    assert "examples/harness-csv/tracker_csv.py" in targets
    assert [target for target in targets if not (ROOT / target).exists()] == []


@pytest.mark.slow
def test_what_fits_where_is_what_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines of one model; the page has those of all."""
    pytest.importorskip("peft")
    monkeypatch.syspath_prepend(str(DOCS))
    what_fits = importlib.import_module("what_fits")
    name = "Qwen/Qwen2.5-0.5B-Instruct"
    monkeypatch.setattr(what_fits, "MODELS", {name: what_fits.MODELS[name]})
    lines = what_fits.table(what_fits.rows()).splitlines()[2:]
    assert len(lines) == 3 and set(lines) <= set((DOCS / "what-fits.md").read_text().splitlines())


def walk() -> list[str]:
    """The commands of the walk, in its order, but for those that install, fetch or serve."""
    text = (DOCS / "your-own-data.md").read_text()
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


@pytest.mark.slow
def test_the_walk_from_a_csv_to_peft_works_as_it_is_written(
    harness_here: Callable[..., Any], tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a tiny model under the name of the page's, and on every fourth row."""
    rows = (DOCS / "desk.csv").read_text().splitlines(keepends=True)
    (tmp_path / "desk.csv").write_text("".join(rows[:1] + rows[1::4]))
    (tmp_path / ".models").mkdir()
    shutil.copytree(tiny_model, tmp_path / ".models" / "SmolLM2-135M-Instruct")
    monkeypatch.chdir(tmp_path)
    commands = walk()
    assert [shlex.split(line)[1] for line in commands] == [
        "recipe", "data", "data", "tune", "tune", "evaluate", "compare", "ask", "ask", "report",
    ]  # fmt: skip
    for line in commands:
        program, *words = shlex.split(line)
        done = harness_here(*words)
        assert program == "harness" and done.code == 0, (line, done.err)
    (program,) = re.findall(r"```python\n(.*?)```", (DOCS / "your-own-data.md").read_text(), re.DOTALL)
    exec(program, {})
