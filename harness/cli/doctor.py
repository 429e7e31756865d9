"""`harness doctor`: what was found on this machine, and in plain words what will not work and why.

Looks at metadata and files and imports nothing heavy, so that it works, and is quick, where everything else is broken.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

import harness
from harness.cli.context import Context
from harness.extras import installed_version
from harness.plugins.registry import SLOW_S

DISTRIBUTION = "instruct-harness"
OWN_EXTRAS = {"gguf": "harness models fetch of GGUF files"}  # those of plugins come with their diagnoses
HUB_TIMEOUT_S = 3.0
LITTLE_DISK_BYTES = 5e9


@dataclass
class Findings:
    """The results of the examination, in the order in which they are shown, and the problems that follow from them."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    purposes: dict[str, str] = field(default_factory=dict)  # of each extra, in the words of the commands


@click.command(name="doctor", help="Report this machine's packages, devices and plugins, and what will not work.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(context: Context, as_json: bool) -> None:
    findings = examine(context)
    if as_json:
        click.echo(
            json.dumps(
                {**findings.sections, "problems": findings.problems, "notes": findings.notes},
                indent=2,
                ensure_ascii=False,
            )
        )
        return
    from rich.markup import escape

    console = context.console
    for section, facts in findings.sections.items():
        console.print(f"[bold]{section.replace('_', ' ')}[/bold]")
        for key, value in facts.items():
            shown = f"missing {'; '.join(value)}" if section == "extras" and value else _shown(key, value)
            console.print(f"  {key.removesuffix('_bytes').replace('_', ' '):<15} {escape(shown)}", soft_wrap=True)
    console.print()
    for problem in findings.problems:
        console.print(f"[red]will not work[/red]  {escape(problem)}", soft_wrap=True)
    for note in findings.notes:
        console.print(f"[yellow]good to know[/yellow]   {escape(note)}", soft_wrap=True)
    if not findings.problems:
        console.print("[green]Everything that is installed should work.[/green]")


def examine(context: Context) -> Findings:
    """Examine the machine, the packages, the hub, the disks and the plugins."""
    findings = Findings()
    sections = findings.sections
    sections["harness"] = {
        "version": harness.__version__,
        "path": str(Path(harness.__file__).parent),
        "python": f"{platform.python_version()} ({sys.executable})",
        "platform": platform.platform(),
    }
    sections["machine"] = {"cores": _cores(), "memory_bytes": _memory_bytes(), "gpus": _gpus()}
    diagnoses = context.plugins.diagnoses()
    sections["packages"] = {name: installed_version(name) for name in ("torch", "transformers", "peft")}
    sections["packages"]["torch_build"] = _torch_build()
    for diagnosis in diagnoses:
        sections["packages"] |= diagnosis.packages
        findings.problems += diagnosis.problems
    if sections["machine"]["gpus"] and sections["packages"]["torch_build"] not in (None, "CPU"):
        sections["machine"]["torch_sees"] = _torch_sees()
    findings.purposes = OWN_EXTRAS | {diagnosis.extra: diagnosis.purpose for diagnosis in diagnoses if diagnosis.extra}
    sections["extras"] = {extra: _missing(extra) for extra in findings.purposes}
    sections["hub"] = _hub()
    sections["disk_free"] = _disks(context)
    context.plugins.load_all()
    sections["plugins"] = {"loaded": len(context.plugins.loaded), "failed": sorted(context.plugins.failed)}
    _conclude(findings, context)
    return findings


def _conclude(findings: Findings, context: Context) -> None:
    """Derive problems and notes from the results."""
    sections, problems, notes = findings.sections, findings.problems, findings.notes
    for extra, missing in sections["extras"].items():
        if missing:
            problems.append(
                f"{findings.purposes[extra]}: not installed or of the wrong version: {', '.join(missing)}. pip install "
                f"'{DISTRIBUTION}[{extra}]'"
            )
    build, gpus = sections["packages"]["torch_build"], sections["machine"]["gpus"]
    if gpus and build == "CPU":
        problems.append(
            "the GPU: nvidia-smi sees one, but this torch is built for the CPU. In a checkout: make clean demo "
            "BUILD=cuda"
        )
    elif build is not None and sys.platform == "darwin":
        device = "the Apple GPU (mps)" if platform.machine() == "arm64" else "the CPU"
        notes.append(
            f"macOS: data, tuning, evaluation and `harness ask` work, on {device}; the plan of a run names its device. "
            "vLLM does not serve here"
        )
    elif build is not None and not gpus:
        where = (
            "this torch is a CUDA build, but nvidia-smi shows no GPU"
            if build.startswith("CUDA")
            else "there is no NVIDIA GPU"
        )
        notes.append(
            f"{where}: tuning and serving run on the CPU, which is for small models (up to some hundred million "
            "weights)"
        )
    if "torch_sees" in sections["machine"] and not sections["machine"]["torch_sees"].isdigit():
        problems.append(f"the GPU: torch cannot use it: {sections['machine']['torch_sees']}")
    torch = sections["packages"]["torch"] or ""
    for package in ("torchvision", "torchaudio", "torchcodec"):
        version = installed_version(package)
        if version and torch.endswith("+cpu") and not version.endswith("+cpu"):
            problems.append(
                f"loading models: {package} {version} is a CUDA build beside a CPU torch, which breaks `import "
                f"transformers`. Nothing here needs it: pip uninstall {package}"
            )
    if sections["hub"]["reachable"] is False:
        why = (
            "HF_HUB_OFFLINE is set"
            if sections["hub"]["offline"]
            else f"{sections['hub']['endpoint']} does not answer ({sections['hub']['reason']})"
        )
        notes.append(
            f"the model hub cannot be reached, because {why}: models are loaded from local folders and the cache only"
        )
    for place, disk in sections["disk_free"].items():
        if disk["free_bytes"] is not None and disk["free_bytes"] < LITTLE_DISK_BYTES:
            notes.append(
                f"little disk space for {place.replace('_', ' ')}: {_gigabytes(disk['free_bytes'])} free in "
                f"{disk['path']}"
            )
    for info in context.plugins.failed.values():
        problems.append(f"the plugin {info}: {info.error}")
    for info in context.plugins.loaded.values():
        if info.import_s >= SLOW_S:
            notes.append(f"the plugin {info} takes {info.import_s:.1f} s to import: commands that use it wait for that")


# What is looked at


def _cores() -> int:
    """Return the cores this process may use: its affinity, and the quota of its control group."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _read("/sys/fs/cgroup/cpu.max").split()
    if len(quota) == 2 and quota[0].isdigit():
        cores = min(cores, max(1, round(int(quota[0]) / int(quota[1]))))
    return cores


def _memory_bytes() -> int | None:
    """Return the memory this process may use, in bytes; None where the system does not say."""
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(memory, int(limit)) if limit.isdigit() else memory


def _gpus() -> list[str]:
    """Return one line per GPU, from nvidia-smi."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, timeout=20, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.splitlines() if done.returncode == 0 else []


def _torch_build() -> str | None:
    """Return `CPU`, `CUDA 13.0` or `ROCm ...`: what torch was built for, read from its version file."""
    spec = importlib.util.find_spec("torch")
    if spec is None or spec.origin is None:
        return None
    text = _read(str(Path(spec.origin).parent / "version.py"))
    for name, key in (("CUDA", "cuda"), ("ROCm", "hip")):
        if match := re.search(rf"^{key}\b[^=]*= *'([^']+)'", text, re.MULTILINE):
            return f"{name} {match[1]}"
    return "CPU"


def _torch_sees() -> str:
    """Return the number of GPUs that torch can use, from another process, or the reason why it cannot use one."""
    code = "import torch; torch.cuda.init(); print(torch.cuda.device_count())"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "it did not answer in 120 s"
    lines = (done.stdout if done.returncode == 0 else done.stderr).strip().splitlines()
    return lines[-1] if lines else f"exit status {done.returncode}"


def _missing(extra: str) -> list[str]:
    """Return the requirements of an extra that are not installed, or not in a version that satisfies them."""
    try:
        requirements = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        return [f"{DISTRIBUTION} itself is not installed, only importable"]
    missing = []
    for requirement in requirements:
        wanted, _, marker = requirement.partition(";")
        name = re.match(r"[A-Za-z0-9._-]+", wanted)
        if name is None or name[0] == DISTRIBUTION or not re.search(rf"extra == ['\"]{extra}['\"]", marker):
            continue
        version = installed_version(name[0])
        if version is None:
            missing.append(name[0])
        elif not _fits(version, wanted[name.end() :].strip()):
            missing.append(f"{wanted.strip()} (found {version})")
    return missing


def _fits(version: str, specifier: str) -> bool:
    """Return whether a version satisfies a specifier. `packaging` comes with every extra, not with the bare install."""
    try:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet
    except ImportError:
        return True
    try:
        return SpecifierSet(re.sub(r"^\[.*?\]", "", specifier).strip(" ()")).contains(version, prereleases=True)
    except InvalidSpecifier:
        return True


def _hub() -> dict[str, Any]:
    """Return whether the model hub answers, within three seconds whatever the network does."""
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in {"1", "true", "yes", "on"}
    hub: dict[str, Any] = {"endpoint": endpoint, "offline": offline, "reachable": False, "reason": "not asked"}
    if offline:
        return hub
    answer: dict[str, Any] = {}

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(endpoint, method="HEAD"), timeout=HUB_TIMEOUT_S).close()
            answer.update(reachable=True, reason="")
        except urllib.error.HTTPError:  # it answers, if only to say no
            answer.update(reachable=True, reason="")
        except (OSError, ValueError) as error:
            answer.update(reason=str(getattr(error, "reason", error)))

    # A thread, because looking up a name has no time limit of its own.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(HUB_TIMEOUT_S)
    return hub | (answer or {"reason": f"no answer in {HUB_TIMEOUT_S:.0f} s"})


def _disks(context: Context) -> dict[str, dict[str, Any]]:
    home = Path(
        os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "huggingface"
    )
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    disks = {}
    for place, path in (
        ("this_folder", Path.cwd()),
        ("the_runs", context.runs_folder.absolute()),
        ("the_model_cache", cache.expanduser().absolute()),
    ):
        existing = next((folder for folder in (path, *path.parents) if folder.exists()), None)
        disks[place] = {"path": str(path), "free_bytes": shutil.disk_usage(existing).free if existing else None}
    return disks


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError:
        return ""


# How it is told


def _shown(key: str, value: Any) -> str:
    if value is None:
        return "unknown" if key == "memory_bytes" else "not installed"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        free = value["free_bytes"]
        return f"{'unknown' if free is None else _gigabytes(free)}   {value['path']}"
    if isinstance(value, list):
        return "; ".join(value) or ("none" if key in ("gpus", "failed") else "all there")
    return _gigabytes(value) if key.endswith("_bytes") else str(value) or "-"


def _gigabytes(size_bytes: float) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
