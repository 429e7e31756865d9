"""Prompt and completion, Platypus, Dolly: what a row becomes, what options choose, and what is said of a wrong one."""

import json
import sys
from types import SimpleNamespace

import pytest
from harness_datasets import dolly, platypus
from hypothesis import given, settings
from hypothesis import strategies as st

import harness
from harness.data import UnreadError, convert_row
from harness.plugins import Plugins
from harness.recipe import source_model


@pytest.fixture(scope="module")
def datasets():
    return Plugins().datasets


@pytest.fixture
def convert(datasets):
    def convert(name, row, **options):
        made = convert_row(datasets[name], row, source_model(datasets[name])(dataset=name, **options))
        return made[0] if made else None

    return convert


# Prompt and completion


def test_text_and_messages_give_the_same_conversation(convert):
    asked, answered = [{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a"}]
    wanted = harness.Conversation.of(("user", "q"), ("assistant", "a"))
    assert convert("prompt_completion", {"prompt": "q", "completion": "a"}) == wanted
    assert convert("prompt_completion", {"prompt": "q", "response": "a"}) == wanted
    assert convert("prompt_completion", {"prompt": asked, "completion": answered}) == wanted
    assert convert("prompt_completion", {"prompt": asked, "completion": "a"}) == wanted


def test_only_the_completion_is_learnt(convert):
    prompt = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user")]
    made = convert("prompt_completion", {"prompt": prompt, "completion": "a"})
    assert made.trained == (4,)


def test_a_completion_may_call_tools(convert):
    completion = [
        {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
        {"role": "tool", "content": "1"},
        {"role": "assistant", "content": "One."},
    ]
    made = convert("prompt_completion", {"prompt": "q", "completion": completion, "tools": '[{"name": "f"}]'})
    assert made.trained == (1, 3) and made.tools[0]["function"] == {"name": "f"}
    assert made.messages[2].tool_call_id == made.messages[1].tool_calls[0].id is not None


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "q"}, r"the field 'completion' is missing"),
        ({"completion": "a"}, r"the field 'prompt' is missing\. The row has: completion"),
        ({"prompt": "q", "completion": ""}, r"is empty"),
        ({"prompt": 3, "completion": "a"}, r"the field 'prompt' should be text or a list of messages.*, found 3"),
        ({"prompt": [{"role": "assistant", "content": "q"}], "completion": "a"},
         r"the prompt ends with message 1, the assistant's"),
        ({"prompt": "q", "completion": [{"role": "user", "content": "a"}]}, r"completion: message 1 is the user's"),
        ({"prompt": [{"role": "human", "content": "q"}], "completion": "a"},
         r"prompt: message 1 has the role 'human'\. Use 'user'"),
    ],
)  # fmt: skip
def test_a_wrong_pair_is_named(convert, row, told):
    with pytest.raises(harness.DataError, match=told):
        convert("prompt_completion", row)


# Dolly

POEM = {"instruction": "Sum up.", "context": "A poem.", "response": "Poem.", "category": "summarization"}


def test_a_dolly_row_has_its_context_below_the_instruction(convert):
    wanted = harness.Conversation.of(("user", "Sum up.\n\nA poem."), ("assistant", "Poem."))
    assert convert("dolly", POEM) == wanted == convert("dolly", POEM, categories=["summarization"])
    assert convert("dolly", POEM | {"context": ""}).messages[0].content == "Sum up."
    assert convert("dolly", POEM, categories=["open_qa"]) is None


def test_a_category_that_no_row_has_is_named_once_all_were_read():
    options = dolly.DollyOptions(categories=("sumarization",))
    rows = dolly.gather(iter([(1, POEM)]), options)
    assert next(rows) == (1, POEM)
    with pytest.raises(
        harness.DataError, match=r"categories: no row has the category 'sumarization'\. Did you mean 'summarization'\?"
    ):
        next(rows)
    assert list(dolly.gather([(1, POEM)], dolly.DollyOptions())) == [(1, POEM)]


def test_a_dolly_row_without_a_category_is_wrong_only_where_one_is_asked_for(convert):
    row = {key: value for key, value in POEM.items() if key != "category"}
    assert convert("dolly", row)
    with pytest.raises(harness.DataError, match="'category' is missing"):
        convert("dolly", row, categories=["open_qa"])


# Platypus


def row_of(instruction, output="a", source="PRM-800K", **more):
    return {"instruction": instruction, "input": "", "output": output, "data_source": source, **more}


def test_sources_are_kept_or_dropped(convert):
    row = row_of("q")
    assert convert("platypus", row) == harness.Conversation.of(("user", "q"), ("assistant", "a"))
    assert convert("platypus", row, keep_sources=["PRM-800K"]) and not convert("platypus", row, keep_sources=["ARB"])
    assert convert("platypus", row, drop_sources=["ARB"]) and not convert("platypus", row, drop_sources=["PRM-800K"])
    with pytest.raises(harness.DataError, match="'data_source' is missing"):
        convert("platypus", {"instruction": "q", "output": "a"}, drop_sources=["ARB"])


def thinned(rows, **options):
    """What `gather` makes of rows: for each, the number of the row that it is too similar to, or None."""
    given = platypus.PlatypusOptions(**options)
    return [row.get(platypus.LEFT_OUT) for _, row in platypus.gather(enumerate(rows, 1), given)]


