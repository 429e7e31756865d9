"""The client: one request, many at once and a stream, with errors that name the endpoint and its log."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, aclosing
from typing import Any

import pytest

from harness.contract import Endpoint
from harness.errors import HarnessError
from harness.testing import FakeEndpoint, Reply
from harness.testing import Request as Asked

pytest.importorskip("openai")
from harness.client.asking import Client, EndpointError, client_of, models_of, post, post_all
from harness.client.served import HttpBackend
from harness.contract import Request
from harness.nouns import Message, Remote

Serve = Callable[[Callable[[Asked], str | Reply]], Endpoint]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve the model `m` with `answer(request)`, behind a key and with a log."""
    with ExitStack() as stack:

        def start(answer: Callable[[Asked], str | Reply]) -> Endpoint:
            fake = stack.enter_context(FakeEndpoint(answer, models=("m",), key="sesame"))
            return Endpoint(fake.url, ("m",), "sesame", {"log": "/tmp/its.log"})

        yield start


def test_answers_come_in_the_order_of_the_questions(serve: Serve) -> None:
    endpoint = serve(lambda request: Reply(body={"path": request.path, "echo": request.prompt}))
    answers = post_all(endpoint, "/completions", [{"model": "m", "prompt": str(n)} for n in range(20)])
    assert [answer["echo"] for answer in answers] == [str(n) for n in range(20)]
    assert {answer["path"] for answer in answers} == {"/v1/completions"}
    assert [model["id"] for model in models_of(endpoint)] == ["m"]


def test_a_refusal_names_the_endpoint_its_reply_and_its_log(serve: Serve) -> None:
    endpoint = serve(lambda request: Reply("too many cooks", status=400))
    with pytest.raises(EndpointError) as refused:
        post(endpoint, "/completions", {"model": "m", "prompt": "x"})
    assert str(refused.value) == f"{endpoint.url} refused the request (400): too many cooks\nThe log: /tmp/its.log"
    assert (refused.value.status, refused.value.reply) == (400, "too many cooks")


def test_a_server_that_fails_is_asked_once_where_no_retry_is_wanted(serve: Serve) -> None:
    asked: list[Any] = []

    def answer(request: Asked) -> Reply:
        asked.append(request)
        return Reply("out of memory", status=500)

    with pytest.raises(HarnessError, match=r"(?s)went on failing; the last was 500: out of memory.*/tmp/its.log"):
        post(serve(answer), "/completions", {"model": "m", "prompt": "x"})
    assert len(asked) == 1


def test_nothing_behind_the_url_is_an_error_that_names_it(free_tcp_port: int) -> None:
    endpoint = Endpoint(f"http://127.0.0.1:{free_tcp_port}/v1", ("m",))
    with pytest.raises(EndpointError, match=r"nothing answers at http://127.0.0.1:\d+/v1"):
        models_of(endpoint)
    with pytest.raises(EndpointError, match="is no URL of an endpoint"):
        post(Endpoint("localhost:8000", ("m",)), "/completions", {})


def test_a_stream_gives_text_finish_and_tokens(serve: Serve) -> None:
    def answer(request: Asked) -> Reply:
        request.say("The ")
        return Reply("heron", finish="length")

    endpoint = serve(answer)

    async def ask() -> list[Any]:
        async with client_of(endpoint) as client:
            return [delta async for delta in client.stream({"model": "m", "messages": [{"content": "Who?"}]})]

    deltas = asyncio.run(ask())
    assert [delta.text for delta in deltas if delta.text] == ["The ", "heron"]
    assert [delta.finish for delta in deltas if delta.finish] == ["length"]
    assert [delta.completion_tokens for delta in deltas if delta.completion_tokens] == [2]


def test_a_stream_that_is_closed_hangs_up() -> None:
    with FakeEndpoint() as endpoint:

        async def ask() -> Asked:
            body = {"model": "m", "messages": [{"content": "Who?"}]}
            async with Client(endpoint.url) as client, aclosing(client.stream(body)) as deltas:
                first = asyncio.ensure_future(anext(deltas))
                (request,) = await asyncio.to_thread(endpoint.next)
                request.say("word ")
                await first
                return request

        request = asyncio.run(ask())
        while not request.hung_up.wait(0.01):  # a server learns of it when it writes
            request.say("word ")


