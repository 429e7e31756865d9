"""The kit for testing plugins does what it says, without torch where none is needed."""

import json
import os
import shutil
import subprocess
import sys
import threading
import types
import urllib.error
import urllib.request
from pathlib import Path

import pytest

import harness
from harness.errors import PluginError
from harness.testing import FakeEndpoint, Reply, plugins, run

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = """
import harness

@harness.hookimpl
def register_datasets(register):
    register(harness.Dataset("words", "a test's words", lambda row, options: None))
"""
STARTER = """
import subprocess
import sys
import click
import harness

@click.command("start", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1)
def start(words):
    done = subprocess.run([sys.executable, "-m", "harness", *words], capture_output=True, text=True)
    click.echo(done.stdout)

@harness.hookimpl
def register_commands(register):
    register(start)
"""


@pytest.fixture
def words(tmp_path):
    path = tmp_path / "words.py"
    path.write_text(PLUGIN)
    return path


def ask(endpoint, **body):
    """What the endpoint answers to a chat completion, or to a completion where a prompt is given."""
    path = "/completions" if "prompt" in body else "/chat/completions"
    body = {"model": "fake", "messages": [{"role": "user", "content": "Who is it?"}]} | body
    if "prompt" in body:
        del body["messages"]
    with urllib.request.urlopen(urllib.request.Request(endpoint.url + path, json.dumps(body).encode())) as answer:
        return answer.read().decode()


def test_plugins_holds_what_it_is_given_and_nothing_that_is_installed(words):
    kit = plugins(words)
    assert list(kit.loaded) == ["words"] and list(kit.datasets) == ["words"]


def test_plugins_takes_modules_by_their_name(words, monkeypatch):
    module = types.ModuleType("words_module")
    exec(PLUGIN, module.__dict__)
    monkeypatch.setitem(sys.modules, "words_module", module)
    assert list(plugins(module).datasets) == ["words"]


def test_first_party_plugins_come_when_asked_for(words):
    kit = plugins(words, first_party=True)
    assert {"words", "alpaca", "messages"} <= set(kit.datasets)


