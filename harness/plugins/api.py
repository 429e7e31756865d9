"""The version of the plugin API that a plugin asks for, and the hooks that it implements."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pluggy

import harness
from harness.contract.hooks import HOOKS
from harness.errors import PluginError, known_names, nearest


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


def require_hooks(plugin: Any, manager: pluggy.PluginManager) -> None:
    """Raise PluginError for a plugin without hooks, or with one that does not exist or cannot be called."""
    if isinstance(plugin, type):
        raise PluginError(
            f"it is the class {plugin.__name__}: name an object of it, as in `plugin = {plugin.__name__}()`"
        )
    hooks = 0
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is None:
            if name in HOOKS and inspect.isroutine(getattr(plugin, name)):
                raise PluginError(f"{name} is not marked: put @harness.hookimpl above it")
            continue
        hooks += 1
        hook = options.get("specname") or name
        if hook not in HOOKS:
            raise PluginError(f"there is no hook {hook!r}.{nearest(hook, HOOKS)} Hooks: {known_names(HOOKS)}")
        function = getattr(plugin, name)
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            what = "waits (`async`)" if inspect.iscoroutinefunction(function) else "is a generator (`yield`)"
            raise PluginError(f"{name} {what}, and would never run: write a plain function that calls `register(...)`")
        given = getattr(manager.hook, hook).spec.argnames
        takes = inspect.signature(function).parameters.values()
        needs = [one.name for one in takes if one.kind is one.POSITIONAL_OR_KEYWORD and one.default is one.empty]
        if unknown := [argument for argument in needs if argument not in given]:
            raise PluginError(
                f"{name} takes {unknown[0]!r}, which the hook does not give: write `def {name}({', '.join(given)}):`"
            )
    if not hooks:
        raise PluginError(f"it has no hook: mark a function with @harness.hookimpl. Hooks: {known_names(HOOKS)}")
