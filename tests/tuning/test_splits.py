"""The split of a step into batches changes neither the gradient nor a metric, whatever the objective."""

from __future__ import annotations

import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.learner import Learner  # noqa: E402
from harness_tuning.methods.lora import LoraOptions, apply_lora  # noqa: E402
from harness_tuning.objectives import dpo, kto, orpo, reward, sft, simpo  # noqa: E402
from harness_tuning.optimizer import MasterAdamW  # noqa: E402
from harness_tuning.prepared import Beside, Preparation  # noqa: E402
from harness_tuning.sources import Epochs  # noqa: E402
from harness_tuning.world import World  # noqa: E402

from harness.data.encode.storage import ItemWriter  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.policy import ModelPolicy  # noqa: E402
from harness.nouns import Example, Item  # noqa: E402
from harness.recipe import ModelSpec, TuneSpec  # noqa: E402

pytestmark = pytest.mark.slow  # it tunes

SPLITS = ([[0, 1, 2, 3, 4, 5]], [[5, 0], [1, 2, 3], [4]], [[0], [1], [2], [3], [4], [5]])


def items(reads: str) -> Any:
    rng, writer = random.Random(0), ItemWriter()
    for number in range(6):
        prompt = [rng.randrange(3, 300) for _ in range(rng.randint(2, 6))]
        roles = {"conversations": ("answer",), "pairs": ("chosen", "rejected")}.get(reads) or (
            ("chosen", "rejected"), ("chosen",), ("rejected",),
        )[number % 3]  # fmt: skip
        examples = []
        for _ in roles:
            completion = [rng.randrange(3, 300) for _ in range(rng.randint(1, 12))]
            mask: Any = bytes([0] * len(prompt) + [1] * len(completion))
            examples.append(Example(prompt + completion, mask))
        writer.add(Item(tuple(examples), roles, {"weight": 0.5 + number / 4}), f"{number}", 1)
    return writer.finish()


@pytest.fixture(scope="module")
def base(tiny_model) -> Any:
    torch.manual_seed(0)
    return apply_lora(
        load_model(ModelSpec(path=str(tiny_model), dtype="float32"), for_tuning=True), LoraOptions(rank=2)
    )


def learner_of(model: Any, objective: Any) -> Learner:
    torch.manual_seed(1)
    head = objective.head(model.config.hidden_size) if objective.head else None
    spec = TuneSpec(objective={"name": objective.name}, method={"name": "lora"})
    return Learner(
        ModelPolicy(model, head), objective, objective.options(), MasterAdamW(model, spec, head=head),
        torch.device("cpu"), World(), True,
    )  # fmt: skip


@pytest.mark.parametrize("module", [sft, dpo, kto, orpo, simpo, reward], ids=lambda module: module.OBJECTIVE.name)
def test_every_split_and_layout_of_a_step_has_the_same_gradient_and_metrics(base, module):
    objective = module.OBJECTIVE
    data = items(objective.reads)
    learner = learner_of(base.train(), objective)
    beside = Beside(data, objective, learner.options) if objective.beside else None
    source, packed = (
        Epochs(data, 0, "cpu", step_tokens=64, layout=layout, beside=beside) for layout in ("padded", "packed")
    )
    with torch.no_grad():
        for name, weight in base.named_parameters():
            if "lora_B" in name:
                weight.zero_()
    source.prepared = packed.prepared = Preparation(learner, 0, 64).of(data, beside)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():  # the policy moves, the reference stays
        for name, weight in base.named_parameters():
            if "lora_B" in name:
                weight.normal_(std=0.01, generator=generator)
    results = []
    for layout, split in [(source, split) for split in SPLITS] + [(packed, SPLITS[0]), (packed, SPLITS[-1])]:
        read = learner.backward([layout.batch(layout.part(indices)) for indices in split])
        assert read is not None
        figures = read()
        gradient = torch.cat([master.grad.flatten() for master in learner.optimizer.masters.values()])
        results.append((figures, gradient))
        learner.optimizer.adamw.zero_grad()
    (whole, expected), *others = results
    assert float(expected.norm()) > 0
    if objective.name == "kto":
        assert whole.metrics["kl"] > 0, "the policy has moved"
    for figures, gradient in others:
        assert float((gradient - expected).norm() / expected.norm()) < 1e-6
        assert figures.loss == pytest.approx(whole.loss, rel=1e-6)
        metrics = dict(figures.metrics)
        expected_metrics = dict(whole.metrics)
        if "entropy" in metrics:  # of every eighth target, and the order of targets is the layout's
            assert metrics.pop("entropy") == pytest.approx(expected_metrics.pop("entropy"), rel=1e-3)
        assert metrics == pytest.approx(expected_metrics, rel=1e-5, abs=1e-6)


def test_noise_on_embeddings_is_measured_by_each_document_and_only_in_training(base):
    learner = learner_of(base, sft.OBJECTIVE)
    source = Epochs(items("conversations"), 0, "cpu", step_tokens=512)
    batch = source.batch(source.part(range(6)))
    embeddings = base.get_base_model().get_input_embeddings()
    for training in (False, True):
        base.train(training)
        with torch.no_grad(), learner.policy.noisy_embeddings(batch, 5.0):
            noisy = embeddings(batch.input_ids)
        with torch.no_grad():
            noise = (noisy - embeddings(batch.input_ids)).abs()
        if not training:
            assert not noise.any()
            continue
        for row, length in enumerate(batch.documents.length.tolist()):
            limit = 5.0 / (length * noise.shape[-1]) ** 0.5
            assert 0.9 * limit < float(noise[row, :length].max()) <= limit * 1.0001
            assert not noise[row, length:].any(), "padding has none"
