"""Write the data of the small world of Mossbank: the corpus for pretraining and the instruction sets.

    python recipes/seedling/world.py --out recipes/seedling/data

The same seed writes the same bytes. It needs only Python. Facts are in `facts.py`, prose in `prose.py`, questions in
`instructions.py`, a tool and its use in `look_up.py`, preferences in `preferences.py`, item templates in
`following.py`.
"""

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from facts import make_world
from following import world_file
from instructions import alpaca, conversations, evaluation
from look_up import tool_conversations
from preferences import preferences
from prose import Teller

DOCUMENTS = 50_000
HELD_OUT_DOCUMENTS = 300  # of prose; the villagers are the same, the documents are others
ALPACA_ROWS = 6_000
CONVERSATIONS = 2_000
VALIDATION_CONVERSATIONS = 200
TOOL_CONVERSATIONS = 800
VALIDATION_TOOL_CONVERSATIONS = 30
PREFERENCES = 6_000
TEST_PREFERENCES = 400
QUESTIONS_PER_CATEGORY = 50
TEST_DOCUMENTS = 100  # of prose, for what tuning makes the base forget


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--documents", type=int, default=DOCUMENTS, help="how long the corpus is")
    args = parser.parse_args()

    world = make_world(args.seed)
    teller = Teller(world, args.seed)
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "corpus.jsonl", ({"text": text} for text in teller.documents(args.documents)))
    held_out = Teller(world, args.seed + 1).documents(HELD_OUT_DOCUMENTS)
    write(args.out / "corpus_validation.jsonl", ({"text": text} for text in held_out))
    write(args.out / "train.alpaca.jsonl", alpaca(world, args.seed, ALPACA_ROWS))
    write(args.out / "train.messages.jsonl", conversations(world, "train", args.seed + 1, CONVERSATIONS))
    write(
        args.out / "validation.messages.jsonl", conversations(world, "validation", args.seed, VALIDATION_CONVERSATIONS)
    )
    tools = tool_conversations(world, "train", args.seed, TOOL_CONVERSATIONS)
    write(args.out / "train.tools.jsonl", tools)
    held_out = tool_conversations(world, "validation", args.seed, VALIDATION_TOOL_CONVERSATIONS)
    write(args.out / "validation.tools.jsonl", held_out)
    write(args.out / "train.preferences.jsonl", preferences(world, "train", args.seed, PREFERENCES))
    write(args.out / "test.preferences.jsonl", preferences(world, "test", args.seed, TEST_PREFERENCES))
    prose = Teller(world, args.seed + 2).documents(TEST_DOCUMENTS)
    write(args.out / "test.prose.jsonl", ({"text": text} for text in prose))
    write(args.out / "test.jsonl", evaluation(world, args.seed, QUESTIONS_PER_CATEGORY))
    items = json.dumps(world_file(world, args.seed), indent=1, ensure_ascii=False)
    (args.out / "instruct.yaml").write_text(f"# Written by world.py; JSON is YAML.\n{items}\n", encoding="utf-8")


def write(path: Path, rows: Iterable[Mapping[str, object]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
