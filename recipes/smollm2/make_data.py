"""Write the rows of the four recipes into data/: `python make_data.py`. The same seed writes the same bytes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import house_style
import messages
import small_tasks
import style_pairs

HERE = Path(__file__).resolve().parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE / "data")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    write(args.out / "json.train.jsonl", map(conversation, messages.items("train", 520, args.seed)))
    write(args.out / "json.test.jsonl", numbered("json", messages.items("test", 240, args.seed)))

    write(args.out / "tone.train.jsonl", map(conversation, house_style.train(2, args.seed)))
    write(args.out / "tone.test.jsonl", numbered("tone", house_style.test()))
    write(args.out / "dpo.train.jsonl", style_pairs.pairs("train", 3, args.seed))
    write(args.out / "dpo.test.jsonl", style_pairs.pairs("test", 5, args.seed))
    write(args.out / "alpaca.train.jsonl", map(alpaca, small_tasks.rows("train", 560, args.seed)))
    write(args.out / "alpaca.test.jsonl", numbered("alpaca", small_tasks.rows("test", 240, args.seed)))


def alpaca(row: Mapping[str, Any]) -> dict[str, Any]:
    """The three fields of an alpaca row."""
    return {key: row[key] for key in ("instruction", "input", "output")}


def conversation(item: Mapping[str, Any]) -> dict[str, Any]:
    """An item as a conversation in OpenAI's form; an answer that is no text is written as JSON."""
    answer = item["answer"] if isinstance(item["answer"], str) else json.dumps(item["answer"], ensure_ascii=False)
    turns = [("system", item.get("system")), ("user", item["prompt"]), ("assistant", answer)]
    return {"messages": [{"role": role, "content": text} for role, text in turns if text]}


def numbered(task: str, items: Iterable[Mapping[str, Any]]) -> Iterable[dict[str, Any]]:
    """Items of an evaluation, each with an id."""
    return ({"id": f"{task} {number}", **item} for number, item in enumerate(items, 1))


def write(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    lines = [json.dumps(row, ensure_ascii=False) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {len(lines)} rows, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
