"""flan, natural_instructions, seed_tasks: labelled rows become the same instructions each time, and leak nothing."""

import json
import pickle
import re

import pydantic
import pytest
from harness_datasets import flan, natural_instructions, phrasings, seed_tasks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import harness
from harness.data import SourceReport, UnreadError, convert_row, load_source
from harness.recipe import source_model

DATASETS = {module.DATASET.name: module.DATASET for module in (flan, natural_instructions, seed_tasks)}
OURS = phrasings.load_tasks(phrasings.OURS)
KINDS = {
    "nli": {"premise": "A dog runs.", "hypothesis": "An animal moves.", "label": 0},
    "sentiment": {"text": "What a fine boat.", "label": "pos"},
    "topic": {"text": "The otters won again.", "label": "Sports"},
    "reading": {"context": "The heron keeps a key.", "question": "What is kept?",
                "answers": {"text": ["a key"], "answer_start": [15]}},
    "question_answering": {"question": "Who keeps the key?", "answer": ["the heron", "a heron"]},
    "summarisation": {"document": "It rained all day. It did not stop.", "summary": "Rain."},
    "paraphrase": {"sentence1": "It rains.", "sentence2": "Rain falls.", "label": True},
    "translation": {"source": "Der Reiher.", "target": "The heron.", "source_language": "German",
                    "target_language": "English"},
    "coreference": {"text": "The otter left, since it slept.", "span1_text": "The otter", "span2_text": "it",
                    "label": 1},
    "blank": {"sentence": "The key fits the lock since _ is small.", "option1": "key", "option2": "lock",
              "answer": "1"},
    "commonsense": {"question": "Where do fish swim?",
                    "choices": {"text": ["on roads", "in rivers"], "label": ["A", "B"]}, "answerKey": "B"},
    "arithmetic": {"question": "Two otters and three?", "answer": "2 + 3 = <<2+3=5>>5 otters.\n#### 5"},
    "cot": {"1": "Is snow warm?", "2": "no", "3": "Snow is frozen water."},
}  # fmt: skip
SAYS = {
    "nli": "entailment", "sentiment": "positive", "topic": "Sports", "reading": "a key",
    "question_answering": "the heron", "summarisation": "Rain.", "paraphrase": "yes", "translation": "The heron.",
    "coreference": "yes", "blank": "key", "commonsense": "in rivers", "arithmetic": "5", "cot": "no",
}  # fmt: skip


def phrased(row, **options):
    """Prompt and answer of every conversation that a row becomes."""
    items = convert_row(flan.DATASET, row, flan.FlanOptions(**options))
    assert all([message.role for message in item.messages] == ["user", "assistant"] for item in items)
    return [(item.messages[0].content, item.messages[1].content) for item in items]


@pytest.fixture
def load():
    def load(path, dataset="flan", report=None, **options):
        source = source_model(DATASETS[dataset])(dataset=dataset, path=str(path), **options)
        return list(load_source(source, DATASETS, report))

    return load


