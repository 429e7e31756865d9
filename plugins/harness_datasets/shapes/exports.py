"""Rewriting of exports from chat pages and from tracing.

A chat that was edited or regenerated is a tree. Each of its branches becomes a conversation, and an answer that several
branches share is trained on in the first of them only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import harness
from harness.data import shown, take, within
from harness.nouns import Row
from harness_datasets.shapes.chats import entries, only_call

_LANGCHAIN = {
    "human": "user", "humanmessage": "user", "ai": "assistant", "aimessage": "assistant", "system": "system",
    "systemmessage": "system", "tool": "tool", "toolmessage": "tool", "user": "user", "assistant": "assistant",
}  # fmt: skip
_ABOUT_THE_PAGE = ("user_editable_context", "model_editable_context", "reasoning_recap")  # the page's, nobody's words
# The keys inside exports: what is read, and behind `-` what the programs note about it.
_OF_PARTS = ("content_type", "parts", "text", "thoughts.content")
CHATGPT_NODE = (
    *("parent", "-id", "-children", "message.author.role", "message.recipient", "message.weight"),
    *within("message.content", _OF_PARTS),
    *("-message.content.thoughts.summary", "-message.content.thoughts.chunks", "-message.content.thoughts.finished"),
    *(
        f"-message.content.{name}"
        for name in (
            *("language", "response_format_name", "url", "domain", "title", "source_analysis_msg_id"),
            *(
                "user_profile",
                "user_instructions",
                "model_set_context",
                "repository",
                "repo_summary",
                "structured_context",
            ),
        )
    ),
    *("-message.content.content", "-message.author.name", "-message.author.metadata"),
    *(f"-message.{name}" for name in ("id", "create_time", "update_time", "status", "end_turn", "metadata", "channel")),
)
CLAUDE_MESSAGE = (
    *("uuid", "text", "sender", "parent_message_uuid", "-created_at", "-updated_at", "-index", "-truncated"),
    *within("content", ("type", "text", "thinking", "id", "name", "input.*", "tool_use_id", "content")),
    *within("content.content", ("type", "text", "-uuid")),
    *(
        f"-content.{name}"
        for name in (
            *("start_timestamp", "stop_timestamp", "flags", "citations", "summaries", "cut_off", "is_error", "message"),
            *("alternative_display_type", "integration_name", "integration_icon_url", "context", "display_content"),
            *("approval_options", "approval_key", "structured_content", "meta"),
        )
    ),
    *within("attachments", ("extracted_content", "-file_name", "-file_size", "-file_type", "-id", "-created_at")),
    *("files.file_name", "files.*"),
)
_LANGCHAIN_MESSAGE = (
    *("role", "type", "content", "content.type", "content.text", "tool_call_id", "name"),
    *within("tool_calls", ("id", "type", "name", "args.*", "function.name", "function.arguments.*")),
    *within("additional_kwargs.tool_calls", ("id", "type", "-index", "function.name", "function.arguments.*")),
    *(f"-{name}" for name in ("id", "lc", "example", "response_metadata", "usage_metadata", "invalid_tool_calls")),
    *("-status", "-artifact"),
)
LANGSMITH_SIDE = (
    *_LANGCHAIN_MESSAGE,
    *within("data", _LANGCHAIN_MESSAGE),
    *within("kwargs", _LANGCHAIN_MESSAGE),
    *("text", "-generation_info"),
    *within("message", _LANGCHAIN_MESSAGE),
    *within("message.data", _LANGCHAIN_MESSAGE),
    *within("message.kwargs", _LANGCHAIN_MESSAGE),
)


# Chat pages


def chatgpt(row: Row) -> Iterator[Row]:
    """Yield a conversation for each branch of a chat in ChatGPT's export."""
    mapping = take(row, "mapping", dict)
    nodes = {id: (node.get("parent"), _chatgpt_message(node.get("message"))) for id, node in mapping.items()}
    yield from _branches(nodes, row.get("id"))


