"""`harness plugins check` and `harness.testing.check`: good plugins pass, and each law names what breaks it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from harness.testing import FakeBackend, check
from harness.testing.checking import import_times

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "plugins.md").read_text()
KINDS = ("shapes", "filters", "templates", "objectives", "methods", "evaluations", "trackers", "commands")
HEAVY = {"templates", "objectives", "methods"}


def shown(kind: str) -> str:
    """The one-file plugin that docs/plugins.md shows for a kind."""
    section = re.search(rf"^### `register_{kind}\(register\)`\n(.*?)(?=^##)", PAGE, re.MULTILINE | re.DOTALL)
    assert section
    return re.findall(r"```python\n(.*?)```", section[1], re.DOTALL)[0]


@pytest.fixture
def plugin(tmp_path):
    def write(text: str, name: str = "mine.py") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def registering(kind: str, body: str, before: str = "") -> str:
    return f"import harness\n{before}\n\n@harness.hookimpl\ndef register_{kind}(register):\n    register({body})\n"


@pytest.mark.parametrize("kind", KINDS)
def test_the_plugin_that_the_docs_show_keeps_its_laws(kind, plugin):
    if kind in HEAVY:
        pytest.importorskip("torch")
    report = check(plugin(shown(kind)))
    assert report.broken == []
    tried = [one for one in report.findings if one.kind == kind.removesuffix("s") and one.outcome == "kept"]
    assert tried or kind == "shapes"  # of which the docs show one without data


ROWS = """
import itertools
from pathlib import Path
{before}
def convert(row, options):
    {body}
SOURCE = Path(__file__).with_name("rows.jsonl")
"""
EVALUATION = """
class Options(harness.Options):
    pass
def items(options, context):
    for number in range(3):
        asked = harness.Request((harness.Message("user", f"What is {{number}}?"),))
        yield harness.EvaluationItem({id}, (asked,), target=str(number))
def score(item, answers):
    return {{"exact": {score}}}
"""
OBJECTIVE = """
class Options(harness.Options):
    pass
def loss(policy, batch, options):
    {body}
def units(batch):
    return {{"tokens": batch.supervised}}
"""
METHOD = """
class Options(harness.Options):
    pass
def apply(model, options):
    {apply}
def save(model, folder):
    {save}
"""
TEMPLATE = """
SOURCE = {source!r}
def jinja(tokenizer, options):
    return SOURCE
def stop_tokens(tokenizer):
    return (tokenizer.eos_token,)
"""
TRACKER = """
class Options(harness.Options):
    pass
def create(options):
    {body}