@pytest.fixture
def tasks_file(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


# Phrasings


def test_at_least_ten_kinds_of_task_have_five_phrasings_and_two_inverted_ones():
    assert set(KINDS) <= set(OURS.tasks)
    for name in KINDS:
        task = OURS.tasks[name]
        assert len({phrasing.prompt for phrasing in task.phrasings}) >= 5, name
        assert len({phrasing.prompt for phrasing in task.inverted}) >= 2, name
    assert len(OURS.chain_of_thought) >= 5 and len(OURS.few_shot) >= 5


@pytest.mark.parametrize("task", KINDS)
def test_every_phrasing_of_a_task_can_be_filled_and_says_the_answer(task):
    row, spec = KINDS[task], OURS.tasks[task]
    values = flan.FlanOptions(
        task=task,
        phrasings="all",
        inverted=1,
        chain_of_thought=False,
        labels={"s": "Sports", "w": "World"} if task == "topic" else {},
    )
    items = convert_row(flan.DATASET, row, values)
    assert len(items) == len(spec.phrasings) + len(spec.inverted)
    for phrasing, item in zip((*spec.phrasings, *spec.inverted), items, strict=True):
        prompt, answer = item.messages[0].content, item.messages[1].content
        assert "{" not in prompt + answer and answer.strip()
        if phrasing in spec.phrasings and phrasing.answer == "{answer}":
            assert answer == phrasing.words.get(SAYS[task], SAYS[task])


@pytest.mark.parametrize("task", KINDS)
def test_a_row_gets_the_same_phrasing_wherever_it_stands_and_another_with_another_seed(task, write_rows, load):
    row = KINDS[task]
    alone = load(write_rows(row, name="a.jsonl"), task=task)
    among = load(write_rows(*[KINDS[task]] * 3, name="b.jsonl"), task=task)
    assert [item.messages for item in among] == [alone[0].messages] * 3
    assert len({phrased(row, task=task, seed=seed)[0] for seed in range(40)}) >= (2 if task == "topic" else 4)


def test_an_id_or_another_column_does_not_change_the_phrasing():
    row = KINDS["nli"]
    assert phrased(row, task="nli") == phrased({"idx": 7, **row, "pairID": "x"}, task="nli")
    with pytest.raises(UnreadError, match="the column 'source' would be lost"):
        phrased({**row, "source": "x"}, task="nli")


def test_rows_are_spread_over_the_phrasings():
    rows = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(300)]
    used = [phrased(row, task="question_answering")[0][0].replace(row["question"], "?") for row in rows]
    assert len(set(used)) == 6 and all(used.count(one) > 25 for one in set(used))


def test_what_is_filled_in_is_text_and_not_looked_at_for_places():
    row = {"question": "What is {answer}? {{x}} {0}", "answer": "{question}"}
    assert phrased(row, phrasings="all", task="question_answering")[0] == (row["question"], "{question}")


# Inputs, answers, options


def test_labels_are_numbers_words_or_letters():
    for label in (0, "0", 0.0, "entailment", "Entailment"):
        assert phrased(KINDS["nli"] | {"label": label}, task="nli", phrasings="all")[2][1] == "entailment"
    for label in ("A", "a", 0, "0", "on roads"):
        row = {"question": "Where?", "choices": ["on roads", "in rivers"], "answer": label}
        assert phrased(row, task="commonsense", phrasings="all")[0][1] == "on roads"
    listed = [{"label": "x", "text": "here"}, {"label": "y", "text": "there"}]
    assert phrased({"question": "Where?", "choices": listed, "answerKey": "y"}, phrasings="all")[0][1] == "there"


def test_options_are_listed_in_the_words_of_the_phrasing():
    prompt, answer = phrased(KINDS["nli"], task="nli", phrasings="all")[1]
    assert prompt.endswith("- Yes\n- Perhaps\n- No") and answer == "Yes"
    prompt, answer = phrased(KINDS["commonsense"], task="commonsense", phrasings="all")[1]
    assert prompt == "Where do fish swim?\nA. on roads\nB. in rivers" and answer == "B"


def test_numbered_labels_are_named_by_the_recipe_and_never_guessed():
    row = {"text": "The otters won.", "label": 1}
    with pytest.raises(
        harness.DataError, match=r"the label in the column 'label' is the number 1: say .*`labels: \{1: WORDS"
    ):
        phrased(row, task="topic")
    prompt, answer = phrased(row, task="topic", labels={0: "World", 1: "Sports"}, phrasings="all")[0]
    assert prompt.endswith("Choose from World or Sports.") and answer == "Sports"
    # Three-way sentiment: the possible answers are the recipe's.
    assert phrased({"text": "Hm.", "label": 2}, task="sentiment", labels={0: "bad", 1: "good", 2: "neither"},
                   phrasings="all")[0] == (
        "Hm.\n\nIs this bad, good or neither?", "neither",
    )  # fmt: skip


def test_rows_without_a_label_are_left_out_and_counted(write_rows, load):
    rows = [KINDS["nli"], KINDS["nli"] | {"label": -1}, KINDS["nli"] | {"label": "-"}]
    report = SourceReport("flan", "")
    assert len(load(write_rows(*rows), task="nli", report=report)) == 1
    assert dict(report.left_out) == {"flan: no usable label": 2}


