"""Item templates: what a world's file holds, and the items that a seed draws from them.

A template has placeholders, `{x}` or `{x.key}`, for entries that are drawn from the file's pools. Two entries that one
item draws from the same pool are different.
"""

from __future__ import annotations

import inspect
import itertools
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pydantic
from pydantic import Field
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from harness.errors import HarnessError, first_line, known_names, nearest
from harness.nouns import ROLES, Message
from harness.options import Options
from harness_evaluation.checks import CHECKS

_PLACEHOLDER = re.compile(r"\{(\w+)((?:\.\w+)*)\}")
MISSES = 100  # draws in a row that gave an item again: then a template has no more
Text = str | Annotated[tuple[str, ...], Field(min_length=1)]  # one wording, or several to draw from
Check = tuple[str, Mapping[str, Any]]  # name and arguments


class ItemTemplate(Options):
    """One template: its draws (name: pool), its messages (role: wordings), the tools offered, and the checks."""

    id: str
    category: str
    messages: Annotated[tuple[Mapping[str, Text], ...], Field(min_length=1)]
    checks: Annotated[tuple[str | Mapping[str, Mapping[str, Any]], ...], Field(min_length=1)]
    draw: Mapping[str, str] = {}
    tools: tuple[str, ...] = ()
    max_tokens: Annotated[int, Field(gt=0)] | None = None

    def named_checks(self) -> list[Check]:
        """Return the checks, those without arguments too, as (name, arguments)."""
        named: list[Check] = []
        for one in self.checks:
            named += [(one, {})] if isinstance(one, str) else one.items()
        return named


class World(Options):
    """The content of a file: pools of entries, tools by name, and templates."""

    templates: Annotated[tuple[ItemTemplate, ...], Field(min_length=1)]
    pools: Mapping[str, Annotated[tuple[Any, ...], Field(min_length=1)]] = {}
    tools: Mapping[str, Mapping[str, Any]] = {}

    @property
    def categories(self) -> list[str]:
        """The categories, in the order of the file."""
        return list(dict.fromkeys(template.category for template in self.templates))


@dataclass(frozen=True, slots=True)
class Drawn:
    """One item that was drawn: the template, the conversation, the tools offered, and the checks with their values."""

    template: ItemTemplate
    messages: tuple[Message, ...]
    tools: tuple[Mapping[str, Any], ...]
    checks: tuple[Check, ...]


