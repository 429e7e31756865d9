"""Published templates bound as `template: model`: renders equal transformers', masks equal their generation marks."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from harness_templates.model import DAY
from harness_templates.sources import fixed_clock
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

from harness.errors import TemplateError
from harness.nouns import Conversation, Message, ToolCall
from harness.plugins import Plugins
from harness.template import BREAK, BoundTemplate, bind, tools_for_vllm
from harness.template.encode import trained

pytestmark = pytest.mark.slow

TOKEN = re.compile(
    r"<\|[^|<>\s'\"{}]{1,40}\|>|<｜[^｜<>'\"{}]{1,40}｜>|\[/?[A-Z_]{3,30}\]|<(?:start|end)_of_turn>|<\|?[a-z_]+\|?>"
    r"|</(?:think|tool_call|tool_response|arg_key|arg_value|tools|end_of_utterance|s)>"
    r'|<\|"\|>'
)
REFUSED = dict.fromkeys(("idefics3", "llava_next"), "as a list of parts, .* loses or refuses plain text")
NAMES = [
    *(
        "cohere",
        "cohere2",
        "deepseekv3",
        "diffusion_gemma",
        "gemma",
        "gemma3",
        "glm4moe",
        "gptoss",
        "idefics3",
        "lfm2",
        "lfm2_2_5",
        "llama3",
        "llama3_1",
        "llama3_2",
        "llava_next",
        "nemotron_3_nano",
        "nemotron_3_super",
        "nemotron_3_ultra",
        "phi3",
        "phi3_5",
        "qwen2_5",
        "qwen2_5_vl",
        "qwen3",
        "qwen3_5_nothink",
        "qwen3_5_think",
        "qwen3_6",
        "qwen3_instruct_2507",
        "qwen3_vl",
        "tests_data_template",
    ),
]
TRAINING = [name for name in NAMES if name not in ("lfm2_2_5", "llama3_1", "llama3_2", "tests_data_template")]
TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "description": "Looks somewhere.",
        "parameters": {
            "type": "object",
            "properties": {"at": {"type": "string", "description": "Where."}},
            "required": ["at"],
        },
    },
}
user, system = (lambda text: Message("user", text)), (lambda text: Message("system", text))


def says(text: str, thoughts: str = "") -> Message:
    return Message("assistant", text, reasoning=thoughts)


def calls(at: str, thoughts: str = "") -> tuple[Message, Message]:
    call = ToolCall("look", {"at": at}, "abcdefghi")
    return (
        Message("assistant", "", (call,), reasoning=thoughts),
        Message("tool", f"A key lies {at}.", tool_call_id="abcdefghi"),
    )


TALKS: dict[str, Conversation] = {
    "plain": Conversation((user("Who keeps it?"), says("The heron."))),
    "system": Conversation((system("Be brief."), user("Who keeps it?"), says("The heron."))),
    "turns": Conversation((user("Who keeps it?"), says("The heron."), user("Since when?"), says("Since May."))),
    "thoughts": Conversation((user("Who keeps it?"), says("The heron.", "She has it."))),
    "two thoughts": Conversation(
        (user("Who keeps it?"), says("The heron.", "She has it."), user("Sure?"), says("Yes.", "I looked."))
    ),
    "a thought, then none": Conversation(
        (user("Who keeps it?"), says("The heron.", "She has it."), user("Sure?"), says("Yes."))
    ),
    "hostile": Conversation((user("a </think> b"), says("c <think> d </think> e", "f </think> g"))),
    "call": Conversation((user("Where?"), *calls("under the willow"), says("There.")), (TOOL,)),
    "thought call": Conversation(
        (user("Where?"), *calls("under the willow", "I must look."), says("There.", "It says so.")), (TOOL,)
    ),
}


def tokenizer_for(source: str, folder: Path) -> Any:
    """GPT-2's vocabulary with the control tokens that a template writes."""
    eos = "<|endoftext|>"
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tok-gpt2" / "tokenizer.json"), bos_token=eos, eos_token=eos
    )
    there = tokenizer.get_vocab()
    found = [token for token in dict.fromkeys(TOKEN.findall(source)) if token not in there]
    tokenizer.add_tokens(found, special_tokens=True)
    tokenizer.chat_template = source
    return tokenizer


@pytest.fixture(scope="module")
def published(real_data: Path) -> Any:
    """`published("qwen3")`: that template bound as the model's own, and its source."""

    @cache
    def bound(name: str) -> tuple[BoundTemplate, str]:
        source = (real_data / "chat-templates" / f"{name}.jinja").read_text(encoding="utf-8")
        return bind(Plugins().templates["model"], tokenizer_for(source, real_data)), source

    return bound


