"""Padded rows and packed rows are layouts of the same items: no log-probability and no gradient depends on which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.gates import plain_logprobs  # noqa: E402
from harness_tuning.layout import choose_layout  # noqa: E402
from hypothesis import HealthCheck, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from harness.contract.batches import Batch  # noqa: E402
from harness.errors import HarnessError  # noqa: E402
from harness.model.batching import attention_mask, nothing, packed, padded, parts_of  # noqa: E402
from harness.model.forward import plain_logits  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
from harness.model.varlen import by_document, documents_attention  # noqa: E402
from harness.nouns import Example, Item  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402

ID = st.integers(3, 299)


@st.composite
def preferences(draw: Any) -> Item:
    """A prompt with two completions of any lengths, which may begin alike; not all of them is supervised."""
    prompt = draw(st.lists(ID, min_size=1, max_size=6))
    sides = []
    for _ in range(2):
        completion = draw(st.lists(st.tuples(ID, st.booleans()), min_size=1, max_size=6))
        ids, mask = [token for token, _ in completion], [is_supervised for _, is_supervised in completion]
        sides.append(Example(prompt + ids, [False] * len(prompt) + mask))
    return Item(tuple(sides), ("chosen", "rejected"), {"weight": 1.0})


@st.composite
def conversations(draw: Any) -> Item:
    ids = draw(st.lists(ID, min_size=2, max_size=9))
    mask = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    return Item((Example(ids, mask),), ("answer",))


ITEMS = st.lists(preferences() | conversations(), min_size=1, max_size=3)
SOME = [
    Item(
        (
            Example([5, 6, 7, 8, 9], [False, False, True, True, True]),
            Example([5, 6, 11, 12], [False, False, True, True]),
        ),
        ("chosen", "rejected"),
        {"weight": 1.0, "margin": 0.5},
    ),
    Item((Example([20, 21, 22, 23], [False, True, False, True]),), ("answer",)),
]  # fmt: skip


@pytest.fixture(scope="module", params=["Llama", "Qwen2"])
def model(request, miniature):
    return load_model(ModelSpec(path=str(miniature(request.param)), dtype="float32"), for_tuning=True).eval()


def layouts(items: Sequence[Item]) -> dict[str, Batch]:
    order = list(reversed(range(len(items))))
    half = len(items) // 2
    return {
        "padded": padded(items, 0, "cpu"),
        "packed": packed(items, [order[:half], order[half:]] if half else [order], 0, "cpu"),
        "shared": packed(items, [[index] for index in range(len(items))], 0, "cpu"),
    }


@pytest.fixture(params=["by mask", "by document"])
def packing(model, request):
    """The model, keeping documents apart by a mask, or by attending to one at a time."""
    own = model.config._attn_implementation
    if request.param == "by document":
        model.set_attn_implementation(by_document(own))
    yield model
    model.set_attn_implementation(own)


def figures_of(model: Any, batch: Batch) -> tuple[dict[tuple[int, str], Any], Any]:
    """The log-probability of the targets by item and role, and the gradient of a loss that weighs roles unlike."""
    model.zero_grad()
    logprobs = target_logprobs(model, batch)
    sums, groups = batch.by_document(logprobs), batch.groups
    weight = {"chosen": 1.0, "rejected": -0.5, "answer": 0.7}
    by_role = {(groups[n], role): sums[n] for n, role in enumerate(batch.roles) if role in weight}
    for number, role in enumerate(batch.roles):  # what a shared prompt learns counts for each of its answers
        assert role != "prompt" or number not in batch.targets.document
    loss = sum(weight[role] * figure for (_, role), figure in by_role.items())
    loss.backward()
    return by_role, torch.cat([weight.grad.flatten().clone() for weight in model.parameters()])


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=ITEMS)
def test_log_probabilities_and_gradients_are_the_same_in_every_layout(packing, items):
    model = packing
    expected, gradient = figures_of(model, layouts(items)["padded"])
    for name in ("packed", "shared"):
        figures, other = figures_of(model, layouts(items)[name])
        assert figures.keys() == expected.keys()
        for key, value in figures.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other, gradient, rtol=1e-5, atol=1e-5)


def one_an_answer(*turns: tuple[list[int], list[int], list[int]]) -> Item:
    """A conversation whose template drops earlier thoughts: an example an answer."""
    history, examples = list[int](), []
    for question, thought, answer in turns:
        prompt, learnt = history + question, thought + answer
        examples.append(Example(prompt + learnt, [False] * len(prompt) + [True] * len(learnt)))
        history = prompt + answer
    return Item(tuple(examples), ("answer",) * len(examples))


def test_answers_of_a_conversation_share_their_history_and_learn_the_same(packing):
    """In fp32 the loss is equal to 1e-6 and the gradient to 2e-6, for four tokens of seven."""
    turns = [(list(range(10 * n, 10 * n + 9)), [200 + n, 210 + n], [220 + n, 230 + n, 3]) for n in range(1, 5)]
    items = [one_an_answer(*turns), one_an_answer(*turns[2:])]
    batches = padded(items, 0, "cpu"), packed(items, [[0, 1]], 0, "cpu")
    assert [batch.supervised for batch in batches] == [30, 30]
    assert [batch.tokens for batch in batches] == [168, 96]
    (loss, gradient), (other, others) = (_loss_and_gradient(packing, batch) for batch in batches)
    assert abs(other - loss) <= 1e-6 * abs(loss)
    assert (others - gradient).norm() <= 2e-6 * gradient.norm()


def _loss_and_gradient(model: Any, batch: Batch) -> tuple[float, Any]:
    model.zero_grad()
    loss = -target_logprobs(model, batch).sum()
    loss.backward()
    return float(loss), torch.cat([weight.grad.flatten().clone() for weight in model.parameters()])


@pytest.mark.parametrize("name", ["padded", "packed", "shared"])
def test_the_log_probabilities_are_those_of_the_models_own_logits(packing, name):
    model, batch = packing, layouts(SOME)[name]
    torch.testing.assert_close(target_logprobs(model, batch), plain_logprobs(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["packed", "shared"])
def test_changing_a_document_changes_no_other_documents_logits(packing, name):
    model, batch = packing, layouts(SOME)[name]
    before = plain_logits(model, batch)
    columns = torch.stack((batch.documents.row, batch.documents.start, batch.documents.length), 1).tolist()
    parents = batch.documents.parent.tolist()
    for changed, (row, start, length) in enumerate(columns):
        ids = batch.input_ids.clone()
        ids[row, start : start + length] += 30
        after = plain_logits(model, replace(batch, input_ids=ids))
        for number, (other_row, begin, size) in enumerate(columns):
            same = torch.equal(before[other_row, begin : begin + size], after[other_row, begin : begin + size])
            assert same == (number != changed and parents[number] != changed), (name, changed, number)


def test_the_first_token_of_an_answer_is_predicted_by_the_last_of_its_prompt():
    batch = packed(SOME[:1], [[0]], 0, "cpu")
    assert batch.roles == ("prompt", "chosen", "rejected") and batch.documents.parent.tolist() == [-1, 0, 0]
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 11, 12]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3]]
    assert batch.targets.token_id.tolist() == [7, 8, 9, 11, 12]
    assert batch.targets.source.tolist() == [1, 2, 3, 1, 5]
    assert batch.targets.document.tolist() == [1, 1, 1, 2, 2]


def test_figures_of_an_item_stand_beside_each_of_its_documents():
    batch = packed(SOME, [[0], [1]], 0, "cpu")
    assert batch.groups == (0, 0, 0, 1)
    assert batch.extras["margin"].tolist() == [0.5, 0.5, 0.5, 0.0]
    assert batch.pairs() == ([1], [2])


@given(items=ITEMS)
@settings(max_examples=30, deadline=None)
def test_every_layout_learns_each_marked_token_once(items):
    marked = sorted(
        token
        for item in items
        for example in item.examples
        for token, is_supervised in zip(example.input_ids[1:], example.loss_mask[1:], strict=True)
        if is_supervised
    )
    for batch in layouts(items).values():
        assert sorted(batch.targets.token_id.tolist()) == marked
        assert batch.supervised == len(marked)


def test_examples_share_what_none_of_them_is_trained_on_as_a_tree():
    """Three answers of a conversation: the second and third begin alike for longer than all three do."""
    examples = [
        Example([1, 2, 3], [False, False, True]),
        Example([1, 2, 7, 8, 4], [False, False, False, False, True]),
        Example([1, 2, 7, 8, 9, 5], [False, False, False, False, False, True]),
    ]
    parts = parts_of(examples)
    assert [(part.start, part.end, part.parent) for part in parts] == [
        (0, 2, -1),
        (2, 3, 0),
        (2, 4, 0),
        (4, 5, 2),
        (4, 6, 2),
    ]
    batch = packed([Item(tuple(examples), ("answer",) * 3)], [[0]], 0, "cpu")
    assert batch.input_ids.tolist() == [[1, 2, 3, 7, 8, 4, 9, 5]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 2, 3, 4, 4, 5]]
    assert batch.targets.token_id.tolist() == [3, 4, 5] and batch.targets.source.tolist() == [1, 4, 6]


def test_rows_that_leave_out_an_item_are_refused():
    with pytest.raises(ValueError, match=r"the rows hold the items \[1\], expected each of 0..1 once"):
        packed(SOME, [[1]], 0, "cpu")


@pytest.mark.parametrize("window", [None, 3])
def test_attention_by_document_is_that_of_each_document_alone(window):
    torch.manual_seed(0)
    batch = packed(SOME, [[0, 1]], 0, "cpu")
    s = batch.input_ids.shape[1]
    query, key, value = torch.randn(1, 4, s, 8), torch.randn(1, 2, s, 8), torch.randn(1, 2, s, 8)
    found = documents_attention(query, key, value, batch.sequences, sliding_window=window)
    sees = attention_mask(batch, torch.float32)[0, 0] == 0
    if window is not None:
        sees &= batch.position_ids[0][:, None] - batch.position_ids[0] < window
    key, value = key.repeat_interleave(2, 1), value.repeat_interleave(2, 1)
    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=sees).transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_attention_by_document_refuses_what_it_does_not_know():
    batch = packed(SOME, [[0, 1]], 0, "cpu")
    tensors = [torch.randn(1, 2, batch.input_ids.shape[1], 8) for _ in range(3)]
    with pytest.raises(ValueError, match="attention by document does not know softcap"):
        documents_attention(*tensors, batch.sequences, softcap=50.0)


def test_a_layout_is_chosen_for_the_device_or_as_the_recipe_says(model):
    own = model.config._attn_implementation
    cpu = torch.device("cpu")
    assert (
        choose_layout(model, SOME, cpu, "auto").layout == choose_layout(model, SOME, cpu, "padded").layout == "padded"
    )
    choice = choose_layout(model, SOME, cpu, "packed")
    assert (choice.layout, choice.attention) == ("packed", "by document")
    model.set_attn_implementation(own)


def test_a_layer_that_sees_past_its_document_is_refused(model, monkeypatch):
    """As a recurrent layer does, which no mask holds back."""
    layer = model.model.layers[0]
    forward = layer.forward
    monkeypatch.setattr(layer, "forward", lambda hidden, **kwargs: forward(hidden.cumsum(1) / 10, **kwargs))
    own = model.config._attn_implementation
    with pytest.raises(
        HarnessError, match=r"layout is `packed`, and .* cannot: changing a document changes the logits"
    ):
        choose_layout(model, SOME, torch.device("cpu"), "packed")
    assert model.config._attn_implementation == own


def test_a_batch_without_documents_has_a_loss_of_zero_with_a_gradient(model):
    model.zero_grad()
    loss = target_logprobs(model, nothing(0, "cpu")).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert all(weight.grad is None or weight.grad.abs().max() == 0 for weight in model.parameters())
