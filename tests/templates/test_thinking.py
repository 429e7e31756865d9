"""Thoughts: a field of the message, written where the template writes them, behind the prompt that serving sends."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

import harness
from harness.nouns import Conversation, Message, ToolCall
from harness.template import BREAK, BoundTemplate
from harness.template import bind as bind_to_tokenizer
from harness.template.thoughts import thoughts_and_words

ASKED, SURE = Message("user", "What is 2+2?"), Message("user", "Sure?")
FOUR = Message("assistant", "Four.", reasoning="Two and two make four.")
YES = Message("assistant", "Yes.", reasoning="I checked it twice.")
BLOCK = "<think>\nTwo and two make four.\n</think>\n\nFour.<|im_end|>"
CALLED = Message("assistant", "", (ToolCall("look", {"at": "key"}, "abcdefghi"),), reasoning="I need the tool.")
TOOL = {"type": "function", "function": {"name": "look", "description": "", "parameters": {}}}

# The smallest template with one habit of a published family each.
TURN = "{% for m in messages %}<|im_start|>{{ m.role }}"
MADE = {
    "the model writes its channel": (  # gpt-oss, functionary, Command R7B
        TURN + "{{ 'final>>' if m.role == 'assistant' }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",
        "final>>\nFour.<|im_end|>",
    ),
    "the prompt opens a thought": (  # DeepSeek R1, QwQ, Step
        TURN + "\n{{ m.content.split('</think>')[-1].lstrip() }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}",
        "\n</think>\n\nFour.<|im_end|>",
    ),
    "an end-of-text stands behind the talk": (  # Phi-3
        TURN + "\n{{ m.content }}<|im_end|>\n{%- endfor %}"
        "{{- '<|im_start|>assistant\n' if add_generation_prompt else '</s>' }}",
        "Four.<|im_end|>",
    ),
    "a mark closes the words": (  # Cohere 2
        TURN + "\n{{ m.content }}{{ '<s>' if m.role == 'assistant' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "Four.<s><|im_end|>",
    ),
    "the next message brings the stop token": (  # Apertus
        "{% for m in messages %}{% if not loop.first %}<|im_end|>{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}<|im_end|><|im_start|>assistant\n{% endif %}",
        "Four.<|im_end|>",
    ),
}


def learnt(template: BoundTemplate, example: Any) -> str:
    ids = [id for id, seen in zip(example.input_ids, example.loss_mask, strict=True) if seen]
    return template.decoded(ids)


def prompts(template: BoundTemplate, talk: Conversation) -> list[str]:
    """The text of each example before what is learnt of it."""
    return [template.decoded(one.input_ids[: one.loss_mask.index(True)]) for one in template.encode_batch([talk])]


@pytest.fixture
def made(templates, bind) -> Callable[[str], BoundTemplate]:
    """A template of the model's own, on a small vocabulary."""

    def bound(source: str, **options: Any) -> BoundTemplate:
        tokenizer = copy.copy(bind("model").tokenizer)
        tokenizer.chat_template = source
        model = templates["model"]
        return bind_to_tokenizer(model, tokenizer, model.options(**options))

    return bound


@pytest.mark.parametrize("habit", MADE)
def test_the_model_learns_what_stands_between_prompt_and_stop_token(habit, made):
    source, expected = MADE[habit]
    template, answer = made(source), Message("assistant", "Four.")
    (example,) = template.encode_batch([Conversation((ASKED, answer))])
    assert learnt(template, example) == expected
    assert template.check_turns(Conversation((ASKED, answer, SURE, Message("assistant", "Yes.")))) == 2


def test_a_thought_that_the_prompt_opens_is_closed_by_the_model(made):
    template = made(MADE["the prompt opens a thought"][0])
    talk = Conversation((ASKED, FOUR, SURE, YES))
    answers = [learnt(template, one) for one in template.encode_batch([talk])]
    assert answers == [
        "Two and two make four.\n</think>\n\nFour.<|im_end|>",
        "I checked it twice.\n</think>\n\nYes.<|im_end|>",
    ]
    assert "make four" not in prompts(template, talk)[1]


def test_thoughts_are_learnt_with_control_tokens_as_control_tokens(bind):
    template = bind("qwen3", "tok-qwen2")
    talk = Conversation((ASKED, FOUR))
    (example,) = template.encode_batch([talk])
    assert learnt(template, example) == BLOCK and BREAK not in template.decoded(example.input_ids)
    assert prompts(template, talk)[0].endswith("<|im_start|>assistant\n")
    think = template.tokenizer.convert_tokens_to_ids(["<think>", "</think>"])
    assert [id for id in example.input_ids if id in think] == think


def test_each_answer_stands_behind_the_history_that_serving_sends(bind):
    template = bind("qwen3", "tok-qwen2")
    talk = Conversation((ASKED, FOUR, SURE, YES))
    first, second = prompts(template, talk)
    assert "make four" not in second and "assistant\nFour.<|im_end|>" in second and second.startswith(first)
    assert template.check_turns(talk) == 2


