"""Write the generated parts of the docs: commands.md, reference.md, the keys of recipes.md, the shapes of data.md.

`make docs` runs it.

What a command prints as its help and what a recipe's keys are comes from the code; what a key means is written here,
once, and a key without a meaning is an error.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click

DOCS = Path(__file__).resolve().parent
MARK = re.compile(r"(<!-- (keys|shapes|benchmarks): begin -->\n).*(<!-- \2: end -->)", re.DOTALL)

MOST_FORMS = 3  # forms of a shape that the table spells out

MEANINGS = {
    # The recipe itself
    "name": "the run's folder under `runs/`; the recipe's file name where left out",
    "plugins": "single-file plugins that the recipe needs, relative to its folder: `[riddles.py]`",
    "model": "the base model, see below",
    "template": "a registered template by its name, or a section, see below",
    "data": "what is trained and validated on, see below",
    "tune": "how to tune, see below",
    "evaluate": "a list of evaluations to run, see below",
    "gate": "a list of rules for `harness gate`, see below",
    "track": "a list of trackers to switch on, see below",
    "serve": "how to serve, see below",
    # model
    "model.path": "a folder (relative to the recipe) or a hub id such as `Qwen/Qwen2.5-0.5B`",
    "model.revision": "branch, tag or commit of a hub id",
    "model.dtype": "what the weights are loaded as",
    "model.trust_remote_code": "run Python code that the model's folder brings; off unless you say so",
    "model.rope_scaling": "`{type: yarn, factor: 4}` (or `linear`): positions stretched to so many times those that "
                          "the model was trained on, in tuning, evaluation, merging and serving",
    # template
    "template.name": "a registered template (`harness template list`), or `model` for the one that the model brings",
    "template.add_tokens": "add the control tokens that the tokenizer lacks, and train their embeddings: see "
                           "[Templates](templates.md#base-models-without-chat-tokens)",
    "chatml.system": "the system prompt of conversations that bring none; `null`: they have none",
    "qwen2.system": "the system prompt of conversations that bring none",
    "qwen2.5.system": "the system prompt of conversations that bring none",
    "vicuna.system": "the system prompt of conversations that bring none",
    "llama3.1.date": "the day that the system prompt gives as today's, in tuning as in "
                     "serving; `null` leaves its two lines of dates out",
    "llama3.1.tools_in_user_message": "tools stand in the first question, as published, and not in the system prompt",
    "llama3.1.builtin_tools": "tools that are called behind `<|python_tag|>`: `brave_search`, "
                              "`wolfram_alpha`, `code_interpreter`",
    "llama3.1.trim": "cut white space off the edges of what is said, as published",
    "model.thinking": "whether answers are asked for thoughts, where the template "
                      "has a switch; `auto`: as each answer has them",
    "gemma4.thinking": "whether answers are asked for thoughts; `auto`: as each answer has them",
    "gpt-oss.effort": "what the system message calls the reasoning",
    "gpt-oss.identity": "the first sentence of the system message",
    "gpt-oss.date": "the day that the system message names, in tuning as in serving",
    "qwen3.system": "the system prompt of conversations that bring none",
    "qwen3.thinking": "whether answers are asked for thoughts; `auto`: as each answer has them",
    "model.variables": "set before the template reads them, and saved with the run: `{enable_thinking: false}`",
    "model.date": "the day that a template gets from `strftime_now`, in tuning as in serving; left out, 2024-07-26",
    # data
    "data.reasoning": "what becomes of thoughts: trained on, in the example without being "
                      "trained on (`context`), or left out (`drop`)",
    "data.train_on": "which answers are trained on: `all` that the data do not exclude, the `last` of these in each "
                     "conversation, or those `marked` with `train: true`",
    "data.train": "what is trained on: a list of sources, in this order",
    "data.validation": "what is measured while tuning, and by `val_loss`: a list of sources",
    "data.max_tokens": "the longest conversation, in tokens; of the objective `pretrain`, the longest piece of a text",
    "data.on_overlong": "what happens to one that is longer, or longer than the model's positions: stop with an "
                        "`error`, `drop` it, or `truncate` its end. Both counts are shown",
    "data.processes": "that encode; 0: threads only. Left out, there are as many as cores where cores (more than 4) "
                      "and rows are many. The data are the same",
    "data.validation_share": "holds out so large a share of the training rows instead, by a hash of what they say",
    "data.clean": "filters that rows pass, in this order: see [Data](data.md#cleaning)",
    "data.decontaminate": "what happens to rows that overlap with evaluation "
                          "items: see [Data](data.md#decontamination)",
    "data.temperature": "evens out how much the sources give: see [Data](data.md#mixing-sources)",
    "data.seed": "of which rows a mixture draws",
    "data source.revision": "the commit of a `hub://` dataset",
    "data source.rows": "the key under which a JSON object holds the rows, as `data` in "
                        "`{\"version\": 1, \"data\": [{…}]}`",
    "data source.unescape_newlines": "turn `\\n` in a cell of a table into a line end, as FLAN's TSV files mean it; "
                                     "LaTeX, code and paths need it off",
    "data source.columns": "the file's names for what the dataset knows under others: `{instruction: question}`",
    "data source.unread": "columns of the file that are left out on purpose, `messages.mood` for a key inside one: "
                          "see [Data](data.md#nothing-is-lost-unseen)",
    "data source.on_bad_row": "what happens to a row that cannot be converted: stop with an "
                              "`error`, or `drop` it. Counts and reasons are shown",
    "data source.cap": "at most so many, chosen by a hash of what they say",
    "data source.weight": "its part of the mixture",
    "data source.epochs": "how often each row may be used",
    "data source.dataset": "a registered dataset: `harness data list`",
    "data source.path": "the file (relative to the recipe), where the dataset does not bring its own",
    "data source.limit": "only so many conversations",
    # tune
    "tune.objective": "what the loss is: a name, or a section with its `name` and options",
    "tune.method": "which weights move: a name, or a section with its `name` "
                   "and options, as in `{name: lora, rank: 8}`",
    "tune.optimizer": "AdamW with its moments in float32, or in 8 bits (bitsandbytes); "
                      "`paged_`: moved off a full accelerator",
    "tune.learning_rate": "the highest learning rate",
    "tune.epochs": "how often the data is gone through; 0.5 is half of it",
    "tune.steps": "so many optimizer steps instead of `epochs`",
    "tune.step_tokens": "tokens of an optimizer step, at most, over all processes",
    "tune.microbatch_tokens": "positions of a forward pass, padding included; `auto`: what memory allows",
    "tune.layout": "`padded`, `packed` (examples behind each other), or `auto`: packed on a GPU, if the model can",
    "tune.warmup_ratio": "the part of the steps over which the learning rate rises from 0",
    "tune.schedule": "how it falls after that",
    "tune.min_learning_rate_ratio": "where it ends, as a part of `learning_rate`",
    "tune.weight_decay": "AdamW's decoupled weight decay",
    "tune.beta1": "AdamW's decay of the gradient's mean",
    "tune.beta2": "AdamW's decay of the gradient's square",
    "tune.max_grad_norm": "the norm that gradients are scaled down to; `null` leaves them",
    "tune.gradient_checkpointing": "less memory for some 30 % more time",
    "tune.seed": "of the adapter's first weights, the order of the data and dropout",
    "tune.checkpoint_every": "optimizer steps between checkpoints to resume from; always one at an interruption",
    "tune.samples": "prompts of the validation data that are answered at each validation, or a list of prompts",
    "tune.keep": "the weights that are the result: the `last` ones, or those of the lowest validation loss (`best`)",
    "tune.early_stopping": "`{patience, min_delta}`: ends the run after so many validations that bring nothing new",
    "tune.on_spike": "what a loss that jumps does: `warn` names its rows, `stop` stops the run, `ignore`",
    "tune.parallel": "what each of several processes has: `data` the whole model, `fsdp` a part of the weights, `auto`",
    "tune.validate_every": "optimizer steps between measurements of `data.validation`; always one before and after",
    "lora.rank": "the adapter's rank",
    "lora.alpha": "its scale: the adapter is added `alpha / rank` times",
    "lora.dropout": "dropout before the adapter",
    "lora.target_modules": "`all-linear`, names' ends as `[q_proj, v_proj]`, or a regular expression for whole names",
    "lora.experts": "with `all-linear`: adapt the experts that a model keeps in one tensor a layer, too",
    "lora.rslora": "scale by `alpha / sqrt(rank)` instead",
    "lora.init": "`default`, `gaussian`, `orthogonal`, `mica`, `pissa` or `olora`; the last two save twice the rank",
    "lora.b_rate_ratio": "LoRA+: the learning rate of B over that of A",
    "lora.train_also": "`[embeddings, head]`, or one of them: trained beside the adapter; the run saves a whole model",
    "qlora.double_quant": "keep the scales of the 4-bit blocks in 8 bits",
    "from_run.path": "the folder of the run (relative to the recipe) whose adapter is trained on",
    "from_run.b_rate_ratio": "LoRA+: the learning rate of B over that of A",
    # evaluate
    "evaluate.evaluation": "a registered evaluation",
    "lm_eval.tasks": "names of lm-evaluation-harness tasks",
    "lm_eval.include_path": "a folder with task files of your own (relative to the recipe); its names come first",
    "lm_eval.limit": "only the first so many items",
    "lm_eval.num_fewshot": "examples in the prompt; the task's own number where left out",
    "lm_eval.batch_size": "requests at a time",
    "lm_eval.max_gen_toks": "the longest answer, in tokens; the task's own where left out",
    "lm_eval.system_prompt": "put before every question",
    "lm_eval.seed": "of few-shot examples and sampling",
    "lm_eval.as_lm_eval": "score as lm-eval's own command line does, for figures to be compared with others'",
    "lm_eval.apply_chat_template": "`false`, with `as_lm_eval` only: ask without a template, as a base model is asked",
    "sft.neftune_alpha": "noise on the embeddings while training (NEFTune), 5 to 15; 0 is none",
    "pretrain.neftune_alpha": "noise on the embeddings while training (NEFTune), 5 to 15; 0 is none",
    "dpo.beta": "how much a reward is of a log-ratio to the reference: the higher, the nearer the policy stays",
    "dpo.loss": "the published loss; `ipo` takes means a token",
    "dpo.label_smoothing": "the share of labels that are taken to be wrong, for `sigmoid` and `robust`",
    "dpo.nll_weight": "weight of the supervised loss of the chosen completion",
    "kto.beta": "as of `dpo`",
    "kto.desirable_weight": "of good completions",
    "kto.undesirable_weight": "of bad ones",
    "orpo.beta": "weight of the odds ratio beside the supervised loss (the paper's lambda)",
    "simpo.beta": "how much a reward is of a mean log-probability",
    "simpo.gamma_beta_ratio": "the margin wanted between the mean log-probabilities",
    "simpo.label_smoothing": "the share of labels that are taken to be wrong",
    "simpo.nll_weight": "weight of the supervised loss of the chosen completion",
    "reward.margins": "pairs are to be apart by their `margin`, where the data have one",
    "reward.center": "weight that keeps scores near 0",
    "preferences.data": "measured instead of the recipe's `data.validation`",
    "preferences.limit": "only so many pairs",
    "preferences.batch_tokens": "tokens in a batch, padding included",
    "instruct.world": "the item templates: `english`",
    "instruct.world_path": "a file of item templates of your own instead (relative to the recipe)",
    "instruct.categories": "only these, such as `format`; all where empty",
    "instruct.n": "items a category",
    "instruct.seed": "what the items are drawn with",
    "instruct.max_tokens": "the longest answer, in tokens",
    "instruct.limit": "only the first so many items, of all categories in turn",
    "human.votes": "a votes database: a SQLite file (relative to the working directory) or a SQLAlchemy URL",
    "ifeval.prompts_path": "a JSONL file of prompts (relative to the recipe); google/IFEval of the hub where left out",
    "ifeval.max_tokens": "the longest answer, in tokens",
    "ifeval.limit": "only the first so many prompts",
    "judge.judge": "the model that judges, as in `openai:https://host/v1#model`",
    "judge.questions_path": "a JSONL file of questions, with one turn or more (relative to the recipe)",
    "judge.mode": "compare answers with others, or grade them from 1 to 10",
    "judge.against": "the variant to compare with; the run's base where left out",
    "judge.against_path": "a JSONL file of answers to compare with instead (relative to the recipe)",
    "judge.references_path": "a JSONL file of right answers, shown to a judge that grades (relative to the recipe)",
    "judge.votes": "a votes database, whose votes on the same questions and pair are shown beside the verdicts",
    "judge.key_variable": "the environment variable with the judge's key",
    "judge.max_tokens": "the longest answer to a question, in tokens",
    "judge.verdict_tokens": "the longest answer of the judge, in tokens",
    "judge.tries": "how often the judge is asked for one verdict",
    "judge.concurrency": "questions to the judge at a time",
    "judge.budget_tokens": "the most tokens of the judge, its prompts included; what was judged until then is kept",
    "judge.limit": "only the first so many questions",
    "judge.question": "what the judge is asked, with the placeholder `{conversations}`; our own where left out",
    "perplexity.text_path": "a text file, which is one text (relative to the recipe)",
    "perplexity.data": "sources of a dataset instead, such as `text`: a text a row",
    "perplexity.window": "the most tokens of one window; the model's own length where left out",
    "perplexity.limit": "only the first so many rows",
    "val_loss.data": "measured instead of the recipe's `data.validation`",
    "val_loss.limit": "only so many conversations",
    "val_loss.max_tokens": "instead of `data.max_tokens`",
    "val_loss.on_overlong": "instead of `data.on_overlong`",
    "val_loss.batch_tokens": "tokens in a batch, padding included",
    # gate
    "gate.task": "the task that the rule is on; every task where left out",
    "gate.metric": "the metric that it is on; every metric where left out",
    "gate.category": "items of this category only",
    "gate.no_significant_loss": "the run is not significantly worse, corrected for all that these rules are on",
    "gate.at_least": "the difference, run minus the other variant, is no smaller: a number, or `2 points`",
    "gate.at_most": "the difference is no greater",
    "gate.by": "what keeps a bound: the whole 95 % `interval`, or the difference alone (`estimate`)",
    # track, serve
    "track.tracker": "a registered tracker; `loss_plot` draws `loss.png`",
    "serve.engine": "a registered engine",
    "vllm.host": "the address to listen on; any but this machine's own is refused without a key",
    "vllm.port": "the port of the OpenAI-compatible endpoint",
    "vllm.api_key": "the key that clients must send. It is never written to the run",
    "vllm.keys": "a file of named keys (`harness keys`)",
    "vllm.max_request_mib": "the size of the largest request",
    "vllm.allow_origins": "other sites whose pages may ask the endpoint (CORS), as `https://app.example.org`",
    "vllm.allow_hosts": "names that endpoint and page answer to besides the machine's own",
    "vllm.dtype": "the dtype of the weights; the one the variants were tuned in where left out",
    "vllm.max_model_len": "prompt and answer together, in tokens; the model's own where left out",
    "vllm.kv_cache_gib": "memory for the KV cache in GiB; 1 on a CPU, what "
                         "`gpu_memory_utilization` leaves on a GPU where left out",
    "vllm.gpu_memory_utilization": "the part of a GPU's memory that vLLM takes",
    "vllm.tensor_parallel_size": "GPUs that share one model",
    "vllm.pipeline_parallel_size": "GPUs, or machines, that each have some of the layers",
    "vllm.data_parallel_size": "copies of the model; adapters are checked on each",
    "vllm.executor": "`mp`, `ray` (over several machines) or `uni`; vLLM's choice where left out",
    "vllm.quantization": "vLLM's method; the model's own where left out",
    "vllm.adapter_slots": "adapters that may be served at once; those named at the start and 2 more where left out, "
                          "0 without any",
    "vllm.adapter_rank": "their highest rank; that of those named at the start, or 16, where left out",
    "vllm.adapter_modules": "the modules that they may change, as in `[q_proj, v_proj]`; those that the named ones "
                            "change, or all linear layers, where left out",
    "vllm.request_log": "where each request is a line of JSON; beside the engine's log where left out",
    "vllm.log_prompts": "also log what was asked",
    "vllm.remotes": "models of other endpoints; `harness serve` sets it",
    "vllm.control_socket": "where the engine passes on what changes its adapters; `harness serve` sets it",
    "vllm.cpu_threads": "threads on a CPU; one fewer than the process may use cores where left out",
    "vllm.compact_json": "no white space between the parts of JSON that a request asks for; see [Serving](serving.md)",
    "vllm.batch_invariant": "answers that do not depend on what shares their batch; of GPUs whose build can",
    "vllm.enforce_eager": "no compilation: quicker to start, slower to answer; "
                          "yes on a CPU, no on a GPU where left out",
    "vllm.seed": "of sampling",
    "vllm.start_timeout_s": "seconds to wait for the engine",
    "vllm.tool_parser": "what reads tool calls from answers, by vLLM's name; found where left out, `none` for none",
    "vllm.reasoning_parser": "what reads thoughts from answers, by vLLM's name; found where left out, `none` for none",
    "vllm.extra_args": "further options for vLLM, passed on as they are",
}  # fmt: skip


def commands_page() -> str:
    """Every command's help, as the commands print it."""
    from harness.cli.main import cli

    parts = [
        "# Commands\n\n<!-- Written by docs/generate.py from the commands themselves. -->\n\n"
        "Every mistake ends with one message on standard error and status 1; wrong usage with status 2.\n"
    ]
    root = click.Context(cli, info_name="harness", terminal_width=100, help_option_names=["-h", "--help"])
    for path, context in _walk(cli, root):
        help_text = context.command.get_help(context)
        parts.append(f"\n{'#' * (len(path) + 1)} {' '.join(path)}\n\n```text\n{help_text}\n```\n")
    return "".join(parts)


