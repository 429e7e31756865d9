"""`harness generate`: let a model write instruction data from a few tasks that people wrote."""

from __future__ import annotations

import hashlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from harness.cli.context import Context
from harness.errors import HarnessError

if TYPE_CHECKING:
    from harness.client.asking import Limits
    from harness_generation.output import Output
    from harness_generation.prompts import Api, Seed
    from harness_generation.self_instruct import Settings

WARN_EVERY_S, LOG_EVERY_S = 5.0, 30.0


@click.command(name="generate", short_help="Let a model write instruction data (Self-Instruct).")
@click.argument("seeds", metavar="SEEDS")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="The JSONL file to write, or to go on with.",
)
@click.option(
    "--endpoint", required=True, metavar="URL", help="An OpenAI-compatible endpoint; it usually ends with /v1."
)
@click.option("--model", required=True, metavar="NAME", help="The model's name at the endpoint.")
@click.option(
    "--api-key",
    envvar="HARNESS_API_KEY",
    metavar="KEY",
    help="Its key; better set in HARNESS_API_KEY, where no list of processes shows it.",
)
@click.option(
    "--api",
    type=click.Choice(["chat", "completions"]),
    default="chat",
    show_default=True,
    help="completions: for models that were not tuned to chat.",
)
@click.option(
    "--count",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="How many new instructions to keep, those of earlier sessions included.",
)
@click.option(
    "--instances",
    type=click.IntRange(1, 20),
    default=1,
    show_default=True,
    metavar="N",
    help="At most so many rows an instruction.",
)
@click.option(
    "--examples",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    metavar="N",
    help="Tasks shown when asking for new ones; up to a quarter of them generated ones.",
)
@click.option(
    "--novelty",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.7,
    show_default=True,
    metavar="X",
    help="Instructions whose ROUGE-L with a kept one is X or more are dropped.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=0.7,
    show_default=True,
    help="For instructions; classification and instances are greedy.",
)
@click.option(
    "--max-tokens", type=click.IntRange(min=1), default=1024, show_default=True, metavar="N", help="The longest answer."
)
@click.option(
    "--seed",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Of what is shown, and sent with each request.",
)
@click.option(
    "--budget-tokens",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stop before prompts and answers of all sessions take more.",
)
@click.option(
    "--requests-per-minute", type=click.FloatRange(min=0, min_open=True), metavar="N", help="Retries included."
)
@click.option(
    "--concurrency",
    type=click.IntRange(1, 1024),
    default=4,
    show_default=True,
    metavar="N",
    help="Requests at once, and prompts a round.",
)
@click.option(
    "--max-retries",
    type=click.IntRange(min=0),
    default=6,
    show_default=True,
    metavar="N",
    help="Of a request that fails by overload, time or connection.",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=0, min_open=True),
    default=120,
    show_default=True,
    metavar="SECONDS",
    help="How long one answer may take.",
)
@click.option(
    "--patience",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    metavar="N",
    help="Stop after so many rounds in a row that keep nothing.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON on stdout.")
@click.pass_obj
def command(context: Context, /, seeds: str, out: Path, as_json: bool, **given: Any) -> None:
    """Let a model write instruction data: Self-Instruct (Wang et al. 2022), with any OpenAI-compatible endpoint.

    SEEDS are tasks that people wrote: rows with an instruction, and better with instances of input and output. The
    model is asked for new instructions; those that are useful, and new by ROUGE-L against all others, are asked for
    instances. Each row records what made it. Killed or stopped, the same command goes on where it was.

    \b
    harness generate seed_tasks.jsonl --out new.jsonl --endpoint http://127.0.0.1:8000/v1 --model demo --count 500
    harness data preview new.jsonl
    """
    import asyncio

    from harness.client.asking import Limits
    from harness_generation.output import opened
    from harness_generation.prompts import prompt_version, read_seeds
    from harness_generation.self_instruct import Settings

    read = read_seeds(seeds, context.plugins.datasets)
    concurrency = given["concurrency"]
    settings = Settings(
        count=given["count"], seed=given["seed"], temperature=given["temperature"], max_tokens=given["max_tokens"],
        examples=given["examples"], own=given["examples"] // 4, instances=given["instances"],
        prompts_a_round=concurrency, novelty=given["novelty"], patience=given["patience"],
    )  # fmt: skip
    limits = Limits(
        concurrency, given["requests_per_minute"], given["budget_tokens"], given["max_retries"], given["timeout_s"]
    )
    recorded = {
        "model": given["model"],
        "api": given["api"],
        "sampling": settings.sampling(),
        "prompt_version": prompt_version(),
        "seed": settings.seed,
        "seed_tasks": hashlib.sha256(repr(read).encode()).hexdigest()[:16],
        "examples": settings.examples,
        "novelty": settings.novelty,
    }
    with opened(out, recorded) as output:
        for line in output.notes:
            click.echo(line, err=True)
        if output.rows:
            click.echo(f"{out}: goes on with {len(output.kept)} of {settings.count} instructions", err=True)
        stopped: HarnessError | KeyboardInterrupt | None = None
        try:
            if len(output.kept) < settings.count:
                asyncio.run(_generate(read, output, settings, limits, given))
        except (HarnessError, KeyboardInterrupt) as error:
            stopped = error
    if isinstance(stopped, HarnessError) and not (output.rows or output.state.spent.requests):
        raise stopped
    if as_json:
        click.echo(json.dumps(_summary(output, settings), indent=2, ensure_ascii=False))
    else:
        _print(context, output, settings)
    if stopped is None:
        return
    kept = f"{len(output.kept)} of {settings.count} instructions are kept in {out}"
    if isinstance(stopped, KeyboardInterrupt):
        click.echo(f"interrupted: {kept}; the same command goes on", err=True)
        sys.exit(130)
    raise HarnessError(f"{stopped}\n{kept}; {_how_to_go_on(stopped)}")


