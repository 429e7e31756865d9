"""`harness generate` against a played endpoint: what it keeps, how it goes on, and its messages when it cannot."""

import asyncio
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
from types import SimpleNamespace

import pytest

pytestmark = pytest.mark.slow  # commands in processes of their own

pytest.importorskip("openai")


@pytest.fixture
def generate(harness_here, seeds, endpoint, tmp_path):
    def run(*arguments, out="out.jsonl", url=None, model="played"):
        return harness_here(
            "generate", seeds, "--out", tmp_path / out, "--endpoint", url or endpoint.url, "--model", model, *arguments
        )

    return run


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.delenv("HARNESS_API_KEY", raising=False)
    monkeypatch.setattr("harness.client.asking.BACKOFF_S", 0.01)


def rows_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def facts(path):
    """The rows without what differs from one session to the next."""
    return sorted((row["id"], row["instruction"], row["input"], row["output"]) for row in rows_of(path))


def test_it_keeps_as_many_as_asked_for_and_says_what_made_each(generate, endpoint, tmp_path):
    done = generate("--count", 30, "--json")
    assert done.code == 0, done.err
    rows, told = rows_of(tmp_path / "out.jsonl"), json.loads(done.out)
    assert len(rows) == told["kept"] == told["rows"] == 30
    assert len({row["instruction"] for row in rows}) == 30
    for reason in ("shorter than 4 words", "asks for an image, a file or the like", "begins with punctuation"):
        assert told["dropped"][reason] > 0
    assert "begins with 'Write a program'" in told["dropped"]
    assert told["requests"] == len(endpoint.started)
    made = rows[0]["generator"]
    assert made["model"] == "played" and made["endpoint"] == endpoint.url and made["seed"] == 0
    assert made["sampling"]["instructions"]["temperature"] == 0.7 and made["prompt_version"].startswith("1-")
    assert made["tokens"]["prompt"] > 0 and made["time"].endswith("+00:00") and made["harness"]


def test_every_two_instructions_are_below_the_threshold(generate, tmp_path):
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    assert generate("--count", 40).code == 0
    texts = [row["instruction"] for row in rows_of(tmp_path / "out.jsonl")]
    for number, one in enumerate(texts):
        assert all(scorer.score(one, other)["rougeL"].fmeasure < 0.7 for other in texts[:number])


def test_two_runs_of_one_seed_are_the_same_and_another_seed_differs(generate, tmp_path):
    for out, seed in (("a.jsonl", 1), ("b.jsonl", 1), ("c.jsonl", 2)):
        assert generate("--count", 12, "--seed", seed, out=out).code == 0
    assert facts(tmp_path / "a.jsonl") == facts(tmp_path / "b.jsonl") != facts(tmp_path / "c.jsonl")


def test_the_prompt_shows_six_seed_tasks_and_two_generated_ones(generate, endpoint, tmp_path):
    assert generate("--count", 20, "--concurrency", 2).code == 0
    asked = [prompt for prompt in endpoint.prompts if "Go on with the list" in prompt]
    shown = [line for line in asked[-1].splitlines() if line[:1].isdigit()]
    assert len(shown) == 8
    assert sum("Tell " in line or "review kind" in line for line in shown) == 6


def test_several_instances_a_task_and_auto_knows_the_file(generate, harness_here, tmp_path):
    assert generate("--count", 20, "--instances", 3).code == 0
    rows = rows_of(tmp_path / "out.jsonl")
    assert any(row["generator"]["instances"] == 2 for row in rows)
    assert len({row["id"] for row in rows}) == len(rows) > 20
    seen = harness_here("data", "recognise", tmp_path / "out.jsonl")
    assert seen.code == 0 and "self_instruct" in seen.out.splitlines()[0] + seen.out
    shown = harness_here("data", "preview", tmp_path / "out.jsonl")
    assert shown.code == 0 and "self_instruct" in shown.out + shown.err and rows[0]["output"] in shown.out


