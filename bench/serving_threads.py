"""Tokens a second of base and adapters in one engine, with every core free and with one taken by another program.

    python bench/serving_threads.py [MODEL] [--into FILE]

Eight requests at once, 64 tokens each, spread over the base and two adapters. One engine with as many threads as
`harness serve` chooses, others with one on every core, which wait for each other asleep or spinning. All of them are up
at once and asked in turns, so that what else runs on the machine meets all alike; an engine that is not asked sleeps.
Medians count. Run it on an idle machine: whatever else runs takes cores too.
"""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from _serving import adapters, arguments, keep
from harness_serve.arguments import cpu_threads
from harness_serve.engine import VllmOptions, start

from harness.client.asking import post
from harness.client.ports import free_port
from harness.contract import Endpoint
from harness.variants import Variant

ROOT = Path(__file__).parents[1]
REQUESTS, TOKENS = 8, 64
SPIN = "GOMP_SPINCOUNT"


def main() -> None:
    """Measure, print the figures and write them as JSON."""
    options = arguments(__doc__, "serving-threads-cpu.json", rounds=7)
    cores = len(os.sched_getaffinity(0))
    settings = {
        "as harness serve chooses": (cpu_threads(VllmOptions()), None),
        "one on every core, asleep": (cores, "0"),
        "one on every core, spinning shortly": (cores, "9999"),  # 10000 is the command's own, which no engine inherits
        "one on every core, spinning": (cores, "300000"),
    }
    began = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        variants = adapters(options.model, options.template, Path(folder), 2)
        endpoints = {name: stack.enter_context(engine(variants, *chosen)) for name, chosen in settings.items()}
        figures = measure(endpoints, options.rounds)
    figures = {
        "model": options.model.name,
        "cores": cores,
        "machine": platform.processor() or platform.machine(),
        "load": {"before": round(began, 2), "after": round(os.getloadavg()[0], 2)},
        "tokens_per_s": {name: {"threads": settings[name][0]} | its for name, its in figures.items()},
    }
    keep(figures, options.into)


@contextlib.contextmanager
def engine(variants: tuple[Variant, ...], threads: int, spin: str | None) -> Iterator[Endpoint]:
    """An engine with that many threads, which look that often for work before they sleep: libgomp's GOMP_SPINCOUNT."""
    before = os.environ.get(SPIN)
    if spin is not None:
        os.environ[SPIN] = spin
    options = VllmOptions(port=free_port(), cpu_threads=threads, max_model_len=512, kv_cache_gib=0.25)
    with start(variants, options) as endpoint:
        os.environ.pop(SPIN, None)
        if before is not None:
            os.environ[SPIN] = before
        tokens_per_s(endpoint)
        yield endpoint


def measure(endpoints: dict[str, Endpoint], rounds: int) -> dict[str, dict[str, Any]]:
    """Measure each engine's median tokens a second with all cores free, with one taken, and the ratio."""
    free: dict[str, list[float]] = {name: [] for name in endpoints}
    taken: dict[str, list[float]] = {name: [] for name in endpoints}
    for _ in range(rounds):
        for name, endpoint in endpoints.items():
            free[name].append(tokens_per_s(endpoint))
            with busy_core():
                taken[name].append(tokens_per_s(endpoint))
    medians = {name: (statistics.median(free[name]), statistics.median(taken[name])) for name in endpoints}
    return {
        name: {
            "free": round(medians[name][0]), "taken": round(medians[name][1]),
            "left": round(medians[name][1] / medians[name][0], 2),
            "rounds": {"free": [round(value) for value in free[name]],
                       "taken": [round(value) for value in taken[name]]},
        }
        for name in endpoints
    }  # fmt: skip


def tokens_per_s(endpoint: Endpoint) -> float:
    """Tokens a second of REQUESTS requests at once."""

    def ask(number: int) -> int:
        name = endpoint.models[number % len(endpoint.models)]
        body = {"model": name, "messages": [{"role": "user", "content": f"Tell me about the number {number}."}]}
        answer = post(endpoint, "/chat/completions", body | {"max_tokens": TOKENS, "ignore_eos": True})
        return int(answer["usage"]["completion_tokens"])

    began = time.perf_counter()
    with ThreadPoolExecutor(REQUESTS) as pool:
        tokens = sum(pool.map(ask, range(REQUESTS)))
    return tokens / (time.perf_counter() - began)


@contextlib.contextmanager
def busy_core() -> Iterator[None]:
    """Another program that takes one core, wherever the system puts it."""
    program = subprocess.Popen([sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE)
    try:
        assert program.stdout is not None
        program.stdout.readline()  # it runs
        yield
    finally:
        program.kill()
        program.wait()


if __name__ == "__main__":
    main()
