"""The guard in the engine's process, asked in process: records, metrics, remote models, adapters not yet for all."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness_serve.engine import VllmOptions
from harness_serve.engine_guard import KEYS_VARIABLE, NAMES_VARIABLE, OWNER_KEY_VARIABLE, SETTINGS_VARIABLE, EngineGuard
from harness_serve.engine_guard import Settings as GuardSettings
from harness_serve.keys import KeyFile
from harness_serve.remotes import as_settings

from harness.nouns import Remote
from harness.testing import FakeEndpoint, Reply
from tests.serve.test_guard import HERE, ask

OWNER, CONTROL = "the key of whoever started it", "the key of this start"
CHAT = "/v1/chat/completions"
SAID = '"completion_tokens":999'  # in an answer, where it counts nothing


class Engine:
    """vLLM's server: two models, an answer with its tokens, and adapters; `dies` under the next request."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []
        self.removed: list[int] = []
        self.dies = False
        base = [SimpleNamespace(name="base")]
        models = SimpleNamespace(
            base_model_paths=base, lora_requests={}, load_lora_adapter=self._load, unload_lora_adapter=self._unload
        )
        core = SimpleNamespace(call_utility_all_async=self._modules)
        client = SimpleNamespace(errored=False, engine_core=core, remove_lora=self._remove)
        self.state = SimpleNamespace(openai_serving_models=models, engine_client=client)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        self.bodies.append(json.loads(body) if body else None)
        start = {"type": "http.response.start", "status": 200, "headers": []}
        pieces = [b"ok"]
        usage = {"prompt_tokens": 7, "completion_tokens": 5}
        if scope["path"] == "/v1/models":
            listed = [{"id": name} for name in ("base", *self.state.openai_serving_models.lora_requests)]
            pieces = [json.dumps({"data": listed}).encode()]
        elif scope["path"] == "/metrics":
            pieces = [b"vllm_running 1\n"]
        elif self.bodies[-1] and self.bodies[-1].get("stream"):
            text = {"choices": [{"delta": {"content": SAID}}]}
            pieces = [_event(text), _event({"choices": [], "usage": usage}), b"data: [DONE]\n\n"]
        elif self.bodies[-1]:
            pieces = [json.dumps({"choices": [{"text": SAID}], "usage": usage}).encode()]
        if self.dies:
            self.state.engine_client.errored = True
            error = {"error": {"message": "EngineCore encountered an issue. See stack trace (above)"}}
            streams = self.bodies[-1].get("stream")
            start["status"] = 200 if streams else 500
            pieces = [pieces[0], _event(error)] if streams else [json.dumps(error).encode()]
        await send(start)
        for number, piece in enumerate(pieces):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces) - 1})

    async def _load(self, request: Any) -> Any:
        if request.lora_path == "/damaged":
            return SimpleNamespace(error=SimpleNamespace(message="no such adapter"))
        request.lora_int_id = 1
        self.state.openai_serving_models.lora_requests[request.lora_name] = request
        return "Success"

    async def _unload(self, request: Any) -> str:
        del self.state.openai_serving_models.lora_requests[request.lora_name]
        return "Success"

    async def _modules(self, *_: Any) -> Any:
        return [[{1: ["layers.0.q_proj"]}, {1: ["layers.1.q_proj"]}]]  # one replica of two workers

    async def _remove(self, number: int) -> None:
        self.removed.append(number)


def _event(value: Any) -> bytes:
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


