"""The first-party filters: what each leaves out, and what it lets pass."""

import random

import pytest
from harness_cleaning import duplicates, language, length, near_duplicates, refusals, tool_calls, turns
from harness_cleaning.near_duplicates import SimilarityIndex, ngrams, rows_per_band
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.nouns import Message, Preference, ToolCall

FILTERS = {
    declared.name: declared
    for module in (duplicates, near_duplicates, turns, length, language, tool_calls, refusals)
    for declared in module.FILTERS
}


def made(name, **options):
    declared = FILTERS[name]
    return declared.create(declared.options(**options))


def said(*turns):
    return harness.Conversation.of(*turns)


def asked(answer, question="Why?"):
    return said(("user", question), ("assistant", answer))


# Duplicates


def test_of_rows_that_say_the_same_the_first_stays():
    judge = made("exact_duplicates")
    assert judge(asked("Because it is.")) is None
    assert judge(asked("Because  it\nis. ")) == "says the same as an earlier row"
    assert judge(asked("Because it was.")) is None
    assert judge(Preference(asked("a").messages[:1], asked("a").messages[1:], ())) is None
    assert judge(Preference(asked("a").messages[:1], (), asked("a").messages[1:])) is None  # good, and bad


def test_rows_that_offer_other_tools_are_no_exact_duplicates():
    judge = made("exact_duplicates")
    said_so = asked("I cannot do that with the tools I have.").messages
    tools = [{"type": "function", "function": {"name": name}} for name in ("send_mail", "get_time")]
    offered = [harness.Conversation(said_so, (tool,)) for tool in tools]
    assert [judge(item) for item in (*offered, harness.Conversation(said_so))] == [None, None, None]
    assert judge(offered[0]) == "says the same as an earlier row"


VOCABULARY = [f"word{n}" for n in range(3000)]


def text(rng, words=150):
    return [rng.choice(VOCABULARY) for _ in range(words)]


def test_near_duplicates_are_found_and_others_are_not():
    rng = random.Random(5)
    judge = made("near_duplicates")
    originals = [text(rng) for _ in range(200)]
    assert all(judge(asked(" ".join(words))) is None for words in originals)
    found = 0
    for words in originals:
        edited = list(words)
        edited[rng.randrange(150)] = "another"  # one word of 150 is three trigrams: Jaccard 0.96
        found += judge(asked(" ".join(edited))) == "is 80% or more like an earlier row"
    assert found == 200
    assert all(judge(asked(" ".join(text(rng)))) is None for _ in range(200))


DEFINITION = "In this task you are given a short line and have to say what is named in it. " + " ".join(
    text(random.Random(0), 120)
)


def test_rows_of_one_task_are_compared_by_what_each_asks():
    """Of 1,000 distinct rows that share a definition and two answers all are kept, but for three of the first four."""
    rng, judge = random.Random(3), made("near_duplicates")
    rows = [asked(rng.choice(["yes", "no"]), f"{DEFINITION}\n{' '.join(text(rng, 12))}") for _ in range(1000)]
    assert sum(judge(row) is None for row in rows) >= 997
    assert sum(judge(row) is None for row in rows) <= 4  # and a row that comes again is one, but for the first


def test_rows_about_one_passage_with_other_answers_stay():
    rng, judge = random.Random(4), made("near_duplicates")
    passage = " ".join(text(rng, 200))
    rows = [asked(" ".join(text(rng, 5)), f"{passage}\n{' '.join(text(rng, 8))}?") for _ in range(5)]
    assert [judge(row) for row in rows] == [None] * 5


@pytest.mark.parametrize(
    ("of", "kept"),
    [
        ("both", [True, True, True, False]),
        ("question", [True, False, True, False]),
        ("answer", [True, True, False, False]),
    ],
)
def test_near_duplicates_are_those_of_the_question_the_answer_or_both(of, kept):
    rng = random.Random(6)
    one, other, third, fourth = (" ".join(text(rng, 40)) for _ in range(4))
    judge = made("near_duplicates", of=of)
    rows = [
        asked(one, other),
        asked(third, f"{other} again"),
        asked(f"{one} again", fourth),
        asked(f"{one} so", f"{other} so"),
    ]
    assert [judge(row) is None for row in rows] == kept


def test_the_calls_of_an_answer_are_part_of_it():
    calls = [Message("assistant", "", (ToolCall("look_up", {"word": word}),)) for word in ("heron", "willow", "heron")]
    question = said(("user", "Look the word up in the large dictionary")).messages
    judge = made("near_duplicates")
    assert [judge(harness.Conversation((*question, call))) is None for call in calls] == [True, True, False]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 0.7, 0.9]))
def test_the_similarity_that_is_estimated_is_the_one_there_is(seed, similarity):
    rensa = pytest.importorskip("rensa")
    rng = random.Random(seed)
    common = [str(rng.random()) for _ in range(int(300 * 2 * similarity / (1 + similarity)))]
    index = SimilarityIndex(512, 0.99)
    digests = []
    for _ in range(2):
        sketch = rensa.RMinHash(num_perm=512, seed=42)
        sketch.update(common + [str(rng.random()) for _ in range(300 - len(common))])
        digests.append(sketch.digest())
    assert index.add(digests[0])
    assert abs(index._similarity(bytes(value & 255 for value in digests[1]), 0) - similarity) < 0.12


