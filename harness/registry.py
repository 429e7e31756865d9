"""What plugins have registered, by kind and name, with the plugin that each thing came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

from harness.commands import CORE_COMMANDS
from harness.errors import PluginError, UnknownNameError, known_names, nearest

KINDS = ("datasets", "filters", "templates", "objectives", "methods", "evaluations", "engines", "trackers", "commands")
T = TypeVar("T")
_LONGEST_NAME, _LONGEST_TEXT = 100, 400  # characters


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """Where a plugin comes from, and why it failed where it did."""

    name: str
    version: str
    path: str
    error: str | None = None
    details: str = ""
    distribution: str = ""  # that an installed one came with

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})".replace("  ", " ")


@dataclass(slots=True)
class Registry(Mapping[str, T], Generic[T]):
    """The registered things of one kind by name; looking up an unknown name is an error that helps."""

    kind: str
    _items: dict[str, T] = field(default_factory=dict)
    _owners: dict[str, PluginInfo] = field(default_factory=dict)

    def __getitem__(self, name: str) -> T:
        try:
            return self._items[name]
        except KeyError:
            singular = self.kind.removesuffix("s")
            raise UnknownNameError(
                f"no {singular} is named {name!r}.{nearest(name, self._items)}\n"
                f"Registered {self.kind}: {known_names(self._items)}. `harness plugins list` says who brings what."
            ) from None

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def owner(self, name: str) -> PluginInfo:
        """The plugin that registered `name`."""
        return self._owners[name]

    def owned_by(self, plugin: str) -> list[str]:
        """The names that `plugin` registered."""
        return sorted(name for name, owner in self._owners.items() if owner.name == plugin)

    def add(self, owner: PluginInfo, item: T) -> None:
        expected = _class_of(self.kind)
        if not isinstance(item, expected):
            raise PluginError(
                f"register was given {item!r}, expected a {expected.__module__.split('.')[0]}.{expected.__name__}"
            )
        name = getattr(item, "name", None)
        if not isinstance(name, str) or not name:
            raise PluginError(f"register was given {item!r}, which has no name")
        if not name.isprintable() or " " in name:
            raise PluginError(f"{name!r} cannot be typed as a name: leave out spaces and control characters")
        if len(name) > _LONGEST_NAME or name.startswith(".") or set(name) & set("/\\"):
            raise PluginError(
                f"{name[:_LONGEST_NAME]!r} cannot be a name: files are named after it. It has up to {_LONGEST_NAME} characters, "
                f"no slash, and no dot at its beginning"
            )
        if self.kind != "commands":
            _check_declared(item)
            item = _readable(item)
        if self.kind == "commands" and name in CORE_COMMANDS:
            raise PluginError(f"{name!r} is a command of the harness itself; give yours another name")
        if name in self._items:
            raise PluginError(
                f"{self.kind.removesuffix('s')} {name!r} is already registered by {self._owners[name]}; "
                f"{owner} claims it too. Disable one with HARNESS_DISABLE_PLUGINS={owner.name}"
            )
        self._items[name], self._owners[name] = item, owner

    def forget(self, plugin: str) -> None:
        for name in self.owned_by(plugin):
            del self._items[name], self._owners[name]


def _readable(item: Any) -> Any:
    """The declaration with texts that a terminal can show: one line, without control characters, and not endless."""
    texts = {name: getattr(item, name) for name in ("description", "licence") if hasattr(item, name)}
    clean = {name: "".join(filter(str.isprintable, " ".join(text.split()))) for name, text in texts.items()}
    cut = {
        name: text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…" for name, text in clean.items()
    }
    return item if cut == texts else replace(item, **cut)


def _check_declared(item: Any) -> None:
    """Raises PluginError for a declaration that would break where a recipe uses it."""
    from harness.declarations import Dataset, Template
    from harness.options import Options

    options = getattr(item, "options", Options)
    optional = isinstance(item, Dataset | Template) and options is None
    if not optional and not (isinstance(options, type) and issubclass(options, Options)):
        raise PluginError(f"{item.name!r} has the options {options!r}, expected a subclass of harness.Options")
    for part in ("convert", "jinja", "stop_tokens", "apply", "save", "loss", "run", "start", "create"):
        if hasattr(item, part) and not callable(getattr(item, part)):
            raise PluginError(f"{item.name!r}: {part} should be a function, found {getattr(item, part)!r}")
    if getattr(item, "produces", "model") not in ("adapter", "model"):
        raise PluginError(f"{item.name!r} produces {item.produces!r}, expected 'adapter' or 'model'")
    for part in ("description", "licence"):
        if not isinstance(text := getattr(item, part, ""), str):
            raise PluginError(f"{item.name!r}: the {part} should be text, found {text!r}")
    reads = getattr(item, "reads", ())
    if not isinstance(reads, tuple | list) or not all(isinstance(path, str | os.PathLike) for path in reads):
        raise PluginError(f"{item.name!r}: reads should be a tuple of paths, found {reads!r}")
    source = getattr(item, "source", None)
    if source is not None and not isinstance(source, str | os.PathLike):
        raise PluginError(f"{item.name!r}: the source should be a path, found {source!r}")


def _class_of(kind: str) -> type:
    """The class of what is registered under `kind`. Looked up late: declarations are not needed for `--help`."""
    if kind == "commands":
        import click

        return click.Command
    from harness import declarations

    declared: type = getattr(declarations, kind.removesuffix("s").capitalize())
    return declared
