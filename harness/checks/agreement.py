"""The adapter check, run after every start: log-probabilities under the engine are the tuned model's.

An adapter that was not applied answers like its base. All variants are asked at once, so that base and adapters share
batches as they do when people ask them: kernels have mixed them up there. The check needs the probes that tuning left
in the run, and an engine that scores given ids. `parity.py` checks that the engine is asked as the model was tuned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import harness
from harness.client.asking import SYNC_LIMITS
from harness.client.served import scores
from harness.contract import Endpoint
from harness.errors import command
from harness.files import read_json
from harness.nouns import Message
from harness.run import Run
from harness.template import BoundTemplate
from harness.variants import Variant

# How far the mean log-probability of the probes' tokens may be from the measured one, in nats, for a model that
# nothing is compared with: the base, or a model that was tuned whole. Another model in its folder is whole nats away.
# Measured, vLLM against transformers on one CPU, the same weights: the seedling in float32 2e-6, in bfloat16 0.02;
# SmolLM2-135M, of 30 layers, in bfloat16 0.07, of which transformers' own rounding (against float32) is 0.056.
LARGEST_MEAN_DIFFERENCE = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.2}
# Rounding depends on the model's depth and on the tokens, so that no constant fits all adapters: what is rounding in
# one model hides another adapter in the next. But an adapter's base is rounded by the same kernels, and is asked for
# the same tokens in the same batches: an adapter may be that many times as far from what was measured as its base is.
# Measured on SmolLM2-135M: about 0.9 to 1.5 times, for four adapters of ranks 2 and 4 that tuning had moved by 0.6 to
# 3.6 nats, served in bfloat16 and in float32. Where the base is nearer than a tenth of the largest difference, that
# tenth counts.
TIMES_THE_BASE = 3.0

PROBE = "Name three colours, and say where each of them can be seen in a garden."
Asked = tuple[str, tuple[int, ...]]  # a model's name, and the ids of a text


@dataclass(frozen=True, slots=True)
class Agreement:
    """Absolute differences in nats between a served variant and the model that was measured when it was tuned.

    `mean` and `largest` compare it with what it should be, `mean_to_base` an adapter with its base; `tuned_to_base` is
    the distance by which tuning moved it. `tells_apart` is False where that is too little to show that the adapter is
    applied.
    """

    variant: str
    tokens: int
    mean: float
    largest: float
    mean_to_base: float | None = None
    tuned_to_base: float | None = None
    tells_apart: bool = True


def verify(
    endpoint: Endpoint,
    variants: Sequence[Variant],
    dtype: str | None = None,
    report: Callable[[str], None] = lambda waiting_for: None,
) -> list[Agreement]:
    """Compare what is served with what was tuned; one Agreement for each model of the endpoint that has probes.

    There is none where the engine gives no log-probabilities of given ids.

    Args:
        variants: all that the endpoint serves.
        dtype: the dtype that is served, where it is not the one the run was tuned in.

    Raises:
        HarnessError: where an adapter was not applied, or answers are far from the tuned model's.
    """
    if "score" not in endpoint.capabilities:
        return []
    require_changed(endpoint, variants)
    served = [(variant.name, variant.run, variant.is_tuned) for variant in variants if variant.run is not None]
    if not served:
        return []
    named = {variant.name for variant in variants}
    # The base answers beside the adapters though nobody named it: the first run's probes are its probes.
    served[:0] = [(name, served[0][1], False) for name in endpoint.models if name not in named]
    base_name = next((name for name, _, is_tuned in served if not is_tuned), None)
    report("the probes of " + ", ".join(name for name, _, _ in served))
    probes_of = {run.folder: read_probes(run) for _, run, _ in served}
    asked = {
        (model, tuple(probe["input_ids"]))
        for name, run, _ in served
        for model in {name, base_name or name}
        for probe in probes_of[run.folder]["probes"]
    }
    answers = _ask_at_once(endpoint, sorted(asked, key=lambda pair: pair[1]))
    agreements = []
    for name, run, is_tuned in served:
        probes = probes_of[run.folder]
        largest = max(LARGEST_MEAN_DIFFERENCE[dtype or probes["dtype"]], LARGEST_MEAN_DIFFERENCE[probes["dtype"]])
        base, tuned = _measured(probes, "base"), _measured(probes, "tuned")
        bound = rounding = largest
        if (its_base := base_name if is_tuned else name) is not None:
            of_base = Agreement(its_base, len(base), *_difference(_served(answers, its_base, probes), base))
            judge_base(of_base, largest)
            bound, rounding = max(TIMES_THE_BASE * of_base.mean, largest / 10), of_base.mean
        if not is_tuned:
            agreements.append(of_base)
            continue
        answered, apart = _served(answers, name, probes), _difference(tuned, base)[0]
        differences = (*_difference(answered, tuned), _difference(answered, base)[0])
        # An adapter that is not applied is no further from its base than rounding, and so beyond the bound.
        agreement = Agreement(name, len(answered), *differences, apart, tells_apart=apart > bound + rounding)
        judge_tuned(agreement, bound)
        agreements.append(agreement)
    return agreements


def require_changed(endpoint: Endpoint, variants: Sequence[Variant]) -> None:
    """Raise HarnessError for an adapter made elsewhere, of which there are no probes, that answers just as its base.

    Nothing else shows that such an adapter is applied: rounding is the same for both only where all weights are.
    """
    foreign = [variant for variant in variants if variant.adapter is not None and variant.run is None]
    adapters = {variant.name for variant in variants if variant.adapter is not None}
    base = next((name for name in endpoint.models if name not in adapters), None)
    if not foreign or base is None:
        return
    chat_folder = foreign[0].chat_folder
    assert chat_folder is not None  # else no engine could have started
    ids = tuple(BoundTemplate.load(chat_folder).prompt_ids([Message("user", PROBE)]))
    answers = _ask_at_once(endpoint, [(name, ids) for name in (base, *(variant.name for variant in foreign))])
    for variant in foreign:
        if answers[variant.name, ids] == answers[base, ids]:
            raise harness.HarnessError(
                f"{variant.name} gives each token of a text exactly the log-probability that its base model gives it: "
                f"the adapter is not applied, or changes nothing"
            )


def judge_base(agreement: Agreement, bound: float) -> None:
    """Raise HarnessError if the base is not the model that was tuned. `bound`: see LARGEST_MEAN_DIFFERENCE."""
    if not agreement.mean <= bound:
        raise harness.HarnessError(
            f"{agreement.variant} does not answer as the base model did when the run was tuned: "
            f"{_figures(agreement, bound)}.\n"
            f"Has the model folder been changed since, or does the engine mix base and adapters up within a batch?"
        )


def judge_tuned(agreement: Agreement, bound: float) -> None:
    """Raise HarnessError if the adapter is not applied, or is another than was tuned."""
    assert agreement.mean_to_base is not None
    figures = (
        f"{_figures(agreement, bound)}; to the base {agreement.mean_to_base:.3g}, "
        f"from which tuning had moved it by {agreement.tuned_to_base:.3g}"
    )
    if agreement.tells_apart and agreement.mean_to_base <= min(bound, agreement.mean):
        raise harness.HarnessError(
            f"{agreement.variant} answers like its base model: the adapter is not applied.\n{figures}"
        )
    if not agreement.mean <= bound or (agreement.tells_apart and agreement.mean > agreement.mean_to_base / 2):
        raise harness.HarnessError(
            f"{agreement.variant} does not answer as it did when it was tuned.\n{figures}.\n"
            f"Has the adapter or the model folder been changed since?"
        )


def _figures(agreement: Agreement, bound: float) -> str:
    return (
        f"mean difference of {agreement.tokens} log-probabilities, in nats: {agreement.mean:.3g} "
        f"(largest {agreement.largest:.3g}), where rounding explains {bound:g}"
    )


def read_probes(run: Run) -> dict[str, Any]:
    """Return the log-probabilities that tuning measured for serving to reproduce. Raises RunError without any."""
    if not run.probes_path.is_file():
        raise harness.RunError(
            f"the run {run.name} has no probes.json, so that nothing shows whether its adapter is really applied. "
            f"Tune it again with this version: "
            f"`{command('tune', run.folder / 'recipe.yaml', '--run', run.name, '--overwrite')}`"
        )
    probes: dict[str, Any] = read_json(run.probes_path)
    return probes


def _measured(probes: dict[str, Any], kind: str) -> list[float]:
    return [value for probe in probes["probes"] for value in probe[kind]]


def _served(answers: dict[Asked, list[float]], name: str, probes: dict[str, Any]) -> list[float]:
    return [value for probe in probes["probes"] for value in answers[name, tuple(probe["input_ids"])]]


def _ask_at_once(endpoint: Endpoint, asked: Sequence[Asked]) -> dict[Asked, list[float]]:
    return dict(zip(asked, scores(endpoint, asked, replace(SYNC_LIMITS, concurrency=len(asked))), strict=True))


def _difference(served: Sequence[float], expected: Sequence[float]) -> tuple[float, float]:
    differences = [abs(a - b) for a, b in zip(served, expected, strict=True)]
    return sum(differences) / len(differences), max(differences)
