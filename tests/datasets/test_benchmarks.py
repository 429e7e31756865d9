"""NLP benchmarks under the columns of their publications: instructions that hold every text, and answers in words."""

import re

import pytest
from harness_datasets import flan
from harness_datasets.benchmarks import BENCHMARKS

import harness
from harness.data import convert_row, load_source
from harness.data.convert.recognise import choose
from harness.plugins import Plugins
from harness.recipe import source_model

CHOICES = {"text": ["sea", "sky"], "label": ["A", "B"]}

# (benchmark, row, texts that stand in every prompt, the answer). The columns decide.
DECIDED = [
    ("ag_news", {"Class Index": "3", "Title": "Shares fall", "Description": "Wall street fell."},
     ["Shares fall", "Wall street fell."], {"Business", "C. Business"}),
    ("mmlu", {"question": "Where is a fish?", "A": "sea", "B": "sky", "C": "sun", "D": "mud", "answer": "A"},
     ["Where is a fish?", "sea", "sun"], {"sea", "A", "A. sea"}),
    ("medqa", {"question": "Where is a fish?", "options": {"A": "sea", "B": "sky"}, "answer_idx": "A", "answer": "sea",
               "meta_info": "step1"}, ["Where is a fish?", "sea", "sky"], {"sea", "A", "A. sea"}),
    ("aqua", {"question": "2 + 2?", "options": ["A)3", "B)4"], "rationale": "Two and two.", "correct": "B"},
     ["2 + 2?", "3", "4"], {"4", "B", "B. 4"}),
    ("sms_spam", {"sms": "Win a prize!", "label": 1}, ["Win a prize!"],
     {"Yes", "spam", "throw it away", "A", "B", "unwanted advertising or fraud"}),
    ("trec", {"text": "Who wrote it?", "coarse_label": 3, "fine_label": 28}, ["Who wrote it?"],
     {"a person", "D", "D. a person"}),
    ("trec", {"text": "Who wrote it?", "label-coarse": 3, "label-fine": 1}, ["Who wrote it?"],
     {"a person", "D", "D. a person"}),
    ("mnli", {"promptID": 1, "pairID": "1e", "premise": "It rains.", "hypothesis": "It is wet.", "genre": "fiction",
              "label": 1, "premise_parse": "(S)", "hypothesis_parse": "(S)", "premise_binary_parse": "()",
              "hypothesis_binary_parse": "()"},
     ["It rains.", "It is wet."],
     {"impossible to tell", "Perhaps", "neutral", "B", "it says nothing about that", "possible"}),
    ("imdb", {"review": "A joy.", "sentiment": "positive"}, ["A joy."], {"positive", "B. positive"}),
    ("anli", {"uid": "u", "premise": "It rains.", "hypothesis": "It is wet.", "label": 0, "reason": ""},
     ["It rains.", "It is wet."],
     {"true", "Yes", "entailment", "A", "it does", "certain"}),
    ("anli", {"uid": "u", "premise": "It rains.", "hypothesis": "It is wet.", "label": 0, "reason": "Rain wets."},
     ["It rains.", "It is wet."],
     {"true", "Yes", "entailment", "A", "it does", "certain"}),
    ("esnli", {"premise": "It rains.", "hypothesis": "It is dry.", "label": 2, "explanation_1": "Rain wets.",
               "explanation_2": "", "explanation_3": ""},
     ["It rains.", "It is dry."], {"false", "No", "contradiction", "C", "it says the opposite", "ruled out"}),
    ("wsc", {"text": "Ann left as she slept.", "span1_index": 0, "span2_index": 3, "span1_text": "Ann",
             "span2_text": "she", "idx": 0, "label": 1},
     ["Ann left as she slept.", "Ann", "she"], {"yes", "B", "the same"}),
    ("cosmos_qa", {"id": "1", "context": "It rained.", "question": "Why stay in?", "answer0": "Sun.",
                   "answer1": "Rain.", "answer2": "Snow.", "answer3": "Fog.", "label": 1},
     ["It rained.", "Why stay in?", "Sun.", "Fog."], {"Rain.", "B", "B. Rain."}),
    ("social_i_qa", {"context": "It rained.", "question": "Why stay in?", "answerA": "Sun.", "answerB": "Rain.",
                     "answerC": "Snow.", "label": "2"},
     ["It rained.", "Why stay in?", "Sun.", "Snow."], {"Rain.", "B", "B. Rain."}),
    ("swag", {"video-id": "v", "fold-ind": "1", "startphrase": "A man", "sent1": "A man", "sent2": "",
              "gold-source": "gold", "ending0": "runs.", "ending1": "flies.", "ending2": "melts.", "ending3": "rings.",
              "label": 0}, ["A man", "runs.", "rings."], {"runs.", "A", "A. runs."}),
    ("swag", {"sent1": "It rained.", "sent2": "A man", "ending0": "runs.", "ending1": "flies.", "ending2": "melts.",
              "ending3": "rings.", "label": 0},
     ["It rained. A man", "runs.", "rings."], {"runs.", "A", "A. runs."}),
    ("qasc", {"id": "1", "question": "Where is a fish?", "choices": CHOICES, "answerKey": "A", "fact1": "Fish swim.",
              "fact2": "Seas are water.", "combinedfact": "Fish are in seas.",
              "formatted_question": "Where is a fish? (A) sea (B) sky"}, ["Where is a fish?", "sky"],
     {"sea", "A", "A. sea"}),
    ("dialogsum", {"id": "1", "dialogue": "A: hi", "summary": "They greet.", "topic": "greeting"}, ["A: hi"],
     {"They greet."}),
    ("cnn_dailymail", {"article": "A long one.", "summary": "Short."}, ["A long one."], {"Short."}),
    ("billsum", {"text": "A long one.", "summary": "Short.", "title": "A bill"}, ["A long one."], {"Short."}),
    ("qqp", {"question1": "Is it?", "question2": "Was it?", "label": 0, "idx": 4}, ["Is it?", "Was it?"],
     {"no", "another meaning", "A", "not equivalent"}),
    ("qqp", {"id": 1, "qid1": 2, "qid2": 3, "question1": "Is it?", "question2": "Was it?", "is_duplicate": "1"},
     ["Is it?", "Was it?"],
     {"yes", "the same meaning", "B", "equivalent"}),
    ("wic", {"word": "bank", "sentence1": "The bank lends.", "sentence2": "The bank is steep.", "idx": 0, "label": 0,
             "start1": 4, "start2": 4, "end1": 8, "end2": 8}, ["bank", "The bank lends.", "The bank is steep."],
     {"no", "two senses", "A", "different"}),
    ("mnli", {"annotator_labels": ["neutral"], "genre": "slate", "gold_label": "neutral", "pairID": "6n",
              "promptID": "6", "sentence1": "It rains.", "sentence1_binary_parse": "()", "sentence1_parse": "(S)",
              "sentence2": "It is wet.", "sentence2_binary_parse": "()", "sentence2_parse": "(S)"},
     ["It rains.", "It is wet."],
     {"impossible to tell", "Perhaps", "neutral", "B", "it says nothing about that", "possible"}),
    ("arc", {"id": "1", "question": {"stem": "Where is a fish?", "choices": [
        {"text": "sea", "label": "A"}, {"text": "sky", "label": "B"}]}, "answerKey": "A"},
     ["Where is a fish?", "sea", "sky"], {"sea", "A", "A. sea"}),
    ("truthful_qa", {"Type": "Adversarial", "Category": "Law", "Question": "Is it so?", "Best Answer": "It is not",
                     "Correct Answers": "It is not; no", "Incorrect Answers": "yes", "Source": "s"},
     ["Is it so?"], {"It is not"}),
    ("boolq", {"question": "is the sky blue", "title": "Sky", "answer": True, "passage": "It is blue."},
     ["is the sky blue", "It is blue."], {"yes", "B"}),
    ("boolq", {"question": "is the sky blue", "answer": True, "passage": "It is blue."},
     ["is the sky blue", "It is blue."], {"yes", "B"}),
    ("boolq", {"question": "is the sky blue", "passage": "It is blue.", "idx": 1, "label": 0},
     ["is the sky blue", "It is blue."], {"no", "A"}),
    ("squad", {"id": "5", "title": "t", "context": "The heron has a key.", "question": "What has it?",
               "answers": {"text": ["a key"], "answer_start": [14]}},
     ["The heron has a key.", "What has it?"], {"a key"}),
    ("race", {"example_id": "h1", "article": "It is free on Sundays.", "question": "When?",
              "options": ["Mondays", "Sundays"], "answer": "B"},
     ["It is free on Sundays.", "When?", "Mondays", "Sundays"], {"Sundays", "B", "B. Sundays"}),
    ("dream", {"id": 1, "dialogue_id": "d", "dialogue": ["M: Tea?", "W: Coffee."], "question": "What does she want?",
               "choice": ["Tea.", "Coffee."], "answer": "Coffee."},
     ["M: Tea?\nW: Coffee.", "What does she want?", "Tea."], {"Coffee.", "B", "B. Coffee."}),
    ("sciq", {"question": "What melts?", "distractor3": "fire", "distractor1": "air", "distractor2": "rock",
              "correct_answer": "ice", "support": "Ice melts."},
     ["What melts?", "Ice melts.", "fire", "air", "rock", "ice"],
     {"ice", "A", "B", "C", "D", "A. ice", "B. ice", "C. ice", "D. ice"}),
    ("sciq", {"question": "What melts?", "distractor3": "fire", "distractor1": "air", "distractor2": "rock",
              "correct_answer": "ice", "support": ""},
     ["What melts?", "fire", "air", "rock", "ice"],
     {"ice", "A", "B", "C", "D", "A. ice", "B. ice", "C. ice", "D. ice"}),
    ("copa", {"premise": "He lost.", "choice1": "He cried.", "choice2": "He sang.", "question": "effect", "idx": 0,
              "label": 1},
     ["He lost.", "He cried.", "He sang.", "What happened as a result?"], {"He sang.", "B", "B. He sang."}),
    ("hellaswag", {"ind": 1, "activity_label": "x", "ctx_a": "A man", "ctx_b": "he", "ctx": "A man he",
                   "endings": ["runs.", "flies."], "source_id": "s", "split": "train", "split_type": "i", "label": "0"},
     ["A man he", "runs.", "flies."], {"runs.", "A", "A. runs."}),
    ("piqa", {"goal": "open jar", "sol1": "twist", "sol2": "eat", "label": 1}, ["open jar", "twist", "eat"],
     {"eat", "B", "B. eat"}),
    ("openbookqa", {"id": "7", "question_stem": "A fish is in the", "choices": CHOICES, "answerKey": "A"},
     ["A fish is in the", "sea", "sky"],
     {"sea", "A", "A. sea"}),
    ("arc", {"id": "M", "question": "Where is a fish?", "choices": {**CHOICES, "label": ["1", "2"]}, "answerKey": "2"},
     ["Where is a fish?", "sea", "sky"],
     {"sky", "B", "B. sky"}),
    ("csqa", {"id": "a", "question": "Where is a fish?", "question_concept": "fish", "choices": CHOICES,
              "answerKey": "A"}, ["Where is a fish?", "sea", "sky"],
     {"sea", "A", "A. sea"}),
    ("winogrande", {"sentence": "The cup fell as _ was full.", "option1": "cup", "option2": "table", "answer": "1"},
     ["The cup fell as _ was full.", "table"], {"cup", "A. cup"}),
    ("mmlu", {"question": "1 + 1?", "subject": "maths", "choices": ["1", "2", "3", "4"], "answer": 1},
     ["1 + 1?", "3", "4"], {"2", "B", "B. 2"}),
    ("truthful_qa", {"question": "Are pigs birds?", "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
                     "mc2_targets": {"choices": ["No"], "labels": [1]}},
     ["Are pigs birds?", "No", "Yes"], {"No", "A", "B", "A. No", "B. No"}),
    ("truthful_qa", {"type": "Adversarial", "category": "Animals", "question": "Are pigs birds?", "best_answer": "No",
                     "correct_answers": ["No"], "incorrect_answers": ["Yes"], "source": "https://x"},
     ["Are pigs birds?"], {"No"}),
    ("samsum", {"id": "1", "dialogue": "A: hi\nB: yo", "summary": "They greet."}, ["A: hi\nB: yo"], {"They greet."}),
    ("cnn_dailymail", {"article": "A long one.", "highlights": "Short.", "id": "1"}, ["A long one."], {"Short."}),
    ("xsum", {"document": "A long one.", "summary": "Short.", "id": "1"}, ["A long one."], {"Short."}),
    ("wmt", {"translation": {"de": "Hallo Welt", "en": "Hello world"}}, ["Hallo Welt", "English"], {"Hello world"}),
    ("gsm8k", {"question": "2 and 3?", "answer": "2 + 3 = <<2+3=5>>5.\n#### 5"}, ["2 and 3?"], {"5"}),
]  # fmt: skip

