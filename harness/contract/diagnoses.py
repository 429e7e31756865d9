"""Diagnoses: what a plugin needs on a machine, and what it found there, for `harness doctor`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What a plugin finds out about this machine. Finding it out is quick and imports nothing heavy.

    Args:
        extra: the extra of this distribution that the plugin needs, if it needs one.
        purpose: what the extra is for, in the words of the commands a person types.
        packages: installed versions by name, None where a package is not there.
        problems: what will not work and why, each a sentence that begins with the command.
    """

    extra: str | None = None
    purpose: str = ""
    packages: Mapping[str, str | None] = field(default_factory=dict)
    problems: Sequence[str] = ()
