"""Starting the processes that tune one run, and starting all of them again where one is lost: torchrun's elastic agent.

A process that fails writes down why, so that the agent can tell what would fail again (a mistake in the recipe, a bug)
from what may pass (a process that was killed, a lost connection), and says it once.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import stat
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import torch
from torch.distributed.elastic.agent.server.api import RunResult, WorkerGroup, WorkerSpec
from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, Std
from torch.distributed.elastic.multiprocessing.errors import ProcessFailure
from torch.distributed.elastic.rendezvous import RendezvousParameters, registry

from harness.errors import ENDINGS, HarnessError
from harness_tuning.learner import OutOfMemory
from harness_tuning.world import POSITIONS, RESTARTS, is_lost_connection

LAUNCHED, REPORT = "HARNESS_LAUNCHED", "TORCHELASTIC_ERROR_FILE"
INTERRUPTED = 128 + signal.SIGINT
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # after the step and a checkpoint
AGENT_S = 20  # after the first failure, it is the agent that kills
LAST_LINES = 20  # of what a process that died without a word wrote to standard error


@dataclass(frozen=True, slots=True)
class Launch:
    """The processes to start on this machine, and the machines that take part.

    Args:
        number: of this machine, from 0; it hosts the meeting.
        meeting: HOST:PORT of machine 0, where all machines meet.
        max_restarts: times that all processes are started again.
    """

    processes: int
    machines: int = 1
    number: int = 0
    meeting: str | None = None
    max_restarts: int = 3


def launch(how: Launch, arguments: Sequence[str]) -> None:
    """Run `harness ARGUMENTS` in the processes until they have ended, and end as the one that decided it did.

    Raises:
        HarnessError: what a process reported, or that processes were lost more often than they may be.
        SystemExit: 130 where Ctrl-C ended the run after a checkpoint; 1 after the traceback of a bug.
    """
    _check_devices(how.processes)
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // how.processes)))
    os.environ[LAUNCHED] = "1"
    # Else those that are started again meet in the store of those before, and find the addresses of dead processes.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # the others are passed on, and not the agent's end
    if "LOGLEVEL" not in os.environ:  # the agent's own log says each failure many times over
        logging.disable(logging.CRITICAL)
    with tempfile.TemporaryDirectory(prefix="harness-launch-") as logs, contextlib.ExitStack() as after:
        for number in STOPS:
            after.callback(signal.signal, number, signal.getsignal(number))
        agent = Agent(_spec(how, arguments), logs)
        try:
            result = agent.run()
        except ENDINGS:
            raise
        except Exception as error:
            if agent.asked:
                raise SystemExit(INTERRUPTED) from None
            raise HarnessError(_meeting_failed(how, error)) from error
        finally:
            agent.get_worker_group().spec.rdzv_handler.shutdown()  # or the other machines would wait for this one
        if result is None:
            raise HarnessError(_meeting_failed(how, RuntimeError("the meeting was closed")))
        if result.is_failed():
            agent.end()


def _spec(how: Launch, arguments: Sequence[str]) -> WorkerSpec:
    settings: dict[str, Any] = {"endpoint": "localhost:0", "run_id": uuid.uuid4().hex, "local_addr": "127.0.0.1"}
    if how.meeting is not None:
        settings = {"endpoint": how.meeting, "run_id": "harness", "local_addr": _own_address(how)}
        settings["is_host"] = how.number == 0
    meeting = RendezvousParameters(
        "c10d", min_nodes=how.machines, max_nodes=how.machines, join_timeout=1800, **settings
    )
    return WorkerSpec(
        role="tune", local_world_size=how.processes, rdzv_handler=registry.get_rendezvous_handler(meeting),
        entrypoint=sys.executable, args=("-u", "-m", "harness", *arguments), max_restarts=how.max_restarts,
        local_addr=settings["local_addr"],
    )  # fmt: skip


def _own_address(how: Launch) -> str:
    """Return the address at which the other machines reach this one: that of the meeting, or of the way to it."""
    assert how.meeting is not None
    host, _, port = how.meeting.rpartition(":")
    if how.number == 0:
        return host
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host, int(port)))  # sends nothing
        except OSError as error:
            raise HarnessError(f"--rdzv {how.meeting}: {host} is not known here: {error.strerror}") from None
        address: str = probe.getsockname()[0]
        return address


def _check_devices(processes: int) -> None:
    """Raise HarnessError where the machine has accelerators, and fewer than processes."""
    count = torch.accelerator.device_count() if torch.accelerator.is_available() else processes
    if processes > count:
        raise HarnessError(f"--nproc {processes}: this machine has {count} accelerator{'s' if count > 1 else ''}")


def _meeting_failed(how: Launch, error: Exception) -> str:
    where = f"at {how.meeting}" if how.meeting else "on this machine"
    return (
        f"the {how.machines} machine{'s' if how.machines > 1 else ''} did not meet {where} ({type(error).__name__}: "
        f"{error}), or another one has ended the run: look there. Expected `harness tune` with the same --nnodes and "
        f"--rdzv on each, --node-rank 0 on the machine that --rdzv names"
    )


def begin_to_stop(number: int) -> None:
    """Say what the first of STOPS does, and hear no SIGHUP any more: the shell's comes behind the terminal's own.

    After SIGHUP what would go to the terminal, which is gone, goes nowhere.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if number == signal.SIGHUP:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for output in (1, 2):
            if stat.S_ISCHR(os.fstat(output).st_mode):
                os.dup2(nowhere, output)
        os.close(nowhere)
    click.echo("\nstopping after this step; Ctrl-C again stops at once, from the last checkpoint", err=True)


