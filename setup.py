"""The description on a package index: the README, whose links lead to the published files there."""

import re
import tomllib
from pathlib import Path

from setuptools import setup

HERE = Path(__file__).parent
SOURCE = tomllib.loads((HERE / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Source"]
RELATIVE = re.compile(r"(!?)(\[[^\]]*\])\((?!https?:|#)([^)\s]+)\)")


def published(link: re.Match[str]) -> str:
    """Return a link to a file of the repository as one to where it is published."""
    is_picture, text, path = link.groups()
    return f"{is_picture}{text}({SOURCE}/{'raw' if is_picture else 'blob'}/main/{path})"


readme = (HERE / "README.md").read_text(encoding="utf-8")
setup(long_description=RELATIVE.sub(published, readme), long_description_content_type="text/markdown")