def test_phrasings_that_a_row_cannot_fill_are_not_used():
    row = {"source": "Der Reiher.", "target": "The heron."}
    with pytest.raises(
        harness.DataError, match=r"no phrasing of the task 'translation' can be filled.*`values: \{source_language"
    ):
        phrased(row, task="translation")
    some = phrased(row, task="translation", values={"target_language": "English"}, phrasings="all")
    assert len(some) == 4 and all("English" in prompt for prompt, _ in some)


def test_a_task_of_ones_own_may_look_into_an_object(tasks_file, write_rows, load):
    path = tasks_file(
        "tasks:\n  de:\n    inputs: [translation.de]\n    answer: translation.en\n"
        '    phrasings: [{prompt: "{translation.de}"}]\n'
    )
    row = {"translation": {"de": "Ja", "en": "Yes"}}
    assert phrased(row, task=str(path)) == [("Ja", "Yes")] == phrased(row, task=f"{path}:de")
    # A relative path is also one from the folder of the data.
    item = load(write_rows(row), task="mine.yaml")[0]
    assert [message.content for message in item.messages] == ["Ja", "Yes"]


def test_a_task_file_of_a_recipe_is_looked_for_in_the_recipes_folder_then_in_the_datas(
    tasks_file, tmp_path, monkeypatch
):
    model = source_model(flan.DATASET)
    text = tasks_file(GOOD).read_text()
    for folder in ("recipe", "recipe/data", "here"):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / "tasks.yaml").write_text(text)
    monkeypatch.chdir(tmp_path / "here")
    recipe = {"folder": tmp_path / "recipe"}

    def task(name, path="data/rows.jsonl"):
        return model.model_validate({"dataset": "flan", "path": path, "task": name}, context=recipe).task

    assert task("tasks.yaml") == str(tmp_path / "recipe" / "tasks.yaml")
    assert task("tasks.yaml:mine") == f"{tmp_path / 'recipe' / 'tasks.yaml'}:mine"
    assert task("nli") == "nli" and task(str(tmp_path / "here" / "tasks.yaml")) == str(tmp_path / "here" / "tasks.yaml")
    (tmp_path / "recipe" / "tasks.yaml").unlink()
    assert task("tasks.yaml") == str(tmp_path / "recipe" / "data" / "tasks.yaml")
    with pytest.raises(pydantic.ValidationError, match="no task 'mien'"):
        task("tasks.yaml:mien")


def test_columns_of_a_recipe_are_renamed_for_the_row_and_for_its_exemplars(write_rows, load):
    rows = [{"claim": f"Claim {n}.", "text": f"Text {n}.", "label": "neutral"} for n in range(5)]
    items = load(write_rows(*rows), task="nli", columns={"premise": "text", "hypothesis": "claim"}, shots=2)
    assert all(item.messages[0].content.count("Text ") >= 3 for item in items)


# Inversion


def test_inversion_asks_for_the_input():
    row = KINDS["summarisation"]
    (prompt, answer), = phrased(row, inverted=1)  # fmt: skip
    assert answer == row["document"] and row["summary"] in prompt and row["document"] not in prompt


def test_the_share_of_inverted_rows_is_about_what_the_recipe_says():
    rows = [{"document": f"Long text {n}.", "summary": f"Short {n}."} for n in range(400)]
    inverted = sum(phrased(row, inverted=0.3)[0][1] == row["document"] for row in rows)
    assert 80 < inverted < 160
    assert not any(phrased(row)[0][1] == row["document"] for row in rows[:50])


def test_a_task_without_inverted_phrasings_says_so():
    with pytest.raises(harness.DataError, match="'rendered' has no inverted phrasings: leave `inverted` out"):
        phrased({"inputs": "a", "targets": "b"}, inverted=0.5)


# Chains of thought


@pytest.mark.parametrize("task", ["arithmetic", "cot"])
def test_a_chain_of_thought_comes_first_and_the_last_line_has_the_answer(task):
    for seed in range(20):
        (prompt, answer), = phrased(KINDS[task], task=task, seed=seed)  # fmt: skip
        *reasons, last = answer.splitlines()
        assert SAYS[task] in last and any("otters" in line or "frozen" in line for line in reasons)
        assert "<<" not in answer and "####" not in answer
        assert not any(
            phrasing.standalone and prompt.startswith(phrasing.prompt.split("{")[0] or "\0")
            for phrasing in OURS.tasks[task].phrasings
        )


