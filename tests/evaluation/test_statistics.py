"""The statistics, against scipy, statsmodels, published examples and hand computations."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest

pytest.importorskip("scipy")
import numpy
from scipy import stats

from harness.measure import statistics
from harness.measure.statistics import Discordance, Estimate, PairedDifference
from harness.measure.statistics.bootstrap import bootstrap_interval


def test_a_mean_has_the_standard_error_of_the_textbook() -> None:
    values = [0.0, 1.0, 1.0, 0.5, 3.25]
    assert statistics.mean(values) == pytest.approx((numpy.mean(values), stats.sem(values), 5))


def test_equal_weights_change_nothing() -> None:
    values = [2.0, 5.0, 11.0]
    assert statistics.mean(values, [7.0, 7.0, 7.0]) == pytest.approx(statistics.mean(values))


def test_a_weighted_mean_is_the_ratio_estimator_worked_by_hand() -> None:
    # Two conversations: 1 token of loss 4, 3 tokens of loss 2. R = (4 + 6) / 4 = 2.5.
    # Residuals w (x - R): 1.5 and -1.5; var = 2/1 * (2.25 + 2.25) / 16 = 0.5625; stderr = 0.75.
    assert statistics.mean([4.0, 2.0], [1, 3]) == pytest.approx((2.5, 0.75, 2))


def test_one_item_has_no_standard_error_and_none_has_no_mean() -> None:
    assert statistics.mean([3.0]) == (3.0, None, 1)
    with pytest.raises(ValueError, match="no items"):
        statistics.mean([])
    with pytest.raises(ValueError, match="weights"):
        statistics.mean([1.0, 2.0], [0, 0])


def test_items_all_alike_have_a_standard_error_of_zero() -> None:
    assert statistics.mean([0.1] * 3).stderr == pytest.approx(0.0, abs=1e-15)


def test_perplexity_carries_its_error_by_the_delta_method() -> None:
    perplexity = statistics.exponential(statistics.Estimate(2.0, 0.1, 9))
    assert perplexity == pytest.approx((math.exp(2), math.exp(2) * 0.1, 9))
    assert statistics.exponential(statistics.Estimate(1e4, 0.1, 9)) == (math.inf, None, 9)


def test_the_paired_t_is_that_of_scipy() -> None:
    generator = random.Random(0)
    a = [generator.gauss(0, 1) for _ in range(30)]
    b = [x + generator.gauss(0.2, 0.5) for x in a]
    ours, theirs = statistics.compare_means(a, b), stats.ttest_rel(b, a)
    assert ours.p_value == pytest.approx(theirs.pvalue)
    assert ours.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)))
    assert ours.difference == pytest.approx(numpy.mean(b) - numpy.mean(a))


def test_a_weighted_difference_is_the_difference_of_the_weighted_means() -> None:
    paired = statistics.compare_means([1.0, 2.0, 4.0], [2.0, 2.0, 3.0], [1, 5, 10])
    assert paired.difference == pytest.approx(paired.b.value - paired.a.value)


def test_equal_variants_are_not_told_apart() -> None:
    paired = statistics.compare_means([1.5, 2.5], [1.5, 2.5])
    assert (paired.difference, paired.interval, paired.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert not paired.is_told_apart
    same = statistics.compare_binary([1, 0, 1], [1, 0, 1])
    assert same.interval is not None and same.interval.low < 0 < same.interval.high
    assert not same.is_told_apart


def test_one_item_tells_nothing_apart() -> None:
    paired = statistics.compare_means([1.5], [9.0])
    assert (paired.interval, paired.p_value, paired.is_told_apart) == (None, None, False)
    assert not statistics.compare_binary([0], [1]).is_told_apart


def test_newcombes_interval_is_the_published_one() -> None:
    # Airway hyper-responsiveness before and after stem cell transplantation (Bentur et al. 2009), as worked in
    # Fagerland, Lydersen and Laake (2014), BMC Med Res Methodol / Stat Med 33:2850: 1, 1, 7, 12 of 21.
    interval = statistics.newcombe_interval(Discordance(both=1, only_a=7, only_b=1, neither=12))
    assert interval == pytest.approx((-0.507, -0.026), abs=6e-4)
    mirrored = statistics.newcombe_interval(Discordance(both=1, only_a=1, only_b=7, neither=12))
    assert mirrored == pytest.approx((-interval.high, -interval.low))


def test_mcnemar_is_the_binomial_test_of_the_discordant_items() -> None:
    # 1 against 7: 2 * (C(8,0) + C(8,1)) / 2^8 = 18/256.
    assert statistics.mcnemar_exact(Discordance(1, 1, 7, 12)) == pytest.approx(18 / 256)
    assert statistics.mcnemar_exact(Discordance(5, 0, 0, 5)) == 1.0


def test_wilsons_interval_is_that_of_scipy() -> None:
    for successes in (0, 3, 10):
        theirs = stats.binomtest(successes, 10).proportion_ci(method="wilson")
        assert statistics.wilson_interval(successes / 10, 10) == pytest.approx((theirs.low, theirs.high))


def test_the_table_counts_who_was_right() -> None:
    paired = statistics.compare_binary([1, 1, 0, 0, 0], [1, 0, 1, 1, 0])
    assert paired.table == Discordance(both=1, only_a=1, only_b=2, neither=1)
    assert paired.difference == pytest.approx(0.2)


def test_only_zeros_and_ones_are_proportions() -> None:
    assert statistics.compare([0, 1], [1, 1]).table is not None
    assert statistics.compare([0, 0.5], [1, 1]).table is None
    assert statistics.compare([0, 1], [1, 1], [1, 2]).table is None
    with pytest.raises(ValueError, match="0/1"):
        statistics.compare_binary([0.5], [1])


@pytest.fixture(scope="module")
def passages() -> tuple[list[float], list[float], list[float], list[str]]:
    """40 items of 9 passages, unevenly: losses under A and B, tokens, passages."""
    draw = random.Random(7)
    groups = [f"g{min(9, int(draw.random() ** 2 * 10))}" for _ in range(40)]
    weights = [float(draw.randint(1, 30)) for _ in groups]
    shift = {group: draw.gauss(0, 0.4) for group in sorted(set(groups))}
    a = [draw.gauss(2, 1) for _ in groups]
    b = [x + 0.3 + shift[group] + draw.gauss(0, 0.3) for x, group in zip(a, groups, strict=True)]
    return a, b, weights, groups


# statsmodels 0.15.0: OLS, and WLS with the weights, of b - a on a constant, with .fit(cov_type="cluster",
# cov_kwds={"groups": groups, "use_correction": True}, use_t=True): params, bse, conf_int() and pvalues.
OF_STATSMODELS = {
    False: (0.22162158216521965, 0.18724538331611237, -0.2101670460596246, 0.6534102103900639, 0.2705503957660193),
    True: (0.17998887165449678, 0.14406672400323528, -0.152229589642281, 0.5122073329512746, 0.24685334492452177),
}


@pytest.mark.parametrize("is_weighted", [False, True])
def test_clustered_figures_are_those_of_statsmodels(passages: Any, is_weighted: bool) -> None:
    a, b, weights, groups = passages
    used = weights if is_weighted else None
    stderr = statistics.mean([y - x for x, y in zip(a, b, strict=True)], used, groups).stderr
    ours = statistics.compare(a, b, used, groups)
    assert ours.interval is not None and ours.clusters == 9
    figures = (ours.difference, stderr, *ours.interval, ours.p_value)
    assert figures == pytest.approx(OF_STATSMODELS[is_weighted], abs=1e-10)
    assert (ours.method, ours.degrees) == (f"paired t{', weighted' * is_weighted}, 9 clusters", 8)


@pytest.mark.parametrize("is_weighted", [False, True])
def test_a_clustered_error_is_the_sandwich_of_a_regression(passages: Any, is_weighted: bool) -> None:
    a, _, weights, groups = passages
    y, design, w = numpy.array(a), numpy.ones((40, 1)), numpy.diag(weights if is_weighted else [1.0] * 40)
    bread = numpy.linalg.inv(design.T @ w @ design)
    residuals = y - design @ (bread @ design.T @ w @ y)
    meat = numpy.zeros((1, 1))
    for group in set(groups):
        mine = numpy.array([one == group for one in groups])
        score = design[mine].T @ w[numpy.ix_(mine, mine)] @ residuals[mine]
        meat += numpy.outer(score, score)
    count, k = len(set(groups)), 1
    factor = count / (count - 1) * (40 - 1) / (40 - k)
    stderr = math.sqrt((factor * bread @ meat @ bread)[0, 0])
    assert statistics.mean(a, weights if is_weighted else None, groups).stderr == pytest.approx(stderr, abs=1e-12)


def test_an_item_without_a_group_is_a_cluster_of_its_own() -> None:
    values = [1.0, 4.0, 2.0, 8.0]
    assert statistics.mean(values, groups=[""] * 4) == statistics.mean(values) == statistics.mean(values, None, "abcd")
    assert statistics.numbered(["x", "", "x", ""]) == [0, 1, 0, 2]
    # Two clusters of two: residuals -1.25 and 1.25 a pair; var = 2/1 * 2 * 2.5^2 / 16.
    assert statistics.mean(values, groups=["a", "a", "b", "b"]).stderr == pytest.approx(math.sqrt(25 / 16))


def test_one_cluster_tells_nothing_apart() -> None:
    paired = statistics.compare([1, 0, 1], [1, 1, 1], groups=["a"] * 3)
    assert (paired.a.stderr, paired.interval, paired.p_value, statistics.detectable(paired)) == (None,) * 4
    assert bootstrap_interval([1, 0, 1], [1, 1, 1], groups=["a"] * 3) is None


def test_clustered_0_1_items_are_compared_by_clusters_and_keep_their_table() -> None:
    a, b, groups = [1, 0, 0, 0, 1, 1], [1, 1, 1, 0, 1, 0], ["x", "x", "y", "y", "z", ""]
    paired = statistics.compare(a, b, groups=groups)
    assert paired.clusters == 4 and paired.p_value == statistics.compare_means(a, b, groups=groups).p_value
    assert paired.table == statistics.compare(a, b).table == Discordance(2, 1, 2, 1)
    alone = statistics.compare(a, b, groups=list("uvwxyz"))
    assert alone == statistics.compare(a, b) and alone.clusters is None


def test_clusters_that_all_agree_still_have_an_interval() -> None:
    paired = statistics.compare([1, 0] * 10, [1, 0] * 10, groups=[f"g{number // 2}" for number in range(20)])
    assert paired.method == "Newcombe interval for 10 independent items, exact McNemar test over 10 clusters"
    assert paired.interval == statistics.newcombe_interval(Discordance(5, 0, 0, 5), quantile=stats.t.ppf(0.975, 9))
    assert (paired.p_value, paired.table) == (1.0, Discordance(10, 0, 0, 10))
    gained = statistics.compare([0] * 12, [1] * 12, groups=[f"g{number // 2}" for number in range(12)])
    assert gained.p_value == 2 * 0.5**6 and gained.interval is not None
    assert 0 < gained.interval.low < gained.interval.high == 1


def test_an_interval_of_clustered_shares_stays_within_100_points() -> None:
    """17 of 20 gained in 11 groups: t would end at +101.7 points."""
    groups = [f"g{number % 11}" for number in range(20)]
    b = [0 if number in (2, 7, 9) else 1 for number in range(20)]
    paired, by_t = (of([0] * 20, b, groups=groups) for of in (statistics.compare, statistics.compare_means))
    assert by_t.interval is not None and by_t.interval.high > 1
    assert paired.interval is not None and 0.4 < paired.interval.low < 0.85 < paired.interval.high < 1
    assert paired.p_value == by_t.p_value and paired.degrees == 10
    mirrored = statistics.compare(b, [0] * 20, groups=groups).interval
    assert mirrored == pytest.approx((-paired.interval.high, -paired.interval.low))
    noisy = statistics.with_noise(paired, [(0.09, 1.0)]).interval
    assert noisy is not None and (noisy.low, noisy.high) == (-1, 1)


def test_clusters_of_independent_items_are_as_many_items() -> None:
    """The effective number of items is that of the design effect, and never more than there are."""
    assert statistics.effective_size(60, 20, alone=0.002, clustered=0.004) == 30
    assert statistics.effective_size(60, 20, alone=0.002, clustered=0.001) == 60
    assert statistics.effective_size(60, 20, alone=0.0, clustered=0.0) == 20


def test_a_share_has_wilson_s_interval_and_in_clusters_a_wider_one() -> None:
    right = [1.0, 1.0, 1.0, 0.0] * 5
    alone = statistics.share_interval(statistics.mean(right))
    assert alone == pytest.approx(tuple(stats.binomtest(15, 20).proportion_ci(method="wilson")))
    groups = [f"g{number % 8}" for number in range(20)]
    together = statistics.share_interval(statistics.mean(right, groups=groups), clusters=8)
    assert together is not None and 0 < together.low < alone.low < alone.high < together.high < 1
    assert statistics.share_interval(statistics.mean([1.0] * 6, groups=list("aabbcc")), 3) == pytest.approx(
        tuple(statistics.wilson_interval(1.0, 3, stats.t.ppf(0.975, 2)))
    )
    assert statistics.share_interval(statistics.mean([1.0] * 6, groups=["a"] * 6), 1) is None


def test_weights_that_differ_are_two_ratios() -> None:
    a, b, weights = [1.0, 2.0, 4.0, 3.0], [2.0, 2.0, 3.0, 1.0], [1.0, 5.0, 10.0, 2.0]
    same = statistics.compare_means(a, b, weights, weights_b=list(weights))
    assert same.interval == pytest.approx(statistics.compare_means(a, b, weights).interval)
    other = statistics.compare_means(a, b, weights, weights_b=[2.0, 5.0, 9.0, 3.0])
    assert other.difference == pytest.approx(other.b.value - other.a.value)


def test_the_bootstrap_is_seeded_and_near_the_t_interval() -> None:
    draw = numpy.random.default_rng(0)
    a, groups = draw.normal(0, 1, 120), [f"g{number // 4}" for number in range(120)]
    b = a + 0.3 + draw.normal(0, 0.5, 30).repeat(4) + draw.normal(0, 0.2, 120)
    by_t = statistics.compare(list(a), list(b), None, groups).interval
    drawn = bootstrap_interval(a, b, None, groups)
    assert drawn == bootstrap_interval(a, b, None, groups) != bootstrap_interval(a, b, None, groups, seed=1)
    assert drawn == pytest.approx(by_t, abs=0.03)
    alone = bootstrap_interval(a, b)
    assert alone is not None and drawn is not None and alone.high - alone.low < 0.7 * (drawn.high - drawn.low)


def test_the_bootstrap_draws_what_scipy_s_does() -> None:
    draw = numpy.random.default_rng(1)
    a, b = draw.gamma(2, 1, (2, 400))
    theirs = stats.bootstrap((b - a,), numpy.mean, method="percentile", n_resamples=9999, rng=0).confidence_interval
    assert bootstrap_interval(a, b) == pytest.approx((theirs.low, theirs.high), abs=0.02)


def test_holm_is_that_of_statsmodels() -> None:
    # statsmodels 0.15.0, multipletests(..., method="holm").
    ours = statistics.holm([0.011, 0.02, 0.04, 0.005, 0.6, 0.03])
    assert ours == pytest.approx([0.055, 0.08, 0.09, 0.03, 0.6, 0.09], abs=1e-12)
    assert statistics.holm([0.04]) == [0.04] and statistics.holm([]) == []
    assert statistics.holm([0.03, None, 0.02]) == [pytest.approx(0.04), None, pytest.approx(0.04)]


def test_mcnemar_is_that_of_statsmodels() -> None:
    # statsmodels 0.15.0, mcnemar(table, exact=True).
    theirs = {(1, 7): 0.0703125, (0, 6): 0.03125, (12, 20): 0.21532714972272515, (3, 3): 1.0}
    for (only_a, only_b), p_value in theirs.items():
        assert statistics.mcnemar_exact(Discordance(5, only_a, only_b, 9)) == pytest.approx(p_value, abs=1e-10)


def test_the_detectable_effect_is_seen_in_80_of_100_cases() -> None:
    # Two-sided t test: power at the effect, by scipy's noncentral t.
    draw = numpy.random.default_rng(2)
    a = draw.normal(0, 1, 50)
    for family in (1, 6):
        paired = statistics.compare_means(list(a), list(a + draw.normal(0, 1, 50)))
        effect = statistics.detectable(paired, family)
        assert effect is not None and paired.interval is not None
        stderr = (paired.interval.high - paired.interval.low) / 2 / stats.t.ppf(0.975, 49)
        critical = stats.t.ppf(1 - 0.025 / family, 49)
        assert stats.nct.sf(critical, 49, effect / stderr) == pytest.approx(0.8, abs=0.01)
    alike = statistics.detectable(statistics.compare_binary([1] * 30, [1] * 30))
    assert alike is not None and 0.1 < alike < 0.3


def test_noise_is_the_share_of_items_that_change() -> None:
    noise = statistics.noise_of([1, 0, 1, 1], [1, 1, 1, 0])
    assert noise is not None and (noise.n, noise.differing, noise.rate, noise.squared) == (4, 2, 0.5, 0.5)
    assert noise.change == Estimate(0.0, pytest.approx(math.sqrt(2 / 3 / 4)), 4) and noise.common_variance == 0
    assert statistics.noise_of([], []) is None


def test_noise_that_moves_items_together_is_seen_and_widens_the_interval() -> None:
    first = [0.1 * number for number in range(20)]
    together = statistics.noise_of(first, [x + 0.5 + 0.01 * (-1) ** number for number, x in enumerate(first)])
    assert together is not None and together.common_variance == pytest.approx(0.125, rel=0.01)
    paired = statistics.compare_means(first, [x + 0.2 + 0.1 * math.sin(x * 9) for x in first])
    wider = statistics.with_noise(paired, [(together.common_variance, 1.0)])
    assert paired.is_told_apart and not wider.is_told_apart and wider.degrees < 2
    assert wider.method == "paired t, with the engine's noise"
    assert statistics.with_noise(paired, [(0.0, 1.0)]) is paired


def test_variances_add_as_satterthwaite_has_it() -> None:
    a = [0.0, 1.0, 2.0, 3.0, 5.0, 9.0]
    paired = statistics.compare_means(a, [1.0, 1.5, 4.0, 3.0, 7.0, 8.0])
    assert paired.interval is not None
    own = ((paired.interval.high - paired.interval.low) / 2 / stats.t.ppf(0.975, 5)) ** 2
    wider = statistics.with_noise(paired, [(0.3, 4.0)])
    degrees = (own + 0.3) ** 2 / (own**2 / 5 + 0.3**2 / 4)
    half = stats.t.ppf(0.975, degrees) * math.sqrt(own + 0.3)
    assert wider.interval == pytest.approx((paired.difference - half, paired.difference + half))
    assert wider.p_value == pytest.approx(2 * stats.t.sf(paired.difference / math.sqrt(own + 0.3), degrees))
    assert isinstance(wider, PairedDifference) and wider.a == paired.a
