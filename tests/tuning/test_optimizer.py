"""AdamW over float32 masters: exact in float16 too, by groups of learning rates, with 8-bit state where asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.learner import Learner, gradient_scale  # noqa: E402
from harness_tuning.methods.lora import LoraOptions, apply_lora  # noqa: E402
from harness_tuning.objectives import sft  # noqa: E402
from harness_tuning.optimizer import MasterAdamW, check_optimizer  # noqa: E402
from harness_tuning.world import World  # noqa: E402

from harness.errors import HarnessError  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.policy import ModelPolicy  # noqa: E402
from harness.recipe import ModelSpec, TuneSpec  # noqa: E402
from tests.tuning.tensors import as_batch  # noqa: E402

STEP_TOKENS = 200_000


def spec(**tune: Any) -> TuneSpec:
    return TuneSpec(objective={"name": "sft"}, method={"name": "lora"}, **tune)


def gradients(folder: Any, dtype: str) -> Any:
    """The masters' gradients of a small batch that is a part of a step of STEP_TOKENS."""
    torch.manual_seed(0)
    model = apply_lora(load_model(ModelSpec(path=str(folder), dtype=dtype), for_tuning=True), LoraOptions(rank=4))
    for name, weight in model.named_parameters():
        if "lora_" in name:
            generator = torch.Generator().manual_seed(len(name))
            weight.data = (torch.randn(weight.shape, generator=generator) * 0.05).bfloat16().to(weight.dtype)
    learner = Learner(
        ModelPolicy(model), replace(sft.OBJECTIVE, units=lambda batch: {"nll": STEP_TOKENS}),
        sft.SftOptions(), MasterAdamW(model, spec()), torch.device("cpu"), World(), True,
    )  # fmt: skip
    ids = torch.randint(3, 500, (4, 48), generator=torch.Generator().manual_seed(0))
    learner.backward([as_batch(ids, torch.ones_like(ids, dtype=torch.bool))])
    return torch.cat([master.grad.flatten() for master in learner.optimizer.masters.values()])


def test_float16_gradients_of_a_large_step_are_as_exact_as_bfloat16_ones(tiny_model):
    exact = gradients(tiny_model, "float32")
    errors = {
        dtype: float((gradients(tiny_model, dtype) - exact).norm() / exact.norm()) for dtype in ("bfloat16", "float16")
    }
    assert errors["float16"] < 0.005 and errors["float16"] < errors["bfloat16"] < 0.05


def test_the_scale_of_a_float16_loss_lies_between_its_terms_units():
    assert gradient_scale({"tokens": 20_000}) == 16_384
    assert gradient_scale({"tokens": 16_384, "pairs": 16}) == 512
    assert gradient_scale({"tokens": 0}) == 1


def quadratic(optimizer: str = "adamw", **factors: float) -> MasterAdamW:
    torch.manual_seed(0)
    model = torch.nn.ParameterDict({name: torch.nn.Parameter(torch.randn(64, 128)) for name in ("a", "b")})
    made = MasterAdamW(model, spec(optimizer=optimizer), lambda name: factors.get(name, 1.0))
    made.model = model
    return made


def step(optimizer: MasterAdamW, rate: float = 1e-2) -> None:
    (optimizer.model["a"] ** 2 + optimizer.model["b"] ** 2).sum().backward()
    optimizer.step(rate, None)


def test_a_weight_moves_by_the_learning_rate_of_its_group():
    optimizer = quadratic(b=4.0)
    before = {name: weight.detach().clone() for name, weight in optimizer.weights.items()}
    step(optimizer)
    moved = {name: float((weight.detach() - before[name]).abs().mean()) for name, weight in optimizer.weights.items()}
    assert moved["a"] == pytest.approx(1e-2, rel=1e-3) and moved["b"] == pytest.approx(4e-2, rel=1e-3)


@pytest.mark.parametrize("name", ["adamw", "adamw_8bit"])
def test_an_optimizer_goes_on_from_its_saved_state_to_the_same_bytes(name):
    if name != "adamw":
        pytest.importorskip("bitsandbytes")
    whole, stopped = quadratic(name), quadratic(name)
    for _ in range(4):
        step(whole)
    for _ in range(2):
        step(stopped)
    again = quadratic(name)
    again.load({key: value.clone() for key, value in stopped.state().items()})
    for _ in range(2):
        step(again)
    assert all(torch.equal(again.weights[key], weight) for key, weight in whole.weights.items())
    if name == "adamw_8bit":
        assert whole.state()["state1/a"].dtype == torch.uint8


def test_a_paged_optimizer_is_refused_without_an_accelerator():
    pytest.importorskip("bitsandbytes")
    with pytest.raises(HarnessError, match=r"paged_adamw_8bit .* Set tune.optimizer: adamw_8bit"):
        check_optimizer(spec(optimizer="paged_adamw_8bit"), torch.device("cpu"))
