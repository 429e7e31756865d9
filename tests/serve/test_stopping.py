"""`harness serve` from start to end: what it refuses, what it says, and that nothing is left of it."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.vllm


@pytest.mark.soak  # an engine of its own; what is refused, and with which words, test_checks asks the shared one
def test_an_adapter_that_is_not_applied_stops_serving(  # type: ignore[no-untyped-def]
    harness, runs_folder: Path, free_port, processes_of
) -> None:
    port = free_port()
    done = harness("--runs", runs_folder, "serve", "unapplied", f"--port={port}", "--no-ui")
    assert done.code == 1 and "the adapter is not applied" in done.err and "Traceback" not in done.err
    assert processes_of(f"--port={port}") == []


def test_a_template_changed_after_tuning_stops_serving(  # type: ignore[no-untyped-def]
    harness, runs_folder: Path, tmp_path: Path, free_port, processes_of
) -> None:
    """The engine is served the changed file and the harness loads it: that training saw another is in the probes."""
    shutil.copytree(runs_folder / "beta", tmp_path / "runs/changed")
    template, port = tmp_path / "runs/changed/chat/chat_template.jinja", free_port()
    source = template.read_text()
    template.write_text(source.replace("<|im_start|>assistant\\n", "<|im_start|>assistant\\n\\n"))
    assert template.read_text() != source
    done = harness("--runs", tmp_path / "runs", "serve", "changed", f"--port={port}", "--no-ui")
    assert done.code == 1 and "Traceback" not in done.err
    lines = done.err.splitlines()
    (at,) = [number for number, line in enumerate(lines) if line.startswith("  in training  ")]
    trained, served, caret = lines[at : at + 3]
    column = caret.index("^")
    assert caret.strip() == "^" and trained[15:column] == served[15:column] and trained[column:] != served[column:]
    assert "«<|im_start|>»assistant\\n" in trained and "probe 1 of changed" in lines[at - 1]
    assert "Has something in" in done.err and str(template.parent) in done.err
    assert processes_of(f"--port={port}") == []


def test_an_engine_that_dies_tells_why(harness, runs_folder: Path, free_port) -> None:  # type: ignore[no-untyped-def]
    done = harness(
        "--runs", runs_folder, "serve", "alpha", f"--port={free_port()}", "--no-ui", "--set", "max_model_len=100000"
    )
    assert done.code == 1 and "the engine ended while it started" in done.err
    assert "max_model_len (100000)" in done.err and "serve-" in done.err


def test_a_plain_model_is_served_and_ctrl_c_stops_everything(
    serving, tiny_model: Path, tmp_path: Path, processes_of
) -> None:  # type: ignore[no-untyped-def]
    key = {"HARNESS_API_KEY": "open sesame"}
    with serving(tmp_path, tmp_path, str(tiny_model), "--template=chatml", "--no-ui", **key) as served:
        marker = "--port=" + served.url.split(":")[-1].removesuffix("/v1")
        assert len(processes_of(marker)) >= 3  # the keeper, the server, the engine
        told = served.output.read_text()
        curl = told[told.index("curl") : told.index("Ctrl-C")]
        answer = subprocess.run(
            ["bash", "-c", curl], env=os.environ | key, capture_output=True, text=True, check=True
        ).stdout
        assert '"finish_reason"' in answer
        assert "open sesame" not in told
        served.process.send_signal(signal.SIGINT)
        assert served.process.wait() == 0
        assert "Stopped" in served.output.read_text()
        assert processes_of(marker) == []


def test_a_second_ctrl_c_does_not_cut_the_stopping_short(tmp_path: Path) -> None:
    """The keeper's end is waited for, so that "have ended" is true."""
    code = (
        "import os, sys, signal; from pathlib import Path; from harness_serve import process as engine\n"
        "wait = engine.subprocess.Popen.wait\n"
        "def pressing(process, timeout=None):\n"
        "    if timeout is None and not hasattr(process, 'pressed'):\n"
        "        process.pressed = True; signal.raise_signal(signal.SIGINT)\n"
        "    return wait(process, timeout)\n"
        "engine.subprocess.Popen.wait = pressing\n"
        "try:\n"
        "    with engine.kept(['--help'], dict(os.environ), Path(sys.argv[1])) as process: raise KeyboardInterrupt\n"
        "except KeyboardInterrupt: print(process.pressed, process.returncode is not None)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["True", "True"], done.stderr


def test_another_address_wants_a_key(harness, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    done = harness("--runs", runs_folder, "serve", "alpha", "--host=0.0.0.0", env={"HARNESS_API_KEY": None})
    assert done.code == 1 and "HARNESS_API_KEY" in done.err and "openssl rand" in done.err


@pytest.mark.parametrize(
    ("key", "arguments", "told"),
    [
        ("", (), "the key is empty"),
        (" ", (), "the key is empty"),
        (" ", ("--host=0.0.0.0",), "the key is empty"),
        ("secret", ("--host=0.0.0.0",), "at least 16"),
        ("schlüssel", (), "HTTP headers"),
        (None, ("--allow-host=https://compare.example.org",), "a host name alone"),
        (None, ("--port=7001", "--ui-port=7001"), "cannot both have port 7001"),
        (None, ("--set", "port=7860"), "cannot both have port 7860"),
    ],
)
def test_what_cannot_be_served_safely_is_told_at_once(  # type: ignore[no-untyped-def]
    harness_here,
    runs_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    key: str | None,
    arguments: tuple[str, ...],
    told: str,
) -> None:
    monkeypatch.setattr("harness_serve.engine.start", lambda *_: pytest.fail("started"))
    monkeypatch.delenv("HARNESS_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("HARNESS_API_KEY", key)
    done = harness_here("--runs", runs_folder, "serve", "alpha", *arguments)
    assert done.code == 1 and told in done.err and len(done.err.splitlines()) == 1


def test_a_refused_serve_leaves_no_votes_database(  # type: ignore[no-untyped-def]
    harness_here, runs_folder: Path, tmp_path: Path
) -> None:
    votes = tmp_path / "votes.db"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = harness_here("--runs", runs_folder, "serve", "alpha", f"--port={port}", f"--votes={votes}")
    assert done.code == 1 and f"port {port} on 127.0.0.1 is in use" in done.err
    assert not votes.exists()


def test_an_unknown_engine_option_is_named(harness, runs_folder: Path) -> None:  # type: ignore[no-untyped-def]
    done = harness("--runs", runs_folder, "serve", "alpha", "--set", "prot=1")
    assert done.code == 1 and "Did you mean 'port'?" in done.err


def test_killing_the_command_leaves_nothing_of_the_engine(  # type: ignore[no-untyped-def]
    serving, runs_folder: Path, tmp_path: Path, processes_of, wait_until
) -> None:
    with serving(runs_folder, tmp_path, "beta", "--no-ui") as served:
        marker = "--port=" + served.url.split(":")[-1].removesuffix("/v1")
        assert processes_of(marker)
        served.process.kill()
        served.process.wait()
        wait_until(lambda: not processes_of(marker))
        with pytest.raises(OSError):
            urllib.request.urlopen(f"{served.url}/models", timeout=5)
