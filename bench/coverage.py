"""How often the 95 % intervals of comparisons hold the true difference, over simulated comparisons of every kind.

    python bench/coverage.py

A kind is a world whose true difference is known. Each comparison draws its items anew and is made by the functions that
`harness compare` calls. Written to bench/results/coverage.json: the share of intervals that hold the truth, analytic
and bootstrap (which knows nothing of the engine's noise), and how often the two variants were told apart. Tests run the
same worlds.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy

from harness.measure import statistics
from harness.measure.statistics.bootstrap import bootstrap_interval

TRIALS = 2000
RESULTS = Path(__file__).parent / "results" / "coverage.json"
Generator = numpy.random.Generator


@dataclass(frozen=True)
class Draw:
    """One simulated comparison: the items under A and B, and the difference that its interval should hold.

    `again_a` and `again_b` are second askings of the first items; with `shared` both sides have the answers of one.
    """

    a: Any
    b: Any
    truth: float
    weights: Any = None
    weights_b: Any = None
    groups: Sequence[str] | None = None
    again_a: Any = None
    again_b: Any = None
    shared: bool = False


def plain(draw: Generator) -> Draw:
    """60 scores of a skewed distribution, the difference correlated with them."""
    a = draw.gamma(2.0, 1.0, 60)
    return Draw(a, a + 0.1 * a + draw.normal(0, 0.5, 60), 0.2)


def weighted(draw: Generator) -> Draw:
    """80 conversations, each weighing by 1 to 40 tokens."""
    a, weights = draw.normal(2, 1, 80), draw.integers(1, 41, 80)
    return Draw(a, a + draw.normal(0.3, 0.4, 80), 0.3, weights)


def weighted_otherwise(draw: Generator) -> Draw:
    """80 conversations with some tokens more under B: the mean loss a token of either side is a ratio of its own."""
    tokens = draw.integers(5, 41, 80)
    more = tokens + draw.integers(0, 6, 80)
    a = draw.normal(2, 0.5, 80)
    return Draw(a, a + draw.normal(0.1, 0.3, 80), 0.1, tokens, more)


def clustered(draw: Generator) -> Draw:
    """40 passages of 1 to 8 questions; what the questions of one share is the larger part of the difference."""
    sizes = draw.integers(1, 9, 40)
    passage = numpy.repeat(numpy.arange(40), sizes)
    a = draw.normal(0, 1, 40)[passage] + draw.normal(0, 1, sizes.sum())
    b = a + 0.25 + draw.normal(0, 0.5, 40)[passage] + draw.normal(0, 0.4, sizes.sum())
    return Draw(a, b, 0.25, groups=[f"p{number}" for number in passage])


def clustered_weighted(draw: Generator) -> Draw:
    """40 documents of 2 to 6 conversations, each weighing by 1 to 20 tokens."""
    sizes = draw.integers(2, 7, 40)
    document = numpy.repeat(numpy.arange(40), sizes)
    weights = draw.integers(1, 21, sizes.sum())
    a = draw.normal(2, 1, sizes.sum())
    b = a + 0.2 + draw.normal(0, 0.3, 40)[document] + draw.normal(0, 0.3, sizes.sum())
    return Draw(a, b, 0.2, weights, groups=[f"d{number}" for number in document])


def binary(draw: Generator) -> Draw:
    """60 right-or-wrong items: 0.5 under A, 0.65 under B, correlated."""
    u, v, which = draw.random((3, 60))
    return Draw((u < 0.5) * 1, (numpy.where(which < 0.6, u, v) < 0.65) * 1, 0.15)


def clustered_binary(draw: Generator) -> Draw:
    """50 templates of 2 to 6 right-or-wrong items: some templates are hard, and some gain more than others."""
    sizes = draw.integers(2, 7, 50)
    template = numpy.repeat(numpy.arange(50), sizes)
    hard, gain = draw.uniform(0.2, 0.7, 50)[template], draw.uniform(-0.1, 0.3, 50)[template]
    u, v, which = draw.random((3, sizes.sum()))
    a, b = (u < hard) * 1, (numpy.where(which < 0.5, u, v) < hard + gain) * 1
    return Draw(a, b, 0.1, groups=[f"t{number}" for number in template])


def clustered_near_the_edge(draw: Generator) -> Draw:
    """12 templates of 3 right-or-wrong items: hardly any is right under A, and nearly all are under B."""
    template = numpy.repeat(numpy.arange(12), 3)
    low, high = draw.beta(0.5, 9.5, 12)[template], draw.beta(9.5, 0.5, 12)[template]
    a, b = (draw.random(36) < low) * 1, (draw.random(36) < high) * 1
    return Draw(a, b, 0.9, groups=[f"t{number}" for number in template])


def clustered_from_nothing(draw: Generator) -> Draw:
    """20 templates of 2 right-or-wrong items, none of them right under A, and half under B."""
    template = numpy.repeat(numpy.arange(20), 2)
    b = (draw.random(40) < draw.beta(1, 1, 20)[template]) * 1
    return Draw(numpy.zeros(40), b, 0.5, groups=[f"t{number}" for number in template])


def noisy_engine(draw: Generator) -> Draw:
    """200 right-or-wrong items; each asking turns 5 % of them over. Nothing is to be added: the items vary by it."""
    u = draw.random(200)
    right_a, right_b = (u < 0.5) * 1, (u < 0.6) * 1

    def asked(right: Any) -> Any:
        return numpy.where(draw.random(len(right)) < 0.05, 1 - right, right)

    return Draw(asked(right_a), asked(right_b), 0.1 * 0.9, again_a=asked(right_a[:10]), again_b=asked(right_b[:10]))


def noisy_engine_clustered(draw: Generator) -> Draw:
    """40 templates of 5 items, scored with noise at each asking."""
    template = numpy.repeat(numpy.arange(40), 5)
    right_a = draw.normal(0, 1, 40)[template]
    right_b = right_a + 0.2 + draw.normal(0, 0.4, 40)[template]

    def asked(right: Any) -> Any:
        return right + draw.normal(0, 0.5, len(right))

    groups = [f"t{number}" for number in template]
    return Draw(asked(right_a), asked(right_b), 0.2, groups=groups,
                again_a=asked(right_a[:10]), again_b=asked(right_b[:10]))  # fmt: skip


def shared_answers(draw: Generator) -> Draw:
    """Both sides score the answers of one asking: the interval is for what two askings of 200 items would differ by."""
    right = draw.normal(0, 1, 200)

    def asked(items: Any) -> Any:
        return items + draw.normal(0, 0.5, len(items))

    once = asked(right)
    truth = float(numpy.mean(asked(right)) - numpy.mean(asked(right)))
    return Draw(once, once, truth, again_a=asked(right[:40]), again_b=asked(right[:40]), shared=True)


def common_noise(draw: Generator) -> Draw:
    """An engine that moves all 200 items of one asking together, far more than it moves each by itself."""
    right = draw.normal(0, 1, 200)

    def asked(items: Any) -> Any:
        return items + draw.normal(0, 0.3) + draw.normal(0, 0.05, len(items))

    return Draw(asked(right), asked(right + 0.1), 0.1, again_a=asked(right[:10]), again_b=asked(right[:10] + 0.1))


KINDS: dict[str, Callable[[Generator], Draw]] = {
    world.__name__: world
    for world in (
        plain, weighted, weighted_otherwise, clustered, clustered_weighted, binary, clustered_binary, noisy_engine,
        noisy_engine_clustered, shared_answers, common_noise, clustered_near_the_edge, clustered_from_nothing,
    )
}  # fmt: skip


def compared(of: Draw) -> statistics.PairedDifference:
    """Return the comparison of one draw, with the engine's noise where it has to be added."""
    lists = [None if x is None else numpy.asarray(x, float).tolist() for x in (of.a, of.b, of.weights, of.weights_b)]
    paired = statistics.compare(lists[0], lists[1], lists[2], of.groups, lists[3])
    added = []
    for first, again in ((of.a, of.again_a), (of.b, of.again_b)):
        if again is None:
            continue
        noise = statistics.noise_of([float(x) for x in first[: len(again)]], [float(x) for x in again])
        added.append((noise.common_variance, 1.0))
    if of.shared:
        added = [(statistics.shared_variance(noise, lists[2], len(of.a)), float(noise.n))]
    return statistics.with_noise(paired, added)