def test_faults_are_tried_again_and_change_nothing(generate, endpoint, tmp_path):
    assert generate("--count", 10, out="calm.jsonl").code == 0
    endpoint.started.clear()
    faults = {1: 500, 4: 503, 7: "torn", 9: "nonsense", 12: 429, 15: "slow"}
    endpoint.faults = faults.get
    done = generate("--count", 10, "--timeout", 1, "--json")
    # On a busy machine an answer may be late without a fault.
    assert done.code == 0 and json.loads(done.out)["retries"] >= len(faults), done.err
    assert all(endpoint.seen[str(fault)] for fault in faults.values())
    assert facts(tmp_path / "calm.jsonl") == facts(tmp_path / "out.jsonl")


def test_retry_after_is_waited_for(generate, endpoint):
    endpoint.faults = {0: 429}.get
    assert generate("--count", 1, "--concurrency", 1).code == 0
    assert endpoint.started[1] - endpoint.started[0] >= 1.0


def test_requests_keep_to_the_rate(monkeypatch):
    """Eight ask at once, on a clock that stands still: each waits a tenth of a second longer than the one before."""
    from harness.client import asking as module

    waited: list[float] = []

    async def note(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    monkeypatch.setattr(module.asyncio, "sleep", note)
    turns = SimpleNamespace(limits=SimpleNamespace(requests_per_minute=600), _next_start=0.0)

    async def ask() -> None:
        for _ in range(8):
            await module.Client._wait_for_turn(turns)

    asyncio.run(ask())
    assert waited == pytest.approx([0.1 * number for number in range(8)])


def test_the_budget_is_never_passed_and_a_larger_one_goes_on(generate, endpoint, tmp_path):
    first = generate("--count", 40, "--budget-tokens", 4000, "--max-tokens", 200)
    assert first.code == 1 and "the budget of 4,000 tokens is used up" in first.err and "Traceback" not in first.err
    assert "goes on" in first.err and "of 40 instructions are kept" in first.err
    kept = rows_of(tmp_path / "out.jsonl")
    again = generate("--count", 40, "--budget-tokens", 4000, "--max-tokens", 200, "--json")
    assert (
        again.code == 1 and json.loads(again.out)["prompt_tokens"] + json.loads(again.out)["completion_tokens"] <= 4000
    )
    done = generate("--count", 40, "--budget-tokens", 90000, "--max-tokens", 200)
    assert done.code == 0 and len(rows_of(tmp_path / "out.jsonl")) == 40
    assert rows_of(tmp_path / "out.jsonl")[: len(kept)] == kept


def test_an_endpoint_that_does_not_count_tokens_still_has_a_budget(generate, endpoint):
    endpoint.usage = False
    assert "used up" in generate("--count", 40, "--budget-tokens", 3000, "--max-tokens", 100).err


def test_a_wrong_key_is_named_and_a_right_one_goes_nowhere_else(generate, endpoint, tmp_path, monkeypatch):
    endpoint.key = "sk-right"
    done = generate("--count", 1, "--api-key", "sk-wrong")
    assert done.code == 1 and "HARNESS_API_KEY" in done.err and "sk-wrong" not in done.err
    monkeypatch.setenv("HARNESS_API_KEY", "sk-right")
    assert generate("--count", 1, url=endpoint.url.replace("http://", "http://me:secret@")).code in (0, 1)
    assert generate("--count", 1).code == 0
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or not {b"sk-right", b"secret"} & set(path.read_bytes().split(b'"'))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": "plaid"}, r"has no model 'plaid'. Did you mean 'played'\? It has: played"),
        ({"url": "http://127.0.0.1:9/v1"}, "nothing answers at http://127.0.0.1:9/v1"),
        ({"url": "localhost:8000"}, "is no URL"),
    ],
)
def test_what_cannot_be_asked_is_said(generate, arguments, told):
    import re

    done = generate(**arguments)
    assert done.code == 1 and re.search(told, done.err) and "Traceback" not in done.err


