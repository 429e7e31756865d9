"""The nouns of the harness as frozen data: what plugins yield and what the core passes on.

Nothing here imports torch, reads a file or knows a dataset, template or method by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

Row = Mapping[str, Any]  # what a file holds, before a dataset converts it
Role = Literal["system", "user", "assistant", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """One call the assistant makes: the tool's name and its arguments as decoded JSON."""

    name: str
    arguments: Mapping[str, Any]
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `train` says whether the loss sees it; None means "yes if the role is assistant"."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    train: bool | None = None

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r} is none of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise ValueError(f"content of the {self.role} message is {self.content!r:.60}, expected text")
        if self.train and self.role != "assistant":
            raise ValueError(f"a {self.role} message cannot be trained on, only the assistant's")

    @property
    def is_trained(self) -> bool:
        return self.role == "assistant" if self.train is None else self.train

    def as_dict(self) -> dict[str, Any]:
        """The message as chat templates and OpenAI-compatible endpoints take it.

        The keys of a call are in the order in which vLLM 0.32 passes them on: some templates print whole calls as JSON.
        """
        out: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.tool_calls:
            out["tool_calls"] = [
                ({"id": call.id} if call.id else {})
                | {"function": {"arguments": dict(call.arguments), "name": call.name}, "type": "function"}
                for call in self.tool_calls
            ]
        if self.tool_call_id is not None:
            out["tool_call_id"] = self.tool_call_id
        return out

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Message:
        """The message that `as_dict` gave."""
        functions = ((call["function"], call.get("id")) for call in raw.get("tool_calls", ()))
        calls = tuple(ToolCall(function["name"], function["arguments"], id) for function, id in functions)
        return cls(raw["role"], raw["content"], calls, raw.get("tool_call_id"))


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, the tools offered in them, and where they come from. What every supervised dataset yields."""

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    id: str = ""
    source: str = ""

    @classmethod
    def of(cls, *turns: tuple[Role, str], id: str = "", source: str = "") -> Conversation:
        """A conversation from (role, text) pairs: `Conversation.of(("user", "Hi"), ("assistant", "Hello."))`."""
        return cls(tuple(Message(role, text) for role, text in turns), id=id, source=source)

    @property
    def trained(self) -> tuple[int, ...]:
        """Indices of the messages that the loss sees."""
        return tuple(i for i, message in enumerate(self.messages) if message.is_trained)


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a chosen and a rejected completion; `margin` says by how much, where that is known.

    Where a completion was judged alone (good or bad, as for KTO), the other side is empty. `weight` is below 1 where one
    ranking became several pairs (of K completions, K(K-1)/2), so that it counts once.
    """

    prompt: tuple[Message, ...]
    chosen: tuple[Message, ...]
    rejected: tuple[Message, ...]
    margin: float | None = None
    weight: float = 1.0
    tools: tuple[Mapping[str, Any], ...] = ()
    id: str = ""
    source: str = ""


DataItem = Conversation | Preference  # what datasets yield
Reads = Literal["conversations", "preferences"]  # which of these an objective reads


@dataclass(frozen=True, slots=True)
class Match:
    """The dataset that a file is read as, where the recipe leaves that open (`auto`).

    `sureness` is in 0..1, and `why` says to people how it was chosen. `rows` is how many rows were looked at, `read` the
    share of them that the dataset can read, `named` how many fields of a row it knows on average, and `error` the reason
    for which it refuses the first row that it cannot read.
    """

    dataset: str
    sureness: float = 1.0
    why: str = ""
    rows: int = 0
    error: str | None = None
    read: float = 0.0
    named: float = 0.0


@dataclass(frozen=True, slots=True)
class Example:
    """One encoded sequence. `loss_mask[t]` is True where token t is something to learn.

    Both have one entry a token; the loss at position t-1 predicts token t, so a True at 0 is never used. They are lists, or
    an `array` and `bytes` while many are on their way to storage. `escaped` are the control-token strings that stand in its
    messages, and were encoded as text.
    """

    input_ids: Sequence[int]
    loss_mask: Sequence[bool]
    id: str = ""
    escaped: tuple[str, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:  # a dataclass's own way to another process takes ten times as long
        return Example, (self.input_ids, self.loss_mask, self.id, self.escaped)

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def supervised(self) -> int:
        """How many tokens the loss sees."""
        return sum(self.loss_mask[1:])


@dataclass(frozen=True, slots=True)
class Item:
    """What an objective reads at a time: the examples of one conversation or preference, the role of each, and figures.

    A Conversation gives one example, `answer`. A Preference gives two, `chosen` and `rejected`, which begin with the same
    prompt ids; or one of these, where a completion was judged alone. Its `extras` are `weight` and, where known, `margin`.
    """

    examples: tuple[Example, ...]
    roles: tuple[str, ...]
    extras: Mapping[str, float] = field(default_factory=dict)

    def __reduce__(self) -> tuple[Any, ...]:
        return Item, (self.examples, self.roles, self.extras)


@dataclass(frozen=True, slots=True)
class Score:
    """One measured figure: a mean over `n` items and the standard error of that mean (None where it has none)."""

    value: float
    stderr: float | None
    n: int
    higher_is_better: bool = True


@dataclass(frozen=True, slots=True)
class Sample:
    """What one variant did on one evaluation item. `id` pairs it with the same item under another variant.

    `prompt` is what a person would call the question; `input` the exact text the model was given, control tokens
    included. `weight` is how many units the item's metrics are means of (tokens of a loss), 1 for a plain item.
    """

    id: str
    metrics: Mapping[str, float]
    prompt: str = ""
    response: str = ""
    target: str = ""
    weight: float = 1.0
    category: str = ""
    input: str = ""


@dataclass(frozen=True, slots=True)
class Result:
    """The scores of one variant on one task, with the records they are made of.

    A score is named after its metric, or `metric/category` for one category's items. `details` says what else decided
    what was measured: few-shot examples, generation settings, the task's version.
    """

    task: str
    scores: Mapping[str, Score]
    samples: tuple[Sample, ...] = field(default=())
    details: Mapping[str, Any] = field(default_factory=dict)
