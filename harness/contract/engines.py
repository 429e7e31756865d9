"""Engines: servers of the variants of one base model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from harness.contract.backends import Capability
from harness.contract.checking import require_functions, require_options, require_texts
from harness.errors import PluginError

if TYPE_CHECKING:
    from harness.options import Options


@dataclass(frozen=True, slots=True)
class Capacity:
    """The adapters that an engine was started for: how many at once, their highest rank, the modules they may change.

    `modules` are the last parts of the modules' names, as in `q_proj`.
    """

    slots: int
    rank: int
    modules: frozenset[str]


class Control(Protocol):
    """The hold on a running engine that only whoever started it has. `key` is a key that opens what others cannot ask.

    A loaded adapter answers to `key` alone until it is published. `load` raises HarnessError where the adapter does not
    fit the engine or the other variants, and where the engine does not use every module of its files.
    """

    key: str
    capacity: Capacity | None

    def ended(self) -> str | None:
        """Return why the engine has ended, or None while it runs."""

    def load(self, variant: Any, beside: Sequence[Any]) -> None:
        """Load a variant's adapter on every replica under its name, beside the other variants that are served."""

    def publish(self, name: str) -> None:
        """Let everyone ask a loaded adapter."""

    def unload(self, name: str) -> bool:
        """Take an adapter away once its answers have ended. Returns False where they go on, and it keeps its slot."""

    def drain(self) -> int:
        """Refuse requests from now on, and return the number of those that are still answered."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running OpenAI-compatible server: its `/v1` URL, and the model name under which each variant answers.

    `settings` are its settings with the defaults filled in, for people to read. `capabilities` are what it reports
    besides the texts of answers: with `token_ids`, prompts are compared with training's; with `score`, adapters are
    checked. Whatever it does not declare is shown as unverified. `version` is the engine's. `headers` are sent with
    each request. `replicas` has the headers by which each copy of the model is asked, where there are several.
    """

    url: str
    models: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)
    capabilities: frozenset[Capability] = frozenset()
    version: str | None = None
    control: Control | None = field(default=None, repr=False, compare=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    replicas: tuple[Mapping[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Engine:
    """A server of variants of one base model. `start(variants, options, report)` yields the healthy Endpoint.

    `report(text)` is called with a description of the current step of the start. Leaving the context stops every
    process that the engine started. The options have `host`, `port`, `api_key` (a SecretStr or None) and `allow_hosts`,
    host names to accept besides the machine's own. `default` selects it in recipes that name none; first-party only.
    `parsers(chat_folder)` names the engine's parsers of thoughts (`reasoning`) and calls (`tools`) that read what a
    saved template writes; None for what none reads. `reasoning_remark` and `tools_remark` say what such a parser
    loses, or why there is none.
    `refuses(variant)` says why the engine would not serve a variant's adapter, or None: `harness tune` asks before it
    trains one. `unable(variants, options)` says why the engine could not serve these variants together on this machine,
    or None: `harness evaluate` asks before it starts one. Without it, an engine only serves. `measuring()` returns the
    options, by name, that a measurement sets where nobody else waits for the machine; those of a recipe are stronger.
    """

    name: str
    description: str
    options: type[Options]
    start: Callable[[tuple[Any, ...], Any, Callable[[str], None]], AbstractContextManager[Endpoint]]
    default: bool = False
    parsers: Callable[[Path], Mapping[str, str | None]] | None = None
    refuses: Callable[[Any], str | None] | None = None
    unable: Callable[[tuple[Any, ...], Any], str | None] | None = None
    measuring: Callable[[], Mapping[str, Any]] | None = None


def check_engine(engine: Engine) -> None:
    """Raise PluginError for a declaration that would fail when a recipe uses it."""
    require_functions(engine, start="variants, options, report")
    if engine.refuses is not None:
        require_functions(engine, refuses="variant")
    if engine.unable is not None:
        require_functions(engine, unable="variants, options")
    require_options(engine)
    require_texts(engine, "description")
    set_by_serve = ("host", "port", "api_key", "allow_hosts")
    if missing := [name for name in set_by_serve if name not in engine.options.model_fields]:
        raise PluginError(
            f"{engine.name!r}: its options have no {', '.join(missing)}. `harness serve` sets "
            f"{', '.join(set_by_serve)}: add the missing ones to {engine.options.__name__}"
        )
