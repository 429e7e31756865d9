"""Importing what an extra brings, and saying which extra to install where it is missing."""

from __future__ import annotations

import contextlib
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


def installed_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found
