"""Thoughts: a field of the message, written where the template writes them, behind the prompt that serving sends."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

import harness
from harness.nouns import Conversation, Message, ToolCall
from harness.plugins import Plugins
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
    "a turn's end stands before the answer's": (  # HyperCLOVA X Seed
        TURN + "\n{{ m.content }}<|im_end|>{{ '</s>' if m.role == 'assistant' }}\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}",
        "\nFour.<|im_end|></s>",
    ),
    "it asks for an answer behind every message": (  # Command A
        TURN + "\n{{ '<s>' if m.role == 'assistant' }}{{ m.content }}<|im_end|>{% endfor %}"
        "{{ '<|im_start|>assistant\n' }}",
        "<s>Four.<|im_end|>",
    ),
    "the stop token stands there twice": (  # Apriel 1.5
        TURN + "\n{{ m.content }}{{ '<|im_end|>' if m.role == 'assistant' }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
        "Four.<|im_end|>",
    ),
    "the next message brings the stop token": (  # Apertus
        "{% for m in messages %}{% if not loop.first %}<|im_end|>{% endif %}<|im_start|>{{ m.role }}\n{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}<|im_end|><|im_start|>assistant\n{% endif %}",
        "Four.<|im_end|>",
    ),
}

ASKS = "{% if add_generation_prompt %}<|im_start|>assistant\n"
THINKING = {  # a source, what is learnt with a thought, and without one
    "the prompt closes a thought that history does not have": (  # Gemma 4, Command R7B
        TURN + "\n{% if m.reasoning %}<|chan>thought\n{{ m.reasoning }}<chan|>{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}" + ASKS + "{% if not enable_thinking %}<|chan>thought\n<chan|>{% endif %}{% endif %}",
        "<|chan>thought\nTwo and two make four.<chan|>Four.<|im_end|>",
        "Four.<|im_end|>",
    ),
    "the prompt closes a thought that no answer has": (  # Gemma 4 of before
        TURN + "\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}" + ASKS + "{% if not enable_thinking %}<|chan>thought\n<chan|>{% endif %}{% endif %}",
        "<|chan>thought\nTwo and two make four.\n<chan|>Four.<|im_end|>",
        "Four.<|im_end|>",
    ),
    "it asks for the next answer behind every one": (  # Command R7B
        TURN + "\n{{ m.content }}<|im_end|>{% endfor %}{{ '<|im_start|>assistant\n' }}"
        "{% if not enable_thinking %}<think></think>{% endif %}",
        "<think>Two and two make four.</think>Four.<|im_end|>",
        "Four.<|im_end|>",
    ),
    "only the prompt without thinking shows the marks": (  # SmolLM3
        "{% set off = enable_thinking is defined and not enable_thinking %}" + TURN + "\n{{ m.content }}<|im_end|>\n"
        "{% endfor %}" + ASKS + "{% if off %}<think>\n\n</think>\n{% endif %}{% endif %}",
        "<think>\nTwo and two make four.\n</think>\nFour.<|im_end|>",
        "Four.<|im_end|>",
    ),
    "every answer begins with an empty thought": (  # Kimi K2 Thinking
        TURN
        + "\n{{ '<think></think>' if m.role == 'assistant' }}{{ m.content }}<|im_end|>\n{% endfor %}"
        + ASKS
        + "{% endif %}",
        "<think>Two and two make four.</think>Four.<|im_end|>",
        "<think></think>Four.<|im_end|>",
    ),
    "words of the prompt open a thought and words close it": (  # Apriel 1.6
        TURN + "\n{% if m.reasoning and loop.last %}{{ m.reasoning }}\n[NOW ANSWER]\n{% endif %}{{ m.content }}"
        "<|im_end|>\n{% endfor %}" + ASKS + "Here are my steps:\n{% endif %}",
        "Two and two make four.\n[NOW ANSWER]\nFour.<|im_end|>",
        "\n[NOW ANSWER]\nFour.<|im_end|>",
    ),
    "words of the last answer stand in the thought that its prompt opens": (  # Nemotron Nano 2
        TURN + "\n{{ '<think>\n' if m.role == 'assistant' and loop.last }}{{ m.content.split('</think>')[-1] }}"
        "<|im_end|>\n{% endfor %}" + ASKS + "<think>\n{% endif %}",
        "Two and two make four.\n</think>\n\nFour.<|im_end|>",
        "\n</think>\n\nFour.<|im_end|>",
    ),
    "thoughts are a part of the content": (  # Ministral 3, Magistral
        TURN + "\n{% if m.content is string %}{{ m.content }}{% else %}{% for one in m.content %}"
        "{% if one.type == 'thinking' %}[THINK]{{ one.thinking }}[/THINK]{% else %}{{ one.text }}{% endif %}"
        "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}" + ASKS + "{% endif %}",
        "[THINK]Two and two make four.[/THINK]Four.<|im_end|>",
        "Four.<|im_end|>",
    ),
    "words of effort switch thinking": (  # Hunyuan 3
        TURN + "\n{% if m.reasoning %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content }}<|im_end|>\n"
        "{% endfor %}{% set effort = reasoning_effort | default('none') %}"
        "{% if effort not in ['none', 'high'] %}{{ raise_exception('effort') }}{% endif %}"
        + ASKS
        + "{% if effort == 'none' %}<think></think>{% endif %}{% endif %}",
        "<think>Two and two make four.</think>Four.<|im_end|>",
        "Four.<|im_end|>",
    ),
    "a budget switches thinking, with a thought of the template's own": (  # Seed-OSS
        "{% set budget = thinking_budget | default(-1) %}{% if budget == 0 %}<|im_start|>system\nNo <b>.<|im_end|>\n"
        "{% elif budget != -1 %}<|im_start|>system\n{{ budget }}<|im_end|>\n{% endif %}"
        + TURN
        + "\n{% if m.reasoning %}<think>{{ m.reasoning }}</think>\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        + ASKS
        + "{% if budget == 0 %}<think><b>It is 0.</b>\n</think>{% endif %}{% endif %}",
        "<think>Two and two make four.</think>\nFour.<|im_end|>",
        "Four.<|im_end|>",
    ),
    "a mark has a name between two tags": (  # Kimi K3
        TURN + "{% if m.role == 'assistant' and thinking %}<|open|>think<|sep|>{{ m.reasoning }}<|close|>think<|sep|>"
        "{% endif %}<|open|>words<|sep|>{{ m.content }}<|close|>words<|sep|><|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant"
        "{{ '<|open|>think<|sep|>' if thinking else '<|open|>words<|sep|>' }}{% endif %}",
        "Two and two make four.<|close|>think<|sep|><|open|>words<|sep|>Four.<|close|>words<|sep|><|im_end|>",
        "Four.<|close|>words<|sep|><|im_end|>",
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


@pytest.mark.parametrize("habit", THINKING)
def test_thoughts_stand_where_the_template_has_them(habit, made):
    source, with_thought, without = THINKING[habit]
    template = made(source)
    plain = Conversation((ASKED, Message("assistant", "Four.")))
    assert [learnt(template, template.encode(talk)) for talk in (Conversation((ASKED, FOUR)), plain)] == [
        with_thought, without,
    ]  # fmt: skip
    assert template.check_turns(Conversation((ASKED, FOUR, SURE, YES))) == 2
    said = template.encode(Conversation((Message("user", "a </think> [NOW ANSWER] b"), FOUR)))
    assert learnt(template, said) == with_thought


def test_an_empty_thought_may_leave_history_with_other_white_space_than_the_prompts(made):
    """EXAONE 4: the last answer has the block, without the empty lines of the prompt, and earlier ones have none."""
    source = (
        TURN + "\n{% if m.reasoning and loop.last %}<think>\n{{ m.reasoning }}\n</think>\n\n"
        "{% elif m.role == 'assistant' and messages[loop.index:] | selectattr('role', 'equalto', 'assistant') | list "
        "| length == 0 %}<think>\n\n</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        + ASKS
        + "{{ '<think>\n' if enable_thinking else '<think>\n\n</think>\n\n' }}{% endif %}"
    )
    template = made(source)
    talk = Conversation((ASKED, Message("assistant", "Four."), SURE, Message("assistant", "Yes.")))
    assert [learnt(template, one) for one in template.encode_batch([talk])] == ["Four.<|im_end|>", "Yes.<|im_end|>"]
    assert template.check_turns(talk) == template.check_turns(Conversation((ASKED, FOUR, SURE, YES))) == 2


def test_a_header_that_the_prompt_wrote_before_an_empty_thought_is_not_learnt(made):
    """Seed-OSS: a system turn about thinking stands before the header where an answer is asked for, and only there."""
    off = "<|im_start|>system\nDo not think.<|im_end|>\n<|im_start|>assistant\n<think>No.</think>"
    source = (
        TURN
        + "\n{% if m.reasoning %}<think>{{ m.reasoning }}</think>{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}{{ '" + off.replace("\n", "\\n") + "' if thinks is defined and not thinks else "
        "'<|im_start|>assistant\n' }}{% endif %}"
    )
    template = made(source)
    (example,) = template.encode_batch([Conversation((ASKED, Message("assistant", "Four.")))])
    assert learnt(template, example) == "Four.<|im_end|>"
    assert template.decoded(example.input_ids).endswith("<think>No.</think>Four.<|im_end|>")


def test_a_budget_of_nothing_is_what_switches_thinking_off(made):
    source = THINKING["a budget switches thinking, with a thought of the template's own"][0]
    template = made(source)
    assert template.request_variables(True) == {"thinking_budget": -1}
    assert template.request_variables(False) == {"thinking_budget": 0}
    assert made(source, thinking="off").render([ASKED], generation_prompt=True).endswith("It is 0.</b>\n</think>")
    assert made(source, variables={"thinking_budget": 512}).render([ASKED]).startswith("<|im_start|>system\n512")


def test_a_mark_with_a_name_is_known_by_it(made):
    habits = made(THINKING["a mark has a name between two tags"][0]).habits
    assert habits.marks == ("<|open|>think<|sep|>", "<|close|>think<|sep|>")


def test_a_thought_that_history_closes_without_opening_it_is_closed_once(made):
    """Spark 2.5: answers without thoughts begin with the closing mark, behind prompts that open a thought."""
    source = (
        TURN + "\n{% if m.role == 'assistant' %}{{ '<think>' + m.reasoning if m.reasoning else '' }}</think>{% endif %}"
        "{{ m.content }}<|im_end|>\n{% endfor %}" + ASKS + "{{ '</think>' if thinks is defined and not thinks else "
        "'<think>' }}{% endif %}"
    )
    plain = Conversation((ASKED, Message("assistant", "Four.")))
    on, auto = made(source, thinking="on"), made(source)
    assert learnt(on, on.encode(plain)) == "</think>Four.<|im_end|>"
    assert learnt(auto, auto.encode(plain)) == "Four.<|im_end|>"
    assert learnt(on, on.encode(Conversation((ASKED, FOUR)))) == "Two and two make four.</think>Four.<|im_end|>"


def test_a_call_ends_as_words_end_and_not_with_the_tag_behind_it(made):
    """Apriel 1.6: the next message brings the stop token, and a tag of the vocabulary stands behind the calls."""
    source = (
        "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
        + TURN
        + "\n{{ m.content }}{% for one in m.tool_calls or [] %}call {{ one.function | tojson }}<s>{% endfor %}"
        "{{ '' if loop.last and m.role == 'assistant' else '\n<|im_end|>\n' }}{% endfor %}" + ASKS + "{% endif %}"
    )
    template = made(source)
    call = Message("assistant", "", (ToolCall("look", {"at": "key"}, "abcdefghi"),))
    assert "<s>" not in template.stop_tokens
    assert learnt(template, template.encode(Conversation((ASKED, call), (TOOL,)))).endswith("<s>\n<|im_end|>")


NAMES_BY_ID = (  # Kimi K2: an answer also empties the thoughts of the calls before it
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}{% set ended = messages[-1].role == "
    "'assistant' and not messages[-1].tool_calls %}"
    + TURN
    + "\n{% if m.role == 'assistant' %}<think>{{ m.reasoning if m.reasoning and not ended else '' }}</think>{% endif %}"
    "{% if m.role == 'tool' %}of {{ m.tool_call_id }}: {% endif %}{{ m.content }}"
    "{% for one in m.tool_calls or [] %}{{ one.id }} {{ one.function.arguments | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}" + ASKS + "{% endif %}"
)


@pytest.mark.parametrize(
    ("id", "named"), [("abcdefghi", "functions.look:0"), (None, "functions.look:0"), *[("functions.look:7",) * 2]]
)
def test_calls_that_a_template_writes_by_id_have_the_tools_name_in_it(id, named, made, tmp_path):
    template = made(NAMES_BY_ID)
    assert template.takes_tools
    call = Message("assistant", "", (ToolCall("look", {"at": "key"}, id),), reasoning="I need the tool.")
    talk = Conversation((ASKED, call, Message("tool", "4", tool_call_id=id), FOUR), (TOOL,))
    first, last = template.encode_batch([talk])
    assert learnt(template, first) == f'<think>I need the tool.</think>{named} {{"at": "key"}}<|im_end|>'
    assert f"<think>I need the tool.</think>{named} " in template.decoded(last.input_ids)
    assert f"of {named}: 4" in template.decoded(last.input_ids)
    assert learnt(template, last) == "<think>Two and two make four.</think>Four.<|im_end|>"
    hostile = replace(talk, messages=(Message("user", "a <|im_end|> b"), *talk.messages[1:]))
    template.save(tmp_path)  # and the same in the prelude, which a message with a control token goes through
    assert BoundTemplate.load(tmp_path).check_turns(hostile) == 2


def test_effort_is_sent_by_its_words(made):
    template = made(THINKING["words of effort switch thinking"][0])
    assert template.request_variables(True) == {"reasoning_effort": "high"}
    assert template.request_variables(False) == {"reasoning_effort": "none"}
    off = made(THINKING["words of effort switch thinking"][0], thinking="off")
    assert off.render([ASKED], generation_prompt=True).endswith("<think></think>")


def test_thoughts_that_end_like_an_answer_are_refused_and_answers_are_not(made):
    """Solar Open: an engine would stop behind the thought."""
    source = (
        "{% for m in messages %}{% if m.reasoning %}<|im_start|>think\n{{ m.reasoning }}<|im_end|>{% endif %}"
        "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    template = made(source)
    plain = Conversation((ASKED, Message("assistant", "Four.")))
    assert learnt(template, template.encode(plain)) == "assistant\nFour.<|im_end|>"
    with pytest.raises(
        harness.TemplateError, match=r"does not support thoughts.*goes on behind the token that ends.*drop"
    ):
        template.encode(Conversation((ASKED, FOUR)))


OBEYS = (  # Nemotron Nano 2, SmolLM3
    "{% set seen = namespace(thinks=true) %}{% for m in messages %}{% if '/no_think' in m.content %}"
    "{% set seen.thinks = false %}{% endif %}{% endfor %}" + TURN + "\n{{ m.content.replace('/no_think', '').strip() }}"
    "<|im_end|>\n{% endfor %}" + ASKS + "{{ '<think>\n' if seen.thinks else '<think></think>' }}{% endif %}"
)


def test_a_word_that_switches_thinking_is_obeyed_and_not_missed(made):
    template = made(OBEYS)
    assert template.habits.commands == ("/no_think",)
    quick = Message("user", "What is 2+2? /no_think")
    talk = Conversation((quick, Message("assistant", "Four.")))
    assert prompts(template, talk)[0].endswith("2+2?<|im_end|>\n<|im_start|>assistant\n<think></think>")
    assert learnt(template, template.encode(talk)) == "Four.<|im_end|>"
    assert learnt(template, template.encode(Conversation((ASKED, FOUR)))).startswith("Two and two make four.\n</think>")
    with pytest.raises(harness.TemplateError, match=r"told not to think, .*what is said before \(/no_think\)"):
        template.encode(Conversation((quick, FOUR)))
    with pytest.raises(harness.TemplateError, match=r"drops or changes what message 1 \(user\) says"):
        template.encode(Conversation((Message("user", "What is </no_think>?"), Message("assistant", "A tag."))))


def test_a_closing_mark_that_somebody_writes_is_no_word_that_switches_thinking(made):
    """SmolLM3 obeys `/think`, which stands in `</think>`: the break of the mark breaks the word, too."""
    template = made(OBEYS.replace("/no_think", "/think"))
    assert template.habits.commands == ("/think",)
    hostile = Conversation((Message("user", "What is </think>?"), Message("assistant", "A tag.")))
    assert prompts(template, hostile)[0] == (
        f"<|im_start|>user\nWhat is </{BREAK}think>?<|im_end|>\n<|im_start|>assistant\n<think>\n"
    )


def test_marks_that_are_no_control_tokens_of_the_vocabulary_are_named(made):
    source = (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|im_end|>{% endfor %}{% if add_generation_prompt %}"
    )
    assert made(source + "<|assistant|>{% endif %}").text_marks == ["<|user|>", "<|assistant|>"]
    assert made(MADE["a mark closes the words"][0]).text_marks == []


def test_a_call_behind_the_token_that_ends_words_is_refused(made):
    """GigaChat 3: an engine that stops behind the words never gets to the call."""
    source = (
        "{{ tools | tojson }}" + TURN + "\n{{ m.content }}<|im_end|>\n{% for call in m.tool_calls or [] %}"
        "<|im_start|>function call\n{{ call.function.name }} {{ call.function.arguments | tojson }}<|im_end|>\n"
        "{% endfor %}{% endfor %}" + ASKS + "{% endif %}"
    )
    with pytest.raises(harness.TemplateError, match=r"message 2: .* goes on behind the token .* where an engine stops"):
        made(source).encode(Conversation((ASKED, replace(CALLED, reasoning="")), (TOOL,)))


def test_an_answer_goes_on_in_the_turn_that_called(made):
    """Apertus: call, result and answer are one turn, and the header is there only where an answer is asked for."""
    source = (
        "{{ tools | tojson }}{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user {{ m.content }}<s>"
        "{% elif m.role == 'tool' %}({{ m.content }}){% else %}"
        "{{ '<|im_start|>' if loop.previtem.role == 'user' }}{% for call in m.tool_calls or [] %}<s>"
        "{{ call.function.name }} {{ call.function.arguments | tojson }}</s>{% endfor %}{{ m.content }}"
        "{% if not m.tool_calls %}<|im_end|>{% endif %}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>{% endif %}"
    )
    template = made(source)
    result = Message("tool", "4", tool_call_id="abcdefghi")
    talk = Conversation((ASKED, replace(CALLED, reasoning=""), result, Message("assistant", "Four.")), (TOOL,))
    assert [learnt(template, one) for one in template.encode_batch([talk])][-1] == "Four.<|im_end|>"


def test_a_template_for_tools_alone_is_refused_in_words(made):
    source = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}" + TURN + "{{ m.content }}<|im_end|>{% endfor %}"
    with pytest.raises(harness.TemplateError, match=r"(?s)renders only conversations that offer tools.*template list"):
        made(source)


def test_a_refusal_names_variables_and_none_that_the_template_sets(made):
    source = "{% for m in messages %}{% set text = m.content %}{{ functions + text }}{% endfor %}"
    with pytest.raises(harness.TemplateError) as refused:
        made(source)
    assert "It reads functions, which nobody sets" in str(refused.value)
    assert str(refused.value).endswith("`harness template list --model FOLDER` says which fit")


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


@pytest.mark.parametrize(("name", "vocabulary"), [("qwen3", "tok-qwen2"), ("gemma4", "tok-gpt2")])
def test_thoughts_are_refused_where_the_template_is_told_not_to_think(name, vocabulary, bind):
    template = bind(name, vocabulary, thinking="off")
    with pytest.raises(
        harness.TemplateError, match=r"message 2 has thoughts, and .* told not to think. `data.reasoning: drop`"
    ):
        template.encode(Conversation((ASKED, FOUR)))
    (example,) = template.encode_batch([Conversation((ASKED, FOUR))], reasoning="drop")
    assert learnt(template, example) == f"Four.{template.stop_tokens[0]}"


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


@pytest.mark.parametrize(
    ("written", "thoughts"),
    [
        ("<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Four.", "hm"),
        ("<|channel|>final<|message|>Four.", ""),
    ],
)
def test_an_answer_is_taken_apart_by_its_channels(written, thoughts, bind):
    template = bind("gpt-oss", "tok-gpt2")
    (ids,) = template.ids_of([written])
    found, rest = thoughts_and_words(template, template.prompt_ids([ASKED]), ids)
    assert (found, template.decoded(rest)) == (thoughts, "Four.")


def test_a_template_asks_by_default_as_its_rows_were_tuned(bind, tmp_path):
    """A request that sets nothing gets the prompt of tuning; one that sets the switch is heard."""
    template = bind("qwen3", "tok-qwen2")
    off = template.asking(thinks=False)
    assert template.asking(thinks=True) is template
    assert off.prompt_ids([ASKED]) == template.prompt_ids([ASKED], thinks=False) != template.prompt_ids([ASKED])
    assert off.prompt_ids([ASKED], thinks=True) == template.prompt_ids([ASKED], thinks=True)
    off.save(tmp_path / "chat")
    again = BoundTemplate.load(tmp_path / "chat")
    assert again.prompt_ids([ASKED]) == off.prompt_ids([ASKED]) and not again.habits.thinks


def test_stops_come_from_template_generation_config_and_tokenizer_in_that_order(made, tmp_path):
    """The template writes `<|im_end|>`, generation_config.json names `<s>` too, and `</s>` is the tokenizer's eos."""
    tokenizer = made(MADE["an end-of-text stands behind the talk"][0]).tokenizer
    tokenizer = copy.copy(tokenizer)
    tokenizer.chat_template = TURN + "\n{{ m.content }}<|im_end|>\n{% endfor %}" + ASKS + "{% endif %}"
    tokenizer.name_or_path = str(tmp_path)
    ids = tokenizer.convert_tokens_to_ids(["<s>", "<|im_end|>"])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": ids}))
    bound = bind_to_tokenizer(Plugins().templates["model"], tokenizer)
    assert bound.habits.stops == (
        ("<|im_end|>", "the template"),
        ("<s>", "generation_config.json"),
        ("</s>", "the tokenizer's eos"),
    )
    assert bound.stop_tokens == [stop for stop, _ in bound.habits.stops]


