"""In one batch, base and adapters are asked all at once, in every way there is: each answer is its own variant's.

Measured against the same models under transformers and PEFT in float32: the log-probability of every token that the
engine reports must be nearer to its own variant's than to any other's.
"""

from __future__ import annotations

import json
import os
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
openai = pytest.importorskip("openai")

pytestmark = pytest.mark.vllm
SHARED = 140  # tokens: more than a block of vLLM's KV cache on a CPU, so that prompts which share them share blocks
WAYS = ("prompt_logprobs", "greedy", "streamed", "sampled")
NEAR = {"float32": 1e-3, "bfloat16": 0.1}


@dataclass(frozen=True)
class Question:
    """One request: prompt ids to a model, and the way to ask."""

    model: str
    prompt: tuple[int, ...]
    way: str


@dataclass(frozen=True)
class Answer:
    """The ids that came back, and the log-probabilities of them, or of the prompt's ids but the first."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...]


def questions(models: Sequence[str], vocabulary: int, longest: int, count: int = 64, seed: int = 0) -> list[Question]:
    """`count` questions of many lengths; each fifth prompt begins with the same SHARED tokens."""
    draw = random.Random(seed)
    shared = [draw.randrange(3, vocabulary) for _ in range(SHARED)]
    asked = []
    for number in range(count):
        own = [draw.randrange(3, vocabulary) for _ in range(draw.randint(2, longest))]
        prompt = shared + own[:20] if number % 5 == 0 else own
        asked.append(Question(models[number % len(models)], tuple(prompt), WAYS[number // len(models) % len(WAYS)]))
    draw.shuffle(asked)
    return asked


def ask(client: Any, question: Question, max_tokens: int = 12) -> Answer:
    """Ask the engine by ids."""
    body: dict[str, Any] = {"model": question.model, "prompt": list(question.prompt), "max_tokens": max_tokens}
    more: dict[str, Any] = {"return_token_ids": True, "add_special_tokens": False, "ignore_eos": True}
    if question.way == "prompt_logprobs":
        body |= {"max_tokens": 1, "temperature": 0}
        choice = client.completions.create(**body, extra_body=more | {"prompt_logprobs": 0}).choices[0]
        entries = choice.prompt_logprobs[1:]
        found = [entry[str(token)]["logprob"] for token, entry in zip(question.prompt[1:], entries, strict=True)]
        return Answer(question.prompt[1:], tuple(found))
    body |= {"temperature": 1, "seed": len(question.prompt)} if question.way == "sampled" else {"temperature": 0}
    if question.way != "streamed":
        choice = client.completions.create(**body, logprobs=0, extra_body=more).choices[0]
        return Answer(tuple(choice.token_ids), tuple(choice.logprobs.token_logprobs))
    ids: list[int] = []
    logprobs: list[float] = []
    for chunk in client.completions.create(**body, logprobs=0, stream=True, extra_body=more):
        ids += chunk.choices[0].token_ids or []
        logprobs += chunk.choices[0].logprobs.token_logprobs if chunk.choices[0].logprobs else []
    return Answer(tuple(ids), tuple(logprobs))


def ask_at_once(client: Any, asked: Sequence[Question]) -> list[Answer]:
    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda question: ask(client, question), asked))


class Truth:
    """The variants under transformers and PEFT, in float32, so that only the engine rounds."""

    def __init__(self, model: Path, adapters: Mapping[str, Path]) -> None:
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        def load() -> Any:
            return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)

        self._models = {"base": load()} | {
            name: PeftModel.from_pretrained(load(), str(folder), autocast_adapter_dtype=False)
            for name, folder in adapters.items()
        }

    @torch.no_grad()
    def logprobs(self, name: str, question: Question, answer: Answer) -> list[float]:
        """What the variant gives to the same tokens at the same places."""
        start = 1 if question.way == "prompt_logprobs" else len(question.prompt)
        text = question.prompt[:start] + answer.ids
        logits = self._models[name](torch.tensor([text])).logits[0, start - 1 : -1].float()
        return logits.log_softmax(-1).gather(-1, torch.tensor(answer.ids)[:, None])[:, 0].tolist()


def judge(truth: Truth, asked: Sequence[Question], answers: Sequence[Answer], near: float) -> dict[str, float]:
    """Assert that each answer is its own variant's, and return by how much."""
    names = sorted({question.model for question in asked})
    own_differences, others, nearest, told = [], [], [], set()
    for question, answer in zip(asked, answers, strict=True):
        expected = {name: truth.logprobs(name, question, answer) for name in names}
        differences = {name: _difference(answer.logprobs, its) for name, its in expected.items()}
        own = differences.pop(question.model)
        assert own < near, (question, own, differences)
        apart = min(_difference(expected[question.model], expected[name]) for name in differences)
        if apart < near:  # on these tokens the variants differ by no more than rounding may
            continue
        assert own < min(differences.values()), (question, own, differences)
        told.add(question.model)
        own_differences.append(own)
        others.append(min(differences.values()))
        nearest.append(min(differences.values()) / max(own, 1e-9))
    assert told == set(names)
    return {
        "requests": len(asked),
        "told_apart": len(others),
        "own_mean_nats": statistics.mean(own_differences),
        "own_largest_nats": max(own_differences),
        "other_smallest_nats": min(others),
        "nearest_ratio": min(nearest),
    }


