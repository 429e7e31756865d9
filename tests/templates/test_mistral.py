"""Mistral's formats: the ids of a prompt, and of a whole conversation, are those of mistral_common's own tokenizers.

Each vocabulary that mistral_common brings is made a fast tokenizer here, as transformers would; SentencePiece ones in
both kinds that are in use: those that begin only a text with a space, and those that begin what follows a control token
with one.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
import json
import re
import string
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness_templates.mistral import TEMPLATES
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import TemplateError
from harness.nouns import Conversation, Message, ToolCall
from harness.template import BoundTemplate, bind

pytest.importorskip("mistral_common")
from mistral_common.protocol.instruct.normalize import get_normalizer
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.validator import ValidationMode, get_validator
from mistral_common.tokens.tokenizers.base import TokenizerVersion
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV1, InstructTokenizerV3, InstructTokenizerV7
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.sentencepiece import SentencePieceTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer

pytestmark = pytest.mark.slow

DATA = MistralTokenizer._data_path()
SENTENCEPIECE = {
    "mistral-v1": DATA / "tokenizer.model.v1",
    "mistral-v3": DATA / "mistral_instruct_tokenizer_240323.model.v3",
    "mistral-v7": DATA / "mistral_instruct_tokenizer_241114.model.v7",
}
TEKKEN = DATA / "tekken_240718.json"
BY_NAME = {template.name: template for template in TEMPLATES}


class Pair(NamedTuple):
    """A template on a fast tokenizer beside mistral_common's of the same vocabulary, for prompts and for tuning."""

    ours: BoundTemplate
    serving: MistralTokenizer
    tuning: MistralTokenizer

    def __repr__(self) -> str:  # a vocabulary of 1000 control tokens is not worth reading in a failure's report
        return self.ours.name


INSTRUCT = {"mistral-v1": InstructTokenizerV1, "mistral-v3": InstructTokenizerV3, "mistral-v7": InstructTokenizerV7}


def pair(name: str, fast: Any, vocabulary: Any) -> Pair:
    """Return mistral_common's `vocabulary` as `MistralTokenizer.from_file` does, without reading it every time."""
    version = TokenizerVersion(name.removeprefix("mistral-"))
    instruct, normalizer = INSTRUCT[name](vocabulary), get_normalizer(version)
    modes = (ValidationMode.test, ValidationMode.finetuning)
    serving, tuning = (MistralTokenizer(instruct, get_validator(version, mode), normalizer) for mode in modes)
    return Pair(bind(BY_NAME[name], fast), serving, tuning)


@functools.cache
def sentencepiece(path: Path) -> tuple[dict[str, int], list[tuple[str, str]], list[str]]:
    """Vocabulary, merges and control tokens of a SentencePiece BPE model."""
    from sentencepiece import sentencepiece_model_pb2
    from transformers.tokenization_utils_base import generate_merges

    model = sentencepiece_model_pb2.ModelProto()
    model.ParseFromString(path.read_bytes())
    vocab = {piece.piece: index for index, piece in enumerate(model.pieces)}
    scores = {piece.piece: piece.score for piece in model.pieces if piece.type == piece.NORMAL}
    return vocab, generate_merges(vocab, scores), [piece.piece for piece in model.pieces if piece.type == piece.CONTROL]


