"""Transcripts that are sent beside their clips."""

import io

import pytest

from stage2_fusion.app.transcripts import pair_transcripts
from stage2_fusion.app.uploads import UploadError, UploadStore


@pytest.fixture
def store():
    store = UploadStore(max_bytes=10**6)
    yield store
    store.close()


@pytest.fixture
def paired(store):
    def pair(*names: str, typed: str = "", words: bytes = "caf\u00e9 \n".encode()) -> list[tuple[str, str | None]]:
        uploads = [store.add(io.BytesIO(words), len(words), name) for name in names]
        return [(clip.upload.name, clip.transcript) for clip in pair_transcripts(uploads, typed)]

    return pair


def test_text_file_is_the_transcript_of_the_clip_of_its_name(paired):
    assert paired("a.txt", "a.mp4", "b.wav") == [("a.mp4", "caf\u00e9"), ("b.wav", None)]
    assert paired("a.TXT", "a.mp4", words="caf\u00e9".encode("utf-16")) == [("a.mp4", "caf\u00e9")]
    assert paired("a.mp4", "a.txt", words=b" \n") == [("a.mp4", None)]


def test_typed_words_of_a_single_clip_come_first(paired):
    assert paired("a.mp4", "a.txt", typed=" typed ") == [("a.mp4", "typed")]
    with pytest.raises(UploadError, match=r"belongs to one clip; .* CLIP\.txt beside each"):
        paired("a.mp4", "b.mp4", typed="typed")


@pytest.mark.parametrize(
    ("names", "words", "told", "status"),
    [
        (("a.mp4", "b.txt", "c.txt"), b"x", r"b\.txt, c\.txt: no clip of this name", 400),
        (("a.mp4", "a.txt"), b"x" * 30_000, "the transcript has 30000 characters", 413),
        (("a.mp4", "a.txt"), b"x" * 100_000, r"a\.txt has 100000 bytes", 413),
    ],
)
def test_transcript_that_fits_no_clip_or_is_too_long_is_refused(paired, names, words, told, status):
    with pytest.raises(UploadError, match=told) as refused:
        paired(*names, words=words)
    assert refused.value.status == status
    assert paired("a.txt") == []
