"""Recognising files: what a file is, why, and how sure; nothing is guessed where it could be wrong."""

import gzip
import json
import re
import shlex

import pytest
from ruamel.yaml import YAML

import harness
from harness.data import SourceReport, load_source, read_rows
from harness.data.convert import recognise as recognising
from harness.data.convert.recognise import recognise
from harness.data.convert.sample import SampledRows
from harness.data.convert.sources import resolved
from harness.nouns import Match
from harness.options import Options
from harness.plugins import Plugins
from harness.recipe import DataSource, source_model
from tests.following import follow


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


def said(row, options):
    return harness.Conversation.of(("user", str(row.get("q"))), ("assistant", str(row["a"])))


def asked(row, options):
    return harness.Conversation.of(("user", row["instruction"]), ("assistant", row["output"]))


def dataset(name, *fields, convert=said, **more):
    return harness.Dataset(name, f"what {name} is", convert, fields=fields, **more)


def choose(path, datasets, *more, **given):
    """Choose as `auto` does; where it refuses, its hints are followed, and must lose no text."""
    try:
        return recognising.choose(path, datasets, *more, **given)
    except harness.DataError as error:
        follow(str(error), datasets)
        raise


def known(*declared):
    return {one.name: one for one in declared}


ROWS = {
    "alpaca": {"instruction": "Say hi", "input": "", "output": "Hi"},
    "messages": {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}]},
    "text": {"text": "Once upon a time."},
    "dolly": {"instruction": "Say hi", "context": "", "response": "Hi", "category": "open_qa"},
    "platypus": {"instruction": "Say hi", "input": "", "output": "Hi", "data_source": "ARB"},
    "prompt_completion": {"prompt": "Say hi", "completion": "Hi"},
    "feedback": {"prompt": "Say hi", "completion": "Hi", "label": True},
    "preferences": {"prompt": "Say hi", "chosen": "Hi", "rejected": "No"},
    "hh": {"chosen": "\n\nHuman: Hi\n\nAssistant: Hello.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
}


@pytest.mark.parametrize("name", ROWS)
def test_each_format_is_recognised(name, datasets, write_rows):
    match = choose(str(write_rows(*[ROWS[name]] * 3)), datasets)
    assert (match.dataset, match.rows, match.error, match.sureness) == (name, 3, None, 1.0)
    assert "100% of the 3 rows looked at" in match.why


def test_the_one_that_knows_more_of_the_row_wins(write_rows):
    both = known(dataset("plain", ("q?", "a")), dataset("graded", ("q?", "a", "grade")))
    path = write_rows({"q": "1+1?", "a": "2", "grade": 5})
    assert [match.dataset for match in recognise(SampledRows.of(str(path)), both)] == ["graded", "plain"]
    assert choose(str(path), both).dataset == "graded"
    assert choose(str(write_rows({"q": "1+1?", "a": "2", "grade": None})), both).dataset == "plain"


def test_a_dataset_that_would_lose_a_column_is_not_chosen(write_rows):
    path, plain = str(write_rows({"q": "1+1?", "a": "2", "when": 3, "who": "me"})), known(dataset("plain", ("q", "a")))
    with pytest.raises(harness.DataError, match=r"(?s)no dataset fits.* the columns 'when', 'who' would be lost"):
        choose(path, plain)
    with pytest.raises(harness.DataError, match="the column 'when' would be lost"):
        choose(path, plain, unread=("who",))
    assert choose(path, plain, unread=("who", "when")).sureness == 1
    assert choose(path, known(dataset("plain", ("q", "a", "-who"), metadata=("when",)))).sureness == 1


def test_some_wrong_rows_make_it_less_sure_and_the_first_is_told(write_rows):
    path = write_rows(*[{"q": "?", "a": "2"}] * 3, {"q": "?"})
    match = choose(str(path), known(dataset("plain", ("q", "a"))))
    assert match.sureness == 0.75 and match.error == "row 4: it lacks a"


def test_two_that_fit_equally_are_refused_with_both_and_how_to_choose(write_rows):
    both = known(dataset("one", ("q", "a")), dataset("two", ("q", "a")))
    with pytest.raises(harness.DataError) as caught:
        choose(str(write_rows({"q": "?", "a": "!"})), both)
    told = str(caught.value)
    assert "'one' and 'two' fit equally well" in told and "- dataset: one" in told and "- dataset: two" in told
    assert "what one is" in told and "what two is" in told


def test_of_two_with_the_same_fields_the_one_that_reads_the_rows_is_chosen(write_rows):
    def refuse(row, options):
        raise harness.DataError("not a transcript")

    both = known(dataset("one", ("q", "a")), dataset("two", ("q", "a"), convert=refuse))
    assert choose(str(write_rows({"q": "?", "a": "!"})), both).dataset == "one"


