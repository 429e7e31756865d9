"""`harness report`: one file that loads nothing, runs nothing, and says at a glance what got better and worse."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("scipy")
pytest.importorskip("numpy")

from harness_evaluation.report.charts import curve_svg
from harness_evaluation.report.page import report_page

from harness.intervals import Scale
from harness.run.facts import curve_of
from tests.evaluation.on_file import Written, compared, right

HOSTILE = '</div><script>document.title="ran"</script><img src=x onerror="document.title=\'ran\'">&lt;b&gt;'


@pytest.fixture
def hostile(written: Written) -> str:
    """A report on answers, prompts and names full of HTML."""
    worse = [
        dataclasses.replace(s, response=HOSTILE, prompt=HOSTILE, target=HOSTILE, reasoning=HOSTILE)
        for s in right("0" * 30)
    ]
    first = [
        written("a", right("1" * 30)),
        written("a", right("0" * 30), "gains"),
        written("a", right("01" * 9), "same"),
    ]
    second = [written("<i>b</i>", worse, warnings=[HOSTILE]), written("<i>b</i>", right("1" * 30), "gains"),
              written("<i>b</i>", right("10" * 9), "same")]  # fmt: skip
    return report_page(compared(first, second), ("a", "b"), [], ["a line <u>"])


class Tags(HTMLParser):
    """Collects the tags and the attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_texts_of_models_are_text(hostile: str) -> None:
    tags = Tags(hostile).tags
    assert not {"script", "img", "iframe", "link", "i", "u"} & {tag for tag, _ in tags}
    assert not [
        name for _, attributes in tags for name in attributes if name.startswith("on") or name in ("src", "href")
    ]
    assert "&lt;script&gt;document.title" in hostile and "&amp;lt;b&amp;gt;" in hostile
    assert "&lt;i&gt;b&lt;/i&gt;" in hostile and "url(" not in hostile and "@import" not in hostile


def test_a_glance_says_what_got_better_and_what_got_worse(hostile: str) -> None:
    cards = re.findall(r'<section class="(\w*)"><h2><b>(\d+)</b>([\w ]+)</h2>(.*?)</section>', hostile)
    assert [(kind, count, title) for kind, count, title, _ in cards] == [
        ("worse", "1", "Worse"), ("better", "1", "Better"), ("", "1", "Cannot tell apart"),
    ]  # fmt: skip
    assert "gains" in cards[1][3] and "0.0\u00a0% → 100.0\u00a0% (+100.0 points" in cards[1][3]
    assert "sums" in cards[0][3] and "same" in cards[2][3] and "could see ≥" in cards[2][3]


def test_regressions_come_first_and_are_folded(hostile: str) -> None:
    summaries = re.findall(r"<details><summary>(.*?)</summary>", hostile)
    changed = [re.sub("<[^>]+>", "", line).split(" with ")[0] for line in summaries if " with " in line]
    assert changed == ["same: 9 items worse", "sums: 30 items worse", "gains: 30 items better", "same: 9 items better"]


def test_marks_differ_by_shape_and_word_not_by_colour_alone(hostile: str) -> None:
    drawn = re.findall(
        r'aria-label="(\w+) right[^"]*, ([\w ]+)[^"]*".*?<path class="mark fill-(\w+)" d="([^"]+)"', hostile
    )
    assert {task: (words.strip(), look) for task, words, look, _ in drawn} == {
        "sums": ("worse", "worse"), "gains": ("better", "better"), "same": ("cannot tell apart", "unclear"),
    }  # fmt: skip
    assert len({shape for *_, shape in drawn}) == 3


@pytest.fixture
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    sync_api = pytest.importorskip("playwright.sync_api")
    paths = (os.environ.get("HARNESS_CHROMIUM"), *map(shutil.which, ("chromium", "chromium-browser", "google-chrome")))
    if (path := next(filter(None, paths), None)) is None:
        pytest.skip("there is no Chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.browser
def test_a_browser_runs_nothing_and_asks_for_nothing(hostile: str, tmp_path: Path, chromium: Any) -> None:
    path = tmp_path / "report.html"
    path.write_text(hostile)
    for width in (1280, 390):
        page = chromium.new_page(viewport={"width": width, "height": 800})
        requests: list[str] = []
        page.on("request", lambda request, seen=requests: seen.append(request.url))
        page.goto(path.as_uri())
        page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
        assert page.title() == "<i>b</i> compared with a"
        assert requests == [path.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") == width
        page.close()


def test_an_axis_has_round_ticks_and_holds_zero() -> None:
    scale = Scale.around([79.6, 88.0])
    assert scale.low < 0 < 88 < scale.high and scale.ticks() == [0, 20, 40, 60, 80]
    assert Scale.around([0.0]).ticks() and 0 in [round(tick, 9) for tick in Scale.around([-0.031, 0.004]).ticks()]


def test_a_loss_curve_is_drawn_whole_however_many_steps() -> None:
    lines = [{"step": 0, "validation_loss": 5.0}, {"step": 3000, "validation_loss": 1.0}]
    lines += [{"step": step, "loss": 5.0 / step**0.2, "learning_rate": 1e-3} for step in range(1, 3001)]
    drawn = curve_svg(curve_of(lines))
    points = re.findall(r'<polyline class="curve smooth" points="([^"]+)"', drawn)[0].split()
    assert 500 < len(points) < 800 and points[-1].startswith("1000.0,")
    assert "validation loss from 5.000 to 1.000" in drawn and curve_svg(curve_of([])) == ""


@pytest.mark.slow
def test_a_run_is_reported_beside_its_base(typed: Callable[..., Any], finished_run: Path, tmp_path: Path) -> None:
    typed("evaluate", "demo@base", "demo")
    lines = typed("report", "demo", "--out", "sent.html").output
    assert "demo, beside demo@base: better on" in lines and "written to sent.html" in lines
    text = (tmp_path / "sent.html").read_text()
    assert "demo: what was tuned on what" in text and "Answers side by side" in text
    assert "harness evaluate demo@base demo" in text and str(tmp_path) not in text
