"""The core's commands as a person meets them: data, runs, doctor; and how mistakes are told."""

import hashlib
import http.server
import importlib.metadata
import json
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SEEDLING = ROOT / "recipes" / "seedling" / "data"

ALPACA = [{"instruction": f"Say {n}", "output": f"{n}!"} for n in range(5)]


# data


def test_data_list_says_what_a_row_is_and_becomes_under_which_licence_and_who_brings_it(harness):
    rows = {row["name"]: row for row in json.loads(harness("data", "list", "--json").out)}
    assert {rows[name]["yields"] for name in ("alpaca", "messages", "flan")} == {"conversations"}
    assert {rows[name]["yields"] for name in ("preferences", "feedback", "votes", "arena")} == {"preferences"}
    assert {rows[name]["yields"] for name in ("auto", "oasst")} == {"either"}
    assert (
        rows["alpaca"]["plugin"] == "harness/datasets" and rows["alpaca"]["description"] and rows["alpaca"]["licence"]
    )
    table = harness("data", "list").out
    assert all(name in table for name in rows)
    assert re.search(r"^hh .* preferences ", table, re.MULTILINE)


def test_preview_shows_the_first_rows_as_conversations(harness, write_rows):
    done = harness("data", "preview", "--dataset", "alpaca", write_rows(*ALPACA), "--count", 2)
    assert done.code == 0
    assert "rows.jsonl:1" in done.out and "Say 1" in done.out and "1!" in done.out and "Say 2" not in done.out
    rows = harness(
        "data", "preview", "--dataset", "alpaca", write_rows(*ALPACA), "--count", 2, "--json"
    ).out.splitlines()
    assert [json.loads(row)["messages"][1]["content"] for row in rows] == ["0!", "1!"]


def test_preview_shows_tools_calls_and_what_is_not_learnt(harness, write_rows):
    call = {"type": "function", "function": {"name": "look", "arguments": '{"at": "[key]"}'}}
    path = write_rows(
        {
            "tools": [{"type": "function", "function": {"name": "look"}}],
            "messages": [
                {"role": "user", "content": "Where?"},
                {"role": "assistant", "content": "", "tool_calls": [call], "weight": 0},
                {"role": "tool", "content": "in [bold]the[/bold] mill"},
                {"role": "assistant", "content": "In the mill."},
            ],
        }
    )
    out = harness("data", "preview", "--dataset", "messages", path).out
    assert (
        '→ look({"at": "[key]"})' in out and "assistant (not trained on)" in out and "in [bold]the[/bold] mill" in out
    )


def test_preview_says_what_becomes_of_thoughts(harness, write_rows, tmp_path, tiny_model):
    answer = {"role": "assistant", "content": "The heron.", "reasoning_content": "She has it."}
    path = write_rows({"messages": [{"role": "user", "content": "Who?"}, answer]})
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{path: {tiny_model}}}\ntemplate: chatml\n"
        f"data: {{train: [{{dataset: messages, path: {path}}}]}}\ntune: {{}}\n"
    )
    for reasoning, said in (("learn", "thinks"), ("context", "thinks, not trained on"), ("drop", "thinks, left out")):
        done = harness("data", "preview", recipe, "--set", f"data.reasoning={reasoning}")
        assert f"({said}) She has it." in done.out, done.err


def test_preview_shows_preferences_of_a_plugin(harness, tmp_path, write_rows):
    (tmp_path / "pairs.py").write_text(
        "import harness\nfrom harness import Message\n\n"
        "def convert(row, options):\n"
        "    good, bad = (Message('assistant', row[key]) for key in ('good', 'bad'))\n"
        "    return harness.Preference((Message('user', row['q']),), (good,), (bad,))\n\n"
        "@harness.hookimpl\ndef register_datasets(register):\n    register(harness.Dataset('pairs', 'p', convert))\n"
    )
    path = write_rows({"q": "Why?", "good": "Because.", "bad": "No."})
    out = harness("--plugin", "pairs.py", "data", "preview", "--dataset", "pairs", path).out
    assert out.index("Why?") < out.index("chosen") < out.index("Because.") < out.index("rejected") < out.index("No.")


