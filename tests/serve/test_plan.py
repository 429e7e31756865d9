"""What one engine can serve together is decided, with reasons, before anything is started."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from harness_serve import engine
from harness_serve.engine import VllmOptions, plan_engine, vllm_arguments

from harness import HarnessError
from harness.recipe import ModelSpec
from harness.variants import Variant

MODEL = ModelSpec(path="/models/small")


def _variant(
    folder: Path, name: str, rank: int = 8, template: str = "T", model: ModelSpec = MODEL, **config: object
) -> Variant:
    for part in ("adapter", "chat"):
        (folder / name / part).mkdir(parents=True)
    (folder / name / "adapter/adapter_config.json").write_text(json.dumps({"r": rank} | config))
    for file in engine.CHAT_FILES:
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


@pytest.mark.parametrize(("rank", "expected"), [(1, 1), (2, 8), (8, 8), (9, 16), (65, 128), (512, 512)])
def test_the_engine_gets_the_smallest_rank_it_takes_that_fits(tmp_path: Path, rank: int, expected: int) -> None:
    plan = plan_engine([_variant(tmp_path, "a", rank=1), _variant(tmp_path, "b", rank=rank)], VllmOptions())
    arguments = vllm_arguments(plan, tmp_path, VllmOptions(), on_cpu=True)
    assert f"--max-lora-rank={expected}" in arguments and "--max-loras=3" in arguments


@pytest.mark.parametrize(
    ("declared", "chosen", "expected"),
    [("hermes", None, "hermes"), ("hermes", "pythonic", "pythonic"), (None, "xlam", "xlam")],
)
def test_the_templates_tool_parser_is_used_unless_another_is_named(
    tmp_path: Path, declared: str | None, chosen: str | None, expected: str
) -> None:
    (tmp_path / "template.json").write_text(json.dumps({"name": "T", "tool_parser": declared}))
    options = VllmOptions(tool_parser=chosen)
    parser = engine._tool_parser(tmp_path, options)
    plan = plan_engine([_variant(tmp_path, "a")], options)
    arguments = vllm_arguments(plan, tmp_path, options, on_cpu=True, tool_parser=parser)
    assert parser == expected
    assert f"--tool-call-parser={expected}" in arguments and "--enable-auto-tool-choice" in arguments


@pytest.mark.parametrize(("declared", "chosen"), [(None, None), ("hermes", "none")])
def test_without_a_tool_parser_tool_calls_stay_text(tmp_path: Path, declared: str | None, chosen: str | None) -> None:
    (tmp_path / "template.json").write_text(json.dumps({"name": "T", "tool_parser": declared}))
    assert engine._tool_parser(tmp_path, VllmOptions(tool_parser=chosen)) is None
    arguments = vllm_arguments(
        plan_engine([_variant(tmp_path, "a")], VllmOptions()), tmp_path, VllmOptions(), on_cpu=True
    )
    assert not any("tool" in argument for argument in arguments if argument.startswith("--enable"))


@pytest.mark.vllm
def test_an_unknown_tool_parser_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(
        HarnessError, match=r"no tool parser 'hermse'. Did you mean 'hermes'\? It has: .*, mistral, .*, xlam"
    ):
        engine._tool_parser(tmp_path, VllmOptions(tool_parser="hermse"))
    plugin = VllmOptions(tool_parser="hermse", extra_args=("--tool-parser-plugin=mine.py",))
    assert engine._tool_parser(tmp_path, plugin) == "hermse"


@pytest.mark.vllm
def test_the_parsers_that_templates_declare_are_vllms() -> None:
    from harness.plugins import Plugins

    declared = {template.tool_parser for template in Plugins().templates.values()}
    assert "hermes" in declared and {name for name in declared if isinstance(name, str)} <= set(engine._tool_parsers())


def test_a_base_whose_vocabulary_tuning_extended_is_refused(tmp_path: Path) -> None:
    base = Variant("a@base", MODEL, None, _variant(tmp_path, "a").chat_folder, added_ids=(600,))
    with pytest.raises(HarnessError, match=r"a@base: tuning added tokens.*harness evaluate a@base"):
        plan_engine([base], VllmOptions())


def test_a_model_without_a_template_is_told_which_fit(tiny_model: Path) -> None:
    with (
        contextlib.ExitStack() as stack,
        pytest.raises(HarnessError, match=r"(?s)no chat template.*--template NAME\. These fit its tokenizer: .*chatml"),
    ):
        engine._bind_models_template(Variant("tiny", ModelSpec(path=str(tiny_model))), stack)


def test_the_key_is_not_among_the_arguments(tmp_path: Path) -> None:
    options = VllmOptions(api_key="open sesame")
    plan = plan_engine([_variant(tmp_path, "a")], options)
    assert "open sesame" not in " ".join(vllm_arguments(plan, tmp_path, options, on_cpu=True))
    assert "open sesame" not in repr(options) + options.model_dump_json()


@pytest.mark.parametrize("key", [None, "open sesame"])
def test_the_engine_is_guarded_with_a_key_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "of another server")
    options = VllmOptions(api_key=key, allow_hosts=("Compare.example.org",))
    plan = plan_engine([_variant(tmp_path, "a")], options)
    arguments = vllm_arguments(plan, tmp_path, options, on_cpu=True)
    assert arguments[arguments.index("--middleware") + 1] == "harness_serve.guard.EngineGuard"
    environment = engine._environment(plan, options, on_cpu=True)
    assert environment.get("VLLM_API_KEY") == key
    assert json.loads(environment["HARNESS_SERVE_NAMES"]) == ["127.0.0.1", "compare.example.org"]


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
        "assert not {'torch', 'vllm', 'gradio', 'openai', 'sqlalchemy', 'pydantic'} & set(sys.modules), sys.modules.keys()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_telling_lines_of_a_log_are_the_errors(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        "(APIServer pid=1) INFO 11-22 17:27:52 [model.py:733] Resolved\n"
        '(EngineCore pid=2) ERROR 11-22 17:27:52 [core.py:1] Traceback (most recent call last):\n  File "x.py", line 1\n'
        "(EngineCore pid=2) ERROR 11-22 17:27:52 [core.py:1] ValueError: no space for the KV cache\n"
    )
    told = engine._telling_lines(log)
    assert told.splitlines()[0].strip() == "ValueError: no space for the KV cache" and str(log) in told


@pytest.mark.parametrize("argument", ["--host", "--host=0.0.0.0", "--hos=0.0.0.0", "--api_key=x", "--middleware=a.B"])
def test_extra_arguments_cannot_open_the_endpoint(tmp_path: Path, argument: str) -> None:
    options = VllmOptions(extra_args=(argument, "0.0.0.0"))
    plan = plan_engine([_variant(tmp_path, "a")], options)
    with pytest.raises(HarnessError, match="harness's own"):
        vllm_arguments(plan, tmp_path, options, on_cpu=True)
