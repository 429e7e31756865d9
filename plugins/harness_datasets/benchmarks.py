"""The table of NLP benchmarks: the columns of each publication, and the meaning of its labels.

A `Form` names columns as `harness.Shape` does: `ours=theirs`, where ours is a column of a task in phrasings.yaml, and
`-` before metadata. A benchmark whose publications differ has several forms. `flan` recognises a form by its columns
where they decide; where other files have the same columns and other labels, the form is not `certain`, and the recipe
names the benchmark: `task: rte`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property, partial
from typing import Any

import harness
from harness.errors import nearest
from harness.nouns import Row
from harness_datasets import rewriting

OTHERS = "(other rows of the file)"  # a column that `flan` adds to a row; messages do not mention it


@dataclass(frozen=True, eq=False)
class Form:
    """The rows of one publication: the task that phrases them, their columns, and the words of their labels."""

    task: str
    fields: tuple[str, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    certain: bool = True
    rewrite: Callable[[dict[str, Any]], Row] | None = None

    @cached_property
    def reads(self) -> dict[str, str]:
        """The task's name of each column that is read, by the file's name."""
        pairs = (name.rpartition("=") for name in self.fields if not name.startswith("-"))
        return {theirs: ours or theirs for ours, _, theirs in pairs}

    @cached_property
    def alternatives(self) -> tuple[tuple[str, ...], ...]:
        """The fields as a Dataset declares them: the columns that are read, with all that is in them, and metadata."""
        metadata = (name for name in self.fields if name.startswith("-"))
        return ((*self.reads, *(f"{name}.*" for name in self.reads), *metadata, f"-{OTHERS}"),)

    def accounts_for(self, columns: frozenset[str]) -> bool:
        """Return True if these are the columns that the form reads, and none besides them but its metadata."""
        return self.reads.keys() <= columns and columns <= {*self.reads, *(name.lstrip("-") for name in self.fields)}

    def as_task_reads(self, row: Row) -> Row:
        """Return the row with the columns of the form's task. Raises DataError for a row that lacks one."""
        if absent := [name for name in self.reads if row.get(name) is None]:
            has = ", ".join(str(name) for name in row if name != OTHERS)
            raise harness.DataError(f"the column {absent[0]!r} is missing.{nearest(absent[0], row)} The row has: {has}")
        renamed = {ours: row[theirs] for theirs, ours in self.reads.items()}
        return self.rewrite(renamed) if self.rewrite else renamed


def is_filled(value: Any) -> bool:
    """Return True for a value that says something: not null, and not an empty text, list or object."""
    return value is not None and value not in ("", [], {})


@cache
def forms_of(columns: frozenset[str]) -> tuple[tuple[str, Form], ...]:
    """Return (benchmark, form) of each form that accounts for these columns; those that read most come first."""
    fitting = [(name, form) for name, forms in BENCHMARKS.items() for form in forms if form.accounts_for(columns)]
    return tuple(sorted(fitting, key=lambda one: -len(one[1].reads)))


# The table

_NO_YES = {"0": "no", "1": "yes"}
_SENTIMENT = {"0": "negative", "1": "positive"}
_ENTAILMENT = {"0": "entailment", "1": "not_entailment"}
_NLI = {"0": "entailment", "1": "neutral", "2": "contradiction"}
_NEWS = {"0": "World", "1": "Sports", "2": "Business", "3": "Sci/Tech"}
_ABBR, _ENTY, _DESC, _HUM, _LOC, _NUM = (
    *("an abbreviation", "a thing", "a description", "a person", "a place", "a number"),
)
_TREC = dict(zip("012345", (_ABBR, _ENTY, _DESC, _HUM, _LOC, _NUM), strict=True))
_TREC_OLD = dict(zip("012345", (_DESC, _ENTY, _ABBR, _HUM, _NUM, _LOC), strict=True))
_TREC_WORDS = {"ABBR": _ABBR, "ENTY": _ENTY, "DESC": _DESC, "HUM": _HUM, "LOC": _LOC, "NUM": _NUM}
_PAIR = ("sentence1", "sentence2", "label")
_ENTAILED = ("premise=sentence1", "hypothesis=sentence2", "label", "-idx")
_MULTI_NLI = tuple(
    f"-{name}"
    for name in (
        *("promptID", "pairID", "premise_binary_parse", "premise_parse", "hypothesis_binary_parse"),
        "hypothesis_parse",
    )
)
_NLI_FILE = tuple(  # beside the sentences of MultiNLI's and SNLI's own files
    f"-{name}"
    for name in (
        *("annotator_labels", "captionID", "genre", "pairID", "promptID", "sentence1_binary_parse", "sentence1_parse"),
        *("sentence2_binary_parse", "sentence2_parse"),
    )
)
_SWAG = (*(f"ending{number}" for number in range(4)), "label", "-video-id", "-fold-ind", "-gold-source")

