"""The evaluation `instruct`: what instruction tuning is for, each part a rate, scored by program.

Categories: it answers and does not go on with the text, keeps a format, ends its turn, keeps the context, calls the
right tool, and is not steered by marks of turns in a user's text. Items are drawn from templates by a seed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Self

import pydantic
from pydantic import Field

from harness.contract import Answer, Evaluation, EvaluationContext, EvaluationItem, Request, Sampling
from harness.contract.backends import Capability
from harness.errors import HarnessError, known_names, nearest
from harness.nouns import Message
from harness.options import Options
from harness_evaluation.checks import Given, passes, without_thoughts
from harness_evaluation.item_templates import Check, Drawn, World, drawn_items, read_world

WORLDS = Path(__file__).with_name("worlds")
Positive = Annotated[int, Field(gt=0)]


class InstructOptions(Options):
    """The options in a recipe. `n` items a category are drawn with `seed`; `world_path` is a file of one's own."""

    world: str = "english"
    world_path: Path | None = None
    categories: tuple[str, ...] = ()
    n: Positive = 40
    seed: int = 0
    max_tokens: Positive = 128
    limit: Positive | None = None

    @pydantic.model_validator(mode="after")
    def _world_is_there(self) -> Self:
        known = [path.stem for path in WORLDS.glob("*.yaml")]
        if self.world_path is None and self.world not in known:
            raise ValueError(
                f"there is no world {self.world!r}.{nearest(self.world, known)} There are: {known_names(known)}; "
                f"world_path names a file of your own"
            )
        return self


def items(options: InstructOptions, context: EvaluationContext) -> Iterator[EvaluationItem]:
    """Yield the items, the categories taking turns. Raises HarnessError for a category that the world has not."""
    for number, drawn in enumerate(itertools.islice(_drawn(options), options.limit)):
        template = drawn.template
        sampling = Sampling(max_tokens=template.max_tokens or options.max_tokens)
        yield EvaluationItem(
            f"{template.id} {number}",
            (Request(drawn.messages, drawn.tools, sampling),),
            target="; ".join(_in_words(check) for check in drawn.checks),
            category=template.category,
            group=template.id,
            data={"checks": drawn.checks},
            needs=_needs(drawn),
        )


def score(item: EvaluationItem, answers: Sequence[Answer]) -> Mapping[str, float]:
    """Return `passed`: 1 where the answer passes all checks of the item."""
    (request,), (answer,) = item.requests, answers
    assert request.messages is not None
    text = without_thoughts(answer.text)
    given = Given(text, answer.finish, request.messages[-1].content, request.tools)
    return {"passed": float(all(passes(given, name, arguments) for name, arguments in item.data["checks"]))}


def texts(options: InstructOptions, context: EvaluationContext) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of each item: its last question, and the whole conversation where there are earlier turns."""
    for number, drawn in enumerate(itertools.islice(_drawn(options), options.limit)):
        name = f"{drawn.template.id} {number}"
        yield name, drawn.messages[-1].content
        if len(drawn.messages) > 1:
            yield name, _as_text(drawn.messages)


EVALUATION = Evaluation(
    "instruct",
    "following instructions, by program: answers, format, boundaries, context, tools, steering",
    InstructOptions,
    texts=texts,
    items=items,
    score=score,
)


def _needs(drawn: Drawn) -> tuple[Capability, ...]:
    needs: list[Capability] = ["tools"] if drawn.tools else []
    return (*needs, "system") if drawn.messages[0].role == "system" else tuple(needs)


def _drawn(options: InstructOptions) -> Iterator[Drawn]:
    path = options.world_path or WORLDS / f"{options.world}.yaml"
    world = read_world(path)
    categories = [_known(name, world, path) for name in options.categories] or world.categories
    columns = [drawn_items(world, category, options.n, options.seed) for category in categories]
    rows = itertools.zip_longest(*columns)
    return (item for item in itertools.chain.from_iterable(rows) if item is not None)


def _known(category: str, world: World, path: Path) -> str:
    if category not in world.categories:
        raise HarnessError(
            f"{path}: no template has the category {category!r}.{nearest(category, world.categories)} "
            f"There are: {known_names(world.categories)}"
        )
    return category


def _in_words(check: Check) -> str:
    """Return a check as the target that people read: `says: Paris`."""
    name, arguments = check
    values = ", ".join(
        "/".join(map(str, value)) if isinstance(value, list) else str(value) for value in arguments.values()
    )
    return f"{name.replace('_', ' ')}: {values}" if values else name.replace("_", " ")


def _as_text(messages: Sequence[Message]) -> str:
    return "\n".join(message.content for message in messages)
