"""Attention by blocks of products is the function of sdpa: causal or masked, with shared key heads, of any length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness.model import block_attention as blocks  # noqa: E402
from harness.model.attention import compute_by_blocks  # noqa: E402
from harness.model.batching import attention_mask, packed  # noqa: E402
from harness.model.buffers import Buffers  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
from harness.nouns import Example, Item  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402
from tests.tuning.tensors import as_batch  # noqa: E402

needs_bfloat16 = pytest.mark.skipif(not blocks.has_bfloat16_products(), reason="this CPU has no bfloat16 products")
SHAPES = [  # rows, query heads, key heads, tokens
    (3, 4, 2, 5), (2, 3, 3, 40), (2, 6, 2, blocks.WHOLE), (2, 4, 1, blocks.WHOLE + 1), (1, 2, 2, 3 * blocks.BLOCK + 7),
]  # fmt: skip


def module(groups: int) -> Any:
    return SimpleNamespace(is_causal=True, num_key_value_groups=groups)


def drawn(shape: tuple[int, int, int, int], dtype: Any = torch.float32) -> list[Any]:
    """Queries, keys, values and the output's gradient, laid out as a model's projections give them."""
    rows, heads, shared, tokens = shape
    random = torch.Generator().manual_seed(tokens)
    sizes = ((heads, 16), (shared, 16), (shared, 8), (heads, 8))
    drawn = [torch.randn(rows, tokens, *size, generator=random).to(dtype) for size in sizes]
    return [*(x.transpose(1, 2).requires_grad_() for x in drawn[:3]), drawn[3]]


def computed(function: Any, inputs: list[Any], mask: Any = None, **kwargs: Any) -> list[Any]:
    *qkv, grad = inputs
    out = function(module(qkv[0].shape[1] // qkv[1].shape[1]), *qkv, mask, **kwargs)[0]
    return [out.detach(), *torch.autograd.grad(out, qkv, grad)]


def furthest(found: list[Any], expected: list[Any]) -> float:
    return max(
        float((a.double() - b.double()).norm() / b.double().norm()) for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_output_and_gradients_are_those_of_sdpa_in_float32(shape):
    inputs = drawn(shape)
    assert furthest(computed(blocks.by_blocks, inputs), computed(blocks.sdpa_attention_forward, inputs)) < 1e-5


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("boolean", [False, True])
def test_a_mask_is_added_whether_it_is_boolean_or_numbers(shape, boolean):
    rows, _, _, tokens = shape
    sees = torch.rand(rows, 1, tokens, tokens, generator=torch.Generator().manual_seed(1)) < 0.5
    sees = (sees & torch.ones(tokens, tokens, dtype=torch.bool).tril()) | torch.eye(tokens, dtype=torch.bool)
    mask, inputs = sees if boolean else blocks.additive(sees), drawn(shape)
    expected = computed(blocks.sdpa_attention_forward, inputs, mask, scaling=0.3)
    assert furthest(computed(blocks.by_blocks, inputs, mask, scaling=0.3), expected) < 1e-5


@needs_bfloat16
@pytest.mark.parametrize("shape", SHAPES)
def test_in_bfloat16_it_is_within_a_rounding_of_float64(shape):
    inputs = drawn(shape, torch.bfloat16)
    exact = computed(blocks.sdpa_attention_forward, [x.detach().double().requires_grad_() for x in inputs])
    assert furthest(computed(blocks.by_blocks, inputs), exact) < 2**-8


@needs_bfloat16
def test_large_scores_keep_the_accuracy_of_float32():
    inputs = drawn((2, 2, 2, 64), torch.bfloat16)
    inputs[0] = (40 * inputs[0]).detach().requires_grad_()
    exact = computed(blocks.sdpa_attention_forward, [x.detach().double().requires_grad_() for x in inputs])
    assert furthest(computed(blocks.by_blocks, inputs)[:1], exact[:1]) < 0.01


@pytest.mark.parametrize(
    ("change", "taken"),
    [({}, True), ({"dropout": 0.1}, False), ({"position_bias": torch.zeros(1)}, False), ({"is_causal": False}, False)],
)
def test_what_is_not_plain_causal_attention_is_left_to_sdpa(change, taken):
    query, key, value, _ = drawn((1, 2, 1, 4))
    assert blocks.fits(module(2), query, key, value, None, **change) is taken
    assert not blocks.fits(module(2), query[:, :, -1:], key, value, None)  # a step of generation


def small(architecture: str, dtype: str, folder: Any, **changes: Any) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM

    shape = {
        "vocab_size": 300, "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **(shape | changes)))
    model.save_pretrained(folder)
    return load_model(ModelSpec(path=str(folder), dtype=dtype), for_tuning=True)


@needs_bfloat16
@pytest.mark.parametrize(
    ("architecture", "dtype", "changes", "taken"),
    [
        ("llama", "bfloat16", {}, True),
        ("mistral", "bfloat16", {"sliding_window": 5}, True),
        ("llama", "float32", {}, False),
        ("gemma2", "bfloat16", {}, False),  # soft-capped: eager
        ("bloom", "bfloat16", {}, False),
    ],
)
def test_a_model_computes_by_blocks_where_that_is_its_own_function(tmp_path, architecture, dtype, changes, taken):
    model = small(architecture, dtype, tmp_path, **changes)
    before, batch = model.config._attn_implementation, as_batch(torch.arange(3, 43).view(2, 20), torch.ones(2, 20) > 0)
    expected = target_logprobs(model, batch)
    assert compute_by_blocks(model) is taken
    assert model.config._attn_implementation == (blocks.NAME if taken else before)
    assert (target_logprobs(model, batch) - expected).abs().max() < (0.05 if taken else 1e-9)


@needs_bfloat16
def test_packed_documents_do_not_see_each_other(tmp_path):
    model = small("llama", "bfloat16", tmp_path)
    assert compute_by_blocks(model)

    def logprobs(first: int) -> Any:
        texts = [[first, 7, 8, 9], [11, 12, 13, 14, 15]]
        items = [Item((Example(ids, [True] * len(ids)),), ("answer",)) for ids in texts]
        batch = packed(items, [[0, 1]], 0, "cpu")
        assert attention_mask(batch, torch.bfloat16) is not None
        return target_logprobs(model, batch)

    one, other = logprobs(5), logprobs(6)
    assert not torch.equal(one[:3], other[:3]) and torch.equal(one[3:], other[3:])


@needs_bfloat16
def test_a_function_that_is_not_the_models_is_not_taken(tmp_path, monkeypatch):
    model = small("llama", "bfloat16", tmp_path)
    right = blocks.by_blocks
    monkeypatch.setattr(blocks, "by_blocks", lambda *given, **more: right(*given, **(more | {"scaling": 1.0})))
    assert not compute_by_blocks(model)
    assert model.config._attn_implementation == "sdpa"


def test_memory_that_answers_were_sampled_in_is_used_for_training_again():
    buffers = Buffers()
    with torch.inference_mode():
        buffers.get("scores", torch.float32, 4)
    scores = buffers.get("scores", torch.float32, 2, 2)
    assert scores.fill_(1.0).sum() == 4 and not scores.is_inference()