def _walk(command: click.Command, context: click.Context) -> Iterator[tuple[tuple[str, ...], click.Context]]:
    path = tuple(str(context.command_path).split())
    yield path, context
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None, name
            yield from _walk(child, click.Context(child, info_name=name, parent=context, terminal_width=100))


def recipe_keys() -> str:
    """A table of keys for each section of a recipe and for the options of each first-party part."""
    from harness.contract.kinds import KINDS
    from harness.plugins import Plugins
    from harness.recipe import (
        DataSource,
        DataSpec,
        EvaluateSpec,
        GateRule,
        ModelSpec,
        Recipe,
        ServeSpec,
        TemplateSpec,
        TrackSpec,
        TuneSpec,
    )

    plugins = Plugins()
    registered = {kind.plural: plugins.registry(kind.plural) for kind in KINDS if kind.default}
    default = {plural: registry.default for plural, registry in registered.items()}
    trackers = "[" + ", ".join(f"{{tracker: {name}}}" for name in plugins.trackers.defaults) + "]"
    out = ["### The recipe\n", _table("", Recipe, template=default["templates"], track=trackers)]
    out += ["### `model`\n", _table("model", ModelSpec)]
    out += [
        "### `template`\n",
        _table("template", TemplateSpec, name=default["templates"]),
        *_options("name", plugins.templates),
    ]
    out += [
        "### `data`\n",
        _table("data", DataSpec),
        "Each source in `train` and `validation`:\n",
        _table("data source", DataSource),
    ]
    out += ["### `tune`\n", _table("tune", TuneSpec, objective=default["objectives"], method=default["methods"])]
    out += _options("method: {name", plugins.methods) + _options("objective: {name", plugins.objectives)
    out += ["### `evaluate`\n", _table("evaluate", EvaluateSpec), *_options("evaluation", plugins.evaluations)]
    out += ["### `gate`\n", _table("gate", GateRule)]
    out += ["### `track`\n", _table("track", TrackSpec)]
    out += [
        "### `serve`\n",
        _table("serve", ServeSpec, engine=default["engines"]),
        *_options("engine", plugins.engines),
    ]
    return "\n".join(out)


