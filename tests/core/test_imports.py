"""The laws of import, lazy and type-only imports included, and what a bare install can do without torch."""

import ast
import functools
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from harness.plugins import Plugins
from harness.plugins.registry import FIRST_PARTY
from tests.arrows import imports

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "transformers", "peft", "vllm", "gradio", "datasets", "lm_eval", "matplotlib", "scipy", "sqlalchemy"}
AT_THE_TOP = {"torch", "transformers", "peft"}  # in a function they are imported by `require` alone
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
KNOW_DISTRIBUTED = ("plugins/harness_tuning/world.py", "plugins/harness_tuning/launch.py")
KINDS = ("datasets", "filters", "templates", "objectives", "methods", "evaluations", "engines", "trackers")
SPOKEN = re.compile(rf"\b({'|'.join(kind[:-1] for kind in KINDS)}):? [`'\"]?([\w-]+)")  # as a message names a thing

NAMED = re.compile(rf"[`'\"]([\w.-]+)[`'\"] ({'|'.join(kind[:-1] for kind in KINDS)})\b")  # and the other way round

# Words of the core that a plugin's thing is named too: by the word, and by the file and the word.
WORDS = {
    "auto": "a choice of the options",
    "feedback": "a form of exported rows",
    "length": "OpenAI's reason why an answer ended",
    "messages": "a key of OpenAI's requests and of rows",
    "model": "a key of recipes and of OpenAI's requests; as a template's name, the one that the model brings",
    "preferences": "a form of rows, which an objective may read",
    "roles": "a column of encoded rows",
    "text": "a key of OpenAI's parts of a message",
    "tool_calls": "a key of OpenAI's messages",
    "tools": "a key of OpenAI's requests and of rows",
    "votes": "a table of the votes",
}
WORDS_IN_PLACES = {
    ("harness/checks/parity.py", "plain"): "the name of a sample conversation",
    ("harness/data/prepare/data_statistics.py", "exact_duplicates"): "a key of the statistics",
    ("harness/model/gguf.py", "gpt-oss"): "the name of an architecture in GGUF files",
    ("harness/model/gguf.py", "llama3"): "the name of a tokenizer in GGUF files",
    ("harness/run/folder.py", "vllm"): "a distribution whose version is kept",
    ("harness/template/samples.py", "plain"): "the name of a sample conversation",
}


def product_sources() -> dict[str, str]:
    """Every file of ours by its path: the core, the plugins, the page."""
    folders = [
        ROOT / "harness",
        *(path for parent in ("plugins", "serve") for path in (ROOT / parent).glob("harness_*")),
    ]
    paths = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def module_of(path: str) -> str:
    """The dotted name of the module in a file."""
    dotted = path.removeprefix("plugins/").removeprefix("serve/").removesuffix(".py").replace("/", ".")
    return dotted.removesuffix(".__init__")


