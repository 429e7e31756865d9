"""`harness runs diff | merge | card | export`: what is done with a finished run; and plugins' commands in its group."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

pytest.importorskip("torch")

from harness.model.load import load_model
from harness.model.logprobs import sequence_logprobs
from harness.recipe import ModelSpec

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs of the tiny model."""
    from harness.testing import run, tiny_model

    folder = tmp_path_factory.mktemp("tuned")
    rows = folder / "rows.jsonl"
    answers = [
        {"instruction": f"Who keeps key {n}?", "input": "", "output": f"The heron keeps {n}."} for n in range(20)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in answers))
    recipe = {
        "name": "first",
        "model": {"path": str(tiny_model(folder / "tiny"))},
        "template": "chatml",
        "data": {"train": [{"dataset": "alpaca", "path": str(rows)}], "validation_share": 0.2, "max_tokens": 128},
        "tune": {"method": {"name": "lora", "rank": 4}, "steps": 4, "learning_rate": 0.02},
    }
    (folder / "r.yaml").write_text(json.dumps(recipe))
    for name, rate in (("first", "0.02"), ("second", "0.01")):
        done = run(
            "--runs", folder / "runs", "tune", folder / "r.yaml", "--run", name, "--set", f"tune.learning_rate={rate}"
        )
        assert done.code == 0, done.err
    return folder / "runs"


@pytest.fixture
def command(runs: Path, harness_command: Any) -> Any:
    """`harness --runs RUNS runs ARGUMENTS`."""
    return lambda *arguments: harness_command("--runs", runs, "runs", *arguments)


def test_diff_shows_the_keys_that_differ_and_the_figures(command):
    done = command("diff", "first", "second")
    assert done.code == 0, done.err
    (line,) = [line.split() for line in done.out.splitlines() if "tune." in line]
    assert line == ["tune.learning_rate", "0.02", "0.01"]
    assert "validation loss, lowest" in done.out and "last loss" in done.out
    told = json.loads(command("diff", "first", "second", "--json").out)
    assert told["recipe"] == {"tune.learning_rate": [0.02, 0.01]}
    assert told["runs"][0]["figures"]["steps"] == 4
    assert "no difference" in command("diff", "first", "first").out


def test_merge_states_what_it_changes_and_the_folder_is_the_tuned_model(command, runs):
    done = command("merge", "first")
    assert done.code == 0, done.err
    merged = runs / "first" / "merged"
    assert "in bfloat16" in done.out and "nats on average" in done.out and f"harness serve {merged}" in done.out
    manifest = json.loads((runs / "first" / "manifest.json").read_text())
    record = json.loads((merged / "merged.json").read_text())
    assert manifest["merged"] == record["changed_nats"] | {"adapter_sha256": record["adapter_sha256"]}
    assert record["changed_nats"]["merging"] < 1e-5, "the same function, to rounding in float32"
    assert 0 < record["changed_nats"]["rounding"] < 0.05
    assert {"config.json", "tokenizer.json", "generation_config.json"} <= {path.name for path in merged.iterdir()}
    model = load_model(ModelSpec(path=str(merged))).eval()
    for probe in json.loads((runs / "first" / "probes.json").read_text())["probes"]:
        assert sequence_logprobs(model, probe["input_ids"]) == pytest.approx(probe["tuned"], abs=0.1)
    assert command("merge", "first").code == 1, "nothing is overwritten"


def test_the_merged_folder_is_asked_as_the_run_is(command, runs, harness_command, tmp_path):
    if not (runs / "first" / "merged").exists():
        assert command("merge", "first").code == 0
    from harness.model.templates import load_template
    from harness.nouns import Message
    from harness.plugins import Plugins
    from harness.variants import resolve_variant

    asked = [
        load_template(resolve_variant(str(name), runs, Plugins()), Plugins()).prompt_ids((Message("user", "Who?"),))
        for name in ("first", runs / "first" / "merged")
    ]
    assert list(asked[0]) == list(asked[1])


def test_the_card_has_data_licences_recipe_and_figures_and_no_path_of_this_machine(command, runs):
    done = command("card", "first")
    assert done.code == 0, done.err
    assert done.out.startswith("---\nlibrary_name: peft\n") and "base_model" not in done.out.split("---")[1]
    for part in ("# first", "## Data", "| alpaca | rows.jsonl |", "## Training", "## Evaluations", "## Recipe"):
        assert part in done.out, done.out
    assert str(runs.parent) not in done.out and "learning_rate: 0.02" in done.out


def test_an_exported_adapter_is_whole_and_names_its_base(command, tmp_path):
    done = command("export", "second", tmp_path / "out", "--base", "somebody/tiny")
    assert done.code == 0, done.err
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "tokenizer.json", "README.md"} <= names
    config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "somebody/tiny"
    assert "base_model: somebody/tiny" in (tmp_path / "out" / "README.md").read_text()
    assert command("export", "second", tmp_path / "out").code == 1
    done = command("export", "second", tmp_path / "other")
    assert done.code == 0 and "--base OWNER/NAME" in done.err


