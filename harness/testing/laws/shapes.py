"""Laws of shapes: those of the datasets that they are used as."""

from __future__ import annotations

from typing import Any

from harness.contract.kinds import KINDS, Kind
from harness.plugins.registry import Entry
from harness.testing.laws import datasets
from harness.testing.laws.law import Kit, Trial


def _as_dataset(law: Trial) -> Trial:
    def trial(kit: Kit, kind: Kind, entry: Entry[Any]) -> None:
        (dataset,) = (one for one in KINDS if one.name == "dataset")
        law(kit, dataset, kit.plugins.datasets.entry(entry.qualified))

    return trial


LAWS = {claim: _as_dataset(law) for claim, law in datasets.LAWS.items()}
