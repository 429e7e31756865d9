"""The parts of self-instruct: is it new, what is in an answer, and what is of use."""

import random

import pytest
from harness_generation import answers, prompts
from harness_generation.dataset import convert
from harness_generation.novelty import NoveltyIndex, words_of

import harness
from harness.plugins import Plugins


def rouge_l(one, other):
    """ROUGE-L by the book: a table of the longest common subsequences."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = row[:]
        for place, known in enumerate(other):
            row[place + 1] = before[place] + 1 if word == known else max(before[place + 1], row[place])
    return 2 * row[-1] / (len(one) + len(other)) if one or other else 0.0


@pytest.mark.parametrize("threshold", [0.3, 0.7, 0.9, 1.0])
def test_the_index_says_what_comparing_with_every_text_says(threshold):
    rng, index, kept = random.Random(threshold), NoveltyIndex(threshold), []
    for _ in range(600):
        words = [rng.choice("abcdefgh" if rng.random() < 0.8 else "ijklmnopqrstuvw") for _ in range(rng.randint(1, 12))]
        similar = any(rouge_l(words, other) >= threshold - 1e-12 for other in kept)
        found = index.similar(" ".join(words))
        assert (found is not None) == similar, words
        if found:
            assert found[1] == pytest.approx(rouge_l(words, kept[found[0]]))
        else:
            index.add(" ".join(words))
            kept.append(words)
    assert len(index) == len(kept) > 15


def test_rouge_l_is_that_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"])
    rng = random.Random(3)
    for _ in range(100):
        one, other = (
            " ".join(rng.choices(["The", "cat's", "sat,", "on", "a-b", "mat."], k=rng.randint(1, 9))) for _ in "ab"
        )
        index = NoveltyIndex(1e-6)
        index.add(other)
        found = index.similar(one)
        assert (found[1] if found else 0.0) == pytest.approx(scorer.score(other, one)["rougeL"].fmeasure)


def test_words_of_other_scripts_count_too():
    assert words_of("Füße, ПРИВЕТ 12") == ["füße", "привет", "12"]


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("9. One task here\n10. Another\n   with two lines", ["One task here", "Another with two lines"]),
        ("Sure!\n\n1) **Bold one**: text\n2) Two", ["Bold one: text", "Two"]),
        ("Task 9: Name a bird.\nTask 10: Name a fish.", ["Name a bird.", "Name a fish."]),
        ("Name three birds of the marsh.", ["Name three birds of the marsh."]),
        ("some prose\nwithout numbers", []),
        ("", []),
        ("9. It was 3.5 m long in 1999. Why?", ["It was 3.5 m long in 1999. Why?"]),
    ],
)
def test_instructions_are_read_from_a_list(answer, read):
    assert answers.read_list(answer) == read


def test_the_last_of_a_list_that_was_cut_off_is_left_out():
    assert answers.read_list("9. Name a bird.\n10. Name a", cut=True) == ["Name a bird."]


@pytest.mark.parametrize(
    ("instruction", "reason"),
    [
        ("Name a bird", "shorter"),
        ("word " * 151, "longer"),
        ("Draw a house by the sea", "image"),
        ("Écris une phrase sur la mer", "ASCII"),
        ("- Name a bird of the sea", "punctuation"),
        ("Write a program that adds numbers", "Write a program"),
        ("I'm sorry, but I cannot do that", "refusal"),
        ("Describe a drawbridge to a child", None),
        ("Name a bird of the sea", None),
    ],
)
def test_useless_instructions_are_filtered(instruction, reason):
    found = answers.problem_of(instruction)
    assert found is None if reason is None else reason in found


@pytest.mark.parametrize(
    ("answer", "output_first", "read"),
    [
        ("Input: tea\nOutput: hot", False, [("tea", "hot")]),
        ("**Input:** none\n**Output:** hot\n\nagain", False, [("", "hot\n\nagain")]),
        ("Output: hot", False, [("", "hot")]),
        ("It is hot.", False, [("", "It is hot.")]),
        ("Example 1\nInput: a\nOutput: b\nExample 2\nInput: c\nOutput: d\nTask: more\nOutput: no", False,
         [("a", "b"), ("c", "d")]),
        ("Output: kind\nInput: Lovely\nOutput: rude\nInput: Ugh", True, [("Lovely", "kind"), ("Ugh", "rude")]),
        ("Input: Lovely\nOutput: kind", True, [("Lovely", "kind")]),
        ("kind", True, []),
    ],
)  # fmt: skip
def test_instances_are_read_by_their_labels(answer, output_first, read):
    assert answers.read_instances(answer, output_first) == read


def test_instances_that_teach_nothing_are_left_out():
    found = [
        answers.Instance(*pair)
        for pair in (("a", ""), ("b", "b"), ("c", "x"), ("c", "y"), ("d", "So:"), ("e", "f"), ("e", "f"), ("g", "h"))
    ]
    kept, reasons = answers.useful(found, "Do it.", cut=True)
    assert kept == [("e", "f")] and len(reasons) == 7 and any("cut off" in reason for reason in reasons)


def test_a_seed_task_is_shown_as_it_is_whatever_it_says():
    shown = prompts.list_tasks(["Fill in {first} and \\1", "Two\nlines:"], "chat")
    assert "1. Fill in {first} and \\1\n2. Two lines\n" in shown and "tasks 3 to 10" in shown


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"instances": []}, "no dataset fits: row 1 has instances"),
        ({"instruction": " "}, "row 1: the instruction is empty"),
        ({"instruction": "x", "instances": [3]},
         "row 1: instance 1 should be an object with input and output, found 3"),
        ({"instruction": "x", "is_classification": "yes"},
         "row 1: the field 'is_classification' should be true or false"),
    ],
)  # fmt: skip
def test_a_wrong_seed_task_is_named(write_rows, row, told):
    with pytest.raises(harness.DataError, match=told):
        prompts.read_seeds(str(write_rows(row)), Plugins().datasets)


def test_prompts_of_other_data_are_seeds_too(write_rows):
    asked = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a river."}]
    row = {"data_source": "x", "prompt": asked, "reward_model": {"style": "rule", "ground_truth": "Arle"}}
    assert prompts.read_seeds(str(write_rows(row)), Plugins().datasets) == [prompts.Seed("Name a river.")]
    answered = {"question": "Name a lake.", "answer": "Orm"}
    assert prompts.read_seeds(str(write_rows(answered)), Plugins().datasets) == [prompts.Seed("Name a lake.")]


def test_the_published_seed_tasks_are_read(real_data):
    seeds = prompts.read_seeds(str(real_data / "self-instruct" / "seed_tasks.jsonl"), Plugins().datasets)
    assert len(seeds) == 175 and sum(bool(seed.is_classification) for seed in seeds) == 26


def test_a_row_without_a_generator_is_no_row_of_ours():
    with pytest.raises(harness.DataError, match="generator"):
        convert({"instruction": "x", "output": "y"}, None)
