"""Between reading and encoding: how much of each source is used, which rows, on which side, and what is taken out."""

import json
import os
import re
import subprocess
import sys
from array import array
from collections import Counter
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from harness.data import begin_report, digest_of, encode_data, encode_held_out, encode_sources, prepare_items
from harness.data.prepare.content import _single_blanks, keyed
from harness.data.prepare.decontamination import Decontamination
from harness.data.prepare.mixture import draws, needs_counts, repeats
from harness.plugins import Plugins
from harness.recipe import CleanStep, DataSource, DataSpec, DecontaminateSpec
from harness.template.spans import Rendered

some = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SENTENCE = "the heron keeps a silver key under willow and otter brass bell by mill while wren counts stones at dawn"
WORDS = SENTENCE.split()


def source(**keys):
    return DataSource(dataset="alpaca", path="rows.jsonl", **keys)


def row(number, output="yes"):
    return {"instruction": f"Question {number}", "output": output}


@pytest.fixture(scope="module")
def plugins():
    return Plugins()


@pytest.fixture
def used(plugins):
    """Prepare a recipe's data. Returns the report and, for each part, how often each text was used."""

    def run(spec, plugins=plugins, evaluation=()):
        report = begin_report(spec, plugins, list_ids=True)
        parts = {"train": Counter(), "validation": Counter()}
        for prepared in prepare_items(spec, plugins, report, evaluation=evaluation):
            parts[prepared.part][prepared.item.messages[0].content] += prepared.times
        return report, parts["train"], parts["validation"]

    return run


def counts_add_up(data_report):
    for report, held_out in zip(data_report.train, data_report.held_out, strict=True):
        assert report.rows == report.kept + sum(report.left_out.values())
        if report.ids is not None:
            assert report.left_out == {reason: len(ids) for reason, ids in report.ids.items()}
        assert report.left_out["held out for validation"] == held_out.kept == held_out.rows


# How much of each source

sources = st.lists(
    st.tuples(
        st.integers(1, 10_000),
        st.floats(0.01, 100),
        st.none() | st.integers(1, 5_000),
        st.sampled_from([0.25, 0.5, 1.0, 1.5, 2.0, 3.0]),
    ),
    min_size=1,
    max_size=6,
)


@given(sources, st.booleans(), st.none() | st.floats(0.2, 20))
def test_the_proportions_are_met_within_a_row_and_no_source_is_used_up_more_than_its_epochs(
    found, weighted, temperature
):
    mixed = [source(weight=w if weighted else None, cap=cap, epochs=epochs) for _, w, cap, epochs in found]
    rows = [n for n, *_ in found]
    drawn = draws(mixed, rows, temperature)
    size = [min(n, cap or n) for n, _, cap, _ in found]
    most = [n * epochs for n, (*_, epochs) in zip(size, found, strict=True)]
    assert all(n <= limit + 0.5 for n, limit in zip(drawn, most, strict=True))
    if not weighted and temperature is None:
        assert all(abs(n - limit) <= 0.5 for n, limit in zip(drawn, most, strict=True))
        return
    scores = [w if weighted else n for n, (_, w, _, _) in zip(size, found, strict=True)]
    powers = [score ** (1 / (temperature or 1)) for score in scores]
    total = min(limit / power for limit, power in zip(most, powers, strict=True)) * sum(powers)
    for n, power in zip(drawn, powers, strict=True):
        assert abs(n - total * power / sum(powers)) <= 1
    assert any(n >= limit - 1 for n, limit in zip(drawn, most, strict=True))  # the largest total there is


def test_a_mixture_worked_by_hand():
    """100 and 1,000 rows at weights 1 : 3 are 100 and 300; with temperature 2, 1 : sqrt(3)."""
    assert draws([source(weight=1), source(weight=3)], [100, 1000]) == [100, 300]
    assert draws([source(weight=1), source(weight=3)], [100, 1000], 2.0) == [100, 173]
    assert draws([source(), source()], [100, 1000]) == [100, 1000]
    assert draws([source(), source(epochs=0.5)], [100, 1001]) == [100, 501]
    assert draws([source(), source()], [100, 10_000], 2.0) == [100, 1000]  # sqrt(100) : sqrt(10,000)
    assert draws([source(), source(cap=400)], [100, 10_000], 1.0) == [100, 400]
    assert draws([source(weight=1, epochs=3), source(weight=1)], [100, 1000]) == [300, 300]


