"""Votes: what people said about two answers becomes preferences, from the very file that the server writes."""

import gzip
import json
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from harness_datasets import votes
from harness_datasets.votes import VotesOptions
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.data import SourceReport, convert_row, load_source, read_rows
from harness.data.convert.fields import known_fields, present_fields
from harness.data.read.sqlite import sqlite_rows
from harness.nouns import Side, Verdict
from harness.recipe import source_model

ASKED = [{"role": "user", "content": "Wer? 🐦"}]
VOTE = {
    "id": 7, "created_at": "2026-01-01 00:00:00", "left_variant": "base", "left_recipe_sha256": None,
    "left_messages": ASKED, "left_answer": "Ein Reiher.", "right_variant": "tuned", "right_recipe_sha256": "f" * 64,
    "right_messages": ASKED, "right_answer": "Der Reiher.", "system_prompt": "", "sampling": {"temperature": 0.0},
    "verdict": "right",
}  # fmt: skip


def convert(options=None, **changes):
    return convert_row(votes.DATASET, VOTE | changes, options or VotesOptions())


@pytest.mark.parametrize(("verdict", "chosen"), [("left", "Ein Reiher."), ("right", "Der Reiher.")])
def test_the_better_answer_is_chosen(verdict, chosen):
    (item,) = convert(verdict=verdict)
    assert [turn.content for turn in item.prompt] == ["Wer? 🐦"]
    assert item.chosen == (harness.Message("assistant", chosen),) != item.rejected
    assert item.id == "vote-7" and item.weight == 1


def test_ties_and_answers_that_cannot_differ_are_left_out():
    assert convert(verdict="tie") == convert(verdict="both_bad") == ()
    assert convert(left_answer="Der Reiher.") == () == convert(left_answer="")


def test_both_bad_rejects_both_where_that_is_asked_for():
    items = convert(VotesOptions(both_bad="reject"), verdict="both_bad")
    assert [(item.chosen, item.rejected[0].content, item.weight, item.id) for item in items] == [
        ((), "Ein Reiher.", 0.5, "vote-7.0"),
        ((), "Der Reiher.", 0.5, "vote-7.1"),
    ]


def test_the_system_prompt_is_kept_once():
    system = {"role": "system", "content": "Be brief."}
    for before in (ASKED, [system, *ASKED]):
        (item,) = convert(system_prompt="Be brief.", left_messages=before, right_messages=before)
        assert [turn.role for turn in item.prompt] == ["system", "user"]


def test_what_both_sides_share_is_the_prompt():
    """Each side has its own history; where they gave different answers before, that is part of what was compared."""
    more = {"role": "user", "content": "Sicher?"}
    same, other = ({"role": "assistant", "content": text} for text in ("Hm.", "Tja."))
    (item,) = convert(left_messages=[*ASKED, same, more], right_messages=[*ASKED, same, more])
    assert (len(item.prompt), len(item.chosen), len(item.rejected)) == (3, 1, 1)
    (item,) = convert(left_messages=[*ASKED, same, more], right_messages=[*ASKED, other, more])
    assert [turn.content for turn in item.chosen] == ["Tja.", "Sicher?", "Der Reiher."]
    assert [turn.content for turn in item.rejected] == ["Hm.", "Sicher?", "Ein Reiher."]


@pytest.mark.parametrize(("changes", "told"), [
    ({"verdict": "better"}, "the verdict is 'better', expected left, right, tie or both_bad"),
    ({"verdict": None}, "the field 'verdict' is null"),
    ({"left_messages": "["}, "the field 'left_messages' is not valid JSON"),
    ({"left_messages": {}}, "the field 'left_messages' should be a list, found {}"),
    ({"right_messages": [{"role": "human", "content": "a"}]}, "right_messages: message 1 has the role 'human'"),
    ({"right_messages": [{"role": "assistant", "content": "a"}]}, "the prompt ends with message 1, the assistant's"),
    ({"right_messages": [{"role": "user", "content": "Was?"}]},
     "two sides were asked different things from message 1 on"),
    ({"left_answer": 3}, "the field 'left_answer' should be text, found 3"),
])  # fmt: skip
def test_a_wrong_vote_is_named_with_its_field(changes, told):
    with pytest.raises(harness.DataError) as caught:
        convert(**changes)
    assert told in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    changes=st.dictionaries(
        st.sampled_from(sorted(VOTE)),
        st.none()
        | st.integers()
        | st.text(max_size=5)
        | st.sampled_from(["left", "tie", "both_bad", "[]", json.dumps(ASKED)])
        | st.lists(
            st.sampled_from([*ASKED, {"role": "assistant", "content": "a"}, {"role": "system", "content": ""}, 3]),
            max_size=3,
        ),
        max_size=4,
    )
)
def test_any_row_gives_items_or_a_data_error(changes):
    options = VotesOptions(both_bad="reject")
    try:
        votes.convert(VOTE | changes, options)
        convert(options, **changes)
    except harness.DataError:
        return


