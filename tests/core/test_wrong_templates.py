"""A template that would teach or serve something else than people think is caught, each in its own words."""

import re

import pytest

import harness
from harness.models import load_tokenizer
from harness.nouns import Conversation, Message, ToolCall
from harness.template import BoundTemplate
from harness.template.plain_text import END, protected
from harness.template.rendering import made_to_end

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
        r"no generation prompt that fits .*given '.*probe two<\|im_end\|>\\n', and learns answers that begin with '<\|im_start\|>assistant\\n'",
    ),
    "not prefix-stable": (
        EARLIER_ANSWERS_MARKED + PROMPT, TALK,
        r"(?s)does not grow by appending: the text up to message 3 \(assistant\) is not a prefix of the whole conversation.\n.*train_on: last",
    ),
    "not even for one exchange": (
        "{{ messages | length }}" + MESSAGES + PROMPT, SHORT, r"(?s)a question is rendered otherwise where its answer follows.*1.*2",
    ),
    "drops system prompts": (NO_SYSTEM + PROMPT, SHORT, r"declares that it takes system prompts, and does not: it drops what the system says"),
    "eos inside an answer": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | replace('. ', '.<|im_end|> ') }}") + PROMPT,
        Conversation.of(("user", "q"), ("assistant", "One. Two.")),
        r"message 2: the answer holds a stop token before its end: 'One.<\|im_end\|> Two.<\|im_end\|>",
    ),
    "two BOS": ("{{ bos_token }}{{ bos_token }}" + MESSAGES + PROMPT, SHORT, r"writes '<\|endoftext\|>', with which a text begins once, 2 times"),
    "unknown roles dropped": (KNOWN_ROLES + PROMPT, SHORT, r"drops messages of a role that it does not know \('narrator'\) without a word"),
    "loops": (LOOP + MESSAGES + PROMPT, SHORT, r"does not come to an end: stopped after 0.5 s"),
    "loops over too much": ("{% for a in range(999999) %}{% endfor %}", SHORT, r"cannot render this conversation: OverflowError: "),
    "raises": ("{{ raise_exception('users first') }}", SHORT, r"cannot render this conversation: users first"),
    "divides by zero": ("{{ 1 / 0 }}", SHORT, r"cannot render this conversation: ZeroDivisionError"),
    "names what is not there": ("{{ messages.of.nobody }}", SHORT, r"cannot render this conversation: .*has no attribute 'of'"),
    "leaves its sandbox": (
        "{{ ''.__class__.__mro__[1].__subclasses__() }}", SHORT, r"tries to leave its sandbox: .*'__class__'",
    ),
    "changes what it is given": ("{{ messages.append(1) }}", SHORT, r"tries to leave its sandbox: .*append"),
    "is not Jinja": ("{{ 'x' }}\n{% for %}", SHORT, r"line 2 is not valid Jinja: .*'{% for %}'"),
    "never stops": (MESSAGES.replace("<|im_end|>", "") + PROMPT, SHORT, r"does not end an answer with a stop token \(<\|im_end\|>\)"),
    "writes behind the stop token": (
        MESSAGES.replace("<|im_end|>\n", "<|im_end|>!\n") + PROMPT, SHORT, r"writes '!' after the stop token of an answer",
    ),
    "changes words": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | upper }}") + PROMPT, SHORT, r"drops or changes what the user says: 'probe two'",
    ),
    "changes some words": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | replace('heron', 'crane') }}") + PROMPT, SHORT,
        r"changes the assistant's words in message 2: 'The heron keeps it.' became 'The crane",
    ),
    "drops some words": (
        MESSAGES.replace("{{ m['content'] }}", "{{ m['content'] | replace('key', '') }}") + PROMPT, SHORT,
        r"drops or changes what message 1 \(user\) says: 'Who keeps the key\?'",
    ),
    "joins words over the edge": (
        JOINING, Conversation.of(("user", "the her"), ("assistant", "on keeps"), ("user", "a"), ("assistant", "b")),
        r"message 2: the token ' heron' holds the end of the prompt and the start of the answer together",
    ),
}  # fmt: skip


def declared(jinja: str, **places) -> harness.Template:
    return harness.Template("odd", "", lambda tokenizer: jinja, lambda tokenizer: ("<|im_end|>",), **places)


@pytest.mark.parametrize("kind", WRONG)
def test_a_wrong_template_is_caught_in_its_own_words(kind, tiny_model, monkeypatch):
    monkeypatch.setattr("harness.template.checks.made_to_end", lambda name: made_to_end(name, 0.5))
    jinja, talk, told = WRONG[kind]
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.bos_token = "<|endoftext|>"
    with pytest.raises(harness.TemplateError, match=told) as caught:
        BoundTemplate.bind(declared(jinja), tokenizer).encode(talk)
    assert "odd" in str(caught.value) or "message" in str(caught.value)


