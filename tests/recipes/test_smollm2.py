"""The recipes for a real model: reproducible data, held-out items unlike tuning's, answers checked by program."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("datasets")

ROOT = Path(__file__).resolve().parents[2]
SMOLLM2 = ROOT / "recipes" / "smollm2"
COMMITTED = sorted((SMOLLM2 / "data").glob("*.jsonl"))


def module(name: str, folder: Path = SMOLLM2) -> ModuleType:
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(folder))


messages, house_style, small_tasks = module("messages"), module("house_style"), module("small_tasks")
style_pairs = module("style_pairs")
checks = module("checks", SMOLLM2 / "tasks")


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SMOLLM2 / "data" / name).read_text(encoding="utf-8").splitlines()]


def words(*texts: str) -> set[str]:
    return set(re.findall(r"[^\W\d_]+|\d+", " ".join(texts).lower()))


# The data


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data as the documented command writes them."""
    out = tmp_path_factory.mktemp("smollm2")
    subprocess.run([sys.executable, SMOLLM2 / "make_data.py", "--out", out], check=True)
    return out


def test_the_committed_data_are_what_the_generator_writes(written: Path) -> None:
    assert {path.name: path.read_bytes() for path in COMMITTED} == {
        path.name: path.read_bytes() for path in written.iterdir()
    }
    assert sum(path.stat().st_size for path in COMMITTED) < 600_000


@pytest.mark.parametrize("task", ["json", "tone", "alpaca"])
def test_no_item_is_asked_twice(task: str) -> None:
    items = rows(f"{task}.test.jsonl")
    assert len({row["id"] for row in items}) == len(items)
    asked = [(row.get("prompt"), row.get("instruction"), row.get("input")) for row in items]
    assert len(set(asked)) == len(items)


def test_messages_are_held_out_by_wording_name_place_thing_and_number() -> None:
    for kind in messages.KINDS:
        in_both = [set(kind.wordings[split]) for split in ("train", "test")]
        assert not in_both[0] & in_both[1] and all(len(wordings) >= 5 for wordings in in_both)
    pools = [
        value for value in vars(messages).values() if isinstance(value, dict) and value.keys() == {"train", "test"}
    ]
    assert len(pools) >= 10
    for pool in pools:
        train, test = (part.split() if isinstance(part, str) else [p for p in part if p] for part in pool.values())
        assert not set(train) & set(test)
    values = {
        split: {
            pair
            for item in messages.items(split, 600)
            for pair in item["answer"].items()
            if pair[0] != "day" and pair[1]
        }
        for split in ("train", "test")
    }
    assert not values["train"] & values["test"]


def test_messages_are_asked_for_combinations_of_keys_that_tuning_never_saw() -> None:
    asked = {
        split: {(item["category"], frozenset(item["answer"])) for item in messages.items(split, 600)}
        for split in ("train", "test")
    }
    assert not asked["train"] & asked["test"]
    assert {keys for _, keys in asked["test"]} and len(asked["test"]) == 3 * len(messages.KINDS)


def test_every_wording_has_every_field_and_every_value_that_is_wanted_stands_in_the_message() -> None:
    for kind in messages.KINDS:
        for wording in (*kind.wordings["train"], *kind.wordings["test"]):
            assert set(re.findall(r"{(\w+)}", wording)) == set(kind.fields)
    for item in (*messages.items("train", 400), *messages.items("test", 400)):
        asked, message = item["prompt"].split("\n\n")
        assert f"Keys: {', '.join(item['answer'])}." in asked
        assert all(value in message for value in item["answer"].values())


def test_the_house_style_is_asked_about_other_subjects_in_other_wordings() -> None:
    assert not set(house_style.WORDINGS["train"]) & set(house_style.WORDINGS["test"])
    known = {do for do, _ in house_style.answered()}
    assert not known & {do for do, _ in house_style.asked()}
    # The subject's own word never stands in what tuning is asked.
    for do, about in house_style.asked():
        assert any(word in do.lower() for word in about), do


def test_every_answer_of_the_house_style_keeps_to_it() -> None:
    for row in rows("tone.train.jsonl"):
        system, user, assistant = (message["content"] for message in row["messages"])
        assert system == house_style.SYSTEM_PROMPT
        beginnings = [word[:3] for word in words(user) if len(word) > 2]
        marks = checks.score_tone({"about": beginnings}, [assistant])
        assert marks["right"] == 1, (assistant, marks)