def test_a_source_that_has_nothing_left_is_named():
    with pytest.raises(harness.DataError, match=r"no row of alpaca rows\.jsonl is left"):
        draws([source(weight=1), source(weight=1)], [10, 0])
    assert draws([source(), source()], [10, 0]) == [10, 0]


@pytest.mark.parametrize(
    ("keys", "needed"),
    [({}, False), ({"epochs": 2}, False), ({"epochs": 1.5}, True), ({"weight": 1}, True), ({"cap": 5}, True)],
)
def test_rows_are_read_twice_only_where_they_must_be_counted(keys, needed):
    assert needs_counts([source(**keys)], None) is needed
    assert needs_counts([source()], 2.0)


# Which rows


@given(st.lists(st.integers(0, 2**64 - 1), max_size=60), st.data())
def test_as_many_rows_are_drawn_as_were_asked_for_and_evenly(keys, data):
    rows = data.draw(st.integers(0, len(keys)))
    drawn = data.draw(st.integers(0, 3 * rows))
    times = list(repeats(array("Q", keys), rows, drawn))
    assert len(times) == len(keys) and sum(times) == (drawn if rows else 0)
    lowest = sorted(times, reverse=True)[:rows]
    assert not lowest or max(lowest) - min(lowest) <= 1
    for low, more in zip(keys, times, strict=True):
        assert all(fewer <= more for high, fewer in zip(keys, times, strict=True) if high > low)


@some
@given(order=st.permutations(range(12)), seed=st.integers(0, 3), cap=st.none() | st.integers(1, 12))
def test_the_order_of_the_rows_and_the_name_of_the_file_do_not_matter(order, seed, cap, write_rows, used):
    keys = {"dataset": "alpaca", "cap": cap, "epochs": 1.5}
    first = write_rows(*map(row, range(12)), name="first.jsonl")
    second = write_rows(*map(row, order), name="second.jsonl")
    results = [
        used(DataSpec(train=(DataSource(path=str(path), **keys),), seed=seed, validation_share=0.25))
        for path in (first, second)
    ]
    assert results[0][1:] == results[1][1:]
    counts_add_up(results[0][0])
    train = 12 - sum(results[0][2].values())
    assert sum(results[0][1].values()) == int(min(train, cap or train) * 1.5 + 0.5)


def test_another_seed_draws_other_rows(write_rows, used):
    path = str(write_rows(*map(row, range(50))))
    specs = [DataSpec(train=(DataSource(dataset="alpaca", path=path, cap=25),), seed=seed) for seed in (1, 2)]
    assert used(specs[0])[1] != used(specs[1])[1]


def test_the_report_has_the_realised_proportions(write_rows, used):
    few, many = write_rows(*map(row, range(10)), name="few.jsonl"), write_rows(*map(row, range(100, 200)))
    spec = DataSpec(
        train=tuple(DataSource(dataset="alpaca", path=str(path), weight=w) for path, w in ((few, 1), (many, 4)))
    )
    report, train, _ = used(spec)
    assert sum(train.values()) == 50
    assert [report.used for report in report.train] == [10, 40]
    assert report.lines() == ["mixture, in rows: alpaca few.jsonl 20.0%, alpaca rows.jsonl 80.0%"]
    assert report.train[1].left_out == {"not drawn by the mixture": 60}
    counts_add_up(report)


def test_a_file_that_changes_between_the_two_readings_is_an_error(write_rows, plugins):
    path = write_rows(*map(row, range(5)))
    items = prepare_items(DataSpec(train=(DataSource(dataset="alpaca", path=str(path), cap=5),)), plugins)
    next(items)
    # The second reading has begun on the old file, so the change shows only in another source or another run.
    for rows in (4, 6):
        spec = DataSpec(train=tuple(DataSource(dataset="alpaca", path=str(p), cap=5) for p in (path, write_rows(
            *map(row, range(5)), name="second.jsonl"))))  # fmt: skip
        items = prepare_items(spec, plugins)
        next(items)
        write_rows(*map(row, range(rows)), name="second.jsonl")
        with pytest.raises(harness.DataError, match=r"second\.jsonl: the data changed while they were read"):
            list(items)


# Encoding


