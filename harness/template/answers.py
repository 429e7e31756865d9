"""Answers: what the model has to write behind the prompt that serving sends, up to and with its stop token."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.errors import TemplateError
from harness.template.differences import divergence
from harness.template.escape import BREAK
from harness.template.habits import Habits, words_of

_SPACE = re.compile(rf"[\s{BREAK}]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """The text of an answer, stop token included.

    `thoughts` is the length of what stands before its words and calls.
    """

    text: str
    thoughts: int = 0


@dataclass(frozen=True)
class Answers:
    """Answers of the template called `name`. All methods raise TemplateError, naming the message, counted from 1."""

    name: str
    stop_tokens: Sequence[str]
    habits: Habits

    def of(
        self, turn: int, message: Mapping[str, Any], prompt: str, rendered: str, before: Callable[[], str] | None = None
    ) -> Answer:
        """Return the answer to `prompt`.

        Args:
            message: as the template got it, control tokens broken.
            rendered: the conversation up to and with the message.
            before: renders the conversation before the message without asking for an answer.
        """
        rest = self._behind(turn, message, prompt, rendered)
        if rest is None:
            rest = self._behind_header(turn, message, prompt, rendered, before() if before else prompt)
        if rest is None:
            raise TemplateError(
                f"template {self.name!r} does not grow by appending: the prompt of message {turn + 1} (assistant) is "
                f"rendered otherwise where its answer follows.\n{divergence(prompt, rendered)}"
            )
        text = self._ended(turn, message, rest, prompt)
        self._require_words(turn, message, prompt, text)
        thought = message.get("reasoning", "").strip()
        return Answer(text, self._end_of_thoughts(text, thought) if thought else 0)

    def _behind(self, turn: int, message: Mapping[str, Any], prompt: str, rendered: str) -> str | None:
        """Return what the model writes behind the prompt, with all that the template puts behind that.

        None where the rendered conversation does not begin with the prompt, up to the thought that this opens.
        """
        thought: str = message.get("reasoning", "")
        composes = bool(thought) and not self.habits.writes_thoughts
        if thought and not self.habits.takes_thoughts:
            why = f": {self.habits.thoughtless}" if self.habits.thoughtless else ""
            raise TemplateError(
                f"template {self.name!r} does not support thoughts, and message {turn + 1} has some{why}. "
                "`data.reasoning: drop` leaves them out; to learn them, choose a template that thinks, such as qwen3"
            )
        stem, block = self._thought_in(prompt)
        if thought and block == "closed":
            raise told_not_to_think(self.name, turn, self.habits.commands)
        if rendered.startswith(prompt):
            behind = rendered[len(prompt) :]
            behind = self._without_header(behind, prompt)
            if block == "open" and not thought and self.habits.marks[1] not in behind:
                return self._closing + behind.lstrip()
            if not composes or squeezed(behind).startswith(squeezed(self.habits.opens + thought)):
                return behind
            opening = "" if block == "open" else self.habits.opens
            return opening + thought + self.habits.closes + self._without_empty_thought(behind)
        rest = self._behind_stem(stem, rendered) if block else None
        if rest is None:
            return None
        opening, _ = self.habits.marks
        if block == "open":
            rest = self._without_header(rest, stem)
            if rest.startswith(prompt[len(stem) :]):
                return rest[len(prompt) - len(stem) :]
            if rest.lstrip().startswith(opening):
                return rest.lstrip().removeprefix(opening)
            written = thought if self.habits.writes_thoughts else ""
            begins = written if thought else self.habits.marks[1]
            if begins and rest.lstrip().startswith(begins):
                return rest
            return thought + self._closing + rest
        return self._without_empty_thought(rest)

    @property
    def _closing(self) -> str:
        """The text that the model closes a thought with which the prompt has opened."""
        return self.habits.closes or f"\n{self.habits.marks[1]}\n\n"

    def _without_header(self, text: str, prompt: str) -> str:
        """Return the text without the role's header, where the prompt goes on in the turn of a call and has none."""
        header = self.habits.header
        return text.removeprefix(header) if header and prompt and not prompt.endswith(header) else text

    def _without_empty_thought(self, text: str) -> str:
        """Return the text without the empty thought that it begins with, or else without line ends before it."""
        opening, closing = self.habits.marks
        words = text.lstrip().removeprefix(opening).lstrip()
        return words.removeprefix(closing).lstrip() if words.startswith(closing) else text.lstrip("\n")

    def _thought_in(self, prompt: str) -> tuple[str, str]:
        """Return the prompt before the thought that it begins, and `open` or `closed`; nothing where it begins none."""
        if not self.habits.marks:
            return prompt, ""
        opening, closing = map(re.escape, self.habits.marks)
        if match := re.search(rf"(?:{opening}\w*)?\s*{closing}\s*\Z", prompt):
            within = prompt[self._begun(prompt, match.start()) : match.start()]
            return prompt[: match.start() - len(within)], "closed"
        if match := re.search(rf"{opening}\w*\s*\Z", prompt):
            return prompt[: match.start()], "open"
        return prompt, ""

    def _begun(self, prompt: str, end: int) -> int:
        """Return the place where a thought of the template's own begins, which ends there; `end` where none does."""
        opening, closing = self.habits.marks
        at = prompt.rfind(opening, 0, end)
        within = prompt[at:end] if at >= 0 else ""
        header = self.habits.header.partition(opening)[0].strip()
        turns = (closing, *self.stop_tokens, *([header] if header else []))
        return at if within and not any(one in within for one in turns) else end

    def _behind_header(
        self, turn: int, message: Mapping[str, Any], prompt: str, rendered: str, before: str
    ) -> str | None:
        """Return what stands behind the generation prompt alone, where the answer makes another history.

        Some templates drop thoughts of earlier turns only once there is an answer.
        """
        header = prompt.removeprefix(before) if prompt.startswith(before) else ""
        if not header.strip():
            return None
        calls = [call["function"]["name"] for call in message.get("tool_calls", ())]
        parts = [part.strip() for part in (message.get("reasoning", ""), words_of(message), *calls) if part.strip()]
        at = next((place for place in map(rendered.rfind, parts) if place >= 0), -1 if parts else len(rendered))
        if rendered.startswith(before) and not rendered[len(before) :].startswith(header):
            # The header, or the end of it, is there only where an answer is asked for.
            rest = rendered[len(before) :]
            ends = (header[len(header) - size :] for size in range(len(header), 0, -1))
            lead = rest[: max(0, at - len(before))]
            begins = (lead[:size] for size in range(len(lead), 0, -1) if lead[:size].strip())
            known = next(filter(rest.startswith, ends), "") or next((one for one in begins if one in header), "")
            return rest.removeprefix(known)
        if at < 0:
            return None
        stem = self._thought_in(header)[0].rstrip() or header
        places = [match.start() for match in re.finditer(re.escape(stem), rendered[:at])]
        behind = (self._behind(turn, message, rendered[:place] + header, rendered) for place in reversed(places))
        rests = [rest for rest in behind if rest is not None]
        return next((rest for rest in rests if self._is_framed(message, rest)), next(iter(rests), None))

    def _is_framed(self, message: Mapping[str, Any], text: str) -> bool:
        """Return whether the text begins as an answer with this thought, and its words where it calls nothing."""
        thought, words = squeezed(message.get("reasoning", "")), squeezed(words_of(message))
        text = squeezed(text)
        return any(
            text.startswith(before + thought + ("" if message.get("tool_calls") else between + words))
            for before, between, _ in self.habits.frames
        )

    def _behind_stem(self, stem: str, rendered: str) -> str | None:
        if rendered.startswith(stem):
            return rendered[len(stem) :]
        return rendered[len(bare) :].lstrip() if rendered.startswith(bare := stem.rstrip()) else None

    def _ended(self, turn: int, message: Mapping[str, Any], text: str, prompt: str) -> str:
        """Return the text up to and with its stop token. What the template writes behind it is not trained on."""
        if self.habits.trailer:
            text = text.rstrip().removesuffix(self.habits.trailer)
        stops = [stop for stop in self.stop_tokens if stop in text]
        if not stops and (late := self.habits.ends[bool(message.get("tool_calls"))]):
            return text.rstrip() + late
        if not stops:
            raise TemplateError(
                f"template {self.name!r} does not end message {turn + 1} with a stop token "
                f"({', '.join(self.stop_tokens)}): the model would never learn to stop. It ends with {text[-40:]!r}"
            )
        first = min(text.index(stop) + len(stop) for stop in stops)
        if not "".join(re.split("|".join(map(re.escape, stops)), text[first:])).strip():
            return text[:first]
        last = max(text.rindex(stop) + len(stop) for stop in stops)
        if last == first and prompt.rstrip().endswith(text[last:].strip()):
            return text[:last]  # the template asks for the next answer
        if text[last:].strip():
            raise TemplateError(
                f"template {self.name!r} writes {text[last:][:40]!r} after the stop token of message {turn + 1}"
            )
        raise TemplateError(
            f"message {turn + 1}: template {self.name!r} goes on behind the token that ends its answers, "
            f"{text[:first][-30:]!r}, where an engine stops: {text[first:][:60]!r}"
        )

    def _end_of_thoughts(self, text: str, thought: str) -> int:
        """Return the length of the thought in an answer, closing mark and line ends included."""
        end = text.index(thought) + len(thought)
        if self.habits.marks and (at := text.find(self.habits.marks[1], end)) >= 0:
            end = at + len(self.habits.marks[1])
        return end + len(text[end:]) - len(text[end:].lstrip())

    def _require_words(self, turn: int, message: Mapping[str, Any], prompt: str, text: str) -> None:
        """Require that the answer is its thoughts and words and what the template writes around those of any answer."""
        thought, words = squeezed(message.get("reasoning", "")), squeezed(words_of(message))
        squeezed_text = squeezed(text)
        if not message.get("tool_calls") and any(
            squeezed_text == before + thought + between + words + after for before, between, after in self.habits.frames
        ):
            return
        if thought not in squeezed_text:
            raise TemplateError(f"template {self.name!r} drops or changes the thoughts of message {turn + 1}")
        at = squeezed_text.find(words, squeezed_text.index(thought) + len(thought))
        if at < 0:
            raise TemplateError(
                f"template {self.name!r} changes the assistant's words in message {turn + 1}: "
                f"{words_of(message)[:60]!r} became {text[:60]!r}"
            )
        if message.get("tool_calls") or not self.habits.frames:
            return
        if not prompt:
            raise TemplateError(
                f"the conversation begins with an answer, to which template {self.name!r} has no prompt. Let it "
                "begin with a question, or do not train on that answer: `train=False`, in `messages` "
                "rows `weight: 0`"
            )
        stop = next(stop for stop in self.stop_tokens if text.endswith(stop))
        added = text.replace(BREAK, "").replace(words_of(message).replace(BREAK, "").strip(), "", 1)
        raise TemplateError(
            f"template {self.name!r} puts words into the answer of message {turn + 1} that nobody said, and that "
            f"the model would be trained on: {added.strip().removesuffix(stop).strip()[:60]!r}"
        )


def told_not_to_think(name: str, turn: int, commands: Sequence[str] = ()) -> TemplateError:
    """Return the refusal of thoughts where the prompt has switched them off; `commands` may do so in what is said."""
    by = f", by `thinking` or by what is said before ({', '.join(commands)})" if commands else ""
    return TemplateError(
        f"message {turn + 1} has thoughts, and template {name!r} is told not to think{by}. `data.reasoning: drop` "
        "leaves them out; `thinking: auto` or `on` in `template` learns them"
    )


def squeezed(text: str) -> str:
    """Return the text without white space and breaks."""
    return _SPACE.sub("", text)