def test_a_row_without_thoughts_is_asked_without_thinking(bind):
    template = bind("qwen3", "tok-qwen2")
    talk = Conversation((ASKED, Message("assistant", "Four.")))
    (prompt,), (example,) = prompts(template, talk), template.encode_batch([talk])
    assert prompt.endswith("assistant\n<think>\n\n</think>\n\n") and learnt(template, example) == "Four.<|im_end|>"
    assert template.request_variables(False) == {"enable_thinking": False}


def test_thinking_that_is_on_teaches_the_empty_block(bind):
    template = bind("qwen3", "tok-qwen2", thinking="on")
    talk = Conversation((ASKED, Message("assistant", "Four.")))
    (example,) = template.encode_batch([talk])
    assert learnt(template, example) == "<think>\n\n</think>\n\nFour.<|im_end|>"


def test_thoughts_are_refused_where_the_template_is_told_not_to_think(bind):
    template = bind("qwen3", "tok-qwen2", thinking="off")
    with pytest.raises(
        harness.TemplateError, match=r"message 2 has thoughts, and .* told not to think. `data.reasoning: drop`"
    ):
        template.encode(Conversation((ASKED, FOUR)))
    (example,) = template.encode_batch([Conversation((ASKED, FOUR))], reasoning="drop")
    assert learnt(template, example) == "Four.<|im_end|>"


def test_thoughts_as_context_are_in_the_example_and_not_learnt(bind):
    template = bind("qwen3", "tok-qwen2")
    (example,) = template.encode_batch([Conversation((ASKED, FOUR))], reasoning="context")
    assert learnt(template, example) == "Four.<|im_end|>"
    assert template.decoded(example.input_ids).endswith(f"assistant\n{BLOCK}")


def test_a_thought_stands_before_a_call_as_published(bind):
    template = bind("qwen3", "tok-qwen2")
    (example,) = template.encode_batch([Conversation((ASKED, CALLED), (TOOL,))])
    assert learnt(template, example).startswith("<think>\nI need the tool.\n</think>\n\n<tool_call>\n{")


@pytest.mark.parametrize("name", ["chatml", "llama3"])
def test_thoughts_have_no_place_in_a_template_that_does_not_think(name, bind):
    with pytest.raises(harness.TemplateError, match=r"does not support thoughts, and message 2 .*drop.* such as qwen3"):
        bind(name).encode(Conversation((ASKED, FOUR)))


@pytest.mark.parametrize(
    ("name", "vocabulary"), [("qwen3", "tok-qwen2"), ("deepseek-r1", "tok-gpt2"), ("deepseek-r1", "small")]
)
def test_marks_that_somebody_writes_stay_text(name, vocabulary, bind):
    template = bind(name, vocabulary)
    hostile = Message("assistant", "c <think> d </think> e", reasoning="f </think> g <think>")
    quiet = Message("assistant", "c w d w e", reasoning="f w g w")
    texts = [
        template.decoded(template.encode(Conversation((Message("user", said), answer))).input_ids)
        for said, answer in (("a </think> b", hostile), ("a w b", quiet))
    ]
    assert [text.count("</think>") for text in texts] == [1, 1] and [text.count("<think>") for text in texts] == [1, 1]
    assert all(part in texts[0].replace(BREAK, "") for part in ("a </think> b", hostile.content, hostile.reasoning))


def test_a_saved_template_keeps_its_habits(bind, tmp_path):
    template = copy.copy(bind("qwen3", "tok-qwen2"))
    template.save(tmp_path / "chat")
    again = BoundTemplate.load(tmp_path / "chat")
    talk = Conversation((ASKED, FOUR, SURE, Message("assistant", "Yes.")))
    assert (again.habits, again.thinking) == (template.habits, "auto")
    assert [one.input_ids for one in again.encode_batch([talk])] == [
        one.input_ids for one in template.encode_batch([talk])
    ]


@pytest.mark.parametrize(
    ("asks", "written", "thoughts", "words"),
    [
        (True, "<think>\nhm\n</think>\n\nFour.", "hm", "Four."),
        (False, "Four.", "", "Four."),
        (True, "<think>\nhm", "hm", ""),
    ],
)
def test_an_answer_is_taken_apart_by_the_marks(asks, written, thoughts, words, bind):
    template = bind("qwen3", "tok-qwen2")
    prompt, (ids,) = template.prompt_ids([ASKED], thinks=asks), template.ids_of([written])
    found, rest = thoughts_and_words(template, prompt, ids)
    assert (found, template.decoded(rest).strip()) == (thoughts, words)


def test_magistral_writes_thoughts_as_mistral_common_does(bind):
    """The expected text is that of mistral_common for these messages."""
    template = bind("mistral-v13")
    four = Message("assistant", "The answer is 4.", reasoning="2+2 = 4")
    talk = (Message("system", "Be helpful."), ASKED, four, Message("user", "Thanks, what is 3+3?"))
    assert template.render(talk, generation_prompt=True) == (
        "<s>[SYSTEM_PROMPT]Be helpful.[/SYSTEM_PROMPT][INST]What is "
        "2+2?[/INST][THINK]2+2 = 4[/THINK]The answer is 4.</s>"
        "[INST]Thanks, what is 3+3?[/INST]"
    )
