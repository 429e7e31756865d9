from pathlib import Path

import harness


def convert(row):
    return harness.Conversation.of(("user", f"{row['riddle']} What am I?"), ("assistant", row["answer"]))


@harness.hookimpl
def register_datasets(register):
    riddles = Path(__file__).with_name("riddles.jsonl")
    register(harness.Dataset("riddles", "riddles with their answers", convert, riddles, licence="CC0-1.0"))
