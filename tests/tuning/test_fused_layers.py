"""Norms, rotary embeddings and SwiGLUs are computed fused where that is transformers' own function, bit for bit."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from harness_tuning import fused_layers  # noqa: E402
from harness_tuning.memory import Held  # noqa: E402
from torch._subclasses.fake_tensor import FakeTensorMode  # noqa: E402

from harness.errors import RunError  # noqa: E402
from harness.model import kernels  # noqa: E402

needs_kernels = pytest.mark.skipif(kernels.why_not() is not None, reason=f"no kernels here: {kernels.why_not()}")
SIZES = {
    "vocab_size": 64, "hidden_size": 48, "intermediate_size": 80, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
IN_FLOAT32 = {"olmo2"}  # families whose angles are float32: their rotary embedding is left to transformers
FAMILIES = {  # norms, SwiGLUs, rotary embeddings
    "llama": ({}, (3, 1, 1)),
    "qwen3": ({"head_dim": 16}, (5, 1, 1)),  # norms of queries and keys
    "gemma2": ({"head_dim": 16}, (5, 0, 1)),  # 1 + w, and GeGLU
    "phi3": ({}, (3, 1, 1)),  # gate and up in one layer
    "olmo2": ({}, (5, 1, 1)),  # scaled before it is rounded
    "cohere": ({}, (0, 1, 0)),  # LayerNorm, and pairs of neighbours rotated
    "gpt_neox": ({"rotary_pct": 1.0}, (0, 0, 1)),
}


def made(family: str) -> Any:
    options, _ = FAMILIES[family]
    config = transformers.AutoConfig.for_model(family, **SIZES, **options)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    for weight in model.parameters():
        if weight.ndim == 1:
            torch.nn.init.normal_(weight, mean=0.0 if "gemma" in family else 1.0, std=0.2)
    lora = peft.LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
    return peft.get_peft_model(model, lora, autocast_adapter_dtype=False)


def figures(model: Any) -> list[Any]:
    ids = torch.randint(3, 64, (2, 11), generator=torch.Generator().manual_seed(0))
    logits = model(input_ids=ids, use_cache=False).logits
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    return [logits.detach(), *torch.autograd.grad(logits.float().square().mean(), trained)]


@pytest.fixture
def own_rotary() -> Any:
    """Put the rotary embeddings of transformers back: they are functions of a module, not of a model."""
    yield
    for family in FAMILIES:
        module = __import__(f"transformers.models.{family}.modeling_{family}", fromlist=["."])
        if isinstance(own := module.apply_rotary_pos_emb, fused_layers.FusedRotary):
            module.apply_rotary_pos_emb = own.plain


@needs_kernels
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_stay_those_of_transformers(family, own_rotary, monkeypatch):
    model, calls = made(family), []
    expected = figures(model)
    fused = fused_layers.fuse_layers(model)
    assert (fused.norms, fused.swiglus, fused.rotaries) == FAMILIES[family][1]
    for name in ("rms_norm", "swiglu", "rotary"):
        kernel = getattr(kernels, name)
        monkeypatch.setattr(kernels, name, lambda *a, name=name, kernel=kernel: (calls.append(name), kernel(*a))[1])
    for now, before in zip(figures(model), expected, strict=True):
        assert float((now - before).float().norm()) <= 5e-3 * float(before.float().norm())
    norms, swiglus, rotaries = FAMILIES[family][1]
    counted = (calls.count("rms_norm"), calls.count("swiglu"), calls.count("rotary") // 4)
    # Queries and keys are rotated, and their gradients back.
    assert counted == (norms, swiglus, 0 if family in IN_FLOAT32 else rotaries)


@needs_kernels
def test_float32_and_trained_norms_are_left_to_transformers(own_rotary):
    model = made("llama").float()
    assert str(fused_layers.fuse_layers(model)) == "none (for bfloat16)"
    trained = made("llama")
    for name, weight in trained.named_parameters():
        weight.requires_grad_("norm" in name)
    assert fused_layers.fuse_layers(trained).norms == 0


@needs_kernels
def test_a_norm_of_another_form_is_not_fused():
    class Other(torch.nn.Module):
        eps = 1e-6

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(32, dtype=torch.bfloat16), requires_grad=False)

        def forward(self, x: Any) -> Any:
            return self.weight * (x / (x.float().abs().mean(-1, keepdim=True) + self.eps)).to(x.dtype)

    assert not fused_layers._fuse_norm(Other())


@needs_kernels
def test_fused_functions_keep_less_for_the_backward_pass(own_rotary):
    model = made("llama")
    before, after = (held(model, fuse) for fuse in (False, True))
    assert after < 0.9 * before


def held(model: Any, fuse: bool) -> int:
    """Return the bytes alive after a forward pass, on tensors without contents."""
    if fuse:
        assert fused_layers.fuse_layers(model).norms
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, Held() as counted:
        hidden = mode.from_tensor(torch.zeros(2, 64, 48, dtype=torch.bfloat16)).requires_grad_()
        layer = model.get_base_model().model.layers[0]
        angles = mode.from_tensor(torch.zeros(1, 64, 12, dtype=torch.bfloat16))
        out = layer(hidden, position_embeddings=(angles, angles))
        assert out is not None
        return counted.now


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_log_probabilities_are_of_the_targets_where_these_lie_apart():
    """As in a batch, where the targets are a column: whether or not this machine tunes by kernels."""
    logits = torch.randn(6, 40).bfloat16()
    targets = torch.randint(0, 40, (6, 3))[:, 1]
    assert not targets.is_contiguous()
    minus = torch.empty_like(logits)
    logprobs = kernels.target_logprobs(logits, targets, minus)
    expected = logits.float().log_softmax(-1)
    assert torch.allclose(logprobs, expected.gather(1, targets[:, None])[:, 0], atol=1e-5)
    gradient = expected.exp() - torch.nn.functional.one_hot(targets, 40)
    assert torch.allclose(minus.float(), gradient, atol=4e-3)


def test_a_machine_without_a_compiler_says_so(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv(kernels.SWITCH, "1")
    assert "no C compiler 'no-such-compiler'" in str(kernels.why_not.__wrapped__())


@needs_kernels
def test_a_run_goes_on_only_with_the_functions_it_began_with(monkeypatch, own_rotary):
    model = made("llama")
    began = {"norms": 3, "swiglus": 1, "rotaries": 1, "reason": None}
    assert fused_layers.fuse_layers(model, began).norms == 3
    monkeypatch.setattr(kernels, "why_not", lambda: "no C compiler here")
    with pytest.raises(RunError, match=r"fused were 3 norms.* are none \(no C compiler here\)"):
        fused_layers.fuse_layers(made("llama"), began)


@needs_kernels
@pytest.mark.parametrize("keys", [5, 70])
def test_causal_softmax_is_that_of_torch(keys):
    scores = 4 * torch.randn(2, 6, keys)
    unseen = torch.ones(3, keys, dtype=torch.bool).triu(keys - 2).repeat(2, 1)
    expected = scores.masked_fill(unseen, -torch.inf).softmax(-1).bfloat16()
    out = torch.empty_like(expected)
    kernels.causal_softmax(scores, out, 3, keys - 3)
    assert torch.allclose(out.float(), expected.float(), rtol=2**-8, atol=1e-7)


@needs_kernels
def test_what_is_not_finite_stays_so():
    logits, target = torch.full((3, 40), 1.0, dtype=torch.bfloat16), torch.zeros(3, dtype=torch.long)
    logits[0, 3], logits[1, 3] = torch.nan, torch.inf
    minus = torch.empty_like(logits)
    assert kernels.target_logprobs(logits, target, minus).isfinite().tolist() == [False, False, True]
    assert not minus[0].isfinite().any()
    x = torch.full((1, 8), torch.nan, dtype=torch.bfloat16)
    assert kernels.rms_norm(x, torch.ones(8), 1e-6, True)[0].isnan().all() and kernels.swiglu(x, x).isnan().all()
