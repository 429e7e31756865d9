"""Plugins: found, isolated and listed (`discovery`), known without an import (`index`), and what they register, by name
and owner (`registry`)."""

from harness.plugins.configured import configured_files
from harness.plugins.discovery import Plugins
from harness.plugins.registry import PluginInfo, Registry

__all__ = ["PluginInfo", "Plugins", "Registry", "configured_files"]
