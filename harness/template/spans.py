"""Ids and loss masks of rendered texts, with a check that the mask covers exactly the answers.

A tokenizer splits a text at its control tokens first, and tokenizes each part between them on its own. The part between
the last control token of a prompt and the end of the prompt is called its tail (`assistant\\n` in ChatML). Its ids are
known, and are required to stand before the answer. Then no token covers both the end of a prompt and the start of an
answer, and a server that tokenizes the prompt on its own gets the ids of training.
"""

from __future__ import annotations

import bisect
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from harness.errors import TemplateError
from harness.nouns import Conversation, Example
from harness.template.differences import first_difference

Tail = tuple[str, list[int]]  # the control token that a tail begins with, and the ids of what follows it

# Characters of every kind, letters of both cases, and some that normalizers fold.
EVERYTHING = "a  b\n\n" + "".join(map(chr, range(0x20, 0x7F))) + "ÀßñÅ\u00a0²ﬁＡ中한ب🐦\u200b𝒜"
_SHORT = 64  # characters of a tail that is worth remembering


@dataclass(frozen=True, slots=True)
class Span:
    """A trained turn: `prompt` is the rendered text before its answer, `end` the position behind its stop token."""

    turn: int
    prompt: str
    end: int


@dataclass(frozen=True, slots=True)
class Rendered:
    """A conversation as text, and which parts of it are trained.

    `escaped` are the control-token strings that are text in it. `first` is False for an answer of a conversation whose
    other answers stand before it, in texts of their own.
    """

    conversation: Conversation
    text: str
    spans: list[Span]
    escaped: tuple[str, ...] = ()
    first: bool = True


