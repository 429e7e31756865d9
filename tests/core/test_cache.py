"""Prepared data are kept, found again, and made anew when anything that they were made from is different."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from harness import Conversation, DataError
from harness.contract import EvaluationContext
from harness.data.cache.entries import Entry, entries, lock_of, remove
from harness.data.cache.store import cached_data, kept_validation
from harness.data.encode.encoder import encode_data, encode_held_out
from harness.model.tokenizer import load_tokenizer
from harness.plugins import Plugins
from harness.recipe import CleanStep, DataSource, DataSpec, DecontaminateSpec
from harness.template import BoundTemplate, bind

pytest.importorskip("pyarrow")
pytest.importorskip("transformers")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def plugins():
    return Plugins()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def template(tiny_model, plugins):
    return bind(plugins.templates["chatml"], load_tokenizer(str(tiny_model)))


@pytest.fixture
def spec(write_rows):
    first = write_rows(*map(row, range(60)), name="first.jsonl")
    second = write_rows(*map(row, range(60, 90)), name="second.jsonl")
    sources = (
        DataSource(dataset="alpaca", path=str(first), weight=2, epochs=2),
        DataSource(dataset="alpaca", path=str(second), weight=1, epochs=2),
    )
    return DataSpec(train=sources, validation_share=0.2, max_tokens=200, on_overlong="drop")


def row(number):
    words = "the heron keeps a silver key under the willow " * (30 if number % 20 == 7 else 1 + number % 4)
    return {"instruction": f"Question {number}", "output": f"{words}{number}"}


def shown(data):
    """All that a person or a run sees of encoded data."""
    return dataclasses.replace(data, items=list(data.items), from_cache=False)


def folders(cache):
    return sorted(path for path in (cache / "encoded").iterdir() if path.is_dir())


def test_from_the_cache_come_the_same_examples_and_the_same_account(cache, spec, plugins, template):
    plain = encode_data(spec, plugins, template)
    made = cached_data(spec, plugins, template)
    found = cached_data(spec, plugins, template)
    assert not any(data.from_cache for data in made) and all(data.from_cache for data in found)
    assert len(folders(cache)) == 1
    for one, other, third in zip(plain, made, found, strict=True):
        assert shown(one) == shown(other) == shown(third)
        assert list(one.examples.lengths()) == list(third.examples.lengths()) == [len(e) for e in third.examples]
        assert third.tokens == sum(map(len, third.examples))
        assert third.supervised == sum(example.supervised for example in third.examples)
    train, validation = found
    assert train.overlong and train.report.lines() == plain[0].report.lines()
    assert validation.reports == train.report.held_out
    assert train.examples[-1] == list(train.examples)[-1] and train.examples[2:4] == list(train.examples)[2:4]
    with pytest.raises(IndexError):
        train.examples[len(train.examples)]


def test_validation_sources_and_overlaps_are_kept_too(cache, write_rows, plugins, template):
    train, other = write_rows(*map(row, range(20))), write_rows(*map(row, range(5)), name="other.jsonl")
    spec = DataSpec(
        train=(DataSource(dataset="alpaca", path=str(train)),),
        validation=(DataSource(dataset="alpaca", path=str(other)),),
        decontaminate=DecontaminateSpec(ngram=5),
    )
    items = [("item 1", "Who knows? the heron keeps a silver key")]
    made, found = (cached_data(spec, plugins, template, items) for _ in range(2))
    assert made[0].report.overlapping == 20 and found[0].from_cache
    assert [shown(data) for data in made] == [shown(data) for data in found]
    assert not cached_data(spec, plugins, template, [("item 1", "something else of quite other words")])[0].from_cache


def test_what_is_held_out_is_found_again_alone_whatever_was_decontaminated(cache, spec, plugins, template, tmp_path):
    plain = encode_held_out(spec, plugins, template)
    assert kept_validation(spec, plugins, template) is None and not cache.exists()
    compared = spec.model_copy(update={"decontaminate": DecontaminateSpec(ngram=5)})
    cached_data(compared, plugins, template, [("item 1", "the heron keeps a silver key")])
    for asked in (compared, spec):
        found = kept_validation(asked, plugins, template)
        assert found.from_cache and shown(found) == shown(plain)
    assert kept_validation(spec.model_copy(update={"max_tokens": 100}), plugins, template) is None
    file = folders(cache)[0] / "validation.arrow"
    file.write_bytes(file.read_bytes()[:-1])
    assert kept_validation(spec, plugins, template) is None
    (tmp_path / "first.jsonl").unlink()
    assert kept_validation(spec, plugins, template) is None


def test_val_loss_of_a_run_measures_on_what_tuning_has_kept(cache, spec, plugins, template, tmp_path):
    from harness_evaluation.val_loss import ValLossOptions, _encoded

    template.save(tmp_path / "chat")  # as a run keeps it
    tune = SimpleNamespace(objective=SimpleNamespace(name="sft"))
    context = EvaluationContext(SimpleNamespace(data=spec, tune=tune), plugins)
    backend = SimpleNamespace(template=BoundTemplate.load(tmp_path / "chat"), longest=None)
    asked = ValLossOptions(), context, backend
    _, before = _encoded(*asked)
    cached_data(spec, plugins, template)
    sources, after = _encoded(*asked)
    assert not before.from_cache and after.from_cache and shown(after) == shown(before) and sources == spec.train
    other = ValLossOptions(max_tokens=100)
    assert not _encoded(other, *asked[1:])[1].from_cache


def test_without_a_held_out_share_there_is_none_to_find(cache, spec, plugins, template):
    spec = spec.model_copy(update={"validation_share": None})
    cached_data(spec, plugins, template)
    assert kept_validation(spec, plugins, template) is None


# What is removed

DAY_S = 86400


@pytest.fixture
def kept(cache):
    """Makes an entry of so many bytes that was used so many days ago."""

    def make(key, size_bytes, days):
        folder = cache / "encoded" / key
        folder.mkdir(parents=True)
        account = {"train": {"reports": [{"source": "alpaca", "path": f"{key}.jsonl"}]}}
        (folder / "account.json").write_text(json.dumps(account))
        (folder / "train.arrow").write_bytes(b"x" * (size_bytes - (folder / "account.json").stat().st_size))
        used = time.time() - days * DAY_S
        os.utime(folder / "account.json", (used, used))
        (cache / "locks").mkdir(exist_ok=True)
        return folder

    return make


def test_an_entry_that_was_not_used_for_long_goes_when_one_is_made_and_that_is_told(
    cache, spec, plugins, template, kept
):
    kept("aaa1", 2048, days=31), kept("bbb1", 1024, days=29)
    memo = cache / "files" / "old.json"
    memo.parent.mkdir()
    memo.write_text("{}")
    os.utime(memo, (0, 0))
    told = []
    cached_data(spec, plugins, template, (), told.append)
    assert told == [f"{cache}: removed 1 entry, 2 KiB of prepared data that were not used for 30 days"]
    assert [folder.name for folder in folders(cache) if folder.name in ("aaa1", "bbb1")] == ["bbb1"]
    assert not memo.exists()


def test_reading_an_entry_is_using_it(cache, spec, plugins, template):
    cached_data(spec, plugins, template)
    (folder,) = folders(cache)
    for use in (cached_data, kept_validation):
        os.utime(folder / "account.json", (0, 0))
        use(spec, plugins, template)
        assert remove(cache, unused_days=1) == [] and Entry.of(folder).used > DAY_S


def test_above_a_size_what_was_used_longest_ago_goes_first(cache, kept):
    for key, days in (("ccc", 3), ("aaa", 1), ("bbb", 2)):
        kept(key, 1000, days)
    assert [entry.key for entry in entries(cache)] == ["aaa", "bbb", "ccc"]
    assert [entry.key for entry in remove(cache, above_bytes=2999)] == ["ccc"]
    assert remove(cache, above_bytes=2000) == []
    assert [entry.key for entry in remove(cache, unused_days=1.5)] == ["bbb"]
    assert [entry.key for entry in remove(cache, above_bytes=0)] == ["aaa"] and entries(cache) == []


def test_what_another_process_makes_or_opens_now_is_not_removed(cache, kept):
    kept("aaa", 1000, 90)
    half = cache / "encoded" / ".bbb-1.x_y1" / "bbb-1"  # as a process that was killed leaves it
    half.mkdir(parents=True)
    os.utime(half.parent, (0, 0))
    hold = (
        "from harness.data.cache.entries import lock_of; from pathlib import Path; import sys; "
        "lock = lock_of(Path(sys.argv[1]), 'aaa'); lock.acquire(); print('held', flush=True); input()"
    )
    holding = subprocess.Popen(
        [sys.executable, "-c", hold, str(cache)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert holding.stdout.readline() == "held\n"
    with lock_of(cache, "bbb-1"):
        assert remove(cache, unused_days=30) == []
    assert [entry.key for entry in remove(cache, unused_days=30)] == ["bbb-1"] and not half.exists()
    holding.communicate("\n")
    assert [entry.key for entry in remove(cache, unused_days=30)] == ["aaa"]


def test_data_that_were_opened_outlive_their_entry(cache, spec, plugins, template):
    cached_data(spec, plugins, template)
    data, _ = cached_data(spec, plugins, template)
    before = data.examples.lengths()
    assert len(remove(cache, above_bytes=0)) == 1
    assert list(map(len, data.examples)) == list(before)


def test_the_command_lists_and_removes(cache, kept, harness):
    kept("aaa", 3 << 20, days=1), kept("bbb", 2048, days=9)
    env = {"HARNESS_CACHE": str(cache)}
    shown = harness("data", "cache", env=env).out
    assert re.search(r"3 MiB +alpaca aaa\.jsonl\n.* 2 KiB +alpaca bbb\.jsonl", shown), shown
    assert f"{cache}: 2 entries, 3 MiB" in shown
    found = json.loads(harness("data", "cache", "--unused", 7, "--json", env=env).out)
    assert found["removed"] == ["bbb"] and [entry["key"] for entry in found["entries"]] == ["aaa"]
    assert "removed: 1 entry, 3 MiB" in harness("data", "cache", "--above", 0.001, env=env).out
    empty = harness("data", "cache", env={"HARNESS_CACHE": str(cache / "none")})
    assert empty.code == 0 and "0 entries, 0 bytes" in empty.out and not (cache / "none" / "encoded").exists()


CHANGES = {
    "a limit": lambda spec: {"train": (spec.train[0].model_copy(update={"limit": 50}), spec.train[1])},
    "a weight": lambda spec: {"train": (spec.train[0].model_copy(update={"weight": 3}), spec.train[1])},
    "the share held out": lambda spec: {"validation_share": 0.3},
    "the seed": lambda spec: {"seed": 1},
    "the longest length": lambda spec: {"max_tokens": 100},
    "what is done about it": lambda spec: {"on_overlong": "truncate"},
    "a filter": lambda spec: {"clean": (CleanStep(filter="exact_duplicates"),)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_option_is_another_entry(change, cache, spec, plugins, template):
    cached_data(spec, plugins, template)
    if change == "a filter":
        name = next(iter(plugins.filters))
        step = type("Step", (plugins.filters[name].options, CleanStep), {})(filter=name)
        changed = spec.model_copy(update={"clean": (step,)})
    else:
        changed = spec.model_copy(update=CHANGES[change](spec))
    assert not cached_data(changed, plugins, template)[0].from_cache
    assert cached_data(changed, plugins, template)[0].from_cache
    assert len(folders(cache)) == 2


def test_another_row_template_or_tokenizer_is_another_entry(cache, spec, plugins, template, tiny_model, tmp_path):
    first = cached_data(spec, plugins, template)[0]
    path = tmp_path / "first.jsonl"
    before = path.stat()
    text = path.read_text()
    path.write_text(text.replace("Question 3", "Question 4", 1))  # as many bytes
    changed = cached_data(spec, plugins, template)[0]
    assert not changed.from_cache and changed.sha256 != first.sha256
    path.write_text(text)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert cached_data(spec, plugins, template)[0].from_cache

    plain = bind(plugins.templates["plain"], load_tokenizer(str(tiny_model)))
    assert not cached_data(spec, plugins, plain)[0].from_cache
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.add_tokens(["heron"])
    larger = bind(plugins.templates["chatml"], tokenizer)
    assert not cached_data(spec, plugins, larger)[0].from_cache


def test_the_code_of_the_plugin_counts(cache, write_rows, template, tmp_path):
    source = (
        "import harness\n"
        "@harness.hookimpl\n"
        "def register_datasets(register):\n"
        "    register(harness.Dataset('mine', 'd', convert))\n"
        "def convert(row, options):\n"
        "    return harness.Conversation.of(('user', row['q']), ('assistant', row['a']))\n"
    )
    spec = DataSpec(train=(DataSource(dataset="mine", path=str(write_rows({"q": "Who?", "a": "The heron."}))),))
    file = tmp_path / "mine.py"
    seen = []
    for text in (source, source, source.replace("row['a'])", "row['a'] + '!')")):
        file.write_text(text)
        shutil.rmtree(tmp_path / "__pycache__", ignore_errors=True)
        seen.append(cached_data(spec, Plugins([file]), template)[0])
    assert [data.from_cache for data in seen] == [False, True, False]
    assert seen[2].sample[0] == dataclasses.replace(
        Conversation.of(("user", "Who?"), ("assistant", "The heron.!")), id="rows.jsonl:1", source="mine"
    )


@pytest.mark.skipif(not os.path.exists("/dev/zero"), reason="no /dev/zero here")  # noqa: PTH110
def test_what_has_no_end_is_refused_and_not_hashed(cache, plugins, template):
    with pytest.raises(DataError, match="a pipe or device"):
        cached_data(DataSpec(train=(DataSource(dataset="alpaca", path="/dev/zero"),)), plugins, template)


def test_a_damaged_entry_is_said_and_made_again(cache, spec, plugins, template):
    plain = shown(cached_data(spec, plugins, template)[0])
    (entry,) = folders(cache)
    told = []
    for damage in ("flip", "cut", "account", "missing"):
        file = entry / ("account.json" if damage == "account" else "train.arrow")
        content = bytearray(file.read_bytes())
        if damage == "missing":
            file.unlink()
        else:
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content[: len(content) // 2] if damage != "flip" else content)
        again = cached_data(spec, plugins, template, (), told.append)[0]
        assert not again.from_cache and shown(again) == plain
        assert cached_data(spec, plugins, template)[0].from_cache
    assert len(told) == 4 and all("are damaged (" in line and line.endswith("they are made again") for line in told)


def test_a_folder_that_cannot_be_written_costs_the_cache_and_nothing_else(
    spec, plugins, template, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "file" / "cache"))
    told = []
    data = cached_data(spec, plugins, template, (), told.append)[0]
    assert shown(data) == shown(encode_data(spec, plugins, template)[0])
    (line,) = told
    assert line == (
        f"{tmp_path / 'file' / 'cache'}: prepared data are not kept: Not "
        "a directory. HARNESS_CACHE names another folder"
    )


def test_without_pyarrow_there_is_no_cache_and_no_word_about_it(cache, spec, plugins, template, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.ipc", None)
    told = []
    for _ in range(2):
        data = cached_data(spec, plugins, template, (), told.append)[0]
        assert not data.from_cache and len(data.examples)
    assert not told


PREPARE = """
import sys, json
from harness.data import encode_data
from harness.data.cache import store as cache
from harness.model.tokenizer import load_tokenizer
from harness.plugins import Plugins
from harness.recipe import DataSource, DataSpec
from harness.template import BoundTemplate, bind

