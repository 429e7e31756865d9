"""What `seedling_qa.yaml` asks lm-eval to call: where the questions are, and when an answer is right."""

import string
from pathlib import Path
from typing import Any

import datasets

QUESTIONS = Path(__file__).parent.parent / "data" / "test.jsonl"
NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def load_questions(**_: Any) -> datasets.DatasetDict:
    """The questions, found beside this file rather than from the folder that lm-eval was started in."""
    return datasets.DatasetDict({"test": datasets.Dataset.from_json(str(QUESTIONS))})


def score(doc: dict[str, str], results: list[str]) -> dict[str, float]:
    """One if the answer is the right one, case, punctuation and spacing aside; zero otherwise."""
    return {"exact_match": float(normalised(results[0]) == normalised(doc["answer"]))}


def normalised(text: str) -> str:
    return " ".join(text.lower().translate(NO_PUNCTUATION).split())
