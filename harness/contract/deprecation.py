"""Things of the plugin API that go away: they work until its first number changes, with a warning."""

from __future__ import annotations

import warnings


class Deprecation(FutureWarning):
    """A warning that something of the plugin API will be taken away, shown to everybody who runs the plugin."""


def deprecated(what: str, since: str, instead: str) -> None:
    """Warn that `what` goes away with the API's next first number, and say what to write instead.

    While a plugin registers something, the harness names the plugin.
    """
    major = int(since.partition(".")[0])
    warnings.warn(
        f"{what} is deprecated since plugin API {since} and goes away with {major + 1}.0: {instead}",
        Deprecation,
        stacklevel=3,
    )
