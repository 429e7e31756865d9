"""A template that would teach or serve something else than people think is caught, each in its own words."""

import dataclasses
import re

import pytest

import harness
from harness.errors import EndlessTemplateError
from harness.model.tokenizer import load_tokenizer
from harness.nouns import Conversation, Message, ToolCall
from harness.template import bind
from harness.template.escape import END, protected
from harness.template.render import time_limited

TALK = Conversation.of(
    ("system", "Be brief."), ("user", "Who keeps the key?"), ("assistant", "The heron keeps it."),
    ("user", "And the bell?"), ("assistant", "The otter."),
)  # fmt: skip
SHORT = Conversation(TALK.messages[1:3])
MESSAGES = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
JOINING = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}<|im_end|>{% endif %}{% endfor %}"
NO_SYSTEM = MESSAGES.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
KNOWN_ROLES = MESSAGES.replace(
    "{% for m in messages %}", "{% for m in messages if m['role'] in ['system', 'user', 'assistant'] %}"
)
EARLIER_ANSWERS_MARKED = MESSAGES.replace(
    "{{ m['content'] }}", "{{ m['content'] if loop.last or m['role'] != 'assistant' else '(earlier) ' + m['content'] }}"
)
LOOP = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}"
CALLING = Conversation(
    (
        Message("user", "q"),
        Message("assistant", "", (ToolCall("look", {"at": "key"}),)),
        Message("tool", "here"),
        Message("assistant", "a"),
    )
)

# What is wrong with it: its Jinja, what is said through it, and what it is told.
WRONG = {
    "no generation prompt": (
        MESSAGES, SHORT,
        r"no generation prompt that fits .*given '.*probe two<\|im_end\|>\\n', and learns "
        r"answers that begin with '<\|im_start\|>assistant\\n'",
    ),
    "not even for one exchange": (
        "{{ messages | length }}" + MESSAGES + PROMPT, SHORT,
        r"(?s)is rendered otherwise where its answer follows.*1.*2",
    ),
    "drops system prompts": (NO_SYSTEM + PROMPT, SHORT,
                             r"declares that it takes system prompts, and does not: it drops what the system says"),
    "eos inside an answer": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | replace('. ', '.<|im_end|> ') }}") + PROMPT,
        Conversation.of(("user", "q"), ("assistant", "One. Two.")),
        r"message 2: template 'odd' goes on behind the token that ends its answers, 'One.<\|im_end\|>', "
        r"where an engine stops: ' Two.",
    ),
    "two BOS": ("{{ bos_token }}{{ bos_token }}" + MESSAGES + PROMPT, SHORT,
                r"writes '<\|endoftext\|>' 2 times, and a text begins with it once"),
    "unknown roles dropped": (KNOWN_ROLES + PROMPT, SHORT,
                              r"drops messages of a role that it does not know \('narrator'\) without a word"),
    "loops": (LOOP + MESSAGES + PROMPT, SHORT, r"does not come to an end: stopped after 0.5 s"),
    "loops over too much": ("{% for a in range(999999) %}{% endfor %}", SHORT,
                            r"cannot render this conversation: OverflowError: "),
    "makes a number without end": ("{{ 9 ** (9 ** 9) }}", SHORT, r"`\*\*` would make something of a size of 2e\+09"),
    "makes a text without end": ("{{ 'a' * (10 ** 11) }}", SHORT, r"`\*` would make something of a size of 1e\+11"),
    "fills a line without end": ("{{ 'a'.center(10 ** 11) }}", SHORT,
                                 r"`center` would make something of a size of 1e\+11"),
    "multiplies text": ("{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}", SHORT,
                        r"makes more text than fits into memory"),
    "nests too deeply": ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", SHORT, r"its Jinja is nested too deeply"),
    "calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", SHORT,
                     r"RecursionError: maximum recursion depth"),
    "indents without end": ("{{ 'a' | indent(10 ** 11) }}", SHORT,
                            r"`indent` would make something of a size of 1e\+11"),
    "formats without end": ("{{ '%99999999999d' % 1 }}", SHORT,
                            r"the format '%99999999999d' has a width that is too large"),
    "formats without end, by a method": ("{{ '{:{}}'.format(1, 10 ** 11) }}", SHORT,
                                         r"the format '{:{}}' has a width that is too large or is not written out"),
    "asks the clock": (MESSAGES + PROMPT + "{{ strftime_now('%Y') }}", SHORT,
                       r"it asks the clock \(`strftime_now`\), so that a prompt would not be the same"),
    "draws lots": (MESSAGES + PROMPT + "{{ ['a', 'b'] | random }}", SHORT,
                   r"it draws lots \(`random`\), so that a prompt would not be the same"),
    "raises": ("{{ raise_exception('users first') }}", SHORT, r"cannot render this conversation: users first"),
    "divides by zero": ("{{ 1 / 0 }}", SHORT, r"cannot render this conversation: ZeroDivisionError"),
    "names what is not there": ("{{ messages.of.nobody }}", SHORT,
                                r"cannot render this conversation: .*has no attribute 'of'"),
    "leaves its sandbox": (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", SHORT, r"tries to leave its sandbox: .*'__class__'",
    ),
    "changes what it is given": ("{{ messages.append(1) }}", SHORT, r"tries to leave its sandbox: .*append"),
    "is not Jinja": ("{{ 'x' }}\n{% for %}", SHORT, r"line 2 is not valid Jinja: .*'{% for %}'"),
    "never stops": (MESSAGES.replace("<|im_end|>", "") + PROMPT, SHORT,
                    r"does not end message 2 with a stop token \(<\|im_end\|>\)"),
    "writes behind the stop token": (
        MESSAGES.replace("<|im_end|>\n", "<|im_end|>!\n") + PROMPT, SHORT,
        r"writes '!\\n' after the stop token of message 2",
    ),
    "changes words": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | upper }}") + PROMPT, SHORT,
        r"drops or changes what the user says: 'probe two'",
    ),
    "changes some words": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | replace('heron', 'crane') }}") + PROMPT, SHORT,
        r"changes the assistant's words in message 2: 'The heron keeps it.' became 'The crane",
    ),
    "drops some words": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | replace('key', '') }}") + PROMPT, SHORT,
        r"drops or changes what message 1 \(user\) says: 'Who keeps the key\?'",
    ),
}  # fmt: skip


