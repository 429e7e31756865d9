"""The page in a real browser, at a played endpoint: what attackers, quick fingers and slow disks do."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness_serve.catalogue import Unchanging
from harness_serve.engine_guard import NAMES_VARIABLE, OWNER_KEY_VARIABLE, EngineGuard
from harness_serve.guard import Names
from harness_serve.listening import bound, serving
from harness_serve.login import PageGuard

from harness import HarnessError
from harness.contract import Endpoint
from harness.nouns import Side, Verdict
from harness.testing import Reply
from harness.votes.store import Ballots

pytest.importorskip("playwright.sync_api")
pytest.importorskip("gradio")

pytestmark = pytest.mark.browser

KEY = "a long random text"
VERDICTS = "#verdicts button:visible"


@contextlib.contextmanager
def _page(scripted: Any, tmp_path: Path, port: int, ballots: Any = None, key: str | None = None) -> Iterator[str]:
    from harness_serve.page import serve_page

    endpoint = Endpoint(scripted.url, scripted.models, key)
    if ballots is None:  # one without ballots is false
        ballots = Ballots(str(tmp_path / "votes.db"))
    with serve_page(Unchanging(endpoint), ballots, port=port) as url:
        yield url


@pytest.fixture
def opened(chromium, tmp_path: Path):  # type: ignore[no-untyped-def]
    """Open a page; none may log an error of its own, and a picture of each is kept."""
    context = chromium.new_context(viewport={"width": 1280, "height": 800})
    errors: list[str] = []

    def open_page(url: str) -> Any:
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        return page

    yield open_page
    for number, page in enumerate(context.pages):
        page.screenshot(path=tmp_path / f"page-{number}.png")
    context.close()
    assert errors == []


def _ask(page: Any, prompt: str) -> None:
    page.locator(".pane .chat").nth(1).wait_for()
    page.fill("#prompt textarea", prompt)
    page.keyboard.press("Enter")


def _answered(page: Any, scripted: Any, prompt: str = "Who keeps the key?") -> None:
    """Ask, and let both variants answer."""
    _ask(page, prompt)
    for asked in scripted.next(2, timeout_s=60):
        asked.say(f"{asked.body['model']} says so.")
        asked.end()
    page.locator(VERDICTS).first.wait_for(timeout=60_000)


def test_new_conversation_while_answers_stream_stops_them(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    with _page(scripted, tmp_path, free_port()) as url:
        page = opened(url)
        _ask(page, "Count.")
        old = scripted.next(2, timeout_s=60)
        for asked in old:
            asked.say("stale ")
        page.locator(".answer.streaming", has_text="stale").nth(1).wait_for()
        page.locator("#clear").click()
        page.locator(".chat .empty").nth(1).wait_for()
        for asked in old:  # both were hung up on, whatever they still have to say
            assert any(asked.say("stale ") or asked.hung_up.wait(0.01) for _ in range(2000))
        page.locator("#send").wait_for()  # drawn after the columns
        page.locator("#stop").wait_for(state="hidden")
        _answered(page, scripted, "And now?")
        assert page.locator(".chat .said").all_inner_texts() == ["And now?"] * 2
        assert "stale" not in page.locator("#columns").inner_text()


AT_END = """() => [...document.querySelectorAll(".block.pane")].filter((pane) => pane.clientHeight)
    .every((pane) => pane.scrollTop > 0 && pane.scrollHeight - pane.scrollTop - pane.clientHeight < 5)"""


def test_columns_keep_to_the_end_of_long_answers(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    with _page(scripted, tmp_path, free_port()) as url:
        page = opened(url)
        _ask(page, "Count.")
        for asked in scripted.next(2, timeout_s=60):
            asked.say("\n\n".join([*map(str, range(60)), asked.body["model"]]))
            asked.end()
        page.locator(VERDICTS).first.wait_for(timeout=60_000)
        page.wait_for_function(AT_END, timeout=10_000)


def test_lists_within_lists_have_no_gaps(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    """Line breaks that separate items are none of their text, though those within it are shown."""
    with _page(scripted, tmp_path, free_port()) as url:
        page = opened(url)
        _ask(page, "List them.")
        texts = ("- one\n- two\n- three", "- one\n  - two\n  - three")
        for asked, text in zip(scripted.next(2, timeout_s=60), texts, strict=True):
            asked.end(Reply(text))
        page.locator(VERDICTS).first.wait_for(timeout=60_000)
        flat, nested = sorted(page.locator(".answer").evaluate_all("(all) => all.map((one) => one.clientHeight)"))
        assert nested - flat < 10


class _Waiting(Ballots):
    """Ballots on a slow disk: each vote waits until the test lets it go on, and fails where the test says so."""

    def __init__(self, database: str) -> None:
        super().__init__(database)
        self.begun, self.go_on, self.done = (threading.Semaphore(0) for _ in range(3))
        self.problem: Exception | None = None

    def vote(self, ballot: int, verdict: Verdict, **about: Any) -> None:
        self.begun.release()
        assert self.go_on.acquire(timeout=60)
        if self.problem:
            raise self.problem
        super().vote(ballot, verdict, **about)
        self.done.release()


BOTH = "() => { const [left, right] = document.querySelectorAll('#verdicts button'); left.click(); %s right.click(); }"


@pytest.mark.parametrize("between", ["", "closed = null;"], ids=["as it is", "unlocked"])
def test_two_verdicts_at_once_are_one(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port, between: str
) -> None:
    """Buttons close at the click; where the browser is made to send both, they are one vote, and the page shows it."""
    ballots = _Waiting(str(tmp_path / "votes.db"))
    with _page(scripted, tmp_path, free_port(), ballots) as url:
        page = opened(url)
        sent: list[str] = []
        page.on("request", lambda request: sent.append(request.url) if "queue/join" in request.url else None)
        _answered(page, scripted)
        before = len(sent)
        page.evaluate(BOTH % between)
        assert ballots.begun.acquire(timeout=60)
        page.wait_for_function(
            "() => ![...document.querySelectorAll('#verdicts button')].some((button) => button.checkVisibility())"
        )
        requests = 2 if between else 1
        for _ in range(requests):  # one after another
            ballots.go_on.release()
            assert ballots.done.acquire(timeout=60)
        (ballot,) = ballots
        assert ballot.state == "voted" and ballot.verdict is not None
        assert ballot.verdict == Verdict("best", 0) or between  # two requests may overtake each other
        best = ballot.sides[ballot.verdict.best or 0].variant
        page.locator("#confirmed", has_text=f"Kept: {best} is better").wait_for()
        assert len(sent) - before == requests


def test_a_verdict_that_fails_is_told_and_can_be_given_again(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port, capfd
) -> None:
    """Visitors are told that it failed; why, with the database's path, is for the terminal."""
    ballots = _Waiting(str(tmp_path / "votes.db"))
    with _page(scripted, tmp_path, free_port(), ballots) as url:
        page = opened(url)
        _answered(page, scripted)
        for _ in range(2):
            ballots.problem = HarnessError("the votes database /secret/votes.db cannot be used: disk full")
            page.locator("#best-1").click()
            assert ballots.begun.acquire(timeout=60)
            page.locator("#verdicts").wait_for(state="hidden")
            ballots.go_on.release()
            page.locator("#confirmed [role=alert]").wait_for()
            assert "not kept" in page.locator("#confirmed").inner_text() and "/secret" not in page.content()
        assert capfd.readouterr().err.count("/secret/votes.db cannot be used: disk full") == 2
        ballots.problem = None
        page.locator("#best-1").click()
        assert ballots.begun.acquire(timeout=60)
        ballots.go_on.release()
        page.locator("#confirmed [role=status]").wait_for()
        assert [ballot.verdict for ballot in ballots] == [Verdict("best", 1)]


