"""Who may ask engine and page, decided by the guard in front of each; asked in process, as attackers would."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from harness_serve import login
from harness_serve.engine_guard import NAMES_VARIABLE, OWNER_KEY_VARIABLE, EngineGuard
from harness_serve.guard import Guard, Names, require_key
from harness_serve.listening import bound, serving
from harness_serve.login import PageGuard

from harness import HarnessError

KEY = "a long random text"
HERE = {"Host": "127.0.0.1:7860"}


async def _app(scope: Any, receive: Any, send: Any) -> None:
    """What is behind the guard."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.accept"})
        return
    headers = [(b"x-frame-options", b"ALLOWALL"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"inside"})


async def _ask(
    app: Any,
    headers: dict[str, str] | list[tuple[str, str]],
    path: str = "/",
    method: str = "GET",
    body: bytes = b"",
    kind: str = "http",
) -> tuple[int, dict[str, str], bytes]:
    """Send one request to an ASGI application: status, headers and body of what it answers."""
    pairs = headers.items() if isinstance(headers, dict) else headers
    raw = [(name.lower().encode(), value.encode()) for name, value in pairs]
    scope = {"type": kind, "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method, "path": path,
             "raw_path": path.encode(), "query_string": b"", "root_path": "", "scheme": "http",
             "server": ("127.0.0.1", 7860), "headers": raw}  # fmt: skip
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    if kind == "websocket":
        return 101 if sent[0]["type"] == "websocket.accept" else 403, {}, b""
    told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], told, b"".join(message.get("body", b"") for message in sent[1:])


def ask(*arguments: Any, **settings: Any) -> tuple[int, dict[str, str], bytes]:
    return asyncio.run(_ask(*arguments, **settings))


ALONE = Guard(_app, Names("127.0.0.1"))
OPENED = Guard(_app, Names("0.0.0.0", ("compare.example.org",)))


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:7860", "localhost:9000", "LOCALHOST", "localhost.", "[::1]:7860", "[::1]", "127.1.2.3"],
)
def test_a_server_of_this_machine_answers_to_its_names(host: str) -> None:
    assert ask(ALONE, {"Host": host})[0] == 200


@pytest.mark.parametrize(
    "host",
    ["rebound.example", "rebound.example:7860", "localhost.rebound.example", "127.0.0.1.rebound.example",
     "evil@localhost", "localhost:80@evil", "localhost/..", "localhost, evil", "", " ", ":7860", "[::1", "[::1].evil",
     "[fe80::1]", "10.0.0.1", "0.0.0.0", "127.1", "2130706433", "localhost:", "localhost:999999", "localhost..",
     "löcalhost", "compare.example.org", "localhost\x00"],
)  # fmt: skip
def test_another_name_is_refused(host: str) -> None:
    status, _, body = ask(ALONE, {"Host": host})
    assert status == 403 and b"inside" not in body


def test_the_refusal_says_which_names_are_accepted_and_how_to_add_one() -> None:
    message = json.loads(ask(ALONE, {"Host": "rebound.example"})[2])["error"]["message"]
    assert "`rebound.example`" in message and "127.0.0.1" in message and "--allow-host NAME" in message


@pytest.mark.parametrize(
    "headers",
    [[], [("Host", "localhost"), ("Host", "evil.example")], [("Host", "evil.example"), ("Host", "localhost")]],
)
def test_a_request_names_the_server_once(headers: list[tuple[str, str]]) -> None:
    assert ask(ALONE, headers)[0] == 403


@pytest.mark.parametrize("path", ["http://127.0.0.1:7860/", "*", ""])
def test_a_request_target_that_is_no_path_is_refused(path: str) -> None:
    assert ask(ALONE, HERE, path)[0] == 403


@pytest.mark.parametrize("forwarded", ["evil.example", "localhost, evil.example", ""])
def test_a_forwarded_name_is_held_to_the_same_list(forwarded: str) -> None:
    assert ask(ALONE, HERE | {"X-Forwarded-Host": forwarded})[0] == 403
    assert ask(OPENED, HERE | {"X-Forwarded-Host": "compare.example.org"})[0] == 200


@pytest.mark.parametrize(
    "host", ["192.168.1.5:7860", "[2001:db8::1]", "localhost", "Compare.Example.org", "compare.example.org."]
)
def test_an_opened_server_answers_to_addresses_and_allowed_names(host: str) -> None:
    assert ask(OPENED, {"Host": host})[0] == 200
    assert ask(OPENED, {"Host": "sub.compare.example.org"})[0] == 403