@given(st.lists(st.lists(st.integers(0, 3), min_size=16, max_size=16), max_size=30))
def test_the_index_agrees_with_comparing_every_row_with_every_other(rows):
    """With a threshold of 1 a row is there exactly if an equal one is, in chains, growth and collisions too."""
    index, seen = SimilarityIndex(16, 1.0), set()
    for row in rows:
        assert index.add(row) is (tuple(row) not in seen)
        seen.add(tuple(row))
    assert len(index) == len(seen)


def test_the_index_still_finds_everything_after_it_has_grown():
    rng = random.Random(1)
    index = SimilarityIndex(128, 0.8)
    rows = [[rng.getrandbits(32) for _ in range(128)] for _ in range(1500)]
    assert all(index.add(row) for row in rows) and len(index._heads) >= len(index._keys)
    assert not any(index.add(row) for row in rows)


def test_bands_are_as_wide_as_the_recall_allows():
    for num_perm, threshold in ((128, 0.8), (128, 0.5), (64, 0.9), (16, 1.0)):
        rows = rows_per_band(num_perm, threshold)
        assert 1 - (1 - threshold**rows) ** (num_perm // rows) >= 0.95


def test_a_text_shorter_than_the_ngrams_is_one_and_an_empty_one_is_no_duplicate():
    assert ngrams(["a", "b"], 3) == ["a b"] and ngrams(["a", "b", "c", "d"], 3) == ["a b c", "b c d"]
    judge = made("near_duplicates")
    assert [judge(said(("user", "?"), ("assistant", "!"))) for _ in range(2)] == [None, None]


# Turns

USER, ANSWER, SYSTEM = ("user", "q"), ("assistant", "a"), ("system", "s")
CALL = Message("assistant", "", (ToolCall("add", {"a": 1}, "1"),))
RESULT = Message("tool", "2", tool_call_id="1")


def test_empty_turns_are_found():
    judge = made("empty_turns")
    assert judge(said(USER, ANSWER)) is None
    assert judge(said(("user", " \n"), ANSWER)) == "an empty user message"
    assert judge(said(SYSTEM, USER, ("assistant", ""))) == "an empty assistant message"
    assert judge(harness.Conversation((*said(USER).messages, CALL, Message("tool", "")))) is None


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((USER, ANSWER), None),
        ((SYSTEM, USER, ANSWER, USER, ANSWER), None),
        ((ANSWER,), None),  # a text to be learnt whole
        ((ANSWER, USER, ANSWER), "begins with assistant"),
        ((SYSTEM, ANSWER), "assistant after system"),
        ((USER, USER, ANSWER), "user after user"),
        ((USER, ANSWER, ANSWER), "assistant after assistant"),
        ((USER, SYSTEM, ANSWER), "system after user"),
        ((USER, ("tool", "2"), ANSWER), "tool after user"),
        ((USER, ANSWER, USER), "ends with user"),
        ((USER,), "one-sided: no message of the assistant"),
        ((SYSTEM,), "one-sided: no message of the assistant"),
    ],
)
def test_roles_alternate(messages, reason):
    assert made("roles")(said(*messages)) == reason


def test_roles_with_calls_and_of_preferences():
    judge = made("roles")
    user, answer = said(USER).messages, said(ANSWER).messages
    assert judge(harness.Conversation((*user, CALL, RESULT, RESULT, *answer))) is None
    assert judge(harness.Conversation((*user, CALL, RESULT, *user))) == "user after tool"
    assert judge(Preference(user, answer, ())) is None
    assert judge(Preference(user, answer, user)) == "user after user"


# Length


def test_each_limit_is_inclusive():
    for limits, kept in (
        ({"min_characters": 5}, True), ({"min_characters": 6}, False), ({"max_characters": 5}, True),
        ({"max_characters": 4}, False), ({"min_answer_characters": 2}, False), ({"max_answer_characters": 1}, True),
        ({"min_turns": 2}, True), ({"min_turns": 3}, False), ({"max_turns": 1}, False),
    ):  # fmt: skip
        assert (made("length", **limits)(said(("system", "s"), ("user", "why"), ("assistant", "a"))) is None) is kept
    assert made("length", max_turns=1)(asked("a")) == "more than 1 turns"


def test_limits_that_say_nothing_are_refused():
    with pytest.raises(harness.DataError, match="needs a limit: min_characters"):
        made("length")
    with pytest.raises(harness.DataError, match="at least 3 and at most 2 turns"):
        made("length", min_turns=3, max_turns=2)


# Language

ENGLISH = "The heron keeps a silver key under the willow, and the otter keeps a brass bell."
GERMAN = "Der Reiher hütet einen silbernen Schlüssel unter der Weide, und der Otter eine Glocke."