def test_with_a_key_the_page_wants_it(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port, monkeypatch
) -> None:
    monkeypatch.setattr("harness_serve.login.PAUSE_S", 0)
    with _page(scripted, tmp_path, free_port(), key=KEY) as url:
        page = opened(url)
        page.get_by_label("Key").fill("wrong")
        page.get_by_role("button", name="Log in").click()
        assert page.get_by_role("alert").inner_text() == "That is not the key."
        page.get_by_label("Key").fill(KEY)
        page.get_by_role("button", name="Log in").click()
        _answered(page, scripted)
        again = opened(url)
        again.locator(".pane .chat").nth(1).wait_for()


def test_links_in_answers_open_elsewhere_and_tell_nothing(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    with _site("seen") as (elsewhere, seen), _page(scripted, tmp_path, free_port()) as url:
        page = opened(url)
        _ask(page, "Where?")
        for asked in scripted.next(2, timeout_s=60):
            asked.say(f"[here]({elsewhere}/target)")
            asked.end()
        with page.expect_popup() as popup:
            page.get_by_role("link", name="here").first.click()
        popup.value.wait_for_load_state()
        assert popup.value.evaluate("window.opener") is None and page.url.startswith(url)
        assert [headers.get("Referer") for path, headers in seen if path == "/target"] == [None]


@contextlib.contextmanager
def _site(body: str) -> Iterator[tuple[str, list[tuple[str, Any]]]]:
    """Another web site on this machine, which notes what it is asked."""
    seen: list[tuple[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append((self.path, self.headers))
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://evil.example:{server.server_port}", seen
    server.shutdown()
    server.server_close()


ATTACK = """<iframe name="frame"></iframe><script>
const at = (path) => `http://127.0.0.1:${location.hash.slice(1)}${path}`;
const post = (path, more) => fetch(at(path), {method: "POST", ...more});
const tries = {
  read: () => fetch(at("/v1/models")).then((answer) => answer.text()),
  blind: () => post("/gradio_api/queue/join", {mode: "no-cors", body: '{"data": []}'}).then(() => "sent"),
  cookie: () => post("/v1/chat/completions", {
    credentials: "include", headers: {"Content-Type": "application/json"}, body: "{}"}),
  image: () => new Promise((done, fail) => {
    const image = new Image();
    Object.assign(image, {onload: done, onerror: () => fail("refused"), src: at("/static/x.png")}); }),
  events: () => new Promise((done, fail) => {
    const stream = new EventSource(at("/gradio_api/queue/data?session_hash=x"));
    stream.onopen = done; stream.onerror = () => { stream.close(); fail("refused"); }; }),
  socket: () => new Promise((done, fail) => {
    const socket = new WebSocket(at("/v1/realtime").replace("http", "ws"));
    socket.onopen = done; socket.onerror = () => fail("refused"); }),
  form: () => new Promise((done) => {
    const form = document.createElement("form"), action = at("/gradio_api/upload");
    Object.assign(form, {method: "POST", action, target: "frame", enctype: "multipart/form-data"});
    document.querySelector("iframe").onload = done; document.body.append(form); form.submit(); }),
  frame: () => new Promise((done) => {
    const frame = document.createElement("iframe");
    frame.onload = done; frame.src = at("/"); document.body.append(frame); }),
};
(async () => {
  const outcomes = {};
  for (const [name, attempt] of Object.entries(tries))
    outcomes[name] = await attempt().then(() => "went through", (error) => "refused");
  window.outcomes = outcomes; })();
</script>"""


@pytest.mark.parametrize("which", ["engine", "page"])
@pytest.mark.parametrize("name", ["evil.example", "127.0.0.1"])
def test_another_sites_page_gets_nothing_in(  # type: ignore[no-untyped-def]
    opened, free_port, monkeypatch, which: str, name: str
) -> None:
    """By fetch, form, WebSocket, event stream, image or frame; from another name or another port of this machine."""
    inside: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        inside.append(scope["path"])
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": b"inside"})

    monkeypatch.setenv(NAMES_VARIABLE, json.dumps(["127.0.0.1"]))
    monkeypatch.delenv(OWNER_KEY_VARIABLE, raising=False)
    port = free_port()
    with (
        serving(
            EngineGuard(app) if which == "engine" else PageGuard(app, Names(), None, port),
            bound("127.0.0.1", port),
            lifespan="off",
        ),
        _site(ATTACK) as (site, _),
    ):
        page = opened(f"{site.replace('evil.example', name)}/#{port}")
        told = page.wait_for_function("window.outcomes").json_value()
        assert {told[attempt] for attempt in ("read", "cookie", "image", "events", "socket")} == {"refused"}
        assert inside == []
        asked = "/version" if which == "engine" else "/"
        page.goto(f"http://127.0.0.1:{port}{asked}")  # its own address still answers
        assert page.inner_text("body") == "inside"


def test_a_rebound_name_gets_nothing_but_why(opened, scripted, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """The attacker's server gives way to ours, as if its name pointed here: the same origin for the browser."""
    with _site("the attacker's page") as (site, _):
        page = opened(site.replace("evil", "rebound"))
    with _page(scripted, tmp_path, int(site.rpartition(":")[2])):
        status = "async ([method, path]) => (await fetch(path, {method})).status"
        asked = [("GET", "/"), ("GET", "/assets/x.js"), ("POST", "/gradio_api/queue/join"), ("POST", "/login")]
        assert [page.evaluate(status, pair) for pair in asked] == [403] * 4
        page.reload()
        told = page.inner_text("main")
        assert "rebound.example" in told and "is not a name of this server" in told and "--allow-host" in told


class _Changing:
    """An engine whose variants change while a page is open."""

    def __init__(self, url: str, *models: str) -> None:
        self.url, self.variants, self.notice = url, (), ""
        self.serve(*models)

    def serve(self, *models: str) -> None:
        self.endpoint = Endpoint(self.url, models)


def test_an_open_page_follows_what_is_served(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    """Added variants can be picked, removed ones go away, and a notice says when the engine has ended."""
    from harness_serve.page import serve_page

    served, port = _Changing(scripted.url, "base"), free_port()
    with serve_page(served, Ballots(str(tmp_path / "votes.db")), port=port) as url:
        page = opened(url)
        page.locator(".pane .chat").first.wait_for()
        assert page.locator("#mode label").all_inner_texts() == ["Chat"]

        served.serve("base", "alpha")
        page.evaluate("look()")
        page.get_by_text("Now served as well: alpha.").wait_for()
        page.locator("#mode label", has_text="Compare").click()
        page.locator("#picked .token", has_text="alpha").wait_for()
        scripted.models = ("base", "alpha")
        _answered(page, scripted)
        assert {ballot.state for ballot in Ballots(str(tmp_path / "votes.db"))} == {"open"}

        served.serve("base", "alpha", "beta")
        page.evaluate("look()")
        page.get_by_text("Now served as well: beta.").wait_for()
        assert page.locator(".chat .answer").count() == 2  # the conversation stays
        page.locator("#picked input").click()
        page.get_by_role("option", name="beta").click()
        page.locator(".pane .chat").nth(2).wait_for()

        served.serve("base", "beta")
        page.evaluate("look()")
        page.get_by_text("Not served any more: alpha.").wait_for()
        page.locator("#picked .token", has_text="alpha").wait_for(state="detached")
        page.wait_for_function("document.querySelectorAll('.pane .chat').length == 2")
        assert set(page.locator(".chat header").all_inner_texts()) == {"base", "beta"}
        served.notice = "The engine has ended & is being started again."
        page.evaluate("look()")
        page.locator("#notice [role=status]", has_text=served.notice).wait_for()
        served.notice = ""
        page.evaluate("look()")
        page.locator("#notice").wait_for(state="hidden")
        later = page.context.new_page()
        later.goto(url)
        later.locator("#mode label", has_text="Compare").wait_for()
        assert "alpha" not in later.locator("body").inner_text()
    page.evaluate("look()")
    page.locator("#lost[role=alert]").wait_for()
    with serve_page(served, Ballots(str(tmp_path / "votes.db")), port=port):
        page.evaluate("look()")
        page.locator("#lost", has_text="started again").get_by_role("link").click()
        page.locator(".pane .chat").first.wait_for()
        assert not page.locator("#lost").count()


def test_a_page_opened_after_its_first_variants_have_gone_has_no_error(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    """The server began with them; what is out of sight in a tab must not keep them."""
    from harness_serve.page import serve_page

    served = _Changing(scripted.url, "base", "alpha")
    with serve_page(served, Ballots(str(tmp_path / "votes.db")), port=free_port()) as url:
        served.serve("base", "beta", "gamma")
        page = opened(url)
        page.locator("#picked .token", has_text="beta").wait_for()
        for mode, columns in (("Chat", 1), ("Arena", 2), ("Compare", 2), ("Chat", 1)):
            page.locator("#mode label", has_text=mode).click()
            page.wait_for_function(f"document.querySelectorAll('.pane .chat').length == {columns}")
        assert "alpha" not in page.locator("body").inner_text()
        assert not page.get_by_text("not in the list of choices").count()


def test_differences_are_marked_on_request(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    """Stop, edit and regenerate work on with it; the marks need no colour."""
    with _page(scripted, tmp_path, free_port()) as url:
        page = opened(url)
        page.get_by_label("Mark differences").check()
        _answered(page, scripted)
        assert sorted(page.locator(".answer mark").all_inner_texts()) == ["alpha", "base"]
        assert page.locator(".stats", has_text="1 of 4 words differ").count() == 2
        assert page.evaluate("getComputedStyle(document.querySelector('mark')).textDecorationLine") == "underline"
        page.locator("#again").click()
        first, _ = scripted.next(2, timeout_s=60)
        first.say("Another one.")
        page.locator(".answer.streaming", has_text="Another").wait_for()
        assert page.locator("mark").count() == 0
        page.locator("#stop").click()
        page.locator("#send").wait_for()
        assert page.locator("mark").count() == 0
        page.locator("#edit").click()
        page.locator("#composer.editing").wait_for()
        page.locator("#prompt textarea").press("Enter")
        for asked in scripted.next(2, timeout_s=60):
            asked.say(f"{asked.body['model']} then.")
            asked.end()
        page.locator(".answer mark").nth(1).wait_for()
        page.get_by_label("Mark differences").uncheck()
        page.locator("mark").first.wait_for(state="detached")
        assert page.locator(".answer", has_text="then.").count() == 2


def _enter_the_arena(page: Any) -> None:
    page.locator("#mode label", has_text="Arena").click()
    page.wait_for_function("[...document.querySelectorAll('.chat')].map(c => c.dataset.variant).join() == 'A,B'")


WHOLE = """() => [...document.querySelectorAll("#dock button")].filter((button) => button.checkVisibility())
    .every((button) => button.scrollWidth <= button.clientWidth && button.scrollHeight <= button.clientHeight)"""


@pytest.mark.parametrize("mode", ["Compare", "Arena"])
def test_on_a_phone_columns_are_swiped_and_the_dock_covers_none(  # type: ignore[no-untyped-def]
    chromium, fake_endpoint, tmp_path: Path, free_port, mode: str
) -> None:
    """Before and after the verdict its buttons are in reach, with whole labels, whatever variants are called."""
    fake_endpoint.models = ("base", "smollm2-json-lora-rank-16-1f0c2a9b")
    fake_endpoint.answer = lambda request: "\n\n".join([*map(str, range(60)), request.body["model"]])
    with _page(fake_endpoint, tmp_path, free_port()) as url:
        page = chromium.new_page(viewport={"width": 390, "height": 700}, has_touch=True, is_mobile=True)
        page.goto(url)
        if mode == "Arena":
            _enter_the_arena(page)
        _ask(page, "Count.")
        page.locator(VERDICTS).first.wait_for(timeout=60_000)
        for is_judged in (False, True):
            if is_judged:
                page.locator("#best-1").tap()
                page.locator("#confirmed p").wait_for()
            first, second = (page.locator(".block.pane").nth(column).bounding_box() for column in range(2))
            dock = page.locator("#dock").bounding_box()
            assert first["y"] == second["y"] and first["x"] + first["width"] < second["x"] < 390
            assert first["height"] > 180 and first["y"] + first["height"] <= dock["y"]
            assert dock["y"] + dock["height"] <= 700
            assert page.evaluate(WHOLE) and page.evaluate("document.documentElement.scrollWidth") <= 390
        page.close()


def test_keys_that_can_do_nothing_say_why(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    """Skipping takes no verdict back; the next key goes on where there are no prompts to work through, too."""
    with _page(scripted, tmp_path, free_port()) as url:
        page = opened(url)
        page.keyboard.press("s")  # outside the arena keys are nobody's business
        _enter_the_arena(page)
        assert not page.locator("#hint").count()
        page.keyboard.press("ArrowLeft")
        page.locator("#hint", has_text="nothing to judge yet").wait_for()
        _answered(page, scripted)
        page.keyboard.press("r")
        page.locator("#hint", has_text="Judge first").wait_for()
        page.keyboard.press("ArrowRight")
        page.locator("#confirmed", has_text="Kept: B is better").wait_for()
        page.keyboard.press("s")
        page.locator("#hint", has_text="Your verdict is kept. Press n to go on.").wait_for()
        page.keyboard.press("r")
        page.locator("#reveal").wait_for(state="hidden")
        page.keyboard.press("b")
        page.locator("#hint", has_text="This round is over. Press n to go on.").wait_for()
        page.keyboard.press("n")
        page.locator(".chat .empty").nth(1).wait_for()
        assert not page.locator("#hint").count()


def test_votes_are_filtered_as_one_types_and_turned_where_there_are_pages(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    ballots = Ballots(str(tmp_path / "votes.db"))
    for number in range(21):
        asked = [{"role": "user", "content": f"Question {number}?"}]
        sides = [Side(name, None, asked, f"{name} says so.", "stop") for name in scripted.models]
        vote = ballots.open(sides, seed=0, sampling={}, annotator="ben" if number == 7 else "ada")
        ballots.vote(vote, Verdict("tie"), reveal=True)
    with _page(scripted, tmp_path, free_port(), ballots) as url:
        page = opened(url)
        page.locator("#mode label", has_text="Votes").click()
        page.locator(".ballot").nth(19).wait_for()
        assert page.locator("#older").is_visible() and not page.locator("#newer").is_visible()
        page.locator("#older").click()
        page.locator(".ballot", has_text="Question 0?").wait_for()
        assert page.locator("#newer").is_visible() and not page.locator("#older").is_visible()
        page.locator("#by_text input").press_sequentially("question 1")
        page.locator(".count", has_text="1 to 11 of 11").wait_for()
        page.wait_for_function("() => owed.size === 0")
        assert not page.locator("#newer").is_visible() and not page.locator("#older").is_visible()
        page.locator("#by_text input").fill("")
        page.locator("#by_person input").press_sequentially("ben")
        page.locator(".count", has_text="1 to 1 of 1").wait_for()
        assert page.locator(".ballot b").all_inner_texts() == ["Question 7?"]


def test_in_the_arena_names_are_hidden_until_the_vote_and_keys_judge(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    ballots = Ballots(str(tmp_path / "votes.db"))
    with _page(scripted, tmp_path, free_port(), ballots) as url:
        page = opened(url)
        _enter_the_arena(page)
        _ask(page, "Who keeps the key?")
        first, second = scripted.next(2, timeout_s=60)
        first.say("The heron keeps it.")
        first.end()
        page.wait_for_timeout(300)  # one answer is complete, and nothing of it is shown
        assert "heron" not in page.inner_text("#columns")
        second.say("Nobody knows who does.")
        second.end()
        page.locator(VERDICTS).first.wait_for(timeout=60_000)
        assert not any(name in page.inner_text("body") for name in scripted.models)
        page.locator("#prompt textarea").focus()
        page.keyboard.press("ArrowLeft")  # while somebody types, it moves the caret
        page.evaluate("document.activeElement.blur()")
        page.keyboard.press("ArrowRight")
        page.locator("#confirmed p").wait_for()
        assert not any(name in page.inner_text("body") for name in scripted.models)
        page.locator("#reveal").wait_for()
        page.keyboard.press("r")
        page.locator("#reveal").wait_for(state="hidden")
        (ballot,) = ballots
        assert (ballot.blind, ballot.verdict, ballot.state) == (True, Verdict("best", 1), "revealed")
        assert all(side.variant in page.inner_text("#confirmed") for side in ballot.sides)
        page.locator("#mode label", has_text="Leaderboard").click()
        page.locator(".standings").wait_for()
        assert "1 blind vote of 1 person" in page.inner_text(".standings")
        page.locator("#mode label", has_text="Compare").click()
        page.wait_for_function("document.querySelector('.chat')?.dataset.variant.length > 1")


def test_a_skipped_round_is_void_and_draws_another_pair(  # type: ignore[no-untyped-def]
    opened, scripted, tmp_path: Path, free_port
) -> None:
    ballots = Ballots(str(tmp_path / "votes.db"))
    with _page(scripted, tmp_path, free_port(), ballots) as url:
        page = opened(url)
        _enter_the_arena(page)
        _answered(page, scripted)
        page.locator("#skip").click()
        page.locator(".pane .empty").first.wait_for()
        assert [(ballot.state, ballot.verdict) for ballot in ballots] == [("void", None)]
