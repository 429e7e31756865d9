"""`harness template show`: a conversation rendered by a template, as tokens, as text, as JSON or as an HTML page."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import DataError, HarnessError, first_line
from harness.nouns import Conversation, Example
from harness_commands.data.reading import dataset_option, what_to_read
from harness_commands.data.showing import print_tokens, printable, shown_tokens
from harness_commands.template.shown import Shown, changes, ends, takes
from harness_commands.template.subject import Subject, subject_of

if TYPE_CHECKING:
    from harness.template import BoundTemplate, Reasoning, TrainOn

BUILT_IN = "built-in sample"


@click.command()
@click.argument("what", nargs=-1, metavar="[RUN|RECIPE] [FILE]")
@click.option("--model", metavar="FOLDER|ID", help="Instead of a run or recipe: a model, whose tokenizer is used.")
@click.option(
    "--template",
    metavar="NAME",
    help="With --model: the template, by its name or as in a recipe. [default: chatml]",
)
@click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="With --model, an option of the template; else a key of the recipe.",
)
@click.option(
    "--row",
    type=click.IntRange(min=1),
    metavar="N",
    help="Which row of FILE, or of the training data. [default: the first of FILE]",
)
@dataset_option
@click.option("--generation-prompt", is_flag=True, help="Show what is sent to get the last answer.")
@click.option(
    "--parsers",
    is_flag=True,
    help="Also say which parsers of the engine read its thoughts and calls. They are tried, which takes seconds.",
)
@click.option("--text", "as_text", is_flag=True, help="Print the rendered text, its control tokens in ⟦ ⟧.")
@click.option(
    "--jinja",
    is_flag=True,
    help="Print the Jinja source that is saved with a run and served; add it to --json or --html.",
)
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", help="Write a page with everything in it, to send on."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a conversation.")
@click.pass_obj
def show(
    context: Context,
    what: tuple[str, ...],
    model: str | None,
    template: str | None,
    sets: tuple[str, ...],
    row: int | None,
    dataset: str | None,
    generation_prompt: bool,
    parsers: bool,
    as_text: bool,
    jinja: bool,
    html: Path | None,
    as_json: bool,
) -> None:
    """Show a conversation as the template of RUN or RECIPE makes it: its supervised tokens and its control tokens.

    The conversation is a row of FILE, with --row N alone one of the training data, and without both a small built-in
    one with all that the template has a place for.

    \b
    harness template show --model Qwen/Qwen2.5-0.5B --template chatml
    harness template show recipe.yaml rows.jsonl --row 17
    harness template show RUN --generation-prompt --text
    harness template show RUN --html tokens.html
    """
    name, path = _named(what, model)
    subject = subject_of(context, name, model, template, sets)
    bound = subject.template
    source = bound.tokenizer.get_chat_template()
    if jinja and not (as_json or html):
        click.echo(source)
        return
    shown = list(_shown(context, subject, path, dataset, row, sets, generation_prompt))
    if html is not None:
        from harness.files import write_output
        from harness_commands.template.tokens_page import tokens_page

        write_output(html, tokens_page(subject, shown, source if jinja else None))
        click.echo(f"written: {html}", err=as_json)
    if as_json:
        for one in shown:
            click.echo(json.dumps(_as_dict(subject, one, source if jinja else None), ensure_ascii=False))
    elif as_text:
        for one in shown:
            _print_text(context, bound, one.text)
    elif html is None:
        _print_header(context, subject)
        if parsers:
            context.console.print(_parsers(context, bound), style="dim", markup=False, soft_wrap=True)
        for one in shown:
            _print_shown(context, one)


def _named(what: tuple[str, ...], model: str | None) -> tuple[str | None, str | None]:
    """Return the run or recipe, and the file."""
    if len(what) > (2 if model is None else 1):
        raise click.UsageError(f"too many arguments: {' '.join(what)}" + ("; with --model, only FILE" if model else ""))
    if model is not None:
        return None, what[0] if what else None
    return what[0] if what else None, what[1] if len(what) > 1 else None


def _shown(
    context: Context,
    subject: Subject,
    path: str | None,
    dataset: str | None,
    row: int | None,
    sets: tuple[str, ...],
    prompt: bool,
) -> Iterator[Shown]:
    from harness.data.encode.items import sequences_of
    from harness.template.samples import example

    left_out: dict[str, str] = {}
    train_on: TrainOn = "all"
    reasoning: Reasoning = "learn"
    if path is None and row is None:
        if dataset:
            raise click.UsageError("--dataset says what FILE is read as; name one")
        conversation, left_out = example(subject.template)
        conversations = [conversation]
    elif path is None and subject.recipe_path is None:
        raise click.UsageError("--row is one of FILE, or of the data of a run or recipe; name one")
    else:
        items = _row(context, path or str(subject.recipe_path), dataset, row, () if path else sets)
        conversations = [part for item in items for part in sequences_of(item)]
        if subject.recipe_path is not None:
            data = subject.recipe(context, sets).data
            train_on, reasoning = data.train_on, data.reasoning
    for conversation in conversations:
        if prompt:
            conversation = _up_to_the_answer(conversation)
            text = subject.template.render(conversation.messages, conversation.tools, generation_prompt=True)
            ids = subject.template.prompt_ids(conversation.messages, conversation.tools)
            encoded = Example(ids, [False] * len(ids), conversation.id)
        else:
            text = subject.template.render(conversation.messages, conversation.tools)
        label = " ".join(part for part in (conversation.source, conversation.id) if part) or BUILT_IN
        if prompt:
            yield Shown(label, text, encoded, shown_tokens(encoded, subject.template), left_out)
            continue
        examples = _encoded(subject.template, conversation, train_on, reasoning)
        for number, one in enumerate(examples, 1):
            of = f", answer {number} of {len(examples)}" if len(examples) > 1 else ""
            shown = text if not of else subject.template.decoded(one.input_ids)
            yield Shown(label + of, shown, one, shown_tokens(one, subject.template), left_out)


def _row(context: Context, path: str, dataset: str | None, row: int | None, sets: tuple[str, ...]) -> tuple[Any, ...]:
    """Return the items of row `row` of a file, or of the first source of a recipe that has it.

    Without a number, those of the first row that is kept.
    """
    from harness.data.convert.sources import load_rows
    from harness.data.convert.validity import check_readable

    wrong: list[DataError] = []
    for source in what_to_read(context, path, dataset, "train", sets).sources:
        for loaded in load_rows(source, context.plugins.datasets, on_error=wrong.append, check=check_readable):
            if row is None or loaded.number == row:
                return loaded.items
    about = [error for error in wrong if row is None or error.row == row]
    if about:
        raise about[0]
    raise HarnessError(
        f"{path}: there is no row {row}, or it is left out: `harness data validate {path}` says which are"
    )


def _up_to_the_answer(conversation: Conversation) -> Conversation:
    last = conversation.trained[-1] if conversation.trained else len(conversation.messages)
    return replace(conversation, messages=conversation.messages[:last])


def _encoded(
    template: BoundTemplate, conversation: Conversation, train_on: TrainOn, reasoning: Reasoning
) -> list[Example]:
    from harness.template import trained

    if not trained(conversation, train_on):
        raise HarnessError(
            f"{conversation.id}: no message of it is trained on. `--generation-prompt` shows what is sent to get "
            f"an answer"
        )
    return template.encode_batch([conversation], train_on, reasoning)


def _as_dict(subject: Subject, shown: Shown, jinja: str | None) -> dict[str, Any]:
    bound = subject.template
    out = {
        "template": bound.name,
        "model": subject.model,
        "run": subject.run.name if subject.run else None,
        "conversation": shown.label,
        "left_out": shown.left_out,
        "stop_tokens": bound.stop_tokens,
        "stop_ids": list(bound.stop_ids),
        "text_marks": bound.text_marks,
        "spelt_marks": bound.spelt_marks,
        "text": shown.text,
        "input_ids": shown.example.input_ids,
        "loss_mask": shown.example.loss_mask,
        "tokens": [asdict(token) for token in shown.tokens],
    }
    return out if jinja is None else out | {"jinja": jinja}


def _print_header(context: Context, subject: Subject) -> None:
    from rich.text import Text

    bound = subject.template
    origin = subject.origin if subject.run is None else f"{subject.origin}, {subject.model}"
    context.console.print(Text.assemble((bound.name, "bold"), ("  on  ", "dim"), origin), soft_wrap=True)
    context.console.print(Text(f"takes {takes(bound)}", style="dim"), soft_wrap=True)
    context.console.print(Text(f"an answer ends with {ends(bound)}", style="dim"), soft_wrap=True)
    for remark in filter(None, (*bound.remarks, changes(bound))):
        context.console.print(Text(remark, style="dim"), soft_wrap=True)


def _parsers(context: Context, template: BoundTemplate) -> str:
    """Return a sentence on the parsers of the default engine that read what the template writes."""
    import tempfile

    engines = context.plugins.engines
    engine = engines[engines.default] if engines.default else None
    if engine is None or engine.parsers is None:
        raise HarnessError("no installed engine names the parsers that it has: `pip install instruct-harness[serve]`")
    with tempfile.TemporaryDirectory() as folder:
        template.save(Path(folder) / "chat")
        parsers = engine.parsers(Path(folder) / "chat")
    has = {"thoughts": template.habits.takes_thoughts, "calls": template.takes_tools}
    names = {"thoughts": parsers["reasoning"], "calls": parsers["tools"]}
    read = [f"reads its {what} with {names[what]}" for what, there in has.items() if there and names[what]]
    unread = " and ".join(what for what, there in has.items() if there and not names[what])
    read += [f"has no parser of its {unread}, which stay text"] if unread else []
    read += [str(remark) for key in ("reasoning_remark", "tools_remark") if (remark := parsers.get(key))]
    return f"{engine.name} {'; '.join(read)}" if read else "it has no thoughts or calls to parse"


def _print_shown(context: Context, shown: Shown) -> None:
    from rich.text import Text

    context.console.print()
    print_tokens(context, shown.tokens, f"{printable(shown.label)}, tokens")
    for part, why in shown.left_out.items():
        context.console.print(Text(f"without {part}: {first_line(HarnessError(why))}", style="dim"))


def _print_text(context: Context, template: BoundTemplate, text: str) -> None:
    """Print the text with its control tokens in ⟦ ⟧, so that they differ from the same words inside a message."""
    from rich.text import Text

    line = Text()
    control = "|".join(map(re.escape, template.control_tokens))
    for part in re.split(f"({control})", text) if control else [text]:
        if part in template.control_tokens:
            line.append(f"⟦{part}⟧", style="magenta")
        else:
            line.append(printable(part))
    context.console.print(line, soft_wrap=True)
