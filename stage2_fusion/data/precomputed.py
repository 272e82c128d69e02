"""Features that came with Hume-Vidmimic2 (shared/layouts/vidmimic2/pickles.py) as samples of a feature dataset.

vision   rows of vit/ID.pkl, at the seconds at which raw/ID.mp4 shows the crops of face_images/ID; spread over the clip
         when there are not as many crops as rows
audio    rows of wav2vec2/ID.pkl, AUDIO_HZ per second
text     the transcript through the text tower of aligned encoders, else missing

Vision and audio features share no space, so their pooled embeddings are zeros. Quality signals are those of the
prepared clip at the times of the rows, zeros where it has no frames or sound. Features
cannot be damaged like media: a damaged view lacks a modality.
"""

import hashlib
from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import MODALITIES, Clip
from shared.dataset.clip_dataset import ClipDataset, ClipSample
from shared.errors import UserError
from shared.files import digest
from shared.layouts.vidmimic2.layout import DatasetFolders
from shared.layouts.vidmimic2.pickles import AUDIO_HZ, FEATURE_FOLDERS, WIDTHS, read_clip_features
from shared.layouts.vidmimic2.tables import clip_id
from shared.media.precomputed_crops import CROP_NAME, crop_times, frame_times
from shared.terminal.messages import note
from shared.terminal.progress import track
from shared.text import counted, first_few
from shared.training.sampling import derive_seed
from stage2_fusion.data.encoding import clean_sample, encode_modality, missing_features, quality_at, split_ranges
from stage2_fusion.data.feature_info import EncoderInfo, PrecomputedInfo
from stage2_fusion.data.features import FeatureSample, ModalityFeatures

if TYPE_CHECKING:
    from stage1_align import AlignedEncoders

MAX_VALUE = float(np.finfo(np.float16).max)
"""Feature datasets hold half precision."""


@dataclass
class TimedFeatures:
    """The precomputed features of a clip."""

    steps: dict[str, tuple[np.ndarray, np.ndarray]]
    """Modality to float32 (T, C) and the times (T,) of its rows in seconds."""
    problems: list[str] = field(default_factory=list)
    """What could not be used, and why."""