class Letters:
    """Stands for a template: one token a letter, the supervised ones those of the answer."""

    def rendered(self, conversations, train_on="all", reasoning="learn"):
        return [Rendered(conversation, "", []) for conversation in conversations]

    def tokenized(self, rendered):
        return rendered

    def examples(self, rendered, tokenized):
        for conversation in (one.conversation for one in tokenized):
            asked, answer = (message.content for message in conversation.messages)
            ids = array("i", map(ord, asked + answer))
            mask = bytes(len(asked)) + b"\x01" * len(answer)
            yield (harness.Example(ids, mask, conversation.id),)


def test_what_is_encoded_is_the_mixture_and_its_report_has_the_tokens(write_rows, plugins):
    short = write_rows(*map(row, range(100, 400)), name="short.jsonl")
    long = write_rows(*(row(number, "yes" * 4) for number in range(400, 600)), name="long.jsonl")
    sources = tuple(
        DataSource(dataset="alpaca", path=str(path), weight=weight, epochs=2)
        for path, weight in ((short, 2), (long, 1))
    )
    spec = DataSpec(train=sources, validation_share=0.1)
    train, validation = encode_data(spec, plugins, Letters())
    first, second = train.reports
    assert len(train.examples) == first.used + second.used and abs(first.used - 2 * second.used) <= 1
    assert first.used == 2 * first.kept  # the source that ends first is used twice
    assert train.supervised == first.supervised + second.supervised == 3 * first.used + 12 * second.used
    assert train.tokens == first.tokens + second.tokens
    assert re.search(
        r"\(in supervised tokens\): alpaca short.jsonl .*\(33.\d%\), .*\(66.\d%\)$", train.report.lines()[0]
    )
    assert validation.reports == train.report.held_out and len(validation.examples) == sum(
        report.left_out["held out for validation"] for report in train.reports
    )
    counts_add_up(train.report)
    assert encode_held_out(spec, plugins, Letters()).sha256 == validation.sha256
    assert encode_data(spec, plugins, Letters())[0].sha256 == train.sha256


def test_plain_sources_are_encoded_as_they_were_before_there_were_mixtures(write_rows, plugins):
    path = write_rows(*map(row, range(300)))
    spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(path)),))
    train, validation = encode_data(spec, plugins, Letters())
    assert validation is None
    assert train.sha256 == encode_sources(spec.train, spec, plugins.datasets, Letters()).sha256


def test_rows_too_long_are_on_the_report_with_their_ids(write_rows, plugins):
    path = write_rows(row(1), row(2, "yes" * 20))
    spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(path), epochs=3),), max_tokens=20, on_overlong="drop")
    train, _ = encode_data(spec, plugins, Letters())
    (report,) = train.reports
    assert (report.kept, report.used, train.overlong) == (1, 3, 1)
    assert report.left_out == {"longer than 20 tokens": 1}
    counts_add_up(train.report)


def test_a_share_that_holds_nothing_out_is_an_error(write_rows, plugins):
    path = write_rows(*map(row, range(4)))
    spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(path)),), validation_share=0.001)
    with pytest.raises(harness.DataError, match=r"share = 0\.001 holds out none of 4 rows .*: raise it"):
        encode_data(spec, plugins, Letters())


# Equal content


def test_equal_content_is_equal_whatever_the_blanks_the_id_and_the_source():
    of = harness.Conversation.of
    one = digest_of(of(("user", "a  b\n"), ("assistant", "c"), id="1", source="x"))
    assert one == digest_of(of(("user", " a b"), ("assistant", "c"), id="2", source="y"))
    for other in (
        of(("user", "a b"), ("assistant", "C")),
        of(("user", "a b c"), ("assistant", "")),
        of(("system", "a b"), ("assistant", "c")),
    ):
        assert digest_of(other) != one


def test_hashes_are_the_same_in_every_process_and_on_every_machine():
    """Pinned: were it to change, rows would move to the other side of a split."""
    conversation = harness.Conversation.of(("user", "Où est la clé ?"), ("assistant", "Sous le saule."))
    assert digest_of(conversation).hex() == "d63b51bf48f44f1183c5b34ca682ed50"
    assert keyed(digest_of(conversation), "purpose") == 1554961936542272921
    code = (
        "import harness; from harness.data import digest_of; print(digest_of(harness.Conversation.of("
        "('user', 'Où est la clé ?'), ('assistant', 'Sous le saule.'))).hex())"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        )  # fmt: skip
        assert done.stdout.strip() == digest_of(conversation).hex()


# Splits


