"""Messages, conversations and preferences: the items that datasets yield."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

Row = Mapping[str, Any]  # a row of a file, before a dataset converts it
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
    """One turn. `train` says if the loss sees it; None means "yes if the role is assistant".

    `reasoning` are the assistant's thoughts before its words and calls: a field of their own, not text of `content`.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    train: bool | None = None
    reasoning: str = ""

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ValueError(f"role {self.role!r} is not one of {', '.join(ROLES)}")
        if not isinstance(self.content, str):
            raise ValueError(f"content of the {self.role} message is {self.content!r:.60}, expected text")
        if not isinstance(self.reasoning, str):
            raise ValueError(f"reasoning of the {self.role} message is {self.reasoning!r:.60}, expected text")
        if self.reasoning and self.role != "assistant":
            raise ValueError(f"a {self.role} message has no reasoning, only the assistant's")
        if self.train and self.role != "assistant":
            raise ValueError(f"a {self.role} message cannot be trained on, only the assistant's")

    @property
    def is_trained(self) -> bool:
        return self.role == "assistant" if self.train is None else self.train

    def as_dict(self) -> dict[str, Any]:
        """Return the message in the form of chat templates and OpenAI-compatible endpoints.

        The keys of a call are in the order in which vLLM 0.32 passes them on: some templates print whole calls as JSON.
        Thoughts have both of the names under which it passes them on.
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
        if self.reasoning:
            out["reasoning"] = out["reasoning_content"] = self.reasoning
        return out

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Message:
        """Return the message that `as_dict` was called on."""
        functions = ((call["function"], call.get("id")) for call in raw.get("tool_calls", ()))
        calls = tuple(ToolCall(function["name"], function["arguments"], id) for function, id in functions)
        reasoning = raw.get("reasoning") or raw.get("reasoning_content") or ""
        return cls(raw["role"], raw["content"], calls, raw.get("tool_call_id"), reasoning=reasoning)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, the tools offered in them, and their source. Every supervised dataset yields conversations.

    Each of its supervised tokens counts by `weight`, in the loss and in its divisor.
    """

    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...] = ()
    id: str = ""
    source: str = ""
    weight: float = 1.0

    @classmethod
    def of(cls, *turns: tuple[Role, str], id: str = "", source: str = "", weight: float = 1.0) -> Conversation:
        """Return a conversation of (role, text) pairs: `Conversation.of(("user", "Hi"), ("assistant", "Hello."))`."""
        return cls(tuple(Message(role, text) for role, text in turns), id=id, source=source, weight=weight)

    @property
    def trained(self) -> tuple[int, ...]:
        """The indices of the messages that the loss sees."""
        return tuple(i for i, message in enumerate(self.messages) if message.is_trained)


def without_thoughts(conversation: Conversation) -> Conversation:
    """Return the conversation without the thoughts of its answers."""
    if not any(message.reasoning for message in conversation.messages):
        return conversation
    messages = (replace(message, reasoning="") if message.reasoning else message for message in conversation.messages)
    return replace(conversation, messages=tuple(messages))


@dataclass(frozen=True, slots=True)
class Preference:
    """A prompt with a chosen and a rejected completion. `margin` is the difference in quality, if known.

    If a completion was judged alone (good or bad, as for KTO), the other side is empty. `weight` is below 1 if one
    ranking became several pairs (K completions make K(K-1)/2 pairs), so that the ranking counts once.
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
# What an objective reads. Pairs are preferences with both completions, none that was judged alone.
Reads = Literal["conversations", "preferences", "pairs"]


def messages_of(item: DataItem) -> tuple[Message, ...]:
    """Return all messages of an item; of a preference the prompt's, then both completions'."""
    return item.messages if isinstance(item, Conversation) else item.prompt + item.chosen + item.rejected


@dataclass(frozen=True, slots=True)
class Match:
    """The dataset that was chosen for a file by `auto`.

    `sureness` is in 0..1, and `why` explains the choice to people. `rows` is the number of rows examined, `read` the
    share of them that the dataset can read, `named` the average number of fields of a row that it knows, and `error`
    its message about the first row that it cannot read. `unread` are columns of
    the rows that it would drop: then it is not chosen.
    """

    dataset: str
    sureness: float = 1.0
    why: str = ""
    rows: int = 0
    error: str | None = None
    read: float = 0.0
    named: float = 0.0
    unread: tuple[str, ...] = ()
