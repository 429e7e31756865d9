"""A hash is of the present content, however often it was asked for; a folder's is of its files, not its name."""

from __future__ import annotations

import hashlib
import os
import shutil

import pytest

from harness.hashing import read_sha256, sha256_of_file, sha256_of_files


@pytest.fixture
def folder(tmp_path):
    model = tmp_path / "m1" / "model"
    model.mkdir(parents=True)
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "model.safetensors").write_bytes(b"weights")
    return model


LARGE = 3 << 20  # bytes: the hash of such a file is remembered


def aged_file(path, content):
    """Write a large file of a time at which its hash may be remembered."""
    path.write_bytes(content * (LARGE // len(content)))
    os.utime(path, (1_000_000, 1_000_000))
    return path


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_replaced_by_one_of_the_same_size_and_time_gets_its_own_hash(tmp_path):
    path, other = aged_file(tmp_path / "a", b"one"), aged_file(tmp_path / "b", b"two")
    assert sha256_of_file(path) == sha256(path)
    other.replace(path)
    assert sha256_of_file(path) == sha256(path)


def test_a_remembered_hash_is_not_computed_again(tmp_path, monkeypatch):
    path = aged_file(tmp_path / "a", b"one")
    monkeypatch.setattr("harness.hashing._SETTLED_NS", -1)  # its inode has just changed
    first = sha256_of_file(path, tmp_path / "cache")
    monkeypatch.setattr("hashlib.file_digest", None)
    assert sha256_of_file(path, tmp_path / "cache") == first


@pytest.mark.parametrize("size", [3, LARGE])
@pytest.mark.parametrize("place", ["beginning", "everywhere", "end"])
def test_other_content_is_seen_on_a_disk_that_keeps_neither_times_nor_inodes(size, place, tmp_path, monkeypatch):
    """Also where size, times and inode are all as they were, as on some network disks."""
    path = tmp_path / "a"
    path.write_bytes(b"a" * size)
    monkeypatch.setattr("harness.hashing._SETTLED_NS", -1)
    status = path.stat()
    sha256_of_file(path, tmp_path / "cache")
    changed = {"beginning": b"b" + b"a" * (size - 1), "everywhere": b"b" * size, "end": b"a" * (size - 1) + b"b"}
    path.write_bytes(changed[place])
    monkeypatch.setattr(type(path), "stat", lambda self, **options: status)
    assert sha256_of_file(path, tmp_path / "cache") == hashlib.sha256(changed[place]).hexdigest()


def test_a_copy_of_a_folder_under_another_name_has_its_hash(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m2" / "other")
    assert sha256_of_files(folder, "*") == sha256_of_files(tmp_path / "m2" / "other", "*")


def test_another_byte_or_another_name_gives_another_hash(folder):
    before = sha256_of_files(folder, "*")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes().replace(b"w", b"W"))
    changed = sha256_of_files(folder, "*")
    weights.rename(folder / "other.safetensors")
    assert len({before, changed, sha256_of_files(folder, "*")}) == 3


def test_a_file_is_read_past_the_cache_on_demand(tmp_path, monkeypatch):
    path = aged_file(tmp_path / "a", b"one")
    monkeypatch.setattr("harness.hashing._SETTLED_NS", -1)
    monkeypatch.setenv("HARNESS_CACHE", str(tmp_path / "cache"))
    sha256_of_file(path)
    (remembered,) = (tmp_path / "cache" / "files").iterdir()
    remembered.write_text(remembered.read_text().replace(sha256(path), "0" * 64))
    assert sha256_of_file(path) == "0" * 64
    assert read_sha256(path) == sha256(path)