def test_one_that_knows_more_but_cannot_read_the_rows_is_not_passed_over_in_silence(write_rows):
    def refuse(row, options):
        raise harness.DataError("the label should be true or false")

    both = known(dataset("plain", ("a",)), dataset("labelled", ("a", "label"), convert=refuse))
    with pytest.raises(harness.DataError, match="'labelled', which reads 0% of them: row 1: the label should be"):
        choose(str(write_rows({"a": "!", "label": "maybe"})), both)


def test_where_nothing_fits_the_nearest_and_what_is_missing_are_named(write_rows):
    path = write_rows({"instrction": "Say hi", "output": "Hi"})
    alpaca = dataset("alpaca", ("instruction", "output", "input?"), convert=asked)
    with pytest.raises(harness.DataError) as caught:
        choose(str(path), known(dataset("plain", ("q", "a")), alpaca))
    assert re.match(
        r"(?s)" + re.escape(str(path)) + r": no dataset fits: row 1 has instrction, output\. The nearest is 'alpaca', "
        r"which also needs instruction\. .*\n    - dataset: alpaca\n .*\n      columns: \{instruction: instrction\}$",
        str(caught.value)
    ), caught.value  # fmt: skip


@pytest.mark.parametrize("judged", [(True, False), ("true", "false")])
@pytest.mark.parametrize("more", [{}, {"input": "Soon."}])
def test_answers_judged_true_or_false_are_feedback_and_never_trained_on_unjudged(more, judged, write_rows, datasets):
    row = {"instruction": "Say hi", "output": "Go away", **more}
    choosing = choose if judged[0] is True else recognising.choose  # a judgement in words is no text to come through
    assert choose(str(write_rows(row | {"kto_tag": True}, row | {"kto_tag": False})), datasets).dataset == "feedback"
    for name, ours in (("tag", "kto_tag"), ("is_good", "label")):
        with pytest.raises(harness.DataError) as caught:
            choosing(str(write_rows(row | {name: judged[0]}, row | {name: judged[1]})), datasets)
        pasted = re.findall(r"- dataset: (\w+)\n.*\n +columns: (.*)", str(caught.value))
        assert pasted == [("feedback", f"{{{ours}: {name}}}")]
        assert "unread:" not in str(caught.value)


@pytest.mark.parametrize("names", [("chosen_text", "rejected_text"), ("text_chosen", "text_rejected")])
@pytest.mark.parametrize("more", [{"prompt": "q"}, {"question": "q", "system": "", "history": []}])
def test_the_two_answers_of_a_preference_are_known_by_longer_names(names, more, write_rows, datasets):
    rows = (
        more | dict(zip(names, ("good", "bad"), strict=True)),
        more | dict(zip(names, ("well", "ill"), strict=True)),
    )
    with pytest.raises(harness.DataError) as caught:
        choose(str(write_rows(*rows)), datasets)
    pasted = re.findall(r"- dataset: (\w+)\n.*\n +columns: (.*)", str(caught.value))
    assert pasted == [("preferences", f"{{chosen: {names[0]}, rejected: {names[1]}}}")]
    assert "The nearest is" not in str(caught.value)


def test_a_column_that_another_dataset_reads_is_not_offered_to_be_left_out(write_rows, datasets):
    row = {"instruction": "Say hi", "input": "Soon.", "output": "Hi", "mood": "glad"}
    with pytest.raises(harness.DataError, match=r"`unread: \[mood\]`") as caught:
        choose(str(write_rows(row)), datasets)
    assert "prompt_completion" not in str(caught.value)


def test_pairs_beside_other_messages_are_said_to_be_preferences(write_rows, datasets):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "other"}]
    path = write_rows({"prompt": "q", "chosen": "good", "rejected": "bad", "messages": talk})
    with pytest.raises(harness.DataError, match=r"\n  preferences: row 1: the column 'messages' would be lost"):
        recognising.choose(str(path), datasets)


@pytest.mark.parametrize("label", ["glad", 0, 1])
def test_a_label_in_words_or_numbers_beside_an_answer_is_no_judgement_and_may_be_left_out(label, write_rows, datasets):
    path = write_rows({"instruction": "Say hi", "output": "Hi", "label": label})
    with pytest.raises(harness.DataError, match=rf"(?s)found {label!r}.*\n  alpaca: .*`unread: \[label\]`") as caught:
        choose(str(path), datasets)
    assert f"`harness data validate --dataset feedback {path}`" in str(caught.value)


