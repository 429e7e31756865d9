"""Votes: ballots (`store`) in a database (`database`), with migration from earlier versions (`migration`)."""

from typing import TYPE_CHECKING

from harness.lazy import lazy_names

if TYPE_CHECKING:
    from harness.votes.store import Ballots, ClosedBallotError, require_usable

__all__ = ["Ballots", "ClosedBallotError", "require_usable"]

__getattr__ = lazy_names(__name__, {"harness.votes.store": " ".join(__all__)})  # with SQLAlchemy, an extra
