"""`harness serve`: variants behind one OpenAI-compatible endpoint, checked against the runs, and the page beside it."""

from __future__ import annotations

import contextlib
import importlib
import itertools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

import harness
from harness.cli.context import Context
from harness.extras import require
from harness_serve.choices import engine_and_options, named_keys, with_remotes
from harness_serve.study import read_study, study_options

if TYPE_CHECKING:
    from harness.checks.agreement import Agreement
    from harness.checks.parity import Parity
    from harness.contract import Endpoint, Engine
    from harness.plugins import Registry
    from harness.variants import Variant
    from harness_serve.keys import KeyFile
    from harness_serve.supervisor import Supervisor

MOST_EXAMPLES = 4  # prompts on the page


@click.command()
@click.argument("variants", nargs=-1, required=True, metavar="VARIANT...")
@click.option(
    "--host",
    help="Address to listen on, of endpoint and page. Another than this machine's own needs a key. "
    "[default: 127.0.0.1]",
)
@click.option(
    "--allow-host",
    "allow_hosts",
    multiple=True,
    metavar="NAME",
    help="Another name that endpoint and page answer to, as a reverse proxy in front needs it. "
    "Can be given several times.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the endpoint. [default: 8000]")
@click.option("--ui/--no-ui", default=True, show_default=True, help="Serve the page on which people compare variants.")
@click.option("--ui-port", type=click.IntRange(1, 65535), default=7860, show_default=True, help="Port of the page.")
@click.option(
    "--api-key",
    envvar="HARNESS_API_KEY",
    metavar="KEY",
    help="What clients must send, and people to log in on the page. "
    "Better given as HARNESS_API_KEY, which `ps` does not show.",
)
@click.option(
    "--keys",
    "keys_file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Named keys beside it, of `harness keys`. [default: keys.json in the runs folder, where it is]",
)
@click.option(
    "--votes",
    default="votes.db",
    show_default=True,
    metavar="DATABASE",
    help="Where verdicts go: a SQLite file or a SQLAlchemy URL.",
)
@click.option(
    "--examples",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Example prompts for the page: a JSON list of strings, or data, whose first questions are taken.",
)
@study_options
@click.option(
    "--template",
    metavar="NAME",
    help="Chat template for a model that was not tuned here, by its name or as in a recipe. [default: the model's own]",
)
@click.option(
    "--dtype", type=click.Choice(["bfloat16", "float16", "float32"]), help="[default: what the variants were tuned in]"
)
@click.option("--engine", metavar="NAME", help="The engine to serve with. [default: the recipe's, else vllm]")
@click.option(
    "--set", "sets", multiple=True, metavar="KEY=VALUE", help="An option of the engine, as in max_model_len=2048."
)
@click.option(
    "--drain",
    "drain_s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    metavar="SECONDS",
    help="How long answers that are under way may take after SIGTERM.",
)
@click.pass_obj
def serve(context: Context, /, variants: tuple[str, ...], **settings: Any) -> None:
    """Serve variants side by side: an OpenAI-compatible endpoint, and a page to compare them on.

    \b
    harness serve RUN                      the run and its base model
    harness serve RUN-1 RUN-2 RUN-1@base   several runs of one base model
    harness serve ./model --template chatml --no-ui

    Before anyone can ask, the prompt ids that the engine receives are compared with those of training, and the answers'
    log-probabilities with the tuned model's; a difference stops serving. Tool calls are parsed as the template writes
    them (--set tool_parser=NAME: otherwise; none: not at all).
    """
    from harness.variants import require_words, resolve_variants

    console = context.console
    with _sigterm():
        try:
            resolved = resolve_variants(variants, context.runs_folder, context.plugins, settings["template"])
            for variant in resolved:
                require_words(variant, "served")
            local, remotes = with_remotes(resolved)
            engine, options = engine_and_options(context, local, settings, remotes)
            _serve(context, local, remotes, engine, options, settings)
        except Terminated:
            console.print("\nStopped: the engine and the page have ended.")
            sys.exit(128 + signal.SIGTERM)
        except KeyboardInterrupt:
            console.print("\nStopped: the engine and the page have ended.")


