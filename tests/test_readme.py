"""The README's section on the real model, typed as it stands there."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.client.ports import free_port

ROOT = Path(__file__).resolve().parents[1]
PORT, PAGE_PORT = 8000, 7860


class Section(NamedTuple):
    """The commands that the section has people type, and its program in Python."""

    commands: list[str]
    python: str


def section() -> Section:
    (text,) = re.findall(r"^## A real model\n(.*?)^## ", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    (python,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    commands = [
        line.partition("#")[0].strip() for line in re.findall(r"^    (\S.*)$", text.partition("```")[0], re.MULTILINE)
    ]
    return Section(commands, python)


def test_the_section_tunes_measures_and_serves() -> None:
    """Cheap: the slow test below has something to type, in an order that can work, about files that are there."""
    make, activate, *commands = section().commands
    assert (make, activate) == ("make real-model", ". .venv/bin/activate")
    words = [shlex.split(command) for command in commands]
    assert [program for program, *_ in words] == ["harness"] * len(words)
    assert [word for _, word, *_ in words] == ["tune", "tune", "evaluate", "compare", "report", "serve"]
    tuned = [Path(recipe) for _, word, recipe, *_ in words if word == "tune"]
    assert all((ROOT / recipe).is_file() for recipe in tuned)
    runs = {recipe.stem for recipe in tuned}
    asked = {name.removesuffix("@base") for _, word, *names in words if word != "tune" for name in names}
    assert asked == runs
    for name in re.findall(r"\w+@base|(?<=\")\w+(?=\")", re.findall(r"for model in \((.*)\)", section().python)[0]):
        assert name.removesuffix("@base") in runs


@pytest.mark.real_model
@pytest.mark.soak
@pytest.mark.timeout(3 * 3600)
@pytest.mark.usefixtures("real_model")
def test_the_commands_do_what_the_section_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the README; only the runs' folder, the cache and the two ports are the test's own."""
    pytest.importorskip("vllm")
    openai = pytest.importorskip("openai")
    environment = os.environ | {"HARNESS_RUNS": str(tmp_path / "runs"), "COLUMNS": "200", "NO_COLOR": "1"}
    said = {}
    *commands, serve = (command for command in section().commands if command.startswith("harness "))
    for command in commands:
        arguments = [sys.executable, "-m", "harness.cli", *shlex.split(command)[1:]]
        arguments += ["--out", str(tmp_path / "report.html")] if "report" in arguments else []
        done = subprocess.run(arguments, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        said[command] = done.stdout
    assert re.search(r"json +\d.*<0.001 +better", said["harness compare json@base json"])
    (record,) = (tmp_path / "runs" / "json" / "evaluations" / "json").rglob("smollm2_json.json")
    assert json.loads(record.read_text())["scores"]["right"]["value"] >= 0.85  # as the section says

    port, page_port = free_port(), free_port()
    arguments = [
        *shlex.split(serve)[1:],
        f"--port={port}",
        f"--ui-port={page_port}",
        f"--votes={tmp_path / 'votes.db'}",
    ]
    log = tmp_path / "serve.log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", *arguments],
            cwd=ROOT,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        while "Ctrl-C stops everything" not in log.read_text():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
                pytest.fail(log.read_text())
        assert str(PORT) in section().python
        answers = io.StringIO()
        with contextlib.redirect_stdout(answers):
            exec(section().python.replace(str(PORT), str(port)), {})
        assert openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="none").models.list().data
    finally:
        process.send_signal(signal.SIGINT)
        process.wait()
    (answer,) = re.findall(r"^json (.*)$", answers.getvalue(), re.MULTILINE)
    assert re.fullmatch(r'\{"name": "[^"]*", .*\}', answer), answers.getvalue()
