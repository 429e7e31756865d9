"""Rate and memory as rows grow: 10,000, 100,000 and 1,000,000 generated rows.

    python bench/data_scale.py [--rows 10000 100000 1000000]

Each number of rows is prepared in a process of its own, which reports rows per second and its peak memory, libraries
and mapped pages and all; then a second process reads the same from the cache. The limit of the rate is the tokenizer
(`bench/data.py`). The rows are the seedling's, numbered so that no two are the same. Then `near_duplicates` cleans the
largest number of rows of their words in another order, of which every tenth is the one before it with a word more.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _sides import in_process

SIZES = (10_000, 100_000, 1_000_000)


def main() -> None:
    """Generate, prepare and read again each number of rows; write bench/results/data-scale.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES, help="numbers of rows")
    parser.add_argument("--side", choices=("ours", "near"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        print(json.dumps({"ours": encode, "near": clean}[arguments.side](arguments.folder)))
        return
    from data import make_inputs

    sizes: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder, None, None)
        for rows in arguments.rows:
            generate(folder / "rows.jsonl", rows)
            os.environ["HARNESS_CACHE"] = str(folder / f"cache-{rows}")
            first, again = (in_process(sys.executable, __file__, "ours", folder) for _ in range(2))
            sizes[rows] = {**first, "again_seconds": again["seconds"], "again_from_cache": again["from_cache"]}
            print(
                f"{rows:>9,} rows   {first['rows_per_s']:>7,.0f} rows/s   "
                f"peak {first['peak_bytes'] / 2**20:>6,.0f} MiB   "
                f"again from cache in {again['seconds']:.2f} s",
                flush=True,
            )
        generate_near(folder / "near.jsonl", max(arguments.rows))
        near = in_process(sys.executable, __file__, "near", folder)
        print(
            f"near duplicates: {near['left_out']:,} of {near['rows']:,} rows found in {near['seconds']:,.0f} s   "
            f"peak {near['peak_bytes'] / 2**20:,.0f} MiB"
        )
    rates = [size["rows_per_s"] for size in sizes.values()]
    figures: dict[str, Any] = {"slowest_of_quickest": min(rates) / max(rates)}
    largest, before = ([None, None, *sizes])[-1], ([None, None, *sizes])[-2]
    if largest and before:
        figures["peak_of_the_size_before"] = sizes[largest]["peak_bytes"] / sizes[before]["peak_bytes"]
        print(
            f"the slowest rate is {figures['slowest_of_quickest']:.2f} of the quickest; "
            f"peak memory at {largest:,} rows is "
            f"{figures['peak_of_the_size_before']:.2f} x that at {before:,}"
        )
    target = Path(__file__).with_name("results") / "data-scale.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(
        json.dumps({"cores": os.cpu_count(), **figures, "sizes": sizes, "near_duplicates": near}, indent=2) + "\n"
    )
    print(f"written to {target}")


def generate(path: Path, rows: int) -> None:
    """Alpaca-type JSONL: the seedling's rows over and over, each with its number."""
    seeds = _seeds()
    with path.open("w") as file:
        for number in range(rows):
            seed = seeds[number % len(seeds)]
            row = {**seed, "instruction": f"{number}: {seed['instruction']}"}
            file.write(json.dumps(row) + "\n")


def generate_near(path: Path, rows: int) -> None:
    """Plain text of 40 words each; every tenth row is the one before it with a word more."""
    words = sorted({word for seed in _seeds() for word in f"{seed['instruction']} {seed['output']}".split()})
    chance = random.Random(1)
    text: list[str] = []
    with path.open("w") as file:
        for number in range(rows):
            text = [*text, "again"] if number % 10 == 9 else chance.choices(words, k=40)
            file.write(json.dumps({"text": " ".join(text)}) + "\n")


def _seeds() -> list[dict[str, str]]:
    source = Path(__file__).parents[1] / "recipes" / "seedling" / "data" / "train.alpaca.jsonl"
    return [json.loads(line) for line in source.read_text().splitlines()]


def clean(folder: Path) -> dict[str, Any]:
    """`near_duplicates` over the rows of a file, as `harness data build` reads and cleans them."""
    from harness.data import begin_report, prepare_items
    from harness.plugins import Plugins
    from harness.recipe import CleanStep, DataSource, DataSpec

    plugins = Plugins()
    step = type("Step", (plugins.filters["near_duplicates"].options, CleanStep), {})(filter="near_duplicates")
    spec = DataSpec(train=(DataSource(dataset="text", path=str(folder / "near.jsonl")),), clean=(step,))
    report = begin_report(spec, plugins)
    began = time.perf_counter()
    kept = sum(1 for _ in prepare_items(spec, plugins, report))
    seconds = time.perf_counter() - began
    left_out = sum(report.train[0].left_out.values())
    return {
        "rows": kept + left_out, "left_out": left_out, "seconds": seconds, "rows_per_s": (kept + left_out) / seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


def encode(folder: Path) -> dict[str, Any]:
    """`cached_data` once, as `harness tune` calls it."""
    from harness.data.cache.store import cached_data
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import DataSource, DataSpec, ModelSpec, TemplateSpec

    plugins = Plugins()
    template = bind_template(TemplateSpec(name="chatml"), ModelSpec(path=str(folder / "model")), plugins)
    spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(folder / "rows.jsonl")),))
    began = time.perf_counter()
    data, _ = cached_data(spec, plugins, template)
    seconds = time.perf_counter() - began
    return {
        "rows": len(data.examples), "tokens": data.tokens, "from_cache": data.from_cache, "seconds": seconds,
        "rows_per_s": len(data.examples) / seconds,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }  # fmt: skip


if __name__ == "__main__":
    main()