def test_chains_of_thought_are_for_the_share_of_rows_that_the_recipe_says():
    rows = [{"1": f"Is {n} even?", "2": "yes", "3": f"Since {n} is twice something."} for n in range(300)]
    assert all("Since" in phrased(row)[0][1] for row in rows)
    assert not any("Since" in phrased(row, chain_of_thought=False)[0][1] for row in rows)
    assert 90 < sum("Since" in phrased(row, chain_of_thought=0.5)[0][1] for row in rows) < 210
    assert phrased(KINDS["nli"], task="nli")[0][1].count("\n") == 0  # no rationale, no chain of thought


# Exemplars


def numbered(count, **more):
    return [
        {
            "question": f"How many are {n} otters and one?",
            "answer": f"exactly {n + 1} otters, no more and no fewer",
            **more,
        }
        for n in range(count)
    ]


@pytest.mark.parametrize("inverted", [0, 1])
def test_exemplars_never_hold_the_rows_own_answer(inverted, write_rows, load):
    rows = numbered(40)
    rows += [row | {"answer": row["answer"].upper()} for row in rows[:5]]  # the same again, in other letters
    items = load(write_rows(*rows), task="question_answering", shots=4, inverted=inverted)
    assert len(items) == len(rows)
    for item, row in zip(items, rows, strict=True):
        prompt, answer = item.messages[0].content, item.messages[1].content
        assert answer == row["question" if inverted else "answer"]
        assert answer.casefold() not in prompt.casefold()
        assert len(re.findall(r"How many are \d+ otters", prompt)) == (4 if inverted else 5)


def test_exemplars_of_a_classification_may_share_the_label_but_not_the_input(write_rows, load):
    rows = [{"text": f"Text {n % 20}.", "label": n % 2} for n in range(40)]
    items = load(write_rows(*rows), task="sentiment", shots=5)
    for item, row in zip(items, rows, strict=True):
        assert item.messages[0].content.count(row["text"]) == 1
    answers = [("negative", "positive")[row["label"]] for row in rows]
    same = sum(item.messages[0].content.count(answer) for item, answer in zip(items, answers, strict=True))
    assert same > 40  # else the label that is missing from the exemplars would be the answer


def test_yes_and_no_without_declared_options_may_come_again_among_the_exemplars(write_rows, load):
    rows = [{"1": f"Is {n} odd?", "2": "no" if n % 2 else "yes", "3": ""} for n in range(60)]
    items = load(write_rows(*rows), task="cot", shots=3)
    same = [bool(re.search(rf"(?m)\b{item.messages[1].content}$", item.messages[0].content)) for item in items]
    assert 30 < sum(same) < 60


def test_exemplars_are_the_same_each_time_and_come_from_the_beginning_of_the_file(write_rows, load):
    rows = numbered(400)
    path = write_rows(*rows)
    items = load(path, task="question_answering", shots=2)
    assert items == load(path, task="question_answering", shots=2)
    longer = load(write_rows(*rows, *numbered(3), name="longer.jsonl"), task="question_answering", shots=2)
    assert [item.messages for item in longer[:400]] == [item.messages for item in items]
    numbers = [int(n) for item in items for n in re.findall(r"are (\d+) otters", item.messages[0].content)[:-1]]
    assert max(numbers) < flan.POOL and len(set(numbers)) > 200


def test_a_number_of_exemplars_is_drawn_from_a_list(write_rows, load):
    items = load(write_rows(*numbered(200)), task="question_answering", shots=[0, 2])
    counts = [item.messages[0].content.count("How many") for item in items]
    assert set(counts) == {1, 3} and 60 < counts.count(1) < 140


def test_exemplars_give_their_chain_of_thought_too(write_rows, load):
    rows = [{"question": f"{n} and 1?", "answer": f"Add 1 to {n}.\n#### {n + 1}"} for n in range(10)]
    for item in load(write_rows(*rows), shots=2):
        assert item.messages[0].content.count("Add 1 to") == 2 and item.messages[1].content.startswith("Add 1 to")


