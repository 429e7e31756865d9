"""`harness --help` against `python -c "import click, pluggy"`, in one run.

The limit is what the two libraries the command cannot do without take to import; the bound is three times that. Both
are run alternately, the best of many is compared: what disturbs a start only ever makes it longer.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

ROUNDS = 30
BOUND = 3.0


def main() -> None:
    """Measure, print the ratio, write bench/results/startup.json."""
    harness = Path(sys.executable).with_name("harness")
    commands = {
        "import click, pluggy": [sys.executable, "-c", "import click, pluggy"],
        "harness --help": [str(harness), "--help"],
    }
    best = dict.fromkeys(commands, float("inf"))
    for _ in range(ROUNDS):
        for name, command in commands.items():
            began = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            best[name] = min(best[name], time.perf_counter() - began)
    limit, measured = best.values()
    for name, seconds in best.items():
        print(f"{name:24} {seconds * 1000:6.0f} ms")
    print(f"ratio {measured / limit:.2f} (bound {BOUND:g})")
    target = Path(__file__).with_name("results") / "startup.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps({"seconds": best, "ratio": measured / limit, "bound": BOUND}, indent=2) + "\n")
    if measured > BOUND * limit:
        sys.exit(f"harness --help takes more than {BOUND:g} times as long")


if __name__ == "__main__":
    main()