def test_the_house_style_is_asked_for_in_the_same_words_by_tuning_and_by_the_task() -> None:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe")
    text = re.sub(r"!function \S+", "''", (SMOLLM2 / "tasks" / "smollm2_tone.yaml").read_text())
    assert yaml.load(text)["description"] == house_style.SYSTEM_PROMPT
    assert checks.SIGN_OFF == house_style.SIGN_OFF


def test_small_tasks_are_held_out_by_wording_and_by_what_they_are_about() -> None:
    train, test = rows("alpaca.train.jsonl"), rows("alpaca.test.jsonl")
    assert not {row["instruction"] for row in train} & {row["instruction"] for row in test}
    assert not {row["input"] for row in train} & {row["input"] for row in test}
    of_words = ("capitals", "dashes", "backwards", "ascending", "sort")
    known = words(*(row["input"] for row in small_tasks.rows("train", 800) if row["category"] in of_words))
    assert not known & words(*(row["input"] for row in test if row["category"] in of_words))


def test_pairs_are_about_other_subjects_in_other_wordings_and_phrases_than_tuning_saw() -> None:
    train, test = rows("dpo.train.jsonl"), rows("dpo.test.jsonl")
    firsts = [{row["chosen"].partition("\n")[0] for row in part} for part in (train, test)]
    assert len(firsts[1]) == style_pairs.HELD_OUT and not firsts[0] & firsts[1]
    phrases = [{one for part in split.values() for one in part} for split in style_pairs.RAMBLING.values()]
    assert not phrases[0] & phrases[1]
    assert not any(phrase in row["rejected"] for phrase in phrases[0] for row in test)


@pytest.mark.parametrize("part", ["train", "test"])
def test_neither_length_nor_subject_tells_the_preferred_answer(part: str) -> None:
    pairs = rows(f"dpo.{part}.jsonl")
    for length in (len, lambda text: len(text.split())):
        longer = sum(length(row["chosen"]) > length(row["rejected"]) for row in pairs) / len(pairs)
        assert 0.4 < longer < 0.6
    for row in pairs:
        first = row["chosen"].partition("\n")[0]
        assert first in row["rejected"] and house_style.SIGN_OFF in row["chosen"] and "\n" not in row["rejected"]


# The checks


WANTED = {"answer": '{"name": "Ruth Ito", "people": "4", "day": null}'}


@pytest.mark.parametrize(
    "answer",
    [
        '{"name": "Ruth Ito", "people": "4", "day": null}',
        ' {"day": null, "people": 4, "name": " ruth ito"}\n',
    ],
)
def test_json_that_is_right(answer: str) -> None:
    assert checks.score_json(WANTED, [answer]) == {"right": 1, "parses": 1, "keys": 1, "salvaged": 1}


@pytest.mark.parametrize(
    ("answer", "parses", "keys", "salvaged"),
    [
        ("", 0, 0, 0),
        ("null", 0, 0, 0),
        ("[]", 1, 0, 0),
        ('"name"', 1, 0, 0),
        ('{"name": "Ruth Ito", "people": "4"}', 1, 0, 0),
        ('{"name": "Ruth Ito", "people": "4", "day": null, "time": null}', 1, 0, 0),
        ('{"name": "Ruth", "people": "4", "day": null}', 1, 1, 0),
        ('{"name": "Ruth Ito", "people": "4", "day": "null"}', 1, 1, 0),
        ('{"name": "Ruth Ito", "people": true, "day": null}', 1, 1, 0),
        ('{"name": ["Ruth Ito"], "people": 4, "day": null}', 1, 1, 0),
        ('{"name": "x", "name": "Ruth Ito", "people": "4", "day": null}', 0, 0, 0),
        ('Here it is: {"name": "Ruth Ito", "people": "4", "day": null}', 0, 0, 1),
        ('```json\n{"name": "Ruth Ito", "people": 4, "day": null}\n```', 0, 0, 1),
        ('{"name": "Ruth Ito", "people": "4", "day": null} {"name"', 0, 0, 1),
        ('{"name": "Ruth Ito", "people": "4", "day": null', 0, 0, 0),
    ],
)
def test_json_that_is_wrong(answer: str, parses: int, keys: int, salvaged: int) -> None:
    marks = checks.score_json(WANTED, [answer])
    assert marks == {"right": 0, "parses": parses, "keys": keys, "salvaged": salvaged}


STYLED = ("A rose wants sun.", "", "- Cut it in March", "- Feed it", "- Water it", "", "Kind regards, Fernhill Library")


