"""Marks on the words in which answers differ."""

from __future__ import annotations

import re

from harness_serve.answering import Answer, Sampling, Turn
from harness_serve.differences import MOST_WORDS, marked
from harness_serve.markup import markdown
from harness_serve.rendering import column_html
from harness_serve.session import Session


def differing(*texts: str) -> list[list[str]]:
    """Return the marked stretches of each of some answers."""
    compared = marked(tuple(map(markdown, texts)))
    assert compared is not None
    for answer, text in zip(compared, texts, strict=True):
        assert re.sub(r"</?mark[^>]*>", "", answer.html) == markdown(text)
    return [re.findall(r'<mark class="differs">(.*?)</mark>', answer.html, re.DOTALL) for answer in compared]


def test_words_that_the_other_lacks_are_marked() -> None:
    assert differing("The heron keeps the old key.", "The heron hides the key.") == [["keeps", "old"], ["hides"]]


def test_neighbouring_words_share_a_mark() -> None:
    assert differing("It is by the mill.", "It is under a bridge.") == [["by the mill"], ["under a bridge"]]


def test_equal_answers_have_no_marks() -> None:
    assert differing("Good *day*, it's `x & y`.", "Good *day*, it's `x & y`.") == [[], []]


def test_of_several_answers_a_word_is_common_only_to_all() -> None:
    assert differing("one two three", "one two four", "one five three") == [["two three"], ["two four"], ["five three"]]


def test_a_mark_stays_within_its_element() -> None:
    assert differing("a **b c** d", "x **y z** w") == [["a", "b c", "d"], ["x", "y z", "w"]]


def test_a_formula_is_one_word_and_code_is_marked_inside() -> None:
    first, second = differing("$x^2$ so\n\n```python\nx = 1\n```", "$x^3$ so\n\n```python\nx = 2\n```")
    assert [stretch.startswith("<math") for stretch in first] == [True, False]
    assert (first[1], second[1]) == ("1", "2")


def test_text_that_looks_like_markup_is_marked_as_text() -> None:
    compared = marked(tuple(map(markdown, ("<script>a</script> &lt;", "<script>b</script> &lt;"))))
    assert compared is not None and "<script" not in compared[0].html
    assert '<mark class="differs">a</mark>' in compared[0].html


def test_answers_too_long_to_compare_stay_unmarked() -> None:
    assert marked(("word " * (MOST_WORDS + 1), "word")) is None


def test_marks_are_drawn_on_request_once_all_answers_are_there() -> None:
    answers = [Answer("The heron keeps it.", 5, finish="stop"), Answer("The heron hides it.", 5, finish=None)]
    state = Session(["alpha", "beta"], turns=[Turn("Who?", "", Sampling(), answers)])
    state.marks = True
    assert "<mark" not in column_html(state, 0)
    answers[1].finish = "stop"
    assert '<mark class="differs">keeps</mark>' in column_html(state, 0) and "1 of 5 words differ" in column_html(
        state, 0
    )
    state.marks = False
    assert "<mark" not in column_html(state, 0)
    state.marks = state.blind = True
    assert "<mark" not in column_html(state, 0)