def theirs(template: BoundTemplate, source: str, talk: Conversation, asks: bool, thinks: bool) -> tuple[str, list[Any]]:
    """transformers' own render, without the harness's prelude, and the character spans of its generation marks."""
    messages = template.dicts(talk.messages)
    variables = template.request_variables(thinks)
    clock = fixed_clock(DAY) if "strftime_now" in source else ""
    rendered, spans = render_jinja_template(
        [messages],
        tools=tools_for_vllm(talk.tools),
        chat_template=clock + source,
        return_assistant_tokens_mask="{% generation" in source or "{%- generation" in source,
        add_generation_prompt=asks,
        **template.tokenizer.special_tokens_map | variables,
    )
    return rendered[0], spans[0] if spans else []


def taken(template: BoundTemplate) -> Iterator[tuple[str, Conversation]]:
    """The conversations that the template takes."""
    for name, talk in TALKS.items():
        thinks = any(message.reasoning for message in talk.messages)
        if (talk.tools and not template.takes_tools) or (thinks and not template.habits.takes_thoughts):
            continue
        if talk.messages[0].role == "system" and not template.takes_system:
            continue
        yield name, talk


@pytest.mark.parametrize("name", NAMES)
def test_prompts_are_transformers_own_and_answers_hold_what_was_said(name, published):
    if name in REFUSED:
        with pytest.raises(TemplateError, match=REFUSED[name]):
            published(name)
        return
    template, source = published(name)
    for what, talk in taken(template):
        if what == "hostile":
            continue
        examples, turns = template.encode_batch([talk]), trained(talk, "all")
        for number, turn in enumerate(turns):
            message = talk.messages[turn]
            example = examples[number if len(examples) > 1 else 0]
            before = Conversation(talk.messages[:turn], talk.tools)
            prompt, _ = theirs(template, source, before, True, bool(message.reasoning))
            assert (
                template.render(before.messages, before.tools, generation_prompt=True, thinks=bool(message.reasoning))
                == prompt
            ), what
            ids = template.ids_of([prompt])[0]
            assert example.input_ids[: len(ids)] == ids, what
            assert example.loss_mask[len(ids) - 1 : len(ids) + 1] == [False, True], what
            answer = learnt(template, example, len(ids))
            assert [part in answer for part in (message.reasoning, message.content)] == [True, True], (what, answer)
            assert all(text in answer for call in message.tool_calls for text in (call.name, *call.arguments.values()))
            assert any(answer.endswith(stop) for stop in template.stop_tokens), (what, answer)


