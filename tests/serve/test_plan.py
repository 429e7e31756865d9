"""What one engine can serve together is decided, with reasons, before anything is started."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness_serve import engine
from harness_serve.arguments import (
    capacity,
    default_variables,
    environment,
    replica_headers,
    tool_parser,
    tool_parsers,
    vllm_arguments,
)
from harness_serve.engine import VllmOptions
from harness_serve.engine_guard import OWNER_KEY_VARIABLE
from harness_serve.engine_log import telling_lines, why_it_ended
from harness_serve.plan import CHAT_FILES, Plan, plan_engine
from safetensors.numpy import save_file

from harness import HarnessError
from harness.client.asking import EndpointError, post
from harness.contract import Endpoint
from harness.model.templates import with_chat_folders
from harness.plugins import Plugins
from harness.recipe import ModelSpec
from harness.template.habits import Habits
from harness.variants import Variant

MODEL = ModelSpec(path="/models/small")


def _variant(
    folder: Path,
    name: str,
    rank: int = 8,
    template: str = "T",
    model: ModelSpec = MODEL,
    modules: tuple[str, ...] = ("model.layers.0.self_attn.q_proj", "model.layers.0.mlp.down_proj"),
    size: int = 16,
    more: tuple[str, ...] = (),
    **config: object,
) -> Variant:
    """A variant whose adapter has zeros for `modules`, and the tensors `more` besides."""
    for part in ("adapter", "chat"):
        (folder / name / part).mkdir(parents=True)
    (folder / name / "adapter/adapter_config.json").write_text(json.dumps({"r": rank} | config))
    tensors = {f"base_model.model.{module}.lora_A.weight": np.zeros((rank, size), np.float16) for module in modules}
    tensors |= {f"base_model.model.{module}.lora_B.weight": np.zeros((size, rank), np.float16) for module in modules}
    tensors |= {key: np.zeros((size, size), np.float16) for key in more}
    save_file(tensors, folder / name / "adapter/adapter_model.safetensors")
    for file in CHAT_FILES:
        (folder / name / "chat" / file).write_text(template)
    return Variant(name, model, folder / name / "adapter", folder / name / "chat")


def test_the_base_answers_beside_the_adapters(tmp_path: Path) -> None:
    plan = plan_engine([_variant(tmp_path, "a"), _variant(tmp_path, "b")], VllmOptions())
    assert plan.names == ("base", "a", "b")


def test_a_base_that_was_named_answers_under_that_name(tmp_path: Path) -> None:
    tuned = _variant(tmp_path, "a")
    base = Variant("a@base", MODEL, None, tuned.chat_folder)
    assert plan_engine([base, tuned], VllmOptions()).names == ("a@base", "a")


def test_an_adapter_named_base_leaves_the_base_another_name(tmp_path: Path) -> None:
    assert plan_engine([_variant(tmp_path, "base")], VllmOptions()).names == ("small@base", "base")


def test_different_models_are_refused_by_name(tmp_path: Path) -> None:
    other = _variant(tmp_path, "b", model=ModelSpec(path="/models/large"))
    with pytest.raises(HarnessError, match=r"(?s)a: /models/small.*b: /models/large.*--port"):
        plan_engine([_variant(tmp_path, "a"), other], VllmOptions())


def test_one_model_written_in_two_ways_is_one_model(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "model")
    chat = _variant(tmp_path, "a").chat_folder
    variants = [Variant(name, ModelSpec(path=str(tmp_path / name)), None, chat) for name in ("model", "link")]
    assert plan_engine(variants, VllmOptions()).names == ("model", "link")


def test_different_templates_are_refused_by_file(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"a and b were tuned with different tokenizer.json and chat_template.jinja"):
        plan_engine([_variant(tmp_path, "a"), _variant(tmp_path, "b", template="U")], VllmOptions())


def test_a_model_with_its_own_template_does_not_share_a_runs(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"a@base"):
        plan_engine([Variant("small", MODEL), _variant(tmp_path, "a")], VllmOptions())


def test_different_dtypes_want_a_choice(tmp_path: Path) -> None:
    variants = [_variant(tmp_path, "a"), _variant(tmp_path, "b", model=ModelSpec(path=MODEL.path, dtype="float32"))]
    with pytest.raises(HarnessError, match=r"--dtype"):
        plan_engine(variants, VllmOptions())
    assert plan_engine(variants, VllmOptions(dtype="float32")).dtype == "float32"


def test_dora_is_refused_before_the_engine_starts(tmp_path: Path) -> None:
    with pytest.raises(HarnessError, match=r"does not serve DoRA"):
        plan_engine([_variant(tmp_path, "a", use_dora=True)], VllmOptions())


def test_an_adapter_without_its_weights_is_refused_by_file(tmp_path: Path) -> None:
    variant = _variant(tmp_path, "a")
    (tmp_path / "a/adapter/adapter_model.safetensors").unlink()
    with pytest.raises(HarnessError, match=r"a: .* is not a whole adapter: it has no adapter_model.safetensors"):
        plan_engine([variant], VllmOptions())


def test_weights_cut_short_are_refused_by_file(tmp_path: Path) -> None:
    variant = _variant(tmp_path, "a")
    path = tmp_path / "a/adapter/adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(HarnessError, match=r"adapter_model.safetensors: not a whole safetensors file"):
        plan_engine([variant], VllmOptions())


@pytest.mark.parametrize(
    "tensors",
    [
        {"modules": ("model.layers.0.mlp.down_proj", "lm_head")},
        {"modules": ("model.layers.0.mlp.down_proj", "model.embed_tokens")},
        {"more": ("base_model.model.model.embed_tokens.lora_embedding_A",)},
        {"more": ("base_model.model.lm_head.weight",)},
    ],
)
def test_adapters_on_embeddings_or_head_are_refused_with_a_way_out(tmp_path: Path, tensors: dict[str, object]) -> None:
    with pytest.raises(HarnessError, match=r"a: the adapter changes (lm_head|embed_tokens).*evaluate a.*all-linear"):
        plan_engine([_variant(tmp_path, "a", **tensors)], VllmOptions())  # type: ignore[arg-type]


def test_tensors_that_vllm_would_leave_out_are_refused_by_name(tmp_path: Path) -> None:
    key = "base_model.model.model.layers.0.self_attn.q_proj.lora_magnitude_vector"
    with pytest.raises(HarnessError, match=rf"holds {key}, and vLLM serves pairs"):
        plan_engine([_variant(tmp_path, "a", more=(key,))], VllmOptions())


def test_vllm_prepares_just_the_modules_that_are_in_the_files(tmp_path: Path) -> None:
    """The adapter's configuration claims others: what PEFT did not find in a model stays in its list."""
    attention = _variant(tmp_path, "a", modules=("model.layers.0.self_attn.q_proj",), target_modules=["q_proj", "c_fc"])
    plan = plan_engine([attention, _variant(tmp_path, "b", modules=("model.layers.3.mlp.up_proj",))], VllmOptions())
    arguments = vllm_arguments(plan, tmp_path, VllmOptions(), on_cpu=True)
    first = arguments.index("--lora-target-modules") + 1
    assert arguments[first : first + 3] == ["q_proj", "up_proj", "--lora-modules"]


