"""The page of `harness template show --html`: conversations as tokens, one file with everything in it, light or dark."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from harness.commands.data.page import STYLE
from harness.commands.data.showing import printable
from harness.commands.template.show import Shown, takes

if TYPE_CHECKING:
    from harness.commands.data.showing import ShownToken
    from harness.commands.template.subject import Subject

TOKENS = """
:root { --even: #eef1f5; --odd: #e0e5ec; --learnt: #1a6b3a; --learnt-even: #d9f0e1; --learnt-odd: #c4e6d0; --control: #8a2a86; --control-page: #f6e3f5; }
@media (prefers-color-scheme: dark) {
  :root { --even: #262d38; --odd: #313a47; --learnt: #8fe0ac; --learnt-even: #17392a; --learnt-odd: #1e4a35; --control: #eca8e8; --control-page: #40233f; }
}
.tokens { font: 15px/1.75 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
.tokens i { font-style: normal; background: var(--even); border-radius: 3px; padding: 2px 0; } .tokens i:nth-of-type(odd) { background: var(--odd); }
.tokens i.l, .legend .l { color: var(--learnt); background: var(--learnt-even); font-weight: 600; } .tokens i.l:nth-of-type(odd) { background: var(--learnt-odd); }
.tokens i.c:nth-of-type(n), .legend .c { color: var(--control); background: var(--control-page); box-shadow: inset 0 0 0 1px var(--control); padding: 2px 3px; }
.tokens i.c.l:nth-of-type(n), .legend .c.l { background: var(--learnt-odd); box-shadow: inset 0 0 0 1px var(--learnt); }
.tokens i:hover { outline: 2px solid var(--bar); } .tokens u { text-decoration: none; opacity: .45; }
.legend { display: flex; flex-wrap: wrap; gap: 8px 18px; color: var(--soft); font-size: .85rem; margin: 0 0 16px; }
.legend i { font-style: normal; background: var(--even); border-radius: 3px; padding: 2px 6px; margin-right: 6px; font-family: ui-monospace, monospace; color: var(--ink); }
section { margin-bottom: 16px; } section h2 { overflow-wrap: anywhere; } pre { overflow-x: auto; font-size: .8rem; white-space: pre-wrap; overflow-wrap: anywhere; }
summary { cursor: pointer; color: var(--soft); } code { overflow-wrap: anywhere; }
"""  # fmt: skip
LEGEND = (
    '<div class="legend"><span><i>text</i>read, not learnt</span><span><i class="l">text</i>learnt</span>'
    '<span><i class="c">token</i>control token</span><span><i class="c l">token</i>control token, learnt</span>'
    "<span>point at a token for its id</span></div>"
)


def page_of(subject: Subject, shown: list[Shown], jinja: str | None = None) -> str:
    """The conversations as an HTML page with nothing outside itself; it runs no script."""
    template = subject.template
    title = f"{template.name} on {subject.told}"
    count, learnt, control = (
        sum(of) for of in zip(*((len(s.example), s.learnt, s.control) for s in shown), strict=True)
    )
    figures = {
        "template": template.name,
        "tokens": f"{count:,}",
        "learnt": f"{learnt:,}",
        "control tokens": f"{control:,}",
        "an answer ends with": " ".join(template.stop_tokens),
    }
    cards = "".join(f"<div><b>{escape(value)}</b><span>{name}</span></div>" for name, value in figures.items())
    model = "" if subject.told == subject.model else f" Model: <code>{escape(subject.model)}</code>."
    source = (
        f"<section><details><summary>The template's source</summary><pre>{_text(jinja)}</pre></details></section>\n"
        if jinja
        else ""
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{TOKENS}</style>\n</head>\n<body>\n<main>\n<h1>{escape(title)}</h1>\n"
        f"<p>What the chat template makes of a conversation. It takes {escape(takes(template))}.{model}</p>\n"
        f'<div class="figures">{cards}</div>\n{LEGEND}\n{"".join(map(_conversation, shown))}{source}</main>\n</body>\n</html>\n'
    )  # fmt: skip


def _conversation(shown: Shown) -> str:
    without = "".join(f"<p>Without {escape(part)}: {_text(why)}</p>" for part, why in shown.left_out.items())
    tokens = "".join(map(_token, shown.tokens))
    return f'<section><h2>{_text(shown.label)}</h2><div class="tokens">{tokens}</div>{without}</section>\n'


def _token(token: ShownToken) -> str:
    kind = " ".join(name for name, has in (("c", token.control), ("l", token.learnt)) if has)
    told = f"{', '.join(map(str, token.ids))}{', control token' * token.control}{', learnt' * token.learnt}"
    text = _text(token.text).replace("\n", "<u>⏎</u>\n")
    return f'<i{f" class={chr(34)}{kind}{chr(34)}" if kind else ""} title="{told}">{text}</i>'


def _text(text: str) -> str:
    return escape(printable(text))