@some
@given(numbers=st.lists(st.integers(0, 40), min_size=1, max_size=60), more=st.lists(st.integers(0, 80), max_size=40))
def test_a_row_never_changes_sides_when_the_data_grow(numbers, more, write_rows, used):
    """Copies of a row included: they are on one side."""
    sides = []
    for rows, name in ((numbers, "a.jsonl"), ([*more, *numbers], "b.jsonl")):
        path = write_rows(*map(row, rows), name=name)
        report, train, held_out = used(
            DataSpec(train=(DataSource(dataset="alpaca", path=str(path)),), validation_share=0.3)
        )
        assert not set(train) & set(held_out)
        assert train + held_out == Counter(f"Question {number}" for number in rows)
        counts_add_up(report)
        sides.append((set(train), set(held_out)))
    assert sides[0][0] <= sides[1][0] and sides[0][1] <= sides[1][1]


def test_a_share_is_about_that_share_and_a_larger_one_holds_out_the_same_and_more(write_rows, used):
    path = str(write_rows(*map(row, range(2000))))
    held_out = [
        set(used(DataSpec(train=(DataSource(dataset="alpaca", path=path),), validation_share=share))[2])
        for share in (0.05, 0.2)
    ]
    assert 60 < len(held_out[0]) < 140 and 340 < len(held_out[1]) < 460
    assert held_out[0] < held_out[1]


def test_what_was_made_of_one_row_stays_on_one_side(write_rows):
    of = harness.Conversation.of

    def three(row, options):
        return [of(("user", f"{row['n']} in {way} words"), ("assistant", "a")) for way in "abc"]

    def pairs(row, options):
        prompt, answers = of(("user", str(row["n"]))).messages, [of(("assistant", x)).messages for x in "abc"]
        return [harness.Preference(prompt, answers[i], answers[j]) for i, j in ((0, 1), (0, 2), (1, 2))]

    for convert in (three, pairs):
        mine = SimpleNamespace(datasets={"mine": harness.Dataset("mine", "", convert)}, filters={})
        path = write_rows(*({"n": n} for n in range(60)))
        sides = {}
        for prepared in prepare_items(
            DataSpec(train=(DataSource(dataset="mine", path=str(path)),), validation_share=0.3), mine
        ):
            sides.setdefault(prepared.item.id.split(".jsonl:")[1].split(".")[0], []).append(prepared.part)
        assert len(sides) == 60 and all(len(parts) == 3 and len(set(parts)) == 1 for parts in sides.values())
        assert {parts[0] for parts in sides.values()} == {"train", "validation"}


# Cleaning, as the core does it


@pytest.fixture
def with_filter(plugins):
    def make(judge):
        declared = harness.Filter("mine", "", harness.Options, lambda options: judge)
        return SimpleNamespace(datasets=plugins.datasets, filters={"mine": declared})

    return make


def test_what_a_filter_objects_to_is_counted_and_listed(write_rows, used, with_filter):
    path = write_rows(*map(row, range(6)))
    odd = with_filter(lambda item: "odd" if int(item.messages[0].content[-1]) % 2 else None)
    for keys in ({}, {"epochs": 0.5}):
        report, train, _ = used(
            DataSpec(train=(DataSource(dataset="alpaca", path=str(path), **keys),), clean=(CleanStep(filter="mine"),)),
            odd,
        )
        assert report.train[0].left_out["mine: odd"] == 3
        assert report.train[0].ids["mine: odd"] == ["rows.jsonl:2", "rows.jsonl:4", "rows.jsonl:6"]
        assert set(train) <= {"Question 0", "Question 2", "Question 4"}
        counts_add_up(report)


def test_a_limit_counts_what_is_read_not_what_is_left(write_rows, used, with_filter):
    path = write_rows(*map(row, range(6)))
    report, train, _ = used(
        DataSpec(train=(DataSource(dataset="alpaca", path=str(path), limit=3),), clean=(CleanStep(filter="mine"),)),
        with_filter(lambda item: "zero" if item.messages[0].content.endswith("0") else None),
    )
    assert set(train) == {"Question 1", "Question 2"} and report.train[0].rows == 3
    counts_add_up(report)


