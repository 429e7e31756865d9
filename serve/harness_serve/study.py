"""The way people judge on the page, and the options of `harness serve` that say it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.errors import HarnessError, known_names, nearest
from harness.files import read_text

if TYPE_CHECKING:
    from harness.contract import Dataset
    from harness.plugins import Registry
    from harness.variants import Variant
    from harness_serve.prompt_sets import PromptSet

FILE = click.Path(path_type=Path)
OPTIONS = (
    click.option(
        "--prompts",
        type=FILE,
        metavar="FILE",
        help="Prompts to work through in the arena: a JSON list or JSONL of texts, or of objects with `prompt`, "
        "`category`, `system` and `id`, or data, whose first questions are taken. Each person gets each once, by name.",
    ),
    click.option(
        "--repeats",
        type=click.FloatRange(0, 0.9),
        default=0.0,
        show_default=True,
        metavar="SHARE",
        help="With --prompts: the share of rounds that show answers again which the person judged before.",
    ),
    click.option("--sign-in", is_flag=True, help="Ask people for a name, which is kept with what they judge."),
    click.option(
        "--consent",
        type=FILE,
        metavar="FILE",
        help="A text that people agree to before they see the page.",
    ),
    click.option(
        "--pairs",
        type=click.Choice(["even", "informative"]),
        default="even",
        show_default=True,
        help="How the arena draws its pairs: all alike, or those more often whose votes say most about the order.",
    ),
    click.option(
        "--leave-out",
        multiple=True,
        metavar="NAME",
        help="A variant that the arena does not draw, such as `base`. Can be given several times.",
    ),
)


@dataclass(frozen=True, slots=True)
class Study:
    """The way people judge: what they work through, what they are asked first, and how pairs are drawn.

    `sign_in` asks for a name, `consent` is a text to agree to, and `by_information` draws the pairs whose votes say
    most, of all variants but those that are `left_out`.
    """

    prompts: PromptSet | None = None
    sign_in: bool = False
    consent: str = ""
    by_information: bool = False
    left_out: frozenset[str] = frozenset()


def study_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options to a command."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def read_study(settings: dict[str, Any], datasets: Registry[Dataset], variants: Sequence[Variant]) -> Study:
    """Return what the options say.

    Args:
        variants: those that will be served; the base is one even where it was not named.

    Raises:
        HarnessError: for a file that cannot be read, or is empty, and for a variant to leave out that is not there.
    """
    from harness_serve.prompt_sets import read_prompts

    prompts, consent = None, ""
    if settings["prompts"] is not None:
        prompts = read_prompts(settings["prompts"], datasets, settings["repeats"])
    elif settings["repeats"]:
        raise HarnessError("--repeats is a share of the rounds of a set: add --prompts FILE")
    if (path := settings["consent"]) is not None:
        consent = read_text(path).strip()
        if not consent:
            raise HarnessError(f"--consent {path}: the file is empty, and there is nothing to agree to")
    sign_in = settings["sign_in"] or prompts is not None or bool(consent)
    left_out = frozenset(settings["leave_out"])
    has_base = any(variant.adapter is None and variant.remote is None for variant in variants)
    names = {variant.name for variant in variants} | (set() if has_base else {"base"})
    if unknown := sorted(left_out - names):
        near = nearest(unknown[0], names)
        raise HarnessError(f"--leave-out {unknown[0]}: no such variant.{near} There are: {known_names(sorted(names))}")
    if left_out and len(names - left_out) < 2:
        raise HarnessError("--leave-out: the arena needs two variants, and this leaves it fewer")
    return Study(prompts, sign_in, consent, settings["pairs"] == "informative", left_out)