def declared(jinja: str, **places) -> harness.Template:
    return harness.Template("odd", "", lambda tokenizer, options: jinja, lambda tokenizer: ("<|im_end|>",), **places)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_template_is_caught_in_its_own_words(kind, tiny_model, monkeypatch):
    jinja, talk, told = WRONG[kind]
    if kind == "loops":  # any time is short enough for what never ends, and none is for what does
        monkeypatch.setattr("harness.template.binding.time_limited", lambda name: time_limited(name, 0.5))
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.bos_token = "<|endoftext|>"
    with pytest.raises((harness.TemplateError, EndlessTemplateError), match=told) as caught:
        bind(declared(jinja), tokenizer).encode(talk)
    assert "odd" in str(caught.value) or "message" in str(caught.value)


def test_tools_are_not_given_to_a_template_without_tools(tiny_model):
    template = bind(declared(MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    with pytest.raises(harness.TemplateError, match="template 'odd' does not support tools"):
        template.encode(CALLING)
    with pytest.raises(
        harness.TemplateError, match="declares that it takes tools, and does not: it drops what the tool says"
    ):
        bind(declared(MESSAGES + PROMPT, takes_tools=True), load_tokenizer(str(tiny_model)))


def test_what_a_template_takes_is_found_out_where_it_does_not_say(tiny_model):
    leaves_open = {"takes_system": None, "takes_tools": None, "takes_turns": None}
    template = bind(declared(NO_SYSTEM + PROMPT, **leaves_open), load_tokenizer(str(tiny_model)))
    assert (template.takes_system, template.takes_tools, template.takes_turns) == (False, False, True)
    with pytest.raises(harness.TemplateError, match="not support a system prompt"):
        template.encode(TALK)


def test_a_template_that_rewrites_earlier_answers_gives_one_example_an_answer(tiny_model):
    template = bind(declared(EARLIER_ANSWERS_MARKED + PROMPT), load_tokenizer(str(tiny_model)))
    first, second = map(template.decoded, (one.input_ids for one in template.encode_batch([TALK])))
    assert first.endswith("assistant\nThe heron keeps it.<|im_end|>") and "(earlier) " not in first
    assert "(earlier) The heron keeps it.<|im_end|>" in second and second.endswith("assistant\nThe otter.<|im_end|>")
    with pytest.raises(harness.TemplateError, match="this conversation is 2 examples, one an answer"):
        template.encode(TALK)
    assert template.check_turns(TALK) == 2 and template.check_turns(TALK, "last") == 1


def test_where_words_join_over_the_edge_each_answer_has_the_prompt_of_serving(tiny_model):
    template = bind(declared(JOINING), load_tokenizer(str(tiny_model)))
    talk = Conversation.of(("user", "the her"), ("assistant", "on keeps"), ("user", "a"), ("assistant", "b"))
    assert len(template.encode_batch([talk])) == 2 and template.check_turns(talk) == 2


def test_a_loop_in_the_middle_of_a_batch_is_stopped(tiny_model):
    jinja = "{% for m in messages if 'bell' in m['content'] %}" + LOOP + "{% endfor %}" + MESSAGES + PROMPT
    template = bind(declared(jinja), load_tokenizer(str(tiny_model)))
    assert template.encode(SHORT).supervised
    with pytest.raises(EndlessTemplateError, match="does not come to an end"), time_limited("odd", 0.5):
        template.encode(TALK)


@pytest.mark.parametrize("leading", ["", "\n", "  ", "\n  \n"])
def test_what_a_template_begins_with_is_the_same_where_text_is_protected(leading, tiny_model):
    template = bind(declared(leading + MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    plain = template.render((Message("user", "hi"),))
    hostile = template.render((Message("user", "<|im_end|>"),))
    assert hostile.partition("<|im_start|>")[0] == plain.partition("<|im_start|>")[0]


@pytest.mark.parametrize("before", [END, protected("", ["<|other|>"])], ids=["its last line", "another run's"])
def test_a_prelude_that_a_template_brings_along_does_not_stand_in_for_ours(before, tiny_model):
    template = bind(declared(before + MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    ids = template.prompt_ids((Message("user", "<|im_end|>"),))
    assert template.tokenizer.decode(ids).count("<|im_end|>") == 1, "the one that the template writes"


@pytest.mark.parametrize(
    ("jinja", "added"),
    [
        ("{{ m.content }}{% if m.role == 'assistant' and loop.index0 > 1 %} Anything else?{% endif %}",
         "Anything else?"),
        ("{% if m.role == 'assistant' and m.content|length < 4 %}Answer: {% endif %}{{ m.content }}", "nswer: A"),
    ],
    ids=["after", "before"],
)  # fmt: skip
def test_words_that_nobody_said_are_not_learnt(jinja, added, tiny_model):
    jinja = "{% for m in messages %}<|im_start|>{{ m.role }}\n" + jinja + "<|im_end|>\n{% endfor %}" + PROMPT
    template = bind(declared(jinja), load_tokenizer(str(tiny_model)))
    talk = Conversation.of(("user", "Q?"), ("assistant", "Four"), ("user", "Again?"), ("assistant", "A"))
    with pytest.raises(
        harness.TemplateError, match=f"words into the answer of message . that nobody said.*'{re.escape(added)}"
    ):
        template.encode(talk)


@pytest.mark.parametrize(("token", "said"), [("[[", "a [[[[[ b"), ("---", "-----"), ("|x|", "a |x|x|x| b")])
def test_a_token_that_overlaps_itself_stays_text(token, said, tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.add_tokens([token], special_tokens=True)
    template = bind(declared(MESSAGES + PROMPT), tokenizer)
    assert tokenizer.convert_tokens_to_ids(token) not in template.prompt_ids((Message("user", said),))


def test_a_template_that_undoes_the_protection_is_refused_before_anything_is_learnt(tiny_model):
    jinja = (MESSAGES + PROMPT).replace("m['content']", "m['content'] | replace('\u200b', '')")
    assert "replace" in jinja
    with pytest.raises(harness.TemplateError, match="makes control tokens of what somebody says"):
        bind(declared(jinja), load_tokenizer(str(tiny_model)))


FOUND_OUT = {"takes_system": None, "takes_tools": None, "takes_turns": None}
TOOLS = tuple(
    {"type": "function", "function": {"name": name, "description": "", "parameters": {}}} for name in ("look", "hear")
)
CALLS = (ToolCall("look", {"at": "key"}), ToolCall("look", {"at": "bell", "how": ["twice"]}))
USING = Conversation(
    (Message("system", "s"), Message("user", "q"), Message("assistant", "", CALLS), Message("tool", "here"),
     Message("tool", "here"), Message("assistant", "a")), TOOLS,
)  # fmt: skip
OFFERED = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}"
CALLED = "{% for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}"
WITH_TOOLS = OFFERED + MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] }}" + CALLED) + PROMPT


@pytest.mark.parametrize(
    ("written", "instead", "told"),
    [
        ("{% for t in tools %}", "{% for t in tools[:1] %}", "drops the tool 'hear'"),
        ("{% if tools %}", "{% if tools and messages[0].role != 'system' %}", "drops the tool 'hear'"),
        ("in m.tool_calls or []", "in (m.tool_calls or [])[:1]", "drops a call of 'look' in message 3"),
        ("c.function | tojson", "c.function | tojson | replace('twice', '')",
         "drops or changes an argument of the call of 'look' in message 3: 'twice'"),
        ("{{ m['content'] }}", "{{ m['content'] if m.role != 'tool' or loop.previtem.role != 'tool' }}",
         "drops or changes what message 5 .tool. says"),
    ],
)  # fmt: skip
def test_a_model_s_own_template_that_drops_a_tool_or_a_call_is_caught_where_it_does(written, instead, told, tiny_model):
    def bound(source):
        return bind(declared(source, **FOUND_OUT), load_tokenizer(str(tiny_model)))

    assert bound(WITH_TOOLS).takes_tools
    assert bound(WITH_TOOLS).encode(USING).supervised
    assert written in WITH_TOOLS
    with pytest.raises(harness.TemplateError, match=told):
        bound(WITH_TOOLS.replace(written, instead)).encode(USING)


@pytest.fixture
def with_bos(tiny_model):
    """A tokenizer that begins every text with <|bos|>."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.add_special_tokens({"bos_token": "<|bos|>"})
    bos = ("<|bos|>", tokenizer.bos_token_id)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|bos|> $A", None, [bos])
    return tokenizer


def test_bos_is_written_where_a_template_forgets_it(with_bos):
    for places in ({}, FOUND_OUT):
        ids = bind(declared(MESSAGES + PROMPT, **places), with_bos).encode(SHORT).input_ids
        assert ids[0] == with_bos.bos_token_id
        assert ids.count(with_bos.bos_token_id) == 1


@pytest.mark.parametrize(
    ("jinja", "times"),
    [
        ("{% for m in messages %}{{ bos_token if m.role == 'user' }}", 2),
        ("{{ bos_token }}{{ bos_token if messages[0].role == 'system' }}{% for m in messages %}", 2),
        ("{{ bos_token if messages[0].role == 'user' }}{% for m in messages %}", 0),
    ],
    ids=["in every exchange", "twice with a system prompt", "not with a system prompt"],
)
def test_every_example_has_one_bos(jinja, times, with_bos):
    source = MESSAGES.replace("{% for m in messages %}", jinja) + PROMPT
    template = bind(declared(source, **FOUND_OUT), with_bos)
    assert template.encode(SHORT).supervised
    with pytest.raises(
        harness.TemplateError, match=f"writes BOS {times} times, and this tokenizer begins a text with it, once"
    ):
        template.encode(TALK)


def test_a_bos_that_ends_answers_too_is_no_second_bos(with_bos):
    with_bos.add_special_tokens({"eos_token": "<|bos|>"})
    template = harness.Template(
        "odd",
        "",
        lambda tokenizer, options: MESSAGES.replace("<|im_end|>", "<|bos|>") + PROMPT,
        lambda tokenizer: ("<|bos|>",),
    )
    assert bind(template, with_bos).encode(TALK).supervised


def test_a_tokenizer_whose_control_tokens_have_other_spellings_is_refused(tiny_model):
    from tokenizers import AddedToken, normalizers

    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.backend_tokenizer.normalizer = normalizers.NFKC()
    tokenizer.add_tokens([AddedToken("<|note|>", special=True, normalized=False)])
    assert bind(declared(MESSAGES + PROMPT), tokenizer).encode(SHORT).supervised
    tokenizer.add_tokens([AddedToken("<|aside|>", special=True, normalized=True)])
    with pytest.raises(
        harness.TemplateError,
        match=r"takes '＜｜ａｓｉｄｅ｜＞' for its control token '<\|aside\|>'.*`\"normalized\": false`",
    ):
        bind(declared(MESSAGES + PROMPT), tokenizer)


def test_a_control_token_of_one_character_is_refused(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.add_tokens(["§"], special_tokens=True)
    with pytest.raises(harness.TemplateError, match="has the control token '§', a single character"):
        bind(declared(MESSAGES + PROMPT), tokenizer)


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda path: None, ": no such folder"),
        (lambda path: path.write_text("{}"), ": not a model folder but a file"),
        (lambda path: path.mkdir(), ": no tokenizer in this folder: it has no tokenizer.json"),
    ],
    ids=["nothing", "a file", "an empty folder"],
)
def test_where_there_is_no_tokenizer_it_is_said(make, told, tmp_path):
    make(tmp_path / "model")
    with pytest.raises(harness.ModelError, match=told):
        load_tokenizer(str(tmp_path / "model"))


def test_a_conversation_that_begins_with_an_answer_is_told_why(tiny_model):
    template = bind(declared(MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    greeting = (Message("assistant", "Hello."), Message("user", "Hi"), Message("assistant", "Yes?"))
    with pytest.raises(
        harness.TemplateError, match=r"begins with an answer, to which template 'odd' has no prompt.*weight: 0"
    ):
        template.encode(Conversation(greeting))
    silent = Message("assistant", "Hello.", train=False)
    assert template.encode(Conversation((silent, *greeting[1:]))).supervised


def test_large_numbers_are_no_large_sizes(tiny_model):
    jinja = (
        "{{ 12345678 | round(1) }} {{ 12345678 | tojson }} {{ '%s' % 12345678 }} {{ '{}'.format(12345678) }} "
        "{{ 12345678 * 2 }} {{ '-' * 80 }}"
    )
    template = bind(declared(jinja + MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    assert template.opening.startswith("12345678 12345678 12345678 12345678 24691356 " + "-" * 80)


def test_words_that_a_vocabulary_was_given_stay_words(tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.add_tokens(["heron", "assistant", "content"])
    template = bind(declared(MESSAGES + PROMPT), tokenizer)
    assert "heron" not in template.control_tokens
    example = template.encode(Conversation.of(("user", "Who?"), ("assistant", "The heron is the assistant.")))
    assert tokenizer.convert_tokens_to_ids("heron") in example.input_ids
    assert "\u200b" not in tokenizer.decode(example.input_ids)


def test_a_tokenizer_that_loses_words_is_refused(tiny_model):
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    broken = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="<|im_end|>")
    broken.add_tokens(["<|im_start|>", "<|im_end|>"], special_tokens=True)
    with pytest.raises(
        harness.TemplateError, match=r"does not keep what is said: 'probe two probe three' comes back as ''"
    ):
        bind(declared(MESSAGES + PROMPT), broken)


class Clock:
    """A processor's time that passes when a test says so, and that counts how often it is looked at."""

    def __init__(self) -> None:
        self.now_s, self.looks = 0.0, 0

    def __call__(self, thread: int) -> float:
        self.looks += 1
        return self.now_s


def test_the_time_limit_is_one_text_s_and_not_a_batch_s(tiny_model, monkeypatch, wait_until):
    template = bind(declared(MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    monkeypatch.setattr("harness.template.render._processor_time", clock := Clock())

    def render() -> None:
        """Takes 0.03 s, after which the watch looks at least once."""
        template._rendered(TALK, "all", "learn")
        clock.now_s += 0.03
        looks = clock.looks
        wait_until(lambda: clock.looks > looks + 1)

    with time_limited("odd", 0.05, each=True):
        for _ in range(5):
            render()
    with pytest.raises(EndlessTemplateError), time_limited("odd", 0.05):
        while True:
            render()
    assert clock.now_s == pytest.approx(7 * 0.03)


CHAIN = (
    "{% for m in messages %}{% if m.role in ['system', 'developer', 'user', 'assistant'] %}<|im_start|>{{ m.role }}\n"
    "{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
)


@pytest.mark.parametrize(
    ("source", "refused", "written"),
    [
        (KNOWN_ROLES, ("tool", "narrator", "developer"), ()),
        (CHAIN, ("tool", "narrator"), ("developer",)),
        (MESSAGES, ("narrator", "im_end"), ("tool", "developer")),
    ],
    ids=["three roles", "developers too", "all roles"],
)
def test_a_model_s_own_template_refuses_in_serving_the_roles_that_it_does_not_know(
    source, refused, written, tiny_model
):
    template = bind(declared(source + PROMPT, **FOUND_OUT), load_tokenizer(str(tiny_model)))

    def served(role):
        return template.tokenizer.apply_chat_template(
            [{"role": "user", "content": "q"}, {"role": role, "content": "aside"}], tokenize=False
        )

    for role in refused:
        with pytest.raises(Exception, match=f"not support a message of the role {role}"):
            served(role)
    for role in written:
        assert "aside" in served(role)


def test_where_something_lies_in_memory_is_no_prompt(tiny_model):
    with pytest.raises(
        harness.TemplateError,
        match=r"writes where something lies in memory.*'<built-in method items of dict object at 0x",
    ):
        bind(declared("{{ messages[0].items }}" + MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))


def test_half_a_surrogate_pair_is_told(tiny_model):
    template = bind(declared(MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    with pytest.raises(harness.TemplateError, match="not valid Unicode"):
        template.encode(Conversation.of(("user", "a\ud800"), ("assistant", "b")))


@pytest.mark.parametrize("answer", ["東京", "Zürich", "The HERON"])
def test_an_answer_that_the_tokenizer_cannot_write_is_told(answer, tiny_model):
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    if answer.isascii():
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.train_from_iterator(
        ["probe one two three four five six seven eight nine system user assistant words The HERON Zrich x"],
        trainers.BpeTrainer(vocab_size=300, special_tokens=["<|im_start|>", "<|im_end|>", "\n"], show_progress=False),
    )
    from tokenizers import decoders

    tokenizer.decoder = decoders.Metaspace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>")
    template = bind(declared(MESSAGES + PROMPT), fast)
    assert template.encode(Conversation.of(("user", "two"), ("assistant", "three words"))).supervised
    with pytest.raises(harness.TemplateError, match="message 2: this tokenizer cannot write the answer"):
        template.encode(Conversation.of(("user", "two"), ("assistant", answer)))


@pytest.mark.parametrize("leading", ["", "\n", "  ", "\n  \n", "  {% if true %}x{% endif %}\n"])
def test_bos_is_written_before_what_a_template_begins_with(leading, with_bos, tiny_model):
    without = bind(declared(leading + MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    template = bind(declared(leading + MESSAGES + PROMPT), with_bos)
    assert template.opening == "<|bos|>" + without.opening


@pytest.mark.parametrize("arguments", [{"at": 12345}, {"at": {"far": [0.5]}}])
def test_a_number_in_a_call_is_not_dropped(arguments, tiny_model):
    talk = Conversation(
        (*CALLING.messages[:1], Message("assistant", "", (ToolCall("look", arguments),)), *CALLING.messages[2:])
    )
    template = bind(declared(WITH_TOOLS, **FOUND_OUT), load_tokenizer(str(tiny_model)))
    assert template.encode(talk).supervised
    template.tokenizer.chat_template = WITH_TOOLS.replace("c.function | tojson", "c.function.name ~ ' at far'")
    with pytest.raises(
        harness.TemplateError, match=r"drops or changes an argument of the call of 'look' in message 2: '(12345|0.5)'"
    ):
        dataclasses.replace(template).encode(talk)


def test_arguments_that_are_nested_too_deeply_are_told(tiny_model):
    deep: dict = {}
    for _ in range(5000):
        deep = {"x": deep}
    template = bind(declared(WITH_TOOLS, **FOUND_OUT), load_tokenizer(str(tiny_model)))
    talk = Conversation((Message("user", "q"), Message("assistant", "", (ToolCall("look", deep),))), TOOLS[:1])
    with pytest.raises(harness.TemplateError, match=r"nested too deeply|RecursionError"):
        template.encode(talk)


def test_accents_and_hidden_characters_that_a_tokenizer_takes_out_make_no_control_token(tiny_model):
    from tokenizers import AddedToken, normalizers

    for normalizer in (
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents()]),
        normalizers.BertNormalizer(lowercase=False),
    ):
        tokenizer = load_tokenizer(str(tiny_model))
        tokenizer.backend_tokenizer.normalizer = normalizer
        tokenizer.add_tokens([AddedToken("<|aside|>", special=True, normalized=True)])
        with pytest.raises(harness.TemplateError, match=r"for its control token '<\|aside\|>'"):
            bind(declared(MESSAGES + PROMPT), tokenizer)