# The HTTP backend


def like_vllm(request: Asked) -> Reply:
    """Answer with the ids of the prompt's characters, and -0.5 as the log-probability of each token."""
    ids = request.prompt if isinstance(request.prompt, list) else [ord(letter) for letter in request.prompt]
    return Reply(
        "ab",
        "length",
        prompt_token_ids=ids,
        token_ids=(7, 8),
        logprobs=(-1.0, -2.0) if "logprobs" in request.body else None,
        prompt_logprobs=[None, *({id: {"logprob": -0.5}} for id in ids[1:])],
    )


def test_what_vllm_adds_is_found_and_used(serve: Serve) -> None:
    backend = HttpBackend(serve(like_vllm), "m")
    assert backend.capabilities == {"token_ids", "logprobs", "score", "system"}
    asked = [Request((Message("user", "Hi"),), logprobs=True), Request("Hey"), Request((5, 6))]
    answers = dict(backend.ask(asked))
    assert answers[0].logprobs == (-1.0, -2.0) and answers[0].token_ids == (7, 8) and answers[0].finish == "length"
    assert [answers[index].prompt_ids for index in range(3)] == [(72, 105), (72, 101, 121), (5, 6)]
    assert backend.logprobs([[5, 6, 7], [1, 2]]) == [[-0.5, -0.5], [-0.5]]


@pytest.mark.parametrize(
    ("model", "key", "message"),
    [
        ("herron", "sesame", r"^mine: http\S+ has no model 'herron'\. Did you mean 'heron'\? It has: heron$"),
        ("heron", "mustard", r"^mine: http\S+ refused the key that was given: set OPENAI_API_KEY to its key$"),
        ("heron", None, r"^mine: http\S+ refused a request without a key: set OPENAI_API_KEY to its key$"),
    ],
)
def test_a_remote_that_refuses_says_what_to_set(
    monkeypatch: pytest.MonkeyPatch, model: str, key: str | None, message: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    if key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
    with FakeEndpoint("x", models=("heron",), key="sesame") as fake, pytest.raises(EndpointError, match=message):
        HttpBackend.of_remote(Remote(fake.url, model), "mine")


def test_a_remote_that_is_not_there_says_so(free_tcp_port: int) -> None:
    remote = Remote(f"http://127.0.0.1:{free_tcp_port}/v1", "m")
    with pytest.raises(EndpointError, match=r"^mine: nothing answers at http.*Start it, or correct the URL"):
        HttpBackend.of_remote(remote, "mine")


def test_what_an_endpoint_refuses_it_is_not_asked_again(serve: Serve) -> None:
    asked: list[Any] = []

    def answer(request: Asked) -> str | Reply:
        asked.append(request)
        if extra := {"return_token_ids", "logprobs", "add_special_tokens"} & request.body.keys():
            return Reply(f"unknown parameter: {extra}", status=400)
        return "Hello"

    backend = HttpBackend(serve(answer), "m")
    assert backend.capabilities == {"system"} and len(asked) == 3
    answers = dict(backend.ask([Request((Message("user", "Hi"),), logprobs=True), Request("Hey", logprobs=True)]))
    assert [answers[index].text for index in range(2)] == ["Hello", "Hello"] and answers[0].logprobs is None


def test_an_error_ends_the_asking_and_a_reader_may_leave_early(serve: Serve) -> None:
    def answer(request: Asked) -> Reply:
        return Reply("no such thing", status=404) if request.prompt == "bad" else like_vllm(request)

    backend = HttpBackend(serve(answer), "m")
    with pytest.raises(EndpointError, match="no such thing"):
        list(backend.ask([Request("good"), Request("bad"), *[Request("good")] * 20]))
    answers = backend.ask([Request("good")] * 50)
    next(answers)
    answers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asking")]
