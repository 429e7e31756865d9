"""Variants asked through an engine: the figures of this process, item by item, and what is wrong with one is told."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from ruamel.yaml import YAML

from harness.client.engine import EngineBackend, Served
from harness.contract import Endpoint, Request, Sampling
from harness.errors import HarnessError
from harness.model.load import load_variant
from harness.model.local import LocalBackend
from harness.nouns import Message
from harness.plugins import Plugins
from harness.run import Run
from harness.testing import FakeEndpoint
from harness.variants import base_of, tuned_of
from tests.evaluation.engines import LikeVllm

pytestmark = pytest.mark.slow
SUMS = Path(__file__).parents[2] / "examples/harness-sums/evaluation_sums.py"


@pytest.fixture
def local(finished_run: Path) -> dict[str, LocalBackend]:
    run = Run.open(finished_run, Plugins())
    return {one.name: LocalBackend(load_variant(one, Plugins())) for one in (base_of(run), tuned_of(run))}


@pytest.fixture(autouse=True)
def probes(finished_run: Path, local: dict[str, LocalBackend]) -> Path:
    """The probes that tuning leaves, of what the variants say now."""
    question = (Message("user", "Who keeps the bell?"),)
    ids = local["demo"].template.prompt_ids(question)
    figures = {"base": "demo@base", "tuned": "demo"}
    probe = {kind: local[name].logprobs([ids])[0] for kind, name in figures.items()}
    probe |= {"messages": [{"role": "user", "content": question[0].content}], "input_ids": ids}
    path = finished_run / "probes.json"
    path.write_text(json.dumps({"dtype": local["demo"].identity.dtype, "probes": [probe]}))
    return path


@pytest.fixture
def engine(local: dict[str, LocalBackend]) -> Iterator[LikeVllm]:
    with LikeVllm(local) as served:
        yield served


def backend_of(engine: LikeVllm, local: LocalBackend, longest: int | None = None) -> EngineBackend:
    endpoint = Endpoint(engine.url, tuple(engine.models), capabilities=frozenset(("token_ids", "logprobs", "score")))
    return EngineBackend(Served(endpoint, "fake", "1", longest=longest), local.name, local.variant, local.template)


def test_an_engine_gives_the_answers_of_this_process(engine: LikeVllm, local: dict[str, LocalBackend]) -> None:
    here = local["demo"]
    there = backend_of(engine, here)
    question = (Message("user", "Who keeps the key?"),)
    ids = tuple(here.template.prompt_ids(question))
    asked = [
        Request(question, sampling=Sampling(max_tokens=6)),
        Request(ids, sampling=Sampling(max_tokens=6, stop=("e",))),
        Request(ids, scored=(5, 6, 7)),
        Request(ids[:1], scored=ids[1:]),
    ]
    mine, theirs = dict(here.ask(asked)), dict(there.ask(asked))
    for number in range(len(asked)):
        assert (mine[number].text, mine[number].finish) == (theirs[number].text, theirs[number].finish)
        assert (
            mine[number].token_ids == theirs[number].token_ids and mine[number].prompt_ids == theirs[number].prompt_ids
        )
        assert mine[number].is_greedy == theirs[number].is_greedy
        assert (mine[number].logprobs or ()) == pytest.approx(theirs[number].logprobs or (), abs=1e-5)
        assert theirs[number].seconds is not None
    assert there.logprobs([ids]) == [pytest.approx(here.logprobs([ids])[0], abs=1e-5)]
    with pytest.raises(HarnessError, match=r"demo: a prompt of \d+ tokens, with 6 more for the answer, does not fit"):
        list(backend_of(engine, here, longest=len(ids) + 5).ask(asked[:1]))
    with pytest.raises(HarnessError, match=r"with 3 to be scored, does not fit into the model's \d+ tokens"):
        list(backend_of(engine, here, longest=len(ids) + 3).ask(asked[2:3]))  # the engine answers a token, too


def test_the_command_gives_the_records_of_this_process_through_an_engine(
    typed: Callable[..., Result], engine: LikeVllm, finished_run: Path
) -> None:
    joined = json.loads(typed("evaluate", "demo@base", "demo", "--endpoint", engine.url, "--json").stdout)
    asked = len(engine.requests)
    here = json.loads(typed("evaluate", "demo@base", "demo", "--backend", "local", "--json").stdout)
    for there, mine in zip(joined, here, strict=True):
        assert (there["variant"], there["task"]) == (mine["variant"], mine["task"])
        for name, score in mine["scores"].items():
            assert there["scores"][name]["value"] == pytest.approx(score["value"], abs=1e-4)
        assert there["asked"]["reason"] == "joined by --endpoint" and mine["engine"] == "transformers"
        assert there["path"] != mine["path"]  # both stay
    assert joined[0]["asked"]["adapters"]["demo"]["tells_apart"] in (True, False)
    samples = Path(joined[0]["path"]).with_name("who.samples.jsonl").read_text().splitlines()
    first = json.loads(samples[0])
    assert first["prompt_ids"] and first["finish"] in ("stop", "length") and first["seconds"] >= 0
    again = typed("evaluate", "demo@base", "demo", "--endpoint", engine.url, "--json")
    scored = [request for request in engine.requests[asked:] if "prompt" in request.body and not _is_check(request)]
    assert json.loads(again.stdout)[0]["scores"] == joined[0]["scores"] and not scored


def _is_check(request: Any) -> bool:
    """True for requests of the checks and probes, which every command makes."""
    return "prompt_logprobs" in request.body


def test_an_adapter_that_is_not_applied_is_noticed(
    typed: Callable[..., Result], engine: LikeVllm, local: dict[str, LocalBackend], probes: Path
) -> None:
    told = json.loads(probes.read_text())
    for probe in told["probes"]:
        probe["tuned"] = [value - 1.0 for value in probe["base"]]  # a run that tuning moved by a nat
    probes.write_text(json.dumps(told))
    engine.backends = dict.fromkeys(local, local["demo@base"])
    with pytest.raises(HarnessError, match="demo answers like its base model: the adapter is not applied"):
        typed("evaluate", "demo@base", "demo", "--endpoint", engine.url)


def test_a_foreign_adapter_that_changes_nothing_is_noticed(
    typed: Callable[..., Result], engine: LikeVllm, local: dict[str, LocalBackend], finished_run: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished_run / "adapter", tmp_path / "foreign")
    base = local["demo@base"].variant.model.path
    config = tmp_path / "foreign/adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": base}))
    name = Path(base).name
    engine.backends = {name: local["demo@base"], "foreign": local["demo@base"]}
    engine.models = tuple(engine.backends)
    tasks = ("--tasks", "who", "--include-path", "tasks", "--template", "chatml")
    with pytest.raises(HarnessError, match=r"foreign gives each token of a text exactly .* its base model gives it"):
        typed("evaluate", base, "./foreign", "--endpoint", engine.url, *tasks)


def test_a_template_that_differs_is_noticed(typed: Callable[..., Result], engine: LikeVllm) -> None:
    engine.before = [5]
    with pytest.raises(HarnessError, match="the engine receives other tokens than training saw"):
        typed("evaluate", "demo", "--endpoint", engine.url)


def test_an_engine_that_lacks_a_variant_says_how_to_serve_it(typed: Callable[..., Result], engine: LikeVllm) -> None:
    engine.models = ("demo",)
    with pytest.raises(HarnessError, match=r"does not serve demo@base\. It has: demo\. `harness serve demo@base demo`"):
        typed("evaluate", "demo@base", "demo", "--endpoint", engine.url)


def test_the_choice_of_backend_has_a_reason(typed: Callable[..., Result], finished_run: Path) -> None:
    (record,) = json.loads(typed("evaluate", "demo", "--evaluation", "val_loss", "--json").stdout)
    assert record["asked"]["reason"] == "asked for by --backend local"
    told = typed("evaluate", "demo", "--backend", "auto", "--evaluation", "lm_eval", "--set", "as_lm_eval=true").output
    assert "the local backend: lm_eval with these options needs the weights in this process" in told
    with pytest.raises(HarnessError, match="--backend engine: lm_eval with these options needs the weights"):
        typed("evaluate", "demo", "--backend", "engine", "--evaluation", "lm_eval", "--set", "as_lm_eval=true")


def test_a_look_at_what_is_sent_asks_nothing(typed: Callable[..., Result], finished_run: Path) -> None:
    tasks = ("--tasks", "who,who_choice", "--include-path", "tasks")
    both = typed("evaluate", "demo", "--inspect", "2", *tasks).output  # one of each task
    assert both.count("BOS") == 2 and "scored  'The " in both and "at most 8 tokens, greedy" in both
    told = typed("evaluate", "demo", "--inspect", "1", "--evaluation", "lm_eval").output
    assert "<|im_start|>user\nWho keeps the key?<|im_end|>\n<|im_start|>assistant\n" in told
    assert "stops   tokens ['<|im_end|>'], texts [" in told
    assert "at most 8 tokens, greedy" in told and "BOS" in told and "ids " in told
    assert not list(finished_run.glob("evaluations/*/*"))
    told = typed("evaluate", "demo", "--dry-run").output
    assert "5 requests" in told and "no estimate of the time" in told  # four items, one of them twice
    typed("evaluate", "demo")
    assert "of earlier records" in typed("evaluate", "demo", "--dry-run").output


ELSEWHERE = """
import contextlib
import os

