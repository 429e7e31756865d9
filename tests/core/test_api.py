"""The plugin API: its names and arguments only grow, and a plugin says which version of it it needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import harness
import harness.testing
from harness.contract.hooks import HOOKS, Hooks
from harness.errors import PluginError
from harness.plugins.api import require_api

PINNED = Path(__file__).parents[1] / "data" / "api.txt"


def arguments(item: Any) -> str:
    """The arguments of something called: `(name, source=...)`."""
    if not callable(item) or not (inspect.isclass(item) or inspect.isfunction(item)) or issubclass_of_errors(item):
        return ""
    try:
        parameters = inspect.signature(item).parameters.values()
    except ValueError:
        return ""
    return f"({', '.join(map(written, parameters))})"


def written(one: inspect.Parameter) -> str:
    star = {one.VAR_POSITIONAL: "*", one.VAR_KEYWORD: "**"}.get(one.kind, "")
    keyword = "kw:" if one.kind is one.KEYWORD_ONLY else ""
    return f"{keyword}{star}{one.name}" + ("" if one.default is one.empty else "=...")


def issubclass_of_errors(item: Any) -> bool:
    return inspect.isclass(item) and issubclass(item, BaseException)


def api() -> Iterator[str]:
    """A line for each public name and hook."""
    for module in (harness, harness.testing):
        for name in module.__all__:
            yield f"{module.__name__}.{name}{arguments(getattr(module, name))}"
    for hook in HOOKS:
        yield f"{hook}{arguments(getattr(Hooks, hook))}"


def test_the_public_names_and_their_arguments_are_those_that_are_pinned():
    """Where this fails, plugins may: add only, raise harness.API_VERSION, and write tests/data/api.txt anew."""
    pytest.importorskip("torch")
    assert list(api()) == PINNED.read_text().splitlines()[1:]
    assert PINNED.read_text().splitlines()[0] == f"plugin API {harness.API_VERSION}"


def test_a_plugin_needs_an_api_that_is_there():
    for fits in (None, "1.0"):
        require_api(fits)


@pytest.mark.parametrize(
    ("wanted", "reason"),
    [
        ("1.9", "needs the plugin API 1.9, and this harness has 1.0: `pip install -U instruct-harness`"),
        ("2.0", "written for the plugin API 2.0, and this harness has 1.0: install a newer harness"),
        ("0.3", "install a newer version of the plugin"),
        ("one", "its harness_api is 'one', expected a text of two numbers"),
        (1.0, "its harness_api is 1.0, expected a text of two numbers"),
    ],
)
def test_a_plugin_that_needs_another_api_is_left_out_with_what_to_install(wanted, reason):
    with pytest.raises(PluginError) as refused:
        require_api(wanted)
    assert reason in str(refused.value)


OLD = Path(__file__).parents[1] / "data" / "plugin_1_0.py"
OLD_THINGS = {
    "datasets": ["old_rows", "old_shape"],
    "shapes": ["old_shape"],
    "filters": ["old_filter"],
    "templates": ["old_template"],
    "objectives": ["old_loss"],
    "methods": ["old_method"],
    "evaluations": ["old_sums"],
    "engines": ["old_engine"],
    "trackers": ["old_diary"],
    "commands": ["old_hello"],
}


def test_a_plugin_that_was_written_for_1_0_still_loads(capsys):
    kit = harness.testing.plugins(OLD, first_party=True)
    assert kit.registered_by(OLD.stem) == OLD_THINGS
    assert harness.Diagnosis(problems=("nothing is wrong",)) in kit.diagnoses()
    told = capsys.readouterr().err
    assert told == (
        f"warning: plugin plugin_1_0 ({OLD}): 'old_template': tool_parser(source) is deprecated since plugin API 1.0 "
        "and goes away with 2.0: write `tool_parser(call)`, which gets a call as the template writes it\n"
    )


def test_and_keeps_its_laws(tmp_path):
    pytest.importorskip("torch")
    report = harness.testing.check(OLD, options={"old_diary.file": tmp_path / "diary"})
    kept = {finding.kind for finding in report.findings if finding.outcome == "kept"}
    assert kept >= {"dataset", "filter", "template", "objective", "method", "evaluation", "tracker", "command"}


def test_a_parser_as_it_was_gets_what_it_got():
    pytest.importorskip("torch")
    from harness.template.binding import bind

    given = []

    def by_source(source):
        given.append(source)
        return "hermes"

    (template,) = (one for name, one in harness.testing.plugins(first_party=True).templates.items() if name == "chatml")
    with pytest.warns(FutureWarning, match="tool_parser\\(source\\) is deprecated since plugin API 1.0"):
        harness.contract.templates.check_template(old := replace(template, tool_parser=by_source))
    assert bind(old, harness.testing.tiny_tokenizer()).tool_parser == "hermes"
    assert len(given) == 1 and "{%" in given[0]


def test_the_reason_names_the_plugin(tmp_path, harness_here):
    (tmp_path / "new.py").write_text(
        "import harness\nharness_api = '7.0'\n\n@harness.hookimpl\ndef register_datasets(register):\n    pass\n"
    )
    done = harness_here("--plugin new.py data list")
    assert done.code == 0 and "warning: plugin new (new.py): it is written for the plugin API 7.0" in done.err