def test_where_the_fields_fit_but_not_the_rows_the_reason_is_told(write_rows):
    def refuse(row, options):
        raise harness.DataError("nobody answers")

    with pytest.raises(harness.DataError, match=r"fields of 'plain', which reads 0% of them: row 1: nobody answers"):
        choose(str(write_rows({"a": "!"})), known(dataset("plain", ("a",), convert=refuse)))


def test_one_that_leaves_every_row_out_is_not_chosen(write_rows):
    with pytest.raises(harness.DataError, match="it leaves every row out"):
        choose(str(write_rows({"a": "!"})), known(dataset("picky", ("a",), convert=lambda row, options: None)))


def test_one_that_must_be_told_more_is_not_guessed(write_rows):
    class Task(Options):
        task: str

    told = known(dataset("tasks", ("a",), convert=lambda row, options: said(row, options), options=Task))
    with pytest.raises(harness.DataError, match="cannot be used without being told: task"):
        choose(str(write_rows({"a": "!"})), told)


def test_rows_that_belong_together_are_tried_together(write_rows):
    def pairs(rows, options):
        asked = {}
        for number, row in rows:
            if row["id"] in asked:
                yield number, {"q": asked.pop(row["id"]), "a": row["said"]}
            else:
                asked[row["id"]] = row["said"]

    path = write_rows(*({"id": n % 100, "said": "text"} for n in range(200)))
    match = choose(str(path), known(dataset("pairs", ("id", "said"), gather=pairs)))
    assert (match.dataset, match.sureness) == ("pairs", 1.0)


def test_a_gather_that_trips_over_rows_of_another_format_does_not_matter(write_rows):
    def trips(rows):
        yield from ((number, row["nothing"]["like"]) for number, row in rows)

    both = known(dataset("plain", ("q", "a")), dataset("trees", ("q",), gather=trips))
    assert choose(str(write_rows({"q": "?", "a": "!"})), both).dataset == "plain"


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "there are no rows in it"), ("not JSON", "row 1: not valid JSON"), ("[1]", "a row should be an object")],
)
def test_a_file_without_rows_is_told_as_such(content, told, tmp_path, datasets):
    (tmp_path / "any.json").write_text(content)
    with pytest.raises(harness.DataError, match=told):
        choose(str(tmp_path / "any.json"), datasets)


def test_a_data_set_without_fields_is_never_guessed(write_rows):
    assert recognise(SampledRows.of(str(write_rows({"a": "!"}))), known(harness.Dataset("quiet", "", said))) == []


def test_auto_stands_in_for_what_fits(write_rows, datasets):
    path = write_rows(ROWS["alpaca"])
    (item,) = load_source(DataSource(dataset="auto", path=str(path)), datasets, SourceReport("auto", str(path)))
    assert item.source == "alpaca" and item.messages[1].content == "Hi"


def test_the_columns_are_renamed_before_it_is_judged(write_rows, datasets):
    path = write_rows(*[{"q": "Say hi", "a": "Hi"}] * 3)
    columns = {"instruction": "q", "output": "a"}
    match = choose(str(path), datasets, columns)
    assert (match.dataset, match.sureness) == ("alpaca", 1.0)
    (item, *_) = load_source(DataSource(dataset="auto", path=str(path), columns=columns), datasets)
    assert [message.content for message in item.messages] == ["Say hi", "Hi"]


def test_rows_that_belong_together_are_renamed_too(write_rows):
    both = known(
        dataset(
            "pairs", ("id", "said"), gather=lambda rows, options: ((n, {"q": r["said"], "a": "!"}) for n, r in rows)
        )
    )
    path = write_rows(*[{"id": 1, "text": "Hi"}] * 3)
    assert choose(str(path), both, {"said": "text"}).sureness == 1.0


def test_what_is_missing_is_asked_for_beside_the_columns_that_are_renamed(write_rows, datasets):
    path = write_rows({"q": "Say hi", "outputt": "Hi"})
    with pytest.raises(harness.DataError, match=r"columns: \{instruction: q, output: outputt\}"):
        choose(str(path), datasets, {"instruction": "q"})
    with pytest.raises(harness.DataError, match=r"row 1: the column 'p' is missing"):
        choose(str(path), datasets, {"instruction": "p"})


def test_auto_reads_the_sample_once(write_rows, datasets, monkeypatch):
    from harness.data.convert import sample as module

    read = []
    monkeypatch.setattr(
        module, "read_rows", lambda file, told, key: read.append(file) or read_rows(file, told, key=key)
    )
    path = str(write_rows(ROWS["alpaca"]))
    _, source, match = resolved(DataSource(dataset="auto", path=path), datasets)
    assert (source.dataset, match.dataset, read) == ("alpaca", "alpaca", [path])


