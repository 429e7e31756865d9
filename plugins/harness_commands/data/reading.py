"""The arguments of the data commands: a recipe's sources, or one file, read as a given or recognised dataset."""

from __future__ import annotations

import importlib.util
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import click

from harness.cli.context import Context
from harness.errors import DataError, HarnessError, ModelError, RecipeError, TemplateError, listed
from harness.nouns import Conversation, DataItem, Example, Item, Match
from harness_commands.data.progress import followed
from harness_commands.data.showing import printable

if TYPE_CHECKING:
    from harness.data import DataReport, SourceReport
    from harness.data.prepare.pipeline import Prepared
    from harness.recipe import DataRecipe, DataSource
    from harness.template import BoundTemplate, Reasoning, TrainOn

Part = Literal["train", "validation"]
BATCH, BATCH_CHARACTERS = 256, 1 << 24
F = TypeVar("F", bound=Callable[..., Any])

path_argument = click.argument("path", required=False, metavar="[RECIPE|FILE]")
dataset_option = click.option(
    "--dataset", metavar="NAME", help="Read FILE as this dataset; without it, the one that fits is found and named."
)
set_option = click.option(
    "--set",
    "sets",
    multiple=True,
    metavar="KEY=VALUE",
    help="A key of RECIPE, as in data.seed=1; of a FILE, one of its source, as in task=nli.",
)
part_option = click.option(
    "--part",
    type=click.Choice(["train", "validation"]),
    default="train",
    show_default=True,
    help="Which data of a recipe.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def template_options(function: F) -> F:
    """Add `--model` and `--template`, for files and for recipes that name none."""
    template = click.option(
        "--template",
        metavar="NAME",
        help="With --model: the template to encode with, by its name or as in a recipe. [default: RECIPE's, or chatml]",
    )
    model = click.option(
        "--model",
        metavar="FOLDER",
        help="Encode with the tokenizer of this model. [default: the one that RECIPE names]",
    )
    return model(template(function))


@dataclass(frozen=True)
class Reading:
    """The data to read: a recipe with its sources, or the one source of a file.

    `sources` are those of the requested part. `recognised` maps an index in `sources` to its match, for sources whose
    dataset was recognised.
    """

    sources: tuple[DataSource, ...]
    recipe: DataRecipe | None
    part: Part | None
    recognised: dict[int, Match]

    @property
    def reasoning(self) -> Reasoning:
        """The recipe's choice of what becomes of thoughts."""
        return self.recipe.data.reasoning if self.recipe else "learn"

    def train_on(self, item: DataItem) -> TrainOn:
        """Return which answers of an item are trained on: for a recipe's conversations, those that it selects."""
        return self.recipe.data.train_on if self.recipe and isinstance(item, Conversation) else "all"

    def as_dict(self) -> list[dict[str, Any]]:
        """Return the recognised sources, for JSON."""
        return [
            {"path": self.sources[index].path, "dataset": match.dataset, "sureness": match.sureness, "why": match.why}
            for index, match in self.recognised.items()
        ]


def what_to_read(
    context: Context, path: str | None, dataset: str | None, part: Part | None, sets: Sequence[str] = ()
) -> Reading:
    """Return the sources that a command's arguments name. `part` None means all parts; `sets` are `--set KEY=VALUE`.

    Recognised datasets are reported on standard error.

    Raises:
        HarnessError: where nothing is named, the recipe has no such part, or no dataset fits the file.
    """
    from harness.recipe import load_data_recipe

    if dataset is not None or (path is not None and not is_recipe(path)):
        if part == "validation":
            raise HarnessError("--part chooses between the data of a recipe; a file has no validation data of its own")
        source, match = _file_source(context, path, dataset, sets)
        return Reading((source,), None, part, {0: match} if match else {})
    if path is None:
        raise HarnessError("name a recipe, as in `harness data preview recipe.yaml`, or a file of rows")
    recipe = load_data_recipe(Path(path), context.plugins, sets)
    if part == "validation" and recipe.data.validation_share is not None:
        names = ["train"]  # what is held out of it
    else:
        names = ["train", "validation"] if part is None else [part]
    sources: list[DataSource] = []
    recognised: dict[int, Match] = {}
    for name in names:
        settled = [_settled(context, source) for source in getattr(recipe.data, name)]
        recognised |= {index: match for index, (_, match) in enumerate(settled, len(sources)) if match}
        own = tuple(source for source, _ in settled)
        sources += own
        recipe = recipe.model_copy(update={"data": recipe.data.model_copy(update={name: own})})
    if not sources:
        raise HarnessError(f"{path}: the recipe has no data.{part}")
    return Reading(tuple(sources), recipe, part, recognised)


@dataclass(frozen=True)
class Stream:
    """Items, each with its number of uses. The reports of the sources are complete after the last item."""

    items: Iterator[Prepared]
    reports: tuple[SourceReport, ...]
    report: DataReport | None = None

    def mixture(self) -> list[str]:
        """Return lines for people: the proportions of the mixture, and overlaps with the recipe's evaluations."""
        from harness.data.reports import mixture_lines

        return self.report.lines() if self.report else mixture_lines(self.reports)


def read_items(
    context: Context,
    reading: Reading,
    what: str,
    on_error: Callable[[DataError], None] | None = None,
    *,
    list_ids: bool = False,
) -> Stream:
    """Yield the items of a file as they are, or of a recipe as they are trained on: cleaned, split and mixed.

    `what` is what a progress bar says. `on_error` gets each row that is wrong; left out, the first one is raised. With
    `list_ids` the reports name what is left out, row by row.
    """
    from harness.data import begin_report, evaluation_texts, prepare_items, raise_error
    from harness.data.convert.sources import reports_of
    from harness.data.convert.validity import check_item, check_readable
    from harness.data.prepare.cleaning import require_learnable
    from harness.data.prepare.pipeline import unprepared

    datasets, recipe = context.plugins.datasets, reading.recipe
    failed = on_error or raise_error

    def check(item: DataItem) -> None:
        """Check an item of a file, of which a recipe's `data.clean` may leave out some."""
        check_readable(item)
        require_learnable(item, context.plugins.filters)

    def followed_sources(
        sources: tuple[DataSource, ...], reports: tuple[SourceReport, ...], part: Part
    ) -> Iterator[Prepared]:
        for source, counts in zip(sources, reports, strict=True):
            yield from followed(
                unprepared((source,), datasets, (counts,), part, failed, check_item if recipe else check), counts, what
            )

    if recipe is None or (reading.part == "validation" and recipe.data.validation_share is None):
        reports = reports_of(reading.sources, datasets, list_ids=list_ids)
        return Stream(followed_sources(reading.sources, reports, reading.part or "train"), reports)
    report = begin_report(recipe.data, context.plugins, list_ids=list_ids)
    evaluation = evaluation_texts(recipe, context.plugins)
    prepared = prepare_items(recipe.data, context.plugins, report, evaluation=evaluation, on_error=failed)
    prepared = followed(prepared, report.train, what)
    if reading.part is not None:
        wanted = (item for item in prepared if item.part == reading.part)
        return Stream(wanted, report.train if reading.part == "train" else report.held_out, report)
    rest = reports_of(recipe.data.validation, datasets, list_ids=list_ids)
    validation = followed_sources(recipe.data.validation, rest, "validation")
    return Stream(itertools.chain(prepared, validation), report.train + rest, report)


def not_read(where: str) -> list[str]:
    """Return the files of a folder that are not read."""
    from harness.data.read.storage import passed_over

    return passed_over(where)


def print_passed_over(context: Context, where: str) -> None:
    """Say which files of a folder are not read."""
    from harness.data.read.storage import SUFFIXES

    if names := not_read(where):
        ends = f"their names end in none of {' '.join(SUFFIXES)} (packed or not)"
        message = f"{where}: not read, as {ends}: {listed(names)}. A glob reads them"
        context.console.print(message, style="yellow", markup=False, soft_wrap=True)


def is_recipe(path: str) -> bool:
    """Return whether an argument names a recipe; whatever is not YAML is data."""
    return PurePosixPath(path).suffix in {".yaml", ".yml"}


def _file_source(
    context: Context, path: str | None, dataset: str | None, sets: Sequence[str]
) -> tuple[DataSource, Match | None]:
    """Return the source that a file is, as `_settled` gives it; where no dataset is named, that is recognised."""
    from harness.data.convert.recognise import choose
    from harness.recipe import DataSource, source_model

    datasets = context.plugins.datasets
    any_keys = type("DataSource", (DataSource,), {"model_config": {"extra": "ignore"}})
    base = _with_sets(any_keys, sets, dataset or "", path)
    if base.dataset:
        return _settled(context, _with_sets(source_model(datasets[base.dataset]), sets, base.dataset, path))
    match = choose(str(base.path), datasets, base.columns, base.unread, base.rows)
    _tell(base, match)
    return _with_sets(source_model(datasets[match.dataset]), sets, match.dataset, path), match


def _with_sets(model: type[DataSource], sets: Sequence[str], dataset: str, path: str | None) -> DataSource:
    """Return a source with what `--set` says. Raises RecipeError, as a recipe with it would."""
    from pydantic import ValidationError
    from ruamel.yaml.comments import CommentedMap

    from harness.recipe.document import Document, plain
    from harness.recipe.explain import explain

    document = Document(Path(f"--dataset {dataset}"), CommentedMap(dataset=dataset, path=path))
    document.override(sets)
    try:
        return model.model_validate(plain(document.tree))
    except ValidationError as error:
        raise RecipeError(explain(error, document, (), model)) from None


def _settled(context: Context, source: DataSource) -> tuple[DataSource, Match | None]:
    """Return a source with its dataset settled, and the match if it was recognised; reports it on standard error."""
    from harness.data.convert.sources import resolved

    _, settled, match = resolved(source, context.plugins.datasets)
    if match is not None:
        _tell(source, match)
    elif settled is not source:
        click.secho(
            printable(f"{source.path}: read as {settled.dataset}, as {source.dataset} says"), dim=True, err=True
        )
    return settled, match


def _tell(source: DataSource, match: Match) -> None:
    message = f"{source.path}: read as {match.dataset} (sure: {match.sureness:.0%}): {match.why}"
    click.secho(printable(message), dim=True, err=True)


def template_of(
    context: Context, recipe: DataRecipe | None, model: str | None = None, template: str | None = None
) -> tuple[BoundTemplate | None, str | None]:
    """Return the template bound to its model's tokenizer, or the reason why there is none for a recipe.

    Both are None if neither a recipe nor a model is named. `model` and `template` go before a recipe's own.

    Raises:
        HarnessError: if `model` is given and cannot be loaded.
    """
    from harness.model.templates import bind_template
    from harness.recipe import ModelSpec, template_spec

    if template is not None and model is None:
        raise HarnessError("--template goes with --model: a recipe has a template, and a file alone has no tokenizer")
    if model is not None:
        own = recipe.template if recipe else template_spec(context.plugins.templates.default, context.plugins)
        spec = template_spec(template, context.plugins) if template else own
        return bind_template(spec, ModelSpec(path=model), context.plugins), None
    if recipe is None:
        return None, None
    if recipe.model is None:
        return (
            None,
            "the recipe names no `model`, whose tokenizer is needed: add `model: {path: FOLDER}` to it, or name one "
            "with --model",
        )
    if importlib.util.find_spec("transformers") is None:
        return None, "transformers is not installed: pip install 'instruct-harness[tuning]'"
    try:
        return bind_template(recipe.template, recipe.model, context.plugins), None
    except ModelError as error:
        return None, str(error)


def encode_each(
    template: BoundTemplate,
    conversations: list[Conversation],
    on_error: Callable[[Conversation, TemplateError], None],
    train_on: TrainOn = "all",
    reasoning: Reasoning = "learn",
) -> Iterator[Example]:
    """Encode conversations as tuning would, all at once; one by one where the template refuses some of them."""
    try:
        yield from template.encode_batch(conversations, train_on, reasoning)
    except TemplateError:
        for conversation in conversations:
            try:
                yield from template.encode_batch([conversation], train_on, reasoning)
            except TemplateError as error:
                on_error(conversation, error)


def encode_items(
    template: BoundTemplate,
    batch: list[Prepared],
    reading: Reading,
    on_error: Callable[[Prepared, TemplateError], None],
) -> Iterator[tuple[Prepared, Item]]:
    """Encode items of one source as tuning would, all at once; one by one where the template refuses some of them."""
    from harness.data.encode.workers import encode_here

    train_on = reading.train_on(batch[0].item)
    try:
        yield from zip(
            batch, encode_here(template, [one.item for one in batch], train_on, reading.reasoning), strict=True
        )
    except TemplateError as error:
        if len(batch) == 1:
            on_error(batch[0], error)
            return
        for prepared in batch:
            yield from encode_items(template, [prepared], reading, on_error)


def row_of(id: str) -> int | None:
    """Return the row in an id that the core gave: `file:row`, or `file:row.part` where a row became several items."""
    row = id.rpartition(":")[2].partition(".")[0].partition(" ")[0]
    return int(row) if row.isdecimal() else None


def in_batches(items: Iterable[Prepared]) -> Iterator[list[Prepared]]:
    """Yield batches to encode: of BATCH items, or of fewer that have BATCH_CHARACTERS or more."""
    from harness.data import messages_of

    batch, characters = list[Any](), 0
    for prepared in items:
        batch.append(prepared)
        characters += sum(len(message.content) for message in messages_of(prepared.item))
        if len(batch) == BATCH or characters >= BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def kinds_of(problems: list[DataError]) -> dict[str, list[DataError]]:
    """Return problems by kind, the most frequent first; what differs only in a figure or a found value is one kind."""
    import re

    kinds: dict[str, list[DataError]] = {}
    for problem in problems:
        reason = problem.reason.splitlines()[0]
        kind = re.sub(r"\d+", "0", re.sub(r"(found|The row has:|at column \d+:) .*", r"\1", reason))
        kinds.setdefault(kind, []).append(problem)
    return dict(sorted(kinds.items(), key=lambda group: -len(group[1])))
