"""Preferences on every template: both sides begin with the served prompt, and the masks are the completions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from harness.data.encode.items import items_of
from harness.data.encode.workers import Workers
from harness.errors import TemplateError
from harness.nouns import Conversation, Example, Message, Preference
from harness.plugins import Plugins
from harness.template import BoundTemplate

CASES = [
    *((name, "small") for name in Plugins().templates),
    *(("chatml", "tok-qwen2"), ("zephyr", "tok-tinyllama"), ("llama3", "tok-qwen2"), ("mistral-v1", "tok-tinyllama")),
]
ONE_EXCHANGE = ("mistral-v3", "mistral-v7")  # earlier prompts are none of the whole
few = settings(
    max_examples=12,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
WORDS = st.lists(
    st.sampled_from(
        ["heron", "Who keeps the key?", "x = 1", "é", "答案", "🦩", "<|im_end|>", "</s>", "[INST]", "\n", "12"]
    ),
    min_size=1,
    max_size=4,
).map("-".join)


@st.composite
def preferences(draw: st.DrawFn, template: BoundTemplate) -> Preference:
    """A preference of any shape that the template takes, with completions of one answer or of several turns."""
    answers = WORDS.map(lambda text: f" {text}") if template.name == "plain" else WORDS
    several = template.takes_turns and template.name not in ONE_EXCHANGE
    # Several answers in a completion are always refused where the template changes earlier turns.
    goes_on = st.booleans() if template.habits.grows else st.sampled_from([False] * 5 + [True])

    def exchange() -> list[Message]:
        return [Message("user", draw(WORDS)), Message("assistant", draw(answers))]

    system = [Message("system", draw(WORDS))] if template.takes_system and draw(st.booleans()) else []
    earlier = exchange() if several and draw(st.booleans()) else []

    def completion() -> tuple[Message, ...]:
        more = exchange() if several and draw(goes_on) else []
        return Message("assistant", draw(answers)), *more

    prompt = (*system, *earlier, Message("user", draw(WORDS)))
    return Preference(prompt, completion(), completion(), draw(st.none() | st.just(1.5)), 0.5, id="rows.jsonl:1")


def expected_mask(template: BoundTemplate, messages: tuple[Message, ...], begin: int, ids: list[int]) -> list[bool]:
    """The mask from what is served: each answer begins where its prompt ends, and ends with the first stop token."""
    mask = [False] * len(ids)
    for turn in range(begin, len(messages)):
        if messages[turn].role == "assistant":
            start = len(template.prompt_ids(messages[:turn], thinks=False))
            end = next(at for at in range(start, len(ids)) if ids[at] in template.stop_ids) + 1
            mask[start:end] = [True] * (end - start)
    return mask


@pytest.mark.parametrize(("name", "vocabulary"), CASES, ids=lambda part: part)
def test_sides_begin_with_the_served_prompt_and_learn_their_completions(name, vocabulary, bind):
    template, encoded = bind(name, vocabulary), []

    @few
    @given(preference=preferences(template))
    def holds(preference: Preference) -> None:
        with Workers(template, "all", 0) as workers:
            try:
                (item,) = workers.submit([preference]).result()
            except TemplateError as error:  # a family that cannot write these words says so, of which side
                assert "rows.jsonl:1" in str(error)
                return
        encoded.append(item)
        prompt = template.prompt_ids(preference.prompt, thinks=False)
        assert item.roles == ("chosen", "rejected")
        assert item.extras == {"weight": 0.5} | ({"margin": 1.5} if preference.margin else {})
        for example, completion in zip(item.examples, (preference.chosen, preference.rejected), strict=True):
            ids, messages = list(example.input_ids), preference.prompt + completion
            assert ids[: len(prompt)] == prompt
            assert list(map(bool, example.loss_mask)) == expected_mask(template, messages, len(preference.prompt), ids)
            context = tuple(replace(message, train=False) for message in preference.prompt)
            assert ids == list(template.encode_batch([Conversation(context + completion)])[-1].input_ids)

    holds()
    assert len(encoded) >= 3


PROMPT = (Message("user", "Who keeps the key?"),)


@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ((Message("user", "Well?"), Message("assistant", "The heron.")),
         r"the rejected completion begins with a user message"),
        (
            (Message("assistant", "Hm."), Message("user", "Well?"), Message("assistant", "The heron.", train=False)),
            r"the rejected completion has message 3 marked as not trained on .* whole completions",
        ),
    ],
)  # fmt: skip
def test_a_completion_that_the_loss_would_not_see_whole_is_refused(bind, completion, reason):
    wrong = Preference(PROMPT, (Message("assistant", "The otter."),), completion, id="rows.jsonl:7", source="mine")
    with (
        Workers(bind("chatml", "small"), "all", 0) as workers,
        pytest.raises(TemplateError, match=f"mine rows.jsonl:7: {reason}"),
    ):
        workers.submit([wrong]).result()  # fmt: skip


THOUGHT = (Message("assistant", "The heron.", reasoning="She has it."), Message("user", "Sure?"))


def test_a_last_answer_stands_behind_the_history_that_a_thinking_template_leaves(bind):
    """Sides that differ in the last answer only: earlier thoughts are gone, as in serving, and one answer is learnt."""
    template = bind("qwen3", "tok-qwen2")
    sides = [(Message("assistant", words, reasoning="Hm."),) for words in ("Yes.", "No.")]
    with Workers(template, "all", 0) as workers:
        (item,) = workers.submit([Preference(PROMPT + THOUGHT, *sides)]).result()
    prompt = template.prompt_ids(PROMPT + THOUGHT, thinks=True)
    assert "She has it." not in template.decoded(prompt)
    for example, words in zip(item.examples, ("Yes.", "No."), strict=True):
        assert list(example.input_ids[: len(prompt)]) == prompt
        assert example.loss_mask.index(True) == len(prompt)
        assert template.decoded(example.input_ids[len(prompt) :]) == f"<think>\nHm.\n</think>\n\n{words}<|im_end|>"


def test_several_answers_in_a_completion_are_refused_where_earlier_turns_change(bind):
    several = Preference(
        PROMPT, (*THOUGHT, Message("assistant", "Yes.")), THOUGHT[:1], id="rows.jsonl:7", source="mine"
    )
    with (
        Workers(bind("qwen3", "tok-qwen2"), "all", 0) as workers,
        pytest.raises(TemplateError, match=r"mine rows.jsonl:7: .*several answers.*before it in `prompt`.*chatml"),
    ):
        workers.submit([several]).result()


def test_sides_with_different_prompt_ids_are_refused():
    sides = [Example([1, 2, 3, 9], [False, False, False, True]), Example([1, 2, 9, 9], [False, False, True, True])]
    pair = Preference(
        PROMPT, (Message("assistant", "a"),), (Message("assistant", "b"),), id="rows.jsonl:7", source="mine"
    )
    with pytest.raises(TemplateError, match=r"mine rows.jsonl:7: .* 3 and 2 of them, the first 2 the same"):
        items_of([pair], [(side,) for side in sides])
