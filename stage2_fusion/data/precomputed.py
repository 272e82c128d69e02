"""Features that came with Hume-Vidmimic2 (shared/layouts/vidmimic2/pickles.py) as samples of a feature dataset.

vision   rows of vit/ID.pkl, at the seconds at which raw/ID.mp4 shows the crops of face_images/ID; without as many crops
         as rows, spread over the clip
audio    rows of wav2vec2/ID.pkl, AUDIO_HZ a second
text     the clip's words through the text tower of aligned encoders where some are given, else absent

There is no space that these features share, so their pooled embeddings are zeros: only words have one. Quality is that
of the prepared clip at those seconds, zeros where it has no picture or sound. Damage cannot be drawn on features: a
damaged view is one that lost a modality.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from shared.dataset.clip import MODALITIES, Clip
from shared.errors import UserError
from shared.files import digest
from shared.layouts.vidmimic2.layout import DatasetFolders
from shared.layouts.vidmimic2.pickles import AUDIO_HZ, FEATURE_FOLDERS, WIDTHS, read_clip_features
from shared.media.face_crops import CROP_NAME, crop_times, frame_times
from shared.training.sampling import derive_seed
from stage2_fusion.data.encoding import absent, batches, clean_sample, encode_modality, quality_at
from stage2_fusion.data.features import EncoderInfo, FeatureSample, ModalityFeatures, PrecomputedInfo

LARGEST = float(np.finfo(np.float16).max)
"""Feature datasets hold half precision."""


@dataclass
class Rows:
    """The features of a clip."""

    steps: dict[str, tuple[np.ndarray, np.ndarray]]
    """Modality: float32 (T, C), and the seconds (T,) of its rows."""
    troubles: list[str] = field(default_factory=list)
    """What could not be used, in words."""


class PrecomputedFeatures:
    """The features at `root` of the clips of a ClipDataset.

    words: AlignedEncoders with a text tower, or None. digest: of all that was read, which is done once here; troubles:
    [(id, reason)] of what could not be used. UserError where nothing could.
    """

    def __init__(self, root: Path, clips, words=None):
        from tqdm import tqdm

        self.root, self.clips, self.words = Path(root), clips, words
        self.folders = DatasetFolders(self.root)
        self.seconds = clips.info.recipe.max_seconds
        # Columns, so that no picture is decoded for its time.
        self.ids, self.durations, self.times = (clips.column(name) for name in ("id", "duration", "frame_times"))
        self.signals = clips.column("vision_quality")
        self.troubles: list[tuple[str, str]] = []
        content, used = hashlib.sha256(), 0
        for row, name in enumerate(tqdm(self.ids, desc="read", unit="clip", disable=None)):
            found = self.rows(row)
            self.troubles += [(name, trouble) for trouble in found.troubles]
            for modality, (values, times) in found.steps.items():
                used += len(values) > 0
                content.update(f"{name} {modality} {len(values)};".encode() + values.tobytes() + times.tobytes())
        if not used:
            why = f", such as {self.troubles[0][1]}" if self.troubles else ""
            raise UserError(f"{root}: none of the {len(self.ids)} clips has features in {_places()} here{why}")
        self.digest = content.hexdigest()[:16]

    def describe(self) -> dict:
        """What features.json says in place of encoders. Files do not tell which network wrote them: those of the same
        folders and widths count as of the same encoders, and `precomputed` tells the files apart."""
        of_words = self.words.digest if self.words else None
        return {
            "encoders": EncoderInfo(
                path=str(self.root.resolve()),
                digest=digest(["provided", WIDTHS, of_words]),  # not renamed, as it would change the digest
                config=self.words.config if self.words else {},
                precomputed=list(FEATURE_FOLDERS),
            ),
            "precomputed": PrecomputedInfo(str(self.root.resolve()), self.digest),
            "widths": {
                **{modality: WIDTHS[folder] for modality, folder in FEATURE_FOLDERS.items()},
                "text": self.words.text.width if self.words else 1,
                "embed": self.embed_dim,
            },
        }

    @property
    def embed_dim(self) -> int:
        return self.words.embed_dim if self.words else 1

    def rows(self, row: int) -> Rows:
        """The features of the clip at `row`, as far as preparing looked at it."""
        # Ids count through the splits, and `emit split` gives clips others: where the file lies is what matters.
        clip = Clip(self.ids[row], None, split="test")
        read = read_clip_features(self.root, clip.id, clip.split)
        values = {"vision": read.vision, "audio": read.audio}
        troubles = list(read.problems)
        for modality, features in values.items():
            if np.abs(features).max(initial=0) > LARGEST:
                troubles.append(f"{self.root / FEATURE_FOLDERS[modality] / clip.id}.pkl: values beyond {LARGEST:g}")
                values[modality] = features[:0]
        times = {"audio": (np.arange(len(values["audio"])) + 0.5) / AUDIO_HZ}
        lasts = max(self.durations[row], len(values["audio"]) / AUDIO_HZ)  # preparing leaves out the rest
        times["vision"] = vision_times(
            len(values["vision"]), self.folders.find("face_images", clip), self.folders.find("raw", clip), lasts
        )
        steps = {}
        for modality in FEATURE_FOLDERS:
            seen = times[modality] < self.seconds  # (T,)
            steps[modality] = values[modality][seen], times[modality][seen].astype(np.float32)
        return Rows(steps, troubles)

    def samples(
        self, stretches: list[range], damaged_views: int, batch_size: int, seed: int, bf16: bool
    ) -> Iterator[FeatureSample]:
        """Samples of the clips in `stretches` of rows, in order, each clip as it is followed by its damaged views."""
        for batch in batches(stretches, batch_size):
            clips = [self.clips.clip(row, lambda count: []) for row in batch]
            if self.words is None:
                words = [absent("text", clip, self.embed_dim) for clip in clips]
            else:
                words = encode_modality(self.words, "text", clips, bf16)
            for row, clip, text in zip(batch, clips, words, strict=True):
                width = clip["vision_quality"].shape[1]
                clip["frame_times"] = np.array(self.times[row], np.float32)  # (Tf,)
                clip["vision_quality"] = np.frombuffer(self.signals[row], "<f4").reshape(-1, width)  # (Tf, Q)
                parts = {name: self._part(name, clip, *steps) for name, steps in self.rows(row).steps.items()}
                sample = clean_sample(clip, **parts, text=text)
                yield sample
                for view in range(1, damaged_views + 1):
                    yield missing_view(sample, view, seed)

    def _part(self, name: str, clip: dict, values: np.ndarray, times: np.ndarray) -> ModalityFeatures:
        return ModalityFeatures(
            sequence=values.astype(np.float16),
            times=times,
            pooled=np.zeros(self.embed_dim, np.float16),
            quality=quality_at(name, clip, times),
        )


def vision_times(count: int, crops: Path | None, video: Path | None, duration: float) -> np.ndarray:
    """Seconds (T,) of `count` rows, one a crop: when the frames of the crops are shown, or, where there are not as many
    crops, spread over the video or, without one, over `duration` seconds."""
    if not count:
        return np.zeros(0)
    names = [path.name for path in crops.iterdir()] if crops else []
    numbers = sorted({int(match[1]) for name in names if (match := CROP_NAME.fullmatch(name))})
    if len(numbers) != count:
        numbers = range(count)
    return crop_times(np.array(numbers), frame_times(video) if video else None, duration)[0]


def missing_view(sample: FeatureSample, view: int, seed: int) -> FeatureSample:
    """The sample without one of its modalities, which one being a function of (seed, id, view); as it is where it has
    but one."""
    present = [name for name in MODALITIES if sample.modality(name).steps]
    if len(present) < 2:
        return replace(sample, view=view)
    lost = str(np.random.default_rng(derive_seed("damage", seed, sample.id, view)).choice(present))
    return replace(sample.without(lost), view=view, damage={**sample.damage, lost: "missing"})


def _places() -> str:
    return " or ".join(f"{folder}/" for folder in FEATURE_FOLDERS.values())
