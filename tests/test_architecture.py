"""docs/architecture.md is followed as it stands: its files and functions are there, and are passed in its order."""

from __future__ import annotations

import ast
import asyncio
import json
import re
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.nouns import Example
from harness.testing import FakeEndpoint, plugins

ROOT = Path(__file__).resolve().parents[1]
LONGEST = 20  # no section has so many lines
ROOMS = ("read", "convert", "prepare", "template", "encode", "cache")


class Stop(NamedTuple):
    """A file that a section names, and one of the functions to open there; None where it names the file alone."""

    file: str
    function: str | None


def sections() -> dict[str, str]:
    """The text of each section of the page, by its heading."""
    parts = re.split(r"^## (.+)\n", (ROOT / "docs" / "architecture.md").read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


SECTIONS = sections()
ROW, CLICK, PLUGIN = SECTIONS


def stops(section: str) -> Iterator[Stop]:
    """Every file and function of a section, in order; a file is in the folder of its step unless it says another."""
    for step in re.split(r"^\d+\. ", SECTIONS[section], flags=re.MULTILINE)[1:]:
        text = " ".join(step.split())
        folder = re.match(r"\*\*[^*]+\*\*(?:, `([\w/]+/)`)?:", text)
        assert folder, text
        named = r"`([\w./]+\.(?:py|js))`(?: \(((?:`[\w.]+`(?:, )?)+)\))?"
        for file, functions in re.findall(named, text):
            path = file if (ROOT / file).exists() else f"{folder[1] or ''}{file}"
            yield from (Stop(path, function) for function in re.findall(r"`([\w.]+)`", functions) or [None])


def functions_in(path: Path) -> set[str]:
    """The functions of a file: methods as `Class.method`, those inside another function by their own name."""
    tree = ast.parse(path.read_text())
    methods = {
        id(item): owner.name for owner in ast.walk(tree) if isinstance(owner, ast.ClassDef) for item in owner.body
    }
    return {
        f"{methods[id(node)]}.{node.name}" if id(node) in methods else node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("section", SECTIONS)
def test_section_is_short(section):
    assert sum(bool(line.strip()) for line in SECTIONS[section].splitlines()) < LONGEST


@pytest.mark.parametrize("stop", sorted({stop for section in SECTIONS for stop in stops(section)}, key=str), ids=str)
def test_file_and_function_exist(stop):
    assert (ROOT / stop.file).is_file()
    assert stop.function is None or stop.function in functions_in(ROOT / stop.file)


class Passed(NamedTuple):
    """One call or return of a function of ours; `caller` is the file that it was called from or returned to."""

    event: str
    stop: Stop
    caller: str
    value: Any


@contextmanager
def followed() -> Iterator[list[Passed]]:
    """Note every call and return in our own code, in all threads that begin here."""
    passed: list[Passed] = []

    def name(frame: Any) -> str:
        return frame.f_code.co_filename.removeprefix(f"{ROOT}/") if frame else ""

    def note(frame: Any, event: str, value: Any) -> None:
        if event in ("call", "return") and frame.f_code.co_filename.startswith(str(ROOT)):
            function = frame.f_code.co_qualname.rpartition("<locals>.")[2]
            passed.append(Passed(event, Stop(name(frame), function), name(frame.f_back), value))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        yield passed
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def assert_in_order(section: str, passed: list[Passed], event: str, *, but: set[str] = frozenset()) -> None:
    """Each function of the section was passed, and first in the order in which the section names them."""
    first: dict[Stop, int] = {}
    for number, one in enumerate(passed):
        if one.event == event:
            first.setdefault(one.stop, number)
    wanted = [stop for stop in stops(section) if stop.function and stop.function not in but]
    assert [stop for stop in wanted if stop not in first] == []
    by_order = sorted(wanted, key=first.__getitem__)
    assert [str(stop) for stop in by_order] == [str(stop) for stop in wanted]


def write(path: Path, *rows: object) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tuned_on_rows(tmp_path: Path, tiny_model: Path) -> Callable[..., list[Passed]]:
    """Follow `rows` questions and answers from the file to the gradient, with the keys of `data` in the recipe."""
    pytest.importorskip("torch")

    def follow(rows: int, **data: object) -> list[Passed]:
        import torch
        from harness_tuning.learner import Learner
        from harness_tuning.optimizer import MasterAdamW
        from harness_tuning.sources import Epochs
        from harness_tuning.world import World

        from harness.data.cache.store import cached_data
        from harness.model.load import load_model
        from harness.model.policy import ModelPolicy
        from harness.model.templates import bind_template
        from harness.recipe import load_recipe

        source = write(
            tmp_path / "rows.jsonl",
            *({"messages": [{"role": "user", "content": f"Who keeps <|im_end|> {n}?"},
                            {"role": "assistant", "content": f"The heron keeps {n}."}]} for n in range(rows)),
        )  # fmt: skip
        recipe = {
            "model": {"path": str(tiny_model), "dtype": "float32"},
            "template": "chatml",
            "data": {"train": [{"dataset": "messages", "path": str(source)}], **data},
            "tune": {},
            "evaluate": [{"evaluation": "val_loss"}],
        }
        (tmp_path / "followed.yaml").write_text(json.dumps(recipe))
        loaded = plugins(first_party=True)
        resolved = load_recipe(tmp_path / "followed.yaml", loaded)
        template = bind_template(resolved.template, resolved.model, loaded)
        objective, method = loaded.objectives[resolved.tune.objective.name], loaded.methods[resolved.tune.method.name]
        model = method.apply(load_model(resolved.model, for_tuning=True), resolved.tune.method)
        learner = Learner(
            ModelPolicy(model), objective, resolved.tune.objective, MasterAdamW(model, resolved.tune),
            torch.device("cpu"), World(), is_adapter=True,
        )  # fmt: skip
        with followed() as passed:
            train, _ = cached_data(resolved.data, loaded, template, [("1", "an item of another kind entirely")])
            source = Epochs(train.items, template.pad_id, "cpu", step_tokens=2048, epochs=1)
            learner.backward(source.step(1))
        return passed

    return follow


def test_a_row_passes_the_functions_of_its_section_in_order(tuned_on_rows):
    """What is held out is not compared with evaluations: without `validation_share` every row goes the whole way."""
    passed = tuned_on_rows(20, clean=[{"filter": "length", "max_characters": 1000}], decontaminate={})
    assert_in_order(ROW, passed, "return", but={"is_held_out"})


def room_of(file: str) -> str | None:
    """The room that a file belongs to: a folder of harness/data, or the template."""
    room = re.match(r"harness/(?:data/(\w+)/|(template)/)", file)
    return room and (room[1] or room[2])


def one_of(value: Any) -> Any:
    """The first of a list, and the first example of an item's."""
    first = value[0] if isinstance(value, list) else value
    return first[0] if isinstance(first, tuple) and isinstance(first[0], Example) else first


def test_a_row_enters_each_room_once_or_twice_and_has_six_forms(tuned_on_rows):
    """A room is entered where another one calls it; what is handed from one to the next is a form of the row."""
    passed = tuned_on_rows(1)
    functions = [one.stop.function for one in passed]
    begin, end = functions.index("read_bytes"), functions.index("ItemWriter.add")
    borders = [one for one in passed[begin:end] if {room_of(one.stop.file), room_of(one.caller)} <= set(ROOMS)]
    borders = [one for one in borders if room_of(one.stop.file) != room_of(one.caller)]
    doors = {room: {one.stop.function for one in borders if room_of(one.stop.file) == room} for room in ROOMS}
    assert doors == {
        "read": {"read_rows"},
        "convert": {"load_rows", "check_learnable"},
        "prepare": {"prepare_items"},
        "template": {"BoundTemplate.rendered", "BoundTemplate.examples"},
        "encode": set(),  # is what asks for the row; the cache asks it
        "cache": set(),
    }
    handed = [one.value for one in borders if one.event == "return" and one.value is not None]
    batches = [one.value for one in passed if one.event == "return" and one.stop.function == "padded"]
    forms = dict.fromkeys(type(one_of(value)).__name__ for value in handed + batches)
    # Bytes come first. The tuple is a row's number and the row; a Prepared holds the Conversation of the ConvertedRow.
    assert list(forms) == ["tuple", "ConvertedRow", "Prepared", "Rendered", "Example", "Batch"]


def test_a_click_passes_the_functions_of_its_section_in_order(tmp_path):
    """The page itself and its guards need a browser; everything behind them is followed here."""
    pytest.importorskip("sqlalchemy")
    pytest.importorskip("gradio")
    from harness_serve.answering import Sampling, Shared
    from harness_serve.session import Session

    from harness.client.asking import Client
    from harness.data import load_source
    from harness.nouns import Verdict
    from harness.recipe import source_model
    from harness.votes.store import Ballots

    async def compare(url: str, ballots: Ballots) -> None:
        async with Client(url) as client:
            shared, session = Shared(client, ballots), Session()
            session.begin_anew(["one", "other"], seed=1)
            async for _ in session.ask(shared, "Who keeps the key?", "", Sampling()):
                pass
            async for _ in session.judge(shared, Verdict("best", 0)):
                pass
            await session.close(shared, "")

    loaded = plugins(first_party=True)
    dataset = loaded.datasets["votes"]
    with FakeEndpoint(lambda request: f"The heron, says {request.body['model']}.") as endpoint:
        ballots = Ballots(str(tmp_path / "votes.db"))
        with followed() as passed:
            asyncio.run(compare(endpoint.url, ballots))
            source = source_model(dataset)(dataset="votes", path=str(tmp_path / "votes.db"))
            (preference,) = load_source(source, loaded.datasets)
    assert preference.chosen != preference.rejected
    behind_a_browser = {"Handlers.begin_anew", "Handlers.judge", "PageGuard.admit"}
    once_opened = {"_make_durable", "bring_up_to_date"}
    in_a_thread_that_may_be_there = {"Client.stream"}
    assert_in_order(CLICK, passed, "call", but=behind_a_browser | once_opened | in_a_thread_that_may_be_there)


def test_a_plugin_passes_the_functions_of_its_section_in_order(tmp_path, write_rows):
    from harness.data import load_source
    from harness.recipe import load_recipe
    from harness.recipe.load import qualified

    (tmp_path / "riddles.py").write_text((ROOT / "examples/harness-riddles/harness_riddles/__init__.py").read_text())
    write_rows({"riddle": "I have hands and no fingers.", "answer": "A clock."}, name="riddles.jsonl")
    (tmp_path / "followed.yaml").write_text(
        "model: {path: owner/name}\ndata: {train: [{dataset: riddles}]}\ntune: {method: lora}\n"
    )
    with followed() as passed:
        loaded = plugins(tmp_path / "riddles.py", first_party=True)
        recipe = load_recipe(tmp_path / "followed.yaml", loaded)
        assert qualified(recipe, loaded).data.train[0].dataset == "riddles:riddles"
        (conversation,) = load_source(recipe.data.train[0], loaded.datasets)
    assert conversation.messages[0].content.endswith("What am I?")
    for_each_section, for_mistakes = (
        {"Plugins._attempt", "Registry.entry", "combined", "reading"},
        {"Plugins._fail", "explain"},
    )
    assert_in_order(PLUGIN, passed, "call", but=for_each_section | for_mistakes)
