"""An evaluation in one file: sums of two numbers, which an answer gives exactly or not.

harness --plugin examples/harness-sums/evaluation_sums.py evaluate RUN@base RUN --evaluation sums
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import harness


class SumsOptions(harness.Options):
    """Keys that an entry of `evaluate` accepts beside the name."""

    count: int = 100
    largest: int = 99
    seed: int = 0


def items(options: SumsOptions, context: Any) -> Iterator[harness.EvaluationItem]:
    """Yield the same items each time: an id pairs the answers of two variants."""
    draw = random.Random(options.seed)
    for number in range(options.count):
        one, other = draw.randint(0, options.largest), draw.randint(0, options.largest)
        question = harness.Message("user", f"What is {one} + {other}? Answer with the number alone.")
        asked = harness.Request((question,), sampling=harness.Sampling(max_tokens=8))
        yield harness.EvaluationItem(f"{number}", (asked,), target=str(one + other))


def score(item: harness.EvaluationItem, answers: Sequence[harness.Answer]) -> Mapping[str, float]:
    """Return 1 for an answer that is the number, and 1 as `contains` for one that has it among its words."""
    text = answers[0].text.strip()
    return {"exact": float(text == item.target), "contains": float(item.target in re.findall(r"\d+", text))}


@harness.hookimpl
def register_evaluations(register: Callable[[harness.Evaluation], None]) -> None:
    register(harness.Evaluation("sums", "sums of two numbers", SumsOptions, items=items, score=score))
