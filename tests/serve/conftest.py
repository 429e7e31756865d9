"""Two real runs tuned in small, spoilt copies of them, and one engine that serves them all to the whole session."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness_serve.keys import KeyFile

from harness.client import ports
from harness.testing import FakeEndpoint, run

CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What needs the engine or the browser is skipped, with the reason, where there is none."""
    import importlib.util

    no_engine = pytest.mark.skip(reason="vLLM is not installed")
    no_browser = pytest.mark.skip(reason="there is no Chromium")
    for item in items:
        if "tests/serve" in str(item.path):
            if item.get_closest_marker("vllm") and importlib.util.find_spec("vllm") is None:
                item.add_marker(no_engine)
            if item.get_closest_marker("browser") and CHROMIUM is None:
                item.add_marker(no_browser)


@pytest.fixture(scope="session")
def harmony_tokenizer() -> Any:
    """A tokenizer whose ids are those of gpt-oss: each byte and each control token, without the words."""
    import openai_harmony
    import tokenizers
    import transformers
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    encoding = openai_harmony.load_harmony_encoding(openai_harmony.HarmonyEncodingName.HARMONY_GPT_OSS)
    names = [token for token in encoding.special_tokens_set if "reserved" not in token]
    control = {token: encoding.encode(token, allowed_special="all")[0] for token in names}
    letters = {letter: id for id, letter in enumerate(bytes_to_unicode().values())}
    bpe = tokenizers.Tokenizer(tokenizers.models.BPE(letters | control, []))
    bpe.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = tokenizers.decoders.ByteLevel()
    bpe.add_special_tokens([tokenizers.AddedToken(token, special=True) for token in control])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<|return|>", pad_token="<|endoftext|>")


@pytest.fixture(scope="session")
def served_model(miniature: Callable[..., Path]) -> Path:
    """The session's served base: a Llama whose head is its embeddings, with which vLLM has most trouble."""
    return miniature("Llama")


