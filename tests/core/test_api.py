"""The plugin API: its names and arguments only grow, and a plugin says which version of it it needs."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
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


def test_the_reason_names_the_plugin(tmp_path, harness_here):
    (tmp_path / "new.py").write_text(
        "import harness\nharness_api = '7.0'\n\n@harness.hookimpl\ndef register_datasets(register):\n    pass\n"
    )
    done = harness_here("--plugin new.py data list")
    assert done.code == 0 and "warning: plugin new (new.py): it is written for the plugin API 7.0" in done.err
