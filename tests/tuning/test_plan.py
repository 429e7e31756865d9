"""Time and memory are shown before they are spent, from a trial that changes no byte of the result."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

pytest.importorskip("torch")

import torch
from harness_tuning import loop, plan, trial
from harness_tuning.batching import Schedule, Sizes, Split, plan_epoch, split_step
from harness_tuning.optimizer import learning_rate_at

from harness.recipe import TuneSpec

pytestmark = pytest.mark.slow  # it tunes


def fingerprint(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_the_trial_changes_no_byte_of_the_adapter(tmp_path, recipe, harness, monkeypatch, dtype):
    path = recipe(dtype, steps=4, dropout=0.2)  # dropout draws from the random state
    assert harness("tune", path, "--run", "tried").code == 0
    nothing = trial.Estimate(1.0, 1.0, 1.0, None, None, 1, 1.0, 0.0)
    monkeypatch.setattr(trial, "estimate", lambda stretch: nothing)
    assert harness("tune", path, "--run", "untried").code == 0
    assert fingerprint(tmp_path / "runs/tried") == fingerprint(tmp_path / "runs/untried")


def test_the_trial_leaves_no_gradient_no_optimizer_state_and_the_random_state_as_it_was(recipe, harness, monkeypatch):
    seen = {}
    original = loop.tried

    def watched(stretch, say):
        before, tuner = torch.get_rng_state(), stretch.learner
        gate, cost = original(stretch, say)
        seen["random"] = torch.equal(before, torch.get_rng_state())
        seen["gradients"] = [w for w in tuner.model.parameters() if w.grad is not None]
        seen["masters"] = [m for m in tuner.optimizer.masters.values() if m.grad is not None]
        seen["state"], seen["training"], seen["cost"] = dict(tuner.optimizer.adamw.state), tuner.model.training, cost
        assert gate.supervised > 0 and gate.difference < 1e-4 and gate.layers == 14
        return gate, cost

    monkeypatch.setattr(loop, "tried", watched)
    assert harness("tune", recipe(steps=2, dropout=0.2), "--plan").code == 0
    assert seen["random"] and seen["training"]
    assert seen["gradients"] == seen["masters"] == [] and seen["state"] == {}
    assert seen["cost"].seconds > 0 and seen["cost"].peak_bytes > 2**20


def test_plan_shows_steps_time_and_memory_and_leaves_no_run_behind(tmp_path, recipe, harness):
    done = harness("tune", recipe(), "--plan", "--run", "later")
    assert done.code == 0, done.err
    for told in (
        "later",
        "8 of at most 256 tokens",
        "rows of similar length",
        "tokens/s measured; 8 steps of",
        "at its peak (measured at",
    ):
        assert told in done.out
    assert not (tmp_path / "runs").exists() and "validation loss" not in done.out


def test_the_plan_has_a_row_each_for_objective_and_method_with_their_own_options(recipe, harness):
    rows = dict(json.loads(harness("tune", recipe(), "--plan", "--json").out)["plan"])
    assert rows["objective"] == "sft"  # an option that is off is left out
    assert rows["method"].startswith("lora: ") and "; rank 4, alpha 8" in rows["method"]


def test_plan_as_json_has_the_figures(recipe, harness):
    done = harness("tune", recipe(), "--plan", "--json")
    told = json.loads(done.out)
    assert told["steps"] == 8 and told["estimate"]["seconds"] > 0 and told["estimate"]["widest_tokens"] <= 276
    assert any(label == "time" for label, _ in told["plan"])


@pytest.mark.parametrize("wrong", [("--plan", "--overwrite"), ("--json",)])
def test_options_that_do_not_go_with_a_plan_are_refused(recipe, harness, wrong):
    assert harness("tune", recipe(), *wrong).code == 2
    assert harness("tune", "--resume", "small", "--plan").code == 2


def cost_of(monkeypatch, recipe, harness, per_token_s: float, first_s=0.0, **tune: object) -> dict[str, float]:
    """The estimate on a machine that needs `per_token_s` for a token of a batch, and nothing for anything else.

    `first_s`: for the first batch of each size below 256 tokens, once more.
    """
    clock, seen = [0.0], set()

    def timed(stretch, part, backward=True):
        seconds = per_token_s * part.positions * (1 if backward else 0.5)
        if part.positions < 250 and part.positions not in seen:
            seen.add(part.positions)
            seconds += first_s
        clock[0] += seconds
        return seconds

    monkeypatch.setattr(trial, "_timed", timed)
    monkeypatch.setattr(trial, "_optimizer_seconds", lambda stretch: 0.0)
    monkeypatch.setattr(trial.time, "perf_counter", lambda: clock[0])
    done = harness("tune", recipe(**tune), "--plan", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["estimate"]


def test_the_estimate_counts_padding_and_each_validation(monkeypatch, recipe, harness):
    from harness.data.cache.store import cached_data
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import load_recipe

    spec = load_recipe(recipe(), Plugins())
    train, validation = cached_data(spec.data, Plugins(), bind_template(spec.template, spec.model, Plugins()))
    padded, one = (
        sum(
            part.positions
            for items in plan_epoch(sizes, 256, 0, 0)
            for part in split_step(sizes, items, Split.whole(256))
        )
        for sizes in (Sizes.of(train.items), Sizes.of(validation.items))
    )
    per_epoch = Schedule(Sizes.of(train.items), 256, 0).total_steps(1)

    cost = cost_of(monkeypatch, recipe, harness, 0.001, steps=per_epoch)
    assert cost["seconds"] == pytest.approx(0.001 * (padded + 0.5 * 2 * one))
    with_warm_up = cost_of(monkeypatch, recipe, harness, 0.001, first_s=5.0, steps=per_epoch)
    assert with_warm_up["seconds"] == pytest.approx(cost["seconds"]), "the first use of a size is not the run's pace"
    cost = cost_of(monkeypatch, recipe, harness, 0.001, steps=per_epoch, validate_every=per_epoch // 2)
    passes = 1 + len({*range(per_epoch // 2, per_epoch, per_epoch // 2), per_epoch})
    assert cost["seconds"] == pytest.approx(0.001 * (padded + 0.5 * passes * one))


@pytest.mark.slow
def test_the_trial_is_a_small_part_of_a_long_run_and_leaves_out_a_batch_that_alone_takes_long(
    monkeypatch, recipe, harness
):
    cost = cost_of(monkeypatch, recipe, harness, 0.01, steps=2000)
    assert cost["peak_bytes"] is not None
    assert cost["trial_seconds"] <= trial.MOST_S + 3 * trial.SHARE * cost["seconds"]
    cost = cost_of(monkeypatch, recipe, harness, 0.1, steps=3)  # some 25 s for the widest batch of 3
    assert cost["peak_bytes"] is None and cost["seconds"] > 0


def test_more_memory_than_is_free_is_warned_of(monkeypatch, recipe, harness):
    monkeypatch.setattr(trial, "free_memory_bytes", lambda device: 2**20)
    told = " ".join(harness("tune", recipe(), "--plan").out.split())
    assert "warning that is more memory than cpu has free (1.0 MiB): lower tune.microbatch_tokens" in told


@pytest.mark.slow
def test_a_run_of_few_steps_is_said_with_what_to_set(recipe, harness):
    path = recipe(step_tokens=4096)
    path.write_text(path.read_text().replace(', "steps": 8', ""))
    told = " ".join(harness("tune", path, "--plan").out.split())
    assert "warning only 1 step: too few to change the model much. For about 50: --set tune.step_tokens=" in told
    assert "or tune.epochs=50" in told
    done = harness("tune", path, "--plan", "--set", "tune.epochs=50")
    assert "hardly anything" not in done.out and "50 of at most" in done.out


@pytest.mark.parametrize(("rows", "smaller_help"), [(12, False), (400, True)])
def test_smaller_steps_are_named_only_where_they_help(rows, smaller_help):
    lengths = [100 + number % 20 for number in range(rows)]
    spec = TuneSpec.model_validate(
        {"objective": {"name": "sft"}, "method": {"name": "lora"}, "epochs": 1, "step_tokens": 16384}
    )
    sizes = Sizes(lengths, [1] * len(lengths), lengths)
    total = Schedule(sizes, spec.step_tokens, spec.seed).total_steps(spec.epochs)
    told = plan._few_steps(SimpleNamespace(spec=spec, source=SimpleNamespace(sizes=sizes), total_steps=total))
    assert ("tune.step_tokens=" in told) == smaller_help and "tune.epochs=" in told


@pytest.mark.slow
def test_only_commands_that_work_are_printed_after_tuning(recipe, harness):
    done = harness("tune", recipe(steps=1))
    assert "harness serve small" in done.out and "harness evaluate" not in done.out
    path = recipe(steps=1)
    path.write_text(path.read_text() + "evaluate: [{evaluation: val_loss}]\n")
    done = harness("tune", path, "--run", "measured")
    assert "harness evaluate measured@base measured" in done.out and "harness compare measured@base" in done.out


def test_one_step_without_warm_up_has_the_learning_rate():
    spec = TuneSpec(objective={"name": "sft"}, method={"name": "lora"}, learning_rate=0.1, warmup_ratio=0.0)
    assert learning_rate_at(1, 1, spec) == learning_rate_at(1, 10, spec) == 0.1
    assert 0 < learning_rate_at(10, 10, spec) < learning_rate_at(2, 10, spec) < 0.1


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.0123, "0.012 s"), (42.4, "42 s"), (185, "3 min"), (7800, "2 h 10 min")]
)
def test_durations_read_as_a_person_says_them(seconds, told):
    assert plan.duration(seconds) == told


THOUGHTFUL = (  # with marks that no vocabulary has as tokens
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.reasoning %}<thought>{{ m.reasoning }}</thought>"
    "{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{{ '<thought></thought>' if enable_thinking is defined and not enable_thinking }}{% endif %}"
)


def test_thoughts_are_counted_and_their_marks_named_that_are_no_tokens(
    tmp_path, recipe, harness, tiny_model, write_rows
):
    model = tmp_path / "thinker"
    shutil.copytree(tiny_model, model)
    (model / "chat_template.jinja").write_text(THOUGHTFUL)
    answers = [{"content": "The heron."}] + [{"content": "The wren.", "reasoning_content": "She sings."}] * 2
    talks = [[{"role": "user", "content": "Who?"}, {"role": "assistant"} | answer] for answer in answers]
    rows = write_rows(*[{"messages": talk} for talk in talks], name="thoughts.jsonl")
    sources = json.dumps([{"dataset": "messages", "path": str(rows)}])
    own = (f"model.path={model}", "template=model", f"data.train={sources}", "data.validation=[]")
    chosen = [part for one in own for part in ("--set", one)]
    done = harness("tune", recipe(steps=1), "--run", "thinks", *chosen)
    assert done.code == 0, done.err
    said = " ".join(done.out.split())
    assert "2 of them have thoughts, which are trained on" in said
    assert "1 have none: their prompts switch thinking off (enable_thinking: false)" in said
    assert "thoughts begin and end with spelt words: <thought>, </thought>" in said
    manifest = json.loads((tmp_path / "runs/thinks/manifest.json").read_text())
    template, (data,) = manifest["template"], manifest["data"]
    assert (template["text_marks"], template["spelt_marks"]) == ([], ["<thought>", "</thought>"])
    assert (data["used"], data["with_thoughts"]) == (3, 2)

    for changed, expected in (
        (
            "data.reasoning=drop",
            "thoughts, which are left out so that all 3 have none: their prompts switch thinking off",
        ),
        ("template={name: model, thinking: 'on'}", "1 have none: their prompts ask for thoughts all the same"),
    ):
        done = harness("tune", recipe(steps=1), "--plan", *chosen, "--set", changed)
        assert expected in " ".join(done.out.split()), done.err
