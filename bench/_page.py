"""The page of `harness serve`, for those who look at it in a browser."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from harness.client.ports import free_port

READY = "Ctrl-C stops everything"


@contextlib.contextmanager
def served(runs: Path, log: Path, *arguments: str) -> Iterator[str]:
    """Run `harness serve ARGUMENTS` in the folder of its log; yields the page's URL once it is ready."""
    port, page_port = free_port(), free_port()
    command = ["serve", *arguments, f"--port={port}", f"--ui-port={page_port}"]
    print("$ harness", *command, flush=True)
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", "--runs", str(runs), *command],
            cwd=log.parent, env=os.environ | {"COLUMNS": "200"}, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    try:
        while READY not in log.read_text():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.5)
                sys.exit(log.read_text())
        yield f"http://127.0.0.1:{page_port}"
    finally:
        process.terminate()
        process.wait()
