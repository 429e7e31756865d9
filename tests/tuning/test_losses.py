"""Losses of the objectives equal those of TRL's trainers on the same log-probabilities (bench/trl_figures.py)."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.learner import with_extras  # noqa: E402
from harness_tuning.objectives import dpo, kto, orpo, reward, sft, simpo  # noqa: E402

from harness.contract.objectives import value_at_start  # noqa: E402
from harness.model.batching import nothing, packed, padded  # noqa: E402
from harness.nouns import Example, Item  # noqa: E402

TRL = json.loads((Path(__file__).resolve().parents[1] / "data" / "trl_losses.json").read_text())
PAIRS = len(TRL["margins"])


class Given:
    """A policy whose log-probabilities and scores are given, one figure a document."""

    def __init__(self, logprobs: Any = None, scores: Any = None) -> None:
        self._logprobs, self._scores = logprobs, scores

    def logprobs(self, batch):
        return (self._logprobs / batch.targets_by_document())[batch.targets.document]

    def predictions(self, batch):
        return self.logprobs(batch), torch.zeros(0)

    def scores(self, batch):
        return self._scores

    @contextlib.contextmanager
    def noisy_embeddings(self, batch, alpha):
        yield


def interleaved(figures: Any) -> list[Any]:
    """TRL's order is all chosen, then all rejected; ours is pair by pair."""
    return [figures[place] for pair in range(PAIRS) for place in (pair, PAIRS + pair)]


def pairs(weight: float = 1.0) -> list[Item]:
    lengths, reference = TRL["lengths"], TRL["reference"]
    return [
        Item(
            tuple(Example([1, *[2] * lengths[at]], [False, *[True] * lengths[at]]) for at in both),
            ("chosen", "rejected"),
            {"weight": weight, "margin": TRL["margins"][pair], "reference": tuple(reference[at] for at in both)},
        )
        for pair in range(PAIRS)
        for both in [(pair, PAIRS + pair)]
    ]


def value(objective: Any, options: Any, policy: Given, batch: Any) -> float:
    loss = objective.loss(policy, batch, options)
    assert all(math.isfinite(float(metric.sum)) for metric in loss.metrics.values())
    return float(loss.mean(objective.units(batch)))


def figures_of(name: str) -> list[Any]:
    return [pytest.param(figures, id=str(list(figures.values())[:-1])) for figures in TRL["losses"][name]]


def options_of(options: Any, figures: dict[str, Any], *without: str) -> Any:
    return options(**{key: found for key, found in figures.items() if key not in ("value", *without)})


POLICY = Given(torch.tensor(interleaved(TRL["logprobs"])), torch.tensor(interleaved(TRL["scores"])))


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize("figures", figures_of("dpo"))
def test_dpo_is_trls(figures, weight):
    batch = padded(pairs(weight), 0, "cpu")
    assert value(dpo.OBJECTIVE, options_of(dpo.DpoOptions, figures), POLICY, batch) == pytest.approx(
        figures["value"], rel=2e-5
    )


def test_dpo_with_an_nll_weight_adds_the_mean_loss_of_the_chosen_tokens():
    batch, weight = padded(pairs(), 0, "cpu"), 0.5
    plain, supervised = (value(dpo.OBJECTIVE, dpo.DpoOptions(nll_weight=one), POLICY, batch) for one in (0.0, weight))
    nll = -sum(TRL["logprobs"][:PAIRS]) / sum(TRL["lengths"][:PAIRS])
    assert supervised - plain == pytest.approx(weight * nll, rel=1e-5)


@pytest.mark.parametrize("figures", figures_of("kto"))
def test_kto_is_trls_given_the_same_kl(figures):
    batch = with_extras(padded(pairs(), 0, "cpu"), {"kl": torch.full((2 * PAIRS,), figures["kl"])})
    options = options_of(kto.KtoOptions, figures, "kl")
    assert value(kto.OBJECTIVE, options, POLICY, batch) == pytest.approx(figures["value"], rel=2e-5)


