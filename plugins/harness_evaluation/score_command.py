"""`harness score`: what a reward model thinks of answers, as JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError
from harness.files import write_output
from harness_evaluation.progress import progress_bar

if TYPE_CHECKING:
    from harness.model.load import LoadedVariant
    from harness.recipe import DataSource, DataSpec


@click.command(name="score")
@click.argument("run")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--dataset", default="auto", show_default=True, metavar="NAME", help="Read FILE as this dataset of `data list`."
)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write to this file.")
@click.option("--batch-tokens", type=click.IntRange(min=1), default=8192, show_default=True, metavar="N")
@click.pass_obj
def command(context: Context, run: str, file: Path, dataset: str, out: Path | None, batch_tokens: int) -> None:
    """Score the answers in FILE with the reward model RUN.

    \b
    harness score judge answers.jsonl
    harness score judge held-out.jsonl --dataset preferences --out scores.jsonl

    A conversation gets a `score`; of a preference each completion gets one, `chosen` and `rejected`. A line of JSON for
    each goes to the standard output, in the order of FILE; higher is better. Scores compare answers to one question,
    and have no unit.
    """
    from harness.extras import require

    require("torch", "tuning")
    from harness.model.load import load_variant
    from harness.recipe import DataSource
    from harness.variants import require_head, resolve_variant

    if not file.exists():
        raise HarnessError(f"{file}: there is no such file")
    if out is not None and out.exists():
        raise HarnessError(f"{out} is there already: remove it, or name another")
    variant = resolve_variant(run, context.runs_folder, context.plugins)
    require_head(variant)
    loaded = load_variant(variant, context.plugins)
    source = DataSource(dataset=dataset, path=str(file.resolve()))
    lines = list(_lines(context, loaded, source, batch_tokens))
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    if out is None:
        click.echo(text, nl=False)
    else:
        write_output(out, text)
    click.echo(_summary(lines) + (f", in {out}" if out else ""), err=True)


def _lines(context: Context, loaded: LoadedVariant, source: DataSource, batch_tokens: int) -> Iterator[dict[str, Any]]:
    """Yield the id and the scores of each item, in the order of the source."""
    from harness.data import Reader, encode_sources, load_source
    from harness.model.configs import positions_of
    from harness.model.scores import score_items
    from harness.nouns import Preference, Reads

    assert loaded.variant.run is not None
    spec = _whole(loaded.variant.run.recipe.data)
    first = next(iter(load_source(source, context.plugins.datasets)))
    reads: Reads = "preferences" if isinstance(first, Preference) else "conversations"
    reader = Reader(reads, "harness score", positions_of(loaded.model.config))
    encoded = encode_sources((source,), spec, context.plugins.datasets, loaded.template, reader=reader)
    items, scores = encoded.items, dict[int, list[float]]()
    with progress_bar(f"{loaded.variant.name}  score") as bar:
        bar.expect(len(items))
        for number, of_examples in score_items(loaded, items, batch_tokens):
            scores[number] = of_examples
            bar.advance(1)
    for number, item in enumerate(items):
        if reads == "conversations":  # the last answer, where the template makes one example of each
            yield {"id": item.examples[-1].id, "score": scores[number][-1]}
        else:
            id = item.examples[0].id.removesuffix(f" {item.roles[0]}")
            yield {"id": id, **dict(zip(item.roles, scores[number], strict=True))}


def _whole(spec: DataSpec) -> DataSpec:
    """Return the data section of a run for rows of any kind: each whole, none cut or left out."""
    return spec.model_copy(update={"train_on": "all", "on_overlong": "error"})


def _summary(lines: list[dict[str, Any]]) -> str:
    pairs = [line for line in lines if "chosen" in line and "rejected" in line]
    scored = f"{len(lines):,} scored"
    if not pairs:
        return scored
    right = sum(line["chosen"] > line["rejected"] for line in pairs)
    return f"{scored}; the chosen one is higher in {right:,} of {len(pairs):,} pairs ({right / len(pairs):.1%})"