# The file


SAID = {"left": Verdict("best", 0), "right": Verdict("best", 1), "tie": Verdict("tie"), "both_bad": Verdict("bad")}


def keep(path, *verdicts, system="Be brief.", finish="stop"):
    """Votes as the server writes them."""
    pytest.importorskip("sqlalchemy")
    from harness.votes.store import Ballots

    ballots = Ballots(str(path))
    before = [{"role": "system", "content": system}, *ASKED] if system else ASKED
    for verdict in verdicts:
        sides = (Side("base", None, before), Side("tuned", "f" * 64, before))
        ballot = ballots.open(sides, seed=1, system_prompt=system, sampling={})
        ballots.record(ballot, 0, "Ein Reiher.", finish)
        ballots.record(ballot, 1, "Der Reiher.", "stop")
        ballots.vote(ballot, SAID[verdict])
    return path


def test_the_servers_own_file_is_read(tmp_path):
    path = keep(tmp_path / "votes.db", "left", "tie", "right", "both_bad")
    before = path.read_bytes()
    rows = list(sqlite_rows(path))
    assert [number for number, _ in rows] == [1, 2, 3, 4] and ASKED[0] in json.loads(rows[0][1]["sides"])[0]["messages"]
    items = [convert_row(votes.DATASET, row, VotesOptions()) for _, row in rows]
    assert [[item.chosen[0].content for item in made] for made in items] == [["Ein Reiher."], [], ["Der Reiher."], []]
    assert items[0][0].prompt[0] == harness.Message("system", "Be brief.")
    assert path.read_bytes() == before


def test_the_best_of_three_is_preferred_to_each_of_the_others(tmp_path):
    from harness.votes.store import Ballots

    ballots = Ballots(str(tmp_path / "votes.db"))
    ballot = ballots.open([Side(name, None, ASKED) for name in "abc"], seed=0, sampling={})
    for position in range(3):
        ballots.record(ballot, position, f"Reiher {position}", "stop")
    ballots.vote(ballot, Verdict("best", 1))
    ((_, row),) = sqlite_rows(tmp_path / "votes.db")
    items = convert_row(votes.DATASET, row, VotesOptions())
    assert [(item.chosen[0].content, item.rejected[0].content, item.weight, item.id) for item in items] == [
        ("Reiher 1", "Reiher 0", 0.5, "vote-1.0"),
        ("Reiher 1", "Reiher 2", 0.5, "vote-1.2"),
    ]


def test_an_answer_that_was_cut_is_not_learnt_from(tmp_path):
    ((_, row),) = sqlite_rows(keep(tmp_path / "votes.db", "left", finish="length"))
    assert convert_row(votes.DATASET, row, VotesOptions()) == ()


def test_answers_with_tools_at_hand_are_not_learnt_from(tmp_path):
    """A ballot keeps their calls as text; with an empty list of tools there are none."""
    ((_, row),) = sqlite_rows(keep(tmp_path / "votes.db", "left"))
    look_up = {"type": "function", "function": {"name": "look_up"}}
    with_tools = {**row, "sampling": json.dumps({"temperature": 0.0, "tools": [look_up]})}
    without = {**row, "sampling": {"temperature": 0.0, "tools": []}}
    assert votes.convert(with_tools, VotesOptions()) == harness.data.LeftOut("tools were offered")
    assert len(convert_row(votes.DATASET, without, VotesOptions())) == 1


def test_a_ballot_that_was_not_voted_on_or_is_void_is_no_row(tmp_path):
    from harness.votes.store import Ballots

    path = keep(tmp_path / "votes.db", "left")
    ballots = Ballots(str(path))
    ballots.open([Side("a", None, ASKED), Side("b", None, ASKED)], seed=0, sampling={})
    assert [row["id"] for _, row in sqlite_rows(path)] == [1]


