"""Conversations to verified token ids and masks, against bare `tokenizers.encode_batch` of the same text.

    python bench/templates.py
    python bench/templates.py --rows ROWS.json --tokenizer FOLDER

The limit is `tokenizers.encode_batch` on text that is rendered already (`bare`). `ours` is
`BoundTemplate.encode_batch`: rendering, ids, masks, and the checks of every example. `unverified` renders once and
tokenizes, and checks and masks nothing: what `ours` takes longer is the price of knowing where the answers are, and
that they are. Conversations of one exchange, and the same rows as conversations of five. All in batches as tuning makes
them, each side --times times, taking turns in one process, so that they share the machine's state; medians are
compared.

Then tokens, of the same rows with a thought before each answer, through a template that drops the thoughts of earlier
turns (qwen3): one example an answer, against the conversation as one text, which serving never sends; and in packed
rows, where the examples of a conversation share what they begin with.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from typing import Any

from data import make_inputs

BATCH = 256
SHAPES = {"1 exchange": 1, "5 exchanges": 5}
THINKING = {"2 exchanges with thoughts": 2, "5 exchanges with thoughts": 5}


def main() -> None:
    """Make the rows, time the sides in turn, print the ratios, write bench/results/templates-cpu.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, help="an alpaca-type JSON file [default: rows made from the seedling's]")
    parser.add_argument(
        "--tokenizer", type=Path, help="a folder with tokenizer.json [default: 16,384 tokens, trained on the rows]"
    )
    parser.add_argument("--template", default="chatml", help="a registered template [default: chatml]")
    parser.add_argument("--times", type=int, default=5, help="how often each side runs [default: 5]")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_inputs(folder, arguments.rows, arguments.tokenizer)
        figures = {
            shape: measure(folder, arguments.template, turns, arguments.times) for shape, turns in SHAPES.items()
        }
        tokens = {shape: tokens_of(folder, turns) for shape, turns in THINKING.items()}
    report(figures, tokens, arguments)