# (columns of a row, the benchmarks that it could be, each with its label in words)
PAIR = {"sentence1": "A cat sleeps.", "sentence2": "A dog barks.", "idx": 1}
STATED = {"premise": "A cat sleeps.", "hypothesis": "A dog barks.", "idx": 1}
UNDECIDED = [
    ({"sentence": "A joy.", "label": 1, "idx": 0}, {"sst2": "positive", "cola": "acceptable"}),
    ({"text": "A joy.", "label": 1}, {"imdb": "positive", "ag_news": "Sports", "sms_spam": "spam"}),
    ({"text": "Shares fell.", "label": 2}, {"ag_news": "Business"}),
    ({**PAIR, "label": 1}, {"rte": "not_entailment", "wnli": "entailment", "mrpc": "yes"}),
    ({"id": 1, "sentence1": "a b", "sentence2": "b a", "label": 0}, {"paws": "no"}),
    ({**STATED, "label": 1}, {"rte": "not_entailment", "mnli": "neutral", "cb": "contradiction"}),
    ({**STATED, "label": 2}, {"mnli": "contradiction", "cb": "neutral"}),
]


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


def phrased(row, **options):
    """All prompts of a row with their answers, without a rationale."""
    items = convert_row(flan.DATASET, row, flan.FlanOptions(phrasings="all", chain_of_thought=False, **options))
    return [(item.messages[0].content, item.messages[1].content) for item in items]


