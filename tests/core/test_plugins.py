"""A broken plugin is reported by name, version, path and reason; its registrations are taken back; the rest works."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

GOOD = """
import harness

@harness.hookimpl
def register_datasets(register):
    register(harness.Dataset("good", "works", lambda row, options: None))
"""


def hook(body: str, name: str = "register_datasets", arguments: str = "register") -> str:
    lines = "".join(f"    {line}\n" for line in body.splitlines())
    return f"import harness\n\n@harness.hookimpl\ndef {name}({arguments}):\n{lines}"


BROKEN = {
    "import error": ("import a_module_that_is_not_there",
                     r"import failed: ModuleNotFoundError: No module named 'a_module_that"),
    "raises when imported": ("raise RuntimeError('no licence key')", r"import failed: RuntimeError: no licence key"),
    "panics when imported": (
        "class PanicException(BaseException):\n    pass\nraise PanicException('unwrap on None')",
        r"import failed: PanicException: unwrap on None",
    ),
    "is cancelled when imported": ("import asyncio\nraise asyncio.CancelledError", r"import failed: CancelledError"),
    "has no hooks": ("", r"it has no hook: mark a function with @harness.hookimpl\. Hooks: .*register_datasets"),
    "a name that leads elsewhere": (hook("register(harness.Dataset('../../evil', '', print))"),
                                    r"'\.\./\.\./evil' cannot be a name"),
    "reads that are no paths": (hook("register(harness.Dataset('r', '', print, reads='a.txt'))"),
                                r"'r': reads should be a tuple of paths, found 'a.txt'"),
    "exits when imported": ("raise SystemExit(3)", r"import failed: SystemExit: 3"),
    "syntax error": ("def broken(:\n", r"import failed: SyntaxError: .*bad\.py, line 1"),
    "not UTF-8": (b"x = '\xff'\n", r"import failed: SyntaxError"),
    "misspelt hook": (hook("pass", "register_dataset"),
                      r"no hook 'register_dataset'\. Did you mean 'register_datasets'\?"),
    "wrong argument": (hook("pass", arguments="registrar"),
                       r"register_datasets takes 'registrar', which .* write `def register_datasets\(register\):`"),
    "raising hook": (hook("raise ValueError('no network')"), r"register_datasets failed: ValueError: no network"),
    "exiting hook": (hook("raise SystemExit(3)"), r"register_datasets failed: SystemExit: 3"),
    "registers rubbish": (hook("register({'name': 'x'})"), r"was given \{.name.: .x.\}, expected a harness.Dataset"),
    "registers another kind": (hook("register(harness.Template('t', '', max, str))"),
                               r"was given Template\(.*expected a harness.Dataset"),
    "registers a nameless thing": (hook("register(harness.Dataset('', '', lambda row, options: None))"),
                                   r"has no name"),
    "registers what nobody can type": (
        hook("register(harness.Dataset('a' + chr(27) + '[31m', '', lambda row, options: None))"),
        r"'a\\x1b\[31m' cannot be typed as a name",
    ),
    "an unmarked hook": ("def register_datasets(register):\n    pass\n",
                         r"register_datasets is not marked: put @harness.hookimpl above it"),
    "options that are none": (
        hook("register(harness.Dataset('e', '', print, options=dict))"), r"'e' has the options <class 'dict'>",
    ),
    "yields that are none": (hook("register(harness.Dataset('d', '', print, yields='rows'))"),
                             r"'d': yields should be one of 'conversations', .*, found 'rows'"),
    "a source that is no path": (hook("register(harness.Dataset('d', '', print, 5))"),
                                 r"'d': the source should be a path, found 5"),
    "a convert without options": (
        hook("register(harness.Dataset('old', '', lambda row: None))"),
        r"'old': convert is convert\(row\), expected convert\(row, options\)\. Write `def convert\(row, options\):`",
    ),
    "a gather without options": (
        hook("register(harness.Dataset('old', '', lambda row, options: None, gather=lambda rows: rows))"),
        r"'old': gather is gather\(rows\), expected gather\(rows, options\)",
    ),
    "returns instead of registering": (
        hook("return harness.Dataset('x', '', lambda row, options: None)"),
        r"register_datasets failed: it returned Dataset",
    ),
    "a name given twice": (
        hook("register(harness.Dataset('x', '', lambda row, options: None))\n"
             "register(harness.Dataset('x', '', lambda row, options: 1))\nraise ValueError(1)"),
        r"dataset 'x' is registered already, by bad \(.*bad\.py\)",
    ),
    "a hook that waits": (
        "import harness\n\n@harness.hookimpl\nasync def register_datasets(register):\n    pass\n",
        r"register_datasets waits \(`async`\), and would never run: write a plain function",
    ),
    "a hook that is a generator": (
        hook("yield harness.Dataset('x', '', print)"), r"register_datasets is a generator \(`yield`\), and would never",
    ),
    "a class instead of an object of it": (
        hook("register(harness.Dataset)"), r"was given <class .*Dataset'>, expected a harness.Dataset",
    ),
    "null bytes": (b"import harness\0\n", r"import failed: (SyntaxError|ValueError): source code .*null bytes"),
    "endless recursion": ("def f():\n    f()\nf()\n", r"import failed: RecursionError: maximum recursion depth"),
    "a module that cannot be looked through": (
        "def __dir__():\n    return ['gone']\ndef __getattr__(name):\n    raise RuntimeError(f'{name}: no licence')\n",
        r"RuntimeError: harness_api: no licence",
    ),
    "a broken default": (
        "import harness\nclass O(harness.Options):\n    n: int = 'many'\n"
        + hook("register(harness.Dataset('x', '', lambda row, options: None, options=O))"),
        r"'x': the default of its option 'n' is 'many'",
    ),
}  # fmt: skip


@pytest.fixture
def plugin(tmp_path):
    def write(text: str | bytes, name: str = "bad.py") -> Path:
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_named_with_its_reason_and_the_rest_works(kind, plugin, harness):
    text, reason = BROKEN[kind]
    done = harness("--plugin", plugin(text), "--plugin", plugin(GOOD, "fine.py"), "data", "list", "--json")
    assert done.code == 0, done.err
    names = [row["name"] for row in json.loads(done.out)]
    assert "good" in names and "alpaca" in names and "x" not in names
    assert done.err.startswith("warning: plugin bad ") and str(plugin(text)) in done.err
    assert re.search(reason, done.err), done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_plugin_is_fatal_when_plugins_are_strict(kind, plugin, harness):
    text, reason = BROKEN[kind]
    done = harness("--plugin", plugin(text), "data", "list", env={"HARNESS_STRICT_PLUGINS": "1"})
    assert done.code == 1
    assert re.search(r"^error: plugin bad .*: ", done.err) and re.search(reason, done.err), done.err
    assert "Traceback" not in done.err


PUT_BACK = {
    "the working folder": "import os\nos.chdir('/')",
    "the handler of SIGTERM": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "the handler of SIGINT": "import signal\nsignal.signal(signal.SIGINT, signal.SIG_DFL)",
}


@pytest.mark.parametrize("what", PUT_BACK)
def test_what_the_command_relies_on_is_put_back_after_a_plugin_and_named(what, plugin, tmp_path, harness):
    (tmp_path / "rows.jsonl").write_text('{"instruction": "Who?", "output": "The heron."}\n')
    done = harness(
        "--plugin", plugin(f"{PUT_BACK[what]}\n{GOOD}"), "data", "preview", "--dataset", "alpaca", "rows.jsonl"
    )
    assert done.code == 0 and "The heron." in done.out
    assert f"it changed {what}, which was put back" in done.err


def test_a_row_that_becomes_items_without_end_is_named(plugin, write_rows, harness_here, monkeypatch):
    monkeypatch.setattr("harness.data.convert.conversion.MOST_ITEMS", 20)
    text = hook("register(harness.Dataset('endless', '', convert))") + (
        "\n\ndef convert(row, options):\n    while True:\n"
        "        yield harness.Conversation.of(('user', 'a'), ('assistant', 'b'))\n"
    )
    path = plugin(text)
    done = harness_here(f"--plugin {path} data validate --dataset endless", write_rows({"q": 1}))
    assert done.code == 1
    assert "the row becomes more than 20 items, and they go on: `convert` has to end (row 1)" in done.out


def test_an_evaluation_whose_items_never_end_is_named(monkeypatch):
    import itertools

    import harness
    from harness.measure import runner
    from harness.testing import FakeBackend

    monkeypatch.setattr(runner, "MOST_ITEMS", 20)
    asked = harness.Request((harness.Message("user", "Who?"),))
    evaluation = harness.Evaluation("long", "", harness.Options, items=max, score=max)
    endless = (harness.EvaluationItem(str(number), (asked,)) for number in itertools.count())
    with pytest.raises(harness.PluginError, match="'long': items gave more than 20, and goes on: it has to end"):
        runner.askable(evaluation, endless, FakeBackend(""))


def test_the_list_shows_failed_plugins_and_fails(plugin, harness):
    done = harness("--plugin", plugin(hook("raise ValueError('no network')")), "plugins", "list", "--json")
    assert done.code == 1
    (failed,) = (row for row in json.loads(done.out)["failed"] if row["name"] == "bad")
    assert failed["path"].endswith("bad.py") and "no network" in failed["error"]
    told = harness("--plugin", plugin(hook("raise ValueError('no network')")), "plugins", "list", "--verbose")
    assert "Traceback" in told.out and "no network" in told.out


def test_the_list_names_a_shape_once(harness):
    shown = harness("plugins", "list")
    assert shown.code == 0 and len(re.findall(r"\bultrachat\b", shown.out)) == 1


def test_what_a_plugin_registered_before_it_failed_is_taken_back(plugin, harness):
    text = (
        hook("register(harness.Dataset('half', '', lambda row, options: None))\nraise ValueError('then this')")
        + "\n\n"
        + hook("register(harness.Template('whole', '', max, lambda t: ('x',)))", "register_templates")
    )
    done = harness("--plugin", plugin(text), "plugins", "list", "--json")
    registered = json.dumps(json.loads(done.out)["plugins"])
    assert "half" not in registered and "whole" in registered


def test_what_a_registry_holds_does_not_depend_on_what_was_asked_for_before(plugin):
    from harness.plugins import Plugins

    text = (
        hook("register(harness.Dataset('early', '', lambda row, options: None))")
        + "\n\n"
        + hook("raise ValueError('late')", "register_templates")
    )
    for kinds in (("datasets", "templates"), ("templates", "datasets")):
        plugins = Plugins([plugin(text)])
        for kind in kinds:
            plugins.registry(kind)
        assert "early" in plugins.datasets and "chatml" in plugins.templates


def test_a_name_that_two_plugins_claim_is_reachable_by_its_owner(plugin, harness):
    first, second = plugin(GOOD, "one.py"), plugin(GOOD, "two.py")
    loaded = ("--plugin", first, "--plugin", second, "data")
    done = harness(*loaded, "list", "--json")
    assert {row["name"]: row["plugin"] for row in json.loads(done.out)}.items() >= {
        "one:good": "one",
        "two:good": "two",
    }.items()
    assert "dataset 'good' is also registered by one" in done.err and "`two:good`" in done.err
    ambiguous = harness(*loaded, "preview", "--dataset", "good", first)
    assert ambiguous.code == 1 and "write `one:good`" in ambiguous.err and "`two:good`" in ambiguous.err


def test_the_bare_name_stays_the_first_party_s(plugin):
    from harness.plugins import Plugins

    plugins = Plugins(
        [plugin(hook("register(harness.Dataset('alpaca', 'mine', lambda row, options: None))"), "mine.py")]
    )
    assert plugins.datasets.owner("alpaca").owner == "harness"
    assert plugins.datasets["mine:alpaca"].description == "mine" and "mine:alpaca" in list(plugins.datasets)


def test_an_option_that_the_section_has_already_is_refused_as_it_is_registered(plugin, harness):
    text = "class Mine(harness.Options):\n    tracker: str = ''\n" + hook(
        "register(harness.Tracker('mine', 'follows', Mine, lambda options: print))", "register_trackers"
    )
    done = harness("--plugin", plugin("import harness\n" + text, "mine.py"), "plugins", "list")
    assert done.code == 1 and "plugin mine" in done.err
    assert "'mine' has the option 'tracker'" in done.err and "Reserved keys: tracker" in done.err


def test_two_plugins_of_one_name_are_both_shown(plugin, tmp_path, harness):
    (tmp_path / "other").mkdir()
    first, second = plugin(GOOD, "same.py"), plugin(GOOD.replace("good", "better"), "other/same.py")
    done = harness("--plugin", first, "--plugin", second, "plugins", "list", "--json")
    listed = json.loads(done.out)
    assert [row["registers"]["datasets"] for row in listed["plugins"] if row["name"] == "same"] == [["good"]]
    assert any(str(first) in row["error"] and str(second) in row["error"] for row in listed["failed"])


def test_a_disabled_plugin_is_not_even_imported(plugin, harness):
    done = harness(
        "--plugin",
        plugin("raise RuntimeError('imported')"),
        "data",
        "list",
        env={"HARNESS_DISABLE_PLUGINS": "bad, text"},
    )
    assert done.code == 0 and done.err == ""
    gone = harness("data", "list", "--json", env={"HARNESS_DISABLE_PLUGINS": "datasets, generation"})
    assert json.loads(gone.out) == []


def test_plugin_files_of_pyproject_are_loaded_from_folders_below_it(plugin, tmp_path, harness):
    plugin(GOOD, "mine.py")
    (tmp_path / "pyproject.toml").write_text('[tool.harness]\nplugins = ["mine.py"]\n')
    below = tmp_path / "deep" / "down"
    below.mkdir(parents=True)
    done = harness("data", "list", "--json", cwd=below)
    assert "good" in done.out and done.err == ""


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[tool.harness", "not valid TOML"),
        ('[tool.harness]\nplugins = "mine.py"\n', "should be a list of file names"),
        ('tool = 3\n', "should be"),
        ('[tool]\nharness = 3\n', "should be"),
    ],
)  # fmt: skip
def test_a_wrong_pyproject_is_explained(toml, told, tmp_path, harness):
    (tmp_path / "pyproject.toml").write_text(toml)
    done = harness("data", "list")
    assert done.code == 1 and told in done.err and "Traceback" not in done.err


def test_a_configured_plugin_that_is_gone_is_left_out_and_help_and_doctor_live(tmp_path, harness):
    (tmp_path / "pyproject.toml").write_text('[tool.harness]\nplugins = ["gone.py"]\nplugin = ["mine.py"]\n')
    for arguments in (("--help",), ("doctor", "--json"), ("data", "list", "--json")):
        done = harness(*arguments)
        assert done.code == 0 and "Traceback" not in done.err
        assert "warning: plugin gone (" in done.err and "no such file; [tool.harness] plugins names it" in done.err
        assert "[tool.harness] has no key 'plugin'. Did you mean 'plugins'?" in done.err


def test_what_a_plugin_prints_while_it_loads_is_none_of_the_output(plugin, harness):
    path = plugin("print('hello')\n" + hook("print('there')"), "loud.py")
    done = harness("--plugin", path, "data", "list", "--json")
    assert json.loads(done.out) and done.err == "hello\nthere\n"


def test_a_description_is_shown_cleaned_and_cut(plugin, harness):
    path = plugin(hook("register(harness.Dataset('long', chr(27) + '[31mred\\n' + 'x' * 200_000, print))"), "long.py")
    (row,) = (
        row for row in json.loads(harness("--plugin", path, "data", "list", "--json").out) if row["name"] == "long"
    )
    assert row["description"].startswith("[31mred xxx") and len(row["description"]) == 400


def test_a_file_that_is_named_twice_is_loaded_once(plugin, harness_here, tmp_path):
    path = plugin(GOOD, "mine.py")
    project = tmp_path / "pyproject.toml"
    project.write_text(f"[tool.harness]\nplugins = [{str(path)!r}]\n")
    done = harness_here("--plugin", path, "--plugin", Path(path).relative_to(tmp_path), "plugins", "list", "--json")
    assert done.err == "" and [row["name"] for row in json.loads(done.out)["plugins"]].count("mine") == 1
    Path(path).unlink()
    done = harness_here("--plugin", path, "plugins", "list")
    assert done.code == 1 and f"--plugin {path}: no such file" in done.err


def test_a_row_that_makes_the_plugin_panic_is_named(plugin, write_rows, harness):
    path = plugin("class PanicException(BaseException):\n    pass\ndef convert(row, options):\n"
                  "    raise PanicException('unwrap on None')\n"
                  + hook("register(harness.Dataset('panics', '', convert))"), "panics.py")  # fmt: skip
    done = harness("--plugin", path, "data", "validate", write_rows({"q": 1}), "--dataset", "panics")
    assert done.code == 1 and "PanicException: unwrap on None" in done.out + done.err and "Traceback" not in done.err
    assert "rows.jsonl" in done.out + done.err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["while it is imported", "in a hook", "in convert"])
def test_a_signal_is_not_the_mistake_of_the_plugin_it_comes_in(where, number, plugin, write_rows, tmp_path):
    wait = "print('here', file=sys.stderr, flush=True)\nsignal.pause()\n"
    in_convert = "def convert(row, options):\n    " + wait.strip().replace("\n", "\n    ") + "\n"
    text = (
        "import signal, sys\n"
        + {
            "while it is imported": wait,
            "in a hook": hook(wait),
            "in convert": in_convert + hook("register(harness.Dataset('waits', '', convert))"),
        }[where]
    )
    command = [
        sys.executable,
        "-m",
        "harness.cli",
        "--plugin",
        str(plugin(text)),
        "data",
        "validate",
        str(write_rows({"q": 1})),
    ]
    child = subprocess.Popen(
        [*command, "--dataset", "waits"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stderr.readline() == "here\n"
    child.send_signal(number)
    _, told = child.communicate()
    assert child.returncode == 128 + number
    assert "warning" not in told and "Traceback" not in told and "waits" not in told


def test_a_plugin_file_that_is_not_there_is_an_error(harness, tmp_path):
    done = harness("--plugin", tmp_path / "nowhere.py", "data", "list")
    assert done.code == 1 and done.err == f"error: --plugin {tmp_path / 'nowhere.py'}: no such file\n"
    (tmp_path / "plugin.txt").write_text(GOOD)
    assert "should end in .py" in harness("--plugin", tmp_path / "plugin.txt", "data", "list").err


def test_a_plugin_may_bring_a_command_and_a_broken_one_does_not_take_help_down(plugin, harness):
    text = "import click\n" + hook(
        "@click.command('hello', help='Say hello.')\ndef hello():\n    click.echo('hello')\nregister(hello)",
        "register_commands",
    )
    path = plugin(text, "greet.py")
    assert re.search(r"hello +Say hello\.", harness("--plugin", path, "--help").out)
    assert harness("--plugin", path, "hello").out == "hello\n"
    broken = harness("--plugin", plugin(hook("raise ValueError('no')", "register_commands")), "--help")
    assert broken.code == 0 and "plugins" in broken.out and "register_commands failed" in broken.err


def test_a_plugin_cannot_take_a_command_of_the_core(plugin, harness):
    text = "import click\n" + hook("register(click.Command('plugins', help='mine'))", "register_commands")
    done = harness("--plugin", plugin(text), "--help")
    assert re.search(r"^  bad:plugins +mine$", done.out, re.MULTILINE) and re.search(
        r"^  plugins +List", done.out, re.MULTILINE
    )
    assert "command 'plugins' is also registered by the harness itself" in done.err


def test_a_tracker_that_raises_is_named_and_not_called_again(plugin, capsys):
    from harness.contract.events import Step
    from harness.plugins import Plugins
    from harness.recipe import TrackSpec
    from harness.run import Events

    seen: list[int] = []
    text = hook(
        (
            "def fail(event):\n    raise OSError('disk gone')\n"
            "register(harness.Tracker('t', '', harness.Options, lambda options: fail))"
        ),
        "register_trackers",
    )
    events = Events.to([TrackSpec(tracker="t")], Plugins([plugin(text)]))
    events._receivers.append(("other", lambda event: seen.append(event.step)))
    for step in (1, 2):
        events.send(Step("run", step, {}))
    told = capsys.readouterr().err
    assert seen == [1, 2] and told.count("tracker 't' of plugin bad") == 1 and "disk gone" in told


@pytest.mark.parametrize("ending", ["SystemExit(9)", "GeneratorExit()"])
def test_a_tracker_cannot_end_the_run(plugin, capsys, ending):
    from harness.contract.events import Step
    from harness.plugins import Plugins
    from harness.recipe import TrackSpec
    from harness.run import Events

    text = hook(
        f"def fail(event):\n    raise {ending}\n"
        "register(harness.Tracker('t', '', harness.Options, lambda options: fail))",
        "register_trackers",
    )
    events = Events.to([TrackSpec(tracker="t")], Plugins([plugin(text)]))
    for step in (1, 2):
        events.send(Step("run", step, {}))
    told = capsys.readouterr().err
    assert told.count("tracker 't' of plugin bad") == 1 and f"failed at Step: {ending.partition('(')[0]}" in told


def test_a_signal_in_a_tracker_is_not_its_failure():
    from harness.contract.events import Step
    from harness.run import Events

    def interrupted(event: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Events([("t", interrupted)]).send(Step("run", 1, {}))


def test_a_tracker_cannot_change_what_the_next_one_sees(tmp_path, capsys):
    from harness.contract.events import Evaluated, Started, Step
    from harness.nouns import Result, Sample, Score
    from harness.run import Events

    recipe = {"tune": {"steps": 1}, "data": [{"path": "rows"}]}
    result = Result("task", {"acc": Score(1.0, None, 1)}, (Sample("1", {"acc": 1.0}),), {"shots": [1]})
    attempts = [
        (Started("run", tmp_path, recipe, 0, 1), lambda event: event.recipe["tune"].clear()),
        (Started("run", tmp_path, recipe, 0, 1), lambda event: event.recipe["data"].append({})),
        (Started("run", tmp_path, recipe, 0, 1), lambda event: event.recipe["data"][0].clear()),
        (Step("run", 1, {"loss": 1.0}), lambda event: event.metrics.clear()),
        (Evaluated("run", "run", (result,)), lambda event: event.results[0].scores.clear()),
        (Evaluated("run", "run", (result,)), lambda event: event.results[0].samples[0].metrics.clear()),
        (Evaluated("run", "run", (result,)), lambda event: event.results[0].details["shots"].clear()),
    ]
    for event, change in attempts:
        before, seen = repr(event), []
        Events([("rude", change), ("next", seen.append)]).send(event)
        assert "rude is not called again" in capsys.readouterr().err
        assert repr(event) == before and len(seen) == 1
    assert recipe == {"tune": {"steps": 1}, "data": [{"path": "rows"}]}
    Events([("next", lambda event: seen.append(json.loads(json.dumps(event.recipe, default=dict))))]).send(
        attempts[0][0]
    )
    assert seen[-1] == recipe


def test_a_tracker_that_creates_nothing_is_refused(plugin):
    import harness
    from harness.plugins import Plugins
    from harness.recipe import TrackSpec
    from harness.run import Events

    text = hook("register(harness.Tracker('t', '', harness.Options, lambda options: None))", "register_trackers")
    with pytest.raises(harness.PluginError, match=r"tracker 't' of plugin bad .*create returned None"):
        Events.to([TrackSpec(tracker="t")], Plugins([plugin(text)]))


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> dict[str, str | None]:
    """The example distribution installed by pip in a folder of its own, and the environment in which it is found."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source") / "harness-riddles"
    shutil.copytree(
        ROOT / "examples" / "harness-riddles",
        source,
        ignore=shutil.ignore_patterns("build", "*.egg-info", "__pycache__"),
    )
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        target,
        source,
    ]
    subprocess.run(command, check=True, capture_output=True)
    return {"PYTHONPATH": os.pathsep.join([str(target), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)}


def test_an_installed_third_party_distribution_is_found_with_its_data(installed, harness):
    listed = harness("plugins", "list", "--json", env=installed)
    (riddles,) = (row for row in json.loads(listed.out)["plugins"] if row["name"] == "harness-riddles/riddles")
    assert riddles["version"] == "1.0.0" and riddles["registers"] == {"datasets": ["riddles"]}
    assert riddles["path"].startswith(installed["PYTHONPATH"].split(os.pathsep)[0])
    preview = harness("data", "preview", "--dataset", "riddles", "--count", "1", env=installed)
    assert preview.code == 0 and "Footsteps." in preview.out


def test_the_example_plugin_has_at_most_15_lines_and_works_as_a_single_file_too(harness, tmp_path):
    package = ROOT / "examples" / "harness-riddles" / "harness_riddles"
    text = (package / "__init__.py").read_text()
    assert len(text.splitlines()) <= 15
    (tmp_path / "riddles.py").write_text(text)
    (tmp_path / "riddles.jsonl").write_text((package / "riddles.jsonl").read_text())
    done = harness("--plugin", "riddles.py", "data", "preview", "--dataset", "riddles")
    assert done.code == 0 and "What am I?" in done.out


OWN = hook(
    "register(harness.Dataset('own', 'mine', lambda row, options: harness.Conversation.of("
    "('user', row['q']), ('assistant', row['a']))))"
)


@pytest.fixture
def own_recipe(plugin, write_rows, tmp_path):
    """A recipe that names its own plugin file, beside it."""
    write_rows({"q": "Who?", "a": "The heron."})
    plugin(OWN, "own_rows.py")
    path = tmp_path / "recipe.yaml"
    path.write_text(
        "plugins: [own_rows.py]\nmodel: {path: .}\ntune: {}\ndata: {train: [{dataset: own, path: rows.jsonl}]}\n"
    )
    return path


def test_a_recipe_brings_its_own_plugin(own_recipe, harness_here):
    done = harness_here("data preview --count 1", own_recipe)
    assert done.code == 0 and "The heron." in done.out, done.err


def test_a_recipe_s_plugin_is_loaded_after_the_registries_were_asked(own_recipe, tmp_path):
    from harness.plugins import Plugins
    from harness.recipe import load_recipe, qualified

    plugins = Plugins()
    plugins.load_all()
    recipe = load_recipe(own_recipe, plugins)
    assert recipe.plugins == (str(tmp_path / "own_rows.py"),)
    assert qualified(recipe, plugins).data.train[0].dataset == "own_rows:own"
    assert "plugins" in recipe.as_yaml() and "plugins" not in recipe.model_copy(update={"plugins": ()}).as_yaml()


def test_a_missing_plugin_file_of_a_recipe_is_an_error_that_names_the_nearest(own_recipe, harness_here):
    own_recipe.write_text(own_recipe.read_text().replace("own_rows.py", "own_row.py"))
    done = harness_here("data preview", own_recipe)
    assert done.code == 1 and "line 1: no such plugin file" in done.err and "Did you mean 'own_rows.py'?" in done.err
    own_recipe.write_text(own_recipe.read_text().replace("[own_row.py]", "own_rows.py"))
    assert "`plugins` is a list of Python files" in harness_here("data preview", own_recipe).err


def test_a_run_records_the_code_that_it_was_tuned_with_and_says_where_that_changed(own_recipe, tmp_path, capsys):
    import hashlib

    from harness.plugins import Plugins
    from harness.recipe import load_recipe
    from harness.run import Run

    plugins = Plugins()
    run = Run.create(tmp_path / "runs" / "demo", load_recipe(own_recipe, plugins), plugins)
    code = tmp_path / "own_rows.py"
    assert run.manifest["plugin_files"] == {str(code): hashlib.sha256(code.read_bytes()).hexdigest()}
    assert Run.open(run.folder, Plugins()).recipe.data.train[0].dataset == "own_rows:own"
    assert capsys.readouterr().err == ""
    code.write_text(OWN + "\n# another\n")
    assert Run.open(run.folder, Plugins()).recipe
    assert "own_rows.py has changed since" in capsys.readouterr().err
    code.unlink()
    assert Run.open(run.folder, Plugins()).recipe
    assert f"the plugin {code}, which it was tuned with, is gone" in capsys.readouterr().err


def test_a_slow_plugin_is_named_with_its_time(plugin, harness_here):
    path = plugin(
        "import time\nuntil = time.perf_counter() + 0.31\nwhile time.perf_counter() < until:\n    pass\n" + GOOD
    )
    assert re.search(r"bad\.py  its import takes 0\.\d s", harness_here("--plugin", path, "plugins", "list").out)
    examined = harness_here("--plugin", path, "doctor").out
    assert re.search(r"good to know +the plugin bad \(.*bad\.py\) takes 0\.\d s to import", examined)
    rows = json.loads(harness_here("--plugin", path, "plugins", "list", "--json").out)["plugins"]
    assert next(row for row in rows if row["name"] == "bad")["import_s"] >= 0.31


def test_the_list_of_a_kind_has_its_plugins_alone(plugin, harness_here):
    rows = json.loads(harness_here("--plugin", plugin(GOOD, "mine.py"), *["plugins", "list", "dataset", "--json"]).out)[
        "plugins"
    ]
    assert {"mine", "harness/datasets"} <= {row["name"] for row in rows}
    assert all(list(row["registers"]) == ["datasets"] for row in rows)
    wrong = harness_here("plugins list datset")
    assert wrong.code == 2 and "'datset' is not one of" in wrong.err


def test_show_gives_options_and_the_lines_of_a_recipe(harness_here, tmp_path, tiny_model):
    shown = json.loads(harness_here("plugins show method lora --json").out)
    ranks = next(option for option in shown["options"] if option["name"] == "rank")
    assert ranks["type"].endswith("int") or "int" in ranks["type"]
    assert shown["recipe"].startswith("tune:\n  method:\n    name: lora\n") and not ranks["required"]
    assert "In a recipe:" in harness_here("plugins show dataset alpaca").out
    wrong = harness_here("plugins show method lor")
    assert wrong.code == 1 and "Did you mean 'lora'?" in wrong.err


@pytest.mark.parametrize(
    "kind", ["dataset", "filter", "template", "objective", "method", "evaluation", "engine", "tracker"]
)
def test_the_lines_that_show_gives_are_valid_in_a_recipe(kind, tmp_path):
    from harness_commands.plugins.show import described
    from ruamel.yaml import YAML

    from harness.contract.kinds import KINDS
    from harness.plugins import Plugins
    from harness.recipe import load_recipe

    plugins = Plugins()
    (its_kind,) = (one for one in KINDS if one.name == kind)
    registry = plugins.registry(its_kind.plural)
    assert registry.entries
    for entry in registry.entries:
        text = described(its_kind, entry)["recipe"]
        if "'...'" in text or "..." in text:  # an option without a default: a person fills it in
            continue
        tree = {"model": {"path": str(tmp_path)}, "tune": {}, "data": {"train": [{"dataset": "alpaca"}]}}
        for key, value in YAML(typ="safe").load(text).items():
            tree[key] = {**tree[key], **value} if isinstance(value, dict) and key in tree else value
        tree["data"].setdefault("train", [{"dataset": "alpaca"}])
        path = tmp_path / f"{kind}.yaml"
        path.write_text(json.dumps(tree))
        load_recipe(path, plugins, to_tune=False)
