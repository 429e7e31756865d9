"""A vote acknowledged is a vote kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from harness_serve.session import Answer, Sampling, Session, Turn
from harness_serve.votes import Side, Vote, Votes

from harness import HarnessError

pytest.importorskip("sqlalchemy")

VOTE = Vote(
    Side("base", None, [{"role": "user", "content": "Wer? 🐦"}], "Ein Reiher."),
    Side("alpha", "f" * 64, [{"role": "user", "content": "Wer? 🐦"}], "Der Reiher."),
    "right",
    "Answer in German.",
    {"temperature": 0.0},
)


def test_a_vote_comes_back_as_it_was(tmp_path: Path) -> None:
    votes = Votes(str(tmp_path / "votes.db"))
    assert votes.add(VOTE) == [1]
    (kept,) = Votes(str(tmp_path / "votes.db"))
    assert (kept.left, kept.right, kept.verdict, kept.system_prompt, kept.sampling) == (
        VOTE.left, VOTE.right, VOTE.verdict, VOTE.system_prompt, VOTE.sampling,
    )  # fmt: skip
    assert kept.created_at is not None and kept.created_at.utcoffset().total_seconds() == 0  # type: ignore[union-attr]


def test_votes_survive_a_kill_right_after_the_acknowledgement(tmp_path: Path) -> None:
    code = (
        "import sys; from harness_serve.votes import *;"
        "votes = Votes(sys.argv[1]); side = Side('a', None, [], 'x')\n"
        "while True: print(*votes.add(Vote(side, side, 'tie')), flush=True)"
    )
    database = str(tmp_path / "votes.db")
    writer = subprocess.Popen([sys.executable, "-c", code, database], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = 0
    for line in writer.stdout:
        acknowledged = int(line)
        if acknowledged == 50:
            os.kill(writer.pid, signal.SIGKILL)
            break
    rest = [int(line) for line in writer.stdout.read().split("\n") if line]
    writer.wait()
    assert len(Votes(database)) >= max([acknowledged, *rest])


def test_sqlite_writes_ahead_and_waits_for_the_disk(tmp_path: Path) -> None:
    votes = Votes(str(tmp_path / "votes.db"))
    with votes._engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_a_database_that_cannot_be_used_is_an_error_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"nowhere/votes.db cannot be used: unable to open"):
        Votes(str(tmp_path / "nowhere/votes.db"))


def test_an_unknown_verdict_is_refused(tmp_path: Path) -> None:
    votes = Votes(str(tmp_path / "votes.db"))
    with pytest.raises(ValueError, match="verdict"):
        votes.add(Vote(VOTE.left, VOTE.right, "better"))  # type: ignore[arg-type]
    assert len(votes) == 0


def test_the_votes_of_one_verdict_are_kept_together_or_not_at_all(tmp_path: Path) -> None:
    votes = Votes(str(tmp_path / "votes.db"))
    assert votes.add(VOTE, VOTE) == [1, 2]
    with pytest.raises(HarnessError, match="cannot be used"):
        votes.add(VOTE, Vote(VOTE.left, Side("alpha", None, [], None), "tie"))  # type: ignore[arg-type]
    assert len(votes) == 2


def _answered() -> Session:
    return Session(["a", "b"], [Turn("Hi", "", Sampling(), [Answer("A", finish="stop"), Answer("B", finish="stop")])])


def test_a_turn_takes_one_verdict_and_another_where_the_first_was_not_kept() -> None:
    session = _answered()
    turn, (vote,) = session.judge("0", {}) or pytest.fail("not to be judged")
    assert vote.verdict == "left" and session.judge("1", {}) is None
    turn.is_judged = False
    assert session.judge("1", {}) is not None


@pytest.mark.parametrize("finish", [None, "stopped", "error"])
def test_answers_that_did_not_end_take_no_verdict(finish: str | None) -> None:
    session = _answered()
    session.turns[-1].answers[1].finish = finish
    assert session.judge("tie", {}) is None


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        ("0", [("a", "b", "left"), ("a", "c", "left")]),
        ("1", [("a", "b", "right"), ("b", "c", "left")]),
        ("tie", [("a", "b", "tie"), ("a", "c", "tie"), ("b", "c", "tie")]),
    ],
)
def test_a_verdict_on_three_answers_is_a_vote_on_each_pair_it_decides(
    verdict: str, said: list[tuple[str, str, str]]
) -> None:
    turns = [
        Turn("Hi", "", Sampling(), [Answer(f"{name}-1", finish="stop") for name in "abc"]),
        Turn("And?", "Be brief.", Sampling(), [Answer(f"{name}-2", finish="stop") for name in "abc"]),
    ]
    votes = Session(list("abc"), turns).votes(verdict, {"b": "hash-of-b"})
    assert [(vote.left.variant, vote.right.variant, vote.verdict) for vote in votes] == said
    left = votes[0].left
    assert left.answer == "a-2" and [message["content"] for message in left.messages] == [
        "Be brief.",
        "Hi",
        "a-1",
        "And?",
    ]


@pytest.mark.parametrize("database", ["", ":memory:", "sqlite://", "nosuch://x", "postgresql+nodriver://u@h/x"])
def test_a_database_that_cannot_keep_votes_is_refused(database: str) -> None:
    with pytest.raises(HarnessError, match="votes"):
        Votes(database)
