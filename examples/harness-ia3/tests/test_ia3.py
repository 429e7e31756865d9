import method_ia3

from harness.testing import check


def test_it_keeps_the_laws_of_its_kind():
    check(method_ia3)


def test_it_scales_keys_values_and_the_way_down():
    assert method_ia3.Ia3Options().target_modules == ("k_proj", "v_proj", "down_proj")
