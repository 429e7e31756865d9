"""Open-Assistant message trees: replies ranked by people. A path becomes a Conversation, siblings become Preferences.

A row is a tree (`prompt` with `replies`), a root message with `replies`, or a single message (`message_id`,
`parent_id`, `message_tree_id`). `gather` builds trees from single messages. Köpf et al. 2023, arXiv:2304.07327.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field

import harness
from harness.data import LeftOut, shown, take
from harness.nouns import Row
from harness.options import Options
from harness_datasets.completions import Messages, Ranked, pairs, read_number

_ROLES: dict[str, harness.Role] = {"prompter": "user", "assistant": "assistant"}


class OasstOptions(Options):
    """Options of `oasst`: what a tree becomes, and which of its messages count.

    A message that does not count is left out with all replies to it. `take_as: conversations` gives one conversation a
    tree, along the best ranked answers; `preferences` gives pairs of the ranked answers to each message. `languages`
    are the languages to keep (`pt` covers pt-BR); an empty list keeps all. `min_quality` is the lowest quality label, 0
    to 1; with it, a message without the label does not count. `tree_states` applies to trees that have a state.
    """

    take_as: Literal["conversations", "preferences", "both"] = "conversations"
    languages: tuple[str, ...] = ()
    min_quality: Annotated[float, Field(ge=0, le=1)] | None = None
    tree_states: tuple[str, ...] = ("ready_for_export",)
    include_deleted: bool = False
    include_failed_review: bool = False
    include_synthetic: bool = True


@dataclass(slots=True)
class _Node:
    """A message that counts, and those of its replies that count."""

    id: str
    message: harness.Message
    rank: float | None
    replies: list[_Node] = field(default_factory=list)


def convert(row: Row, options: OasstOptions) -> list[harness.Conversation | harness.Preference] | LeftOut | None:
    """Convert the tree of one row; the result is None if the tree has no answer that counts."""
    state = take(row, "tree_state", str, "")
    if state and options.tree_states and state not in options.tree_states:
        return LeftOut(f"a tree in the state {state}")
    root = _tree(_root_of(row), options)
    if root is None:
        return LeftOut("its first message does not count")
    items: list[harness.Conversation | harness.Preference] = []
    path = _best_path(root)
    if path and options.take_as != "preferences":
        items.append(harness.Conversation(path, id=root.id))
    if options.take_as != "conversations":
        items += _preferences(root)
    return items or None


def gather(rows: Iterable[tuple[int, Row]], options: object) -> Iterator[tuple[int, Row]]:
    """Yield single messages as one row a tree, with the number of its first message; yield whole trees unchanged.

    The messages of a tree may be anywhere in a file, so all single messages are in memory until the file ends.
    """
    by_id: dict[str, tuple[int, Row]] = {}
    trees: dict[str, list[tuple[int, Row]]] = {}
    loose: list[tuple[int, Row]] = []
    for number, row in rows:
        id, parent, tree = row.get("message_id"), row.get("parent_id"), row.get("message_tree_id")
        is_single = isinstance(id, str) and isinstance(parent, str | None) and isinstance(tree, str | None)
        if not is_single or "replies" in row or "prompt" in row:
            yield number, row  # a tree already; or wrong, as `convert` will say
            continue
        by_id.setdefault(str(id), (number, row))
        if tree:
            trees.setdefault(tree, []).append((number, row))
        else:
            loose.append((number, row))
    tops: dict[str, str] = {}
    for number, row in loose:
        trees.setdefault(_top(row["message_id"], by_id, tops), []).append((number, row))
    for tree, members in sorted(trees.items(), key=lambda item: item[1][0][0]):
        first, row = members[0]
        state = next((row["tree_state"] for _, row in members if row.get("tree_state")), None)
        yield first, {"message_tree_id": tree, "tree_state": state, "messages": [row for _, row in members]}


def _top(id: str, by_id: Mapping[str, tuple[int, Row]], tops: dict[str, str]) -> str:
    """Return the id of the message at which a chain of replies begins, or any id of a circle. `tops` is a memo."""
    chain: dict[str, None] = {}
    while id not in tops and id not in chain:
        chain[id] = None
        parent = by_id[id][1].get("parent_id")
        if parent not in by_id:
            break
        id = parent
    top = tops.get(id, id)
    tops.update(dict.fromkeys(chain, top))
    return top


def _root_of(row: Row) -> tuple[Any, Mapping[str, list[Any]]]:
    """Return the root message of a row, and the replies by the id they answer if they are outside the messages."""
    if row.get("prompt") is not None:
        return row["prompt"], {}
    if row.get("messages") is None:
        return row, {}
    messages = take(row, "messages", list)
    replies: dict[str, list[Any]] = {}
    roots = []
    seen: set[str] = set()
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping):
            raise harness.DataError(f"message {number} of the tree should be an object, found {shown(message)}")
        id = take(message, "message_id", str)
        if id in seen:
            raise harness.DataError(f"the message {id!r} is there twice")
        seen.add(id)
        if (parent := take(message, "parent_id", str, "")) == "":
            roots.append(message)
        else:
            replies.setdefault(parent, []).append(message)
    if absent := [parent for parent in replies if parent not in seen]:
        child = replies[absent[0]][0]["message_id"]
        raise harness.DataError(
            f"the message {child!r} answers {absent[0]!r}, which is not among the messages of its tree"
        )
    if len(roots) != 1:
        ids = ", ".join(repr(root["message_id"]) for root in roots)
        count = f"{len(roots)}: {ids}" if roots else "none: its messages answer each other in a circle"
        raise harness.DataError(f"a tree begins with one message without parent_id, found {count}")
    reached, pending = 0, [roots[0]["message_id"]]
    while pending:
        reached += 1
        pending += [message["message_id"] for message in replies.get(pending.pop(), ())]
    if reached < len(seen):
        raise harness.DataError(
            f"{len(seen) - reached} of the tree's {len(seen)} messages answer each other in a circle, "
            f"apart from its root"
        )
    return roots[0], replies


def _tree(root: tuple[Any, Mapping[str, list[Any]]], options: OasstOptions) -> _Node | None:
    """Build the tree of the messages that count. Every message is checked, even if it does not count."""
    raw_root, elsewhere = root
    top: _Node | None = None
    pending: list[tuple[Any, _Node | None, int, str]] = [(raw_root, None, 1, "assistant")]
    while pending:
        raw, parent, turn, before = pending.pop()
        if not isinstance(raw, Mapping):
            raise harness.DataError(f"turn {turn}: a message should be an object, found {shown(raw)}")
        try:
            role, node = _node(raw)
            if role == before:
                expected = "prompter" if role == "assistant" else "assistant"
                raise harness.DataError(
                    f"the role is {role!r}, expected {expected!r}: turns alternate, a prompter begins"
                )
            counts = _counts(raw, options) and (parent is not None or turn == 1)
            replies = take(raw, "replies", list, []) or elsewhere.get(node.id, [])
        except harness.DataError as error:
            raise harness.DataError(f"turn {turn}, message {shown(raw.get('message_id'))}: {error}") from None
        if counts and parent is None:
            top = node
        elif counts and parent is not None:
            parent.replies.append(node)
        pending += [(reply, node if counts else None, turn + 1, role) for reply in reversed(replies)]
    return top


def _node(raw: Row) -> tuple[str, _Node]:
    role, text = take(raw, "role", str), take(raw, "text", str)
    for name in raw.keys() - _KEYS:
        if raw[name] not in (None, "", [], {}):
            raise harness.DataError(f"the key {name!r} would be lost: no message of a tree has it")
    if role not in _ROLES:
        raise harness.DataError(f"the role is {role!r}, expected prompter or assistant")
    return role, _Node(take(raw, "message_id", str, ""), harness.Message(_ROLES[role], text), read_number(raw, "rank"))


def _counts(raw: Row, options: OasstOptions) -> bool:
    """Return True if a message passes the filters that the options set."""
    if take(raw, "deleted", bool, False) and not options.include_deleted:
        return False
    if not take(raw, "review_result", bool, True) and not options.include_failed_review:
        return False
    if take(raw, "synthetic", bool, False) and not options.include_synthetic:
        return False
    language = take(raw, "lang", str, "").lower()
    wanted = [name.lower() for name in options.languages]
    if wanted and language not in wanted and language.partition("-")[0] not in wanted:
        return False
    if options.min_quality is None:
        return True
    quality = _quality(raw)
    return quality is not None and quality >= options.min_quality


def _quality(raw: Row) -> float | None:
    """Return the quality label of a message: `{quality: {value: 0.8}}` or `{name: [quality], value: [0.8]}`."""
    labels = take(raw, "labels", dict, {})
    names, values = labels.get("name"), labels.get("value")
    if isinstance(names, list) and isinstance(values, list):
        labels = dict(zip(map(str, names), values, strict=False))
    label = labels.get("quality")
    return read_number(
        {"labels.quality": label.get("value") if isinstance(label, Mapping) else label}, "labels.quality"
    )


def _best_path(root: _Node) -> Messages:
    """Return the path from the root along the best ranked answers to the last answer; empty if there is no answer.

    Messages of prompters are not ranked: the first one that has a reply is taken.
    """
    path, node = [root.message], root
    while node.replies:
        node = min(node.replies, key=lambda reply: (_rank(reply), reply.message.role == "user" and not reply.replies))
        path.append(node.message)
    return tuple(path[: len(path) // 2 * 2])


def _preferences(root: _Node) -> list[harness.Preference]:
    """Return the ranked answers to each message of a prompter in pairs whose weights sum to 1."""
    preferences: list[harness.Preference] = []
    pending: list[tuple[_Node, Messages]] = [(root, (root.message,))]
    while pending:
        node, path = pending.pop()
        if node.message.role == "user":
            ranked = [
                Ranked(reply.rank, (reply.message,), reply.id) for reply in node.replies if reply.rank is not None
            ]
            preferences += pairs(path, ranked)
        pending += [(reply, (*path, reply.message)) for reply in reversed(node.replies)]
    return preferences


def _rank(node: _Node) -> float:
    return float("inf") if node.rank is None else node.rank


_MESSAGE = (
    *("message_id", "parent_id?", "text", "role", "lang?", "review_result?", "deleted?", "rank?", "synthetic?"),
    *("labels?", "labels.*", "-user_id", "-created_date", "-review_count", "-model_name", "-detoxify", "-emojis"),
)
_KEYS = {name.removesuffix("?").removeprefix("-") for name in _MESSAGE} | {"replies", "message_tree_id", "tree_state"}

DATASET = harness.Dataset(
    "oasst",
    "message trees: the best path by rank, ranked siblings as preferences; by language, quality and review",
    convert,
    options=OasstOptions,
    gather=gather,
    fields=(  # `_node` accounts for the messages below: trees are as deep as they are
        ("message_tree_id", "tree_state?", "prompt.*"),
        (*_MESSAGE, "replies.*"),
        (*_MESSAGE, "message_tree_id?", "tree_state?"),
        ("message_tree_id", "tree_state?", "messages.*"),
    ),
    yields="either",
)
