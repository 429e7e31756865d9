"""`harness plugins show`: one registered thing, the options that a recipe may set, and the lines that name it there."""

from __future__ import annotations

import io
import json
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import click

from harness.cli.context import Context
from harness.contract.kinds import KINDS, Kind

if TYPE_CHECKING:
    from harness.plugins.registry import Entry


@click.command()
@click.argument("kind", type=click.Choice([kind.name for kind in KINDS]), metavar="KIND")
@click.argument("name", metavar="NAME")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def show(context: Context, kind: str, name: str, as_json: bool) -> None:
    """Show what is registered as NAME: where it came from, its options with types and defaults, and a recipe's lines.

    KIND is dataset, shape, filter, template, objective, method, evaluation, engine, tracker or command.
    """
    (its_kind,) = (one for one in KINDS if one.name == kind)
    shown = described(its_kind, context.plugins.registry(its_kind.plural).entry(name))
    if as_json:
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False))
        return
    from rich.markup import escape

    console, plugin = context.console, shown["plugin"]
    console.print(f"[bold]{escape(shown['name'])}[/bold]  {kind}: {escape(shown['description'])}", soft_wrap=True)
    source = f"{plugin['name']} {plugin['version']}".strip()
    console.print(f"  [dim]from[/dim] {escape(source)}, {escape(plugin['path'])}", soft_wrap=True)
    if shown["options"]:
        table = context.table("option", "type", "default")
        for option in shown["options"]:
            default = "required" if option["required"] else json.dumps(option["default"], ensure_ascii=False)
            table.add_row(escape(option["name"]), escape(option["type"]), escape(default))
        console.print()
        console.print(table)
    if shown["recipe"]:
        click.echo("\nIn a recipe:\n")
        click.echo("".join(f"  {line}\n" for line in shown["recipe"].splitlines()), nl=False)


def described(kind: Kind, entry: Entry[Any]) -> dict[str, Any]:
    """Return what is known of a registered thing as JSON data."""
    item, plugin = entry.item, entry.plugin
    options = _options(item)
    help_line = item.get_short_help_str(200) if isinstance(item, click.Command) else item.description
    return {
        "kind": kind.name,
        "name": entry.name,
        "qualified": entry.qualified,
        "description": help_line,
        "plugin": {"name": plugin.name, "version": plugin.version, "path": plugin.path},
        "options": options,
        "recipe": _fragment(kind, entry, options),
    }


def _options(item: Any) -> list[dict[str, Any]]:
    """Return the options that a plugin declares, with their types as Python writes them."""
    options = getattr(item, "options", None)
    fields = getattr(options, "model_fields", {})
    defaults = {name: field.get_default(call_default_factory=True) for name, field in fields.items()}
    return [
        {
            "name": name,
            "type": _type(field.annotation),
            "required": field.is_required(),
            "default": None if field.is_required() else _plain(defaults[name]),
        }
        for name, field in fields.items()
    ]


def _type(annotation: Any) -> str:
    """Return a type as a person writes it in YAML's terms: `int or null`, `'a' or 'b'`."""
    origin, parts = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type(parts[0])
    if origin is Literal:
        return " or ".join(map(repr, parts))
    if origin in (Union, UnionType):
        return " or ".join(map(_type, parts))
    if origin in (tuple, list):
        return f"list of {_type(parts[0])}"
    if origin is dict:
        return f"{_type(parts[0])} to {_type(parts[1])}"
    if annotation in (type(None), None):
        return "null"
    return {"SecretStr": "str", "Path": "path"}.get(name := getattr(annotation, "__name__", str(annotation)), name)


def _plain(value: Any) -> Any:
    """Return a default as JSON data; what JSON has no form for, as text."""
    return json.loads(json.dumps(value, default=lambda other: list(other) if isinstance(other, tuple) else str(other)))


def _fragment(kind: Kind, entry: Entry[Any], options: list[dict[str, Any]]) -> str:
    """Return the lines of a recipe that name a thing, with its options at their defaults."""
    if not kind.where:
        return ""
    from ruamel.yaml import YAML

    *keys, last = kind.where.split(".")
    section: Any = {last: entry.name}
    if kind.name == "dataset" and getattr(entry.item, "source", None) is None:
        section["path"] = "rows.jsonl"
    section |= {one["name"]: "..." if one["required"] else one["default"] for one in options}
    for key in reversed(keys):
        section = {key.removesuffix("[]"): [section] if key.endswith("[]") else section}
    out = io.StringIO()
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.dump(section, out)
    return out.getvalue()
