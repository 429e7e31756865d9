"""LoRA adapters read from their files, and refused where vLLM could not serve them.

vLLM trusts names. An adapter whose modules the model does not have is loaded without an error, and the base answers in
its name; one with matrices smaller than the layer's fills a part of them. So the header of the weights is read, not
only `adapter_config.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.errors import ModelError
from harness.files import read_json
from harness.model.safetensors_files import read_header
from harness.recipe import ModelSpec

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM takes as --max-lora-rank
MATRIX = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")
STACK = re.compile(r"\.experts(\.base_layer)?$")  # all experts of a layer in one pair of matrices
LAYER = re.compile(r"[^.]+\.\d+\..*")
OUTSIDE = ("embed_tokens", "lm_head")

Shape = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter. `modules`: the name of each module in the base model, with (inputs, outputs)."""

    folder: Path
    rank: int
    modules: Mapping[str, Shape]

    @property
    def targets(self) -> set[str]:
        """The last parts of the modules' names, as vLLM takes them for --lora-target-modules."""
        return {module.rpartition(".")[2] for module in self.modules}


def read_adapter(name: str, folder: Path) -> Adapter:
    """Read the adapter of the variant `name`. Raises ModelError if it is damaged, or if vLLM cannot serve it."""
    config_path, weights_path = folder / "adapter_config.json", folder / "adapter_model.safetensors"
    for path in (config_path, weights_path):
        if not path.is_file():
            raise ModelError(f"{name}: {folder} is not a whole adapter: it has no {path.name}")
    config: dict[str, Any] = read_json(config_path)
    if (kind := config.get("peft_type", "LORA")) != "LORA":
        raise ModelError(f"{name}: vLLM serves LoRA adapters only, and this one is {kind}. {_merged(name)}")
    if config.get("use_dora"):
        raise ModelError(
            f"{name}: vLLM does not serve DoRA adapters. {_merged(name)}; to serve beside others, tune with "
            f"`method: lora`"
        )
    if (bias := config.get("bias", "none")) != "none":
        raise ModelError(
            f"{name}: the adapter changes biases (bias: {bias}), which vLLM does not serve. {_merged(name)}"
        )
    if saved := config.get("modules_to_save"):
        raise ModelError(
            f"{name}: the adapter holds whole modules (modules_to_save: {', '.join(saved)}), which vLLM leaves out. "
            f"{_merged(name)}"
        )
    if not isinstance(config.get("r"), int):
        raise ModelError(f"{name}: {config_path} says no rank `r`: the adapter is damaged")
    shapes = read_shapes(weights_path)
    matrices = {key: match.groups() for key in shapes if (match := MATRIX.fullmatch(key))}
    inputs = {module: shapes[key] for key, (module, side) in matrices.items() if side == "A"}
    outputs = {module: shapes[key] for key, (module, side) in matrices.items() if side == "B"}
    outside = sorted({part for key in shapes for part in OUTSIDE if part in key.split(".")})
    if outside:
        raise ModelError(
            f"{name}: the adapter changes {' and '.join(outside)}, where vLLM mixes up the requests of one batch "
            f"(vllm#16668), so that what it answers cannot be checked. {_merged(name)}; to serve "
            f"beside others, tune with `target_modules: all-linear`, which leaves out the embeddings and the head"
        )
    if strange := sorted(shapes.keys() - matrices.keys()):
        raise ModelError(
            f"{name}: {weights_path} holds {strange[0]}{_more(strange)}, and vLLM serves pairs of lora_A and lora_B "
            f"only. {_merged(name)}; to serve beside others, tune with `method: lora`"
        )
    if not inputs or inputs.keys() != outputs.keys():
        raise ModelError(f"{name}: {weights_path} does not hold pairs of lora_A and lora_B: the adapter is damaged")
    if stacks := sorted(module for module in inputs if STACK.search(module)):
        raise ModelError(
            f"{name}: the adapter changes {len(stacks)} stacks of experts, as {stacks[0]}: vLLM has no LoRA kernels "
            f"for them on a CPU, and on a GPU the harness has not checked what it answers. "
            f"{_merged(name)}; to serve beside others, tune with `experts: false`"
        )
    patterns = (config.get("rank_pattern") or {}).values()
    rank = max(config["r"], *patterns, *(shape[0] for shape in inputs.values()), 1)
    if rank > LORA_RANKS[-1]:
        raise ModelError(f"{name}: the adapter has rank {rank}; vLLM serves at most {LORA_RANKS[-1]}. {_merged(name)}")
    return Adapter(folder, rank, {module: (inputs[module][-1], outputs[module][0]) for module in inputs})


