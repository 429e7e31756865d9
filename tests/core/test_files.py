"""A file is its old content or its new one, also when the process is killed in the middle of writing it."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.files import DiskFullError, explain_full_disk, read_json, replacing, write_json, write_text

WRITER = """
import itertools, sys
from pathlib import Path
from harness.files import write_json
target = Path(sys.argv[1])
for turn in itertools.count():
    write_json(target, {"turn": turn, "filling": [turn] * 20_000})
    print(turn, flush=True)
"""


@pytest.mark.parametrize("attempt", range(8))
def test_a_kill_in_mid_write_leaves_the_old_or_the_new_content(attempt, tmp_path):
    target = tmp_path / "manifest.json"
    child = subprocess.Popen([sys.executable, "-c", WRITER, str(target)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for _ in range(3):
        child.stdout.readline()
    time.sleep(0.0007 * attempt * attempt)
    child.send_signal(signal.SIGKILL)
    acknowledged = [int(line) for line in child.stdout.read().split()] or [2]
    child.wait()
    content = json.loads(target.read_text())
    assert content["filling"] == [content["turn"]] * 20_000
    assert content["turn"] in (acknowledged[-1], acknowledged[-1] + 1)


def test_an_error_in_mid_write_leaves_the_old_content_and_no_litter(tmp_path):
    target = tmp_path / "notes.txt"
    write_text(target, "old")
    with pytest.raises(ZeroDivisionError), replacing(target) as temporary:
        temporary.write_text("new, but")
        1 / 0  # noqa: B018
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with replacing(tmp_path / "adapter") as temporary:
        temporary.mkdir()
        (temporary / "weights").write_bytes(b"w")
        assert not (tmp_path / "adapter").exists()
    assert (tmp_path / "adapter" / "weights").read_bytes() == b"w"


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_is_explained(error, tmp_path):
    with (
        pytest.raises(DiskFullError, match=r"the disk is full\. What was there before is untouched"),
        explain_full_disk(tmp_path / "x"),
    ):
        raise error


def test_a_full_disk_is_not_blamed_on_tuning(tmp_path):
    with pytest.raises(DiskFullError) as caught, explain_full_disk(tmp_path / "rows.jsonl"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert str(caught.value).endswith("free some space and run the same command again.")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_really_full_disk_is_explained():
    with pytest.raises(DiskFullError), explain_full_disk(Path("/dev/full")), Path("/dev/full").open("w") as file:
        file.write("x")
        file.flush()


def test_other_errors_are_left_as_they_are(tmp_path):
    with pytest.raises(PermissionError), explain_full_disk(tmp_path):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_a_torn_json_file_is_named(tmp_path):
    (tmp_path / "manifest.json").write_text('{"outcome": "fin')
    with pytest.raises(HarnessError, match=r"manifest\.json: not valid JSON"):
        read_json(tmp_path / "manifest.json")
    write_json(tmp_path / "ü.json", {"ü": "é"})
    assert read_json(tmp_path / "ü.json") == {"ü": "é"}


def test_what_is_written_can_be_read_by_others_as_any_file(tmp_path):
    """The temporary folder is private; the file that comes out of it is not."""
    old = os.umask(0o022)
    try:
        write_text(tmp_path / "page.txt", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "page.txt").stat().st_mode & 0o777 == 0o644