def conversations(folder: Path, exchanges: int) -> list[list[dict[str, str]]]:
    """The rows as messages of so many exchanges each."""
    rows = [json.loads(line)["messages"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [list(chain(*rows[first : first + exchanges])) for first in range(0, len(rows), exchanges)]


def tokens_of(folder: Path, exchanges: int) -> dict[str, int]:
    """Tokens of conversations with thoughts: as one text each, as one example an answer, and in packed rows.

    The thought before an answer is as long as answers are: it is the answer of another row.
    """
    from harness.model.batching import packed_length
    from harness.model.templates import bind_template
    from harness.nouns import Conversation, Message
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec, TemplateSpec

    spec = TemplateSpec(name="qwen3", add_tokens=True)
    template = bind_template(spec, ModelSpec(path=str(folder / "model")), Plugins())
    talks = conversations(folder, exchanges)
    answers = [turn["content"] for talk in talks for turn in talk if turn["role"] == "assistant"]
    thoughts = iter(answers[1:] + answers[:1])

    def thinks(turn: dict[str, str]) -> Message:
        reasoning = next(thoughts) if turn["role"] == "assistant" else ""
        return Message(turn["role"], turn["content"], reasoning=reasoning)

    whole = [Conversation(tuple(map(thinks, talk))) for talk in talks]
    examples = [template.encode_batch([talk]) for talk in whole]
    # An earlier answer is its words and stop token in the last example's prompt, and had its thoughts before them.
    words = [
        [len(ids) + 1 for ids in template.ids_of([turn.content for turn in talk.messages if turn.reasoning])]
        for talk in whole
    ]
    thought = sum(
        one.supervised - count
        for talk, counts in zip(examples, words, strict=True)
        for one, count in zip(talk[:-1], counts[:-1], strict=True)
    )
    return {
        "conversations": len(whole),
        "one_text": sum(len(talk[-1]) for talk in examples) + thought,
        "one_an_answer": sum(len(one) for talk in examples for one in talk),
        "shared": sum(packed_length(talk) for talk in examples),
    }


def measure(folder: Path, name: str, exchanges: int, times: int) -> dict[str, Any]:
    """Seconds of each side, --times times, on conversations of so many exchanges."""
    from harness.model.templates import bind_template
    from harness.nouns import Conversation
    from harness.plugins import Plugins
    from harness.recipe import ModelSpec, TemplateSpec

    template = bind_template(TemplateSpec(name=name), ModelSpec(path=str(folder / "model")), Plugins())
    joined = conversations(folder, exchanges)
    talks = [Conversation.of(*((turn["role"], turn["content"]) for turn in turns)) for turns in joined]
    texts = [template.render(talk.messages) for talk in talks]
    backend = template.tokenizer.backend_tokenizer

    def batches(items: list[Any]) -> list[list[Any]]:
        return [items[first : first + BATCH] for first in range(0, len(items), BATCH)]

    def bare() -> int:
        return sum(
            len(one) for batch in batches(texts) for one in backend.encode_batch(batch, add_special_tokens=False)
        )

    def unverified() -> int:
        rendered = [
            [template.renderer([turn.as_dict() for turn in talk.messages], None, False) for talk in batch]
            for batch in batches(talks)
        ]
        encoded = (backend.encode_batch_fast(batch, add_special_tokens=False) for batch in rendered)
        return sum(len(one.ids) for batch in encoded for one in batch)

    def ours() -> int:
        return sum(len(one) for batch in batches(talks) for one in template.encode_batch(batch))

    sides: dict[str, Callable[[], int]] = {"bare": bare, "unverified": unverified, "ours": ours}
    seconds: dict[str, list[float]] = {side: [] for side in sides}
    tokens = {side: run() for side, run in sides.items()}  # and the caches are warm
    if len(set(tokens.values())) != 1:
        raise SystemExit(f"the sides do not make the same tokens: {tokens}")
    for _ in range(times):
        for side, run in sides.items():
            began = time.perf_counter()
            run()
            seconds[side].append(time.perf_counter() - began)
    return {"conversations": len(talks), "tokens": tokens["ours"], "seconds": seconds}


def report(
    figures: dict[str, dict[str, Any]], tokens: dict[str, dict[str, int]], arguments: argparse.Namespace
) -> None:
    """Print rates and ratios, and keep them."""
    for shape, measured in figures.items():
        middle = {side: statistics.median(seconds) for side, seconds in measured["seconds"].items()}
        measured["of_bare"] = middle["bare"] / middle["ours"]
        measured["verification_share"] = 1 - middle["unverified"] / middle["ours"]
        print(f"{shape}: {measured['conversations']:,} conversations, {measured['tokens']:,} tokens")
        for side, seconds in middle.items():
            print(f"  {side:10} {measured['conversations'] / seconds:>8,.0f} conversations/s")
        print(
            f"  ours is {measured['of_bare']:.2f} of bare; verification and masks "
            f"are {measured['verification_share']:.0%} of it"
        )
    for shape, counted in tokens.items():
        one = counted["one_text"]
        print(
            f"{shape}: {counted['conversations']:,} conversations, {one:,} tokens as one text; one example an answer "
            f"{counted['one_an_answer']:,} ({counted['one_an_answer'] / one:.2f} times), sharing what they begin with "
            f"{counted['shared']:,} ({counted['shared'] / one:.2f} times)"
        )
    target = Path(__file__).with_name("results") / "templates-cpu.json"
    kept = {
        "cores": os.cpu_count(),
        "template": arguments.template,
        "rows": arguments.rows and arguments.rows.name,
        **figures,
        **tokens,
    }
    target.write_text(json.dumps(kept, indent=2) + "\n")
    print(f"written to {target}")


if __name__ == "__main__":
    main()
