"""The guard with a clock at both of its ends: what it adds to the time to the first token of each answer.

vLLM loads it with `--middleware _timed_guard.TimedGuard`. It appends a line to the file that HARNESS_BENCH_TIMES names.
"""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness_serve.engine_guard import EngineGuard
from harness_serve.guard import App, Receive, Scope, Send

FIRST_TOKEN = 2  # of the pieces of an answer that is streamed: the first one names the role


@dataclass(slots=True)
class Times:
    """One request: when it came to the guard and to the engine, and when the engine gave the first token."""

    came: float
    passed_on: float = 0.0
    given: float = 0.0


current: ContextVar[Times] = ContextVar("current")


class TimedGuard(EngineGuard):
    """The guard, with one clock before it and one behind it."""

    def __init__(self, app: App) -> None:
        super().__init__(_behind(app))
        self.times = Path(os.environ["HARNESS_BENCH_TIMES"]).open("a", buffering=1)  # noqa: SIM115

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        times = Times(time.perf_counter())
        current.set(times)
        pieces = 0

        async def sending(message: Any) -> None:
            nonlocal pieces
            pieces += bool(message.get("body"))
            if pieces == FIRST_TOKEN and message.get("body"):
                added = times.passed_on - times.came + time.perf_counter() - times.given
                self.times.write(f"{added:.7f}\n")
            await send(message)

        await super().__call__(scope, receive, sending)


def _behind(app: App) -> App:
    async def timed(scope: Scope, receive: Receive, send: Send) -> None:
        times, pieces = current.get(), 0
        times.passed_on = time.perf_counter()

        async def sending(message: Any) -> None:
            nonlocal pieces
            pieces += bool(message.get("body"))
            if pieces == FIRST_TOKEN and message.get("body"):
                times.given = time.perf_counter()
            await send(message)

        await app(scope, receive, sending)

    return timed