def _merged(name: str) -> str:
    """Return the way out for what vLLM cannot serve as an adapter."""
    return (
        f"`harness runs merge {name}` makes a model of it that needs no adapter, merged in float32, and states what "
        f"that changes in log-probabilities; `harness evaluate {name}` measures it as it is"
    )


def require_fits(name: str, adapter: Adapter, model: ModelSpec) -> None:
    """Raise ModelError if a module of the adapter is not one of the model's, or has another size.

    Compared with the weights in the model's folder, by what follows the number of the layer: prefixes differ between
    what is on disk and what is loaded. Not compared: models of the hub, quantised ones, and experts, which are
    stored otherwise.
    """
    folder = Path(model.path)
    if not model.is_local or "quantization_config" in read_json(folder / "config.json"):
        return
    sizes_of: dict[str, set[Shape]] = {}
    for path in folder.glob("*.safetensors"):
        for key, shape in read_shapes(path).items():
            if len(shape) == 2:
                sizes_of.setdefault(in_layer(key.removesuffix(".weight")), set()).add((shape[1], shape[0]))
    compared = {module: shape for module, shape in adapter.modules.items() if ".experts." not in module}
    unknown = [module for module in compared if in_layer(module) not in sizes_of]
    if unknown:
        raise ModelError(
            f"{name}: {len(unknown)} of the adapter's {len(adapter.modules)} modules are not in {model.path}, as "
            f"{unknown[0]}{_more(unknown)}; vLLM would leave them out and say nothing. Was it tuned on another model?"
        )
    for module, (inputs, outputs) in compared.items():
        sizes = sizes_of[in_layer(module)]
        if (inputs, outputs) not in sizes and (outputs, inputs) not in sizes:  # GPT-2 stores its matrices the other way
            size = " or ".join(f"{has[0]} to {has[1]}" for has in sorted(sizes))
            raise ModelError(
                f"{name}: the adapter's {module} leads from {inputs} to {outputs}, "
                f"that of {model.path} from {size}. Was it tuned on another model?"
            )


def linear_modules(model: ModelSpec) -> set[str]:
    """Return the last parts of the names of a local model's linear layers. Raises ModelError where they are not here.

    A layer's matrices are those that have two dimensions, in a numbered layer; experts are left out.
    """
    names = {
        key.removesuffix(".weight").rpartition(".")[2]
        for path in Path(model.path).glob("*.safetensors")
        for key, shape in read_shapes(path).items()
        if len(shape) == 2 and key.endswith(".weight") and LAYER.search(key) and ".experts." not in key
    }
    if not names:
        raise ModelError(
            f"{model.path}: its linear layers cannot be read here; name what adapters may change: "
            f"--set adapter_modules='[q_proj, v_proj]'"
        )
    return names


def read_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor of a safetensors file, from its header. Raises ModelError if it is not whole."""
    try:
        return {key: tensor.shape for key, tensor in read_header(path).items()}
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: not a whole safetensors file ({error})") from None


def in_layer(module: str) -> str:
    """Return `layers.0.mlp.up_proj` for `model.layers.0.mlp.up_proj`, and a name without a layer unchanged."""
    match = LAYER.search(module)
    return match.group() if match else module


def _more(names: list[str]) -> str:
    return f" and {len(names) - 1} more" if len(names) > 1 else ""
