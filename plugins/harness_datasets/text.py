"""Plain text: one `text` a row, learnt whole. For pretraining and continued pretraining, with the `plain` template."""

import harness
from harness.data import take
from harness.nouns import Row


def convert(row: Row, options: object) -> harness.Conversation:
    """One text as a single assistant message, so that all of it is something to learn."""
    return harness.Conversation.of(("assistant", take(row, "text", str)))


DATASET = harness.Dataset("text", "plain text for pretraining: one `text` a row", convert, fields=(("text",),))
