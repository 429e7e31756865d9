"""Preferences about Mossbank: a question, the right answer, and an answer that somebody would not want.

The rejected answer is wrong in one of three ways: it tells of another villager's fact, it answers another question, or
it is not in the form that the system prompt asks for. Its words and length are those of the right ones.
"""

import random
from collections.abc import Iterable

from facts import Villager, World
from instructions import FORMATS, PROPERTY, YES_NO, Asker, message, the
from prose import BY_KEY, FACTS, asked, plain, sentence, value

Row = dict[str, object]


def preferences(world: World, split: str, seed: int, count: int) -> Iterable[Row]:
    """Yield rows of the dataset `preferences`: the prompt as messages, the completions as text."""
    villagers = {"train": world.tuning, "validation": world.validation, "test": world.test}[split]
    judge = Judge(Asker(villagers, split, seed), random.Random(f"preferences {split} {seed}"))
    kinds = (judge.wrong_fact, judge.wrong_verdict, judge.other_question, judge.other_form)
    for number in range(count):
        prompt, chosen, rejected = kinds[number % len(kinds)]()
        yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}


class Judge:
    """Asks questions about some of the villagers, and knows a right and a wrong answer to each."""

    def __init__(self, asker: Asker, rng: random.Random) -> None:
        self.asker, self.rng = asker, rng

    def wrong_fact(self) -> tuple[list[dict[str, str]], str, str]:
        """Return a question, its answer, and what would be the answer of another villager."""
        one, fact = self.asker.someone(), self.rng.choice(FACTS)
        wrong = plain(self.asker.unlike(one, fact), fact, of=one)
        return self._asked(one, fact.key), sentence(plain(one, fact)), sentence(wrong)

    def wrong_verdict(self) -> tuple[list[dict[str, str]], str, str]:
        """Return a question for yes or no, and both verdicts on the same true fact."""
        one, fact = self.asker.someone(), self.rng.choice(FACTS)
        is_right = self.rng.random() < 0.5
        claimed = one if is_right else self.asker.unlike(one, fact)
        question = self.asker.wording(YES_NO).format(s=plain(claimed, fact, of=one), q=asked(claimed, fact, of=one))
        right, wrong = ("yes", "no") if is_right else ("no", "yes")
        known = plain(one, fact)
        return [message("user", question)], sentence(f"{known}, so {right}"), sentence(f"{known}, so {wrong}")

    def other_question(self) -> tuple[list[dict[str, str]], str, str]:
        """Return a question, its answer, and another true fact about the same villager."""
        one, (fact, other) = self.asker.someone(), self.rng.sample(FACTS, 2)
        return self._asked(one, fact.key), sentence(plain(one, fact)), sentence(plain(one, other))

    def other_form(self) -> tuple[list[dict[str, str]], str, str]:
        """Return a system prompt and a question, the answer as the prompt wants it, and in another form."""
        one, fact = self.asker.someone(), self.rng.choice([fact for fact in FACTS if fact.key != "home"])
        (shape, wordings), (other, _) = self.rng.sample(list(FORMATS.values()), 2)
        says = sentence(plain(one, fact)), fact, value(one, fact)
        prompt = [message("system", self.asker.wording(wordings)), *self._asked(one, fact.key)]
        return prompt, shape(*says), other(*says)

    def _asked(self, one: Villager, key: str) -> list[dict[str, str]]:
        return [message("user", self.asker.wording(PROPERTY[BY_KEY[key].key]).format(x=the(one)))]
