"""Axolotl's configuration as a recipe: https://docs.axolotl.ai/docs/config-reference.html, as of 2026."""

from __future__ import annotations

from typing import Any

from harness_commands.recipe.carried import Carried, put
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

MARKS = ("base_model", "sequence_len", "micro_batch_size", "datasets", "adapter")
# Dataset types by the part before the first dot; `chat_template` goes by its columns.
TYPES = {
    "alpaca": "alpaca",
    "alpaca_chat": "alpaca",
    "alpaca_w_system": "auto",
    "gpteacher": "auto",
    "completion": "text",
    "pretrain": "text",
    "sharegpt": "sharegpt",
    "oasst": "auto",
    "metharme": "auto",
    "context_qa": "auto",
    "summarizetldr": "auto",
    "input_output": "segments",
    "chatml": "preferences",
    "llama3": "preferences",
    "orpo": "preferences",
}
RL = {"dpo": "dpo", "ipo": "dpo", "orpo": "orpo", "simpo": "simpo", "kto": "kto"}
PAIRS = {"dpo", "orpo", "simpo"}
USUAL_TOKENS = {"bos_token", "eos_token", "pad_token", "unk_token"}


def is_axolotl(tree: dict[str, Any]) -> bool:
    """Return whether a configuration has Axolotl's keys."""
    return "base_model" in tree and any(mark in tree for mark in MARKS[1:])


def read_axolotl(config: Carried) -> None:
    """Carry Axolotl's keys over to the recipe."""
    model_of(config, "base_model", "revision_of_model")
    _objective(config)
    _data(config)
    template_of(config, "chat_template")
    _method(config)
    width = int(config.get("sequence_len", 512))
    put(config.recipe, "data.max_tokens", width)
    config.note("sequence_len", "carried", f"data.max_tokens: {width}")
    put(config.recipe, "data.on_overlong", "drop")  # as Axolotl does
    config.note("excess_length_strategy", "changed", "data.on_overlong: drop")
    step_tokens(config, "micro_batch_size", "gradient_accumulation_steps", width)
    learning_schedule(config, epochs="num_epochs", steps="max_steps", scheduler="lr_scheduler")
    config.carry("neftune_noise_alpha", "tune.objective.neftune_alpha")
    if config.get("early_stopping_patience") and config.get("val_set_size"):
        config.carry("early_stopping_patience", "tune.early_stopping.patience")
    trackers(config, {"wandb_project": "wandb", "mlflow_tracking_uri": "mlflow", "use_tensorboard": "tensorboard"})
    hold_out(config, "val_set_size")
    config.spare(("rl_beta", "dpo_beta", "orpo_alpha", "simpo_gamma", "kto_desirable_weight"), "of another objective")
    config.spare(("sample_packing", "eval_sample_packing", "pad_to_sequence_len", "multipack_real_batches",
                  "sample_packing_sequentially", "group_by_length", "sample_packing_group_size"),
                 "tune.layout: auto packs documents where none can see another")  # fmt: skip
    if {*config.get("special_tokens", {})} <= USUAL_TOKENS:
        config.spare(("special_tokens",), "the template knows its stop tokens, and a pad token is not needed")
    config.lose(("special_tokens",), "`template: {name, add_tokens: true}` adds those that a template writes")
    config.spare(("eot_tokens",), "the template knows its stop tokens, and each turn's is trained on")
    account_for_rest(config)


def _objective(config: Carried) -> None:
    """Choose the objective by `rl` and `reward_model`."""
    if config.get("reward_model"):
        config.change("reward_model", "tune.objective", {"name": "reward"}, "a head that scores, saved with the run")
        return
    rl = config.get("rl")
    if rl is None:
        texts = config.get("pretraining_dataset") or _types(config) == {"completion"}
        put(config.recipe, "tune.objective.name", "pretrain" if texts else "sft")
        return
    if rl not in RL:
        raise no_objective(config, "rl", RL.values())
    put(config.recipe, "tune.objective.name", RL[rl])
    config.note("rl", "carried", f"tune.objective: {RL[rl]}" + (", loss ipo" if rl == "ipo" else ""))
    if rl == "ipo":
        put(config.recipe, "tune.objective.loss", "ipo")
    config.carry("dpo_beta" if "dpo_beta" in config.tree else "rl_beta", "tune.objective.beta")
    if rl in ("dpo", "ipo"):
        config.carry("rpo_alpha", "tune.objective.nll_weight")
    if rl == "orpo":
        config.carry("orpo_alpha", "tune.objective.beta")
    if rl == "kto":
        config.carry("kto_desirable_weight", "tune.objective.desirable_weight")
        config.carry("kto_undesirable_weight", "tune.objective.undesirable_weight")
    if rl == "simpo" and config.get("simpo_gamma") is not None:
        beta = config.get("rl_beta", 2.0)
        ratio = config.tree["simpo_gamma"] / beta
        config.change("simpo_gamma", "tune.objective.gamma_beta_ratio", ratio, "gamma / beta")


def _types(config: Carried) -> set[str]:
    return {str(one.get("type", "")).partition(".")[0] for one in config.get("datasets", []) if isinstance(one, dict)}


def _data(config: Carried) -> None:
    """Carry the sources over."""
    texts = config.get("pretraining_dataset")
    key = "pretraining_dataset" if texts else "datasets"
    entries = config.get(key, [])
    entries = [{"path": entries}] if isinstance(entries, str) else list(entries)
    remarks: list[str] = []
    sources = [_source(config, entry, remarks, is_text=bool(texts)) for entry in entries]
    put(config.recipe, "data.train", sources)
    names = ", ".join(f"{one['dataset']} from {one['path']}" for one in sources)
    config.note(
        key, "changed" if remarks else "carried", f"data.train: {names}" + "".join(f"; {one}" for one in remarks)
    )
    if tests := config.get("test_datasets"):
        remarks = []
        put(config.recipe, "data.validation", [_source(config, one, remarks, is_text=False) for one in tests])
        config.note(
            "test_datasets",
            "changed" if remarks else "carried",
            "data.validation" + "".join(f"; {one}" for one in remarks),
        )


