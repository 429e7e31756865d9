"""The style that a machine can check: widths everywhere; in the product sizes, names and a docstring's first word."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WIDTH, MODULE_LINES, FUNCTION_LINES = 120, 400, 80
REPEATED_LINES = 12
QUESTION = re.compile(r"(What|Whether|Which|Where|How)\b")
NOUN = re.compile(r"(A|An|The|True|False|Why)\b")  # where a function's docstring begins with its verb
PASSED_OVER = re.compile(r"#|import |from \S+ import ")
VAGUE = {"told", "said", "found", "made"}
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
PRODUCT = ("harness", "plugins", "serve")
SCRIPTS = ("bench", "docs", "examples", "recipes", "requirements")


def _modules(*parts: str) -> list[str]:
    return sorted(str(path.relative_to(ROOT)) for part in parts for path in (ROOT / part).rglob("*.py"))


def too_wide(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the columns of each line that is too wide."""
    for number, line in enumerate(source.splitlines(), 1):
        if len(line) > WIDTH:
            yield number, f"{len(line)} columns"


def vague_names(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each thing with a vague name."""
    for node in ast.walk(ast.parse(source)):
        name = getattr(node, "id", None) if isinstance(getattr(node, "ctx", None), ast.Store) else None
        name = node.arg if isinstance(node, (ast.arg, ast.keyword)) else name
        name = node.attr if isinstance(node, ast.Attribute) else name
        if name in VAGUE:
            yield getattr(node, "lineno", 1), f"a thing named {name!r}"


def is_thing(function: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Return whether a function is used as a thing: a property, or a fixture."""
    return any(re.search("property|fixture", ast.unparse(decorator)) for decorator in function.decorator_list)


def offences(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the reason of each offence against the style."""
    if (size := len(source.splitlines())) > MODULE_LINES:
        yield 1, f"a module of {size} lines"
    yield from too_wide(source)
    yield from vague_names(source)
    for node in ast.walk(ast.parse(source)):
        number = getattr(node, "lineno", 1)
        if isinstance(node, FUNCTIONS) and (size := (node.end_lineno or number) - number + 1) > FUNCTION_LINES:
            yield number, f"`{node.name}` has {size} lines"
        if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)):
            text = ast.get_docstring(node) or ""
            if QUESTION.match(text):
                yield number, f"a docstring begins with {text.split()[0]!r}"
            elif isinstance(node, FUNCTIONS) and not is_thing(node) and NOUN.match(text):
                yield number, f"the docstring of a function begins with {text.split()[0]!r}, not with a verb"


def _reported(path: str, *checks: Callable[[str], Iterator[tuple[int, str]]]) -> list[str]:
    source = (ROOT / path).read_text(encoding="utf-8")
    return [f"{path}:{number}: {reason}" for check in checks for number, reason in check(source)]


@pytest.mark.parametrize("path", _modules(*PRODUCT))
def test_style_of_module(path):
    assert _reported(path, offences) == []


def test_scripts_and_tests_are_no_wider_and_scripts_name_their_things():
    assert [line for path in _modules("tests") for line in _reported(path, too_wide)] == []
    assert [line for path in _modules(*SCRIPTS) for line in _reported(path, too_wide, vague_names)] == []


def repeated_runs(sources: dict[str, str]) -> Iterator[tuple[str, str]]:
    """Yield the two places (`path:line`) of each run of REPEATED_LINES lines that stands twice.

    Blank lines, comments, imports and lone punctuation do not count, and white space is folded.
    """
    places: dict[tuple[str, ...], str] = {}
    for path, source in sources.items():
        lines = [(number, " ".join(line.split())) for number, line in enumerate(source.splitlines(), 1)]
        lines = [(number, line) for number, line in lines if re.search(r"\w", line) and not PASSED_OVER.match(line)]
        for start in range(len(lines) - REPEATED_LINES + 1):
            run = tuple(line for _, line in lines[start : start + REPEATED_LINES])
            place = f"{path}:{lines[start][0]}"
            if places.setdefault(run, place) != place:
                yield places[run], place


def test_no_long_run_of_lines_stands_twice():
    assert list(repeated_runs({path: (ROOT / path).read_text(encoding="utf-8") for path in _modules(*PRODUCT)})) == []


def test_a_repeated_run_is_reported_with_both_places():
    run = "\n".join(f"x{number} = {number}" for number in range(REPEATED_LINES))
    assert list(repeated_runs({"a.py": run, "b.py": f"import os\n\n{run}"})) == [("a.py:1", "b.py:3")]
    assert list(repeated_runs({"a.py": run, "b.py": run.replace("x3", "y3")})) == []


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ('"""Whether it fits."""', "a docstring begins with 'Whether'"),
        (
            'def f():\n    """The thing."""',
            "the docstring of a function begins with 'The', not with a verb",
        ),
        ("def f(told):\n    pass", "a thing named 'told'"),
        ("found = 1", "a thing named 'found'"),
        ("f(said=1)", "a thing named 'said'"),
        ("x.made", "a thing named 'made'"),
        (f"x = '{'a' * 120}'", "126 columns"),
        ("def f():\n" + "    pass\n" * 80, "`f` has 81 lines"),
        ("x = 1\n" * 401, "a module of 401 lines"),
    ],
)
def test_each_rule_reports_its_offence(source, reason):
    assert [what for _, what in offences(source)] == [reason]