def _serve(
    context: Context,
    variants: tuple[Variant, ...],
    remotes: tuple[Variant, ...],
    engine: Engine,
    options: Any,
    settings: dict[str, Any],
) -> None:
    from harness_serve.door import opened, socket_path
    from harness_serve.guard import Names, require_key
    from harness_serve.supervisor import Supervisor

    console, host = context.console, options.host
    named = named_keys(options)
    require_key(host, options.api_key.get_secret_value() if options.api_key is not None else None)
    names = Names.checked(host, tuple(options.allow_hosts))
    if settings["ui"] and options.port == settings["ui_port"]:
        raise harness.HarnessError(
            f"endpoint and page cannot both have port {options.port}: "
            f"choose another with --port or --ui-port, or --no-ui"
        )
    examples = study = None
    if settings["ui"]:  # refused now, not after a minute of waiting
        from harness.votes.store import Ballots, require_usable
        from harness_serve.listening import require_free_port

        try:
            require_free_port(host, settings["ui_port"])
        except harness.HarnessError as error:
            raise harness.HarnessError(f"the page: {error}, or choose another with --ui-port, or --no-ui") from None
        require_usable(settings["votes"])
        examples = read_examples(settings["examples"], context.plugins.datasets)
        study = read_study(settings, context.plugins.datasets, (*variants, *remotes))
    with contextlib.ExitStack() as stack:
        needed_later = ("transformers", "gradio") if settings["ui"] else ("transformers",)
        began = time.monotonic()
        door = stack.enter_context(socket_path())
        if "control_socket" in type(options).model_fields:
            options = options.model_copy(update={"control_socket": door})
        runs = context.runs_folder
        supervisor = stack.enter_context(Supervisor(engine, options, variants, context.plugins, runs, remotes))
        with _waiting(context, needed_later) as report:
            ready = supervisor.start(report)
        endpoint = supervisor.endpoint
        console.print(f"Ready after {time.monotonic() - began:.0f} s.\n")
        _show_checks(context, ready.endpoint, ready.parity, ready.agreements)
        page_url = None
        if settings["ui"]:
            from harness_serve.page import serve_page

            require("gradio", "serving")
            ballots = Ballots(settings["votes"])
            stack.callback(ballots.close)
            page_url = stack.enter_context(
                serve_page(
                    supervisor,
                    ballots,
                    examples,
                    names=names,
                    port=settings["ui_port"],
                    keys=named,
                    study=study,
                )
            )
        _show_endpoint(context, endpoint, page_url, settings["votes"], named)
        if page_url and _has_display():
            import webbrowser

            webbrowser.open(page_url)
        if endpoint.control is not None:
            stack.enter_context(opened(door, runs, endpoint.url, options.port, supervisor.answer))
        try:
            supervisor.watch(lambda text: console.print(text, soft_wrap=True, markup=False))
        except Terminated:
            _drain(context, supervisor, settings["drain_s"])


def _drain(context: Context, supervisor: Supervisor, limit_s: float) -> None:
    """Let answers that are under way end, within `limit_s`. Raises Terminated where some did not."""
    if (control := supervisor.control) is None:
        raise Terminated
    context.console.print("\nSIGTERM: no more requests are taken; answers that are under way are ended.")
    deadline, left = time.monotonic() + limit_s, 0
    with contextlib.suppress(harness.HarnessError):  # it has ended meanwhile: nothing is under way
        while (left := control.drain()) and time.monotonic() < deadline:
            time.sleep(0.2)
    if left:
        context.console.print(f"{left} answers were cut after {limit_s:g} s (--drain SECONDS gives them longer).")
        raise Terminated
    context.console.print("Stopped: the engine and the page have ended.")


def read_examples(path: Path | None, datasets: Registry[harness.Dataset]) -> list[str] | None:
    """Return the texts of a JSON list, or the first question of each of the first rows of a file of data."""
    from harness.data.convert.prompts import prompts_of

    if path is None:
        return None
    try:
        examples = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise harness.HarnessError(f"--examples {path}: cannot be read: {error.strerror}") from None
    except ValueError:  # rows by the line, or packed
        examples = None
    if isinstance(examples, list) and all(isinstance(example, str) for example in examples):
        return examples
    try:
        return list(itertools.islice(prompts_of(str(path), datasets), MOST_EXAMPLES))
    except harness.DataError as error:
        expected = "expected a JSON list of strings, or a file of data of which each row asks something"
        raise harness.HarnessError(f"--examples: {expected}. {error}") from None


@contextlib.contextmanager
def _waiting(context: Context, needed_later: tuple[str, ...]) -> Iterator[Callable[[str], None]]:
    """Show a spinner with the seconds so far and what is being waited for; without a terminal, a line for each change.

    `needed_later`: modules to import meanwhile.
    """
    console, began, stages = context.console, time.monotonic(), 0

    def noticed() -> None:
        nonlocal stages
        stages += 1
        if stages == 2:  # the engine has done its own importing, which takes every core there is
            threading.Thread(target=_import, args=(needed_later,), daemon=True).start()

    if not console.is_terminal:

        def tell(what: str) -> None:
            noticed()
            console.print(f"{time.monotonic() - began:5.0f} s  waiting for {what}", soft_wrap=True)

        yield tell
        return
    from rich.markup import escape
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TimeElapsedColumn(),
        TextColumn("waiting for {task.description}"),
        console=console,
        transient=True,
    ) as bar:
        task = bar.add_task("the engine")

        def show(what: str) -> None:
            noticed()
            bar.update(task, description=escape(what))

        yield show