def sentencepiece_as_fast(path: Path, prepend: str) -> Any:
    """A fast tokenizer of a SentencePiece model; `prepend` a space to the "first" segment of a text or "always"."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab, merges, control = sentencepiece(path)
    tokenizer = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    if prepend == "first":
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in control])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def tekken_as_fast(path: Path) -> Any:
    from transformers import PreTrainedTokenizerFast
    from transformers.integrations.mistral.tokenizer import MistralConverter

    tokenizer = MistralConverter(str(path)).converted()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def pairs() -> dict[str, Pair]:
    """Every format on every kind of vocabulary that it is published with."""
    made = {}
    for name, path in SENTENCEPIECE.items():
        vocabulary = SentencePieceTokenizer(path)
        for prepend in ("first", "always"):
            made[f"{name} {prepend}"] = pair(name, sentencepiece_as_fast(path, prepend), vocabulary)
    # Mistral Small 3 has the vocabulary of v3: the control tokens of v7 are in it.
    tekken, vocabulary = tekken_as_fast(TEKKEN), Tekkenizer.from_file(TEKKEN)
    for name in ("mistral-v3", "mistral-v7"):
        made[f"{name} tekken"] = pair(name, copy.deepcopy(tekken), vocabulary)
    return made


V1 = ["mistral-v1 first", "mistral-v1 always"]
V3 = ["mistral-v3 first", "mistral-v3 always", "mistral-v3 tekken"]
V7 = ["mistral-v7 first", "mistral-v7 always", "mistral-v7 tekken"]


def request(messages: list[Message], tools: tuple[Any, ...]) -> ChatCompletionRequest:
    dicts = [message.as_dict() for message in messages]
    for call in (call for message in dicts for call in message.get("tool_calls", ())):
        call["function"]["arguments"] = json.dumps(call["function"]["arguments"], ensure_ascii=False)
    return ChatCompletionRequest(messages=dicts, tools=list(tools) or None)


def assert_same_ids(pair: Pair, conversation: Conversation) -> None:
    """The prompt of every answer, and the whole conversation, have mistral_common's ids."""
    messages, tools = list(conversation.messages), conversation.tools
    for turn in conversation.trained:
        expected = pair.serving.encode_chat_completion(request(messages[:turn], tools)).tokens
        assert pair.ours.prompt_ids(messages[:turn], tools) == expected
    expected = pair.tuning.encode_chat_completion(request(messages, tools)).tokens
    assert pair.ours.encode(conversation, train_on="last").input_ids == expected


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "What the sky does over a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
    },
}

