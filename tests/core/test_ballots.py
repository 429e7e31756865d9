"""A vote acknowledged is a vote kept, once: each operation on a ballot is one transaction."""

import contextlib
import datetime
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from harness import HarnessError
from harness.nouns import Side, Verdict

pytest.importorskip("sqlalchemy")

import sqlalchemy

from harness.votes.database import transaction
from harness.votes.schema import ADDED
from harness.votes.store import Ballots, ClosedBallotError, require_usable

VERSION_1 = Path(__file__).resolve().parents[1] / "data" / "votes-1.db"
ASKED = [{"role": "user", "content": "Wer? 🐦"}]
SIDES = (Side("base", None, ASKED), Side("alpha", "f" * 64, ASKED), Side("beta", "e" * 64, ASKED))
ALPHA = Verdict("best", 1)


# A URL whose user may create databases, such as postgresql://harness@localhost/postgres. Unset: a server is started.
POSTGRES = "HARNESS_TEST_POSTGRES"


@pytest.fixture(scope="session")
def postgres_server(free_tcp_port_factory):
    """A PostgreSQL server's URL, the one that POSTGRES names or one of this session, and what starts or stops it."""
    pytest.importorskip("psycopg")
    if os.environ.get(POSTGRES):
        yield os.environ[POSTGRES], None
        return
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"), reverse=True)  # not on the PATH there
    if (pg_ctl := next((path for path in (shutil.which("pg_ctl"), *debian) if path), None)) is None:
        pytest.skip(f"{POSTGRES} is not set, and PostgreSQL is not installed")
    owner = {"user": "postgres"} if os.getuid() == 0 else {}  # PostgreSQL refuses to run as root
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        if owner:
            shutil.chown(folder, owner["user"])
        port, data = free_tcp_port_factory(), f"{folder}/data"

        def control(do):
            more = {
                "init": ["--options=--auth=trust --username=harness"],
                "start": [f"--log={folder}/log", f"--options=-p {port} -k {folder} -h 127.0.0.1"],
                "stop": ["--mode=immediate"],
            }[do]
            command = [pg_ctl, "--pgdata", data, "--wait", "--silent", do, *more]
            subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, **owner)

        control("init")
        control("start")
        yield f"postgresql://harness@127.0.0.1:{port}/postgres", control
        control("stop")


@pytest.fixture
def postgres(postgres_server):
    """A new database of the PostgreSQL server."""
    url = sqlalchemy.make_url(postgres_server[0]).set(drivername="postgresql+psycopg")
    server = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT", pool_pre_ping=True)
    name = f"harness_test_{os.getpid()}"
    with server.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    yield server.url.set(drivername="postgres", database=name).render_as_string(hide_password=False)
    with server.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, tmp_path):
    """An empty place for votes: a SQLite file, or a new database of the PostgreSQL server."""
    return str(tmp_path / "votes.db") if request.param == "sqlite" else request.getfixturevalue("postgres")


@pytest.fixture
def ballots(database):
    return Ballots(database)


def opened(ballots, sides=SIDES):
    """A ballot whose answers are all there."""
    id = ballots.open(sides, seed=7, system_prompt="Be brief.", sampling={"temperature": 0.0}, annotator="ada")
    for position in range(len(sides)):
        ballots.record(id, position, f"answer {position}", "stop", 3)
    return id


def test_a_ballot_comes_back_as_it_was(ballots, database):
    id = opened(ballots)
    ballots.vote(id, ALPHA)
    (kept,) = Ballots(database)
    assert (kept.id, kept.state, kept.verdict, kept.seed, kept.annotator) == (id, "voted", ALPHA, 7, "ada")
    assert kept.sides[1] == Side("alpha", "f" * 64, ASKED, "answer 1", "stop", 3)
    assert kept.system_prompt == "Be brief." and kept.created_at.utcoffset().total_seconds() == 0


def test_a_closed_database_is_one_file(tmp_path):
    """A copy of it has every vote; while a server has it open, a part is in a file beside it."""
    path = tmp_path / "votes.db"
    ballots = Ballots(str(path))
    ballots.vote(opened(ballots), ALPHA)
    ballots.close()
    assert [one.name for one in tmp_path.iterdir()] == ["votes.db"]
    shutil.copy(path, tmp_path / "copy.db")
    assert [ballot.verdict for ballot in Ballots(str(tmp_path / "copy.db"))] == [ALPHA]


