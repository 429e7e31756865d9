"""`harness tune --nproc N`: processes that are started together, started again where one is lost, and end as one."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from harness.client.ports import free_port

torch = pytest.importorskip("torch")

from harness_tuning.launch import Cause  # noqa: E402
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure  # noqa: E402

from harness.cli.main import cli  # noqa: E402
from tests.conftest import ROOT  # noqa: E402
from tests.tuning.processes import start, together, tune  # noqa: E402
from tests.tuning.test_world import TOO_MUCH, assert_same_curve  # noqa: E402

# Runs in every process, and makes the one of rank RANK do something once, at the end of a step.
AT_STEP = """
import os, signal, threading
from harness import HarnessError, hookimpl
from harness_tuning.loop import Tuner

settle = Tuner._settle

@hookimpl
def register_commands(register):
    pass

def at_step(self, launched):
    metrics = settle(self, launched)
    for rank, restarts, step, act in ACTS:
        if (rank, restarts, step) == (self.world.rank, self.world.restarts, launched.step):
            act()
    return metrics

def fail():
    raise HarnessError("the disk of this machine is full")

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def interrupt():
    came, before = threading.Event(), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *of: (before(*of), came.set()))
    os.kill(os.getppid(), signal.SIGINT)  # the launcher, which passes it on
    came.wait()