BENCHMARKS: Mapping[str, tuple[Form, ...]] = {
    # One text
    "sst2": (Form("sentiment", ("text=sentence", "label", "-idx"), _SENTIMENT, certain=False),),
    "cola": (
        Form(
            "acceptability",
            ("text=sentence", "label", "-idx"),
            {"0": "unacceptable", "1": "acceptable"},
            certain=False,
        ),
    ),
    "imdb": (
        Form("sentiment", ("text=review", "label=sentiment"), _SENTIMENT),
        Form("sentiment", ("text", "label"), _SENTIMENT, certain=False),
    ),
    "ag_news": (
        Form("topic", ("text", "label"), _NEWS, certain=False),
        Form(
            "topic",
            ("label=Class Index", "title=Title", "text=Description"),
            dict(zip("1234", _NEWS.values(), strict=True)),
            rewrite=rewriting.titled,
        ),
    ),
    "sms_spam": (
        Form("spam", ("text=sms", "label"), {"0": "ham", "1": "spam"}),
        Form("spam", ("text", "label"), {"0": "ham", "1": "spam"}, certain=False),
    ),
    "trec": (
        Form(
            "question_type",
            ("text", "label=coarse_label", "-fine_label"),
            {**_TREC, **_TREC_WORDS},
        ),
        Form(
            "question_type",
            ("text", "label=label-coarse", "-label-fine"),
            {**_TREC_OLD, **_TREC_WORDS},
        ),
    ),
    # Two texts
    "rte": (
        Form("entailment", _ENTAILED, _ENTAILMENT, certain=False),
        Form("entailment", ("premise", "hypothesis", "label", "-idx"), _ENTAILMENT, certain=False),
    ),
    "wnli": (Form("entailment", _ENTAILED, {"0": "not_entailment", "1": "entailment"}, certain=False),),
    "mnli": (
        Form("nli", ("premise", "hypothesis", "label", "genre", *_MULTI_NLI), _NLI),
        Form("nli", ("premise", "hypothesis", "label", "-idx"), _NLI, certain=False),
        Form("nli", ("premise=sentence1", "hypothesis=sentence2", "label=gold_label", *_NLI_FILE), _NLI),
    ),
    "anli": (
        Form("nli", ("premise", "hypothesis", "label", "explanation=reason", "-uid"), _NLI),
        Form("nli", ("premise", "hypothesis", "label", "uid"), _NLI),
    ),
    "esnli": (
        Form(
            "nli",
            ("premise", "hypothesis", "label", "explanation=explanation_1", "-explanation_2", "-explanation_3"),
            _NLI,
        ),
    ),
    "cb": (
        Form(
            "nli",
            ("premise", "hypothesis", "label", "-idx"),
            {"0": "entailment", "1": "contradiction", "2": "neutral"},
            certain=False,
        ),
    ),
    "mrpc": (Form("paraphrase", (*_PAIR, "-idx"), _NO_YES, certain=False),),
    "paws": (Form("paraphrase", (*_PAIR, "-id"), _NO_YES, certain=False),),
    "qqp": (
        Form("paraphrase", ("sentence1=question1", "sentence2=question2", "label", "-idx"), _NO_YES),
        Form(
            "paraphrase",
            ("sentence1=question1", "sentence2=question2", "label=is_duplicate", "-id", "-qid1", "-qid2"),
            _NO_YES,
        ),
    ),
    "wic": (
        Form(
            "word_sense",
            ("word", "sentence1", "sentence2", "label", "-start1", "-start2", "-end1", "-end2", "-idx"),
            _NO_YES,
        ),
    ),
    "wsc": (
        Form(
            "coreference",
            ("text", "span1_text", "span2_text", "label", "-span1_index", "-span2_index", "-idx"),
            _NO_YES,
        ),
    ),
    # Reading
    "boolq": (
        Form("yes_no", ("passage", "question", "answer", "-title"), rewrite=rewriting.without_question_mark),
        Form(
            "yes_no", ("passage", "question", "answer=label", "-idx"), _NO_YES, rewrite=rewriting.without_question_mark
        ),
    ),
    "squad": (
        Form("reading", ("context", "question", "answers", "-id", "-title")),
        Form("reading", ("context=passage", "question", "answer", "-id", "-title")),
    ),
    "race": (
        Form("reading_choice", ("context=article", "question", "choices=options", "answer", "-example_id", "-id")),
    ),
    "dream": (
        Form(
            "reading_choice",
            ("context=dialogue", "question", "choices=choice", "answer", "-id", "-dialogue_id"),
            rewrite=rewriting.dream,
        ),
    ),
    "cosmos_qa": (
        Form(
            "reading_choice",
            ("context", "question", "label", *(f"answer{number}" for number in range(4)), "-id"),
            rewrite=partial(rewriting.numbered, [f"answer{number}" for number in range(4)], 0, "answer", "choices"),
        ),
    ),
    "social_i_qa": (
        Form(
            "reading_choice",
            ("context", "question", "label", *(f"answer{letter}" for letter in "ABC")),
            rewrite=partial(rewriting.numbered, [f"answer{letter}" for letter in "ABC"], 1, "answer", "choices"),
        ),
    ),
    "sciq": (
        Form(
            "reading_choice",
            ("context=support", "question", "answer=correct_answer", "distractor1", "distractor2", "distractor3"),
            rewrite=rewriting.sciq,
        ),
        Form(
            "exam",
            ("question", "answer=correct_answer", "distractor1", "distractor2", "distractor3"),
            rewrite=rewriting.sciq,
        ),
    ),
    # Choices
    "copa": (
        Form(
            "cause_effect",
            ("premise", "asked=question", "choice1", "choice2", "label", "-idx", "-id", "-mirrored"),
            rewrite=rewriting.copa,
        ),
    ),
    "hellaswag": (
        Form(
            "ending",
            (
                *("context=ctx", "endings", "label", "-ind", "-activity_label", "-ctx_a", "-ctx_b", "-source_id"),
                *("-split", "-split_type"),
            ),
        ),
    ),
    "swag": (
        *(
            Form("ending", ("context=startphrase", *sentences, *_SWAG), rewrite=rewriting.swag)
            for sentences in (("sent1", "sent2"), ("sent1",), ("sent2",), ())
        ),
        Form("ending", ("sent1", "sent2", *_SWAG), rewrite=rewriting.swag),
    ),
    "piqa": (Form("goal", ("goal", "sol1", "sol2", "label", "-id")),),
    "openbookqa": (
        Form(
            "exam",
            (
                *("question=question_stem", "choices", "answerKey", "-id", "-fact1", "-humanScore", "-clarity"),
                "-turkIdAnonymized",
            ),
        ),
    ),
    "arc": (
        Form("exam", ("question", "choices", "answerKey", "-id")),
        Form("exam", ("question", "answerKey", "-id"), rewrite=rewriting.stem),  # OpenBookQA's and CSQA's own too
    ),
    "qasc": (
        Form(
            "exam",
            (*("question", "choices", "answerKey", "fact1", "fact2", "-combinedfact", "-formatted_question", "-id"),),
        ),
    ),
    "csqa": (Form("commonsense", ("question", "choices", "answerKey", "-id", "-question_concept")),),
    "winogrande": (Form("blank", ("sentence", "option1", "option2", "answer", "-qID")),),
    "mmlu": (
        Form("exam", ("question", "choices", "answer", "-subject")),
        *(
            Form(
                "exam",
                ("question", *columns, "answer", "-id", "-subject"),
                rewrite=partial(rewriting.by_letter, columns),
            )
            for columns in (tuple("ABCD"), tuple("ABCDE"), tuple(f"option_{letter}" for letter in "abcd"))
        ),
    ),
    "medqa": (
        Form(
            "exam",
            ("question", "choices=options", "letter=answer_idx", "answer", "-meta_info", "-metamap_phrases", "-id"),
            rewrite=rewriting.keyed,
        ),
    ),
    "aqua": (Form("exam", ("question", "choices=options", "rationale", "answer=correct"), rewrite=rewriting.lettered),),
    "truthful_qa": (
        Form("exam", ("question", "targets=mc1_targets", "-mc2_targets"), rewrite=rewriting.truthful),
        Form(
            "question_answering",
            (
                *("question", "answer=best_answer", "-type", "-category", "-correct_answers", "-incorrect_answers"),
                "-source",
            ),
        ),
        Form(
            "question_answering",
            (
                *("question=Question", "answer=Best Answer", "-Type", "-Category", "-Best Incorrect Answer"),
                *("-Correct Answers", "-Incorrect Answers", "-Source"),
            ),
        ),
    ),
    # Writing
    "samsum": (Form("summarisation", ("document=dialogue", "summary", "-id")),),
    "dialogsum": (Form("summarisation", ("document=dialogue", "summary", "topic", "-id")),),
    "cnn_dailymail": (
        Form("summarisation", ("document=article", "summary=highlights", "-id")),
        Form("summarisation", ("document=article", "summary", "-id")),
    ),
    "billsum": (Form("summarisation", ("document=text", "summary", "-title")),),
    "xsum": (Form("summarisation", ("document", "summary", "-id")),),
    "wmt": (Form("translation", ("translation", "-id"), rewrite=rewriting.translation),),
    "gsm8k": (Form("arithmetic", ("question", "answer")),),
}
