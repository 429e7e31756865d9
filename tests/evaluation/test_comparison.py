"""Comparison of records: what is paired, what is refused, what is remarked on, and what gets a verdict."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

pytest.importorskip("scipy")
pytest.importorskip("numpy")

from harness_evaluation import wording
from harness_evaluation.tables import sentences

from harness.errors import HarnessError
from harness.measure import statistics
from harness.measure.comparison import compare_task
from harness.nouns import Sample
from tests.evaluation.on_file import Written, compared, right


def test_items_are_paired_by_content_and_a_difference_has_its_direction(written: Written) -> None:
    samples = right("0" * 30)
    better = [dataclasses.replace(s, metrics={"right": 1.0}) for s in reversed(samples)]
    task = compared([written("a", samples)], [written("b", better)]).rivals[0].tasks[0]
    (whole,) = task.comparisons
    assert (whole.paired.difference, whole.better) == (1.0, "b")
    assert all(x.id == y.id for x, y in task.pairs)


def test_each_verdict_is_corrected_for_all_that_get_one(written: Written) -> None:
    """Nine of twelve discordant items: p = 0.0386 alone, and no verdict as one of two."""
    a, b = right("0" * 8 + "1" * 30), right("1" * 8 + "0" + "1" * 29)
    alone = compared([written("a", a)], [written("b", b)])
    assert alone.family == 1 and alone.rivals[0].wholes[0].better == "b"
    other = [written("a", right("01" * 20), "other"), written("b", right("01" * 20), "other")]
    two = compared([written("a", a), other[0]], [written("b", b), other[1]])
    first = next(c for c in two.rivals[0].wholes if c.task == "sums")
    assert two.family == 2 and first.adjusted == pytest.approx(2 * 0.0390625)
    assert first.better is None and first.paired.is_told_apart
    assert first.detectable > alone.rivals[0].wholes[0].detectable  # type: ignore[operator]
    narrowed = compared([written("a", a), other[0]], [written("b", b), other[1]], task="sums")
    assert narrowed.family == 1 and narrowed.rivals[0].wholes[0].better == "b"


def test_categories_are_corrected_among_themselves(written: Written) -> None:
    """Of 20 items a category, 6 changed: p = 0.031 alone, 0.063 as one of two."""

    def by_category(pattern: str) -> list[Sample]:
        return [dataclasses.replace(s, category="ab"[n % 2]) for n, s in enumerate(right(pattern))]

    one = compared([written("a", by_category("0" * 40))], [written("b", by_category("1" * 12 + "0" * 28))])
    whole, *categories = one.rivals[0].tasks[0].comparisons
    assert (one.family, whole.family, whole.better) == (1, 1, "b")
    assert [(c.category, c.family, c.adjusted, c.better) for c in categories] == [
        ("a", 2, pytest.approx(0.0625), None), ("b", 2, pytest.approx(0.0625), None),
    ]  # fmt: skip
    assert one.rivals[0].categories == categories


def test_shares_are_shown_with_intervals_within_their_bounds(written: Written) -> None:
    few = compared([written("a", right("01"))], [written("b", right("10"))]).rivals[0].wholes[0]
    assert wording.value_with_error(few, few.paired.a) == "50.0 % (9–91)"
    assert few.detectable is not None and few.detectable > 1
    assert wording.verdict(few) == "cannot tell apart (too few items to see any difference)"

    def losses(*values: float) -> list[Sample]:
        return [Sample(f"i{n}:h", {"nll": value}) for n, value in enumerate(values)]

    loss = compared([written("a", losses(1, 2, 3))], [written("b", losses(2, 2, 5))]).rivals[0].wholes[0]
    assert wording.value_with_error(loss, loss.paired.a) == "2.000 ± 0.577"


def test_a_sentence_that_tasks_share_is_printed_once(written: Written) -> None:
    none = "the engine's own noise: none in 1 item asked twice"
    noises = {"sums": none, "words": none, "lists": "another"}
    records = [written(variant, right("01"), task, noise=noises[task]) for variant in "ab" for task in noises]
    assert sentences([(record, record.noise) for record in records]) == [
        f"a, sums, words: {none}", "a, lists: another", f"b, sums, words: {none}", "b, lists: another",
    ]  # fmt: skip


def test_three_variants_are_compared_with_the_first(written: Written) -> None:
    three = compared([written("a", right("0" * 30))], [written("b", right("1" * 30))], [written("c", right("0" * 30))])
    assert three.names == ["a", "b", "c"] and three.family == 2
    assert [(rival.name, rival.wholes[0].better) for rival in three.rivals] == [("b", "b"), ("c", None)]
    ((key, rows),) = three.metrics.items()
    assert key == ("sums", "right") and [rival.name for rival, _, _ in rows] == ["b", "c"]


def test_a_task_that_one_variant_lacks_is_named(written: Written) -> None:
    one = compared([written("a", right("01")), written("a", right("01"), "more")], [written("b", right("01"))])
    assert one.rivals[0].alone == ("more",) and one.tasks == ["sums"]


def test_other_items_are_refused_and_a_report_keeps_the_reason(written: Written) -> None:
    a, b = [written("a", right("0101"))], [written("b", right("010"), options={"limit": 3})]
    with pytest.raises(HarnessError, match=r"not measured on the same items \(4 and 3; 1 only the first has.*limit"):
        compared(a, b)
    (rival,) = compared(a, b, refuse=False).rivals
    assert "not measured on the same items" in rival.refused[0] and not rival.tasks


def test_items_of_one_group_are_a_cluster(written: Written) -> None:
    def grouped(pattern: str) -> list[Sample]:
        return [dataclasses.replace(s, group=f"t{n // 10}") for n, s in enumerate(right(pattern))]

    a, b = grouped("0" * 40), grouped("1" * 10 + "0" * 30)
    (whole,) = compare_task(written("a", a), written("b", b)).comparisons
    assert whole.paired.clusters == 4 and whole.paired.method.endswith("independent items, t over 4 clusters")
    assert not whole.paired.is_told_apart  # all that changed is one template of four
    (alone,) = compare_task(written("a", right("0" * 40)), written("b", right("1" * 10 + "0" * 30))).comparisons
    assert alone.paired.is_told_apart


def test_another_template_is_a_line_and_no_refusal(written: Written) -> None:
    a, b = right("0101"), [dataclasses.replace(s, input=f"### {s.prompt}") for s in right("0101")]
    task = compare_task(written("a", a), written("b", b, template={"name": "alpaca", "sha256": "bb"}))
    (line,) = task.remarks
    assert line == (
        "the templates differ: a was asked through chatml, b through alpaca; 4 of 4 items were rendered otherwise, "
        "such as '<|user|>question 0' against '### question 0'"
    )


def test_an_endpoint_s_own_rendering_is_not_known(written: Written) -> None:
    b = [dataclasses.replace(s, input="") for s in right("0101")]
    task = compare_task(written("a", right("0101")), written("b", b, template={"name": None, "sha256": None}))
    assert "b through its endpoint's own; how one of them renders the items is not known" in task.remarks[0]


def test_one_template_that_renders_otherwise_is_a_line(written: Written) -> None:
    a, b = right("0101"), right("0101")
    b[2] = dataclasses.replace(b[2], input="<|user|>on another day")
    (line,) = compare_task(written("a", a), written("b", b)).remarks
    assert line.startswith("the same template (chatml) rendered 1 of 4 items otherwise for the two, such as '<|user|>q")


def test_cut_off_answers_are_counted_for_both(written: Written) -> None:
    a, b = right("0101", finish="stop"), right("0101", finish="length")
    (line,) = compare_task(written("a", a), written("b", b)).remarks
    assert line.endswith("0 of 4 answers of a, 4 of b")


def test_an_adapter_that_changes_nothing_is_a_warning(written: Written) -> None:
    samples = right("0101")
    base = written("a", samples, weights={"model_sha256": "m"})
    same = compared([base], [written("b", samples)])
    assert "b answered all 4 items exactly as a did, as if its adapter were not applied" in (
        same.rivals[0].unapplied or ""
    )
    other = compared([base], [written("b", [dataclasses.replace(samples[0], response="x"), *samples[1:]])])
    assert other.rivals[0].unapplied is None
    copy = compared([base], [written("c", samples, weights={"model_sha256": "m"})])
    assert copy.rivals[0].unapplied is None  # the same weights answer alike


def test_units_that_differ_are_two_ratios_and_a_line(written: Written) -> None:
    def losses(tokens: int) -> list[Sample]:
        return [
            Sample(f"i{n}:h", {"nll": 1.0 + n / 10, "bits": 2.0 + n / 10}, weight=tokens + n, weights={"bits": 9.0 + n})
            for n in range(12)
        ]

    task = compare_task(written("a", losses(10)), written("b", losses(13)))
    nll, bits = task.comparisons
    assert nll.paired.difference == pytest.approx(nll.paired.b.value - nll.paired.a.value) and nll.paired.difference
    assert bits.paired.difference == 0
    (line,) = task.remarks
    assert line.startswith("nll is a mean over 186 units for a and 222 for b")


def test_flips_count_by_the_first_metric_that_changed_regressions_first(written: Written) -> None:
    def both(pairs: Sequence[tuple[int, float]]) -> list[Sample]:
        return [Sample(f"i{n}:h{n}", {"right": r, "nll": loss}) for n, (r, loss) in enumerate(pairs)]

    a, b = both([(1, 1.0), (0, 1.0), (1, 1.0), (1, 1.0)]), both([(0, 9.0), (1, 1.0), (1, 0.5), (1, 3.0)])
    worse, better = compare_task(written("a", a), written("b", b)).flips()
    assert [(flip.a.id, flip.metric) for flip in worse] == [("i3:h3", "nll"), ("i0:h0", "right")]
    assert [(flip.a.id, flip.metric) for flip in better] == [("i1:h1", "right"), ("i2:h2", "nll")]


def test_a_second_asking_is_reported_and_independent_noise_adds_nothing(written: Written) -> None:
    a = [
        dataclasses.replace(s, again={"right": s.metrics["right"]} if n < 4 else {})
        for n, s in enumerate(right("01" * 20))
    ]
    b = [dataclasses.replace(s, again={"right": 1.0} if n < 4 else {}) for n, s in enumerate(right("01" * 20))]
    (whole,) = compare_task(written("a", a), written("b", b)).comparisons
    assert [(noise.n, noise.differing, noise.rate) for noise in whole.noise if noise] == [(4, 0, 0.0), (4, 2, 0.5)]
    assert whole.paired == statistics.compare([0, 1] * 20, [0, 1] * 20)


def test_answers_of_one_asking_get_the_noise_that_cancels_in_their_difference(written: Written) -> None:
    def scored(seconds: float) -> list[Sample]:
        return [
            Sample(f"i{n}:h", {"length": 0.5 + n}, response="x", seconds=seconds + n,
                   again={"length": 0.5 + n + (-1) ** n} if n < 10 else {})
            for n in range(40)
        ]  # fmt: skip

    (shared,) = compare_task(written("a", scored(0.25)), written("b", scored(0.25))).comparisons
    assert shared.paired.interval is not None and shared.paired.interval.high > 0.1
    assert shared.paired.method == "paired t, with the engine's noise"
    (apart,) = compare_task(written("a", scored(0.25)), written("b", scored(0.5))).comparisons
    assert apart.paired.interval == (0.0, 0.0)


def test_records_measured_alike_are_taken_and_newer_ones_named(written: Written) -> None:
    a = written("a", right("0101"))
    alike = written("b", right("0101"))
    newer = written("b", right("0111"), options={"limit": 4})
    one = compared([a], [alike, newer])
    assert one.rivals[0].tasks[0].records == (a, alike)
    assert one.aside == (
        f"left aside: {newer.path}, newer, because the other variant was not measured with its settings",
    )
