"""Importing what an extra brings, and saying which extra to install where it is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

from harness.errors import MissingExtraError


def require(module: str, extra: str) -> Any:
    """Import `module`, which `pip install instruct-harness[extra]` brings. Raises MissingExtraError where it is absent."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # it is there, but something it needs is not: our own or its packagers' mistake
        raise MissingExtraError(
            f"this needs {module!r}, which is not installed: pip install 'instruct-harness[{extra}]'"
        ) from None


def installed_version(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None where it is not there."""
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