def test_every_benchmark_has_a_row():
    assert {name for name, *_ in DECIDED} | {name for _, names in UNDECIDED for name in names} == set(BENCHMARKS)


@pytest.mark.parametrize(("name", "row", "texts", "answers"), DECIDED, ids=[name for name, *_ in DECIDED])
def test_columns_decide(name, row, texts, answers, datasets, write_rows):
    """A file of a benchmark becomes instructions by itself; each phrasing holds every text and the answer in words."""
    assert choose(str(write_rows(row, row)), datasets).dataset == "flan"
    prompts = phrased(row)
    assert prompts == phrased(row, task=name) and len(prompts) >= 4
    for prompt, answer in prompts:
        assert [text for text in texts if text not in prompt] == []
        assert answer in answers


@pytest.mark.parametrize(("row", "meanings"), UNDECIDED, ids=[" or ".join(names) for _, names in UNDECIDED])
def test_columns_do_not_decide(row, meanings, datasets, write_rows):
    """The refusal has a line to paste for each task that the row could be, and each line works."""
    with pytest.raises(harness.DataError, match="the label is a number") as caught:
        choose(str(write_rows(row, row)), datasets)
    assert re.findall(r"^    task: (\w+)", str(caught.value), re.MULTILINE) == list(meanings)
    texts = [text for text in row.values() if isinstance(text, str)]
    for task, words in meanings.items():
        (form, *_) = BENCHMARKS[task]
        assert words in form.labels.values()
        for prompt, _ in phrased(row, task=task):
            assert [text for text in texts if text not in prompt] == []
        label = next(value for value, meaning in form.labels.items() if meaning == words)
        assert label == str(row["label"])