def _import(modules: tuple[str, ...]) -> None:
    from harness_serve.page import quieten

    quieten()
    with contextlib.suppress(ImportError):  # reported where the module is used
        for module in modules:
            importlib.import_module(module)


def _show_checks(context: Context, endpoint: Endpoint, parity: Parity, agreements: list[Agreement]) -> None:
    from rich.table import Table

    if parity.unverified:
        shown = f"[yellow]unverified[/yellow]: {parity.unverified}"
    else:
        shown = f"prompt ids as in training: {', '.join(parity.compared)}"
    context.console.print(f"[bold]parity[/bold]    {shown}", soft_wrap=True)
    for why in dict.fromkeys(parity.left_out.values()):
        names = ", ".join(name for name, its in parity.left_out.items() if its == why)
        context.console.print(f"          not compared: {names}; {why}", soft_wrap=True, markup=False, style="dim")
    context.console.print()
    if "score" not in endpoint.capabilities:
        why = "the engine gives no log-probabilities of given ids, so that nothing shows whether adapters are applied"
        context.console.print(f"[bold]adapters[/bold]  [yellow]unverified[/yellow]: {why}", soft_wrap=True)
        return
    if not agreements:
        context.console.print("[dim]No run among the variants, so there are no probes to check against.[/dim]")
        return
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for title in ("served as tuned", "tokens", "mean difference", "largest", "from its base", ""):
        table.add_column(title, justify="left" if title in ("served as tuned", "") else "right")
    for agreement in agreements:
        apart = "" if agreement.mean_to_base is None else f"{agreement.mean_to_base:.2g}"
        outcome = (
            "[green]ok[/green]"
            if agreement.tells_apart
            else "[yellow]tuning moved it too little to tell it from its base[/yellow]"
        )
        table.add_row(
            agreement.variant,
            str(agreement.tokens),
            f"{agreement.mean:.1e}",
            f"{agreement.largest:.1e}",
            apart,
            outcome,
        )
    context.console.print(table)
    context.console.print("[dim]log-probabilities in nats, of the run's probes[/dim]")


def _show_endpoint(
    context: Context, endpoint: Endpoint, page_url: str | None, votes: str, named: KeyFile | None
) -> None:
    lines = [
        "",
        f"[bold]endpoint[/bold]  {endpoint.url}",
        f"[bold]models[/bold]    {', '.join(endpoint.models)}",
        f"[bold]settings[/bold]  {', '.join(f'{name} {value}' for name, value in endpoint.settings.items())}",
    ]
    if page_url:
        login = " (log in with a key)" if endpoint.api_key else ""
        lines += [f"[bold]page[/bold]      {page_url}{login}", f"[bold]votes[/bold]     {votes}"]
    if named is not None:
        lines += [f"[bold]keys[/bold]      {', '.join(key.name for key in named.active())} ({named.path})"]
    context.console.print("\n".join(lines), soft_wrap=True)
    context.console.print(f"\n{_example(endpoint, named)}\n", soft_wrap=True, markup=False)
    context.console.print("Ctrl-C stops everything.")


def _example(endpoint: Endpoint, named: KeyFile | None) -> str:
    """Return the command that asks the endpoint once, with a key where one is needed."""
    body = {"model": endpoint.models[-1], "messages": [{"role": "user", "content": "Hello"}]}
    lines = [f"  curl -s {endpoint.url}/chat/completions -H 'Content-Type: application/json' \\"]
    if endpoint.api_key:
        lines.append('    -H "Authorization: Bearer $HARNESS_API_KEY" \\')
        if not os.environ.get("HARNESS_API_KEY"):
            source = "what --api-key says" if named is None else "one of these keys, as `harness keys make` showed it"
            lines.insert(0, f"  export HARNESS_API_KEY=...  # {source}")
    return "\n".join([*lines, f"    -d '{json.dumps(body)}'"])


def _has_display() -> bool:
    return sys.platform == "darwin" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Terminated(KeyboardInterrupt):
    """SIGTERM came."""


@contextlib.contextmanager
def _sigterm() -> Iterator[None]:
    """Raise Terminated at SIGTERM, so that everything is stopped in order."""

    def terminate(*_: object) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
