"""The frame and palette of every HTML page: one file with its styles, for screens of any width, light or dark.

A page from this module loads nothing and runs no script. Plots use the same colours.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from html import escape

# Name: (light, dark). Pages use them as CSS variables, `var(--ink)`; plots are drawn in the light ones.
PALETTE = {
    "paper": ("#f5f5f1", "#131518"),
    "card": ("#ffffff", "#1a1d21"),
    "fill": ("#edece6", "#24282d"),
    "line": ("#e2e1da", "#2b2f35"),
    "ink": ("#1d2023", "#e6e6e1"),
    "soft": ("#686c72", "#9b9fa6"),
    "accent": ("#2d5c4f", "#86bfaa"),
    "warm": ("#b0732a", "#d9a45f"),
    "good": ("#2b6a4d", "#8fceb0"),
    "bad": ("#a03a2b", "#e99486"),
    # Blue and vermillion, which people who confuse red and green tell apart: of two variants the better and the worse.
    "better": ("#0068a8", "#6cb6ec"),
    "worse": ("#b84a00", "#f0a05a"),
}

# A browser runs no script of a page and loads nothing for it, whatever a model's answer in it says.
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"

FRAME = """\
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 28px 20px 48px; }
h1 { font-size: 1.6rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 8px; overflow-wrap: anywhere; }
p { margin: 0 0 20px; color: var(--soft); }
code { overflow-wrap: anywhere; }
section { min-width: 0; margin-bottom: 16px; }
section p { margin: 6px 0 0; font-size: .85rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(150px, 1fr)); gap: 12px;
  margin-bottom: 20px; }
.figures div, section { background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 14px 16px; }
.figures b { display: block; font-size: 1.25rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); font-size: .85rem; }
"""


def palette_css(light: str = ":root", dark: str = "@media (prefers-color-scheme: dark) { :root") -> str:
    """Return the palette as CSS variables, under the given selectors of light and dark."""
    light_colours, dark_colours = (
        " ".join(f"--{name}: {colours[index]};" for name, colours in PALETTE.items()) for index in (0, 1)
    )
    return f"{light} {{ {light_colours} }}\n{dark} {{ {dark_colours} }}{' }' * dark.count('{')}\n"


def page(title: str, lead: str, body: str, style: str = "") -> str:
    """Return a whole HTML page.

    Args:
        title: plain text, of the page and its heading.
        lead: HTML of the paragraph below the heading.
        body: HTML of the rest.
        style: CSS that the page adds to the frame's.
    """
    styles = f":root {{ color-scheme: light dark; }}\n{palette_css()}{FRAME}{style}"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        f"<title>{escape(title)}</title>\n<style>\n{styles}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{escape(title)}</h1>\n<p>{lead}</p>\n{body}</main>\n</body>\n</html>\n"
    )


def figures(pairs: list[tuple[str, str]]) -> str:
    """Return the row of figures at the top of a page: names and values, as plain text."""
    cards = "".join(f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in pairs)
    return f'<div class="figures">{cards}</div>\n'


def names_of(paths: Sequence[str]) -> list[str]:
    """Return names for a page that is sent on: absolute paths lose the folder that they share.

    What is no absolute path (a hub id, a URL, a relative path) stays as it is.
    """
    bare = [path.removeprefix("file://") for path in paths]
    absolute = [path for path in bare if os.path.isabs(path)]  # noqa: PTH117 - strings in and out
    shared = os.path.commonpath([os.path.dirname(path) for path in absolute]) if absolute else ""  # noqa: PTH120
    return [os.path.relpath(path, shared) if path in absolute else path for path in bare]