def test_data_cannot_drive_the_terminal(harness, write_rows):
    path = write_rows(
        {"instruction": "\x1b[2J\x1b]0;owned\x07", "output": "\x9b31m \x00 ok"},
        {"instruction": "\x1b[2J", "output": ""},
    )
    preview = harness("data", "preview", "--dataset", "alpaca", path, "--count", 1)
    validate = harness("data", "validate", "--dataset", "alpaca", path)
    for text in (preview.out, preview.err, validate.out, validate.err):
        assert not set(text) & {"\x1b", "\x07", "\x9b", "\x00"}
    assert "␛[2J" in preview.out


def test_validate_shows_every_problem_grouped_with_its_first_rows(harness, write_rows):
    wrong = [{"instruction": n, "output": "x"} for n in range(8)]
    path = write_rows(*ALPACA, *wrong, {"instruction": "a", "output": " "}, "no object")
    with path.open("a") as file:
        file.write('{"instruction": \n')
    done = harness("data", "validate", "--dataset", "alpaca", path)
    assert done.code == 1 and done.err == ""
    assert "5 of 14 rows kept" in done.out
    assert "8 × the field 'instruction' should be text, found 0 (row 6, 7, 8, 9, 10, …)" in done.out
    assert "1 × message 2 (assistant) is empty" in done.out and "(row 14)" in done.out
    assert "1 × a row should be an object, found 'no object' (row 15)" in done.out
    assert "1 × not valid JSON at column " in done.out and "(row 16)" in done.out
    (source,) = json.loads(harness("data", "validate", "--dataset", "alpaca", path, "--json").out)["sources"]
    assert (source["rows"], source["kept"], len(source["problems"])) == (14, 5, 11)


def test_validate_is_content_with_good_data(harness):
    for name, dataset in (("validation.messages.jsonl", "messages"), ("train.alpaca.jsonl", "alpaca")):
        done = harness("data", "validate", "--dataset", dataset, SEEDLING / name)
        assert done.code == 0 and "nothing wrong" in done.out, done.out


def test_validate_checks_a_recipe_against_its_template_and_length(harness, write_rows, tiny_model, tmp_path):
    path = write_rows(*ALPACA, {"instruction": "long", "output": "a key " * 40})
    (tmp_path / "r.yaml").write_text(
        f"model: {{path: {tiny_model}}}\ntemplate: chatml\n"
        f"data:\n  train: [{{dataset: alpaca, path: {path}}}]\n  max_tokens: 40\n"
        "tune: {method: lora}\n"
    )
    done = harness("data", "validate", "r.yaml")
    assert done.code == 1
    assert "1 × " in done.out and "tokens, more than data.max_tokens = 40" in done.out and "(row 6)" in done.out
    dropping = (tmp_path / "r.yaml").read_text().replace("max_tokens: 40", "max_tokens: 40\n  on_overlong: drop")
    (tmp_path / "r.yaml").write_text(dropping)
    done = harness("data", "validate", "r.yaml")
    assert done.code == 0 and "tokens, " in done.out and "trained on" in done.out
    done = harness("data", "validate", "r.yaml", "--part", "validation")
    assert done.code == 1 and "the recipe has no data.validation" in done.err


@pytest.mark.parametrize("policy", ["drop", "truncate"])
def test_validate_counts_by_the_policy_that_tune_applies(policy, harness_here, write_rows, tiny_model, tmp_path):
    """Rows, tokens and supervised tokens are those that encoding for tuning gives, an item that is drawn twice too."""
    from harness.data import Reader, encode_data
    from harness.model.templates import bind_template
    from harness.plugins import Plugins
    from harness.recipe import load_data_recipe

    pair = {"prompt": "Say it", "chosen": "yes " * 60, "rejected": "no"}
    for name, rows, dataset in (
        ("a.jsonl", [*ALPACA, {"instruction": "long", "output": "a key " * 40}], "alpaca"),
        ("p.jsonl", [pair, pair | {"chosen": "yes"}], "preferences"),
    ):
        path = write_rows(*rows, name=name)
        recipe = tmp_path / f"{dataset}.yaml"
        recipe.write_text(
            f"model: {{path: {tiny_model}}}\ntemplate: chatml\ndata:\n  max_tokens: 40\n  on_overlong: {policy}\n"
            f"  train: [{{dataset: {dataset}, path: {path}, epochs: 2}}]\n"
        )
        plugins = Plugins()
        loaded = load_data_recipe(recipe, plugins)
        bound = bind_template(loaded.template, loaded.model, plugins)
        reads = "preferences" if dataset == "preferences" else "conversations"
        tuned, _ = encode_data(loaded.data, plugins, bound, reader=Reader(reads))
        (checked,) = json.loads(harness_here("data", "validate", recipe, "--json").out)["sources"]
        assert tuned.overlong == 1
        assert (checked["tokens"], checked["supervised_tokens"]) == (tuned.tokens, tuned.supervised)
        assert (checked["kept"], checked["left_out"]) == (tuned.reports[0].kept, dict(tuned.reports[0].left_out))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("preview",), "name a recipe"),
        (("preview", "gone.jsonl"), "gone.jsonl: no such file"),
        (("preview", "--dataset", "alpcaa", "rows.jsonl"), "Did you mean 'alpaca'?"),
        (("preview", "--dataset", "alpaca"), "give it a `path`"),
        (("preview", "--dataset", "alpaca", "gone.jsonl"), "gone.jsonl: no such file"),
        (("preview", "gone.yaml"), "no such recipe file"),
        (("preview", "rows.jsonl/gone.yaml"), "cannot be read: Not a directory"),
        (("preview", "a" * 300), "cannot be read: File name too long"),
        (("validate", "--dataset", "alpcaa", "rows.jsonl"), "Did you mean 'alpaca'?"),
        (("validate", "gone.yaml"), "no such recipe file"),
        (("validate",), "name a recipe"),
    ],
)  # fmt: skip
def test_a_mistake_with_data_is_told_without_a_traceback(arguments, told, harness, write_rows):
    write_rows(*ALPACA)
    done = harness("data", *arguments)
    assert done.code == 1 and done.err.startswith("error: ") and told in done.err and "Traceback" not in done.err


