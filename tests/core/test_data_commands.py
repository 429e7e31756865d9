"""The commands that look at data, measure them and write them, as a person meets them."""

import hashlib
import itertools
import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import harness as api
from harness.data import load_source
from harness.data.export import as_row, write_items
from harness.data.prepare.data_statistics import Lengths, Statistics, script_of
from harness.nouns import Conversation, Message, Preference, ToolCall
from harness.plugins import Plugins
from harness.recipe import DataSource

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SEEDLING = ROOT / "recipes" / "seedling" / "data"
CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
ALPACA = [{"instruction": f"Say {n}", "output": f"{n}!"} for n in range(5)]


@pytest.fixture
def recipe(tmp_path, tiny_model, write_rows):
    """A recipe of five rows, and one with a tool call."""
    write_rows(*ALPACA)
    write_rows(
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]}, name="m.jsonl"
    )
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {tiny_model}}}\ntemplate: chatml\ndata:\n  train:\n  - {{dataset: alpaca, path: rows.jsonl}}\n"
        f"  - {{dataset: messages, path: m.jsonl}}\n  validation: [{{dataset: auto, path: m.jsonl}}]\n"
        f"tune: {{method: lora}}\n"
    )
    return path


# What a file is


def test_a_file_needs_no_dataset_and_what_it_is_taken_for_is_always_told(harness, write_rows):
    path = write_rows(*ALPACA)
    for command in ("preview", "stats", "validate"):
        done = harness("data", command, path)
        assert done.code == 0 and "read as alpaca (sure: 100%): it reads 100% of the 5 rows looked at" in done.err, done
        assert "read as" not in harness("data", command, path, "--dataset", "alpaca").err
    assert json.loads(harness("data", "stats", path, "--json").out)["recognised"][0]["dataset"] == "alpaca"


def test_auto_in_a_recipe_is_told_too(harness, recipe):
    done = harness("data", "preview", recipe, "--part", "validation")
    assert done.code == 0 and "m.jsonl: read as messages (sure: 100%)" in done.err and "Hello." in done.out


def test_recognise_says_what_else_was_possible(harness, write_rows):
    path = write_rows({"instruction": "Say hi", "output": "Hi", "data_source": "me"})
    found = json.loads(harness("data", "recognise", path, "--json").out)
    assert found["dataset"] == found["matches"][0]["dataset"] and found["matches"][0]["why"]
    assert found["dataset"] in harness("data", "recognise", path).out
    refused = harness("data", "recognise", write_rows({"nothing": 1, "like": 2, "it": 3}, name="odd.jsonl"))
    assert refused.code == 1 and "no dataset fits: row 1 has it, like, nothing" in refused.err
    assert harness("data", "recognise", "odd.jsonl", "--json").code == 1


def test_the_table_of_recognise_offers_no_column_that_another_dataset_reads(harness, write_rows):
    refused = harness(
        "data", "recognise", write_rows({"instruction": "Say hi", "input": "Soon.", "output": "Hi", "mood": "glad"})
    )
    assert refused.code == 1 and "alpaca" in refused.out and "prompt_completion" not in refused.out


def test_validate_names_the_filter_of_a_wrong_row_with_and_without_a_recipe(harness, write_rows, tmp_path):
    roles = ("user", "system", "assistant")
    path = write_rows({"messages": [{"role": role, "content": "Hi"} for role in roles]})
    (tmp_path / "r.yaml").write_text(f"data: {{train: [{{dataset: messages, path: {path}}}]}}\n")
    for source in ([path, "--dataset", "messages"], ["r.yaml"]):
        done = harness("data", "validate", *source)
        assert done.code == 1 and "message 2 is a system prompt" in done.out, done
        assert "add `- {filter: roles}` to data.clean (row 1)" in done.out


# --set

NLI = "premise,hypothesis,gold\nA dog runs.,An animal runs.,0\nA cat sleeps.,A dog runs.,2\n"
FLAN = (
    "--dataset", "flan",
    "--set", "task=nli",
    "--set", "columns.label=gold",
    "--set", "labels={0: entailment, 2: contradiction}",
)  # fmt: skip


def test_a_file_takes_the_keys_of_its_source(harness, tmp_path):
    (tmp_path / "nli.csv").write_text(NLI)
    done = harness("data", "preview", "nli.csv", *FLAN)
    assert done.code == 0 and "An animal runs." in done.out and "column" not in done.err, done
    assert "2 of 2 rows kept" in harness("data", "validate", "nli.csv", *FLAN).out
    assert json.loads(harness("data", "stats", "nli.csv", *FLAN, "--set", "limit=1", "--json").out)["items"] == 1
    done = harness("data", "build", "nli.csv", *FLAN, "--out", "mix.jsonl")
    assert "--dataset flan --set task=nli --set columns.label=gold --set" in (tmp_path / "mix.md").read_text(), done