@pytest.mark.parametrize("figures", figures_of("orpo"))
def test_the_odds_ratio_of_orpo_is_trls(figures):
    batch = padded(pairs(), 0, "cpu")
    options = options_of(orpo.OrpoOptions, figures)
    loss = orpo.loss(POLICY, batch, options)
    odds = float(loss.terms["odds"].sum * loss.terms["odds"].weight / orpo.units(batch)["odds"])
    assert odds == pytest.approx(figures["value"], rel=2e-5)
    chosen = sum(TRL["lengths"][:PAIRS])
    assert orpo.units(batch)["nll"] == chosen
    assert float(loss.terms["nll"].sum) == pytest.approx(-sum(TRL["logprobs"][:PAIRS]), rel=1e-5)


@pytest.mark.parametrize("figures", figures_of("simpo"))
def test_simpo_is_trls(figures):
    options = options_of(simpo.SimpoOptions, figures)
    assert value(simpo.OBJECTIVE, options, POLICY, padded(pairs(), 0, "cpu")) == pytest.approx(
        figures["value"], rel=2e-5
    )


@pytest.mark.parametrize("figures", figures_of("reward"))
def test_reward_is_trls(figures):
    options = options_of(reward.RewardOptions, figures)
    assert value(reward.OBJECTIVE, options, POLICY, padded(pairs(), 0, "cpu")) == pytest.approx(
        figures["value"], rel=2e-5
    )


def test_pairs_that_share_their_prompt_in_one_row_have_the_same_loss():
    options, given = dpo.DpoOptions(beta=0.3), interleaved(TRL["logprobs"])
    batch = packed(pairs(), [range(PAIRS)], 0, "cpu")
    side = {"chosen": 0, "rejected": 1}
    assert any(role not in side for role in batch.roles), "the prompts are documents of their own"
    places = zip(batch.groups, batch.roles, strict=True)
    own = [given[2 * group + side[role]] if role in side else 0.0 for group, role in places]
    shared = Given(torch.tensor(own))
    shared.logprobs = lambda batch: (torch.tensor(own) / batch.targets_by_document().clamp_min(1))[
        batch.targets.document
    ]
    one = value(dpo.OBJECTIVE, options, POLICY, padded(pairs(), 0, "cpu"))
    assert one == pytest.approx(value(dpo.OBJECTIVE, options, shared, batch), rel=1e-6)


class Waits(torch.overrides.TorchFunctionMode):
    """Names the functions inside the block for which a host waits for its accelerator."""

    NAMES = ("item", "tolist", "__bool__", "__float__", "__int__", "__index__", "nonzero", "cpu", "numpy")

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = function.__name__
        places = args[1] if name in ("__getitem__", "__setitem__") else None
        if name in self.NAMES or isinstance(places, list):
            self.seen.append(name)
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("weight", [1.0, 2.5])
@pytest.mark.parametrize("module", [sft, dpo, kto, orpo, simpo, reward])
def test_neither_a_loss_nor_its_units_let_an_accelerator_wait(module, weight):
    batch = with_extras(padded(pairs(weight), 0, "cpu"), {"kl": torch.zeros(2 * PAIRS)})
    with Waits() as waits:
        loss = module.OBJECTIVE.loss(POLICY, batch, module.OBJECTIVE.options())
        units = module.OBJECTIVE.units(batch)
    assert loss.terms.keys() == units.keys() and not waits.seen
    with Waits() as waits:
        assert batch.figures("weight")[[0]] == weight
    assert waits.seen == ["__getitem__", "__bool__"], "a list as index and a truth would be seen"


@pytest.mark.parametrize("module", [sft, dpo, kto, orpo, simpo, reward])
def test_a_share_without_documents_adds_nothing(module):
    empty = Given(torch.zeros(0), torch.zeros(0))
    empty.logprobs = lambda batch: torch.zeros(0)
    batch, options = nothing(0, "cpu"), module.OBJECTIVE.options()
    loss = module.OBJECTIVE.loss(empty, batch, options)
    units = module.OBJECTIVE.units(batch)
    assert loss.terms.keys() == units.keys() and not any(units.values())
    assert all(float(term.sum) == 0.0 for term in loss.terms.values())


