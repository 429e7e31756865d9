"""A vote acknowledged is a vote kept, once: each operation on a ballot is one transaction."""

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from harness import HarnessError
from harness.nouns import Side, Verdict

pytest.importorskip("sqlalchemy")

from harness.votes.store import Ballots, ClosedBallotError

VERSION_1 = Path(__file__).resolve().parents[1] / "data" / "votes-1.db"
ASKED = [{"role": "user", "content": "Wer? 🐦"}]
SIDES = (Side("base", None, ASKED), Side("alpha", "f" * 64, ASKED), Side("beta", "e" * 64, ASKED))
ALPHA = Verdict("best", 1)


@pytest.fixture
def ballots(tmp_path):
    return Ballots(str(tmp_path / "votes.db"))


def opened(ballots, sides=SIDES):
    """A ballot whose answers are all there."""
    id = ballots.open(sides, seed=7, system_prompt="Be brief.", sampling={"temperature": 0.0}, annotator="ada")
    for position in range(len(sides)):
        ballots.record(id, position, f"answer {position}", "stop", 3)
    return id


def test_a_ballot_comes_back_as_it_was(ballots, tmp_path):
    id = opened(ballots)
    ballots.vote(id, ALPHA)
    (kept,) = Ballots(str(tmp_path / "votes.db"))
    assert (kept.id, kept.state, kept.verdict, kept.seed, kept.annotator) == (id, "voted", ALPHA, 7, "ada")
    assert kept.sides[1] == Side("alpha", "f" * 64, ASKED, "answer 1", "stop", 3)
    assert kept.system_prompt == "Be brief." and kept.created_at.utcoffset().total_seconds() == 0


def test_a_verdict_may_be_changed_until_the_variants_are_revealed(ballots):
    id = opened(ballots)
    ballots.vote(id, ALPHA)
    ballots.vote(id, Verdict("tie"))
    ballots.reveal(id)
    with pytest.raises(ClosedBallotError, match=rf"ballot {id} is closed: its variants are revealed"):
        ballots.vote(id, ALPHA)
    assert (ballots[id].verdict, ballots[id].state, len(ballots)) == (Verdict("tie"), "revealed", 1)


def test_a_void_ballot_takes_no_vote(ballots):
    id = opened(ballots)
    ballots.void(id)
    with pytest.raises(ClosedBallotError, match="it is void"):
        ballots.vote(id, ALPHA)


def test_answers_do_not_change_once_they_are_voted_on(ballots):
    id = opened(ballots)
    ballots.vote(id, ALPHA)
    with pytest.raises(ClosedBallotError, match="it was voted on"):
        ballots.record(id, 0, "another", "stop")


@pytest.mark.parametrize("verdict", [Verdict("best"), Verdict("best", 3), Verdict("best", -1), Verdict("tie", 0)])
def test_a_verdict_on_no_side_is_refused(ballots, verdict):
    id = opened(ballots)
    with pytest.raises(ValueError, match="is not a verdict on 3 sides"):
        ballots.vote(id, verdict)
    assert ballots[id].verdict is None


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_ballot_has_two_to_four_sides(ballots, count):
    with pytest.raises(ValueError, match=rf"found {count}"):
        ballots.open([SIDES[0]] * count, seed=0, sampling={})


def test_of_many_verdicts_at_once_one_is_kept(ballots):
    id = opened(ballots)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda best: ballots.vote(id, Verdict("best", best % 3)), range(24)))
    (kept,) = ballots
    assert kept.state == "voted" and kept.verdict.kind == "best"


def test_ballots_survive_a_kill_right_after_the_acknowledgement(tmp_path):
    code = (
        "import sys; from harness.votes.store import Ballots; from harness.nouns import Side, Verdict\n"
        "ballots = Ballots(sys.argv[1]); side = Side('a', None, [], 'x')\n"
        "while True:\n"
        "    id = ballots.open([side, side], seed=0, sampling={}); ballots.vote(id, Verdict('tie')); print(id, flush=True)"
    )
    database = str(tmp_path / "votes.db")
    writer = subprocess.Popen([sys.executable, "-c", code, database], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split("\n") if line]
    writer.wait()
    kept = {ballot.id: ballot.verdict for ballot in Ballots(database)}
    assert all(kept[id] == Verdict("tie") for id in acknowledged)


def test_several_servers_may_start_on_a_new_file_at_once(tmp_path):
    database = str(tmp_path / "votes.db")
    with ThreadPoolExecutor(6) as pool:
        assert [len(opened) for opened in pool.map(lambda _: Ballots(database), range(6))] == [0] * 6


def test_sqlite_writes_ahead_and_waits_for_the_disk(ballots):
    with ballots._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


@pytest.mark.parametrize("database", ["", ":memory:", "sqlite://", "nosuch://x", "postgresql+nodriver://u@h/x"])
def test_a_database_that_cannot_keep_votes_is_refused(database):
    with pytest.raises(HarnessError, match="votes"):
        Ballots(database)


def test_a_database_of_another_shape_is_refused(tmp_path):
    for name, statement, told in (
        ("other", "CREATE TABLE votes (id INTEGER)", "that is not the harness's: it lacks"),
        ("sides", "CREATE TABLE sides (id INTEGER)", "has a table 'sides' that the harness did not make"),
        ("later", "CREATE TABLE schema_version (version INTEGER)", "use the harness that wrote it"),
    ):
        with closing(sqlite3.connect(tmp_path / name)) as connection:
            connection.execute(statement)
            if name == "later":
                connection.execute("INSERT INTO schema_version VALUES (9)")
            connection.commit()
        with pytest.raises(HarnessError, match=told):
            Ballots(str(tmp_path / name))
    with pytest.raises(HarnessError, match=r"nowhere/votes.db cannot be used: unable to open"):
        Ballots(str(tmp_path / "nowhere/votes.db"))


def test_votes_of_version_1_become_ballots(tmp_path):
    """The file was written by version 1: five verdicts on two to four columns, ten rows."""
    shutil.copy(VERSION_1, tmp_path / "votes.db")
    first, second, third, fourth, fifth = Ballots(str(tmp_path / "votes.db"))
    assert [side.variant for side in second.sides] == ["base", "alpha", "beta"]
    assert [one.verdict for one in (first, second, third, fourth, fifth)] == [
        Verdict("best", 1), Verdict("best", 1), Verdict("tie"), Verdict("best", 0), Verdict("bad"),
    ]  # fmt: skip
    assert second.sides[1].answer == "Under the willow. 🐦" and second.sides[1].recipe_sha256 == "a" * 64
    assert second.system_prompt == "Answer briefly." and len(fourth.sides) == 4
    assert len(Ballots(str(tmp_path / "votes.db"))) == 5  # opened again, nothing is brought over twice