"""
OF = {
    "datasets": "harness.Dataset('x', 'rows', convert, SOURCE, licence='CC0-1.0', fields=(('question', 'answer'),))",
    "evaluations": "harness.Evaluation('x', 'sums', Options, items=items, score=score)",
    "objectives": "harness.Objective('x', 'a loss', Options, loss, units)",
    "methods": "harness.Method('x', 'weights', Options, apply, save, 'adapter')",
    "templates": "harness.Template('x', 'a template', jinja, stop_tokens)",
    "trackers": "harness.Tracker('x', 'follows', Options, create)",
    "filters": "harness.Filter('x', 'leaves out', Options, create)",
}
PAIR = "harness.Conversation.of(('user', row['question']), ('assistant', {answer}))"
LORA = (
    "import peft; return peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=['q_proj']), "
    "autocast_adapter_dtype=False)"
)
ENDLESS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
BROKEN = {
    "rows that are no items": ("datasets", ROWS.format(before="", body="return 3"), "rows are valid: .*gave 3"),
    "rows by chance": (
        "datasets",
        ROWS.format(before="NUMBERS = itertools.count()", body=f"return {PAIR.format(answer='str(next(NUMBERS))')}"),
        "rows are the same each time: item 1 is another at the second reading",
    ),
    "a listing that reads": (
        "datasets",
        ROWS.format(before="Path(__file__).with_name('rows.jsonl').read_text()", body="return None"),
        "listing reads nothing: loading the plugin read",
    ),
    "an id given twice": (
        "evaluations", EVALUATION.format(id="'same'", score="1.0"), "ids are unique .*: the item ids same are given"
    ),
    "a score by chance": (
        "evaluations",
        "import itertools\nN = itertools.count()\n" + EVALUATION.format(id="str(number)", score="float(next(N))"),
        "equal answers score alike: the same answers have other scores",
    ),
    "a score that is no number": (
        "evaluations", EVALUATION.format(id="str(number)", score="float('nan')"), "exact.* expected .*finite number"
    ),
    "a tracker that raises": (
        "trackers",
        TRACKER.format(body="return lambda event: event.metrics"),
        r"every event is received: AttributeError: .*\(mine.py:\d+\)",
    ),
    "a tracker that is none": ("trackers", TRACKER.format(body="pass"), "create returned None, expected a function"),
    "a filter with another verdict": (
        "filters", TRACKER.format(body="return lambda item: True"), "any item gets a verdict: it gave True"
    ),
    "a filter with a memory of its own": (
        "filters",
        "SEEN = []\n" + TRACKER.format(body="return lambda item: SEEN.append(1) or (len(SEEN) > 19 and 'x') or None"),
        "passes agree: the second pass judges",
    ),
    "a command without help": ("commands", "click.Command('mute')", "it has help: `harness mute` has no help"),
}  # fmt: skip
BROKEN_TENSORS = {
    "a mean": (
        "objectives",
        OBJECTIVE.format(body="return harness.Loss({'tokens': harness.Term(-policy.logprobs(batch).mean())})"),
        "terms are sums: .*'tokens' of a batch is",
    ),
    "a forgotten shift": (
        "objectives",
        OBJECTIVE.format(
            body="return harness.Loss({'tokens': harness.Term(policy.last_hidden(batch).flatten(0, 1)"
            "[batch.targets.source + 1].sum())})"
        ),
        "it sees no further than its predictions: .*tokens behind the last prediction",
    ),
    "no gradient": (
        "objectives",
        OBJECTIVE.format(body="return harness.Loss({'tokens': harness.Term(policy.logprobs(batch).sum() * 0)})"),
        "its gradient has the norm 0",
    ),
    "a number instead of a loss": ("objectives", OBJECTIVE.format(body="return 0.5"), "loss returned 0.5"),
    "a method that returns nothing": ("methods", METHOD.format(apply="pass", save="pass"), "apply returned None"),
    "a method that saves nothing": ("methods", METHOD.format(apply=LORA, save="pass"), "save wrote none"),
    "a method that saves a whole model": (
        "methods",
        METHOD.format(apply="return model", save="model.save_pretrained(str(folder))"),
        "That looks like a model",
    ),
    "a template without ends": ("templates", TEMPLATE.format(source=ENDLESS), "binds on every vocabulary: on the"),
}
IMPORTS = {"commands": "import click"}


@pytest.mark.parametrize("case", [*BROKEN, *BROKEN_TENSORS])
def test_a_broken_plugin_is_told_which_law_it_breaks(case, plugin, write_rows):
    if case in BROKEN_TENSORS:
        pytest.importorskip("torch")
    kind, before, reason = (BROKEN | BROKEN_TENSORS)[case]
    write_rows({"question": "Who?", "answer": "The heron."}, {"question": "Where?", "answer": "Here."})
    body, before = (before, "import click") if kind == "commands" else (OF[kind], before)
    with pytest.raises(AssertionError, match=re.compile(reason, re.DOTALL)):
        check(plugin(registering(kind, body, before)))


def test_a_law_that_only_may_be_broken_is_doubtful(plugin, write_rows):
    write_rows({"question": "Who?", "answer": "The heron."})
    body = f"return {PAIR.format(answer=repr('Nobody'))}"
    path = plugin(registering("datasets", OF["datasets"], ROWS.format(before="", body=body)))
    (finding,) = [one for one in check(path).findings if one.outcome == "doubtful"]
    assert finding.law == "text is kept" and "'The heron.' of the field 'answer'" in finding.message
    with pytest.raises(AssertionError, match="text is kept"):
        check(path, strict=True)


def test_the_command_reports_like_a_linter_and_fails_for_what_is_broken(plugin, harness_here):
    good = harness_here("plugins check", plugin(shown("filters"), "fine.py"))
    assert good.code == 0 and "filter shouting" in good.out and "any item gets a verdict" in good.out
    assert re.search(r"its import is quick: \d\.\d\d s", good.out)
    bad = harness_here("plugins check --json", plugin(registering("commands", "click.Command('m')", "import click")))
    report = json.loads(bad.out)
    assert bad.code == 1 and report["broken"] == 1 and report["plugin"] == "mine"
    assert {"kind": "command", "name": "m", "law": "it has help", "outcome": "broken"}.items() <= next(
        one for one in report["findings"] if one["outcome"] == "broken"
    ).items()


def test_a_plugin_that_does_not_load_is_reported(plugin, harness_here):
    done = harness_here("plugins check", plugin("import nowhere"))
    assert done.code == 1 and "No module named 'nowhere'" in done.out and "Traceback" not in done.err


def test_a_name_that_no_plugin_has_is_answered_with_the_nearest(harness_here):
    done = harness_here("plugins check template")
    assert done.code == 1 and "no plugin is named 'template'. Did you mean" in done.err


def test_a_required_option_is_asked_for(plugin, harness_here):
    text = TRACKER.format(body="return lambda event: None").replace("pass", "colour: str", 1)
    path = plugin(registering("trackers", OF["trackers"], text))
    assert "`--set x.colour=VALUE`" in harness_here("plugins check", path).out
    assert "1 not tried" not in harness_here("plugins check --set x.colour=red", path).out


def test_the_time_of_an_import_names_what_takes_it(plugin, tmp_path):
    (tmp_path / "slowlib.py").write_text("import time\ntime.sleep(0.05)\n")
    path = plugin(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nimport slowlib\n")
    seconds, packages, changed = import_times(str(path))
    assert seconds >= 0.05 and packages["slowlib"] >= 0.05 and changed == ["`sys.path`"]


DISTURBS = {
    "the working folder (/)": "import os\nos.chdir('/')",
    "signal handlers": "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)",
    "the seed of `random`": "import random\nrandom.seed(0)",
    "torch's default dtype (torch.float64), torch's seed (7)": (
        "import torch\ntorch.set_default_dtype(torch.float64)\ntorch.manual_seed(7)"
    ),
    "the default timeout of sockets (3.0)": "import socket\nsocket.setdefaulttimeout(3.0)",
}
MAY_BE_MEANT = {
    "filters of all warnings": "import warnings\nwarnings.filterwarnings('ignore')",
    "environment variables": "import os\nos.environ['OMP_NUM_THREADS'] = '1'",
    "the level of all logs (40)": "import logging\nlogging.getLogger().setLevel('ERROR')",
}


@pytest.mark.parametrize("what", [*DISTURBS, *MAY_BE_MEANT])
def test_a_plugin_that_changes_the_process_for_everybody_is_told(what, plugin, harness_here, monkeypatch):
    if "torch" in what:
        pytest.importorskip("torch")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    path = plugin((DISTURBS | MAY_BE_MEANT)[what] + "\n")
    assert ", ".join(import_times(str(path))[2]) == what


def test_the_check_reports_it(plugin, harness_here):
    path = plugin("import random\nrandom.seed(0)\n" + shown("filters"))
    done = harness_here("plugins check", path)
    assert done.code == 1 and "its import changes nothing else: it changes the seed of `random`: do that" in done.out
    path.write_text("import os\nos.environ['OMP_NUM_THREADS'] = '3'\n" + shown("filters"))
    assert "it changes environment variables: do that" in harness_here("plugins check", path).out


def test_a_fake_backend_answers_as_it_is_told():
    from harness.contract import Request

    backend = FakeBackend(lambda request: str(request.prompt).upper())
    assert [(index, answer.text) for index, answer in backend.ask([Request("a"), Request("b")])] == [(0, "A"), (1, "B")]