def test_an_exported_model_has_the_adapter_merged_and_loads(command, tmp_path):
    done = command("export", "second", tmp_path / "model", "--merged")
    assert done.code == 0, done.err
    assert "library_name: transformers" in (tmp_path / "model" / "README.md").read_text()
    assert "## Merging" not in (tmp_path / "model" / "README.md").read_text(), "the run itself was not merged"
    load_model(ModelSpec(path=str(tmp_path / "model")))


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as an upload of small files asks for."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server: Any = self.server
        server.asked.append((self.path, self.headers.get("Authorization"), body))
        if self.path == "/api/repos/create":
            server.reply(self, {"url": f"{server.url}/somebody/tiny"})
        elif self.path == "/api/validate-yaml":
            server.reply(self, {"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            server.reply(
                self,
                {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]},
            )
        elif self.path.endswith("/commit/main"):
            server.reply(
                self,
                {"commitUrl": f"{server.url}/somebody/tiny/commit/{0:040}", "commitOid": "0" * 40, "hookOutput": ""},
            )
        else:
            self.send_error(404)

    def do_GET(self) -> None:
        server: Any = self.server
        server.reply(self, {"_id": "1", "id": "somebody/tiny", "sha": "0" * 40, "siblings": []})

    def log_message(self, *arguments: object) -> None:
        pass


class HubServer(ThreadingHTTPServer):
    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Hub)
        self.asked: list[tuple[str, str | None, bytes]] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def reply(self, handler: BaseHTTPRequestHandler, value: Any) -> None:
        content = json.dumps(value).encode()
        handler.send_response(200)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    server = HubServer()
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_push_uploads_what_was_exported(runs, harness, hub, tmp_path):
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": "hf_secret",
        "HF_HUB_OFFLINE": None,
        "HF_HOME": str(tmp_path / "hf"),
    }
    arguments = (
        "export",
        "second",
        tmp_path / "out",
        "--base",
        "somebody/base",
        "--push",
        "somebody/tiny",
        "--private",
    )
    done = harness("--runs", runs, "runs", *arguments, env=settings)
    assert done.code == 0, done.err
    assert f"pushed to {hub.url}/somebody/tiny" in done.out
    path, token, body = hub.asked[0]
    assert path == "/api/repos/create" and token == "Bearer hf_secret" and json.loads(body)["visibility"] == "private"
    (commit,) = [body for path, _, body in hub.asked if path.endswith("/commit/main")]
    files = {
        line["value"]["path"]: line["value"]["content"]
        for line in map(json.loads, commit.splitlines())
        if line["key"] == "file"
    }
    for path in (tmp_path / "out").iterdir():
        assert base64.b64decode(files[path.name]) == path.read_bytes()


def test_push_without_a_token_is_refused_in_words_before_anything_is_written(command, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    done = command("export", "second", tmp_path / "out", "--push", "somebody/tiny")
    assert done.code == 1 and "`hf auth login`, or HF_TOKEN" in done.err
    assert not (tmp_path / "out").exists()


def test_a_plugin_adds_a_command_to_the_group(command, harness_command, tmp_path, runs):
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "import click, harness\n\n@click.command()\ndef count():\n    '''Count the runs.'''\n    click.echo('2')\n\n"
        "@harness.hookimpl\ndef register_commands(register):\n    register(count, under='runs')\n"
    )
    assert harness_command("--plugin", plugin, "runs", "count").out == "2\n"
    assert "Count the runs." in harness_command("--plugin", plugin, "runs", "--help").out
    assert harness_command("--plugin", plugin, "count").code == 2, "under its group alone"
    plugin.write_text(plugin.read_text().replace("under='runs'", "under='nonsense'"))
    assert "to be under 'nonsense'" in harness_command("--plugin", plugin, "runs", "--help").err


@pytest.fixture
def forsaken(tmp_path: Path) -> Path:
    """A finished run in `tmp_path`/runs whose objective, method and training dataset nobody registers any more."""
    from harness.testing import tiny_run

    folder = tiny_run(tmp_path, evaluate=[{"evaluation": "val_loss"}])
    path = folder / "recipe.yaml"
    recipe = yaml.safe_load(path.read_text())
    recipe["tune"]["objective"] = {"name": "gone:unlikelihood", "margin": 0.5}
    recipe["tune"]["method"] = {"name": "gone:ia3", "layers": 4}
    recipe["data"]["train"][0] |= {"dataset": "gone:riddles", "difficulty": "hard"}
    path.write_text(yaml.safe_dump(recipe))
    return folder


def test_a_run_outlives_the_plugins_that_it_was_tuned_with(forsaken, harness_command, capsys):
    """It is listed, shown, evaluated, and ready to be served: its adapter and template need none of them."""
    from harness.model.load import load_variant
    from harness.model.templates import load_template
    from harness.plugins import Plugins
    from harness.variants import resolve_variants

    assert "demo" in harness_command("runs", "list").out
    assert harness_command("runs", "show", "demo").code == 0
    measured = harness_command("evaluate", "demo@base", "demo")
    assert measured.code == 0 and "Traceback" not in measured.err, measured.err
    for kind, name in (("objective", "gone:unlikelihood"), ("method", "gone:ia3"), ("dataset", "gone:riddles")):
        assert any(kind in line and name in line for line in measured.err.splitlines() if "warning" in line), name
    plugins = Plugins()
    base, tuned = resolve_variants(["demo@base", "demo"], forsaken.parent, plugins)
    assert tuned.is_tuned and not base.is_tuned
    assert load_template(tuned, plugins).stop_tokens
    assert load_variant(tuned, plugins).model.peft_config


def test_a_run_whose_plugins_are_gone_is_not_gone_on_with(forsaken, harness_command):
    manifest = json.loads((forsaken / "manifest.json").read_text())
    (forsaken / "manifest.json").write_text(json.dumps(manifest | {"outcome": "interrupted"}))
    done = harness_command("tune", "--resume", "demo")
    assert done.code == 1 and "gone:" in done.err and "Traceback" not in done.err, done.err
