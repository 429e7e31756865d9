"""Human/Assistant transcripts: parted after the last turn they share; rows without a preference are left out."""

import gzip
import json

import pytest
from harness_datasets import hh
from hypothesis import given
from hypothesis import strategies as st

import harness
from harness.data import convert_row

START = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: And?"


def transcript(*turns):
    return "".join(f"\n\n{('Human', 'Assistant')[at % 2]}: {text}" for at, text in enumerate(turns))


def convert(chosen, rejected):
    return convert_row(hh.DATASET, {"chosen": chosen, "rejected": rejected})


def test_transcripts_part_after_the_last_turn_they_share():
    (item,) = convert(f"{START}\n\nAssistant: Well.\n\nStill well.", f"{START}\n\nAssistant: No: Human: x ")
    assert [(turn.role, turn.content) for turn in item.prompt] == [
        ("user", "Hi"),
        ("assistant", "Hello."),
        ("user", "And?"),
    ]
    assert [turn.content for turn in item.chosen] == ["Well.\n\nStill well."]
    assert [turn.content for turn in item.rejected] == ["No: Human: x"]


def test_turns_in_a_row_of_one_role_are_one():
    (item,) = convert(f"{START}\n\nAssistant: a\n\nAssistant:  b", f"{START}\n\nAssistant: c")
    assert [turn.content for turn in item.chosen] == ["a\n\nb"]


def test_completions_may_be_several_turns():
    (item,) = convert(transcript("q", "a", "b", "c"), transcript("q", "d"))
    assert (len(item.prompt), len(item.chosen), len(item.rejected)) == (1, 3, 1)


@pytest.mark.parametrize(("chosen", "rejected"), [
    (transcript("q", "a"), transcript("q", "a")),  # the same
    (transcript("q", "a"), transcript("q", " a ")),  # but for white space
    (transcript("q", "a"), transcript("p", "b")),  # the first human turn differs
    (transcript("q", "a", "r", "b"), transcript("q", "a", "s", "c")),  # parting at what the human says
    (transcript("q", "a"), transcript("q")),  # no answer
    (transcript("q", ""), transcript("q", "a")),  # an empty answer
    (transcript("q", "a", "r"), transcript("q", "b")),  # the human has the last word
])  # fmt: skip
def test_what_says_nothing_about_a_preference_is_left_out(chosen, rejected):
    assert convert(chosen, rejected) == ()


@pytest.mark.parametrize(("row", "told"), [
    ({"chosen": transcript("q", "a")}, "the field 'rejected' is missing"),
    ({"chosen": "q", "rejected": transcript("q", "a")}, "chosen should begin with 'Human:', found 'q'"),
    ({"chosen": transcript("q", "a"), "rejected": "\n\nAssistant: a"}, "rejected should begin with 'Human:'"),
    ({"chosen": "x" + transcript("q", "a"), "rejected": transcript("q", "b")}, "chosen should begin with 'Human:'"),
    ({"chosen": "", "rejected": ""}, "chosen should begin with 'Human:', found ''"),
    ({"chosen": [{"role": "user"}], "rejected": ""}, "the field 'chosen' should be text"),
])  # fmt: skip
def test_a_wrong_transcript_is_named(row, told):
    with pytest.raises(harness.DataError, match=told):
        convert_row(hh.DATASET, row)


texts = st.lists(st.sampled_from(["\n\nHuman:", "\n\nAssistant:", " a", "b", "\n", ""]), max_size=9).map("".join)


@given(
    row=st.dictionaries(
        st.sampled_from(["chosen", "rejected"]), texts | st.none() | st.integers() | st.lists(texts, max_size=1)
    )
)
def test_any_row_is_a_preference_left_out_or_a_data_error(row):
    try:
        item = hh.convert(row, None)
        assert convert_row(hh.DATASET, row) == ((item,) if item else ())
    except harness.DataError:
        return


def test_every_real_row_is_accounted_for(real_data):
    """2312 rows: 4 have an empty answer; 13 transcripts hold two turns of the assistant in a row."""
    with gzip.open(real_data / "hh-rlhf/test.jsonl.gz", "rt", encoding="utf-8") as file:
        made = [convert_row(hh.DATASET, json.loads(line)) for line in file]
    assert len(made) == 2312 and sum(map(len, made)) == 2308
    assert [number for number, items in enumerate(made, 1) if not items] == [87, 517, 926, 1104]
    assert {(len(item.chosen), len(item.rejected)) for (item,) in filter(None, made)} == {(1, 1)}
