"""Links from the site into the repository: `../examples/harness-csv` leads to where the project is published.

The pages are read in the repository too, where the same links lead to the files. The address is `Source` in
pyproject.toml, as for the links of the README on a package index.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

from markdown import Extension, Markdown
from markdown.treeprocessors import Treeprocessor

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
OUT = "../"  # of the folder of pages


class SourceLinks(Treeprocessor):
    """Gives links that lead out of the pages' folder the project's address."""

    def run(self, root: Element) -> None:
        """Change the links of a page."""
        source = tomllib.loads(PROJECT.read_text(encoding="utf-8"))["project"]["urls"]["Source"]
        for link in root.iter("a"):
            if (target := link.get("href", "")).startswith(OUT):
                link.set("href", f"{source}/blob/main/{target.removeprefix(OUT)}")


class SourceLinksExtension(Extension):
    """The extension of Markdown that `zensical.toml` names."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Add the treeprocessor behind all others, which make the links."""
        md.treeprocessors.register(SourceLinks(md), "source_links", -10)


def makeExtension(**settings: Any) -> SourceLinksExtension:
    """Return the extension, as Markdown asks for it."""
    return SourceLinksExtension(**settings)
