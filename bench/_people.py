"""Simulated annotators: the questions they ask, what they think of an answer, and their clicks in a real browser.

An answer has two merits between 0 and 1: how much of it is true, and how well it has the form that was asked for. Each
person weighs them differently, is unsure to a different extent, and does not look at an answer's length.
"""

from __future__ import annotations

import itertools
import json
import math
import random
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from playwright.async_api import TimeoutError

from harness.nouns import Verdict

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "recipes/seedling"), str(ROOT / "recipes/smollm2")]

import facts  # noqa: E402
import instructions  # noqa: E402
import messages  # noqa: E402
import prose  # noqa: E402

BY_KEY = {"best-0": "ArrowLeft", "best-1": "ArrowRight", "tie": "=", "bad": "b"}


class Merits(NamedTuple):
    truth: float
    form: float


@dataclass(frozen=True)
class Question:
    """A prompt with the answer that is right."""

    prompt: str
    right: str
    category: str
    system: str = ""

    def merits(self, answer: str) -> Merits:
        raise NotImplementedError


@dataclass(frozen=True)
class OfTheVillage(Question):
    """A question on Mossbank: the facts that are to be in the answer, and every sentence that has the wanted form."""

    facts: tuple[str, ...] = ()
    forms: frozenset[str] = field(default_factory=frozenset, repr=False)

    def merits(self, answer: str) -> Merits:
        there = [re.search(rf"\b{re.escape(fact)}\b", answer, re.IGNORECASE) is not None for fact in self.facts]
        return Merits(sum(there) / len(there), float(answer.strip() in self.forms))


@dataclass(frozen=True)
class ForJson(Question):
    """A message whose fields are wanted as one JSON object."""

    def merits(self, answer: str) -> Merits:
        wanted: dict[str, str] = json.loads(self.right)
        start, end = answer.find("{"), answer.rfind("}")
        try:
            value = json.loads(answer[start : end + 1])
        except ValueError:
            return Merits(0.0, 0.0)
        if not isinstance(value, dict):
            return Merits(0.0, 0.0)
        right = sum(str(value.get(key)) == text for key, text in wanted.items())
        is_alone = answer.strip() == answer[start : end + 1]
        return Merits(right / len(wanted), 0.4 * is_alone + 0.6 * (list(value) == list(wanted)))


def village_questions(split: str, count: int) -> list[Question]:
    """Return questions of a set of villagers, none twice: half want a format, a quarter a verdict, a quarter two facts.

    Args:
        split: `train` or `test`, which share no villager and no wording.
    """
    world = facts.make_world(0)
    asker = instructions.Asker(world.tuning if split == "train" else world.test, split, 18)
    makers = itertools.cycle([_formatted, _verdict, _formatted, _comparison])
    unique: dict[str, Question] = {}
    while len(unique) < count:
        question = next(makers)(asker)
        unique.setdefault(question.prompt, question)
    return list(unique.values())


def _formatted(asker: Any) -> Question:
    shape, wordings = asker.rng.choice(list(instructions.FORMATS.values()))
    one, fact = asker.someone(), asker.rng.choice([fact for fact in prose.FACTS if fact.key != "home"])
    forms = {
        other: shape(prose.sentence(prose.plain(other, fact, of=one)), fact, prose.value(other, fact))
        for other in asker.villagers
    }
    prompt = asker.wording(instructions.PROPERTY[fact.key]).format(x=instructions.the(one))
    system = asker.wording(wordings)
    return OfTheVillage(prompt, forms[one], "format", system, (prose.value(one, fact),), frozenset(forms.values()))


def _verdict(asker: Any) -> Question:
    item = asker.ask_yes_no()
    one, fact = _of(asker, item.answer.rpartition(", so ")[0])
    verdict = item.answer.rpartition(", ")[2].rstrip(".")
    claims = {prose.plain(other, fact, of=one) for other in asker.villagers}
    forms = frozenset(prose.sentence(f"{known}, so {word}") for known in claims for word in ("yes", "no"))
    return OfTheVillage(item.question, item.answer, "verdict", "", (prose.value(one, fact), verdict), forms)


def _comparison(asker: Any) -> Question:
    (one, other), fact = asker.pair(), asker.rng.choice(prose.FACTS)
    wording = asker.wording(instructions.COMPARE)
    prompt = prose.upper_first(wording.format(noun=fact.noun, x=instructions.the(one), y=instructions.the(other)))
    pairs = itertools.product(asker.villagers, repeat=2)
    forms = frozenset(
        prose.sentence(f"{prose.plain(a, fact, of=one)} and {prose.plain(b, fact, of=other)}") for a, b in pairs
    )
    right = prose.sentence(f"{prose.plain(one, fact)} and {prose.plain(other, fact)}")
    return OfTheVillage(prompt, right, "comparison", "", (prose.value(one, fact), prose.value(other, fact)), forms)


def _of(asker: Any, statement: str) -> tuple[Any, Any]:
    """Return the villager and the fact that a plain statement is about."""
    for one in asker.villagers:
        for fact in prose.FACTS:
            if prose.sentence(prose.plain(one, fact)) == prose.sentence(statement):
                return one, fact
    raise ValueError(f"nobody is the one of whom is said: {statement}")