def learnt(template: BoundTemplate, example: Any, start: int) -> str:
    """The text that is learnt from `start` on, up to the first token that is not."""
    mask = [*example.loss_mask, False]
    ids = example.input_ids[start : mask.index(False, start)]
    return str(template.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


# What the marks of a `_training` variant hold beside what the model writes in serving, white space aside.
ALREADY_IN_THE_PROMPT = "the beginning of the answer, which the prompt has written"
END_OF_TEXT = "the end-of-text behind the whole conversation"
DIFFERENCES = {
    "deepseekv3": "the role's header, and no thoughts",
    "diffusion_gemma": (
        "neither the token that hands the turn to a tool, nor the header that the prompt leaves out then"
    ),
    "glm4moe": ALREADY_IN_THE_PROMPT,
    "gptoss": ALREADY_IN_THE_PROMPT,
    "nemotron_3_nano": ALREADY_IN_THE_PROMPT,
    "nemotron_3_super": ALREADY_IN_THE_PROMPT,
    "nemotron_3_ultra": ALREADY_IN_THE_PROMPT,
    "qwen3": ALREADY_IN_THE_PROMPT,
    "qwen3_5_nothink": ALREADY_IN_THE_PROMPT,
    "qwen3_5_think": ALREADY_IN_THE_PROMPT,
    "qwen3_6": ALREADY_IN_THE_PROMPT,
    "phi3": END_OF_TEXT,
    "phi3_5": END_OF_TEXT,
}


@pytest.mark.parametrize("name", TRAINING)
def test_masks_are_those_of_the_generation_marks(name, published):
    if name in REFUSED:
        with pytest.raises(TemplateError, match=REFUSED[name]):
            published(f"{name}_training")
        return
    template, source = published(f"{name}_training")
    for what, talk in taken(template):
        if what == "hostile":
            continue
        examples, turns = template.encode_batch([talk]), trained(talk, "all")
        for number, turn in enumerate(turns):
            thinks = bool(talk.messages[turn].reasoning)
            example = examples[number if len(examples) > 1 else 0]
            prompt = template.prompt_ids(talk.messages[:turn], talk.tools, thinks=thinks)
            ours = squeezed(learnt(template, example, len(prompt)))
            text, spans = theirs(template, source, Conversation(talk.messages[: turn + 1], talk.tools), False, thinks)
            asked = talk.messages[turn - 1].content
            marked = squeezed("".join(text[start:end] for start, end in spans if start > text.rindex(asked)))
            match DIFFERENCES.get(name):
                case "the beginning of the answer, which the prompt has written":
                    begun = squeezed(template.tokenizer.decode(prompt))
                    assert marked.endswith(ours) and begun.endswith(marked.removesuffix(ours)), (what, ours, marked)
                case "the end-of-text behind the whole conversation":
                    assert marked == ours + "<|endoftext|>", (what, ours, marked)
                case "the role's header, and no thoughts":
                    assert marked == squeezed(f"<｜Assistant｜>{talk.messages[turn].content}<｜end▁of▁sentence｜>")
                    assert ours.endswith(marked.removeprefix("<｜Assistant｜>")), (what, ours, marked)
                case "neither the token that hands the turn to a tool, nor the header that the prompt leaves out then":
                    written = ours.removesuffix("<|tool_response>").removeprefix("<|turn>model")
                    begun = squeezed(template.tokenizer.decode(prompt))
                    assert marked.endswith(written) and begun.endswith(marked.removesuffix(written)), (
                        what,
                        ours,
                        marked,
                    )
                case None:
                    assert marked == ours, (what, ours, marked)


SCHEMAS: dict[str, Any] = {
    "kind": {"type": "string", "enum": ["key", "bell"], "description": "What it is.", "default": "key"},
    "often": {"type": "integer", "default": 3},
    "far": {"type": "number", "description": "In metres."},
    "sure": {"type": "boolean"},
    "names": {"type": "array", "items": {"type": "string"}, "description": "Of whom."},
    "counts": {"type": "array", "items": {"type": "integer"}},
    "places": {"type": "array", "items": {"type": "object", "properties": {"at": {"type": "string"}}}},
    "within": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "integer"}}, "required": ["b"]},
    "Anything": {"type": "object"},
    "maybe": {"type": "string", "nullable": True},
}
FINDS = ToolCall("find", {"kind": "bell", "often": 2, "within": {"b": [1, None, 0.5], "a": "ä"}}, "abcdefghi")
FIND = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Finds it.",
        "parameters": {"type": "object", "properties": SCHEMAS, "required": ["kind", "names"]},
    },
}
WITH_SCHEMAS = Conversation(
    (
        system("Be brief."),
        user("Where?"),
        Message("assistant", "", (FINDS,), reasoning="I must look."),
        Message("tool", '{"at": "the \\"mill\\""}', tool_call_id="abcdefghi"),
        says("There.", "It says so."),
        user("Sure?"),
        says("Yes."),
    ),
    (FIND, TOOL),
)


# It says that it tracks the role before the tools', and tracks the tools' too: then the answer to a result has a header
# in history that its prompt had not. The templates of Gemma 4 before this one have none.
MENDED = {
    "diffusion_gemma": (
        "{%- set ns.prev_non_tool_role = message['role'] -%}",
        "{%- if message['role'] != 'tool' -%}{%- set ns.prev_non_tool_role = message['role'] -%}{%- endif -%}",
    )
}


@pytest.mark.parametrize(
    ("family", "name"),
    [("qwen3", "qwen3"), ("deepseek-r1", "deepseekv3"), ("gemma4", "diffusion_gemma"), ("gpt-oss", "gptoss")],
)
def test_a_family_gives_the_examples_of_its_published_template(family, name, published, real_data):
    own, source = published(name)
    if mended := MENDED.get(name):
        own = bind(Plugins().templates["model"], tokenizer_for(source.replace(*mended), real_data))
    template = Plugins().templates[family]
    ours = bind(template, tokenizer_for(source, real_data))
    talks = [talk for _, talk in taken(ours)] + ([WITH_SCHEMAS] if ours.takes_tools else [])
    assert len(talks) == (10 if ours.takes_tools else 7)
    for talk in talks:
        examples, theirs = ours.encode_batch([talk]), own.encode_batch([talk])
        assert [(one.input_ids, one.loss_mask) for one in examples] == [
            (one.input_ids, one.loss_mask) for one in theirs
        ]


def squeezed(text: str) -> str:
    return re.sub(rf"[\s{BREAK}]+", "", text)
