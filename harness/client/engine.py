"""The backends of an engine's variants: asked in token ids where the engine tells them, else through its chat.

In ids, prompts are rendered and answers read here, by the variant's own template, as the local backend does it; the
parity check (`harness.checks`) shows that the engine's chat gives the same. A chat's prompts nobody can compare.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from harness.client.asking import Limits
from harness.client.served import HttpBackend
from harness.contract import Endpoint
from harness.contract.backends import Answer, Capability, Identity, Request
from harness.measure.weights import weights_of
from harness.template import BoundTemplate
from harness.template.exchange import (
    RENDERED,
    identity_of,
    prompt_ids,
    read_answer,
    rendered_by,
    require_fits,
    stops_of,
)
from harness.variants import Variant

ASK_TIMEOUT_S = 3600.0  # a request waits in the engine's queue, behind those of all variants


@dataclass(frozen=True, slots=True)
class Served:
    """An engine that was started or joined, as records name it. `longest` are the most tokens of prompt and answer."""

    endpoint: Endpoint
    engine: str
    version: str | None = None
    dtype: str | None = None
    longest: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def backend_of(served: Served, variant: Variant, template: BoundTemplate, concurrency: int = 32) -> HttpBackend:
    """Return the backend of a variant that an engine serves under its name, by what the engine tells."""
    if "token_ids" in served.endpoint.capabilities:
        return EngineBackend(served, variant.name, variant, template, concurrency)
    return ChatBackend(served, variant, concurrency)


class ChatBackend(HttpBackend):
    """One variant of an engine that tells no token ids: the engine renders its prompts and ends its answers.

    It is capable of what the engine declares, as far as probing it shows the same.
    """

    def __init__(self, served: Served, variant: Variant, concurrency: int = 32) -> None:
        super().__init__(served.endpoint, variant.name, limits=_limits(concurrency))
        self.served, self.variant, self.longest = served, variant, served.longest
        self.capabilities &= {*served.endpoint.capabilities, *RENDERED}

    @functools.cached_property
    def identity(self) -> Identity:
        return _identity(self.served, self.variant, {"name": "the engine's", "sha256": None, "stop_tokens": []})


class EngineBackend(HttpBackend):
    """One variant of an engine that is asked in token ids, under the name `model` there.

    Args:
        concurrency: the requests that may be under way at once.
    """

    def __init__(
        self, served: Served, model: str, variant: Variant, template: BoundTemplate, concurrency: int = 32
    ) -> None:
        self.served, self.variant, self.template = served, variant, template
        self.endpoint, self.model, self.name = served.endpoint, model, variant.name
        self.limits = _limits(concurrency)
        self.longest = served.longest
        self.longest_scored = None if served.longest is None else served.longest - 1  # vLLM answers a token, too
        self._stops = functools.cache(functools.partial(stops_of, template))
        here: frozenset[Capability] = frozenset(("template", *rendered_by(template)))
        self.capabilities = (served.endpoint.capabilities - {*RENDERED}) | here

    @functools.cached_property
    def identity(self) -> Identity:
        return _identity(self.served, self.variant, identity_of(self.template))

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers as they finish. Raises HarnessError for a prompt that does not fit, before any is sent."""
        asked = [replace(request, prompt=tuple(prompt_ids(self.template, request)), tools=()) for request in requests]
        for request in asked:
            require_fits(self, len(request.prompt), request)
        yield from super().ask(asked)

    def _body(self, request: Request) -> tuple[str, dict[str, Any]]:
        path, body = super()._body(request)
        if request.scored:
            return path, body
        stops = self._stops(request.sampling.stop)
        body.pop("stop", None)
        if stops.texts:
            body["stop"] = list(stops.texts)
        return path, body | {"stop_token_ids": list(stops.ids)}

    def _read(self, request: Request, answer: Answer) -> Answer:
        assert answer.token_ids is not None, "an engine that is asked in ids answers in ids"
        stops = self._stops(request.sampling.stop)
        read = read_answer(self.template, request.prompt, answer.token_ids, stops)  # type: ignore[arg-type]
        logprobs = answer.logprobs[: read.length] if answer.logprobs is not None else None
        return Answer(
            read.text,
            read.finish,
            answer.token_ids[: read.length],
            logprobs,
            request.prompt,  # type: ignore[arg-type]
            read.reasoning,
        )


def _limits(concurrency: int) -> Limits:
    return Limits(concurrency=concurrency, max_retries=2, timeout_s=ASK_TIMEOUT_S)


def _identity(served: Served, variant: Variant, template: Mapping[str, Any]) -> Identity:
    dtype = served.dtype or variant.model.dtype
    return Identity(weights_of(variant), template, served.engine, served.version, dtype, None, dict(served.more))