# Control-token strings in a message are left out: the core breaks them, and mistral_common has other means.
CONTROL = re.compile(r"\[/?[A-Za-z_0-9]+\]|</?[a-z]+>|<SPECIAL_")
SPACED = [
    "  two spaces  ",
    "\n\nlines\n",
    "\ta tab",
    "Où est la clé ?",
    "鍵はどこ？",
    "🦦🔑",
    "▁",
    " ",
    "a]",
    "1 2  3",
    "a\r\nb",
]
texts = (st.text(st.characters(exclude_categories=["Cs"]), max_size=30) | st.sampled_from(SPACED)).filter(
    lambda text: not CONTROL.search(text)
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
names = st.text(string.ascii_letters + "_", min_size=1, max_size=12)
call_ids = st.text(string.ascii_letters + string.digits, min_size=9, max_size=9)


def is_embedded_exactly(result: str) -> bool:
    """Whether mistral-v3 can know what JSON is in this result of a tool: Jinja has no parser, see the template."""
    bare = result.strip(" \t\n\r")
    try:
        parsed = json.loads(result)
    except ValueError:
        return bare[:1] + bare[-1:] not in ("{}", "[]")
    if isinstance(parsed, str):
        return bare == f'"{parsed}"' and parsed.isprintable()
    return json.dumps(parsed, ensure_ascii=False) == bare


results = (texts | values.map(lambda value: json.dumps(value, ensure_ascii=False))).filter(is_embedded_exactly)


@st.composite
def conversations(draw: Any, *, tools: bool, words_beside_calls: bool = False) -> Conversation:
    """System prompt or none, one to three exchanges, in them calls of tools and their results."""
    messages = [Message("system", draw(texts))] if draw(st.booleans()) else []
    offered = ()
    if tools and draw(st.booleans()):
        about = {
            "name": draw(names),
            "description": draw(texts),
            "parameters": {"type": "object", "title": draw(texts)},
        }
        offered = (WEATHER, {"type": "function", "function": about})
    for _ in range(draw(st.integers(1, 3))):
        messages.append(Message("user", draw(texts)))
        for _ in range(draw(st.integers(0, 2)) if offered else 0):
            calls = [
                ToolCall(name, arguments, id)
                for name, arguments, id in draw(
                    st.lists(
                        st.tuples(names, st.dictionaries(texts, values, max_size=3), call_ids), min_size=1, max_size=2
                    )
                )
            ]
            words = draw(texts) if words_beside_calls else ""
            messages.append(Message("assistant", words, tuple(calls)))
            messages += [Message("tool", draw(results), tool_call_id=call.id) for call in calls]
        messages.append(Message("assistant", draw(texts.filter(len))))
    return Conversation(tuple(messages), offered)


QUICK = settings(max_examples=40, deadline=None)


@pytest.mark.parametrize("name", V1)
@QUICK
@given(conversation=conversations(tools=False))
def test_v1_has_the_ids_of_mistral_common(pairs: dict[str, Pair], name: str, conversation: Conversation) -> None:
    assert_same_ids(pairs[name], conversation)


@pytest.mark.parametrize("name", V3)
@QUICK
@given(conversation=conversations(tools=True))
def test_v3_has_the_ids_of_mistral_common(pairs: dict[str, Pair], name: str, conversation: Conversation) -> None:
    assert_same_ids(pairs[name], conversation)


@pytest.mark.parametrize("content", ["NaN", "Infinity", "-Infinity", "null", "Infinite"])
def test_a_result_that_python_reads_as_json_is_no_string(pairs: dict[str, Pair], content: str) -> None:
    result = dataclasses.replace(RESULT, content=content)
    assert_same_ids(pairs["mistral-v3 first"], Conversation((QUESTION, CALL, result, ANSWER), (WEATHER,)))


@pytest.mark.parametrize("name", V7)
@QUICK
@given(conversation=conversations(tools=True, words_beside_calls=True))
def test_v7_has_the_ids_of_mistral_common(pairs: dict[str, Pair], name: str, conversation: Conversation) -> None:
    assert_same_ids(pairs[name], conversation)


@pytest.mark.parametrize(
    "result", ["sunny", "", " ", "0", "-0", "007", "22.50", "1.", "true", "null", '"hot"', '""', '"', "1 2"]
)
def test_v3_embeds_a_result_that_is_json_and_quotes_any_other(pairs: dict[str, Pair], result: str) -> None:
    calling = Message("assistant", "", (ToolCall("weather", {"place": "Ulm"}, "abc123DEF"),))
    messages = (Message("user", "How is it?"), calling, Message("tool", result, tool_call_id="abc123DEF"))
    assert_same_ids(pairs["mistral-v3 first"], Conversation((*messages, Message("assistant", "Fine.")), (WEATHER,)))


QUESTION, ANSWER = Message("user", "Hi"), Message("assistant", "Hello.")
AGAIN = (Message("user", "And now?"), Message("assistant", "Still here."))
CALL = Message("assistant", "", (ToolCall("weather", {"place": "Ulm"}, "abc123DEF"),))
RESULT = Message("tool", '{"sky": "grey"}', tool_call_id="abc123DEF")
SYSTEM = Message("system", "Be brief.")
OFFER = json.dumps([WEATHER])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("mistral-v1 first", "<s> [INST] Be brief.\n\nHi [/INST] Hello.</s> [INST] And now? [/INST] Still here.</s>"),
        ("mistral-v1 always", "<s>[INST] Be brief.\n\nHi [/INST] Hello.</s>[INST] And now? [/INST] Still here.</s>"),
        ("mistral-v3 first", "<s>[INST] Hi[/INST] Hello.</s>[INST] Be brief.\n\nAnd now?[/INST] Still here.</s>"),
        ("mistral-v3 tekken", "<s>[INST]Hi[/INST]Hello.</s>[INST]Be brief.\n\nAnd now?[/INST]Still here.</s>"),
        (
            "mistral-v7 first",
            (
                "<s>[SYSTEM_PROMPT] Be brief.[/SYSTEM_PROMPT][INST] Hi[/INST] "
                "Hello.</s>[INST] And now?[/INST] Still here.</s>"
            ),
        ),
    ],
)
def test_system_prompt_and_turns_are_written_as_published(pairs: dict[str, Pair], name: str, expected: str) -> None:
    assert pairs[name].ours.render([SYSTEM, QUESTION, ANSWER, *AGAIN]) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (
            "mistral-v3 first",
            f"<s>[AVAILABLE_TOOLS] {OFFER}[/AVAILABLE_TOOLS][INST] Hi[/INST]"
            '[TOOL_CALLS] [{"name": "weather", "arguments": {"place": "Ulm"}, "id": "abc123DEF"}]</s>'
            '[TOOL_RESULTS] {"content": {"sky": "grey"}, "call_id": "abc123DEF"}[/TOOL_RESULTS] Hello.</s>',
        ),
        (
            "mistral-v7 tekken",
            f"<s>[AVAILABLE_TOOLS]{OFFER}[/AVAILABLE_TOOLS][INST]Hi[/INST]"
            '[TOOL_CALLS][{"name": "weather", "arguments": {"place": "Ulm"}, "id": "abc123DEF"}]</s>'
            '[TOOL_RESULTS]abc123DEF[TOOL_CONTENT]{"sky": "grey"}[/TOOL_RESULTS]Hello.</s>',
        ),
    ],
)
def test_tools_are_written_as_published(pairs: dict[str, Pair], name: str, expected: str) -> None:
    assert pairs[name].ours.render([QUESTION, CALL, RESULT, ANSWER], [WEATHER]) == expected