def test_an_adapter_of_another_architecture_is_refused_by_module(tmp_path: Path, tiny_model: Path) -> None:
    other = _variant(tmp_path, "a", model=ModelSpec(path=str(tiny_model)), modules=("transformer.h.0.attn.c_attn",))
    with pytest.raises(HarnessError, match=r"1 of the adapter's 1 modules are not in .*transformer.h.0.attn.c_attn"):
        plan_engine([other], VllmOptions())


def test_an_adapter_of_another_size_is_refused_by_size(tmp_path: Path, tiny_model: Path) -> None:
    other = _variant(
        tmp_path, "a", model=ModelSpec(path=str(tiny_model)), modules=("model.layers.0.mlp.up_proj",), size=64
    )
    with pytest.raises(HarnessError, match=r"up_proj leads from 64 to 64, that of .* from 128 to 256"):
        plan_engine([other], VllmOptions())


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (2, 8), (8, 8), (9, 16), (65, 128), (512, 512)])
def test_the_engine_gets_the_smallest_rank_it_takes_that_fits(tmp_path: Path, rank: int, expected: int) -> None:
    plan = plan_engine([_variant(tmp_path, "a", rank=1), _variant(tmp_path, "b", rank=rank)], VllmOptions())
    arguments = vllm_arguments(plan, tmp_path, VllmOptions(), on_cpu=True)
    assert f"--max-lora-rank={expected}" in arguments and "--max-loras=5" in arguments