def _difference(found: Sequence[float], expected: Sequence[float]) -> float:
    return statistics.mean(abs(a - b) for a, b in zip(found, expected, strict=True))


def client_of(endpoint: Any) -> Any:
    return openai.OpenAI(base_url=endpoint.url, api_key=endpoint.api_key or "none", max_retries=0, timeout=300)


def test_64_requests_at_once_are_each_answered_by_their_own_variant(
    endpoint, runs_folder: Path, served_model: Path
) -> None:  # type: ignore[no-untyped-def]
    adapters = {name: runs_folder / name / "adapter" for name in ("alpha", "beta")}
    asked = questions(("base", *adapters), vocabulary=300, longest=300)
    with client_of(endpoint) as client:
        answers = ask_at_once(client, asked)
    judge(Truth(served_model, adapters), asked, answers, NEAR["bfloat16"])


def test_the_engine_multiplies_by_adapter_and_not_by_token(endpoint) -> None:  # type: ignore[no-untyped-def]
    assert "LoRA by adapter" in Path(endpoint.settings["log"]).read_text()


@pytest.mark.real_model
def test_24_requests_at_once_to_the_real_model(  # type: ignore[no-untyped-def]
    real_endpoint, real_runs: Path, real_model: Path
) -> None:
    adapters = {name: real_runs / name / "adapter" for name in ("attention", "whole")}
    asked = questions(("base", *adapters), vocabulary=40_000, longest=40, count=24)
    with client_of(real_endpoint) as client:
        answers = ask_at_once(client, asked)
    judge(Truth(real_model, adapters), asked, answers, near=0.5)  # 30 layers of rounding, over few tokens


@pytest.mark.real_model
def test_the_real_model_is_served_as_it_was_tuned(  # type: ignore[no-untyped-def]
    real_endpoint, real_runs: Path
) -> None:
    from harness.checks.agreement import verify
    from harness.checks.parity import require_parity
    from harness.plugins import Plugins
    from harness.variants import resolve_variants

    variants = resolve_variants(("attention", "whole"), real_runs, Plugins())
    assert require_parity(real_endpoint, variants).models == ("base", "attention", "whole")
    agreements = verify(real_endpoint, variants)
    assert [agreement.variant for agreement in agreements] == ["base", "attention", "whole"]
    assert all(agreement.tells_apart for agreement in agreements)