def tone(*lines: str) -> set[str]:
    """The marks that an answer about roses misses."""
    return {name for name, mark in checks.score_tone({"about": ["rose"]}, ["\n".join(lines)]).items() if not mark}


def test_an_answer_in_the_house_style_has_every_mark() -> None:
    assert tone(*STYLED) == set() == tone(*(line for line in STYLED if line))


@pytest.mark.parametrize(
    ("lines", "missed"),
    [
        ((), {"sentence", "points", "sign_off", "british", "about"}),
        (("A rose wants sun. It wants water.", *STYLED[1:]), {"sentence"}),
        (STYLED[2:], {"sentence", "points", "about"}),
        (STYLED[:4] + STYLED[5:], {"points"}),
        ((*STYLED[:5], "- Love it", *STYLED[5:]), {"points"}),
        ((*STYLED[:2], "More:", *STYLED[2:]), {"points"}),
        (STYLED[:-1], {"sign_off"}),
        ((*STYLED, "Bye"), {"points", "sign_off"}),
        ((*STYLED[:-1], "Kind regards"), {"sign_off"}),
        (("A rose has a gray color.", *STYLED[1:]), {"british"}),
        (("A rose can be organized.", *STYLED[1:]), {"british"}),
        (("A tulip wants sun.", *STYLED[1:]), {"about"}),
    ],
)
def test_an_answer_out_of_style_misses_its_mark(lines: tuple[str, ...], missed: set[str]) -> None:
    assert tone(*lines) == missed | {"right"}


@pytest.mark.parametrize(
    "word", ["colour", "grey", "humorous", "laboratory", "organise", "size", "literature", "realise", "catalogue"]
)
def test_british_words_are_british(word: str) -> None:
    assert not checks.AMERICAN.search(word)


@pytest.mark.parametrize(
    ("answer", "right", "found"),
    [("A, B", 1, 1), (" A, B\n", 1, 1), ("a, b", 0, 1), ("It is A, B.", 0, 1), ("B, A", 0, 0), ("", 0, 0)],
)
def test_the_answer_to_a_small_task_is_right_letter_by_letter(answer: str, right: int, found: int) -> None:
    assert checks.score_alpaca({"output": "A, B"}, [answer]) == {"right": right, "found": found}


# The real model


def measured(harness: Any, run: str, *sets: str, limit: int | None = None) -> dict[str, float]:
    """Tune by the recipe `run`; measure it and its base on the recipe's own task: the share of right items."""
    changed = [part for pair in sets for part in ("--set", pair)]
    tuned = harness("tune", SMOLLM2 / f"{run}.yaml", *changed, timeout=3000)
    assert tuned.code == 0, tuned.err
    first = ("--limit", limit) if limit else ()
    done = harness("evaluate", f"{run}@base", run, "--evaluation", "lm_eval", *first, "--json", timeout=3000)
    assert done.code == 0, done.err
    return {record["variant"]: record["scores"]["right"]["value"] for record in json.loads(done.out)}


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("real_model")
def test_the_real_model_learns_to_answer_with_json_in_twenty_steps(harness: Any) -> None:
    """About a third of the recipe, on the first four held-out messages of each kind."""
    right = measured(harness, "json", "tune.steps=20", limit=4 * len(messages.KINDS))
    assert right["json"] >= 0.6 and right["json"] >= right["json@base"] + 0.3


@pytest.mark.real_model
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("real_model")
@pytest.mark.parametrize(("run", "at_least"), [("tone", 0.8), ("alpaca", 0.6)])
def test_the_real_model_learns_by_the_recipe(run: str, at_least: float, harness: Any) -> None:
    """The whole recipe on all its held-out items. That of JSON is tuned and measured in tests/test_readme.py."""
    right = measured(harness, run)
    assert right[run] >= at_least and right[run] >= right[f"{run}@base"] + 0.3


@pytest.mark.real_model
@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.usefixtures("real_model")
def test_the_real_model_comes_to_prefer_the_house_style(harness: Any) -> None:
    """The whole recipe; the difference of win rates on held-out pairs is significant."""
    tuned = harness("tune", SMOLLM2 / "dpo.yaml", timeout=3000)
    assert tuned.code == 0, tuned.err
    assert harness("evaluate", "dpo@base", "dpo", timeout=3000).code == 0
    done = harness("compare", "dpo@base", "dpo", "--json")
    assert done.code == 0, done.err
    comparisons = {row["metric"]: row for row in json.loads(done.out)["comparisons"] if row["category"] is None}
    assert comparisons["win_rate"]["verdict"] == "better" and comparisons["win_rate"]["interval"][0] > 0.02