def test_a_template_that_writes_calls_as_html_takes_no_tools(made):
    """Mistral's own Jinja writes `&#34;` for quotes where arguments go through `tojson` and then through escaping."""
    html = "replace('\"', '&#34;')"
    source = (
        "{{ tools | tojson if tools }}"
        + TURN
        + (
            "\n{% for call in m.tool_calls or [] %}{{ call.function.name }} {{ call.function.arguments | tojson | "
            + html
            + " }}"
            "{% endfor %}{{ m.content }}<|im_end|>\n{% endfor %}" + ASKS + "{% endif %}"
        )
    )
    assert made(source.replace(html, "trim")).takes_tools
    assert not made(source).takes_tools


def test_tools_of_magistral_stand_where_mistral_common_has_them(bind):
    """From v13 on, the tools stand before the first question, and calls and results have no ids."""
    template = bind("mistral-v13")
    called = replace(CALLED, reasoning="I need the tool.")
    result = Message("tool", '{"temp": 4}', tool_call_id="abcdefghi")
    talk = (ASKED, called, result, Message("assistant", "4 degrees."), SURE)
    text = template.render(talk, [TOOL], generation_prompt=True)
    tools, rest = text.split("[/AVAILABLE_TOOLS]")
    assert tools.startswith('<s>[AVAILABLE_TOOLS][{"type": "function", "function": {"name": "')
    arguments = json.dumps(CALLED.tool_calls[0].arguments)
    assert rest == (
        f"[INST]What is 2+2?[/INST][THINK]I need the tool.[/THINK][TOOL_CALLS]look[ARGS]{arguments}"
        '</s>[TOOL_RESULTS]{"temp": 4}[/TOOL_RESULTS]4 degrees.</s>[INST]Sure?[/INST]'
    )
