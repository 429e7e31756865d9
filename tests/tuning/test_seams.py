"""An objective, a method and a tracker of a third party, each one file that touches no other."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from harness.errors import HarnessError

pytestmark = pytest.mark.slow

PAGE = Path(__file__).resolve().parents[2] / "docs" / "plugins.md"


def shown(kind: str) -> str:
    """Return the one-file plugin that docs/plugins.md shows for a kind."""
    section = re.search(
        rf"^### `register_{kind}\(register\)`\n(.*?)(?=^##)", PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    assert section
    (source,) = re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)
    return str(source)


PAIRWISE = shown("objectives")

# The policy is its own reference at the start, so that each pair's loss is ln 2 then, whatever the model.
PAIRWISE_WITH_REFERENCE = PAIRWISE.replace(
    "    margin = answers[chosen] - answers[rejected]\n",
    "    import torch\n"
    "    with torch.no_grad(), policy.without_adapter():\n"
    "        before = batch.by_document(policy.logprobs(batch))\n"
    "    margin = (answers - before)[chosen] - (answers - before)[rejected]\n",
).replace('reads="preferences"', 'reads="preferences", value_at_start=lambda options: START')


@pytest.fixture
def plugin(tmp_path: Path) -> Callable[[str], Path]:
    def write(source: str) -> Path:
        path = tmp_path / "third_party.py"
        path.write_text(source)
        return path

    return write


def metrics_of(run: Path) -> tuple[list[dict[str, float]], list[float]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line], [
        line["validation_loss"] for line in lines if "validation_loss" in line
    ]


def test_an_objective_over_preferences_is_one_file(tmp_path, plugin, preferences, harness):
    path = preferences(objective={"name": "pairwise", "beta": 0.2}, steps=8, learning_rate=0.01, step_tokens=512)
    done = harness("--plugin", plugin(PAIRWISE), "tune", path)
    assert done.code == 0, done.out + done.err
    assert re.search(r"^objective +pairwise: beta 0\.2 *\nmethod +lora: .*rank 4", done.out, re.MULTILINE)
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
    done = harness("--plugin", plugin(shown("methods")), "tune", path)
    assert done.code == 0, done.out + done.err
    saved = load_file(tmp_path / "runs/small/adapter/adapter_model.safetensors")
    assert saved and all(".layers.1." in name for name in saved)
    assert any(weight.abs().max() > 0 for name, weight in saved.items() if "lora_B" in name)


def test_a_tracker_is_one_file_and_receives_every_event_in_order(tmp_path, plugin, recipe, harness):
    events = tmp_path / "events.txt"
    path = recipe(steps=3, checkpoint_every=2)
    path.write_text(path.read_text() + "track: [{tracker: diary, file: events.txt}]\n")
    done = harness("--plugin", plugin(shown("trackers")), "tune", path)
    assert done.code == 0, done.out + done.err
    assert [line.strip() for line in events.read_text().splitlines()] == [
        "Started 0", "Validation 0", "Step 1", "Step 2", "Artefact", "Step 3", "Validation 3",
        "Artefact", "Artefact", "Finished",
    ]  # fmt: skip


WITNESS = """
import json
import harness

class WitnessOptions(harness.Options):
    path: str

def create(options):
    def receive(event):
        if type(event).__name__ in ("Started", "Finished"):
            told = type(event).__name__
            if told == "Finished":
                told += f" {event.outcome} {json.loads((event.folder / 'manifest.json').read_text())['outcome']}"
            with open(options.path, "a") as file:
                print(told, file=file)
    return receive

@harness.hookimpl
def register_trackers(register):
    register(harness.Tracker("witness", "writes down begin and end", WitnessOptions, create))
"""


@pytest.mark.parametrize(
    ("where", "error", "outcome"),
    [
        ("validation_figures", HarnessError("gone"), "failed"),  # before the first line of metrics.jsonl
        ("_launch", SystemExit(9), "failed"),
        ("_launch", KeyboardInterrupt(), "interrupted"),
        ("checkpoint", HarnessError("gone"), "failed"),
        ("save_result", HarnessError("gone"), "failed"),
    ],
)
def test_finished_comes_once_after_started_however_the_run_ends(
    tmp_path, plugin, recipe, harness, monkeypatch, where, error, outcome
):
    from harness_tuning import loop, saving

    def fail(*arguments):
        raise error

    monkeypatch.setattr(saving if where == "save_result" else loop.Tuner, where, fail)
    path, seen = recipe(steps=1), tmp_path / "seen.txt"
    path.write_text(path.read_text() + f"track: [{{tracker: witness, path: {seen}}}]\n")
    assert harness("--plugin", plugin(WITNESS), "tune", path).code != 0
    assert seen.read_text().splitlines() == ["Started", f"Finished {outcome} {outcome}"]
    stepped = where in ("checkpoint", "save_result")
    assert (tmp_path / "runs/small").exists() == (stepped or outcome == "interrupted")


def test_the_loss_curve_is_named_only_where_it_was_drawn(recipe, harness):
    path = recipe(steps=1)
    assert "chat template, metrics and loss curve are in" in " ".join(harness("tune", path).out.split())
    path.write_text(path.read_text() + "track: []\n")
    assert "chat template and metrics are in" in " ".join(harness("tune", path, "--overwrite").out.split())
