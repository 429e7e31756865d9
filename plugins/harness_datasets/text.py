"""Plain text, one `text` a row, all of it trained on: for the objective `pretrain`, with the template `plain`."""

import harness
from harness.data import take
from harness.nouns import Row
from harness_datasets.turns import weight_of


def convert(row: Row, options: object) -> harness.Conversation:
    """Convert one text to a single assistant message, so that all of it is trained on."""
    return harness.Conversation.of(("assistant", take(row, "text", str)), weight=weight_of(row))


DATASET = harness.Dataset(
    "text",
    "plain text for pretraining: one `text` a row",
    convert,
    fields=(("text", "weight?"),),
    # of C4, FineWeb, Dolma, RedPajama and Wikipedia
    metadata=(
        *("id", "url", "source", "timestamp", "date", "dump", "file_path", "language", "language_score", "token_count"),
        *("added", "created", "version", "metadata", "meta"),
    ),
    yields="conversations",
)
