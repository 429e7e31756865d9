"""Registries: what plugins registered of one kind, by name, each with its owner.

A name that two claim keeps both, as `owner:name`. The bare name stays the first-party's; between others it is
ambiguous, which is an error that names them.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Generic, TypeVar

from harness.contract.kinds import Kind
from harness.errors import PluginError, UnknownNameError, known_names, nearest

FIRST_PARTY = "harness"  # the owner of what comes with the harness
LONGEST_NAME, LONGEST_TEXT = 100, 400  # characters
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PluginInfo:
    """A plugin: its name, where it comes from, and why it failed where it did.

    `owner` is the distribution it came with, or the stem of its file: what stands before the colon in `owner:name`.
    """

    name: str
    owner: str
    version: str
    path: str
    error: str | None = None
    details: str = ""
    distribution: str = ""  # that an installed one came with
    import_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.name} {self.version} ({self.path})".replace("  ", " ")


@dataclass(frozen=True, slots=True)
class Entry(Generic[T]):
    """One registered thing and the plugin that registered it. `under` is the group that a command is added to."""

    name: str
    item: T
    plugin: PluginInfo
    under: str | None = None

    @property
    def qualified(self) -> str:
        return f"{self.plugin.owner}:{self.name}"


@dataclass(slots=True)
class Registry(Mapping[str, T], Generic[T]):
    """The registered things of one kind by name, bare or as `owner:name`; an unknown name is an error that helps.

    Iterating gives the shortest name of each: `owner:name` only where the bare one means another, or is `reserved`.
    `loaded` are the plugins that can register something.
    """

    kind: Kind
    reserved: Container[str] = ()
    loaded: Mapping[str, PluginInfo] = field(default_factory=dict)
    entries: list[Entry[T]] = field(default_factory=list)

    def __getitem__(self, name: str) -> T:
        return self.entry(name).item

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and len(self._claims(name)) == 1

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(map(self._shortest, self.entries)))

    def __len__(self) -> int:
        return len(self.entries)

    def entry(self, name: str) -> Entry[T]:
        """Return the entry called `name`. Raises UnknownNameError where there is none, or more than one."""
        claims = self._claims(name)
        if len(claims) == 1:
            return claims[0]
        if claims:
            both = " and ".join(f"`{claim.qualified}` ({claim.plugin.path})" for claim in claims)
            raise UnknownNameError(f"{self.kind.name} {name!r} is ambiguous: write {both.replace(' and ', ' or ', 1)}")
        owner, colon, _ = name.partition(":")
        if colon and owner not in {info.owner for info in self.loaded.values()}:
            raise UnknownNameError(
                f"no {self.kind.name} is named {name!r}: the plugin `{owner}` is not loaded. Name its file with "
                f"`harness --plugin FILE`, or install it; `harness plugins list` shows what is loaded"
            )
        raise UnknownNameError(
            f"no {self.kind.name} is named {name!r}.{nearest(name, self)}\n"
            f"Registered {self.kind.plural}: {known_names(self)}. `harness plugins list` says who brings what."
        )

    def owner(self, name: str) -> PluginInfo:
        """Return the plugin that registered `name`."""
        return self.entry(name).plugin

    def owned_by(self, plugin: str) -> list[str]:
        """Return the names that `plugin` registered."""
        return sorted(self._shortest(entry) for entry in self.entries if entry.plugin.name == plugin)

    @property
    def defaults(self) -> list[str]:
        """The names of what recipes get that name none."""
        return [entry.name for entry in self.entries if getattr(entry.item, "default", False)]

    @property
    def default(self) -> str:
        """The name of the one that recipes get that name none. Raises PluginError where there is none."""
        if not self.defaults:
            raise PluginError(
                f"no {self.kind.name} is named, and the default is not there: its plugin is switched off (with "
                f"HARNESS_DISABLE_PLUGINS) or broken (see `harness plugins list`). Registered {self.kind.plural}: "
                f"{known_names(self)}"
            )
        return self.defaults[0]

    def add(self, plugin: PluginInfo, item: Any, under: str | None = None) -> str | None:
        """Add what `plugin` registers; return a warning where the name is somebody else's too.

        Raises:
            PluginError: where it is nothing of this kind, cannot be named, or was registered before by the same owner.
        """
        name = self._named(item)
        if under is not None:
            if self.reserved and under not in self.reserved:
                raise PluginError(
                    f"{name!r} is to be under {under!r}: the harness itself has no such group of commands"
                )
            name = f"{under} {name}"
        self.kind.check(item)
        entry = Entry(name, _readable(item), plugin, under)
        if getattr(item, "default", False) and plugin.owner != FIRST_PARTY:
            raise PluginError(f"{entry.name!r}: only what comes with the harness can be a default")
        others = [other for other in self.entries if other.name == entry.name]
        if same := [other for other in others if other.qualified == entry.qualified]:
            raise PluginError(f"{self.kind.name} {entry.name!r} is registered already, by {same[0].plugin}")
        self.entries.append(entry)
        if not others and entry.name not in self.reserved:
            return None
        holder = others[0].plugin if others else "the harness itself"
        return f"{self.kind.name} {entry.name!r} is also registered by {holder}: `{entry.qualified}` names this one"

    def remove(self, plugin: str) -> None:
        """Take back everything that `plugin` registered."""
        self.entries[:] = [entry for entry in self.entries if entry.plugin.name != plugin]

    def _claims(self, name: str) -> list[Entry[T]]:
        """Return the entries that `name` may mean: one, where it is clear."""
        exact = [entry for entry in self.entries if entry.qualified == name]
        if exact or name in self.reserved:
            return exact
        bare = [entry for entry in self.entries if entry.name == name]
        ours = [entry for entry in bare if entry.plugin.owner == FIRST_PARTY]
        return ours or bare

    def _shortest(self, entry: Entry[T]) -> str:
        return entry.name if self._claims(entry.name) == [entry] else entry.qualified

    def _named(self, item: Any) -> str:
        if not isinstance(item, self.kind.item):
            package = self.kind.item.__module__.split(".")[0]
            raise PluginError(f"register was given {item!r:.200}, expected a {package}.{self.kind.item.__name__}")
        name = getattr(item, "name", None)
        if not isinstance(name, str) or not name:
            raise PluginError(f"register was given {item!r:.200}, which has no name")
        if not name.isprintable() or set(name) & set(" :"):
            raise PluginError(
                f"{name!r:.120} cannot be typed as a name: leave out spaces, colons and control characters"
            )
        if len(name) > LONGEST_NAME or name.startswith(".") or set(name) & set("/\\"):
            raise PluginError(
                f"{name[:LONGEST_NAME]!r} cannot be a name: files are named after it. It has up to {LONGEST_NAME} "
                f"characters, no slash, and no dot at its beginning"
            )
        return name


def _readable(item: T) -> T:
    """Return the declaration with texts that a terminal can show: one line, no control characters, and not endless."""
    if not is_dataclass(item):
        return item
    texts = {name: getattr(item, name) for name in ("description", "licence") if hasattr(item, name)}
    clean = {name: "".join(filter(str.isprintable, " ".join(text.split()))) for name, text in texts.items()}
    cut = {name: text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…" for name, text in clean.items()}
    return item if cut == texts else replace(item, **cut)  # type: ignore[type-var]
