"""Demonstrations become conversations, rankings all their ordered pairs, each prompt counting once."""

import pytest
from harness_datasets import instructgpt
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.data import convert_row


def convert(**row):
    return convert_row(instructgpt.DATASET, row, instructgpt.InstructGptOptions(ranked=True))


def compared(items):
    return [(item.chosen[0].content, item.rejected[0].content, item.margin) for item in items]


@pytest.mark.parametrize("name", ["demonstration", "completion"])
def test_a_demonstration_is_a_conversation(name):
    (item,) = convert(prompt="q", system="s", id="x", **{name: "a"})
    assert [(turn.role, turn.content) for turn in item.messages] == [("system", "s"), ("user", "q"), ("assistant", "a")]
    assert item.id == "x" and item.trained == (2,)


def test_k_completions_from_best_to_worst_are_all_ordered_pairs():
    items = convert(prompt="q", completions=["a", "b", "c", "d"], id="x")
    assert compared(items) == [("a", "b", 1), ("a", "c", 2), ("a", "d", 3), ("b", "c", 1), ("b", "d", 2), ("c", "d", 1)]
    assert {item.weight for item in items} == {1 / 6} and items[0].id == "x.1>x.2"
    assert {item.prompt for item in items} == {(harness.Message("user", "q"),)}


@pytest.mark.parametrize("completions", [
    ["a", "b", "c"],
    [[{"role": "assistant", "content": text}] for text in "abc"],
    [{"from": "gpt", "value": text} for text in "abc"],
])  # fmt: skip
def test_equal_ranks_make_no_pair(completions):
    items = convert(prompt="q", completions=completions, ranks=[2, 1, 2])
    assert compared(items) == [("b", "a", 1), ("b", "c", 1)] and {item.weight for item in items} == {0.5}


def test_ranks_can_stand_in_the_completions():
    items = convert(prompt="q", completions=[{"text": "a", "rank": 3}, {"text": "b", "rank": 1}])
    assert compared(items) == [("b", "a", 2)]


def test_a_ranking_of_ties_or_of_equal_completions_is_left_out():
    assert convert(prompt="q", completions=["a", "b"], ranks=[1, 1]) == ()
    assert convert(prompt="q", completions=["a", "a"]) == ()


def test_a_ranking_that_reads_two_ways_is_refused():
    from harness.data import convert_row
    from harness.plugins import Plugins

    shape = Plugins().datasets["ranked_answers"]
    with pytest.raises(harness.DataError, match=r"another order.*`columns: \{ranks: ranking\}`"):
        convert_row(shape, {"prompt": "q", "responses": ["a", "b", "c"], "ranking": [3, 1, 2]})
    assert compared(convert_row(shape, {"prompt": "q", "responses": ["a", "b"], "ranking": [2, 1]})) == [("b", "a", 1)]
    assert compared(convert_row(shape, {"prompt": "q", "responses": ["a", "b", "c"], "ranking": [3, 1, 1]})) == [
        ("b", "a", 2), ("c", "a", 2),
    ]  # fmt: skip


def test_a_row_may_hold_a_demonstration_and_a_ranking():
    items = convert(prompt="q", demonstration="d", completions=["a", "b"], id="x")
    assert [type(item).__name__ for item in items] == ["Conversation", "Preference"]
    assert len({item.id for item in items}) == 2


@pytest.mark.parametrize(("row", "told"), [
    ({"completions": ["a", "b"]}, "there is no prompt"),
    ({"prompt": "q"}, "there is neither a demonstration nor completions. The row has: prompt"),
    ({"prompt": "q", "completions": "a"}, "the field 'completions' should be a list, found 'a'"),
    ({"prompt": "q", "completions": ["a"]}, "a ranking has two completions or more, found 1"),
    ({"prompt": "q", "completions": ["a", "b"], "ranks": [1]}, "there are 2 completions and 1 ranks"),
    ({"prompt": "q", "completions": ["a", "b"], "ranks": [1, "2"]},
     "the field 'ranks, entry 2' should be a number, found '2'"),
    ({"prompt": "q", "completions": ["a", "b"], "ranks": [1, None]}, "completion 2 has no rank, others have"),
    ({"prompt": "q", "completions": [{"text": "a", "rank": 1}, "b"]}, "completion 2 has no rank, others have"),
    ({"prompt": "q", "completions": ["a", {"rank": None}]},
     "completion 2 should be text, messages, or an object with one text"),
    ({"prompt": "q", "completions": ["a", 3]}, "the field 'completion 2' should be text or a list of messages"),
    ({"prompt": "q", "completions": ["a", ""]}, "the rejected completion is empty"),
    ({"prompt": "q", "completions": ["a", [{"role": "user", "content": "x"}]]},
     "completion 2: message 1 is the user's"),
])  # fmt: skip
def test_a_wrong_row_is_named_with_its_completion(row, told):
    with pytest.raises(harness.DataError) as caught:
        convert(**row)
    assert told in str(caught.value)


words = st.sampled_from(["a", "b", "assistant", ""]) | st.none() | st.integers(0, 3) | st.floats() | st.booleans()
values = st.recursive(
    words,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["text", "rank", "role", "content", "from"]), inner, max_size=3)
    ),
    max_leaves=8,
)
names = st.sampled_from(["prompt", "demonstration", "completion", "completions", "ranks", "id", "system", "tools"])


@settings(max_examples=200, deadline=None)
@given(row=st.dictionaries(names, values, max_size=6))
def test_any_row_gives_items_or_a_data_error(row):
    try:
        instructgpt.convert(row, None)
        items = convert(**row)
    except harness.DataError:
        return
    weights = [item.weight for item in items if isinstance(item, harness.Preference)]
    assert not weights or sum(weights) == pytest.approx(1)
