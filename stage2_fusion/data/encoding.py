"""Run frozen encoders over prepared clips: ClipSamples in, FeatureSamples out."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipDataset, ClipSample
from shared.errors import UserError
from shared.media.quality import QUALITY_STEPS_PER_SECOND
from shared.training.loader import SigtermSafeDataLoader
from stage2_fusion.data.damaged_views import DamagedView, damaged_view, raw_input
from stage2_fusion.data.features import FeatureSample, ModalityFeatures

if TYPE_CHECKING:
    from stage1_align import AlignedEncoders

# --- a whole dataset -------------------------------------------------------------------------------------------------


def encode_dataset(
    encoders: "AlignedEncoders",
    clips: ClipDataset,
    shards: Sequence[range] | None = None,
    *,
    damaged_views: int,
    batch_size: int,
    seed: int,
    bf16: bool = False,
    workers: int = 0,
) -> Generator[FeatureSample, None, None]:
    """Encode the clips of `shards`, which are ranges of rows (None: all clips). Each clip is followed by its damaged
    views.

    No forward pass crosses the end of a shard, so that a sample does not depend on which other shards are encoded.
    workers: processes that read and damage clips; they do not change the samples. Raises UserError when the clips are
    not stored at the sample rate of the audio encoder.
    """
    shards = [range(len(clips))] if shards is None else shards
    views = _ClipViews(clips, waveform_rate(encoders, clips.sample_rates), damaged_views, seed)
    for loaded in _loader(views, split_ranges(shards, batch_size), workers):
        if isinstance(loaded, UserError):
            raise loaded
        batch, damaged = loaded
        clean = encode_samples(encoders, batch, bf16)
        again = encode_views(encoders, damaged, clean * damaged_views, bf16)
        for i, sample in enumerate(clean):
            yield sample
            yield from again[i :: len(batch)]


def split_ranges(ranges: Sequence[range], size: int) -> list[range]:
    """Cut ranges of rows into pieces of at most `size`."""
    return [rows[start : start + size] for rows in ranges for start in range(0, len(rows), size)]


@dataclass
class _ClipViews:
    """A dataset whose items are, for a range of rows, the clips and then all their views 1, all their views 2, ..."""

    clips: ClipDataset
    rate: int
    damaged_views: int
    seed: int

    def __getitem__(self, rows: range) -> tuple[list[ClipSample], list[DamagedView]] | UserError:
        """A UserError is returned: raised, it would reach the user with the traceback of the worker process."""
        try:
            batch = [load_clip(self.clips, row, self.rate) for row in rows]
        except UserError as error:
            return error
        numbers = range(1, self.damaged_views + 1)
        recipe = self.clips.info.recipe
        return batch, [damaged_view(clip, view, self.rate, self.seed, recipe) for view in numbers for clip in batch]


def _loader(views: _ClipViews, batches: list[range], workers: int) -> SigtermSafeDataLoader:
    return SigtermSafeDataLoader(
        views,  # type: ignore[arg-type]  # any object with __getitem__ is a dataset
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        collate_fn=_identity,
        prefetch_factor=1 if workers else None,  # a batch of long clips with its views may take a GiB
    )


def _identity(item: Any) -> Any:
    return item


def load_clip(clips: ClipDataset, row: int, rate: int) -> ClipSample:
    """One clip with its waveform at `rate` Hz."""
    return replace(clips[row], waveform=clips.waveform(row, rate))


# --- what the encoders imply -----------------------------------------------------------------------------------------


def widths(encoders: "AlignedEncoders") -> dict[str, int]:
    """Channels of each modality's sequence, and of the shared space ("embed"). A modality without a tower is missing
    from every clip and has width 1."""
    towers = encoders.towers()
    return {name: towers[name].width if name in towers else 1 for name in MODALITIES} | {"embed": encoders.embed_dim}


def waveform_rate(encoders: "AlignedEncoders", stored: Sequence[int]) -> int:
    """The sample rate in Hz at which to load waveforms: that of the audio encoder; without one, the first of the stored
    rates, as the waveform then serves the quality signals only."""
    return encoders.audio.sample_rate if encoders.audio is not None else stored[0]


# --- a batch of clips ------------------------------------------------------------------------------------------------


def encode_samples(encoders: "AlignedEncoders", clips: Sequence[ClipSample], bf16: bool = False) -> list[FeatureSample]:
    """Encode undamaged clips (view 0), in order."""
    parts = {name: encode_modality(encoders, name, clips, bf16) for name in MODALITIES}
    return [clean_sample(clip, *(parts[name][i] for name in MODALITIES)) for i, clip in enumerate(clips)]


def clean_sample(
    clip: ClipSample, vision: ModalityFeatures, audio: ModalityFeatures, text: ModalityFeatures
) -> FeatureSample:
    """View 0 of a clip with these features."""
    return FeatureSample(
        id=clip.id,
        view=0,
        split=clip.split,
        duration=clip.duration,
        labels=clip.labels,
        groups=clip.groups,
        damage=dict.fromkeys(MODALITIES, ""),
        vision=vision,
        audio=audio,
        text=text,
    )


def encode_views(
    encoders: "AlignedEncoders", views: Sequence[DamagedView], clean: Sequence[FeatureSample], bf16: bool = False
) -> list[FeatureSample]:
    """Encode damaged views. Only the damaged modality is encoded; the others are those of `clean`, which holds the
    undamaged sample of each view."""
    samples = [replace(sample, view=view.view, damage=view.damage) for view, sample in zip(views, clean, strict=True)]
    for name in MODALITIES:
        rows = [i for i, view in enumerate(views) if view.damage[name]]
        for i, part in zip(rows, encode_modality(encoders, name, [views[i].clip for i in rows], bf16), strict=True):
            setattr(samples[i], name, part)
    return samples


def encode_modality(
    encoders: "AlignedEncoders", name: str, clips: Sequence[ClipSample], bf16: bool
) -> list[ModalityFeatures]:
    """Encode one modality of clips in one forward pass."""
    if not clips:
        return []
    tower = encoders.towers().get(name)
    if tower is None:
        return [missing_features(name, clip, encoders.embed_dim) for clip in clips]
    device = next(tower.parameters()).device.type
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
        encoded = tower.encode_prepared([raw_input(clip, name) for clip in clips])
    pooled, sequences = encoded.pooled.float().cpu().numpy(), encoded.sequence.float().cpu().numpy()
    mask = encoded.mask.cpu().numpy()  # (B, T)
    parts = []
    for i, clip in enumerate(clips):
        sequence = sequences[i][mask[i]]  # (T, C)
        times = _step_times(name, clip, len(sequence), encoded.rate)  # (T,)
        parts.append(
            ModalityFeatures(
                sequence=sequence.astype(np.float16),
                times=np.zeros(0, np.float32) if name == "text" else times,
                pooled=pooled[i].astype(np.float16),
                quality=quality_at(name, clip, times),
            )
        )
    return parts


def missing_features(name: str, clip: ClipSample, embed_dim: int) -> ModalityFeatures:
    """A modality that no encoder reads: T = 0."""
    signals = getattr(clip, f"{name}_quality").shape[-1]
    return ModalityFeatures(
        sequence=np.zeros((0, 1), np.float16),
        times=np.zeros(0, np.float32),
        pooled=np.zeros(embed_dim, np.float16),
        quality=np.zeros((0, signals), np.float32),
    )


def _step_times(name: str, clip: ClipSample, steps: int, rate: float | None) -> np.ndarray:
    """Seconds of each step, float32 (T,): the centers of audio steps, the times of frames, zeros for text."""
    if name == "text":
        return np.zeros(steps, np.float32)
    if rate is not None:
        return ((np.arange(steps) + 0.5) / rate).astype(np.float32)
    return clip.frame_times


def quality_at(name: str, clip: ClipSample, times: np.ndarray) -> np.ndarray:
    """The quality signals of a clip, interpolated to the times (T,) of steps: float32 (T, Q)."""
    values = np.asarray(getattr(clip, f"{name}_quality"), dtype=np.float32)
    if name == "text":
        return np.repeat(values[None], len(times), axis=0)  # (T, Q)
    if name == "vision" and np.array_equal(times, clip.frame_times):
        return values
    if not len(values):
        return np.zeros((len(times), values.shape[1]), np.float32)
    at = clip.frame_times if name == "vision" else (np.arange(len(values)) + 0.5) / QUALITY_STEPS_PER_SECOND
    return np.stack([np.interp(times, at, column) for column in values.T], axis=1).astype(np.float32)
