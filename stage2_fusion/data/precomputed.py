"""Features that came with Hume-Vidmimic2 (shared/layouts/vidmimic2/pickles.py), given in place of encoders (given.py).

vision   rows of vit/ID.pkl, at the times at which raw/ID.mp4 shows the crops of face_images/ID; spread over the clip
         if the numbers of crops and rows differ
audio    rows of wav2vec2/ID.pkl, AUDIO_HZ per second

Text is read by the text tower of aligned encoders; without one it is missing.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from shared.dataset.clip import Clip
from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from shared.layouts.vidmimic2.layout import DatasetFolders
from shared.layouts.vidmimic2.pickles import AUDIO_HZ, FEATURE_FOLDERS, WIDTHS, read_clip_features
from shared.layouts.vidmimic2.tables import clip_id
from shared.media.precomputed_crops import CROP_NAME, crop_times, frame_times
from shared.terminal.messages import note
from shared.terminal.progress import track
from shared.text import counted, first_few
from stage2_fusion.data.feature_info import PrecomputedInfo
from stage2_fusion.data.given import GivenSteps

MAX_VALUE = float(np.finfo(np.float16).max)
"""Feature datasets hold half precision."""


class PrecomputedFeatures:
    """The features under `root` for the clips of a ClipDataset; a GivenSource.

    digest: of everything that was read; the constructor reads all files once. problems: (id, reason) for features that
    cannot be used. Raises UserError when no clip has features.
    """

    def __init__(self, root: Path, clips: ClipDataset):
        self.root = Path(root)
        self.widths = {name: WIDTHS[folder] for name, folder in FEATURE_FOLDERS.items()}
        self.signals: dict[str, list[str]] = {name: [] for name in FEATURE_FOLDERS}
        self.folders = DatasetFolders(self.root)
        self.max_seconds = float(clips.info.recipe.max_seconds)
        self.ids, self.durations = (clips.column(name) for name in ("id", "duration"))
        self.names = feature_names(self.ids)
        if changed := [f"{own!r} is {name}" for own, name in zip(self.ids, self.names, strict=True) if own != name]:
            note(f"{root}: {counted(len(changed), 'clip', 'is', 'are')} named by their numbers: {first_few(changed)}")
        self.problems: list[tuple[str, str]] = []
        self.present = {name: np.zeros(len(self.ids), bool) for name in FEATURE_FOLDERS}  # (N,)
        content = hashlib.sha256()
        for row, name in enumerate(track(self.ids, "read features", "clips")):
            steps, problems = self._read(row)
            self.problems += [(name, problem) for problem in problems]
            for modality, (values, times) in steps.items():
                self.present[modality][row] = len(values) > 0
                content.update(f"{name} {modality} {len(values)};".encode() + values.tobytes() + times.tobytes())
        if not any(has.any() for has in self.present.values()):
            example = f", such as {self.problems[0][1]}" if self.problems else ""
            folders = " or ".join(f"{folder}/" for folder in FEATURE_FOLDERS.values())
            raise UserError(f"{root}: none of {counted(len(self.ids), 'clip')} has features in {folders} here{example}")
        self.digest = content.hexdigest()[:16]

    def describe(self) -> PrecomputedInfo:
        """The part of features.json that tells these files from others."""
        return PrecomputedInfo(str(self.root.resolve()), self.digest)

    def read(self, row: int) -> dict[str, GivenSteps]:
        """The features of the clip in this row, up to the prepared `max_seconds`."""
        return {
            name: GivenSteps(values.astype(np.float16), times, np.zeros((len(values), 0), np.float32))
            for name, (values, times) in self._read(row)[0].items()
        }

    def _read(self, row: int) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], list[str]]:
        """{modality: (float32 (T, C), times (T,) of its rows in seconds)}, and what could not be used, with the
        reason."""
        # Ids are unique over all splits, and `emit split` changes the split: the folder that holds the file decides.
        clip = Clip(self.names[row], None, split="test")
        stored = read_clip_features(self.root, clip.id, clip.split)
        values = {"vision": stored.vision, "audio": stored.audio}
        problems = list(stored.problems)
        for modality, features in values.items():
            if np.abs(features).max(initial=0) > MAX_VALUE:
                problems.append(f"{self.root / FEATURE_FOLDERS[modality] / clip.id}.pkl: values beyond {MAX_VALUE:g}")
                values[modality] = features[:0]
        seconds = max(self.durations[row], len(values["audio"]) / AUDIO_HZ)  # prepared clips may be cut short
        crops, video = self.folders.find("face_images", clip), self.folders.find("raw", clip)
        times = {
            "vision": vision_times(len(values["vision"]), crops, video, seconds),
            "audio": (np.arange(len(values["audio"])) + 0.5) / AUDIO_HZ,
        }
        steps = {}
        for modality in FEATURE_FOLDERS:
            kept = times[modality] < self.max_seconds  # (T,)
            steps[modality] = values[modality][kept], times[modality][kept].astype(np.float32)
        return steps, problems


def feature_names(ids: Sequence[str]) -> list[str]:
    """The names of the clips' files: five digits, however a table writes them (7, 7.0, clips/00007). Other ids stay,
    and so do ids that would get the same name."""
    names = [clip_id(name) or name for name in ids]
    count = Counter(names)
    return [name if count[name] == 1 else own for own, name in zip(ids, names, strict=True)]


def vision_times(count: int, crops: Path | None, video: Path | None, duration: float) -> np.ndarray:
    """Seconds (T,) of `count` rows, one per crop: when the video shows the frames of the crops. If the number of crops
    differs, the rows are spread over the video or, without one, over `duration` seconds."""
    if not count:
        return np.zeros(0)
    names = [path.name for path in crops.iterdir()] if crops else []
    numbers = sorted({int(match[1]) for name in names if (match := CROP_NAME.fullmatch(name))})
    if len(numbers) != count:
        numbers = list(range(count))
    return crop_times(np.array(numbers), frame_times(video) if video else None, duration)[0]
