"""What the benchmarks against a peer share: each side runs in a process, and where needed an environment, of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any


def in_process(python: str, script: str, side: str, folder: Path) -> dict[str, Any]:
    """What `script --side SIDE --folder FOLDER` prints as its last line, run by `python`."""
    if not Path(python).exists():
        raise SystemExit(f"{python} is not there: `make bench` makes TRL's environment")
    command = [python, script, "--side", side, "--folder", str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