PLUGIN = {"extra_args": ("--tool-parser-plugin=mine.py",)}


@pytest.mark.parametrize(
    ("fitting", "chosen", "more", "expected"),
    [
        ("hermes", None, {}, "hermes"),
        ("hermes", "pythonic", {}, "pythonic"),
        (None, "xlam", {}, "xlam"),
        (None, None, PLUGIN, "declared"),
    ],
)
def test_the_tool_parser_that_reads_the_template_is_used_unless_another_is_named(
    tmp_path: Path, fitting: str | None, chosen: str | None, more: dict[str, Any], expected: str
) -> None:
    (tmp_path / "template.json").write_text(json.dumps({"name": "T", "tool_parser": "declared"}))
    options = VllmOptions(tool_parser=chosen, **more)
    parser = tool_parser(tmp_path, options, fitting)
    plan = plan_engine([_variant(tmp_path, "a")], options)
    arguments = vllm_arguments(plan, tmp_path, options, on_cpu=True, tool_parser=parser)
    assert parser == expected
    assert f"--tool-call-parser={expected}" in arguments and "--enable-auto-tool-choice" in arguments


@pytest.mark.parametrize(("declared", "chosen"), [(None, None), ("hermes", None), ("hermes", "none")])
def test_without_a_tool_parser_tool_calls_stay_text(tmp_path: Path, declared: str | None, chosen: str | None) -> None:
    (tmp_path / "template.json").write_text(json.dumps({"name": "T", "tool_parser": declared}))
    assert tool_parser(tmp_path, VllmOptions(tool_parser=chosen)) is None
    arguments = vllm_arguments(
        plan_engine([_variant(tmp_path, "a")], VllmOptions()), tmp_path, VllmOptions(), on_cpu=True
    )
    assert not any("tool" in argument for argument in arguments if argument.startswith("--enable"))


@pytest.mark.vllm
def test_an_unknown_tool_parser_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(
        HarnessError, match=r"no tool parser 'hermse'. Did you mean 'hermes'\? It has: .*, mistral, .*, xlam"
    ):
        tool_parser(tmp_path, VllmOptions(tool_parser="hermse"))
    plugin = VllmOptions(tool_parser="hermse", extra_args=("--tool-parser-plugin=mine.py",))
    assert tool_parser(tmp_path, plugin) == "hermse"


@pytest.mark.vllm
def test_the_parsers_that_templates_declare_are_vllms() -> None:
    declared = {template.tool_parser for template in Plugins().templates.values()}
    assert "hermes" in declared and {name for name in declared if isinstance(name, str)} <= set(tool_parsers())


def test_a_base_whose_vocabulary_tuning_extended_is_refused(tmp_path: Path) -> None:
    base = Variant("a@base", MODEL, None, _variant(tmp_path, "a").chat_folder, added_ids=(600,))
    with pytest.raises(HarnessError, match=r"a@base: tuning added tokens.*harness evaluate a@base"):
        plan_engine([base], VllmOptions())


def test_a_model_without_a_template_is_told_which_fit(tiny_model: Path, tmp_path: Path) -> None:
    plain = (Variant("tiny", ModelSpec(path=str(tiny_model))),)
    with pytest.raises(
        HarnessError, match=r"(?s)no chat template.*--template NAME\. These fit its tokenizer: .*chatml"
    ):
        with_chat_folders(plain, Plugins(), tmp_path / "chat")