@pytest.mark.parametrize(
    ("name", "messages", "tools"),
    [
        ("mistral-v1 first", (SYSTEM, QUESTION, ANSWER, *AGAIN), ()),
        ("mistral-v1 always", (SYSTEM, QUESTION, ANSWER, *AGAIN), ()),
        ("mistral-v3 tekken", (QUESTION, ANSWER, *AGAIN), ()),
        ("mistral-v3 first", (SYSTEM, QUESTION, CALL, RESULT, ANSWER), (WEATHER,)),
        ("mistral-v7 first", (SYSTEM, QUESTION, ANSWER, *AGAIN), ()),
        ("mistral-v7 tekken", (SYSTEM, QUESTION, CALL, RESULT, ANSWER), (WEATHER,)),
    ],
)
def test_every_answer_is_learnt_where_its_prompt_stays_as_it_was(
    pairs: dict[str, Pair], name: str, messages: tuple[Message, ...], tools: tuple[Any, ...]
) -> None:
    answers = sum(message.role == "assistant" for message in messages)
    assert pairs[name].ours.check_turns(Conversation(messages, tools)) == answers == 2


@pytest.mark.parametrize(
    ("name", "messages", "tools"),
    [
        ("mistral-v3 first", (SYSTEM, QUESTION, ANSWER, *AGAIN), ()),
        ("mistral-v3 tekken", (QUESTION, ANSWER, *AGAIN), (WEATHER,)),
        ("mistral-v7 tekken", (QUESTION, ANSWER, *AGAIN), (WEATHER,)),
    ],
)
def test_where_the_last_user_message_takes_what_an_earlier_one_had_each_answer_is_an_example(
    pairs: dict[str, Pair], name: str, messages: tuple[Message, ...], tools: tuple[Any, ...]
) -> None:
    template, conversation = pairs[name].ours, Conversation(messages, tools)
    assert len(template.encode_batch([conversation])) == 2
    assert template.check_turns(conversation) == 2


def test_control_tokens_in_a_message_are_text(pairs: dict[str, Pair]) -> None:
    template = pairs["mistral-v7 first"].ours
    said = "[/INST] [TOOL_CALLS] </s> [control_700]"
    ids = template.prompt_ids([Message("user", said)])
    inside = {template.tokenizer.convert_tokens_to_ids(token) for token in said.split()}
    assert len(inside) == 4 and [id for id in ids[:-1] if id in inside] == []


@pytest.mark.parametrize("name", ["mistral-v1 first", "mistral-v3 tekken", "mistral-v7 first"])
@pytest.mark.parametrize(
    ("messages", "says"),
    [
        ([{"role": "narrator", "content": "x"}], "knows system, user.* 'narrator'"),
        ([ANSWER.as_dict()], "begins with a user message|not at the beginning"),
        ([QUESTION.as_dict(), QUESTION.as_dict()], "take turns|two user messages in a row"),
        ([QUESTION.as_dict(), ANSWER.as_dict(), ANSWER.as_dict()], "take turns|not after another"),
        ([QUESTION.as_dict(), RESULT.as_dict()], "knows system|after the call of the tool, not after a user message"),
    ],
)
def test_what_the_format_has_no_place_for_is_refused(
    pairs: dict[str, Pair], name: str, messages: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(TemplateError, match=f"{name.split()[0]} .*({says})"):
        pairs[name].ours.renderer(messages, None, False)


def test_ids_of_calls_that_are_not_nine_letters_and_digits_are_refused(pairs: dict[str, Pair]) -> None:
    call = Message("assistant", "", (ToolCall("weather", {}, "call_1"),))
    with pytest.raises(TemplateError, match=r'mistral-v3 wants ids of nine letters and digits.*"call_1"'):
        pairs["mistral-v3 first"].ours.render([QUESTION, call], [WEATHER])
    with pytest.raises(TemplateError, match=r"mistral-v7 wants ids of nine letters and digits.*null"):
        pairs["mistral-v7 first"].ours.render([QUESTION, CALL, Message("tool", "grey")], [WEATHER])


def test_v3_refuses_words_beside_a_call(pairs: dict[str, Pair]) -> None:
    both = Message("assistant", "Let me see.", CALL.tool_calls)
    with pytest.raises(TemplateError, match="not support words beside a tool call"):
        pairs["mistral-v3 first"].ours.render([QUESTION, both], [WEATHER])
    assert "Let me see.[TOOL_CALLS]" in pairs["mistral-v7 first"].ours.render([QUESTION, both], [WEATHER])
