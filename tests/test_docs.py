"""The docs are a contract: every hook has its heading, generated pages are up to date, and examples run."""

import importlib.util
import pkgutil
import re
import shlex
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from harness.contract.backends import Answer
from harness.contract.events import Event
from harness.contract.kinds import KINDS
from harness.nouns import Conversation
from harness.testing import plugins

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FOLDERS = ("harness", "plugins", "serve", "docs", "recipes", "examples", "tests", "bench")
EXAMPLES = ROOT / "examples"
EXAMPLE = EXAMPLES / "harness-riddles" / "harness_riddles" / "__init__.py"


def test_every_hook_and_event_has_a_heading_with_its_exact_signature():
    text = (ROOT / "docs" / "plugins.md").read_text()
    hooks = [*(f"{kind.hook}(register)" for kind in KINDS), "diagnose()"]
    events = [f"{event.__name__}({', '.join(field.name for field in fields(event))})" for event in get_args(Event)]
    assert re.findall(r"^### `(.+)`$", text, re.MULTILINE) == hooks + events


@pytest.mark.parametrize("kind", [kind for kind in KINDS if is_dataclass(kind.item)], ids=lambda kind: kind.name)
def test_every_field_of_a_declaration_is_explained(kind):
    """`default` is for first-party plugins only."""
    section = (ROOT / "docs" / "plugins.md").read_text().split(f"### `{kind.hook}(register)`")[1].split("\n### ")[0]
    prose = re.sub(r"```.*?```", "", section, flags=re.DOTALL)
    assert [field.name for field in fields(kind.item) if not re.search(rf"\b{field.name}\b", prose)] in (
        [],
        ["default"],
    )


@pytest.fixture(scope="module")
def generated() -> dict[Path, str]:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pages: dict[Path, str] = module.pages()
    return pages


@pytest.mark.parametrize("page", ["commands.md", "reference.md", "recipes.md", "data.md"])
def test_generated_pages_are_up_to_date(page, generated):
    assert generated[ROOT / "docs" / page] == (ROOT / "docs" / page).read_text(), "run `make docs`"


@pytest.mark.parametrize("page", ["README.md", "docs/plugins.md"])
def test_the_plugin_that_is_shown_is_the_one_that_is_tested(page):
    (shown,) = re.findall(
        r"<!-- the text of examples/\S+ -->\n```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL
    )
    assert shown == EXAMPLE.read_text()


def links() -> list[tuple[Path, str]]:
    return [
        (page, target)
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text())
        if not target.startswith(("http:", "https:", "mailto:"))
    ]


@pytest.mark.parametrize(("page", "target"), links(), ids=lambda part: part.name if isinstance(part, Path) else part)
def test_links_lead_somewhere(page, target):
    name, _, anchor = target.partition("#")
    path = (page.parent / name).resolve() if name else page
    assert path.exists(), f"{page.name}: {target}"
    if anchor:
        anchors = {
            re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-")
            for line in path.read_text().splitlines()
            if line.startswith("#")
        }
        assert anchor in anchors


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_names_of_ours_exist(page):
    """A file is written with its folder; a name of ours begins with `harness`, and can be imported."""
    text, files = page.read_text(), [str(path) for folder in FOLDERS for path in (ROOT / folder).rglob("*.*")]
    named = set(re.findall(r"`((?:[\w.-]+/)+[\w.-]+\.(?:py|ya?ml|jsonl?|js|css))`", text))
    assert [name for name in named if not any(file.endswith(f"/{name}") for file in files)] == []
    for name in set(re.findall(r"`(harness(?:_\w+)?(?:\.\w+)+)`", text)):
        assert pkgutil.resolve_name(name) is not None


def consoles() -> list[tuple[str, str]]:
    """The commands in blocks marked `console`: those that are cheap, and change nothing."""
    return [
        (page.name, line.removeprefix("$ "))
        for page in PAGES
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL)
        for line in block.splitlines()
        if line.startswith("$ ")
    ]


@pytest.mark.parametrize(("page", "command"), consoles())
def test_commands_that_are_shown_work(page, command, harness):
    program, *arguments = shlex.split(command)
    assert program == "harness"
    done = harness(*arguments, cwd=ROOT)
    assert done.code == 0 and done.out, done.err


OF_EXAMPLES = sorted(path for kind in ("*/README.md", "*/*.py", "*/*/__init__.py") for path in EXAMPLES.glob(kind))


