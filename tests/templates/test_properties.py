"""Every registered template on every vocabulary, for any content: masks, prompts, control tokens, words."""

from __future__ import annotations

import copy
import json
import re
import unicodedata
from dataclasses import replace
from itertools import groupby
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tokenizers.processors import TemplateProcessing

from harness import Template, TemplateError
from harness.errors import EndlessTemplateError
from harness.nouns import Conversation, Example, Message, ToolCall
from harness.options import Options
from harness.plugins import Plugins
from harness.template import BREAK, BoundTemplate
from harness.template import bind as bind_to_tokenizer

pytestmark = pytest.mark.slow  # hundreds of templates, each tried and damaged

VOCABULARIES = ("small", "tok-gpt2", "tok-minimind", "tok-qwen2", "tok-tinyllama")
BRINGS_A_TEMPLATE = ("small", "tok-minimind")
UNFIT = [("deepseek-r1", "tok-tinyllama")]  # its stop token holds SentencePiece's mark of a space
CASES = [
    (name, vocabulary)
    for name in Plugins().templates
    for vocabulary in VOCABULARIES
    if (name != "model" or vocabulary in BRINGS_A_TEMPLATE) and (name, vocabulary) not in UNFIT
]
every_case = pytest.mark.parametrize(("name", "vocabulary"), CASES, ids=lambda part: part)
# Without shrinking: through a real vocabulary it takes minutes, and the conversations are short as they are.
few = settings(
    max_examples=8,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=[HealthCheck.too_slow],
)
AROUND = re.compile(  # what the families write around thoughts and words
    r"</?think>|\[/?THINK\]|<\|channel>thought|<channel\|>|<\|channel\|>(?:analysis|final)<\|message\|>"
    r"|<\|end\|><\|start\|>assistant|\s"
)
ONE_CALL = ("llama3.1", "gpt-oss")  # take one tool call a message

CONTROL = [
    *("<|im_start|>", "<|im_end|>", "<|endoftext|>", "<s>", "</s>", "<unk>", "[INST]", "[/INST]", "[TOOL_CALLS]"),
    *("<start_of_turn>", "<end_of_turn>", "<|user|>", "<|assistant|>", "<|end|>", "<|start_header_id|>", "<|eot_id|>"),
    *(
        "<|python_tag|>",
        "<tool_call>",
        "</tool_call>",
        "<think>",
        "</think>",
        "<|im_<|im_end|>end|>",
        "<\u200b|im_end|>",
    ),
]
PLAIN = [
    "heron",
    "Who keeps the key?",
    "x = [1, 2]\n\treturn x",
    "\r\n",
    "  ",
    "1234567",
    "{{ x }}",
    "{% raw %}",
    "'\"\\",
]
UNICODE = ["é", "e\u0301", "Schlüssel", "答案是钥匙", "🦩", "👩‍👩‍👧", "مرحبا", "\u00a0", "\u2028", "ﬁ", "\x00"]
# Not the mark that stands for a space in SentencePiece vocabularies, and nothing that UTF-8 cannot write.
CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="▁")


def words(pieces: list[str]) -> st.SearchStrategy[str]:
    """Text that says something: white space at its edges is for the families to keep or trim."""
    mixed = st.lists(st.sampled_from(pieces) | st.text(CHARACTERS, max_size=4), min_size=1, max_size=5)
    return mixed.map(lambda parts: "".join(parts).strip()).filter(lambda text: text.strip("\ufeff\x00\u200b"))


@st.composite
def conversations(draw: st.DrawFn, template: BoundTemplate, pieces: list[str]) -> Conversation:
    """A conversation of any shape that the template takes, some of its answers not trained."""
    say = words(pieces)
    # Nothing stands between question and answer in `plain`: a space keeps their words apart.
    answers = say.map(lambda text: f" {text}") if template.name == "plain" else say
    thoughts = st.just("") | say if template.habits.takes_thoughts else st.just("")
    messages = [Message("system", draw(say))] if template.takes_system and draw(st.booleans()) else []
    values = st.recursive(say | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=2), max_leaves=3)
    # Two keys that a broken control token would make one are refused: JSON keeps one value a key.
    arguments = st.dictionaries(say, values, max_size=2).filter(
        lambda drawn: len({key.replace(BREAK, "") for key in drawn}) == len(drawn)
    )
    for _ in range(draw(st.integers(1, 3)) if template.takes_turns else 1):
        messages.append(Message("user", draw(say)))
        if template.takes_tools and draw(st.booleans()):
            calls = [
                ToolCall("look", draw(arguments), id=f"call0000{number}")
                for number in range(1 if template.name in ONE_CALL else draw(st.integers(1, 2)))
            ]
            messages.append(Message("assistant", "", tuple(calls), reasoning=draw(thoughts)))
            messages += [Message("tool", draw(say), tool_call_id=call.id) for call in calls]
        train = draw(st.sampled_from([None, True, False]))
        messages.append(Message("assistant", draw(answers), train=train, reasoning=draw(thoughts)))
    messages[-1] = replace(messages[-1], train=None)
    tools: tuple[Any, ...] = ()
    if any(message.tool_calls for message in messages):
        parameters = {"type": "object", "properties": {draw(say): {"type": "string", "description": draw(say)}}}
        tools = (
            {"type": "function", "function": {"name": "look", "description": draw(say), "parameters": parameters}},
        )
    return Conversation(tuple(messages), tools)