def test_a_verdict_may_be_changed_until_the_variants_are_revealed(ballots):
    id = opened(ballots)
    ballots.vote(id, ALPHA)
    ballots.vote(id, Verdict("tie"))
    ballots.reveal(id)
    with pytest.raises(ClosedBallotError, match=rf"ballot {id} is closed: its variants are revealed"):
        ballots.vote(id, ALPHA)
    assert (ballots[id].verdict, ballots[id].state, len(ballots)) == (Verdict("tie"), "revealed", 1)


def test_of_verdicts_that_reveal_the_first_is_kept(ballots):
    """In one transaction: of many at once one closes the ballot, and the others are refused."""
    id = opened(ballots)

    def vote(best):
        with contextlib.suppress(ClosedBallotError):
            ballots.vote(id, Verdict("best", best % 3), reveal=True)
            return best % 3
        return None

    with ThreadPoolExecutor(8) as pool:
        (kept,) = [best for best in pool.map(vote, range(24)) if best is not None]
    assert (ballots[id].state, ballots[id].verdict) == ("revealed", Verdict("best", kept))


def test_nul_is_kept_out(ballots):
    """PostgreSQL takes none, and SQLite's functions end at it: everywhere it becomes U+FFFD."""
    asked = [{"role": "user", "content": "a\0b", "parts": [("c\0",)]}]
    id = ballots.open([Side(name, None, asked) for name in "ab"], seed=0, system_prompt="\0", sampling={})
    ballots.record(id, 0, "one\0two", "stop")
    side = ballots[id].sides[0]
    assert side.answer == "one\ufffdtwo" and ballots[id].system_prompt == "\ufffd"
    assert side.messages == [{"role": "user", "content": "a\ufffdb", "parts": [["c\ufffd"]]}]


def test_an_answer_of_no_side_is_refused(ballots):
    id = opened(ballots)
    with pytest.raises(ValueError, match=rf"ballot {id} has no side at position 3"):
        ballots.record(id, 3, "another", "stop")


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


@pytest.mark.parametrize(
    "verdict", [("best",), ("best", 3), ("best", -1), ("best", 1.5), ("best", True), ("tie", 0), ("foo",)]
)
def test_a_verdict_on_no_side_is_refused(ballots, verdict):
    id = opened(ballots)
    with pytest.raises(ValueError, match="is not a verdict on 3 sides: expected `best` with a position from 0 to 2"):
        ballots.vote(id, Verdict(*verdict))
    assert ballots[id].verdict is None


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_ballot_has_two_to_four_sides(ballots, count):
    with pytest.raises(ValueError, match=rf"found {count}"):
        ballots.open([SIDES[0]] * count, seed=0, sampling={})


def test_a_ballot_is_voted_on_once_every_answer_is_there(ballots):
    id = ballots.open(SIDES, seed=0, sampling={})
    ballots.record(id, 1, "an answer", "stop")
    with pytest.raises(HarnessError, match="cannot be voted on yet: no answer is recorded at position 0, 2"):
        ballots.vote(id, ALPHA)
    ballots.record(id, 0, "answer", "length")
    ballots.record(id, 2, "answer", "stop")
    ballots.vote(id, ALPHA)
    assert ballots[id].verdict == ALPHA


def test_an_answer_recorded_again_before_the_vote_replaces_the_earlier(ballots):
    id = opened(ballots)
    ballots.record(id, 0, "another", "length", 1)
    assert ballots[id].sides[0] == Side("base", None, ASKED, "another", "length", 1)


def test_a_ballot_with_an_empty_answer_takes_no_vote(ballots):
    id = opened(ballots)
    ballots.record(id, 1, "", "stop")
    with pytest.raises(HarnessError, match="an answer is empty"):
        ballots.vote(id, ALPHA)
    assert ballots[id].verdict is None


