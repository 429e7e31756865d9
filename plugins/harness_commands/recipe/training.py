"""The parts of a configuration that Axolotl and LLaMA-Factory have in common, under names that each has of its own."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from harness.errors import RecipeError
from harness_commands.recipe.carried import Carried, put

TRUST = "code of the model's folder runs only where you say so: model.trust_remote_code: true"
UNPACKED_TOKENS = 512  # of a row, where rows are not packed and nobody has counted
# Names of chat templates in both tools, and the template here. `model` is the one that the model brings.
TEMPLATES: dict[str, Any] = {
    "tokenizer_default": "model", "chatml": "chatml", "alpaca": "alpaca", "vicuna": "vicuna", "zephyr": "zephyr",
    "llama3": "llama3", "llama3_2_vision": "llama3.1", "gemma": "gemma", "gemma2": "gemma", "gemma3": "gemma3",
    "gemma3n": "gemma3", "phi_3": "phi3", "phi_35": "phi3", "phi": "phi3", "mistral_v1": "mistral-v1",
    "mistral_v2v3": "mistral-v3", "mistral_v3_tekken": "mistral-v13", "mistral_v7_tekken": "mistral-v7",
    "mistral": "mistral-v1", "qwen_25": "qwen2.5", "qwen25": "qwen2.5", "qwen": "qwen2.5", "qwen3": "qwen3",
    "qwen3_nothink": {"name": "qwen3", "thinking": "off"}, "deepseekr1": "deepseek-r1", "gpt": "gpt-oss",
    "hermes": "hermes", "default": "model", "empty": "plain",
}  # fmt: skip
OPTIMIZERS = {
    "adamw_torch": "adamw", "adamw_torch_fused": "adamw", "adamw_hf": "adamw", "adamw": "adamw",
    "adamw_bnb_8bit": "adamw_8bit", "adamw_8bit": "adamw_8bit", "paged_adamw_8bit": "paged_adamw_8bit",
}  # fmt: skip
SCHEDULES = {"cosine": "cosine", "linear": "linear", "constant": "constant", "constant_with_warmup": "constant"}
# Keys that a recipe does without, by subject, with the reason.
NOT_NEEDED: dict[str, tuple[tuple[str, ...], str]] = {
    "attention": (
        ("flash_attention", "attention", "flash_attn", "attn", "attn_implementation", "sdp_attention",
         "xformers_attention", "flex_attention", "eager_attention"),
        "the fastest attention that is the model's own function is chosen, and tried",
    ),
    "kernels": (
        ("liger_rope", "liger_rms_norm", "liger_glu_activation", "liger_layer_norm",
         "liger_fused_linear_cross_entropy", "liger_cross_entropy", "enable_liger_kernel", "use_cce",
         "cut_cross_entropy", "lora_mlp_kernel", "lora_qkv_kernel", "lora_o_kernel", "use_unsloth", "torch_compile",
         "unsloth_cross_entropy_loss", "experimental_skip_move_to_device", "use_unsloth_gc"),
        "fused kernels are chosen and tried at the start of every run",
    ),
    "memory": (
        ("gradient_checkpointing_kwargs", "activation_offloading", "deepspeed", "fsdp", "fsdp_config", "fsdp_version",
         "gpu_memory_limit", "low_cpu_mem_usage", "max_memory", "per_device_eval_batch_size", "eval_batch_size"),
        "memory decides the split of a step; weights are shared out with `harness tune --nproc N`, tune.parallel: fsdp",
    ),
    "machine": (
        ("model_type", "tokenizer_type", "is_llama_derived_model", "is_mistral_derived_model",
         "is_qwen_derived_model", "is_falcon_derived_model", "strict", "tf32", "local_rank", "ddp_timeout", "device",
         "ddp_find_unused_parameters", "use_fast_tokenizer", "tokenizer_use_fast", "cls_model_config", "ddp",
         "hf_hub_token", "use_cache"),
        "found out from the model's files and the machine",
    ),
    "output": (
        ("output_dir", "overwrite_output_dir", "hub_model_id", "hub_strategy", "push_to_hub", "hf_use_auth_token",
         "save_safetensors", "save_only_model", "plot_loss", "save_first_step", "run_name", "logging_dir"),
        "a run is the folder runs/NAME: adapter, template, metrics and loss curve; `harness runs export` sends it on",
    ),
    "checkpoints": (
        ("save_strategy", "saves_per_epoch", "save_total_limit", "evals_per_epoch",
         "eval_strategy", "evaluation_strategy", "eval_table_size", "eval_max_new_tokens", "logging_steps",
         "auto_resume_from_checkpoints", "greater_is_better",
         "include_tokens_per_second", "include_num_input_tokens_seen", "include_mfu", "mfu_profile_every",
         "mfu_warmup_steps", "profiler_steps", "do_causal_lm_eval", "debug"),
        "every step is logged; see tune.validate_every, checkpoint_every, keep, early_stopping and on_spike",
    ),
    "data": (
        ("dataset_prepared_path", "dataset_processes", "dataset_num_proc", "shuffle_merged_datasets",
         "overwrite_cache", "preprocessing_num_workers", "preprocessing_batch_size", "dataloader_num_workers",
         "dataloader_pin_memory", "dataloader_prefetch_factor", "remove_unused_columns", "streaming",
         "tokenized_path", "data_shared_file_system", "skip_prepare_dataset"),
        "encoded data are cached by what they are made of; rows are shuffled by tune.seed",
    ),
    "launch": (
        ("use_ray", "ray_num_workers", "resources_per_worker", "ray_run_name", "ray_storage_path", "do_train",
         "do_eval", "do_predict", "predict_with_generate", "wandb_entity", "wandb_watch", "wandb_name",
         "wandb_log_model", "wandb_run_id", "wandb_mode", "placement_strategy"),
        "a command or a tracker's option here: harness tune, harness evaluate, track",
    ),
}  # fmt: skip

# Keys without a counterpart that change the result, with the reason: named where they are on.
LOST: tuple[tuple[tuple[str, ...], str], ...] = (
    (("shift_attn", "s2_attention"), "LongLoRA's shifted attention is not the model's own function, and is not here"),
    (("tokenizer_config",), "another tokenizer than the model's own: put its files into the model's folder"),
    (("pure_bf16", "upcast_layernorm"), "the weights that move are in float32, the others in model.dtype"),
    (("loss_watchdog_threshold", "loss_watchdog_patience"), "no loss ends a run by its size: see tune.on_spike"),
    (("resume_from_checkpoint", "adapter_name_or_path", "lora_model_dir"),
     "a run goes on with `harness tune --resume`; on another's adapter: method from_run"),
    (("train_on_inputs", "train_on_prompt"), "questions are not trained on; texts are, with the dataset `text`"),
    (("tokens", "new_special_tokens"), "`template: {name, add_tokens: true}` adds those that a template writes"),
)  # fmt: skip
# Such keys that are on unless they are switched off.
LOST_WHERE_OFF: tuple[tuple[tuple[str, ...], str], ...] = (
    (("shuffle_merged_datasets",), "rows are always shuffled, by tune.seed"),
    (("enable_thinking",), "see `template: {name, thinking: off}`"),
    (("ignore_pad_token_for_loss",), "padding is never trained on"),
)
ALSO_TRAINED = {"embed_tokens": "embeddings", "lm_head": "head"}  # the whole weights beside an adapter
SAME_FUNCTION = ("liger", "cut_cross_entropy")  # in the names of Axolotl's plugins of kernels


def account_for_rest(config: Carried) -> None:
    """Account for keys that have no counterpart: those that change the result first, then those that do not."""
    for keys, why in LOST:
        config.lose(keys, why)
    for keys, why in LOST_WHERE_OFF:
        config.lose(keys, why, off=True)
    for keys, why in NOT_NEEDED.values():
        config.spare(keys, why)
    if all(any(name in str(one).lower() for name in SAME_FUNCTION) for one in config.get("plugins", ())):
        config.spare(("plugins",), NOT_NEEDED["kernels"][1])
    config.lose(("plugins",), "these plugins may change the loss, the optimizer or the data")


def template_of(config: Carried, key: str) -> None:
    """Carry the chat template over by its name; without one, it is the model's own, or that of the data's form."""
    name = config.get(key)
    if name is None:
        datasets = {source["dataset"] for source in config.recipe["data"]["train"]}
        template = "plain" if datasets == {"text"} else "alpaca" if datasets == {"alpaca"} else "model"
        put(config.recipe, "template", template)
        return
    known = str(name).removeprefix("tokenizer_default_fallback_") if str(name) not in TEMPLATES else str(name)
    template = TEMPLATES.get(known, "model")
    put(config.recipe, "template", template)
    if name in TEMPLATES:
        config.note(key, "carried", f"template: {template}")
    else:
        config.note(key, "changed", f"template: {template} (there is none called {name} here; this is the model's own, "
                    "see `harness template list`)")  # fmt: skip


def lora_options(config: Carried, *, rank: str, alpha: str, dropout: str, target: str) -> None:
    """Carry LoRA's options over; LLaMA-Factory's alpha is twice the rank where it is left out."""
    config.carry(rank, "tune.method.rank")
    config.carry(alpha, "tune.method.alpha")
    config.carry(dropout, "tune.method.dropout")
    layers = config.get(target)
    if layers in ("all", ["all"]):
        config.note(target, "carried", "tune.method.target_modules: all-linear")
        put(config.recipe, "tune.method.target_modules", "all-linear")
    elif layers:
        names = layers if isinstance(layers, list) else [one.strip() for one in str(layers).split(",")]
        config.carry(target, "tune.method.target_modules", [str(name) for name in names])


def also_trained(config: Carried, key: str) -> None:
    """Carry over the whole weights that are trained beside an adapter, where they are embeddings or head."""
    names = config.get(key, [])
    names = names if isinstance(names, list) else [one.strip() for one in str(names).split(",")]
    if names and set(names) <= {*ALSO_TRAINED} and config.recipe["tune"]["method"]["name"] == "lora":
        config.carry(key, "tune.method.train_also", [ALSO_TRAINED[name] for name in names])
    config.lose((key,), "whole weights beside an adapter are embeddings and head, with lora: tune.method.train_also")


def step_tokens(config: Carried, batch: str, accumulation: str, width: int) -> None:
    """Put the tokens of a step in the place of rows: a packed row is full, another is taken as UNPACKED_TOKENS."""
    rows = int(config.get(batch, 1)) * int(config.get(accumulation, 1))
    packed = bool(config.get("sample_packing") or config.get("packing") or config.get("neat_packing"))
    each = width if packed else min(width, UNPACKED_TOKENS)
    put(config.recipe, "tune.step_tokens", rows * each)
    how = f"{each:,} tokens each" + ("" if packed else "; rows of another length: set it to rows times tokens")
    config.note(batch, "changed", f"tune.step_tokens: {rows * each} ({rows} rows of one device, {how})")
    config.note(accumulation, "changed", "tune.step_tokens; memory decides how a step is split")


def learning_schedule(config: Carried, *, epochs: str, steps: str, scheduler: str) -> None:
    """Carry the optimizer and its schedule over."""
    config.carry("learning_rate", "tune.learning_rate", float(config.get("learning_rate", 2e-4)))
    if int(config.get(steps, 0) or 0) > 0:
        config.carry(steps, "tune.steps")
        config.spare((epochs,), f"{steps} ends the run")
    else:
        config.carry(epochs, "tune.epochs")
    schedule = str(config.get(scheduler, "cosine"))
    if schedule in SCHEDULES:
        config.carry(scheduler, "tune.schedule", SCHEDULES[schedule])
    elif schedule == "cosine_with_min_lr":
        config.change(scheduler, "tune.schedule", "cosine", "with tune.min_learning_rate_ratio")
    else:
        config.change(scheduler, "tune.schedule", "cosine", f"there is no schedule {schedule} here")
    config.carry("cosine_min_lr_ratio", "tune.min_learning_rate_ratio")
    optimizer = str(config.get("optimizer", config.get("optim", "adamw")))
    key = "optimizer" if "optimizer" in config.tree else "optim"
    if optimizer in OPTIMIZERS:
        config.carry(key, "tune.optimizer", OPTIMIZERS[optimizer])
    else:
        config.change(key, "tune.optimizer", "adamw", f"there is no {optimizer} here; its moments are in float32")
    _warmup(config, steps)
    config.carry("weight_decay", "tune.weight_decay")
    config.carry("max_grad_norm", "tune.max_grad_norm")
    for beta in ("adam_beta1", "adam_beta2"):
        config.carry(beta, f"tune.{beta.removeprefix('adam_')}")
    config.carry("seed", "tune.seed")
    if config.get("gradient_checkpointing") is not None:
        config.change("gradient_checkpointing", "tune.gradient_checkpointing", "auto", "where memory asks for it")
    for key in ("bf16", "fp16", "float16", "bfloat16"):
        if config.get(key):
            dtype = "float16" if key in ("fp16", "float16") else "bfloat16"
            config.carry(key, "model.dtype", dtype)
    validation = config.get("val_set_size") or config.get("val_size") or config.get("test_datasets") or config.get(
        "eval_dataset")  # fmt: skip
    for key, where in (("eval_steps", "tune.validate_every"), ("save_steps", "tune.checkpoint_every")):
        value = config.get(key)
        if isinstance(value, int) and value >= 1 and (validation or key == "save_steps"):
            config.carry(key, where)
        else:
            config.spare((key,), "a share of the run; here it is a number of steps" if value else "is off")
    _keep(config)


def _keep(config: Carried) -> None:
    """Keep the weights of the least validation loss where the other tool does."""
    if config.get("metric_for_best_model", "loss") not in ("loss", "eval_loss"):
        config.note("metric_for_best_model", "left", "tune.keep: best goes by the validation loss")
    config.spare(("metric_for_best_model",), "the validation loss, as here")
    if config.get("load_best_model_at_end") and "validate_every" in config.recipe["tune"]:
        config.carry("load_best_model_at_end", "tune.keep", "best")
    config.lose(("load_best_model_at_end",), "tune.keep: best goes with held-out rows and tune.validate_every")


def _warmup(config: Carried, steps: str) -> None:
    """Carry the warm-up over: a share of the steps here, and not a number."""
    config.carry("warmup_ratio", "tune.warmup_ratio")
    warmup, total = config.get("warmup_steps"), config.get(steps)
    if not warmup:
        config.spare(("warmup_steps",), "is off")
    elif isinstance(warmup, float) and warmup < 1:
        config.carry("warmup_steps", "tune.warmup_ratio")
    elif total and int(total) > 0:
        config.change("warmup_steps", "tune.warmup_ratio", round(int(warmup) / int(total), 4), f"of {total} steps")
    else:
        config.change(
            "warmup_steps", "tune.warmup_ratio", 0.03, f"here a share of the steps: set it to {warmup} / steps"
        )


def trackers(config: Carried, names: dict[str, str]) -> None:
    """Switch on the trackers whose key has a value."""
    tracked = []
    for key, tracker in names.items():
        if config.get(key):
            spec: dict[str, Any] = {"tracker": tracker}
            if key.endswith("_project"):
                spec["project"] = config.tree[key]
            tracked.append(spec)
            config.note(key, "carried", f"track: {tracker}")
    if tracked:
        put(config.recipe, "track", [*tracked, {"tracker": "loss_plot"}])


def model_of(config: Carried, path: str, revision: str) -> None:
    """Carry over which model is tuned; that its folder's code may run is not."""
    config.carry(path, "model.path")
    config.carry(revision, "model.revision")
    if config.get("trust_remote_code"):
        config.note("trust_remote_code", "left", TRUST)


