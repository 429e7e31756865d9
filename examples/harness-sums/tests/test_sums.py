import evaluation_sums
import pytest

import harness
from harness.testing import check


def test_it_keeps_the_laws_of_its_kind():
    check(evaluation_sums)


@pytest.mark.parametrize(
    ("answer", "exact", "contains"), [("{}", 1, 1), ("It is {}.", 0, 1), ("1{}", 0, 0), ("", 0, 0)]
)
def test_an_answer_is_exact_or_contains_the_sum(answer, exact, contains):
    item = next(evaluation_sums.items(evaluation_sums.SumsOptions(), None))
    answered = harness.Answer(answer.format(item.target), "stop")
    assert evaluation_sums.score(item, [answered]) == {"exact": exact, "contains": contains}
