import objective_dft

from harness.testing import check


def test_it_keeps_the_laws_of_its_kind():
    check(objective_dft)


def test_at_least_all_of_a_loss_counts_where_the_floor_is_one():
    assert objective_dft.DftOptions(floor=1.0).floor == 1.0 and objective_dft.DftOptions().floor == 0.0
