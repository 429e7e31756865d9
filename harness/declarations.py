"""What plugins register: a name, a line that describes it, and the functions that do the work.

Declaring is cheap and reads nothing; the functions import what they need when they are called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from harness.nouns import Conversation, Match, Preference, Result, Row

if TYPE_CHECKING:
    import torch

    from harness.models import LoadedVariant
    from harness.options import Options
    from harness.recipe import Recipe
    from harness.variants import Variant

__all__ = [
    "Dataset",
    "Endpoint",
    "Engine",
    "Evaluation",
    "Filter",
    "Method",
    "Objective",
    "Options",
    "Row",
    "Template",
    "Tracker",
]


def __getattr__(name: str) -> Any:
    if name == "Options":  # pydantic comes with it; a dataset plugin does not need to wait for that
        from harness.options import Options

        return Options
    raise AttributeError(f"module 'harness.declarations' has no attribute {name!r}")


@dataclass(frozen=True, slots=True)
class Dataset:
    """A declared source. `convert(row, options)` turns one raw row into a Conversation or a Preference, or into several.

    It returns `harness.data.LeftOut(reason)`, or None, to leave a row out, which is counted, and raises `DataError` (or
    KeyError, TypeError, ValueError) for a row that is wrong; the core adds the file and the row. `source` is the default
    path for datasets that bring their own data; `licence` is what a person must know before training on it.

    `options` is the source as the recipe has it (`dataset`, `path`, `columns`), with the keys that the declared `options`
    add. `gather(rows, options)` puts together raw rows that only make sense as one (the messages of a tree), before they
    are converted: it takes and yields (number, row).

    `fields` lets `auto` recognise the format: alternatives, each the names that a row has, with `?` after those it may
    lack, as in `(("instruction", "input?", "output"),)`. A data set without it is never guessed.
    `resolve(path, datasets, options)` makes a dataset a stand-in for another, chosen when the file is seen: it returns the
    `Match` that names it.
    """

    name: str
    description: str
    convert: Callable[[Row, Any], Conversation | Preference | Iterable[Conversation | Preference] | None]
    source: str | Path | None = None
    licence: str = "not stated"
    options: type[Options] | None = None
    gather: Callable[[Iterable[tuple[int, Row]], Any], Iterable[tuple[int, Row]]] | None = None
    fields: tuple[tuple[str, ...], ...] = ()
    resolve: Callable[[str, Mapping[str, Dataset], Any], Match] | None = None


@dataclass(frozen=True, slots=True)
class Filter:
    """A cleaning step. `create(options)` returns a function that is asked about every item, in order.

    It gets a Conversation or a Preference and returns why to leave it out, in a few words that are the same for all
    items of that kind (they are counted), or None to keep it. It may remember what it saw: each pass creates its own.
    """

    name: str
    description: str
    options: type[Options]
    create: Callable[[Any], Callable[[Conversation | Preference], str | None]]


@dataclass(frozen=True, slots=True)
class Template:
    """A chat template: its Jinja source for a given tokenizer, and the tokens that end an assistant's turn.

    `jinja(tokenizer)`, or `jinja(tokenizer, options)` where it declares `options`, returns the source in the form that
    transformers and vLLM take (`messages`, `tools`, `add_generation_prompt`, `bos_token`, `eos_token`). Control-token
    strings in messages and tools are made ordinary text before it sees them. `stop_tokens(tokenizer)` returns token
    strings of the tokenizer's own vocabulary.

    `control_tokens` are those it writes, besides bos and eos: a tokenizer fits that has them. `takes_system`, `takes_tools`
    and `takes_turns` say whether it has a place for system prompts, tools and more than one exchange; None: what it
    renders shows it. `tool_parser` is vLLM's name for the parser that reads its tool calls, or a function that
    finds it from the source.
    """

    name: str
    description: str
    jinja: Callable[..., str]
    stop_tokens: Callable[[Any], tuple[str, ...]]
    control_tokens: tuple[str, ...] = ()
    takes_system: bool | None = True
    takes_tools: bool | None = False
    takes_turns: bool | None = True
    tool_parser: str | Callable[[str], str | None] | None = None
    options: type[Options] | None = None


@dataclass(frozen=True, slots=True)
class Method:
    """Which weights move. `apply(model, options)` returns the model to train, its trainable parameters marked.

    `save(model, folder)` writes what was learnt: an `adapter` in PEFT's format, or a whole `model`.
    """

    name: str
    description: str
    options: type[Options]
    apply: Callable[[Any, Any], Any]
    save: Callable[[Any, Path], None]
    produces: Literal["adapter", "model"]


@dataclass(frozen=True, slots=True)
class Objective:
    """What the loss is. `loss(model, input_ids, loss_mask, options)` returns the *sum* over the supervised tokens.

    input_ids: int64 [b, s], right-padded. loss_mask: bool [b, s], True where a token is something to learn.
    The loop divides by the number of supervised tokens of the whole optimizer step, so that the split into batches
    does not change the gradient. `check(model, input_ids)` is called once, before anything is learnt, with one example
    as [1, s]; it raises ModelError for a model that the objective cannot train rightly.
    """

    name: str
    description: str
    options: type[Options]
    loss: Callable[[Any, torch.Tensor, torch.Tensor, Any], torch.Tensor]
    check: Callable[[Any, torch.Tensor], None] | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Gives a loaded variant scores, per-sample records and standard errors, one Result a task.

    `run(variant, options, recipe)`; `recipe` is the one the variant was tuned with, or None. `texts(options, recipe)`
    gives (id, text) of each item, question and answer, and under the same id more texts of it if there are any, for
    `data.decontaminate` to compare the training data with.
    """

    name: str
    description: str
    options: type[Options]
    run: Callable[[LoadedVariant, Any, Recipe | None], Iterable[Result]]
    texts: Callable[[Any, Recipe], Iterable[tuple[str, str]]] | None = None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A running OpenAI-compatible server: its `/v1` URL, and the model name under which each variant answers.

    `settings` are what it serves with, defaults filled in, for people to read.
    """

    url: str
    models: tuple[str, ...]
    api_key: str | None = field(default=None, repr=False)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Engine:
    """Serves variants of one base model. `start(variants, options, report)` yields the Endpoint once it is healthy.

    `report(what)` is called with what is being waited for, for people. Leaving the context stops every process the
    engine started. The options have `host`, `port` and `api_key`.
    """

    name: str
    description: str
    options: type[Options]
    start: Callable[[tuple[Variant, ...], Any, Callable[[str], None]], AbstractContextManager[Endpoint]]


@dataclass(frozen=True, slots=True)
class Tracker:
    """Follows a run. `create(options)` returns an object with lifecycle hooks (`@hookimpl def step_finished...`)."""

    name: str
    description: str
    options: type[Options]
    create: Callable[[Any], object]
