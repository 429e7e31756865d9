"""`harness` in processes that begin in no time: forked from one that has imported torch and what tuning needs.

Forked, not started: importing takes seconds each time. Signals, exit statuses, locks and output are those of any
process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
import time
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

OVERRIDES = {"COLUMNS": "200", "OMP_NUM_THREADS": "1"}
IMPORTED = [
    "harness.cli.main",
    "harness_tuning.command",
    "harness_tuning.session",
    "transformers.models.qwen2.modeling_qwen2",
    "peft",
    "tests.tuning.processes",
]
_CONTEXT = multiprocessing.get_context("forkserver")


class Process:
    """A running `harness ARGUMENTS`, with the methods of Popen that the tests use."""

    def __init__(self, folder: Path, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        before = {key: os.environ.get(key) for key in OVERRIDES}
        os.environ.update(OVERRIDES)  # read when torch is imported
        _CONTEXT.set_forkserver_preload(IMPORTED)
        forkserver.ensure_running()
        for key, value in before.items():
            os.environ.pop(key)
            if value is not None:
                os.environ[key] = value
        self._output = [folder / f".{name}-{id(self)}" for name in ("out", "err")]
        environment = dict(os.environ) | OVERRIDES | environment
        self._process = _CONTEXT.Process(target=run, args=(folder, arguments, environment, self._output))
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Wait for its end and return what it wrote to standard output and standard error."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"it did not end in {timeout} s"
        out, err = (path.read_text() if path.exists() else "" for path in self._output)
        return out, err

    def send_signal(self, number: int) -> None:
        if self._process.is_alive():
            os.kill(self._process.pid, number)  # type: ignore[arg-type]

    def wait_until_stopped(self) -> None:
        """Return once SIGSTOP has stopped it."""
        stat = Path(f"/proc/{self._process.pid}/stat")
        while stat.read_text().rpartition(")")[2].split()[0] != "T":
            assert self.poll() is None, self.communicate(1)
            time.sleep(0.02)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def wait(self, timeout: float = 60) -> None:
        self._process.join(timeout)


def together(
    folder: Path, *arguments: object, size: int = 2, signal_at: int | None = None
) -> list[tuple[int | None, str]]:
    """Exit statuses and outputs of `size` processes that tune one run, as torchrun starts them, the main one first.

    All but the main one fail at the first write below `folder`/runs. The main one is asked to stop after step
    `signal_at`.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(size):
        environment = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "MASTER_PORT": port}
        environment |= {"MASTER_ADDR": "127.0.0.1"} | ({"REFUSE_WRITES_BELOW": folder / "runs"} if rank else {})
        if signal_at is not None and rank == 0:
            environment["SIGNAL_AT_STEP"] = f"{signal_at}:{int(signal.SIGTERM)}"
        words = {key: str(value) for key, value in environment.items()}
        processes.append(
            Process(folder / f"rank-{rank}", ("--runs", str(folder / "runs"), *map(str, arguments)), words)
        )
    ends = [(process.communicate(timeout=300), process.returncode) for process in processes]
    return [(code, out + err) for (out, err), code in ends]


def start(folder: Path, *arguments: object, signal_at: tuple[int, int] | None = None, **variables: str) -> Process:
    """Begin `harness ARGUMENTS` in `folder`, with environment variables.

    `signal_at`: a step and the signal the process sends itself after it.
    """
    environment = {} if signal_at is None else {"SIGNAL_AT_STEP": "{}:{}".format(*map(int, signal_at))}
    return Process(folder, tuple(map(str, arguments)), environment | variables)


def tune(folder: Path, *arguments: object, **variables: str) -> tuple[int | None, str]:
    """The exit status and the whole output of `harness tune ARGUMENTS`."""
    process = start(folder, "tune", *arguments, **variables)
    out, err = process.communicate(timeout=300)
    return process.returncode, out + err


def run(folder: Path, arguments: tuple[str, ...], environment: dict[str, str], output: list[Path]) -> None:
    """Be `harness ARGUMENTS`, in the forked process."""
    folder.mkdir(exist_ok=True)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    for stream, path in zip((sys.stdout, sys.stderr), output, strict=True):
        stream.flush()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)
    if "REFUSE_WRITES_BELOW" in environment:
        _refuse_writes(environment["REFUSE_WRITES_BELOW"])
    if "SIGNAL_AT_STEP" in environment:
        _signal_at(*map(int, environment["SIGNAL_AT_STEP"].split(":")))
    from harness.cli.main import main

    main(list(arguments))


WRITES = {"os.mkdir", "os.remove", "os.rename", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.rmtree"}


def _refuse_writes(folder: str) -> None:
    """Raise where this process writes below `folder`."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        is_write = event in WRITES or (event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        if is_write and any(str(Path(str(path)).absolute()).startswith(folder) for path in args[:2]):
            raise RuntimeError(f"{event} {args}: a process that is not the main one writes the run")

    sys.addaudithook(hook)


def _signal_at(step: int, number: int) -> None:
    """Send this process a signal at the end of a step: no test has to hit the moment from outside."""
    from harness.contract.events import Event, Step
    from harness.run import Events

    send = Events.send

    def sending(self: Events, event: Event) -> None:
        send(self, event)
        if isinstance(event, Step) and event.step == step:
            os.kill(os.getpid(), number)

    Events.send = sending  # type: ignore[method-assign]
