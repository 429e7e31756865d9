"""The backends that variants are measured through: one engine for all of a base, or each in this process, and why."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.client.ports import free_port
from harness.contract.backends import Capability, Identity, Request, Scorer
from harness.errors import HarnessError, known_names, listed

if TYPE_CHECKING:
    from harness.checks.serving import Checked
    from harness.contract import Backend, Endpoint, Engine
    from harness.plugins import Plugins
    from harness.variants import Variant

Kind = Literal["auto", "engine", "local"]
AT_ONCE = 64  # requests under way at an engine, of all variants together
KEY_VARIABLE = "HARNESS_API_KEY"  # as of `harness serve`


@dataclass(frozen=True, slots=True)
class Choice:
    """The way in which the variants of this machine are asked, and the reason, for people and for records."""

    kind: Literal["engine", "endpoint", "local", "remote", "none"]
    reason: str
    engine: Engine | None = None
    options: Any = None
    url: str | None = None


@dataclass(frozen=True)
class Unasked(Scorer):
    """A Backend that answers nothing, for evaluations that ask nothing: the name and identity of a variant."""

    variant: Variant
    template: Any = None
    longest: int | None = None
    longest_scored: int | None = None
    capabilities: frozenset[Capability] = frozenset()

    @property
    def name(self) -> str:
        return self.variant.name

    @property
    def identity(self) -> Identity:
        from harness.measure.weights import weights_of

        remote = self.variant.remote
        weights = weights_of(self.variant) if remote is None else {"model": str(remote), "revision": None}
        return Identity(weights, {"name": "none", "sha256": None, "stop_tokens": []}, "none")

    def ask(self, requests: Sequence[Request]) -> Any:
        raise HarnessError(f"{self.name}: the evaluation was declared with asks=False, and asks")


def choose(
    variants: Sequence[Variant],
    needs: Mapping[str, Sequence[str]],
    plugins: Plugins,
    wanted: Kind = "auto",
    url: str | None = None,
    engine_name: str | None = None,
) -> Choice:
    """Choose the engine where one can run and serves all these variants, else this process.

    Args:
        needs: the capabilities that each evaluation needs, by its name; of those only that ask.
        url: an engine that runs already.
        engine_name: the engine to start, whatever the recipe names.

    Raises:
        HarnessError: where an engine is wanted and cannot be had.
    """
    if engine_name is not None and (url is not None or wanted == "local"):
        raise HarnessError(
            f"--engine starts one, which {'--endpoint' if url else '--backend local'} excludes: leave one out"
        )
    here = tuple(variant for variant in variants if variant.remote is None)
    if not needs:
        return Choice("none", "no evaluation asks a model")
    if not here:
        return Choice("remote", "every variant is behind an endpoint")
    why_not = _why_not_elsewhere(here, needs)
    if url is not None:
        if why_not:
            raise HarnessError(f"--endpoint: {why_not}; without it, --backend local loads the weights")
        return Choice("endpoint", "joined by --endpoint", url=url)
    if wanted == "local":
        return Choice("local", "asked for by --backend local")
    engine, options, unable = _engine(here, plugins, engine_name)
    why_not = why_not or unable
    if why_not is None:
        reason = f"{engine.name} serves all these variants" if engine_name is None else "asked for by --engine"
        return Choice("engine", reason, engine, options)
    if wanted == "engine" or engine_name is not None:
        option = "--backend engine" if engine_name is None else f"--engine {engine_name}"
        raise HarnessError(f"{option}: {why_not}. Leave it out, and the weights are loaded in this process")
    return Choice("local", why_not)


def _why_not_elsewhere(variants: Sequence[Variant], needs: Mapping[str, Sequence[str]]) -> str | None:
    """Return why the weights must be in this process, or None."""
    if needing := [name for name, its in needs.items() if "weights" in its]:
        return f"{listed(needing)} with these options needs the weights in this process"
    if scoring := [variant.name for variant in variants if variant.head is not None]:
        return f"{scoring[0]} is a reward model, which no engine serves"
    return None


def _engine(variants: tuple[Variant, ...], plugins: Plugins, name: str | None) -> tuple[Engine, Any, str | None]:
    """Return the engine with its options for measuring, and why it could not serve the variants here, or None."""
    from harness.checks.serving import engine_of, validated

    engine, chosen = engine_of(plugins, variants, name)
    own = engine.measuring() if engine.measuring is not None else {}
    chosen = {**own, **chosen, "host": "127.0.0.1", "port": free_port(), "api_key": None, "allow_hosts": ()}
    options = validated(engine, chosen)
    if engine.unable is not None:
        return engine, options, engine.unable(variants, options)
    if name is not None:
        return engine, options, None
    return engine, options, f"the engine {engine.name!r} does not say if it can run here (`unable`); --engine starts it"


@contextlib.contextmanager
def rounds(
    variants: Sequence[Variant],
    choice: Choice,
    plugins: Plugins,
    report: Callable[[str], contextlib.AbstractContextManager[Callable[[str], None]]],
) -> Iterator[Iterator[list[Backend]]]:
    """Yield the backends that are measured together, round by round; what a round loaded is let go at the next.

    Args:
        report: opens a display of the current step of an engine's start.
    """
    with contextlib.ExitStack() as stack:
        yield _rounds(variants, choice, plugins, report, stack)


def _rounds(
    variants: Sequence[Variant], choice: Choice, plugins: Plugins, report: Any, stack: contextlib.ExitStack
) -> Iterator[list[Backend]]:
    from harness.client.served import HttpBackend

    if choice.kind == "none":
        yield [Unasked(variant) for variant in variants]
        return
    remote: dict[str, Backend] = {
        variant.name: HttpBackend.of_remote(variant.remote, variant.name)
        for variant in variants
        if variant.remote is not None
    }
    here = tuple(variant for variant in variants if variant.remote is None)
    if choice.kind == "local":
        if remote:
            yield list(remote.values())
        yield from _in_this_process(here, plugins, choice.reason)
        return
    backends: dict[str, Backend] = dict(remote)
    if here:
        with report("the engine") as tell:
            backends |= _of_engine(here, choice, plugins, tell, stack)
    yield [backends[variant.name] for variant in variants]


def _in_this_process(variants: Sequence[Variant], plugins: Plugins, reason: str) -> Iterator[list[Backend]]:
    from harness.model.load import load_in_turn
    from harness.model.local import LocalBackend

    for loaded in load_in_turn(variants, plugins):
        yield [LocalBackend(loaded, reason=reason)]
        del loaded  # before the next is loaded


def local_backend(variant: Variant, plugins: Plugins) -> Backend:
    """Return the Backend of a variant that is loaded into this process."""
    from harness.model.load import load_variant
    from harness.model.local import LocalBackend

    return LocalBackend(load_variant(variant, plugins))


def _of_engine(
    variants: tuple[Variant, ...],
    choice: Choice,
    plugins: Plugins,
    tell: Callable[[str], None],
    stack: contextlib.ExitStack,
) -> dict[str, Backend]:
    """Start or join the engine, check it, and return a backend for each variant, by name."""
    from harness.checks.serving import checked, started
    from harness.client.asking import models_of
    from harness.client.engine import Served, backend_of
    from harness.model.templates import load_template

    if choice.engine is not None:
        ready = stack.enter_context(started(choice.engine, choice.options, variants, plugins, tell))
        name = choice.engine.name
    else:
        endpoint, name = _joined(str(choice.url), variants)
        ready = checked(endpoint, _with_templates(variants, plugins, stack), None, tell)
    listed_models = models_of(ready.endpoint)
    longest = next((model.get("max_model_len") for model in listed_models), None)
    dtype = getattr(choice.options, "dtype", None)
    served = Served(ready.endpoint, name, ready.endpoint.version, dtype, longest, _checks(ready, choice))
    concurrency = max(1, AT_ONCE // len(variants))
    return {
        variant.name: backend_of(served, variant, load_template(variant, plugins), concurrency)
        for variant in ready.variants
    }


def _joined(url: str, variants: Sequence[Variant]) -> tuple[Endpoint, str]:
    """Return a running engine that has all variants under their names, and the name of its kind."""
    from harness.client.asking import models_of
    from harness.client.served import probed
    from harness.contract import Endpoint

    names = tuple(variant.name for variant in variants)
    endpoint = Endpoint(url.rstrip("/"), names, os.environ.get(KEY_VARIABLE))
    entries = models_of(endpoint)
    known = [entry["id"] for entry in entries]
    if missing := [name for name in names if name not in known]:
        raise HarnessError(
            f"--endpoint {url}: it does not serve {listed(missing)}. It has: {known_names(known)}. "
            f"`harness serve {' '.join(names)}` serves all of them"
        )
    capabilities = probed(endpoint, names[0])
    if lacking := [need for need in ("token_ids", "score") if need not in capabilities]:
        raise HarnessError(
            f"--endpoint {url}: it does not take token ids and score them as vLLM does (no {listed(lacking)}). As a "
            f"remote model it can be asked in words: 'openai:{url}#{names[0]}'"
        )
    kind = next((str(entry["owned_by"]) for entry in entries if entry.get("owned_by")), url)
    return dataclasses.replace(endpoint, capabilities=capabilities), kind


def _with_templates(
    variants: tuple[Variant, ...], plugins: Plugins, stack: contextlib.ExitStack
) -> tuple[Variant, ...]:
    from harness.model.templates import with_chat_folders

    folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-chat-"))
    return with_chat_folders(variants, plugins, Path(folder) / "chat")


def _checks(ready: Checked, choice: Choice) -> dict[str, Any]:
    """Return what records say of the engine: why it was asked, its settings, and how its checks ended."""
    settings = {key: value for key, value in ready.endpoint.settings.items() if key not in ("log", "model")}
    adapters = {one.variant: {"mean_difference": one.mean, "tells_apart": one.tells_apart} for one in ready.agreements}
    parity = ready.parity.unverified or list(ready.parity.compared)
    return {"reason": choice.reason, "settings": settings, "parity": parity, "adapters": adapters}