class PrecomputedFeatures:
    """The features at `root` of the clips of a ClipDataset.

    text_encoders: encoders whose text tower encodes the transcripts, or None. digest: of everything that was read; the
    constructor reads all files once. problems: (id, reason) of what could not be used. Raises UserError when no clip
    has features.
    """

    def __init__(self, root: Path, clips: ClipDataset, text_encoders: "AlignedEncoders | None" = None):
        self.root, self.clips, self.text_encoders = Path(root), clips, text_encoders
        self.folders = DatasetFolders(self.root)
        self.max_seconds = float(clips.info.recipe.max_seconds)
        # Columns, so that no frame is decoded for its time.
        self.ids, self.durations, self.times = (clips.column(name) for name in ("id", "duration", "frame_times"))
        self.names = feature_names(self.ids)
        if changed := [f"{own!r} is {name}" for own, name in zip(self.ids, self.names, strict=True) if own != name]:
            note(f"{root}: {counted(len(changed), 'clip', 'is', 'are')} named by their numbers: {first_few(changed)}")
        self.vision_quality = clips.column("vision_quality")
        self.problems: list[tuple[str, str]] = []
        content, used = hashlib.sha256(), 0
        for row, name in enumerate(track(self.ids, "read features", "clips")):
            features = self.read(row)
            self.problems += [(name, problem) for problem in features.problems]
            for modality, (values, times) in features.steps.items():
                used += len(values) > 0
                content.update(f"{name} {modality} {len(values)};".encode() + values.tobytes() + times.tobytes())
        if not used:
            example = f", such as {self.problems[0][1]}" if self.problems else ""
            folders = " or ".join(f"{folder}/" for folder in FEATURE_FOLDERS.values())
            raise UserError(f"{root}: none of {counted(len(self.ids), 'clip')} has features in {folders} here{example}")
        self.digest = content.hexdigest()[:16]

    def describe(self) -> PrecomputedInfo:
        """The part of features.json that tells these files from others."""
        return PrecomputedInfo(str(self.root.resolve()), self.digest)

    def encoder_info(self) -> EncoderInfo:
        """The part of features.json in place of encoders. Files do not tell which network wrote them: those of the same
        folders and widths count as features of the same encoders."""
        text_digest = self.text_encoders.digest if self.text_encoders else None
        return EncoderInfo(
            path=str(self.root.resolve()),
            digest=digest(["provided", WIDTHS, text_digest]),  # an old name: another one would change the digest
            config=self.text_encoders.config if self.text_encoders else {},
            precomputed=list(FEATURE_FOLDERS),
        )

    def widths(self) -> dict[str, int]:
        """As `encoding.widths`."""
        encoders = self.text_encoders
        text = encoders.towers()["text"].width if encoders else 1
        return {name: WIDTHS[folder] for name, folder in FEATURE_FOLDERS.items()} | {
            "text": text,
            "embed": self.embed_dim,
        }

    @property
    def embed_dim(self) -> int:
        return self.text_encoders.embed_dim if self.text_encoders else 1

    def read(self, row: int) -> TimedFeatures:
        """The features of the clip in this row, up to the `max_seconds` that were prepared."""
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
        return TimedFeatures(steps, problems)

    def samples(
        self, shards: Sequence[range], *, damaged_views: int, batch_size: int, seed: int, bf16: bool
    ) -> Generator[FeatureSample, None, None]:
        """The clips of `shards`, which are ranges of rows; each clip is followed by its damaged views."""
        for rows in split_ranges(shards, batch_size):
            clips = [self.clips.clip(row, lambda count: []) for row in rows]
            if self.text_encoders is None:
                texts = [missing_features("text", clip, self.embed_dim) for clip in clips]
            else:
                texts = encode_modality(self.text_encoders, "text", clips, bf16)
            for row, clip, text in zip(rows, clips, texts, strict=True):
                clip = replace(
                    clip,
                    frame_times=np.array(self.times[row], np.float32),  # (Tf,)
                    vision_quality=np.frombuffer(self.vision_quality[row], "<f4").reshape(
                        -1, clip.vision_quality.shape[1]
                    ),  # (Tf, Q)
                )
                parts = {name: self._features(name, clip, *steps) for name, steps in self.read(row).steps.items()}
                sample = clean_sample(clip, **parts, text=text)
                yield sample
                for view in range(1, damaged_views + 1):
                    yield missing_view(sample, view, seed)

    def _features(self, name: str, clip: ClipSample, values: np.ndarray, times: np.ndarray) -> ModalityFeatures:
        return ModalityFeatures(
            sequence=values.astype(np.float16),
            times=times,
            pooled=np.zeros(self.embed_dim, np.float16),
            quality=quality_at(name, clip, times),
        )


def feature_names(ids: Sequence[str]) -> list[str]:
    """The names of the clips' files: five digits, however a table writes them (7, 7.0, clips/00007); other ids stay,
    and those of which several would have the same name."""
    names = [clip_id(name) or name for name in ids]
    count = Counter(names)
    return [name if count[name] == 1 else own for own, name in zip(ids, names, strict=True)]


def vision_times(count: int, crops: Path | None, video: Path | None, duration: float) -> np.ndarray:
    """Seconds (T,) of `count` rows, one per crop: when the video shows the frames of the crops. When there are not as
    many crops, the rows are spread over the video or, without one, over `duration` seconds."""
    if not count:
        return np.zeros(0)
    names = [path.name for path in crops.iterdir()] if crops else []
    numbers = sorted({int(match[1]) for name in names if (match := CROP_NAME.fullmatch(name))})
    if len(numbers) != count:
        numbers = list(range(count))
    return crop_times(np.array(numbers), frame_times(video) if video else None, duration)[0]


def missing_view(sample: FeatureSample, view: int, seed: int) -> FeatureSample:
    """The sample without one of its modalities, which is a function of (seed, id, view); unchanged when it has only
    one."""
    present = [name for name in MODALITIES if sample.modality(name).steps]
    if len(present) < 2:
        return replace(sample, view=view)
    lost = str(np.random.default_rng(derive_seed("damage", seed, sample.id, view)).choice(present))
    return replace(sample.without(lost), view=view, damage={**sample.damage, lost: "missing"})
