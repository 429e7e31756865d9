"""Items: a conversation or preference as the sequences that are encoded, and its encoded sequences put together again.

A preference is two conversations with the same prompt, of which the completions alone are trained on. They go through
the same template code as any conversation; what is checked here is that both begin with the same prompt ids.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from harness.errors import TemplateError
from harness.nouns import Conversation, DataItem, Example, Item, Message, Preference

ANSWER = "answer"  # the role of a conversation's only example
_ANSWER = (ANSWER,)


def sequences_of(item: DataItem) -> list[Conversation]:
    """Return the conversations that are encoded: the item itself, or its prompt with each completion.

    Of a preference only the completions are trained on. A completion that was judged alone has no other beside it.
    """
    if isinstance(item, Conversation):
        return [item]
    prompt = tuple(replace(one, train=False) if one.role == "assistant" else one for one in item.prompt)
    return [
        Conversation(prompt + completion, item.tools, example_id(item.id, role), item.source)
        for role, completion in completions_of(item)
    ]


def completions_of(preference: Preference) -> list[tuple[str, tuple[Message, ...]]]:
    """Return (role, messages) of the completions that a preference has, the chosen one first."""
    both = (("chosen", preference.chosen), ("rejected", preference.rejected))
    return [(role, completion) for role, completion in both if completion]


def example_id(id: str, role: str) -> str:
    """Return the id of an item's example."""
    return id if role == ANSWER else f"{id} {role}"


def part_id(id: str, number: int) -> str:
    """Return the id of a part of an item that became several."""
    return f"{id} part {number}"


def whole_id(id: str) -> str:
    """Return the id of the item that a part is of; that of a whole item is its own."""
    return re.sub(r" part \d+$", "", id)


def require_completions(preference: Preference) -> None:
    """Raise TemplateError for a completion of which the loss would not see every turn from its first token on."""
    for role, completion in completions_of(preference):
        where = f"{preference.source} {preference.id}: the {role} completion"
        if completion[0].role != "assistant":
            raise TemplateError(
                f"{where} begins with a {completion[0].role} message: expected the assistant's. Move what both sides "
                "share into the prompt"
            )
        for number, message in enumerate(completion, 1):
            if message.role == "assistant" and not message.is_trained:
                raise TemplateError(
                    f"{where} has message {number} marked as not trained on (`train: false`, `weight: 0`): of "
                    "a preference whole completions are trained on. Move it into the prompt, or take the mark off"
                )


def items_of(batch: Sequence[DataItem], examples: Iterable[tuple[Example, ...]]) -> list[Item]:
    """Put the examples of a batch's sequences, in the order of `sequences_of`, together to items.

    A conversation is one example, or one an answer where the template changes earlier turns.

    Raises:
        TemplateError: where the sides of a preference begin with different prompt ids.
    """
    encoded = iter(examples)
    return [_answers(item, next(encoded)) if isinstance(item, Conversation) else _pair(item, encoded) for item in batch]


def _answers(conversation: Conversation, examples: tuple[Example, ...]) -> Item:
    extras = {} if conversation.weight == 1.0 else {"weight": conversation.weight}
    return Item(examples, _ANSWER * len(examples), extras)


def _pair(preference: Preference, encoded: Iterator[tuple[Example, ...]]) -> Item:
    roles = tuple(role for role, _ in completions_of(preference))
    examples = [next(encoded) for _ in roles]
    if any(len(side) > 1 for side in examples):
        raise TemplateError(
            f"{preference.source} {preference.id}: a completion has several answers, and the template changes earlier "
            "turns, so that no prompt of serving holds the whole. Leave one answer in each completion, with the turns "
            "before it in `prompt` (or the same on both sides); or choose a template that changes none, such as chatml"
        )
    sides = tuple(side[0] for side in examples)
    prompts = [list(side.input_ids[: side.loss_mask.index(True)]) for side in sides]
    if any(prompt != prompts[0] for prompt in prompts):
        apart = len({any(one.reasoning for one in side) for _, side in completions_of(preference)}) > 1
        hint = " One side has thoughts: `thinking: on` in `template` asks both alike." if apart else ""
        shared = sum(itertools.takewhile(bool, (one == other for one, other in zip(*prompts, strict=False))))
        raise TemplateError(
            f"{preference.source} {preference.id}: the prompt has other tokens before the chosen completion than "
            f"before the rejected one: {len(prompts[0])} and {len(prompts[1])} of them, the first {shared} the same. "
            f"The template does not write the prompt alike before both.{hint}"
        )
    margin = {} if preference.margin is None else {"margin": preference.margin}
    return Item(sides, roles, {"weight": preference.weight} | margin)
