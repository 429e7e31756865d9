"""Log-probabilities of tokens: the one place where they are computed, for tuning, probes, validation and evaluation.

With a vocabulary of V and n targets out of b*s positions, the logits are n*V instead of b*s*V, and only one chunk of
them exists at a time: its gradient is taken on the spot and the chunk is let go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from harness.contract.batches import Batch
from harness.model import kernels
from harness.model.batching import padded
from harness.model.buffers import Buffers
from harness.model.forward import causal_lm, last_hidden, output_head
from harness.nouns import Example, Item

# 16 MiB in float32 on a CPU, near its caches; 512 MiB on an accelerator, which wants larger products.
LOGITS_AT_ONCE = {"cpu": 2**22, "other": 2**27}
SAMPLED = 8  # of so many targets, the entropy of one is computed
LEAST_ROWS = 128  # below, a product takes more time for a row: its weights are read for few

Logits = Callable[[Tensor], Tensor]


class Scores(NamedTuple):
    """The log-probability (natural log) of each target, float32 [n], and True where no token is likelier, bool [n]."""

    logprobs: Tensor
    is_greedy: Tensor


class Predictions(NamedTuple):
    """The log-probability of each target, float32 [n], with its gradient, and the entropy of some of the predictions.

    Entropies are in nats, float32 without a gradient, of every eighth target: [n / 8], rounded up. Of all of them they
    would take a tenth of the time of the logits.
    """

    logprobs: Tensor
    entropy: Tensor


def target_logprobs(model: Any, batch: Batch) -> Tensor:
    """Return the log-probability (natural log) of each target of the batch, float32 [n], with its gradient.

    Args:
        model: a causal LM of transformers, wrapped by PEFT or not.
    """
    return target_predictions(model, batch).logprobs


def target_predictions(model: Any, batch: Batch) -> Predictions:
    """Return what `target_logprobs` returns, with the entropy of some of the predictions."""
    hidden = _hidden_of_targets(model, batch)
    return predictions(hidden, batch.targets.token_id, output_head(model), causal_lm(model).get_output_embeddings())


def target_scores(model: Any, batch: Batch) -> Scores:
    """Return the log-probability of each target and whether greedy decoding would choose it, without a gradient."""
    with torch.no_grad():
        hidden, logits = _hidden_of_targets(model, batch), output_head(model)
        logprobs = hidden.new_empty(len(hidden), dtype=torch.float32)
        is_greedy = hidden.new_empty(len(hidden), dtype=torch.bool)
        for rows in _chunks(hidden, causal_lm(model).get_output_embeddings()):
            of_rows, token_id = logits(hidden[rows]).float(), batch.targets.token_id[rows]
            logprobs[rows] = _logprobs(of_rows, token_id)
            is_greedy[rows] = of_rows.argmax(-1) == token_id
    return Scores(logprobs, is_greedy)


def sequence_logprobs(model: Any, input_ids: Sequence[int]) -> list[float]:
    """Return the log-probability of each token but the first, given those before it: len(input_ids) - 1 figures."""
    item = Item((Example(list(input_ids), [True] * len(input_ids)),), ("answer",))
    batch = padded([item], pad_id=0, device=next(model.parameters()).device)
    with torch.no_grad():
        logprobs: list[float] = target_logprobs(model, batch).tolist()
    return logprobs


def _hidden_of_targets(model: Any, batch: Batch) -> Tensor:
    """Return the hidden state that predicts each target, [n, h]."""
    return last_hidden(model, batch).flatten(0, 1)[batch.targets.source]


def predictions(hidden: Tensor, token_id: Tensor, logits: Logits, head: torch.nn.Module) -> Predictions:
    """Return log softmax(logits(hidden))[token_id] and entropies of the softmax, chunk by chunk.

    Args:
        hidden: [n, h].
        token_id: int64 [n].
        logits: from hidden states to logits [., v].
        head: the module that `logits` uses; its parameters get gradients where they are trained.
    """
    chunks = _chunks(hidden, head)
    if not torch.is_grad_enabled():
        nothing = hidden.new_zeros(0, dtype=torch.float32)
        parts = [_with_gradient(logits(hidden[rows]), token_id[rows], _picked(rows)) for rows in chunks]
        return Predictions(*(torch.cat([nothing, *(part[at] for part in parts)]) for at in (0, 2)))
    trained = [parameter for parameter in head.parameters() if parameter.requires_grad]
    return Predictions(*ChunkedLogprobs.apply(hidden, token_id, logits, chunks, *trained))


def _chunks(hidden: Tensor, head: torch.nn.Module) -> list[slice]:
    """Return the parts of `hidden` [n, h] whose logits may exist at once."""
    at_once = LOGITS_AT_ONCE["cpu" if hidden.device.type == "cpu" else "other"]
    size = max(LEAST_ROWS, at_once // head.weight.shape[0])
    return [slice(start, start + size) for start in range(0, len(hidden), size)]


def _picked(rows: slice) -> slice:
    """Return which rows of a chunk are those of every eighth target of all."""
    return slice(-rows.start % SAMPLED, None, SAMPLED)


def _logprobs(logits: Tensor, token_id: Tensor) -> Tensor:
    """Return log softmax(logits [n, v])[token_id], float32 [n]."""
    return -F.cross_entropy(logits.float(), token_id, reduction="none")


_buffers = Buffers()


def _with_gradient(logits: Tensor, token_id: Tensor, picked: slice) -> tuple[Tensor, Tensor, Tensor]:
    """Return log softmax(logits [n, v])[token_id] in float32 [n], and minus its gradient in the logits' dtype.

    The third are the entropies of the softmax of the rows that are picked.
    """
    device = logits.device
    if kernels.compiled(logits) and logits.is_contiguous():
        minus = _buffers.get("gradient", logits.dtype, *logits.shape, device=device)
        logprobs = logits[picked].float().log_softmax(-1)
        entropy = -(logprobs.exp() * logprobs).sum(-1)
        return kernels.target_logprobs(logits, token_id, minus), minus, entropy
    exact, logs = (_buffers.get(name, torch.float32, *logits.shape, device=device) for name in ("logits", "logprobs"))
    torch.log_softmax(exact.copy_(logits), -1, out=logs)
    chosen = logs.gather(1, token_id[:, None])
    probabilities = logs.exp_()
    total = (exact.gather(1, token_id[:, None]) - chosen)[picked, 0]  # log sum exp
    entropy = total - (probabilities[picked] * exact[picked]).sum(-1)
    probabilities.scatter_add_(1, token_id[:, None], -torch.ones_like(chosen))
    return chosen[:, 0], _buffers.get("gradient", logits.dtype, *logits.shape, device=device).copy_(logs), entropy


class ChunkedLogprobs(torch.autograd.Function):  # type: ignore[misc]
    """Log-probabilities whose chunks of logits do not live until the backward pass.

    A row of `hidden` decides its own log-probability only, so its gradient is taken in the forward pass and scaled in
    the backward pass. A trained head sums over all rows. Where these count alike (a loss that is their sum) the head's
    gradient is taken and scaled in the same way; else it is computed in the backward pass, from logits made once more.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, token_id: Tensor, logits: Logits, chunks: list[slice], *trained: Tensor
    ) -> tuple[Tensor, Tensor]:
        gradient = torch.empty_like(hidden)
        sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        out = hidden.new_empty(len(hidden), dtype=torch.float32)
        entropies = [hidden.new_zeros(0, dtype=torch.float32)]
        for rows in chunks:
            part = hidden[rows].detach().requires_grad_()
            with torch.enable_grad():
                of_part = logits(part)
            out[rows], minus, entropy = _with_gradient(of_part.detach(), token_id[rows], _picked(rows))
            entropies.append(entropy)
            gradient[rows], *parts = torch.autograd.grad(of_part, (part, *trained), minus)
            for summed, more in zip(sums, parts, strict=True):
                summed -= more
        gradient.neg_()
        ctx.logits, ctx.chunks = logits, chunks
        sums = [total.to(parameter.dtype) for total, parameter in zip(sums, trained, strict=True)]
        ctx.save_for_backward(gradient, token_id, *((hidden, *trained, *sums) if trained else ()))
        entropy = torch.cat(entropies)
        ctx.mark_non_differentiable(entropy)
        return out, entropy

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor, _: Any) -> Any:
        gradient, token_id, *rest = ctx.saved_tensors
        hidden, *both = rest or [gradient]
        trained, sums = both[: len(both) // 2], both[len(both) // 2 :]
        if len(gradient) and grad_output.stride() == (0,):  # one figure, expanded: the gradient of a sum
            scale = grad_output[0]
            return gradient * scale, None, None, None, *(total * scale for total in sums)
        grad_hidden = (gradient * grad_output[:, None]).to(gradient.dtype)
        if not trained:
            return grad_hidden, None, None, None
        sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        for rows in ctx.chunks:
            with torch.enable_grad():
                weighted = (_logprobs(ctx.logits(hidden[rows].detach()), token_id[rows]) * grad_output[rows]).sum()
                parts = torch.autograd.grad(weighted, trained)
            for total, part in zip(sums, parts, strict=True):
                total += part
        return (
            grad_hidden,
            None,
            None,
            None,
            *(total.to(parameter.dtype) for total, parameter in zip(sums, trained, strict=True)),
        )