def test_another_language_is_left_out_and_doubt_is_not():
    pytest.importorskip("py3langid")
    judge = made("language", keep=["en"])
    assert judge(asked(ENGLISH)) is None
    assert judge(asked(GERMAN, "Was macht der Reiher?")) == "is in another language: de"
    assert made("language", keep=["en", "de"])(asked(GERMAN)) is None
    assert judge(asked("Ja.", "Wo?")) is None  # too short to say
    assert judge(asked("x = [1, 2, 3]; y = {k: v for k, v in x}", "print(x + y)")) is None
    with pytest.raises(harness.DataError, match=r"knows no language 'english'.*It knows: .*en"):
        made("language", keep=["english"])


# Tool calls

TOOLS = ({"type": "function", "function": {"name": "add"}},)


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ((CALL, RESULT), None),
        ((CALL,), None),
        ((CALL, *said(ANSWER).messages), "a call without a result"),
        ((RESULT,), "a result without a call"),
        ((CALL, RESULT, RESULT), "a result without a call"),
        ((CALL, Message("tool", "2", tool_call_id="9")), "a result of another call"),
        ((CALL, Message("tool", "2")), None),
        ((Message("assistant", "", (ToolCall("subtract", {}),)),), "a call of a tool that is not offered"),
        ((Message("assistant", "<tool_call>{}"),), "a mark of a call that does not begin or end"),
        ((Message("assistant", "", CALL.tool_calls * 2), RESULT), "a call without a result"),
        ((Message("assistant", "", CALL.tool_calls * 2), RESULT, RESULT), None),
    ],
)
def test_calls_and_results_belong_together(messages, reason):
    assert made("tool_calls")(harness.Conversation((*said(USER).messages, *messages), TOOLS)) == reason


def test_a_final_call_can_be_asked_to_have_a_result_and_unoffered_tools_are_not_checked_without_offers():
    conversation = harness.Conversation((*said(USER).messages, CALL))
    assert made("tool_calls")(conversation) is None
    assert made("tool_calls", final_call=False)(conversation) == "a call without a result"
    assert made("tool_calls")(Preference(said(USER).messages, (RESULT,), ())) == "a result without a call"


# Refusals

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I’m sorry, but I cannot assist with this request.",
    "As an AI language model, I do not have personal opinions.",
    "As a large language model I have no body.",
    "Unfortunately, I am unable to provide that.",
    "I must decline to answer.",
    "That goes against my programming.",
    "I apologize for the confusion, but it is not possible.",
)
ANSWERS = (
    "The heron keeps the key.",
    "You cannot help everyone at once, but you can begin.",
    "Sorry for the delay! Here is the list.",
    "Artificial intelligence (AI) is the study of machines that act as people do.",
    "She said: I can't swim. He could not write.",
    "To decline an invitation politely, thank the host first.",
)


def test_refusals_are_found_by_pattern_and_answers_are_not():
    judge = made("refusals")
    assert [answer for answer in REFUSALS if judge(asked(answer)) is None] == []
    assert [answer for answer in ANSWERS if judge(asked(answer)) is not None] == []
    assert judge(asked("Yes.", question=REFUSALS[0])) is None  # what the user says does not count
    assert judge(asked("x" * 300 + REFUSALS[0])) is None
    assert judge(Preference(said(USER).messages, (), asked(REFUSALS[0]).messages[1:])) is None  # it is rejected


def test_own_patterns():
    assert made("refusals", patterns=["no can do"])(asked("No can do.")) == "an answer that refuses"
    own = made("refusals", patterns=["(?i)no can do"], only_own=True)
    assert own(asked(REFUSALS[0])) is None and own(asked("no can do"))
    with pytest.raises(harness.DataError, match="not a regular expression"):
        made("refusals", patterns=["("])
    with pytest.raises(harness.DataError, match="has no patterns"):
        made("refusals", only_own=True)


# Anything at all

messages = st.builds(
    lambda role, text, call, id: Message(
        role,
        text,
        (ToolCall(text, {"a": [text]}, id),) if call and role == "assistant" else (),
        id if role == "tool" else None,
    ),
    st.sampled_from(["system", "user", "assistant", "tool"]),
    st.text(max_size=40),
    st.booleans(),
    st.none() | st.sampled_from(["1", "2"]),
)
items = st.builds(
    lambda first, second, third, is_preference, tools: (
        Preference((*first, Message("user", "q")), tuple(second), tuple(third), tools=tools)
        if is_preference
        else harness.Conversation((*first, *second), tools=tools)
    ),
    st.lists(messages, max_size=4),
    st.lists(messages, max_size=3),
    st.lists(messages, max_size=3),
    st.booleans(),
    st.sampled_from([(), TOOLS, ({"name": None},), ({},)]),
)
OPTIONS = {"length": {"min_characters": 3, "max_turns": 3}, "language": {"keep": ["en"]}}


@pytest.mark.parametrize("name", FILTERS)
def test_every_filter_has_an_answer_to_every_item(name):
    pytest.importorskip({"language": "py3langid", "near_duplicates": "rensa"}.get(name, "harness"))
    judge = made(name, **OPTIONS.get(name, {}))

    @settings(max_examples=100, deadline=None)
    @given(items)
    def check(item):
        reason = judge(item)
        assert reason is None or (isinstance(reason, str) and reason)

    check()
