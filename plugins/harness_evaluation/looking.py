"""A look at what an evaluation would send, before it is asked: each text with its ids, or the tokens and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from harness.cli.context import Context
    from harness.contract import Evaluation, EvaluationContext, Request
    from harness.contract.backends import Capability, Identity
    from harness.recipe import Recipe
    from harness.variants import Variant

SHOWN_IDS = 64  # of a prompt: its first and last half


@dataclass(frozen=True)
class Looking:
    """A Backend that answers nothing: a variant's template without its weights."""

    name: str
    template: Any
    longest: int | None = None
    longest_scored: int | None = None

    @property
    def capabilities(self) -> frozenset[Capability]:
        from harness.contract.backends import CAPABILITIES
        from harness.template.exchange import RENDERED, rendered_by

        everything = frozenset(CAPABILITIES)
        return everything if self.template is None else everything - {*RENDERED} | rendered_by(self.template)

    @property
    def identity(self) -> Identity:
        raise AssertionError("nothing is measured")

    def ask(self, requests: Sequence[Request]) -> Any:
        raise AssertionError("nothing is asked")

    def logprobs(self, sequences: Sequence[Sequence[int]]) -> Any:
        raise AssertionError("nothing is asked")


def look_first(
    context: Context,
    variants: Sequence[Variant],
    specs: Sequence[tuple[str, Any]],
    recipe: Recipe | None,
    repeat_share: float,
    shown: int | None,
) -> None:
    """Print what each evaluation would send to each variant.

    Args:
        shown: the number of requests of each evaluation that are printed whole; None prints their numbers only.
    """
    from rich.markup import escape

    from harness.contract import EvaluationContext

    around = EvaluationContext(recipe, context.plugins, None, repeat_share)
    console = context.console
    for name, options in specs:
        evaluation = context.plugins.evaluations[name]
        for variant in variants:
            console.print(f"[bold]{escape(variant.name)}[/bold], {escape(name)}", soft_wrap=True)
            if not evaluation.asks:
                console.print("  asks no model anything\n", style="dim")
                continue
            if evaluation.run is not None and evaluation.requests is None:
                console.print("  asks by itself: what it sends is not known before\n", style="dim")
                continue
            looking = Looking(variant.name, _template(variant, context))
            requests = _requests(evaluation, looking, options, around)
            _print_totals(console, looking, requests, variant, context)
            for request in spread(requests, shown or 0):
                _print_request(console, looking, request)
            console.print()


def spread(requests: Sequence[Request], most: int) -> Sequence[Request]:
    """Return at most so many requests from all over a list, which has one task after the other; the first is there."""
    return requests[:: max(1, len(requests) // most)][:most] if most else ()


def _template(variant: Variant, context: Context) -> Any:
    from harness.model.templates import load_template

    return None if variant.remote is not None else load_template(variant, context.plugins)


def _requests(evaluation: Evaluation, looking: Any, options: Any, around: EvaluationContext) -> list[Request]:
    from harness.measure.runner import Questions

    if evaluation.items is not None:
        return Questions.of(evaluation, evaluation.items(options, around), looking, around.repeat_share).requests
    assert evaluation.requests is not None
    return list(evaluation.requests(looking, options, around))


def _print_totals(
    console: Console, looking: Looking, requests: Sequence[Request], variant: Variant, context: Context
) -> None:
    generating = [request for request in requests if not request.scored]
    parts = [f"{len(requests):,} request{'s' * (len(requests) != 1)}"]
    if len(generating) < len(requests):
        parts.append(f"{len(requests) - len(generating):,} of them scored")
    asked = None
    if looking.template is not None:
        from harness.template.exchange import prompt_ids

        asked = sum(len(prompt_ids(looking.template, request)) + len(request.scored) for request in requests)
        parts.append(f"{asked:,} tokens of prompts")
    most = sum(request.sampling.max_tokens for request in generating)
    parts.append(f"at most {most:,} tokens of answers")
    console.print(f"  {', '.join(parts)}", soft_wrap=True)
    if asked is not None:
        console.print(f"  {_time(asked, most, variant, context)}", soft_wrap=True, style="dim")


def _time(asked: int, most: int, variant: Variant, context: Context) -> str:
    """Return the time that it would take at the rate of what was measured of the variant before."""
    from harness.measure.records import find_records
    from harness.measure.weights import weights_of

    records = find_records(variant, context.runs_folder, weights_of(variant)).current
    timed = [(record.samples(), float(record.entries["seconds"])) for record in records if "seconds" in record.entries]
    tokens = sum(len(sample.prompt_ids) for samples, _ in timed for sample in samples)
    seconds = sum(its for samples, its in timed if any(sample.prompt_ids for sample in samples))
    if not tokens or not seconds:
        return "no estimate of the time: nothing was measured of these weights before"
    return f"about {asked * seconds / tokens:,.0f} s, at the {tokens / seconds:,.0f} prompt tokens/s of earlier records"


def _print_request(console: Console, looking: Looking, request: Request) -> None:
    console.rule(style="dim")
    if looking.template is None:
        for message in request.messages or ():
            console.print(f"{message.role}: {message.content}", markup=False, soft_wrap=True)
        if request.messages is None:
            console.print(str(request.prompt), markup=False, soft_wrap=True)
    else:
        from harness.template.exchange import prompt_ids, stops_of

        template = looking.template
        ids = prompt_ids(template, request)
        console.print(template.decoded(ids), markup=False, soft_wrap=True, highlight=False)
        if request.scored:
            console.print("[bold]scored[/bold]  ", end="")
            console.print(repr(template.decoded(request.scored)), markup=False, soft_wrap=True, highlight=False)
        bos = template.tokenizer.bos_token_id
        count = 0 if bos is None else ids.count(bos)
        named = "the tokenizer has none" if bos is None else f"{count} × {template.tokenizer.bos_token}"
        stops = stops_of(template, request.sampling.stop)
        console.print(f"[bold]ids[/bold]     {len(ids)}: {_some(ids)}", soft_wrap=True)
        console.print("[bold]BOS[/bold]     ", end="")
        console.print(named, markup=False)
        if not request.scored:
            tokens = [template.tokenizer.convert_ids_to_tokens(id) for id in stops.ids]
            console.print("[bold]stops[/bold]   ", end="")
            console.print(f"tokens {tokens}, texts {list(stops.cut_at)}", markup=False, soft_wrap=True)
    if not request.scored:
        sampling = request.sampling
        greedy = (
            "greedy" if sampling.temperature == 0 else f"temperature {sampling.temperature}, top_p {sampling.top_p}"
        )
        seed = "" if sampling.seed is None else f", seed {sampling.seed}"
        console.print(f"[bold]answer[/bold]  at most {sampling.max_tokens} tokens, {greedy}{seed}", soft_wrap=True)


def _some(ids: Sequence[int]) -> str:
    if len(ids) <= SHOWN_IDS:
        return " ".join(map(str, ids))
    half = SHOWN_IDS // 2
    return f"{' '.join(map(str, ids[:half]))} … {' '.join(map(str, ids[-half:]))}"
