"""Nothing of the engine outlives the harness, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import harness_serve
import pytest

pytestmark = pytest.mark.slow  # waits for processes to end

KEEPER = Path(harness_serve.__file__).with_name("keeper.py")

# Like an engine: children, grandchildren, one in a session of its own, and all of them deaf to SIGTERM.
ENGINE = """
import os, signal, subprocess, sys
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); signal.pause()"
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pids = [os.getpid()]
for setting in ({}, {"start_new_session": True}):
    pids.append(subprocess.Popen([sys.executable, "-c", DEAF], **setting).pid)
print(*pids, file=open(sys.argv[1] + ".part", "w"), flush=True)
os.rename(sys.argv[1] + ".part", sys.argv[1])
signal.pause()
"""

# Like the harness: holds the pipe, starts the keeper.
PARENT = """
import os, signal, subprocess, sys
reading, writing = os.pipe()
subprocess.Popen([sys.executable, "-I", *sys.argv[1:]], stdin=reading, start_new_session=True)
os.close(reading)
signal.pause()
"""


@pytest.fixture
def engine(tmp_path: Path) -> tuple[list[str], Path]:
    """The keeper's arguments for the pretended engine, and the file that tells its process ids."""
    pids = tmp_path / "pids"
    return [str(KEEPER), "0.5", sys.executable, "-c", ENGINE, str(pids)], pids


def _alive(pids: Path) -> list[int]:
    alive = []
    for pid in map(int, pids.read_text().split()):
        stat = Path(f"/proc/{pid}/stat")
        if stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
            alive.append(pid)
    return alive


def test_closing_the_pipe_ends_every_process(  # type: ignore[no-untyped-def]
    engine: tuple[list[str], Path], wait_until
) -> None:
    arguments, pids = engine
    keeper = subprocess.Popen([sys.executable, "-I", *arguments], stdin=subprocess.PIPE, start_new_session=True)
    wait_until(lambda: pids.exists() and len(_alive(pids)) == 3)
    assert keeper.stdin is not None
    keeper.stdin.close()
    keeper.wait()
    assert _alive(pids) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killing_the_parent_ends_every_process(  # type: ignore[no-untyped-def]
    engine: tuple[list[str], Path], number: int, wait_until
) -> None:
    arguments, pids = engine
    parent = subprocess.Popen([sys.executable, "-c", PARENT, *arguments])
    wait_until(lambda: pids.exists() and len(_alive(pids)) == 3)
    os.kill(parent.pid, number)
    parent.wait()
    wait_until(lambda: not _alive(pids))


def test_the_keeper_passes_the_status_on() -> None:
    keeper = subprocess.Popen(
        [sys.executable, "-I", str(KEEPER), "1", sys.executable, "-c", "raise SystemExit(7)"], stdin=subprocess.PIPE
    )
    assert keeper.wait() == 7
