"""The plugin files that a project names in its pyproject.toml."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from harness.errors import PluginError, nearest
from harness.plugins.installed import ONLY


def configured_files(start: Path | None = None) -> list[Path]:
    """Return the plugin files under `[tool.harness] plugins` of the nearest pyproject.toml at or above `start`."""
    if ONLY in os.environ:
        return []
    start = (start or Path.cwd()).resolve()
    for folder in (start, *start.parents):
        pyproject = folder / "pyproject.toml"
        if not pyproject.is_file():
            continue
        import tomllib

        try:
            tables = tomllib.loads(pyproject.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise PluginError(f"{pyproject}: not valid TOML: {error}") from None
        except OSError as error:
            raise PluginError(f"{pyproject}: cannot be read: {error.strerror}") from None
        table: Any = tables
        for key in ("tool", "harness"):
            table = table.get(key, {})
            if not isinstance(table, dict):
                raise PluginError(f"{pyproject}: [tool.harness] should be a table, found {table!r}")
        for key in set(table) - {"plugins"}:
            near = nearest(key, ["plugins"])
            print(f"warning: {pyproject}: [tool.harness] has no key {key!r}.{near}", file=sys.stderr)
        files = table.get("plugins", [])
        if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
            raise PluginError(f"{pyproject}: [tool.harness] plugins should be a list of file names")
        return [folder / file for file in files]
    return []
