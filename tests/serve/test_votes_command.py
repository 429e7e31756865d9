"""`harness votes`: what people judged, listed, ranked, exported and forgotten."""

from __future__ import annotations

import io
import json
import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.nouns import Side, Verdict
from harness.testing import run
from harness.votes.store import Ballots

ROOT = Path(__file__).resolve().parents[2]
# Root may write to every file. Without these capabilities it may do what a file's mode says, as anybody else.
BOUND = ["setpriv", *(f"--{which}=-dac_override,-dac_read_search" for which in ("bounding-set", "inh-caps"))]


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Forty blind votes of six people on three variants, a tie, a cut answer, a named ballot and a void one."""
    path, rng = tmp_path / "votes.db", random.Random(5)
    ballots = Ballots(str(path))

    def ballot(names: list[str], verdict: Verdict | None, *, blind: bool = True, finish: str = "stop") -> None:
        asked = [{"role": "user", "content": "Who keeps the <b>key</b>?"}]
        sides = [Side(name, None, asked) for name in names]
        id = ballots.open(sides, seed=0, sampling={}, annotator=f"person{len(ballots) % 6}", blind=blind)
        for position, name in enumerate(names):
            ballots.record(id, position, f"Says {name}. " * (1 + position), finish if position == 0 else "stop")
        if verdict is None:
            ballots.void(id)
        else:
            ballots.vote(id, verdict, reveal=True)

    for _ in range(40):
        names = rng.sample(["<i>base</i>", "tuned", "other"], 2)
        ballot(names, Verdict("best", rng.choices((0, 1), [2 + (name == "tuned") for name in names])[0]))
    ballot(["tuned", "other"], Verdict("tie"))
    ballot(["tuned", "other"], Verdict("best", 0), finish="length")
    ballot(["tuned", "other"], Verdict("best", 0), blind=False)
    ballot(["tuned", "other"], None)
    ballots.close()
    return path


def test_votes_are_listed(database: Path) -> None:
    done = run("votes list", "--votes", database)
    assert done.code == 0 and "person3" in done.out and "(named)" in done.out and "tuned (cut)" in done.out
    assert "43 revealed, 1 void" in done.out
    mine = json.loads(run("votes list --json --annotator person3", "--votes", database).out)
    assert mine and {ballot["annotator"] for ballot in mine} == {"person3"}


def test_votes_are_ranked(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "board.html"
    done = run("votes leaderboard", "--votes", database, "--out", out)
    assert (
        done.code == 0
        and f"written: {out}" in done.out
        and "95 % interval" in done.out
        and "42 blind votes of 6 people" in done.out
    )
    assert "Left out: names were shown (1)" in done.out and "dropping" in done.out
    page = out.read_text()
    assert "&lt;i&gt;base&lt;/i&gt;" in page and "<i>base" not in page and "<script" not in page
    assert page.count('class="estimate"') == 3 and "https:" not in page
    board = json.loads(run("votes leaderboard --json", "--votes", database).out)
    assert {place["variant"] for place in board["places"]} == {"<i>base</i>", "tuned", "other"}
    assert board["fragility"]["dropped"] >= 1 and sum(count for *_, count in board["wins"]) == 41


def test_votes_are_ranked_at_equal_looks(database: Path) -> None:
    done = run("votes leaderboard --control length", "--votes", database)
    assert done.code == 0 and "length: " in done.out and "as much as answers usually do" in done.out
    board = json.loads(run("votes leaderboard --json --control length", "--votes", database).out)
    assert len(board["places"]) == 3 and board["effects"]["length"]["stderr"] > 0
    alike = run("votes leaderboard --control length,format", "--votes", database)
    assert alike.code == 0 and "no order yet: the answers never differ in format" in " ".join(alike.out.split())
    unknown = run("votes leaderboard --control colour", "--votes", database)
    assert unknown.code != 0 and "--control colour: expected length or format" in unknown.err


def test_what_no_ballot_has_is_named_with_what_they_have(database: Path) -> None:
    asked = {
        "list --annotator persn1": "of the annotator 'persn1'. Did you mean 'person1'? There are: person0",
        "list --variant tund": "of the variant 'tund'. Did you mean 'tuned'?",
        "leaderboard --category poems": "of the category 'poems'",
    }
    for command, message in asked.items():
        done = run(f"votes {command}", "--votes", database)
        assert done.code == 1 and message in done.err
    folder = run("votes list", "--votes", database.parent)
    assert folder.code == 1 and "(it is a folder)" in folder.err


def test_a_variant_that_always_won_has_no_strength_yet(tmp_path: Path) -> None:
    path = tmp_path / "votes.db"
    ballots = Ballots(str(path))
    for _ in range(3):
        id = ballots.open([Side("tuned", None, []), Side("base", None, [])], seed=0, sampling={}, blind=True)
        for position in (0, 1):
            ballots.record(id, position, "An answer.", "stop")
        ballots.vote(id, Verdict("best", 0), reveal=True)
    done = run("votes leaderboard", "--votes", path)
    assert "base never won or tied against tuned" in done.out and "so collect more votes" in done.out
    assert "tuned won 3 of 3 votes against base" in done.out
    refused = run("votes leaderboard --out", tmp_path / "votes.db/board.html", "--votes", path)
    assert refused.code == 1 and "board.html: cannot be written: " in refused.err


def test_votes_become_preferences(database: Path, tmp_path: Path) -> None:
    out = tmp_path / "preferences.jsonl"
    done = run("votes export", out, "--votes", database)
    assert done.code == 0 and "41 rows for `dataset: preferences`" in done.out
    assert "left out: 1, a tie" in done.out and "left out: 1, the better answer was cut at the token limit" in done.out
    assert "the better answer is the longer one in" in done.out
    assert run("data validate", out).code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert all(row["chosen"] != row["rejected"] for row in rows)


def test_a_person_is_forgotten(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done = run("votes forget person3 --yes", "--votes", database)
    assert done.code == 0 and re.search(r"deleted \d+ ballots of person3", done.out)
    assert "person3" not in {ballot.annotator for ballot in Ballots(str(database))}
    again = run("votes forget person3 --yes", "--votes", database)
    assert again.code != 0 and "no ballots of the annotator 'person3'. Did you mean 'person" in again.err
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    asked = run("votes forget person4", "--votes", database)
    assert asked.code != 0 and re.search(r"Delete \d+ ballots of person4 from .*votes.db", asked.out + asked.err)
    assert "person4" in {ballot.annotator for ballot in Ballots(str(database))}


@pytest.fixture
def bound_by_modes() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `harness` in a process that may not write to read-only files, even if root started it."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root may write to read-only files, and there is no `setpriv`")
    prefix = BOUND if os.geteuid() == 0 else []

    def harness(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [*prefix, sys.executable, "-m", "harness.cli", *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return harness


def test_a_read_only_database_is_read(
    database: Path, tmp_path: Path, bound_by_modes: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """As a file that others own, and on a disk that is mounted read-only."""
    folder = tmp_path / "owned"
    folder.mkdir()
    kept = Path(shutil.move(database, folder))
    kept.chmod(0o444)
    folder.chmod(0o555)
    listed = bound_by_modes("votes", "list", "--votes", kept)
    assert listed.returncode == 0 and "43 revealed, 1 void" in listed.stdout, listed.stderr
    exported = bound_by_modes("votes", "export", tmp_path / "preferences.jsonl", "--votes", kept)
    assert exported.returncode == 0 and "41 rows" in exported.stdout, exported.stderr
    forgotten = bound_by_modes("votes", "forget", "person3", "--yes", "--votes", kept)
    assert forgotten.returncode == 1 and "you may not write to this file" in forgotten.stderr
    kept.chmod(0o644)
    forgotten = bound_by_modes("votes", "forget", "person3", "--yes", "--votes", kept)
    assert forgotten.returncode == 1 and f"you may not write to {folder}, where SQLite keeps" in forgotten.stderr
    assert [path.name for path in folder.iterdir()] == ["votes.db"]


def test_votes_in_a_log_that_cannot_be_read_are_not_passed_over(
    database: Path, tmp_path: Path, bound_by_modes: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    folder = tmp_path / "owned"
    folder.mkdir()
    ballots = Ballots(str(database))
    ballots.open([Side("base", None, []), Side("tuned", None, [])], seed=0, sampling={})
    for name in ("votes.db", "votes.db-wal"):
        shutil.copy(tmp_path / name, folder)
    folder.chmod(0o555)
    for command in (("votes", "list", "--votes"), ("data", "validate", "--dataset", "votes")):
        done = bound_by_modes(*command, folder / "votes.db")
        assert done.returncode == 1 and "written last is in votes.db-wal beside it" in done.stderr, done.stderr


@pytest.mark.parametrize("command", ["list", "leaderboard", "export out.jsonl", "forget ada --yes"])
def test_a_database_that_is_not_there_is_not_made(tmp_path: Path, command: str) -> None:
    done = run(f"votes {command}", "--votes", tmp_path / "none.db", cwd=tmp_path)
    assert done.code != 0 and "no such votes database" in done.err and not list(tmp_path.iterdir())


def test_no_votes_are_no_error(tmp_path: Path) -> None:
    path = tmp_path / "votes.db"
    Ballots(str(path))
    assert "no ballots" in run("votes list", "--votes", path).out
    done = run("votes leaderboard", "--votes", path)
    assert done.code == 0 and "No blind votes yet" in done.out


@pytest.mark.slow
def test_votes_tune_the_next_variant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe of the repository but for three steps and four pairs, on a parent of 18 rows."""
    recipes = tmp_path / "recipes"
    recipes.mkdir()
    (recipes / "seedling").symlink_to(ROOT / "recipes/seedling")
    text = (ROOT / "recipes/from-votes.yaml").read_text()
    short = text.replace("epochs: 3", "steps: 3").replace("limit: 200", "limit: 4")
    assert short.count("steps: 3") == short.count("limit: 4") == 1
    (recipes / "from-votes.yaml").write_text(short)
    monkeypatch.chdir(tmp_path)
    tuned = run(
        "tune recipes/seedling/demo.yaml --run demo --set tune.epochs=1 "
        "--set data.train.0.limit=9 --set data.train.1.limit=9 --set data.validation.0.limit=4"
    )
    assert tuned.code == 0, tuned.err
    ballots = Ballots("votes.db")
    for number in range(12):
        asked = [{"role": "user", "content": f"Who keeps key {number}?"}]
        sides = [Side("demo", None, asked, f"The hare keeps it {number}."), Side("demo@base", None, asked, "The owl.")]
        id = ballots.open([replace(side, finish="stop") for side in sides], seed=0, sampling={}, blind=True)
        ballots.vote(id, Verdict("best", 0) if number else Verdict("tie"), reveal=True)
    done = run("votes tune recipes/from-votes.yaml --run voted --no-serve")
    assert done.code == 0, done.err
    assert "votes.db: 11 pairs; 1 left out, a tie" in done.out and "the longer one in 11 of 11" in done.out
    for command in ("tune recipes/from-votes.yaml --run voted", "evaluate demo voted", "compare demo voted"):
        assert f"$ harness {command}" in done.out
    assert "for the next round: harness serve demo voted --votes votes.db --port 8000" in done.out
    assert (tmp_path / "runs/voted/adapter/adapter_config.json").is_file()
    (source,) = json.loads((tmp_path / "runs/voted/manifest.json").read_text())["data"]
    assert {name: source["lengths"][name] for name in ("pairs", "longer")} == {"pairs": 11, "longer": 11}
    assert source["lengths"]["chosen"] > source["lengths"]["rejected"] > 0
    assert "the chosen answer is the longer one in 11 of 11" in done.out
    again = run("votes tune recipes/from-votes.yaml --run voted --no-serve")
    assert again.code != 0 and "runs/voted holds a run already" in again.err


def test_a_recipe_that_reads_no_votes_is_not_tuned_on_them(database: Path) -> None:
    done = run("votes tune --run voted", ROOT / "recipes/seedling/dpo.yaml", "--votes", database)
    assert done.code != 0 and "data.train has no `dataset: votes`" in done.err
