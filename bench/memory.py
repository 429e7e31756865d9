"""The memory that the plan states for a step against what the step is seen to take, on this CPU.

    python bench/memory.py --rows ROWS.json

For each shape of bench/tuning.py and objective, a process of its own tunes up to the widest batch. The bytes of that
batch are estimated on empty tensors, and counted on its real ones: those that were asked for. The growth of the process
is counted from the moment at which the estimate is made, when the weights are there and nothing else, to the peak of
the steps; it has the allocator's gaps in it, too. It does not depend on what else the machine does. Beside it stands
how much a process grows while it loads the model, over the size of its weights.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from _sides import in_process
from tuning import LEARNING_RATE, RANK, SHAPES, make_inputs

OBJECTIVES = ("sft", "dpo")
LEAST_STEPS = 3
TARGET = Path(__file__).with_name("results") / "memory-cpu.json"


def main() -> None:
    """Measure each shape and objective, print estimate and growth, and write bench/results/memory-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="an alpaca-type JSON file [default: rows made from the seedling's]")
    parser.add_argument("--shape", choices=SHAPES, action="append", help="one or more of them [default: 20M and 135M]")
    parser.add_argument("--side", choices=(*OBJECTIVES, "load"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side = loaded(arguments.folder) if arguments.side == "load" else measured(arguments.folder, arguments.side)
        print(json.dumps(side))
        return
    results: dict[str, Any] = json.loads(TARGET.read_text())["shapes"] if TARGET.exists() else {}
    for shape in arguments.shape or ("20M", "135M"):
        for objective in OBJECTIVES:
            with tempfile.TemporaryDirectory() as temporary:
                make_inputs(Path(temporary), shape, arguments.rows)
                figures = in_process(sys.executable, __file__, objective, Path(temporary))
                if objective == OBJECTIVES[0]:
                    figures |= in_process(sys.executable, __file__, "load", Path(temporary))
                    print(f"{shape:5} loading: grown by {figures['loading_over_weights']:.2f} x its weights")
            results[f"{shape} {objective}"] = figures
            estimate, grown = figures["estimated_bytes"], figures["grown_bytes"]
            print(
                f"{shape:5} {objective}: a batch estimated {figures['batch_bytes'] / 2**20:7,.1f} MiB, counted "
                f"{figures['counted_batch_bytes'] / 2**20:7,.1f}; the step estimated {estimate / 2**20:6,.0f}, the "
                f"process grown by {grown / 2**20:6,.0f} ({estimate / grown - 1:+.0%})",
                flush=True,
            )
            TARGET.write_text(json.dumps({"cores": os.cpu_count(), "shapes": results}, indent=2) + "\n")


def measured(folder: Path, objective: str) -> dict[str, Any]:
    """Tune up to the widest batch, and return its estimate and what the process grew by."""
    from harness_tuning import loop, memory
    from harness_tuning.loop import Tuner, TuningData

    from harness.data import Reader, encode_sources
    from harness.model.load import free_memory, pick_device
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import load_recipe
    from harness.run import Run

    plugins, device = Plugins(), pick_device()
    recipe = load_recipe(_recipe(folder, objective), plugins)
    template = bind_template(recipe.template, recipe.model, plugins)
    reader = Reader.of(recipe.tune.objective, plugins, None)
    train = encode_sources(recipe.data.train, recipe.data, plugins.datasets, template, reader=reader)
    tuner = Tuner(Run.create(folder / "run", recipe, plugins), plugins, template, TuningData(train, None), device)
    about: dict[str, Any] = {}

    def fit(learner: Any, source: Any, *rest: Any) -> memory.Fit:
        part = memory.widest_part(source)
        batch = source.batch(part)
        about["positions"] = part.positions
        about["batch_bytes"] = memory.batch_bytes(learner, batch)
        about["counted_batch_bytes"] = counted(learner, batch)
        about["estimated_bytes"] = memory.growth_bytes(learner, source, part)
        about["weights_bytes"] = tuner.size_bytes
        free_memory()
        ctypes.CDLL(None).malloc_trim(0)  # what the allocator has free would hide some of the growth
        about["before"] = _forget_peak()
        return memory.fit(learner, source, *rest)

    loop.fit = fit
    tuner.start()
    steps = range(1, tuner.total_steps + 1)
    widest = max(steps, key=lambda step: tuner.source.parts(step)[0].positions)
    for metrics in tuner.steps(lambda: False):
        if metrics["step"] >= max(LEAST_STEPS, widest):
            break
    before = about.pop("before")
    return about | {"grown_bytes": _status("VmHWM:") - before, "kernels": str(tuner.fused)}


def counted(learner: Any, batch: Any) -> int:
    """Return the most bytes that the tensors of a batch's loss and gradient held at once, beside the weights."""
    from harness_tuning.gates import without_trace
    from harness_tuning.memory import Held

    with without_trace(learner), Held() as held:
        for weight in [*learner.model.parameters(), *learner.model.buffers()]:
            held.leave_out(weight)
        learner.value(learner.prepared(batch)).backward()
    return int(held.most)


def loaded(folder: Path) -> dict[str, Any]:
    """Load the model, after a first one that brings in all code, and return what the process grew by at its peak."""
    from harness.model.load import free_memory, load_model
    from harness.recipe import ModelSpec

    spec = ModelSpec(path=str(folder / "model"), dtype="bfloat16")
    load_model(spec)
    free_memory()
    ctypes.CDLL(None).malloc_trim(0)
    before = _forget_peak()
    model = load_model(spec)
    weights = sum(weight.numel() * weight.element_size() for weight in model.parameters())
    return {"loading_over_weights": (_status("VmHWM:") - before) / weights}


def _recipe(folder: Path, objective: str) -> Path:
    """Write the recipe; for pairs, the rejected answer to a question is that of the next row."""
    rows, tokens = json.loads((folder / "rows.json").read_text()), int((folder / "batch_tokens").read_text())
    dataset, path = "alpaca", folder / "rows.json"
    if objective == "dpo":
        pairs = [
            {"prompt": row["instruction"], "chosen": row["output"], "rejected": other["output"]}
            for row, other in zip(rows, [*rows[1:], rows[0]], strict=True)
        ]
        dataset, path = "preferences", folder / "pairs.json"
        path.write_text(json.dumps(pairs))
    recipe = folder / f"{objective}.yaml"
    recipe.write_text(
        f"name: {objective}\nmodel: {{path: {folder / 'model'}}}\ntemplate: chatml\n"
        f"data: {{max_tokens: 2048, train: [{{dataset: {dataset}, path: {path}}}]}}\n"
        f"tune: {{objective: {objective}, method: {{name: lora, rank: {RANK}, alpha: 32}}, "
        f"learning_rate: {LEARNING_RATE}, step_tokens: {tokens}, epochs: 1, warmup_ratio: 0}}\n"
    )
    return recipe


def _forget_peak() -> int:
    """Let the peak of this process's memory begin at what it takes now, and return that."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS:")


def _status(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024


if __name__ == "__main__":
    main()
