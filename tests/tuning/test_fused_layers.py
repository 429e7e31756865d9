"""Norms, rotary embeddings and SwiGLUs are computed fused where that is transformers' own function, bit for bit."""

from __future__ import annotations

import functools
import shutil
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from harness_tuning import fused_layers  # noqa: E402
from harness_tuning.memory import Held  # noqa: E402
from harness_tuning.precision import in_float32  # noqa: E402
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
    assert str(fused_layers.fuse_layers(model)) == "none (for bfloat16, on the device)"
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


@pytest.fixture
def compiled_anew(tmp_path, monkeypatch):
    """A cache folder without the kernels, which are looked for again."""
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    for function in (kernels._why_not_here, kernels._library):
        monkeypatch.setattr(kernels, function.__name__, functools.cache(function.__wrapped__))
    return tmp_path


def test_a_machine_without_a_compiler_says_so(compiled_anew, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert "no C compiler 'no-such-compiler'" in str(kernels.why_not())
    broken = compiled_anew / "broken"
    broken.write_text("#!/bin/sh\n[ $# = 1 ] || { echo 'no OpenMP here' >&2; exit 1; }\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CC", str(broken))
    kernels._why_not_here.cache_clear()
    assert str(kernels.why_not()).endswith("cannot compile them: no OpenMP here")


def test_a_cache_folder_that_cannot_be_written_is_named(compiled_anew):
    (compiled_anew / "cache").write_text("a file where the folder would be")
    assert "they cannot be compiled: " in str(kernels.why_not()) and str(compiled_anew) in str(kernels.why_not())


@needs_kernels
@pytest.mark.parametrize("mode", ["empty tensors", "float32", "inference"])
def test_kernels_are_tried_outside_modes_that_change_torch(compiled_anew, mode):
    modes = {"empty tensors": FakeTensorMode(), "float32": in_float32(), "inference": torch.inference_mode()}
    with modes[mode]:
        assert kernels.why_not() is None


@needs_kernels
def test_an_environment_variable_and_a_run_turn_the_kernels_off(monkeypatch, own_rotary):
    x, model = torch.zeros(2, 4, dtype=torch.bfloat16), made("llama")
    expected = figures(model)
    fused_layers.fuse_layers(model)
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert not kernels.compiled(x) and str(fused_layers.fuse_layers(model)).startswith("none (HARNESS_KERNELS=0")
    assert all(torch.equal(now, before) for now, before in zip(figures(model), expected, strict=True))
    monkeypatch.delenv(kernels.SWITCH)
    fused_layers.go_on_as({"reason": "there is no C compiler here"})
    assert not kernels.compiled(x) and "begun without the kernels" in str(fused_layers.fuse_layers(model))
    fused_layers.go_on_as(None)
    assert kernels.compiled(x)


def test_a_run_goes_on_only_with_the_functions_it_began_with(monkeypatch):
    began = {"norms": 3, "swiglus": 1, "rotaries": 1, "reason": None}
    none = fused_layers.FusedLayers(reason="no C compiler here")
    assert fused_layers.check_as_begun(fused_layers.FusedLayers(3, 1, 1), began) is None
    assert fused_layers.check_as_begun(none, {"reason": "no C compiler there"}) is None
    with pytest.raises(RunError, match=r"3 norms.* fused, now none \(no C compiler here\).*set HARNESS_KERNELS=0"):
        fused_layers.check_as_begun(none, began)
    with pytest.raises(RunError, match="now none"):  # softmax and log-probabilities are kernels too
        fused_layers.check_as_begun(none, {**began, "norms": 0, "swiglus": 0, "rotaries": 0})
    monkeypatch.setenv(kernels.SWITCH, "0")
    assert "goes on with those of torch" in str(fused_layers.check_as_begun(none, began))


@needs_kernels
def test_what_a_kernel_would_read_wrongly_is_refused():
    x, scale = torch.zeros(4, 6, dtype=torch.bfloat16), torch.ones(6)
    angles = torch.zeros(1, 4, 6, dtype=torch.bfloat16)
    for wrong in (
        lambda: kernels.rms_norm(x.t(), torch.ones(4), 1e-6, True),
        lambda: kernels.rms_norm(x.float(), scale, 1e-6, True),
        lambda: kernels.rms_norm(x, torch.ones(5), 1e-6, True),
        lambda: kernels.swiglu(x.t(), x.t()),
        lambda: kernels.swiglu(x, x[:, :4]),
        lambda: kernels.rotary(torch.zeros(2, 5, 1, 6, dtype=torch.bfloat16), angles, angles, False),
        lambda: kernels.causal_softmax(torch.zeros(1, 4, 6), torch.zeros(1, 4, 6, dtype=torch.bfloat16), 4, 3),
    ):
        with pytest.raises(ValueError, match=r": (torch|tensors)"):
            wrong()
    with pytest.raises(IndexError, match="logits of 6 tokens"):
        kernels.target_logprobs(x, torch.tensor([0, 1, 2, 6]), torch.empty_like(x))


@needs_kernels
def test_results_are_the_same_with_any_number_of_threads():
    """Rows beyond what one thread does alone; 0 rows; a size that is no multiple of a vector's."""
    random = torch.Generator().manual_seed(0)
    x, y = (torch.randn(701, 99, generator=random).bfloat16() for _ in range(2))
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            minus = torch.empty_like(x)
            norm = kernels.rms_norm(x, torch.ones(99), 1e-6, True)
            logprobs = kernels.target_logprobs(x, torch.arange(701) % 99, minus)
            results.append([*norm, kernels.swiglu(x, y), *kernels.swiglu_backward(y, x, y), logprobs, minus])
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))
    assert (
        kernels.swiglu(x[:0], y[:0]).shape == (0, 99)
        and len(kernels.rms_norm(x[:0], torch.ones(99), 1e-6, True)[0]) == 0
    )


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
