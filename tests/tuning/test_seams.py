"""An objective, a method and a tracker of a third party, each one file that touches no other."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

pytestmark = pytest.mark.slow

PAIRWISE = '''
"""A loss over pairs: the chosen answer becomes likelier than the rejected one."""

import harness


class PairwiseOptions(harness.Options):
    beta: float = 0.1


def loss(policy, batch, options):
    from torch.nn.functional import logsigmoid

    answers = batch.by_document(policy.logprobs(batch))
    chosen, rejected = batch.pairs()
    margin = answers[chosen] - answers[rejected]
    right = harness.Metric((margin.detach() > 0).sum(), len(chosen))
    return harness.Loss({"pairs": harness.Term(-logsigmoid(options.beta * margin).sum())}, {"preferred": right})


def units(batch):
    return {"pairs": len(batch.pairs()[0])}


@harness.hookimpl
def register_objectives(register):
    register(harness.Objective("pairwise", "a loss over pairs", PairwiseOptions, loss, units, reads="preferences"))
'''

# The policy is its own reference at the start, so that each pair's loss is ln 2 then, whatever the model.
PAIRWISE_WITH_REFERENCE = PAIRWISE.replace(
    "    margin = answers[chosen] - answers[rejected]\n",
    "    import torch\n"
    "    with torch.no_grad(), policy.without_adapter():\n"
    "        before = batch.by_document(policy.logprobs(batch))\n"
    "    margin = (answers - before)[chosen] - (answers - before)[rejected]\n",
).replace('reads="preferences"', 'reads="preferences", value_at_start=lambda options: START')

LAST_LAYER = '''
"""LoRA on the last layer only."""

import harness


class LastLayerOptions(harness.Options):
    rank: int = 2


def apply(model, options):
    import peft

    config = peft.LoraConfig(
        r=options.rank,
        target_modules=["q_proj", "up_proj"],
        layers_to_transform=[model.config.num_hidden_layers - 1],
        task_type="CAUSAL_LM",
    )
    return peft.get_peft_model(model, config, autocast_adapter_dtype=False)


def save(model, folder):
    model.save_pretrained(str(folder), safe_serialization=True)


@harness.hookimpl
def register_methods(register):
    register(harness.Method("last_layer", "LoRA on the last layer", LastLayerOptions, apply, save, "adapter"))
'''

RECORDER = '''
"""Writes the name of each event into a file."""

import harness


class RecorderOptions(harness.Options):
    path: str


def create(options):
    def receive(event):
        with open(options.path, "a") as file:
            file.write(f"{type(event).__name__} {getattr(event, 'step', '')}".strip() + "\\n")

    return receive


@harness.hookimpl
def register_trackers(register):
    register(harness.Tracker("recorder", "writes down each event", RecorderOptions, create))
'''


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], Path]:
    def write(source: str) -> Path:
        path = tmp_path / "third_party.py"
        path.write_text(source)
        return path

    return write


@pytest.fixture
def preferences(tmp_path: Path, recipe: Callable[..., Path]) -> Callable[..., Path]:
    """Write a recipe over twelve preferences."""
    rows = tmp_path / "preferences.jsonl"
    rows.write_text(
        "".join(
            json.dumps(
                {
                    "prompt": f"Who keeps key {n}?",
                    "chosen": f"The heron keeps {n}.",
                    "rejected": f"Nobody, {n} is lost.",
                }
            )
            + "\n"
            for n in range(12)
        )
    )

    def write(**tune: object) -> Path:
        path = recipe("float32", **tune)
        source = f"dataset: preferences, path: {rows}"
        data = f"data: {{max_tokens: 256, train: [{{{source}}}], validation: [{{{source}, limit: 4}}]}}\n"
        before, after = path.read_text().split("data:\n")
        path.write_text(before + data + after[after.index("tune:") :])
        return path

    return write


def metrics_of(run: Path) -> tuple[list[dict[str, float]], list[float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line], [
        line["validation_loss"] for line in lines if "validation_loss" in line
    ]


def test_an_objective_over_preferences_is_one_file(tmp_path, plugin, preferences, harness):
    path = preferences(objective={"name": "pairwise", "beta": 0.2}, steps=8, learning_rate=0.01, batch_tokens=512)
    done = harness("--plugin", plugin(PAIRWISE), "tune", path)
    assert done.code == 0, done.out + done.err
    steps, validation = metrics_of(tmp_path / "runs/small")
    assert validation[-1] < 0.5 * validation[0]
    assert steps[-1]["preferred"] == 1.0
    assert (tmp_path / "runs/small/adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize(("start", "code"), [("0.6931", 0), ("1.0", 1)])
def test_a_loss_that_does_not_begin_where_its_objective_says_is_refused(plugin, preferences, harness, start, code):
    path = preferences(objective="pairwise", steps=1)
    done = harness("--plugin", plugin(PAIRWISE_WITH_REFERENCE.replace("START", start)), "tune", path)
    assert done.code == code, done.out + done.err
    if code:
        assert f"the objective 'pairwise' begins with a loss of {math.log(2):.4f}, expected 1.0000" in " ".join(
            done.err.split()
        )


def test_a_method_is_one_file(tmp_path, plugin, recipe, harness):
    from safetensors.torch import load_file

    path = recipe(method="last_layer", steps=2)
    done = harness("--plugin", plugin(LAST_LAYER), "tune", path)
    assert done.code == 0, done.out + done.err
    saved = load_file(tmp_path / "runs/small/adapter/adapter_model.safetensors")
    assert saved and all(".layers.1." in name for name in saved)
    assert any(weight.abs().max() > 0 for name, weight in saved.items() if "lora_B" in name)


def test_a_tracker_is_one_file_and_receives_every_event_in_order(tmp_path, plugin, recipe, harness):
    events = tmp_path / "events.txt"
    path = recipe(steps=3, checkpoint_every=2)
    path.write_text(path.read_text() + f"track: [{{tracker: recorder, path: {events}}}]\n")
    done = harness("--plugin", plugin(RECORDER), "tune", path)
    assert done.code == 0, done.out + done.err
    assert events.read_text().splitlines() == [
        "Started 0", "Validation 0", "Step 1", "Step 2", "Artefact", "Step 3", "Validation 3",
        "Artefact", "Artefact", "Finished",
    ]  # fmt: skip
