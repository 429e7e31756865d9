"""The client: one request, many at once and a stream, with errors that name the endpoint and its log."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from harness.contract import Endpoint
from harness.errors import HarnessError

pytest.importorskip("openai")
from harness.client.asking import Client, EndpointError, models_of, post, post_all
from harness.client.served import HttpBackend
from harness.contract import Request
from harness.nouns import Message

Answer = tuple[int, Any]


@pytest.fixture
def serve() -> Iterator[Callable[..., Endpoint]]:
    """Serve `reply(path, body) -> (status, answer)`; a list is streamed, piece by piece, until the client hangs up."""
    servers = []

    def start(reply: Callable[[str, Any], Answer], hung_up: threading.Event | None = None) -> Endpoint:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                status, answer = reply(self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                if isinstance(answer, list):
                    self.send_header("Content-Type", "text/event-stream")
                    self.end_headers()
                    try:
                        for piece in answer:
                            self.wfile.write(f"data: {json.dumps(piece)}\n\n".encode())
                        while hung_up is not None:
                            self.wfile.write(f"data: {json.dumps(answer[0])}\n\n".encode())
                    except OSError:
                        assert hung_up is not None
                        hung_up.set()
                    return
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

            def do_GET(self) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps({"data": [{"id": "m", "max_model_len": 7}]}).encode())

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return Endpoint(f"http://127.0.0.1:{server.server_port}/v1", ("m",), "sesame", {"log": "/tmp/its.log"})

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def test_answers_come_in_the_order_of_the_questions(serve) -> None:  # type: ignore[no-untyped-def]
    endpoint = serve(lambda path, body: (200, {"path": path, "echo": body["prompt"]}))
    answers = post_all(endpoint, "/completions", [{"model": "m", "prompt": str(n)} for n in range(20)])
    assert [answer["echo"] for answer in answers] == [str(n) for n in range(20)]
    assert {answer["path"] for answer in answers} == {"/v1/completions"}
    assert models_of(endpoint) == [{"id": "m", "max_model_len": 7}]


def test_a_refusal_names_the_endpoint_its_reply_and_its_log(serve) -> None:  # type: ignore[no-untyped-def]
    endpoint = serve(lambda path, body: (400, {"error": {"message": "too many cooks"}}))
    with pytest.raises(EndpointError) as refused:
        post(endpoint, "/completions", {"model": "m", "prompt": "x"})
    assert str(refused.value) == f"{endpoint.url} refused the request (400): too many cooks\nThe log: /tmp/its.log"
    assert (refused.value.status, refused.value.reply) == (400, "too many cooks")


def test_a_server_that_fails_is_asked_once_where_no_retry_is_wanted(serve) -> None:  # type: ignore[no-untyped-def]
    asked: list[Any] = []

    def reply(path: str, body: Any) -> Answer:
        asked.append(body)
        return 500, {"error": {"message": "out of memory"}}

    with pytest.raises(HarnessError, match=r"(?s)went on failing; the last was 500: out of memory.*/tmp/its.log"):
        post(serve(reply), "/completions", {"model": "m", "prompt": "x"})
    assert len(asked) == 1


def test_nothing_behind_the_url_is_an_error_that_names_it(free_tcp_port: int) -> None:
    endpoint = Endpoint(f"http://127.0.0.1:{free_tcp_port}/v1", ("m",))
    with pytest.raises(EndpointError, match=r"nothing answers at http://127.0.0.1:\d+/v1"):
        models_of(endpoint)
    with pytest.raises(EndpointError, match="is no URL of an endpoint"):
        post(Endpoint("localhost:8000", ("m",)), "/completions", {})


def piece(text: str, finish: str | None = None, **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return {"id": "1", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]} | more


def test_a_stream_gives_text_finish_and_tokens(serve) -> None:  # type: ignore[no-untyped-def]
    usage = {"prompt_tokens": 1, "completion_tokens": 9, "total_tokens": 10}
    endpoint = serve(lambda path, body: (200, [piece("The "), piece("heron", "stop"), piece("", None, usage=usage)]))

    async def ask() -> list[Any]:
        async with Client(endpoint.url) as client:
            return [delta async for delta in client.stream({"model": "m", "messages": []})]

    deltas = asyncio.run(ask())
    assert "".join(delta.text for delta in deltas) == "The heron"
    assert [delta.finish for delta in deltas if delta.finish] == ["stop"]
    assert [delta.completion_tokens for delta in deltas if delta.completion_tokens] == [9]


def test_a_stream_that_is_closed_hangs_up(serve) -> None:  # type: ignore[no-untyped-def]
    hung_up = threading.Event()
    endpoint = serve(lambda path, body: (200, [piece("word ")]), hung_up)

    async def ask() -> None:
        async with Client(endpoint.url) as client, aclosing(client.stream({"model": "m", "messages": []})) as deltas:
            async for _ in deltas:
                break

    asyncio.run(ask())
    assert hung_up.wait(60)


# The HTTP backend


def like_vllm(path: str, body: Any) -> Answer:
    """Answer with the ids of the prompt's characters, and -0.5 as the log-probability of each token."""
    prompt = body.get("prompt") or body["messages"][-1]["content"]
    ids = prompt if isinstance(prompt, list) else [ord(letter) for letter in prompt]
    choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "token_ids": [7, 8]}
    if path.endswith("/chat/completions"):
        content = [{"logprob": -1.0}, {"logprob": -2.0}] if body.get("logprobs") else None
        choice |= {"message": {"role": "assistant", "content": "ab"}, "logprobs": content and {"content": content}}
        return 200, {"choices": [choice], "prompt_token_ids": ids if body.get("return_token_ids") else None}
    choice |= {"text": "ab", "prompt_token_ids": ids}
    if "prompt_logprobs" in body:
        choice["prompt_logprobs"] = [None, *({str(id): {"logprob": -0.5}} for id in ids[1:])]
    return 200, {"choices": [choice]}