def graph(sources: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """The modules of `sources` that each of them imports, anywhere in it, with the first line that does."""
    modules = {module_of(path) for path in sources}
    arrows: dict[str, dict[str, int]] = {}
    for path, source in sources.items():
        module = module_of(path)
        mine = arrows[module] = {}
        for item in imports(ast.parse(source), module, is_package=path.endswith("__init__.py")):
            other = item.among(modules)
            if other is not None and other != module:
                mine[other] = min(item.line, mine.get(other, item.line))
    return arrows


def circle(arrows: Mapping[str, Mapping[str, int]]) -> list[str]:
    """The modules of one circle of imports, in their order and the first again at the end; none where there is none."""
    left = {module: set(others) for module, others in arrows.items()}
    while free := [module for module, others in left.items() if not others & left.keys()]:
        for module in free:
            del left[module]
    if not left:
        return []
    way = [min(left)]  # each module that is left imports one that is left
    while len(way) == len(set(way)):
        way.append(min(left[way[-1]] & left.keys()))
    return way[way.index(way[-1]) :]


def circle_report(sources: Mapping[str, str]) -> str:
    """The circle of imports in `sources`, if there is one, and the place of its first import."""
    arrows = graph(sources)
    if not (way := circle(arrows)):
        return ""
    place = next(path for path in sources if module_of(path) == way[0])
    return f"{' -> '.join(way)} ({place}:{arrows[way[0]][way[1]]} imports {way[1]})"


@functools.cache
def registered() -> frozenset[str]:
    """The names of what the first-party plugins register, commands apart."""
    plugins = Plugins()
    entries = [entry for kind in KINDS for entry in getattr(plugins, kind).entries]
    return frozenset(entry.name for entry in entries if entry.plugin.owner == FIRST_PARTY)


def constants(source: str) -> Iterator[tuple[int, str]]:
    """The line and the text of each string of a source, its docstrings apart."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            yield node.lineno, node.value


def names_of_plugins(path: str, source: str) -> Iterator[tuple[int, str]]:
    """The line and the word of each string of the core that is the name of a plugin's thing."""
    if path.startswith("harness/") and not path.startswith("harness/testing/"):
        for line, text in constants(source):
            if (name := text.removeprefix(f"{FIRST_PARTY}:")) in registered():
                yield line, name


def offences(path: str, source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the reason of each offence of one file against the laws of import."""
    tree, module = ast.parse(source), module_of(path)
    is_package = path.endswith("__init__.py")
    functions = [node for node in ast.walk(tree) if isinstance(node, FUNCTIONS)]
    lazy = {item for node in functions for item in imports(node, module, is_package=is_package)}
    for item in sorted(lazy, key=lambda item: item.line):
        if item.module.split(".")[0] in AT_THE_TOP and item.call != "require":
            yield item.line, f"a function imports {item.full}"
    if path not in KNOW_DISTRIBUTED:
        lines = {item.line for item in imports(tree, module) if below(item.full, "torch.distributed")}
        torch = names_of("torch", tree)
        lines |= {node.lineno for node in ast.walk(tree) if dotted(node) in {f"{name}.distributed" for name in torch}}
        for line in sorted(lines):
            yield line, "torch.distributed"
    for node in (node for function in functions for node in ast.walk(function) if isinstance(node, ast.ClassDef)):
        yield node.lineno, f"a function makes the class {node.name}"
    if path.startswith("harness/"):
        for line, text in constants(source):
            if re.fullmatch(r"harness_\w+([.:]\w+)*", text) and re.split("[.:]", text)[0] in PLUGINS:
                yield line, f"the core names {text}"
        for line, name in names_of_plugins(path, source):
            if name not in WORDS and (path, name) not in WORDS_IN_PLACES:
                yield line, f"the core names {name!r}, which a plugin registers"
        for line, text in constants(source):
            for kind, name in [*SPOKEN.findall(text), *((kind, name) for name, kind in NAMED.findall(text))]:
                if name in registered() and not path.startswith("harness/testing/"):
                    yield line, f"a message of the core names the {kind} {name!r}"


def names_of(module: str, tree: ast.AST) -> set[str]:
    """The names by which a file knows a module that it imports: its own, and that of `import ... as`."""
    aliases = [alias for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names]
    return {module} | {alias.asname for alias in aliases if alias.name == module and alias.asname}


def dotted(node: ast.AST) -> str:
    """An attribute of a name as it is written, `torch.distributed`; empty for other nodes."""
    is_simple = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    return ast.unparse(node) if is_simple else ""


SOURCES = product_sources()
ARROWS = graph(SOURCES)


def arrows(begin: str, *, to: tuple[str, ...]) -> list[str]:
    """The imports that lead from modules below `begin` to modules below one of `to`."""
    return [
        f"{module} -> {other}"
        for module, others in ARROWS.items()
        for other in others
        if below(module, begin) and any(below(other, package) for package in to)
    ]


def below(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


PLUGINS = sorted({module.split(".")[0] for module in ARROWS} - {"harness"})
PACKAGES = sorted({".".join(module.split(".")[:2]) for module in ARROWS if below(module, "harness")} - {"harness"})


def test_the_core_imports_no_plugin():
    assert arrows("harness", to=tuple(PLUGINS)) == []


@pytest.mark.parametrize("plugin", PLUGINS)
def test_a_first_party_plugin_imports_no_other(plugin):
    assert arrows(plugin, to=tuple(other for other in PLUGINS if other != plugin)) == []


def test_nouns_import_nothing_of_ours():
    assert arrows("harness.nouns", to=tuple(set(PACKAGES) - {"harness.nouns"})) == []


def test_the_contract_imports_nouns_options_and_errors_only():
    allowed = {"harness.contract", "harness.nouns", "harness.options", "harness.errors", "harness.lazy"}
    assert arrows("harness.contract", to=tuple(set(PACKAGES) - allowed)) == []


def test_no_library_imports_a_screen():
    """`harness.testing` is none: it runs the command; only tests and the check of plugins import it."""
    above = ("harness.cli", "harness.__main__", "harness.testing")
    libraries = [package for package in PACKAGES if package not in above]
    assert [
        arrow
        for package in (*PACKAGES, *PLUGINS)
        for arrow in arrows(package, to=("harness.testing",))
        if not arrow.startswith(("harness.testing", "harness_commands.plugins.check -> harness.testing.checking"))
    ] == []
    assert [arrow for library in libraries for arrow in arrows(library, to=("harness.cli",))] == []


def test_there_is_no_circle_of_imports():
    assert circle_report(SOURCES) == ""


@pytest.mark.parametrize("path", SOURCES)
def test_a_file_keeps_the_laws_of_import(path):
    assert [f"{path}:{line}: {reason}" for line, reason in offences(path, SOURCES[path])] == []


def test_every_word_that_the_core_may_use_is_used():
    used = {(path, name) for path, source in SOURCES.items() for _, name in names_of_plugins(path, source)}
    assert WORDS_IN_PLACES.keys() - used == set()
    assert WORDS.keys() - {name for _, name in used} == set()


RUN = {"harness/run/__init__.py": "from harness.run.events import Events", "harness/run/folder.py": ""}


@pytest.mark.parametrize(
    "source",
    [
        "from harness.run import Events",
        "from . import Events",
        "from .folder import Run\nfrom ..run import Events",
        "from .. import run",
        "def f():\n    import harness.run",
        "from importlib import import_module\nimport_module('harness.run')",
        "import importlib\nimportlib.import_module('..run', __package__)",
        "__import__('harness.run')",
        "from pkgutil import resolve_name\nresolve_name('harness.run:Events')",
    ],
)
def test_a_circle_is_named_with_one_of_its_imports(source):
    behind = {"harness/cli.py": "import harness.run", "harness/__main__.py": "import harness.cli"}
    assert circle_report(RUN | behind | {"harness/run/events.py": source}) == (
        "harness.run -> harness.run.events -> harness.run (harness/run/__init__.py:1 imports harness.run.events)"
    )


def test_a_relative_import_of_a_package_is_below_it():
    sources = {
        "harness/run/__init__.py": "from .folder import Run",
        "harness/run/folder.py": "",
        "harness/folder.py": "",
    }
    assert graph(sources)["harness.run"] == {"harness.run.folder": 1}


@pytest.mark.parametrize(
    "source",
    [
        "importlib.import_module('harness_tuning.world')",
        "pkgutil.resolve_name('harness_tuning.world:World')",
    ],
)
def test_an_import_by_a_call_is_an_arrow(source):
    sources = {"plugins/harness_tuning/world.py": "", "harness/cli.py": source}
    assert graph(sources)["harness.cli"] == {"harness_tuning.world": 1}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("def f():\n    import torch", "a function imports torch"),
        ("def f():\n    from torch import nn", "a function imports torch.nn"),
        ("async def f():\n    import transformers.utils", "a function imports transformers.utils"),
        ("class A:\n    def f(self):\n        if x:\n            import peft", "a function imports peft"),
        ("def f():\n    import_module('torch')", "a function imports torch"),
        ("f = lambda: __import__('torch')", "a function imports torch"),
        ("import torch.distributed as dist", "torch.distributed"),
        ("from torch import distributed", "torch.distributed"),
        ("from torch.distributed.fsdp import fully_shard", "torch.distributed"),
        ("import torch\ntorch.distributed.barrier()", "torch.distributed"),
        ("require('torch.distributed', 'tuning')", "torch.distributed"),
        ("import torch as t\nt.distributed.barrier()", "torch.distributed"),
        ("def f():\n    class A:\n        pass", "a function makes the class A"),
        ("importlib.import_module('harness_tuning.loop')", "the core names harness_tuning.loop"),
        ("resolve_name('harness_serve.page:open')", "the core names harness_serve.page:open"),
        ("PLACES = {'tune': 'harness_tuning'}", "the core names harness_tuning"),
        *(
            (f"x = {name!r}", f"the core names {name!r}, which a plugin registers")
            for name in ("sft", "lora", "vllm", "chatml", "alpaca", "val_loss", "loss_plot", "near_duplicates")
        ),
        ("x = 'harness:vllm'", "the core names 'vllm', which a plugin registers"),
        ("x = 'The filter `roles` leaves it out'", "a message of the core names the filter 'roles'"),
        ("x = f\"{a} is the dataset 'feedback'\"", "a message of the core names the dataset 'feedback'"),
        ("x = 'or use the `lora` method'", "a message of the core names the method 'lora'"),
        ("x = 'add - {filter: roles} to data.clean'", "a message of the core names the filter 'roles'"),
    ],
)
def test_each_law_reports_its_offence(source, reason):
    assert [why for _, why in offences("harness/model/load.py", source)] == [reason]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("harness/model/load.py", "import torch\nfrom transformers import AutoConfig"),
        ("harness/model/load.py", "if TYPE_CHECKING:\n    from torch import Tensor"),
        ("harness/model/load.py", "def f():\n    require('torch', 'tuning')"),
        ("harness/model/load.py", '"""alpaca"""'),
        ("harness/run/folder.py", "x = 'vllm'"),
        ("harness/testing/runs.py", "x = 'chatml'"),
        ("plugins/harness_serve/page.py", "x = 'vllm', 'harness_tuning'"),
        (KNOW_DISTRIBUTED[0], "import torch.distributed"),
    ],
)
def test_what_the_laws_allow_is_no_offence(path, source):
    assert list(offences(path, source)) == []


LISTING = """
import sys
try:
    exec(sys.argv[1])
except SystemExit as end:
    assert not end.code, end.code
print("LOADED", *{module.split(".")[0] for module in sys.modules})
"""
SOME_ROWS = ROOT / "recipes" / "seedling" / "data" / "validation.messages.jsonl"


def loaded_after(code: str) -> set[str]:
    """The top-level modules in a fresh process after it ran `code`."""
    done = subprocess.run([sys.executable, "-c", LISTING, code], check=True, capture_output=True, text=True)
    return set(done.stdout.rpartition("LOADED ")[2].split())


@pytest.mark.parametrize(
    "code",
    [
        "import harness",
        "import harness.testing",
        "import harness; [getattr(harness, name) for name in harness.__all__]",
        "from harness.cli.main import main; main(['--help'])",
        "from harness.cli.main import main; main(['plugins', 'list', '--json'])",
        "from harness.cli.main import main; main(['data', 'list'])",
        "from harness.cli.main import main; main(['runs', 'list'])",
        "from harness.cli.main import main; main(['doctor', '--json'])",
        f"from harness.cli.main import main; main(['data', 'preview', '--dataset', 'messages', {str(SOME_ROWS)!r}])",
    ],
    ids=[
        "import",
        "testing",
        "every public name",
        "--help",
        "plugins list",
        "data list",
        "runs list",
        "doctor",
        "data preview",
    ],
)
def test_no_heavy_import(code):
    assert loaded_after(code) & HEAVY == set()


def test_help_does_not_wait_for_pydantic_and_yaml():
    assert loaded_after("from harness.cli.main import main; main(['--help'])") & {"pydantic", "ruamel"} == set()


def test_every_public_name_is_there_and_documented():
    import harness

    for name in harness.__all__:
        assert getattr(harness, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'Datset'"):
        harness.Datset  # noqa: B018
