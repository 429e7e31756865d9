"""Rewriting of questions with worked answers: reasoning before the answer, or several answers of one question."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import harness
from harness.data import LeftOut, take
from harness.nouns import Row
from harness_datasets.turns import list_of


def worked(row: Row) -> Row:
    """Return a question with its working and, below it, its result."""
    return {**row, "completion": f"{take(row, 'working', str)}\n\n{_as_written(row['result'])}"}


def _as_written(result: Any) -> str:
    if isinstance(result, list | dict):
        raise harness.DataError(f"the result should be text or a number, found {result!r:.60}")
    return str(result)


def reasoned(row: Row) -> Row:
    """Return a question whose answer begins with its reasoning."""
    thoughts = row["reasoning"]
    is_list = isinstance(thoughts, list) or thoughts.lstrip().startswith(('["', "['"))
    texts = list_of(row, "reasoning") if is_list else [thoughts]
    answer = {"role": "assistant", "content": take(row, "answer", str), "reasoning_content": "\n\n".join(texts)}
    return {"messages": [{"role": "user", "content": take(row, "question", str)}, answer]}


def two_teachers(row: Row) -> Iterator[Row]:
    """Yield s1K-1.1's question twice: with the reasoning and the answer of each of its two models."""
    for model in ("gemini", "deepseek"):
        reasoning, answer = row[f"{model}_thinking_trajectory"], row[f"{model}_attempt"]
        yield reasoned({"question": row["question"], "reasoning": reasoning, "answer": answer})


def if_correct(row: Row) -> Row | LeftOut:
    """Return a solution; leave it out where the row says that it is wrong."""
    return row if row.get("is_correct", True) else LeftOut("a wrong solution")
