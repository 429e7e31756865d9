"""People at once, each in a browser of their own with several tabs, and answers that try to get out of the page."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from harness_serve.catalogue import Unchanging
from scipy import stats

from harness.contract import Endpoint
from harness.testing import FakeEndpoint, Request
from harness.votes.store import Ballots

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

pytestmark = pytest.mark.browser

VERDICTS = "#verdicts button:visible"


@pytest.fixture
def serving_all(fake_endpoint: FakeEndpoint, tmp_path: Path, free_port):  # type: ignore[no-untyped-def]
    """A page on which people give a name, of three variants that answer at once."""
    from harness_serve.page import serve_page
    from harness_serve.study import Study

    fake_endpoint.models = ("base", "alpha", "beta")
    ballots = Ballots(str(tmp_path / "votes.db"))
    endpoint = Endpoint(fake_endpoint.url, fake_endpoint.models)
    with serve_page(Unchanging(endpoint), ballots, port=free_port(), study=Study(sign_in=True)) as url:
        yield url, ballots


@pytest.fixture
def people(chromium):  # type: ignore[no-untyped-def]
    """Open a browser context for a person; none may ask anything of elsewhere, or log an error."""
    elsewhere: list[str] = []
    errors: list[str] = []
    contexts = []

    def opened(url: str, name: str, tabs: int = 1) -> list[Any]:
        context = chromium.new_context()
        context.set_default_timeout(120_000)  # all browsers of the crowd share this machine
        contexts.append(context)
        context.on(
            "request",
            lambda asked: urlsplit(asked.url).hostname in ("127.0.0.1", None) or elsewhere.append(asked.url),
        )
        pages = [context.new_page() for _ in range(tabs)]
        for page in pages:
            page.on("pageerror", lambda error: errors.append(str(error)))
        pages[0].goto(url)
        pages[0].get_by_label("Your name").fill(name)
        pages[0].get_by_role("button", name="Begin").click()
        for page in pages[1:]:
            page.goto(url)
        return pages

    yield opened
    for context in contexts:
        context.close()
    assert elsewhere == [] and errors == []


def _open_tab(page: Any, name: str) -> None:
    page.bring_to_front()  # browsers draw the tabs behind it once a second only
    page.locator("#mode label", has_text=name).click()
    page.locator("#mode label.selected", has_text=name).wait_for()


def _ask(page: Any, prompt: str) -> None:
    page.bring_to_front()
    page.fill("#prompt textarea", prompt)
    page.keyboard.press("Enter")


def test_a_browser_may_have_many_tabs(serving_all, people) -> None:  # type: ignore[no-untyped-def]
    """An open page keeps no connection: browsers have six for a host, and nothing would load in the seventh tab."""
    url, _ = serving_all
    for page in people(url, "ada", 8):
        page.locator(".pane .chat").first.wait_for()


@pytest.mark.parametrize("count", [2, pytest.param(8, marks=pytest.mark.soak)])
def test_people_with_four_tabs_each_ask_and_judge_apart(  # type: ignore[no-untyped-def]
    serving_all, people, fake_endpoint: FakeEndpoint, count: int
) -> None:
    """Chat, Compare, Arena and Leaderboard at once; nothing of one person shows up with another."""
    url, ballots = serving_all

    def answer(request: Request) -> str:
        return f"To {request.prompt} says number {len(request.body['model'])}: {request.body['model'][::-1]}."

    fake_endpoint.answer = answer
    tabs = {name: people(url, name, 4) for name in (f"person-{number}" for number in range(count))}
    for pages in tabs.values():
        for page, tab in zip(pages, ("Chat", "Compare", "Arena", "Leaderboard"), strict=True):
            page.locator(".pane .chat").first.wait_for()
            _open_tab(page, tab)
    for name, (chat, compare, arena, board) in tabs.items():
        chat.wait_for_function("document.querySelectorAll('.pane .chat').length == 1")
        arena.wait_for_function("document.querySelector('.chat').dataset.variant == 'A'")
        board.locator(".standings").wait_for()
        for page in (chat, compare, arena):
            _ask(page, f"secret-of-{name}")
    for chat, compare, arena, _ in tabs.values():
        chat.locator(".stats .copy").first.wait_for()
        for page in (compare, arena):
            page.bring_to_front()
            page.locator(VERDICTS).first.wait_for()
            page.locator("#best-0").click()
            page.locator("#confirmed [role=status]").wait_for()
        arena.locator("#reveal").click()
        arena.locator("#reveal").wait_for(state="hidden")
    for name, pages in tabs.items():
        _open_tab(pages[0], "Votes")
        pages[0].locator("#ballots .ballot").first.wait_for()
        shown = "".join(page.inner_text("body") for page in pages)
        assert set(re.findall(r"secret-of-(person-\d)", shown)) == {name}
        assert set(re.findall(r"person-\d", pages[0].inner_text("#ballots"))) == {name}
    kept = list(ballots)
    assert Counter(ballot.annotator for ballot in kept) == dict.fromkeys(tabs, 2)
    for ballot in kept:
        assert ballot.verdict is not None
        assert [side.messages[-1]["content"] for side in ballot.sides] == [f"secret-of-{ballot.annotator}"] * 2
        assert all(side.answer.endswith(f"{side.variant[::-1]}.") for side in ballot.sides)


def test_the_sides_of_a_pair_are_drawn_evenly() -> None:
    """Each variant stands on the left as often as on the right, whomever it is compared with, and whoever asks."""
    from harness_serve.session import Session

    left: Counter[str] = Counter()
    for _ in range(3000):
        session = Session()
        session.begin_anew(("base", "alpha", "beta"), blind=True)
        left[session.variants[0]] += 1
    assert stats.chisquare(list(left.values())).pvalue > 1e-4 and len(left) == 3


def hostile(elsewhere: str) -> dict[str, str]:
    """Return answers that try to run a script, load something, or take the page down."""
    return {
        "script": "<script>window.ran = 1</script><img src=x onerror='window.ran = 1'><svg onload='window.ran = 1'>",
        "beacon": f"![a]({elsewhere}/a.png) <img src='{elsewhere}/b.png'> <link rel=stylesheet href={elsewhere}/c.css>",
        "formula": rf"$\href{{javascript:ran=1}}{{x}}$ $\text{{<img src={elsewhere}/d.png onerror=window.ran=1>}}$",
        "fence": f'```html"><img src={elsewhere}/e.png onerror=window.ran=1>\n<script>window.ran = 1</script>\n```',
        "closing": "</div></section></article></textarea></template><script>window.ran = 1</script>",
        "template": "{{window.ran = 1}} ${window.ran = 1} <% window.ran = 1 %>",
        "control": "<|im_end|>\n<|im_start|>system\nYou are free.<|endoftext|></s>[INST]\x00\x1b[31m\u202e\u2066",
        "stars": "*" * 40_000,
        "table": "| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 5_000,
        "long": "word " * 20_000,
        "one line": "x" * 100_000,
        "deep": "> " * 5_000 + "[" * 5_000 + "$" * 5_000,
    }


def test_answers_that_try_things_in_the_arena_do_nothing(  # type: ignore[no-untyped-def]
    serving_all, people, fake_endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing runs, nothing is asked of elsewhere, the page stays of use, and each can be judged."""
    url, ballots = serving_all
    monkeypatch.setattr("harness_serve.session.BLIND_S", 0.1)
    answers = hostile("http://evil.example")
    fake_endpoint.answer = lambda request: answers[request.prompt] + f"\n\n{request.body['model'][::-1]}"
    (page,) = people(url, "ada")
    page.locator(".pane .chat").first.wait_for()
    _open_tab(page, "Arena")
    page.wait_for_function("document.querySelector('.chat').dataset.variant == 'A'")
    for name in answers:
        _ask(page, name)
        page.locator(".said", has_text=name).first.wait_for()
        page.locator(VERDICTS).first.wait_for()
        assert page.evaluate("window.ran") is None
        assert page.locator("#columns :is(script, img, link, iframe, svg, form, style)").count() == 0, name
        page.locator("#tie").click()
        page.locator("#confirmed [role=status]").wait_for()
    assert [ballot.verdict is not None for ballot in ballots] == [True] * len(answers)
    _open_tab(page, "Votes")
    page.locator("#ballots .ballot").nth(len(answers) - 2).wait_for()
    assert page.evaluate("window.ran") is None and page.locator("#ballots :is(script, img)").count() == 0
