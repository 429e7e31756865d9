"""Clicks and keys that come early: each is heard, whatever the browser and the server are still busy with."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from harness_serve import handlers
from harness_serve.catalogue import Unchanging
from harness_serve.prompt_sets import Prompt, PromptSet
from harness_serve.study import Study

from harness.contract import Endpoint
from harness.nouns import Verdict
from harness.testing import FakeEndpoint
from harness.votes.store import Ballots

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

pytestmark = pytest.mark.browser

ENDED = (
    "() => document.querySelector('#best-0')?.offsetParent && document.querySelectorAll('.pane .source').length == 2"
)
FIRST_QUESTION = "document.querySelector('.said')?.textContent"


@pytest.fixture
def ballots(tmp_path: Path) -> Ballots:
    return Ballots(str(tmp_path / "votes.db"))


@pytest.fixture
def prompts(request: pytest.FixtureRequest) -> int:
    """The number of prompts to work through."""
    return getattr(request, "param", 30)


@pytest.fixture
def url(  # type: ignore[no-untyped-def]
    fake_endpoint: FakeEndpoint, ballots: Ballots, free_port, monkeypatch: pytest.MonkeyPatch, prompts: int
) -> Iterator[str]:
    """A page with prompts to work through, of two variants that answer at once."""
    from harness_serve.page import serve_page

    monkeypatch.setattr("harness_serve.session.BLIND_S", 0.1)
    fake_endpoint.models, fake_endpoint.answer = ("base", "alpha"), lambda request: request.body["model"][::-1]
    study = Study(
        PromptSet(tuple(Prompt(str(number), f"Question {number}?") for number in range(prompts))), sign_in=True
    )
    with serve_page(
        Unchanging(Endpoint(fake_endpoint.url, ("base", "alpha"))), ballots, port=free_port(), study=study
    ) as url:
        yield url


@pytest.fixture
def signed_in(chromium, url: str) -> Iterator[Callable[..., Any]]:  # type: ignore[no-untyped-def]
    """Open the page in a browser of its own, under a name."""
    contexts = []

    def open_page(name: str, script: str = "") -> Any:
        contexts.append(chromium.new_context())
        page = contexts[-1].new_page()
        page.add_init_script(script)
        page.goto(url)
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Begin").click()
        page.locator("#following").wait_for()
        return page

    yield open_page
    for context in contexts:
        context.close()


def _next(page: Any, act: Callable[[], None]) -> None:
    """Go on to the next question, and wait until both answers are there."""
    before = page.evaluate(FIRST_QUESTION)
    act()
    page.wait_for_function(f"(before) => ({FIRST_QUESTION} ?? before) !== before", arg=before)
    page.wait_for_function(ENDED)


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Iterator[Future[None]]:
    """Keep the server from ending any event before the test lets it, though what it has drawn is shown."""
    over, attach = Future[None](), handlers._on

    def held(trigger: Any, handler: Any, *given: Any, **more: Any) -> Any:
        async def answer(*values: Any) -> Any:
            async for drawing in handler(*values):
                yield drawing
            await asyncio.shield(asyncio.wrap_future(over))

        return attach(trigger, answer if inspect.isasyncgenfunction(handler) else handler, *given, **more)

    monkeypatch.setattr(handlers, "_on", held)
    yield over
    if not over.done():
        over.set_result(None)


def test_a_click_is_heard_before_the_last_one_on_its_button_is_over(  # type: ignore[no-untyped-def]
    ending: Future[None], signed_in, ballots: Ballots
) -> None:
    """The page shows the end of an event before the browser knows of it; people go by what it shows.

    When it does end, it draws nothing older over what was clicked since.
    """
    page = signed_in("ada")
    for _ in range(2):
        _next(page, page.locator("#following").click)
    for id, verdict in (("best-0", "A is better"), ("best-1", "B is better"), ("best-0", "A is better")):
        page.locator(f"#{id}").click()
        page.locator("#confirmed", has_text=f"Kept: {verdict}").wait_for()
    _next(page, lambda: page.keyboard.press("n"))
    page.keyboard.press("ArrowLeft")
    page.locator("#confirmed", has_text="Kept: A is better").wait_for()
    ending.set_result(None)
    page.wait_for_function("() => owed.size === 0")
    page.evaluate("() => new Promise((drawn) => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert "Kept: A is better" in page.locator("#confirmed").inner_text()
    kept = {(ballot.state, ballot.verdict) for ballot in ballots}
    assert kept == {("void", None), ("revealed", Verdict("best", 0)), ("voted", Verdict("best", 0))}


LATE_END = """
const real = window.fetch;
window.fetch = async (...asked) => {
  const reply = await real(...asked);
  if (!String(asked[0].url ?? asked[0]).includes("/queue/data")) return reply;
  const late = new TransformStream({ transform: async (part, out) => {
    const text = new TextDecoder().decode(part), at = text.indexOf('data: {"msg":"close_stream"');
    out.enqueue(at < 0 ? part : new TextEncoder().encode(text.slice(0, at)));
    if (at < 0) return;
    await new Promise((done) => { window.end = done; });
    out.enqueue(new TextEncoder().encode(text.slice(at)));
  } });
  return new Response(reply.body.pipeThrough(late), reply);
};
"""


def test_a_click_is_heard_while_the_end_of_a_stream_is_on_its_way(  # type: ignore[no-untyped-def]
    signed_in, ballots: Ballots
) -> None:
    """On a slow line the answer to a click can overtake the end of the stream before it."""
    page = signed_in("ada", LATE_END)
    page.wait_for_function("() => Boolean(window.end)")
    page.locator("#following").click()
    page.wait_for_function("() => owed.size > 0")
    page.evaluate("() => window.end()")
    page.wait_for_function(ENDED)


def test_keys_judge_after_a_tab_and_a_question(signed_in, ballots: Ballots) -> None:  # type: ignore[no-untyped-def]
    """Neither the tab that was clicked last nor the box that the question was typed in takes the arrow keys."""
    page = signed_in("ada")
    for name, is_blind in (("Compare", "false"), ("Arena", "true")):
        page.locator("#mode label", has_text=name).click()
        page.wait_for_function(f"(document.querySelector('.chat')?.dataset.variant === 'A') === {is_blind}")
    _next(page, lambda: page.keyboard.press("n"))
    page.keyboard.press("ArrowLeft")
    page.locator("#confirmed", has_text="Kept: A is better").wait_for()
    page.keyboard.press("r")
    page.locator("#reveal").wait_for(state="hidden")
    page.fill("#prompt textarea", "And now?")
    _next(page, lambda: page.keyboard.press("Enter"))
    page.keyboard.press("ArrowRight")
    page.locator("#confirmed", has_text="Kept: B is better").wait_for()
    assert page.locator("#mode label.selected").inner_text() == "Arena"
    assert [ballot.verdict for ballot in ballots] == [Verdict("best", 0), Verdict("best", 1)]


@pytest.mark.parametrize("prompts", [2], indirect=True)
def test_a_set_that_is_worked_through_ends_in_words(  # type: ignore[no-untyped-def]
    prompts: int, signed_in, ballots: Ballots
) -> None:
    """With no control left that does nothing, then and when the page is loaded again; the last vote counts."""
    page = signed_in("ada")
    for label in ("First prompt", "Next prompt"):
        assert page.locator("#following").inner_text() == label
        _next(page, page.locator("#following").click)
        page.keyboard.press("ArrowLeft")
        page.locator("#confirmed", has_text="Kept: A is better").wait_for()
    page.locator("#following", has_text="Finish").click()
    for _ in range(2):
        page.locator(".over", has_text="All 2 prompts are done").wait_for()
        page.locator("#dock").wait_for(state="hidden")
        assert not page.locator("#clear").is_visible() and not page.get_by_text("answers appear here").count()
        page.reload()
    assert [ballot.state for ballot in ballots] == ["revealed"] * 2
    page.locator("#mode label", has_text="Compare").click()
    page.locator("#prompt textarea").wait_for()


@pytest.mark.soak
def test_no_click_of_eight_people_at_once_is_lost(signed_in, ballots: Ballots) -> None:  # type: ignore[no-untyped-def]
    """All judge as fast as the page shows something to judge, by click and by key in turns."""
    pages = [signed_in(f"person-{number}") for number in range(8)]
    for number in range(6):
        seen = [page.evaluate(FIRST_QUESTION) for page in pages]
        for page in pages:
            if number % 2:
                page.locator("#following").click()
            else:
                page.keyboard.press("n")
        for page, before in zip(pages, seen, strict=True):
            page.bring_to_front()
            page.wait_for_function(f"(before) => ({FIRST_QUESTION} ?? before) !== before", arg=before)
            page.wait_for_function(ENDED)
            if number % 2:
                page.keyboard.press("ArrowLeft")
            else:
                page.locator("#best-0").click()
        for page in pages:
            page.locator("#confirmed", has_text="Kept: A is better").wait_for()
    assert [ballot.verdict for ballot in ballots] == [Verdict("best", 0)] * 48
