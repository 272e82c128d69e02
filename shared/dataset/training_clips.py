"""Which clips a model was trained on, identified by content, so that a scored clip is recognized under another id, in
another folder and after another `emit split`.

A clip has up to three 64-bit fingerprints: of its sound, of its pictures, and of its id with words and duration. The
first two survive renaming, and each survives a change in the preparation of the other; the third survives any
preparation. Two clips are the same if one fingerprint is equal. Silence and blank pictures have none.

FOLDER/training_clips.safetensors holds the sorted fingerprints and their sources: 24 bytes per clip. Of more than KEPT
fingerprints only the smallest are kept, a random sample (Broder 1997, "On the resemblance and containment of
documents"). Comparisons then cover a sample too, and the record says so.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from shared.media.storage import decode_jpeg
from shared.text import words

FILE = "training_clips.safetensors"
FORMAT = "emit-training-clips/1"
KEPT = 2**22
"""Most fingerprints in a record: 32 MiB."""


@dataclass(frozen=True)
class TrainingSource:
    """A source of training clips."""

    name: str
    """Its path."""
    kind: str
    split: str
    clips: int | None = None
    """Number of clips; None for a stream."""
    not_compared: str = ""
    """Why its clips cannot be compared; "" if they can."""


class Met(NamedTuple):
    """Which of N clips a model has seen: bool (N,) each."""

    trained: np.ndarray
    chosen: np.ndarray
    """Validation clips, used to select its epoch."""


@dataclass(eq=False)
class TrainingClips:
    """The fingerprints of a model's training clips; empty for a model that was never trained."""

    trained: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """uint64 (M,), sorted."""
    chosen: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint64))
    """uint64 (V,), sorted: fingerprints of the validation clips."""
    sources: list[TrainingSource] = field(default_factory=list)
    limit: int | None = None
    """Larger fingerprints are not kept; None if all are."""

    @classmethod
    def of(cls, trained: np.ndarray, chosen: np.ndarray, sources: Iterable[TrainingSource], kept: int = KEPT) -> Self:
        """From fingerprints uint64 (..., 3), 0 = none."""
        trained, chosen = (np.unique(values[values > 0]) for values in (trained, chosen))
        limit = int(trained[kept - 1]) if len(trained) > kept else None
        return cls(trained[:kept], chosen[:kept], list(sources), limit)

    def join(self, other: "TrainingClips") -> "TrainingClips":
        """The record of a model that was trained on both."""
        trained, chosen = (
            np.concatenate(pair) for pair in ((self.trained, other.trained), (self.chosen, other.chosen))
        )
        joined = TrainingClips.of(trained, chosen, [*self.sources, *other.sources])
        joined.limit = min((n for n in (self.limit, other.limit, joined.limit) if n is not None), default=None)
        return joined

    def met(self, fingerprints: np.ndarray) -> Met:
        """Which clips are among the training clips, given their fingerprints uint64 (N, 3)."""
        return Met(*(np.isin(fingerprints, own).any(axis=1) for own in (self.trained, self.chosen)))

    def compared(self, fingerprints: np.ndarray) -> float:
        """The share of clips that would be recognized, given their fingerprints uint64 (N, 3)."""
        if self.limit is None or not len(fingerprints):
            return 1.0
        return float(((fingerprints > 0) & (fingerprints <= self.limit)).any(axis=1).mean())

    def all_in(self, fingerprints: np.ndarray) -> bool:
        """Whether all training clips are among these, given their fingerprints uint64 (N, 3); False for a sample, where
        this is unknown."""
        return self.limit is None and all(np.isin(own, fingerprints).all() for own in (self.trained, self.chosen))

    @property
    def not_compared(self) -> list[str]:
        """The sources with clips that cannot be compared, and the reasons."""
        return [f"{source.name} ({source.not_compared})" for source in self.sources if source.not_compared]

    def write(self, folder: Path) -> None:
        """Write FOLDER/training_clips.safetensors."""
        from safetensors.numpy import save_file

        about = {"format": FORMAT, "sources": [asdict(source) for source in self.sources], "limit": self.limit}
        arrays = {"trained": self.trained, "chosen": self.chosen}
        save_file(arrays, folder / FILE, metadata={"about": json.dumps(about)})

    @classmethod
    def read(cls, folder: Path, again: str = "export the encoders again") -> Self | None:
        """The record in a folder; None without one. UserError if it is damaged; `again` says how to get one."""
        from safetensors import safe_open

        path = Path(folder) / FILE
        if not path.is_file():
            return None
        try:
            with safe_open(str(path), "numpy") as file:
                about = json.loads(file.metadata()["about"])
                arrays = {name: file.get_tensor(name) for name in ("trained", "chosen")}
            if about["format"] != FORMAT or any(values.dtype != np.uint64 for values in arrays.values()):
                raise ValueError(f"format {about['format']!r:.40}")
            return cls(**arrays, sources=[TrainingSource(**each) for each in about["sources"]], limit=about["limit"])
        except Exception as error:  # safetensors has its own errors
            raise UserError(f"{path}: damaged ({str(error)[:80]}); {again}") from None


def fingerprints(clips: ClipDataset) -> np.ndarray:
    """Fingerprints of every clip, uint64 (N, 3), 0 = none: sound, pictures, and id with words and duration."""
    ids, texts, durations = (clips.column(name) for name in ("id", "transcript", "duration"))
    prints = np.zeros((len(clips), 3), np.uint64)
    for row in range(len(clips)):
        stored = clips.stored_media(row)
        prints[row] = [
            _number(b"sound", stored.sound) if _varies(stored.sound) else 0,
            _number(b"pictures", *stored.frames) if _shows(stored.frames) else 0,
            name_fingerprint(ids[row], texts[row], durations[row]),
        ]
    return prints


def name_fingerprint(name: str, transcript: str, duration: float) -> int:
    """The fingerprint of an id with its words and duration; 0 without words."""
    spoken = words(transcript)
    return _number(b"name", name.encode(), " ".join(spoken).encode(), f"{duration:.2f}".encode()) if spoken else 0


def _varies(sound: bytes) -> bool:
    """Whether int16 samples are more than silence."""
    samples = np.frombuffer(sound, "<i2")
    return bool(len(samples)) and bool((samples != samples[0]).any())


def _shows(frames: list[bytes]) -> bool:
    """Whether JPEG files are more than one color."""
    if len(set(frames)) != 1:
        return bool(frames)
    pixels = decode_jpeg(frames[0])
    return bool((pixels != pixels[0, 0]).any())


def _number(*parts: bytes) -> int:
    """64 bits of a digest, never 0."""
    content = hashlib.blake2b(digest_size=8)
    for part in parts:
        content.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(content.digest(), "little") or 1