def test_a_recipe_names_the_file_as_its_path(tmp_path):
    path = keep(tmp_path / "votes.db", "left", "tie", "right", "both_bad")
    report = SourceReport("votes", str(path))
    source = source_model(votes.DATASET)(dataset="votes", path=str(path), both_bad="reject")
    items = list(load_source(source, {"votes": votes.DATASET}, report))
    assert [item.id for item in items] == ["vote-1", "vote-3", "vote-4.0", "vote-4.1"]
    assert (report.rows, report.kept, report.left_out.total()) == (4, 4, 1)


def test_a_packed_file_says_to_unpack_it(tmp_path):
    (tmp_path / "votes.db.gz").write_bytes(gzip.compress(keep(tmp_path / "votes.db", "left").read_bytes()))
    with pytest.raises(harness.DataError, match="a SQLite file that is packed or not on this machine: unpack it"):
        list(read_rows(tmp_path / "votes.db.gz"))


def test_every_field_of_the_table_is_known(tmp_path):
    """For `auto`; this fails when the server's table grows and the data set does not know."""
    ((_, row),) = sqlite_rows(keep(tmp_path / "votes.db", "left"))
    assert known_fields(votes.DATASET, row) == present_fields(row)
    assert known_fields(votes.DATASET, VOTE) == present_fields(VOTE)


def test_votes_that_a_killed_server_left_in_the_log_are_read(tmp_path):
    path = keep(tmp_path / "votes.db", "left")
    code = (
        "import os, sys, sqlite3; c = sqlite3.connect(sys.argv[1]); c.execute('PRAGMA journal_mode=WAL');"
        "c.execute('PRAGMA wal_autocheckpoint=0'); "
        "names = ', '.join(r[1] for r in c.execute('PRAGMA table_info(ballots)') if r[1] != 'id'); "
        "c.execute(f'INSERT INTO ballots ({names}) SELECT {names} FROM ballots'); c.commit(); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, path], check=False)
    assert (tmp_path / "votes.db-wal").stat().st_size > 0
    assert len(list(sqlite_rows(path))) == 2


def database(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def read(path):
    """The rows, and what was told of those that cannot be read."""
    found = []
    try:
        found += [str(row) if isinstance(row, harness.DataError) else row for _, row in sqlite_rows(path)]
    except harness.DataError as error:
        found.append(str(error))
    return found


def test_any_table_gives_its_rows(tmp_path):
    path = database(
        tmp_path / "a#b?.db", 'CREATE TABLE "my ""rows" ("prompt" TEXT, n INTEGER, x REAL, empty TEXT, raw, j JSON)',
        """INSERT INTO "my ""rows" VALUES ('é', 1, 1.5, NULL, x'00ff', '{"a": [1]}')""",
    )  # fmt: skip
    assert read(path) == [{"prompt": "é", "n": 1, "x": 1.5, "empty": None, "raw": b"\x00\xff", "j": {"a": [1]}}]


def test_a_wrong_cell_costs_its_row_and_no_other(tmp_path):
    path = database(
        tmp_path / "rows.db", "CREATE TABLE t (a TEXT, j JSON)", "INSERT INTO t VALUES ('x', '[')",
        "INSERT INTO t VALUES ('y', '1')", "INSERT INTO t VALUES (CAST(x'ff' AS TEXT), '2')",
    )  # fmt: skip
    first, second, third = read(path)
    assert first.startswith("the column 'j' is declared as JSON but is not valid")
    assert second == {"a": "y", "j": 1}
    assert third.startswith("the column 'a' is not UTF-8 text: byte 0")


def test_a_file_without_one_table_says_what_it_has(tmp_path):
    path = database(tmp_path / "two.db", "CREATE TABLE b (x)", "CREATE TABLE a (x)")
    assert read(path) == ["a SQLite file of rows has one table, found 2: a, b"]
    path = database(tmp_path / "none.db", "CREATE TABLE a (x)", "DROP TABLE a")
    assert read(path) == ["a SQLite file of rows has one table, found none"]


@pytest.mark.parametrize("damage", ["cut", "overwritten"])
def test_a_damaged_file_is_named(damage, tmp_path):
    rows = [f"INSERT INTO t VALUES ('{'x' * 3000}')" for _ in range(20)]
    path = database(tmp_path / "rows.db", "CREATE TABLE t (a TEXT)", *rows)
    content = path.read_bytes()
    path.write_bytes(content[:9000] if damage == "cut" else content[:100] + b"\xff" * (len(content) - 100))
    assert any(isinstance(row, str) and row.startswith("the SQLite file cannot be read: ") for row in read(path))