def test_after_a_wrong_name_the_right_one_may_have_the_same_file(generate, tmp_path):
    done = generate("--count", 2, model="plaid")
    assert done.code == 1 and done.out == "" and not list(tmp_path.glob(".out.jsonl.state*"))
    assert generate("--count", 2).code == 0


def test_what_was_spent_on_nothing_still_counts_when_it_begins_otherwise(generate, endpoint):
    endpoint.answer, plausible = (lambda request: ""), endpoint.answer
    assert generate("--count", 2, "--patience", 2).code == 1
    endpoint.answer = plausible
    done = generate("--count", 2, "--temperature", 1, "--json")
    assert done.code == 0 and json.loads(done.out)["requests"] == len(endpoint.started)


def test_a_kill_costs_no_more_tasks_than_are_under_way(generate, endpoint, monkeypatch):
    """Labels are not asked for all tasks before the first has its instance."""
    assert generate("--count", 12, "--concurrency", 2).code == 0
    under_way = most = 0
    for prompt in endpoint.prompts:
        under_way += ("Say for the last task" in prompt) - ('after "Output:"' in prompt or 'after "Input:"' in prompt)
        most = max(most, under_way)
    assert most <= 2


def test_an_endpoint_that_goes_on_failing_ends_it_and_is_said_while_it_does(generate, endpoint):
    endpoint.faults = lambda number: 500
    done = generate("--count", 2, "--max-retries", 2, "--concurrency", 1)
    assert done.code == 1 and "went on failing, 3 times in a row; the last was 500: fault 500" in done.err
    assert done.err.count("warning:") == 1 and "500: fault 500; asked again in 0.0 s" in done.err


def test_once_it_has_given_up_nothing_that_waits_is_tried(generate, endpoint):
    endpoint.faults = lambda number: 500 if number >= 2 else None
    assert generate("--count", 50, "--max-retries", 2, "--concurrency", 2).code == 1
    assert len(endpoint.started) == 2 + 2 * 3


def test_a_page_that_is_not_found_asks_for_the_end_of_the_url(generate, endpoint):
    endpoint.faults = lambda number: 404
    assert "lack a /v1" in generate("--count", 2, url=endpoint.url.removesuffix("/v1")).err
    assert "is 'played' the name of a model there" in generate("--count", 2).err


def test_a_request_that_is_refused_is_not_repeated(generate, endpoint):
    endpoint.faults = lambda number: 400
    done = generate("--count", 2, "--concurrency", 1)
    assert done.code == 1 and "refused the request (400): fault 400" in done.err and len(endpoint.started) == 1


@pytest.mark.parametrize("said", ["", "la la\nla la\nla", "1. Hi\n2. Ho", "12."])
def test_a_model_that_gives_nothing_useful_ends_it_and_is_quoted(generate, endpoint, said):
    endpoint.answer = lambda request: said
    done = generate("--count", 5, "--patience", 3, "--concurrency", 2)
    assert done.code == 1 and "3 rounds in a row" in done.err and repr(said) in done.err
    assert len(endpoint.started) == 6


def test_completions_are_asked_of_models_that_do_not_chat(generate, endpoint, tmp_path):
    def answer(request):
        question = request.prompt
        if question.endswith("9."):
            words = [f"{request.body['seed'] // 7**place % 1000:x}w" for place in range(9)]
            return f" Explain {' '.join(words[:4])} to sailors\n10. Name {' '.join(words[4:])} for miners"
        return " No" if "short list?" in question[-30:] else " none\nOutput: It is so."

    endpoint.answer = answer
    assert generate("--count", 6, "--api", "completions").code == 0
    assert {(row["input"], row["output"]) for row in rows_of(tmp_path / "out.jsonl")} == {("", "It is so.")}


def test_an_output_begun_otherwise_is_not_added_to(generate, tmp_path):
    assert generate("--count", 2).code == 0
    done = generate("--count", 4, "--seed", 3)
    assert done.code == 1 and "was begun with seed 0, not 3" in done.err
    (tmp_path / "mine.jsonl").write_text('{"instruction": "Mine"}\n')
    done = generate("--count", 4, out="mine.jsonl")
    assert done.code == 1 and "mine.jsonl, row 1: this is not a row of `harness generate`" in done.err
    assert (tmp_path / "mine.jsonl").read_text() == '{"instruction": "Mine"}\n'


