"""A run that was stopped, killed or out of disk goes on as if nothing had happened, and loses nothing."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from tests.tuning.processes import start, tune

pytest.importorskip("torch")

from harness.model.kernels import why_not

pytestmark = pytest.mark.slow


def fingerprint(run: Path) -> str:
    return hashlib.sha256((run / "adapter" / "adapter_model.safetensors").read_bytes()).hexdigest()


def losses(run: Path) -> list[float]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row.get("loss", row.get("validation_loss")) for row in rows]


def steps_done(run: Path) -> int:
    return len((run / "metrics.jsonl").read_text().splitlines()) if (run / "metrics.jsonl").exists() else 0


def test_ctrl_c_saves_says_how_to_go_on_and_resume_gives_the_same_adapter_bytes(tmp_path, recipe):
    path = recipe(steps=20, dropout=0.1, step_tokens=512)
    code, told = tune(tmp_path, path, "--run", "whole")
    assert code == 0, told

    process = start(tmp_path, "tune", path, "--run", "stopped", signal_at=(10, signal.SIGINT))
    out, err = process.communicate(timeout=120)
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


SOAK = (pytest.mark.soak, pytest.mark.timeout(3600))


@pytest.mark.parametrize(
    ("objective", "often"), [("sft", 2), pytest.param("sft", 50, marks=SOAK), pytest.param("dpo", 50, marks=SOAK)]
)
def test_a_run_killed_at_random_moments_ends_with_the_same_adapter_bytes(
    tmp_path, recipe, preferences, wait_until, pytestconfig, objective, often
):
    write = recipe if objective == "sft" else preferences
    path = write(objective=objective, steps=20 * often, checkpoint_every=2)
    assert tune(tmp_path, path, "--run", "whole")[0] == 0
    rng, run, kills = random.Random(int(os.environ.get("HARNESS_TEST_SEED", "0"))), tmp_path / "runs" / "killed", []
    process = start(tmp_path, "tune", path, "--run", "killed")
    while True:
        if len(kills) < often:
            wanted = steps_done(run) + rng.randint(0, 6)
            wait_until(lambda wanted=wanted, process=process: steps_done(run) >= wanted or process.poll() is not None)
            time.sleep(rng.random() * 0.03)  # anywhere in a step or in what is written after it
            process.kill()
            kills.append(steps_done(run))
        out, err = process.communicate(timeout=300)
        if process.returncode == 0:
            break
        assert process.returncode == -signal.SIGKILL, out + err
        arguments = ("--resume", "killed") if (run / "manifest.json").exists() else (path, "--run", "killed")
        process = start(tmp_path, "tune", *arguments)
    assert len(kills) == often
    assert fingerprint(run) == fingerprint(tmp_path / "runs/whole")
    assert losses(run) == losses(tmp_path / "runs/whole")
    assert not list(run.glob(".*.*/")), "what a killed write left is cleared away"
    if pytestconfig.option.record_soak is not None:
        record(pytestconfig.option.record_soak / "kills.json", objective, kills, run)


@pytest.fixture
def whole_and_killed(tmp_path, recipe):
    """Make a run that nothing stopped, and one that was killed after step 3, with environment variables."""
    if (reason := why_not()) is not None:
        pytest.skip(reason)

    def make(name: str, **variables: str) -> tuple[Path, Path]:
        path = recipe(steps=6, checkpoint_every=1)
        assert tune(tmp_path, path, "--run", f"{name}-whole", **variables)[0] == 0
        process = start(
            tmp_path, "tune", path, "--run", f"{name}-killed", signal_at=(3, signal.SIGKILL), **variables
        )  # fmt: skip
        process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL
        return tmp_path / "runs" / f"{name}-whole", tmp_path / "runs" / f"{name}-killed"

    return make


def test_a_killed_run_goes_on_with_the_kernels_that_it_began_with(tmp_path, whole_and_killed):
    """Without them it is refused, unless torch's functions are asked for."""
    whole, killed = whole_and_killed("with")
    missing = {"CC": "no-such-compiler"}
    code, told = tune(tmp_path, "--resume", "with-killed", **missing)
    assert code == 1 and "there is no C compiler" in told and "set HARNESS_KERNELS=0" in told, told
    assert "Traceback" not in told
    other = shutil.copytree(killed, tmp_path / "runs" / "other")
    code, told = tune(tmp_path, "--resume", "other", HARNESS_KERNELS="0")
    assert code == 0 and "another by rare roundings" in told, told
    assert tune(tmp_path, "--resume", "with-killed")[0] == 0
    assert fingerprint(killed) == fingerprint(whole) != fingerprint(other)


def test_a_killed_run_that_began_without_kernels_stays_without_them(tmp_path, whole_and_killed):
    whole, killed = whole_and_killed("without", HARNESS_KERNELS="0")
    code, told = tune(tmp_path, "--resume", "without-killed")
    assert code == 0 and "the run was begun without the kernels" in told, told
    assert fingerprint(killed) == fingerprint(whole)


