"""Backends: what answers for a Variant, in process or over an endpoint. Evaluations know nothing else of a model."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

from harness.errors import HarnessError, listed
from harness.nouns import Message

# token_ids: answers come with their ids and those of the prompt; logprobs: with the log-probability of each token;
# template: ids of a prompt can be computed here; score: given ids are scored; tools: the prompt has those of a request;
# system: a system message can be sent; weights: the model is in this process.
Capability = Literal["token_ids", "logprobs", "template", "score", "tools", "system", "weights"]
CAPABILITIES: tuple[Capability, ...] = get_args(Capability)


@dataclass(frozen=True, slots=True)
class Sampling:
    """The settings of one answer. A temperature of 0 is greedy; `stop` are texts that end it, left out of it.

    An answer ends at the template's stop tokens, too. Where thoughts may come before the words, `stop` is for the words
    alone. `top_k` of 0 takes all tokens.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    top_k: int = 0


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask: messages (with the tools offered), a text to go on with as it is, or its token ids.

    With `logprobs` the answer has the log-probabilities of its tokens, where the backend can tell them. With `scored`,
    ids that follow the prompt, nothing is answered: these are scored, which takes a backend that can `score`.
    """

    prompt: tuple[Message, ...] | str | tuple[int, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    sampling: Sampling = Sampling()
    logprobs: bool = False
    scored: tuple[int, ...] = ()

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
    `reasoning` are the thoughts before the text, which is scored without them. Of a request with `scored`, these are
    the `token_ids`, and `is_greedy` says of each if it is the likeliest at its place. `seconds` passed until the answer
    was there.
    """

    text: str
    finish: str
    token_ids: tuple[int, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    prompt_ids: tuple[int, ...] | None = None
    reasoning: str = ""
    is_greedy: tuple[bool, ...] | None = None
    seconds: float | None = None


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

    @property
    def template(self) -> Any:
        """The BoundTemplate that prompts are rendered with; None where that happens elsewhere."""

    @property
    def longest(self) -> int | None:
        """The most tokens of a prompt with its answer; None where that is not known."""

    @property
    def longest_scored(self) -> int | None:
        """The most tokens of a prompt with ids that are scored behind it; None where that is not known."""

    def ask(self, requests: Sequence[Request]) -> Iterator[tuple[int, Answer]]:
        """Yield the answers as they finish, each with the index of its request."""

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the log-probability (natural log) of each token but the first of every sequence of ids."""


class Scorer:
    """The part of a Backend that follows from its `ask`: log-probabilities of whole sequences."""

    def logprobs(self: Backend, sequences: Sequence[Sequence[int]]) -> list[list[float]]:
        """Return the log-probability (natural log) of each token but the first of every sequence of ids."""
        require_capabilities(self, ("score",), "a log-probability of given ids")
        asked = [Request(tuple(ids[:1]), scored=tuple(ids[1:])) for ids in sequences]
        answers = dict(self.ask(asked))
        return [list(answers[index].logprobs or ()) for index in range(len(asked))]


def require_capabilities(backend: Backend, needs: Iterable[Capability], purpose: str) -> None:
    """Raise HarnessError where a backend lacks what `purpose` needs."""
    if missing := [need for need in needs if need not in backend.capabilities]:
        raise HarnessError(
            f"{purpose} needs {listed(missing)} of {backend.name}, which {backend.identity.engine} does not give. "
            f"A model on this machine gives all: name its folder, hub id or run"
        )
