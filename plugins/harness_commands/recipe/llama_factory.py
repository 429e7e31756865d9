"""LLaMA-Factory's configuration and its dataset_info.json as a recipe: https://llamafactory.readthedocs.io (2026)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from harness.errors import RecipeError
from harness_commands.recipe.carried import Carried, Outcome, put
from harness_commands.recipe.training import (
    account_for_rest,
    also_trained,
    hold_out,
    hub_path,
    learning_schedule,
    lora_options,
    model_of,
    no_objective,
    step_tokens,
    template_of,
    trackers,
)

STAGES = {"sft": "sft", "pt": "pretrain", "dpo": "dpo", "kto": "kto", "rm": "reward"}
PREFERENCES = {"sigmoid": "dpo", "ipo": "dpo", "orpo": "orpo", "simpo": "simpo", "kto_pair": "dpo"}
INFO = "dataset_info.json"
# Columns of dataset_info and what the datasets here call them.
ALPACA = {"prompt": "instruction", "query": "input", "response": "output", "system": "system", "history": "history",
          "chosen": "chosen", "rejected": "rejected", "kto_tag": "kto_tag"}  # fmt: skip
SHAREGPT = {"messages": "conversations", "system": "system", "tools": "tools", "chosen": "chosen",
            "rejected": "rejected", "kto_tag": "label"}  # fmt: skip
MEDIA = ("images", "videos", "audios", "image", "video", "audio")
USUAL_TAGS = {"from", "value", "role", "content", "human", "gpt", "user", "assistant", "system", "observation",
              "function_call", "tool"}  # fmt: skip


def is_llama_factory(tree: dict[str, Any]) -> bool:
    """Return whether a configuration has LLaMA-Factory's keys."""
    return "model_name_or_path" in tree and ("stage" in tree or "finetuning_type" in tree)


def read_llama_factory(config: Carried) -> None:
    """Carry LLaMA-Factory's keys over to the recipe."""
    model_of(config, "model_name_or_path", "model_revision")
    _rope(config)
    _objective(config)
    _data(config)
    template_of(config, "template")
    _method(config)
    width = int(config.get("cutoff_len", 2048))
    put(config.recipe, "data.max_tokens", width)
    config.note("cutoff_len", "carried", f"data.max_tokens: {width}, on_overlong: truncate")
    put(config.recipe, "data.on_overlong", "truncate")  # as LLaMA-Factory does
    step_tokens(config, "per_device_train_batch_size", "gradient_accumulation_steps", width)
    learning_schedule(config, epochs="num_train_epochs", steps="max_steps", scheduler="lr_scheduler_type")
    config.carry("neftune_noise_alpha", "tune.objective.neftune_alpha")
    if config.get("mask_history"):
        config.carry("mask_history", "data.train_on", "last")
    if config.get("dataset_exact_deduplication"):
        config.carry("dataset_exact_deduplication", "data.clean", [{"filter": "exact_duplicates"}])
    _trackers(config)
    hold_out(config, "val_size")
    config.spare(("pref_beta", "pref_loss", "pref_ftx", "simpo_gamma", "dpo_label_smoothing"), "of another objective")
    packs = "tune.layout: auto packs documents where none can see another"
    if config.get("packing") and not config.get("neat_packing"):
        config.note("packing", "changed", f"{packs}; without neat_packing neighbours do")
    config.spare(("packing", "neat_packing", "group_by_length"), packs)
    _defaults(config)
    account_for_rest(config)


def _defaults(config: Carried) -> None:
    """Write down the defaults of LLaMA-Factory's trainer that are others than those here."""
    tune = config.recipe["tune"]
    theirs = {"learning_rate": 5e-5, "schedule": "linear", "warmup_ratio": 0.0}
    if "steps" not in tune:
        theirs["epochs"] = 3.0
    for key, value in theirs.items():
        tune.setdefault(key, value)


def _rope(config: Carried) -> None:
    """Carry stretched positions over; the plain names of kinds are left, as their factor depends on the data."""
    rope = config.get("rope_scaling")
    if isinstance(rope, dict) and rope.get("rope_type", rope.get("type")) in ("yarn", "linear"):
        kind = rope.get("rope_type", rope.get("type"))
        config.change(
            "rope_scaling", "model.rope_scaling", {"type": kind, "factor": rope["factor"]}, "from the model's own"
        )
    elif rope:
        config.note("rope_scaling", "left", "expected here: model.rope_scaling: {type: yarn, factor: 4}")


