"""`harness plugins new`: a plugin of one kind that works, as a distribution of its own or as a single file."""

from __future__ import annotations

import json
import re
from pathlib import Path

import click

import harness
from harness.contract.kinds import KINDS
from harness.errors import HarnessError

SCAFFOLD = Path(__file__).with_name("scaffold")
NAME = re.compile(r"[a-z][a-z0-9]*(?:[-_][a-z0-9]+)*")
NEEDS_TUNING = ("engine", "method", "objective", "template")
# A claim about the example, for each kind: the further imports of the test, and its lines.
TESTS = {
    "dataset": (
        "",
        "def test_a_row_becomes_a_question_and_its_answer() -> None:\n"
        '    dataset = plugins(plugin).datasets["@name@"]\n'
        '    conversation = dataset.convert({"question": "Who?", "answer": "The heron."}, None)\n'
        '    assert [one.content for one in conversation.messages] == ["Who?", "The heron."]',
    ),
    "shape": (
        "",
        "def test_a_title_is_asked_and_a_body_answers() -> None:\n"
        '    dataset = plugins(plugin, first_party=True).datasets["@name@"]\n'
        '    conversation = dataset.convert({"title": "Who?", "body": "The heron."}, None)\n'
        '    assert [one.content for one in conversation.messages] == ["Who?", "The heron."]',
    ),
    "filter": (
        "",
        "def test_rows_in_capitals_are_left_out() -> None:\n"
        "    reason = plugin.create(plugin.Options())\n"
        '    loud = harness.Conversation.of(("user", "WHO?"), ("assistant", "ME"))\n'
        '    quiet = harness.Conversation.of(("user", "Who?"), ("assistant", "Me"))\n'
        '    assert reason(loud) == "shouts" and reason(quiet) is None',
    ),
    "template": (
        "",
        "def test_an_answer_ends_with_the_tokenizer_s_own_token() -> None:\n"
        "    (template,) = plugins(plugin).templates.values()\n"
        "    tokenizer = tiny_tokenizer()\n"
        "    assert template.stop_tokens(tokenizer) == (tokenizer.eos_token,)",
    ),
    "objective": (
        "",
        "def test_its_options_have_defaults() -> None:\n    assert plugin.Options().power == 1.0",
    ),
    "method": ("", "def test_its_options_have_defaults() -> None:\n    assert plugin.Options().rank == 8"),
    "evaluation": (
        "",
        "def test_right_answers_score_one() -> None:\n"
        "    item, *_ = plugin.items(plugin.Options(), None)\n"
        '    right = harness.Answer(f" {item.target}\\n", "stop")\n'
        '    assert plugin.score(item, [right]) == {"exact": 1.0}',
    ),
    "engine": (
        "",
        'def test_it_is_there_by_its_name() -> None:\n    assert list(plugins(plugin).engines) == ["@name@"]',
    ),
    "tracker": (
        "from pathlib import Path\n\n",
        "def test_an_event_is_a_line(tmp_path: Path) -> None:\n"
        '    options = plugin.Options(file=tmp_path / "events.txt")\n'
        '    plugin.create(options)(Step("demo", 3, {"loss": 1.0}))\n'
        '    assert options.file.read_text() == "Step 3\\n"',
    ),
    "command": (
        "from pathlib import Path\n\n",
        "def test_runs_are_listed(tmp_path: Path) -> None:\n"
        '    (tmp_path / "runs" / "demo").mkdir(parents=True)\n'
        '    (tmp_path / "runs" / "demo" / "manifest.json").touch()\n'
        '    done = run("@name@", cwd=tmp_path, modules=[plugin])\n'
        '    assert done.code == 0 and done.out == "demo\\n"',
    ),
}
# A command that uses what is made, by kind; what stands in capitals is the user's.
USES = {
    "dataset": "data preview --dataset @name@",
    "shape": "data preview --dataset @name@ FILE",
    "filter": "data stats RECIPE --set 'data.clean=[{filter: @name@}]'",
    "template": "template show --template @name@ --model FOLDER",
    "objective": "tune RECIPE --set tune.objective=@name@",
    "method": "tune RECIPE --set tune.method=@name@",
    "evaluation": "evaluate RUN@base RUN --evaluation @name@",
    "engine": "serve RUN --engine @name@",
    "tracker": "tune RECIPE --set 'track=[{tracker: @name@}]'",
    "command": "@name@",
}
USED = {"plugins": r"\bplugins\(", "run": r"\brun\(", "tiny_tokenizer": r"\btiny_tokenizer\("}