def hold_out(config: Carried, key: str) -> None:
    """Carry over the share that is held out, and let the recipe measure base and tuned variant on held-out rows."""
    share = config.get(key)
    if isinstance(share, float) and 0 < share < 1:
        config.carry(key, "data.validation_share")
    elif share:
        config.note(key, "left", "a number of rows; here it is a share: set data.validation_share")
    data = config.recipe["data"]
    if not data.get("validation") and not data.get("validation_share"):
        return
    objective = config.recipe["tune"]["objective"]["name"]
    if objective in ("sft", "pretrain"):
        put(config.recipe, "evaluate", [{"evaluation": "val_loss"}])
    elif objective in ("dpo", "orpo", "simpo", "reward"):
        put(config.recipe, "evaluate", [{"evaluation": "preferences"}])


def hub_path(config: Carried, path: str, split: Any, subset: Any, remarks: list[str]) -> str:
    """Return a source's path: of a file relative to the configuration's folder, or the hub's."""
    folder = config.path.resolve().parent
    for place in (folder, *folder.parents):
        if (place / path).exists() and path:
            return str(place / path)
    if path.startswith(("./", "/", "~")) or Path(path).suffix or "://" in path or path.count("/") > 1:
        if "://" not in path:
            remarks.append(f"{path} is not here: put it beside the recipe")
        return path
    split = str(split or "train")
    if "[" in split:
        remarks.append(f"split {split}: a part of a split is not carried over; `limit` or `cap` take fewer rows")
        split = split.partition("[")[0]
    remarks.append(f"{path} is on the hub: pin it with `revision: COMMIT`")
    return f"hub://{path}{f'/{subset}' if subset else ''}?split={split}"


def no_objective(config: Carried, key: str, objectives: Iterable[str]) -> RecipeError:
    """Return the error for a way of training that none of the objectives here is."""
    return RecipeError(
        f"{config.path}: {key}: {config.tree[key]} trains in a way that no objective here does; read are "
        f"configurations of {', '.join(sorted(set(objectives)))}"
    )
