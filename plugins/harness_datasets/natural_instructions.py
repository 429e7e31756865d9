"""Task files of Natural Instructions: one object with a definition, worked examples and many instances.

Mishra et al. 2021 (arXiv:2104.08773) and Wang et al. 2022 (Super-NaturalInstructions, arXiv:2204.07705) describe the
format. The flat form, one instance a row (definition, inputs, targets), is read too.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

import harness
from harness.data import LeftOut, shown, take
from harness.nouns import Row
from harness_datasets.turns import list_of


class NaturalInstructionsOptions(harness.Options):
    """Options of `natural_instructions`.

    `examples` is the number of positive examples before an instance. `limit_per_task` takes only the first instances of
    a task. `outputs: all` makes a conversation of each of several right outputs.
    """

    examples: Annotated[int, Field(ge=0)] = 0
    limit_per_task: Annotated[int, Field(gt=0)] | None = None
    outputs: Literal["first", "all"] = "first"


def convert(row: Row, options: NaturalInstructionsOptions) -> Iterator[harness.Conversation | LeftOut]:
    """Yield a conversation for each instance of a task: definition, examples and input, then the output.

    An instance without an output is left out; the rest of its task is not.
    """
    if "Instances" not in row and "inputs" in row:
        definition = _definition(row, "definition")
        yield _conversation(
            definition, [], take(row, "inputs", str), take(row, "targets", str), str(row.get("id") or "")
        )
        return
    definition = _definition(row, "Definition")
    examples = [_example(one, number) for number, one in enumerate(take(row, "Positive Examples", list, []), 1)]
    for number, instance in enumerate(take(row, "Instances", list)[: options.limit_per_task], 1):
        what = f"instance {number}"
        text, outputs = pair(instance, what)
        if not (outputs := [output for output in outputs if output.strip()]):
            yield LeftOut("an instance without an output")
            continue
        # The examples of a task may be among its instances.
        others = [one for one in examples if one[0].strip() != text.strip()][: options.examples]
        for output in outputs if options.outputs == "all" else outputs[:1]:
            yield _conversation(definition, others, text, output, "")


def pair(instance: Any, what: str) -> tuple[str, list[str]]:
    """Return the input and the right outputs of an instance {input, output}; `output` is a text or a list of texts."""
    if not isinstance(instance, Mapping):
        raise harness.DataError(f"{what} should be an object with input and output, found {shown(instance)}")
    try:
        text, output = take(instance, "input", str, ""), instance.get("output")
        if isinstance(output, list) and all(isinstance(one, str) for one in output):
            return text, output
        return text, [take(instance, "output", str)]
    except harness.DataError as error:
        raise harness.DataError(f"{what}: {error}") from None


def _definition(row: Row, name: str) -> str:
    value = row.get(name)
    if isinstance(value, str) and value.startswith(('["', "['")):  # in a CSV
        value = list_of(row, name)
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return "\n".join(value)
    return take(row, name, str)


def _example(raw: Any, number: int) -> tuple[str, str]:
    text, outputs = pair(raw, f"positive example {number}")
    if not outputs:
        raise harness.DataError(f"positive example {number} has no output")
    return text, outputs[0]


def _conversation(
    definition: str, examples: list[tuple[str, str]], text: str, output: str, id: str
) -> harness.Conversation:
    parts = [definition.strip()]
    parts += [f"Example {number}\nInput: {ask}\nOutput: {tell}" for number, (ask, tell) in enumerate(examples, 1)]
    if text:
        parts.append(f"Now this one.\nInput: {text}\nOutput:" if examples else text)
    return harness.Conversation.of(("user", "\n\n".join(parts)), ("assistant", output), id=id)


DATASET = harness.Dataset(
    "natural_instructions",
    "tasks with Definition, Positive Examples and Instances",
    convert,
    options=NaturalInstructionsOptions,
    fields=(
        (
            "Definition", "Instances.input", "Instances.output", "-Instances.id", "Positive Examples?",
            "Positive Examples.input", "Positive Examples.output", "-Positive Examples.explanation",
            "-Negative Examples", "-Categories", "-Contributors", "-Source", "-URL", "-Reasoning", "-Input_language",
            "-Output_language", "-Instruction_language", "-Domains", "-Instance License",
        ),
        ("definition", "inputs", "targets", "-task_name", "id?"),
    ),
    yields="conversations",
)  # fmt: skip
