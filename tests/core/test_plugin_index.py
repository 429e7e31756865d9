"""From the second call on an installed plugin is imported only when it is used; what changed is noticed."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from harness.plugins import Plugins
from harness.plugins.index import Index

pytestmark = pytest.mark.slow

DATASET = """
import harness

@harness.hookimpl
def register_datasets(register):
    register(harness.Dataset("NAME", "works", lambda row, options: None))
"""
COMMAND = """
import click
import harness

@click.command("NAME", help="Says hello.")
def hello():
    click.echo("hello")

@harness.hookimpl
def register_commands(register):
    register(hello)
"""


class Site:
    """A folder of installed distributions, each with one plugin, on `sys.path`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: set[str] = set()

    def install(self, name: str, text: str, version: str = "1.0") -> Path:
        """Write a distribution as pip does, in the past: files of the last two seconds are looked into each time."""
        for old in self.folder.glob(f"{name}-*.dist-info"):
            for file in old.iterdir():
                file.unlink()
            old.rmdir()
        package, metadata = self.folder / name, self.folder / f"{name}-{version}.dist-info"
        package.mkdir(exist_ok=True)
        metadata.mkdir()
        (package / "__init__.py").write_text(text.replace("NAME", name))
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        (metadata / "entry_points.txt").write_text(f"[harness]\n{name} = {name}\n")
        self.names.add(name)
        self.settle()
        return package / "__init__.py"

    def settle(self) -> None:
        past = time.time() - 60
        for path in (*self.folder.rglob("*"), self.folder):
            os.utime(path, (past, past))

    def plugins(self) -> Plugins:
        """Load plugins as a new process would."""
        for module in [module for module in sys.modules if module.partition(".")[0] in self.names]:
            del sys.modules[module]
        return Plugins()

    def imported(self) -> set[str]:
        return self.names & set(sys.modules)


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    made = Site(tmp_path / "site")
    made.folder.mkdir()
    monkeypatch.syspath_prepend(made.folder)
    yield made
    for name in made.imported():
        del sys.modules[name]


def index_of(tmp_path: Path) -> dict:
    (file,) = (tmp_path / "cache" / "plugins").glob("*.json")
    return json.loads(file.read_text())


def test_a_plugin_is_imported_only_when_something_of_its_is_used(site):
    site.install("one", DATASET)
    site.install("two", DATASET)
    site.plugins()
    assert site.imported() == {"one", "two"}
    plugins = site.plugins()
    assert (
        {"one", "two", "alpaca"} <= set(plugins.datasets)
        and "one" in plugins.datasets
        and "script" not in plugins.loaded
    )
    assert {"one", "two"} <= set(plugins.loaded) and site.imported() == set()
    assert plugins.datasets["two"].description == "works" and site.imported() == {"two"}
    assert len([entry for entry in plugins.datasets.entries if entry.name in site.names]) == 2
    assert site.imported() == {"one", "two"}


def test_help_names_a_command_of_a_plugin_that_it_does_not_import(site, capsys):
    from harness.cli.main import main

    site.install("hello", COMMAND)
    for _ in range(2):
        site.plugins()
        for module in site.imported():
            del sys.modules[module]
        with pytest.raises(SystemExit):
            main(["--help"])
        assert re.search(r"^  hello +Says hello\.$", capsys.readouterr().out, re.MULTILINE)
    assert site.imported() == set()
    with pytest.raises(SystemExit):
        main(["hello"])
    assert capsys.readouterr().out == "hello\n"


def test_a_changed_file_another_version_and_an_uninstalled_plugin_are_noticed(site):
    code = site.install("one", DATASET)
    site.plugins()
    code.write_text(DATASET.replace("NAME", "other"))
    assert "other" in (found := set(site.plugins().datasets)) and "one" not in found
    code.write_text(DATASET.replace("NAME", "third"))  # as long as before, and at once:
    shutil.rmtree(code.parent / "__pycache__", ignore_errors=True)  # Python itself would not notice
    assert "third" in set(site.plugins().datasets)
    site.install("one", DATASET.replace("NAME", "newer"), version="2.0")
    assert "newer" in set(site.plugins().datasets) and site.plugins().loaded["one"].version == "2.0"
    (site.folder / "one-2.0.dist-info" / "entry_points.txt").unlink()
    (site.folder / "one-2.0.dist-info" / "METADATA").unlink()
    (site.folder / "one-2.0.dist-info").rmdir()
    assert "one" not in site.plugins().loaded
    assert not any(key.split("\n")[1] == "one" for key in Index()._records)