def coverage(world: Callable[[Generator], Draw], trials: int, seed: int, *, bootstrap: bool = True) -> dict[str, float]:
    """Return the shares of `trials` comparisons whose intervals hold the truth, and that told A and B apart."""
    draw = numpy.random.default_rng(seed)
    held = by_bootstrap = apart = 0
    for number in range(trials):
        of = world(draw)
        paired = compared(of)
        low, high = paired.interval or (-math.inf, math.inf)
        held += low <= of.truth <= high
        apart += paired.is_told_apart
        if bootstrap:
            low, high = bootstrap_interval(of.a, of.b, of.weights, of.groups, of.weights_b, number) or (0, 0)
            by_bootstrap += low <= of.truth <= high
    shares = {"covered": held / trials, "told_apart": apart / trials}
    return shares | ({"bootstrap_covered": by_bootstrap / trials} if bootstrap else {})


def coverage_of_shares(right: float, clusters: int, size: int, trials: int, seed: int) -> float:
    """Return how often the interval of one variant's share of right items holds the truth, items in clusters."""
    draw = numpy.random.default_rng(seed)
    groups = [f"t{number // size}" for number in range(clusters * size)]
    held = 0
    for _ in range(trials):
        chances = draw.beta(5 * right, 5 * (1 - right), clusters).repeat(size)
        share = statistics.mean(((draw.random(len(groups)) < chances) * 1.0).tolist(), groups=groups)
        low, high = statistics.share_interval(share, clusters) or (0.0, 1.0)
        held += low <= right <= high
    return held / trials


SHARES = {"90 % of 12 x 3": (0.9, 12, 3), "50 % of 10 x 6": (0.5, 10, 6), "20 % of 30 x 2": (0.2, 30, 2)}


def main() -> None:
    """Simulate every kind and write the shares."""
    shares: dict[str, dict[str, float]] = {}
    single: dict[str, float] = {}
    for seed, (name, world) in enumerate(KINDS.items()):
        shares[name] = coverage(world, TRIALS, seed)
        print(f"{name:24} {shares[name]}", flush=True)
    for seed, (name, (right, clusters, size)) in enumerate(SHARES.items()):
        single[name] = coverage_of_shares(right, clusters, size, TRIALS, seed)
        print(f"{name:24} {single[name]}", flush=True)
    RESULTS.write_text(
        json.dumps({"comparisons": TRIALS, "confidence": 0.95, "kinds": shares, "single_shares": single}, indent=2)
        + "\n"
    )


if __name__ == "__main__":
    main()
