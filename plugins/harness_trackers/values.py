"""Figures and texts of events, in the forms that trackers take: what is the same for all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from harness.contract.events import Evaluated, Samples

EXTRA = "trackers"  # `pip install 'instruct-harness[trackers]'`


def figures(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the numbers of a line of metrics.jsonl by name, without the step that they belong to."""
    return {
        name: float(value)
        for name, value in metrics.items()
        if name != "step" and isinstance(value, int | float) and not isinstance(value, bool)
    }


def scores(event: Evaluated) -> dict[str, float]:
    """Return the scores of a variant by `variant/task/metric`, and their standard errors by `.../stderr`."""
    named = {}
    for result in event.results:
        for metric, score in result.scores.items():
            name = f"{event.variant}/{result.task}/{metric}"
            named[name] = score.value
            if score.stderr is not None:
                named[f"{name}/stderr"] = score.stderr
    return named


class Opens(Protocol):
    """A tracker that has a run of its library open while a run is tuned; None at other times."""

    run: Any

    def open(self, run: str, folder: Path) -> None:
        """Open the library's run of the harness run `run`."""
        ...

    def close(self) -> None:
        """Close it."""
        ...


@contextmanager
def opened(tracker: Opens, run: str, folder: Path) -> Iterator[None]:
    """Have the library's run open for the block: what is measured while a run is tuned goes into the one of then."""
    is_tuned_now = tracker.run is not None
    if not is_tuned_now:
        tracker.open(run, folder)
    yield
    if not is_tuned_now:
        tracker.close()


def transcript(event: Samples) -> str:
    """Return questions and answers as Markdown."""
    parts = []
    for sample in event.samples:
        measured = ", ".join(f"{name} {value:.4g}" for name, value in sample.metrics.items())
        parts.append(
            f"### {sample.id}\n\n{_quoted(sample.prompt)}\n\n**{event.variant}** {measured}\n\n"
            f"{_quoted(sample.response)}\n" + (f"\n**expected**\n\n{_quoted(sample.target)}\n" if sample.target else "")
        )
    return "\n".join(parts)


def _quoted(text: str) -> str:
    """Return the text as a block that Markdown leaves as it is."""
    return "\n".join(f"    {line}" for line in text.splitlines() or [""])
