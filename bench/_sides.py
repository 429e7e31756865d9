"""Shared code of the benchmarks against a peer: each side in a process of its own, and an environment where needed."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


def in_process(python: str, script: str, side: str, folder: Path) -> dict[str, Any]:
    """Run `script --side SIDE --folder FOLDER` with `python`, and return what it prints as its last line."""
    if not Path(python).exists():
        raise SystemExit(f"{python} is not there: `make bench` makes TRL's environment")
    command = [python, script, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures
