"""`harness template verify`: that a run's saved template gives serving the tokens that training saw.

Needs no server.
"""

from __future__ import annotations

import itertools
import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError, TemplateError, first_line
from harness.files import read_json
from harness.nouns import Conversation, Message, without_thoughts
from harness_commands.data.reading import json_option, read_items, what_to_read
from harness_commands.data.showing import printable
from harness_commands.template.subject import Subject, subject_of

if TYPE_CHECKING:
    from harness.recipe import DataRecipe, DataSpec
    from harness.run import Run
    from harness.template import BoundTemplate, TrainOn
    from harness.template.samples import ProbeConversation

MOST_TOLD = 3  # failures that are printed; --json has them all


@dataclass
class Check:
    """One check: the things compared, the number of equal prompts, the failures, and notes.

    Times in seconds.
    """

    name: str
    of: str = ""
    equal: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0


@click.command()
@click.argument("name", metavar="RUN|RECIPE")
@click.option(
    "--rows",
    type=click.IntRange(min=1),
    default=200,
    show_default=True,
    metavar="N",
    help="How many training conversations to compare.",
)
@json_option
@click.pass_obj
def verify(context: Context, name: str, rows: int, as_json: bool) -> None:
    """Check that what RUN saved is served as it was tuned: the prompt of every supervised turn has the same tokens.

    Compared are training conversations, the probes that tuning left, and fixed ones: shapes, languages, tools, and
    every control token said by everybody. Of a RECIPE it checks what a run of it would save. Exits 1 where something
    differs.

    \b
    harness template verify RUN
    harness template verify recipe.yaml --rows 2000
    """
    subject = subject_of(context, name)
    with tempfile.TemporaryDirectory() as folder:
        if subject.run is None:  # what a run would save is loaded as a run's is
            from harness.template import BoundTemplate

            chat = Path(folder) / "chat"
            subject.template.save(chat)
            subject = replace(subject, template=BoundTemplate.load(chat))
        else:
            chat = subject.run.chat_folder
        checks = [_timed(check) for check in _checks(context, subject, chat, rows)]
    failed = [failure for check in checks for failure in check.failures]
    if as_json:
        report = {"template": subject.template.name, "model": subject.model, "passed": not failed}
        click.echo(json.dumps(report | {"checks": [asdict(check) for check in checks]}, indent=2, ensure_ascii=False))
        if failed:
            raise SystemExit(1)
        return
    _print(context, subject, checks)
    if failed:
        more = f"\nand {len(failed) - MOST_TOLD} more; --json has them all" if len(failed) > MOST_TOLD else ""
        raise TemplateError("\n".join(printable(failure) for failure in failed[:MOST_TOLD]) + more)


def _checks(context: Context, subject: Subject, chat: Path, rows: int) -> Iterator[Callable[[], Check]]:
    template = subject.template
    recipe = subject.recipe(context)
    train_on = recipe.data.train_on
    yield lambda: _data(context, subject, recipe.data, rows)
    if subject.run is not None:
        yield lambda: _probes(subject, template)
    tried: list[ProbeConversation] = []
    yield lambda: _fixed(template, "last" if train_on == "last" else "all", tried)
    yield lambda: _text_is_text(template, tried)
    yield lambda: _stop_tokens(template, chat)
    if (run := subject.run) is not None:
        yield lambda: _as_recorded(template, run)
        yield lambda: _installed(context, template, recipe)


def _timed(check: Callable[[], Check]) -> Check:
    began = time.perf_counter()
    done = check()
    done.seconds = round(time.perf_counter() - began, 3)
    return done


def _data(context: Context, subject: Subject, spec: DataSpec, rows: int) -> Check:
    """Check the training data, as the recipe reads and cleans them."""
    check = Check("training data")
    try:
        conversations = list(_conversations(context, subject, rows))
    except HarnessError as error:
        if subject.run is None or not subject.run.probes_path.is_file():
            raise
        check.notes.append(f"cannot be read any more, so that only the run's probes tell: {error}")
        return check
    check.of = f"{len(conversations)} conversations"
    for conversation in conversations:
        try:
            talk = without_thoughts(conversation) if spec.reasoning == "drop" else conversation
            check.equal += subject.template.check_turns(talk, spec.train_on)
        except TemplateError as error:
            check.failures.append(str(error))
    return check


def _conversations(context: Context, subject: Subject, rows: int) -> Iterator[Conversation]:
    """Yield conversations of the training data, equally many of each source, without mixing or decontamination."""
    from harness.data.encode.items import sequences_of

    reading = what_to_read(context, str(subject.recipe_path), None, "train")
    assert reading.recipe is not None
    data = reading.recipe.data
    of_each = -(-rows // len(reading.sources))
    for source in reading.sources:
        alone = source.model_copy(update={"weight": None, "cap": None, "epochs": 1.0})
        spec = data.model_copy(update={"train": (alone,), "temperature": None, "decontaminate": None})
        recipe = reading.recipe.model_copy(update={"data": spec})
        stream = read_items(context, replace(reading, sources=(alone,), recipe=recipe), "reading")
        for prepared in itertools.islice(stream.items, of_each):
            yield from sequences_of(prepared.item)


def _probes(subject: Subject, template: BoundTemplate) -> Check:
    """Check the prompts whose ids tuning recorded."""
    from harness.template import aligned

    assert subject.run is not None
    check = Check("probes")
    if not subject.run.probes_path.is_file():
        check.notes.append("the run has no probes.json")
        return check
    saved = read_json(subject.run.probes_path)
    probes = saved.get("probes") if isinstance(saved, dict) else None
    if not isinstance(probes, list):
        check.failures.append(f"{subject.run.probes_path}: it has no list of `probes`")
        return check
    check.of = f"{len(probes)} prompts that tuning wrote down"
    for number, probe in enumerate(probes, 1):
        try:
            prompt = template.prompt_ids(
                [Message.from_dict(raw) for raw in probe["messages"]],
                probe.get("tools") or (),
                thinks=probe.get("thinks"),
            )
        except TemplateError as error:
            check.failures.append(f"probe {number} of {subject.run.name}: {error}")
            continue
        length = probe.get("prompt_tokens", len(prompt))
        recorded = probe["input_ids"][:length]
        seen = (
            prompt[: len(recorded)] if len(recorded) < length else prompt
        )  # of a long one, the first are written down
        if recorded == seen:
            check.equal += 1
        else:
            difference = aligned(template.tokenizer, recorded, prompt, ("in training", "now"))
            check.failures.append(
                f"probe {number} of {subject.run.name}: its prompt has other tokens now, {difference}"
            )
    return check


def _fixed(template: BoundTemplate, train_on: TrainOn, taken: list[ProbeConversation]) -> Check:
    """Check the fixed conversations and append them to `taken`. A refusal is the same in tuning and serving."""
    from harness.template.samples import samples

    there, left_out = samples(template)
    taken += there
    check = Check("fixed conversations", ", ".join(_grouped(sample.name for sample in taken)))
    check.notes = [f"{name}: {first_line(HarnessError(why))}" for name, why in _grouped_reasons(left_out)]
    apart: list[str] = []
    for sample in taken:
        try:
            if len(template.encode_batch([sample.conversation], train_on)) > 1:
                apart.append(sample.name)
            check.equal += template.check_turns(sample.conversation, train_on)
        except TemplateError as error:
            check.failures.append(str(error))
    if apart and not check.failures:
        check.notes.append(
            f"{', '.join(_grouped(apart))}: each answer is an example of its own, because the template changes earlier "
            "turns"
        )
    return check


def _text_is_text(template: BoundTemplate, taken: Sequence[ProbeConversation]) -> Check:
    """Check that control-token strings in messages stay text."""
    from harness.template.samples import require_text

    check = Check("text is text")
    hostile = [sample for sample in taken if sample.harmless is not None]
    roles = {message.role for sample in hostile for message in sample.conversation.messages}
    roles_tried = ", ".join(role for role in ("system", "user", "assistant", "tool") if role in roles)
    if template.control_tokens and not hostile:
        check.notes.append("nothing was tried: the template takes none of the conversations that say control tokens")
        return check
    check.of = (
        f"{len(template.control_tokens)} control tokens, said by {roles_tried}"
        if hostile
        else "it has no control tokens"
    )
    for sample in hostile:
        try:
            require_text(template, sample)
            check.equal += 1
        except TemplateError as error:
            check.failures.append(str(error))
    return check


def _stop_tokens(template: BoundTemplate, chat: Path) -> Check:
    """Check that vLLM ends an answer at the stop tokens of the template."""
    path = chat / "generation_config.json"
    check = Check("stop tokens", f"{' '.join(template.stop_tokens)} in {path.name}")
    eos_ids = read_json(path).get("eos_token_id") if path.is_file() else None
    ends = set(eos_ids if isinstance(eos_ids, list) else [eos_ids])
    if lacking := [token for token, id in zip(template.stop_tokens, template.stop_ids, strict=True) if id not in ends]:
        check.failures.append(
            f"{path}: {' '.join(lacking)} is not in `eos_token_id` ({eos_ids}): vLLM would not end an answer there"
        )
    return check


def _as_recorded(template: BoundTemplate, run: Run) -> Check:
    """Check that the saved template has the fingerprints in the run's manifest."""
    from harness.template import fingerprint, source_fingerprint

    check = Check("saved template")
    recorded = run.manifest.get("template") or {}
    source = recorded.get("source_sha256")
    if source is None:
        check.notes.append("the run's manifest has no fingerprint of it")
    elif source != source_fingerprint(template):
        check.failures.append(
            f"{run.chat_folder}/chat_template.jinja is not the one that {run.name} was tuned with: it was changed since"
        )
    elif recorded.get("sha256") != fingerprint(template):
        check.notes.append(
            "its vocabulary is not written as it was: another version of tokenizers reads it, or it was changed since"
        )
    else:
        check.of = "as it was when the run was tuned"
    return check


def _installed(context: Context, saved: BoundTemplate, recipe: DataRecipe) -> Check:
    """Compare the saved template with the one that the installed plugin makes today. A difference is only a note."""
    from harness.model.templates import bind_template

    assert recipe.model is not None  # a run's recipe is whole
    check = Check("installed template")
    try:
        current = bind_template(recipe.template, recipe.model, context.plugins)
    except HarnessError as error:
        check.notes.append(f"cannot be made any more: {first_line(error)}")
        return check
    if differences := _differences(saved, current):
        check.notes = [f"{current.name} is another today; what was saved is served", *differences]
    else:
        check.of = f"{current.name} is the same today"
    return check


def _differences(saved: BoundTemplate, current: BoundTemplate) -> list[str]:
    """Return the differences between two bound templates, in words."""
    out = [
        f"{what}: saved {ours!r}, installed {theirs!r}"
        for what in ("stop_tokens", "takes_system", "takes_tools", "takes_turns", "tool_parser")
        if (ours := getattr(saved, what)) != (theirs := getattr(current, what))
    ]
    if saved.tokenizer.get_vocab() != current.tokenizer.get_vocab():
        out.append(
            f"vocabulary: saved {len(saved.tokenizer)} tokens, installed {len(current.tokenizer)}, not the same ones"
        )
    if saved.tokenizer.get_chat_template() == current.tokenizer.get_chat_template():
        return out
    from harness.template.samples import samples

    other = []
    for sample in samples(saved)[0]:
        talk = sample.conversation
        try:
            same = current.render(talk.messages, talk.tools) == saved.render(talk.messages, talk.tools)
        except TemplateError:
            same = False
        if not same:
            other.append(sample.name)
    renders = (
        f"rendered otherwise: {', '.join(_grouped(other))}"
        if other
        else "the fixed conversations are rendered the same"
    )
    return [*out, f"Jinja source: not the same; {renders}"]


def _grouped(names: Any) -> list[str]:
    """Return names, those that differ by a number as one with their count."""
    counts = Counter(name.rstrip("0123456789 ") for name in names)
    return [name if count == 1 else f"{name} ({count})" for name, count in counts.items()]


def _grouped_reasons(left_out: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the reasons, each with the names that it holds for."""
    reasons: dict[str, list[str]] = {}
    for name, why in left_out.items():
        reasons.setdefault(why, []).append(name)
    return [(", ".join(_grouped(names)), why) for why, names in reasons.items()]


def _print(context: Context, subject: Subject, checks: Sequence[Check]) -> None:
    from rich.table import Table
    from rich.text import Text

    where = subject.run.chat_folder if subject.run else f"{subject.origin}, as a run of it would save it"
    context.console.print(
        Text.assemble((subject.template.name, "bold"), ("  ", ""), (str(where), "dim")), soft_wrap=True
    )
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for _ in range(2):
        table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", style="dim", no_wrap=True)
    for check in checks:
        mark = ("✗", "bold red") if check.failures else ("✓", "green") if check.of else ("!", "yellow")
        line = Text(printable(check.of))
        for note in check.notes:
            line.append(f"{chr(10) if line else ''}{printable(note)}", style="dim")
        counts = [f"{check.equal:,} equal"] if check.equal else []
        counts += [f"{len(check.failures):,} not"] if check.failures else []
        table.add_row(
            Text(*mark),
            check.name,
            line,
            Text(", ".join(counts), style="red" if check.failures else ""),
            f"{check.seconds:.1f} s",
        )
    context.console.print(table)