def test_a_ballot_keeps_what_was_blind_and_when(ballots):
    asked = [Side(name, None, [], identity={"adapter": name * 8}) for name in "ab"]
    id = ballots.open(asked, seed=1, sampling={}, blind=True, turn=2, prompt_set="mt", prompt_id="81")
    for position in range(2):
        ballots.record(id, position, "an answer", "length", 9, first_token_s=0.25, seconds=1.5)
    ballots.vote(id, Verdict("tie"), reasons=["format"], latency_s=7.5)
    kept, side = ballots[id], ballots[id].sides[1]
    assert (kept.blind, kept.turn, kept.prompt_set, kept.prompt_id) == (True, 2, "mt", "81")
    assert (list(kept.reasons), kept.latency_s) == (["format"], 7.5)
    assert (side.identity, side.first_token_s, side.seconds) == ({"adapter": "b" * 8}, 0.25, 1.5)


def test_a_person_is_forgotten_and_nobody_else(ballots):
    for annotator in ("ada", "ben", "ada"):
        ballots.open(SIDES, seed=0, sampling={}, annotator=annotator)
    assert ballots.forget("ada") == 2 and [ballot.annotator for ballot in ballots] == ["ben"]
    assert ballots.forget("ada") == 0


@pytest.mark.parametrize("version", [2, 3])
def test_older_versions_are_brought_up_to_date(database, version):
    """Ballots of version 2 were of named variants; what a version did not keep is unknown."""
    id = opened(Ballots(database))
    Ballots(database).vote(id, ALPHA)
    url = database if "://" in database else f"sqlite:///{database}"
    engine = sqlalchemy.create_engine(sqlalchemy.make_url(url.replace("postgres://", "postgresql+psycopg://")))
    with engine.begin() as connection:
        if engine.dialect.name == "sqlite":
            connection.exec_driver_sql("DROP VIEW judged_ballots")
        added = [pair for since, tables in ADDED.items() if since > version for pair in tables.items()]
        for table, columns in added:
            for column in columns:
                connection.exec_driver_sql(f"ALTER TABLE {table} DROP COLUMN {column}")
        connection.exec_driver_sql(f"UPDATE schema_version SET version = {version}")
    for _ in range(2):
        (kept,) = Ballots(database)
        assert (kept.verdict, kept.blind, kept.turn, list(kept.reasons), kept.latency_s) == (ALPHA, False, 0, [], None)
        assert kept.sides[1] == Side("alpha", "f" * 64, ASKED, "answer 1", "stop", 3)
    new = Ballots(database).open(SIDES, seed=0, sampling={}, blind=True, category="law", replaces=id)
    assert (Ballots(database)[new].category, Ballots(database)[new].replaces) == ("law", id)


@pytest.mark.parametrize("finish", ["", "error", "stopped", None])
def test_an_answer_that_did_not_end_is_refused(ballots, finish):
    id = opened(ballots)
    with pytest.raises(ValueError, match=f"ends by stop or length, found {finish!r}"):
        ballots.record(id, 0, "another", finish)


@pytest.mark.parametrize("tokens", [-1, 1.5, 2**70])
def test_a_number_of_tokens_that_is_none_is_refused(ballots, tokens):
    id = opened(ballots)
    with pytest.raises(ValueError, match=f"the number of tokens .* found {tokens}"):
        ballots.record(id, 0, "another", "stop", tokens)


def test_half_a_surrogate_pair_is_kept_out(ballots):
    asked = [{"role": "user", "content": "a\ud800🐦"}]
    sides = [Side(f"{name}\udfff", None, asked) for name in "ab"]
    id = ballots.open(sides, seed=0, system_prompt="\udc00", sampling={"stop": "\ud800"}, annotator="\ud800")
    ballots.record(id, 0, "one\ud800two", "stop")
    kept = ballots[id]
    assert kept.sides[0] == Side("a\ufffd", None, [{"role": "user", "content": "a\ufffd🐦"}], "one\ufffdtwo", "stop")
    assert (kept.system_prompt, kept.sampling, kept.annotator) == ("\ufffd", {"stop": "\ufffd"}, "\ufffd")


