"""A run that was stopped, killed or out of disk goes on as if nothing had happened, and loses nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

OVERRIDES = {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}


# However quick the machine is, a run does not go past the step at which a test wants to find it, before it is given a line.
HOLD = """
import os, sys
import harness

@harness.hookimpl
def step_finished(step):
    if step == int(os.environ["HOLD_AT"]):
        sys.stdin.readline()
"""


def start(folder: Path, *arguments: object, hold_at: int = -1) -> subprocess.Popen[str]:
    """Run `harness ARGUMENTS`, held after the step `hold_at` until it gets a line: `communicate("\\n")`."""
    (folder / "hold.py").write_text(HOLD)
    return subprocess.Popen(
        [sys.executable, "-m", "harness.cli", "--plugin", "hold.py", *map(str, arguments)], cwd=folder,
        env=os.environ | OVERRIDES | {"HOLD_AT": str(hold_at)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def tune(folder: Path, *arguments: object) -> tuple[int, str]:
    process = start(folder, "tune", *arguments)
    out, err = process.communicate()
    return process.returncode, out + err


def fingerprint(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row.get("loss", row.get("validation_loss")) for row in rows]


@pytest.fixture
def wait_for_steps(wait_until):
    """Wait until a run has learnt so many steps, or has ended."""

    def wait(run: Path, steps: int, process: subprocess.Popen[str]) -> None:
        wait_until(lambda: process.poll() is not None or steps_of(run) >= steps)

    return wait


def steps_of(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def test_ctrl_c_saves_says_how_to_go_on_and_resume_gives_the_same_adapter_bytes(tmp_path, recipe, wait_for_steps):
    path = recipe(steps=60, dropout=0.1, accumulate=2)
    code, told = tune(tmp_path, path, "--run", "whole")
    assert code == 0, told

    process = start(tmp_path, "tune", path, "--run", "stopped", hold_at=10)
    wait_for_steps(tmp_path / "runs" / "stopped", 10, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate("\n")
    assert process.returncode == 130, out + err
    assert "harness tune --resume runs/stopped" in out
    assert json.loads((tmp_path / "runs/stopped/manifest.json").read_text())["outcome"] == "interrupted"
    assert not (tmp_path / "runs/stopped/adapter").exists()

    code, told = tune(tmp_path, "--resume", "stopped")
    assert code == 0 and "goes on" in told, told
    assert fingerprint(tmp_path / "runs/stopped") == fingerprint(tmp_path / "runs/whole")
    assert losses(tmp_path / "runs/stopped") == losses(tmp_path / "runs/whole")
    sessions = json.loads((tmp_path / "runs/stopped/manifest.json").read_text())["sessions"]
    assert [session["outcome"] for session in sessions] == ["interrupted", "finished"]


def test_a_run_killed_at_random_moments_ends_with_the_same_adapter_bytes(tmp_path, recipe, wait_for_steps):
    """Held eight steps further on, a run has not ended before it was killed four times."""
    path = recipe(steps=40, checkpoint_every=2)
    assert tune(tmp_path, path, "--run", "whole")[0] == 0
    rng, run = random.Random(int(os.environ.get("HARNESS_TEST_SEED", "0"))), tmp_path / "runs" / "killed"

    def begin(**settings: int) -> subprocess.Popen[str]:
        arguments = ("--resume", "killed") if (run / "manifest.json").exists() else (path, "--run", "killed")
        return start(tmp_path, "tune", *arguments, **settings)

    for _ in range(4):
        done_before = steps_of(run)
        process = begin(hold_at=done_before + 8)
        wait_for_steps(run, done_before + rng.randint(0, 6), process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(rng.random() * 0.1)
        process.kill()
        out, err = process.communicate()
        assert process.returncode == -signal.SIGKILL, out + err
    process = begin()
    out, err = process.communicate()
    assert process.returncode == 0, out + err
    assert fingerprint(run) == fingerprint(tmp_path / "runs/whole")
    assert losses(run) == losses(tmp_path / "runs/whole")
    assert not list(run.glob(".*.*/")), "what a killed write left is cleared away"


def test_changed_data_refuses_to_resume(tmp_path, recipe, rows, wait_for_steps):
    process = start(tmp_path, "tune", recipe(steps=20, checkpoint_every=1), "--run", "stopped", hold_at=4)
    wait_for_steps(tmp_path / "runs" / "stopped", 4, process)
    process.send_signal(signal.SIGINT)
    process.communicate("\n")
    rows.write_text(rows.read_text().replace("heron", "otter"))
    code, told = tune(tmp_path, "--resume", "stopped")
    assert code == 1 and "training data" in told and "Traceback" not in told


def test_a_second_process_in_the_same_run_is_refused_and_the_first_goes_on(tmp_path, recipe, wait_for_steps):
    process = start(tmp_path, "tune", recipe(steps=20), "--run", "shared", hold_at=3)
    wait_for_steps(tmp_path / "runs" / "shared", 3, process)
    code, told = tune(tmp_path, "--resume", "shared")
    assert process.poll() is None, "the first process should still be at work"
    assert code == 1 and "another process is working in" in told and "Traceback" not in told
    code, told = tune(tmp_path, recipe(), "--run", "shared")
    assert code == 1 and "another process is working in" in told and "holds a run already" not in told
    process.send_signal(signal.SIGINT)
    out, err = process.communicate("\n")
    assert process.returncode == 130, out + err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_says_so_and_the_last_checkpoint_survives(tmp_path, recipe, wait_for_steps):
    disk = tmp_path / "runs"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        path = recipe(steps=20, checkpoint_every=1)
        process = start(tmp_path, "tune", path, "--run", "full", hold_at=4)
        wait_for_steps(disk / "full", 4, process)
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"0" * 4096)
            except OSError:
                pass
        out, err = process.communicate("\n")
        assert process.returncode == 1, out + err
        assert "the disk is full" in err and "Traceback" not in err
        (disk / "filler").unlink()
        code, told = tune(tmp_path, "--resume", "full")
        assert code == 0 and "goes on" in told, told
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_damaged_checkpoint_is_said_and_passed_over_for_the_one_before(tmp_path, recipe, wait_for_steps):
    path = recipe(steps=40, checkpoint_every=5)
    assert tune(tmp_path, path, "--run", "whole")[0] == 0
    process = start(tmp_path, "tune", path, "--run", "hurt", hold_at=20)
    wait_for_steps(tmp_path / "runs" / "hurt", 20, process)
    process.kill()
    process.communicate()
    newest = sorted((tmp_path / "runs/hurt/checkpoints").glob("step-*"))[-1]
    (newest / "state.safetensors").write_bytes(b"torn")
    code, told = tune(tmp_path, "--resume", "hurt")
    assert code == 0 and "is damaged" in told and "Traceback" not in told, told
    assert fingerprint(tmp_path / "runs/hurt") == fingerprint(tmp_path / "runs/whole")