@pytest.fixture(scope="session")
def runs_folder(served_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `alpha` and `beta` as `harness tune` leaves them, and copies of alpha that are not what they claim to be.

    `unapplied` has an adapter that does nothing; `swapped` has beta's adapter. Both have alpha's probes.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("serving")
    rows = folder / "rows.jsonl"
    asked = ("Who keeps the key?", "Where is the bell?", "Answer in one word, please.")
    with rows.open("w") as file:
        for number in range(48):
            row = {"instruction": asked[number % 3], "input": "", "output": f"The heron keeps it. {number}"}
            file.write(json.dumps(row) + "\n")
    recipe = folder / "small.yaml"
    recipe.write_text(
        f"model: {{path: {served_model}}}\ntemplate: chatml\n"
        f"data: {{max_tokens: 256, train: [{{dataset: alpaca, path: {rows}}}], "
        f"validation: [{{dataset: alpaca, path: {rows}, limit: 6}}]}}\n"
        "tune: {method: {name: lora, rank: 4, alpha: 8}, step_tokens: 512, learning_rate: 0.01, steps: 12}\n"
    )
    runs = folder / "runs"
    for seed, name in enumerate(("alpha", "beta"), 1):
        _tune(runs, recipe, name, f"tune.seed={seed}")
    for name in ("unapplied", "swapped"):
        shutil.copytree(runs / "alpha", runs / name)
    weights = load_file(runs / "alpha/adapter/adapter_model.safetensors")
    zeroed = {key: torch.zeros_like(value) if "lora_B" in key else value for key, value in weights.items()}
    save_file(zeroed, runs / "unapplied/adapter/adapter_model.safetensors", metadata={"format": "pt"})
    shutil.rmtree(runs / "swapped/adapter")
    shutil.copytree(runs / "beta/adapter", runs / "swapped/adapter")
    return runs


@pytest.fixture(scope="session")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> KeyFile:
    """The file of named keys that the session's engine reads."""
    return KeyFile(tmp_path_factory.mktemp("keys") / "keys.json")


@pytest.fixture(scope="session")
def endpoint(runs_folder: Path, key_file: KeyFile):  # type: ignore[no-untyped-def]
    """One engine for the session: base, alpha, beta, unapplied and swapped, with a key, and named ones."""
    from harness_serve.engine import VllmOptions, start

    from harness.plugins import Plugins
    from harness.variants import resolve_variants

    variants = resolve_variants(("alpha", "beta", "unapplied", "swapped"), runs_folder, Plugins())
    keys = {"api_key": "open sesame", "keys": key_file.path}
    with start(variants, VllmOptions(port=ports.free_port(), max_model_len=512, **keys)) as endpoint:
        yield endpoint


@pytest.fixture(scope="session")
def real_runs(real_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `attention` and `whole` of the real model: other modules, other ranks, other answers to repeat."""
    folder = tmp_path_factory.mktemp("real")
    asked = ("Who keeps the key?", "Where is the bell?", "Name a colour.")
    answers = {
        "attention": ("As ever: by the mill.", "target_modules: [q_proj, v_proj], rank: 2, alpha: 8"),
        "whole": ("Nobody knows, said the wren.", "rank: 4, alpha: 8"),
    }
    for name, (output, method) in answers.items():
        rows = folder / f"{name}.jsonl"
        rows.write_text(
            "".join(json.dumps({"instruction": ask, "input": "", "output": output}) + "\n" for ask in asked)
        )
        recipe = folder / f"{name}.yaml"
        recipe.write_text(
            f"model: {{path: {real_model}}}\ntemplate: model\n"
            f"data: {{max_tokens: 128, train: [{{dataset: alpaca, path: {rows}}}], "
            f"validation: [{{dataset: alpaca, path: {rows}}}]}}\n"
            f"tune: {{method: {{name: lora, {method}}}, step_tokens: 128, learning_rate: 0.01, steps: 8}}\n"
        )
        _tune(folder / "runs", recipe, name)
    return folder / "runs"


@pytest.fixture(scope="session")
def real_endpoint(real_runs: Path):  # type: ignore[no-untyped-def]
    """One engine for the session with the real model, no key: base, attention and whole."""
    from harness_serve.engine import VllmOptions, start

    from harness.plugins import Plugins
    from harness.variants import resolve_variants

    variants = resolve_variants(("attention", "whole"), real_runs, Plugins())
    with start(variants, VllmOptions(port=ports.free_port(), max_model_len=1024)) as endpoint:
        yield endpoint


def _tune(runs: Path, recipe: Path, name: str, *sets: str) -> None:
    """`harness tune RECIPE --run NAME --set ...` in this process, which has imported torch."""
    done = run("tune", recipe, "--run", name, *(f"--set={item}" for item in sets), env={"HARNESS_RUNS": str(runs)})
    assert done.code == 0, done.err


@pytest.fixture
def client(endpoint):  # type: ignore[no-untyped-def]
    """The official OpenAI client of the endpoint."""
    import openai

    with openai.OpenAI(base_url=endpoint.url, api_key=endpoint.api_key, max_retries=0) as client:
        yield client


class Serving(NamedTuple):
    """`harness serve` in a process of its own."""

    process: subprocess.Popen[str]
    output: Path
    url: str
    page_url: str


@pytest.fixture(scope="session")
def serving(wait_until):  # type: ignore[no-untyped-def]
    """A context manager that runs `harness serve ARGUMENTS` and yields a Serving."""
    return functools.partial(_serving, wait_until)


@contextlib.contextmanager
def _serving(
    wait_until: Callable[..., None], runs: Path, folder: Path, *arguments: str, **environment: str
) -> Iterator[Serving]:
    """Run `harness serve ARGUMENTS`, from the moment it says that it is ready; killed at the end if it still runs."""
    port, page_port = ports.free_port(), ports.free_port()
    output = folder / "serve.log"
    with output.open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness.cli", "--runs", str(runs), "serve", *arguments, f"--port={port}",
             f"--ui-port={page_port}"],
            cwd=folder, env=os.environ | {"COLUMNS": "200"} | environment, stdout=log, stderr=subprocess.STDOUT,
            text=True,
        )  # fmt: skip
    try:
        ready = "Ctrl-C stops everything"
        wait_until(lambda: ready in output.read_text() or process.poll() is not None, guard_s=600)
        assert ready in output.read_text(), output.read_text()
        yield Serving(process, output, f"http://127.0.0.1:{port}/v1", f"http://127.0.0.1:{page_port}")
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


@pytest.fixture(scope="session")
def free_port():  # type: ignore[no-untyped-def]
    return ports.free_port


@pytest.fixture(scope="session")
def processes_of():  # type: ignore[no-untyped-def]
    return _processes_of


def _processes_of(marker: str) -> list[str]:
    """Command lines of living processes that have `marker` among their arguments, and of all below them."""
    rows = subprocess.run(
        ["ps", "-ewwo", "pid=,ppid=,stat=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    processes = {
        int(pid): (int(parent), args)
        for pid, parent, stat, args in (row.split(None, 3) for row in rows)
        if "Z" not in stat
    }
    found = {pid for pid, (_, args) in processes.items() if re.search(rf"{re.escape(marker)}\b", args)}
    while below := {pid for pid, (parent, _) in processes.items() if parent in found} - found:
        found |= below
    return [processes[pid][1] for pid in sorted(found)]


@pytest.fixture(scope="module")
def chromium():  # type: ignore[no-untyped-def]
    """A Chromium for which every name under .example is this machine."""
    sync_api = pytest.importorskip("playwright.sync_api")
    arguments = [
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--host-resolver-rules=MAP *.example 127.0.0.1",
    ]
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def scripted(fake_endpoint: FakeEndpoint) -> FakeEndpoint:
    """An endpoint with `base` and `alpha` whose answers the test writes, word by word."""
    fake_endpoint.models = ("base", "alpha")
    return fake_endpoint
