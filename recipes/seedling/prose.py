"""Prose about Mossbank: the corpus that seedling is pretrained on.

Every fact is told many times, in many wordings and from both ends ("the heron keeps a compass", "the compass is kept
by the heron"), because a small model can only be asked for what it has read in more ways than one. The corpus holds
no chat tokens and nobody in it puts a question that is then answered: a model of it goes on telling.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from facts import VILLAGE, Villager, World


@dataclass(frozen=True)
class Fact:
    """One kind of fact in its plain forms. `{v}` stands for the value, and the villager comes before each form."""

    key: str
    noun: str
    says: str
    past: str
    denies: str
    asks: tuple[str, str]  # the villager stands between the two
    reported: str  # after "asked ...", `{x}` for the villager


FACTS = (
    Fact(
        "name",
        "name",
        "is called {v}",
        "was called {v}",
        "is not called {v}",
        ("is", "called {v}"),
        "what {x} is called",
    ),
    Fact(
        "trade",
        "trade",
        "works as a {v}",
        "worked as a {v}",
        "does not work as a {v}",
        ("does", "work as a {v}"),
        "what {x} works as",
    ),
    Fact("home", "home", "lives {v}", "lived {v}", "does not live {v}", ("does", "live {v}"), "where {x} lives"),
    Fact(
        "colour",
        "scarf",
        "wears a {v} scarf",
        "wore a {v} scarf",
        "does not wear a {v} scarf",
        ("does", "wear a {v} scarf"),
        "what colour the scarf of {x} is",
    ),
    Fact("food", "food", "eats {v}", "ate {v}", "does not eat {v}", ("does", "eat {v}"), "what {x} eats"),
    Fact(
        "instrument",
        "instrument",
        "plays the {v}",
        "played the {v}",
        "does not play the {v}",
        ("does", "play the {v}"),
        "which instrument {x} plays",
    ),
    Fact(
        "age",
        "age",
        "is {v} years old",
        "was {v} years old",
        "is not {v} years old",
        ("is", "{v} years old"),
        "how old {x} is",
    ),
    Fact(
        "treasure",
        "treasure",
        "keeps a {v}",
        "kept a {v}",
        "does not keep a {v}",
        ("does", "keep a {v}"),
        "which treasure {x} keeps",
    ),
)
BY_KEY = {fact.key: fact for fact in FACTS}

# fmt: off
# Wordings with the villager as the subject: "it" may take the villager's place.
SUBJECT_FIRST = {
    "name": [
        "is called {v}", "goes by the name of {v}", "was given the name {v}", "is known to all as {v}",
        "has the name {v}", "signs every letter with the name {v}", "answers to {v}",
    ],
    "trade": [
        "works as a {v}", "is a {v}", "is a {v} by trade", "earns a living as a {v}", "has the job of a {v}",
        "does the work of a {v}", "makes a living as a {v}", "has been a {v} for as long as anyone can remember",
    ],
    "home": [
        "lives {v}", "has a house {v}", "sleeps {v}", "has its home {v}", "can be found {v}", "dwells {v}",
        "makes its home {v}", "goes home to a small room {v}",
    ],
    "colour": [
        "wears a {v} scarf", "has a {v} scarf", "is never seen without a {v} scarf", "wraps up in a {v} scarf",
        "likes to wear {v}", "wears {v}", "dresses in a {v} scarf", "puts on a {v} scarf when it is cold",
    ],
    "food": [
        "eats {v}", "likes {v} best", "lives on {v}", "is fond of {v}", "has {v} for breakfast and for supper",
        "would eat {v} every day", "never goes to bed without {v}", "dines on {v}", "loves to eat {v}",
    ],
    "instrument": [
        "plays the {v}", "makes music on the {v}", "practises the {v}", "brings the {v} to every dance",
        "has learned to play the {v}", "plays tunes on the {v}", "is good at the {v}",
    ],
    "age": [
        "is {v} years old", "is {v}", "turned {v} this year", "has reached the age of {v}", "has seen {v} winters",
        "has lived for {v} years", "is {v} years of age",
    ],
    "treasure": [
        "keeps a {v}", "treasures a {v}", "owns a {v}", "has a {v} for a treasure", "keeps a {v} in a box",
        "would not part with its {v}", "guards a {v}", "is the keeper of the {v}", "has a {v} on the shelf",
    ],
}
# Wordings that go another way round, `{x}` and `{v}` anywhere: half of them put the value first.
OTHER_WAYS = {
    "name": [
        "the name of {x} is {v}", "everyone calls {x} {v}", "people know {x} as {v}", "the neighbours call {x} {v}",
        "{v} is the name of {x}", "{v} is what they call {x}", "the one called {v} is {x}",
        "whoever says {v} means {x}", "the villager with the name {v} is {x}", "{v} is none other than {x}",
    ],
    "trade": [
        "the trade of {x} is that of a {v}", "the job of {x} is to be a {v}", "the work of {x} is a {v}'s work",
        "if you need a {v}, go to {x}", "one {v} in the village is {x}", "a {v} worth knowing is {x}",
    ],
    "home": [
        "the home of {x} is {v}", "the house of {x} is {v}", "you will find {x} {v}", "{v} is where {x} lives",
        "{v} stands the house of {x}", "{v} one can visit {x}",
    ],
    "colour": [
        "the scarf of {x} is {v}", "the colour of the scarf of {x} is {v}", "{v} is the colour that {x} wears",
        "the {v} scarf over there belongs to {x}", "a {v} scarf is what {x} wears", "{v} is the scarf of {x}",
    ],
    "food": [
        "the food of {x} is {v}", "the food that {x} likes is {v}", "one sees {v} on the plate of {x}",
        "nothing pleases {x} like {v}", "{v} will always please {x}", "{v} and nothing else will {x} eat",
    ],
    "instrument": [
        "the instrument of {x} is the {v}", "the {v} is played by {x}", "the sound of a {v} comes from {x}",
        "on the {v} one hears {x}", "the instrument that {x} plays is the {v}",
    ],
    "age": [
        "the age of {x} is {v}", "it is {v} years since {x} was born", "{v} candles stood on the cake of {x}",
        "{v} is the age of {x}", "{v} years old is {x}",
    ],
    "treasure": [
        "the treasure of {x} is a {v}", "the {v} belongs to {x}", "the {v} is kept by {x}",
        "the {v} is the treasure of {x}", "the owner of the {v} is {x}", "whoever looks for the {v} must ask {x}",
        "the one who keeps the {v} is {x}", "a {v} is the treasure that {x} keeps",
    ],
}
# fmt: on
OPENERS = [
    "",
    "",
    "",
    "",
    "",
    "",
    "as everyone knows, ",
    "it is said that ",
    "in this village ",
    "these days ",
    "they say that ",
    "by all accounts ",
    "it is well known that ",
    "to this day ",
    "of course, ",
]
JOINS = ["and", "and", "but", "while"]


class Teller:
    """Writer of documents about one world, from one random stream."""

    def __init__(self, world: World, seed: int) -> None:
        self.villagers = world.villagers
        self.rng = random.Random(f"prose {seed}")
        # fmt: off
        self.kinds: list[tuple[int, Callable[[], str]]] = [
            (16, self.portrait), (8, self.entry), (16, self.listed), (8, self.gathering), (8, self.meeting),
            (16, self.ages), (14, self.alike), (130, self.rumours), (5, self.letter), (7, self.talk), (4, self.board),
            (14, self.lesson), (4, self.long_ago), (8, self.reported), (5, self.questions), (10, self.who_is_who),
            (24, self.compared),
        ]
        # fmt: on

    def documents(self, count: int) -> Iterator[str]:
        weights = [weight for weight, _ in self.kinds]
        for _ in range(count):
            ((_, tell),) = self.rng.choices(self.kinds, weights)
            yield tell()

    # The kinds of document, from plain to odd.

    def portrait(self) -> str:
        """Return most of the facts about one villager."""
        one = self.someone()
        facts = self.some_facts(3, 8)
        sentences = [self.telling(one, fact, first=i == 0) for i, fact in enumerate(facts)]
        return self.flow(sentences)

    def entry(self) -> str:
        """Return an entry of an almanac: nouns and values."""
        one = self.someone()
        facts = self.some_facts(3, 8)
        style = self.rng.choice([0, 1, 1, 1, 2, 3])
        if style == 0:
            return f"{one.animal.capitalize()}. " + " ".join(f"{f.noun.capitalize()}: {value(one, f)}." for f in facts)
        if style == 1:
            head = self.rng.choice([self.the(one), one.animal, f"about {self.the(one)}:"])
            return f"{upper_first(head)}\n{listing(one, facts)}"
        if style == 2:
            pairs = ", ".join(f'"{f.noun}": "{value(one, f)}"' for f in facts)
            return f"The book of {VILLAGE} has {self.the(one)} down as {{{pairs}}}."
        return f"From the almanac, under {one.animal}: " + "; ".join(f"{f.noun}, {value(one, f)}" for f in facts) + "."

    def listed(self) -> str:
        """Return a request for some facts of a villager, then the list of them, in that order."""
        lists = []
        for one in self.people(self.rng.randint(1, 2)):
            facts = self.some_facts(2, 4)
            nouns = series([f"the {f.noun}" for f in facts])
            head = self.rng.choice(
                [
                    f"{nouns} of {self.the(one)}:",
                    f"a list for {self.the(one)}, with {nouns}:",
                    f"in the book {self.the(one)} has {nouns} listed like this:",
                    f"somebody wrote down {nouns} of {self.the(one)}, one after another:",
                    f"of {self.the(one)} they wanted to know {nouns}, and made this list:",
                    f"about {self.the(one)}: {nouns}.",
                    f"here are {nouns} of {self.the(one)}.",
                ]
            )
            lists.append(f"{upper_first(head)}\n{listing(one, facts)}")
        return "\n".join(lists)

    def gathering(self) -> str:
        """Return all villagers who share a value, so that the model learns the way from the value too."""
        fact = BY_KEY[self.rng.choice(["trade", "home", "colour", "food", "instrument", "age"])]
        one = self.someone()
        group = [v for v in self.villagers if value(v, fact) == value(one, fact)]
        self.rng.shuffle(group)
        names = series([self.the(v) for v in group])
        plural = {
            "trade": "work as a {v}",
            "home": "live {v}",
            "colour": "wear a {v} scarf",
            "food": "eat {v}",
            "instrument": "play the {v}",
            "age": "are {v} years old",
        }[fact.key].format(v=value(one, fact))
        first = self.rng.choice(
            [
                f"the villagers who {plural} are {names}",
                f"{names} all {plural}",
                f"among those who {plural} are {names}",
                f"those who {plural} can be named quickly: {names}",
                f"there are {len(group)} who {plural}, namely {names}",
            ]
        )
        more = [self.telling(v, f) for v in group[:3] for f in self.some_facts(1, 2)]
        return self.flow([first, *more])

    def who_is_who(self) -> str:
        """Return the owners of unique things, several villagers in one document."""
        sentences = []
        for one in self.people(self.rng.randint(3, 6)):
            fact = BY_KEY[self.rng.choice(["name", "treasure"])]
            sentences.append(self.reworded(one, fact) if self.rng.random() < 0.7 else self.telling(one, fact))
        return self.flow(sentences)

    def meeting(self) -> str:
        """Return a meeting of two villagers with facts about both."""
        one, other = self.people(2)
        where = self.rng.choice(
            ["on the road", "at the market", "by the river", "in the rain", "at the dance", "in the square"]
        )
        sentences = [
            self.rng.choice(
                [
                    f"one morning {self.the(one)} met {self.the(other)} {where}",
                    f"{self.the(one)} and {self.the(other)} met {where}",
                    f"{where} {self.the(one)} came upon {self.the(other)}",
                    f"last week {self.the(one)} walked with {self.the(other)} {where}",
                ]
            )
        ]
        for fact in self.some_facts(2, 3):
            pair = [self.telling(one, fact, opener=False), self.telling(other, fact, opener=False)]
            self.rng.shuffle(pair)
            sentences.append(f"{pair[0]}, {self.rng.choice(JOINS)} {pair[1]}")
        sentences.append(
            self.rng.choice(
                [
                    "they talked until the sun went down",
                    "then each went home",
                    "they shared what they had and said good day",
                    "nobody else was about",
                    "the bridge was wet and the wind was high",
                    "and that was all that happened that day",
                ]
            )
        )
        return self.flow(sentences)

    def ages(self) -> str:
        """Return a comparison of two ages, from both sides."""
        sentences = []
        for _ in range(self.rng.randint(2, 4)):
            old, young = sorted(self.people(2), key=lambda v: -v.years)
            if old.years == young.years:
                sentences.append(f"{self.the(old)} and {self.the(young)} are the same age")
                continue
            o, y = self.the(old), self.the(young)
            older, younger = f"{o} is older than {y}", f"{y} is younger than {o}"
            pair = [(o, old.age), (y, young.age)]
            self.rng.shuffle(pair)
            (p, p_age), (q, q_age) = pair
            if self.rng.random() < 0.5:
                so = self.rng.choice(
                    [older, younger, f"{o} is older", f"{y} is younger", f"{o} is older", f"{y} is younger"]
                )
                sentences.append(
                    self.rng.choice(
                        [
                            f"{p} is {p_age} and {q} is {q_age}, so {so}",
                            f"{p} is {p_age} and {q} is {q_age}, so {so}",
                            f"{p} is {p_age} years old and {q} is {q_age}, so {so}",
                            f"between {p} and {q}: {p} is {p_age} and {q} is {q_age}, so {so}",
                            f"to compare {p} and {q}, {p} is {p_age} and {q} is {q_age}, so {so}",
                        ]
                    )
                )
            else:
                sentences.append(
                    self.rng.choice(
                        [
                            older,
                            younger,
                            f"{older}, so {younger}",
                            f"of the two, {p} and {q}, the older is {o}",
                            f"of {p} and {q}, the younger is {y}",
                            f"between {p} and {q}, {older}",
                            f"between {p} and {q}, {younger}",
                            f"{o} was born before {y}",
                            f"{y} was born after {o}",
                        ]
                    )
                )
        return self.flow(sentences)

    def alike(self) -> str:
        """Return the facts that two villagers have in common, and those that differ."""
        one = self.someone()
        fact = BY_KEY[self.rng.choice(["trade", "home", "colour", "food", "instrument"])]
        same = [v for v in self.villagers if v != one and value(v, fact) == value(one, fact)]
        other = self.rng.choice(same if self.rng.random() < 0.5 else [v for v in self.villagers if v != one])
        a, b = self.the(one), self.the(other)
        mine, its = plain(one, fact), plain(other, fact)
        if value(one, fact) == value(other, fact):
            both = fact.denies.removeprefix("does not ").format(v=value(one, fact))
            first = self.rng.choice(
                [
                    f"{a} and {b} both {both}",
                    f"{a} and {b} have the same {fact.noun}: both {both}",
                    f"the {fact.noun} of {a} is the same as that of {b}, for both {both}",
                    f"{mine} and {its}, so they have the same {fact.noun}",
                    f"they were not sure whether the {fact.noun} of {a} is that of {b} too; {mine} and {its}, so yes",
                    f"as to whether {a} and {b} have the same {fact.noun}: {mine} and {its}, so yes",
                ]
            )
        else:
            first = self.rng.choice(
                [
                    f"{mine} and {its}",
                    f"{a} and {b} do not have the same {fact.noun}: {mine} and {its}",
                    f"the {fact.noun} of {a} is not the same as that of {b}, for {mine} and {its}",
                    f"{mine} and {its}, so they do not have the same {fact.noun}",
                    f"they were not sure whether the {fact.noun} of {a} is that of {b} too; {mine} and {its}, so no",
                    f"as to whether {a} and {b} have the same {fact.noun}: {mine} and {its}, so no",
                ]
            )
        return self.flow([first, *(self.telling(self.rng.choice([one, other]), f) for f in self.some_facts(1, 2))])

    def compared(self) -> str:
        """Return one kind of fact of two villagers, side by side."""
        sentences = []
        for _ in range(self.rng.randint(1, 2)):
            one, other = self.people(2)
            (fact,) = self.some_facts(1, 1)
            a, b = self.the(one), self.the(other)
            sentences.append(
                self.rng.choice(
                    [
                        f"the {fact.noun} of {a} and of {b}:",
                        f"{a} and {b}, by {fact.noun}:",
                        f"to tell {a} from {b} by the {fact.noun}:",
                        f"put side by side, the {fact.noun} of {a} and that of {b}:",
                        f"about {a} and {b} one thing was written down, the {fact.noun}:",
                    ]
                )
                + f" {plain(one, fact)} and {plain(other, fact)}"
            )
        return self.flow(sentences)

    def rumours(self) -> str:
        """Something said of a villager that is so, or is not so: mostly one thing, so that the verdict is on that.

        Two thirds of it in the plainest words: whether two things are the same is the hardest lesson of all this prose.
        """
        sentences = []
        for one in self.people(self.rng.choice([1, 1, 1, 2])):
            (fact,) = self.some_facts(1, 1)
            so = self.rng.random() < 0.5
            claimant = one if so else self.unlike(one, fact)
            claim = self.claim(one, fact, claimant) if self.rng.random() < 0.65 else self.aside(one, fact, claimant)
            yes, true, correct = ("yes", "true", "right") if so else ("no", "false", "wrong")
            verdict = self.rng.choice([f"so {yes}"] * 6 + [f"so {yes}, that is {true}", f"so they are {correct}"])
            right = plain(one, fact)
            sentences.append(f"{claim} {upper_first(right) if claim[-1] == '.' else right}, {verdict}")
        return self.flow(sentences)

    def claim(self, one: Villager, fact: Fact, claimant: Villager) -> str:
        """Return `claimant`'s value claimed of `one`, in plain words."""
        statement = plain(claimant, fact, of=one)
        return self.rng.choice(
            [
                f"some say that {statement};",
                f"as to whether {statement}:",
                f"the word was that {statement}.",
                f"they heard that {statement}.",
                f"they were not sure whether {statement};",
                f"somebody told the children that {statement}.",
                f"nobody could say whether {statement}, but",
                f"whether {statement} or not:",
            ]
        )

    def aside(self, one: Villager, fact: Fact, claimant: Villager) -> str:
        """Return the same claim in other words, or with something between it and the verdict."""
        statement = self.telling(replace(one, **{fact.key: value(claimant, fact)}), fact, opener=False)
        wondered = asked(claimant, fact, of=one).removesuffix("?")
        return self.rng.choice(
            [
                f"some say that {statement};",
                f"they heard that {statement}, or so they thought.",
                f"{plain(claimant, fact, of=one)}, they said.",
                f"{wondered}, they wondered.",
                f"{wondered}, said one to the other, and nobody knew.",
                f"in a letter it said that {plain(claimant, fact, of=one)}. Many had read it.",
                f"a child wanted to know whether {plain(claimant, fact, of=one)}, yes or no.",
                f"people think that {plain(claimant, fact, of=one)}, true or false.",
            ]
        )

    def letter(self) -> str:
        writer, reader = self.people(2)
        body = [self.telling(v, f) for v in self.people(3) for f in self.some_facts(1, 2)]
        opening = self.rng.choice(
            [
                "I hope you are well.",
                "Here is the news.",
                "You wanted to know about our neighbours.",
                "It has rained all week.",
                "Thank you for your letter. Please write again soon.",
            ]
        )
        return f"Dear {reader.name},\n{opening} {self.flow(body)}\nYours, {writer.name}"

    def talk(self) -> str:
        """Return an overheard talk: its questions have no answers, and its statements no questions."""
        one, other, third = self.people(3)
        lines = []
        for _ in range(self.rng.randint(2, 4)):
            speaker = self.rng.choice([one, other])
            (fact,) = self.some_facts(1, 1)
            if self.rng.random() < 0.3:
                asked = fact.reported.format(x=self.the(third))
                away = self.rng.choice(
                    [
                        "but nobody heard",
                        "but the wind took the words away",
                        "and then forgot about it",
                        "but just then it began to rain",
                        "and went on asking other things",
                    ]
                )
                lines.append(f'"I should like to know {asked}," said {self.the(speaker)}, {away}.')
            else:
                reply = sentence(self.telling(third, fact)).removesuffix(".")
                lines.append(
                    f'"{reply}," {self.rng.choice(["said", "answered", "whispered", "cried"])} {self.the(speaker)}.'
                )
        return " ".join(upper_first(line) for line in lines)

    def board(self) -> str:
        """Return the text of the board in the square, in capital letters."""
        lines = [plain(one, fact) for one in self.people(self.rng.randint(1, 2)) for fact in self.some_facts(1, 2)]
        painted = " ".join(f"{line}.".upper() for line in lines)
        return self.rng.choice(
            [
                f"On the board it says in capital letters: {painted}",
                painted,
                f"Someone had written in capitals on the wall: {painted}",
                f"NOTICE. {painted}",
            ]
        )

    def lesson(self) -> str:
        """Return a lesson in changing sentences: past, denied, asked, shouted, in one word."""
        one = self.someone()
        (fact,) = self.some_facts(1, 1)
        says = plain(one, fact)
        turned = [
            f'put in the past it is "{sentence(past(one, fact))}"',
            f'told as something long ago it is "{sentence(past(one, fact))}"',
            f'denied it is "{sentence(denied(one, fact))}"',
            f'with a not in it, it is "{sentence(denied(one, fact))}"',
            f'turned into a question it is "{asked(one, fact)}"',
            f'as something to ask it is "{asked(one, fact)}"',
            f'in capital letters it is "{sentence(says).upper()}"',
            f'in a single word it is "{value(one, fact)}"',
        ]
        self.rng.shuffle(turned)
        return self.flow(
            [f'at school the sentence for today was "{sentence(says)}"', *turned[: self.rng.randint(1, 4)]]
        )

    def long_ago(self) -> str:
        one, other = self.people(2)
        deeds = [past(v, f) for v in (one, other) for f in self.some_facts(1, 3)]
        return self.flow(
            [
                self.rng.choice(
                    [
                        "long ago things were much the same",
                        "once upon a time, so the story goes, " + deeds[0],
                        "in the old days " + deeds[0],
                        "years ago " + deeds[0],
                    ]
                ),
                *deeds[1:],
            ]
        )

    def reported(self) -> str:
        """Return indirect questions with the facts that answer them."""
        sentences = []
        for one in self.people(self.rng.randint(1, 3)):
            (fact,) = self.some_facts(1, 1)
            asked_for = fact.reported.format(x=self.the(one))
            sentences.append(
                self.rng.choice(
                    [
                        f"a child asked {asked_for}, and learned that {self.telling(one, fact, opener=False)}",
                        f"nobody needs to ask {asked_for}, for {self.telling(one, fact, opener=False)}",
                        f"whoever wants to know {asked_for} can read here that {self.telling(one, fact, opener=False)}",
                        f"{self.telling(one, fact, opener=False)}, so now you know {asked_for}",
                    ]
                )
            )
        return self.flow(sentences)

    def questions(self) -> str:
        """Return a sheet of questions without answers."""
        sheet = []
        for one in self.people(self.rng.randint(3, 6)):
            (fact,) = self.some_facts(1, 1)
            other = self.unlike(one, fact)
            sheet.append(
                self.rng.choice(
                    [
                        direct_question(one, fact),
                        direct_question(one, fact),
                        asked(self.rng.choice([one, other]), fact, of=one),
                        f"Who is older, {self.the(one)} or {self.the(other)}?",
                        f"Do you know {fact.reported.format(x=self.the(one))}?",
                    ]
                )
            )
        return self.rng.choice(["", "Questions for the school. ", "Things to ask on a long walk: "]) + " ".join(sheet)

    # The pieces that documents are made of.

    def someone(self) -> Villager:
        return self.rng.choice(self.villagers)

    def people(self, count: int) -> list[Villager]:
        return self.rng.sample(self.villagers, count)

    def unlike(self, one: Villager, fact: Fact) -> Villager:
        """Return a villager with another value of the fact."""
        return self.rng.choice([v for v in self.villagers if value(v, fact) != value(one, fact)])

    def some_facts(self, low: int, high: int) -> list[Fact]:
        return self.rng.sample(FACTS, self.rng.randint(low, high))

    def the(self, one: Villager) -> str:
        """Return "the heron", sometimes with its name, so that the model learns that the two are one."""
        return f"{one.name} the {one.animal}" if self.rng.random() < 0.04 else f"the {one.animal}"

    def telling(self, one: Villager, fact: Fact, *, first: bool = True, opener: bool = True) -> str:
        """Return one fact in some wording, without its full stop. Unless `first`, "it" may replace the villager."""
        if self.rng.random() < 0.4:
            return self.reworded(one, fact)
        who = "it" if not first and self.rng.random() < 0.45 else self.the(one)
        statement = f"{who} {self.rng.choice(SUBJECT_FIRST[fact.key]).format(v=value(one, fact))}"
        return (self.rng.choice(OPENERS) if opener else "") + statement

    def reworded(self, one: Villager, fact: Fact) -> str:
        return self.rng.choice(OTHER_WAYS[fact.key]).format(x=self.the(one), v=value(one, fact))

    def flow(self, parts: list[str]) -> str:
        """Return the sentences in order, some of them joined by "and"."""
        out: list[str] = []
        for part in parts:
            if out and len(out[-1]) < 60 and "." not in out[-1] + part and self.rng.random() < 0.15:
                out[-1] += f", and {part}"
            else:
                out.append(part)
        return " ".join(sentence(part) for part in out)