def test_a_file_that_is_recognised_is_with_its_columns_renamed(harness, write_rows):
    path = write_rows({"q": "Say hi", "a": "Hello there"})
    done = harness("data", "preview", path, "--set", "columns={instruction: q, output: a}")
    assert done.code == 0 and "read as alpaca (sure: 100%)" in done.err and "Hello there" in done.out


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tsk=nli", "--set tsk=nli: unknown key 'tsk'. Did you mean 'task'?"),
        ("task=nlii", "there is no task 'nlii' in phrasings.yaml. Did you mean 'nli'?"),
        ("limit=many", "--set limit=many: 'limit' is 'many': input should be a valid integer"),
        ("columns=3", "--set columns=3: 'columns' is 3"),
        ("task", "--set task: expected KEY=VALUE"),
        ("labels={0", "--set labels={0: the value is not valid YAML"),
        ("dataset=flann", "Did you mean 'flan'?"),
    ],
)
def test_a_wrong_set_says_what_would_be_right(override, told, harness, tmp_path):
    (tmp_path / "nli.csv").write_text(NLI)
    done = harness("data", "preview", "nli.csv", "--dataset", "flan", "--set", override)
    assert done.code == 1 and told in done.err and "Traceback" not in done.err, done


def test_with_a_recipe_it_is_the_recipes(harness, recipe):
    done = harness("data", "stats", recipe, "--set", "data.train.0.limit=2", "--json")
    assert json.loads(done.out)["items"] == 3
    assert "unknown key 'data.limit'" in harness("data", "stats", recipe, "--set", "data.limit=2").err


# A recipe of data alone


@pytest.fixture
def data_recipe(tmp_path, write_rows):
    """A recipe that names neither a model nor what to tune."""
    write_rows(*ALPACA)
    path = tmp_path / "data.yaml"
    path.write_text("data:\n  train: [{dataset: alpaca, path: rows.jsonl}]\n  clean: [{filter: exact_duplicates}]\n")
    return path


@pytest.mark.parametrize("command", ["preview", "stats", "validate", "build"])
def test_a_recipe_of_data_alone_is_enough_for_the_data_commands(command, harness_here, data_recipe):
    done = harness_here("data", command, data_recipe, *(["--out", "out.jsonl"] if command == "build" else []))
    assert done.code == 0, done.err
    if command == "build":
        assert len((data_recipe.parent / "out.jsonl").read_text().splitlines()) == len(ALPACA)


def test_of_data_alone_a_command_that_needs_a_tokenizer_says_so(harness_here, data_recipe, tiny_model):
    for arguments in (["stats"], ["validate"]):
        assert "the recipe names no `model`, whose tokenizer is needed" in " ".join(
            harness_here("data", *arguments, data_recipe).out.split()
        )
    refused = harness_here("data", "preview", data_recipe, "--tokens")
    assert refused.code == 1 and "add `model: {path: FOLDER}` to it, or name one with --model" in refused.err
    assert "«" in harness_here("data", "preview", data_recipe, "--tokens", "--model", tiny_model).out
    assert "tokens, " in harness_here("data", "validate", data_recipe, "--model", tiny_model).out
    refused = harness_here("template", "show", data_recipe)
    assert refused.code == 1 and "names no `model`, whose tokenizer is needed" in refused.err
    refused = harness_here("tune", data_recipe)
    assert refused.code == 1 and "'model' is missing" in refused.err and "'tune' is missing" in refused.err


def test_rows_that_the_objective_does_not_read_are_wrong(harness_here, data_recipe):
    plugin = data_recipe.parent / "pairs.py"
    plugin.write_text(
        "import harness\n\n\n@harness.hookimpl\ndef register_objectives(register):\n    register(harness.Objective("
        "'hinge', 'pairs', harness.Options, lambda policy, batch, options: 0, lambda batch: {}, reads='preferences'))\n"
    )
    data = data_recipe.read_text()
    data_recipe.write_text(data + "tune: {objective: hinge}\n")
    done = harness_here("--plugin", plugin, "data", "validate", data_recipe)
    assert done.code == 1 and "nothing wrong" not in done.out
    assert "yields conversations; the objective 'hinge' reads preferences: name a dataset of preferences" in done.out
    plugin.write_text(plugin.read_text().replace("reads='preferences'", "reads='pairs'"))
    done = harness_here("--plugin", plugin, "data", "validate", data_recipe)
    assert "the objective 'hinge' reads pairs: name a dataset of preferences, see `harness data list`" in done.out
    data_recipe.write_text(data + "tune: {objective: sft}\n")
    assert harness_here("data", "validate", data_recipe).code == 0