def _options(kind: str, registry: Any) -> list[str]:
    out = []
    for name, part in registry.items():
        if part.options and part.options.model_fields:
            end = ", …}" if "{" in kind else ""
            out += [f"With `{kind}: {name}{end}`, also:\n", _table(name, part.options)]
    if none := [f"`{name}`" for name, part in registry.items() if not (part.options and part.options.model_fields)]:
        out += [f"No keys are added by the {registry.kind.plural} {', '.join(none)}.\n"]
    return out


def _table(section: str, model: Any, **defaults: str) -> str:
    """A row for each key of a section; `defaults` are those that plugins register."""
    rows = ["| key | default | what it is |", "|---|---|---|"]
    for key, field in model.model_fields.items():
        meaning = MEANINGS.get(f"{section}.{key}" if section else key)
        if meaning is None and section in ("dora", "qlora"):  # LoRA's
            meaning = MEANINGS.get(f"lora.{key}")
        if meaning is None:
            raise SystemExit(f"docs/generate.py: say in MEANINGS what {section}.{key} means")
        choices = _choices(field.annotation)
        text = f"{meaning}. {choices}" if choices else meaning
        rows.append(f"| `{key}` | {f'`{defaults[key]}`' if key in defaults else _default(field)} | {text} |")
    return "\n".join(rows) + "\n"


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None:
        return "none"
    if hasattr(value, "model_dump"):
        return "see below"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, dict):
        return "`{}`" if not value else f"`{value}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def _choices(annotation: Any) -> str:
    """`One of a, b` where the type is a list of words."""
    for candidate in (annotation, *get_args(annotation)):
        words = get_args(candidate)
        if words and all(isinstance(word, str) for word in words):
            return "One of " + ", ".join(f"`{word}`" for word in words)
    return ""


