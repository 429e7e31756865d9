"""Message trees: the best path, ranked siblings, filters; the same from trees, root messages and single messages."""

import json
import random

import pytest
from harness_datasets import oasst
from harness_datasets.oasst import OasstOptions, gather
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import harness
from harness.data import SourceReport, convert_row, load_source
from harness.recipe import source_model

BOTH = OasstOptions(take_as="both")


def message(id, *replies, text=None, rank=None, **more):
    """A message whose role is told by its id: p1, a1, a2 ..."""
    role = {"p": "prompter", "a": "assistant"}[id[0]]
    return {
        "message_id": id,
        "text": text or f"text of {id}",
        "role": role,
        "rank": rank,
        "replies": list(replies),
        **more,
    }


def tree(root, **more):
    return {"message_tree_id": root["message_id"], "prompt": root, **more}


# p1 has three answers, the best of which (a2) got two questions, one of them answered twice.
TREE = tree(
    message(
        "p1",
        message("a1", rank=1),
        message("a2", message("p2"), message("p3", message("a4", rank=1), message("a5", rank=0)), rank=0),
        message("a3", rank=2),
    )
)


def flat(raw, tree_id=None, parent=None):
    root = raw.get("prompt", raw)
    id = tree_id or root["message_id"]
    own = {key: value for key, value in root.items() if key != "replies"}
    yield own | {"message_tree_id": id, "parent_id": parent}
    for reply in root["replies"]:
        yield from flat(reply, id, root["message_id"])


def convert(row, options=BOTH):
    return convert_row(oasst.DATASET, row, options)


def texts(items):
    return [[turn.content.removeprefix("text of ") for turn in item.messages] for item in items]


def compared(items):
    return sorted(
        (*(turn.content[8:] for turn in (item.prompt[-1], *item.chosen, *item.rejected)), item.margin) for item in items
    )


def test_the_best_path_is_a_conversation():
    items = convert(TREE, OasstOptions())
    assert texts(items) == [["p1", "a2", "p3", "a5"]] and items[0].id == "p1"
    assert [turn.role for turn in items[0].messages] == ["user", "assistant", "user", "assistant"]


def test_ranked_siblings_are_preferences_that_weigh_one_a_prompt():
    items = convert(TREE, OasstOptions(take_as="preferences"))
    assert compared(items) == [
        ("p1", "a1", "a3", 1),
        ("p1", "a2", "a1", 1),
        ("p1", "a2", "a3", 2),
        ("p3", "a5", "a4", 1),
    ]
    assert sorted(item.weight for item in items) == [pytest.approx(1 / 3)] * 3 + [1]
    assert {len(item.prompt) for item in items} == {1, 3} and len({item.id for item in items}) == 4


def test_both_are_both():
    assert len(convert(TREE)) == 5


def test_a_path_ends_with_an_answer():
    assert texts(convert(tree(message("p1", message("a1", message("p2")))))) == [["p1", "a1"]]
    assert convert(tree(message("p1"))) == ()


def test_answers_without_a_rank_come_last_and_make_no_pair():
    items = convert(tree(message("p1", message("a1"), message("a2", rank=3))))
    assert texts(items[:1]) == [["p1", "a2"]] and len(items) == 1


@pytest.mark.parametrize(("more", "options", "kept"), [
    ({"lang": "de"}, {"languages": ("en",)}, False),
    ({"lang": "pt-BR"}, {"languages": ("pt",)}, True),
    ({"lang": "pt-BR"}, {"languages": ("PT-br",)}, True),
    ({}, {"languages": ("en",)}, False),
    ({"deleted": True}, {}, False),
    ({"deleted": True}, {"include_deleted": True}, True),
    ({"review_result": False}, {}, False),
    ({"review_result": None}, {}, True),
    ({"review_result": False}, {"include_failed_review": True}, True),
    ({"synthetic": True}, {}, True),
    ({"synthetic": True}, {"include_synthetic": False}, False),
    ({"labels": {"quality": {"value": 0.4, "count": 3}}}, {"min_quality": 0.5}, False),
    ({"labels": {"quality": {"value": 0.6, "count": 3}}}, {"min_quality": 0.5}, True),
    ({"labels": {"quality": 0.6}}, {"min_quality": 0.5}, True),
    ({"labels": {"name": ["spam", "quality"], "value": [0, 0.6], "count": [3, 3]}}, {"min_quality": 0.5}, True),
    ({"labels": {"name": ["spam", "quality"], "value": [1, 0.2], "count": [3, 3]}}, {"min_quality": 0.5}, False),
    ({"labels": None}, {"min_quality": 0.5}, False),
])  # fmt: skip
def test_a_message_that_does_not_count_takes_its_replies_with_it(more, options, kept):
    fine = {
        "lang": more.get("lang") if kept else (options.get("languages") or ("en",))[0],
        "labels": {"quality": {"value": 1}},
    }
    row = tree(
        message(
            "p1",
            message("a1", message("p2", message("a3", **fine), **fine), rank=0, **more),
            message("a2", rank=1, **fine),
            **fine,
        )
    )
    assert texts(convert(row, OasstOptions(**options))) == ([["p1", "a1", "p2", "a3"]] if kept else [["p1", "a2"]])