class Agent(LocalElasticAgent):  # type: ignore[misc]
    """An elastic agent that starts its processes again only where that may help, and passes signals on to them."""

    def __init__(self, spec: WorkerSpec, logs: str) -> None:
        quiet = dict.fromkeys(range(1, spec.local_world_size), Std.ALL)
        super().__init__(spec, DefaultLogsSpecs(log_dir=logs, redirects=quiet))
        self.asked = self.starts = 0  # signals so far, and times that the processes were started
        self.cause: Cause | None = None

    def _start_workers(self, worker_group: WorkerGroup) -> dict[int, Any]:
        os.environ[RESTARTS] = str(self.starts)  # the agent's own count is of failures on this machine
        self.starts += 1
        started: dict[int, Any] = super()._start_workers(worker_group)
        for number in STOPS:
            signal.signal(number, self._pass_on)
        return started

    def _pass_on(self, number: int, frame: object) -> None:
        self.asked += 1
        if self.asked == 1:
            begin_to_stop(number)
        for pid in self._pcontext.pids().values():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGINT)

    def _monitor_workers(self, worker_group: WorkerGroup) -> RunResult:
        result = super()._monitor_workers(worker_group)
        if result.is_failed():
            self.cause = cause = Cause.of(result.failures, worker_group.workers[0].world_size, self._errors())
            if self.asked or cause.is_final:
                self._remaining_restarts = 0
            elif cause.positions is not None:  # again with smaller batches, which does not count
                os.environ[POSITIONS] = str(cause.positions)
                self._remaining_restarts += 1
                click.echo(f"warning: {cause.message}", err=True)
            elif self._remaining_restarts:
                most = self._worker_group.spec.max_restarts
                number = most - self._remaining_restarts + 1
                click.echo(
                    f"warning: {cause.message}. All go on from the last checkpoint (restart {number} of {most})",
                    err=True,
                )
        return result

    def _errors(self) -> dict[int, Path]:
        """Return where each local process wrote its standard error."""
        return {rank: Path(path) for rank, path in self._pcontext.stderrs.items() if path}

    def end(self) -> None:
        """End as the failure that nothing was done about says."""
        cause = self.cause
        if cause is None or cause.is_interruption or (self.asked and not cause.is_final):
            raise SystemExit(INTERRUPTED)
        if cause.details:
            click.echo(cause.details.rstrip(), err=True)
        if cause.is_bug:
            raise SystemExit(1)
        raise HarnessError(cause.message)


