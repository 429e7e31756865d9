"""The command in a pipe, without colours, without UTF-8, with a typing mistake, and while a shell completes."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from harness.cli import doctor
from harness.cli.context import Context
from harness.cli.main import cli


def test_a_table_is_not_torn_in_a_pipe(harness: Callable[..., Any]) -> None:
    """One line a dataset, however long its description; with COLUMNS as wide as that says."""
    piped = harness("data", "list", env={"COLUMNS": None})
    (row,) = [line for line in piped.out.splitlines() if line.startswith("tools ")]
    assert "Hermes" in row or "tool_call" in row
    assert len(piped.out.splitlines()) < len(harness("data", "list", env={"COLUMNS": "60"}).out.splitlines())


def test_a_terminal_without_utf_8_gets_plain_signs(harness: Callable[..., Any]) -> None:
    for encoding in ("ascii", "latin-1"):
        done = harness("template", "list", env={"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"})
        assert done.code == 0 and "..." in done.out, done.err


def test_a_command_to_type_next_has_what_this_one_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HARNESS_RUNS", raising=False)
    assert Context().typed("serve", "a b") == "harness serve 'a b'"
    given = Context(Path("/tmp/r"), (Path("p.py"),))
    assert given.typed("serve") == "harness --plugin p.py --runs /tmp/r serve"
    monkeypatch.setenv("HARNESS_RUNS", "/tmp/r")
    assert given.typed("serve") == "harness --plugin p.py serve"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["data", "list"], ["--help"]])
def test_an_output_that_cannot_be_written_is_one_message(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *words], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 1 and done.stderr.splitlines() == [
        "error: no space is left where the output goes, or a file that is written"
    ]


@pytest.mark.parametrize("module", ["torch", "peft"])
def test_a_missing_extra_is_named_whole(
    module: str, harness_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With its brackets, which are not taken for a style of the terminal's."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text('{"model_type": "qwen2"}')
    monkeypatch.setitem(sys.modules, module, None)  # which an import takes for a module that is not installed
    done = harness_here("ask", tmp_path / "model", "Who?")
    assert done.code == 1 and f"needs {module!r}" in done.err
    assert "pip install 'instruct-harness[tuning]'" in done.err


@pytest.mark.parametrize("no_color", ["", "1"])
def test_messages_have_no_colours_where_none_are_wanted(no_color: str, write_rows: Callable[..., Path]) -> None:
    """https://no-color.org: by a variable that is not empty."""
    rows = write_rows({"prompt": "Who?", "completion": "The heron."})
    done = CliRunner().invoke(cli, ["data", "validate", str(rows)], color=True, env={"NO_COLOR": no_color})
    assert done.exit_code == 0 and "read as prompt_completion" in done.stderr
    assert ("\x1b[" in done.stderr) == (not no_color)


@pytest.mark.parametrize(
    ("words", "nearest"),
    [(("tun",), "tune"), (("data", "lst"), "list"), (("runs", "shwo"), "show"), (("tune", "--pln"), "--plan"),
     (("data", "preview", "--dataset", "alpacca"), "alpaca"), (("recipe", "cpy"), "copy")],
)  # fmt: skip
def test_a_mistyped_word_is_answered_with_the_nearest(
    words: tuple[str, ...], nearest: str, harness_here: Callable[..., Any]
) -> None:
    done = harness_here(*words)
    assert done.code != 0 and "Did you mean" in done.err and f"'{nearest}'" in done.err


def test_an_option_of_the_root_behind_a_command_is_answered_with_its_place(harness_here: Callable[..., Any]) -> None:
    done = harness_here("data", "list", "--plugin", "riddles.py")
    assert done.code == 2 and "--plugin stands before the command: harness --plugin … data" in done.err


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("tu", "tune"),
        ("runs show de", "demo"),
        ("evaluate demo@", "demo@base"),
        ("data preview --dataset alp", "alpaca"),
        ("plugins show template chat", "chatml"),
        ("recipe copy seedling/de", "seedling/demo"),
    ],
)
def test_a_shell_completes_names(
    typed: str, offered: str, harness_here: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "runs" / "demo"
    run.mkdir(parents=True)
    (run / "manifest.json").touch()
    monkeypatch.setenv("HARNESS_RUNS", str(run.parent))
    for name, value in {
        "_HARNESS_COMPLETE": "bash_complete",
        "COMP_WORDS": f"harness {typed}",
        "COMP_CWORD": str(len(typed.split())),
    }.items():
        monkeypatch.setenv(name, value)
    assert f"plain,{offered}\n" in harness_here("").out


def test_each_shell_has_its_line(harness_here: Callable[..., Any]) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert f"{shell}_source" in harness_here("completion", shell).out


POSIX_ONLY = {"fcntl", "grp", "pwd", "resource", "termios"}


def test_windows_is_told_what_works_there() -> None:
    """And what is imported before that is there on Windows too."""
    code = "from harness.cli.main import main; import sys; print(*sys.modules); sys.platform = 'win32'; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "WSL 2" in done.stderr and "Traceback" not in done.stderr
    for name in (name for name in done.stdout.split() if name.startswith("harness")):
        body = ast.parse(Path(str(importlib.import_module(name).__file__)).read_text()).body  # what is not guarded
        imported = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
        assert imported & POSIX_ONLY == set(), name


def test_the_package_is_a_command(harness: Callable[..., Any], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "harness", "--version"], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stdout.startswith("instruct-harness ")


def test_doctor_says_what_works_on_a_mac(harness_here: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.sys, "platform", "darwin")
    monkeypatch.setattr(doctor.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(doctor, "_torch_build", lambda: "CPU")
    monkeypatch.setattr(doctor, "_gpus", list)
    out = harness_here("doctor").out
    assert "the Apple GPU (mps)" in out and "vLLM does not serve here" in out and "NVIDIA" not in out