def test_an_opened_server_answers_to_the_machines_own_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "Bench.lab.example.org")
    for name, status in (("bench.lab.example.org", 200), ("bench.local", 200), ("other.local", 403)):
        assert ask(OPENED, {"Host": name})[0] == status
        assert ask(ALONE, {"Host": name})[0] == 403


@pytest.mark.parametrize(
    "name", ["https://compare.example.org", "compare.example.org:443", "*.example.org", "", "a b", "-.", "exa\nmple"]
)
def test_an_allowed_host_is_a_name_alone(name: str) -> None:
    with pytest.raises(HarnessError, match=r"(?s)--allow-host .*a host name alone"):
        Names.checked("0.0.0.0", (name,))


OTHERS = ["http://evil.example", "http://127.0.0.1:9999", "http://localhost:7860", "null", "file://",
          "chrome-extension://abc", "http://127.0.0.1:7860.evil.example", "http://127.0.0.1:7860@evil.example",
          "https://127.0.0.1", "", "127.0.0.1:7860"]  # fmt: skip


@pytest.mark.parametrize("origin", OTHERS)
@pytest.mark.parametrize(
    ("method", "kind"), [("POST", "http"), ("GET", "http"), ("OPTIONS", "http"), ("GET", "websocket")]
)
def test_a_page_of_another_origin_is_refused(origin: str, method: str, kind: str) -> None:
    status, headers, body = ask(ALONE, HERE | {"Origin": origin}, method=method, kind=kind)
    assert status == 403 and b"inside" not in body
    assert not [name for name in headers if name.startswith("access-control")]


@pytest.mark.parametrize(
    ("host", "origin"),
    [("127.0.0.1:7860", "http://127.0.0.1:7860"), ("localhost", "http://localhost"),
     ("localhost:80", "http://localhost"),
     ("[::1]:7860", "http://[::1]:7860"), ("LocalHost:7860", "http://localhost:7860")],
)  # fmt: skip
def test_the_page_itself_may_ask(host: str, origin: str) -> None:
    assert ask(ALONE, {"Host": host, "Origin": origin}, method="POST")[0] == 200
    assert ask(ALONE, {"Host": host, "Origin": origin}, kind="websocket")[0] == 101


def test_behind_a_proxy_the_public_name_is_the_origin() -> None:
    public = {"Origin": "https://compare.example.org"}
    assert ask(OPENED, {"Host": "compare.example.org"} | public, method="POST")[0] == 200
    assert ask(OPENED, HERE | {"X-Forwarded-Host": "compare.example.org"} | public, method="POST")[0] == 200
    assert ask(OPENED, HERE | public, method="POST")[0] == 200
    assert ask(OPENED, HERE | {"Origin": "https://compare.example.org:8443"}, method="POST")[0] == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site", "nonsense"])
