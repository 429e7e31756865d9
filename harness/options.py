"""`Options`: the typed settings that a plugin accepts from a recipe. Unknown keys are refused."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base class of every recipe section and of what plugins let a recipe set."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())