def test_a_tree_in_another_state_is_left_out():
    assert convert(TREE | {"tree_state": "aborted_low_grade"}) == ()
    assert convert(TREE | {"tree_state": "growing"}, OasstOptions(tree_states=("growing",)))
    assert convert(TREE | {"tree_state": "growing"}, OasstOptions(tree_states=()))


@pytest.mark.parametrize("options", [{"take_as": "trees"}, {"min_quality": 2}, {"language": ("en",)}])
def test_wrong_options_are_refused(options):
    with pytest.raises(ValidationError):
        OasstOptions(**options)


@pytest.mark.parametrize("by", ["message_tree_id", "parent_id"])
def test_single_messages_in_any_order_give_the_same_as_their_trees(by):
    second = tree(message("p9", message("a8", rank=0), message("a9", rank=1)))
    rows = [*flat(TREE), *flat(second)]
    if by == "parent_id":
        rows = [{key: value for key, value in row.items() if key != "message_tree_id"} for row in rows]
    # Of siblings, the order is that of the file: questions are not ranked, and the first that was answered is taken.
    random.Random(1).shuffle(rows)
    numbered = list(gather(enumerate(rows, 1), None))
    assert len(numbered) == 2 and numbered[0][0] == 1
    items = {item.id: item for _, row in numbered for item in convert(row)}
    assert items == {item.id: item for row in (TREE, second) for item in convert(row)}


def test_trees_pass_through_between_single_messages():
    other = tree(message("p9", message("a8")))
    rows = list(gather([(1, TREE), *enumerate(flat(other), 2), (9, TREE["prompt"])], None))
    assert [number for number, _ in rows] == [1, 9, 2] and rows[0][1] is TREE


WRONG = [
    ({}, "turn 1, message null: the field 'role' is missing"),
    ({"prompt": "Hi"}, "turn 1: a message should be an object, found 'Hi'"),
    (tree(message("p1", message("p2"))), "turn 2, message 'p2': the role is 'prompter', expected 'assistant'"),
    (tree(message("a1")), "turn 1, message 'a1': the role is 'assistant', expected 'prompter'"),
    (
        tree(message("p1") | {"role": "human"}),
        "turn 1, message 'p1': the role is 'human', expected prompter or assistant",
    ),
    (
        tree(message("p1", message("a1") | {"text": 3})),
        "turn 2, message 'a1': the field 'text' should be text, found 3",
    ),
    (tree(message("p1", message("a1", text=" "))), "message 2 (assistant) is empty"),
    (tree(message("p1", message("a1", rank="first"))), "turn 2, message 'a1': the field 'rank' should be a number"),
    (tree(message("p1", message("a1", deleted="no"))), "the field 'deleted' should be true or false, found 'no'"),
    (tree(message("p1", 3)), "turn 2: a message should be an object, found 3"),
    (tree(message("p1") | {"replies": {}}), "turn 1, message 'p1': the field 'replies' should be a list"),
]


@pytest.mark.parametrize(("row", "told"), WRONG)
def test_a_wrong_message_is_named_with_its_turn_and_id(row, told):
    with pytest.raises(harness.DataError) as caught:
        convert(row)
    assert told in str(caught.value)


def single(id, parent, **more):
    return {key: value for key, value in message(id, **more).items() if key != "replies"} | {
        "parent_id": parent,
        "message_tree_id": "t",
    }


