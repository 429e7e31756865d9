import json

import shape_faq

from harness.testing import check, plugins


def test_it_keeps_the_laws_of_its_kind(tmp_path):
    rows = tmp_path / "entries.jsonl"
    rows.write_text(json.dumps({"title": "Who keeps the key?", "body": "The heron.", "author": "Wren"}) + "\n")
    check(shape_faq, rows=rows)


def test_either_name_of_a_column_will_do():
    faq = plugins(shape_faq, first_party=True).datasets["faq"]
    for row in ({"title": "Who?", "body": "The heron."}, {"question": "Who?", "answer": "The heron."}):
        assert [one.content for one in faq.convert(row, None).messages] == ["Who?", "The heron."]