def _source(config: Carried, entry: dict[str, Any], remarks: list[str], *, is_text: bool) -> dict[str, Any]:
    """Return one source, and add to `remarks` what of it is otherwise or not carried over."""
    left = dict(entry)
    kind = left.pop("type", None)
    path = left.pop("path", None)
    data_files = left.pop("data_files", None)
    if left.pop("ds_type", None) and data_files:
        path, data_files = data_files if isinstance(data_files, str) else data_files[0], None
    source: dict[str, Any] = {"dataset": "text" if is_text else _dataset(config, kind, entry, remarks)}
    source["path"] = hub_path(config, str(path), left.pop("split", None), left.pop("name", None), remarks)
    if revision := left.pop("revision", None):
        source["revision"] = revision
    columns = _columns(left, source["dataset"])
    if columns:
        source["columns"] = columns
    for key, value in _harmless(left).items():
        remarks.append(f"{key}: {value} of {path} is not carried over")
    return source


def _dataset(config: Carried, kind: Any, entry: dict[str, Any], remarks: list[str]) -> str:
    """Return the dataset that reads what a type of Axolotl's reads."""
    if isinstance(kind, dict):
        remarks.append("a type of the user's own (fields and a format) becomes `prompt_completion`: check `columns`")
        return "prompt_completion"
    name = str(kind or "").partition(".")[0]
    rl = config.get("rl")
    if rl == "kto":
        return "feedback"
    if RL.get(str(rl)) in PAIRS:
        return "preferences"
    if name == "chat_template":
        mapping = entry.get("message_property_mappings") or {}
        role = mapping.get("role") or entry.get("message_field_role") or "role"
        return "sharegpt" if role == "from" else "messages"
    if name in TYPES:
        return TYPES[name]
    remarks.append(f"the type {kind!r} has no counterpart: `auto` looks what the rows are")
    return "auto"


def _columns(left: dict[str, Any], dataset: str) -> dict[str, str]:
    """Take the names of columns out of an entry, and return those that the dataset has under others."""
    usual = "conversations" if dataset == "sharegpt" else "messages"
    names = {"field_messages": usual, "field": "text", "field_instruction": "instruction", "field_input": "input",
             "field_output": "output", "field_system": "system", "field_chosen": "chosen",
             "field_rejected": "rejected", "field_prompt": "prompt", "field_tools": "tools"}  # fmt: skip
    columns = {}
    for theirs, ours in names.items():
        value = left.pop(theirs, None)
        if isinstance(value, str) and value != ours and {value, ours} != {"messages", "conversations"}:
            columns[ours] = value
    return columns


def _harmless(left: dict[str, Any]) -> dict[str, Any]:
    """Return what is left of an entry that would change the data: usual roles and keys of messages would not."""
    usual = {
        "message_property_mappings": ({"role": "from", "content": "value"}, {"role": "role", "content": "content"}),
        "message_field_role": ("role", "from"),
        "message_field_content": ("content", "value"),
        "roles_to_train": (["assistant"], ["gpt"], ["gpt", "assistant"]),
        "train_on_eos": ("turn",),
        "message_field_training": ("train",),
        "chat_template": ("tokenizer_default",),
        "ds_type": ("json", "csv", "parquet", "text"),
        "trust_remote_code": (False, None),
        "conversation": ("chatml", "llama-3", "chatml2"),
    }
    roles = {"system", "user", "assistant", "human", "gpt", "tool"}

    def is_usual(key: str, value: Any) -> bool:
        if value in (None, "", [], {}):
            return True
        if key == "roles" and isinstance(value, dict):
            return {one for names in value.values() for one in names} <= roles
        return value in usual.get(key, ())

    return {key: value for key, value in left.items() if not is_usual(key, value)}


def _method(config: Carried) -> None:
    """Carry the adapter over, or the training of all weights."""
    adapter = config.get("adapter")
    if adapter is None:
        put(config.recipe, "tune.method", {"name": "full"})
        config.spare(("load_in_8bit", "load_in_4bit"), "needs an adapter; all weights are trained")
        return
    is_four = bool(config.get("load_in_4bit")) or adapter == "qlora"
    name = "dora" if config.get("peft_use_dora") else "qlora" if is_four else "lora"
    put(config.recipe, "tune.method.name", name)
    if adapter in ("lora", "qlora"):
        config.note("adapter", "carried", f"tune.method: {name}")
    else:
        config.note("adapter", "left", f"the method {adapter} is not here; tune.method: {name} stands in its place")
    config.note("peft_use_dora", "carried", "tune.method: dora")
    config.note("load_in_4bit", "carried", f"tune.method: {name}")
    if config.get("load_in_8bit"):
        config.note("load_in_8bit", "left", "bases are held in 16 bits, or in 4 with qlora")
    lora_options(config, rank="lora_r", alpha="lora_alpha", dropout="lora_dropout", target="lora_target_modules")
    if config.get("lora_target_linear"):
        config.change("lora_target_linear", "tune.method.target_modules", "all-linear", "all linear layers")
    if config.get("peft_use_rslora"):
        config.carry("peft_use_rslora", "tune.method.rslora")
    also_trained(config, "lora_modules_to_save")
    config.carry("loraplus_lr_ratio", "tune.method.b_rate_ratio")
    config.spare(("lora_fan_in_fan_out",), "PEFT looks at the layers")