def test_plain_models_that_are_asked_alike_share_one_chat_folder(tiny_model: Path, tmp_path: Path) -> None:
    plain = Variant("tiny", ModelSpec(path=str(tiny_model)), template="chatml")
    both = with_chat_folders((plain, plain), Plugins(), tmp_path / "chat")
    assert [variant.chat_folder for variant in both] == [tmp_path / "chat"] * 2
    assert (tmp_path / "chat/template.json").is_file()
    tuned = _variant(tmp_path, "a")
    assert with_chat_folders((tuned, plain), Plugins(), tmp_path / "chat") == (tuned, plain)
    assert with_chat_folders((plain, tuned), Plugins(), tmp_path / "chat") == (plain, tuned)


@pytest.mark.parametrize("has_config", [False, True])
def test_vllm_finds_a_configuration_beside_the_tokenizer(tmp_path: Path, tiny_model: Path, has_config: bool) -> None:
    """Without one it waits and tries again; one that is there stays."""
    chat_folder = _variant(tmp_path, "a").chat_folder
    assert chat_folder is not None
    if has_config:
        (chat_folder / "config.json").write_text("{}")
    with contextlib.ExitStack() as stack:
        folder = engine._with_config(chat_folder, ModelSpec(path=str(tiny_model)), stack)
        assert {file.name for file in folder.iterdir()} == {*CHAT_FILES, "config.json"}
        assert all((folder / name).read_text() == (chat_folder / name).read_text() for name in CHAT_FILES)
        expected = chat_folder if has_config else tiny_model
        assert (folder / "config.json").read_text() == (expected / "config.json").read_text()
    assert not folder.exists() and (chat_folder / CHAT_FILES[0]).exists()


def test_the_key_is_not_among_the_arguments(tmp_path: Path) -> None:
    options = VllmOptions(api_key="open sesame")
    plan = plan_engine([_variant(tmp_path, "a")], options)
    assert "open sesame" not in " ".join(vllm_arguments(plan, tmp_path, options, on_cpu=True))
    assert "open sesame" not in repr(options) + options.model_dump_json()


@pytest.mark.parametrize("key", [None, "open sesame"])
def test_the_engine_is_guarded_with_a_key_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setenv(OWNER_KEY_VARIABLE, "of another server")
    options = VllmOptions(api_key=key, allow_hosts=("Compare.example.org",))
    plan = plan_engine([_variant(tmp_path, "a")], options)
    arguments = vllm_arguments(plan, tmp_path, options, on_cpu=True)
    assert arguments[arguments.index("--middleware") + 1] == "harness_serve.engine_guard.EngineGuard"
    variables = environment(plan, options, on_cpu=True)
    assert variables.get(OWNER_KEY_VARIABLE) == key
    assert json.loads(variables["HARNESS_SERVE_NAMES"]) == ["127.0.0.1", "compare.example.org"]


@pytest.mark.parametrize(("own", "seconds"), [(None, 75), ("20", 20)])
def test_the_engine_keeps_a_connection_longer_than_its_clients_do(monkeypatch, own, seconds):
    """Of an equal time, which is vLLM's default, now and then a request meets a connection that is being closed."""
    if own:
        monkeypatch.setenv("VLLM_HTTP_TIMEOUT_KEEP_ALIVE", own)
    variables = environment(Plan(MODEL, "float32", ("base",), {}, None), VllmOptions(), on_cpu=True)
    assert int(variables["VLLM_HTTP_TIMEOUT_KEEP_ALIVE"]) == seconds