def random_adapters(model: Path, folder: Path) -> dict[str, Path]:
    """Two adapters of other modules and other ranks, far from the base and from each other."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    adapters = {}
    for seed, (name, targets) in enumerate(
        {"first": "all-linear", "second": ["q_proj", "up_proj", "down_proj"]}.items()
    ):
        torch.manual_seed(seed)
        base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
        config = LoraConfig(r=4 + 8 * seed, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
        tuned = get_peft_model(base, config, autocast_adapter_dtype=False)
        for key, weight in tuned.named_parameters():
            if "lora_B" in key:
                torch.nn.init.normal_(weight, std=0.1)
        tuned.save_pretrained(str(folder / name))
        adapters[name] = folder / name
    return adapters


@pytest.fixture
def serve_adapters(tmp_path: Path, free_port: Callable[[], int]) -> Callable[..., Any]:
    """Return a context manager that serves a model with adapters, through a ChatML template that fits any tokenizer."""
    from harness_serve.engine import VllmOptions, start

    from harness.model.templates import load_template
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec
    from harness.variants import Variant

    def serve(model: Path, adapters: Mapping[str, Path], dtype: str, template: str | None) -> Any:
        spec = ModelSpec(path=str(model), dtype=dtype)  # type: ignore[arg-type]
        chat_folder = tmp_path / "chat"
        load_template(Variant("base", spec, template=template), Plugins()).save(chat_folder)
        variants = tuple(Variant(name, spec, folder, chat_folder) for name, folder in adapters.items())
        return start(variants, VllmOptions(port=free_port(), max_model_len=512))

    return serve


FAMILIES = [
    (family, tied, dtype)
    for family in ("Llama", "Qwen2", "Qwen3", "Mistral")
    for tied, dtype in ((True, "float32"), (False, "float32"), (True, "bfloat16"))
]


@pytest.mark.soak
@pytest.mark.parametrize(("family", "tied", "dtype"), FAMILIES)
def test_each_family_answers_each_request_by_its_own_variant(
    family: str,
    tied: bool,
    dtype: str,
    miniature: Callable[..., Path],
    serve_adapters: Callable[..., Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    window = {"sliding_window": None if tied else 64} if family == "Mistral" else {}
    model = miniature(family, tied=tied, spread=0.1, **window)
    adapters = random_adapters(model, tmp_path)
    _prove(
        f"{family}, {'tied' if tied else 'untied'} head", model, adapters, dtype, "chatml", 300, serve_adapters, request
    )


@pytest.mark.soak
@pytest.mark.real_model
def test_the_real_model_answers_each_request_by_its_own_variant_in_float32(
    real_model: Path, real_runs: Path, serve_adapters: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    adapters = {name: real_runs / name / "adapter" for name in ("attention", "whole")}
    _prove("SmolLM2-135M-Instruct", real_model, adapters, "float32", None, 100, serve_adapters, request)


def _prove(
    title: str,
    model: Path,
    adapters: Mapping[str, Path],
    dtype: str,
    template: str | None,
    longest: int,
    serve_adapters: Callable[..., Any],
    request: pytest.FixtureRequest,
) -> None:
    """64 questions at once, then one by one; in float32 the greedy answers are the same. Keeps the figures."""
    vocabulary = json.loads((model / "config.json").read_text())["vocab_size"]
    asked = questions(("base", *adapters), vocabulary, longest)
    with serve_adapters(model, adapters, dtype, template) as endpoint, client_of(endpoint) as client:
        together = ask_at_once(client, asked)
        alone = [ask(client, question) for question in asked]
    truth = Truth(model, adapters)
    figures = judge(truth, asked, together, NEAR[dtype])
    judge(truth, asked, alone, NEAR[dtype])
    greedy = [number for number, question in enumerate(asked) if question.way in ("greedy", "streamed")]
    same = sum(together[number].ids == alone[number].ids for number in greedy)
    if dtype == "float32":
        assert same == len(greedy)
    _record(request, {"model": title, "dtype": dtype, **figures, "greedy": len(greedy), "greedy_as_alone": same})


def _record(request: pytest.FixtureRequest, row: dict[str, Any]) -> None:
    """Keep the row in serving-families.json in the folder of --record-soak, where that was given."""
    folder = request.config.getoption("--record-soak", default=os.environ.get("HARNESS_RECORD_SOAK"))
    if folder is None:
        return
    path = Path(folder) / "serving-families.json"
    rows = json.loads(path.read_text()) if path.is_file() else []
    rows = [kept for kept in rows if (kept["model"], kept["dtype"]) != (row["model"], row["dtype"])] + [row]
    path.write_text(json.dumps(sorted(rows, key=lambda its: (its["model"], its["dtype"])), indent=1) + "\n")