def test_too_few_other_rows_are_an_error_that_says_how_many_there_are(write_rows, load):
    with pytest.raises(
        harness.DataError, match=r"row 1: the row should have 3 exemplars, but of the first 2 rows of the file only 1"
    ):
        load(write_rows(*numbered(2)), task="question_answering", shots=3)
    with pytest.raises(harness.DataError, match="of the first 0 rows"):
        phrased(KINDS["nli"], task="nli", shots=1)


def test_wrong_rows_are_no_exemplars_and_are_told_when_it_is_their_turn(write_rows, load):
    path = write_rows(*numbered(4), {"question": "What?"}, *numbered(2))
    with pytest.raises(harness.DataError, match=r"rows.jsonl, row 5: the column 'answer' or 'answers' is missing"):
        load(path, task="question_answering", shots=2)
    path.write_text(path.read_text().replace('{"question": "What?"}', "not JSON"))
    with pytest.raises(harness.DataError) as caught:
        load(path, task="question_answering", shots=2)
    assert str(caught.value).count("row ") == 1 and "row 5: not valid JSON" in str(caught.value)


def test_without_exemplars_nothing_is_read_ahead_and_with_them_a_bounded_number_of_rows():
    taken = []

    def rows():
        for number in range(1, 10_000):
            taken.append(number)
            yield number, {"question": f"{number}?", "answer": f"{number}"}

    gathered = flan.gather(rows(), None)
    assert next(gathered)[0] == 1 and taken == [1]
    _, row = next(gathered)
    assert len(row[flan.OTHERS].first()) == flan.POOL == len(taken)
    assert [number for number, _ in gathered] == list(range(3, 10_000))
    assert len(row[flan.OTHERS].first()) == flan.POOL


def test_a_gathered_row_can_go_to_another_process():
    rows = list(flan.gather(enumerate(numbered(10), 1), None))
    options = flan.FlanOptions(task="question_answering", shots=2)
    there = pickle.loads(pickle.dumps(rows[3][1]))
    assert convert_row(flan.DATASET, there, options) == convert_row(flan.DATASET, rows[3][1], options)


# Which task


@pytest.mark.parametrize(
    "task",
    [
        "reading",
        "summarisation",
        "blank",
        "commonsense",
        "arithmetic",
        "cot",
        "coreference",
        "translation",
    ],
)
def test_a_task_is_known_by_its_columns(task):
    row = KINDS[task] | ({"label": "yes"} if task == "coreference" else {})
    assert phrased(row) == phrased(row, task="arc" if task == "commonsense" else task)


def test_what_could_be_several_tasks_or_has_numbered_labels_is_not_guessed():
    told = {
        "by the columns (premise, hypothesis, label) it could mean this": KINDS["nli"],
        "by the columns (text, label) it could mean this": {"text": "a", "label": 1},
        "it has the columns of no task. The row has: a.": {"a": 1},
    }  # fmt: skip
    for message, row in told.items():
        with pytest.raises(harness.DataError, match=re.escape(message)):
            phrased(row)
    assert phrased(KINDS["nli"] | {"label": "neutral"})


def test_rendered_instructions_stay_as_they_are():
    assert phrased({"inputs": "Say {hi}.", "targets": "Hi.", "task_name": "x"}) == [("Say {hi}.", "Hi.")]
    row = {"inputs": [1, 2], "targets": [3], "inputs_pretokenized": "Say hi.", "targets_pretokenized": "Hi."}
    assert phrased(row) == [("Say hi.", "Hi.")]


# What is wrong

