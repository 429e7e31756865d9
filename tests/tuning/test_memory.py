"""A step fits into memory: its split is estimated on empty tensors, halved where memory runs out, kept on resume."""

from __future__ import annotations

import json

import pytest

torch = pytest.importorskip("torch")

import transformers  # noqa: E402
from harness_tuning import memory  # noqa: E402
from harness_tuning.learner import Learner  # noqa: E402
from harness_tuning.methods.lora import LoraOptions, apply_lora  # noqa: E402
from harness_tuning.objectives import dpo, kto, orpo, reward, sft, simpo  # noqa: E402
from harness_tuning.optimizer import MasterAdamW  # noqa: E402
from harness_tuning.prepared import Beside  # noqa: E402
from harness_tuning.sources import Epochs  # noqa: E402
from harness_tuning.world import World  # noqa: E402
from safetensors.torch import load_file  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from harness.model.policy import ModelPolicy  # noqa: E402
from harness.nouns import Example, Item  # noqa: E402
from harness.recipe import TuneSpec  # noqa: E402
from tests.tuning.test_sources import Kept  # noqa: E402

SPEC = TuneSpec(objective={"name": "sft"}, method={"name": "lora"})


@pytest.fixture
def small_memory(monkeypatch):
    """Memory for batches of at most 100 positions: the hundred-and-first does not fit, once the steps have begun."""
    loss, begun = Learner.loss, []

    def limited(learner, batch):
        if begun and batch.input_ids.numel() > 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return loss(learner, batch)

    backward = Learner.backward

    def beginning(learner, batches):
        begun.append(True)
        return backward(learner, batches)

    monkeypatch.setattr(Learner, "loss", limited)
    monkeypatch.setattr(Learner, "backward", beginning)


@pytest.mark.slow
def test_out_of_memory_halves_the_split_and_changes_no_gradient(tmp_path, recipe, harness, request):
    path = recipe("float32", steps=3, validate_every=None, warmup_ratio=0)
    assert harness("tune", path, "--run", "whole").code == 0
    request.getfixturevalue("small_memory")
    done = harness("tune", path, "--run", "halved")
    assert done.code == 0, done.err
    assert "step 1: out of memory with batches of 276 positions. It is done again in batches of 138" in done.err
    whole, halved = (
        load_file(tmp_path / "runs" / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "halved")
    )
    assert all(torch.allclose(halved[name], weight, atol=1e-4) for name, weight in whole.items())
    losses, others = (
        [json.loads(row)["loss"] for row in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()[1:-1]]
        for name in ("whole", "halved")
    )
    assert others == pytest.approx(losses, abs=1e-4)
    split = json.loads((tmp_path / "runs/halved/manifest.json").read_text())["split"]
    assert split["positions"] < 138


def test_the_split_of_a_run_is_in_its_checkpoint():
    source = Epochs(Kept([Item((Example([1, 2, 3], [False, True, True]),), ("answer",))] * 9), 0, "cpu", step_tokens=64)
    source.halve(1)
    other = Epochs(source.items, 0, "cpu", step_tokens=64)
    other.restore(json.loads(json.dumps(source.state())))
    assert other.split == source.split and other.split.positions == 34