def test_cleaning_comes_before_the_check_that_stops(write_rows, used, with_filter):
    """An empty answer is an error, unless a filter takes it out."""
    path = write_rows(row(1), row(2, output=""))
    spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(path)),))
    with pytest.raises(harness.DataError, match=r"row 2: message 2 \(assistant\) is empty"):
        used(spec)
    report, train, _ = used(
        spec.model_copy(update={"clean": (CleanStep(filter="mine"),)}),
        with_filter(lambda item: None if item.messages[1].content else "nothing"),
    )
    assert set(train) == {"Question 1"}
    counts_add_up(report)


@pytest.mark.parametrize(
    ("judge", "told"),
    [
        (lambda item: 1 / 0, "the filter 'mine' failed: ZeroDivisionError"),
        (lambda item: True, "the filter 'mine' returned True: expected a reason as text, or None"),
    ],
)
def test_a_filter_that_fails_names_itself_and_the_row(judge, told, write_rows, used, with_filter):
    path = write_rows(row(1))
    spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(path)),), clean=(CleanStep(filter="mine"),))
    with pytest.raises(harness.DataError, match=rf"rows\.jsonl, row 1: {told}"):
        used(spec, with_filter(judge))


def test_every_bad_row_can_be_collected_instead(write_rows, plugins):
    path = write_rows(row(1), row(2, output=""), {"instruction": 3}, row(4))
    errors = []
    for keys in ({}, {"epochs": 1.5}):
        spec = DataSpec(train=(DataSource(dataset="alpaca", path=str(path), **keys),))
        items = list(prepare_items(spec, plugins, on_error=errors.append))
        assert {prepared.item.messages[0].content for prepared in items} == {"Question 1", "Question 4"}
    assert [error.row for error in errors] == [2, 3] * 2


# Decontamination

QUESTION = "While the wren counts stones at dawn, under which old willow does the heron keep her silver key?"


def compared(*texts, **keys):
    return Decontamination(DecontaminateSpec(**keys), ((f"test {n}", text) for n, text in enumerate(texts)))


def said(text):
    return harness.Conversation.of(("user", text), ("assistant", "Yes."), id="rows.jsonl:1")


def test_an_overlap_is_shown_with_both_ids_and_the_text_as_it_stands_in_the_row():
    found = compared("Another one, about nothing in particular at all.", QUESTION).overlap(
        said(f"Tell me:  {QUESTION.upper()[:-1]} -- and why?")
    )
    assert (found.id, found.evaluation_id, found.text) == ("rows.jsonl:1", "test 1", QUESTION.upper()[:-1])


@given(st.lists(st.sampled_from(WORDS), min_size=13, max_size=30), st.data())
def test_thirteen_words_in_a_row_are_found_and_twelve_are_not(words, data):
    start = data.draw(st.integers(0, len(words) - 13))
    before, after = data.draw(st.lists(st.sampled_from(["x", "y"]), max_size=5)), ["z"]
    index = compared(" ".join(words))
    assert index.overlap(said(" ".join([*before, *words[start : start + 13], *after])))
    assert not index.overlap(said(" ".join([*before, *words[start : start + 12], *after])))


def test_several_texts_of_an_item_are_found_each_and_count_as_one_item():
    spec = DecontaminateSpec(shared_by=1)
    index = Decontamination(
        spec,
        [
            ("test 0", "Who keeps the brass bell? The otter."),
            ("test 0", "Who keeps the brass bell?"),
            ("test 1", "Why?"),
        ],
    )
    assert index.too_short == 1
    for text in ("Who keeps the brass bell? The otter.", "Say: who keeps the brass bell?"):
        assert index.overlap(said(text)).evaluation_id == "test 0"


def test_a_short_item_counts_whole_and_a_very_short_one_not_at_all():
    index = compared("Who keeps the brass bell?", "Why not?")
    assert index.too_short == 1
    assert index.overlap(said("I ask: who keeps the brass bell? Tell me."))
    assert not index.overlap(said("Who keeps the brass key? Why not?"))
    with pytest.raises(harness.DataError, match="all 1 evaluation items have fewer than min_words = 5 words"):
        compared("Why not?")
    with pytest.raises(harness.DataError, match="no evaluation of the recipe tells its items"):
        compared()


def test_the_phrasing_that_all_items_of_a_task_share_is_no_overlap():
    phrase = "Read the following question with care and choose the one best answer from those given below"
    items = [f"{phrase}: {word * 3} {word} {word}?" for word in WORDS[:12]]
    assert not compared(*items).overlap(said(f"{phrase}: something else?"))
    assert compared(*items[:9]).overlap(said(f"{phrase}: something else?"))


