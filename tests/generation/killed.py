"""Runs `harness generate` once as it is and once with kills, against an endpoint that is there, and compares the two.

    python tests/generation/killed.py SEEDS --endpoint URL --model NAME [--count 30] [--kills 8]

`author.py` says how to have a real one. Exit status 1 if the rows are not as many, or one is there twice.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ASKED = ["--examples", "3", "--max-tokens", "160", "--temperature", "0.6", "--json"]


def size_of(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def session(command: list[str], out: Path, kill_after_s: float | None) -> str | None:
    """What one session said on stdout, or None if it was killed, so many seconds after it had written something."""
    with tempfile.TemporaryFile("w+") as stdout:
        process = subprocess.Popen([*command, "--out", str(out)], stdout=stdout)
        if kill_after_s is not None:
            before = size_of(out)
            while process.poll() is None and size_of(out) == before:
                time.sleep(0.02)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(kill_after_s)
            process.send_signal(signal.SIGKILL)
        if (code := process.wait()) == -signal.SIGKILL:
            return None
        if code:
            sys.exit(f"harness generate ended with {code}")
        stdout.seek(0)
        return stdout.read()


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds")
    parser.add_argument("--endpoint", required=True)
    parser.add_argument("--model", required=True)
    parser.add_argument("--count", type=int, default=30)
    parser.add_argument("--kills", type=int, default=8)
    given = parser.parse_args()
    command = [
        sys.executable, "-m", "harness.cli", "generate", given.seeds, "--endpoint", given.endpoint, "--model",
        given.model, "--count", str(given.count), *ASKED,
    ]  # fmt: skip
    rng, kills = random.Random(11), 0
    with tempfile.TemporaryDirectory() as folder:
        whole, killed = Path(folder, "whole.jsonl"), Path(folder, "killed.jsonl")
        print("not killed", session(command, whole, None))
        while (told := session(command, killed, rng.uniform(0, 4) if kills < given.kills else None)) is None:
            kills += 1
            print(f"kill {kills}: {len(rows_of(killed))} rows", flush=True)
        print(f"killed {kills} times", told)
        rows, others = rows_of(killed), rows_of(whole)
    texts = {" ".join(re.findall(r"\w+", row["instruction"].lower())) for row in rows}
    facts = [{(row["id"], row["instruction"], row["input"], row["output"]) for row in some} for some in (rows, others)]
    print(
        f"{len(rows)} rows, {len(others)} without kills; {len(texts)} different instructions; "
        f"{len(facts[0] & facts[1])} rows are the same"
    )
    if not len(rows) == len(others) == len(texts) == len({row["id"] for row in rows}):
        sys.exit(1)


if __name__ == "__main__":
    main()
