"""Uploaded files: their names, their bounds, and their end."""

import io

import pytest

from stage2_fusion.app.uploads import KEPT_REQUESTS, UploadError, UploadStore


@pytest.fixture
def store():
    store = UploadStore(max_bytes=100)
    yield store
    store.close()


@pytest.mark.parametrize(
    ("sent", "shown", "suffix"),
    [
        ("../../etc/passwd", "passwd", ""),
        ("C:\\clips\\a.MP4", "a.MP4", ".mp4"),
        ("a\n<b>.webm", "a <b>.webm", ".webm"),
        ("x.html", "x.html", ""),
        ("\u202egnp.mp4", "gnp.mp4", ".mp4"),
        ("", "clip", ""),
        ("a" * 500 + ".mp4", "a" * 108 + "…" + "a" * 7 + ".mp4", ".mp4"),
    ],
)
def test_file_is_stored_under_a_name_of_ours(store, sent, shown, suffix):
    upload = store.add(io.BytesIO(b"abc"), 3, sent)
    assert upload.path.parent == store.folder and len(upload.path.stem) == 32 and upload.path.suffix == suffix
    assert upload.path.read_bytes() == b"abc" and upload.path.stat().st_mode & 0o777 == 0o600
    assert upload.name == shown


def test_equal_files_are_stored_apart_so_that_deleting_one_keeps_the_other(store):
    first, second = (store.add(io.BytesIO(b"abc"), 3, "a.mp4") for _ in range(2))
    store.delete([first])
    assert not first.path.exists() and store.get(str(second.path)).path.exists()


def test_only_uploads_are_found_by_path(store):
    for path in ("/etc/passwd", "http://example.org/a.mp4", str(store.folder), ""):
        with pytest.raises(UploadError, match="not there"):
            store.get(path)


def test_too_large_and_too_many_bytes_are_refused(store):
    with pytest.raises(UploadError, match="more than") as refused:
        store.check_size(101)
    assert refused.value.status == 413
    for _ in range(KEPT_REQUESTS):
        store.add(io.BytesIO(b"x" * 100), 100, "a.mp4")
    with pytest.raises(UploadError, match="waiting already") as refused:
        store.check_size(1)
    assert refused.value.status == 503


def test_unused_uploads_are_deleted_and_nothing_is_left_at_the_end(store):
    upload = store.add(io.BytesIO(b"abc"), 3, "a.mp4")
    store.delete_unused(seconds=60)
    assert upload.path.exists()
    store.delete_unused(seconds=0)
    assert not upload.path.exists()
    store.add(io.BytesIO(b"abc"), 3, "a.mp4")
    store.close()
    assert not store.folder.exists()