@pytest.mark.parametrize(("spins", "kept"), [("10000", None), ("300000", "300000")])
def test_the_engine_does_not_inherit_the_spinning_of_the_commands_own_threads(
    monkeypatch: pytest.MonkeyPatch, spins: str, kept: str | None
) -> None:
    """`harness` sets 10000 for itself; another value is a person's, and holds for the engine too."""
    monkeypatch.setenv("GOMP_SPINCOUNT", spins)
    variables = environment(Plan(MODEL, "float32", ("base",), {}, None), VllmOptions(), on_cpu=True)
    assert variables.get("GOMP_SPINCOUNT") == kept and variables["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_port_in_use_is_named_before_anything_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(HarnessError, match=rf"port {port} on 127.0.0.1 is in use.*--port"),
            engine.start((_variant(tmp_path, "a"),), VllmOptions(port=port)),
        ):
            pytest.fail("started")


def test_loading_the_plugin_imports_nothing_heavy() -> None:
    code = (
        "import sys, harness, harness_serve;"
        "assert not {'torch', 'vllm', 'gradio', 'openai', 'sqlalchemy', "
        "'pydantic'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_rank_is_that_of_the_matrices(tmp_path: Path) -> None:
    variant = _variant(tmp_path, "a", rank=12)
    (tmp_path / "a/adapter/adapter_config.json").write_text(json.dumps({"r": 4}))
    plan = plan_engine([variant], VllmOptions())
    assert "--max-lora-rank=16" in vllm_arguments(plan, tmp_path, VllmOptions(), on_cpu=True)


@pytest.mark.parametrize(("cores", "threads"), [(1, 1), (2, 1), (8, 7)])
def test_a_core_is_left_to_other_programs(monkeypatch: pytest.MonkeyPatch, cores: int, threads: int) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(cores)))
    plan = Plan(MODEL, "float32", ("base",), {}, None)
    assert environment(plan, VllmOptions(), on_cpu=True)["OMP_NUM_THREADS"] == str(threads)
    assert environment(plan, VllmOptions(cpu_threads=3), on_cpu=True)["OMP_NUM_THREADS"] == "3"


def test_an_error_that_the_engine_survived_is_not_the_reason_of_its_end(tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    handled = "(APIServer pid=1) ERROR 11-26 19:05:17 [parser.py:117] json.decoder.JSONDecodeError: Expecting ':'"
    alive = "(APIServer pid=1) INFO 11-26 19:05:27 [loggers.py:335] Engine 000: Avg prompt throughput: 28.6 tokens/s"
    dead = (
        "(APIServer pid=1) ERROR 11-26 19:19:15 [async_llm.py:906] vllm.v1.engine.exceptions.EngineDeadError: see above"
    )
    log.write_text("\n".join([handled, alive, dead]))
    assert why_it_ended(log).startswith("its process was killed")
    log.write_text("\n".join([alive, handled, dead]))
    assert why_it_ended(log).startswith("json.decoder.JSONDecodeError")


def test_the_telling_lines_of_a_log_are_the_errors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "(APIServer pid=1) INFO 11-22 17:27:52 [model.py:733] Resolved\n"
        "(EngineCore pid=2) ERROR 11-22 17:27:52 [core.py:1] Traceback (most recent call last):\n"
        '  File "x.py", line 1\n'
        "(EngineCore pid=2) ERROR 11-22 17:27:52 [core.py:1] ValueError: no space for the KV cache\n"
    )
    told = telling_lines(log)
    assert told.splitlines()[0].strip() == "ValueError: no space for the KV cache" and str(log) in told


@pytest.mark.parametrize(("url", "is_told"), [("http://127.0.0.1:9/v1", True), ("http://127.0.0.1:10/v1", False)])
def test_where_the_engine_does_not_answer_its_log_tells_why(tmp_path: Path, url: str, is_told: bool) -> None:
    """And where another endpoint does not, nothing of that is said."""
    log = tmp_path / "serve.log"
    log.write_text("INFO loading\nRuntimeError: the engine core died\n")
    asked = Endpoint(url, ("a",), settings={"log": log} if is_told else {})
    with pytest.raises(EndpointError) as caught, engine._telling(log):
        post(asked, "/chat/completions", {"model": "a", "messages": []})
    told = str(caught.value)
    assert ("Its log ends with:\n  RuntimeError: the engine core died\n  the whole log: " in told) is is_told
    assert "The log:" not in told


