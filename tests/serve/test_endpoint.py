"""The endpoint as its users meet it: the official OpenAI client against the real engine."""

from __future__ import annotations

import importlib.util
import re
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

openai = pytest.importorskip("openai")

pytestmark = pytest.mark.vllm
ASK = {"messages": [{"role": "user", "content": "Who keeps the key?"}], "max_tokens": 24}


def test_every_variant_is_a_model(client, endpoint) -> None:  # type: ignore[no-untyped-def]
    assert endpoint.models == ("base", "alpha", "beta", "unapplied", "swapped")
    assert {model.id for model in client.models.list()} == set(endpoint.models)


def test_a_tuned_variant_answers_as_tuned_and_stops(client) -> None:  # type: ignore[no-untyped-def]
    tuned = client.chat.completions.create(model="alpha", **ASK).choices[0]
    base = client.chat.completions.create(model="base", **ASK).choices[0]
    assert tuned.message.content != base.message.content


def test_answers_are_greedy_by_default_and_so_repeat(client) -> None:  # type: ignore[no-untyped-def]
    first, second = (client.chat.completions.create(model="alpha", **ASK).choices[0].message.content for _ in range(2))
    assert first == second


def test_base_and_adapters_in_one_batch_answer_as_each_alone(client) -> None:  # type: ignore[no-untyped-def]
    """Each step can take one token only, so that rounding cannot part the answers; its log-probability tells whose."""

    def logprobs(model: str) -> list[float]:
        asked = ASK | {"max_tokens": 8}
        choice = client.chat.completions.create(model=model, logprobs=True, logit_bias={"300": 100}, **asked).choices[0]
        return [token.logprob for token in choice.logprobs.content]

    models = ("base", "alpha", "beta")
    alone = {model: logprobs(model) for model in models}
    for adapter in ("alpha", "beta"):
        assert max(abs(a - b) for a, b in zip(alone["base"], alone[adapter], strict=True)) > 0.3
    with ThreadPoolExecutor(12) as pool:
        together = list(pool.map(logprobs, models * 4))
    for model, found in zip(models * 4, together, strict=True):
        assert found == pytest.approx(alone[model], abs=0.1), model