def shapes() -> str:
    """Return a table of the shapes: columns that each reads, columns that it only knows, dataset that converts it."""
    from harness.plugins import Plugins

    rows = ["| shape | a row of | is read from | and may have | by |", "|---|---|---|---|---|"]
    for shape in (entry.item for entry in Plugins().shapes.entries):
        forms = list(dict.fromkeys(_columns(alternative) for alternative in shape.fields))
        read = "; or ".join(read for read, _ in forms[:MOST_FORMS])
        read += f"; or {len(forms) - MOST_FORMS} more forms" if len(forms) > MOST_FORMS else ""
        metadata = ", ".join(dict.fromkeys([*(name for _, names in forms for name in names), *shape.metadata]))
        rows.append(f"| `{shape.name}` | {shape.description} | {read} | {metadata} | `{shape.into}` |")
    return "\n".join(rows) + "\n"


def _columns(alternative: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """Return the columns that an alternative reads, as text, and its metadata; what is inside them is left out."""
    optional = {name.rpartition("=")[2].removesuffix("?") for name in alternative if name.endswith("?")}
    read = dict.fromkeys(
        name.rpartition("=")[2].removesuffix("?").partition(".")[0] for name in alternative if name[:1] != "-"
    )
    metadata = (name[1:] for name in alternative if name[:1] == "-" and "." not in name)
    names = ((name, " or ".join(f"`{one}`" for one in name.split("|"))) for name in read if name != "*")
    rest = " and columns of the user's own" if "*" in alternative else ""
    return ", ".join(f"{spelt}{'?' if name in optional else ''}" for name, spelt in names) + rest, tuple(metadata)


def benchmarks() -> str:
    """Return a table of the benchmarks: columns, the task that phrases them, the meaning of numbered labels."""
    from harness_datasets.benchmarks import BENCHMARKS

    rows = ["| `task` | a row has | is phrased as | labels | by columns |", "|---|---|---|---|---|"]
    for name, forms in BENCHMARKS.items():
        read = "; or ".join(", ".join(f"`{column}`" for column in form.reads) for form in forms)
        labels = "; or ".join(
            dict.fromkeys(
                ", ".join(f"{value} {words}" for value, words in form.labels.items() if value.isdigit())
                for form in forms
                if form.labels
            )
        )
        decided = "yes" if all(form.certain for form in forms) else "in part" if forms[0].certain else "no"
        tasks = ", ".join(dict.fromkeys(f"`{form.task}`" for form in forms))
        rows.append(f"| `{name}` | {read} | {tasks} | {labels} | {decided} |")
    return "\n".join(rows) + "\n"


def reference_page() -> str:
    """Return the nouns and the public objects: each with its fields or signature, and its docstring's first lines."""
    import harness
    from harness import nouns, testing
    from harness.contract import events

    parts = [
        "# Nouns and public objects\n\n<!-- Written by docs/generate.py from the objects themselves. -->\n\n"
        "Import these names from the module in the heading. They are the plugin API: names are added, and one is taken "
        "away only with a deprecation first. How each is used is in the [plugin cookbook](plugins.md).\n\n"
        f"The API's version is {harness.API_VERSION}.\n"
    ]
    named = {
        "harness": [name for name in harness.__all__ if name not in ("API_VERSION", "hookimpl")],
        "harness.testing": testing.__all__,
    }
    for module, names in named.items():
        parts.append(f"\n## `{module}`\n")
        parts += [_object(getattr(sys.modules[module], name), name) for name in names]
    parts.append("\n## Nouns\n\nFrozen data, from `harness.nouns`, that the above are made of.\n")
    others = [name for name in nouns.__all__ if name not in harness.__all__]
    parts += [_object(getattr(nouns, name), name) for name in others if isinstance(getattr(nouns, name), type)]
    parts.append("\n## Events\n\nSent to trackers, from `harness.contract.events`.\n")
    parts += [_object(event, event.__name__) for event in get_args(events.Event)]
    return "".join(parts)


def _object(thing: Any, name: str) -> str:
    """Return the entry of one public object."""
    if thing is Any or not callable(thing):
        return f"\n### `{name}`\n\n`{thing}`\n"
    doc = inspect.cleandoc(thing.__doc__ or "").partition("\n\n")[0].replace("\n", " ")
    if dataclasses.is_dataclass(thing):
        fields = "\n".join(
            f"    {field.name}: {_type(field.type)}{_value(field)}" for field in dataclasses.fields(thing)
        )
        return f"\n### `{name}`\n\n{doc}\n\n{fields}\n"
    try:
        signature = str(inspect.signature(thing)) if inspect.isfunction(thing) else ""
    except (TypeError, ValueError):
        signature = ""
    shown = f"\n    {name}{signature}\n" if signature else ""
    return f"\n### `{name}`\n\n{doc}\n{shown}"


def _type(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _value(field: dataclasses.Field[Any]) -> str:
    """Return a field's default as it is written; of a made one, that there is one."""
    if field.default is not dataclasses.MISSING:
        text = repr(field.default)
        return f" = {text}" if " at 0x" not in text and len(text) < 60 else " = ..."
    return " = ..." if field.default_factory is not dataclasses.MISSING else ""


def pages() -> dict[Path, str]:
    """Return the text of each generated page."""
    parts = {"keys": recipe_keys(), "shapes": shapes(), "benchmarks": benchmarks()}
    marked = {DOCS / name: (DOCS / name).read_text(encoding="utf-8") for name in ("recipes.md", "data.md")}
    return {
        DOCS / "commands.md": commands_page(),
        DOCS / "reference.md": reference_page(),
        **{
            page: MARK.sub(lambda mark: f"{mark[1]}\n{parts[mark[2]]}\n{mark[3]}", text)
            for page, text in marked.items()
        },
    }


if __name__ == "__main__":
    for page, text in pages().items():
        page.write_text(text, encoding="utf-8")
        print(f"wrote {page.relative_to(DOCS.parent)}", file=sys.stderr)
