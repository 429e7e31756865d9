"""Tokens a second of base and adapters in one engine, with every core free and with one taken by another program.

    python bench/serving.py .models/SmolLM2-135M-Instruct --into bench/results/serving-cpu.json

Eight requests at once, 64 tokens each, spread over the base and two adapters, with as many threads as `harness serve` chooses
and with one on every core. The two engines run one after the other, as they would take cores from each other; within each,
free and taken alternate, and the medians count. Run it on an idle machine: what else runs takes cores too.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from harness_serve.arguments import cpu_threads
from harness_serve.engine import VllmOptions, start
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from harness.client.asking import post
from harness.contract import Endpoint
from harness.model.load import load_template
from harness.plugins import Plugins
from harness.recipe import ModelSpec
from harness.variants import Variant

REQUESTS, TOKENS = 8, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="a model folder")
    parser.add_argument("--template", help="a template, for a model that has none of its own")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--into", type=Path, help="where the figures go, as JSON")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        variants = _variants(options.model, options.template, Path(folder))
        cores = len(os.sched_getaffinity(0))
        threads = {"as harness serve chooses": cpu_threads(VllmOptions()), "one on every core": cores}
        found: dict[str, Any] = {
            "model": options.model.name, "cores": cores, "machine": platform.processor() or platform.machine(),
            "load_before": round(os.getloadavg()[0], 2), "settings": {},
        }  # fmt: skip
        for name, count in threads.items():
            found["settings"][name] = measure(variants, count, options.rounds)
    text = json.dumps(found, indent=1)
    print(text)
    if options.into:
        options.into.write_text(text + "\n")


def measure(variants: tuple[Variant, ...], threads: int, rounds: int) -> dict[str, Any]:
    """Median tokens a second with every core free and with one taken, and what is left of the first in the second."""
    free, taken = [], []
    with start(variants, VllmOptions(port=_free_port(), cpu_threads=threads, max_model_len=512)) as endpoint:
        tokens_per_s(endpoint)
        for _ in range(rounds):
            free.append(tokens_per_s(endpoint))
            with busy_core():
                taken.append(tokens_per_s(endpoint))
    medians = statistics.median(free), statistics.median(taken)
    return {
        "threads": threads,
        "free": round(medians[0]), "taken": round(medians[1]), "left": round(medians[1] / medians[0], 2),
        "rounds": {"free": [round(value) for value in free], "taken": [round(value) for value in taken]},
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


def _variants(model: Path, template: str | None, folder: Path) -> tuple[Variant, ...]:
    """Two random adapters on every linear layer of the model."""
    spec = ModelSpec(path=str(model.resolve()))
    load_template(Variant("base", spec, template=template), Plugins()).save(folder / "chat")
    for number in range(2):
        torch.manual_seed(number)
        base = AutoModelForCausalLM.from_pretrained(spec.path, dtype=torch.bfloat16)
        config = LoraConfig(
            r=16, lora_alpha=16, target_modules="all-linear", init_lora_weights=False, task_type="CAUSAL_LM"
        )
        get_peft_model(base, config, autocast_adapter_dtype=False).save_pretrained(str(folder / f"adapter-{number}"))
    return tuple(Variant(f"adapter-{n}", spec, folder / f"adapter-{n}", folder / "chat") for n in range(2))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
