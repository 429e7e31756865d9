"""Entry points of the group `harness`: the door by which installed plugins come in, our own among them."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from harness.errors import PluginError, nearest
from harness.plugins.registry import FIRST_PARTY, PluginInfo

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENTRY_POINT_GROUP = "harness"
OUR_DISTRIBUTION = "instruct-harness"
ONLY = "HARNESS_ONLY_PLUGINS"


class Installed(NamedTuple):
    """An entry point, the distribution that it came with, and the folder that this is installed in."""

    name: str
    value: str
    distribution: str = ""
    version: str = ""
    folder: str = ""

    @classmethod
    def of(cls, entry: EntryPoint) -> Installed:
        """Return an entry point as the standard library gives it, in the form that the index keeps."""
        if entry.dist is None:
            return cls(entry.name, entry.value)
        return cls(
            entry.name,
            entry.value,
            entry.dist.name,
            entry.dist.version,
            os.path.realpath(str(entry.dist.locate_file(""))),
        )

    @property
    def owner(self) -> str:
        """The distribution; `harness` for our own."""
        return FIRST_PARTY if self.distribution == OUR_DISTRIBUTION else self.distribution or self.name

    @property
    def module(self) -> str:
        """The dotted name of the module."""
        return self.value.partition("[")[0].partition(":")[0].strip()

    @property
    def info(self) -> PluginInfo:
        """The plugin, as far as it is known before it is imported."""
        name = self.name if self.owner == self.name else f"{self.owner}/{self.name}"
        return PluginInfo(name, self.owner, self.version, self.value, distribution=self.distribution)

    @property
    def order(self) -> tuple[bool, str, str]:
        """The place among all: ours come first, then by name."""
        return self.owner != FIRST_PARTY, self.owner, self.name

    def load(self) -> Any:
        """Import the module, and return it or what the entry point names of it."""
        plugin: Any = import_module(self.module)
        for attribute in filter(None, self.value.partition("[")[0].partition(":")[2].strip().split(".")):
            if not hasattr(plugin, attribute):
                raise PluginError(
                    f"its entry point is `{self.name} = {self.value!r}`, and {self.module} has no {attribute!r}."
                    f"{nearest(attribute, dir(plugin))} The module alone will do: `{self.name} = {self.module!r}`"
                )
            plugin = getattr(plugin, attribute)
        return plugin


def only_entries() -> list[EntryPoint] | None:
    """Return the entry points that HARNESS_ONLY_PLUGINS leaves: our own, and modules by their names; None without it.

    A test sets it, so that no process that it starts knows what else happens to be installed.
    """
    if (names := os.environ.get(ONLY)) is None:
        return None
    from importlib.metadata import EntryPoint

    return [*own_entries(), *(EntryPoint(name, name, ENTRY_POINT_GROUP) for name in names.split(",") if name)]


def own_entries() -> list[EntryPoint]:
    """Return the entry points that come with the harness."""
    from importlib.metadata import entry_points

    return [one for one in entry_points(group=ENTRY_POINT_GROUP) if one.dist and one.dist.name == OUR_DISTRIBUTION]


def installed() -> list[Installed]:
    """Return the entry points of everything that is installed."""
    import importlib.metadata  # not for a start that finds them in the index

    return list(map(Installed.of, importlib.metadata.entry_points(group=ENTRY_POINT_GROUP)))
