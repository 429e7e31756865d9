"""`harness ask`: the answer of a run or a base, streamed or as JSON, with the run's own template and stops."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from harness_commands.data.showing import printable

QUESTION = "Who lives in the reeds?"


def test_a_streamed_answer_is_the_one_in_json(harness_here: Callable[..., Any], tiny_run: Path) -> None:
    """The answer alone on the standard output; what was loaded, and how long it took, beside it."""
    words = ("--runs", tiny_run.parent, "ask", tiny_run.name, QUESTION, "--max-tokens", 12)
    streamed, as_json = harness_here(*words), harness_here(*words, "--json")
    assert streamed.code == as_json.code == 0, streamed.err + as_json.err
    record = json.loads(as_json.out)
    assert record["answer"] and record["variant"] == tiny_run.name and record["answer_tokens"] <= 12
    assert streamed.out == f"{printable(record['answer'])}\n"
    assert f"adapter of {tiny_run.name}" in streamed.err and "template" in streamed.err


def test_a_long_answer_is_read_in_a_tenth_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a made-up clock: each token takes a second, and reading an answer as many seconds as it has tokens."""
    import torch

    from harness.model import local
    from harness.template.exchange import Reading

    now, reading_s, shown = 0.0, 0.0, []

    def read(template: Any, prompt: Any, ids: Any, stops: Any) -> Reading:
        nonlocal now, reading_s
        now, reading_s = now + len(ids), reading_s + len(ids)
        return Reading(f"{len(ids)}", "", "length", len(ids))

    monkeypatch.setattr(local, "read_answer", read)
    monkeypatch.setattr(local.time, "perf_counter", lambda: now)
    template: Any = None
    stops: Any = None
    streamed = local.Streamed(template, (), stops, lambda thoughts, words: shown.append(int(words)))
    streamed.put(torch.zeros(1, 5))  # the prompt
    for _ in range(1000):
        now += 1.0
        streamed.put(torch.zeros(1))
    assert shown[0] == 1 and shown[-1] > 500 and reading_s <= now / 10 + 1000


def test_a_seed_repeats_a_drawn_answer(harness_here: Callable[..., Any], tiny_run: Path) -> None:
    def answer(seed: int) -> Any:
        words = ("ask", f"{tiny_run.name}@base", QUESTION, "--max-tokens", 16, "--temperature", 1.5, "--json")
        return json.loads(harness_here("--runs", tiny_run.parent, *words, "--seed", seed).out)["answer"]

    assert answer(1) == answer(1) != answer(2)


def test_a_system_prompt_is_asked_with(harness_here: Callable[..., Any], tiny_run: Path) -> None:
    words = ("--runs", tiny_run.parent, "ask", tiny_run.name, QUESTION, "--max-tokens", 1, "--json")
    plain, led = (json.loads(harness_here(*words, *more).out) for more in ((), ("--system", "Be short.")))
    assert [one["role"] for one in led["messages"]] == ["system", "user"]
    assert led["prompt_tokens"] > plain["prompt_tokens"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("demmo", QUESTION), "Did you mean 'demo'?"),
        (("demo", " "), "the question is empty"),
        (("openai:http://127.0.0.1:1/v1#m", QUESTION), "cannot be asked in this process"),
    ],
)
def test_what_cannot_be_asked_is_said(
    words: tuple[str, ...], said: str, harness_here: Callable[..., Any], tiny_run: Path
) -> None:
    done = harness_here("--runs", tiny_run.parent, "ask", *words)
    assert done.code == 1 and said in done.err
