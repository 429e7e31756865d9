"""The variants that a page offers, as the server has them now, and what a ballot keeps of each."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.hashing import sha256_of_files

if TYPE_CHECKING:
    from harness.contract import Endpoint
    from harness.variants import Variant


class Served(Protocol):
    """An engine as a page sees it; `harness serve`'s Supervisor is one.

    `endpoint.models` are the names that can be asked now, `variants` what is behind them. `notice` says what is the
    matter with the engine, and is empty while it runs.
    """

    @property
    def endpoint(self) -> Endpoint: ...
    @property
    def variants(self) -> Sequence[Variant]: ...
    @property
    def notice(self) -> str: ...


@dataclass(frozen=True)
class Unchanging:
    """An engine that serves the same variants from its start to its end."""

    endpoint: Endpoint
    variants: Sequence[Variant] = ()
    notice: str = ""


@dataclass(frozen=True)
class Known:
    """The names that can be asked, and what is known of each.

    `recipes` are the hashes of the recipes they were tuned by, `identities` those of adapter and template, `names`
    those by which an answer would give itself away.
    """

    models: tuple[str, ...] = ()
    recipes: Mapping[str, str | None] = field(default_factory=dict)
    identities: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()

    @property
    def first_picks(self) -> list[str]:
        """The two that Compare begins with: a tuned one beside one that is not, where there are both."""
        tuned = [name for name in self.models if name in self.recipes]
        others = [name for name in self.models if name not in self.recipes]
        return (others[:1] + tuned + others[1:])[:2]


class Catalogue:
    """The server's variants with their hashes, looked up again when they change."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._begun = secrets.token_hex(4)
        self._identities: dict[str, Mapping[str, Any]] = {}  # of all that ever were here: a name is used once
        self._known = self._looked_up()

    @property
    def notice(self) -> str:
        return self._served.notice

    @property
    def version(self) -> str:
        """Two words: the first is another after a start of the server, the second when names or notice are.

        To be asked in a thread: new files are hashed first.
        """
        self.known()
        state = json.dumps([self._served.endpoint.models, self._served.notice])
        return f"{self._begun} {hashlib.sha256(state.encode()).hexdigest()[:12]}"

    def known(self) -> Known:
        if self._known.models != tuple(self._served.endpoint.models):
            self._known = self._looked_up()
        return self._known

    def _looked_up(self) -> Known:
        models, variants = tuple(self._served.endpoint.models), self._served.variants
        for variant in variants:
            if variant.name not in self._identities:
                self._identities[variant.name] = _identity(variant)
        recipes = {
            variant.name: variant.run.manifest.get("recipe_sha256")
            for variant in variants
            if variant.run and variant.is_tuned
        }
        names = frozenset({*models, *(Path(variant.model.path).name for variant in variants)})
        return Known(models, recipes, self._identities, names)


def _identity(variant: Variant) -> dict[str, str]:
    """Return what a ballot keeps of a variant: model, and hashes of adapter and template as far as there are any."""
    hashes = {"model": variant.model.path}
    if variant.adapter is not None:
        hashes["adapter_sha256"] = sha256_of_files(variant.adapter, "*.safetensors")
    if variant.chat_folder is not None:
        hashes["template_sha256"] = sha256_of_files(variant.chat_folder, "chat_template.jinja")
    return hashes
