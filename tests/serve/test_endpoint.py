"""The endpoint as its users meet it: the official OpenAI client against the real engine."""

from __future__ import annotations

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


def test_an_unknown_model_is_404(client) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(openai.NotFoundError, match="gamma"):
        client.chat.completions.create(model="gamma", **ASK)


def test_a_wrong_key_is_401(endpoint) -> None:  # type: ignore[no-untyped-def]
    with (
        openai.OpenAI(base_url=endpoint.url, api_key="open barley", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


@pytest.mark.parametrize(
    "path", ["/v1/models", "/metrics", "/tokenize", "/invocations", "/docs", "/generative_scoring", "/version"]
)
def test_without_the_key_no_path_tells_anything(endpoint, path: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(endpoint.url.removesuffix("/v1") + path, timeout=30)
    assert refused.value.code == 401


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
