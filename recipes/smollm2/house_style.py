"""A house style and questions put to it: the rows that `tone.yaml` tunes on, and those it is measured on.

The system prompt says what the style is, in tuning, in measuring and to the base model. Tuning has written answers;
measuring needs none, because a program can see whether an answer keeps to the style. No subject and no wording of a
question is in both. Many questions are spelt the American way, which the style forbids in answers.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

SIGN_OFF = "Kind regards, Fernhill Library"
SYSTEM_PROMPT = (
    "You answer for Fernhill Library, in the house style: first one sentence, then exactly three bullet points that "
    f'begin with "- ", in British spelling (colour, organise), and at the end the line "{SIGN_OFF}".'
)
WORDINGS = {
    "train": [
        "How do I {do}?", "What is a good way to {do}?", "Can you help me to {do}?",
        "I'd like to {do}. Where do I begin?", "What should I know if I want to {do}?", "Tips on how to {do}, please.",
        "How would you {do}?", "My plan is to {do}. Is it hard?",
    ],
    "test": [
        "Tell me how to {do}.", "Somebody asked me to {do} and I have no idea how.",
        "Is there a trick if one has to {do}?", "I have never tried to {do}. Any advice?",
        "Explain to a beginner how to {do}.",
    ],
}  # fmt: skip
# Paragraphs of five lines: what is to be done, a sentence, three points.
ANSWERED = Path(__file__).with_suffix(".answers.txt").read_text(encoding="utf-8")
# What is to be done | a word that an answer about it cannot do without (its beginning).
ASKED = """
choose the color of a front door | door
organize a closet | closet,wardrobe,cloth
find a favorite hiking trail | trail,hik,walk
travel by night train | train
keep gray hair healthy | hair
greet a new neighbor | neighbo
bring out the flavor of mushrooms | mushroom
memorize a phone number | number
decorate the center of a dinner table | table
apologize to a friend | friend,apolog,sorry
pick a play at the theater | theat,play
measure half a liter of milk | milk,lit
recognize a ripe melon | melon
prioritize my tasks | task
get rid of an odor in the fridge | fridge,odo,smell
write with humor | humo,joke,funny,laugh
photograph a harbor | harbo,photo
make a cozy reading corner | corner,read
honor a retiring teacher | teacher
minimize waste in the kitchen | waste,kitchen
clean a window | window
grow lavender | lavender
learn ten words of Welsh | word,welsh
boil pasta | pasta
iron a shirt | shirt,iron
fold a paper boat | paper,boat
look after a goldfish | goldfish,fish
repair a leaking tap | tap,leak,faucet
polish leather shoes | shoe,leather,polish
swim a longer distance | swim
hang a heavy mirror | mirror
give a cat a pill | cat,pill
store cheese | cheese
tie a necktie | tie
light a campfire | fire
start a diary | diary,journal,writ
peel garlic quickly | garlic
choose a bicycle | bicycle,bike
wrap a round gift | gift,wrap,paper
sew on a button | button
make lemonade | lemon
prune roses | rose
calm a crying baby | baby
learn the piano | piano
buy a used car | car
find north without a compass | north
bathe a dog | dog
make a paper lantern | lantern,paper
water plants during a holiday | plant,water
build a snowman | snow
"""


def answered() -> list[tuple[str, str]]:
    """Return tasks, each with its answer in the house style."""
    paragraphs = (paragraph.splitlines() for paragraph in ANSWERED.strip().split("\n\n"))
    return [
        (do, f"{first}\n\n" + "".join(f"{point}\n" for point in points) + f"\n{SIGN_OFF}")
        for do, first, *points in paragraphs
    ]


def asked() -> list[tuple[str, list[str]]]:
    """Return tasks, each with beginnings of words of which an answer has at least one."""
    rows = [line.split("|") for line in ASKED.strip().splitlines()]
    return [(do.strip(), [word.strip() for word in words.split(",")]) for do, words in rows]


def train(wordings_each: int, seed: int = 0) -> list[dict[str, Any]]:
    """Every answered subject in so many wordings."""
    pick = random.Random(f"house style {seed}")
    rows = [
        {"system": SYSTEM_PROMPT, "prompt": wording.format(do=do), "answer": answer}
        for do, answer in answered()
        for wording in pick.sample(WORDINGS["train"], wordings_each)
    ]
    return pick.sample(rows, len(rows))


def test(wordings_each: int = 2) -> list[dict[str, Any]]:
    """Every other subject in so many other wordings, in turn."""
    wordings = WORDINGS["test"]
    return [
        {"prompt": wordings[(number * wordings_each + turn) % len(wordings)].format(do=do), "about": words}
        for number, (do, words) in enumerate(asked())
        for turn in range(wordings_each)
    ]