@pytest.mark.parametrize("seed", [2**63, -(2**63) - 1, 1.5])
def test_a_seed_that_no_database_keeps_is_refused(ballots, seed):
    with pytest.raises(ValueError, match="the seed of a ballot is an integer of 64 bits"):
        ballots.open(SIDES, seed=seed, sampling={})
    id = ballots.open(SIDES, seed=2**63 - 1, sampling={})
    assert ballots[id].seed == 2**63 - 1 and len(ballots) == 1


def test_a_variant_on_two_sides_is_refused(ballots):
    with pytest.raises(ValueError, match="different variants, found 'base' on 2"):
        ballots.open([*SIDES, SIDES[0]], seed=0, sampling={})


@pytest.mark.parametrize("id", [999, 2**70, "x"])
def test_an_unknown_ballot_is_one_error_everywhere(ballots, id):
    for operation in (
        lambda: ballots[id],
        lambda: ballots.vote(id, ALPHA),
        lambda: ballots.record(id, 0, "answer", "stop"),
        lambda: ballots.reveal(id),
        lambda: ballots.void(id),
    ):
        with pytest.raises(HarnessError, match=f"there is no ballot {id!r}"):
            operation()


def test_the_package_has_the_store():
    import harness.votes

    assert harness.votes.Ballots is Ballots and harness.votes.ClosedBallotError is ClosedBallotError


def test_of_many_verdicts_at_once_one_is_kept(ballots):
    id = opened(ballots)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda best: ballots.vote(id, Verdict("best", best % 3)), range(24)))
    (kept,) = ballots
    assert kept.state == "voted" and kept.verdict.kind == "best"


def test_ballots_survive_a_kill_right_after_the_acknowledgement(database):
    code = (
        "import sys; from harness.votes.store import Ballots; from harness.nouns import Side, Verdict\n"
        "ballots = Ballots(sys.argv[1]); sides = [Side(name, None, [], 'x', 'stop') for name in 'ab']\n"
        "while True:\n"
        "    id = ballots.open(sides, seed=0, sampling={}); ballots.vote(id, Verdict('tie'))\n"
        "    print(id, flush=True)"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, database], stdout=subprocess.PIPE, text=True)
    acknowledged = [int(writer.stdout.readline()) for _ in range(20)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += [int(line) for line in writer.stdout.read().split("\n") if line]
    writer.wait()
    kept = {ballot.id: ballot.verdict for ballot in Ballots(database)}
    assert all(kept[id] == Verdict("tie") for id in acknowledged)


def test_several_servers_may_start_on_a_new_database_at_once(database):
    with ThreadPoolExecutor(6) as pool:
        assert [len(opened) for opened in pool.map(lambda _: Ballots(database), range(6))] == [0] * 6


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path):
    with Ballots(str(tmp_path / "votes.db"))._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


@pytest.mark.parametrize("database", ["", ":memory:", "sqlite://", "nosuch://x", "postgresql+nodriver://u@h/x"])
def test_a_database_that_cannot_keep_votes_is_refused(database):
    for open in (Ballots, require_usable):
        with pytest.raises(HarnessError, match="votes"):
            open(database)


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


def test_a_database_is_tried_without_a_trace(database, tmp_path):
    require_usable(database)
    assert list(tmp_path.iterdir()) == []
    put_version_1(database)
    require_usable(database)
    url = database.replace("postgres://", "postgresql+psycopg://") if "://" in database else f"sqlite:///{database}"
    assert sqlalchemy.inspect(sqlalchemy.create_engine(url)).get_table_names() == ["votes"]
    with pytest.raises(HarnessError, match=r"nowhere is not a folder that you can write to"):
        require_usable(str(tmp_path / "nowhere/votes.db"))


def test_votes_of_version_1_become_ballots(database):
    """The file was written by version 1: five verdicts on two to four columns, ten rows."""
    put_version_1(database)
    first, second, third, fourth, fifth = Ballots(database)
    assert [side.variant for side in second.sides] == ["base", "alpha", "beta"]
    assert [one.verdict for one in (first, second, third, fourth, fifth)] == [
        Verdict("best", 1), Verdict("best", 1), Verdict("tie"), Verdict("best", 0), Verdict("bad"),
    ]  # fmt: skip
    assert second.sides[1].answer == "Under the willow. 🐦" and second.sides[1].recipe_sha256 == "a" * 64
    assert second.system_prompt == "Answer briefly." and len(fourth.sides) == 4
    assert len(Ballots(database)) == 5  # opened again, nothing is brought over twice