def test_tools_are_not_given_to_a_template_without_tools(tiny_model):
    template = BoundTemplate.bind(declared(MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    with pytest.raises(harness.TemplateError, match="template 'odd' has no place for tools"):
        template.encode(CALLING)
    with pytest.raises(
        harness.TemplateError, match="declares that it takes tools, and does not: it drops what the tool says"
    ):
        BoundTemplate.bind(declared(MESSAGES + PROMPT, takes_tools=True), load_tokenizer(str(tiny_model)))


def test_what_a_template_takes_is_found_out_where_it_does_not_say(tiny_model):
    leaves_open = {"takes_system": None, "takes_tools": None, "takes_turns": None}
    template = BoundTemplate.bind(declared(NO_SYSTEM + PROMPT, **leaves_open), load_tokenizer(str(tiny_model)))
    assert (template.takes_system, template.takes_tools, template.takes_turns) == (False, False, True)
    with pytest.raises(harness.TemplateError, match="no place for a system prompt"):
        template.encode(TALK)


def test_a_template_that_rewrites_earlier_answers_can_learn_the_last_one(tiny_model):
    template = BoundTemplate.bind(declared(EARLIER_ANSWERS_MARKED + PROMPT), load_tokenizer(str(tiny_model)))
    whole = template.tokenizer.decode(template.encode(Conversation(TALK.messages[:3]), "last").input_ids)
    assert "The heron keeps it.<|im_end|>" in whole
    with pytest.raises(harness.TemplateError, match="does not grow by appending: the text up to message 3"):
        template.encode(TALK)
    last = template.encode(TALK, "last")
    assert template.tokenizer.decode(last.input_ids).count("(earlier) ") == 1
    assert template.check_turns(TALK, "last") == 1


def test_a_loop_in_the_middle_of_a_batch_is_stopped(tiny_model):
    jinja = "{% for m in messages if 'bell' in m['content'] %}" + LOOP + "{% endfor %}" + MESSAGES + PROMPT
    template = BoundTemplate.bind(declared(jinja), load_tokenizer(str(tiny_model)))
    assert template.encode(SHORT).supervised
    with pytest.raises(harness.TemplateError, match="does not come to an end"), made_to_end("odd", 0.5):
        template.encode(TALK)


@pytest.mark.parametrize("leading", ["", "\n", "  ", "\n  \n"])
def test_what_a_template_begins_with_is_the_same_where_text_is_protected(leading, tiny_model):
    template = BoundTemplate.bind(declared(leading + MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    plain = template.render((Message("user", "hi"),))
    hostile = template.render((Message("user", "<|im_end|>"),))
    assert hostile.partition("<|im_start|>")[0] == plain.partition("<|im_start|>")[0]


@pytest.mark.parametrize("before", [END, protected("", ["<|other|>"])], ids=["its last line", "another run's"])
def test_a_prelude_that_a_template_brings_along_does_not_stand_in_for_ours(before, tiny_model):
    template = BoundTemplate.bind(declared(before + MESSAGES + PROMPT), load_tokenizer(str(tiny_model)))
    ids = template.prompt_ids((Message("user", "<|im_end|>"),))
    assert template.tokenizer.decode(ids).count("<|im_end|>") == 1, "the one that the template writes"


@pytest.mark.parametrize(
    ("jinja", "added"),
    [
        ("{{ m.content }}{% if m.role == 'assistant' and loop.index0 > 1 %} Anything else?{% endif %}", "Anything else?"),
        ("{% if m.role == 'assistant' and m.content|length < 4 %}Answer: {% endif %}{{ m.content }}", "nswer: A"),
    ],
    ids=["after", "before"],
)  # fmt: skip
def test_words_that_nobody_said_are_not_learnt(jinja, added, tiny_model):
    jinja = "{% for m in messages %}<|im_start|>{{ m.role }}\n" + jinja + "<|im_end|>\n{% endfor %}" + PROMPT
    template = BoundTemplate.bind(declared(jinja), load_tokenizer(str(tiny_model)))
    talk = Conversation.of(("user", "Q?"), ("assistant", "Four"), ("user", "Again?"), ("assistant", "A"))
    with pytest.raises(
        harness.TemplateError, match=f"words into the answer of message . that nobody said.*'{re.escape(added)}"
    ):
        template.encode(talk)


@pytest.mark.parametrize(("token", "said"), [("[[", "a [[[[[ b"), ("---", "-----"), ("|x|", "a |x|x|x| b")])
def test_a_token_that_overlaps_itself_stays_text(token, said, tiny_model):
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.add_tokens([token], special_tokens=True)
    template = BoundTemplate.bind(declared(MESSAGES + PROMPT), tokenizer)
    assert tokenizer.convert_tokens_to_ids(token) not in template.prompt_ids((Message("user", said),))


def test_a_template_that_undoes_the_protection_is_refused_before_anything_is_learnt(tiny_model):
    jinja = (MESSAGES + PROMPT).replace("m['content']", "m['content'] | replace('\u200b', '')")
    assert "replace" in jinja
    with pytest.raises(harness.TemplateError, match="makes control tokens of what somebody says"):
        BoundTemplate.bind(declared(jinja), load_tokenizer(str(tiny_model)))
