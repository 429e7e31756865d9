"""The recipe for a file and a model: each choice with its reason, and the YAML that says them."""

from __future__ import annotations

import importlib.util
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from harness.errors import DataError, HarnessError, ModelError, TemplateError
from harness.nouns import DataItem, Preference, messages_of

if TYPE_CHECKING:
    from harness.cli.context import Context
    from harness.recipe import DataSource
    from harness.template import BoundTemplate

Kind = Literal["conversations", "texts", "pairs", "judged"]

COUNTED = 2_000  # items whose tokens are counted; the others are taken to be like them
CHARACTERS_A_TOKEN = 4  # where no tokenizer is here
WISHED_STEPS = 60  # with fewer, warm-up and decay leave little between them
MOST_EPOCHS = 10
STEP_TOKENS, LEAST_STEP_TOKENS = 4096, 512
VALIDATED, MOST_VALIDATED, ENOUGH_ROWS = 0.1, 500, 20
VALIDATIONS = 6
# Up to so many billion weights, this learning rate of LoRA for answers; for pairs, a tenth of it.
RATES = ((0.3, 1e-3), (1.0, 5e-4), (float("inf"), 2e-4))
# The objective and the evaluation of each kind of data.
MEASURED: dict[Kind, str] = {"conversations": "val_loss", "texts": "val_loss", "pairs": "preferences"}
OBJECTIVES: dict[Kind, str] = {"conversations": "sft", "texts": "pretrain", "pairs": "dpo", "judged": "kto"}
WITHOUT_CHAT = ("chatml", "alpaca", "vicuna")  # for a model without a template of its own, the first that fits


class Choice(NamedTuple):
    """A part of the recipe, what was chosen for it, and why."""

    part: str
    chosen: str
    why: str


@dataclass
class Figures:
    """The rows of a file as a source reads them. `tokens` are of all items, estimated from those that were counted."""

    rows: int = 0
    items: int = 0
    characters: int = 0
    tokens: float = 0
    longest: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    wrong: list[DataError] = field(default_factory=list)
    filters: Counter[str] = field(default_factory=Counter)
    first: DataItem | None = None


class Schedule(NamedTuple):
    """The passes over the data and the tokens of a step, and about how many steps that makes."""

    epochs: int
    step_tokens: int
    steps: int


def schedule_of(tokens: float, items: int, longest: int) -> Schedule:
    """Return the schedule for so many training tokens: about WISHED_STEPS steps or more.

    A small file gets smaller steps first, then more passes over it. No step is smaller than the longest item.
    """
    epochs = 3 if items < 5_000 else 2 if items < 20_000 else 1
    step_tokens, least = STEP_TOKENS, max(LEAST_STEP_TOKENS, longest)
    while epochs * tokens / step_tokens < WISHED_STEPS and step_tokens // 2 >= least:
        step_tokens //= 2
    while epochs * tokens / step_tokens < WISHED_STEPS and epochs < MOST_EPOCHS:
        epochs += 1
    return Schedule(epochs, step_tokens, max(1, round(epochs * tokens / step_tokens)))


def kind_of(item: DataItem) -> Kind:
    """Return the kind of an item."""
    if isinstance(item, Preference):
        return "pairs" if item.chosen and item.rejected else "judged"
    return "conversations" if any(message.role == "user" for message in item.messages) else "texts"


def template_for(context: Context, model: str) -> tuple[str, BoundTemplate | None, str]:
    """Return the template for a model, bound to its tokenizer where that is here, and why it was chosen.

    Raises:
        ModelError: where the model is a folder that holds none.
    """
    from harness.model.templates import bind_template
    from harness.model.tokenizer import load_tokenizer
    from harness.recipe import ModelSpec, template_spec
    from harness.template import fitting

    own = template_spec("model", context.plugins)
    if importlib.util.find_spec("transformers") is None:
        return "model", None, "the model's own; not tried, as transformers is not installed"
    try:
        return "model", bind_template(own, ModelSpec(path=model), context.plugins), "the model brings its own"
    except ModelError as error:
        if Path(model).exists() or "/" not in model:
            raise
        return "model", None, f"the model's own; not tried: {error}"
    except TemplateError as error:
        names = fitting(context.plugins.templates, load_tokenizer(model))
        name = next((name for name in WITHOUT_CHAT if name in names), None)
        if name is None:
            raise HarnessError(f"{model}: {error}\nThese fit its tokenizer: {', '.join(names) or 'none'}") from None
        bound = bind_template(template_spec(name, context.plugins), ModelSpec(path=model), context.plugins)
        return name, bound, "the model brings none that works, and its tokenizer has all that this one writes"


def billions_of(model: str) -> float | None:
    """Return about how many billion weights a model has, by its configuration; None where that is not here."""
    try:
        from harness.model.configs import load_config
        from harness.recipe import ModelSpec

        config = load_config(ModelSpec(path=model)).get_text_config()
        hidden, heads = config.hidden_size, config.num_attention_heads
        width = getattr(config, "head_dim", None) or hidden // heads
        attention = 2 * hidden * width * (heads + (getattr(config, "num_key_value_heads", None) or heads))
        layers = config.num_hidden_layers * (attention + 3 * hidden * config.intermediate_size)
        embeddings = config.vocab_size * hidden * (1 if config.tie_word_embeddings else 2)
        return float((layers + embeddings) / 1e9)
    except (HarnessError, ImportError, AttributeError, TypeError):
        return None


def figures_of(context: Context, source: DataSource, bound: BoundTemplate | None) -> Figures:
    """Read every row of a source, and count the tokens of the first COUNTED items."""
    from harness.data.convert.sources import load_rows, reports_of
    from harness.data.convert.validity import check_learnable, check_readable
    from harness.data.encode.items import sequences_of
    from harness.data.prepare.cleaning import filter_for

    figures, plugins = Figures(), context.plugins
    (report,) = reports_of((source,), plugins.datasets)

    def learnable() -> Iterator[DataItem]:
        rows = load_rows(source, plugins.datasets, report, figures.wrong.append, check_readable)
        for item in itertools.chain.from_iterable(row.items for row in rows):
            try:
                check_learnable(item)
            except DataError as error:
                name = filter_for(item, plugins.filters)
                figures.filters.update([name] if name else ())
                figures.wrong += [] if name else [error]
                continue
            yield item

    counted = 0
    for item in learnable():
        figures.items += 1
        figures.first = figures.first or item
        figures.kinds[kind_of(item)] += 1
        length = sum(len(message.content) for message in messages_of(item))
        figures.characters += length
        if figures.items > COUNTED:
            continue
        if bound is None:
            tokens = [length // CHARACTERS_A_TOKEN + 1]
        else:
            try:
                tokens = [len(example) for example in bound.encode_batch(sequences_of(item))]
            except TemplateError as error:
                figures.wrong.append(DataError(str(error), path=source.path))
                continue
        counted += 1
        figures.tokens += sum(tokens)
        figures.longest = max(figures.longest, *tokens)
    figures.rows = report.rows
    figures.tokens *= figures.items / max(1, counted)
    return figures
