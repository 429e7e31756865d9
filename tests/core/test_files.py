"""A file is its old content or its new one, also when the process is killed in the middle of writing it."""

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from harness.errors import HarnessError
from harness.files import DiskFullError, explain_full_disk, read_json, replacing, write_json, write_text

WRITER = """
import signal, sys
from pathlib import Path
from harness.files import write_json

target, steps = Path(sys.argv[1]), int(sys.argv[2])
write_json(target, {"turn": 1, "filling": [1] * 20_000})

def die(event, arguments):
    global steps
    if event.startswith(("open", "os.", "tempfile.", "shutil.")):
        steps -= 1
        if steps < 0:
            signal.raise_signal(signal.SIGKILL)

sys.addaudithook(die)
write_json(target, {"turn": 2, "filling": [2] * 20_000})
print("written", flush=True)
"""


def test_a_kill_in_mid_write_leaves_the_old_or_the_new_content(tmp_path):
    """Killed before each thing that it asks of the file system, until it is done before that."""
    seen = []
    for steps in range(50):
        target = tmp_path / f"{steps}.json"
        done = subprocess.run(
            [sys.executable, "-c", WRITER, str(target), str(steps)], capture_output=True, text=True, check=False
        )
        content = json.loads(target.read_text())
        assert content["filling"] == [content["turn"]] * 20_000
        seen.append(content["turn"])
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert seen == sorted(seen) and seen.count(1) > 3 and seen[-1] == 2 and done.stdout == "written\n"


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


def test_what_a_killed_writer_left_is_removed_by_the_next_and_what_a_living_one_holds_is_not(tmp_path):
    target = tmp_path / "notes.json"
    subprocess.run([sys.executable, "-c", WRITER, str(target), "6"], capture_output=True, check=False)
    (left,) = tmp_path.glob(".notes.json.*")
    (tmp_path / ".notes.json.bak").mkdir()  # not of ours
    with replacing(target) as living:
        assert not left.exists()
        write_json(target, "meanwhile")
        assert living.parent.exists()
        living.write_text('"last"')
    assert read_json(target) == "last"
    assert [path.name for path in tmp_path.glob(".notes*")] == [".notes.json.bak"]


def test_a_path_that_is_no_utf8_is_named_and_writes_nothing(tmp_path):
    with pytest.raises(HarnessError, match=r"it would hold 'caf\\udce9\.csv', which is not UTF-8 text"):
        write_json(tmp_path / "manifest.json", {"command": ["tune", "caf\udce9.csv"]})
    assert not list(tmp_path.iterdir())
