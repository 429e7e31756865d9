"""Training a few rows of the embeddings, those of added tokens, while the other rows stay as they are.

The rows are parameters of their own, so that optimizer and checkpoints hold k rows and not the whole vocabulary; hooks
put them in the place of the weight's. PEFT's `trainable_token_indices` is for its own methods only, copies the whole
weight at each use (once a chunk of logits: 40% more time on a small model, against 4%), and leaves out a head's bias.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

import harness
from harness.model.forward import causal_lm
from harness_tuning.probes import mean_difference, measure_probes


class TrainedRows:
    """The rows `ids` of the input embeddings, and of the output head, as parameters that are trained.

    One parameter where the two share their weight. Where a method trains the whole weight, the rows are part of it.

    Raises:
        HarnessError: where the method has put an adapter on the embeddings or the head.
    """

    def __init__(self, model: Any, ids: Sequence[int]) -> None:
        lm = causal_lm(model)
        embeddings, head = lm.get_input_embeddings(), lm.get_output_embeddings()
        if any(type(module).__module__.startswith("peft.") for module in (embeddings, head)):
            raise harness.HarnessError(
                "tune.method.target_modules reaches the embeddings or the output head, and template.add_tokens trains "
                "rows of them: leave them out of target_modules, or use `method: full`"
            )
        self._ids = torch.tensor(list(ids), device=embeddings.weight.device)
        self._modules = [module for module in (embeddings, head) if not module.weight.requires_grad]
        self._hooks = []
        rows = {
            id(module.weight): torch.nn.Parameter(module.weight.detach()[self._ids].clone()) for module in self._modules
        }
        for module in self._modules:
            module.register_parameter("added_rows", rows[id(module.weight)])
            self._hooks.append(module.register_forward_hook(self._embed if module is embeddings else self._score))

    def _embed(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Return embeddings [b, s, h] of ids [b, s], with the trained rows where an id is an added one."""
        is_row = args[0][..., None] == self._ids  # [b, s, k]
        rows = F.embedding(is_row.int().argmax(-1), module.added_rows)
        scale = getattr(module, "embed_scale", None)  # Gemma 3
        rows = rows if scale is None else rows * torch.as_tensor(scale).to(rows)
        return torch.where(is_row.any(-1, keepdim=True), rows, output)

    def _score(self, module: Any, args: tuple[Any, ...], output: Any) -> Any:
        """Return logits [..., v] of hidden states [..., h], with those of the added ids from the trained rows."""
        bias = None if module.bias is None else module.bias[self._ids]
        return output.index_copy_(-1, self._ids, F.linear(args[0], module.added_rows, bias))

    def fold(self) -> None:
        """Write the rows into the weights, and leave the model as if they had always been there."""
        for hook in self._hooks:
            hook.remove()
        with torch.no_grad():
            for module in self._modules:
                module.weight[self._ids] = module.added_rows
                del module.added_rows
        self._modules, self._hooks = [], []


# In nats, on average. The rows of the head are a product of their own, which may round otherwise than the whole head's.
LARGEST_DIFFERENCE = 0.02


def trained_rows(model: Any, ids: Sequence[int], probes: list[dict[str, Any]], path: str) -> TrainedRows:
    """Let the embeddings of the added tokens move. Raise ModelError where that alone changes what the model says."""
    before = measure_probes(model, probes)
    rows = TrainedRows(model, ids)
    difference = mean_difference(measure_probes(model, probes), before)
    if not difference <= LARGEST_DIFFERENCE:
        raise harness.ModelError(
            f"{path}: its embeddings are not a plain table of rows, so that template.add_tokens cannot train some of "
            f"them alone (log-probabilities differ by {difference:.3g} on average); use `method: full`, or another "
            f"template"
        )
    return rows
