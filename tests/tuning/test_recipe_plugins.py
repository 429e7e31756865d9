"""A recipe that brings its own plugin file is complete: its run is tuned, resumed, evaluated and served with it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.serve.test_third_party_engine import PLUGIN as ENGINE
from tests.tuning.processes import start, together, tune

pytest.importorskip("torch")
pytestmark = pytest.mark.slow

OWN = (
    ENGINE
    + """
def convert(row, options):
    return harness.Conversation.of(("user", row["instruction"]), ("assistant", row["output"]))


class Birds(harness.Options):
    pass


def items(options, context):
    for number in range(3):
        asked = harness.Request((harness.Message("user", f"Who keeps key {number}?"),))
        yield harness.EvaluationItem(str(number), (asked,), target="The heron.")


def score(item, answers):
    return {"exact": float(answers[0].text == item.target)}


@harness.hookimpl
def register_datasets(register):
    register(harness.Dataset("own", "the recipe's rows", convert))


@harness.hookimpl
def register_evaluations(register):
    register(harness.Evaluation("birds", "who keeps keys", Birds, items=items, score=score))
"""
)


@pytest.fixture
def own(tmp_path: Path, recipe: Callable[..., Path]) -> Path:
    """A recipe that names its plugin file, beside it."""
    path = recipe("float32", steps=4, step_tokens=512)
    text = path.read_text().replace("dataset: alpaca", "dataset: own")
    path.write_text(f"plugins: [own.py]\n{text}evaluate: [{{evaluation: birds}}]\nserve: {{engine: parrot}}\n")
    (tmp_path / "own.py").write_text(OWN)
    return path


def test_it_is_tuned_and_its_run_evaluated(own: Path, tmp_path: Path, harness: Callable[..., Any]) -> None:
    done = harness("tune", own, "--set", "tune.steps=1")
    assert done.code == 0, done.err
    recorded = json.loads((tmp_path / "runs/small/manifest.json").read_text())
    assert list(recorded["plugin_files"]) == [str(tmp_path / "own.py")]
    done = harness("evaluate", "small@base", "small")
    assert done.code == 0 and "birds" in done.out, done.err


@pytest.mark.soak
def test_its_run_is_stopped_resumed_evaluated_and_served(
    own: Path, tmp_path: Path, harness: Callable[..., Any], free_tcp_port: int
) -> None:
    stopped = start(tmp_path, "tune", own, signal_at=(2, signal.SIGINT))
    out, err = stopped.communicate(timeout=300)
    assert stopped.returncode == 130, out + err
    (tmp_path / "own.py").write_text(OWN + "\n# another\n")
    code, output = tune(tmp_path, "--resume", "small")
    assert code == 1 and f"changed since it began: the code of the recipe's plugins ({tmp_path / 'own.py'})" in output
    (tmp_path / "own.py").write_text(OWN)
    code, output = tune(tmp_path, "--resume", "small")
    assert code == 0, output
    run = tmp_path / "runs/small"
    assert "dataset: own:own" in (run / "recipe.yaml").read_text()
    assert list(json.loads((run / "manifest.json").read_text())["plugin_files"]) == [str(tmp_path / "own.py")]
    done = harness("evaluate", "small@base", "small")
    assert done.code == 0 and "birds" in done.out, done.err
    done = harness("serve", "small", "--no-ui", "--port", free_tcp_port)
    assert done.code == 0 and f"http://127.0.0.1:{free_tcp_port}/v1" in done.out, done.err
    assert "waiting for Hello, asked through chat/" in done.out and done.err == "parrot has stopped\n"

    (tmp_path / "own.py").write_text(OWN + "\n# another\n")
    changed = harness("evaluate", "small@base", "small")
    assert changed.code == 0 and "own.py has changed since" in changed.err

    (tmp_path / "own.py").rename(tmp_path / "elsewhere.py")  # and the run is still there to be looked at
    for words in ("runs list", "runs show small", "compare small@base small"):
        done = harness(*words.split())
        assert done.code == 0 and "Traceback" not in done.err, done.err
    gone = harness("evaluate", "small@base", "small", "--tasks", "nosuch")
    assert gone.code == 1 and "Traceback" not in gone.err
    gone = harness("evaluate", "small@base", "small")
    assert gone.code == 1 and "own.py" in gone.err and "Traceback" not in gone.err
    (tmp_path / "own.py").mkdir()
    assert "Traceback" not in harness("runs", "show", "small").err


@pytest.mark.soak
def test_two_processes_tune_it(own: Path, tmp_path: Path) -> None:
    ends = together(tmp_path, "tune", own)
    assert [code for code, _ in ends] == [0, 0], ends
    manifest = json.loads((tmp_path / "runs/small/manifest.json").read_text())
    assert manifest["outcome"] == "finished" and list(manifest["plugin_files"]) == [str(tmp_path / "own.py")]
