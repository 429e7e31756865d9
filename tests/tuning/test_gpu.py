"""On a GPU: packed rows, kernels, the split of a step, the memory estimate. Skipped where there is none."""

from __future__ import annotations

import contextlib
import random
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("there is no GPU here", allow_module_level=True)

import transformers  # noqa: E402
from harness_tuning import fused_layers  # noqa: E402
from harness_tuning.device import taken_bytes  # noqa: E402
from harness_tuning.fused import fuse_adapters  # noqa: E402
from harness_tuning.layout import choose_layout  # noqa: E402
from harness_tuning.learner import Learner  # noqa: E402
from harness_tuning.memory import checkpoint_layers, fit, growth_bytes, widest_part  # noqa: E402
from harness_tuning.methods.lora import LoraOptions, apply_lora  # noqa: E402
from harness_tuning.objectives import dpo, sft  # noqa: E402
from harness_tuning.optimizer import MasterAdamW  # noqa: E402
from harness_tuning.sources import Ahead, Epochs, thread_for  # noqa: E402
from harness_tuning.world import World  # noqa: E402

from harness.data.encode.storage import ItemWriter  # noqa: E402
from harness.model.batching import packed, padded  # noqa: E402
from harness.model.load import Attention, load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
from harness.model.policy import ModelPolicy  # noqa: E402
from harness.nouns import Example, Item  # noqa: E402
from harness.recipe import ModelSpec, TuneSpec  # noqa: E402
from tests.tuning.test_fused_layers import FAMILIES, made, own_rotary  # noqa: E402, F401

GPU = torch.device("cuda")


def of_shape(hidden: int = 256, layers: int = 2, family: str = "qwen3", vocabulary: int = 4096) -> Any:
    config = transformers.AutoConfig.for_model(
        family, vocab_size=vocabulary, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=8, num_key_value_heads=2, head_dim=64, max_position_embeddings=8192,
        tie_word_embeddings=True, use_cache=False,
    )  # fmt: skip
    torch.manual_seed(0)
    with GPU:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.chosen_attention = Attention("sdpa")
    model = apply_lora(model, LoraOptions(rank=8)).train()
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    fuse_adapters(model)
    return model