Tuner._settle = at_step
"""


def acting(folder: Path, *acts: tuple[int, int, int, str]) -> Path:
    """A plugin file; each act is of a rank, after so many restarts, at a step: `die`, `fail` or `interrupt`."""
    path = folder / "at_step.py"
    listed = ", ".join(f"({rank}, {restarts}, {step}, {act})" for rank, restarts, step, act in acts)
    path.write_text(f"{AT_STEP}\nACTS = [{listed}]\n")
    return path


def ended(process: Any) -> tuple[int | None, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


@pytest.mark.soak
def test_a_killed_process_is_started_again_and_ctrl_c_ends_all(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    """The curve is that of one process, which also does the last steps."""
    path = recipe("float32", step_tokens=512, steps=6, checkpoint_every=2, validate_every=3)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    plugin = acting(tmp_path, (1, 0, 3, "die"), (0, 1, 4, "interrupt"))
    code, out, err = ended(start(tmp_path, "--plugin", plugin, "tune", path, "--run", "lost", "--nproc", "2"))
    assert code == 130, out + err
    assert err.count("process 1 of 2 was ended by SIGKILL") == 1 and "(restart 1 of 3)" in err
    assert err.count("stopping after this step") == 1 and "Traceback" not in out + err
    assert "Stopped after step 4 of 6" in out
    code, output = tune(tmp_path, "--resume", "lost")
    assert code == 0, output
    assert_same_curve(tmp_path / "runs", "alone", "lost")
    sessions = json.loads((tmp_path / "runs/lost/manifest.json").read_text())["sessions"]
    assert [session.get("outcome") for session in sessions][-2:] == ["interrupted", "finished"]


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_all_and_is_said_once(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    """Where the others wait for its part of the weights."""
    plugin = acting(tmp_path, (1, 0, 2, "fail"))
    path = recipe("bfloat16", step_tokens=512, steps=4, parallel="fsdp")
    code, out, err = ended(start(tmp_path, "--plugin", plugin, "tune", path, "--nproc", "2"))
    assert code == 1, out + err
    assert err.count("the disk of this machine is full") == 1 and "restart" not in err and "Traceback" not in err
    assert err.strip().endswith("error: the disk of this machine is full")


@pytest.mark.soak
def test_a_run_survives_many_kills_of_any_process(tmp_path: Path, recipe: Callable[..., Path]) -> None:
    """Beside two processes that nobody kills: over so many steps, one and two drift apart by rounding."""
    path = recipe("float32", step_tokens=512, steps=120, checkpoint_every=5)
    ends = together(tmp_path, "tune", path, "--run", "alone")
    assert [code for code, _ in ends] == [0, 0], ends
    process = start(tmp_path, "tune", path, "--run", "killed", "--nproc", "2", "--max-restarts", "30")
    metrics, chance = tmp_path / "runs/killed/metrics.jsonl", random.Random(0)
    kills = seen = 0
    while process.poll() is None and kills < 10:
        time.sleep(chance.uniform(0.05, 0.5))
        lines = metrics.read_bytes().count(b"\n") if metrics.exists() else 0
        if lines == seen:  # all are killed in mid-step, once they go on
            continue
        workers, seen = children(process._process.pid), lines
        if len(workers) == 2:
            os.kill(chance.choice(workers), signal.SIGKILL)
            kills += 1
    code, out, err = ended(process)
    assert code == 0, out + err
    assert kills >= 5
    assert_same_curve(tmp_path / "runs", "alone", "killed")


@pytest.mark.soak
@pytest.mark.parametrize("act", ["die", "fail", "interrupt"])
def test_two_machines_tune_one_run(tmp_path: Path, recipe: Callable[..., Path], act: str) -> None:
    """One process each, by two agents: what happens on the second machine decides for both."""
    path = recipe("float32", step_tokens=512, steps=6, checkpoint_every=2)
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    plugin, port = acting(tmp_path, (1, 0, 3, act)), free_port()
    machines = [
        start(
            tmp_path, "--plugin", plugin, "tune", path, "--run", "both", "--nproc", "1", "--nnodes", "2",
            "--node-rank", number, "--rdzv", f"127.0.0.1:{port}",
        )
        for number in (0, 1)
    ]  # fmt: skip
    ends = [ended(process) for process in machines]
    assert [code for code, _, _ in ends] == [{"die": 0, "fail": 1, "interrupt": 130}[act]] * 2, ends
    errors = "".join(err for _, _, err in ends)
    if act == "die":
        assert_same_curve(tmp_path / "runs", "alone", "both")
        assert "was ended by SIGKILL" in errors
    elif act == "fail":
        assert errors.count("the disk of this machine is full") == 1
    else:
        assert errors.count("stopping after this step") == 1


@pytest.mark.soak
def test_all_begin_again_in_smaller_batches_where_weights_are_shared_out(
    tmp_path: Path, recipe: Callable[..., Path]
) -> None:
    path = recipe("float32", step_tokens=512, steps=3, parallel="fsdp")
    code, output = tune(tmp_path, path, "--run", "alone")
    assert code == 0, output
    plugin = tmp_path / "too_much.py"
    plugin.write_text(TOO_MUCH)
    words = ("--plugin", plugin, "tune", path, "--run", "shared", "--nproc", "2", "--max-restarts", "0")
    code, out, err = ended(start(tmp_path, *words))
    assert code == 0, out + err
    assert "process 1 of 2: step 1: out of memory with batches of 551 positions" in err
    assert "at most 275 positions at once" in out
    assert_same_curve(tmp_path / "runs", "alone", "shared")


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def failure(folder: Path, rank: int, exitcode: int = 1, **report: Any) -> ProcessFailure:
    path = folder / f"{rank}.json"
    if report:
        path.write_text(json.dumps({"timestamp": "1", "time": 1.0, "message": "words", "traceback": ""} | report))
    return ProcessFailure(rank, 1, exitcode, str(path))


def test_the_cause_is_the_failure_that_the_others_follow_from(tmp_path: Path) -> None:
    lost = failure(tmp_path, 0, kind="lost", message="RuntimeError: gloo: Connection closed by peer")
    killed, ended_by_agent = failure(tmp_path, 1, -signal.SIGKILL), failure(tmp_path, 2, -signal.SIGTERM)
    killed.timestamp = ended_by_agent.timestamp = 1
    cause = Cause.of({0: lost, 1: killed, 2: ended_by_agent}, 3, {})
    assert cause.message.startswith("process 1 of 3 was ended by SIGKILL") and not cause.is_final
    killed.timestamp = 40  # by the agent
    assert Cause.of({0: lost, 1: killed}, 2, {}).message.startswith("process 0 of 2 failed: RuntimeError: gloo")
    mistake = failure(tmp_path, 3, kind="mistake", message="no such column")
    cause = Cause.of({0: lost, 1: killed, 3: mistake}, 4, {})
    assert (cause.message, cause.is_final) == ("no such column", True)
    bug = failure(tmp_path, 4, kind="bug", message="TypeError: x", traceback="Traceback of it")
    cause = Cause.of({0: lost, 4: bug}, 5, {})
    assert cause.is_final and cause.is_bug and cause.details == "Traceback of it"
    memory = failure(tmp_path, 5, kind="memory", message="step 3: out of memory", positions=512)
    cause = Cause.of({0: lost, 5: memory}, 6, {})
    assert not cause.is_final and cause.positions == 512
    assert Cause.of({0: failure(tmp_path, 6, 130), 1: lost}, 2, {}).is_interruption


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--nnodes 2 --rdzv a:1", "go with --nproc"),
        ("--nproc 2 --nnodes 2", "needs --rdzv HOST:PORT"),
        ("--nproc 2 --nnodes 2 --rdzv here --node-rank 1", "expected HOST:PORT"),
        ("--nproc 2 --node-rank 2", "numbered 0 to 0"),
        ("--nproc 2 --plan", "--nproc does not go with it"),
    ],
)
def test_options_that_do_not_go_together_are_refused(harness: Callable[..., Any], words: str, message: str) -> None:
    done = harness("tune", "recipe.yaml", *words.split())
    assert done.code == 2 and message in done.err


@pytest.mark.parametrize("name", ["slurm.sh", "kubernetes.yaml"])
def test_the_commands_for_clusters_are_real(name: str) -> None:
    """With the words that a cluster puts in."""
    text = (ROOT / "examples/clusters" / name).read_text()
    if name.endswith(".yaml"):
        service, job = YAML(typ="safe").load_all(text)
        assert service["metadata"]["name"] == job["spec"]["template"]["spec"]["subdomain"] == "tune"
        (text,) = job["spec"]["template"]["spec"]["containers"][0]["args"]
    (line,) = re.findall(r"exec harness (tune .*)", text)
    known = {"SLURM_NNODES": "2", "SLURM_NODEID": "1", "MEETING": "node-0:29500", "JOB_COMPLETION_INDEX": "1"}
    for what in re.findall(r'what="(.*?)"', text):
        words = shlex.split(line.replace("$what", what.replace("$RECIPE", "my.yaml").replace("$RUN", "my-run")))
        words = [known.get(word.removeprefix("$"), word) for word in words]
        command = cli.get_command(cli.make_context("harness", ["doctor"]), "tune")
        assert command is not None
        given = command.make_context("tune", words[1:]).params
        assert given["nproc"] == 8 and given["nnodes"] == 2 and given["node_rank"] == 1
        assert given["rdzv"].endswith(":29500") and (given["recipe"] is None) is (given["resume"] == "my-run")
