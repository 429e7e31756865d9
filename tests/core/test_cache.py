"""Prepared data are kept, found again, and made anew when anything that they were made from is different."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
import sys

import pytest

from harness import Conversation
from harness.data.cache import cached_data
from harness.data.encoded import encode_data
from harness.models import load_tokenizer
from harness.plugins import Plugins
from harness.recipe import CleanStep, DataSource, DataSpec, DecontaminateSpec
from harness.template import BoundTemplate

pytest.importorskip("pyarrow")
pytest.importorskip("transformers")


@pytest.fixture(scope="module")
def plugins():
    return Plugins()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def template(tiny_model, plugins):
    return BoundTemplate.bind(plugins.templates["chatml"], load_tokenizer(str(tiny_model)))


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
    return dataclasses.replace(data, examples=list(data.examples), from_cache=False)


def entries(cache):
    return sorted(path for path in (cache / "encoded").iterdir() if path.is_dir())


def test_from_the_cache_come_the_same_examples_and_the_same_account(cache, spec, plugins, template):
    plain = encode_data(spec, plugins, template)
    made = cached_data(spec, plugins, template)
    found = cached_data(spec, plugins, template)
    assert not any(data.from_cache for data in made) and all(data.from_cache for data in found)
    assert len(entries(cache)) == 1
    for one, other, third in zip(plain, made, found, strict=True):
        assert shown(one) == shown(other) == shown(third)
        assert list(one.examples.lengths()) == list(third.examples.lengths()) == [len(e) for e in third.examples]
        assert third.tokens == sum(map(len, third.examples))
        assert third.supervised == sum(example.supervised for example in third.examples)
    train, validation = found
    assert train.overlong and train.account.lines() == plain[0].account.lines()
    assert validation.reports == train.account.held_out
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
    assert made[0].account.overlapping == 20 and found[0].from_cache
    assert [shown(data) for data in made] == [shown(data) for data in found]
    assert not cached_data(spec, plugins, template, [("item 1", "something else of quite other words")])[0].from_cache


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
    assert len(entries(cache)) == 2


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

    plain = BoundTemplate.bind(plugins.templates["plain"], load_tokenizer(str(tiny_model)))
    assert not cached_data(spec, plugins, plain)[0].from_cache
    tokenizer = load_tokenizer(str(tiny_model))
    tokenizer.add_tokens(["heron"])
    larger = BoundTemplate.bind(plugins.templates["chatml"], tokenizer)
    assert not cached_data(spec, plugins, larger)[0].from_cache


def test_the_code_of_the_plugin_counts(cache, write_rows, template, tmp_path):
    source = (
        "import harness\n"
        "@harness.hookimpl\n"
        "def register_datasets(register):\n"
        "    register(harness.Dataset('mine', 'd', convert))\n"
        "def convert(row):\n"
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


def test_a_damaged_entry_is_said_and_made_again(cache, spec, plugins, template):
    plain = shown(cached_data(spec, plugins, template)[0])
    (entry,) = entries(cache)
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
        f"{tmp_path / 'file' / 'cache'}: prepared data are not kept: Not a directory. HARNESS_CACHE names another folder"
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
import sys, json, time
from pathlib import Path
from harness.data import encode_data
from harness.data import cache
from harness.models import load_tokenizer
from harness.plugins import Plugins
from harness.recipe import DataSource, DataSpec
from harness.template import BoundTemplate

def slow(*arguments):
    made = encode_data(*arguments)
    print("made", flush=True)
    while not Path(sys.argv[3]).exists():
        time.sleep(0.05)
    return made

cache.encode_data = slow
plugins = Plugins()
template = BoundTemplate.bind(plugins.templates["chatml"], load_tokenizer(sys.argv[1]))
spec = DataSpec(train=(DataSource(dataset="alpaca", path=sys.argv[2]),))
data, _ = cache.cached_data(spec, plugins, template, (), lambda what: print(what, flush=True))
print(json.dumps([data.sha256, data.from_cache]))
"""


def preparing(tiny_model, path, go):
    """A process that has made the data when it says `made`, and keeps them once the file `go` is there."""
    arguments = [sys.executable, "-c", PREPARE, tiny_model, path, go]
    return subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, text=True)


def test_two_processes_at_once_prepare_it_once(cache, tiny_model, write_rows, tmp_path):
    path, go = write_rows(*map(row, range(30))), tmp_path / "go"
    first = preparing(tiny_model, path, go)
    assert first.stdout.readline() == "made\n"
    second = preparing(tiny_model, path, go)
    assert second.stdout.readline() == "another process prepares the same data; waiting for it\n"
    go.touch()
    told = [process.communicate(timeout=120)[0].splitlines() for process in (first, second)]
    ((one, from_cache),), ((other, found),) = ([json.loads(line) for line in lines] for lines in told)
    assert one == other and not from_cache and found
    assert len(entries(cache)) == 1


def test_killed_while_it_writes_it_leaves_nothing_half(cache, tiny_model, write_rows, tmp_path):
    path, go = write_rows(*map(row, range(30))), tmp_path / "go"
    killed = preparing(tiny_model, path, go)
    assert killed.stdout.readline() == "made\n"
    killed.kill()
    killed.communicate()
    assert not [entry for entry in entries(cache) if not entry.name.startswith(".")]
    go.touch()
    out = preparing(tiny_model, path, go).communicate(timeout=120)[0].splitlines()
    assert out[0] == "made" and not json.loads(out[1])[1]