def _objective(config: Carried) -> None:
    """Choose the objective by `stage` and `pref_loss`."""
    stage = str(config.get("stage", "sft"))
    if stage not in STAGES:
        raise no_objective(config, "stage", STAGES.values())
    loss = str(config.get("pref_loss", "sigmoid"))
    name = PREFERENCES.get(loss, "dpo") if stage == "dpo" else STAGES[stage]
    put(config.recipe, "tune.objective.name", name)
    config.note("stage", "carried", f"tune.objective: {name}")
    if stage == "dpo":
        if loss in PREFERENCES and loss != "kto_pair":
            config.note("pref_loss", "carried", f"tune.objective: {name}")
        else:
            config.note("pref_loss", "changed", f"tune.objective: dpo (there is no loss {loss} here)")
        if loss == "ipo":
            put(config.recipe, "tune.objective.loss", "ipo")
        if name == "dpo":
            config.carry("dpo_label_smoothing", "tune.objective.label_smoothing")
    if stage in ("dpo", "kto"):
        config.carry("pref_beta", "tune.objective.beta")
    if stage == "kto":
        config.carry("kto_chosen_weight", "tune.objective.desirable_weight")
        config.carry("kto_rejected_weight", "tune.objective.undesirable_weight")
    if name == "simpo" and config.get("simpo_gamma") is not None:
        ratio = float(config.tree["simpo_gamma"]) / float(config.get("pref_beta", 0.1))
        config.change("simpo_gamma", "tune.objective.gamma_beta_ratio", ratio, "gamma / beta")
    if name in ("dpo", "simpo"):
        config.carry("pref_ftx", "tune.objective.nll_weight")
    elif config.get("pref_ftx"):
        config.note("pref_ftx", "left", "no further loss on the chosen answers; dpo and simpo have nll_weight")


def _data(config: Carried) -> None:
    """Carry the datasets over, as dataset_info.json describes them."""
    where, info = _info(config)
    limit = config.get("max_samples")
    for key, part in (("dataset", "train"), ("eval_dataset", "validation")):
        names = config.get(key)
        if names is None:
            continue
        names = names if isinstance(names, list) else [name.strip() for name in str(names).split(",")]
        remarks: list[str] = []
        sources = [_source(config, str(name), info, where, remarks) for name in names if name]
        if limit and part == "train":
            sources = [source | {"limit": int(limit)} for source in sources]
        put(config.recipe, f"data.{part}", sources)
        read = ", ".join(f"{one['dataset']} from {one['path']}" for one in sources)
        config.note(
            key, "changed" if remarks else "carried", f"data.{part}: {read}" + "".join(f"; {one}" for one in remarks)
        )
    if "data" not in config.recipe or "train" not in config.recipe["data"]:
        raise RecipeError(f"{config.path}: it names no `dataset` to train on")
    config.note("max_samples", "carried", f"limit: {limit} of each source")
    config.note("dataset_dir", "carried", f"paths of the sources, from {where}")
    if strategy := config.get("mix_strategy"):
        outcome: Outcome = "needless" if strategy == "concat" else "changed"
        config.note("mix_strategy", outcome, "all rows of all sources, shuffled; see `weight` of a source")
    config.lose(("interleave_probs",), "see `weight` of each source")


def _info(config: Carried) -> tuple[Path, dict[str, Any]]:
    """Return the folder of dataset_info.json and what it says; an empty one where it is not found."""
    folder = config.path.resolve().parent
    named = str(config.get("dataset_dir", "data"))
    for place in (folder / named, folder, *(parent / named for parent in folder.parents), Path(named).absolute()):
        if (path := place / INFO).is_file():
            try:
                return place, json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise RecipeError(f"{path}: not valid JSON: {error}") from None
    return folder / named, {}


def _source(config: Carried, name: str, info: dict[str, Any], folder: Path, remarks: list[str]) -> dict[str, Any]:
    """Return one source as dataset_info describes it, and add to `remarks` what is otherwise or not carried over."""
    entry = info.get(name)
    if entry is None:
        remarks.append(f"{name} is not described: no {INFO} with it in {folder}, so `auto` looks what its rows are")
        return {"dataset": "auto", "path": f"{name}.json"}
    columns = dict(entry.get("columns") or {})
    if lost := [column for column in MEDIA if columns.pop(column, None)]:
        remarks.append(f"{name}: {', '.join(lost)} cannot be trained on here: text only")
    path = _path(config, name, entry, folder, remarks)
    dataset, names = _dataset(config, entry)
    odd = {str(value) for value in (entry.get("tags") or {}).values()} - USUAL_TAGS
    if odd:
        remarks.append(f"{name}: tags {', '.join(sorted(odd))} are not carried over")
    renamed = {names[ours]: theirs for ours, theirs in columns.items() if ours in names and names[ours] != theirs}
    if unknown := [ours for ours in columns if ours not in names]:
        remarks.append(f"{name}: columns {', '.join(unknown)} are not carried over")
    # These two names of a list of messages are both known.
    renamed = {ours: theirs for ours, theirs in renamed.items() if {ours, theirs} != {"conversations", "messages"}}
    source: dict[str, Any] = {"dataset": dataset, "path": path}
    if renamed:
        source["columns"] = renamed
    if entry.get("num_samples"):
        source["limit"] = int(entry["num_samples"])
    return source


