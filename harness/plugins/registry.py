"""Registries: what plugins registered of one kind, by name, each with its owner.

A name that two claim keeps both, as `owner:name`. The bare name stays the first-party's; between others it is
ambiguous, which is an error that names them.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field, is_dataclass, replace
from typing import Any, Generic, TypeVar

from harness.contract.kinds import Kind
from harness.errors import HarnessError, PluginError, UnknownNameError, known_names, nearest

FIRST_PARTY = "harness"  # the owner of what comes with the harness
SLOW_S = 0.3  # an import that a person notices
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


def reason_of(error: BaseException, info: PluginInfo) -> str:
    """Return what went wrong in a plugin, as a person reads it."""
    if isinstance(error, HarnessError):
        return str(error)
    lacks = f" (`pip check` names what {info.distribution} lacks)" if info.distribution else ""
    return f"{type(error).__name__}: {error}".rstrip(": ") + (lacks if isinstance(error, ModuleNotFoundError) else "")


@dataclass(frozen=True, slots=True)
class Claim:
    """A name that a plugin registers, which the index knows before the plugin is imported.

    `under` is the group that a command is added to, `summary` its line of help.
    """

    name: str
    plugin: PluginInfo
    under: str | None = None
    summary: str = ""
    default: bool = False

    @property
    def qualified(self) -> str:
        return f"{self.plugin.owner}:{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry(Claim, Generic[T]):
    """One registered thing."""

    item: T


@dataclass(slots=True)
class Registry(Mapping[str, T], Generic[T]):
    """The registered things of one kind by name, bare or as `owner:name`; an unknown name is an error that helps.

    Iterating gives the shortest name of each: `owner:name` only where the bare one means another, or is `reserved`.
    `loaded` are the plugins that can register something. `load` imports one that the index has spared, and replaces
    its claims; or all of them, for None. It returns False where it did nothing.
    """

    kind: Kind
    reserved: Container[str] = ()
    loaded: Mapping[str, PluginInfo] = field(default_factory=dict)
    load: Callable[[str | None], bool] = lambda plugin: False
    claims: list[Claim] = field(default_factory=list)

    def __getitem__(self, name: str) -> T:
        return self.entry(name).item

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and len(self._meant(name)) == 1

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(name for name, _ in self.named()))

    def __len__(self) -> int:
        return len(self.claims)

    @property
    def entries(self) -> list[Entry[T]]:
        """The registered things, for which every plugin that has one is imported."""
        for plugin in {claim.plugin.name: None for claim in self.claims if not isinstance(claim, Entry)}:
            self.load(plugin)
        return self.at_hand

    @property
    def at_hand(self) -> list[Entry[T]]:
        """The registered things of plugins that are imported already."""
        return [claim for claim in self.claims if isinstance(claim, Entry)]

    def named(self) -> list[tuple[str, Claim]]:
        """Return each claim with its shortest name."""
        return [(self._shortest(claim), claim) for claim in self.claims]

    def entry(self, name: str) -> Entry[T]:
        """Return the entry called `name`. Raises UnknownNameError where there is none, or more than one."""
        claims = self._meant(name)
        if len(claims) == 1 and not isinstance(claims[0], Entry) and self.load(claims[0].plugin.name):
            claims = self._meant(name)
        if len(claims) == 1 and isinstance(claims[0], Entry):
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
        return sorted(self._shortest(claim) for claim in self.claims if claim.plugin.name == plugin)

    @property
    def defaults(self) -> list[str]:
        """The names of what recipes get that name none."""
        return [claim.name for claim in self.claims if claim.default]

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
        is_default = bool(getattr(item, "default", False))
        if is_default and plugin.owner != FIRST_PARTY:
            raise PluginError(f"{name!r}: only what comes with the harness can be a default")
        summary = help_of(300) if (help_of := getattr(item, "get_short_help_str", None)) else ""
        return self.claim(Entry(name, plugin, under, summary, is_default, item=_readable(item)))

    def claim(self, claim: Claim) -> str | None:
        """Add a name; return a warning where it is somebody else's too. Raises PluginError where it is its own."""
        others = [other for other in self.claims if other.name == claim.name]
        if same := [other for other in others if other.qualified == claim.qualified]:
            raise PluginError(f"{self.kind.name} {claim.name!r} is registered already, by {same[0].plugin}")
        self.claims.append(claim)
        if not others and claim.name not in self.reserved:
            return None
        holder = others[0].plugin if others else "the harness itself"
        return f"{self.kind.name} {claim.name!r} is also registered by {holder}: `{claim.qualified}` names this one"

    def remove(self, plugin: str) -> None:
        """Take back everything that `plugin` registered."""
        self.claims[:] = [claim for claim in self.claims if claim.plugin.name != plugin]

    def _meant(self, name: str) -> list[Claim]:
        """Return the claims that `name` may mean, with those of plugins that are imported only now if need be."""
        return self._claims(name) or (self._claims(name) if self.load(None) else [])

    def _claims(self, name: str) -> list[Claim]:
        """Return the claims that `name` may mean: one, where it is clear."""
        exact = [claim for claim in self.claims if claim.qualified == name]
        if exact or name in self.reserved:
            return exact
        bare = [claim for claim in self.claims if claim.name == name]
        ours = [claim for claim in bare if claim.plugin.owner == FIRST_PARTY]
        return ours or bare

    def _shortest(self, claim: Claim) -> str:
        return claim.name if self._claims(claim.name) == [claim] else claim.qualified

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