@pytest.mark.parametrize(("rows", "told"), [
    ([single("p1", None), single("a1", "p7")],
     "the message 'a1' answers 'p7', which is not among the messages of its tree"),
    ([single("p1", None), single("p2", None)], "a tree begins with one message without parent_id, found 2: 'p1', 'p2'"),
    ([single("p1", "a1"), single("a1", "p1")], "found none: its messages answer each other in a circle"),
    ([single("p1", None), single("p2", "a2"), single("a2", "p2")],
     "2 of the tree's 3 messages answer each other in a circle"),
    ([single("p1", None), single("p1", None)], "the message 'p1' is there twice"),
])  # fmt: skip
def test_a_tree_that_cannot_be_put_together_says_why(rows, told):
    ((_, row),) = gather(enumerate(rows, 1), None)
    with pytest.raises(harness.DataError) as caught:
        convert(row)
    assert told in str(caught.value)


def test_messages_in_a_circle_without_a_tree_do_not_hang():
    rows = [
        {"message_id": id, "parent_id": parent, "text": "x", "role": "prompter"}
        for id, parent in (("1", "2"), ("2", "3"), ("3", "2"))
    ]
    ((_, row),) = gather(enumerate(rows, 1), None)
    with pytest.raises(harness.DataError, match="in a circle"):
        convert(row)


def test_a_deep_tree_is_read():
    depth = 3000
    rows = [single(f"{'pa'[n % 2]}{n}", f"{'pa'[(n - 1) % 2]}{n - 1}" if n else None) for n in range(depth)]
    ((_, row),) = gather(enumerate(rows, 1), None)
    assert len(convert(row, OasstOptions())[0].messages) == depth


ids = st.sampled_from(["p1", "a1", "p2", "a2"])
values = st.recursive(
    ids | st.none() | st.booleans() | st.integers(0, 2) | st.floats() | st.sampled_from(["prompter", "assistant", ""]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "value", "quality"]), inner, max_size=3)
    ),
    max_leaves=6,
)
names = st.sampled_from(
    [
        "message_id",
        "parent_id",
        "message_tree_id",
        "text",
        "role",
        "rank",
        "replies",
        "prompt",
        "labels",
        "lang",
        "deleted",
        "tree_state",
    ]
)
proper = st.recursive(
    st.builds(message, ids, rank=st.none() | st.integers(0, 2)),
    lambda inner: st.builds(lambda id, replies: message(id, *replies), ids, st.lists(inner, max_size=3)),
    max_leaves=6,
)
likely = st.builds(
    lambda id, parent, more: single(id, parent) | more, ids, ids | st.none(), st.dictionaries(names, values, max_size=2)
)
any_rows = st.dictionaries(names, values, max_size=7) | proper | proper.map(tree) | likely


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(any_rows, max_size=5))
def test_any_rows_give_items_or_data_errors(rows):
    numbered = list(gather(enumerate(rows, 1), None))
    single_ones = sum(len(row["messages"]) for _, row in numbered if "messages" in row)
    assert single_ones + sum("messages" not in row for _, row in numbered) == len(rows)  # none is lost
    for _, row in numbered:
        try:
            oasst.convert(row, OasstOptions(take_as="both", min_quality=0.1))
            items = convert(row)
        except harness.DataError:
            continue
        assert all(len(item.messages) % 2 == 0 for item in items if isinstance(item, harness.Conversation))


def load(path, **options):
    report = SourceReport("oasst", str(path))
    source = source_model(oasst.DATASET)(dataset="oasst", path=str(path), **options)
    return list(load_source(source, {"oasst": oasst.DATASET}, report)), report


def test_real_trees_are_read_whole(real_data, write_rows):
    """100 trees: 1167 messages, each tree with an answer; 212 messages have ranked answers, which make 754 pairs."""
    by_tree, report = load(real_data / "oasst/en_100_tree.jsonl", take_as="both")
    conversations = [item for item in by_tree if isinstance(item, harness.Conversation)]
    rankings = [item for item in by_tree if isinstance(item, harness.Preference)]
    assert (report.rows, report.left_out.total()) == (100, 0)
    assert (len(conversations), len(rankings)) == (100, 754)
    assert sum(item.weight for item in rankings) == pytest.approx(212)
    assert load(real_data / "oasst/en_100_message.jsonl", take_as="both")[0] == by_tree
    lines = (real_data / "oasst/en_100_tree.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [row for line in lines for row in flat(json.loads(line))]
    random.Random(0).shuffle(rows)
    shuffled, report = load(write_rows(*rows), take_as="both")
    assert len(rows) == 1167 and report.rows == 100
    assert {item.id: item for item in shuffled if item in rankings} == {item.id: item for item in rankings}
    assert {item.id for item in shuffled} == {item.id for item in by_tree}
    without, report = load(real_data / "oasst/en_100_tree.jsonl", include_synthetic=False)
    assert (len(without), report.left_out.total()) == (95, 5)
