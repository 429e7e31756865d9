"""The seam of evaluations: one third-party file, asked of a model in process and of one behind an endpoint."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from harness import HarnessError
from harness.client.served import HttpBackend
from harness.contract import EvaluationContext, Request, Sampling
from harness.contract.backends import require_capabilities
from harness.measure.answers import Journal, KeptBackend
from harness.measure.runner import results
from harness.measure.soundness import checked
from harness.model import load as loading
from harness.model.local import LocalBackend, drawn
from harness.model.logprobs import sequence_logprobs
from harness.nouns import Message, Remote
from harness.plugins import Plugins
from harness.run import Run
from harness.testing import FakeEndpoint, Reply
from harness.variants import base_of, tuned_of

pytestmark = pytest.mark.slow

PLUGIN = """
import harness


class Sums(harness.Options):
    most: int = 4


def items(options, context):
    for number in range(1, options.most + 1):
        question = harness.Message("user", f"Who keeps {number} and {number}?")
        asked = harness.Request((question,), sampling=harness.Sampling(max_tokens=8))
        target = "The heron" if number % 2 else str(2 * number)
        yield harness.EvaluationItem(f"sum {number}", (asked,), target, "odd" if number % 2 else "even")


def score(item, answers):
    return {"exact": float(answers[0].text.strip() == item.target)}


@harness.hookimpl
def register_evaluations(register):
    register(harness.Evaluation("sums", "arithmetic", Sums, items=items, score=score))
"""


@pytest.fixture
def plugins(tmp_path: Path) -> Plugins:
    (tmp_path / "sums.py").write_text(PLUGIN)
    return Plugins((tmp_path / "sums.py",))


def test_an_evaluation_scores_both_backends_alike(
    heron_model: Path, load: Any, plugins: Plugins, fake_endpoint: FakeEndpoint
) -> None:
    fake_endpoint.answer = "The heron"
    remote = Remote(fake_endpoint.url, "fake")
    backends = [LocalBackend(load(heron_model), 3), HttpBackend.of_remote(remote, "remote")]
    evaluation, context = plugins.evaluations["sums"], EvaluationContext(None, plugins)
    owner = plugins.evaluations.owner("sums")
    (local,), (remote_result,) = (
        checked(results(evaluation, backend, evaluation.options(), context), "sums", owner) for backend in backends
    )
    here, there = ([(s.id, s.response, s.metrics) for s in its.samples] for its in (local, remote_result))
    assert here == there
    assert local.scores == remote_result.scores
    assert [sample.response for sample in local.samples] == ["The heron"] * 4
    assert {name: score.value for name, score in local.scores.items()} == {
        "exact": 0.5, "exact/even": 0.0, "exact/odd": 1.0,
    }  # fmt: skip
    assert local.scores["exact"].n == 4 and local.scores["exact"].stderr == pytest.approx(3**-0.5 / 2)
    assert len({sample.id for sample in local.samples}) == 4


def test_the_command_measures_and_compares_a_folder_and_a_remote(
    typed: Callable[..., Any], heron_model: Path, plugins: Plugins, fake_endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text("{}\n")
    (tmp_path / "sums.yaml").write_text(
        f"model: {{path: {heron_model}, dtype: float32}}\ntemplate: chatml\n"
        f"data: {{train: [{{dataset: messages, path: {rows}}}]}}\ntune: {{steps: 1}}\n"
        f"evaluate: [{{evaluation: sums}}]\n"
    )
    fake_endpoint.answer = lambda request: request.prompt.split()[-1]
    remote = f"openai:{fake_endpoint.url}#fake"
    plugin = ("--plugin", "sums.py")
    typed(*plugin, "evaluate", str(heron_model), "--template", "chatml", "--recipe", "sums.yaml")
    (record,) = json.loads(typed(*plugin, "evaluate", remote, "--recipe", "sums.yaml", "--json").output)
    assert record["weights"] == {"model": remote, "revision": None} and record["dtype"] is None
    assert record["evaluation"] == "sums:sums" and record["scores"]["exact"]["value"] == 0
    compared = json.loads(typed(*plugin, "compare", str(heron_model), remote, "--json").output)
    assert compared["comparisons"][0]["difference"] == -0.5


COUNTS = """
import harness


def items(options, context):
    asked = (harness.Request((harness.Message("user", "Who?"),), sampling=harness.Sampling(max_tokens=8)),)
    yield harness.EvaluationItem("one", asked, weights={"parts": 3})
    yield harness.EvaluationItem("two", asked)
    yield harness.EvaluationItem("tool", asked, needs=("tools",))
    yield harness.LeftOut("long", "a splitter of sentences is missing")