def record(path: Path, objective: str, kills: list[int], run: Path) -> None:
    """Keep after how many lines of metrics.jsonl the run was killed, and the bytes that it ended with all the same."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[objective] = {
        "kills": len(kills),
        "lines_written_at_each": kills,
        "steps": max(json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()),
        "adapter_sha256_killed_and_whole": fingerprint(run),
        "versions": json.loads((run / "manifest.json").read_text())["sessions"][-1]["versions"],
    }
    path.write_text(json.dumps(kept, indent=2) + "\n")


def test_a_terminal_that_hangs_up_leaves_a_checkpoint(tmp_path, recipe):
    """As a lost connection does: SIGHUP, another of the shell, and nothing can be written to the terminal any more."""
    held, terminal = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "harness", "tune", recipe(), "--run", "hung-up", "--set", "tune.steps=2000"],
        cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(terminal)
    shown = b""
    while b"tokens/s" not in shown:
        shown += os.read(held, 4096)
    os.close(held)
    process.send_signal(signal.SIGHUP)
    assert process.wait(timeout=120) == 130
    run = tmp_path / "runs/hung-up"
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["sessions"][-1]["outcome"] == "interrupted"
    assert [*run.glob("checkpoints/*")]


def test_changed_data_refuses_to_resume(tmp_path, recipe, rows):
    process = start(tmp_path, "tune", recipe(), "--run", "stopped", signal_at=(4, signal.SIGINT))
    process.communicate(timeout=120)
    rows.write_text(rows.read_text().replace("heron", "otter"))
    code, told = tune(tmp_path, "--resume", "stopped")
    assert code == 1 and "training data" in told and "Traceback" not in told


def test_a_second_process_in_the_same_run_is_refused_and_the_first_goes_on(tmp_path, recipe):
    process = start(tmp_path, "tune", recipe(), "--run", "shared", signal_at=(3, signal.SIGSTOP))
    process.wait_until_stopped()
    code, told = tune(tmp_path, "--resume", "shared")
    assert process.poll() is None, "the first process should still be at work"
    assert code == 1 and "another process is working in" in told and "Traceback" not in told
    code, told = tune(tmp_path, recipe(), "--run", "shared")
    assert code == 1 and "another process is working in" in told and "holds a run already" not in told
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, out + err


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root")
def test_a_full_disk_says_so_and_the_last_checkpoint_survives(tmp_path, recipe):
    disk = tmp_path / "runs"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.decode().strip()}")
    try:
        path = recipe(steps=12, checkpoint_every=1)
        process = start(tmp_path, "tune", path, "--run", "full", signal_at=(4, signal.SIGSTOP))
        process.wait_until_stopped()
        with (disk / "filler").open("wb", buffering=0) as filler:
            try:
                while True:
                    filler.write(b"0" * 4096)
            except OSError:
                pass
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=120)
        assert process.returncode == 1, out + err
        assert "the disk is full" in err and "Traceback" not in err
        (disk / "filler").unlink()
        code, told = tune(tmp_path, "--resume", "full")
        assert code == 0 and "goes on" in told, told
    finally:
        process.kill()
        process.wait()
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_damaged_checkpoint_is_said_and_passed_over_for_the_one_before(tmp_path, recipe):
    path = recipe(steps=24, checkpoint_every=5)
    assert tune(tmp_path, path, "--run", "whole")[0] == 0
    process = start(tmp_path, "tune", path, "--run", "hurt", signal_at=(18, signal.SIGKILL))
    process.communicate(timeout=120)
    newest = sorted((tmp_path / "runs/hurt/checkpoints").glob("step-*"))[-1]
    (newest / "state.safetensors").write_bytes(b"torn")
    code, told = tune(tmp_path, "--resume", "hurt")
    assert code == 0 and "is damaged" in told and "Traceback" not in told, told
    assert fingerprint(tmp_path / "runs/hurt") == fingerprint(tmp_path / "runs/whole")


@pytest.fixture
def stopped(tmp_path, recipe, tiny_model, harness_here, monkeypatch):
    """A run over a copy of the tiny model that was stopped after step 3, in this process; and that copy."""
    from harness_tuning.loop import Tuner

    model = shutil.copytree(tiny_model, tmp_path / "model")
    path = recipe(steps=6, checkpoint_every=1)
    path.write_text(path.read_text().replace(str(tiny_model), str(model)))
    steps = Tuner.steps
    monkeypatch.setattr(Tuner, "steps", lambda tuner, stop: steps(tuner, lambda: tuner.progress.step == 3))
    assert harness_here("tune", path, "--run", "stopped").code == 130
    monkeypatch.setattr(Tuner, "steps", steps)
    return tmp_path / "runs" / "stopped", model


def refused(done, *told: str) -> None:
    assert done.code == 1 and "Traceback" not in done.err, done.out + done.err
    assert all(text in done.err for text in ("not the run that was stopped", *told)), done.err


def test_other_base_weights_refuse_to_resume(stopped, harness_here):
    from safetensors.torch import load_file, save_file

    _, model = stopped
    weights = load_file(model / "model.safetensors")
    name = next(iter(weights))
    save_file(weights | {name: weights[name] * 1.01}, model / "model.safetensors", metadata={"format": "pt"})
    refused(harness_here("tune", "--resume", "stopped"), f"the base model's files ({model})")


def test_a_run_begun_by_an_earlier_version_goes_on_with_a_warning(stopped, harness_here):
    """Its hash of the base model is another one, and its keys had other names."""
    run, _ = stopped
    manifest = json.loads((run / "manifest.json").read_text())
    settings = manifest["identity"]["settings"]
    for section in ("tune.method", "tune.objective"):
        options = settings[section]
        settings[section] = options.pop("name")
        settings |= {f"tune.{key}": value for key, value in options.items()}
    manifest["identity"]["model_sha256"] = "0" * 64
    del manifest["identity"]["model_config_sha256"]
    (run / "manifest.json").write_text(json.dumps(manifest))
    done = harness_here("tune", "--resume", "stopped")
    assert done.code == 0 and "was begun by an earlier version" in done.err, done.err


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        ("learning_rate: 0.01", "learning_rate: 0.1", "tune.learning_rate (was 0.01, is 0.1)"),
        ("dtype: bfloat16", "dtype: float32", "model.dtype (was 'bfloat16', is 'float32')"),
        ("seed: 0", "seed: 1", "tune.seed (was 0, is 1)"),
    ],
)
def test_an_edited_recipe_refuses_to_resume(stopped, harness_here, before, after, told):
    run, _ = stopped
    text = (run / "recipe.yaml").read_text()
    assert before in text
    (run / "recipe.yaml").write_text(text.replace(before, after))
    refused(harness_here("tune", "--resume", "stopped"), told)
    (run / "recipe.yaml").write_text(text)
    assert harness_here("tune", "--resume", "stopped").code == 0


def test_another_tokenizer_refuses_to_resume(stopped, harness_here):
    _, model = stopped
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    tokenizer["model"]["merges"].pop()
    (model / "tokenizer.json").write_text(json.dumps(tokenizer))
    refused(harness_here("tune", "--resume", "stopped"), "the template or the tokenizer")


def test_what_decides_nothing_of_the_adapter_may_be_edited(stopped, harness_here):
    run, _ = stopped
    text = (run / "recipe.yaml").read_text()
    (run / "recipe.yaml").write_text(text.replace("checkpoint_every: 1", "checkpoint_every: 2"))
    assert harness_here("tune", "--resume", "stopped").code == 0


@pytest.mark.parametrize(("name", "place"), [("state.safetensors", -5), ("progress.json", len('{"step": '))])
def test_a_flipped_byte_in_a_checkpoint_is_noticed_and_the_one_before_is_taken(stopped, harness_here, name, place):
    run, _ = stopped
    newest = sorted((run / "checkpoints").glob("step-*"))[-1] / name
    content = bytearray(newest.read_bytes())
    content[place] ^= 0x01  # of the number of the step: another number
    newest.write_bytes(content)
    done = harness_here("tune", "--resume", "stopped")
    assert done.code == 0, done.err
    assert f"is damaged ({name} is not as it was written)" in done.err
    assert "from step 2" in done.out


@pytest.mark.soak
def test_resuming_full_tuning_takes_no_more_memory_than_the_run(tmp_path, rows):
    """Every weight moves, so that a checkpoint is larger than anything else; its tensors are read one by one."""
    from harness.testing.models import tiny_model

    heads = {"num_attention_heads": 12, "num_key_value_heads": 12}
    model = tiny_model(tmp_path / "wide", hidden_size=768, intermediate_size=3072, **heads)
    path = tmp_path / "full.yaml"
    path.write_text(
        f"name: full\nmodel: {{path: {model}}}\ntemplate: chatml\n"
        f"data: {{max_tokens: 256, train: [{{dataset: alpaca, path: {rows}}}]}}\n"
        "tune: {method: full, steps: 6, step_tokens: 512, learning_rate: 0.001, checkpoint_every: 2}\n"
    )
    assert tune(tmp_path, path, "--run", "whole")[0] == 0
    start(tmp_path, "tune", path, "--run", "stopped", signal_at=(3, signal.SIGINT)).communicate(timeout=300)
    assert tune(tmp_path, "--resume", "stopped")[0] == 0
    whole, resumed = (
        max(json.loads(line).get("peak_memory_bytes", 0) for line in (run / "metrics.jsonl").read_text().splitlines())
        for run in (tmp_path / "runs/whole", tmp_path / "runs/stopped")
    )
    assert resumed <= 1.02 * whole, f"{resumed / 2**20:.0f} MiB against {whole / 2**20:.0f} MiB"