def test_a_broken_plugin_raises(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(PluginError, match=r"broken.*division by zero"):
        plugins(path)
    assert "broken" in plugins(path, strict=False).failed


def test_run_returns_status_and_both_streams(words, tmp_path):
    done = run(f"--plugin {words} data list --json", cwd=tmp_path)
    assert done.code == 0 and "words" in {row["name"] for row in json.loads(done.out)}
    mistake = run("data preview --dataset nosuch", tmp_path / "rows.jsonl")
    assert mistake.code != 0 and mistake.err and not mistake.out
    assert run("--version").out == f"instruct-harness {harness.__version__}\n"


def test_run_does_not_know_what_happens_to_be_installed(tmp_path, words, monkeypatch):
    module = types.ModuleType("words_module")
    exec(PLUGIN, module.__dict__)
    monkeypatch.setitem(sys.modules, "words_module", module)
    (tmp_path / "pyproject.toml").write_text('[tool.harness]\nplugins = ["words.py"]\n')
    assert "words" not in run("data list", cwd=tmp_path).out
    assert "words" in run("data list", cwd=tmp_path, modules=[module]).out


def test_a_process_that_a_command_starts_does_not_know_it_either(tmp_path):
    """A command of the test's own plugin starts another `harness`, as tuning on several devices does."""
    (tmp_path / "starter.py").write_text(STARTER)
    (tmp_path / "pyproject.toml").write_text('[tool.harness]\nplugins = ["words.py"]\n')
    (tmp_path / "words.py").write_text(PLUGIN)
    sys.path.insert(0, str(tmp_path))
    try:
        import starter

        done = run("start plugins list --json", cwd=tmp_path, modules=[starter])
    finally:
        sys.path.remove(str(tmp_path))
        sys.modules.pop("starter", None)
    owners = {row["owner"] for row in json.loads(done.out)["plugins"]}
    assert owners == {"harness", "starter"}


def test_a_fake_engine_serves_variants_by_their_names(fake_engine):
    variants = (types.SimpleNamespace(name="demo"),)
    with fake_engine.start(variants, fake_engine.options(), print) as endpoint:
        assert json.loads(ask(endpoint))["choices"][0]["message"]["content"] == "The heron."
        assert endpoint.models == ("demo",)


def test_run_raises_a_crash_as_it_is(monkeypatch):
    import harness.testing.command as command

    def crash(arguments):
        raise RuntimeError("ours")

    monkeypatch.setattr(command, "main", crash)
    with pytest.raises(RuntimeError, match="ours"):
        run("data list")


def test_an_endpoint_answers_what_a_function_says():
    with FakeEndpoint(lambda request: request.prompt.upper(), models=("one", "two")) as endpoint:
        answer = json.loads(ask(endpoint))
        assert answer["choices"][0]["message"]["content"] == "WHO IS IT?"
        assert answer["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
        assert json.loads(ask(endpoint, prompt="go on"))["choices"][0]["text"] == "GO ON"
        with urllib.request.urlopen(f"{endpoint.url}/models") as models:
            assert [model["id"] for model in json.load(models)["data"]] == ["one", "two"]
        assert [request.prompt for request in endpoint.requests] == ["Who is it?", "go on"]


def test_an_endpoint_streams_word_by_word():
    with FakeEndpoint() as endpoint:
        endpoint.answer = lambda request: request.say("one ") or request.say("two ") or Reply("three", "length")
        lines = [line for line in ask(endpoint, stream=True).split("\n\n") if line]
    assert lines.pop() == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    choices = [chunk["choices"][0] for chunk in chunks if chunk["choices"]]
    assert [choice["delta"].get("content") for choice in choices] == ["one ", "two ", "three", None]
    assert choices[-1]["finish_reason"] == "length" and chunks[-1]["usage"]["completion_tokens"] == 3


def test_a_request_that_does_not_arrive_is_an_error():
    with FakeEndpoint() as endpoint:
        with pytest.raises(TimeoutError, match=r"^no request arrived within 0\.01 s$"):
            endpoint.next(timeout_s=0.01)
        client = threading.Thread(target=ask, args=(endpoint,))
        client.start()
        (request,) = endpoint.next(timeout_s=60)
        request.end(Reply("The heron."))
        client.join()


def test_an_endpoint_fails_as_it_is_told_to():
    with FakeEndpoint(lambda _: Reply("out of memory", status=500, headers={"Retry-After": "1"}), key="k") as endpoint:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(endpoint)
        endpoint.key = None
        with pytest.raises(urllib.error.HTTPError, match="500") as failed:
            ask(endpoint)
        assert failed.value.headers["Retry-After"] == "1" and b"out of memory" in failed.value.read()
        endpoint.answer = lambda _: None
        with pytest.raises(ConnectionError):
            ask(endpoint)


def test_an_endpoint_gives_token_ids_and_logprobs_as_vllm_does():
    reply = Reply("x", prompt_token_ids=[1, 2], token_ids=[3], prompt_logprobs=[None, {2: {"logprob": -0.5}}])
    with FakeEndpoint(lambda _: reply) as endpoint:
        chat, text = json.loads(ask(endpoint)), json.loads(ask(endpoint, prompt="y"))["choices"][0]
    assert chat["prompt_token_ids"] == text["prompt_token_ids"] == [1, 2] and text["token_ids"] == [3]
    assert text["prompt_logprobs"] == [None, {"2": {"logprob": -0.5}}]


def test_the_tiny_run_is_one_that_commands_take(tiny_run, harness_command):
    pytest.importorskip("torch")
    (row,) = json.loads(harness_command("runs list --json").out)["runs"]
    assert (row["name"], row["outcome"]) == ("demo", "finished")
    assert (tiny_run / "adapter" / "adapter_model.safetensors").is_file()


def test_tiny_models_are_the_same_each_time(tmp_path, tiny_tokenizer):
    pytest.importorskip("torch")
    from harness.testing import tiny_model

    one, two = (tiny_model(tmp_path / name) / "model.safetensors" for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert tiny_tokenizer.decode(tiny_tokenizer.encode("Où est la clé? 🐦")) == "Où est la clé? 🐦"


def test_a_chain_of_more_than_single_tokens_is_refused(tmp_path):
    pytest.importorskip("torch")
    from harness.testing import chain_model

    with pytest.raises(ValueError, match="tokens of the tiny tokenizer, expected one"):
        chain_model(tmp_path, {"The heron keeps": "x"})


def test_the_examples_own_tests_pass_outside_of_this_repository(tmp_path):
    example = tmp_path / "riddles"
    shutil.copytree(ROOT / "examples" / "harness-riddles", example)
    path = os.pathsep.join([str(example), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"],
        cwd=example, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_the_docs_show_the_examples_test():
    text = (ROOT / "docs" / "plugins.md").read_text()
    assert f"```python\n{(ROOT / 'examples/harness-riddles/tests/test_riddles.py').read_text()}```" in text
