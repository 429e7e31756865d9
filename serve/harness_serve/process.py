"""The engine's process: kept for as long as it is wanted, waited for, and asked why it ended."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import harness
from harness.contract import Endpoint
from harness_serve.engine_log import telling_lines
from harness_serve.options import VllmOptions

GRACE_S = 5.0

# Lines of the engine's log that show progress, and the next thing that a person waits for.
MILESTONES = (
    ("Starting to load model", "loading the weights"),
    ("Loading weights took", "making room for the KV cache"),
    ("init engine", "loading the adapters"),
    ("Starting vLLM server", "the server to answer"),
)


@contextlib.contextmanager
def kept(arguments: list[str], environment: dict[str, str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run vLLM under the keeper, which stops it and all its children when this block or this process ends anyhow."""
    folder = Path(__file__).parent
    keeper = [sys.executable, "-I", str(folder / "keeper.py"), str(GRACE_S)]
    launch = [sys.executable, "-m", "harness_serve.launch", *arguments]
    reading, writing = os.pipe()
    try:
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*keeper, *launch],
                stdin=reading,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        os.close(reading)
        yield process
    finally:
        os.close(writing)
        while process.poll() is None:  # as long as the keeper takes: a second Ctrl-C ends nothing sooner
            with contextlib.suppress(KeyboardInterrupt):
                process.wait()


def wait_until_healthy(
    endpoint: Endpoint,
    engine: subprocess.Popen[bytes],
    log_path: Path,
    options: VllmOptions,
    report: Callable[[str], None],
) -> None:
    deadline = time.monotonic() + options.start_timeout_s
    url = endpoint.url.removesuffix("/v1") + "/health"
    seen = -1
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        if engine.poll() is not None:
            raise harness.HarnessError(
                f"the engine ended while it started (status {engine.returncode}):\n{telling_lines(log_path)}"
            )
        if time.monotonic() > deadline:
            raise harness.HarnessError(
                f"the engine did not answer within {options.start_timeout_s:g} s; "
                f"its log ends with:\n{telling_lines(log_path)}\n"
                f"Give it longer with --set start_timeout_s={2 * options.start_timeout_s:g}"
            )
        log = log_path.read_text(encoding="utf-8", errors="replace")
        reached = max((index for index, (line, _) in enumerate(MILESTONES) if line in log), default=-1)
        if reached > seen:
            seen = reached
            report(MILESTONES[reached][1])
        time.sleep(0.1)
