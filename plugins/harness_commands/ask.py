"""`harness ask`: one answer of a run or a model, loaded into this process; no engine is started."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError
from harness.extras import require
from harness_commands.data.showing import printable

if TYPE_CHECKING:
    from harness.contract import Answer, Request
    from harness.model.load import LoadedVariant
    from harness.variants import Variant


@click.command(name="ask")
@click.argument("variant", metavar="VARIANT")
@click.argument("question")
@click.option("--system", metavar="TEXT", help="A system prompt. [default: the template's own, where it has one]")
@click.option("--max-tokens", type=click.IntRange(1), default=256, show_default=True, metavar="N")
@click.option("--temperature", type=click.FloatRange(0), default=0.0, show_default=True, help="0: the likeliest words.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draws, above temperature 0.")
@click.option("--template", metavar="NAME", help="For a base model: this template instead of its own.")
@click.option("--json", "as_json", is_flag=True, help="Print the answer as JSON, with its thoughts and token counts.")
@click.pass_obj
def command(
    context: Context,
    variant: str,
    question: str,
    system: str | None,
    max_tokens: int,
    temperature: float,
    seed: int,
    template: str | None,
    as_json: bool,
) -> None:
    """Ask a run, a base model or a model folder one QUESTION; `-` reads it from the standard input.

    \b
    harness ask my "Could we sit outside on Saturday?"
    harness ask my@base "Could we sit outside on Saturday?"
    harness ask .models/SmolLM2-135M-Instruct - --max-tokens 64 < question.txt

    The weights are loaded into this process, and the question goes through the template that the run was tuned with.
    The answer alone goes to the standard output, as it is written, with control characters made visible; thoughts and
    everything else to standard error.
    """
    from harness.variants import require_here, require_words, resolve_variant

    words = sys.stdin.read() if question == "-" else question
    if not words.strip():
        raise HarnessError("the question is empty")
    chosen = resolve_variant(variant, context.runs_folder, context.plugins, template)
    require_here(chosen, "asked in this process")
    require_words(chosen, "asked")
    require("torch", "tuning")
    require("peft", "tuning")
    from harness.contract import Request, Sampling
    from harness.nouns import Message

    sampling = Sampling(max_tokens, temperature, seed=seed)
    messages = ((Message("system", system),) if system is not None else ()) + (Message("user", words),)
    request = Request(messages, sampling=sampling)
    loaded, load_s = _load(context, chosen)
    began = time.perf_counter()
    answer = _ask(loaded, request, quiet=as_json)
    seconds = time.perf_counter() - began
    if as_json:
        click.echo(json.dumps(_as_dict(chosen, request, answer, seconds, load_s), indent=2, ensure_ascii=False))
        return
    tokens = len(answer.token_ids or ())
    cut = "" if answer.finish == "stop" else f"; cut off at --max-tokens {max_tokens}"
    click.secho(f"{tokens} tokens in {seconds:.1f} s{cut}", dim=True, err=True)


def _load(context: Context, variant: Variant) -> tuple[LoadedVariant, float]:
    """Load a variant, saying what is loaded, and return it with the seconds that it took."""
    from harness.model.load import load_variant

    began = time.perf_counter()
    loaded = load_variant(variant, context.plugins)
    seconds = time.perf_counter() - began
    adapter = f" with the adapter of {variant.name}" if variant.adapter is not None else ""
    is_whole = variant.is_tuned and variant.adapter is None
    base = variant.name if is_whole else variant.model.short_name
    what = f"{base}{adapter}, {variant.model.dtype} on {loaded.device}, template {loaded.template.name}"
    click.secho(printable(f"{what}; loaded in {seconds:.1f} s"), dim=True, err=True)
    return loaded, seconds


def _ask(loaded: LoadedVariant, request: Request, *, quiet: bool) -> Answer:
    """Return the answer; it is written as it comes unless `quiet`."""
    from harness.model.local import LocalBackend

    shown = _Shown()
    backend = LocalBackend(loaded, batch_size=1)
    ((_, answer),) = backend.ask([request], None if quiet else shown.update)
    if not quiet:
        shown.end(answer.reasoning, answer.text)
    return answer


class _Shown:
    """The answer on the terminal, of which what is new is written: thoughts dimmed, to standard error."""

    def __init__(self) -> None:
        self.thoughts = self.text = ""

    def update(self, thoughts: str, text: str, *, is_whole: bool = False) -> None:
        """Write what an answer has more than before; half a character at its end is kept back until it is whole."""
        self.thoughts = self._written(self.thoughts, thoughts, is_whole, err=True)
        if text and self.thoughts and not self.text:
            click.echo("\n", err=True)
        self.text = self._written(self.text, text, is_whole, err=False)

    def end(self, thoughts: str, text: str) -> None:
        """Write the rest of a finished answer."""
        self.update(thoughts, text, is_whole=True)
        click.echo()

    @staticmethod
    def _written(before: str, now: str, is_whole: bool, *, err: bool) -> str:
        if not now.startswith(before) or (now.endswith("\ufffd") and not is_whole):
            return before
        new = printable(now[len(before) :])
        click.secho(new, dim=True if err else None, nl=False, err=err)
        (sys.stderr if err else sys.stdout).flush()
        return now


def _as_dict(variant: Variant, request: Request, answer: Answer, seconds: float, load_s: float) -> dict[str, Any]:
    return {
        "variant": variant.name,
        "model": variant.model.path,
        "adapter": None if variant.adapter is None else str(variant.adapter),
        "messages": [{"role": one.role, "content": one.content} for one in request.messages or ()],
        "answer": answer.text,
        "reasoning": answer.reasoning,
        "finish": answer.finish,
        "prompt_tokens": len(answer.prompt_ids or ()),
        "answer_tokens": len(answer.token_ids or ()),
        "temperature": request.sampling.temperature,
        "seed": request.sampling.seed,
        "load_s": round(load_s, 3),
        "seconds": round(seconds, 3),
    }
