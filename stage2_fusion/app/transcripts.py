"""Transcripts in files: `<stem>.txt` beside its clip, as in the layout `folder`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

from shared.dataset.clip import read_transcript
from shared.text import first_few
from stage2_fusion.app.uploads import Upload, UploadError

MAX_TRANSCRIPT = 20_000
"""Characters."""
MOST_BYTES = 4 * MAX_TRANSCRIPT
"""Most bytes of a transcript file."""


@dataclass(frozen=True)
class SentClip:
    """A clip of a request, with its words if they are given."""

    upload: Upload
    transcript: str | None = None


def pair_transcripts(uploads: Sequence[Upload], typed: str) -> list[SentClip]:
    """The clips of a request, each with its transcript. typed: the words of a single clip, used instead of its file.
    UploadError for words that belong to no clip, or that are too long."""
    texts = {_stem(upload): upload for upload in uploads if is_transcript(upload)}
    clips = [upload for upload in uploads if not is_transcript(upload)]
    alone = [text.name for stem, text in texts.items() if stem not in {_stem(clip) for clip in clips}]
    if clips and alone:
        raise UploadError(f"{first_few(alone)}: no clip of this name; name a transcript after its clip, CLIP.txt")
    if typed.strip() and len(clips) > 1:
        raise UploadError(
            "a transcript belongs to one clip; send one clip, or leave the transcript empty and send CLIP.txt beside "
            "each CLIP.mp4"
        )
    words = {stem: _read(text) for stem, text in texts.items()}
    return [SentClip(clip, _bounded(typed.strip()) or words.get(_stem(clip))) for clip in clips]


def is_transcript(upload: Upload) -> bool:
    return upload.name.lower().endswith(".txt")


def _stem(upload: Upload) -> str:
    return PurePath(upload.name).stem


def _read(upload: Upload) -> str | None:
    if upload.size > MOST_BYTES:
        raise UploadError(f"{upload.name} has {upload.size} bytes: at most {MOST_BYTES} in a transcript", 413)
    return _bounded(read_transcript(upload.path) or "") or None


def _bounded(words: str) -> str:
    if len(words) > MAX_TRANSCRIPT:
        raise UploadError(f"the transcript has {len(words)} characters: at most {MAX_TRANSCRIPT}", 413)
    return words