def test_the_templates_stop_token_ends_an_answer(client, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    """Asked to sample nothing but the stop token, the engine ends the answer there and says `stop`."""
    from harness.template import BoundTemplate

    template = BoundTemplate.load(runs_folder / "alpha/chat")
    choice = client.chat.completions.create(model="base", logit_bias={str(template.stop_ids[0]): 100}, **ASK).choices[0]
    assert choice.finish_reason == "stop" and choice.message.content == ""


def test_a_streamed_answer_is_the_same_answer(client) -> None:  # type: ignore[no-untyped-def]
    whole = client.chat.completions.create(model="beta", **ASK).choices[0].message.content
    chunks = list(client.chat.completions.create(model="beta", stream=True, **ASK))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert len(chunks) > 3


@pytest.mark.parametrize("model", ["base", "alpha"])
def test_an_answer_follows_a_json_schema(client, model: str) -> None:  # type: ignore[no-untyped-def]
    """Neither was tuned on JSON: the engine takes only the tokens that the schema allows. It allows no white space."""
    schema = {"enum": ["the wren", "the jay"]}
    wanted = {"type": "json_schema", "json_schema": {"name": "keeper", "schema": schema, "strict": True}}
    choice = client.chat.completions.create(model=model, response_format=wanted, **ASK).choices[0]
    assert choice.message.content in ('"the wren"', '"the jay"') and choice.finish_reason == "stop"


def test_an_unknown_model_is_404(client) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(openai.NotFoundError, match="gamma"):
        client.chat.completions.create(model="gamma", **ASK)


def test_a_wrong_key_is_401(endpoint) -> None:  # type: ignore[no-untyped-def]
    with (
        openai.OpenAI(base_url=endpoint.url, api_key="open barley", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def _routes() -> list[tuple[str, str]]:
    """Return (method, path) of every route in vLLM's own source, and those that FastAPI adds."""
    spec = importlib.util.find_spec("vllm")
    assert spec is not None and spec.origin is not None
    declared = re.compile(r"@\w*router\.(get|post|put|delete|head)\(\s*\"(/[^\"]*)\"")
    found = {
        (method.upper(), re.sub(r"\{.*?\}", "x", path))
        for source in (Path(spec.origin).parent / "entrypoints").rglob("*.py")
        for method, path in declared.findall(source.read_text(encoding="utf-8"))
    }
    assert len(found) > 60 and ("POST", "/v1/chat/completions") in found and ("POST", "/pause") in found
    return sorted(found | {("GET", path) for path in ("/docs", "/openapi.json", "/redoc", "/metrics", "/")})


def _status(endpoint, method: str, path: str, headers: dict[str, str]) -> int:  # type: ignore[no-untyped-def]
    body = b"{}" if method == "POST" else None
    headers = headers | {"Content-Type": "application/json"}
    url = endpoint.url.removesuffix("/v1") + path
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers, method=method), timeout=30) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as refused:
        return refused.code


@pytest.mark.parametrize(
    ("who", "status"),
    [("no key", 401), ("a wrong key", 401), ("a revoked key", 401), ("another site", 403), ("another name", 403)],
)
def test_every_route_of_the_engine_is_shut(  # type: ignore[no-untyped-def]
    endpoint, key_file, who: str, status: int
) -> None:
    key = {"Authorization": f"Bearer {endpoint.api_key}"}
    sent = {
        "no key": {},
        "a wrong key": {"Authorization": "Bearer open barley"},
        "another site": key | {"Origin": "http://evil.example"},
        "another name": key | {"Host": "rebound.example"},
    }
    if who == "a revoked key":
        sent[who] = {"Authorization": f"Bearer {key_file.make('short')}"}
        assert _status(endpoint, "GET", "/v1/models", sent[who]) == 200
        key_file.revoke("short")
    for method, path in _routes():
        is_health = path in ("/health", "/ping") and status == 401
        assert _status(endpoint, method, path, sent[who]) == (200 if is_health else status), (method, path)


def test_with_a_key_no_route_changes_the_engine(endpoint) -> None:  # type: ignore[no-untyped-def]
    """Of all routes only those answer that applications ask; what vLLM says to an empty request is its own matter."""
    asked = {
        *("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages", "/v1/messages/count_tokens"),
        *("/v1/responses/x", "/v1/responses/x/cancel", "/tokenize", "/detokenize"),
        *("/v1/models", "/version", "/load", "/metrics", "/health", "/ping"),
    }
    key = {"Authorization": f"Bearer {endpoint.api_key}"}
    for method, path in _routes():
        status = _status(endpoint, method, path, key)
        if path not in asked:
            assert status == 404, (method, path)
        else:
            assert status in (200, 400, 404, 422, 500, 501), (method, path, status)
    assert _status(endpoint, "GET", "/v1/models", key) == 200


def test_one_model_is_found_by_its_name(client, endpoint) -> None:  # type: ignore[no-untyped-def]
    assert client.models.retrieve("beta").id == "beta"
    with pytest.raises(openai.NotFoundError, match="'gamma' does not exist; there are: base"):
        client.models.retrieve("gamma")
    with pytest.raises(openai.NotFoundError, match="'' does not exist"):
        client.chat.completions.create(model="", **ASK)


def test_a_named_key_asks_as_often_as_it_may(endpoint, key_file) -> None:  # type: ignore[no-untyped-def]
    key = key_file.make("few", requests_per_minute=1)
    with openai.OpenAI(base_url=endpoint.url, api_key=key, max_retries=0) as few:
        assert "".join(c.choices[0].delta.content or "" for c in few.chat.completions.create(
            model="alpha", stream=True, **ASK) if c.choices)  # fmt: skip
        with pytest.raises(openai.RateLimitError, match="'few' sent 1 requests"):
            few.chat.completions.create(model="alpha", **ASK)


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "rebound.example"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_another_name_or_site_is_refused_with_the_right_key_too(  # type: ignore[no-untyped-def]
    endpoint, headers: dict[str, str], method: str
) -> None:
    headers = headers | {"Authorization": f"Bearer {endpoint.api_key}", "Access-Control-Request-Method": "POST"}
    asked = urllib.request.Request(f"{endpoint.url}/models", headers=headers, method=method)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(asked, timeout=30)
    assert refused.value.code == 403
    assert not [name for name in refused.value.headers if name.lower().startswith("access-control")]


def test_health_needs_no_key(endpoint) -> None:  # type: ignore[no-untyped-def]
    with urllib.request.urlopen(endpoint.url.removesuffix("/v1") + "/health", timeout=30) as answer:
        assert answer.status == 200


def test_the_key_is_not_in_the_process_list(endpoint, processes_of) -> None:  # type: ignore[no-untyped-def]
    port = endpoint.url.split(":")[-1].removesuffix("/v1")
    engine = processes_of(f"--port={port}")
    assert engine and not any(endpoint.api_key in command for command in engine)
