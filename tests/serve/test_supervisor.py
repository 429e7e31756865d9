"""An engine that ends is started again, with what it served; one that goes on ending is given up."""

from __future__ import annotations

import contextlib
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness_serve import supervisor as supervising
from harness_serve.door import asked, doors, opened, socket_path
from harness_serve.engine import VllmOptions
from harness_serve.guard import Names
from harness_serve.listening import bound
from harness_serve.stand_in import stand_in
from harness_serve.supervisor import MOST_RESTARTS, Supervisor

import harness
from harness import HarnessError
from harness.contract import Endpoint
from harness.contract.engines import Capacity
from harness.plugins import Plugins
from harness.recipe import ModelSpec
from harness.variants import Variant


class Control:
    """The hold on an engine that ends when it was asked `lives` times."""

    key, capacity = "control", Capacity(4, 8, frozenset(("q_proj",)))

    def __init__(self, lives: float) -> None:
        self.lives = lives

    def ended(self) -> str | None:
        self.lives -= 1
        return None if self.lives > 0 else "the engine has ended: out of paper"


class Fragile:
    """An engine without a process; each start takes the next of `lives`: a number, or an error."""

    def __init__(self, *lives: float | HarnessError) -> None:
        self.lives = list(lives)
        self.started: list[tuple[str, ...]] = []
        self.refused: set[str] = set()
        self.running = 0

    @contextlib.contextmanager
    def start(self, variants: tuple[Variant, ...], options: Any, report: Any) -> Iterator[Endpoint]:
        self.started.append(tuple(variant.name for variant in variants))
        life = self.lives.pop(0) if self.lives else float("inf")
        if isinstance(life, HarnessError):
            raise life
        self.running += 1
        try:
            yield Endpoint("http://nowhere/v1", ("base", *self.started[-1]), control=Control(life))
        finally:
            self.running -= 1

    def refuses(self, variant: Variant) -> str | None:
        return "its adapter is gone" if variant.name in self.refused else None


@pytest.fixture
def watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Supervisor, list[float], list[str]]]:
    """Return a function that watches an engine to the end of its last life: its supervisor, the pauses, the words."""

    def watch(engine: Fragile, added: tuple[str, ...] = ()) -> tuple[Supervisor, list[float], list[str]]:
        pauses: list[float] = []
        words: list[str] = []

        def sleep(seconds: float) -> None:
            if seconds >= 1:
                pauses.append(seconds)
            elif getattr(supervisor.control, "lives", 0) == float("inf"):
                raise KeyboardInterrupt

        monkeypatch.setattr(supervising.time, "sleep", sleep)
        kind = harness.Engine("fragile", "ends", VllmOptions, engine.start, refuses=engine.refuses)
        model = ModelSpec(path=str(tmp_path))
        variants = [Variant(name, model, tmp_path, tmp_path) for name in ("alpha", "beta")]
        supervisor = Supervisor(kind, VllmOptions(), variants, Plugins(), tmp_path)
        with supervisor:
            supervisor.start()
            supervisor._added += [Variant(name, model, tmp_path, tmp_path) for name in added]
            with contextlib.suppress(KeyboardInterrupt):
                supervisor.watch(words.append)
        assert engine.running == 0
        return supervisor, pauses, words

    return watch


def test_an_engine_that_ends_is_started_again_with_what_was_added(watched: Callable[..., Any]) -> None:
    engine = Fragile(3)
    supervisor, pauses, words = watched(engine, added=("gamma-1234abcd",))
    assert engine.started == [("alpha", "beta"), ("alpha", "beta", "gamma-1234abcd")]
    assert pauses == [1] and supervisor.notice == ""
    assert "out of paper" in words[0] and "again in 1 s (try 1 of 5)" in words[0]
    assert words[-1] == "The engine runs again: base, alpha, beta, gamma-1234abcd"


