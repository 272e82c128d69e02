"""Layout "ravdess": acted speech and song, named as RAVDESS names its files (Livingstone and Russo 2018, PLoS ONE
13(5): e0196391), in any folders. 03-01-05-01-02-01-12.wav: modality (01 picture and sound, 02 picture, 03 sound),
channel (01 speech, 02 song), emotion, intensity, statement, repetition, actor.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from shared.clips import Clip, Source
from shared.layouts.folder import media_files

LABELS = ("calm", "happy", "sad", "angry", "fearful", "disgust")
EMOTIONS = {"01": "neutral", **dict(zip(("02", "03", "04", "05", "06", "07"), LABELS, strict=True)), "08": "surprised"}
INTENSITY = {"01": 0.5, "02": 1.0}
STATEMENTS = {"01": "Kids are talking by the door.", "02": "Dogs are sitting by the door."}
NAME = re.compile(r"(0[1-3])-(0[12])-(0[1-8])-(0[12])-(0[12])-(0[12])-(\d\d)")


@dataclass
class Ravdess:
    """Labels: the emotion acted is 0.5 at normal and 1 at strong intensity, the others 0; neutral and surprise are 0
    throughout. Groups: actor, statement. Transcripts: the statement."""

    def read(self, source: Path) -> Source:
        """One clip a recording, however often and in whatever parts it is there."""
        recordings: dict[str, dict[str, Path]] = {}
        others, copies = [], 0
        files = media_files(source) if source.is_dir() else [Path(source.name)]
        for path in sorted(files, key=lambda path: source.is_dir() and not (source / path).exists()):  # dead links last
            if not NAME.fullmatch(path.stem):
                others.append(path)
                continue
            modality, _, recording = path.stem.partition("-")
            parts = recordings.setdefault(recording, {})
            copies += modality in parts
            parts.setdefault(modality, (source if source.is_dir() else source.parent) / path)
        clips = [_clip(recording, parts) for recording, parts in sorted(recordings.items())]
        notes = [f"{copies} further copies of files are left out"] if copies else []
        if others:
            notes.append(f"{len(others)} files are not named as RAVDESS names its own and are left out: {others[0]}")
        return Source(clips, LABELS, ("actor", "statement"), notes)


def _clip(recording: str, parts: dict[str, Path]) -> Clip:
    """parts: modality -> file. The file with both, or picture and sound from a file each."""
    picture = parts.get("01") or parts.get("02")
    media = picture or parts["03"]
    audio = parts.get("03") if "01" not in parts and "02" in parts else None
    _, emotion, intensity, statement, _, actor = recording.split("-")
    value = INTENSITY[intensity]
    return Clip(
        id=media.stem,
        media=media,
        audio=audio,
        transcript=STATEMENTS[statement],
        labels=tuple(value if EMOTIONS[emotion] == name else 0.0 for name in LABELS),
        groups={"actor": actor, "statement": statement},
    )