def known_at_start(options: dpo.DpoOptions) -> float:
    return dpo.value_at_start(options)["pairs"]


def test_the_loss_at_the_start_is_the_known_one():
    batch = padded(pairs(), 0, "cpu")
    start = Given(torch.tensor(interleaved(TRL["reference"])))
    for options in (
        dpo.DpoOptions(beta=0.3),
        dpo.DpoOptions(loss="robust", label_smoothing=0.3),
        dpo.DpoOptions(loss="ipo", beta=0.2),
    ):
        assert value(dpo.OBJECTIVE, options, start, batch) == pytest.approx(known_at_start(options), rel=1e-5)
        supervised = options.model_copy(update={"nll_weight": 0.5})
        loss = dpo.OBJECTIVE.loss(start, batch, supervised)
        at_start = value_at_start(dpo.OBJECTIVE, supervised, lambda loss=loss: loss, batch)
        assert at_start == pytest.approx((known_at_start(options), known_at_start(options)), rel=1e-5)
    assert known_at_start(dpo.DpoOptions(loss="ipo", beta=0.2)) == pytest.approx(1 / 0.16)
    no_kl = with_extras(batch, {"kl": torch.zeros(2 * PAIRS)})
    assert value(kto.OBJECTIVE, kto.KtoOptions(), start, no_kl) == pytest.approx(0.5, rel=1e-5)
    assert kto.value_at_start(kto.KtoOptions(desirable_weight=0.5)) is None


def test_smoothed_labels_are_refused_where_the_loss_takes_none():
    with pytest.raises(ValueError, match="label_smoothing is for the losses sigmoid and robust"):
        dpo.DpoOptions(loss="ipo", label_smoothing=0.1)


def test_the_gradient_is_that_of_the_sigmoid_where_margins_are_0_and_far_away():
    from harness_tuning.objectives.pairs import log_sigmoid

    figures = torch.tensor([0.0, 90.0, -90.0, 1e4, -1e4], requires_grad=True)
    ours = log_sigmoid(figures)
    theirs = torch.nn.functional.logsigmoid(figures)
    assert torch.equal(ours.round(decimals=4), theirs.round(decimals=4))
    (one,), (other,) = (torch.autograd.grad(part.sum(), figures, retain_graph=True) for part in (ours, theirs))
    assert torch.allclose(one, other)


def test_orpo_stays_finite_where_a_completion_is_certain():
    figures = torch.tensor([0.0, -1e-9, -30.0], requires_grad=True)
    odds = orpo.log_odds(figures, figures.flip(0))
    odds.sum().backward()
    assert torch.isfinite(odds).all() and torch.isfinite(figures.grad).all()


def test_the_mismatched_completions_of_kto_follow_the_data_and_fit_the_limit():
    def item(prompt: int, completion: int, length: int) -> Item:
        return Item((Example([prompt] * 3 + [completion] * length, [False] * 3 + [True] * length),), ("chosen",))

    items = [item(5, 6, 4), item(5, 7, 2), item(8, 9, 6)]
    first = kto.beside(items, 0, kto.KtoOptions()).examples[0]
    assert list(first.input_ids) == [5, 5, 5, *[9] * 6], "the next one with another prompt"
    assert list(first.loss_mask) == [False] * 3 + [True] * 6
    assert list(kto.beside(items, 2, kto.KtoOptions()).examples[0].input_ids) == [8, 8, 8, 6, 6, 6, 6]
    with pytest.raises(Exception, match="at least two different prompts"):
        kto.beside(items[:2], 0, kto.KtoOptions())


def test_a_row_of_sft_counts_by_its_weight():
    items = [
        Item((Example([1, 2, 3], [False, True, True]),), ("answer",), {"weight": 3.0}),
        Item((Example([1, 2], [False, True]),), ("answer",)),
    ]
    batch = padded(items, 0, "cpu")
    loss = sft.loss(Given(torch.tensor([-4.0, -1.0])), batch, sft.SftOptions())
    assert sft.units(batch) == {"nll": 7.0}
    assert float(loss.terms["nll"].sum) == 13.0
