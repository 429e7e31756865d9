"""Laws of methods, tried on a tiny model: some weights move, the start is the base, and what is saved says the same."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import peft
import torch
import transformers

from harness.checks.methods import require_model, require_saved
from harness.contract.kinds import Kind
from harness.errors import HarnessError
from harness.model.load import load_model
from harness.plugins.registry import Entry
from harness.recipe import ModelSpec
from harness.testing.laws.law import Kit, NotTried
from harness.testing.models import tiny_model

LARGEST_DIFFERENCE = 1e-4  # of logits, in float32


def some_weights_move(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require a model with weights that are trained."""
    _applied(kit, kind, entry)


def begins_as_the_base(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that the logits are the base's before anything is trained."""
    base, model = _base(kit), _applied(kit, kind, entry)
    if (difference := _difference(base, model)) > LARGEST_DIFFERENCE:
        raise HarnessError(
            f"apply changes the logits by up to {difference:.3g} before anything is trained: an adapter begins with a "
            f"difference of zero (in LoRA, B = 0)"
        )


def reloads_to_the_same(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
    """Require that what `save` writes is what `produces` says, and gives the same logits when it is loaded."""
    method, folder = entry.item, kit.folder / f"saved-{entry.name}"
    shutil.rmtree(folder, ignore_errors=True)
    model = _applied(kit, kind, entry)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        for weight in (one for one in model.parameters() if one.requires_grad):
            weight += 0.05 * torch.randn_like(weight)
    expected = _logits(model)
    folder.mkdir()
    method.save(model, folder)
    require_saved(folder, method.produces, entry.name)
    loaded = _logits(_reloaded(kit, method.produces, folder))
    difference = float((loaded - expected).abs().max())
    if not difference <= LARGEST_DIFFERENCE * max(1.0, float(expected.abs().max())):
        raise HarnessError(
            f"what save wrote gives other logits when it is loaded: they differ by up to {difference:.3g}"
        )


LAWS = {
    "some weights move": some_weights_move,
    "it begins as the base": begins_as_the_base,
    "it saves what reloads to the same logits": reloads_to_the_same,
}


def _base(kit: Kit) -> Any:
    folder = kit.folder / "model"
    if not folder.is_dir():
        tiny_model(folder, spread=0.1)
    return load_model(ModelSpec(path=str(folder), dtype="float32")).eval()


def _applied(kit: Kit, kind: Kind, entry: Entry[Any]) -> Any:
    method, options = entry.item, kit.options(kind, entry)
    if method.starts_from is not None:
        raise NotTried("it starts from another run")
    if method.quantize is not None:
        raise NotTried("it stores the base in another way; tuning with it loads the adapter again and measures it")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = method.apply(_base(kit), options)
    require_model(model, entry.name)
    return model.eval()


def _reloaded(kit: Kit, produces: str, folder: Path) -> Any:
    try:
        if produces == "adapter":
            return peft.PeftModel.from_pretrained(_base(kit), str(folder)).eval()
        return transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    except Exception as error:
        raise HarnessError(f"what save wrote cannot be loaded: {type(error).__name__}: {error}") from error


def _difference(one: Any, other: Any) -> float:
    return float((_logits(one) - _logits(other)).abs().max())


def _logits(model: Any) -> torch.Tensor:
    ids = torch.arange(3, 35).reshape(2, 16)
    with torch.no_grad():
        logits: torch.Tensor = model(input_ids=ids).logits
    return logits