def empty_learner(config: transformers.PretrainedConfig) -> Learner:
    """A LoRA on a model of this shape, in bfloat16, in the fake mode that is on."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    finally:
        torch.set_default_dtype(before)
    model.config.use_cache = False
    model = apply_lora(model, LoraOptions(rank=16)).train()
    return Learner(
        ModelPolicy(model),
        sft.OBJECTIVE,
        sft.SftOptions(),
        MasterAdamW(model, SPEC),
        torch.device("cpu"),
        World(),
        True,
    )


PAIRS = [
    Item(
        (Example([5] * 9, [False] * 4 + [True] * 5), Example([6] * 7, [False] * 4 + [True] * 3)), roles, {"weight": 1.0}
    )
    for roles in [("chosen", "rejected")] * 4
]
JUDGED = [
    Item((Example([prompt, *[5] * 8], [False] * 4 + [True] * 5),), (role,), {"weight": 1.0})
    for prompt, role in [(7, "chosen"), (8, "rejected")] * 2
]
ANSWERS = [Item((Example([5] * 9, [True] * 9),), (role,)) for role in ("desirable", "undesirable") * 2]


@pytest.mark.parametrize(
    ("objective", "items"),
    [(sft, ANSWERS), (dpo, PAIRS), (orpo, PAIRS), (simpo, PAIRS), (reward, PAIRS), (kto, JUDGED)],
    ids=["sft", "dpo", "orpo", "simpo", "reward", "kto"],
)
def test_the_memory_of_every_objective_is_estimated(objective, items):
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=300
    )
    learner = empty_learner(config)
    learner.objective, learner.options = objective.OBJECTIVE, objective.OBJECTIVE.options()
    if learner.objective.head is not None:
        learner.policy.head = learner.objective.head(64)
    beside = Beside(Kept(items), learner.objective, learner.options) if learner.objective.beside else None
    source = Epochs(Kept(items), 0, "cpu", step_tokens=100, beside=beside)
    assert memory.growth_bytes(learner, source, memory.widest_part(source)) > 0


def test_a_model_that_does_not_compute_without_contents_is_not_estimated_and_says_why(monkeypatch):
    def broken(*_):
        raise RuntimeError("no fake kernel\nof my.op")

    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, vocab_size=300
    )
    learner, source = empty_learner(config), Epochs(Kept(ANSWERS), 0, "cpu", step_tokens=100)
    monkeypatch.setattr(memory, "batch_bytes", broken)
    fit = memory.largest_fit(learner, source, SPEC, room=1)
    assert (fit.growth_bytes, fit.why_not) == (None, "RuntimeError: no fake kernel")
    assert fit.split == source.split, "it is tried as it is"


def test_the_estimate_of_a_batch_is_what_its_tensors_take():
    """Of padded rows, too, whose attention needs no mask: bytes that were asked for, not those of the allocator."""
    config = transformers.LlamaConfig(
        hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4, vocab_size=300
    )
    learner = empty_learner(config)
    items = [Item((Example([5] * length, [True] * length),), ("answer",)) for length in (300, 280, 290)]
    source = Epochs(Kept(items), 0, "cpu", step_tokens=1000)
    batch = source.batch(memory.widest_part(source))
    estimated = memory.batch_bytes(learner, batch)
    with memory.Held() as held:
        for weight in [*learner.model.parameters(), *learner.model.buffers()]:
            held.leave_out(weight)
        learner.value(batch).backward()
    assert estimated == pytest.approx(held.most, rel=0.03)


@pytest.mark.soak
def test_a_lora_of_8b_at_4096_tokens_fits_a_gpu_of_24_gb(monkeypatch):
    """Computed on empty tensors, with the chunk of logits that a GPU takes."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    from harness.model import logprobs

    monkeypatch.setitem(logprobs.LOGITS_AT_ONCE, "cpu", logprobs.LOGITS_AT_ONCE["other"])
    monkeypatch.setattr(memory, "KEPT_SHAPES", 0)
    monkeypatch.setattr(memory, "CPU_GAPS", 0)
    monkeypatch.setattr(BaseTunerLayer, "_move_adapter_to_device_of_base_layer", lambda *args, **kwargs: None)
    monkeypatch.setattr(torch.nn.Module, "to", lambda module, *args, **kwargs: module)  # PEFT's: nothing to move
    config = transformers.LlamaConfig(
        hidden_size=4096, intermediate_size=14336, num_hidden_layers=32, num_attention_heads=32, num_key_value_heads=8,
        vocab_size=128256,
    )  # fmt: skip
    items = Kept([Item((Example([5] * 4096, [True] * 4096),), ("answer",))] * 4)
    with FakeTensorMode():
        learner = empty_learner(config)
        weights = sum(weight.numel() * weight.element_size() for weight in learner.model.parameters())
        weights += sum(master.numel() * 4 for master in learner.optimizer.masters.values())
    source = Epochs(items, 0, "cpu", step_tokens=4096)
    room = int(memory.USABLE * 24e9) - weights
    fit = memory.largest_fit(learner, source, SPEC, room)
    assert fit.growth_bytes is not None and 0 < fit.growth_bytes <= room
    assert fit.split.positions >= 4096 and fit.checkpointed == 1.0
    plain = memory.largest_fit(learner, source, SPEC, int(80e9))
    assert plain.checkpointed == 0.0 and plain.growth_bytes + weights > 40 * 2**30, "what it took before"
