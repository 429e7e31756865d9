"""First-party trackers and the real libraries: every event arrives, a resumed run goes on in the same one, offline."""

from __future__ import annotations

import csv
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from harness.contract.events import (
    Artefact,
    Evaluated,
    Event,
    Finished,
    Samples,
    Started,
    Step,
    Validation,
    frozen,
)
from harness.files import write_json
from harness.nouns import Result, Sample, Score
from harness.run import id_of
from harness.testing import plugins

pytestmark = pytest.mark.slow

RECIPE = {"name": "small", "model": {"path": "tiny"}, "tune": {"method": {"name": "lora", "rank": 4}}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a run as a tracker finds it."""
    write_json(tmp_path / "runs" / "small" / "manifest.json", {"id": "abc123", "name": "small", "sessions": []})
    return tmp_path / "runs" / "small"


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No connection leaves this machine, and no library finds an account in the home of who runs the test."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "localhost", "::1"), f"asks {address}"
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)
    for name in ("MLFLOW_TRACKING_URI", "TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL", "WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)


def step(number: int, loss: float) -> Step:
    return Step("small", number, {"step": number, "loss": loss, "learning_rate": 0.1})


def first_session(folder: Path) -> list[Event]:
    """A run that ends at step 3, of which a checkpoint has step 2."""
    answers = (Sample("0", {"tokens": 3.0}, "Who keeps the *key*?", "The heron."),)
    return [
        Started("small", folder, RECIPE, 0, 4),
        Validation("small", 0, {"step": 0, "validation_loss": 9.0}),
        step(1, 3.0),
        step(2, 2.0),
        Samples("small", "small", "tune.samples", answers, folder, 2),
        Artefact("small", "checkpoint", folder / "checkpoints" / "step-2"),
        step(3, 1.75),
        Finished("small", folder, "interrupted"),
    ]


def second_session(folder: Path) -> list[Event]:
    """The same run, resumed from step 2."""
    return [
        Started("small", folder, RECIPE, 2, 4),
        step(3, 1.5),
        step(4, 1.0),
        Artefact("small", "adapter", folder / "adapter"),
        Finished("small", folder, "finished"),
    ]


def afterwards(folder: Path) -> list[Event]:
    """Evaluations of the run and of its base, and of a model that is no run's."""
    sample = Sample("7", {"exact": 1.0}, "2 + 2?", "4", target="4")
    result = Result("sums", {"exact": Score(0.75, 0.125, 8)}, (sample,))
    return [
        Samples("small", "small", "sums", (sample,), folder),
        Evaluated("small", "small", (result,), folder),
        Evaluated("small", "small@base", (result,), folder),
        Evaluated(None, "other", (result,)),
    ]


@pytest.fixture
def followed(folder: Path) -> Callable[..., None]:
    """Send three processes' events to a tracker, each process with a tracker of its own."""

    def follow(name: str, **options: object) -> None:
        tracker = plugins(first_party=True).trackers[name]
        for session in (first_session, second_session, afterwards):
            receive = tracker.create(tracker.options(**options))
            for event in session(folder):
                receive(frozen(event))

    return follow


def test_tensorboard_shows_one_curve_whose_redone_steps_are_replaced(folder, followed):
    pytest.importorskip("tensorboard")
    pytest.importorskip("torch")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    followed("tensorboard")
    shown = EventAccumulator(str(folder / "tensorboard"))
    shown.Reload()
    assert [(e.step, e.value) for e in shown.Scalars("loss")] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]
    assert [(e.step, e.value) for e in shown.Scalars("validation_loss")] == [(0, 9.0)]
    assert [e.value for e in shown.Scalars("small@base/sums/exact")] == [0.75]
    assert not any("other" in tag for tag in shown.Tags()["scalars"])

    def text(tag: str) -> str:
        (value,) = shown.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val
        return value.decode()

    assert '"rank": 4' in text("recipe")
    assert "    Who keeps the *key*?" in text("tune.samples/small") and "The heron." in text("tune.samples/small")
    assert text("artefact/adapter") == str(folder / "adapter")
    assert text("outcome") == "finished"