BAD_ROWS = [
    ("nli", {"premise": "a", "label": 0},
     r"the column 'hypothesis' is missing, which the task 'nli' needs\. The row "
     r"has: premise, label\. .*`columns: \{hypothesis: NAME\}`"),
    ("nli", {"premise": "a", "hypotesis": "b", "label": 0},
     r"the column 'hypotesis' would be lost.* Did you mean 'hypothesis'\?"),
    ("nli", {"premise": "a", "hypothesis": "b"}, r"the column 'label' or 'gold_label' is missing"),
    ("nli", {"premise": "a", "hypothesis": "b", "label": 7},
     r"the label '7' in the column 'label' is not known.* Known: 0 \(entailment\), 1 \(neutral\).*`labels: \{7: WORDS"),
    ("nli", {"premise": "a", "hypothesis": "b", "label": "entailement"}, r"Did you mean 'entailment'\?"),
    ("nli", {"premise": {"a": 1}, "hypothesis": "b", "label": 0}, r"the column 'premise\.a' would be lost"),
    ("commonsense", {"question": "a", "choices": "b", "answer": 0},
     r"'choices' should hold the possible answers, a list of texts, found 'b'"),
    ("commonsense", {"question": "a", "choices": ["b", "c"], "answer": 2},
     r"the label 2 in the column 'answer' is none of the possible answers: b, c; a position is counted from 0"),
    ("blank", {"sentence": "a _", "option1": "b", "answer": "1"}, r"the column 'option2' is missing"),
    ("summarisation", {"document": "a", "summary": ""}, r"message 2 \(assistant\) is empty"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "row", "told"), BAD_ROWS)
def test_a_bad_row_is_told_by_file_row_and_column(task, row, told, write_rows, load):
    path = write_rows(KINDS[task], row)
    with pytest.raises(harness.DataError, match=rf"(?s)^{re.escape(str(path))}, row 2: .*{told}") as caught:
        load(path, task=task)
    assert flan.OTHERS not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"task": "nlii"}, r"no task 'nlii' in phrasings.yaml\. Did you mean 'nli'\?"),
        ({"task": "summarization"}, r"Did you mean 'summarisation'\?"),
        ({"shots": -1}, r"shots"),
        ({"shots": []}, r"shots"),
        ({"inverted": 1.5}, r"less than or equal to 1"),
        ({"chain_of_thought": "often"}, r"chain_of_thought"),
        ({"phrasings": "two"}, r"'one' or 'all'"),
        ({"shot": 1}, r"shot"),
    ],
)
def test_wrong_options_are_told_before_any_row_is_read(options, told):
    with pytest.raises(pydantic.ValidationError, match=told):
        flan.FlanOptions(**options)


GOOD = 'tasks:\n  mine:\n    inputs: [a]\n    answer: b\n    phrasings:\n      - prompt: "{a}"\n'
BAD_FILES = [
    ("", r"expected a mapping with `tasks`, found None"),
    ("tasks: [", r", line 1: not valid YAML"),
    ("tasks:\n  mine:\n    inputs: [a]\n    phrasings: [{prompt: {a}}]\n    answer: b\n",
     r"line 4: 'tasks.mine.phrasings.0.prompt' is .*a.*: input should be a valid string"),
    ("task: {}\n",
     r", line 1: unknown key 'task'\. Did you mean 'tasks'\? Known here: chain_of_thought, few_shot, tasks"),
    (GOOD.replace("answer:", "anser:"), r"line 4: unknown key 'tasks.mine.anser'\. Did you mean 'answer'\?"),
    (GOOD.replace("answer:", "anser:"), r"line 2: 'tasks.mine.answer' is missing"),
    (GOOD.replace("- prompt", "- promt"),
     r"line 6: unknown key 'tasks.mine.phrasings.0.promt'\. Did you mean 'prompt'\?"),
    (GOOD.replace('"{a}"', '"{aa} {b}"'), r"line 6: nothing fills the place \{aa\}\. .*It may be one of: a, answer, "),
    (GOOD.replace('"{a}"', '"{a} {answer}"'),
     r"line 6: the prompt gives the answer away: \{answer\} is what is asked for"),
    (GOOD.replace('"{a}"', '"{a"'), r"line 6: 'tasks.mine.phrasings.0.prompt' is '\{a'"),
    (GOOD.replace('"{a}"', '"{a:>9}"'), r"line 6: .*a place is \{column\}, and a brace that is none is doubled"),
    (GOOD + "        answer: b\n", r"line 7: the answer of a phrasing has \{answer\} or \{letter\} in it"),
    (GOOD.replace("[a]", "[letter]"), r"line 2: 'letter' cannot be a column"),
    (GOOD + "    options: {0: x}\n    inverted:\n      - {prompt: 'x {a}', answer: '{a}', words: {y: z}}\n",
     r"line 9: 'y' is not among the answers[\s\S]*line 9: the prompt gives the answer away: \{a\}"),
    (GOOD + "    remove: '('\n", r"line 7: 'tasks.mine.remove' is '\(': not a regular expression"),
    (GOOD + "chain_of_thought:\n  - {prompt: '{prompt}', answer: '{answer} since {rationale}'}\n",
     r"line 8: the last line of a chain of thought should have \{answer\}"),
    (GOOD + "few_shot:\n  - {shot: '{prompt}', question: '{prompt}'}\n",
     r"line 8: 'few_shot.0.shot' lacks the placeholder \{answer\}"),
    (GOOD + GOOD.partition("\n")[2].replace("mine", "other"),
     r"the file has several tasks: say which, as in `task: .*mine.yaml:mine`\. Tasks: mine, other"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), BAD_FILES)