def _dataset(config: Carried, entry: dict[str, Any]) -> tuple[str, dict[str, str]]:
    """Return the dataset that reads an entry's rows, and its names for the columns of dataset_info."""
    columns = entry.get("columns") or {}
    if config.recipe["tune"]["objective"]["name"] == "pretrain":
        return "text", {"prompt": "text"}
    is_sharegpt = entry.get("formatting") == "sharegpt"
    names = SHAREGPT if is_sharegpt else ALPACA
    if entry.get("ranking"):
        return "preferences", names
    if "kto_tag" in columns:
        return "feedback", names
    if not is_sharegpt:
        return "alpaca", names
    role = (entry.get("tags") or {}).get("role_tag", "from")
    return ("messages", {**SHAREGPT, "messages": "messages"}) if role == "role" else ("sharegpt", names)


def _path(config: Carried, name: str, entry: dict[str, Any], folder: Path, remarks: list[str]) -> str:
    if hub := entry.get("hf_hub_url"):
        return hub_path(config, str(hub), entry.get("split"), entry.get("subset"), remarks)
    if file := entry.get("file_name"):
        path = folder / str(file)
        if not path.exists():
            remarks.append(f"{path} is not here: put it there")
        return str(path)
    remarks.append(
        f"{name}: only on {', '.join(key for key in entry if key.endswith('_url')) or 'no hub'}: fetch it first"
    )
    return f"{name}.json"


def _method(config: Carried) -> None:
    """Carry `finetuning_type` over."""
    kind = str(config.get("finetuning_type", "lora"))
    bits = int(config.get("quantization_bit", 0) or 0)
    if kind == "full":
        put(config.recipe, "tune.method", {"name": "full"})
        config.note("finetuning_type", "carried", "tune.method: full")
        return
    name = "dora" if config.get("use_dora") else "qlora" if bits == 4 else "lora"
    put(config.recipe, "tune.method.name", name)
    if kind == "lora":
        config.note("finetuning_type", "carried", f"tune.method: {name}")
    else:
        config.note(
            "finetuning_type", "left", f"the method {kind} is not here; tune.method: {name} stands in its place"
        )
    if bits:
        text = "tune.method: qlora" if bits == 4 else "bases are held in 16 bits, or in 4 with qlora"
        config.note("quantization_bit", "carried" if bits == 4 else "left", text)
    config.note("use_dora", "carried", "tune.method: dora")
    rank = int(config.get("lora_rank", 8))
    lora_options(config, rank="lora_rank", alpha="lora_alpha", dropout="lora_dropout", target="lora_target")
    method = config.recipe["tune"]["method"]
    method.setdefault("rank", rank)  # LLaMA-Factory's own defaults, which are others than those here
    method.setdefault("alpha", 2 * rank)
    config.carry("use_rslora", "tune.method.rslora")
    config.carry("loraplus_lr_ratio", "tune.method.b_rate_ratio")
    also_trained(config, "additional_target")
    if name == "qlora":
        config.carry("double_quantization", "tune.method.double_quant")
        if config.get("quantization_method", "bnb") not in ("bnb", "bitsandbytes"):
            config.note("quantization_method", "left", "bases in 4 bits are bitsandbytes' NF4")
    config.spare(("double_quantization", "quantization_method"), "of bases in 4 bits, as bitsandbytes holds them")


def _trackers(config: Carried) -> None:
    """Switch on what `report_to` names."""
    names = config.get("report_to", [])
    names = names if isinstance(names, list) else [names]
    known = [name for name in names if name in ("wandb", "tensorboard", "mlflow", "trackio")]
    if known:
        put(config.recipe, "track", [*({"tracker": name} for name in known), {"tracker": "loss_plot"}])
        config.note("report_to", "carried", f"track: {', '.join(known)}")
    config.note(
        "report_to", "left", "no tracker but the loss curve" if names in ([], ["none"]) else f"no tracker {names}"
    )
    trackers(config, {})
