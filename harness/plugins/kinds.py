"""The registries of all kinds, each under its name and with the type of what it holds."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

from harness.plugins.registry import Registry

if TYPE_CHECKING:
    import click

    from harness.contract import (
        Dataset,
        Engine,
        Evaluation,
        Filter,
        Method,
        Objective,
        Shape,
        Template,
        Tracker,
    )


class Registries:
    """The registered things, by kind. The first look calls that kind's hook."""

    @abstractmethod
    def registry(self, kind: str) -> Registry[Any]:
        """Return the registry called `kind`, such as `datasets`."""

    @property
    def datasets(self) -> Registry[Dataset]:
        return self.registry("datasets")

    @property
    def shapes(self) -> Registry[Shape]:
        return self.registry("shapes")

    @property
    def filters(self) -> Registry[Filter]:
        return self.registry("filters")

    @property
    def templates(self) -> Registry[Template]:
        return self.registry("templates")

    @property
    def objectives(self) -> Registry[Objective]:
        return self.registry("objectives")

    @property
    def methods(self) -> Registry[Method]:
        return self.registry("methods")

    @property
    def evaluations(self) -> Registry[Evaluation]:
        return self.registry("evaluations")

    @property
    def engines(self) -> Registry[Engine]:
        return self.registry("engines")

    @property
    def trackers(self) -> Registry[Tracker]:
        return self.registry("trackers")

    @property
    def commands(self) -> Registry[click.Command]:
        return self.registry("commands")
