"""A plain LoRA layer computes its base's and its adapter's product in one function, and it is PEFT's function."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch")
peft = pytest.importorskip("peft")

from harness_tuning import fused  # noqa: E402
from harness_tuning.methods.lora import LoraOptions, apply_lora  # noqa: E402

from harness.errors import ModelError  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
from harness.model.policy import ModelPolicy  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402
from tests.tuning.tensors import as_batch  # noqa: E402


@pytest.fixture
def pair(tiny_model) -> Any:
    """Make a model that computes as PEFT does and its fused copy, with the same adapter, B not zero."""

    def make(dtype: str = "float32", checkpointing: bool = False, **options: Any) -> tuple[Any, Any]:
        torch.manual_seed(0)
        base = load_model(ModelSpec(path=str(tiny_model), dtype=dtype), for_tuning=True)
        if checkpointing:
            base.gradient_checkpointing_enable({"use_reentrant": False})
            base.enable_input_require_grads()
        plain = apply_lora(base, LoraOptions(rank=4, alpha=12, **options)).train()
        for name, weight in plain.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.1)
        other = copy.deepcopy(plain)
        assert fused.fuse_adapters(other) == (14 if not options else 0)
        return plain, other

    return make


def batch() -> Any:
    ids = torch.randint(3, 300, (3, 12), generator=torch.Generator().manual_seed(0))
    return as_batch(ids, torch.ones(3, 12, dtype=torch.bool))


def gradients(model: Any) -> tuple[Any, dict[str, Any]]:
    torch.manual_seed(1)
    logprobs = target_logprobs(model, batch())
    (-logprobs.sum()).backward()
    return logprobs.detach(), {n: w.grad.float() for n, w in model.named_parameters() if w.grad is not None}


def furthest(found: dict[str, Any], expected: dict[str, Any]) -> float:
    assert found.keys() == expected.keys()
    return max(float((found[name] - expected[name]).norm() / expected[name].norm()) for name in expected)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_log_probabilities_and_gradients_are_pefts(pair, checkpointing):
    plain, other = pair(checkpointing=checkpointing)
    (expected, expected_gradients), (found, found_gradients) = gradients(plain), gradients(other)
    assert len(found_gradients) == 28
    assert (found - expected).abs().max() < 1e-5
    assert furthest(found_gradients, expected_gradients) < 1e-5


def test_in_bfloat16_it_is_as_near_to_float32_as_peft_is(pair):
    _, exact = gradients(pair("float32")[0])
    plain, other = pair("bfloat16")
    assert furthest(gradients(other)[1], exact) < 1.2 * furthest(gradients(plain)[1], exact)


def test_without_its_adapter_and_merged_it_is_the_same_model(pair):
    plain, other = pair()
    with torch.no_grad(), ModelPolicy(plain).without_adapter(), ModelPolicy(other).without_adapter():
        assert torch.equal(target_logprobs(plain, batch()), target_logprobs(other, batch()))
    expected = target_logprobs(other, batch()).detach()
    with torch.no_grad():
        assert (target_logprobs(other.merge_and_unload(), batch()) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("options", [{"dropout": 0.5}])
def test_what_is_no_plain_adapter_takes_pefts_path(pair, options):
    plain, other = pair(**options)
    assert furthest(gradients(other)[1], gradients(plain)[1]) == 0.0


def test_dora_takes_pefts_path(tiny_model):
    base = load_model(ModelSpec(path=str(tiny_model)), for_tuning=True)
    config = peft.LoraConfig(r=2, target_modules="all-linear", use_dora=True, task_type="CAUSAL_LM")
    assert fused.fuse_adapters(peft.get_peft_model(base, config)) == 0


def test_a_function_that_is_not_pefts_is_refused_by_layer(pair, monkeypatch):
    plain, _ = pair()
    right = fused.LoraProduct.apply
    monkeypatch.setattr(fused.LoraProduct, "apply", lambda *given: right(*given[:-1], 2 * given[-1]))
    with pytest.raises(ModelError, match=r"layers\.0\.\S+: the fused product differs from PEFT's by 1 in float32"):
        fused.fuse_adapters(plain)


def test_no_tokens_give_no_rows():
    weight, a, b = torch.randn(5, 3), torch.randn(2, 3).requires_grad_(), torch.randn(5, 2).requires_grad_()
    out = fused.LoraProduct.apply(torch.zeros(0, 3), weight, None, a, b, 2.0)
    out.sum().backward()
    assert out.shape == (0, 5) and not a.grad.any() and not b.grad.any()
