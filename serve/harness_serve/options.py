"""The options of the engine `vllm`, and the arguments of vLLM that stay the harness's own."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

import harness
from harness.nouns import Remote
from harness.options import Options

OWNED_ARGUMENTS = (
    "--host",
    "--port",
    "--uds",
    "--api-key",
    "--middleware",
    "--root-path",
    "--config",
    "--allowed-origins",
    "--worker-extension-cls",
)


def _origin(text: str) -> str:
    if re.fullmatch(r"https?://[^/*\s?#@]+", text) is None:
        raise ValueError("expected scheme, host and port alone, as in https://app.example.org")
    return text.lower()


Origin = Annotated[str, AfterValidator(_origin)]


class VllmOptions(Options):
    """Options of serving with vLLM. None means: as the note beside the field says."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    api_key: Annotated[SecretStr | None, Field(exclude=True)] = None
    keys: Annotated[Path | None, Field(exclude=True)] = None  # a file of `harness keys`
    max_request_mib: Annotated[float, Field(gt=0)] = 16.0
    allow_hosts: tuple[str, ...] = ()  # names to answer to besides the machine's own
    allow_origins: tuple[Origin, ...] = ()  # other sites whose pages may ask the endpoint (CORS)
    dtype: Literal["bfloat16", "float16", "float32"] | None = None  # the dtype the variants were tuned in
    max_model_len: Annotated[int, Field(gt=0)] | None = None  # the model's own, or as much as fits in memory
    kv_cache_gib: Annotated[float, Field(gt=0)] | None = None  # 1 on a CPU; what gpu_memory_utilization leaves on a GPU
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    tensor_parallel_size: Annotated[int, Field(gt=0)] = 1
    pipeline_parallel_size: Annotated[int, Field(gt=0)] = 1
    data_parallel_size: Annotated[int, Field(gt=0)] = 1  # copies of the model; adapters are checked on each
    executor: Literal["mp", "ray", "uni"] | None = None  # vLLM's choice; `ray` over several machines
    quantization: str | None = None  # the model's own; `vllm serve --help` names the methods
    adapter_slots: Annotated[int, Field(ge=0)] | None = None  # those named at the start and 2 more; 0 without any
    adapter_rank: Annotated[int, Field(gt=0)] | None = None  # the highest of those named at the start, or 16
    adapter_modules: tuple[str, ...] | None = None  # those named at the start change, or all linear layers
    cpu_threads: Annotated[int, Field(gt=0)] | None = None  # one fewer than this process may use cores
    enforce_eager: bool | None = None  # yes on a CPU, no on a GPU
    tool_parser: str | None = (
        None  # the template's; `none`: tool calls stay text. `vllm serve --help` names the parsers
    )
    reasoning_parser: str | None = None  # found by what the template writes; `none`: thoughts stay in the text
    compact_json: bool = False  # no white space between the parts of JSON that requests ask for
    batch_invariant: bool = False  # answers that do not depend on what shares their batch, where the build can
    seed: int = 0
    request_log: Path | None = None  # a JSON line for each request; beside the engine's log
    log_prompts: bool = False  # also what was asked
    remotes: Annotated[
        dict[str, Remote], Field(exclude=True, default_factory=dict)
    ]  # models of other endpoints, by their names here
    control_socket: Annotated[Path | None, Field(exclude=True)] = None  # on which the command changes adapters
    start_timeout_s: Annotated[float, Field(gt=0)] = 900.0
    extra_args: tuple[str, ...] = ()  # passed to vLLM as they are


def allowed_extra(extra_args: tuple[str, ...]) -> tuple[str, ...]:
    """Return the extra arguments, refusing one that would undo what the harness checks: who may ask, and where.

    vLLM takes a flag with - or _ between its words, and any unambiguous beginning of it.
    """
    for argument in extra_args:
        flag = argument.partition("=")[0].replace("_", "-")
        owned = [name for name in OWNED_ARGUMENTS if len(flag) > 2 and flag.startswith("--") and name.startswith(flag)]
        if owned:
            raise harness.HarnessError(
                f"extra_args may not hold {argument!r}: {owned[0]} is the harness's own; "
                f"use the option of `harness serve`"
            )
    return extra_args
