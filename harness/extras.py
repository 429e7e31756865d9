"""Imports of optional dependencies; a missing one is an error that names the extra to install."""

from __future__ import annotations

import contextlib
import importlib
import logging
from typing import Any

from harness.errors import MissingExtraError

# OpenMP's threads wait for each other spinning; where another program has one of the cores, they would spin most of the
# time away. This is long enough for what is quick; then they sleep. The command sets it before torch loads OpenMP.
OPENMP_SPINS = ("GOMP_SPINCOUNT", "10000")


def require(module: str, extra: str) -> Any:
    """Import a `module` of `pip install instruct-harness[extra]`. Raises MissingExtraError if it is not installed."""
    # PEFT imports it where it is installed, and on a CPU it then asks for a kernel that is not needed.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise  # the module is installed, but one of its own dependencies is not
        raise MissingExtraError(
            f"this needs {module!r}, which is not installed: pip install 'instruct-harness[{extra}]'"
        ) from None


def installed_version(distribution: str) -> str | None:
    """Return the version of a distribution, or None if it is not installed."""
    return installed_versions(distribution).get(distribution)


def installed_versions(*distributions: str) -> dict[str, str]:
    """Return the versions of those distributions that are installed."""
    import importlib.metadata  # not for every command

    versions = {}
    for distribution in distributions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[distribution] = importlib.metadata.version(distribution)
    return versions
