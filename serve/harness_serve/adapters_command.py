"""`harness adapters`: adapters added to a server that runs, and taken away again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from harness.cli.context import Context
from harness.errors import HarnessError
from harness_serve.guard import LOOPBACK

if TYPE_CHECKING:
    from harness_serve.door import Door

KEY_VARIABLE = "HARNESS_API_KEY"
OF_SERVER = click.option(
    "--endpoint", metavar="URL",
    help="The server, as in https://host/v1, asked with the key in HARNESS_API_KEY, which `harness keys make NAME "
    "--may adapters` makes. [default: the one that was started from this runs folder]",
)  # fmt: skip
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(name="adapters")
def adapters() -> None:
    """Add adapters to a `harness serve` that runs, and take them away; nobody who is asking notices."""


@adapters.command()
@click.argument("variant", metavar="RUN")
@OF_SERVER
@JSON
@click.pass_obj
def add(context: Context, variant: str, endpoint: str | None, as_json: bool) -> None:
    """Serve the adapter of RUN, or of a folder, once it passed the checks that a start makes.

    \b
    harness adapters add demo
    harness adapters add ./adapter

    It answers under the run's name with the beginning of its hash, as in demo-1f0c2a9b: a name is never used for other
    weights while the server runs. Where these weights are served already, under whatever name, that name is printed and
    nothing is changed, which is no error.
    """
    path = Path(variant).expanduser()
    if any((path / name).is_file() for name in ("manifest.json", "adapter_config.json")):
        variant = str(path.resolve())
    done = _answer(context, endpoint, {"do": "add", "variant": variant})
    if as_json:
        click.echo(json.dumps(done, indent=2))
        return
    if not done["added"]:
        click.echo(f"{done['name']} is served already, with these weights")
        return
    its = [agreement for agreement in done["agreements"] if agreement["variant"] == done["name"]]
    checked = f": {its[0]['tokens']} log-probabilities are {its[0]['mean']:.1e} nats from what was tuned" if its else ""
    click.echo(f"{done['name']} is served{checked}")


@adapters.command()
@click.argument("name")
@OF_SERVER
@click.pass_obj
def remove(context: Context, name: str, endpoint: str | None) -> None:
    """Serve the adapter NAME no more: new requests are refused at once, those under way get their answers."""
    done = _answer(context, endpoint, {"do": "remove", "name": name})
    freed = "" if done["slot_freed"] else "; answers of it go on, and its slot stays in use until the server ends"
    click.echo(f"{name} is served no more{freed}")


@adapters.command(name="list")
@OF_SERVER
@JSON
@click.pass_obj
def list_command(context: Context, endpoint: str | None, as_json: bool) -> None:
    """List the adapters that are served, and the room for more."""
    done = _answer(context, endpoint, {"do": "list"})
    if as_json:
        click.echo(json.dumps(done, indent=2))
        return
    from rich.markup import escape

    table = context.table("adapter", "run", "since")
    for adapter in done["adapters"]:
        since = "added" if adapter["added"] else "the start"
        table.add_row(f"[bold]{escape(adapter['name'])}[/bold]", escape(adapter["run"] or "-"), since)
    context.console.print(table)
    if (room := done["capacity"]) is None:
        click.echo("this server has no room for adapters: --set adapter_slots=N at its start makes some")
    else:
        free = room["slots"] - len(done["adapters"])
        click.echo(f"room for {free} more, of rank {room['rank']} at most, on {', '.join(room['modules'])}")
    if done["notice"]:
        click.echo(done["notice"], err=True)


def _answer(context: Context, endpoint: str | None, question: Mapping[str, Any]) -> dict[str, Any]:
    """Return the server's answer, showing what is waited for meanwhile. Raises HarnessError."""
    from harness_serve.door import asked, doors

    here = doors(context.runs_folder)
    if endpoint is not None and (door := next((d for d in here if _is_same(d.url, endpoint)), None)) is not None:
        lines = asked(door, question)  # no key: its socket is this user's
    elif endpoint is not None:
        lines = _of_endpoint(endpoint, question)
    else:
        lines = asked(_only(here, context.runs_folder), question)
    for line in lines:
        if "waiting" in line:
            click.echo(f"waiting for {line['waiting']}", err=True)
        elif "error" in line:
            raise HarnessError(line["error"])
        else:
            return dict(line["done"])
    raise HarnessError("the server hung up before it had answered")


def _is_same(url: str, endpoint: str) -> bool:
    """Return True if both name one port of this machine, by whichever of its names, with `/v1` or without."""
    try:
        (one, one_port), (other, other_port) = ((its.hostname, its.port) for its in map(urlsplit, (url, endpoint)))
    except ValueError:  # no URL, as whoever asks there will say
        return False
    return one_port == other_port and (one == other or {one, other} <= set(LOOPBACK))


def _only(running: list[Door], runs_folder: Path) -> Door:
    """Return the one server that runs. Raises HarnessError for none and for several."""
    if not running:
        raise HarnessError(
            f"no `harness serve` runs from {runs_folder}; start one, name its runs folder with `harness --runs FOLDER "
            f"adapters ...`, or name the server with --endpoint"
        )
    if len(running) > 1:
        raise HarnessError(
            f"{len(running)} servers run from {runs_folder}; choose with --endpoint: "
            f"{', '.join(door.url for door in running)}"
        )
    return running[0]


def _of_endpoint(endpoint: str, question: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    import httpx

    url = endpoint.rstrip("/").removesuffix("/v1") + "/harness/adapters"
    key = os.environ.get(KEY_VARIABLE)
    headers = {"authorization": f"Bearer {key}"} if key else {}
    try:
        with httpx.stream("POST", url, json=dict(question), headers=headers, timeout=600) as answer:
            if answer.status_code != 200:
                answer.read()
                raise HarnessError(f"{endpoint}: {_reason(answer)}")
            yield from (json.loads(line) for line in answer.iter_lines() if line)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise HarnessError(f"nothing answers at {endpoint} ({error})") from None
    except ValueError:
        raise HarnessError(f"{endpoint}: its answer is not of a server of `harness serve`") from None


def _reason(answer: Any) -> str:
    try:
        return str(answer.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}; is this a server of `harness serve`?"