def conversations(count: int, longest: int, vocabulary: int = 4096) -> Any:
    """Items of 2 to `longest` tokens, of which the second half is trained on."""
    draw, writer = random.Random(0), ItemWriter()
    for number in range(count):
        ids = [draw.randrange(3, vocabulary) for _ in range(draw.randint(longest // 4, longest))]
        mask = [at >= len(ids) // 2 for at in range(len(ids))]
        writer.add(Item((Example(ids, mask),), ("answer",)), str(number), 1)
    return writer.finish()


def preferences(count: int) -> list[Item]:
    draw = random.Random(0)
    items = []
    for _ in range(count):
        prompt, *sides = ([draw.randrange(3, 4096) for _ in range(draw.randint(9, 90))] for _ in range(3))
        examples = tuple(Example(prompt + ids, [False] * len(prompt) + [True] * len(ids)) for ids in sides)
        items.append(Item(examples, ("chosen", "rejected"), {"weight": 1.0}))
    return items


def learning(model: Any, items: Any, step_tokens: int, objective: Any = None, layout: str = "auto") -> Any:
    """The learner of a model and the source of its batches, as the loop binds them."""
    spec = TuneSpec(objective={"name": "sft"}, method={"name": "lora"}, step_tokens=step_tokens)
    choice = choose_layout(model, items, GPU, layout)
    source = Epochs(items, 0, GPU, step_tokens=step_tokens, layout=choice.layout)
    source.split = choice.split(spec, source.sizes)
    objective = objective or sft.OBJECTIVE
    learner = Learner(
        ModelPolicy(model), objective, objective.options(), MasterAdamW(model, spec), GPU, World(), is_adapter=True
    )
    return learner, source, choice


def gradients(learner: Any, batches: Any) -> list[Any]:
    assert learner.backward(batches) is not None
    found = [master.grad.clone() for master in learner.optimizer.masters.values()]
    learner.optimizer.adamw.zero_grad(set_to_none=True)
    return found


def difference(one: list[Any], other: list[Any]) -> float:
    """The difference of two lists of tensors, relative to the second, all numbers together."""
    apart = sum(float((a - b).float().square().sum()) for a, b in zip(one, other, strict=True))
    return (apart / sum(float(b.float().square().sum()) for b in other)) ** 0.5


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_fused_and_stay_those_of_transformers(family, own_rotary):  # noqa: F811
    model = made(family).to(GPU)
    ids = torch.randint(3, 64, (2, 11), generator=torch.Generator().manual_seed(0)).to(GPU)
    trained = [weight for weight in model.parameters() if weight.requires_grad]

    def figures() -> list[Any]:
        logits = model(input_ids=ids, use_cache=False).logits
        return [logits.detach(), *torch.autograd.grad(logits.float().square().mean(), trained)]

    expected = figures()
    fused = fused_layers.fuse_layers(model)
    assert (fused.norms, fused.swiglus, fused.rotaries) == FAMILIES[family][1], str(fused)
    assert difference(figures(), expected) < 1e-2


@pytest.mark.parametrize("family", ["qwen3", "llama", "mistral"])
def test_packed_rows_are_computed_by_document_as_rows_of_their_own(family):
    model, items = of_shape(family=family), list(conversations(9, 200))
    learner, _, choice = learning(model, conversations(9, 200), 4096)
    assert str(choice) == "packed, attention by document"
    alone, together = (
        gradients(learner, [batch]) for batch in (padded(items, 0, GPU), packed(items, [range(5), range(5, 9)], 0, GPU))
    )
    assert difference(together, alone) < 2e-2  # bfloat16, in other products


def test_pairs_share_their_prompt_and_their_gradient_is_that_of_rows_of_their_own():
    model, items = of_shape(), preferences(6)
    learner, _, _ = learning(model, conversations(9, 200), 4096)
    batches = padded(items, 0, GPU), packed(items, [range(6)], 0, GPU)
    assert batches[1].tokens < batches[0].tokens
    sums = [batch.by_document(target_logprobs(model, batch)) for batch in batches]
    pairs = [one[batch.pairs()[0]] - one[batch.pairs()[1]] for one, batch in zip(sums, batches, strict=True)]
    assert torch.allclose(*pairs, rtol=0.02, atol=0.5)
    moving = [weight for weight in model.parameters() if weight.requires_grad]
    both = [torch.autograd.grad(pair.sum(), moving) for pair in pairs]
    assert difference(list(both[1]), list(both[0])) < 3e-2
    assert learner.trainable == sum(weight.numel() for weight in moving)


def test_the_split_of_a_step_changes_its_gradient_by_rounding_alone():
    learner, source, _ = learning(of_shape(), conversations(40, 300), 4096)
    whole = gradients(learner, source.step(1))
    source.split = type(source.split)(1000, source.split.row_tokens)
    assert len(parts := source.step(1)) > 3
    assert difference(gradients(learner, parts), whole) < 2e-2


@pytest.mark.parametrize("objective", ["sft", "dpo"])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_memory_estimate_is_within_15_percent(objective, share, record_property):
    model = of_shape(hidden=1024, layers=8, vocabulary=32000)
    assert fused_layers.fuse_layers(model).norms
    items: Any = conversations(24, 2048, 32000)
    if objective == "dpo":
        writer = ItemWriter()
        for number, item in enumerate(preferences(60)):
            writer.add(item, str(number), 1)
        items = writer.finish()
    learner, source, _ = learning(model, items, 16384, {"sft": sft.OBJECTIVE, "dpo": dpo.OBJECTIVE}[objective])
    checkpoint_layers(model, share)
    batch = source.batch(part := widest_part(source))
    gradients(learner, [learner.prepared(batch)])  # workspaces, and the first use of kernels
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = taken_bytes(GPU)
    assert learner.backward([learner.prepared(batch)]) is not None
    learner.optimizer.step(1e-4, 1.0)
    grown = torch.cuda.max_memory_allocated() - before
    estimated = growth_bytes(learner, source, part)
    record_property("grown_over_estimated", grown / estimated)
    print(f"{objective} checkpointed {share:.0%}: grown {grown / 2**20:,.0f} MiB, estimated {estimated / 2**20:,.0f}")
    assert abs(grown - estimated) <= 0.15 * estimated


def test_a_step_that_takes_too_much_is_halved_and_has_the_same_gradient():
    learner, source, _ = learning(of_shape(layers=4), conversations(60, 1024), 32768)
    whole = gradients(learner, source.step(1))
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    learner.backward(source.step(1))
    learner.optimizer.adamw.zero_grad(set_to_none=True)
    peak, total = torch.cuda.max_memory_reserved(), torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    halves = 0
    try:
        torch.cuda.set_per_process_memory_fraction(0.6 * peak / total)
        while learner.backward(source.step(1)) is None:
            assert "out of memory" in source.halve(1)
            halves += 1
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert halves
    halved = [master.grad for master in learner.optimizer.masters.values()]
    assert difference(halved, whole) < 2e-2


def test_a_large_step_fits_into_what_is_free():
    learner, source, _ = learning(of_shape(hidden=1024, layers=8), conversations(400, 4096), 262144)
    fitted = fit(learner, source, TuneSpec(objective={"name": "sft"}, method={"name": "lora"}, step_tokens=262144))
    torch.cuda.reset_peak_memory_stats()
    assert learner.backward(source.step(1)) is not None
    print(fitted, f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GiB")
    assert torch.cuda.max_memory_allocated() < torch.cuda.get_device_properties(GPU).total_memory


def test_weights_are_loaded_onto_the_gpu(tiny_model):
    spec = ModelSpec(path=str(tiny_model))
    on_gpu, on_cpu = load_model(spec, device=GPU), load_model(spec)
    assert {tensor.device.type for tensor in (*on_gpu.parameters(), *on_gpu.buffers())} == {"cuda"}
    assert all(torch.equal(a.cpu(), b) for a, b in zip(on_gpu.parameters(), on_cpu.parameters(), strict=True))


def test_batches_that_a_thread_makes_ahead_are_on_the_gpu():
    _, source, _ = learning(of_shape(), conversations(60, 256), 2048)
    with contextlib.closing(Ahead(source, thread_for(GPU))) as ahead:
        for number in range(1, min(source.total_steps, 4) + 1):
            pairs = list(zip(ahead.step(number), source.step(number), strict=True))
            assert all(one.input_ids.is_cuda and torch.equal(one.input_ids, other.input_ids) for one, other in pairs)


@pytest.fixture
def of_24_gib():
    """A GPU of which this process may take 24 GiB."""
    whole = torch.cuda.mem_get_info(GPU)[1]
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(24 * 2**30 / whole)
    yield
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(1.0)


def test_an_8_b_lora_at_4096_tokens_runs_on_24_gib(of_24_gib, record_property):
    config = transformers.AutoConfig.for_model(
        "llama", vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=32,
        num_attention_heads=32, num_key_value_heads=8, max_position_embeddings=8192, use_cache=False,
    )  # fmt: skip
    with GPU:
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.chosen_attention = Attention("sdpa")
    model = apply_lora(model, LoraOptions(rank=16)).train()
    fuse_adapters(model)
    fused_layers.fuse_layers(model)
    torch.cuda.reset_peak_memory_stats()
    learner, source, _ = learning(model, conversations(12, 4096, 128256), 16384)
    fitted = fit(learner, source, TuneSpec(objective={"name": "sft"}, method={"name": "lora"}, step_tokens=16384))
    for step in (1, 2):
        assert learner.backward(source.step(step)) is not None, f"out of memory: {fitted}"
        learner.optimizer.step(1e-4, 1.0)
    peak = torch.cuda.max_memory_allocated()
    record_property("peak_gib", peak / 2**30)
    print(f"{fitted}: peak {peak / 2**30:.1f} GiB")