SIMILAR = [
    row_of("What is the sum of two and two, in words?", "Four."),
    row_of("Name a river."),
    row_of("What is the sum of two and two, in plain words?", "Two and two are four."),
    row_of("What is the sum of two and two, in words?", "four"),
]


def test_of_similar_rows_the_longest_answer_is_kept(convert):
    assert thinned(SIMILAR, similarity=0.8) == [3, None, None, 3]
    assert thinned(SIMILAR) == [None] * 4
    given = platypus.PlatypusOptions(similarity=0.8)
    kept = [row for _, row in platypus.gather(enumerate(SIMILAR, 1), given) if convert("platypus", row)]
    assert kept == SIMILAR[1:3]


def test_a_row_of_a_dropped_source_displaces_none():
    rows = [row_of("Say hi"), row_of("Say hi", "a longer answer", "ARB")]
    assert thinned(rows, similarity=0.8) == [2, None]
    assert thinned(rows, similarity=0.8, drop_sources=["ARB"]) == [None, None]


def test_rows_that_cannot_be_compared_are_passed_on_for_convert_to_refuse(convert):
    rows = [{"instruction": 3, "output": "a", "data_source": "x"}, row_of("q"), {"output": "a"}]
    assert thinned(rows, similarity=0.8) == [None] * 3
    assert [row for _, row in platypus.gather(enumerate(rows, 1), platypus.PlatypusOptions(similarity=0.8))] == rows


def test_a_source_that_no_row_has_is_named():
    with pytest.raises(
        harness.DataError, match=r"drop_sources: no row has the data_source 'prm-800k'\. .*The rows have: PRM-800K"
    ):
        thinned([row_of("q")], drop_sources=["prm-800k"])


words = st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8).map(" ".join)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(words, max_size=12), limit=st.sampled_from([0.3, 0.5, 0.8, 0.95]))
def test_looking_up_rare_words_finds_what_comparing_all_pairs_finds(texts, limit):
    found = platypus._by_words(texts, limit)
    kept = [index for index, other in enumerate(found) if other is None]
    sets = [frozenset(text.split()) for text in texts]
    for index, other in enumerate(found):
        near = [k for k in kept if k < index and platypus._cosine(sets[index], sets[k]) > limit]
        assert (other in near) if near else other is None


def test_embeddings_are_a_measure_where_sentence_transformers_is_there(monkeypatch):
    numpy = pytest.importorskip("numpy")

    class Model:
        def __init__(self, name):
            assert name == "sentence-transformers/all-MiniLM-L6-v2"

        def encode(self, texts, normalize_embeddings):
            angles = numpy.array([0.3 if "two" in text else 1.5 for text in texts])
            return numpy.stack([numpy.cos(angles), numpy.sin(angles)], axis=1)

    monkeypatch.setitem(sys.modules, "sentence_transformers", SimpleNamespace(SentenceTransformer=Model))
    assert thinned(SIMILAR, similarity=0.8, measure="embeddings") == [3, None, None, 3]
    assert thinned([], similarity=0.8, measure="embeddings") == []
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(harness.HarnessError, match="pip install sentence-transformers"):
        thinned(SIMILAR, similarity=0.8, measure="embeddings")


# Anything at all

values = st.recursive(
    st.none() | st.integers() | st.booleans() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)
FIELDS = ["prompt", "completion", "response", "instruction", "context", "category", "input", "output", "data_source",
          "system", "history", "text", "tools", "id"]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(row=st.dictionaries(st.sampled_from(FIELDS), values | st.text(max_size=6), max_size=6))
def test_any_row_is_a_conversation_or_left_out_or_a_data_error(row, datasets):
    for name in ("alpaca", "text", "prompt_completion", "platypus", "dolly"):
        dataset = datasets[name]
        try:
            convert_row(dataset, row, source_model(dataset)(dataset=name))
        except harness.DataError as error:
            assert "does not fit dataset" not in str(error)  # what nobody thought of
    given = platypus.PlatypusOptions(similarity=0.5)
    assert len(list(platypus.gather([(1, row), (2, row)], given))) == 2


def test_real_files_lose_no_row(real_data, datasets):
    rendered = sorted((real_data / "p3-rendered").glob("*.jsonl"))
    rows = [json.loads(line) for path in rendered for line in path.read_text().splitlines()]
    wrong = []
    for row in rows:
        try:
            assert convert_row(datasets["prompt_completion"], row)[0].trained == (1,)
        except harness.DataError as error:
            wrong.append(str(error))
    # One file's 200 completions are nothing but the end mark; each is named as empty.
    assert len(rows) == 3608 and wrong == ["message 2 (assistant) is empty: there is nothing to learn from it"] * 200
    for name, count in (
        ("gpteacher/roleplay-simple-deduped-roleplay-dataset.json", 3146),
        ("gpteacher/toolformer-similarity-0.6-dataset.json", 2396),
        ("llamafactory-demo/identity.json", 91),
    ):
        rows = json.loads((real_data / name).read_text())
        readable = [row for row in rows if "example_input" not in row]  # one row has it, and a passage in it
        assert len([convert_row(datasets["alpaca"], row) for row in readable]) == len(readable) and len(rows) == count
        for row in rows:
            if row not in readable:
                with pytest.raises(UnreadError, match="the column 'example_input' would be lost"):
                    convert_row(datasets["alpaca"], row)
    thin = [row_of(row["instruction"], row["output"], "gpteacher", input=row["input"]) for row in rows]
    left = [number for number in thinned(thin, similarity=0.8) if number]
    assert len(left) < len(rows)
