"""Pairs of answers: one in the house style, and one that says the same and rambles. `dpo.yaml` prefers the former.

No system prompt says what the style is. Both answers have the same first sentence and points of the same list, and
either may be the longer one, so that neither subject nor length tells them apart. Subjects, wordings of the question
and the phrases of rambling that are measured on are not among those of tuning.
"""

from __future__ import annotations

import random
from typing import Any

import house_style

HELD_OUT = 18  # subjects
RAMBLING = {
    "train": {
        "opening": ["Great question!", "Well, there is no single answer to that.", "I am happy to help you with this.",
                    "That is something many people wonder about.", "As an assistant, I can offer some general advice."],
        "before": ["First of all,", "On top of that,", "Then again,", "And, of course,", "Apart from that,"],
        "closing": ["I hope this helps!", "In the end it really depends on what you like best.",
                    "Let me know if there is anything else I can do for you.", "There are many other ways as well.",
                    "Good luck, and have fun with it!", "Everyone is different, so feel free to try things out."],
    },
    "test": {
        "opening": ["Sure, let me think about that for a moment.", "It is so nice of you to ask.",
                    "Oh, this one comes up quite often.", "Thank you for reaching out about this."],
        "before": ["To begin with,", "Besides,", "What is more,", "If all else fails,"],
        "closing": ["Hopefully that answers what you wanted to know.", "Do come back and tell me how it went!",
                    "Of course, opinions on this vary quite a bit.", "Some would do it in another way entirely.",
                    "Whatever you choose, it will be fine.", "That is about all I can say on the matter."],
    },
}  # fmt: skip


def pairs(split: str, wordings_each: int, seed: int = 0) -> list[dict[str, Any]]:
    """Return every subject of a split in so many wordings: prompt, chosen and rejected."""
    pick = random.Random(f"style pairs {split} {seed}")
    answered = house_style.answered()
    random.Random(f"style pairs {seed}").shuffle(answered)
    subjects = answered[HELD_OUT:] if split == "train" else answered[:HELD_OUT]
    rows = [
        {"prompt": wording.format(do=do), "chosen": answer, "rejected": rambling(answer, split, pick)}
        for do, answer in subjects
        for wording in pick.sample(house_style.WORDINGS[split], wordings_each)
    ]
    return pick.sample(rows, len(rows))


def rambling(answer: str, split: str, pick: random.Random) -> str:
    """Return the answer's first sentence and some of its points in prose, longer or shorter than it by a few words."""
    first, *points = (line for line in answer.removesuffix(house_style.SIGN_OFF).splitlines() if line)
    phrases = RAMBLING[split]
    wanted = len(answer.split()) + pick.randint(1, 8) * pick.choice((-1, 1))
    spoken = [pick.choice(phrases["opening"]), first]
    befores, closings = (pick.sample(phrases[part], len(phrases[part])) for part in ("before", "closing"))
    for before, point in zip(befores, points, strict=False):
        if words(spoken) + len(point.split()) + 2 > wanted - 5:
            break
        spoken.append(f"{before} {point[2].lower()}{point[3:]}.")
    while words(spoken) < wanted - 3 and closings:
        spoken.append(closings.pop())
    return " ".join(spoken)


def words(sentences: list[str]) -> int:
    """Count the words of sentences."""
    return sum(len(sentence.split()) for sentence in sentences)