def test_text_without_spaces_is_compared_by_its_characters():
    index = compared("苍鹭把银钥匙藏在老柳树下面的石头旁边")
    assert index.overlap(said("请问苍鹭把银钥匙藏在老柳树下面的石头吗"))
    assert not index.overlap(said("请问水獭把铜铃铛藏在磨坊旁边的哪里"))


@pytest.mark.parametrize("action", ["warn", "drop", "error"])
def test_what_overlaps_is_kept_dropped_or_an_error(action, write_rows, used):
    path = write_rows(row(1), {"instruction": QUESTION, "output": "a"}, row(3))
    spec = DataSpec(
        train=(DataSource(dataset="alpaca", path=str(path)),), decontaminate=DecontaminateSpec(action=action)
    )
    if action == "error":
        with pytest.raises(harness.DataError, match=r"row 2: rows\.jsonl:2 shares with gsm8k 7: 'While the.*to drop"):
            used(spec, evaluation=[("gsm8k 7", QUESTION)])
        return
    report, train, _ = used(spec, evaluation=[("gsm8k 7", QUESTION)])
    assert report.overlapping == 1 and report.overlaps[0].evaluation_id == "gsm8k 7"
    assert (QUESTION in train) is (action == "warn")
    assert report.train[0].left_out == ({} if action == "warn" else {"overlaps with an evaluation item": 1})
    assert "1 rows overlap with evaluation items" in report.lines()[-1]
    counts_add_up(report)


# Recipes

RECIPE = """
model: {{path: {model}}}
data:
  train:
    - {{dataset: alpaca, path: a.jsonl, weight: 1}}
    - {{dataset: alpaca, path: a.jsonl}}
tune: {{}}
"""


@pytest.mark.parametrize(
    ("sets", "told"),
    [
        ([], r"line 6: this source has no `weight` and another has one"),
        (
            [
                "data.train.1.weight=2",
                "data.validation_share=0.1",
                "data.validation=[{dataset: alpaca, path: a.jsonl}]",
            ],
            r"--set data\.validation_share=0\.1: validation rows come from `data\.validation` or are a share",
        ),
        (["data.train.1.weight=2", "data.decontaminate={}"], r"there is no `evaluate`"),
        (["data.clean=[{filter: rolse}]"], r"no filter is named 'rolse'\. Did you mean 'roles'"),
        (["data.clean=[{filter: length, min_turn: 2}]"], r"unknown key.*min_turn.*Did you mean 'min_turns'"),
        (["data.clean=[{}]"], r"'data\.clean\.0\.filter' is missing"),
        (["data.clean=roles"], r"'data\.clean' is 'roles'"),
        (["data.temperature=0"], r"'data\.temperature' is 0: input should be greater than 0"),
        (["data.validation_share=1"], r"'data\.validation_share' is 1: input should be less than 1"),
    ],
)
def test_a_mistake_in_the_data_section_is_named(sets, told, tmp_path, write_rows, plugins):
    from harness.recipe import load_recipe

    write_rows(row(1), name="a.jsonl")
    (tmp_path / "model").mkdir()
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tmp_path / "model"))
    with pytest.raises(harness.RecipeError, match=told):
        load_recipe(tmp_path / "recipe.yaml", plugins, sets)


def test_the_resolved_recipe_keeps_what_a_filter_was_given(tmp_path, write_rows, plugins):
    from harness.recipe import load_recipe

    write_rows(row(1), name="a.jsonl")
    (tmp_path / "model").mkdir()
    (tmp_path / "recipe.yaml").write_text(RECIPE.format(model=tmp_path / "model"))
    sets = ["data.train.1.weight=2", "data.clean=[{filter: length, min_turns: 2}]"]
    recipe = load_recipe(tmp_path / "recipe.yaml", plugins, sets)
    (tmp_path / "resolved.yaml").write_text(recipe.as_yaml())
    again = load_recipe(tmp_path / "resolved.yaml", plugins)
    assert again.sha256 == recipe.sha256
    assert again.data.clean[0].min_turns == 2
    assert json.loads(again.model_dump_json())["data"]["clean"][0]["filter"] == "length"


@given(st.text("ab \t\n\r\x0b\x0c\x1c\x1d\x85\xa0\u2028", max_size=40))
def test_runs_of_ascii_blanks_count_as_one_and_no_other_character_does(text):
    assert _single_blanks(text.encode()) == b" ".join(text.encode().split())