@pytest.mark.parametrize("content", [b"", b"\x00\x00", b"\xff\xfe{", b"[1, 2", b"[[]]"])
def test_validate_survives_any_file(content, harness, tmp_path):
    (tmp_path / "any.json").write_bytes(content)
    done = harness("data", "validate", "--dataset", "messages", "any.json")
    assert done.code == 1 and "Traceback" not in done.err and " × " in done.out


# runs


@pytest.fixture
def make_run(tmp_path):
    def make(name: str, outcome: str = "finished", **more: object) -> Path:
        folder = tmp_path / "runs" / name
        (folder / "adapter").mkdir(parents=True)
        (folder / "adapter" / "weights").write_bytes(b"w" * 2500)
        (folder / "evaluations" / name).mkdir(parents=True)
        (folder / "evaluations" / name / "mmlu.json").write_text("{}")
        (folder / "recipe.yaml").write_text("name: x\ntune:\n  method: lora\n")
        session = {"started": "2026-01-02T03:04:05+00:00", "ended": "2026-01-02T03:05:15+00:00", "outcome": outcome}
        manifest = {
            "name": name,
            "outcome": outcome,
            "model": {"path": "/models/seed"},
            "recipe_sha256": "abc",
            "sessions": [session],
        }
        (folder / "manifest.json").write_text(json.dumps(manifest | more))
        (folder / "metrics.jsonl").write_text(
            '{"step": 1, "loss": 3.5}\n{"step": 2, "loss": 2.25}\n{"step": 2, "validation_loss": 2.5}\n{"st'
        )
        return folder

    return make


@pytest.mark.parametrize(
    ("method", "shown"),
    [
        ({"name": "harness:lora", "rank": 16}, "lora"),
        ({"name": "bits:lora", "bits": 4}, "bits:lora"),
        ("full", "full"),
    ],
)
def test_runs_list_names_the_method_and_its_json_has_the_options(harness, make_run, method, shown):
    (make_run("first") / "recipe.yaml").write_text(json.dumps({"name": "x", "tune": {"method": method}}))
    assert re.search(rf" {shown}  +2026-01-02", harness("runs", "list").out)
    assert json.loads(harness("runs", "list", "--json").out)["runs"][0]["method"] == method


def test_runs_list_shows_how_each_ended(harness, make_run, tmp_path):
    assert "no runs in runs/" in harness("runs", "list").out
    make_run("first")
    make_run("second", "failed")
    make_run("third", "started")
    (make_run("torn") / "manifest.json").write_text('{"outcome')
    listed = json.loads(harness("runs", "list", "--json").out)
    assert [(run["name"], run["outcome"]) for run in listed["runs"]] == [
        ("first", "finished"),
        ("second", "failed"),
        ("third", "killed"),
    ]
    first = listed["runs"][0]
    assert (first["method"], first["seconds"], first["last_loss"], first["evaluations"]) == (
        "lora",
        70.0,
        2.25,
        ["mmlu"],
    )
    assert len(listed["unreadable"]) == 1 and "torn" in listed["unreadable"][0]
    table = harness("runs", "list").out
    assert "1 min 10 s" in table and "2.2500" in table and "seed" in table and "unreadable" in table


