"""Shards of an unfinished dataset are written whole or not at all, and damage is detected."""

import uuid
from pathlib import Path

import pytest

from shared.dataset.shards import DIGEST_SIZE, read_shard, verify_shard, write_shard

CONTENT = bytes(range(256)) * 40


def written(path: Path, content: bytes = CONTENT) -> Path:
    with write_shard(path) as temporary:
        temporary.write_bytes(content)
    return path


def test_shard_returns_what_was_written(tmp_path):
    path = written(tmp_path / "000000.arrow")
    assert verify_shard(path) and read_shard(path).to_pybytes() == CONTENT
    assert list(tmp_path.iterdir()) == [path]
    assert verify_shard(written(tmp_path / "empty", b"")) and not verify_shard(tmp_path / "missing")


def test_every_truncation_and_changed_byte_is_detected(tmp_path):
    path = written(tmp_path / "shard", b"some words")
    content = path.read_bytes()
    assert len(content) == 10 + DIGEST_SIZE
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not verify_shard(path)
        path.write_bytes(content[:length] + bytes([content[length] ^ 1]) + content[length + 1 :])
        assert not verify_shard(path)
    for other in (content + b"x", bytes(len(content)), b""):
        path.write_bytes(other)
        assert not verify_shard(path)


def test_failed_write_leaves_the_old_shard_and_no_temporary_file(tmp_path):
    path = written(tmp_path / "shard")
    with pytest.raises(OSError, match="No space"), write_shard(path) as temporary:
        temporary.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == [path] and verify_shard(path)


def test_two_machines_may_write_the_same_shard(tmp_path):
    """Their processes may have the same id."""
    path = tmp_path / "shard"
    with write_shard(path) as temporary:
        temporary.write_bytes(b"ours")
        written(path, b"theirs")
    assert read_shard(path).to_pybytes() == b"ours" and verify_shard(path)
    assert uuid.UUID(temporary.name.split(".")[-2]).version == 4