@dataclass(frozen=True, slots=True)
class Cause:
    """The failure of one process that made the others fail.

    Args:
        is_final: it would fail again.
        details: a traceback, or the last lines that it wrote.
        positions: of a batch, with which memory may suffice.
    """

    message: str
    is_final: bool = False
    is_interruption: bool = False
    is_bug: bool = False
    details: str = ""
    positions: int | None = None

    @classmethod
    def of(cls, failures: dict[int, ProcessFailure], size: int, errors: dict[int, Path]) -> Cause:
        """Return the cause among the failures of processes, by rank.

        First what a process reported of itself, the main one before others; then one that a signal ended; then the
        first exception. A lost connection comes last, it has its cause elsewhere.
        """
        first = min(failure.timestamp for failure in failures.values())
        ranks = sorted(failures, key=lambda rank: (*_order(failures[rank], first), rank))
        failure, rank = failures[ranks[0]], ranks[0]
        report = failure.error_file_data
        process = f"process {rank} of {size}"
        if failure.exitcode == INTERRUPTED:
            return cls(f"{process} was interrupted", is_final=True, is_interruption=True)
        if "kind" not in report:
            return cls(f"{process} {_ended(failure)}", details=_last_lines(errors.get(failure.local_rank)))
        if report["kind"] == "memory":
            return cls(f"{process}: {report['message']}", positions=report["positions"])
        if report["kind"] == "mistake":
            return cls(report["message"], is_final=True)
        is_bug = report["kind"] == "bug"
        return cls(f"{process} failed: {report['message']}", is_bug, is_bug=True, details=report["traceback"])


def _order(failure: ProcessFailure, first: float) -> tuple[int, float]:
    """Return how near a failure is to the cause of all, where the first was at a time."""
    kind = failure.error_file_data.get("kind")
    if failure.exitcode == INTERRUPTED:
        return 0, 0.0
    if kind is None:  # the agent itself ends the others by SIGTERM, and after 30 s by SIGKILL
        is_agents = failure.exitcode in (-signal.SIGTERM, 128 + signal.SIGTERM) or failure.timestamp - first > AGENT_S
        return (4 if is_agents else 1), 0.0
    return {"memory": 0, "mistake": 0, "bug": 1, "passing": 2, "lost": 3}[kind], failure.error_file_data["time"]


def _ended(failure: ProcessFailure) -> str:
    if failure.exitcode < 0:
        name = signal.Signals(-failure.exitcode).name
        return f"was ended by {name}" + (", as the system does where memory runs out" if name == "SIGKILL" else "")
    return f"ended with status {failure.exitcode}"


def _last_lines(path: Path | None) -> str:
    if path is None or not path.is_file():
        return ""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-LAST_LINES:])


@contextlib.contextmanager
def reporting() -> Iterator[None]:
    """Report to the agent, in a process that it has started, what the block raises, and end with status 1."""
    if LAUNCHED not in os.environ:
        yield
        return
    try:
        yield
    except ENDINGS:
        raise
    except OutOfMemory as error:
        _report("memory", str(error), positions=error.positions)
    except HarnessError as error:
        _report("mistake", str(error))
    except Exception as error:
        kind = "passing" if isinstance(error, RuntimeError | OSError) else "bug"
        kind = "lost" if is_lost_connection(error) else kind
        _report(kind, f"{type(error).__name__}: {error}", traceback=traceback.format_exc())


def _report(kind: str, message: str, **more: Any) -> None:
    now = time.time()
    report = {"message": message, "timestamp": str(int(now)), "kind": kind, "time": now, **more}
    Path(os.environ[REPORT]).write_text(json.dumps(report), encoding="utf-8")
    raise SystemExit(1)