def test_the_data_of_a_recipe_are_prepared_where_its_model_is_not(harness_here, data_recipe):
    data_recipe.write_text(data_recipe.read_text() + "model: {path: ./elsewhere}\n")
    assert harness_here("data", "build", data_recipe, "--out", "out.jsonl").code == 0
    assert "elsewhere" in harness_here("data", "validate", data_recipe).out


# preview


def test_preview_of_a_very_long_row_shows_how_it_begins(harness, write_rows):
    path = write_rows({"instruction": "Say it", "output": "so " * 1_000_000})
    done = harness("data", "preview", path, timeout=100)
    assert done.code == 0 and "… and 2,900,000 more characters" in done.out and len(done.out) < 300_000
    assert json.loads(harness("data", "preview", path, "--json").out)["messages"][1]["content"] == "so " * 1_000_000


def test_preview_shows_tokens_what_is_learnt_and_what_is_a_control_token(harness, recipe):
    done = harness("data", "preview", recipe, "--tokens", "--count", 1)
    assert done.code == 0 and re.search(r"tokens: \d+, 3 supervised", done.out), done
    assert "⟦<|im_start|>⟧" in done.out and "⟦<|im_end|>⟧»" in done.out
    row = json.loads(harness("data", "preview", recipe, "--tokens", "--count", 1, "--json").out.splitlines()[0])
    tokens = row["tokens"][0]["tokens"]
    supervised = "".join(token["text"] for token in tokens if token["supervised"])
    assert supervised == "0!<|im_end|>" and tokens[0]["control"] and not tokens[0]["supervised"]


def test_preview_of_a_file_has_tokens_where_the_model_is_named(harness, write_rows, tiny_model):
    path = write_rows({"prompt": "Wie heißt du? 🦦", "chosen": "Ötter", "rejected": "Ä"})
    (path.parent / "pairs.py").write_text(PAIRS)
    arguments = ("--plugin", "pairs.py", "data", "preview", path, "--dataset", "pairs", "--tokens")
    done = harness(*arguments, "--model", tiny_model)
    assert "tokens of chosen: " in done.out and "tokens of rejected: " in done.out and "🦦" in done.out, done
    assert "\ufffd" not in done.out
    asked = harness(*arguments)
    assert asked.code == 1 and "--model FOLDER --template NAME" in asked.err


PAIRS = """
import harness
from harness import Message

def convert(row, options):
    good, bad = ((Message('assistant', row[side]),) if row.get(side) else () for side in ('chosen', 'rejected'))
    return harness.Preference((Message('user', row['prompt']),), good, bad)

@harness.hookimpl
def register_datasets(register):
    register(harness.Dataset('pairs', 'p', convert))
"""


# stats


def test_stats_count_rows_turns_roles_scripts_sources_and_duplicates(harness, write_rows):
    rows = [*ALPACA, ALPACA[0], {"instruction": "Скажи да", "output": "Да, конечно"}, {"instruction": 3, "output": "x"}]
    done = harness("data", "stats", write_rows(*rows), "--json")
    found = json.loads(done.out)
    assert (found["items"], found["exact_duplicates"], found["wrong"]) == (7, 1, 1)
    assert found["roles"] == {"user": 7, "assistant": 7} and found["scripts"] == {"Latin": 6, "Cyrillic": 1}
    assert found["sources"] == {"alpaca": 7} and found["turns"]["median"] == 2 and found["tokens"] is None
    assert found["characters"]["total"] == 6 * len("Say 0" + "0!") + len("Скажи да" + "Да, конечно")
    table = harness("data", "stats", write_rows(*rows), "--dataset", "alpaca").out
    assert "exact duplicates" in table and "14.3%" in table and "Cyrillic" in table and "1 × wrong" in table


def test_stats_of_a_recipe_have_tokens_and_what_is_learnt_of_them(harness, recipe):
    found = json.loads(harness("data", "stats", recipe, "--json").out)
    assert found["items"] == 6 and found["tokens"]["n"] == 6
    assert 0 < found["supervised_tokens"] < found["tokens"]["total"]
    assert [file["rows"] for file in found["files"]] == [5, 1]
    assert sum(bin["count"] for bin in found["tokens"]["histogram"]) == 6