def read_world(path: Path) -> World:
    """Read a world's file. Raises HarnessError, naming the file and the template, for what would fail later."""
    try:
        content = YAML(typ="safe").load(path.read_text(encoding="utf-8"))
        world = World.model_validate(content)
    except OSError as error:
        raise HarnessError(f"{path}: the file of item templates cannot be read: {error.strerror}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise HarnessError(f"{path}: not valid YAML: {getattr(error, 'problem', None) or first_line(error)}") from None
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        raise HarnessError(f"{path}: {where or 'the file'}: {problem['msg']}") from None
    seen: set[str] = set()
    for template in world.templates:
        if template.id in seen:
            raise HarnessError(f"{path}: two templates have the id {template.id!r}")
        seen.add(template.id)
        try:
            _check(template, world)
        except ValueError as error:
            raise HarnessError(f"{path}: template {template.id!r}: {error}") from None
    return world


def drawn_items(world: World, category: str, n: int, seed: int) -> Iterator[Drawn]:
    """Yield n items of a category, its templates taking turns, none twice; fewer where they do not give as many."""
    streams = [_stream(template, world, seed) for template in world.templates if template.category == category]
    seen: set[tuple[Message, ...]] = set()
    count = 0
    while streams and count < n:
        for stream in list(streams):
            fresh = (item for item in itertools.islice(stream, MISSES) if item.messages not in seen)
            if (item := next(fresh, None)) is None:
                streams.remove(stream)
                continue
            seen.add(item.messages)
            yield item
            count += 1
            if count == n:
                return


def _stream(template: ItemTemplate, world: World, seed: int) -> Iterator[Drawn]:
    """Yield draws of a template without end, by a generator of its own: another template changes none of them."""
    rng = random.Random(f"{seed} {template.id}")
    tools = tuple({"type": "function", "function": {"name": name, **world.tools[name]}} for name in template.tools)
    while True:
        entries = _entries(template.draw, world.pools, rng)
        messages = tuple(
            Message(role, _filled(rng.choice(_wordings(text)), entries))  # type: ignore[arg-type]
            for turn in template.messages
            for role, text in turn.items()
        )
        checks = tuple((name, _filled(dict(arguments), entries)) for name, arguments in template.named_checks())
        yield Drawn(template, messages, tools, checks)


def _entries(draw: Mapping[str, str], pools: Mapping[str, Sequence[Any]], rng: random.Random) -> dict[str, Any]:
    """Return an entry for each name, all that come from one pool different."""
    entries: dict[str, Any] = {}
    for pool in dict.fromkeys(draw.values()):
        names = [name for name, its_pool in draw.items() if its_pool == pool]
        entries |= zip(names, rng.sample(list(pools[pool]), len(names)), strict=True)
    return entries


def _filled(value: Any, entries: Mapping[str, Any]) -> Any:
    """Return a text, or plain data with texts in it, with its placeholders filled.

    A text that is one placeholder becomes the entry as it is, a number or a list too.
    """
    if isinstance(value, Mapping):
        return {key: _filled(inner, entries) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_filled(inner, entries) for inner in value]
    if not isinstance(value, str):
        return value
    if whole := _PLACEHOLDER.fullmatch(value):
        return _looked_up(whole, entries)
    return _PLACEHOLDER.sub(lambda match: str(_looked_up(match, entries)), value)


def _looked_up(match: re.Match[str], entries: Mapping[str, Any]) -> Any:
    """Return the value of a placeholder. Raises ValueError where nothing has its name."""
    name, keys = match[1], match[2].split(".")[1:]
    if name not in entries:
        raise ValueError(f"{match[0]}: nothing is drawn as {name!r}.{nearest(name, entries)}")
    value = entries[name]
    for key in keys:
        try:
            value = value[int(key)] if isinstance(value, list | tuple) else value[key]
        except (KeyError, IndexError, TypeError, ValueError):
            raise ValueError(f"{match[0]}: {str(entries[name])[:60]} has no {key!r}") from None
    return value


def _wordings(text: Text) -> Sequence[str]:
    return (text,) if isinstance(text, str) else text


def _check(template: ItemTemplate, world: World) -> None:
    """Raise ValueError for a name that is not there, a placeholder that nothing fills, or a check that cannot run."""
    for kind, names, known in (
        ("pool", template.draw.values(), world.pools), ("tool", template.tools, world.tools),
        ("check", [name for name, _ in template.named_checks()], CHECKS),
        ("role", [role for turn in template.messages for role in turn], ROLES),
    ):  # fmt: skip
        for name in names:
            if name not in known:
                raise ValueError(f"there is no {kind} {name!r}.{nearest(name, known)} Known are: {known_names(known)}")
    for pool in template.draw.values():
        if (need := list(template.draw.values()).count(pool)) > len(world.pools[pool]):
            raise ValueError(f"{need} different entries are drawn from the pool {pool!r}, which has fewer")
    for name, arguments in template.named_checks():
        try:
            inspect.signature(CHECKS[name]).bind(None, **arguments)
        except TypeError as error:
            raise ValueError(f"the check {name!r}: {error}") from None
    for number in range(max((len(world.pools[pool]) for pool in template.draw.values()), default=1)):
        entries = {
            name: world.pools[pool][number % len(world.pools[pool])] for name, pool in template.draw.items()
        }  # every entry once
        texts = [wording for turn in template.messages for text in turn.values() for wording in _wordings(text)]
        _filled([*texts, *(dict(arguments) for _, arguments in template.named_checks())], entries)
