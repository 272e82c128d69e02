"""Parts of an unfinished dataset: whole or not at all, and what is damaged is noticed."""

import uuid

import pytest

from shared.dataset.shards import SEAL, is_whole, read_part, sealed


def written(path, content=bytes(range(256)) * 40):
    with sealed(path) as unfinished:
        unfinished.write_bytes(content)
    return path


def test_a_part_gives_back_what_was_written(tmp_path):
    path = written(tmp_path / "000000.arrow")
    assert is_whole(path) and read_part(path).to_pybytes() == bytes(range(256)) * 40
    assert list(tmp_path.iterdir()) == [path]
    assert is_whole(written(tmp_path / "none", b"")) and not is_whole(tmp_path / "gone")


def test_every_cut_and_every_changed_byte_is_noticed(tmp_path):
    path = written(tmp_path / "part", b"some words")
    content = path.read_bytes()
    assert len(content) == 10 + SEAL
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert not is_whole(path)
        path.write_bytes(content[:length] + bytes([content[length] ^ 1]) + content[length + 1 :])
        assert not is_whole(path)
    for other in (content + b"x", bytes(len(content)), b""):
        path.write_bytes(other)
        assert not is_whole(path)


def test_what_fails_leaves_nothing_and_what_was_there(tmp_path):
    path = written(tmp_path / "part")
    with pytest.raises(OSError, match="No space"), sealed(path) as unfinished:
        unfinished.write_bytes(b"half")
        raise OSError(28, "No space left on device")
    assert list(tmp_path.iterdir()) == [path] and is_whole(path)


def test_two_machines_may_write_one_part_at_a_time(tmp_path):
    """The processes of both may have the same number."""
    path = tmp_path / "part"
    with sealed(path) as ours:
        ours.write_bytes(b"ours")
        written(path, b"theirs")
    assert read_part(path).to_pybytes() == b"ours" and is_whole(path)
    assert uuid.UUID(ours.name.split(".")[-2]).version == 4