def test_a_plugins_stand_in_sees_the_source_and_names_the_data_set(write_rows):
    plain, seen = dataset("plain", ("q", "a")), []
    match = Match("plain", why="there is no other")
    mine = harness.Dataset("mine", "", said, resolve=lambda path, datasets, options: seen.append(options) or match)
    asked = DataSource(dataset="mine", path=str(write_rows({"q": "?", "a": "!"})), columns={"q": "q"})
    chosen, source, resolved_by = resolved(asked, known(plain, mine))
    assert (chosen, source.dataset, resolved_by, seen) == (plain, "plain", match, [asked])


def test_of_very_long_rows_few_are_sampled(write_rows, datasets, monkeypatch):
    from harness.data.convert import sample as module

    monkeypatch.setattr(module, "CHARACTERS", 2500)
    assert choose(str(write_rows(*[{"instruction": "?", "output": "a" * 1000}] * 9)), datasets).rows == 3


# Real files. What holds evaluation items without answers is nobody's, and must be refused; so must empty files.

REAL = {
    "flan-cot/creak_train.tsv": "flan",
    "flan-cot/gsm8k_train.tsv": "flan",
    "flan-cot/strategyqa_train.tsv": "flan",
    "flan-cot/flan_collection_info.csv": None,
    "gpteacher/roleplay-simple-deduped-roleplay-dataset.json": "alpaca",
    "gpteacher/toolformer-similarity-0.6-dataset.json": "alpaca",
    "gsm8k/test.jsonl": "flan",
    "hh-rlhf/test.jsonl.gz": "hh",
    "ifeval/input_data.jsonl": None,
    "llamafactory-demo/alpaca_en_demo.json": "alpaca",
    "llamafactory-demo/c4_demo.jsonl": "text",
    "llamafactory-demo/dpo_en_demo.json": "preferences",
    "llamafactory-demo/glaive_toolcall_en_demo.json": "sharegpt",
    "llamafactory-demo/identity.json": "alpaca",
    "llamafactory-demo/kto_en_demo.json": "feedback",
    "llamafactory-demo/reason_tool_use_demo_50.jsonl": "messages",
    "mt-bench/mt_bench_question.jsonl": None,
    "mt-bench/mt_bench_reference_gpt-4.jsonl": None,
    "oasst/en_100_message.jsonl": "oasst",
    "oasst/en_100_tree.jsonl": "oasst",
    "p3-rendered/xsum_summarize_DOC.jsonl": "prompt_completion",
    "p3-rendered/*.jsonl": "prompt_completion",
    "p3-rendered/trec_fine_grained_ABBR.jsonl": None,
    "self-instruct/seed_tasks.jsonl": "seed_tasks",
    "self-instruct/user_oriented_instructions.jsonl": "seed_tasks",
    "sharegpt/dialogstudio_sharegpt_converted_example.json": "sharegpt",
    "sharegpt/dialogstudio_sharegpt_original_example.json": "sharegpt",
    "sharegpt/dummy_conversation.json": "sharegpt",
}


@pytest.mark.parametrize("file", REAL)
def test_real_files_are_recognised_as_what_they_are(file, real_data, datasets):
    path = str(real_data / file)
    if (expected := REAL[file]) is None:
        with pytest.raises(harness.DataError, match=r"no dataset fits|no rows"):
            choose(path, datasets)
        return
    match = choose(path, datasets)
    assert match.dataset == expected, match


def test_a_folder_of_different_kinds_is_told_file_by_file(real_data, datasets):
    with pytest.raises(harness.DataError, match=r"its files are of different kinds: .*alpaca"):
        choose(str(real_data / "llamafactory-demo" / "*.json*"), datasets)


def test_compressed_rows_are_recognised_too(tmp_path, datasets):
    with gzip.open(tmp_path / "rows.jsonl.gz", "wt") as file:
        file.write(json.dumps(ROWS["alpaca"]) + "\n")
    assert choose(str(tmp_path / "rows.jsonl.gz"), datasets).dataset == "alpaca"


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"version": 1, "data": [{"instruction": "Who?", "output": "The heron."}]},
         r"The list 'data' may hold the rows: `rows: data` in the source \(of a FILE: `--set rows=data`\) reads 1 of "
         r"them, as 'alpaca', and not version\."),
        ({"data": [{"instruction": "Who?", "output": "The heron."}]},
         r"`--set rows=data`\) reads 1 of them, as 'alpaca'\."),
        ({"role": "user", "content": "Who?"}, "A row with role and content is one message"),
    ],
    ids=["rows in a list, and more", "rows in a list", "messages without a list"],
)  # fmt: skip
def test_what_is_more_or_less_than_a_row_is_told(row, told, write_rows):
    with pytest.raises(harness.DataError, match=told):
        choose(str(write_rows(row)), Plugins().datasets)