def test_a_file_that_is_touched_but_not_changed_costs_nothing(site):
    code = site.install("one", DATASET)
    site.plugins()
    code.write_text(code.read_text())
    site.plugins()
    assert site.imported() == set()


def test_files_that_a_plugin_reads_and_modules_that_it_imports_are_watched(site):
    package = site.install("one", "from one.helper import names\n" + DATASET.replace('"NAME"', "names()[0]")).parent
    (package / "names.txt").write_text("first\n")
    helper = (
        "from pathlib import Path\ndef names():\n    return Path(__file__).with_name('names.txt').read_text().split()"
    )
    (package / "helper.py").write_text(helper)
    site.settle()
    assert "first" in set(site.plugins().datasets)
    assert "first" in set(site.plugins().datasets) and site.imported() == set()
    (package / "names.txt").write_text("second\n")
    assert "second" in set(site.plugins().datasets)
    site.settle()
    site.plugins()
    (package / "helper.py").write_text("def names():\n    return ['third']")
    assert "third" in set(site.plugins().datasets)


def test_an_editable_install_is_watched_where_its_code_is(site, tmp_path, monkeypatch):
    code = site.install("one", DATASET)
    elsewhere = tmp_path / "checkout"
    elsewhere.mkdir()
    code.parent.rename(elsewhere / "one")
    monkeypatch.syspath_prepend(elsewhere)
    site.plugins()
    site.plugins()
    assert site.imported() == set()
    (elsewhere / "one" / "__init__.py").write_text(DATASET.replace("NAME", "edited"))
    assert "edited" in set(site.plugins().datasets)


def test_a_package_of_the_same_name_that_comes_first_now_is_noticed(site, tmp_path, monkeypatch):
    site.install("one", DATASET)
    site.plugins()
    (tmp_path / "before").mkdir()
    (tmp_path / "before" / "one.py").write_text(DATASET.replace("NAME", "shadow"))
    monkeypatch.syspath_prepend(tmp_path / "before")
    assert "shadow" in set(site.plugins().datasets)


def test_a_plugin_that_could_not_be_imported_is_still_reported_and_not_tried_again(site, capsys):
    site.install("bad", "import sys\nsys.tried = getattr(sys, 'tried', 0) + 1\nimport not_there_at_all\n")
    try:
        for _ in range(3):
            plugins = site.plugins()
            told = capsys.readouterr().err
            assert re.search(r"warning: plugin bad 1\.0 .*No module named 'not_there_at_all' .*it is left out", told)
            assert "bad" in plugins.failed and "not_there_at_all" in plugins.failed["bad"].details
        assert sys.tried == 1
    finally:
        del sys.tried


@pytest.mark.parametrize("mended_by", ["its file", "what it imports", "a variable"])
def test_a_plugin_that_could_not_be_imported_is_tried_again_when_something_changes(
    mended_by, site, monkeypatch, capsys
):
    needs = "import os\nimport it_needs\n" if mended_by == "what it imports" else "import os\nos.environ['ITS_KEY']\n"
    code = site.install("bad", needs + DATASET)
    assert "bad" in site.plugins().failed and "bad" in site.plugins().failed
    if mended_by == "its file":
        code.write_text(DATASET.replace("NAME", "bad"))
    elif mended_by == "what it imports":
        (site.folder / "it_needs.py").touch()
    else:
        monkeypatch.setenv("ITS_KEY", "k")
    capsys.readouterr()
    assert "bad" in site.plugins().datasets and capsys.readouterr().err == ""
    sys.modules.pop("it_needs", None)


