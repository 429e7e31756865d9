"""Backends: what answers for a Variant, in process or over an endpoint. Evaluations know nothing else of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from harness.errors import HarnessError, listed
from harness.nouns import Message

# token_ids: answers come with their ids and those of the prompt; logprobs: with the log-probability of each token;
# template: ids of a prompt can be computed here; score: `logprobs` of given ids; tools: the prompt has those of a
# request; system: a system message can be sent.
Capability = Literal["token_ids", "logprobs", "template", "score", "tools", "system"]
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings of one answer. A temperature of 0 is greedy; `stop` are texts that end it, left out of it."""

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask: messages (with the tools offered), a text to go on with as it is, or its token ids.

    With `logprobs` the answer has the log-probabilities of its tokens, where the backend can tell them.
    """

    prompt: tuple[Message, ...] | str | tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling: Sampling = Sampling()
    logprobs: bool = False

    @property
    def messages(self) -> tuple[Message, ...] | None:
        """The messages, or None for a text or ids."""
        if isinstance(self.prompt, str) or not all(isinstance(part, Message) for part in self.prompt):
            return None
        return self.prompt  # type: ignore[return-value]


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer. `finish` is `stop` or `length`; what a backend cannot tell is None.

    `token_ids` include the stop token where the backend has it; `logprobs` (natural log) are one for each of them.
    `reasoning` are the thoughts before the text, which is scored without them.
    """

    text: str
    finish: str
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    prompt_ids: tuple[int, ...] | None = None
    reasoning: str = ""


@dataclass(frozen=True, slots=True)
class Identity:
    """The identity of a backend for records: hashes of weights, adapter and template, the engine, dtype and device.

    None stands for what an endpoint does not report.
    """

    weights: Mapping[str, Any]
    template: Mapping[str, Any]
    engine: str
    engine_version: str | None = None
    dtype: str | None = None
    device: str | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


class Backend(Protocol):
    """Answers for one Variant."""

    @property
    def name(self) -> str:
        """The variant's name."""

    @property
    def capabilities(self) -> frozenset[Capability]:
        """Things that this backend reports besides the texts of answers."""

    @property
    def identity(self) -> Identity:
        """The hashes, engine, dtype and device behind the answers."""

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers as they finish, each with the index of its request."""

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the log-probability (natural log) of each token but the first of every sequence of ids."""


def require_capabilities(backend: Backend, needs: Iterable[Capability], purpose: str) -> None:
    """Raise HarnessError where a backend lacks what `purpose` needs."""
    if missing := [need for need in needs if need not in backend.capabilities]:
        raise HarnessError(
            f"{purpose} needs {listed(missing)} of {backend.name}, which {backend.identity.engine} does not give. "
            f"A model on this machine gives all: name its folder, hub id or run"
        )