@pytest.mark.parametrize("page", [*PAGES, *OF_EXAMPLES], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_that_are_shown_exist(page, generated):
    """Every `harness WORD` in the docs is a command, and every option given to one is one of its options."""
    help_text = generated[ROOT / "docs" / "commands.md"]
    sections = dict(re.findall(r"^#+ harness ([\w ]+)\n\n```text\n(.*?)```", help_text, re.MULTILINE | re.DOTALL))
    sections["longest"] = "--count"  # an example's own
    for line in re.findall(r"^(?:    |\$ |)harness ((?:'[^'\n]*'|[^#\n])+)", page.read_text(), re.MULTILINE):
        words = shlex.split(re.sub(r"^--plugin \S+ ", "", line.replace("…", "")))
        name = " ".join(words[:2]) if " ".join(words[:2]) in sections else words[0]
        assert name in sections, f"{page.name}: harness {line}"
        for option in (word.split("=")[0] for word in words if word.startswith("--")):
            assert option in sections[name], f"{page.name}: harness {line}"


def sources() -> dict[str, str]:
    """The one-file plugin that docs/plugins.md shows for each kind, by the kind's plural."""
    page = (ROOT / "docs" / "plugins.md").read_text()
    found = {"datasets": EXAMPLE.read_text()}
    for section in re.split(r"^##+ ", page, flags=re.MULTILINE):
        if (kind := re.match(r"`register_(\w+)\(register\)`", section)) and "```python" in section:
            (found[kind[1]],) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    return found


SOURCES = sources()


@pytest.fixture
def one_file(tmp_path: Path) -> Callable[[str], Path]:
    """Write the plugin that the page shows for a kind."""

    def write(kind: str) -> Path:
        path = tmp_path / f"my_{kind}.py"
        path.write_text(SOURCES[kind])
        return path

    return write


@pytest.mark.parametrize("kind", [kind.plural for kind in KINDS])
def test_each_kind_has_a_plugin_of_one_file_that_registers_only_that(kind, one_file):
    """A shape is registered as a dataset too, beside the one that reads its rows."""
    registered = plugins(one_file(kind), first_party=kind == "shapes").registered_by(f"my_{kind}")
    assert {other for other, names in registered.items() if names} == {
        kind,
        *(["datasets"] if kind == "shapes" else []),
    }


def test_the_filter_leaves_out_what_it_says(one_file):
    shouting = plugins(one_file("filters")).filters["shouting"]
    reason = shouting.create(shouting.options())
    assert reason(Conversation.of(("user", "WHO?"), ("assistant", "THE HERON"))) == "shouts"
    assert reason(Conversation.of(("user", "Who?"), ("assistant", "The heron"))) is None


def test_the_template_encodes_a_conversation(one_file, tiny_tokenizer):
    from harness.template import bind

    template = bind(plugins(one_file("templates")).templates["script"], tiny_tokenizer)
    conversation = Conversation.of(
        ("user", "Who?"), ("assistant", "The heron."), ("user", "Sure?"), ("assistant", "Yes.")
    )
    example = template.encode(conversation)
    supervised = [id for id, is_supervised in zip(example.input_ids, example.loss_mask, strict=True) if is_supervised]
    assert tiny_tokenizer.decode(supervised) == "The heron.<|endoftext|>Yes.<|endoftext|>"


def test_the_evaluation_asks_and_scores(one_file):
    sums = plugins(one_file("evaluations")).evaluations["sums"]
    item = next(iter(sums.items(sums.options(), None)))
    assert item.requests[0].messages[0].content.startswith("What is 0 + 0?")
    assert sums.score(item, (Answer("0", "stop"),)) == {"exact": 1.0} and sums.score(item, (Answer("1", "stop"),)) == {
        "exact": 0.0
    }


def test_the_engine_names_every_variant(one_file):
    elsewhere = plugins(one_file("engines")).engines["elsewhere"]
    variants = (SimpleNamespace(name="my"), SimpleNamespace(name="my@base"))
    with elsewhere.start(variants, elsewhere.options(port=8123), print) as endpoint:
        assert (endpoint.url, endpoint.models) == ("http://127.0.0.1:8123/v1", ("my", "my@base"))


def test_the_command_greets(one_file, harness_command):
    done = harness_command("--plugin", one_file("commands"), "greet", "heron")
    assert (done.code, done.out) == (0, "Hello, heron!\n"), done.err
