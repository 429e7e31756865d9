"""Named keys: what opens the engine and the page, for how much, and what no key opens; asked in process."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness_serve.engine_guard import KEYS_VARIABLE, LONGEST_VARIABLE, NAMES_VARIABLE, OWNER_KEY_VARIABLE, EngineGuard
from harness_serve.guard import Names
from harness_serve.keys import KeyFile
from harness_serve.login import PERSON, PageGuard

import harness.testing
from harness import HarnessError
from tests.serve.test_guard import HERE, ask

OWNER = "the key of whoever started it"
CHAT = "/v1/chat/completions"


async def _engine(scope: Any, receive: Any, send: Any) -> None:
    """An engine that lists two models, and answers anything else with the body it got."""
    body = (await receive()).get("body", b"")
    if scope["path"] == "/v1/models":
        body = json.dumps({"data": [{"id": "base"}, {"id": "tuned/1"}]}).encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def file(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def guard(file: KeyFile, monkeypatch: pytest.MonkeyPatch) -> Callable[..., EngineGuard]:
    """Return a maker of the engine's guard, with the owner's key or without."""

    def make(owner: str | None = OWNER, clock: Callable[[], float] = lambda: 0.0, longest: int = 100) -> EngineGuard:
        monkeypatch.setenv(NAMES_VARIABLE, json.dumps(["127.0.0.1"]))
        monkeypatch.setenv(LONGEST_VARIABLE, str(longest))
        monkeypatch.delenv(OWNER_KEY_VARIABLE, raising=False)
        monkeypatch.delenv(KEYS_VARIABLE, raising=False)
        if owner is not None:
            monkeypatch.setenv(OWNER_KEY_VARIABLE, owner)
            monkeypatch.setenv(KEYS_VARIABLE, str(file.path))
        return EngineGuard(_engine, clock)

    return make


def _bearer(text: str) -> dict[str, str]:
    return HERE | {"Authorization": f"Bearer {text}"}


def test_a_named_key_opens_until_it_is_revoked(guard: Callable[..., EngineGuard], file: KeyFile) -> None:
    app = guard()
    assert ask(app, _bearer("hk-nobody"), "/v1/models")[0] == 401
    anna, ben = file.make("anna"), file.make("ben")  # while the server runs
    for key in (anna, ben, OWNER):
        assert ask(app, _bearer(key), "/v1/models")[0] == 200
        assert ask(app, HERE | {"x-api-key": key}, "/v1/models")[0] == 200
    assert ask(app, _bearer(anna) | {"x-api-key": anna}, "/v1/models")[0] == 401
    file.revoke("anna")
    assert ask(app, _bearer(anna), "/v1/models")[0] == 401
    assert ask(app, _bearer(ben), "/v1/models")[0] == 200


@pytest.mark.parametrize("content", [None, "", "{", '{"format": 9}', '{"format": 1, "keys": [{"nome": 1}]}'])
def test_a_file_that_is_gone_or_damaged_opens_nothing(
    guard: Callable[..., EngineGuard], file: KeyFile, content: str | None
) -> None:
    app, key = guard(), file.make("anna")
    assert ask(app, _bearer(key), "/v1/models")[0] == 200
    whole = file.path.read_text()
    file.path.unlink()
    if content is not None:
        file.path.write_text(content)
    assert ask(app, _bearer(key), "/v1/models")[0] == 401
    assert ask(app, _bearer(OWNER), "/v1/models")[0] == 200
    file.path.write_text(whole)
    assert ask(app, _bearer(key), "/v1/models")[0] == 200


def test_the_file_keeps_no_key_and_is_its_owners_alone(file: KeyFile) -> None:
    key = file.make("anna")
    text = file.path.read_text()
    assert key not in text and key.removeprefix("hk-") not in text and len(key) > 40
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    file.revoke("anna")
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600


@pytest.mark.parametrize("name", ["", "a b", "anna\n", "ä", "-x", "x" * 65, "../anna"])
def test_a_name_of_a_key_is_plain(file: KeyFile, name: str) -> None:
    with pytest.raises(HarnessError, match="is no name of a key"):
        file.make(name)
    assert not file.path.exists()


def test_a_name_is_given_once_and_revoked_once(file: KeyFile) -> None:
    file.make("anna")
    with pytest.raises(HarnessError, match=r"already: choose another name"):
        file.make("anna")
    with pytest.raises(HarnessError, match="anna"):
        file.revoke("ana")
    file.revoke("anna")
    with pytest.raises(HarnessError, match="is revoked already"):
        file.revoke("anna")
    with pytest.raises(HarnessError, match="choose another name"):
        file.make("anna")


def test_a_file_that_cannot_be_kept_is_named_and_none_is_begun_by_revoking(file: KeyFile) -> None:
    file.path.parent.mkdir(parents=True, exist_ok=True)
    blocked = file.path.with_name("blocked")
    blocked.touch()
    with pytest.raises(HarnessError, match=r"blocked/keys\.json: cannot be written: "):
        KeyFile(blocked / "keys.json").make("anna")
    with pytest.raises(HarnessError, match="there is no such file of keys"):
        file.revoke("anna")
    assert [path.name for path in file.path.parent.iterdir()] == ["blocked"]


def _make(path: Path, number: int) -> None:
    KeyFile(path).make(f"key{number}")


def test_keys_that_are_made_at_once_are_all_kept(file: KeyFile) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.starmap(_make, [(file.path, number) for number in range(12)])
    assert {key.name for key in file.active()} == {f"key{number}" for number in range(12)}


def test_a_key_asks_as_often_as_it_may(guard: Callable[..., EngineGuard], file: KeyFile) -> None:
    seconds = 0.0
    app = guard(clock=lambda: seconds)
    few, many = file.make("few", requests_per_minute=2), file.make("many")
    for _ in range(3):
        assert ask(app, _bearer(many), CHAT, "POST")[0] == 200
    assert ask(app, _bearer(few), CHAT, "POST")[0] == 200
    seconds = 40.5
    assert ask(app, _bearer(few), CHAT, "POST")[0] == 200
    status, headers, body = ask(app, _bearer(few), CHAT, "POST")
    assert (status, headers["retry-after"]) == (429, "20")
    assert json.loads(body)["error"]["code"] == "rate_limit_exceeded" and b"'few' sent 2 requests" in body
    assert ask(app, _bearer(few), "/v1/models")[0] == 200  # asks for no answer
    seconds = 60.0
    assert ask(app, _bearer(few), CHAT, "POST")[0] == 200
    assert ask(app, _bearer(few), CHAT, "POST")[0] == 429
    assert ask(app, _bearer(OWNER), CHAT, "POST")[0] == 200


def test_a_key_has_as_many_in_flight_as_it_may(guard: Callable[..., EngineGuard], file: KeyFile) -> None:
    app, key = guard(), file.make("anna", concurrency=2)

    async def flow() -> list[int]:
        from tests.serve.test_guard import _ask

        release, arrived = asyncio.Event(), asyncio.Semaphore(0)

        async def slow(scope: Any, receive: Any, send: Any) -> None:
            arrived.release()
            await release.wait()
            if scope["method"] == "POST" and scope["path"] == "/tokenize":
                raise RuntimeError("the engine fell over")
            await _engine(scope, receive, send)

        app.app = slow
        flying = [asyncio.create_task(_ask(app, _bearer(key), path, "POST")) for path in (CHAT, "/tokenize")]
        for _ in flying:
            await arrived.acquire()
        refused = (await _ask(app, _bearer(key), CHAT, "POST"))[0]
        release.set()
        ended = await asyncio.gather(*flying, return_exceptions=True)
        assert isinstance(ended[1], RuntimeError)
        return [refused, ended[0][0], (await _ask(app, _bearer(key), CHAT, "POST"))[0]]

    assert asyncio.run(flow()) == [429, 200, 200]


@pytest.mark.parametrize(("size", "status"), [(100, 200), (101, 413)])
@pytest.mark.parametrize("announced", [True, False])
def test_a_request_has_a_largest_size(
    guard: Callable[..., EngineGuard], size: int, status: int, announced: bool
) -> None:
    headers = _bearer(OWNER) | ({"Content-Length": str(size)} if announced else {})
    answered, _, body = ask(guard(), headers, CHAT, "POST", b"x" * size)
    assert answered == status
    assert body == b"x" * size if status == 200 else b"max_request_mib" in body


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/load_lora_adapter"), ("POST", "/pause"), ("POST", "/update_weights"), ("POST", "/sleep"),
     ("POST", "/collective_rpc"), ("POST", "/reset_prefix_cache"), ("POST", "/start_profile"), ("POST", "/invocations"),
     ("GET", "/docs"), ("GET", "/openapi.json"), ("GET", "/server_info"), ("GET", "/v1"), ("GET", CHAT),
     ("PUT", "/v1/models"), ("DELETE", "/v1/models/base"), ("GET", "/v1/responses/../models"), ("HEAD", "/v1/models"),
     ("POST", "/v1/chat/completions/"), ("POST", "//v1/completions")],
)  # fmt: skip
@pytest.mark.parametrize("owner", [OWNER, None])
def test_no_key_opens_what_applications_do_not_ask(
    guard: Callable[..., EngineGuard], owner: str | None, method: str, path: str
) -> None:
    assert ask(guard(owner), _bearer(OWNER), path, method)[0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/v1/models"), ("POST", CHAT), ("POST", "/v1/completions"), ("POST", "/v1/responses"),
     ("GET", "/v1/responses/resp_1"), ("POST", "/v1/responses/resp_1/cancel"), ("POST", "/v1/messages"),
     ("POST", "/tokenize"), ("GET", "/metrics"), ("GET", "/health"), ("POST", "/ping")],
)  # fmt: skip
def test_what_applications_ask_is_open_with_a_key(guard: Callable[..., EngineGuard], method: str, path: str) -> None:
    app = guard()
    assert ask(app, _bearer(OWNER), path, method)[0] == 200
    assert ask(app, HERE, path, method)[0] == (200 if path in ("/health", "/ping") else 401)


def test_one_model_is_answered_out_of_the_list(guard: Callable[..., EngineGuard]) -> None:
    app = guard()
    status, _, body = ask(app, _bearer(OWNER), "/v1/models/tuned/1")
    assert (status, json.loads(body)) == (200, {"id": "tuned/1"})
    status, _, body = ask(app, _bearer(OWNER), "/v1/models/other")
    assert status == 404 and b"'other' does not exist; there are: base, tuned/1" in body


@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"model": ""}', 404), (b'{"model" :  "", "x": 1}', 404), (b'{"model": "base"}', 200), (b"{", 200),
     (b'{"x": {"model": ""}}', 200), (b'{"model": "base", "x": "\\"model\\": \\"\\""}', 200), (b"{}", 200)],
)  # fmt: skip
def test_an_empty_name_is_no_model(guard: Callable[..., EngineGuard], body: bytes, status: int) -> None:
    assert ask(guard(), _bearer(OWNER), CHAT, "POST", body)[0] == status


def test_a_named_key_opens_the_page_under_its_name(file: KeyFile) -> None:
    heard: list[list[bytes]] = []

    async def page(scope: Any, receive: Any, send: Any) -> None:
        heard.append([value for name, value in scope["headers"] if name == PERSON])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"inside"})

    guard, key = PageGuard(page, Names(), OWNER, 7860, file), file.make("anna")
    cookies = []
    for text in (key, OWNER):
        status, headers, _ = ask(guard, HERE, "/login", "POST", f"key={text}".encode())
        assert status == 303
        cookies.append(HERE | {"Cookie": headers["set-cookie"].partition(";")[0]})
    for cookie in cookies:
        assert ask(guard, cookie | {"X-Harness-Person": "the boss"})[0] == 200
    assert heard == [[b"anna"], [b""]]
    file.revoke("anna")
    assert [ask(guard, cookie)[0] for cookie in cookies] == [401, 200]


def test_keys_are_made_listed_and_revoked_by_command(tmp_path: Path) -> None:
    runs = f"--runs {tmp_path / 'runs'}"
    assert "harness keys make NAME" in harness.testing.run(f"{runs} keys list").out
    made = harness.testing.run(f"{runs} keys make anna --requests-per-minute 30 --concurrency 2")
    key = made.out.strip()
    assert key.startswith("hk-") and "\n" not in key and "once" in made.err
    assert KeyFile(tmp_path / "runs/keys.json").of(key) is not None
    listed = harness.testing.run(f"{runs} keys list").out
    assert "anna" in listed and "30 requests a minute, 2 at once" in listed and key not in listed
    assert harness.testing.run(f"{runs} keys revoke anna").code == 0
    again = harness.testing.run(f"{runs} keys revoke anna")
    assert again.code != 0 and "revoked already" in again.err
    assert "revoked" in harness.testing.run(f"{runs} keys list").out