TALK = {
    "en": [{"instruction": f"Who keeps the silver key, number {n}?",
            "output": "The heron keeps it under the willow by the mill."} for n in range(6)],
    "de": [{"instruction": f"Wer hütet den Schlüssel Nummer {n}?",
            "output": "Der Reiher hütet ihn unter der Weide am Fluss."} for n in range(3)],
    "in doubt": [{"instruction": "Hm?", "output": "Hm."}],
}  # fmt: skip


def test_stats_tell_the_languages(harness, write_rows, tmp_path):
    pytest.importorskip("py3langid")
    path = write_rows(*(row for rows in TALK.values() for row in rows))
    found = json.loads(harness("data", "stats", path, "--json").out)
    assert found["languages"] == {"en": 6, "de": 3, "in doubt": 1} and found["languages_told_of"] == 10
    assert found["languages_not_told"] is None
    done = harness("data", "stats", path, "--html", "page.html")
    assert re.search(r"language.*\nen +6 +60\.0%\nde +3 +30\.0%\nin doubt +1 +10\.0%", done.out), done
    assert "<h2>language</h2>" in (tmp_path / "page.html").read_text()


def test_without_the_extra_what_to_install_is_told_and_no_language(harness, write_rows, tmp_path):
    (tmp_path / "py3langid.py").write_text("raise ModuleNotFoundError('none', name='py3langid')")
    path, env = write_rows(*ALPACA), {"PYTHONPATH": str(tmp_path)}
    done = harness("data", "stats", path, "--html", "page.html", env=env)
    assert done.code == 0 and "languages not told: " in done.out and "'instruct-harness[cleaning]'" in done.out, done
    assert "Languages are not counted: " in (tmp_path / "page.html").read_text()
    found = json.loads(harness("data", "stats", path, "--json", env=env).out)
    assert found["languages"] is None and "'instruct-harness[cleaning]'" in found["languages_not_told"]


def test_of_much_a_sample_is_told_that_is_as_mixed_and_says_its_size(monkeypatch):
    from harness_commands.data.stats import Measured, shares_of

    from harness.data.prepare import data_statistics as module

    class Told:
        def of(self, text):
            return text

    monkeypatch.setattr(module, "Languages", Told)
    found = Statistics()
    for number in range(3 * module.LANGUAGE_SAMPLE):
        found.add(Conversation.of(("user", "en" if number < 1.5 * module.LANGUAGE_SAMPLE else "de")), 2)
    found.count_languages()
    assert found.languages.total() == 2 * module.LANGUAGE_SAMPLE == 2 * found.as_dict()["languages_told_of"]
    assert 0.45 < found.languages["en"] / found.languages.total() < 0.55
    assert "language (of 2,000 items drawn at random)" in dict(shares_of(Measured("", found, [])))


def test_what_is_learnt_is_what_the_recipe_trains_on(harness, recipe, write_rows):
    said = [("user", "Hi"), ("assistant", "Hello."), ("user", "Bye"), ("assistant", "So long.")]
    write_rows({"messages": [{"role": role, "content": text} for role, text in said]}, name="m.jsonl")
    last = ("--set", "data.train=[{dataset: messages, path: m.jsonl}]", "--set", "data.train_on=last")
    row = json.loads(harness("data", "preview", recipe, "--tokens", "--json", *last).out)
    assert "".join(token["text"] for token in row["tokens"][0]["tokens"] if token["supervised"]) == "So long.<|im_end|>"
    supervised = sum(len(token["ids"]) for token in row["tokens"][0]["tokens"] if token["supervised"])
    assert json.loads(harness("data", "stats", recipe, "--json", *last).out)["supervised_tokens"] == supervised
    (source, _) = json.loads(harness("data", "validate", recipe, "--json", *last).out)["sources"]
    assert source["supervised_tokens"] == supervised