def slow(*arguments, **named):
    made = encode_data(*arguments, **named)
    print("made", flush=True)
    input()
    return made

cache.encode_data = slow
plugins = Plugins()
template = bind(plugins.templates["chatml"], load_tokenizer(sys.argv[1]))
spec = DataSpec(train=(DataSource(dataset="alpaca", path=sys.argv[2]),))
data, _ = cache.cached_data(spec, plugins, template, (), lambda what: print(what, flush=True))
print(json.dumps([data.sha256, data.from_cache]))
"""


def preparing(tiny_model, path):
    """A process that has made the data when it says `made`, and keeps them once it is given a line."""
    arguments = [sys.executable, "-c", PREPARE, tiny_model, path]
    return subprocess.Popen(list(map(str, arguments)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_prepare_it_once(cache, tiny_model, write_rows):
    path = write_rows(*map(row, range(30)))
    first = preparing(tiny_model, path)
    assert first.stdout.readline() == "made\n"
    second = preparing(tiny_model, path)
    assert second.stdout.readline() == "another process prepares the same data; waiting for it\n"
    told = [process.communicate("\n")[0].splitlines() for process in (first, second)]
    ((one, from_cache),), ((other, found),) = ([json.loads(line) for line in lines] for lines in told)
    assert one == other and not from_cache and found
    assert len(folders(cache)) == 1


def test_killed_while_it_writes_it_leaves_nothing_half(cache, tiny_model, write_rows):
    path = write_rows(*map(row, range(30)))
    killed = preparing(tiny_model, path)
    assert killed.stdout.readline() == "made\n"
    killed.kill()
    killed.communicate()
    assert not [entry for entry in folders(cache) if not entry.name.startswith(".")]
    out = preparing(tiny_model, path).communicate("\n")[0].splitlines()
    assert out[0] == "made" and not json.loads(out[1])[1]


# The code of plugins, each session in a process of its own

SAYING = "    return harness.Conversation.of(('user', row['q']), ('assistant', row['a'] + {what}))\n"
BESIDE = "sys.path.insert(0, __file__.rpartition('/')[0])\n"


def mine(code: str, convert: str = "convert", more: str = "") -> str:
    """Return a plugin of `code` with the dataset `mine`."""
    return (
        f"import harness\n{code}\n\n@harness.hookimpl\ndef register_datasets(register):\n"
        f"    register(harness.Dataset('mine', 'd', {convert}{more}))\n"
    )


SESSIONS = """
import json, os, sys, traceback
from pathlib import Path
from harness.data.cache import store as cache
from harness.model.tokenizer import load_tokenizer
from harness.plugins import Plugins
from harness.recipe import CleanStep, DataSource, DataSpec
from harness.template import bind