import pydantic

import harness
from harness.contract import Endpoint


class Elsewhere(harness.Options):
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: pydantic.SecretStr | None = None
    allow_hosts: tuple[str, ...] = ()


@contextlib.contextmanager
def start(variants, options, report):
    report("nothing")
    told = frozenset(("token_ids", "logprobs", "score"))
    yield Endpoint(os.environ["ELSEWHERE"], tuple(one.name for one in variants), capabilities=told, version="7")


def unable(variants, options):
    return os.environ.get("UNABLE")


@harness.hookimpl
def register_engines(register):
    register(harness.Engine("elsewhere", "a server that runs already", Elsewhere, start, unable=unable))
"""


def test_anyones_engine_is_started_where_it_can_serve_all_variants(
    typed: Callable[..., Result], engine: LikeVllm, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE)
    recipe = finished_run / "recipe.yaml"
    recipe.write_text(json.dumps(YAML(typ="safe").load(recipe) | {"serve": {"engine": "elsewhere"}}))
    monkeypatch.setenv("ELSEWHERE", engine.url)
    command = ("--plugin", "elsewhere.py", "evaluate", "demo@base", "demo", "--json", "--backend")
    done = typed(*command, "auto")
    assert "Asked through the engine backend: elsewhere serves all these variants" in done.stderr
    assert "waiting for nothing" in done.stderr and "waiting for the parity check" in done.stderr
    records = json.loads(done.stdout)
    assert {(one["engine"], one["engine_version"]) for one in records} == {("elsewhere", "7")}
    assert {one["asked"]["reason"] for one in records} == {"elsewhere serves all these variants"}
    monkeypatch.setenv("UNABLE", "it is Sunday")
    assert "Asked through the local backend: it is Sunday" in typed(*command, "auto").stderr
    with pytest.raises(
        HarnessError, match=r"--backend engine: it is Sunday\. Leave it out, and the weights are loaded"
    ):
        typed(*command, "engine")


def test_an_engine_that_tells_no_ids_is_asked_through_its_chat(
    typed: Callable[..., Result], finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere.py").write_text(ELSEWHERE.replace('("token_ids", "logprobs", "score")', ""))
    command = ("--plugin", "elsewhere.py", "--plugin", str(SUMS), "evaluate", "demo@base", "demo")
    its = ("--evaluation", "sums", "--set", "count=3", "--set", "largest=0", "--repeat-share", "0")
    with FakeEndpoint(
        lambda asked: "2" if asked.body["model"] == "demo" else "0", models=("demo@base", "demo")
    ) as server:
        monkeypatch.setenv("ELSEWHERE", server.url)
        done = typed(*command, *its, "--backend", "engine", "--engine", "elsewhere", "--json")
        shown = typed(*command, *its, "--backend", "engine", "--engine", "elsewhere").stdout
    assert "sums is not in the recipe 'demo': its options are the defaults" in done.stderr
    of_base, tuned = json.loads(done.stdout)
    assert of_base["options"] == tuned["options"] == {"count": 3, "largest": 0, "seed": 0}
    assert (of_base["scores"]["exact"]["value"], tuned["scores"]["exact"]["value"]) == (1.0, 0.0)
    assert tuned["engine"] == "elsewhere" and tuned["template"]["name"] == "the engine's"
    assert "unverified: the engine does not tell which ids it receives" in " ".join(shown.split())
    sent = next(one.body for one in server.requests if str(one.prompt).startswith("What is 0 + 0"))
    assert "stop_token_ids" not in sent and sent["messages"][-1]["role"] == "user" and sent["max_tokens"] == 8


@pytest.mark.soak
def test_a_command_killed_twenty_times_ends_with_the_same_records(
    engine: LikeVllm, finished_run: Path, task_folder: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    rows = [json.loads(line) for line in (task_folder / "questions.jsonl").read_text().splitlines()]
    many = [
        row | {"id": f"{row['id']} {number}", "question": f"{number}. {row['question']}"}
        for row in rows
        for number in range(30)
    ]
    (task_folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in many))
    command = [sys.executable, "-m", "harness.cli", "evaluate", "demo@base", "demo", "--endpoint", engine.url, "--json"]
    moments, answer = random.Random(17), engine.answer
    assert callable(answer)
    killer: dict[str, Any] = {}
    killed_after: list[int] = []  # requests of each process but the last

    def watched(request: Any) -> Any:
        if "stop_token_ids" in request.body and killer["process"] is not None:
            killer["left"] -= 1
            if killer["left"] == 0:
                killer["process"].send_signal(signal.SIGKILL)
        return answer(request)

    engine.answer = watched

    def samples(folder: str, kills: int) -> list[Any]:
        """Return the samples of both variants without their times, after so many kills."""
        environment = os.environ | {"HARNESS_CACHE": str(tmp_path / folder)}
        for kill in range(kills + 1):
            with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, text=True) as process:
                left = moments.randrange(1, 12)
                killer.update(process=process if kill < kills else None, left=left)
                killed_after.extend([left] * (kill < kills))
                out, _ = process.communicate()
            assert process.returncode == (-signal.SIGKILL if kill < kills else 0)
        paths = [Path(record["path"]) for record in json.loads(out)]
        lines = [line for path in paths for line in path.with_name(f"{path.stem}.samples.jsonl").open()]
        return [{name: value for name, value in json.loads(line).items() if name != "seconds"} for line in lines]

    once, asked = samples("once", 0), len(engine.requests)
    often = samples("often", 20)
    assert often == once and len(once) == 2 * (120 + 4)
    if (into := pytestconfig.option.record_soak) is not None:
        path = into / "kills.json"
        kept = json.loads(path.read_text()) if path.exists() else {}
        kept["evaluation"] = {"kills": 20, "answered_before_each": killed_after, "items_of_each_variant": 120}
        kept["evaluation"]["requests"] = {"once": asked, "killed": len(engine.requests) - asked}
        path.write_text(json.dumps(kept, indent=2) + "\n")
    generated = [request for request in engine.requests[asked:] if "stop_token_ids" in request.body]
    assert len(generated) < 2 * 127 + 20 * 64  # each item once, what is asked twice, and what was under way at a kill