class Tokens:
    """A tokenizer that finds the answers of one template in the ids."""

    def __init__(self, name: str, tokenizer: Any, stop_ids: tuple[int, ...], control: Sequence[str]) -> None:
        self.name, self.stop_ids = name, stop_ids
        self.stops: dict[str, int] = {tokenizer.convert_ids_to_tokens(stop): stop for stop in stop_ids}
        self._backend = tokenizer.backend_tokenizer
        self._control = re.compile("|".join(map(re.escape, control))) if control else None
        self._control_ids = {token: tokenizer.convert_tokens_to_ids(token) for token in control}
        self._tails: dict[str, Tail] = {}  # by their text, control token included
        self._decode = None if keeps_everything(tokenizer) else tokenizer.decode
        self._bos = tokenizer.bos_token_id if wants_bos(tokenizer) else None

    def ids_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, tokenized without added tokens."""
        return [encoding.ids for encoding in self._encodings(texts)]

    def tokenized(self, rendered: Sequence[Rendered]) -> list[Any]:
        """Tokenize for `examples`: almost all of the work, on all cores and without Python's lock."""
        return self._encodings([one.text for one in rendered])

    def _encodings(self, texts: Sequence[str]) -> list[Any]:
        # Without offsets, which would cost a third of what tokenizing does.
        try:
            encodings: list[Any] = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        except TypeError:  # half of a surrogate pair is no text that can be tokenized
            raise TemplateError(f"template {self.name!r}: what is said is not valid Unicode") from None
        return encodings

    def examples(self, rendered: Sequence[Rendered], tokenized: Sequence[Any]) -> list[tuple[Example, ...]]:
        """Return ids and masks, as bytes: one example a text, or one an answer where its prompt has other tokens there.

        Raises TemplateError where an answer has no tokens of its own, or prompts would differ.
        """
        tails = dict(self._tails)  # others may encode at the same time
        tail_of = {span.prompt: self._tail(span.prompt, tails) for one in rendered for span in one.spans}
        if new := sorted({tail for tail in tail_of.values() if tail not in tails}):
            for tail, ids in zip(new, self.ids_of(new), strict=True):
                match = self._control.match(tail) if self._control else None
                tails[tail] = (match[0], ids[1:]) if match else ("", ids)
            self._tails = {tail: known for tail, known in tails.items() if len(tail) <= _SHORT}
        all_ids = [encoding.ids for encoding in tokenized]
        known = {prompt: tails[tail] for prompt, tail in tail_of.items()}
        if self._bos is not None:
            for one, ids in zip(rendered, all_ids, strict=True):
                self._require_one_bos(one, ids)
        return [self._example(one, ids, known) for one, ids in zip(rendered, all_ids, strict=True)]

    def _tail(self, prompt: str, known: Mapping[str, Tail]) -> str:
        """Return the prompt from its last control token on; the whole prompt if it has none."""
        for tail, (control, _) in known.items():
            if control and prompt.endswith(tail):
                return tail
        last = 0
        for match in self._control.finditer(prompt) if self._control else ():
            last = match.start()
        return prompt[last:]

    def _require_one_bos(self, rendered: Rendered, ids: list[int]) -> None:
        """Require one BOS, at the start. A BOS that also ends answers is not counted."""
        count = sum(id == self._bos for id in ids)
        if ids[:1] == [self._bos] and (self._bos in self.stop_ids or count == 1):
            return
        raise TemplateError(
            f"{named(rendered.conversation)}template {self.name!r} writes BOS {count} times, "
            f"and this tokenizer begins a text with it, once: {rendered.text[:80]!r}"
        )

    def _example(self, rendered: Rendered, ids: list[int], tails: Mapping[str, Tail]) -> tuple[Example, ...]:
        mask = bytearray(len(ids))
        seen, position, before = 0, -1, ""
        for span in rendered.spans:
            control, tail_ids = tails[span.prompt]
            stop = self._stop_of(rendered, span)
            try:
                if control:
                    if control != before:
                        seen, position, before = 0, -1, control
                    control_id, count = self._control_ids[control], span.prompt.count(control)
                    for _ in range(count - seen):
                        position = ids.index(control_id, position + 1)
                    seen = count
                first = position + 1 + len(tail_ids) if control else len(tail_ids)
                last = ids.index(self.stops[stop], first)
            except ValueError:  # fewer control tokens among the ids than in the text
                return self._closer_look(rendered)
            if ids[first - len(tail_ids) : first] != tail_ids:
                return self._closer_look(rendered)
            mask[first : last + 1] = b"\1" * (last + 1 - first)
            self._require_words(rendered, span, ids[first:last], stop)
        if mask.find(1, 1) < 0:
            raise TemplateError(f"{named(rendered.conversation)}nothing to learn from: no token of an answer is left")
        return (Example(ids, bytes(mask), rendered.conversation.id, rendered.escaped),)

    def _require_words(self, rendered: Rendered, span: Span, ids: list[int], stop: str) -> None:
        """Require that the ids of an answer decode to its words. Skipped for tokenizers that keep every character."""
        if self._decode is None:
            return
        words = rendered.text[len(span.prompt) : span.end].removesuffix(stop)
        back = self._decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if unicodedata.normalize("NFC", back).strip() != unicodedata.normalize("NFC", words).strip():
            at = first_difference(back, words)
            raise TemplateError(
                f"{named(rendered.conversation)}message {span.turn + 1}: this tokenizer cannot write the answer: "
                f"{words[max(0, at - 20) : at + 20]!r} becomes {back[max(0, at - 20) : at + 20]!r}. Leave such rows "
                "out, or choose another model"
            )

    def _stop_of(self, rendered: Rendered, span: Span) -> str:
        """Return the stop token that ends a trained turn.

        Raises TemplateError if the answer holds a stop token before its end.
        """
        text, start = rendered.text, len(span.prompt)
        last = next(stop for stop in self.stops if text.endswith(stop, start, span.end))
        for stop in self.stops:
            if text.find(stop, start, span.end - len(last)) >= 0:
                raise TemplateError(
                    f"{named(rendered.conversation)}message {span.turn + 1}: the answer holds a stop token before its "
                    f"end: {text[start : span.end][:80]!r}"
                )
        return last

    def _closer_look(self, rendered: Rendered) -> tuple[Example, ...]:
        """Build the example from the offsets of its tokens, or one an answer.

        Raises TemplateError if training and serving would differ.
        """
        text, spans = rendered.text, rendered.spans
        # An answer that begins with white space can merge with the prompt's last token. Nothing follows the last
        # answer, so the text is split there: the prompt then has the ids that the server receives.
        ids, offsets = self._tokenized_as_two(text, len(spans[-1].prompt))
        starts = [start for start, _ in offsets]
        mask = bytearray(len(ids))
        prompts = self.ids_of([span.prompt for span in spans])
        for span, prompt_ids in zip(spans, prompts, strict=True):
            where = f"{named(rendered.conversation)}message {span.turn + 1}: "
            start = len(span.prompt)
            first, last = bisect.bisect_left(starts, start), bisect.bisect_left(starts, span.end) - 1
            if len(spans) > 1 and (_straddles(offsets, start) or ids[: len(prompt_ids)] != prompt_ids):
                parts = (replace(rendered, text=text[: one.end], spans=[one]) for one in spans)
                return tuple(example for part in parts for example in self._closer_look(part))
            if ids[last] not in self.stop_ids or offsets[last][1] != span.end:
                raise TemplateError(f"{where}the stop token is cut into ordinary tokens")
            if ids[: len(prompt_ids)] != prompt_ids:
                raise TemplateError(
                    f"{where}its prompt ends with other tokens where the answer follows than where it stands alone, so "
                    f"that training and serving would differ: …{text[max(0, start - 40) : start + 20]!r}"
                )
            mask[first : last + 1] = b"\1" * (last + 1 - first)
            self._require_words(rendered, span, ids[first:last], self._stop_of(rendered, span))
        if mask.find(1, 1) < 0:
            raise TemplateError(f"{named(rendered.conversation)}nothing to learn from: no token of an answer is left")
        return (Example(ids, bytes(mask), rendered.conversation.id, rendered.escaped),)

    def _tokenized_as_two(self, text: str, at: int) -> tuple[list[int], list[tuple[int, int]]]:
        """Return the ids and character offsets of `text`, tokenized as two pieces that meet at `at`."""
        head, tail = self._backend.encode_batch([text[:at], text[at:]], add_special_tokens=False)
        return head.ids + tail.ids, head.offsets + [(start + at, end + at) for start, end in tail.offsets]


def _straddles(offsets: list[tuple[int, int]], at: int) -> bool:
    """Return whether a token has characters on both sides of `at`."""
    position = bisect.bisect_left(offsets, at, key=lambda offset: offset[0]) - 1
    return position >= 0 and offsets[position][1] > at


def keeps_everything(tokenizer: Any) -> bool:
    """Return whether the tokenizer decodes every text to itself, up to Unicode composition (NFC).

    Tokenizers that fall back to bytes for unknown characters do.
    """
    back = tokenizer.decode(tokenizer.encode(EVERYTHING, add_special_tokens=False), clean_up_tokenization_spaces=False)
    return unicodedata.normalize("NFC", back).strip() == unicodedata.normalize("NFC", EVERYTHING).strip()


def wants_bos(tokenizer: Any) -> bool:
    """Return whether the tokenizer begins every text with its BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and tokenizer.encode("a")[:1] == [bos]


def named(conversation: Conversation) -> str:
    """Return the source and id of a conversation, as the beginning of a message."""
    where = " ".join(part for part in (conversation.source, conversation.id) if part)
    return f"{where}: " if where else ""
