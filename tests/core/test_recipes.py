"""A wrong recipe names file, line, key, value and the nearest right thing; a right one is complete and stable."""

import re
from pathlib import Path

import pytest

import harness
from harness.plugins import Plugins
from harness.recipe import Recipe, load_recipe, qualified

PARTS = """
from pathlib import Path

import harness

class Lora(harness.Options):
    rank: int = 8
    target: tuple[str, ...] = ("q_proj",)

class Nothing(harness.Options):
    pass

class Kept(harness.Options):
    file: Path | None = None
    files: tuple[Path, ...] = ()
    log_path: str = ""

class Served(harness.Options):
    host: str = "127.0.0.1"
    port: int = 8000
    api_key: str | None = None
    allow_hosts: tuple[str, ...] = ()

class Probe(harness.Options):
    data_path: str | None = None

@harness.hookimpl
def register_methods(register):
    register(harness.Method("lora", "adapters", Lora, print, print, "adapter"))

@harness.hookimpl
def register_objectives(register):
    register(harness.Objective("sft", "next token", Nothing, print, print))

@harness.hookimpl
def register_evaluations(register):
    register(harness.Evaluation("probe", "asks", Probe, print))

@harness.hookimpl
def register_engines(register):
    register(harness.Engine("vllm", "serves", Served, print))

@harness.hookimpl
def register_trackers(register):
    register(harness.Tracker("log", "follows", Kept, print))
"""

