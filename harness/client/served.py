"""The HTTP backend: a model behind an OpenAI-compatible endpoint, and what vLLM adds to the API where it is there."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.client.asking import (
    SYNC_LIMITS,
    Client,
    EndpointError,
    Limits,
    UnreachableError,
    check_model,
    client_of,
    post,
    post_all,
)
from harness.contract import Endpoint
from harness.contract.backends import Answer, Capability, Identity, Request, Scorer
from harness.nouns import Message, Remote

SCORED = "harness_scored"  # tells our engine how many of a prompt's last tokens are scored; others pass it over
_TOOL = {"type": "function", "function": {"name": "now", "description": "The time.", "parameters": {"type": "object"}}}


class HttpBackend(Scorer):
    """One model of an endpoint, whose capabilities are probed once, on creation: by requests of one token.

    Raises:
        EndpointError: where the endpoint does not answer, refuses the key, or does not have the model.
    """

    template: Any = None  # prompts are rendered at the endpoint
    longest: int | None = None
    longest_scored: int | None = None

    def __init__(self, endpoint: Endpoint, model: str, name: str | None = None, limits: Limits | None = None) -> None:
        self.endpoint, self.model, self.name = endpoint, model, name or model
        self.limits = limits or Limits(concurrency=8)
        check_model(endpoint, model)
        self.capabilities = probed(endpoint, model)

    @classmethod
    def of_remote(cls, remote: Remote, name: str) -> HttpBackend:
        """Return the backend of a remote model, with the key from the environment. Raises EndpointError with advice."""
        endpoint = Endpoint(remote.url, (remote.model,), os.environ.get(remote.key_variable))
        try:
            return cls(endpoint, remote.model, name)
        except EndpointError as error:
            advice = ""
            if error.status in (401, 403):
                advice = f": set {remote.key_variable} to its key"
            elif isinstance(error, UnreachableError):
                advice = ". Start it, or correct the URL; it usually ends with /v1"
            raise EndpointError(f"{name}: {error}{advice}", error.status, error.reply) from None

    @property
    def identity(self) -> Identity:
        weights = {"model": str(Remote(self.endpoint.url, self.model)), "revision": None}
        return Identity(weights, {"name": "the endpoint's", "sha256": None, "stop_tokens": []}, self.endpoint.url)

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers as they finish. Raises EndpointError; what was not answered by then is not waited for."""
        finished: queue.Queue[tuple[int, Answer] | BaseException | None] = queue.Queue()
        loop = asyncio.new_event_loop()
        work = loop.create_task(self._ask(requests, finished))
        thread = threading.Thread(target=_run, args=(loop, work, finished), name="asking", daemon=True)
        thread.start()
        try:
            while (item := finished.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            if thread.is_alive():
                loop.call_soon_threadsafe(work.cancel)
            thread.join()
            loop.close()

    async def _ask(self, requests: Sequence[Request], finished: queue.Queue[Any]) -> None:
        async with client_of(self.endpoint, self.limits) as client, asyncio.TaskGroup() as group:
            for index, request in enumerate(requests):
                group.create_task(self._one(client, index, request, finished))

    async def _one(self, client: Client, index: int, request: Request, finished: queue.Queue[Any]) -> None:
        began = time.perf_counter()
        path, body = self._body(request)
        if request.scored:
            answer = await client.post(path, body, functools.partial(read_scores, request))
        else:
            answer = self._read(request, await client.post(path, body, _answer))
        finished.put((index, replace(answer, seconds=time.perf_counter() - began)))

    def _read(self, request: Request, answer: Answer) -> Answer:
        return answer

    def _body(self, request: Request) -> tuple[str, dict[str, Any]]:
        """Return the path and the JSON of a request."""
        sampling = request.sampling
        if request.scored:
            assert request.messages is None and not isinstance(request.prompt, str), "scored ids follow given ids"
            body = scoring_body(self.model, (*request.prompt, *request.scored))
            return "/completions", body | {"vllm_xargs": {SCORED: len(request.scored)}}
        body = {
            "model": self.model,
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        if sampling.seed is not None:
            body["seed"] = sampling.seed
        if sampling.top_k:
            body["top_k"] = sampling.top_k
        if sampling.stop:
            body["stop"] = list(sampling.stop)
        if "token_ids" in self.capabilities:
            body["return_token_ids"] = True
        wants_logprobs = request.logprobs and "logprobs" in self.capabilities
        if (messages := request.messages) is None:
            prompt = request.prompt if isinstance(request.prompt, str) else list(request.prompt)
            logprobs = {"logprobs": 0} if wants_logprobs else {}
            bare = {"add_special_tokens": False} if "token_ids" in self.capabilities else {}  # of vLLM's own
            return "/completions", body | {"prompt": prompt} | bare | logprobs
        body["messages"] = [as_openai(message) for message in messages]
        if request.tools:
            body |= {"tools": list(request.tools), "tool_choice": "none"}
        return "/chat/completions", body | ({"logprobs": True} if wants_logprobs else {})


def probed(endpoint: Endpoint, model: str) -> frozenset[Capability]:
    """Probe an endpoint with the parameters of each capability; one that it refuses or ignores is missing."""
    capabilities: set[Capability] = set()
    chat: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 1}
    added: dict[Capability, dict[str, Any]] = {
        "token_ids": {"return_token_ids": True},
        "logprobs": {"logprobs": True},
        "system": {"messages": [{"role": "system", "content": "Be brief."}, *chat["messages"]]},
    }
    for capability, more in added.items():
        try:
            answer = _answer(post(endpoint, "/chat/completions", chat | more))
        except EndpointError as error:
            if error.status not in (400, 422):
                raise
            continue
        given = {"token_ids": answer.prompt_ids, "logprobs": answer.logprobs}
        if given.get(capability, answer.text) is not None:
            capabilities.add(capability)
    if "token_ids" in capabilities:  # an endpoint that returns no ids takes none either
        with_ids = chat | added["token_ids"]
        ids = _answer(post(endpoint, "/chat/completions", with_ids)).prompt_ids or ()
        try:
            offered = _answer(post(endpoint, "/chat/completions", with_ids | {"tools": [_TOOL], "tool_choice": "none"}))
            if len(offered.prompt_ids or ()) > len(ids):  # a template without tools leaves them out
                capabilities.add("tools")
        except EndpointError:
            pass
        try:
            scores(endpoint, [(model, ids)])
            capabilities.add("score")
        except (EndpointError, KeyError, TypeError, IndexError, ValueError):
            pass
    return frozenset(capabilities)


def scores(
    endpoint: Endpoint, asked: Sequence[tuple[str, Sequence[int]]], limits: Limits = SYNC_LIMITS
) -> list[list[float]]:
    """Return, for each (model, ids), the log-probability of each token but the first, as vLLM computes them.

    All are asked at once where `limits` let them, so that they share batches as people's requests do.
    """
    answers = post_all(endpoint, "/completions", [scoring_body(model, ids) for model, ids in asked], limits)
    return [
        [entry["logprob"] for entry in _scored_entries(answer, ids[1:])]
        for (_, ids), answer in zip(asked, answers, strict=True)
    ]


def scoring_body(model: str, ids: Sequence[int]) -> dict[str, Any]:
    """Return the body of a completion by which vLLM scores the ids of its prompt; it always answers a token, too."""
    return {
        "model": model,
        "prompt": list(ids),
        "max_tokens": 1,
        "temperature": 0,
        "prompt_logprobs": 0,
        "add_special_tokens": False,
    }


def read_scores(request: Request, answer: Any) -> Answer:
    """Read the scores of a request's `scored` ids: a token of rank 1 is the likeliest."""
    entries = _scored_entries(answer, request.scored)
    return Answer(
        "",
        "",
        request.scored,
        tuple(entry["logprob"] for entry in entries),
        tuple(request.prompt),  # type: ignore[arg-type]
        is_greedy=tuple(entry.get("rank") == 1 for entry in entries),
    )


def _scored_entries(answer: Any, ids: Sequence[int]) -> list[Mapping[str, Any]]:
    """Return what vLLM tells of the last ids of a prompt, one entry each."""
    entries = answer["choices"][0]["prompt_logprobs"]
    behind = entries[len(entries) - len(ids) :]
    return [entry[str(token)] for token, entry in zip(ids, behind, strict=True)]


def as_openai(message: Message) -> dict[str, Any]:
    """Return a message as an OpenAI client sends it: arguments as a JSON string, no content beside tool calls."""
    out: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        out["content"] = message.content or None
        out["tool_calls"] = [
            {
                "id": call.id or f"call{number:05}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(dict(call.arguments), ensure_ascii=False)},
            }
            for number, call in enumerate(message.tool_calls)
        ]
    if message.tool_call_id is not None:
        out["tool_call_id"] = message.tool_call_id
    if message.reasoning:
        out["reasoning"] = message.reasoning
    return out


def _answer(answer: Any) -> Answer:
    """Read an answer of either API, with the ids that vLLM adds."""
    choice = answer["choices"][0]
    message, logprobs = choice.get("message"), choice.get("logprobs") or {}
    thoughts = "" if message is None else message.get("reasoning") or message.get("reasoning_content") or ""
    if message is None:
        text, chosen = choice["text"], logprobs.get("token_logprobs")
    else:
        text, content = message["content"], logprobs.get("content")
        chosen = None if content is None else [token["logprob"] for token in content]
    prompt_ids = answer.get("prompt_token_ids") or choice.get("prompt_token_ids")
    token_ids = choice.get("token_ids")
    return Answer(
        text or "",
        choice.get("finish_reason") or "stop",
        None if token_ids is None else tuple(token_ids),
        None if chosen is None else tuple(chosen),
        None if prompt_ids is None else tuple(prompt_ids),
        thoughts,
    )


def _run(loop: asyncio.AbstractEventLoop, work: asyncio.Task[None], finished: queue.Queue[Any]) -> None:
    """Run `work` to its end, which is put into the queue: None, or the error that ended it."""
    try:
        loop.run_until_complete(work)
        finished.put(None)
    except asyncio.CancelledError:
        finished.put(None)
    except BaseExceptionGroup as failed:  # one failed, the others were cancelled
        finished.put(failed.exceptions[0])
    except BaseException as error:
        finished.put(error)
