"""Preferences and binary feedback: each spelling gives the same prompt and completions; a wrong row says which turn."""

import json

import pytest
from harness_datasets import feedback, preferences
from harness_datasets.completions import Ranked, pairs
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.data import LeftOut, convert_row, load_source
from harness.data.convert.fields import alternatives_of, known_fields
from harness.recipe import DataSource

USER, GOOD, BAD = (
    {"role": role, "content": text}
    for role, text in (("user", "Hi"), ("assistant", "Hello."), ("assistant", "Go away."))
)
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}
SYSTEM = {"role": "system", "content": "Be kind."}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}

SPELLINGS = {
    "text": {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."},
    "TRL, explicit prompt": {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
    "TRL, implicit prompt": {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
    "UltraFeedback": {
        "prompt": "Hi", "prompt_id": "u1", "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD],
        "score_chosen": 8.5, "score_rejected": 7,
    },
    "LLaMA-Factory, sharegpt": {
        "conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "Go away."},
    },
    "LLaMA-Factory, alpaca": {"instruction": "Hi", "input": "", "chosen": "Hello.", "rejected": "Go away."},
    "LLaMA-Factory, messages": {"messages": [USER], "chosen": GOOD, "rejected": BAD},
    "Orca": {"system": "", "question": "Hi", "chosen": "Hello.", "rejected": "Go away."},
    "whole conversations in two formats": {"chosen": [HUMAN, GPT], "rejected": [USER, BAD]},
}  # fmt: skip


def convert(row, dataset=preferences.DATASET):
    (item,) = convert_row(dataset, row)
    return item


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_spelling_gives_the_same_preference(spelling):
    item = convert(SPELLINGS[spelling])
    assert [(turn.role, turn.content) for turn in item.prompt] == [("user", "Hi")]
    assert [(turn.role, turn.content) for turn in item.chosen] == [("assistant", "Hello.")]
    assert [(turn.role, turn.content) for turn in item.rejected] == [("assistant", "Go away.")]
    assert item.margin == (1.5 if spelling == "UltraFeedback" else None)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_spelling_is_known_by_its_fields(spelling):
    """For `auto`: an alternative whose required fields are all there, and that names every field of the row."""
    assert known_fields(preferences.DATASET, SPELLINGS[spelling]) == SPELLINGS[spelling].keys()


@pytest.mark.parametrize("spelling", ["text", "TRL, explicit prompt", "TRL, implicit prompt", "UltraFeedback", "Orca"])
def test_a_system_prompt_beside_the_turns_comes_first(spelling):
    item = convert(SPELLINGS[spelling] | {"system": "Be kind."})
    assert [turn.role for turn in item.prompt] == ["system", "user"] and item.prompt[0].content == "Be kind."


def test_completions_that_are_json_themselves_stay_words():
    words = '{"from": "Oslo", "name": "Ada"}', '{"from": "gpt"}'
    item = convert({"prompt": "Hi", "chosen": words[0], "rejected": words[1]})
    assert (item.chosen[-1].content, item.rejected[-1].content) == words


def test_history_and_input_belong_to_the_prompt():
    item = convert(
        {"instruction": "Translate", "input": "Haus", "history": [["a", "b"]], "chosen": "house", "rejected": "mouse"}
    )
    assert [turn.content for turn in item.prompt] == ["a", "b", "Translate\n\nHaus"]


def test_whole_conversations_part_after_the_last_turn_they_share():
    more = [SYSTEM, USER, GOOD, {"role": "user", "content": "And?"}]
    item = convert({"chosen": [*more, GOOD], "rejected": [*more, BAD, USER, GOOD]})
    assert [turn.role for turn in item.prompt] == ["system", "user", "assistant", "user"]
    assert (len(item.chosen), len(item.rejected)) == (1, 3)


def test_tools_and_calls_are_kept():
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}
    for tools in ([TOOL], json.dumps([TOOL])):
        item = convert({"prompt": "Use f", "chosen": [call], "rejected": "No.", "tools": tools})
        assert item.tools == (TOOL,) and item.chosen[0].tool_calls == (harness.ToolCall("f", {}),)


def test_a_function_call_can_be_the_better_completion():
    called = {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'}
    item = convert({"conversations": [HUMAN], "chosen": called, "rejected": GPT})
    assert [(call.name, call.arguments) for call in item.chosen[0].tool_calls] == [("f", {"a": 1})]


BASE = SPELLINGS["text"]
WRONG = [
    ({}, "the field 'chosen' is missing. The row has: nothing"),
    ({"prompt": "a", "chosen": "b"}, "the field 'rejected' is missing. The row has: prompt, chosen"),
    ({"chosen": "b", "rejected": "c"}, "there is no prompt: 'chosen' is text"),
    ({"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "c"}, "are the dataset 'hh'"),
    ({"chosen": [GOOD], "rejected": [BAD]}, "there is no prompt: expected one of the fields prompt, question"),
    (BASE | {"chosen": 3}, "the field 'chosen' should be text or a list of messages with role and content, found 3"),
    (BASE | {"chosen": []}, "the field 'chosen' should be text or a list of messages"),
    (BASE | {"prompt": {"a": 1}}, "prompt: message 1 has the role null"),
    (BASE | {"chosen": [GOOD, {"role": "human", "content": "x"}]}, "chosen: message 2 has the role 'human'"),
    (BASE | {"chosen": [GOOD, USER]},
     "chosen: message 2 is the user's; a completion begins and ends with the assistant's"),
    (BASE | {"prompt": [USER, GOOD]}, "the prompt ends with message 2, the assistant's"),
    (BASE | {"prompt": [SYSTEM]}, "the prompt ends with message 1, the system's"),
    (BASE | {"chosen": " "}, "the chosen completion is empty"),
    (BASE | {"rejected": "Hello."}, "chosen and rejected are the same"),
    (BASE | {"system": 3}, "the field 'system' should be text, found 3"),
    (BASE | {"prompt": [SYSTEM, USER], "system": "Be quick."}, "there are two system prompts: 'Be quick.'"),
    (BASE | {"tools": "[{"}, "the field 'tools' is not valid JSON"),
    (BASE | {"history": [["a"]]}, "history entry 1 should be [question, answer]"),
    (BASE | {"margin": "big"}, "the field 'margin' should be a number, found 'big'"),
    (BASE | {"margin": True}, "the field 'margin' should be a number, found true"),
    (BASE | {"margin": -1}, "the margin is -1: the rejected completion would be the better one"),
    (BASE | {"margin": float("nan")}, "the field 'margin' should be a number, found nan"),
    (BASE | {"score_chosen": 1, "score_rejected": 2},
     "the chosen completion scores lower than the rejected: score_chosen 1"),
    ({"chosen": [USER, GOOD], "rejected": [USER, GOOD]}, "chosen and rejected are the same"),
    ({"chosen": [USER, GOOD], "rejected": [USER]}, "rejected ends with message 1, which both share"),
    ({"chosen": [USER, GOOD], "rejected": [{"role": "user", "content": "Ho"}, BAD]},
     "part at message 1, and message 1 is the user's"),
    ({"chosen": [USER, GOOD, USER], "rejected": [USER, BAD]}, "part at message 2, and message 3 is the user's"),
    ({"prompt": "Who?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
     "do not hold the prompt 'Who?' in the 1 messages they share"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "told"), WRONG)
def test_a_wrong_preference_is_named_with_its_field_and_turn(row, told):
    with pytest.raises(harness.DataError) as caught:
        convert(row)
    assert told in str(caught.value)


# Feedback


@pytest.mark.parametrize("label", [True, 1, 1.0, "good", "Good", "👍", "thumbs_up", "true", "1", "desirable"])
def test_a_good_completion_has_only_a_chosen_side(label):
    item = convert({"prompt": "Hi", "completion": "Hello.", "label": label}, feedback.DATASET)
    assert [turn.content for turn in item.chosen] == ["Hello."] and item.rejected == ()


@pytest.mark.parametrize("label", [False, 0, -1, "bad", "👎", "thumbs_down", "False", "0", "-1", "undesirable"])
def test_a_bad_completion_has_only_a_rejected_side(label):
    item = convert({"prompt": [USER], "completion": [BAD], "label": label}, feedback.DATASET)
    assert [turn.content for turn in item.rejected] == ["Go away."] and item.chosen == ()


@pytest.mark.parametrize(
    ("name", "turns"), [("messages", [USER, BAD, USER, GOOD]), ("conversations", [HUMAN, GPT] * 2)]
)
def test_a_label_on_messages_is_about_the_last_turn(name, turns):
    item = convert({name: turns, "label": True, "system": "Be kind."}, feedback.DATASET)
    assert len(item.prompt) == 4 and item.prompt[0].role == "system"
    assert [turn.content for turn in item.chosen] == ["Hello."]


@pytest.mark.parametrize(("row", "told"), [
    ({"prompt": "a", "completion": "b"}, "the field 'label' is missing. The row has: prompt, completion"),
    ({"prompt": "a", "completion": "b", "label": "meh"},
     "the field 'label' should say whether the completion is good: true or false"),
    ({"prompt": "a", "completion": "b", "label": 2}, "found 2"),
    ({"prompt": "a", "completion": "b", "label": [1]}, "found [1]"),
    ({"prompt": "a", "label": True}, "there is no completion: expected prompt and completion, or messages"),
    ({"completion": "b", "label": True}, "there is no prompt"),
    ({"prompt": "a", "completion": "", "label": True}, "the chosen completion is empty"),
    ({"prompt": "a", "completion": "", "label": False}, "the rejected completion is empty"),
    ({"messages": [USER], "label": True}, "messages: message 1, the last, is the user's"),
    ({"messages": [GOOD], "label": True}, "there is no prompt"),
    ({"messages": [], "label": True}, "the field 'messages' should be text or a list of messages"),
])  # fmt: skip
def test_a_wrong_feedback_row_is_named_with_its_field_and_turn(row, told):
    with pytest.raises(harness.DataError) as caught:
        convert(row, feedback.DATASET)
    assert told in str(caught.value)


# Anything at all

names = st.sampled_from(
    sorted(
        {
            name
            for one in alternatives_of(preferences.DATASET.fields + feedback.DATASET.fields, ())
            for name in one.columns
        }
    )
)
turn_names = st.sampled_from(["role", "content", "from", "value", "tool_calls", "function", "name", "arguments"])
words = st.sampled_from(
    ["user", "assistant", "system", "tool", "human", "gpt", "function_call", "", "good", "1", "[", "\n\nHuman:"]
)
values = st.recursive(
    words | st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(turn_names, inner, max_size=4),
    max_leaves=10,
)
good_turns = st.lists(st.sampled_from([USER, GOOD, BAD, SYSTEM]), max_size=4)
rows = st.dictionaries(names, values | good_turns, max_size=7)


@settings(max_examples=300, deadline=None)
@given(row=rows)
def test_any_row_is_a_preference_or_a_data_error(row):
    for module in (preferences, feedback):
        try:
            module.convert(row, None)  # itself: `convert_row` would make a DataError of anything
            made = convert_row(module.DATASET, row)
        except harness.DataError:
            continue
        if isinstance(made, LeftOut):  # of UltraFeedback's completions no two differ in their score
            assert "completions" in row and not row.get("chosen")
            continue
        (item,) = made
        assert item.prompt[-1].role in ("user", "tool") and (item.chosen or item.rejected)
        assert item.chosen != item.rejected and (module is preferences or not (item.chosen and item.rejected))


@settings(max_examples=100, deadline=None)
@given(ranks=st.lists(st.integers(0, 4), min_size=2, max_size=7))
def test_all_pairs_of_a_ranking_weigh_as_one_prompt(ranks):
    prompt = (harness.Message("user", "q"),)
    made = pairs(
        prompt, [Ranked(rank, (harness.Message("assistant", str(n)),), str(n)) for n, rank in enumerate(ranks)]
    )
    expected = {(a, b) for a, x in enumerate(ranks) for b, y in enumerate(ranks) if x < y}
    assert {(int(item.chosen[0].content), int(item.rejected[0].content)) for item in made} == expected
    assert sum(item.weight for item in made) == pytest.approx(1 if expected else 0)
    assert all(
        item.margin == ranks[int(item.rejected[0].content)] - ranks[int(item.chosen[0].content)] for item in made
    )


# Real files


def test_real_files_lose_no_row(real_data):
    folder = real_data / "llamafactory-demo"
    datasets = {module.DATASET.name: module.DATASET for module in (preferences, feedback)}
    found = list(load_source(DataSource(dataset="preferences", path=str(folder / "dpo_en_demo.json")), datasets))
    assert len(found) == 300 and all(item.chosen and item.rejected for item in found)
    assert [sum(len(item.prompt) == length for item in found) for length in (1, 2, 5, 7, 9)] != [0] * 5
    found = list(load_source(DataSource(dataset="feedback", path=str(folder / "kto_en_demo.json")), datasets))
    assert [
        sum(bool(side) for side in sides) for sides in zip(*((i.chosen, i.rejected) for i in found), strict=True)
    ] == [150, 150]


def test_ultrafeedbacks_own_rows_give_the_best_and_the_worst():
    scores = {"fair": 3.0, "best": 8.5, "unscored": None, "worst": 1.0}
    completions = [{"response": text, "overall_score": score, "model": "m"} for text, score in scores.items()]
    found = preferences.DATASET.convert(
        {"source": "s", "instruction": "Why?", "models": [], "completions": completions}, None
    )
    assert (found.chosen[0].content, found.rejected[0].content, found.margin) == ("best", "worst", 7.5)
    assert [message.content for message in found.prompt] == ["Why?"] and found.source == "s"
    for useless in (completions[:1], [completions[0]] * 2):
        assert not preferences.DATASET.convert({"instruction": "Why?", "completions": useless}, None)


def test_openais_preference_rows():
    asked = {"messages": [{"role": "user", "content": "Why?"}], "tools": [], "parallel_tool_calls": True}
    answers = {name: [{"role": "assistant", "content": name}] for name in ("preferred_output", "non_preferred_output")}
    found = preferences.DATASET.convert({"input": asked, **answers}, None)
    assert (found.chosen[0].content, found.rejected[0].content) == ("preferred_output", "non_preferred_output")
