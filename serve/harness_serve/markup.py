"""Markdown of answers as HTML that runs nothing and loads nothing: code highlighted, formulas as MathML.

HTML in the text is shown as text, images are not shown. Everything is made here, without scripts of the browser.
"""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.extras import require

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

LONGEST = 20_000  # characters that are read as Markdown; more is shown as it is
LONGEST_SHOWN = 120_000
LONGEST_FORMULA = 1_000
LINK = re.compile(r"(https?://|mailto:)", re.IGNORECASE)
FORMULA = re.compile(
    r"\$\$(?P<dollars>.{1,1000}?)\$\$|\\\[(?P<brackets>.{1,1000}?)\\\]|\\\((?P<parentheses>.{1,1000}?)\\\)"
    r"|\$(?P<dollar>[^\s$](?:[^$\n]*?[^\s$\\])?)\$(?!\d)",
    re.DOTALL,
)
# What a formula is drawn with. Anything else that LaTeX can ask for (links, styles, classes) is left out.
ELEMENTS = frozenset(
    ("math", "mfrac", "mi", "mn", "mo", "mover", "mpadded", "mphantom", "mroot", "mrow", "mspace", "msqrt", "mstyle",
     "msub", "msubsup", "msup", "mtable", "mtd", "mtext", "mtr", "munder", "munderover")
)  # fmt: skip
ATTRIBUTES = frozenset(
    ("accent", "columnalign", "columnspacing", "depth", "display", "displaystyle", "fence", "form", "height", "largeop",
     "linethickness", "lspace", "mathvariant", "maxsize", "minsize", "movablelimits", "rowspacing", "rspace",
     "scriptlevel", "separator", "stretchy", "symmetric", "width")
)  # fmt: skip


@functools.lru_cache(maxsize=256)
def markdown(text: str) -> str:
    """Return Markdown as HTML. Text longer than LONGEST is shown as it is, and cut at LONGEST_SHOWN."""
    if len(text) > LONGEST:
        left = f"\n… and {len(text) - LONGEST_SHOWN:,} more characters" if len(text) > LONGEST_SHOWN else ""
        return f'<div class="plain">{html.escape(text[:LONGEST_SHOWN])}{left}</div>'
    return str(_renderer().render(text))


@functools.cache
def _renderer() -> Any:
    """Return a Markdown renderer without HTML and images, whose links open in a tab of their own and send no referrer.

    Line breaks and indentation stay as they are in the text (the style sheet shows them), for JSON without a fence.
    """
    from markdown_it import MarkdownIt

    renderer = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["image", "newline"])
    renderer.validateLink = lambda url: LINK.match(url.strip()) is not None  # type: ignore[method-assign]
    renderer.inline.ruler.before("escape", "formula", _take_formula)
    renderer.block.ruler.before("fence", "formula", _take_formula_block, {"alt": ["paragraph"]})
    for name, rule in (("link_open", _link), ("fence", _code), ("code_block", _code), ("formula", _formula)):
        renderer.add_render_rule(name, rule)
    return renderer


def _take_formula(state: Any, silent: bool) -> bool:
    match = FORMULA.match(state.src, state.pos) if state.src[state.pos] in "$\\" else None
    if match is None or match.end() > state.posMax:
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.markup = match[match.lastgroup or 0], match[0]
        token.meta = {"block": match.lastgroup in ("dollars", "brackets")}
    state.pos = match.end()
    return True


def _take_formula_block(state: Any, start: int, end: int, silent: bool) -> bool:
    """Take a displayed formula that begins and ends a line, so that its lines are no lists or headings."""
    first = state.bMarks[start] + state.tShift[start]
    closing = {"$$": "$$", "\\[": "\\]"}.get(state.src[first : first + 2])
    if closing is None:
        return False
    at = state.src.find(closing, first + 2, first + LONGEST_FORMULA)
    last = next((line for line in range(start, end) if state.eMarks[line] >= at + 2), None) if at > 0 else None
    if last is None or state.src[at + 2 : state.eMarks[last]].strip():
        return False
    if not silent:
        token = state.push("formula", "", 0)
        token.content, token.markup = state.src[first + 2 : at], state.src[first : at + 2]
        token.meta = {"block": True}
        state.line = last + 1
    return True


def _link(renderer: Any, tokens: Sequence[Any], index: int, options: Any, environment: Any) -> str:
    tokens[index].attrs |= {"target": "_blank", "rel": "noopener noreferrer nofollow"}
    return str(renderer.renderToken(tokens, index, options, environment))


def _code(_: Any, tokens: Sequence[Any], index: int, *__: Any) -> str:
    """Return code with a button to copy it, highlighted where its language is named and known."""
    code, language = tokens[index].content, (tokens[index].info.split() or [""])[0]
    copy = '<button class="copy" type="button">Copy</button>'
    return f'<div class="code">{copy}<pre><code>{_highlighted(code, language)}</code></pre></div>'


def _highlighted(code: str, language: str) -> str:
    from pygments import highlight
    from pygments.formatters import HtmlFormatter
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        lexer = get_lexer_by_name(language[:40], stripnl=False, ensurenl=False)
    except ClassNotFound:
        return html.escape(code)
    return str(highlight(code, lexer, HtmlFormatter(nowrap=True, classprefix="c-")))


def _formula(_: Any, tokens: Sequence[Any], index: int, *__: Any) -> str:
    token = tokens[index]
    drawn = mathml(token.content.strip(), block=token.meta["block"])
    return drawn or f"<code>{html.escape(token.markup)}</code>"


def mathml(formula: str, *, block: bool = False) -> str:
    """Return a LaTeX formula as MathML, of ELEMENTS and ATTRIBUTES only; empty where it cannot be read."""
    converter = require("latex2mathml.converter", "serving")
    if len(formula) > LONGEST_FORMULA:
        return ""
    try:
        return _allowed(converter.convert_to_element(formula, display="block" if block else "inline"))
    except Exception:  # of any kind, on what a model may write: it is shown as it is
        return ""


def _allowed(element: Element) -> str:
    """Return an element as HTML, of the elements and attributes that are allowed; its text is text."""
    inner = html.escape(html.unescape(element.text or "")) + "".join(map(_allowed, element))
    after = html.escape(html.unescape(element.tail or ""))
    if element.tag not in ELEMENTS:
        return inner + after
    attributes = "".join(
        f' {name}="{html.escape(value)}"' for name, value in element.attrib.items() if name in ATTRIBUTES
    )
    return f"<{element.tag}{attributes}>{inner}</{element.tag}>{after}"
