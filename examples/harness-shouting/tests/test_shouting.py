import filter_shouting
import pytest

import harness
from harness.testing import check


def test_it_keeps_the_laws_of_its_kind():
    check(filter_shouting)


@pytest.mark.parametrize(
    ("answer", "reason"), [("THE HERON DOES", "shouts"), ("The heron does.", None), ("1, 2, 3", None)]
)
def test_only_what_shouts_is_left_out(answer, reason):
    judge = filter_shouting.create(filter_shouting.ShoutingOptions())
    assert judge(harness.Conversation.of(("user", "?"), ("assistant", answer))) == reason
