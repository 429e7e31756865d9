"""`harness data preview`: the first rows as the conversations or preferences they become, and as tokens."""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict, replace
from typing import Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError
from harness.nouns import Conversation, Message, Preference
from harness_commands.data.reading import (
    Part,
    dataset_option,
    part_option,
    path_argument,
    set_option,
    template_of,
    template_options,
    what_to_read,
)  # fmt: skip
from harness_commands.data.showing import print_item, print_tokens, printable, shown_tokens

SHOWN = 100_000  # characters of a message; --json has them all


@click.command()
@path_argument
@dataset_option
@set_option
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=3,
    show_default=True,
    metavar="N",
    help="How many rows of each source.",
)
@part_option
@click.option("--tokens", is_flag=True, help="Show the tokens too: which are supervised, and which are control tokens.")
@template_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a row.")
@click.pass_obj
def preview(
    context: Context,
    path: str | None,
    dataset: str | None,
    sets: tuple[str, ...],
    count: int,
    part: Part,
    tokens: bool,
    model: str | None,
    template: str | None,
    as_json: bool,
) -> None:
    """Show the first rows of RECIPE or FILE as conversations or preferences, and their tokens on request.

    \b
    harness data preview recipe.yaml --tokens
    harness data preview rows.jsonl --tokens --model Qwen/Qwen2.5-0.5B --template chatml
    """
    from harness.data import load_source
    from harness.data.convert.sources import reports_of
    from harness.data.encode.items import sequences_of

    reading = what_to_read(context, path, dataset, part, sets)
    bound = None
    if tokens or model:
        bound, missing = template_of(context, reading.recipe, model, template)
        if bound is None:
            raise HarnessError(missing or "to show the tokens of a file, say whose: --model FOLDER --template NAME")
    for source in reading.sources:
        (report,) = reports_of((source,), context.plugins.datasets)
        for item in itertools.islice(load_source(source, context.plugins.datasets, report), count):
            sequences = sequences_of(item) if bound else []
            train_on = reading.train_on(item)
            examples = bound.encode_batch(sequences, train_on, reading.reasoning) if bound else []
            encoded = [(one.id, shown_tokens(one, bound)) for one in examples] if bound else []
            if as_json:
                out: dict[str, Any] = asdict(item)
                if bound:
                    out["tokens"] = [{"id": id, "tokens": [asdict(token) for token in shown]} for id, shown in encoded]
                click.echo(json.dumps(out, ensure_ascii=False, default=str))
                continue
            print_item(context, _shortened(item), reading.reasoning)
            for id, shown in encoded:
                side = id.rpartition(" ")[2]
                print_tokens(context, shown, f"tokens of {side}" if side in {"chosen", "rejected"} else "tokens")
        for note in report.notes():
            click.secho(printable(note), dim=True, err=True)


def _shortened(item: Conversation | Preference) -> Conversation | Preference:
    """Return the item with messages cut to SHOWN characters, which a terminal prints in about a second."""

    def short(messages: tuple[Message, ...]) -> tuple[Message, ...]:
        return tuple(
            message
            if len(message.content) <= SHOWN
            else replace(
                message, content=f"{message.content[:SHOWN]} … and {len(message.content) - SHOWN:,} more characters"
            )
            for message in messages
        )

    if isinstance(item, Conversation):
        return replace(item, messages=short(item.messages))
    return replace(item, prompt=short(item.prompt), chosen=short(item.chosen), rejected=short(item.rejected))