def test_weights_that_are_served_are_not_added_again(tmp_path: Path) -> None:
    """Under whatever name they are served, and as they are now: a run may have been tuned again since the start."""
    (tmp_path / "alpha").mkdir()
    (tmp_path / "alpha/adapter_config.json").write_text('{"base_model_name_or_path": "somebody/model"}')
    (tmp_path / "alpha/adapter_model.safetensors").write_bytes(b"weights")
    shutil.copytree(tmp_path / "alpha", tmp_path / "copy")
    kind = harness.Engine("fragile", "ends", VllmOptions, Fragile().start)
    alpha = Variant("alpha", ModelSpec(path="somebody/model"), tmp_path / "alpha", tmp_path)
    with Supervisor(kind, VllmOptions(), [alpha], Plugins(), tmp_path) as supervisor:
        supervisor.start()
        done = supervisor.add(str(tmp_path / "copy"))
        assert (done["name"], done["added"]) == ("alpha", False) and not list(supervisor._folder.glob("added-*"))
        (tmp_path / "copy/adapter_model.safetensors").write_bytes(b"changed")
        with pytest.raises(AttributeError, match="load"):  # the engine is asked
            supervisor.add(str(tmp_path / "copy"))
        assert not [*supervisor._folder.glob("added-*")]  # no copy stays that nothing serves


def test_a_question_without_a_part_is_answered_with_what_it_lacks(tmp_path: Path) -> None:
    with (
        socket_path() as path,
        opened(path, tmp_path, "http://127.0.0.1:9/v1", 9, lambda question, report: question["variant"]),
    ):
        (door,) = doors(tmp_path)
        assert list(asked(door, {"do": "add"})) == [{"error": "the question to the server lacks 'variant'"}]


def test_each_end_doubles_the_pause_until_it_is_given_up(watched: Callable[..., Any]) -> None:
    lives = [2, 2, HarnessError("no memory"), 2, 2, 2, 2]
    engine = Fragile(*lives)
    with pytest.raises(HarnessError, match=r"ended 6 times in a row; at last: .*out of paper"):
        watched(engine)
    assert len(engine.started) == MOST_RESTARTS + 1


def test_a_pause_is_twice_the_one_before(watched: Callable[..., Any]) -> None:
    assert watched(Fragile(2, 2, HarnessError("no memory"), 2))[1] == [1, 2, 4, 8]


def test_an_adapter_that_is_gone_is_left_out_and_named(watched: Callable[..., Any]) -> None:
    engine = Fragile(2)
    engine.refused.add("beta")
    _, _, words = watched(engine)
    assert engine.started == [("alpha", "beta"), ("alpha",)]
    assert "beta is left out: its adapter is gone" in words


def test_where_nothing_is_left_it_ends(watched: Callable[..., Any]) -> None:
    engine = Fragile(2)
    engine.refused |= {"alpha", "beta"}
    with pytest.raises(HarnessError, match="nothing is left to serve: its adapter is gone"):
        watched(engine)


def test_while_the_engine_starts_its_port_answers_503(free_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{free_tcp_port}/v1/models"
    with stand_in(Names(), free_tcp_port):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(url, timeout=10)
        assert (
            refused.value.code == 503
            and refused.value.headers["Retry-After"]
            and b"engine_unavail" in refused.value.read()
        )
        with pytest.raises(HarnessError, match=f"port {free_tcp_port} on 127.0.0.1 is in use"):
            bound("127.0.0.1", free_tcp_port)  # of another `harness serve`
        with socket.socket() as vllm:  # as vLLM binds it
            vllm.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            vllm.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            vllm.bind(("127.0.0.1", free_tcp_port))
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=10)


@pytest.mark.parametrize(("under_way", "is_cut"), [([2, 1, 0], False), ([1] * 1000, True)], ids=["ended", "cut"])
def test_sigterm_ends_with_143_only_where_answers_were_cut(under_way: list[int], is_cut: bool) -> None:
    from harness_serve.command import Terminated, _drain

    told: list[str] = []
    left = iter(under_way)
    control = SimpleNamespace(drain=lambda: next(left))
    context = SimpleNamespace(console=SimpleNamespace(print=told.append))
    with pytest.raises(Terminated) if is_cut else contextlib.nullcontext():
        _drain(context, SimpleNamespace(control=control), 0.5 if is_cut else 60.0)  # type: ignore[arg-type]
    assert ("1 answers were cut after 0.5 s" in told[-1]) is is_cut and "SIGTERM" in told[0]
    with pytest.raises(Terminated):  # nothing tells which answers are under way
        _drain(context, SimpleNamespace(control=None), 60.0)  # type: ignore[arg-type]
