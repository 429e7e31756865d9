"""`harness --help` beside ten plugins of others against `python -c "import click, pluggy"`, in one run.

The limit is what the two libraries the command cannot do without take to import; the bound is three times that, from
the second call on. One of the ten imports torch, one cannot be imported. The commands are run alternately and the best
of many is compared: what disturbs a start only ever makes it longer.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROUNDS = 30
BOUND = 3.0
DATASET = """
import harness{more}

@harness.hookimpl
def register_datasets(register):
    register(harness.Dataset("{name}", "rows of {name}", lambda row, options: None))
"""
COMMAND = """
import click
import harness

@click.command("{name}", help="Say hello.")
def hello():
    click.echo("hello")

@harness.hookimpl
def register_commands(register):
    register(hello)
"""
BROKEN = "import a_module_that_is_not_there\n"


def install(site: Path) -> None:
    """Write ten distributions into a folder, as pip leaves them."""
    texts = [DATASET.format(name=f"bench_dataset_{number}", more="") for number in range(6)]
    texts += [COMMAND.format(name=f"bench_command_{number}") for number in range(2)]
    texts += [DATASET.format(name="bench_torch", more="\nimport torch"), BROKEN]
    for number, text in enumerate(texts):
        name = f"bench_plugin_{number}"
        (site / name).mkdir()
        (site / name / "__init__.py").write_text(text)
        metadata = site / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[harness]\n{name} = {name}\n")


def main() -> None:
    """Measure, print the ratio, write bench/results/startup.json."""
    harness = Path(sys.executable).with_name("harness")
    commands = {
        "import click, pluggy": [sys.executable, "-c", "import click, pluggy"],
        "harness --help": [str(harness), "--help"],
    }
    best = dict.fromkeys(commands, float("inf"))
    with tempfile.TemporaryDirectory() as folder:
        site = Path(folder, "site")
        site.mkdir()
        install(site)
        path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))
        environment = os.environ | {"PYTHONPATH": path, "HARNESS_CACHE": str(Path(folder, "cache"))}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(*command: str) -> tuple[float, subprocess.CompletedProcess[str]]:
            began = time.perf_counter()
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            return time.perf_counter() - began, done

        first, _ = run(*commands["harness --help"])
        time.sleep(2.5)  # files that are newer than two seconds are read again at each start
        run(*commands["harness --help"])
        for _ in range(ROUNDS):
            for name, command in commands.items():
                seconds, done = run(*command)
                best[name] = min(best[name], seconds)
        assert "bench_command_1  Say hello." in done.stdout and "No module named 'a_module_that" in done.stderr
        listed = json.loads(run(str(harness), "plugins", "list", "--json")[1].stdout)
    imports = {row["name"]: row["import_s"] for row in listed["plugins"] if row["name"].startswith("bench_plugin")}
    slowest = max(imports, key=imports.__getitem__)
    limit, measured = best.values()
    print(f"{'the first call':24} {first * 1000:6.0f} ms")
    for name, seconds in best.items():
        print(f"{name:24} {seconds * 1000:6.0f} ms")
    print(f"ratio {measured / limit:.2f} (bound {BOUND:g}); the slowest plugin is {slowest}, {imports[slowest]:.2f} s")
    result = {
        "plugins": 10,
        "seconds": {"the first call": first, **best},
        "slowest_plugin": {"name": slowest, "import_s": imports[slowest]},
        "ratio": measured / limit,
        "bound": BOUND,
    }
    target = Path(__file__).with_name("results") / "startup.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")
    if measured > BOUND * limit:
        sys.exit(f"harness --help takes more than {BOUND:g} times as long")


if __name__ == "__main__":
    main()