def test_a_wrong_file_of_phrasings_is_told_by_line_and_key(text, told, tasks_file):
    path = tasks_file(text)
    with pytest.raises(pydantic.ValidationError, match=f"mine.yaml.*{told}"):
        flan.FlanOptions(task=str(path))


def test_a_file_of_phrasings_that_is_not_there_says_where_it_was_looked_for(write_rows, load, tmp_path):
    with pytest.raises(
        harness.DataError, match=rf"there is no such file; looked for .* and {re.escape(str(tmp_path / 'no.yaml'))}"
    ):
        load(write_rows(KINDS["nli"]), task="no.yaml")


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["0", "1", "A", "####"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["text", "label", "input", "output", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
columns = st.sampled_from(
    sorted({column for row in KINDS.values() for column in row} | {"rationale", "explanation", "inputs", "targets"})
)
some = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@some
@given(
    task=st.none() | st.sampled_from(sorted(OURS.tasks)),
    more=st.dictionaries(columns, json_values, max_size=4),
    base=st.sampled_from([{}, *KINDS.values()]),
    options=st.fixed_dictionaries(
        {"inverted": st.sampled_from([0, 0.5]), "phrasings": st.sampled_from(["one", "all"]), "seed": st.integers()}
    ),
)
def test_any_row_is_conversations_or_a_data_error(task, more, base, options):
    try:
        items = convert_row(flan.DATASET, base | more, flan.FlanOptions(task=task, **options))
    except harness.DataError as error:
        assert "does not fit dataset" not in str(error)  # that is how a crash of ours would show
        return
    assert all(isinstance(item, harness.Conversation) for item in items)


# Natural Instructions and seed tasks

TASK = {
    "Contributors": ["x"],
    "Categories": ["Question Answering"],
    "Definition": ["Say whose key it is."],
    "Positive Examples": [
        {"input": "The heron's.", "output": "heron", "explanation": "It says so."},
        {"input": "The otter's.", "output": "otter", "explanation": "It says so."},
    ],
    "Negative Examples": [{"input": "a", "output": "b", "explanation": "c"}],
    "Instances": [
        {"id": "1", "input": "The wren's.", "output": ["wren", "the wren"]},
        {"id": "2", "input": "The heron's.", "output": "heron"},
    ],
}


def natural(row=TASK, **options):
    items = convert_row(natural_instructions.DATASET, row, natural_instructions.NaturalInstructionsOptions(**options))
    return [tuple(message.content for message in item.messages) for item in items]


def test_a_task_becomes_a_conversation_for_each_instance():
    assert natural() == [
        ("Say whose key it is.\n\nThe wren's.", "wren"),
        ("Say whose key it is.\n\nThe heron's.", "heron"),
    ]
    assert len(natural(outputs="all")) == 3 and len(natural(limit_per_task=1)) == 1
    assert natural({"definition": "Say.", "inputs": "a", "targets": "b", "task_name": "t"}) == [("Say.\n\na", "b")]


def test_positive_examples_come_first_and_never_tell_the_instance_itself():
    (first, _), (second, _) = natural(examples=2)
    assert first == (
        "Say whose key it is.\n\nExample 1\nInput: The heron's.\nOutput: heron\n\nExample 2\nInput: The otter's.\n"
        "Output: otter\n\n"
        "Now this one.\nInput: The wren's.\nOutput:"
    )
    assert "heron\n" not in second and "otter" in second


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"Definition": None}, r"the field 'Definition' is null"),
        ({"Instances": None}, r"the field 'Instances' is null"),
        ({"Instances": {}}, r"'Instances' should be a list, found \{\}"),
        ({"Instances": [3]}, r"instance 1 should be an object with input and output, found 3"),
        ({"Instances": [{"input": "a"}]}, r"instance 1: the field 'output' is missing"),
        ({"Instances": [{"input": "a", "output": [3]}]}, r"instance 1: the field 'output' should be text, found \[3\]"),
        ({"Positive Examples": [{"output": 3}]}, r"positive example 1: the field 'output' should be text, found 3"),
    ],
)
def test_a_wrong_task_says_which_instance(change, told):
    with pytest.raises(harness.DataError, match=told):
        natural(TASK | change)