async def _generate(
    seeds: list[Seed], output: Output, settings: Settings, limits: Limits, given: dict[str, Any]
) -> None:
    from harness_generation.endpoint import Asker
    from harness_generation.self_instruct import SelfInstruct

    api: Api = given["api"]
    warn = _throttled(lambda message: click.echo(f"warning: {message}", err=True), WARN_EVERY_S)
    asker = Asker(given["endpoint"], given["model"], api, given["api_key"], limits, output.state.spent, warn)
    async with asker:
        await asker.check()
        with _progress(output, settings.count) as on_change:
            await SelfInstruct(seeds, asker, output, settings, on_change).run()


def _how_to_go_on(stopped: HarnessError) -> str:
    from harness.client.asking import BudgetUsedUp

    if isinstance(stopped, BudgetUsedUp):
        return "the same command with a larger --budget-tokens goes on"
    return "the same command goes on once that is mended"


def _summary(output: Output, settings: Settings) -> dict[str, Any]:
    state = output.state
    return {
        "out": str(output.path),
        "count": settings.count,
        "kept": len(output.kept),
        "rows": output.rows,
        "instructions_read": state.asked_for,
        "dropped": dict(state.dropped.most_common()),
        "requests": state.spent.requests,
        "retries": state.spent.retries,
        "prompt_tokens": state.spent.prompt_tokens,
        "completion_tokens": state.spent.completion_tokens,
        "elapsed_s": round(state.elapsed_s, 1),
        "tokens_per_s": round(state.spent.tokens / state.elapsed_s, 1) if state.elapsed_s else 0.0,
    }


def _print(context: Context, output: Output, settings: Settings) -> None:
    """Print what was kept, what it cost, and a table of what was dropped for which reason."""
    summary = _summary(output, settings)
    console = context.console
    console.print(
        f"{output.path}: {summary['kept']:,} of {settings.count:,} instructions kept, {summary['rows']:,} rows",
        soft_wrap=True,
    )
    console.print(
        f"asked {summary['requests']:,} times ({summary['retries']:,} again), "
        f"{summary['prompt_tokens']:,} prompt tokens and {summary['completion_tokens']:,} answered, "
        f"{summary['elapsed_s']:,} s, {summary['tokens_per_s']:,} tokens/s; "
        f"{summary['instructions_read']:,} instructions read",
        soft_wrap=True,
    )
    if summary["dropped"]:
        table = context.table("dropped", "how many")
        for reason, count in summary["dropped"].items():
            table.add_row(reason, f"{count:,}")
        console.print(table)


@contextmanager
def _progress(output: Output, count: int) -> Iterator[Any]:
    """Show a progress bar on a terminal's stderr, elsewhere a line every 30 s. Speed is that of this session."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.table import Column

    console = Console(stderr=True)
    columns = (
        TextColumn("kept"), BarColumn(bar_width=12), MofNCompleteColumn(), TextColumn("left"), TimeRemainingColumn(),
        TextColumn("{task.fields[text]}", table_column=Column(ratio=1, no_wrap=True, overflow="ellipsis")),
    )  # fmt: skip
    log = _throttled(lambda line: click.echo(line, err=True), LOG_EVERY_S, first=False)
    started, tokens = time.monotonic(), output.state.spent.tokens
    with Progress(*columns, console=console, transient=True, expand=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=count, completed=len(output.kept), text="")

        def on_change() -> None:
            state = output.state
            used = state.spent.tokens
            rate = (used - tokens) / max(1e-3, time.monotonic() - started)
            dropped = ", ".join(f"{reason} {number:,}" for reason, number in state.dropped.most_common(2))
            text = f"asked {state.spent.requests:,}, {used:,} tokens, {rate:,.0f}/s, dropped {state.dropped.total():,}"
            text += f" ({dropped})" if dropped else ""
            progress.update(task, completed=len(output.kept), text=text)
            if not console.is_terminal:
                log(f"kept {len(output.kept):,} of {count:,}; {text}")

        yield on_change


def _throttled(call: Callable[[str], None], every_s: float, first: bool = True) -> Callable[[str], None]:
    """Return `call` limited to once in `every_s` seconds; without `first`, the first period is silent too."""
    last = -math.inf if first else time.monotonic()

    def maybe(text: str) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= every_s:
            last = now
            call(text)

    return maybe