def score(item, answers):
    return {"whole": float(item.id == "one"), "parts": float(item.id == "one")}


@harness.hookimpl
def register_evaluations(register):
    register(harness.Evaluation("counts", "counts", harness.Options, items=items, score=score))
"""


def test_items_that_cannot_be_asked_are_counted_and_a_metric_may_weigh_otherwise(
    fake_endpoint: FakeEndpoint, tmp_path: Path
) -> None:
    fake_endpoint.answer = "The heron"
    (tmp_path / "counts.py").write_text(COUNTS)
    plugins = Plugins((tmp_path / "counts.py",))
    evaluation, backend = plugins.evaluations["counts"], HttpBackend.of_remote(Remote(fake_endpoint.url, "fake"), "far")
    without = {"this variant does not offer tools": 1, "a splitter of sentences is missing": 1}
    asked = results(evaluation, backend, evaluation.options(), EvaluationContext(None, plugins))
    (result,) = checked(asked, "counts", plugins.evaluations.owner("counts"))
    assert result.details["left_out"] == without
    assert set(result.warnings) == {f"1 items are left out: {reason}" for reason in without}
    assert result.scores["whole"].value == 1 / 2 and result.scores["parts"].value == 3 / 4


def test_an_evaluation_of_weights_refuses_an_endpoint(plugins: Plugins, fake_endpoint: FakeEndpoint) -> None:
    fake_endpoint.answer = "x"
    backend = HttpBackend.of_remote(Remote(fake_endpoint.url, "fake"), "fake")
    assert backend.capabilities == {"system"}
    with pytest.raises(HarnessError, match=r"val_loss' needs score, template of fake, which http.*does not give"):
        list(results(plugins.evaluations["val_loss"], backend, None, EvaluationContext(None, plugins)))
    with pytest.raises(HarnessError, match=r"a log-probability of given ids needs score of fake"):
        backend.logprobs([[1, 2]])


def test_a_local_backend_tells_ids_and_logprobs(tiny_model: Path, load: Any) -> None:
    loaded = load(tiny_model)
    backend = LocalBackend(loaded, 2)
    require_capabilities(backend, ("token_ids", "logprobs", "template", "score"), "this test")
    question = (Message("user", "Who keeps the key?"),)
    ids = tuple(loaded.template.prompt_ids(question))
    text = loaded.template.render(question, generation_prompt=True)
    sampling = Sampling(max_tokens=5)
    asked = [Request(prompt, sampling=sampling, logprobs=True) for prompt in (question, ids, text)]
    answers = dict(backend.ask([*asked, Request("Key", sampling=Sampling(max_tokens=2))]))
    assert replace(answers[0], seconds=0.0) == replace(answers[1], seconds=0.0)
    assert answers[0].prompt_ids == answers[2].prompt_ids == ids
    assert answers[3].logprobs is None and len(answers[3].token_ids or ()) <= 2
    whole = [*ids, *answers[0].token_ids]
    assert answers[0].logprobs == pytest.approx(sequence_logprobs(loaded.model, whole)[len(ids) - 1 :], abs=1e-4)
    sequences = [whole, whole[:7], whole[3:9]]
    for scored, sequence in zip(backend.logprobs(sequences), sequences, strict=True):
        assert scored == pytest.approx(sequence_logprobs(loaded.model, sequence), abs=1e-4)


def test_a_sampled_answer_depends_on_its_seed_alone(tiny_model: Path, load: Any) -> None:
    """Asked in other company, or after a kill, an item is answered as it would have been."""
    backend = LocalBackend(load(tiny_model), 4)
    sampling = Sampling(max_tokens=6, temperature=0.8, top_p=0.9, top_k=20)
    asked = [
        Request(
            (Message("user", f"Who keeps the key, {'and ' * number}why?"),), sampling=replace(sampling, seed=number)
        )
        for number in range(6)
    ]
    together = {number: answer.token_ids for number, answer in backend.ask(asked)}
    for number, request in enumerate(asked):
        assert dict(backend.ask([request]))[0].token_ids == together[number]
    others = backend.ask([replace(asked[0], sampling=replace(sampling, seed=seed)) for seed in range(9)])
    assert len({answer.token_ids for _, answer in others}) > 4
    kept = KeptBackend(backend, Journal(None))
    unseeded = [replace(asked[0], sampling=sampling)] * 3  # each asking has a seed of its own, the same another day
    first, again = (
        [answer.token_ids for _, answer in sorted(KeptBackend(backend, Journal(None)).ask(unseeded))] for _ in range(2)
    )
    assert first == again and len(set(first)) > 1
    assert [answer.token_ids for _, answer in sorted(kept.ask(unseeded[:2]))] == first[:2]


def test_tokens_are_drawn_by_their_probabilities() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0])
    for sampling, expected in (
        (Sampling(temperature=1.0), logits.softmax(0)),
        (Sampling(temperature=0.5, top_k=2), (2 * logits).softmax(0) * torch.tensor([1, 1, 0, 0])),
        (Sampling(temperature=1.0, top_p=0.6), torch.tensor([1.0, 0, 0, 0])),
    ):
        drawing, rows = drawn(sampling, range(4000), torch.device("cpu")), torch.zeros(4000, 1, dtype=torch.long)
        tokens = drawing(rows, logits.expand(4000, -1).clone()).argmax(-1)
        shares = tokens.bincount(minlength=4) / 4000
        assert shares.tolist() == pytest.approx((expected / expected.sum()).tolist(), abs=0.025)


def test_variants_of_one_base_share_it(
    tiny_model: Path, finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, plugins = Run.open(finished_run, Plugins()), Plugins()
    shutil.copytree(finished_run / "adapter", tmp_path / "other")
    adapter = tmp_path / "other/adapter_model.safetensors"
    save_file({name: -2 * weight for name, weight in load_file(adapter).items()}, adapter)
    base, tuned = base_of(run), tuned_of(run)
    half = replace(base, model=base.model.model_copy(update={"dtype": "bfloat16"}))
    variants = [tuned, base, replace(tuned, name="other", adapter=tmp_path / "other"), tuned, half]
    ids = torch.arange(5, 25)[None]
    alone = [loading.load_variant(variant, plugins).model(ids).logits for variant in variants]
    bases = []
    load_model = loading.load_model
    monkeypatch.setattr(
        loading, "load_model", lambda spec, **more: bases.append(spec.dtype) or load_model(spec, **more)
    )
    in_turn = [loaded.model(ids).logits for loaded in loading.load_in_turn(variants, plugins)]
    assert bases == ["float32", "bfloat16"]
    assert all(torch.equal(one, other) for one, other in zip(alone, in_turn, strict=True))
    assert not torch.equal(in_turn[0], in_turn[1]) and not torch.equal(in_turn[0], in_turn[2])

    def changed(model: Any) -> Any:
        with torch.no_grad():
            next(model.parameters()).mul_(2)
        return model.unload()

    monkeypatch.setattr(loading, "_taken_off", changed)  # it is another base now
    assert len(bases) == 2 and len(list(loading.load_in_turn([tuned, base], plugins))) == 2 and len(bases) == 4


def test_a_stop_text_ends_an_answer_and_a_long_prompt_is_refused(heron_model: Path, load: Any) -> None:
    backend = LocalBackend(load(heron_model))
    asked = Request((Message("user", "Who?"),), sampling=Sampling(max_tokens=8, stop=(" heron",)))
    ((_, answer),) = backend.ask([asked])
    assert (answer.text, answer.finish) == ("The", "stop")
    with pytest.raises(HarnessError, match=r"does not fit into the model's 256 tokens"):
        list(backend.ask([Request((Message("user", "Who?"),), sampling=Sampling(max_tokens=300))]))


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("items=items", "expected `run`, or `items` and `score` together"),
        ("run=print, items=items, score=score", "expected `run`, or `items` and `score` together"),
        ("items=items, score=score, needs=('speed',)", "needs 'speed', expected one of "),
    ],
)
def test_a_declaration_that_cannot_work_is_refused(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], declared: str, message: str
) -> None:
    (tmp_path / "bad.py").write_text(PLUGIN.replace("items=items, score=score", declared))
    assert "sums" not in Plugins((tmp_path / "bad.py",)).evaluations
    assert message in capfd.readouterr().err


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_words_are_scored_and_thoughts_are_kept_in_the_record(
    name: str, plugins: Plugins, fake_endpoint: FakeEndpoint
) -> None:
    message = {"role": "assistant", "content": "The heron", name: "Not 42, she has it."}
    choices = [{"index": 0, "finish_reason": "stop", "message": message}]
    fake_endpoint.answer = Reply(body={"id": "1", "object": "chat.completion", "model": "fake", "choices": choices})
    backend = HttpBackend.of_remote(Remote(fake_endpoint.url, "fake"), "remote")
    evaluation = plugins.evaluations["sums"]
    (result,) = results(evaluation, backend, evaluation.options(), EvaluationContext(None, plugins))
    first = result.samples[0]
    assert (first.response, first.reasoning, first.metrics) == ("The heron", "Not 42, she has it.", {"exact": 1.0})