RECIPE = """\
model:
  path: ./model
template: chatml
data:
  train:
    - dataset: alpaca
      path: rows.jsonl
  max_tokens: 128
tune:
  objective: sft
  method:
    name: lora
    rank: 4
  learning_rate: 1.0e-3
evaluate:
  - evaluation: probe
    data_path: rows.jsonl
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "rows.jsonl").write_text('{"instruction": "a", "output": "b"}\n')
    (tmp_path / "parts.py").write_text(PARTS)
    return tmp_path


@pytest.fixture
def plugins(folder, monkeypatch) -> Plugins:
    # The recipe's own rules are tested here, whatever methods and evaluations are installed.
    monkeypatch.setenv("HARNESS_DISABLE_PLUGINS", "tuning,evaluation,serve")
    plugins = Plugins([folder / "parts.py"])
    assert not plugins.failed
    return plugins


@pytest.fixture
def load(folder, plugins):
    def load(text: str = RECIPE, *sets: str) -> Recipe:
        (folder / "my.yaml").write_text(text, encoding="utf-8")
        return load_recipe(folder / "my.yaml", plugins, sets)

    return load


def refused(load, text: str, *sets: str) -> str:
    with pytest.raises(harness.RecipeError) as caught:
        load(text, *sets)
    return str(caught.value)


def test_paths_become_absolute_and_defaults_are_filled_in(load, folder):
    recipe = load()
    assert recipe.name == "my"
    assert recipe.model.path == str(folder / "model")
    assert recipe.data.train[0].path == str(folder / "rows.jsonl")
    assert recipe.evaluate[0].data_path == str(folder / "rows.jsonl")
    assert (recipe.tune.method.rank, recipe.tune.method.target, recipe.tune.epochs) == (4, ("q_proj",), 1.0)


def test_an_option_that_is_a_path_begins_at_the_recipe_in_every_section(load, folder, monkeypatch):
    monkeypatch.chdir("/")
    recipe = load(RECIPE + "track: [{tracker: log, file: a, files: [b, /c], log_path: d}, {tracker: log}]\n")
    kept, nothing = recipe.track
    assert (kept.file, kept.files, kept.log_path) == (folder / "a", (folder / "b", Path("/c")), str(folder / "d"))
    assert (nothing.file, nothing.files, nothing.log_path) == (None, (), "")
    assert f"file: {folder}/a\n" in recipe.as_yaml()


def test_a_default_that_is_switched_off_is_named_with_its_place(load, folder):
    message = refused(load, RECIPE.replace("  objective: sft\n", ""))
    assert re.match(r".*my\.yaml, line 9: no objective is named, and the default is not there", message), message


def test_a_section_without_a_name_says_as_what_it_is_read(tmp_path):
    (tmp_path / "r.yaml").write_text("model: {path: gpt2}\ndata: {train: []}\ntune:\n  objective: {beta: 0.1}\n")
    with pytest.raises(harness.RecipeError, match=r"'tune.objective.beta'.*\n`objective` has no `name`.* as 'sft'"):
        load_recipe(tmp_path / "r.yaml", Plugins())


def test_a_resolved_recipe_reads_back_as_itself(load, folder, plugins):
    recipe = load()
    (folder / "deep").mkdir()
    (folder / "deep" / "again.yaml").write_text(recipe.as_yaml())
    again = load_recipe(folder / "deep" / "again.yaml", plugins)
    assert again.model_dump() == recipe.model_dump() and again.sha256 == recipe.sha256


def test_equal_settings_have_equal_hashes_however_they_are_written(load):
    assert (
        load().sha256
        == load(
            RECIPE.replace("1.0e-3", "0.001 # as above").replace("template: chatml\n", "") + "template: 'chatml'\n"
        ).sha256
    )
    assert load().sha256 != load(RECIPE.replace("rank: 4", "rank: 5")).sha256


@pytest.mark.parametrize(
    ("change", "line", "told"),
    [
        (("  rank: 4", "  rank: [4"), 14, "not valid YAML"),
        (("    rank: 4", "    rank: 4\n     bad: 1"), 14, "not valid YAML"),
        (("    rank: 4", "    rank: 4\n    rank: 5"), 14, "duplicate key"),
        (("  rank: 4", "  rnak: 4"), 13, "unknown key 'tune.method.rnak'. Did you mean 'rank'?"),
        (("  learning_rate", "  rank: 4\n  learning_rate"), 14,
         "goes into its section: `method: {name: lora, rank: 4}`"),
        (("template:", "temlpate:"), 3, "unknown key 'temlpate'. Did you mean 'template'?"),
        (("max_tokens", "max_token"), 8, "unknown key 'data.max_token'. Did you mean 'max_tokens'?"),
        (("      path:", "      pth:"), 7, "unknown key 'data.train.0.pth'. Did you mean 'path'?"),
        (("    data_path:", "    data_pth:"), 17, "unknown key 'evaluate.0.data_pth'. Did you mean 'data_path'?"),
        (("rank: 4", "rank: four"), 13, "'tune.method.rank' is 'four'"),
        (("rank: 4", "rank: 4.5"), 13, "'tune.method.rank' is 4.5"),
        (("max_tokens: 128", "max_tokens: 0"), 8, "'data.max_tokens' is 0: input should be greater than 0"),
        (("max_tokens: 128", "on_overlong: drp"), 8, "'data.on_overlong' is 'drp'"),
        (("  path: ./model", "  dtype: float32"), 1, "'model.path' is missing"),
        (("name: lora", "name: loro"), 12, "no method is named 'loro'. Did you mean 'lora'?"),
        (("objective: sft", "objective: dpo"), 10, "no objective is named 'dpo'"),
        (("template: chatml", "template: chatlm"), 3, "no template is named 'chatlm'. Did you mean 'chatml'?"),
        (("dataset: alpaca", "dataset: alpacca"), 6, "no dataset is named 'alpacca'. Did you mean 'alpaca'?"),
        (("evaluation: probe", "evaluation: prob"), 16, "no evaluation is named 'prob'. Did you mean 'probe'?"),
        (("path: ./model", "path: ./modell"), 2, "no such folder"),
        (("path: rows.jsonl\n  max", "path: row.jsonl\n  max"), 7,
         "no such file: .*row.jsonl. Did you mean 'rows.jsonl'?"),
        (("evaluate:\n  - evaluation: probe\n    data_path: rows.jsonl", "evaluate: probe"), 15,
         "`evaluate` is a list"),
        (("evaluate:\n  - evaluation: probe\n    data_path: rows.jsonl", "serve: 3"), 15, "`serve` is a section"),
        (("evaluate:\n  - evaluation: probe\n    data_path: rows.jsonl", "serve:\n  engine: vlm"), 16,
         "no engine is named 'vlm'"),
        (("evaluate:\n  - evaluation: probe\n    data_path: rows.jsonl", "track:\n  - tracker: lgo"), 16,
         "no tracker is named 'lgo'"),
        (("name: lora", "name: [lora]"), 12, "'name' is ['lora']: expected a name"),
        (("name: lora", "name: null"), 12, "'name' is None: expected a name"),
        (("name: lora", "name: gone:lora"), 12,
         "no method is named 'gone:lora': the plugin `gone` is not loaded. Name its file"),
        (("objective: sft", "objective: [sft]"), 10, "'objective' is ['sft']: expected a name"),
        (("template: chatml", "template: 3"), 3, "'template' is 3: expected a name"),
        (("  train:\n    - dataset: alpaca\n      path: rows.jsonl", "  train: []"), 5, "'data.train' is"),
    ],
)  # fmt: skip
def test_a_wrong_recipe_says_where_and_what(load, folder, change, line, told):
    assert change[0] in RECIPE
    message = refused(load, RECIPE.replace(*change, 1))
    assert re.search(rf"^{re.escape(str(folder / 'my.yaml'))}, line \d+: ", message), message
    assert re.search(re.escape(told).replace(r"\.\*", ".*"), message), message
    assert re.search(rf", line {line}: ", message), message


def test_all_problems_of_a_section_are_told_at_once(load):
    message = refused(load, RECIPE.replace("learning_rate: 1.0e-3", "learning_rate: fast\n  epochs: -1\n  sched: x"))
    assert len(message.splitlines()) == 3


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n", "3\n"])
def test_what_is_no_mapping_is_no_recipe(load, text):
    assert "a recipe is a mapping" in refused(load, text)


def test_two_yaml_documents_are_refused(load):
    assert "not valid YAML" in refused(load, RECIPE + "---\n" + RECIPE)


@pytest.mark.parametrize("section", ["model", "data", "tune"])
def test_a_missing_section_is_named(load, section):
    lines, keep = [], True
    for line in RECIPE.splitlines():
        keep = not line.startswith(f"{section}:") if not line.startswith(" ") else keep
        lines += [line] if keep else []
    assert f"'{section}' is missing" in refused(load, "\n".join(lines))


def test_a_missing_file_is_told_with_the_nearest(folder, plugins, load):
    load()
    with pytest.raises(harness.RecipeError, match=r"no such recipe file\. Did you mean 'my\.yaml'"):
        load_recipe(folder / "mi.yaml", plugins)
    (folder / "latin.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(harness.RecipeError, match="not UTF-8"):
        load_recipe(folder / "latin.yaml", plugins)


def test_overrides_are_yaml_values_at_dotted_keys(load):
    recipe = load(
        RECIPE,
        "tune.method.rank=16",
        "data.train.0.limit=1",
        "data.on_overlong=drop",
        "serve.engine=vllm",
        "name=other",
    )
    assert (recipe.tune.method.rank, recipe.data.train[0].limit, recipe.data.on_overlong, recipe.name) == (
        16,
        1,
        "drop",
        "other",
    )


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("tune.method.rank", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("tune.method.rnak=3", "Did you mean 'rank'?"),
        ("tune.rank=3", "goes into its section: `method: {name: lora, rank: 3}`"),
        ("tune.method.rank=[", "not valid YAML"),
        ("tune.method.rank.deep=3", "has no 'deep'|there is no"),
        ("data.train.7.limit=3", "there is no '7'"),
        ("data.train.².limit=3", "there is no '²'"),
        ("name=2024-13-45", "not valid YAML"),
        ("model=" + "[" * 3000, "not valid YAML"),
        ("tune.epochs=.inf", "'tune.epochs' is inf"),
        ("tune.seed=99999999999999999999999", "'tune.seed' is 9"),
        ("data.train.0.path=~nobody-here/x", "no such file"),
        ("evaluate=3", "- evaluation: NAME"),
        ("tune.method.rank=four", "'tune.method.rank' is 'four'"),
        ("tune.method.rank=true", "'tune.method.rank' is True: input should be a valid integer"),
        ("tune.method.rank='8'", "'tune.method.rank' is '8': input should be a valid integer"),
        ("evaluate.0.data_path=nowhere", "no such file or folder"),
        ("data.train.0.path=" + "x" * 300, "no such file"),
        ("model.path=/" + "x" * 300, "no such folder"),
    ],
)
def test_a_wrong_override_is_explained(load, override, told):
    message = refused(load, RECIPE, override)
    assert re.search(told, message) and message.startswith(f"--set {override}: "), message


@pytest.mark.parametrize("path", ["a/b/c", "../model", "~/no-such", "/no/such", "spaced name"])
def test_a_model_path_that_is_no_hub_id_is_never_looked_up_there(load, path):
    assert f"no such folder: {'/' if path[0] in '~/' else ''}" in refused(load, RECIPE, f"model.path={path}")


@pytest.mark.parametrize("path", ["gpt2", "Qwen/Qwen2.5-0.5B", "org/name_1.0-x"])
def test_what_may_be_a_hub_id_is_left_as_it_is(load, path):
    assert load(RECIPE, f"model.path={path}").model.path == path


def test_a_name_that_is_no_folder_name_is_refused(load):
    for name in ("../up", "a/b", ".hidden", "''"):
        assert "name" in refused(load, RECIPE + f"name: {name}\n")


def test_a_wrong_recipe_on_the_command_line_shows_no_traceback(harness, tmp_path):
    (tmp_path / "r.yaml").write_text("model:\n  path: 3\nnonsense: 1\n")
    done = harness("data", "preview", "r.yaml")
    assert done.code == 1 and done.err == (
        "error: r.yaml, line 3: unknown key 'nonsense'. A recipe has: name, "
        "model, template, data, tune, evaluate, gate, track, serve, plugins\n"
    )


def test_set_reaches_the_options_of_a_template_that_is_named_alone(tmp_path):
    plugins = Plugins()
    (tmp_path / "m").mkdir()
    (tmp_path / "rows.jsonl").write_text("")
    path = tmp_path / "r.yaml"
    path.write_text(
        "model: {path: m}\ntemplate: chatml\ndata: {train: [{dataset: messages, path: rows.jsonl}]}\ntune: {}\n"
    )
    assert load_recipe(path, plugins, ["template.system=Be brief."]).template.system == "Be brief."
    assert load_recipe(path, plugins, ["template=qwen2.5"]).template.name == "qwen2.5"
    with pytest.raises(harness.RecipeError, match=r"--set tune\.\.rank=8: expected KEY=VALUE"):
        load_recipe(path, plugins, ["tune..rank=8"])


def test_a_name_alone_stands_for_its_section(load):
    alone, section = (load(RECIPE.replace("objective: sft", f"objective: {form}")) for form in ("sft", "{name: sft}"))
    assert alone.as_yaml() == section.as_yaml() and alone.tune.objective.name == "sft"


def test_two_plugins_with_an_option_of_one_name_each_keep_theirs(load, folder):
    """Options of the method and the objective stand in sections of their own and cannot clash."""
    text = PARTS.replace(
        "class Nothing(harness.Options):\n    pass", "class Nothing(harness.Options):\n    rank: float = 0.5"
    )
    (folder / "parts.py").write_text(text)
    plugins = Plugins([folder / "parts.py"])
    (folder / "my.yaml").write_text(
        RECIPE.replace("objective: sft", "objective: {name: 'parts:sft', rank: 0.25}").replace("lora", "parts:lora")
    )
    recipe = load_recipe(folder / "my.yaml", plugins)
    assert (recipe.tune.objective.rank, recipe.tune.method.rank) == (0.25, 4)


def test_a_resolved_recipe_names_the_owner_of_everything(load, plugins, folder):
    recipe = qualified(load(), plugins)
    assert (recipe.tune.method.name, recipe.template.name) == ("parts:lora", "harness:chatml")
    assert recipe.data.train[0].dataset == "harness:alpaca" and recipe.evaluate[0].evaluation == "parts:probe"
    (folder / "resolved.yaml").write_text(recipe.as_yaml())
    assert load_recipe(folder / "resolved.yaml", plugins).tune.method.rank == 4


def test_the_recipe_of_an_older_run_is_migrated(plugins, folder):
    flat = "tune:\n  objective: sft\n  method: lora\n  rank: 5\n  target: [q_proj]\n"
    before, _, after = RECIPE.partition("tune:\n")
    before = before.replace("data:\n", "data:\n  train_on: none-but-marked\n", 1)
    (folder / "recipe.yaml").write_text(before + flat + after[after.index("  learning_rate") :])
    with pytest.raises(
        harness.RecipeError, match=r"'rank', 'target' .* go into its section: .*rank: 5, target: \[\"q_proj\"\]"
    ):
        load_recipe(folder / "recipe.yaml", plugins, to_tune=False)
    (folder / "manifest.json").write_text("{}")
    recipe = load_recipe(folder / "recipe.yaml", plugins, ["tune.method.target=[k_proj]"], to_tune=False)
    assert recipe.data.train_on == "marked"
    assert (recipe.tune.method.rank, recipe.tune.method.target, recipe.tune.learning_rate) == (5, ("k_proj",), 1e-3)