def test_a_seed_task_becomes_a_conversation_for_each_instance(write_rows, load):
    row = {
        "id": "seed_1",
        "instruction": "Add.",
        "instances": [{"input": "1 1", "output": "2"}, {"input": "", "output": "?"}],
    }
    items = load(write_rows(row), "seed_tasks")
    assert [item.id for item in items] == ["seed_1.1", "seed_1.2"]
    assert [item.messages[0].content for item in items] == ["Add.\n\n1 1", "Add."]
    with pytest.raises(
        harness.DataError, match=r"row 1: instance 1 should be an object with input and output, found 'x'"
    ):
        load(write_rows({"instruction": "Add.", "instances": ["x"]}), "seed_tasks")


@some
@given(
    row=st.dictionaries(
        st.sampled_from([*TASK, "instruction", "instances", "definition", "inputs", "targets"]), json_values, max_size=6
    )
)
def test_any_task_is_conversations_or_a_data_error(row):
    for dataset in (natural_instructions.DATASET, seed_tasks.DATASET):
        try:
            assert all(item.messages for item in convert_row(dataset, row))
        except harness.DataError as error:
            assert "does not fit dataset" not in str(error)


# Real files


def test_real_tables_of_chains_of_thought_lose_no_row(real_data, load):
    for name, rows in (("creak", 6915), ("gsm8k", 7473), ("strategyqa", 2061)):
        items = load(real_data / "flan-cot" / f"{name}_train.tsv", unescape_newlines=True)
        assert len(items) == rows
        last = items[rows - 1].messages[1].content.splitlines()
        assert len(last) > 1 and "\\n" not in items[0].messages[0].content


def test_real_sums_are_taken_apart_into_working_and_result(real_data, load):
    items = load(real_data / "gsm8k" / "test.jsonl", shots=2)
    assert len(items) == 1319
    assert items[0].messages[1].content.splitlines()[-1].rstrip(".").endswith("18")
    assert not any("<<" in message.content or "####" in message.content for item in items for message in item.messages)


def test_real_seed_tasks_lose_no_row(real_data, load):
    for name, rows in (("seed_tasks", 175), ("user_oriented_instructions", 252)):
        items = load(real_data / "self-instruct" / f"{name}.jsonl", "seed_tasks")
        lines = (real_data / "self-instruct" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        assert len(items) == rows and [item.id for item in items] == [json.loads(line)["id"] for line in lines]


@pytest.mark.parametrize("task", ["label", "topic"])
def test_a_number_is_no_answer_of_a_task_of_labels_until_something_says_what_it_means(task):
    row = {"text": "Win a prize!", "label": 1}
    with pytest.raises(harness.DataError, match=r"is the number 1: say what the numbers mean, `labels: \{1: WORDS"):
        convert_row(flan.DATASET, row, flan.FlanOptions(task=task))
    (item,) = convert_row(flan.DATASET, row, flan.FlanOptions(task=task, labels={"0": "ham", "1": "spam"}))
    assert "spam" in item.messages[1].content