def test_what_another_sites_page_loads_is_refused_and_a_followed_link_is_not(site: str) -> None:
    link = {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert ask(ALONE, HERE | {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"})[0] == 403
    assert ask(ALONE, HERE | {"Sec-Fetch-Site": site} | link)[0] == 200
    assert ask(ALONE, HERE | {"Sec-Fetch-Site": site} | link, method="POST")[0] == 403
    assert ask(ALONE, HERE | {"Sec-Fetch-Site": site} | link | {"Sec-Fetch-Dest": "iframe"})[0] == 403


def test_what_the_user_opens_and_what_no_browser_sends_is_answered() -> None:
    assert (
        ask(ALONE, HERE | {"Sec-Fetch-Site": "none"})[0]
        == ask(ALONE, HERE | {"Sec-Fetch-Site": "same-origin"})[0]
        == 200
    )
    assert ask(ALONE, HERE, method="POST")[0] == 200


@pytest.fixture
def engine_guard(monkeypatch: pytest.MonkeyPatch) -> EngineGuard:
    monkeypatch.setenv(NAMES_VARIABLE, json.dumps(["127.0.0.1"]))
    monkeypatch.setenv(OWNER_KEY_VARIABLE, KEY)
    return EngineGuard(_app)


@pytest.mark.parametrize(
    ("given", "status"),
    [(f"Bearer {KEY}", 200), (f"bearer {KEY}", 200), (f"BEARER  {KEY}", 200), (KEY, 401), (f"Basic {KEY}", 401),
     (f"Bearer {KEY}x", 401),
     ("Bearer", 401), ("Bearer ", 401), ("Bearer ключ", 401)],
)  # fmt: skip
def test_the_engine_wants_the_key(engine_guard: EngineGuard, given: str, status: int) -> None:
    assert ask(engine_guard, HERE | {"Authorization": given}, "/version")[0] == status
    assert (
        ask(engine_guard, [*HERE.items(), ("Authorization", given), ("Authorization", "Bearer x")], "/version")[0]
        == 401
    )


def test_the_engine_tells_its_health_without_a_key_but_not_to_other_sites(engine_guard: EngineGuard) -> None:
    assert ask(engine_guard, HERE, "/health")[0] == 200
    assert ask(engine_guard, {"Host": "rebound.example", "Authorization": f"Bearer {KEY}"}, "/health")[0] == 403
    assert (
        ask(engine_guard, HERE | {"Origin": "http://evil.example", "Authorization": f"Bearer {KEY}"}, "/v1/models")[0]
        == 403
    )


def test_several_answers_need_a_temperature(engine_guard: EngineGuard) -> None:
    """Answers are greedy by default, which vLLM refuses for several in words of its own."""
    asked = {"model": "base", "messages": [], "n": 3}
    headers = HERE | {"Authorization": f"Bearer {KEY}"}
    for more, status in (({}, 400), ({"temperature": 0}, 400), ({"temperature": 1}, 200), ({"n": 1}, 200)):
        answered, _, body = ask(
            engine_guard, headers, "/v1/chat/completions", method="POST", body=json.dumps(asked | more).encode()
        )
        assert answered == status
        if status == 400:
            error = json.loads(body)["error"]
            assert error["message"].startswith("n is 3, and without a temperature") and error["code"] == "invalid_value"


def test_a_preflight_is_answered_with_no_permission(engine_guard: EngineGuard) -> None:
    preflight = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    assert ask(engine_guard, HERE | preflight, "/v1/chat/completions", method="OPTIONS")[0] == 403
    assert ask(engine_guard, HERE, "/v1/chat/completions", method="OPTIONS")[0] == 401


@pytest.mark.parametrize("key", ["", " ", "\t\n", "key ", " key", "a\nb", "schlüssel", "a" * 8 + "\x7f"])
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_key_that_guards_nothing_or_cannot_be_sent_is_refused(key: str, host: str) -> None:
    with pytest.raises(HarnessError, match=r"openssl rand -hex 24"):
        require_key(host, key)


@pytest.mark.parametrize(
    ("host", "key"), [("0.0.0.0", None), ("0.0.0.0", "a" * 15), ("192.168.1.5", "secret"), ("::", None)]
)
def test_other_machines_want_a_long_key(host: str, key: str | None) -> None:
    with pytest.raises(HarnessError, match=r"other machines.*openssl rand -hex 24"):
        require_key(host, key)


@pytest.mark.parametrize(
    ("host", "key"), [("0.0.0.0", "a" * 16), ("127.0.0.1", None), ("::1", "short"), ("localhost", "open sesame")]
)
def test_a_key_that_guards_is_taken(host: str, key: str | None) -> None:
    require_key(host, key)


def _page(key: str | None = KEY, port: int = 7860) -> PageGuard:
    return PageGuard(_app, Names(), key, port)


def _log_in(page: PageGuard, key: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
    return ask(page, HERE | headers, "/login", "POST", urlencode({"user": "harness", "key": key}).encode())


@pytest.fixture
def no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login, "PAUSE_S", 0)


@pytest.mark.parametrize(
    "path", ["/", "/gradio_api/queue/join", "/config", "/assets/index.js", "/theme.css", "/gradio_api/upload", "/login"]
)
def test_without_the_key_nothing_of_the_page_is_told(path: str) -> None:
    for accept in ("text/html", "*/*"):
        status, headers, body = ask(_page(), HERE | {"Accept": accept}, path)
        assert status == 401 and b"inside" not in body and "set-cookie" not in headers
    assert ask(_page(None), HERE)[2] == b"inside"


def test_the_key_logs_in_and_a_cookie_keeps_it(no_pause: None) -> None:
    page = _page()
    status, headers, _ = _log_in(page, KEY)
    cookie = headers["set-cookie"]
    assert (status, headers["location"]) == (303, "/") and KEY not in cookie
    assert {"HttpOnly", "SameSite=Lax", "Path=/"} < set(cookie.split("; ")) and "Secure" not in cookie
    assert ask(page, HERE | {"Cookie": f"other=1; {cookie.split(';')[0]}; x=y"})[2] == b"inside"


@pytest.mark.parametrize("key", ["", "wrong", KEY + "x", KEY.upper(), "ключ", "x" * 10_000])
def test_a_wrong_key_does_not(no_pause: None, key: str) -> None:
    status, headers, body = _log_in(_page(), key)
    assert status == 401 and b"That is not the key." in body and "set-cookie" not in headers


def test_a_session_is_one_servers(no_pause: None) -> None:
    cookie = _log_in(_page(), KEY)[1]["set-cookie"].split(";")[0]
    assert ask(_page(), HERE | {"Cookie": cookie})[0] == 401
    assert ask(_page(), HERE | {"Cookie": "harness-7860="})[0] == 401


def test_another_site_cannot_log_in(no_pause: None) -> None:
    assert _log_in(_page(), KEY, Origin="http://evil.example")[0] == 403


def test_forty_wrong_keys_at_once_wait_for_one_another(monkeypatch: pytest.MonkeyPatch) -> None:
    """While one wrong key pays its pause no other is looked at, nor the right one; who is logged in goes on."""

    async def attack() -> None:
        page, pauses, release = _page(), asyncio.Semaphore(0), asyncio.Semaphore(0)

        async def pause(_: float) -> None:
            pauses.release()
            await release.acquire()

        def guess(key: str) -> Any:
            return asyncio.create_task(_ask(page, HERE, "/login", "POST", urlencode({"key": key}).encode()))

        in_before = await guess(KEY)
        cookie = in_before[1]["set-cookie"].split(";")[0]
        monkeypatch.setattr(login.asyncio, "sleep", pause)
        guesses = [guess(f"wrong {number}") for number in range(40)]
        await pauses.acquire()
        late = guess(KEY)
        for _ in range(200):  # every task gets its turn many times
            await asyncio.wait([asyncio.create_task(_ask(page, HERE | {"Cookie": cookie}))])
        answered = [task for task in guesses if task.done()]
        assert {task.result()[0] for task in (*answered, late)} == {429} and len(answered) == 40 - login.MOST_WAITING
        assert pauses.locked()  # no second one got as far as its pause
        for paid in range(login.MOST_WAITING):
            if paid:
                await pauses.acquire()
            release.release()
        assert {(await task)[0] for task in guesses} == {401, 429}
        assert (await guess(KEY))[0] == 303

    asyncio.run(attack())


@pytest.mark.parametrize("path", ["/", "/login", "/gradio_api/upload", "/gradio_api/queue/data"])
@pytest.mark.parametrize("key", [None, KEY])
@pytest.mark.parametrize("host", ["127.0.0.1", "rebound.example"])
def test_every_answer_of_the_page_forbids_frames_and_sniffing(path: str, key: str | None, host: str) -> None:
    _, headers, _ = ask(_page(key), {"Host": host, "Accept": "text/html"}, path)
    assert (
        "frame-ancestors 'none'" in headers["content-security-policy"]
        and "default-src" in headers["content-security-policy"]
    )
    assert (headers["x-frame-options"], headers["x-content-type-options"]) == ("DENY", "nosniff")
    assert headers["referrer-policy"] in ("no-referrer", "same-origin")


def test_a_refusal_is_a_page_for_people_and_json_for_programs() -> None:
    for accept, expected in (("text/html,*/*", "text/html; charset=utf-8"), ("*/*", "application/json")):
        status, headers, body = ask(_page(None), {"Host": "rebound<script>.example", "Accept": accept})
        assert status == 403 and headers["content-type"] == expected and b"--allow-host" in body
    assert b"<script>" not in ask(_page(None), {"Host": "<script>", "Accept": "text/html"})[2]


@pytest.fixture(scope="module")
def gradio_app(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """The page as Gradio serves it, and the folder of its uploads."""
    pytest.importorskip("gradio")
    pytest.importorskip("openai")
    from harness_serve.catalogue import Unchanging
    from harness_serve.page import page_app

    from harness.contract import Endpoint
    from harness.votes.store import Ballots

    folder = tmp_path_factory.mktemp("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        ballots = Ballots(str(tmp_path_factory.mktemp("votes") / "votes.db"))
        served = Unchanging(Endpoint("http://127.0.0.1:9/v1", ("base", "alpha")))
        yield page_app(served, ballots, ["Hi"]), folder


def test_an_upload_is_refused_and_nothing_stored(gradio_app) -> None:  # type: ignore[no-untyped-def]
    app, folder = gradio_app
    form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\nHello\r\n--x--\r\n'
    upload = HERE | {"Content-Type": "multipart/form-data; boundary=x"}
    assert ask(PageGuard(app, Names(), None, 7860), upload, "/gradio_api/upload", "POST", form)[0] == 404
    assert not list(Path(folder).rglob("*.txt"))
    assert ask(app, upload, "/gradio_api/upload", "POST", form)[0] == 200  # what Gradio alone would do
    assert list(Path(folder).rglob("*.txt"))


def test_of_gradios_routes_only_those_the_page_needs_answer(gradio_app) -> None:  # type: ignore[no-untyped-def]
    app, _ = gradio_app
    routes = [route for mount in app.routes for route in getattr(getattr(mount, "app", None), "routes", ())]
    everything = {(method, route.path) for route in routes for method in getattr(route, "methods", None) or ()}
    assert len(everything) > 80
    assert {(method, path) for method, path in everything if login._is_needed(method, path)} == {
        ("GET", "/"), ("HEAD", "/"), ("GET", "/favicon.ico"), ("GET", "/theme.css"), ("GET", "/assets/{path:path}"),
        ("GET", "/static/{path:path}"), ("GET", "/gradio_api/app_id"), ("GET", "/gradio_api/queue/data"),
        ("POST", "/gradio_api/queue/join"), ("POST", "/gradio_api/cancel"),
    }  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["[x](javascript:alert(1))", "[x](JaVaScRiPt:alert(1))", "[x](java&#115;cript:alert(1))",
     "[x](javascript&#58;alert(1))", "<javascript:alert(1)>", "[x](data:text/html,hi)", "[x](data:image/png;base64,AA)",
     "[x](vbscript:x)", "[x](file:///etc/passwd)", "[x](/login)", "[x](//evil.example)", "[x](\x01javascript:alert(1))",
     "[x](<  javascript:alert(1)>)", "[x][y]\n\n[y]: javascript:alert(1)", "[x](blob:http://a)",
     "![x](data:image/png;base64,AA)"],
)  # fmt: skip
def test_an_answer_links_to_web_pages_and_mail_only(text: str) -> None:
    pytest.importorskip("markdown_it")
    from harness_serve.markup import markdown

    shown = markdown(text)
    assert "href" not in shown and "<img" not in shown


@pytest.mark.parametrize("target", ["https://example.org/a?b=c", "HTTP://example.org", "mailto:a@example.org"])
@pytest.mark.parametrize("form", ["[x]({})", "<{}>", "[x][y]\n\n[y]: {}", '[x]({} "title")'])
def test_a_link_opens_in_a_tab_of_its_own(target: str, form: str) -> None:
    pytest.importorskip("markdown_it")
    from harness_serve.markup import markdown

    shown = markdown(form.format(target))
    assert shown.count("<a ") == shown.count('target="_blank" rel="noopener noreferrer nofollow"') == 1


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_application_that_does_not_start_is_named(free_tcp_port: int) -> None:
    async def broken(scope: Any, receive: Any, send: Any) -> None:
        raise RuntimeError("no disk")

    at = bound("127.0.0.1", free_tcp_port)
    with pytest.raises(HarnessError, match=f"port {free_tcp_port} did not start"), serving(broken, at, lifespan="on"):
        pytest.fail("started")


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_port_that_was_taken_meanwhile_is_named(tmp_path: Path) -> None:
    pytest.importorskip("gradio")
    pytest.importorskip("openai")
    from harness_serve.catalogue import Unchanging
    from harness_serve.page import serve_page

    from harness.contract import Endpoint
    from harness.votes.store import Ballots

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ballots, endpoint = Ballots(str(tmp_path / "votes.db")), Endpoint("http://127.0.0.1:9/v1", ("base",))
        with pytest.raises(HarnessError, match=f"port {port}"), serve_page(Unchanging(endpoint), ballots, port=port):
            pytest.fail("started")