@pytest.mark.parametrize(
    ("name", "row"), [(name, row) for name, row, *_ in DECIDED], ids=[name for name, *_ in DECIDED]
)
def test_one_more_text_is_refused(name, row):
    """A column that the publication does not have is never dropped."""
    with pytest.raises(harness.DataError, match="note"):
        convert_row(flan.DATASET, {**row, "note": "Mind the step."}, flan.FlanOptions(task=name))


@pytest.mark.parametrize(("startphrase", "other"), [("sent1", "sent2"), ("sent2", "sent1")])
def test_a_sentence_that_the_start_phrase_lacks_is_refused(startphrase, other):
    row = {"sent1": "It rained.", "sent2": "A man", **{f"ending{n}": f"runs {n}." for n in range(4)}, "label": 0}
    row["startphrase"] = row.pop(startphrase)
    for task in (None, "swag"):
        with pytest.raises(harness.DataError, match=f"the column '{other}' would be lost: it is not in 'startphrase'"):
            phrased(row, task=task)
    whole = {**row, "startphrase": "It rained. A man"}
    assert all("It rained. A man" in prompt for prompt, _ in phrased(whole))


def test_labels_in_words_need_no_task():
    for label, words in (("positive", "positive"), ("complaint", "complaint")):
        assert words in {answer for _, answer in phrased({"text": "It was cold.", "label": label})}


