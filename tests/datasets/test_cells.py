"""Rows of CSV, in which objects and lists are text: read as the same rows in JSON, or refused."""

import json
import re
from collections.abc import Mapping
from typing import Any

import pytest

import harness
from harness.data import convert_row
from harness.plugins import Plugins
from tests.datasets.test_accounting import EXAMPLES
from tests.datasets.test_shapes import ROWS
from tests.following import text_of

CASES = [(name, row) for name, row, wanted in ROWS if wanted] + [
    (name, row) for name, rows in EXAMPLES.items() for row in rows
]
CHAT = [{"role": "user", "content": "q"}]


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


def in_a_table(row: Mapping[str, Any], written=json.dumps) -> dict[str, str]:
    """Return a row as a CSV has it: every cell is text."""
    return {
        name: value if isinstance(value, str) else "" if value is None else written(value)
        for name, value in row.items()
    }


@pytest.mark.parametrize("written", [json.dumps, repr])
@pytest.mark.parametrize(("name", "row"), CASES, ids=[f"{name}-{number}" for number, (name, _) in enumerate(CASES)])
def test_a_row_in_cells_becomes_the_same_or_is_refused(name, row, written, datasets):
    try:
        items = convert_row(datasets[name], in_a_table(row, written))
    except harness.DataError:
        return
    assert re.sub(r"call\\d+", "", text_of(filter(None, items))) == re.sub(
        r"call\\d+", "", text_of(filter(None, convert_row(datasets[name], row)))
    )


@pytest.mark.parametrize("name", ["prompt_completion", "preferences", "openai_responses", "spoken", "langsmith"])
def test_messages_in_cells_are_read(name, datasets):
    rows = [row for case, row in CASES if case == name and any(isinstance(value, list) for value in row.values())]
    rows = rows or [row for case, row in CASES if case == name]
    read = 0
    for row in rows:
        try:
            read += bool(convert_row(datasets[name], in_a_table(row)))
        except harness.DataError:
            continue
    assert read


def test_an_answer_that_is_json_stays_text(datasets):
    for answer in ('{"city": "Lima"}', '[{"name": "f", "content": "x"}]', "[1, 2]", "{not json"):
        (item,) = convert_row(datasets["prompt_completion"], {"prompt": "Give me JSON.", "completion": answer})
        assert item.messages[1].content == answer


def test_a_key_inside_a_cell_is_accounted_for_too(datasets):
    talk = [*CHAT, {"role": "assistant", "content": "a", "mood": "glad"}]
    with pytest.raises(harness.DataError, match=r"'messages\.mood' would be lost"):
        convert_row(datasets["messages"], {"messages": json.dumps(talk)})