def test_what_vllm_adds_is_found_and_used(serve) -> None:  # type: ignore[no-untyped-def]
    backend = HttpBackend(serve(like_vllm), "m")
    assert backend.capabilities == {"token_ids", "logprobs", "score"}
    asked = [Request((Message("user", "Hi"),), logprobs=True), Request("Hey"), Request((5, 6))]
    answers = dict(backend.ask(asked))
    assert answers[0].logprobs == (-1.0, -2.0) and answers[0].token_ids == (7, 8) and answers[0].finish == "length"
    assert [answers[index].prompt_ids for index in range(3)] == [(72, 105), (72, 101, 121), (5, 6)]
    assert backend.logprobs([[5, 6, 7], [1, 2]]) == [[-0.5, -0.5], [-0.5]]


def test_what_an_endpoint_refuses_it_is_not_asked_again(serve) -> None:  # type: ignore[no-untyped-def]
    asked: list[Any] = []

    def reply(path: str, body: Any) -> Answer:
        asked.append(body)
        if extra := {"return_token_ids", "logprobs", "add_special_tokens"} & body.keys():
            return 400, {"error": {"message": f"unknown parameter: {extra}"}}
        return 200, {
            "choices": [{"index": 0, "message": {"content": "Hello"}, "text": "Hello", "finish_reason": "stop"}]
        }

    backend = HttpBackend(serve(reply), "m")
    assert backend.capabilities == frozenset() and len(asked) == 2
    answers = dict(backend.ask([Request((Message("user", "Hi"),), logprobs=True), Request("Hey", logprobs=True)]))
    assert [answers[index].text for index in range(2)] == ["Hello", "Hello"] and answers[0].logprobs is None


def test_an_error_ends_the_asking_and_a_reader_may_leave_early(serve) -> None:  # type: ignore[no-untyped-def]
    def reply(path: str, body: Any) -> Answer:
        if "bad" in str(body):
            return 404, {"error": {"message": "no such thing"}}
        return like_vllm(path, body)

    backend = HttpBackend(serve(reply), "m")
    with pytest.raises(EndpointError, match="no such thing"):
        list(backend.ask([Request("good"), Request("bad"), *[Request("good")] * 20]))
    answers = backend.ask([Request("good")] * 50)
    next(answers)
    answers.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asking")]
