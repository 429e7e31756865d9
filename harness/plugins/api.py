"""The version of the plugin API that a plugin asks for."""

from __future__ import annotations

import re

import harness
from harness.errors import PluginError


def require_api(wanted: object) -> None:
    """Raise PluginError where this harness lacks the API version that a plugin's `harness_api` names, as in `1.1`."""
    if wanted is None:
        return
    if not isinstance(wanted, str) or not re.fullmatch(r"\d+\.\d+", wanted):
        raise PluginError(f"its harness_api is {wanted!r:.40}, expected a text of two numbers, as in '1.0'")
    (major, minor), (here, most) = (tuple(map(int, version.split("."))) for version in (wanted, harness.API_VERSION))
    if major != here:
        newer = "a newer harness" if major > here else "a newer version of the plugin"
        raise PluginError(
            f"it is written for the plugin API {wanted}, and this harness has {harness.API_VERSION}: install {newer}"
        )
    if minor > most:
        raise PluginError(
            f"it needs the plugin API {wanted}, and this harness has {harness.API_VERSION}: "
            f"`pip install -U instruct-harness`"
        )