def _chatgpt_message(message: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return one message; None for one that the page does not show, or that is empty."""
    if message is None or (message.get("metadata") or {}).get("is_visually_hidden_from_conversation"):
        return None
    role, content = message["author"]["role"], message["content"]
    kind, recipient = content.get("content_type"), message.get("recipient") or "all"
    if kind in _ABOUT_THE_PAGE:
        return None
    read = "thoughts" if kind == "thoughts" else "parts" if kind in ("text", "multimodal_text") else "text"
    texts = ("parts", "text", "thoughts", "content")
    if other := next((name for name in texts if name != read and content.get(name)), None):
        raise harness.DataError(f"a message of the {role} is {shown(kind)}, and its {other!r} would be lost")
    if kind == "thoughts":
        thoughts = "\n\n".join(take(thought, "content", str) for thought in content["thoughts"])
        return {"role": role, "content": "", "reasoning_content": thoughts}
    if kind in ("text", "multimodal_text") and all(isinstance(part, str) for part in content["parts"]):
        text = "".join(content["parts"])
    elif kind in ("code", "execution_output", "tether_quote"):
        text = take(content, "text", str)
    else:
        raise harness.DataError(f"a message of the {role} holds {shown(kind)}, which is no text: {shown(content)}")
    if role == "assistant" and recipient != "all":
        calls = [only_call(recipient, {"input": text})]
        return {"role": role, "content": "", "tool_calls": calls, "weight": message.get("weight")}
    return {"role": role, "content": text, "weight": message.get("weight")} if text.strip() else None


def claude(row: Row) -> Iterator[Row]:
    """Yield a conversation for each branch of a chat in Claude's export; the text of an attachment comes first."""
    nodes: dict[str, tuple[str | None, dict[str, Any] | None]] = {}
    before = None
    for number, message in entries(row, "messages"):
        id = take(message, "uuid", str, str(number))
        parent = message.get("parent_message_uuid", before)
        nodes[id] = (parent if parent in nodes else None, _claude_message(message, number))
        before = id
    yield from _branches(nodes, row.get("id"))


def _claude_message(message: Mapping[str, Any], number: int) -> dict[str, Any] | None:
    role = {"human": "user", "assistant": "assistant"}.get(message.get("sender", ""))
    if role is None:
        raise harness.DataError(f"message {number} is from {shown(message.get('sender'))}: expected human or assistant")
    content = [part for part in message.get("content") or () if part.get("type") not in ("token_budget", "flag")]
    attached = [take(file, "extracted_content", str) for file in message.get("attachments") or ()]
    if message.get("files"):
        raise harness.DataError(f"message {number} has files, which the export does not hold")
    own = take(message, "text", str, "")
    if content and all(part.get("type") == "text" for part in content):
        rest = own
        for part in content:
            rest = rest.replace(take(part, "text", str).strip(), "", 1)
        if rest.strip():
            raise harness.DataError(
                f"message {number}: the key 'text' would be lost: its content is another: {shown(own)}"
            )
    texts = [{"type": "text", "text": f"{text}\n\n"} for text in attached]
    if not content:
        content = [{"type": "text", "text": own}]
    return {"role": role, "content": [*texts, *content]} if texts or any(map(_says, content)) else None


def _says(part: Mapping[str, Any]) -> bool:
    return part.get("type") != "text" or bool(part.get("text", "").strip())


def _branches(nodes: Mapping[str, tuple[str | None, dict[str, Any] | None]], id: Any) -> Iterator[Row]:
    """Yield the messages from the root to each leaf of a tree {id: (parent, message or None)}."""
    parents = {parent for parent, _ in nodes.values()}
    seen: set[str] = set()
    leaves = [node for node in nodes if node not in parents]
    for number, leaf in enumerate(leaves, 1):
        path: list[str] = []
        node: str | None = leaf
        while node is not None and node in nodes and node not in path:
            path.append(node)
            node = nodes[node][0]
        messages = []
        for node in reversed(path):
            message = nodes[node][1]
            if message is not None:
                is_again = node in seen and message["role"] == "assistant"
                if messages and message["role"] == "assistant" and _is_thought(messages[-1]):
                    message = messages.pop() | message
                messages.append({**message, "weight": 0} if is_again else message)
            seen.add(node)
        name = f"{id}.{number}" if id and len(leaves) > 1 else id
        yield {"messages": messages, "id": name}


def _is_thought(message: Mapping[str, Any]) -> bool:
    return "reasoning_content" in message and not message["content"]


# Tracing


def langsmith(row: Row) -> Row:
    """Rewrite an example or a run of LangSmith's: messages or one text on either side."""
    asked, answered = _side(take(row, "inputs", dict), "inputs"), _side(take(row, "outputs", dict), "outputs")
    for message in asked:
        if message["role"] == "assistant":
            message["weight"] = 0
    return {"messages": [*asked, *answered], "id": row.get("id")}


def _side(values: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return the messages of the inputs or the outputs of a run."""
    filled = {key: value for key, value in values.items() if value not in (None, "", [], {})}
    if len(filled) != 1:
        raise harness.DataError(f"{name} should hold messages or one text, found {', '.join(filled) or 'nothing'}")
    ((key, value),) = filled.items()
    while isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):  # batches of one
        value = value[0]
    if key == "generations" and isinstance(value, list):
        value = [_generated(one) for one in value]
        value = value[0] if len(value) == 1 and isinstance(value[0], str) else value
    if isinstance(value, str):
        return [{"role": "user" if name == "inputs" else "assistant", "content": value}]
    return [_langchain(message) for message in (value if isinstance(value, list) else [value])]


def _generated(one: Mapping[str, Any]) -> Any:
    """Return the message of a generation, or its text where it has no message."""
    _refuse_others(one, "content", "name", "tool_calls", "tool_call_id", "additional_kwargs", "kwargs", "data")
    message, text = one.get("message"), take(one, "text", str, "")
    if message is None:
        return text
    if text and text != (content := _langchain(message)["content"]):
        raise harness.DataError(f"a generation has the text {shown(text)} and a message that says {shown(content)}")
    return message


def _refuse_others(message: Mapping[str, Any], *names: str) -> None:
    """Raise DataError for a message with one of these keys, which have no place beside its others."""
    if other := next((name for name in names if message.get(name)), None):
        raise harness.DataError(f"the key {other!r} of a message would be lost: {shown(message)}")


def _langchain(message: Any) -> dict[str, Any]:
    """Return a message of LangChain's: a pair, serialised by type, or as its constructor."""
    if isinstance(message, list | tuple) and len(message) == 2:
        message = {"type": message[0], "content": message[1]}
    if not isinstance(message, Mapping):
        raise harness.DataError(f"a message should be an object or a pair, found {shown(message)}")
    kind = message.get("role") or message.get("type")
    inner = message.get("kwargs") if kind == "constructor" else message.get("data")
    kind = message["id"][-1] if kind == "constructor" else kind
    if isinstance(inner, Mapping):
        _refuse_others(message, "content", "text", "message", "tool_calls", "tool_call_id", "additional_kwargs", "name")
        message = inner
    _refuse_others(message, "text", "message", "kwargs", "data")
    role = _LANGCHAIN.get(str(kind).lower().removesuffix("chunk"))
    if role is None:
        raise harness.DataError(f"a message has the type {shown(kind)}: expected human, ai, system or tool")
    calls = message.get("tool_calls") or (message.get("additional_kwargs") or {}).get("tool_calls") or ()
    read = {name: message.get(name) for name in ("content", "tool_call_id", "name")} | {"role": role}
    if calls:
        read["tool_calls"] = [
            call if "function" in call else only_call(call["name"], call["args"], call.get("id")) for call in calls
        ]
    return read