def harmless(conversation: Conversation) -> Conversation:
    """The same shape, every word of it replaced."""

    def quiet(value: Any) -> Any:
        if isinstance(value, dict):
            order = sorted(value, key=str.lower)  # some templates write them so
            return {f"w{order.index(key)}": quiet(item) for key, item in value.items()}
        if isinstance(value, list):
            return [quiet(item) for item in value]
        return "w" if isinstance(value, str) else value

    messages = tuple(
        Message(
            message.role,
            " word" if message.content.startswith(" ") else "word" if message.content else "",
            tuple(ToolCall(call.name, quiet(call.arguments), call.id) for call in message.tool_calls),
            message.tool_call_id,
            message.train,
            "thought" if message.reasoning else "",
        )
        for message in conversation.messages
    )
    tools = ()
    if conversation.tools:
        function = {
            "name": "look",
            "description": "w",
            "parameters": {"type": "object", "properties": {"w": {"type": "string", "description": "w"}}},
        }
        tools = ({"type": "function", "function": function},)
    return Conversation(messages, tools)


def decoded(template: BoundTemplate, ids: list[int]) -> str:
    return str(template.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def plain(text: str) -> str:
    """The text without breaks, as every vocabulary spells it: Qwen's composes characters."""
    return unicodedata.normalize("NFC", text).replace(BREAK, "")


def learnt(template: BoundTemplate, example: Example) -> list[str]:
    """The stretches of tokens that the loss sees, decoded."""
    pairs = groupby(zip(example.input_ids, example.loss_mask, strict=True), key=lambda pair: pair[1])
    return [decoded(template, [token for token, _ in stretch]) for seen, stretch in pairs if seen]


def controls(template: BoundTemplate, conversation: Conversation) -> list[int]:
    ids = {template.tokenizer.convert_tokens_to_ids(token) for token in template.control_tokens}
    examples = template.encode_batch([conversation])
    return [token for example in examples for token in example.input_ids if token in ids]


def answer(template: BoundTemplate, conversation: Conversation, turn: int) -> str:
    """What the template writes for a turn after its prompt, up to and with the stop token."""
    messages, tools = conversation.messages, conversation.tools
    prompt = template.render(messages[:turn], tools, generation_prompt=True)
    return template.render(messages[: turn + 1], tools)[len(prompt) :].rstrip()


def same_answer(template: BoundTemplate, seen: str, conversation: Conversation, turn: int) -> bool:
    message = conversation.messages[turn]
    if message.tool_calls and not template.habits.takes_thoughts:
        return plain(seen) == plain(answer(template, conversation, turn))
    stop = next(stop for stop in template.stop_tokens if seen.endswith(stop))
    body, words, thought = (
        plain(text).strip() for text in (seen.removesuffix(stop), message.content, message.reasoning)
    )
    if message.tool_calls:
        return thought in body and all(call.name in body for call in message.tool_calls)
    if any(
        squeezed(body) == squeezed(before, thought, between, words) for before, between, _ in template.habits.frames
    ):
        return True
    if not template.habits.takes_thoughts:
        return body == words
    around = body.removesuffix(words).replace(thought, "", 1)
    return body.endswith(words) and thought in body and not AROUND.sub("", around)


def squeezed(*parts: str) -> str:
    return "".join("".join(map(plain, parts)).split())


@every_case
@few
@given(data=st.data())
def test_each_trained_answer_is_learnt_after_its_own_prompt_and_nothing_is_lost(name, vocabulary, data, bind):
    template = bind(name, vocabulary)
    talk = data.draw(conversations(template, [*PLAIN, *UNICODE, *CONTROL]))
    examples = template.encode_batch([talk])
    require_promises(template, talk, examples)
    if len(examples) == 1 and template.habits.grows and not template.habits.takes_thoughts:
        assert (
            plain(decoded(template, examples[0].input_ids)).lstrip()
            == plain(template.render(talk.messages, talk.tools)).lstrip()
        )


def require_promises(template: BoundTemplate, talk: Conversation, examples: list[Example]) -> None:
    """What is learnt is the answers, each after the prompt that a server makes, and everybody's words are there."""
    stretches = [stretch for example in examples for stretch in learnt(template, example)]
    assert len(stretches) == len(talk.trained) and len(examples) in (1, len(stretches))
    for number, (seen, turn) in enumerate(zip(stretches, talk.trained, strict=True)):
        message, example = talk.messages[turn], examples[number if len(examples) > 1 else 0]
        assert same_answer(template, seen, talk, turn), (seen, message)
        prompt = template.prompt_ids(talk.messages[:turn], talk.tools, thinks=bool(message.reasoning))
        assert example.input_ids[: len(prompt)] == prompt
        assert example.loss_mask[len(prompt) - 1 : len(prompt) + 1] == [False, True]

    text = "".join(plain(decoded(template, example.input_ids)) for example in examples)
    for message in talk.messages[: talk.trained[-1] + 1]:
        said = plain(message.content).strip()
        assert said in text or json.dumps(said, ensure_ascii=False)[1:-1] in text


@every_case
@few
@given(data=st.data())
def test_nobody_can_write_a_control_token(name, vocabulary, data, bind):
    template = bind(name, vocabulary)
    talk = data.draw(conversations(template, [*CONTROL, *template.control_tokens[:40], "word "]))
    assert controls(template, talk) == controls(template, harmless(talk))


# Damaged templates

PIECE = re.compile(r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|[^{]+|\{", re.DOTALL)
ADDED = ("{{ 'Well: ' }}", "{{ bos_token }}", "{{ eos_token }}", "{{ messages | length }}")
FILTERS = (" | upper", " | trim", "[:5]", " | replace('e', '')", " | replace('\u200b', '')")
WHEN = ("messages | length > 2", "loop.index0 > 1", "tools", "add_generation_prompt", "messages[0].role == 'system'")
OTHERWISE = {
    "content": "role",
    "role": "content",
    "tool_calls": "nothing",
    "messages": "messages[1:]",
    "tools": "tools[:1]",
    "loop.last": "loop.first",
}


def damaged(source: str, chance: Random) -> str:
    """The template with a piece lost, moved, doubled, added, filtered, made conditional or renamed."""
    pieces = PIECE.findall(source)
    at, other = chance.randrange(len(pieces)), chance.randrange(len(pieces))
    printed = [index for index, piece in enumerate(pieces) if piece.startswith("{{")]
    prints = chance.choice(printed) if printed else at
    match chance.randrange(7):
        case 0:
            del pieces[at]
        case 1:
            pieces[at], pieces[other] = pieces[other], pieces[at]
        case 2:
            pieces.insert(at, pieces[other])
        case 3:
            pieces.insert(prints, chance.choice(ADDED))
        case 4:
            pieces[prints] = re.sub(r"\s*(-?\}\})$", chance.choice(FILTERS) + r" \1", pieces[prints])
        case 5:
            pieces[prints] = f"{{% if {chance.choice(WHEN)} %}}{pieces[prints]}{{% endif %}}"
        case 6:
            name = chance.choice(list(OTHERWISE))
            return source.replace(name, OTHERWISE[name], 1)
    return "".join(pieces)


@settings(
    max_examples=60,
    deadline=None,
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    suppress_health_check=list(HealthCheck),
)
@given(
    name=st.sampled_from([name for name in Plugins().templates if name not in ("model", "plain", "gpt-oss")]),
    chance=st.randoms(use_true_random=False),
    says_what_it_takes=st.booleans(),
    data=st.data(),
)
def test_a_damaged_template_is_refused_or_keeps_what_is_promised(
    name, chance, says_what_it_takes, data, bind, templates
):
    family = templates[name]
    tokenizer = copy.deepcopy(bind(name).tokenizer)
    bos = ("<s>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<s> $A", None, [bos])
    source = damaged(family.jinja(tokenizer, (family.options or Options)()), chance)
    places = ("takes_system", "takes_tools", "takes_turns")
    taken = {place: getattr(family, place) if says_what_it_takes else None for place in places}
    try:
        declared = Template(name, "", lambda tokenizer, options: source, family.stop_tokens, **taken)
        template = bind_to_tokenizer(declared, tokenizer)
    except (TemplateError, EndlessTemplateError):
        return
    for _ in range(3):
        talk = data.draw(conversations(template, [*PLAIN, "<|im_end|>", "</s>"]))
        try:
            examples = template.encode_batch([talk])
        except TemplateError:
            continue
        require_promises(template, talk, examples)
        assert all(example.input_ids.count(tokenizer.bos_token_id) == 1 for example in examples)