# Hints


def refusal(write_rows, *rows) -> str:
    with pytest.raises(harness.DataError) as caught:
        recognising.choose(str(write_rows(*rows)), Plugins().datasets)
    return str(caught.value)


def test_a_further_column_does_not_hide_the_one_to_rename(write_rows):
    told = refusal(write_rows, {"instrction": "Say hi", "outpt": "Hi", "topic": "x"})
    (line,) = re.findall(r"`- (\{dataset: .*\})`", told)
    source = YAML(typ="safe").load(line)
    assert source["columns"] == {"instruction": "instrction", "output": "outpt"} and source["unread"] == ["topic"]
    assert "'topic', which would be lost" in told
    model = source_model(Plugins().datasets[source["dataset"]])
    (item,) = load_source(model(**source), Plugins().datasets)
    assert [message.content for message in item.messages] == ["Say hi", "Hi"]


def test_two_texts_under_other_names_are_proposed_in_each_order(write_rows):
    told = refusal(write_rows, {"tweet": "I am sad", "emotion": "sadness"}, {"tweet": "I am glad", "emotion": "joy"})
    proposed = re.findall(r"- dataset: (\w+)\n.*\n +columns: (.*)", told)
    assert ("flan", "{text: tweet, label: emotion}") in proposed
    assert ("prompt_completion", "{prompt: tweet, completion: emotion}") in proposed
    assert follow(told, Plugins().datasets) == len(proposed) == 4


def test_the_reason_that_counts_comes_first_and_other_kinds_are_not_mentioned(write_rows):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    told = refusal(write_rows, {"messages": talk, "summary": "They talk."})
    assert re.search(r"without loss:\n  messages: row 1: the column 'summary' would be lost", told)
    assert not re.search("bedrock|swift_tools|cohere|hermes", told)
    told = refusal(
        write_rows, {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a", "loss": 3}]}
    )
    assert "the rows have the fields of 'sharegpt', which reads 0% of them: row 1: turn 2: the loss should be" in told


def test_to_leave_a_column_out_is_proposed_only_where_that_makes_rows_readable(write_rows):
    told = refusal(write_rows, {"messages": [{"role": "user", "content": "q"}], "reference": "4"})
    assert "a prompt without an answer is nothing to train on" in told and "unread:" not in told


@pytest.mark.parametrize("name", ["images", "audio", "video_path", "image_url"])
def test_pictures_and_sounds_are_not_proposed_to_be_left_out(name, write_rows):
    talk = [{"role": "user", "content": "<image>q"}, {"role": "assistant", "content": "a"}]
    told = refusal(write_rows, {"messages": talk, name: ["lamp.jpg"]})
    assert "`on_bad_row: drop`" in told and "unread:" not in told


def test_messages_on_their_own_are_not_proposed_as_texts_and_labels(write_rows):
    told = refusal(write_rows, {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"})
    assert "is one message" in told and "- dataset:" not in told


def test_a_mark_of_a_row_is_not_proposed_as_its_verdict(write_rows):
    told = refusal(write_rows, {"prompt": "q", "response": "a", "train": False})
    assert "may say what is not trained on" in told and "feedback" not in told


def test_an_option_to_type_is_quoted_for_the_shell(write_rows):
    told = refusal(write_rows, {"prompt": "q", "response": "a", "Unnamed: 0": 7})
    (option,) = re.findall(r"`(--set .*)`\)", told)
    assert shlex.split(option) == ["--set", 'unread=["Unnamed: 0"]']


def test_a_first_line_that_may_be_no_header_is_mentioned(tmp_path):
    (tmp_path / "rows.csv").write_text("one thing,two things\nthree,four\n")
    with pytest.raises(harness.DataError, match="if the first line is no header, add one, or it is lost"):
        choose(str(tmp_path / "rows.csv"), Plugins().datasets)


@pytest.mark.parametrize("mark", [{"mask": 1}, {"learn": False}, {"ignore_loss": True}, {"skip": 1}])
def test_a_mark_under_another_name_is_not_proposed_to_be_left_out(mark, write_rows):
    talk = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", **mark}]
    told = refusal(write_rows, {"messages": talk})
    assert "may say what is not trained on" in told and "`train` of a message" in told and "unread:" not in told