def test_a_name_that_the_index_does_not_have_is_looked_for_in_every_plugin(site, monkeypatch):
    """A plugin may register by what it finds on the machine: the index cannot know that."""
    text = DATASET.replace("    register(", "    import os\n    if 'ITS_SWITCH' in os.environ:\n        register(")
    site.install("one", text)
    assert "one" not in site.plugins().datasets
    monkeypatch.setenv("ITS_SWITCH", "on")
    assert site.plugins().datasets["one"].description == "works"
    assert "one" in set(site.plugins().datasets)  # and from then on its datasets are asked for each time
    monkeypatch.delenv("ITS_SWITCH")
    assert "one" not in set(site.plugins().datasets)


def test_a_thing_that_cannot_be_registered_is_reported_each_time(site, capsys):
    broken = DATASET + "    register(harness.Dataset('', 'no name', print))\n"
    site.install("one", broken)
    for _ in range(3):
        assert "one" in site.plugins().datasets
        assert "which has no name; this dataset is left out" in capsys.readouterr().err


def test_a_plugin_that_asks_the_network_is_imported_each_time(site):
    asks = "import socket\ntry:\n    socket.create_connection(('127.0.0.1', 9), 0.1)\nexcept OSError:\n    pass\n"
    site.install("one", asks + DATASET)
    site.plugins()
    site.plugins()
    assert site.imported() == {"one"}


def test_a_shape_is_known_as_a_dataset_without_an_import(site):
    shape = DATASET.replace("datasets", "shapes").replace(
        'harness.Dataset("NAME", "works", lambda row, options: None)',
        'harness.Shape("NAME", "faq", "prompt_completion", (("prompt=title", "completion=body"),))',
    )
    site.install("faq", shape)
    for _ in range(2):
        plugins = site.plugins()
        assert "faq" in plugins.datasets
    assert site.imported() == set()
    assert plugins.datasets["faq"].convert({"title": "a", "body": "b"}, None) and "faq" in plugins.shapes


def test_an_entry_point_named_like_ours_takes_nothing_from_us(site):
    """A distribution's entry point `tuning` is `its_name/tuning`, and `harness tune` stays ours."""
    site.install("one", DATASET)
    (site.folder / "one-1.0.dist-info" / "entry_points.txt").write_text("[harness]\ntuning = one\n")
    for _ in range(2):
        plugins = site.plugins()
        assert {"harness/tuning", "one/tuning"} <= set(plugins.loaded)
        assert plugins.commands.owner("tune").owner == "harness" and "one" in plugins.datasets


OBJECT = "import harness\nclass Plugin:\n    {}\nplugin = Plugin()\n"
METHOD = "def register_datasets(self, register): pass"
# By kind: the package's files, what the entry point names, and the reason that is given.
BROKEN_INSTALLED = {
    "an entry point to a missing attribute": (
        {"__init__": DATASET}, "one:plugin", r"its entry point is `one = 'one:plugin'`, and one has no 'plugin'",
    ),
    "an entry point to a misspelt attribute": (
        {"__init__": DATASET}, "one:register_dataset", r"no 'register_dataset'\. Did you mean 'register_datasets'\?",
    ),
    "an entry point to a missing module": (
        {"__init__": DATASET}, "one.nothing", r"import failed: ModuleNotFoundError: No module named 'one\.nothing'",
    ),
    "an entry point to a missing package": (
        {"__init__": DATASET}, "two", r"import failed: ModuleNotFoundError: No module named 'two'",
    ),
    "a dependency that is not installed": (
        {"__init__": "import not_there_at_all\n" + DATASET}, "one",
        r"No module named 'not_there_at_all' \(`pip check` names what one lacks\)",
    ),
    "an object with an unmarked hook": (
        {"__init__": OBJECT.format(METHOD)}, "one:plugin", r"register_datasets is not marked: put @harness\.hookimpl",
    ),
    "an object without a hook": ({"__init__": OBJECT.format("pass")}, "one:plugin", r"it has no hook: mark a function"),
    "a class in the place of an object": (
        {"__init__": OBJECT.format(f"@harness.hookimpl\n    {METHOD}")}, "one:Plugin",
        r"it is the class Plugin: name an object of it, as in `plugin = Plugin\(\)`",
    ),
    "a circular import": (
        {"__init__": "from one.a import x\n" + DATASET, "a": "from one.b import y\nx = 1", "b": "from one.a import x"},
        "one", r"import failed: ImportError: .*'x' from .*'one\.a'.*circular import",
    ),
    "an API that this harness does not have": (
        {"__init__": "harness_api = '1.9'\n" + DATASET}, "one", r"needs the plugin API 1\.9, .* `pip install -U ",
    ),
}  # fmt: skip


