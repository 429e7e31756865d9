"""Padded rows, packed rows and shared prompts are layouts of the same items: log-probabilities do not depend on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.gates import plain_logprobs  # noqa: E402
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

from harness.contract.batches import Batch  # noqa: E402
from harness.model.batching import nothing, packed, padded, with_shared_prompts  # noqa: E402
from harness.model.forward import plain_logits  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
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
    count = sum(len(item.examples) for item in items)
    order = list(reversed(range(count)))
    return {
        "padded": padded(items, 0, "cpu"),
        "packed": packed(items, [order[: count // 2], order[count // 2 :]] if count > 1 else [order], 0, "cpu"),
        "shared": with_shared_prompts(items, 0, "cpu"),
    }


def figures_of(model: Any, batch: Batch) -> tuple[dict[tuple[int, str], Any], Any]:
    """The log-probability of the targets by item and role, and the gradient of a loss that weighs roles unlike."""
    model.zero_grad()
    logprobs = target_logprobs(model, batch)
    sums, groups = batch.by_document(logprobs), batch.groups.tolist()
    weight = {"chosen": 1.0, "rejected": -0.5, "answer": 0.7}
    by_role = {(groups[n], role): sums[n] for n, role in enumerate(batch.roles) if role in weight}
    for number, role in enumerate(batch.roles):  # what a shared prompt learns counts for each of its answers
        assert role != "prompt" or number not in batch.targets.document
    loss = sum(weight[role] * figure for (_, role), figure in by_role.items())
    loss.backward()
    return by_role, torch.cat([weight.grad.flatten().clone() for weight in model.parameters()])


@settings(max_examples=12, deadline=None)
@given(items=ITEMS)
def test_log_probabilities_and_gradients_are_the_same_in_every_layout(model, items):
    expected, gradient = figures_of(model, layouts(items)["padded"])
    for name in ("packed", "shared"):
        figures, other = figures_of(model, layouts(items)[name])
        assert figures.keys() == expected.keys()
        for key, value in figures.items():
            torch.testing.assert_close(value, expected[key], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(other, gradient, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["padded", "packed", "shared"])
def test_the_log_probabilities_are_those_of_the_models_own_logits(model, name):
    batch = layouts(SOME)[name]
    torch.testing.assert_close(target_logprobs(model, batch), plain_logprobs(model, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["packed", "shared"])
def test_changing_a_document_changes_no_other_documents_logits(model, name):
    batch = layouts(SOME)[name]
    before = plain_logits(model, batch)
    columns = torch.stack((batch.documents.row, batch.documents.start, batch.documents.length), 1).tolist()
    parents = batch.documents.parent.tolist()
    for changed, (row, start, length) in enumerate(columns):
        ids = batch.input_ids.clone()
        ids[row, start : start + length] += 30
        after = plain_logits(
            model,
            Batch(ids, batch.documents, batch.targets, batch.groups, batch.roles, batch.tokens, batch.position_ids),
        )
        for number, (other_row, begin, size) in enumerate(columns):
            same = torch.equal(before[other_row, begin : begin + size], after[other_row, begin : begin + size])
            assert same == (number != changed and parents[number] != changed), (name, changed, number)


def test_the_first_token_of_an_answer_is_predicted_by_the_last_of_its_prompt():
    batch = with_shared_prompts(SOME[:1], 0, "cpu")
    assert batch.roles == ("prompt", "chosen", "rejected") and batch.documents.parent.tolist() == [-1, 0, 0]
    assert batch.input_ids.tolist() == [[5, 6, 7, 8, 9, 11, 12]]
    assert batch.position_ids.tolist() == [[0, 1, 2, 3, 4, 2, 3]]
    assert batch.targets.token_id.tolist() == [7, 8, 9, 11, 12]
    assert batch.targets.source.tolist() == [1, 2, 3, 1, 5]
    assert batch.targets.document.tolist() == [1, 1, 1, 2, 2]


def test_figures_of_an_item_stand_beside_each_of_its_documents():
    batch = with_shared_prompts(SOME, 0, "cpu")
    assert batch.groups.tolist() == [0, 0, 0, 1, 1]
    assert batch.extras["margin"].tolist() == [0.5, 0.5, 0.5, 0.0, 0.0]
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


def test_rows_that_leave_out_an_example_are_refused():
    with pytest.raises(ValueError, match=r"the rows hold the examples \[0, 2\], expected each of 0..2 once"):
        packed(SOME, [[0, 2]], 0, "cpu")


def test_a_batch_without_documents_has_a_loss_of_zero_with_a_gradient(model):
    model.zero_grad()
    loss = target_logprobs(model, nothing(0, "cpu")).sum()
    loss.backward()
    assert loss.item() == 0.0
    assert all(weight.grad is None or weight.grad.abs().max() == 0 for weight in model.parameters())