def json_questions(split: str, count: int) -> list[Question]:
    """Return messages to answer with JSON; `train` and `test` share no wording, name or place."""
    unique: dict[str, Question] = {}
    for item in messages.items(split, 2 * count, seed=18):
        right = json.dumps(item["answer"], ensure_ascii=False)
        unique.setdefault(item["prompt"], ForJson(item["prompt"], right, item["category"]))
    return list(unique.values())[:count]


def prompt_rows(questions: Iterable[Question]) -> list[Mapping[str, str]]:
    """Return questions as the rows of `harness serve --prompts`."""
    return [
        {"prompt": one.prompt, "category": one.category} | ({"system": one.system} if one.system else {})
        for one in questions
    ]


@dataclass(frozen=True)
class Person:
    """One annotator: what each merit is worth to them, how unsure they are, and how often they click anything."""

    name: str
    truth: float
    form: float
    noise: float
    careless: float
    share: float  # of the ballots, compared with the others
    indifferent: float = 0.25  # the difference below which two answers are alike
    bar: float = 0.2  # the worth below which an answer is bad

    def judge(self, question: Question, answers: tuple[str, str], lot: random.Random) -> Verdict:
        if lot.random() < self.careless:
            return lot.choice([Verdict("best", 0), Verdict("best", 1), Verdict("tie"), Verdict("bad")])
        left, right = (self._worth(question.merits(answer), lot) for answer in answers)
        if max(left, right) < self.bar:
            return Verdict("bad")
        if abs(left - right) < self.indifferent:
            return Verdict("tie")
        return Verdict("best", int(right > left))

    def _worth(self, merits: Merits, lot: random.Random) -> float:
        chance = min(max(lot.random(), 1e-9), 1 - 1e-9)
        return self.truth * merits.truth + self.form * merits.form + self.noise * math.log(chance / (1 - chance))


PEOPLE = (
    Person("ada", 1.0, 0.5, 0.05, 0.00, 1.4),
    Person("ben", 0.8, 0.6, 0.10, 0.02, 1.2),
    Person("cyd", 1.2, 0.2, 0.15, 0.05, 1.0),
    Person("dov", 0.3, 1.0, 0.10, 0.02, 1.0),
    Person("eva", 0.6, 0.6, 0.20, 0.05, 0.9),
    Person("fay", 1.0, 0.4, 0.25, 0.10, 0.8),
    Person("gil", 0.5, 0.8, 0.10, 0.00, 1.1),
    Person("hob", 0.7, 0.3, 0.30, 0.20, 0.6),
)

ENDED = """() => {
  const articles = [...document.querySelectorAll('.pane article')];
  const ended = (one) => !one.dataset.seen && one.querySelector('.source, .none, .failed');
  const shown = (id) => document.querySelector(id)?.offsetParent;
  return articles.length === 2 && articles.every(ended)
    && (shown('#best-0') || shown('#confirmed [role]') || shown('.failed'));
}"""
BEGUN = "() => document.querySelector('.pane article:not([data-seen])') !== null"
KEPT = "() => document.querySelector('#confirmed [role=status] b')?.offsetParent"
PAUSE_MS, PATIENCE_MS = 400, 8_000  # of a person before a verdict, and before clicking again
SEEN = "document.querySelectorAll('.pane article').forEach((one) => { one.dataset.seen = 1; })"


async def work(
    page: Any, url: str, person: Person, questions: Mapping[str, Question], count: int, settings: Mapping[str, str]
) -> tuple[int, int]:
    """Sign in, and judge `count` answers of the arena's prompts as a person does; every other verdict is a key.

    Returns:
        The number of rounds, and of clicks that the page did not hear and that were repeated.
    """
    lot = random.Random(f"{person.name} {count}")
    await page.goto(url)
    await page.get_by_label("Your name").fill(person.name)
    await page.get_by_role("button", name="Begin").click()
    await page.locator("#following").wait_for()
    await page.locator("#settings button").first.click()
    for id, value in settings.items():
        await page.locator(f"#{id} input[type=number]").fill(value)
        await page.keyboard.press("Tab")
    await page.locator("#settings button").first.click()
    judged = rounds = repeated = 0
    while judged < count:
        await page.evaluate(SEEN)
        repeated += await _until(page, BEGUN, page.locator("#following"))
        await page.wait_for_function(ENDED)
        await page.wait_for_timeout(PAUSE_MS)
        rounds += 1
        if not await page.locator("#best-0").is_visible():  # the answers are the same, or one is empty or failed
            continue
        question = questions[await page.locator(".said").first.text_content()]
        left, right = await page.locator(".pane .source").all_text_contents()
        verdict = person.judge(question, (left, right), lot)
        button = verdict.kind if verdict.best is None else f"best-{verdict.best}"
        key = BY_KEY[button] if judged % 2 else ""
        repeated += await _until(page, KEPT, page.locator(f"#{button}"), key)
        judged += 1
    return rounds, repeated


async def _until(page: Any, condition: str, button: Any, key: str = "") -> int:
    """Click, or press the key, until the page shows that it was heard; return how often it had to be done again."""
    again = 0
    while True:
        if key:
            await page.evaluate("document.activeElement.blur()")
            await page.keyboard.press(key)
        else:
            await button.click()
        try:
            await page.wait_for_function(condition, timeout=PATIENCE_MS)
            return again
        except TimeoutError:
            if not await button.is_visible():  # it was heard, and what it led to is slow
                await page.wait_for_function(condition)
                return again
            again += 1