def test_without_the_state_it_goes_on_from_the_rows(generate, tmp_path):
    assert generate("--count", 5).code == 0
    (tmp_path / ".out.jsonl.state.json").unlink()
    assert generate("--count", 9).code == 0
    rows = rows_of(tmp_path / "out.jsonl")
    assert len(rows) == len({row["instruction"] for row in rows}) == len({row["id"] for row in rows}) == 9


def test_what_a_kill_tore_is_cut_off(generate, tmp_path):
    assert generate("--count", 8, "--instances", 2, out="whole.jsonl").code == 0
    whole = (tmp_path / "whole.jsonl").read_bytes()
    for size in random.Random(0).sample(range(len(whole)), 6):
        out = tmp_path / "out.jsonl"
        out.write_bytes(whole[:size])
        done = generate("--count", 8, "--instances", 2)
        assert done.code == 0, done.err
        tasks = {row["instruction"] for row in rows_of(out)}
        assert len(tasks) == 8 and len({row["id"] for row in rows_of(out)}) == len(rows_of(out))
        for path in tmp_path.glob(".out*"):
            path.unlink()


def started(seeds, endpoint, out, count):
    environment = os.environ | {"NO_COLOR": "1"}
    command = [
        sys.executable, "-m", "harness.cli", "generate", seeds, "--out", out, "--endpoint", endpoint.url,
        "--model", "played", "--count", count, "--concurrency", 4,
    ]  # fmt: skip
    return subprocess.Popen(list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


@pytest.mark.slow
def test_killed_again_and_again_it_ends_with_the_rows_of_an_uninterrupted_run(
    generate, seeds, endpoint, tmp_path, wait_until
):
    """Each session is killed while the endpoint holds back an answer, so that none can end before it is killed."""
    whole = json.loads(generate("--count", 60, "--json", out="whole.jsonl").out)
    rng, out, elapsed_s = random.Random(7), tmp_path / "killed.jsonl", [0.0]
    for _ in range(6):
        endpoint.held_from = len(endpoint.started) + rng.randint(1, 16)
        process = started(seeds, endpoint, out, 60)
        wait_until(lambda process=process: len(endpoint.started) > endpoint.held_from or process.poll() is not None)
        process.send_signal(signal.SIGKILL)
        _, told = process.communicate()
        assert process.returncode == -signal.SIGKILL and b"Traceback" not in told
        endpoint.held_from = math.inf
        endpoint.released.set()
        endpoint.released = threading.Event()
        if (state := tmp_path / ".killed.jsonl.state.json").exists():
            elapsed_s.append(json.loads(state.read_text())["elapsed_s"])
    told = json.loads(generate("--count", 60, "--json", out="killed.jsonl").out)
    rows = rows_of(out)
    assert len(rows) == 60 == len({row["instruction"] for row in rows})
    assert facts(out) == facts(tmp_path / "whole.jsonl")
    for name in ("kept", "rows", "instructions_read", "dropped"):
        assert told[name] == whole[name]
    for name in ("requests", "prompt_tokens", "completion_tokens"):
        assert told[name] >= whole[name], "what the rows cost is in the account, however soon after a row the kill came"
    assert elapsed_s == sorted(elapsed_s) and told["elapsed_s"] >= round(elapsed_s[-1], 1)


def test_two_processes_on_one_output_are_refused(generate, seeds, endpoint, tmp_path, wait_until):
    endpoint.held_from = 0
    process = started(seeds, endpoint, tmp_path / "out.jsonl", 100)
    wait_until(lambda: endpoint.started)
    done = generate("--count", 3)
    assert done.code == 1 and "another process is writing to it" in done.err
    process.send_signal(signal.SIGINT)
    _, told = process.communicate()
    assert process.returncode == 130 and b"the same command goes on" in told and b"Traceback" not in told
