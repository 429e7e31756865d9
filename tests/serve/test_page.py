"""The page in a real browser, on the real engine: ask, watch both answers come, judge, and find the vote."""

from __future__ import annotations

import html
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from harness_serve.catalogue import Unchanging
from harness_serve.page import serve_page

from harness.contract import Endpoint
from harness.nouns import Verdict
from harness.plugins import Plugins
from harness.variants import resolve_variants
from harness.votes.store import Ballots

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

pytestmark = [pytest.mark.vllm, pytest.mark.browser]

DESK = {"width": 1440, "height": 900}
VERDICTS = "#verdicts button:visible"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("votes") / "votes.db")


@pytest.fixture(scope="module")
def page_url(endpoint, runs_folder: Path, database: str, free_port):  # type: ignore[no-untyped-def]
    variants = resolve_variants(("alpha", "beta"), runs_folder, Plugins())
    served, asked = Unchanging(endpoint, variants), ["Who keeps the key?", "Where is the bell?"]
    with serve_page(served, Ballots(database), asked, port=free_port()) as url:
        yield url


@pytest.fixture
def open_page(chromium, endpoint, page_url: str, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Open the page at a size and log in; every request it makes must stay on this machine, and it may log no error."""
    elsewhere: list[str] = []
    errors: list[str] = []
    pages = []

    def opened(viewport: dict[str, int] = DESK, **settings: object):  # type: ignore[no-untyped-def]
        page = chromium.new_page(viewport=viewport, **settings)
        page.on(
            "request",
            lambda request: urlsplit(request.url).hostname in ("127.0.0.1", None) or elsewhere.append(request.url),
        )
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(page_url)
        page.get_by_label("Key").fill(endpoint.api_key)
        page.get_by_role("button", name="Log in").click()
        page.locator(".pane .chat").nth(1).wait_for()
        pages.append(page)
        return page

    yield opened
    for number, page in enumerate(pages):
        page.screenshot(path=tmp_path / f"page-{number}.png")
        page.close()
    assert elsewhere == [] and errors == []


def _ask(page, prompt: str) -> None:  # type: ignore[no-untyped-def]
    page.fill("#prompt textarea", prompt)
    page.keyboard.press("Enter")


def test_ask_judge_and_find_the_vote(  # type: ignore[no-untyped-def]
    open_page, database: str, runs_folder: Path
) -> None:
    page = open_page()
    before = len(Ballots(database))
    assert not page.locator(VERDICTS).count()
    _ask(page, "Who keeps the key?")
    page.locator(VERDICTS).first.wait_for(timeout=60_000)
    answers = [page.locator(".chat .answer").nth(column).inner_text() for column in range(2)]
    assert page.locator(".chat .stats > span").first.inner_text().split()[1].startswith("token")
    names = [page.locator(".chat").nth(column).get_attribute("data-variant") for column in range(2)]
    assert sorted(names) == ["alpha", "base"]
    page.locator("#best-1").click()
    page.locator("#confirmed [role=status]").wait_for()
    assert f"Kept: {names[1]} is better" in page.locator("#confirmed").inner_text()
    page.locator("#clear").click()
    page.locator(".chat .empty").first.wait_for()
    *_, ballot = Ballots(database)
    assert len(Ballots(database)) == before + 1 == ballot.id
    assert [side.variant for side in ballot.sides] == names
    assert (ballot.verdict, ballot.state) == (Verdict("best", 1), "revealed")
    hashes = {side.variant: side.recipe_sha256 for side in ballot.sides}
    assert hashes["base"] is None and len(hashes["alpha"] or "") == 64 and ballot.sampling["temperature"] == 0
    for side, answer in zip(ballot.sides, answers, strict=True):
        assert side.messages == [{"role": "user", "content": "Who keeps the key?"}]
        assert " ".join(side.answer.split()) == " ".join(answer.split())
        assert side.finish in ("stop", "length") and (side.tokens or 0) > 0


def _ask_for_much(page) -> None:  # type: ignore[no-untyped-def]
    """Ask so that the untrained base goes on for a while."""
    page.locator("#settings > button").click()
    for setting, value in (("temperature", "2"), ("max_tokens", "448")):
        page.locator(f"#{setting} input[type=number]").fill(value)
        page.locator(f"#{setting} input[type=number]").blur()
    _ask(page, "Tell me everything about herons.")


def test_answers_stream(open_page) -> None:  # type: ignore[no-untyped-def]
    page = open_page()
    page.evaluate(
        """() => { window.seen = new Set(); new MutationObserver(() => {
            for (const answer of document.querySelectorAll(".answer.streaming")) window.seen.add(answer.innerText);
        }).observe(document.body, {childList: true, subtree: true, characterData: true}); }"""
    )
    _ask_for_much(page)
    for _ in range(8):  # at this temperature an answer can end with its first token
        page.locator(VERDICTS).first.wait_for(timeout=60_000)
        if page.evaluate("window.seen.size") > 3:
            break
        _ask(page, "And of otters?")
        page.wait_for_timeout(1000)
    assert page.evaluate("window.seen.size") > 3
    assert any("tokens/s" in stats for stats in page.locator(".chat .stats").all_inner_texts())


def test_an_answer_can_be_stopped_and_the_endpoint_is_told(
    chromium, scripted, tmp_path: Path, free_port, wait_until
) -> None:  # type: ignore[no-untyped-def]
    ballots = Ballots(str(tmp_path / "votes.db"))
    with serve_page(Unchanging(Endpoint(scripted.url, scripted.models)), ballots, port=free_port()) as url:
        page = chromium.new_page()
        page.goto(url)
        page.locator(".pane .chat").nth(1).wait_for()
        _ask(page, "Count.")
        asked = scripted.next(2, timeout_s=60)
        for request in asked:
            request.say("word word ")
        page.locator(".answer.streaming", has_text="word word").nth(1).wait_for()
        page.locator("#stop").click()
        page.locator("#send").wait_for()
        assert all("stopped by you" in stats for stats in page.locator(".chat .stats").all_inner_texts())
        assert not page.locator(VERDICTS).count()
        for request in asked:
            wait_until(lambda request=request: request.say("word ") or request.hung_up.is_set())
        assert [ballot.state for ballot in ballots] == ["void"]
        page.close()


def test_each_variant_sees_its_own_answers_over_several_turns(  # type: ignore[no-untyped-def]
    open_page, database: str
) -> None:
    page = open_page()
    page.get_by_role("button", name="Where is the bell?").click()
    page.locator(VERDICTS).first.wait_for(timeout=60_000)
    _ask(page, "And who keeps it?")
    page.locator(".chat .said", has_text="And who keeps it?").first.wait_for()
    page.locator(VERDICTS).first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Tie").click()
    page.locator("#confirmed [role=status]").wait_for()
    *_, ballot = Ballots(database)
    for side in ballot.sides:
        assert [message["role"] for message in side.messages] == ["user", "assistant", "user"]
    assert ballot.sides[0].messages[1] != ballot.sides[1].messages[1]
    page.locator("#again").click()
    page.locator(VERDICTS).first.wait_for(timeout=60_000)
    assert page.locator(".chat").first.locator(".said").count() == 2
    page.locator("#clear").click()
    page.locator(".chat .empty").first.wait_for()
    assert page.locator(".chat .said").count() == 0


def test_a_third_variant_gets_a_column_and_a_verdict_of_its_own(  # type: ignore[no-untyped-def]
    open_page, database: str
) -> None:
    page = open_page()
    before = len(Ballots(database))
    page.locator("#picked input").click()
    page.get_by_role("option", name="beta").click()
    page.locator(".chat[data-variant=beta]").wait_for()
    page.keyboard.press("Escape")
    _ask(page, "Who keeps the key?")
    page.locator(VERDICTS).first.wait_for(timeout=60_000)
    page.get_by_role("button", name="beta is best").click()
    page.locator("#confirmed [role=status]").wait_for()
    (ballot,) = list(Ballots(database))[before:]
    assert sorted(side.variant for side in ballot.sides) == ["alpha", "base", "beta"]
    assert ballot.verdict is not None and ballot.sides[ballot.verdict.best or 0].variant == "beta"


def test_an_answer_keeps_its_lines_and_their_indentation() -> None:
    from harness_serve.answering import Answer, Sampling, Turn
    from harness_serve.rendering import turn_html

    said = '{\n  "day": "Monday",\n  "places": [\n    2\n  ]\n}'
    shown = turn_html(Turn("Hi", "", Sampling(), []), Answer(said, 3, 0.1, 0.2, "stop"))
    assert html.unescape(shown).count(said) == 2  # shown, and to be copied


def test_thoughts_are_folded_above_the_words_and_shown_as_text() -> None:
    from harness_serve.answering import Answer, Sampling, Turn
    from harness_serve.rendering import turn_html

    thought, words = (Answer("The heron.", 3, 0.1, 0.2, "stop", reasoning=some) for some in ("She <b>has</b> it.", ""))
    shown, plain = (turn_html(Turn("Who?", "", Sampling(), []), answer) for answer in (thought, words))
    folded = '<details class="thoughts"><summary>Thoughts</summary><div>She &lt;b&gt;has&lt;/b&gt; it.</div></details>'
    assert folded in shown and shown.index(folded) < shown.index("The heron.")
    assert "<details" not in plain and "open" not in folded


def test_markup_in_an_answer_or_a_prompt_is_shown_as_text() -> None:
    from harness_serve.answering import Answer, Sampling, Turn
    from harness_serve.markup import markdown
    from harness_serve.rendering import turn_html

    hostile = (
        '<img src="http://example.org/x.png" onerror="alert(1)"> '
        "![x](http://example.org/y.png) [z](javascript:alert(1)) **b**"
    )
    shown = turn_html(Turn("<script>alert(1)</script>", "", Sampling(), []), Answer(hostile, 3, 0.1, 0.2, "stop"))
    assert (
        "<img" not in shown
        and "<script" not in shown
        and 'href="javascript' not in shown
        and "<strong>b</strong>" in shown
    )
    assert "<td>" in markdown("| a |\n|---|\n| b |")


def test_a_dead_endpoint_is_told_in_the_column(  # type: ignore[no-untyped-def]
    chromium, tmp_path: Path, free_port
) -> None:
    dead = Endpoint(f"http://127.0.0.1:{free_port()}/v1", ("base", "alpha"))
    with serve_page(Unchanging(dead), Ballots(str(tmp_path / "votes.db")), port=free_port()) as url:
        page = chromium.new_page()
        page.goto(url)
        page.locator(".pane .chat").first.wait_for()
        _ask(page, "Hello?")
        page.locator(".chat .failed").first.wait_for(timeout=60_000)
        assert "does not answer" in page.locator(".chat .failed").first.inner_text()
        assert not page.locator(VERDICTS).count()
        page.close()