def test_runs_show_tells_recipe_digest_metrics_and_sizes(harness, make_run):
    folder = make_run("first")
    shown = harness("runs", "show", "first").out
    assert "method: lora" in shown and "adapter 2 KB" in shown and "lowest loss 2.25" in shown
    details = json.loads(harness("runs", "show", "first", "--json").out)
    assert details["manifest_sha256"] == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert details["size_bytes"]["adapter"] == 2500 and details["metrics"]["last_validation_loss"] == 2.5


def test_an_unknown_run_is_told_with_the_nearest(harness, make_run):
    make_run("first")
    done = harness("runs", "show", "frist")
    assert done.code == 1 and "Did you mean 'first'?" in done.err


@pytest.mark.parametrize("name", ["~nobody-here/x", "a" * 300])
def test_a_name_that_cannot_be_a_folder_is_just_no_run(name, harness):
    for command in (("runs", "show", name), ("evaluate", name)):
        done = harness(*command)
        assert done.code == 1 and "Traceback" not in done.err, done.err


@pytest.mark.parametrize("sessions", ["[{}]", "{}", "[1]"])
def test_a_damaged_manifest_hides_no_other_run(sessions, harness, make_run):
    make_run("good")
    (make_run("damaged") / "manifest.json").write_text(f'{{"outcome": "finished", "sessions": {sessions}}}')
    done = harness("runs", "list")
    assert done.code == 0 and "good" in done.out and "damaged" in done.out


def test_a_runs_folder_that_cannot_be_made_is_told(tmp_path):
    from harness.errors import RunError
    from harness.run import Run

    (tmp_path / "file").touch()
    for folder in (tmp_path / "file" / "run", tmp_path / ("a" * 300)):
        with pytest.raises(RunError, match="cannot be made"):
            Run.create(folder, None, None)  # type: ignore[arg-type]


def test_a_run_that_cannot_be_written_to_is_told(harness, make_run):
    folder = make_run("first")
    (folder / ".lock").mkdir()  # as in a folder that one may only read, which root may write to
    done = harness("runs", "remove", "first", "--yes")
    assert done.code == 1 and f"{folder}: the run cannot be written to" in done.err
    assert (folder / "manifest.json").exists()


def test_a_command_with_a_path_is_quoted_for_the_shell(harness, make_run, tmp_path):
    folder = make_run("first", outcome="interrupted").parent.rename(tmp_path / "my runs") / "first"
    done = harness("--runs", folder.parent, "runs", "merge", "first")
    assert done.code == 1 and f"`harness tune --resume '{folder}'`" in done.err


def test_removing_a_run_asks_first(harness, make_run):
    folder = make_run("first")
    assert harness("runs", "remove", "first", input="n\n").code == 1 and folder.exists()
    done = harness("runs", "remove", "first", input="y\n")
    assert done.code == 0 and not folder.exists() and list(folder.parent.iterdir()) == []
    make_run("second")
    assert harness("runs", "remove", "second", "--yes").code == 0


HOLDER = """
import sys
from pathlib import Path
from harness.plugins import Plugins
from harness.run import Run

with Run.open(Path(sys.argv[1]), Plugins()).locked():
    print("held", flush=True)
    input()
"""


def test_a_run_in_use_is_shown_as_working_and_not_removed(harness, make_run):
    folder = make_run("busy", "started")
    command = [sys.executable, "-c", HOLDER, str(folder)]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert "working" in harness("runs", "list").out
        done = harness("runs", "remove", "busy", "--yes")
        assert done.code == 1 and "another process is working" in done.err and folder.exists()
    finally:
        holder.kill()
        holder.wait()
    assert harness("runs", "remove", "busy", "--yes").code == 0


# doctor


def test_doctor_says_what_is_there_in_words_and_in_json(harness):
    found = json.loads(harness("doctor", "--json").out)
    assert found["harness"]["version"] and found["machine"]["cores"] >= 1
    assert set(found["extras"]) == {"tuning", "evaluation", "gguf", "serving"}
    text = harness("doctor").out
    assert "torch build" in text and "good to know" in text