def migrated(path, *rows):
    """The ballots of a version-1 file with these rows: left, right, question, verdict and second of each."""
    shutil.copy(VERSION_1, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DELETE FROM votes")
        for left, right, question, verdict, second in rows:
            messages, time = (
                json.dumps([{"role": "user", "content": question}]),
                f"2026-11-25 20:50:{second:02d}.000000",
            )
            connection.execute(
                "INSERT INTO votes (created_at, left_variant, left_messages, "
                "left_answer, right_variant, right_messages,"
                " right_answer, system_prompt, sampling, verdict) VALUES (?, ?, ?, ?, ?, ?, ?, '', '{}', ?)",
                (time, left, messages, f"{left}: {question}", right, messages, f"{right}: {question}", verdict),
            )
        connection.commit()
    ballots = list(Ballots(str(path)))
    assert all(side.answer == f"{side.variant}: {side.messages[0]['content']}" for one in ballots for side in one.sides)
    return [
        (one.sides[0].messages[0]["content"], "".join(side.variant for side in one.sides), one.verdict)
        for one in ballots
    ]


@pytest.mark.parametrize(("said", "verdict"), [("tie", Verdict("tie")), ("both_bad", Verdict("bad"))])
def test_verdicts_of_version_1_on_several_questions_stay_apart(tmp_path, said, verdict):
    rows = [("a", "b", "One?", said, 1), ("c", "d", "Two?", said, 2), ("e", "f", "Three?", said, 3)]
    assert migrated(tmp_path / "votes.db", *rows) == [
        ("One?", "ab", verdict), ("Two?", "cd", verdict), ("Three?", "ef", verdict),
    ]  # fmt: skip


def test_verdicts_of_version_1_whose_rows_are_mixed_are_taken_apart(tmp_path):
    assert migrated(
        tmp_path / "votes.db",
        ("a", "c", "Four?", "right", 30), ("a", "b", "Five?", "left", 30),
        ("b", "c", "Four?", "right", 30), ("a", "c", "Five?", "left", 30),
    ) == [("Four?", "abc", Verdict("best", 2)), ("Five?", "abc", Verdict("best", 0))]  # fmt: skip


@pytest.mark.parametrize(
    "pairs", ["ab cd", "ab ac", "ab ac ad ae bc bd be cd ce de"], ids=["apart", "a pair too few", "a side too many"]
)
def test_rows_of_version_1_that_are_not_exactly_one_verdict_are_ballots_of_their_own(tmp_path, pairs):
    rows = [(*pair, "One?", "tie", 1) for pair in pairs.split()]
    assert migrated(tmp_path / "votes.db", *rows) == [("One?", pair, Verdict("tie")) for pair in pairs.split()]


def put_version_1(database):
    """Copy the votes of version 1 to where the database is."""
    if "://" not in database:
        shutil.copy(VERSION_1, database)
        return
    old = sqlalchemy.create_engine(f"sqlite:///{VERSION_1}")
    new = sqlalchemy.create_engine(database.replace("postgres://", "postgresql+psycopg://"))
    created_at = sqlalchemy.Column("created_at", sqlalchemy.DateTime(timezone=True))
    table = sqlalchemy.Table("votes", sqlalchemy.MetaData(), created_at, autoload_with=old)
    with old.connect() as source, new.begin() as target:
        rows = [dict(row) for row in source.execute(table.select().order_by(table.c.id)).mappings()]
        for row in rows:
            row["created_at"] = row["created_at"].replace(tzinfo=datetime.UTC)
        table.metadata.create_all(target)
        target.execute(table.insert(), rows)
    new.dispose()


def test_a_file_that_was_moved_away_is_noticed_at_the_next_vote(tmp_path):
    path = tmp_path / "votes.db"
    ballots = Ballots(str(path))
    id = opened(ballots)
    path.rename(tmp_path / "elsewhere.db")
    with pytest.raises(HarnessError, match=r"votes.db was moved away or replaced while it was in use"):
        ballots.vote(id, ALPHA)
    (tmp_path / "elsewhere.db").rename(path)
    ballots.vote(id, ALPHA)
    assert Ballots(str(path))[id].verdict == ALPHA


def test_a_full_database_says_so_and_keeps_what_it_has(tmp_path):
    """The vote after the last that fits is an error, and goes in once there is room."""
    ballots = Ballots(str(tmp_path / "votes.db"))
    pages = 60
    sqlalchemy.event.listen(
        ballots._engine, "begin", lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
    )
    kept = []
    with pytest.raises(HarnessError, match=r"votes.db cannot be used: database or disk is full"):
        for _ in range(1000):
            id = opened(ballots, [*SIDES[:2]])
            ballots.record(id, 0, "words " * 200, "stop")
            ballots.vote(id, Verdict("tie"))
            kept.append(id)
    assert kept and all(ballots[id].verdict == Verdict("tie") for id in kept)
    pages = 6000
    later = opened(ballots)
    ballots.vote(later, ALPHA)
    assert ballots[later].verdict == ALPHA


def test_a_database_that_cannot_be_written_says_so_at_the_start(tmp_path):
    path = tmp_path / "votes.db"
    id = opened(Ballots(str(path)))
    with pytest.raises(HarnessError, match=r"cannot be used: attempt to write a readonly database"):
        require_usable(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert Ballots(str(path))[id].state == "open"


def test_a_locked_database_says_so_and_the_vote_goes_in_later(tmp_path, monkeypatch):
    monkeypatch.setattr("harness.votes.database.BUSY_TIMEOUT_MS", 20)
    path = tmp_path / "votes.db"
    ballots = Ballots(str(path))
    id = opened(ballots)
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(HarnessError, match=r"votes.db cannot be used: database is locked"):
            ballots.vote(id, ALPHA)
        other.rollback()
    ballots.vote(id, ALPHA)
    assert ballots[id].verdict == ALPHA


def test_long_reads_keep_no_vote_waiting(database, monkeypatch):
    """A leaderboard of many votes may take longer to read than a vote waits."""
    monkeypatch.setattr("harness.votes.database.BUSY_TIMEOUT_MS", 100)
    ballots = Ballots(database)
    id = opened(ballots)
    with transaction(ballots._engine, reads=True) as reading:
        count = sqlalchemy.text("SELECT count(*) FROM ballots WHERE verdict IS NOT NULL")
        assert reading.execute(count).scalar_one() == 0
        ballots.vote(id, ALPHA)
    assert ballots.count() == 1


def test_two_servers_on_one_database_see_each_others_votes(database):
    one, other = Ballots(database), Ballots(database)
    ids = [opened(one), opened(other)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: pair[0].vote(pair[1], ALPHA, reveal=True), [(one, ids[1]), (other, ids[0])]))
    assert [ballot.verdict for ballot in one] == [ballot.verdict for ballot in other] == [ALPHA, ALPHA]
    with pytest.raises(ClosedBallotError):
        other.vote(ids[1], Verdict("tie"))


def test_a_vote_after_postgresql_restarted_is_kept(postgres, postgres_server):
    """One while it is down says so; the first one after it is kept, once."""
    control = postgres_server[1]
    if control is None:
        pytest.skip(f"the server that {POSTGRES} names is not restarted")
    ballots = Ballots(postgres)
    id = opened(ballots)
    control("stop")
    with pytest.raises(HarnessError, match="cannot be used"):
        ballots.vote(id, ALPHA)
    control("start")
    ballots.vote(id, ALPHA)
    control("stop")
    control("start")
    ballots.reveal(id)
    assert [(ballot.verdict, ballot.state) for ballot in ballots] == [(ALPHA, "revealed")]


def test_judged_ballots_are_read_a_page_at_a_time(ballots):
    for number in range(7):
        id = opened(ballots, SIDES[:2] if number % 2 else SIDES)
        if number != 3:
            ballots.vote(id, Verdict("tie") if number % 3 else ALPHA, reveal=True)
    assert [ballot.id for ballot in ballots.latest(0, 2)] == [7, 6]
    assert [ballot.id for ballot in ballots.latest(4, 9)] == [2, 1] and ballots.count() == 6
    assert [ballot.id for ballot in ballots.latest(variant="beta")] == [7, 5, 3, 1] and ballots.count("beta") == 4
    assert ballots.count(verdict="tie") == 4 and ballots.count("beta", verdict="tie", annotator="ben") == 0
    assert len(ballots.latest(0, 1)[0].sides) == 3


def test_a_clock_that_is_set_back_loses_no_order(ballots, monkeypatch):
    early = datetime.datetime(2001, 1, 1, tzinfo=datetime.UTC)
    first = opened(ballots)
    monkeypatch.setattr("harness.votes.schema.now", lambda: early)
    monkeypatch.setattr("harness.votes.store.now", lambda: early)
    second = opened(ballots)
    ballots.vote(first, ALPHA, reveal=True)
    assert [ballot.id for ballot in ballots] == [first, second] and ballots[second].created_at == early


SERVER = """
import json, socketserver, sys
from harness.nouns import Side, Verdict
from harness.votes.store import Ballots

ballots = Ballots(sys.argv[1])

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        for line in self.rfile:
            asked = json.loads(line)
            if "ballot" not in asked:
                sides = [Side(name, None, [], "x", "stop") for name in "ab"]
                answer = ballots.open(sides, seed=0, sampling={}, annotator=asked["client"], prompt_id=asked["token"])
            else:
                answer = ballots.vote(asked["ballot"], Verdict("best", asked["best"]))
            self.wfile.write(json.dumps(answer).encode() + b"\\n")

class Server(socketserver.ThreadingTCPServer):
    daemon_threads = allow_reuse_address = True
    request_queue_size = 64

with Server(("127.0.0.1", int(sys.argv[2])), Handler) as server:
    print("up", flush=True)
    server.serve_forever()
"""
CLIENTS, VOTES, KILLS = 16, 500, 20


@pytest.mark.soak
def test_500_votes_of_16_clients_survive_20_kills(database, free_tcp_port_factory, tmp_path):
    """Every acknowledged vote is there as it was acknowledged, and none twice."""
    port, lock, acknowledged = free_tcp_port_factory(), threading.Lock(), {}
    (tmp_path / "server.py").write_text(SERVER)
    due = [VOTES * (number + 1) // (KILLS + 1) for number in range(KILLS)]
    done, tokens = threading.Event(), iter([f"t{number}" for number in range(VOTES)])

    def asked(**request):
        """Ask until there is an answer, as a browser's person would."""
        while True:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
                    connection.sendall(json.dumps(request).encode() + b"\n")
                    if line := connection.makefile().readline():
                        return json.loads(line)
            except OSError:
                done.wait(0.01)

    def client(name):
        while True:
            with lock:
                token = next(tokens, None)
            if token is None:
                return
            ballot, best = asked(client=name, token=token), int(token[1:]) % 2
            asked(ballot=ballot, best=best)
            with lock:
                acknowledged[token] = (ballot, best)

    def server():
        process = subprocess.Popen(
            [sys.executable, str(tmp_path / "server.py"), database, str(port)], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout.readline() == "up\n"
        return process

    process, kills = server(), 0
    with ThreadPoolExecutor(CLIENTS) as pool:
        voting = [pool.submit(client, f"client-{number}") for number in range(CLIENTS)]
        while not all(one.done() for one in voting):
            if kills < KILLS and len(acknowledged) >= due[kills]:
                process.kill()
                process.wait()
                process, kills = server(), kills + 1
            done.wait(0.002)
        for one in voting:
            one.result()
    process.kill()
    process.wait()
    kept = {ballot.id: ballot for ballot in Ballots(database)}
    assert (len(acknowledged), kills) == (VOTES, KILLS)
    assert all(kept[ballot].verdict == Verdict("best", best) for ballot, best in acknowledged.values())
    voted = [ballot.prompt_id for ballot in kept.values() if ballot.verdict is not None]
    assert sorted(voted) == sorted(acknowledged)
