"""The loss is what the mask says, whatever the padding, the batches and the chunks."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from harness_tuning.gates import plain_logprobs  # noqa: E402

from harness import Example  # noqa: E402
from harness.errors import ModelError  # noqa: E402
from harness.model import logprobs  # noqa: E402
from harness.model.batching import padded  # noqa: E402
from harness.model.forward import check_output_head  # noqa: E402
from harness.model.load import load_model  # noqa: E402
from harness.model.logprobs import target_logprobs  # noqa: E402
from harness.nouns import Item  # noqa: E402
from harness.recipe import ModelSpec  # noqa: E402


@pytest.fixture
def model(tiny_model: Path):
    return load_model(ModelSpec(path=str(tiny_model), dtype="float32"), for_tuning=True)


def examples(count: int, seed: int = 0) -> list[Example]:
    generator = torch.Generator().manual_seed(seed)
    made = []
    for number in range(count):
        length = 5 + 7 * number % 23
        ids = torch.randint(3, 400, (length,), generator=generator).tolist()
        made.append(Example(ids, [position >= 3 and position % 3 > 0 for position in range(length)]))
    return made


def reference_loss(model, example: Example) -> torch.Tensor:
    """Straight from the model's own full logits, one example, no padding."""
    ids = torch.tensor([example.input_ids])
    losses = torch.nn.functional.cross_entropy(model(input_ids=ids).logits[0, :-1], ids[0, 1:], reduction="none")
    return losses[torch.tensor(example.loss_mask[1:])].sum()


def loss_of(model, batch_of: list[Example], pad_id: int = 0) -> torch.Tensor:
    batch = padded([Item((example,), ("answer",)) for example in batch_of], pad_id, "cpu")
    return -target_logprobs(model, batch).sum()


def test_the_loss_is_the_models_own_cross_entropy_on_the_masked_tokens(model):
    batch = examples(6)
    expected = sum(reference_loss(model, example) for example in batch)
    assert loss_of(model, batch).item() == pytest.approx(expected.item(), rel=1e-5)


def test_what_pads_a_batch_does_not_change_its_loss(model):
    assert loss_of(model, examples(6), pad_id=0).item() == pytest.approx(
        loss_of(model, examples(6), pad_id=77).item(), rel=1e-6
    )


@pytest.mark.parametrize("chunk_logits", [1, 2000, 10**9])
def test_chunks_of_logits_change_neither_loss_nor_gradient(model, monkeypatch, chunk_logits):
    expected = sum(reference_loss(model, example) for example in examples(6))
    expected.backward()
    gradients = {name: weight.grad.clone() for name, weight in model.named_parameters()}
    model.zero_grad()
    chunks = []
    original = logprobs._with_gradient
    monkeypatch.setattr(
        logprobs,
        "_with_gradient",
        lambda logits, targets, picked: chunks.append(len(targets)) or original(logits, targets, picked),
    )
    monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", {"cpu": chunk_logits, "other": chunk_logits})
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 1)
    loss_of(model, examples(6)).backward()
    assert (len(chunks) > 1) == (chunk_logits < 10**6)
    for name, weight in model.named_parameters():
        torch.testing.assert_close(weight.grad, gradients[name], rtol=1e-4, atol=1e-5)


def test_log_probabilities_that_count_differently_give_the_gradient_of_the_plain_ones(model):
    """A head that is trained gets its gradient in another way then."""
    batch = padded([Item((example,), ("answer",)) for example in examples(6)], 0, "cpu")
    weights = torch.linspace(-1, 2, batch.supervised)
    gradients = []
    for logprobs_of in (target_logprobs, plain_logprobs):
        model.zero_grad()
        (logprobs_of(model, batch) * weights).sum().backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    assert gradients[1].norm() > 1
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-5)


def test_the_split_into_batches_does_not_change_the_gradient(model):
    batch = examples(9)
    supervised = sum(example.supervised for example in batch)
    gradients = []
    for split in ([batch], [batch[:4], batch[4:8], batch[8:]], [[example] for example in batch]):
        model.zero_grad()
        for part in split:
            (loss_of(model, part) / supervised).backward()
        gradients.append(torch.cat([weight.grad.flatten() for weight in model.parameters()]))
    for other in gradients[1:]:
        torch.testing.assert_close(other, gradients[0], rtol=1e-4, atol=1e-6)


def test_a_batch_with_nothing_to_learn_has_no_loss(model):
    with torch.no_grad():
        assert loss_of(model, [Example([5, 6, 7], [False, False, False])]).item() == 0.0


def test_an_architecture_that_changes_its_logits_in_an_unknown_way_is_refused(model):
    check_output_head(model, torch.tensor([[5, 6, 7, 8]]))
    forward = model.forward

    def doubled(*args, **kwargs):
        out = forward(*args, **kwargs)
        out.logits = out.logits * 2 + 1
        return out

    model.forward = doubled
    with pytest.raises(ModelError, match="changes its logits"):
        check_output_head(model, torch.tensor([[5, 6, 7, 8]]))


def test_soft_capped_logits_are_the_models_own(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(
        vocab_size=300, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32, final_logit_softcapping=0.5,
    )  # fmt: skip
    gemma = Gemma2ForCausalLM(config).float()
    with torch.no_grad():
        gemma.lm_head.weight.mul_(50)
    check_output_head(gemma, torch.arange(3, 12)[None])


@pytest.mark.parametrize("chunk_logits", [1000, 10**9])
def test_entropies_are_those_of_every_eighth_prediction_whatever_the_chunks(model, monkeypatch, chunk_logits):
    monkeypatch.setattr(logprobs, "LOGITS_AT_ONCE", {"cpu": chunk_logits, "other": chunk_logits})
    monkeypatch.setattr(logprobs, "LEAST_ROWS", 1)
    batch = padded([Item((example,), ("answer",)) for example in examples(6)], 0, "cpu")
    with torch.no_grad():
        plain = logprobs.last_hidden(model, batch).flatten(0, 1)[batch.targets.source]
        logs = logprobs.output_head(model)(plain).float().log_softmax(-1)
        expected = -(logs.exp() * logs).sum(-1)[::8]
        measured = logprobs.target_predictions(model, batch)
    trained = logprobs.target_predictions(model, batch)
    assert trained.logprobs.requires_grad and not trained.entropy.requires_grad
    for entropy in (measured.entropy, trained.entropy):
        torch.testing.assert_close(entropy, expected, rtol=1e-5, atol=1e-5)


def test_what_is_watched_of_pairs_has_entropy_and_the_drift_from_the_reference(model):
    from harness_tuning.objectives import dpo

    from harness.model.policy import ModelPolicy

    first, second = examples(2)
    policy = ModelPolicy(model)
    batch = padded([Item((first, second), ("chosen", "rejected"), {"reference": (0.0, 0.0)})], 0, "cpu")
    logs = batch.by_document(policy.logprobs(batch).detach())
    watched = dpo.loss(policy, batch, dpo.DpoOptions()).metrics
    moved = (logs.abs() / batch.targets_by_document()).mean()
    drift, entropy = watched["drift"], watched["entropy"]
    torch.testing.assert_close(drift.sum / drift.count, moved)
    assert 0 < float(entropy.sum) / entropy.count < 15 and entropy.count == -(-batch.supervised // 8)
    assert watched["length_chosen"].sum == first.supervised
