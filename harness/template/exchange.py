"""One exchange through a template: the ids of a request, and the words and thoughts read from an answer's ids.

Every Backend that renders here does it this way, so that a model gives the same answers in process and from an engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from harness.contract.backends import Backend, Capability, Request
from harness.errors import HarnessError
from harness.template.encode import BoundTemplate
from harness.template.fingerprints import fingerprint
from harness.template.thoughts import thoughts_and_words

RENDERED: tuple[Capability, ...] = ("tools", "system")  # what an endpoint may take, and the template may not


class Stops(NamedTuple):
    """The ends of an answer: ids of control tokens, texts to stop at, and texts that are cut off afterwards.

    Where thoughts come first, a text ends the words only: it may well stand in the thoughts.
    """

    ids: tuple[int, ...]
    texts: tuple[str, ...]
    cut_at: tuple[str, ...]


class Reading(NamedTuple):
    """The words and thoughts of an answer as text, how it ended, and the number of its ids with the stop token."""

    text: str
    reasoning: str
    finish: str
    length: int


def identity_of(template: BoundTemplate) -> dict[str, Any]:
    """Return the template's name, hash and stop tokens, as records keep them."""
    return {"name": template.name, "sha256": fingerprint(template), "stop_tokens": template.stop_tokens}


def rendered_by(template: BoundTemplate) -> frozenset[Capability]:
    """Return the capabilities that prompts rendered by a template have: that it takes tools, and a system message."""
    taken = {"tools": template.takes_tools, "system": template.takes_system}
    return frozenset(name for name in RENDERED if taken[name])


def prompt_ids(template: BoundTemplate, request: Request) -> list[int]:
    """Return the ids of a request's prompt. A text is tokenized as it is: nothing is added to it."""
    if (messages := request.messages) is not None:
        return list(template.prompt_ids(messages, request.tools))
    if isinstance(request.prompt, str):
        ids: list[int] = template.tokenizer.encode(request.prompt, add_special_tokens=False)
        return ids
    return list(request.prompt)  # type: ignore[arg-type]


def require_fits(backend: Backend, tokens: int, request: Request) -> None:
    """Raise HarnessError for a prompt of `tokens` that does not fit with what is asked behind it."""
    if request.scored:
        more, longest, behind = len(request.scored), backend.longest_scored, f"{len(request.scored)} to be scored"
    else:
        more = request.sampling.max_tokens
        longest, behind = backend.longest, f"{more} more for the answer"
    if longest is not None and tokens + more > longest:
        raise HarnessError(
            f"{backend.name}: a prompt of {tokens} tokens, with {behind}, does not fit into the model's {longest} "
            f"tokens. Nothing is cut off: lower max_tokens (of a task: max_gen_toks) or num_fewshot, or leave it out"
        )


def may_think(template: BoundTemplate) -> bool:
    """Return True if an answer to a request that sets no switch may begin with thoughts."""
    habits = template.habits
    if not habits.marks or template.thinking == "off":
        return False
    return template.thinking == "on" or not habits.switch or habits.thinks


def stops_of(template: BoundTemplate, texts: Sequence[str]) -> Stops:
    """Return the ends of an answer: the template's stop tokens, and `texts`, of which control tokens count by id."""
    control = {token.content: id for id, token in template.tokenizer.added_tokens_decoder.items()}
    ids = {*template.stop_ids, *(control[text] for text in texts if text in control)}
    words = tuple(text for text in texts if text and text not in control)
    return Stops(tuple(sorted(ids)), () if may_think(template) else words, words)


def read_answer(template: BoundTemplate, prompt_ids: Sequence[int], ids: Sequence[int], stops: Stops) -> Reading:
    """Return the words of an answer without its stop token, cut where a stop text begins, and its thoughts apart.

    Line breaks between thoughts and words belong to neither.
    """
    ended = next((place for place, id in enumerate(ids) if id in stops.ids), None)
    written = ids[:ended]
    thoughts, words = thoughts_and_words(template, prompt_ids, written)
    text, is_cut = cut(template.tokenizer, words, stops.cut_at)
    text = text.lstrip("\n") if len(words) < len(written) else text
    return Reading(
        text,
        thoughts,
        "stop" if ended is not None or is_cut else "length",
        len(ids) if ended is None else ended + 1,
    )


def cut(tokenizer: Any, ids: Sequence[int], stop_texts: Sequence[str]) -> tuple[str, bool]:
    """Return ids as text without control tokens, cut where a stop text begins, and True where it was cut."""
    whole: str = tokenizer.decode(ids, skip_special_tokens=True)
    text = whole
    for stop in stop_texts:
        text = text.split(stop, 1)[0]
    return text, text != whole