class Served:
    """The guard before the engine, as keys ask it."""

    def __init__(self, guard: EngineGuard, engine: Engine, log: Path) -> None:
        self.guard, self.engine, self.log = guard, engine, log

    def ask(
        self, path: str, body: Any = None, key: str | None = OWNER, method: str | None = None
    ) -> tuple[int, Any, bytes]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await self.guard({**scope, "app": self.engine}, receive, send)

        headers = HERE | ({"Authorization": f"Bearer {key}"} if key else {})
        method = method or ("GET" if body is None else "POST")
        return ask(app, headers, path, method, b"" if body is None else json.dumps(body).encode())

    def control(self, route: str, **asked: Any) -> tuple[int, Any]:
        status, _, body = self.ask(f"/harness/engine/{route}", asked, CONTROL)
        return status, json.loads(body)

    def records(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def models(self, key: str = OWNER) -> list[str]:
        return [model["id"] for model in json.loads(self.ask("/v1/models", key=key)[2])["data"]]


@pytest.fixture
def keys(tmp_path: Path) -> KeyFile:
    return KeyFile(tmp_path / "keys.json")


@pytest.fixture
def serve(keys: KeyFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Served]:
    """Return a maker of the guard before a new engine; its settings are the arguments."""

    def make(**settings: Any) -> Served:
        log = tmp_path / "requests.jsonl"
        chosen = GuardSettings(control_key=CONTROL, request_log=str(log), **settings)
        monkeypatch.setenv(NAMES_VARIABLE, json.dumps(["127.0.0.1"]))
        monkeypatch.setenv(OWNER_KEY_VARIABLE, OWNER)
        monkeypatch.setenv(KEYS_VARIABLE, str(keys.path))
        monkeypatch.setenv(SETTINGS_VARIABLE, json.dumps(dataclasses.asdict(chosen)))
        engine = Engine()
        return Served(EngineGuard(engine), engine, log)

    return make


def test_a_request_is_one_line_with_its_key_and_tokens_and_without_its_words(
    serve: Callable[..., Served], keys: KeyFile
) -> None:
    served, anna = serve(), keys.make("anna")
    served.ask(CHAT, {"model": "base", "messages": [{"role": "user", "content": "a secret"}]}, anna)
    served.ask(CHAT, {"model": "base"}, "hk-nobody")
    served.ask("/pause", {}, anna)
    answered, stranger, unknown = served.records()
    expected = {"event": "request", "key": "anna", "method": "POST", "route": CHAT, "model": "base", "status": 200,
                "prompt_tokens": 7, "completion_tokens": 5}  # fmt: skip
    assert expected.items() <= answered.items() and {"time", "seconds", "first_s"} <= answered.keys()
    assert stranger["status"] == 401 and "key" not in stranger
    assert (unknown["route"], unknown["status"]) == ("other", 404)
    assert "secret" not in served.log.read_text()


def test_a_request_log_that_is_large_begins_anew_beside_the_one_before(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("harness_serve.records.LARGEST_LOG", 700)
    served = serve()
    for number in range(12):
        served.ask(f"/v1/models/number-{number}")
    before = served.log.with_name(served.log.name + ".1")
    sizes = [file.stat().st_size for file in (served.log, before)]
    assert sizes[0] < 700 <= sizes[1] < 1400 and len(list(served.log.parent.glob("requests.jsonl*"))) == 2
    lines = [*before.read_text().splitlines(), *served.log.read_text().splitlines()]
    assert [json.loads(line)["event"] for line in lines] == ["request"] * len(lines) and 1 < len(lines) <= 12


def test_pages_of_a_named_origin_may_ask_with_a_key(serve: Callable[..., Served]) -> None:
    """Nobody else's: without the option, no origin's; a browser asks first, without the key."""
    site = "https://app.example"
    served = serve(allow_origins=[site])

    def ask_from(origin: str, method: str = "GET", at: Served = served, **more: str) -> tuple[int, dict[str, str]]:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            await at.guard({**scope, "app": at.engine}, receive, send)

        headers = HERE | {"Origin": origin, "Sec-Fetch-Site": "cross-site", **more}
        return ask(app, headers, "/v1/models", method, b"")[:2]

    key, allowed = {"Authorization": f"Bearer {OWNER}"}, "access-control-allow-origin"
    status, headers = ask_from(site, "OPTIONS", **{"Access-Control-Request-Headers": "authorization,x-stainless-os"})
    assert status == 204 and headers[allowed] == site and "POST" in headers["access-control-allow-methods"]
    assert headers["access-control-allow-headers"] == "authorization,x-stainless-os" and headers["vary"] == "origin"
    status, headers = ask_from(site, **key)
    assert status == 200 and headers[allowed] == site
    status, headers = ask_from(site)
    assert status == 401 and headers[allowed] == site
    for origin in ("https://app.example.evil", "http://app.example", "null"):
        for method in ("GET", "OPTIONS"):
            status, headers = ask_from(origin, method, **key)
            assert status == 403 and allowed not in headers
    assert ask_from(site, at=serve(), **key)[0] == 403


def test_an_origin_is_scheme_host_and_port_alone() -> None:
    assert VllmOptions(allow_origins=("https://App.example:8443",)).allow_origins == ("https://app.example:8443",)
    for text in ("*", "app.example", "https://app.example/", "https://*.example", "null"):
        with pytest.raises(ValueError, match=r"as in https://app\.example\.org"):
            VllmOptions(allow_origins=(text,))


def test_prompts_are_logged_where_that_was_asked_for(serve: Callable[..., Served]) -> None:
    served = serve(log_prompts=True)
    served.ask(CHAT, {"model": "base", "messages": ["a secret"]})
    assert served.records()[0]["asked"]["messages"] == ["a secret"]


@pytest.mark.parametrize("wants", [None, False, True])
def test_a_stream_is_counted_and_its_client_sees_the_usage_only_if_it_asked(
    serve: Callable[..., Served], wants: bool | None
) -> None:
    served = serve()
    options = {} if wants is None else {"stream_options": {"include_usage": wants}}
    body = served.ask(CHAT, {"model": "base", "stream": True} | options)[2]
    assert served.engine.bodies[-1]["stream_options"] == {"include_usage": True}
    assert (b'"usage"' in body) is bool(wants) and body.endswith(b"data: [DONE]\n\n")
    assert served.records()[0]["completion_tokens"] == 5


def test_metrics_are_vllms_and_the_harness_own_for_keys_that_may(serve: Callable[..., Served], keys: KeyFile) -> None:
    served, anna, ops = serve(), keys.make("anna"), keys.make("ops", may=("metrics",))
    served.engine.state.openai_serving_models.base_model_paths.append(SimpleNamespace(name='odd\n"name'))
    for model in ("base", 'odd\n"name', "made up"):
        served.ask(CHAT, {"model": model}, anna)
    assert served.ask("/metrics", key=anna)[0] == 403
    for key in (OWNER, ops):
        status, _, body = served.ask("/metrics", key=key)
        assert status == 200 and body.startswith(b"vllm_running 1\n")
    text = body.decode()
    assert f'harness_requests_total{{key="anna",route="{CHAT}",model="base",status="200"}} 1' in text
    assert 'harness_tokens_total{key="anna",model="base",direction="completion"} 5' in text
    assert 'model="odd\\n\\"name"' in text and "made up" not in text
    lines = [line for line in text.splitlines()[1:] if not line.startswith("#")]
    assert all(re.fullmatch(r'\w+\{(\w+="(\\.|[^"\\\n])*",?)+\} [0-9.e+-]+', line) for line in lines)
    buckets = [int(line.split()[-1]) for line in lines if "_bucket" in line and CHAT in line]
    assert buckets == sorted(buckets) and buckets[-1] == 3


def test_an_adapter_is_its_starters_alone_until_it_is_published(serve: Callable[..., Served]) -> None:
    served = serve()
    status, answer = served.control("load", name="a-1", path="/a")
    assert (status, answer) == (200, {"replicas": [{"a-1": ["layers.0.q_proj", "layers.1.q_proj"]}]})
    assert served.models() == ["base"] and served.models(CONTROL) == ["base", "a-1"]
    assert served.ask(CHAT, {"model": "a-1"})[0] == 404 and served.ask(CHAT, {"model": "a-1"}, CONTROL)[0] == 200
    assert served.ask("/v1/models/a-1")[0] == 404
    served.control("publish", name="a-1")
    assert served.models() == ["base", "a-1"] and served.ask(CHAT, {"model": "a-1"})[0] == 200
    assert served.control("unload", name="a-1") == (200, True)
    assert served.models() == ["base"] and served.engine.removed == [1]
    assert served.control("unload", name="a-1")[0] == 409
    status, answer = served.control("load", name="b-1", path="/damaged")
    assert status == 409 and answer["error"]["message"] == "no such adapter"


def test_no_other_key_reaches_what_changes_the_engine(serve: Callable[..., Served], keys: KeyFile) -> None:
    served = serve()
    mighty = keys.make("ops", may=("adapters", "metrics"))
    for key, status in ((None, 401), ("hk-nobody", 401), (OWNER, 404), (mighty, 404)):
        for route in ("load", "publish", "unload", "active", "drain"):
            assert served.ask(f"/harness/engine/{route}", {}, key)[0] == status
    assert served.ask("/harness/adapters", {}, None)[0] == 401
    assert served.ask("/harness/adapters", {}, OWNER)[0] == 403
    assert served.ask("/harness/adapters", {}, keys.make("anna"))[0] == 403
    assert served.ask("/harness/adapters", {}, mighty)[0] == 404  # no command listens here


def test_a_drained_server_takes_no_more_requests(serve: Callable[..., Served]) -> None:
    served = serve()
    assert served.control("drain") == (200, 0)
    status, headers, body = served.ask(CHAT, {"model": "base"})
    assert (status, headers["retry-after"]) == (503, "10") and b"is being stopped" in body
    assert served.ask("/v1/models")[0] == 200


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_under_which_the_engine_dies_hears_why(
    serve: Callable[..., Served], tmp_path: Path, stream: bool
) -> None:
    log = tmp_path / "engine.log"
    log.write_text(
        "(EngineCore pid=1) ERROR 11-26 11:02:54 [core.py:1] RuntimeError: out of paper\n"
        "(APIServer pid=2) ERROR 11-26 11:02:54 [async_llm.py:906] vllm.EngineDeadError: See above\n"
    )
    served = serve(engine_log=str(log))
    served.engine.dies = True
    status, headers, body = served.ask(CHAT, {"model": "base", "stream": stream})
    assert status == (200 if stream else 503) and b"RuntimeError: out of paper" in body and b"(above)" not in body
    assert stream or headers["retry-after"]
    error = json.loads(body.rpartition(b"data: ")[2] if stream else body)["error"]
    assert (error["type"], error["code"]) == ("server_error", "engine_unavailable")
    assert "out of paper" in served.records()[0]["problem"]


def _remote(serve: Callable[..., Served], url: str) -> Served:
    return serve(remotes=as_settings({"far": Remote(url, "gpt-9", "FAR_KEY")}))


def test_a_remote_model_answers_under_its_own_name_with_its_own_key(
    serve: Callable[..., Served], fake_endpoint: FakeEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAR_KEY", "sk-far")
    fake_endpoint.key, fake_endpoint.models, fake_endpoint.answer = "sk-far", ("gpt-9",), lambda asked: "from afar"
    served = _remote(serve, fake_endpoint.url)
    assert served.models() == ["base", "far"] and json.loads(served.ask("/v1/models/far")[2])["id"] == "far"
    body = {"model": "far", "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 9}
    status, _, answer = served.ask(CHAT, body)
    assert status == 200 and json.loads(answer)["choices"][0]["message"]["content"] == "from afar"
    assert fake_endpoint.requests[0].body == body | {"model": "gpt-9"}
    assert b"sk-far" not in answer and served.records()[-1]["model"] == "far" and set(served.engine.bodies) == {None}


@pytest.mark.parametrize("stream", [False, True])
def test_a_remote_that_is_gone_is_told_by_name(serve: Callable[..., Served], free_port: Any, stream: bool) -> None:
    url = f"http://127.0.0.1:{free_port()}/v1"
    status, _, body = _remote(serve, url).ask(CHAT, {"model": "far", "messages": [], "stream": stream})
    error = json.loads(body)["error"]
    assert (
        status == 502 and error["code"] == "remote_unavailable" and f"far: nothing answers at {url}" in error["message"]
    )


def test_a_remote_that_is_cut_off_says_so_in_its_stream(
    serve: Callable[..., Served], fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.models = ("gpt-9",)
    served = _remote(serve, fake_endpoint.url)

    async def flow() -> bytes:
        loop = asyncio.get_running_loop()
        asked = loop.run_in_executor(
            None, served.ask, CHAT, {"model": "far", "messages": [{"content": "x"}], "stream": True}
        )
        (request,) = await loop.run_in_executor(None, fake_endpoint.next)
        request.say("half ")
        request.drop()
        return (await asked)[2]

    body = asyncio.run(flow())
    assert b"half" in body and b"was lost" in body and body.endswith(b"[DONE]\n\n")


def test_a_remote_that_refuses_the_key_names_the_variable(
    serve: Callable[..., Served], fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.key, fake_endpoint.answer = "sk-far", lambda asked: Reply("never")
    status, _, body = _remote(serve, fake_endpoint.url).ask(CHAT, {"model": "far", "messages": []})
    assert status == 502 and "set FAR_KEY" in json.loads(body)["error"]["message"]


def test_an_unknown_model_is_answered_with_all_names(serve: Callable[..., Served]) -> None:
    served = serve(remotes=as_settings({"far": Remote("http://nowhere/v1", "gpt-9")}))
    served.control("load", name="a-1", path="/a")
    for model in ("gamma", "a-1", ""):
        status, _, body = served.ask(CHAT, {"model": model})
        assert (
            status == 404
            and f"the model {model!r} does not exist; there are: base, far" in json.loads(body)["error"]["message"]
        )


@pytest.mark.parametrize(("choice", "status"), [(None, 400), ("auto", 400), ("none", 200)])
def test_tools_that_nothing_reads_are_refused_with_what_can_be_typed(
    serve: Callable[..., Served], choice: str | None, status: int
) -> None:
    body = {"model": "base", "tools": [{"type": "function"}]} | ({} if choice is None else {"tool_choice": choice})
    assert serve().ask(CHAT, body)[0] == 200
    answered, _, answer = serve(reads_calls=False).ask(CHAT, body)
    assert answered == status and (b"--set tool_parser=NAME" in answer) is (status == 400)