@pytest.mark.parametrize("argument", ["--host", "--host=0.0.0.0", "--hos=0.0.0.0", "--api_key=x", "--middleware=a.B"])
def test_extra_arguments_cannot_open_the_endpoint(tmp_path: Path, argument: str) -> None:
    options = VllmOptions(extra_args=(argument, "0.0.0.0"))
    plan = plan_engine([_variant(tmp_path, "a")], options)
    with pytest.raises(HarnessError, match="harness's own"):
        vllm_arguments(plan, tmp_path, options, on_cpu=True)


def test_the_parser_is_given_the_switch_of_thinking_as_requests_ask(tmp_path: Path) -> None:
    saved = {"thinking": "auto", "habits": Habits(switch="enable_thinking", thinks=False).as_dict()}
    (tmp_path / "template.json").write_text(json.dumps(saved))
    assert default_variables(tmp_path) == {"enable_thinking": False}
    (tmp_path / "template.json").write_text(json.dumps(saved | {"thinking": "on"}))
    assert default_variables(tmp_path) == {"enable_thinking": True}
    (tmp_path / "template.json").write_text(json.dumps({"thinking": "auto"}))
    assert default_variables(tmp_path) == {}


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"tensor_parallel_size": 2}, "--tensor-parallel-size=2"),
        ({"pipeline_parallel_size": 2}, "--pipeline-parallel-size=2"),
        ({"data_parallel_size": 2}, "--data-parallel-size=2"),
        ({"executor": "ray"}, "--distributed-executor-backend=ray"),
        ({"quantization": "fp8"}, "--quantization=fp8"),
        ({"max_model_len": 2048}, "--max-model-len=2048"),
        ({"adapter_slots": 5}, "--max-loras=6"),
        ({"adapter_rank": 20}, "--max-lora-rank=32"),
        ({"kv_cache_gib": 2}, f"--kv-cache-memory-bytes={2**31}"),
        ({"extra_args": ("--max-num-seqs=4",)}, "--max-num-seqs=4"),
        ({"compact_json": True}, "--structured-outputs-config.disable_any_whitespace=true"),
    ],
)
@pytest.mark.parametrize("on_cpu", [True, False])
def test_an_option_is_passed_on(tmp_path: Path, options: dict[str, Any], flag: str, on_cpu: bool) -> None:
    plan = plan_engine([_variant(tmp_path, "a")], VllmOptions())
    plain, chosen = (vllm_arguments(plan, tmp_path, VllmOptions(**its), on_cpu=on_cpu) for its in ({}, options))
    assert flag in chosen and flag not in plain
    assert sum(argument.startswith("--distributed-executor-backend") for argument in chosen) <= 1


def test_a_reasoning_parser_is_passed_on(tmp_path: Path) -> None:
    plan = plan_engine([_variant(tmp_path, "a")], VllmOptions())
    arguments = vllm_arguments(plan, tmp_path, VllmOptions(), on_cpu=True, reasoning_parser="qwen3")
    assert "--reasoning-parser=qwen3" in arguments


def test_each_copy_of_a_model_is_asked_by_a_header() -> None:
    assert replica_headers(VllmOptions()) == ()
    assert replica_headers(VllmOptions(data_parallel_size=2)) == (
        {"X-data-parallel-rank": "0"},
        {"X-data-parallel-rank": "1"},
    )


def test_without_adapters_there_is_room_for_some_only_if_asked(tmp_path: Path, tiny_model: Path) -> None:
    plain = Plan(ModelSpec(path=str(tiny_model)), "bfloat16", ("base",), {}, None)
    assert "--enable-lora" not in vllm_arguments(plain, tmp_path, VllmOptions(), on_cpu=True)
    room = capacity(plain, VllmOptions(adapter_slots=2))
    assert room is not None and (room.slots, room.rank) == (2, 16)
    assert room.modules == {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}
    with pytest.raises(HarnessError, match="adapter_slots is 0, and 1 adapters"):
        capacity(plan_engine([_variant(tmp_path, "a")], VllmOptions()), VllmOptions(adapter_slots=0))
