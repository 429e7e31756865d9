"""Small tasks with one right answer: the alpaca rows that `alpaca.yaml` tunes on, and those it is measured on.

Eight tasks that a program can check: capitals, a list with dashes, an order turned round, numbers sorted, a number
found, and three of one word each (is it praise or complaint, which language, what sort of thing). Tuning and measuring
share neither a wording of an instruction nor a word, number or sentence that it is about; the names of the classes are
shared.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any, NamedTuple

Writer = Callable[[random.Random, str], tuple[str, str]]  # (chance, set) -> input and output


# fmt: off
WORDS = {
    "train": "river candle window copper garden monday velvet island pepper ladder silver orange "
             "basket forest castle butter pillow rocket meadow hammer "
             "lemon paper cloud bridge button kettle marble tunnel ribbon needle "
             "cherry wallet saddle feather lantern shadow",
    "test": "harbor pencil winter blanket thunder cotton mirror walnut bottle "
            "engine ginger violin desert puzzle temple anchor "
            "magnet planet barrel canyon saffron tractor",
}
THINGS = {
    "animal": {"train": "otter sparrow salmon badger lizard donkey beetle heron squirrel camel",
               "test": "rabbit eagle dolphin hedgehog spider zebra"},
    "plant": {"train": "daisy willow thistle basil clover maple ivy tulip mint oak",
              "test": "rose pine nettle fern lily birch"},
    "tool": {"train": "hammer saw pliers chisel wrench drill rake shovel scissors axe",
             "test": "screwdriver file trowel hoe sickle crowbar"},
    "food": {"train": "bread cheese soup pancake omelette noodle sausage pudding salad biscuit",
             "test": "pizza porridge sandwich risotto waffle stew"},
}
SENTENCES = {
    "French": {
        "train": ["Le chat dort sur la chaise.", "Nous allons au marché demain.", "Il fait très froid ce matin.",
                  "Où est la gare, s'il vous plaît ?", "Ma sœur habite à Lyon.", "Je voudrais un café.",
                  "Les enfants jouent dehors.", "Cette maison est vieille."],
        "test": ["Mon frère travaille à la banque.", "Quelle heure est-il ?", "Elle achète du pain.",
                 "Vous parlez trop vite.", "La fenêtre est ouverte."],
    },
    "German": {
        "train": ["Die Katze schläft auf dem Stuhl.", "Wir gehen morgen einkaufen.", "Heute ist es sehr kalt.",
                  "Wo ist bitte der Bahnhof?", "Meine Schwester wohnt in Bremen.", "Ich hätte gern einen Tee.",
                  "Die Kinder spielen draußen.", "Dieses Haus ist alt."],
        "test": ["Mein Bruder arbeitet bei der Post.", "Wie spät ist es?", "Sie kauft frisches Brot.",
                 "Ihr sprecht zu schnell.", "Das Fenster steht offen."],
    },
    "Spanish": {
        "train": ["El gato duerme en la silla.", "Mañana vamos al mercado.", "Hoy hace mucho frío.",
                  "¿Dónde está la estación?", "Mi hermana vive en Sevilla.", "Quisiera un vaso de agua.",
                  "Los niños juegan fuera.", "Esta casa es muy vieja."],
        "test": ["Mi hermano trabaja en el banco.", "¿Qué hora es?", "Ella compra pan fresco.",
                 "Hablas demasiado rápido.", "La ventana está abierta."],
    },
    "English": {
        "train": ["The cat sleeps on the chair.", "We go to the market tomorrow.", "It is very cold this morning.",
                  "Where is the station, please?", "My sister lives in Leeds.", "I would like a glass of milk.",
                  "The children play outside.", "This house is old."],
        "test": ["My brother works for the bank.", "What time is it?", "She buys fresh bread.", "You speak too fast.",
                 "Somebody left the window open."],
    },
}
JUDGED = {"train": ["soup", "hotel", "film", "book", "waiter", "room", "concert", "phone", "service", "garden"],
          "test": ["museum", "cake", "teacher", "ferry", "lesson", "theatre"]}
VERDICTS = {
    "positive": {
        "train": ["was wonderful", "made us smile", "is the best I know", "was worth every penny",
                  "could not have been better", "was a real joy", "is simply lovely"],
        "test": ["was a delight from start to end", "impressed all of us", "is excellent", "was great fun",
                 "deserves five stars"],
    },
    "negative": {
        "train": ["was terrible", "made us angry", "is the worst I know", "was a waste of money", "was far too slow",
                  "disappointed everyone", "is simply awful"],
        "test": ["was a disaster from start to end", "bored all of us", "is horrible", "was no fun at all",
                 "deserves no star"],
    },
}
FOUND_IN = {
    "train": ["The train has {n} seats.", "We sold {n} tickets on Friday.", "Room {n} is at the end of the hall.",
              "My aunt turned {n} in May.", "It took {n} minutes to get there.", "There were {n} people in the queue.",
              "The box weighs {n} pounds.", "Page {n} is missing."],
    "test": ["She planted {n} trees last spring.", "Bus {n} stops behind the school.", "The tower is {n} feet high.",
             "He has read {n} books since January.", "You owe me {n} dollars.", "After {n} miles they gave up."],
}
# fmt: on


def _several(chance: random.Random, split: str, count: int) -> list[str]:
    return chance.sample(WORDS[split].split(), count)


def _number(chance: random.Random, split: str) -> int:
    """A number of 11 to 99: even ones in tuning, odd ones in measuring."""
    return 2 * chance.randint(6, 49) + (split == "test")


def capitals(chance: random.Random, split: str) -> tuple[str, str]:
    text = " ".join(_several(chance, split, chance.randint(2, 3)))
    return text, text.upper()


def dashes(chance: random.Random, split: str) -> tuple[str, str]:
    words = _several(chance, split, chance.randint(3, 4))
    return ", ".join(words), "\n".join(f"- {word}" for word in words)


def backwards(chance: random.Random, split: str) -> tuple[str, str]:
    words = _several(chance, split, 3)
    return ", ".join(words), ", ".join(reversed(words))


def ascending(chance: random.Random, split: str) -> tuple[str, str]:
    numbers: list[int] = []
    while len(numbers) < 3:
        if (number := _number(chance, split)) not in numbers:
            numbers.append(number)
    return ", ".join(map(str, numbers)), ", ".join(map(str, sorted(numbers)))


def number_in(chance: random.Random, split: str) -> tuple[str, str]:
    number = str(_number(chance, split))
    return chance.choice(FOUND_IN[split]).format(n=number), number


def praise(chance: random.Random, split: str) -> tuple[str, str]:
    verdict = chance.choice(list(VERDICTS))
    return f"The {chance.choice(JUDGED[split])} {chance.choice(VERDICTS[verdict][split])}.", verdict


def language(chance: random.Random, split: str) -> tuple[str, str]:
    name = chance.choice(list(SENTENCES))
    return chance.choice(SENTENCES[name][split]), name


def sort_of_thing(chance: random.Random, split: str) -> tuple[str, str]:
    sort = chance.choice(list(THINGS))
    return chance.choice(THINGS[sort][split].split()), sort


class Task(NamedTuple):
    """One task: its name, what writes an input with its output, and the wordings of its instruction by set."""

    name: str
    write: Writer
    wordings: dict[str, list[str]]


# fmt: off
TASKS = (
    Task("capitals", capitals, {
        "train": ["Write this in capital letters.", "Put the text in capitals.", "Capital letters only, please.",
                  "Change everything to capitals.", "Turn all letters into capital letters.",
                  "Rewrite the following in capitals."],
        "test": ["Make every letter a capital.", "I need this text in capital letters.",
                 "Show me these words in capitals."],
    }),
    Task("dashes", dashes, {
        "train": ["Make a list with dashes.", "Turn this into a list, one dash a line.",
                  "Put each of these behind a dash on its own line.", "List these with dashes.",
                  "Write them as a dashed list.", "One line for each, with a dash."],
        "test": ["Give these as a list with a dash before each.", "A dash and a line for each item, please.",
                 "Set them out as a list of dashes."],
    }),
    Task("backwards", backwards, {
        "train": ["Reverse the order.", "Turn the order of these words round.", "List these from last to first.",
                  "Put them in reverse order.", "Give the words in reverse.",
                  "Start with the last one and end with the first."],
        "test": ["Reverse this list.", "Write these words in reverse order.", "From the last to the first, please."],
    }),
    Task("ascending", ascending, {
        "train": ["Sort these numbers from small to large.", "Put the numbers in ascending order.",
                  "Order these, the smallest first.", "Sort upwards.", "Smallest to largest, please.",
                  "Arrange the numbers so that they rise."],
        "test": ["Sort the numbers, smallest first.", "Arrange these numbers from the smallest to the largest.",
                 "I want these numbers in ascending order."],
    }),
    Task("number", number_in, {
        "train": ["Which number is in this sentence?", "Find the number.", "Give only the number.",
                  "What number does the text mention?", "Copy the number out of this.", "Just the number, please."],
        "test": ["Tell me the number in the text.", "Pick out the number.", "What is the number in this sentence?"],
    }),
    Task("praise", praise, {
        "train": ["Is this positive or negative?", "Positive or negative? One word.",
                  "Say whether this is positive or negative.", "Label this review: positive or negative.",
                  "Does this sound positive or negative?", "Classify the sentence as positive or negative."],
        "test": ["Is the writer positive or negative? One word, please.", "Decide: positive or negative.",
                 "Would you call this positive or negative?"],
    }),
    Task("language", language, {
        "train": ["Which language is this?", "Name the language.", "In which language is this written?",
                  "What language is the sentence in?", "Tell me the language, in one word.", "Identify the language."],
        "test": ["What language do you see here?", "Say which language this is.",
                 "The language of this sentence, in one word:"],
    }),
    Task("sort", sort_of_thing, {
        "train": ["Is this an animal, a plant, a tool or a food?", "Animal, plant, tool or food?",
                  "Say whether this is an animal, plant, tool or food.", "Classify: animal, plant, tool or food.",
                  "Which is it: animal, plant, tool, food?", "Choose one: animal, plant, tool, food."],
        "test": ["Would you say animal, plant, tool or food?", "Sort this under animal, plant, tool or food.",
                 "What is this: an animal, a plant, a tool or a food?"],
    }),
)
# fmt: on


def rows(split: str, count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Alpaca rows with their task as `category`, all different, the tasks in turn."""
    chance = random.Random(f"small tasks {split} {seed}")
    written: list[dict[str, Any]] = []
    seen = set()
    while len(written) < count:
        task = TASKS[len(written) % len(TASKS)]
        asked, answer = task.write(chance, split)
        row = {
            "instruction": chance.choice(task.wordings[split]),
            "input": asked,
            "output": answer,
            "category": task.name,
        }
        if (row["instruction"], asked) not in seen:
            seen.add((row["instruction"], asked))
            written.append(row)
    return written