def test_doctor_asks_the_hub_it_is_told_of_and_does_not_wait_for_one_that_is_silent(harness):
    closed = socket.socket()
    closed.bind(("127.0.0.1", 0))  # and does not listen
    silent = socket.create_server(("127.0.0.1", 0))
    refusing = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)  # answers 501 to everything
    threading.Thread(target=refusing.serve_forever, daemon=True).start()
    try:
        for endpoint, reachable in (
            (f"http://127.0.0.1:{closed.getsockname()[1]}", False),
            (f"http://127.0.0.1:{silent.getsockname()[1]}", False),
            (f"http://127.0.0.1:{refusing.server_port}", True),
            ("nonsense", False),
        ):
            found = json.loads(harness("doctor", "--json", env={"HF_ENDPOINT": endpoint, "HF_HUB_OFFLINE": None}).out)
            assert (found["hub"]["endpoint"], found["hub"]["reachable"]) == (endpoint, reachable)
            assert reachable != any("model hub" in note and endpoint in note for note in found["notes"])
    finally:
        closed.close()
        silent.close()
        refusing.shutdown()
    offline = json.loads(harness("doctor", "--json", env={"HF_HUB_OFFLINE": "1"}).out)
    assert any("HF_HUB_OFFLINE is set" in note for note in offline["notes"])


def test_doctor_names_broken_plugins_and_missing_extras(harness, tmp_path):
    (tmp_path / "bad.py").write_text("import nothing_like_this")
    found = json.loads(harness("--plugin", "bad.py", "doctor", "--json").out)
    assert any("bad" in problem and "nothing_like_this" in problem for problem in found["problems"])


def test_doctor_works_on_a_bare_install(tmp_path):
    """Only what the bare install brings can be found: no torch, no vLLM, no gradio."""
    bare = tmp_path / "bare"
    bare.mkdir()
    needed = ["click", "filelock", "pluggy", "pydantic", "rich", "ruamel.yaml", "instruct-harness", "annotated-types",
              "pydantic-core", "typing-extensions", "typing-inspection", "markdown-it-py", "mdurl",
              "pygments"]  # fmt: skip
    for name in needed:
        distribution = importlib.metadata.distribution(name)
        for file in distribution.files or []:
            top = file.parts[0]
            source = Path(str(distribution.locate_file(top)))
            if top != ".." and not top.endswith(".pth") and source.exists() and not (bare / top).exists():
                (bare / top).symlink_to(source)
    folders = [str(bare), str(ROOT), str(ROOT / "plugins"), str(ROOT / "serve")]
    program = (
        "import sys\n"
        f"sys.path = [folder for folder in sys.path if '-packages' not in folder] + {folders!r}\n"
        "from harness.cli.main import main\nmain(['doctor', '--json'])"
    )
    command = [sys.executable, "-S", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["packages"]["torch"] is None and "torch" in found["extras"]["tuning"]
    assert any("pip install 'instruct-harness[tuning]'" in problem for problem in found["problems"])
    assert any("vLLM is not installed" in problem for problem in found["problems"])


# The command itself


def test_an_unknown_command_or_option_is_a_usage_error(harness):
    assert harness("tuune").code == 2
    assert harness("data", "list", "--jsn").code == 2


def test_our_own_mistake_shows_its_traceback(harness, tmp_path):
    (tmp_path / "crash.py").write_text(
        "import click, harness\n\n@click.command('crash')\ndef crash():\n    {}['nothing']\n\n"
        "@harness.hookimpl\ndef register_commands(register):\n    register(crash)\n"
    )
    done = harness("--plugin", "crash.py", "crash")
    assert done.code == 1 and "Traceback" in done.err and "KeyError" in done.err


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    shown = f"data preview --dataset messages {SEEDLING / 'train.messages.jsonl'} --count 1500"
    command = f"{sys.executable} -m harness.cli {shown} | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert "Traceback" not in done.stderr and len(done.stdout.splitlines()) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_command_with_its_number_and_no_traceback(number, tmp_path):
    (tmp_path / "wait.py").write_text(
        "import click, harness, signal\n\n@click.command('wait')\ndef wait():\n    print('waiting', flush=True)\n"
        "    signal.pause()\n\n"
        "@harness.hookimpl\ndef register_commands(register):\n    register(wait)\n"
    )
    command = [sys.executable, "-m", "harness.cli", "--plugin", "wait.py", "wait"]
    child = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None and child.stdout.readline() == "waiting\n"
    child.send_signal(number)
    _, err = child.communicate()
    assert child.returncode == 128 + number and "Traceback" not in err
