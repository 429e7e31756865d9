"""Small conversations and preferences that laws are tried on."""

from __future__ import annotations

from harness.nouns import Conversation, Message, Preference

QUESTIONS = (
    ("Who keeps the key?", "The heron keeps it.", "Nobody does."),
    ("Where is the bell?", "By the mill.", "It is lost, I think."),
    ("Write JSON.", '{"name": "heron"}', "No."),
    ("Answer in one word, please.", "Heron", "The otter and the wren carry stones."),
)


def conversations() -> list[Conversation]:
    """Return conversations of one and of several turns, with a system message and without."""
    single = [Conversation.of(("user", question), ("assistant", answer)) for question, answer, _ in QUESTIONS]
    (first, answer, _), (second, other, _) = QUESTIONS[:2]
    several = Conversation.of(("user", first), ("assistant", answer), ("user", second), ("assistant", other))
    return [*single, several]


def preferences() -> list[Preference]:
    """Return preferences with both completions."""
    return [
        Preference(
            (Message("user", question),),
            (Message("assistant", better),),
            (Message("assistant", worse),),
            id=str(number),
        )
        for number, (question, better, worse) in enumerate(QUESTIONS)
    ]
