import command_longest

from harness.testing import check, run


def test_it_keeps_the_laws_of_its_kind():
    check(command_longest)


def test_the_longest_come_first_by_their_numbers(tmp_path):
    (tmp_path / "rows.jsonl").write_text("aa\nbbbb\nc\ndddd\n")
    done = run("longest rows.jsonl --count 3", cwd=tmp_path, modules=[command_longest])
    assert done.out.split() == ["2", "4", "bbbb", "4", "4", "dddd", "1", "2", "aa"]
    assert run("longest nothing.jsonl", cwd=tmp_path, modules=[command_longest]).code == 2