def test_wandb_keeps_every_session_offline_under_the_id_of_the_run(folder, followed):
    pytest.importorskip("wandb")
    followed("wandb")
    sessions = [list(wandb_records(path)) for path in sorted((folder / "wandb").glob("offline-run-*/run-*.wandb"))]
    runs = [record.run for records in sessions for record in records if record.WhichOneof("record_type") == "run"]
    assert {(run.run_id, run.project, run.display_name) for run in runs} == {("abc123", "instruct-harness", "small")}
    logged = [logged_values(records) for records in sessions]
    losses = {int(value["_step"]): float(value["loss"]) for values in logged for value in values if "loss" in value}
    assert losses == {1: 3.0, 2: 2.0, 3: 1.5, 4: 1.0}, "the later session's step 3 is the last word"
    ends = [r.exit.exit_code for records in sessions for r in records if r.WhichOneof("record_type") == "exit"]
    assert ends[:2] == [1, 0]
    tables = [path for path in (folder / "wandb").rglob("*.table.json") if "The heron." in path.read_text()]
    assert tables, "the answers are in a table"


def wandb_records(path: Path) -> Iterator[Any]:
    """The records of a .wandb file, which is a log of LevelDB's form behind a header of seven bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, parts = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:  # the rest of a block is padding
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack("<HB", content[at + 4 : at + 7])
        parts += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            parts = b""
            yield record


def logged_values(records: list[Any]) -> list[dict[str, str]]:
    return [
        {item.key or "/".join(item.nested_key): item.value_json for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]


def test_wandb_online_without_a_key_is_refused_and_asks_nobody(monkeypatch, tmp_path):
    pytest.importorskip("wandb")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    tracker = plugins(first_party=True).trackers["wandb"]
    with pytest.raises(Exception, match="WANDB_API_KEY"):
        tracker.create(tracker.options(mode="online"))


def test_mlflow_goes_on_in_the_run_that_it_began(folder, followed):
    pytest.importorskip("mlflow")
    followed("mlflow")
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder.parent / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("instruct-harness")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED" and run.data.tags["outcome"] == "finished"
    assert run.data.params["tune.method.rank"] == "4" and run.data.tags["artefact.adapter"] == str(folder / "adapter")
    history = [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, "loss")]
    assert [pair for pair in history if pair != (3, 1.75)] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]
    assert run.data.metrics["small_base/sums/exact"] == 0.75 and run.data.metrics["small/sums/exact/stderr"] == 0.125
    texts = list((folder.parent / "mlflow-artefacts").rglob("*.md"))
    assert any("The heron." in path.read_text() for path in texts) and len(texts) == 2


def test_trackio_goes_on_in_the_run_that_it_began(folder, followed, tmp_path, capsys):
    if find_spec("trackio") is None:
        pytest.skip("trackio is not installed")
    project = "test"
    followed("trackio", project=project, folder=str(tmp_path / "trackio"))  # which is read when trackio is imported
    from trackio.sqlite_storage import SQLiteStorage

    assert list((tmp_path / "trackio").glob("*.db"))
    name = f"small-{id_of(folder)}"
    assert SQLiteStorage.get_runs(project) == [name]
    logs = SQLiteStorage.get_logs(project, name)
    losses = [(log["step"], log["loss"]) for log in logs if "loss" in log]
    assert [pair for pair in losses if pair != (3, 1.75)] == [(1, 3.0), (2, 2.0), (3, 1.5), (4, 1.0)]
    assert [log["outcome"] for log in logs if "outcome" in log] == ["interrupted", "finished"]
    assert any(log.get("small/sums/exact") == 0.75 for log in logs)
    assert "The heron." in str(logs)
    assert capsys.readouterr().out == "", "nothing of its own on the run's output"


def test_a_library_that_is_missing_is_named_before_the_run_begins(monkeypatch, folder):
    from harness.recipe import TrackSpec
    from harness.run import Events

    monkeypatch.setitem(sys.modules, "tensorboard", None)
    known = plugins(first_party=True)
    spec = type("Spec", (known.trackers["tensorboard"].options, TrackSpec), {})(tracker="tensorboard")
    with pytest.raises(Exception, match=r"pip install 'instruct-harness\[trackers\]'"):
        Events.to([spec], known)


def test_a_tracker_of_one_file_follows_a_run_and_its_resume(folder):
    """The example of the repository: redone steps replace the earlier ones."""
    example = Path(__file__).resolve().parents[2] / "examples" / "harness-csv" / "tracker_csv.py"
    tracker = plugins(example).trackers["csv"]
    for session in (first_session, second_session):
        receive = tracker.create(tracker.options())
        for event in session(folder):
            receive(frozen(event))
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    losses = [(row["step"], row["value"]) for row in rows if row["name"] == "loss"]
    assert losses == [("1", "3.0"), ("2", "2.0"), ("3", "1.5"), ("4", "1.0")]
    assert [row["value"] for row in rows if row["name"] == "validation_loss"] == ["9.0"]