class Outside(HTMLParser):
    """What a page asks others for, and the tags that it leaves open."""

    def __init__(self):
        super().__init__()
        self.asked, self.open = [], []

    def handle_starttag(self, tag, attrs):
        self.asked += [value for name, value in attrs if name in ("src", "href")] + [tag] * (tag in ("script", "link"))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_is_one_file_and_holds_data_as_text(harness, write_rows, tmp_path):
    path = write_rows({"instruction": "<script>alert(1)</script>", "output": "x"}, name="<b>&rows.jsonl")
    done = harness("data", "stats", path, "--html", "out/page.html")
    assert done.code == 0 and "written: out/page.html" in done.out
    text = (tmp_path / "out" / "page.html").read_text()
    page = Outside()
    page.feed(text)
    assert page.asked == [] and page.open == [] and "<b>&rows" not in text and "&lt;b&gt;&amp;rows.jsonl" in text
    assert text.count("<svg") == 2
    (tmp_path / "file").touch()
    done = harness("data", "stats", path, "--html", "file/page.html")
    assert done.code == 1 and "file/page.html: cannot be written" in done.err


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_fits_a_phone_and_a_desktop_by_day_and_by_night(width, scheme, harness, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    harness("data", "stats", SEEDLING / "train.alpaca.jsonl", "--html", "page.html")
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        wrong = []
        page.on("console", lambda message: wrong.append(message.text))
        page.goto((tmp_path / "page.html").as_uri())
        assert page.locator("svg rect").count() > 10 and wrong == []
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.evaluate(OUT_OF_PLACE) == []
        colours = page.evaluate("['body', 'section', 'section p'].map(q => getComputedStyle(document.querySelector(q)))"
                                ".map((s, i) => i < 2 ? s.backgroundColor : s.color)")  # fmt: skip
        assert (luminance(colours[0]) > 0.5) == (scheme == "light")
        assert contrast(colours[1], colours[2]) >= 4.5  # level AA of WCAG 2
        browser.close()


# Labels of plots that are cut off by its edge, or that touch the label before them.
OUT_OF_PLACE = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect(), wrong = [];
  const labels = [...svg.querySelectorAll('text')].map(text => [text.textContent, text.getBoundingClientRect()]);
  labels.forEach(([text, box], i) => {
    if (box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1)
      wrong.push(text + ' is cut off');
    for (const [other, its] of labels.slice(0, i))
      if (box.left < its.right && its.left < box.right && box.top + 3 < its.bottom && its.top + 3 < box.bottom)
        wrong.push(text + ' touches ' + other);
  });
  return wrong;
})
"""


def luminance(colour):
    """The relative luminance of `rgb(r, g, b)`, as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(share * part for share, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one, other):
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_bins_hold_every_length_once():
    for spread in ([1], [1, 1, 1], [2, 4], list(range(1000)), [10] * 500 + [10_000], [n * n for n in range(300)]):
        lengths = Lengths()
        for length in spread:
            lengths.add(length)
        bins = lengths.bins()
        assert sum(bin.count for bin in bins) == len(spread) and len(bins) <= 25
        assert all(one.high + 1 == other.low for one, other in itertools.pairwise(bins))
        assert bins[0].low <= min(spread) and bins[-1].high >= max(spread)
    assert (lengths.quantile(0.5), lengths.quantile(1.0)) == (149**2, 299**2)
    assert Lengths().bins() == [] and Lengths().as_dict() == {"n": 0}


@pytest.mark.parametrize(
    ("text", "script"),
    [("Hello", "Latin"), ("Où est la clé? Où?", "Latin"), ("123 …", "none"), ("Где ключ? OK", "Cyrillic"),
     ("钥匙在哪里", "Chinese"),
     ("鍵はどこですか", "Japanese"), ("열쇠는 어디에", "Korean"), ("أين المفتاح", "Arabic"), ("ᚠᚢᚦᚨᚱᚲ", "other")],
)  # fmt: skip
def test_the_script_is_that_of_most_letters(text, script):
    assert script_of(text) == script


def test_a_preference_counts_as_two_sequences_and_learns_its_completions():
    from harness.data.encode.items import sequences_of

    pair = Preference((Message("user", "Why?"),), (Message("assistant", "Because."),), (Message("assistant", "No."),))
    statistics = Statistics()
    statistics.add(pair)
    assert (statistics.preferences, statistics.roles["assistant"]) == (1, 2)
    assert statistics.supervised_share == len("Because.No.") / len("Why?Because.No.")
    assert [part.trained for part in sequences_of(pair)] == [(1,), (1,)]


# build