def install_broken(site: Site, kind: str) -> None:
    files, value, _ = BROKEN_INSTALLED[kind]
    package = site.install("one", files["__init__"]).parent
    for name, text in files.items():
        (package / f"{name}.py").write_text(text.replace("NAME", "one"))
    (site.folder / "one-1.0.dist-info" / "entry_points.txt").write_text(f"[harness]\none = {value}\n")
    site.settle()


@pytest.mark.parametrize("kind", BROKEN_INSTALLED)
def test_a_broken_installed_plugin_is_named_with_its_reason_each_time(kind, site, capsys):
    install_broken(site, kind)
    for _ in range(2):
        assert "one" in site.plugins().failed
        told = capsys.readouterr().err
        assert told.startswith("warning: plugin one 1.0 (") and re.search(BROKEN_INSTALLED[kind][2], told)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"records": 3}', '{"records": {}, "scans": {}}', "\0\0"])
def test_a_torn_index_is_made_again(content, site, tmp_path):
    site.install("one", DATASET)
    site.plugins()
    (file,) = (tmp_path / "cache" / "plugins").glob("*.json")
    file.write_text(content)
    assert "one" in site.plugins().datasets
    site.plugins()
    assert site.imported() == set()


def test_a_record_of_another_form_is_made_again(site, tmp_path):
    site.install("one", DATASET)
    site.plugins()
    (file,) = (tmp_path / "cache" / "plugins").glob("*.json")
    kept = json.loads(file.read_text())
    for record in kept["records"].values():
        record["state"]["files"] = 3
    file.write_text(json.dumps(kept))
    assert "one" in site.plugins().datasets


@pytest.mark.parametrize("cache", ["a file", "nowhere to write"])
def test_a_cache_that_cannot_be_written_breaks_nothing(cache, site, tmp_path, monkeypatch):
    site.install("one", DATASET)
    place = tmp_path / "a-file"
    place.touch()
    monkeypatch.setenv("HARNESS_CACHE", str(place) if cache == "a file" else "/proc/nowhere")
    for _ in range(2):
        assert "one" in site.plugins().datasets


def test_two_processes_at_once_leave_an_index_that_holds(site, tmp_path):
    site.install("one", DATASET)
    code = "from harness.plugins import Plugins\nassert 'one' in Plugins().datasets"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(site.folder), os.environ.get("PYTHONPATH", "")])}
    starts = [subprocess.Popen([sys.executable, "-c", code], env=environment) for _ in range(3)]
    assert [start.wait() for start in starts] == [0, 0, 0]
    assert any(key.split("\n")[1] == "one" for key in index_of(tmp_path)["records"])


def test_threads_at_once_do_too(site, tmp_path):
    site.install("one", DATASET)
    site.plugins()
    kept = Index()
    kept._changed = True
    threads = [threading.Thread(target=Index.write, args=(kept,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "one" in site.plugins().datasets and index_of(tmp_path)["records"]


def test_the_slow_one_is_named_with_its_time_though_it_was_not_imported(site, harness_here, capsys):
    wait = "import time\nuntil = time.perf_counter() + 0.31\nwhile time.perf_counter() < until:\n    pass\n"
    site.install("slow", wait + DATASET)
    site.plugins()
    assert site.plugins().loaded["slow"].import_s >= 0.31 and site.imported() == set()