def test_a_passage_with_an_answer_in_words_is_no_yes_or_no_question():
    asked = phrased({"question": "what is kept", "passage": "The heron keeps a key.", "answer": "a key"})
    assert all("what is kept" in prompt and "keeps a key." in prompt and answer == "a key" for prompt, answer in asked)


def test_a_letter_that_is_also_an_answer_is_not_guessed():
    with pytest.raises(harness.DataError, match="may be the letter of 'B' or the answer 'A' itself"):
        phrased({"question": "Which letter?", "A": "B", "B": "A", "C": "C", "D": "D", "answer": "A"})
    assert phrased({"question": "Which letter?", "choices": ["B", "A", "C", "D"], "answer": 0, "subject": "x"})


@pytest.mark.parametrize(
    "row",
    [
        {"id": "1", "question": "Where?", "question_concept": "fish", "choices": CHOICES, "answerKey": ""},
        {"sentence": "The _ sleeps.", "option1": "cat", "option2": "sun", "answer": "", "qID": "1"},
    ],
)
def test_a_row_with_an_empty_label_is_left_out(row):
    options = flan.FlanOptions()
    assert flan.convert(row, options).reason == "no usable label"


def test_exemplars_have_the_columns_of_the_benchmark(write_rows):
    from harness.data import load_source
    from harness.recipe import source_model

    rows = [{"goal": f"open jar {n}", "sol1": f"twist {n}", "sol2": f"eat {n}", "label": n % 2} for n in range(6)]
    source = source_model(flan.DATASET)(dataset="flan", path=str(write_rows(*rows)), shots=2)
    first = next(load_source(source, {"flan": flan.DATASET})).messages[0].content
    assert sum(f"jar {n}" in first for n in range(6)) == 3


def test_nothing_of_the_kind_is_a_plain_question():
    with pytest.raises(harness.DataError, match="dataset: prompt_completion"):
        phrased({"question": "Who?", "answer": "The heron."})


def test_labels_in_other_words_than_a_benchmarks_are_not_its_task(write_rows):
    rows = write_rows({"text": "The wall took years.", "label": 0}, {"text": "It rained.", "label": 1})
    source = source_model(flan.DATASET)(dataset="flan", path=str(rows), labels={"0": "true", "1": "false"})
    asked = [item.messages for item in load_source(source, {"flan": flan.DATASET})]
    assert [answer.content for _, answer in asked] == ["true", "false"]
    assert not any(re.search("attitude|spam|field|sentiment", prompt.content) for prompt, _ in asked)
    pair = {"sentence1": "It rains.", "sentence2": "It is wet.", "label": 1, "idx": 0}
    with pytest.raises(harness.DataError, match="task: rte"):
        phrased(pair, labels={"0": "near", "1": "far"})
    assert phrased(pair, labels={"0": "not_entailment", "1": "entailment"})