model, rows = sys.argv[1:]
template = bind(Plugins().templates["chatml"], load_tokenizer(model))
for line in sys.stdin:
    plugin, os.environ["HARNESS_CACHE"] = json.loads(line)
    if (child := os.fork()):
        os.waitpid(child, 0)
        continue
    try:
        plugins = Plugins([Path(plugin)])
        spec = DataSpec(
            train=(DataSource(dataset="mine", path=rows),),
            clean=tuple(CleanStep(filter=name) for name in plugins.filters if name == "odd"),
        )
        said = []
        data, _ = cache.cached_data(spec, plugins, template, (), said.append)
        print(json.dumps([data.from_cache, data.sample[0].messages[1].content, said]), flush=True)
    except BaseException:
        print(json.dumps(traceback.format_exc()), flush=True)
    os._exit(0)
"""

CHANGED = {
    "behind partial": (
        {
            "helper.py": "WORD = '{word}'\ndef convert(row, options, mark):\n    import harness\n"
            + SAYING.format(what="mark + WORD")
        },
        mine(f"import functools, sys\n{BESIDE}import helper", "functools.partial(helper.convert, mark=' ')"),
    ),
    "a helper that is imported late": (
        {"helper.py": "WORD = ' {word}'\n"},
        mine(
            f"import sys\n{BESIDE}def convert(row, options):\n    import helper\n" + SAYING.format(what="helper.WORD")
        ),
    ),
    "a helper whose folder is named late": (
        {"helper.py": "WORD = ' {word}'\n"},
        mine(
            f"import sys\ndef convert(row, options):\n    {BESIDE}    import helper\n"
            + SAYING.format(what="helper.WORD")
        ),
    ),
    "a package's other module": (
        {
            "plg/__init__.py": "",
            "plg/common.py": "WORD = ' {word}'\n",
            "plg/sets/__init__.py": "",
            "plg/sets/faq.py": "import harness\nfrom plg import common\ndef convert(row, options):\n"
            + SAYING.format(what="common.WORD"),
        },
        mine(f"import sys\n{BESIDE}from plg.sets.faq import convert"),
    ),
    "a text that is read when the plugin is loaded": (
        {"word.txt": " {word}"},
        mine(
            "from pathlib import Path\nWORD = Path(__file__).with_name('word.txt').read_text()\n"
            "def convert(row, options):\n" + SAYING.format(what="WORD")
        ),
    ),
    "a text that is read for each row": (
        {"word.txt": " {word}"},
        mine(
            "from pathlib import Path\ndef convert(row, options):\n"
            "    word = Path(__file__).with_name('word.txt').read_text()\n" + SAYING.format(what="word")
        ),
    ),
    "a file in a folder that is listed": (
        {"words/{word}": ""},
        mine(
            "from pathlib import Path\ndef convert(row, options):\n"
            "    word, = Path(__file__).with_name('words').iterdir()\n" + SAYING.format(what="' ' + word.name")
        ),
    ),
    "a file that another program reads": (
        {"word.txt": " {word}"},
        mine(
            "import subprocess\nfrom pathlib import Path\nWORDS = Path(__file__).with_name('word.txt')\n"
            "def convert(row, options):\n"
            "    word = subprocess.run(['cat', WORDS], capture_output=True, text=True).stdout\n"
            + SAYING.format(what="word"),
            more=", reads=(WORDS,)",
        ),
    ),
    "what a decorator was given": (
        {
            "helper.py": "import functools, harness\ndef saying(word):\n    def decorate(function):\n"
            "        @functools.wraps(function)\n        def convert(row, options):\n"
            "            return function(row, ' {word}')\n        return convert\n    return decorate\n"
        },
        mine(
            f"import sys\n{BESIDE}from helper import saying\n@saying('w')\ndef convert(row, word):\n"
            + SAYING.format(what="word")
        ),
    ),
    "a callable object's class": (
        {
            "helper.py": "import harness\nclass Convert:\n    def __call__(self, row, options):\n    "
            + SAYING.format(what="' {word}'")
        },
        mine(f"import sys\n{BESIDE}import helper", "helper.Convert()"),
    ),
    "a filter's helper": (
        {"helper.py": "WORD = '{word}'\n"},
        mine(
            f"import sys\n{BESIDE}def convert(row, options):\n"
            "    answers = [row['a'] + ' ' + word for word in ('old', 'new')]\n"
            "    return [harness.Conversation.of(('user', row['q']), ('assistant', answer)) for answer in answers]\n"
            "def drops(item):\n    import helper\n"
            "    return None if item.messages[-1].content.endswith(helper.WORD) else 'another'\n"
            "@harness.hookimpl\ndef register_filters(register):\n"
            "    register(harness.Filter('odd', 'd', harness.Options, lambda options: drops))\n"
        ),
    ),
}


@pytest.fixture(scope="module")
def sessions(tiny_model, tmp_path_factory):
    """A process that forks for every session, so that each loads its plugins anew and none has to load transformers."""
    rows = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    rows.write_text('{"q": "Who?", "a": "The heron."}\n{"q": "Why?", "a": "A stork."}\n')
    command = [sys.executable, "-c", SESSIONS, str(tiny_model), str(rows)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def session(sessions, cache):
    """Prepares data by a plugin file in a process of its own: (from the cache, the first answer, what was said)."""

    def run(plugin):
        print(json.dumps([str(plugin), str(cache)]), file=sessions.stdin, flush=True)
        told = json.loads(sessions.stdout.readline())
        assert isinstance(told, list), told
        return tuple(told)

    return run


@pytest.mark.parametrize("what", CHANGED)
def test_what_the_plugin_depends_on_counts(what, session, tmp_path):
    files, text = CHANGED[what]
    plugin = tmp_path / "plugin" / "mine.py"
    seen = []
    for word in ("old", "old", "new"):
        shutil.rmtree(plugin.parent, ignore_errors=True)
        for name, content in {"mine.py": text, **files}.items():
            path = plugin.parent / name.replace("{word}", word)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content.replace("{word}", word))
        seen.append(session(plugin))
    assert seen == [(False, "The heron. old", []), (True, "The heron. old", []), (False, "The heron. new", [])]


UNKNOWN = {
    "code that is in no file": (
        mine("exec(" + repr("def convert(row, options):\n" + SAYING.format(what="'!'")) + ")"),
        "the dataset 'mine': the code of 'convert' is in no file (<string>)",
    ),
    "a helper that changes meanwhile": (
        mine(
            f"import sys\nfrom pathlib import Path\n{BESIDE}def convert(row, options):\n    import helper\n"
            "    Path(helper.__file__).write_text('WORD = 1')\n" + SAYING.format(what="'!'")
        ),
        "{folder}/helper.py changed after the plugins were loaded",
    ),
    "an answer from the network": (
        mine(
            "import socket\ndef convert(row, options):\n"
            "    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))\n"
            + SAYING.format(what="'!'")
        ),
        "a plugin asks 127.0.0.1 for its data",
    ),
}


@pytest.mark.parametrize("what", UNKNOWN)
def test_what_cannot_be_known_is_not_kept_and_that_is_said_once(what, session, tmp_path):
    text, told = UNKNOWN[what]
    (tmp_path / "helper.py").write_text("WORD = '!'\n")
    (tmp_path / "mine.py").write_text(text)
    told = f"prepared data are not kept: {told.format(folder=tmp_path)}"
    assert [session(tmp_path / "mine.py") for _ in range(2)] == [(False, "The heron.!", [told])] * 2


def test_another_file_of_the_same_module_is_seen(session, tmp_path):
    """The helper is not changed, but one that is found before it is added."""
    (tmp_path / "plugin").mkdir()
    (tmp_path / "first").mkdir()
    text = "import sys\nsys.path[:0] = [__file__.rpartition('/')[0] + '/../first', __file__.rpartition('/')[0]]\n"
    text += "def convert(row, options):\n    import helper\n" + SAYING.format(what="helper.WORD")
    plugin = tmp_path / "plugin" / "mine.py"
    plugin.write_text(mine(text))
    (tmp_path / "plugin" / "helper.py").write_text("WORD = ' old'\n")
    assert [session(plugin)[:2] for _ in range(2)] == [(False, "The heron. old"), (True, "The heron. old")]
    (tmp_path / "first" / "helper.py").write_text("WORD = ' new'\n")
    assert session(plugin)[:2] == (False, "The heron. new")
