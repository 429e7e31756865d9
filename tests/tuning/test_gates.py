"""Before the first step, a model, method or objective that is not what it claims to be is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning import gates  # noqa: E402
from harness_tuning.learner import Learner  # noqa: E402
from harness_tuning.methods.lora import LoraOptions, apply_lora  # noqa: E402
from harness_tuning.objectives import sft  # noqa: E402
from harness_tuning.optimizer import MasterAdamW  # noqa: E402
from harness_tuning.world import World  # noqa: E402

from harness.contract import Loss, Term  # noqa: E402
from harness.errors import HarnessError, ModelError  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
from harness.model.policy import ModelPolicy  # noqa: E402
from harness.recipe import ModelSpec, TuneSpec  # noqa: E402
from tests.tuning.tensors import as_batch  # noqa: E402


@pytest.fixture
def learner(tiny_model) -> Learner:
    torch.manual_seed(0)
    base = load_model(ModelSpec(path=str(tiny_model)), for_tuning=True)
    model = apply_lora(base, LoraOptions(rank=2, dropout=0.3)).train()
    spec = TuneSpec(objective={"name": "sft"}, method={"name": "lora"})
    return Learner(
        ModelPolicy(model),
        sft.OBJECTIVE,
        sft.SftOptions(),
        MasterAdamW(model, spec),
        torch.device("cpu"),
        World(),
        True,
    )


def batch() -> Any:
    ids = torch.randint(3, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    return as_batch(ids, torch.ones(2, 12, dtype=torch.bool))


def test_a_fresh_adapter_passes_and_nothing_of_it_is_left(learner):
    before = {name: weight.clone() for name, weight in learner.model.state_dict().items()}
    random = torch.get_rng_state()
    with gates.without_trace(learner):
        gates.check_start(learner, batch())
    assert torch.equal(random, torch.get_rng_state()) and learner.model.training
    assert all(torch.equal(weight, before[name]) for name, weight in learner.model.state_dict().items())
    assert all(master.grad is None for master in learner.optimizer.masters.values())


def test_a_layer_whose_adapter_takes_no_part_is_refused_by_name(learner):
    layer = learner.model.get_base_model().model.layers[1].mlp.up_proj
    layer.forward = layer.base_layer.forward  # as a fused kernel that reads the weight past the module
    with pytest.raises(
        HarnessError, match=r"1 of 14 trained layers get no gradient .*: model\.layers\.1\.mlp\.up_proj\."
    ):
        gates.check_gradients(learner, batch())


def test_an_expert_that_no_token_reached_is_no_idle_layer():
    one, other = (
        gates.adapted_layer(f"base_model.model.layers.0.mlp.experts.{n}.up.lora_B.default.weight") for n in (0, 7)
    )
    assert one == other == "layers.0.mlp.experts.*.up"


def test_a_fast_loss_that_is_not_the_plain_one_is_refused(learner, monkeypatch):
    monkeypatch.setattr(
        "harness.model.policy.target_logprobs", lambda model, batch: target_logprobs(model, batch) - 0.2
    )
    with pytest.raises(ModelError, match=r"differ from those of the model's own logits by 0\.2 nats"):
        gates.check_fast_loss(learner, batch())


def test_checks_of_a_half_precision_model_compute_exactly_as_its_float32_twin(learner, tiny_model):
    from harness_tuning.precision import in_float32

    some = batch()
    twin = apply_lora(
        load_model(ModelSpec(path=str(tiny_model), dtype="float32"), for_tuning=True), LoraOptions(rank=2)
    )
    with torch.no_grad():
        for weight, exact in zip(learner.model.parameters(), twin.parameters(), strict=True):
            assert weight.dtype == torch.bfloat16
            exact.copy_(weight)
    learner.model.eval()
    twin.eval()
    with in_float32():
        found = target_logprobs(learner.model, some)
    assert torch.equal(found, target_logprobs(twin, some).detach())
    assert not torch.equal(found, target_logprobs(learner.model, some).detach())


def test_an_expert_that_no_token_reached_is_named():
    name = "base_model.model.model.layers.0.mlp.experts.7.up_proj.lora_B.default.weight"
    assert gates._expert(name) == "model.layers.0.mlp.experts.7"
    assert gates._expert("base_model.model.model.layers.0.self_attn.q_proj.lora_A.default.weight") is None


def test_an_objective_that_returns_a_mean_is_refused(learner):
    mean = SimpleNamespace(
        name="mean", observe=None, head=None, prepare=None, units=lambda batch: {"tokens": batch.supervised},
        loss=lambda policy, batch, options: Loss({"tokens": Term(policy.logprobs(batch).mean())}),
    )  # fmt: skip
    learner.objective, whole = mean, batch()
    halves = [as_batch(whole.input_ids[row : row + 1], torch.ones(1, 12, dtype=torch.bool)) for row in (0, 1)]
    with pytest.raises(HarnessError, match=r"the objective 'mean': the term 'tokens' of a batch is .* not a mean"):
        gates.check_objective(learner, whole, halves)
    gates.check_objective(learner, whole, ())


def test_an_objective_that_forgets_the_shift_is_refused(learner):
    def loss(policy, batch, options):
        hidden = policy.last_hidden(batch).flatten(0, 1)[batch.targets.source + 1]
        return Loss({"tokens": Term(hidden.float().sum())})

    learner.objective = SimpleNamespace(
        name="unshifted", observe=None, head=None, loss=loss, units=lambda batch: {"tokens": batch.supervised}
    )
    with pytest.raises(HarnessError, match=r"'unshifted': the term 'tokens' changes .* position t-1 predicts token t"):
        gates.check_objective(learner, batch(), ())


def test_a_method_that_changes_the_model_before_step_1_is_refused(learner):
    gates.check_unchanged([[-1.0, -2.0]], [[-1.0, -2.0]], "mine")
    with pytest.raises(HarnessError, match=r"the method 'mine' changes what the model says .* differ by 0\.5 nats"):
        gates.check_unchanged([[-1.0, -2.0]], [[-1.5, -1.5]], "mine")


def test_an_objective_whose_terms_and_units_differ_in_name_is_refused(learner):
    learner.objective = SimpleNamespace(name="mine", loss=sft.loss, units=lambda batch: {"tokens": 1})
    with pytest.raises(HarnessError, match="the objective 'mine' returns the terms nll, and counts units of tokens"):
        learner.loss(batch())


def test_without_its_adapter_a_policy_answers_as_the_base_and_stays_trained(learner):
    policy, some = learner.policy, batch()
    learner.model.eval()
    with torch.no_grad():
        base = policy.logprobs(some)
        for name, weight in learner.model.named_parameters():
            if "lora_B" in name:
                weight.normal_()
        tuned = policy.logprobs(some)
        with policy.without_adapter():
            assert torch.equal(policy.logprobs(some), base)
            assert any(weight.requires_grad for weight in learner.model.parameters())
        assert torch.equal(policy.logprobs(some), tuned) and not torch.equal(tuned, base)