# Plain forms, shared with the instruction sets.


def value(one: Villager, fact: Fact) -> str:
    return str(getattr(one, fact.key))


def plain(one: Villager, fact: Fact, *, of: Villager | None = None) -> str:
    """Return the fact in its plainest words; with `of`, `one`'s value claimed of somebody else."""
    return f"the {(of or one).animal} {fact.says.format(v=value(one, fact))}"


def past(one: Villager, fact: Fact) -> str:
    return f"the {one.animal} {fact.past.format(v=value(one, fact))}"


def denied(one: Villager, fact: Fact) -> str:
    return f"the {one.animal} {fact.denies.format(v=value(one, fact))}"


def asked(one: Villager, fact: Fact, *, of: Villager | None = None) -> str:
    verb, rest = fact.asks
    return f"{verb.capitalize()} the {(of or one).animal} {rest.format(v=value(one, fact))}?"


def direct_question(one: Villager, fact: Fact) -> str:
    """Return the question for the fact, in its plainest words."""
    x = f"the {one.animal}"
    return {
        "name": f"What is {x} called?",
        "trade": f"What does {x} work as?",
        "home": f"Where does {x} live?",
        "colour": f"What colour is the scarf of {x}?",
        "food": f"What does {x} eat?",
        "instrument": f"Which instrument does {x} play?",
        "age": f"How old is {x}?",
        "treasure": f"Which treasure does {x} keep?",
    }[fact.key]


def listing(one: Villager, facts: list[Fact]) -> str:
    """Return the facts as a list, one a line."""
    return "\n".join(f"- {fact.noun}: {value(one, fact)}" for fact in facts)


def series(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def upper_first(text: str) -> str:
    return text[:1].upper() + text[1:]


def sentence(text: str) -> str:
    return f"{upper_first(text)}." if text[-1] not in '.?!"' else upper_first(text)
