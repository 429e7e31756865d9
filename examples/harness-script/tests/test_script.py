import template_script

from harness.testing import check


def test_it_keeps_the_laws_of_its_kind():
    check(template_script)


def test_an_answer_ends_with_the_tokenizer_s_own_token(tiny_tokenizer):
    assert template_script.stop_tokens(tiny_tokenizer) == (tiny_tokenizer.eos_token,)