@click.command()
@click.argument("kind", type=click.Choice([kind.name for kind in KINDS]), metavar="KIND")
@click.argument("name", metavar="NAME")
@click.option("--single-file", is_flag=True, help="Write NAME.py alone, for `harness --plugin NAME.py`.")
@click.option(
    "--into", type=click.Path(path_type=Path), default=".", metavar="DIR", help="Where to write it. [default: here]"
)
def new(kind: str, name: str, single_file: bool, into: Path) -> None:
    """Write a plugin that works, to change: a distribution `harness-NAME` with its test, or a single file.

    KIND is dataset, shape, filter, template, objective, method, evaluation, engine, tracker or command. Nothing that is
    there is overwritten.
    """
    if not NAME.fullmatch(name):
        raise HarnessError(f"{name!r} cannot be a plugin's name: small letters, digits, - and _, as in my_riddles")
    if single_file:
        files = {f"{_module(name, '')}.py": _filled(f"{kind}.py", kind, name)}
        folder = into
        if kind == "dataset":
            files[f"{name}.jsonl"] = _filled("rows.jsonl", kind, name)
    else:
        files, folder = _distribution(kind, name), into / f"harness-{name.replace('_', '-')}"
    if there := [path for path in files if (folder / path).exists()]:
        raise HarnessError(f"{folder / there[0]} is there already: nothing was written")
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    _say_what_next(kind, name, single_file, folder, files)


def _distribution(kind: str, name: str) -> dict[str, str]:
    """Return the files of a distribution, by their paths."""
    module = _module(name)
    files = {
        "pyproject.toml": _filled("pyproject.toml", kind, name),
        "README.md": _filled("README.md", kind, name),
        "LICENSE": _filled("LICENSE", kind, name),
        ".github/workflows/test.yml": _filled("test.yml", kind, name),
        "conftest.py": 'pytest_plugins = ["harness.testing.pytest_plugin"]\n',
        f"{module}/__init__.py": _filled(f"{kind}.py", kind, name),
        f"{module}/py.typed": "",
        f"tests/test_{_module(name, '')}.py": _test(kind, name),
    }
    if kind == "dataset":
        files[f"{module}/{name}.jsonl"] = _filled("rows.jsonl", kind, name)
    return files


def _test(kind: str, name: str) -> str:
    """Return the test of a plugin, with the imports that it needs in their order."""
    first, test = TESTS[kind]
    used = ["check", *(one for one, call in USED.items() if re.search(call, test))]
    ours = ["import harness"] if "harness." in test.replace("harness.testing", "") else []
    if "Step(" in test:
        ours.append("from harness.contract.events import Step")
    ours.append(f"from harness.testing import {', '.join(sorted(used))}")
    imports = first + "\n".join(ours) + f"\n\nimport {_module(name)} as plugin"
    return _fill(_source("test.py").replace("@imports@", imports).replace("@test@", test), kind, name)


def _filled(file: str, kind: str, name: str) -> str:
    return _fill(_source(file), kind, name)


def _source(file: str) -> str:
    return (SCAFFOLD / f"{file}.jinja").read_text(encoding="utf-8")


def _fill(text: str, kind: str, name: str) -> str:
    """Put names into a text of the scaffold."""
    values = {
        "name": name,
        "kind": kind,
        "dist": name.replace("_", "-"),
        "module": _module(name),
        "extra": "[tuning]" if kind in NEEDS_TUNING else "",
        "version": harness.__version__,
    }
    return re.sub(r"@(name|kind|dist|module|extra|version)@", lambda match: values[match[1]], text)


def _module(name: str, prefix: str = "harness_") -> str:
    return prefix + name.replace("-", "_")


def _say_what_next(kind: str, name: str, single_file: bool, folder: Path, files: dict[str, str]) -> None:
    for path in files:
        click.echo(f"wrote {folder / path}")
    file = folder / f"{_module(name, '')}.py"
    command = f"harness --plugin {file}" if single_file else "harness"
    if single_file:
        click.echo(f"\nTry it:     harness plugins check {file}")
    else:
        click.echo(f"\nTry it:     cd {folder} && pip install -e '.[dev]' && pytest && harness plugins check {name}")
    click.echo(f"Show it:    {command} plugins show {kind} {name}")
    click.echo(f"Use it:     {command} {_fill(USES[kind], kind, name)}")
    if single_file:
        click.echo(f"In recipes: plugins: [{json.dumps(file.name)}]")