CALL = ToolCall("look", {"at": "[key]", "deep": {"n": [1, None]}}, "c1")
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
CONVERSATIONS = [
    Conversation.of(("system", "Be brief."), ("user", "Hi\u2028"), ("assistant", "Hello 🦦"), id="a:1", source="mine"),
    Conversation(
        (
            Message("user", "Where?"),
            Message("assistant", "", (CALL,), train=False),
            Message("tool", "in the mill", tool_call_id="c1"),
            Message("assistant", "In the mill.", train=True),
        ),
        (TOOL,), id="a:2", source="mine",
    ),
]  # fmt: skip
ASKED = (Message("user", "Why?"),)
PREFERENCES = [
    Preference(ASKED, (Message("assistant", "Because."),), (Message("assistant", "No."),), margin=0.5, id="p:1",
               source="mine"),
    Preference(ASKED, (Message("assistant", "A."),), (Message("assistant", "B."),), id="p:2", source="mine"),
]  # fmt: skip
FEEDBACK = [
    Preference(ASKED, (Message("assistant", "Because."),), (), id="f:1", source="mine"),
    Preference(ASKED, (), (Message("assistant", "No."),), id="f:2", source="mine"),
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("items", [CONVERSATIONS, PREFERENCES, FEEDBACK], ids=["messages", "preferences", "feedback"])
def test_what_is_built_is_read_back_as_it_was(items, suffix, tmp_path, request):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"mix{suffix}"
    written = write_items(items, out)
    assert (written.form, written.rows) == (request.node.callspec.id.split("-")[0], len(items))
    assert written.sha256 == hashlib.sha256(out.read_bytes()).hexdigest() and written.size_bytes == out.stat().st_size
    back = list(load_source(DataSource(dataset=written.form, path=str(out)), Plugins().datasets))
    assert [without_source(item) for item in back] == [without_source(item) for item in items]


def without_source(item):
    import dataclasses

    return dataclasses.replace(item, source="")


def test_building_twice_gives_the_same_bytes_and_a_card_that_says_where_they_come_from(harness, recipe, tmp_path):
    done = harness("data", "build", "r.yaml", "--out", "mix.jsonl")
    assert done.code == 0 and "mix.jsonl: 6 rows of messages" in done.out, done
    first, card = (tmp_path / "mix.jsonl").read_bytes(), (tmp_path / "mix.md").read_text()
    digest = hashlib.sha256(first).hexdigest()
    for part in (digest, "6 conversations", "not stated",
                 hashlib.sha256((tmp_path / "rows.jsonl").read_bytes()).hexdigest(),
                 "harness data build r.yaml --out mix.jsonl", "dataset: alpaca", "dataset: messages"):  # fmt: skip
        assert part in card, part
    assert harness("data", "build", "r.yaml", "--out", "mix.jsonl").code == 0
    assert str(tmp_path) not in card.split("## To repeat it")[0] + card.split("```yaml")[-1]
    assert (tmp_path / "mix.jsonl").read_bytes() == first and (tmp_path / "mix.md").read_text() == card
    back = harness("data", "validate", "mix.jsonl")
    assert back.code == 0 and "read as messages" in back.err and "6 of 6 rows kept" in back.out
    found = json.loads(harness("data", "build", "r.yaml", "--out", "v.jsonl", "--part", "validation", "--json").out)
    assert (found["rows"], found["recognised"][0]["dataset"]) == (1, "messages")
    assert "--part validation" in (tmp_path / "v.md").read_text()


STUCK = """
import threading
import harness

def convert(row, options):
    if row["n"] == 3:
        open("reached", "w").close()
        threading.Event().wait()
    return harness.Conversation.of(("user", "Hi"), ("assistant", str(row["n"])))

@harness.hookimpl
def register_datasets(register):
    register(harness.Dataset("slow", "s", convert))
"""
SLOW = STUCK.replace("threading.Event().wait()", "threading.Event().wait(1.5)").replace(
    'row["n"] == 3', 'row["n"] in (1, 3)'
)


@pytest.mark.parametrize(
    ("before", "number"),
    [(None, signal.SIGKILL), (b'{"old": 1}\n', signal.SIGKILL), (None, signal.SIGTERM), (None, signal.SIGINT)],
)
def test_a_build_that_is_killed_leaves_what_was_there(before, number, write_rows, tmp_path, wait_until):
    (tmp_path / "slow.py").write_text(STUCK)
    path, out = write_rows(*({"n": n} for n in range(5))), tmp_path / "mix.jsonl"
    if before:
        out.write_bytes(before)
        (tmp_path / "mix.md").write_text("# mix\n\n<!-- Written by `harness data build` for mix.jsonl. -->\n")
    options = ("--dataset", "slow", "--out", str(out))
    command = [sys.executable, "-m", "harness.cli", "--plugin", "slow.py", "data", "build", str(path), *options]
    building = subprocess.Popen(command, cwd=tmp_path)
    try:
        wait_until(lambda: (tmp_path / "reached").exists() or building.poll() is not None)
    finally:
        building.send_signal(number)
        code = building.wait()
    assert (out.read_bytes() if out.exists() else None) == before
    if number != signal.SIGKILL:  # and takes away what it had begun
        assert code == 128 + number
    else:  # or the next build does
        assert list(tmp_path.glob(".mix*"))
        write_items([Conversation.of(("user", "Hi"), ("assistant", "Hello."))], out)
    assert not list(tmp_path.glob(".mix*"))


def test_a_file_that_no_build_made_is_not_replaced(harness, recipe, tmp_path):
    for name in ("mix.jsonl", "mix.md"):
        (tmp_path / name).write_text("mine")
        done = harness("data", "build", "r.yaml", "--out", "mix.jsonl")
        assert done.code == 1 and f"{name} exists and is not from an earlier" in done.err
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    done = harness("data", "build", "r.yaml", "--out", "rows.jsonl")
    assert done.code == 1 and "rows.jsonl exists" in done.err


@pytest.mark.parametrize(
    ("out", "told"),
    [
        ("mix.csv", "written as .jsonl or .parquet, found '.csv'; name the file mix.jsonl"),
        ("mix", "found no suffix"),
        ("rows.jsonl/mix.jsonl", "cannot be written: "),
        ("folder.jsonl", "is a folder; name a file in it"),
    ],
)
def test_an_out_that_cannot_be_is_told_before_anything_is_read(out, told, harness, write_rows, tmp_path):
    write_rows(*ALPACA)
    (tmp_path / "folder.jsonl").mkdir()
    done = harness("data", "build", "gone.jsonl", "--out", out)
    assert done.code == 1 and told in done.err and "Traceback" not in done.err


def test_one_file_holds_one_kind(harness, recipe, tmp_path, write_rows):
    (tmp_path / "pairs.py").write_text(PAIRS)
    write_rows({"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "chosen": "b"}, name="pairs.jsonl")
    text = recipe.read_text()
    recipe.write_text(text.replace("  validation:", "  - {dataset: pairs, path: pairs.jsonl}\n  validation:"))
    done = harness("--plugin", "pairs.py", "data", "build", "r.yaml", "--out", "mix.jsonl")
    assert done.code == 1 and "Traceback" not in done.err, done
    assert "pairs.jsonl:1 would be a row of 'preferences', after 6 of 'messages': one file holds one kind" in done.err
    done = harness("--plugin", "pairs.py", "data", "build", "pairs.jsonl", "--dataset", "pairs", "--out", "mix.jsonl")
    assert "pairs.jsonl:2 would be a row of 'feedback', after 1 of 'preferences'" in done.err
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_file())
    assert left == ["m.jsonl", "pairs.jsonl", "pairs.py", "r.yaml", "rows.jsonl"]


def test_nothing_is_not_written(tmp_path):
    with pytest.raises(api.DataError, match="there is nothing to write"):
        write_items([], tmp_path / "mix.jsonl")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_row_stops_a_build(harness, write_rows, tmp_path):
    done = harness(
        "data",
        "build",
        write_rows(*ALPACA, {"instruction": 1, "output": "x"}),
        "--dataset",
        "alpaca",
        "--out",
        "m.jsonl",
    )
    assert done.code == 1 and "rows.jsonl, row 6: the field 'instruction' should be text" in done.err
    assert not (tmp_path / "m.jsonl").exists()


def test_half_of_an_emoji_in_a_tools_name_survives(tmp_path):
    odd = Conversation((Message("assistant", "", (ToolCall("f", {"x": "\ud83d"}),)),))
    assert write_items([odd], tmp_path / "mix.jsonl").rows == 1
    form, row = as_row(odd)
    assert form == "messages" and json.loads((tmp_path / "mix.jsonl").read_text()) == row


# Progress


def test_a_bar_is_shown_where_somebody_watches_and_it_takes_long(tmp_path, write_rows, harness):
    (tmp_path / "slow.py").write_text(SLOW)
    path = write_rows(*({"n": n} for n in range(5)))
    arguments = ("--plugin", "slow.py", "data", "validate", str(path), "--dataset", "slow")
    assert harness(*arguments).err == ""
    ours, theirs = pty.openpty()
    watched = subprocess.Popen(
        [sys.executable, "-m", "harness.cli", *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=theirs,
        env=os.environ | {"TERM": "xterm-256color", "COLUMNS": "120"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while chunk := read_terminal(ours):
        shown += chunk
    out, _ = watched.communicate()
    assert watched.returncode == 0 and b"nothing wrong" in out and b"checking" not in out
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.decode())
    assert re.search(r"checking .* \d rows \d+/s .* left", plain), plain


def read_terminal(descriptor: int) -> bytes:
    """What was written to the other end of a terminal; nothing when that is closed, which Linux tells as an error."""
    try:
        return os.read(descriptor, 4096)
    except OSError:
        return b""


def test_a_task_file_is_relative_to_the_recipe(harness, tmp_path):
    (tmp_path / "r" / "data").mkdir(parents=True)
    (tmp_path / "m").mkdir()
    (tmp_path / "r" / "data" / "nli.csv").write_text(NLI)
    (tmp_path / "r" / "mine.yaml").write_text(
        "tasks: {mine: {inputs: [premise], answer: gold, options: {0: yes, 2: no}, phrasings: [{prompt: '{premise}'}]}}"
    )
    (tmp_path / "r" / "r.yaml").write_text(
        "model: {path: ../m}\ndata: {train: [{dataset: flan, path: data/nli.csv, task: "
        "mine.yaml, unread: [hypothesis]}]}\ntune: {method: lora}\n"
    )
    assert "A dog runs." in harness("data", "preview", "r/r.yaml").out


def test_a_null_source_is_one_error(harness, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "r.yaml").write_text("model: {path: m}\ndata: {train: [null]}\ntune: {method: lora}\n")
    assert "at least 1 item" not in harness("data", "preview", "r.yaml").err


def test_rows_that_cleaning_takes_out_are_named(harness_here, tiny_model, write_rows, tmp_path):
    write_rows(*[{"instruction": "Who?", "output": "The heron."}] * 8)
    recipe = tmp_path / "clean.yaml"
    recipe.write_text(
        f"name: clean\nmodel: {{path: {tiny_model}}}\ntemplate: chatml\n"
        "data: {train: [{dataset: alpaca, path: rows.jsonl}], clean: [{filter: exact_duplicates}]}\ntune: {}\n"
    )
    done = harness_here("data", "validate", recipe)
    assert "7 left out: exact_duplicates: says the same as an earlier row (rows.jsonl:2, rows.jsonl:3, " in done.out
    assert "rows.jsonl:6, …)" in done.out and done.code == 0
    (source,) = json.loads(harness_here("data", "validate", recipe, "--json").out)["sources"]
    (ids,) = source["left_out_ids"].values()
    assert ids == [f"rows.jsonl:{number}" for number in range(2, 9)]


def test_of_a_folder_the_files_that_are_not_read_are_named(harness_here, tmp_path):
    row = json.dumps({"instruction": "Who?", "output": "The heron."}) + "\n"
    for name in ("a.jsonl", "part-00000", "notes.txt", ".hidden.jsonl"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / name).write_text(row)
    for command in (("validate",), ("build", "--out", "out.jsonl")):
        done = harness_here("data", *command, "folder")
        assert done.code == 0 and "folder: not read" in done.out and ": notes.txt, part-00000. A glob" in done.out, done
        told = json.loads(harness_here("data", *command, "folder", "--json").out)
        assert told["sources"][0]["not_read"] == ["notes.txt", "part-00000"]


def test_a_row_that_another_data_set_could_read_says_which(harness_here, write_rows):
    write_rows({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]})
    done = harness_here("data", "validate", "--dataset", "alpaca", "rows.jsonl")
    assert done.code == 1 and "It fits the dataset 'sharegpt' (row 1)" in done.out, done
    write_rows({"instruction": "Hi"})
    assert "It fits" not in harness_here("data", "validate", "--dataset", "alpaca", "rows.jsonl").out


def test_a_file_has_no_part(harness_here, write_rows):
    write_rows({"instruction": "Hi", "output": "Ho"})
    done = harness_here("data", "build", "rows.jsonl", "--part", "validation", "--out", "out.jsonl")
    assert done.code == 1 and "--part chooses between the data of a recipe" in done.err


def test_where_every_row_is_left_out_the_reasons_are_told(harness_here, write_rows):
    write_rows({"source": "s", "instruction": "p", "completions": [{"response": "a", "overall_score": 1}]})
    done = harness_here("data", "validate", "--dataset", "preferences", "rows.jsonl")
    assert "none kept; 1 left out: preferences: no two completions with different scores" in done.out
