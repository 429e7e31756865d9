"""An endpoint that answers as vLLM does, by models of this process: ids, scores of given ids, stops by id."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from typing import Any

from harness.contract.backends import Request, Sampling
from harness.model.local import LocalBackend
from harness.template import tools_for_vllm
from harness.testing import FakeEndpoint, Reply
from harness.testing import Request as Received


class LikeVllm(FakeEndpoint):
    """The endpoint of several models, each a LocalBackend by its name. `received` counts the prompts by their ids."""

    def __init__(self, backends: Mapping[str, LocalBackend]) -> None:
        super().__init__(self._reply_to, models=tuple(backends))
        self.backends = backends
        self.before: list[int] = []  # ids that a server adds to each chat, where it renders wrongly
        self.one_at_a_time = threading.Lock()

    def _reply_to(self, received: Received) -> Reply:
        body, backend = received.body, self.backends[received.body["model"]]
        if "messages" in body:
            template, tools = backend.template, tools_for_vllm(body.get("tools") or ())
            text = template.renderer(
                [_as_template_takes(raw) for raw in body["messages"]], tools, True, body.get("chat_template_kwargs")
            )
            ids = [*self.before, *template.ids_of([text])[0]]
            return Reply("x", prompt_token_ids=ids, token_ids=[1], logprobs=[-1.0])
        with self.one_at_a_time:
            return self._scored(backend, body) if "prompt_logprobs" in body else self._generated(backend, body)

    def _scored(self, backend: LocalBackend, body: Mapping[str, Any]) -> Reply:
        ids = tuple(body["prompt"])
        ((_, answer),) = backend.ask([Request(ids[:1], scored=ids[1:])])
        told: list[Any] = [None]
        for token, logprob, greedy in zip(ids[1:], answer.logprobs or (), answer.is_greedy or (), strict=True):
            told.append({token: {"logprob": logprob, "rank": 1 if greedy else 2}})
        return Reply("x", prompt_logprobs=told, prompt_token_ids=ids, token_ids=[1])

    def _generated(self, backend: LocalBackend, body: Mapping[str, Any]) -> Reply:
        assert set(backend.template.stop_ids) <= set(body["stop_token_ids"])
        sampling = Sampling(body["max_tokens"], stop=tuple(body.get("stop", ())))
        ids = tuple(body["prompt"])
        ((_, answer),) = backend.ask([Request(ids, sampling=sampling)])
        return Reply(answer.text, answer.finish, prompt_token_ids=ids, token_ids=answer.token_ids)


def _as_template_takes(raw: dict[str, Any]) -> dict[str, Any]:
    """Return a message of a request with the arguments of its calls as a mapping, as vLLM hands it to the template."""
    calls = [
        call | {"function": call["function"] | {"arguments": json.loads(call["function"]["arguments"])}}
        for call in raw.get("tool_calls", ())
    ]
    return raw | {"content": raw.get("content") or ""} | ({"tool_calls": calls} if calls else {})
