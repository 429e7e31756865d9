"""Prompts to the model. Their wording is in prompts/, one file a question; the examples come from the seed tasks."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from harness.contract import Dataset
from harness.data import read_rows, take
from harness.data.convert.prompts import prompts_of
from harness.data.read.storage import files_of
from harness.errors import DataError
from harness.nouns import Row

if TYPE_CHECKING:
    from harness.plugins import Registry

Question = Literal["instructions", "classification", "input_first", "output_first"]
QUESTIONS: tuple[Question, ...] = ("instructions", "classification", "input_first", "output_first")
Api = Literal["chat", "completions"]

WANTED = 8  # new instructions asked for at once
EXAMPLE_CHARACTERS = 400  # seed tasks with longer instances are not shown as examples
NO_INPUT = "none"


@dataclass(frozen=True, slots=True)
class Seed:
    """A task that a person wrote. `instances` are (input, output); `is_classification` is None if the file lacks it."""

    instruction: str
    instances: tuple[tuple[str, str], ...] = ()
    is_classification: bool | None = None


def read_seeds(path: str, datasets: Registry[Dataset]) -> list[Seed]:
    """Read seed tasks from a file in the format of `seed_tasks` or `alpaca`; an instruction alone is enough.

    Of a file in which no row has an `instruction`, the first question of each row is one.

    Raises:
        DataError: for a row without an instruction, and for a file without rows.
    """
    seeds = []
    if not any("instruction" in row for file in files_of(path) for _, row in read_rows(file)):
        return list(map(Seed, prompts_of(path, datasets)))
    for file in files_of(path):
        for number, row in read_rows(file):
            try:
                seeds.append(_seed(row))
            except DataError as error:
                raise DataError(error.reason, path=file, row=number) from None
    if not seeds:
        raise DataError("there are no seed tasks in it", path=path)
    return seeds


def _seed(row: Row) -> Seed:
    instances = [(take(row, "input", str, ""), take(row, "output", str))] if "output" in row else []
    for number, instance in enumerate(take(row, "instances", list, []), 1):
        if not isinstance(instance, Mapping):
            raise DataError(f"instance {number} should be an object with input and output, found {instance!r:.60}")
        instances.append((take(instance, "input", str, ""), take(instance, "output", str)))
    if not (instruction := take(row, "instruction", str).strip()):
        raise DataError("the instruction is empty")
    return Seed(instruction, tuple(instances), take(row, "is_classification", bool, None))


def one_line(instruction: str) -> str:
    """Return an instruction on one line, for a list."""
    return " ".join(instruction.split()).rstrip(":")


def list_tasks(shown: Sequence[str], api: Api) -> str:
    """Return the prompt that asks for new instructions after those shown."""
    tasks = "\n".join(f"{number}. {one_line(text)}" for number, text in enumerate(shown, 1))
    return _fill("instructions", api, tasks=tasks, first=str(len(shown) + 1), last=str(len(shown) + WANTED))


def is_classification(instruction: str, seeds: Sequence[Seed], api: Api, rng: random.Random) -> str:
    """Return the prompt that asks if the answer is a label, with three seed tasks of each kind as examples."""
    some = [*_some(seeds, True, 3, rng), *_some(seeds, False, 3, rng)]
    rng.shuffle(some)
    lines = [
        f"Task: {one_line(seed.instruction)}\n"
        f"Label out of a short list? {'Yes' if seed.is_classification else 'No'}\n\n"
        for seed in some
    ]
    return _fill("classification", api, examples="".join(lines), instruction=one_line(instruction))


def instances(
    instruction: str, classification: bool, count: int, seeds: Sequence[Seed], api: Api, rng: random.Random
) -> str:
    """Return the prompt that asks for instances: input first, or output first for a classification."""
    question: Question = "output_first" if classification else "input_first"
    some = _some(seeds, classification, 3, rng, with_instances=True)
    lines = [f"Task: {one_line(seed.instruction)}\n{_shown(seed, classification)}\n\n" for seed in some]
    wanted = "one example" if count == 1 else f"up to {count} examples"
    return _fill(question, api, examples="".join(lines), instruction=one_line(instruction), count=wanted)


def _some(
    seeds: Iterable[Seed], classification: bool, count: int, rng: random.Random, with_instances: bool = False
) -> list[Seed]:
    """Return some seed tasks of one kind; with instances, only those whose instances are short enough to show."""
    fitting = [seed for seed in seeds if bool(seed.is_classification) == classification]
    if with_instances:
        fitting = [
            seed for seed in fitting if seed.instances and len(_shown(seed, classification)) <= EXAMPLE_CHARACTERS
        ]
    else:
        fitting = [seed for seed in fitting if seed.is_classification is not None]
    return rng.sample(fitting, min(count, len(fitting)))


def _shown(seed: Seed, output_first: bool) -> str:
    pairs = [(f"Input: {text or NO_INPUT}", f"Output: {output}") for text, output in seed.instances[:2]]
    return "\n".join(f"{output}\n{text}" if output_first else f"{text}\n{output}" for text, output in pairs)


def _fill(question: Question, api: Api, **values: str) -> str:
    """Fill the places of a wording in one pass; the filled-in values are never searched for places."""
    import re

    wording = _wordings()[question]["chat" if api == "chat" else "completion"].rstrip("\n")
    return re.sub(r"\{(\w+)\}", lambda place: values.get(place[1], place[0]), wording)


@functools.cache
def _wordings() -> dict[str, dict[str, str]]:
    from ruamel.yaml import YAML

    folder = Path(__file__).with_name("prompts")
    return {question: YAML(typ="safe").load(folder / f"{question}.yaml") for question in QUESTIONS}


@functools.cache
def prompt_version() -> str:
    """Return the highest version of the wordings and a digest of them, which changes with every word."""
    wordings = repr(sorted((question, sorted(wording.items())) for question, wording in _wordings().items()))
    version = max(int(wording["version"]) for wording in _wordings().values())
    return f"{version}-{hashlib.sha256(wordings.encode()).hexdigest()[:8]}"
