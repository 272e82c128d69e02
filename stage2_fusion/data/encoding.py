"""Run frozen encoders over prepared clips: ClipSamples in, FeatureSamples out."""

from collections.abc import Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipDataset, ClipSample
from shared.errors import UserError
from shared.training.loader import SigtermSafeDataLoader
from stage2_fusion.data.damaged_views import DamagedView, damaged_view, raw_input, view_of_given
from stage2_fusion.data.features import FeatureSample, ModalityFeatures
from stage2_fusion.data.given import GivenFeatures, quality_at

if TYPE_CHECKING:
    from stage1_align import AlignedEncoders

# --- a whole dataset -------------------------------------------------------------------------------------------------


def encode_dataset(
    encoders: "AlignedEncoders | None",
    clips: ClipDataset,
    shards: Sequence[range] | None = None,
    *,
    damaged_views: int,
    batch_size: int,
    seed: int,
    bf16: bool = False,
    workers: int = 0,
    given: GivenFeatures | None = None,
    fingerprints: np.ndarray | None = None,
) -> Generator[FeatureSample, None, None]:
    """Encode the clips of `shards`, ranges of rows (None: all clips). Each clip is followed by its damaged views.

    No forward pass crosses the end of a shard, so a sample does not depend on the other shards. workers: processes that
    read and damage clips; their number does not change the samples. given: features used in place of a tower's; without
    encoders, the only ones. fingerprints: of all clips, uint64 (N, 3), stored with their samples. Raises UserError when
    the clips are not stored at the sample rate of the audio encoder.
    """
    shards = [range(len(clips))] if shards is None else shards
    towers = tuple(encoders.towers()) if encoders is not None else ()
    rate = waveform_rate(encoders, clips.sample_rates) if encoders is not None else clips.sample_rates[0]
    views = _ClipViews(clips, rate, damaged_views, seed, towers, given.present if given else None)
    batches = split_ranges(shards, batch_size)
    for rows, loaded in zip(batches, _loader(views, batches, workers), strict=True):
        if isinstance(loaded, UserError):
            raise loaded
        batch, damaged = loaded
        parts = [given.parts(row, clip) for row, clip in zip(rows, batch, strict=True)] if given else None
        clean = encode_samples(encoders, batch, bf16, parts)
        if fingerprints is not None:
            clean = [replace(sample, fingerprints=own) for sample, own in zip(clean, fingerprints[rows], strict=True)]
        again = encode_views(encoders, damaged, clean * damaged_views, bf16, given.names if given else ())
        for i, sample in enumerate(clean):
            yield sample
            yield from again[i :: len(batch)]


def split_ranges(ranges: Sequence[range], size: int) -> list[range]:
    """Cut ranges of rows into pieces of at most `size`."""
    return [rows[start : start + size] for rows in ranges for start in range(0, len(rows), size)]


@dataclass
class _ClipViews:
    """A dataset with one item per range of rows: the clips, then all their views 1, all their views 2, ..."""

    clips: ClipDataset
    rate: int
    damaged_views: int
    seed: int
    towers: tuple[str, ...]
    """The modalities that are encoded."""
    given: Mapping[str, np.ndarray] | None
    """If features are given: modality to whether each clip has some, bool (N,)."""

    def __getitem__(self, rows: range) -> tuple[list[ClipSample], list[DamagedView]] | UserError:
        """A UserError is returned; if raised, it would show the user the traceback of the worker process."""
        try:
            batch = [self._load(row) for row in rows]
        except UserError as error:
            return error
        numbers = range(1, self.damaged_views + 1)
        return batch, [self._view(row, clip, view) for view in numbers for row, clip in zip(rows, batch, strict=True)]

    def _load(self, row: int) -> ClipSample:
        """The clip, without media that are not needed."""
        if self.given is None or "vision" in self.towers:
            return load_clip(self.clips, row, self.rate)
        clip = self.clips.without_frames(row)
        return replace(clip, waveform=self.clips.waveform(row, self.rate)) if "audio" in self.towers else clip

    def _view(self, row: int, clip: ClipSample, view: int) -> DamagedView:
        recipe = self.clips.info.recipe
        if self.given is None:
            return damaged_view(clip, view, self.rate, self.seed, recipe)
        present = {name: name in self.towers and len(raw_input(clip, name)) > 0 for name in MODALITIES}
        present |= {name: bool(has[row]) for name, has in self.given.items()}
        return view_of_given(clip, view, self.rate, self.seed, recipe, present, self.given)


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
    """The sample rate in Hz at which to load waveforms: the rate of the audio encoder; without one, the first stored
    rate, since only the quality signals then need the waveform."""
    return encoders.audio.sample_rate if encoders.audio is not None else stored[0]


# --- a batch of clips ------------------------------------------------------------------------------------------------


def encode_samples(
    encoders: "AlignedEncoders | None",
    clips: Sequence[ClipSample],
    bf16: bool = False,
    given: Sequence[Mapping[str, ModalityFeatures]] | None = None,
) -> list[FeatureSample]:
    """Encode undamaged clips (view 0), in order. given: the given features of each clip, all of the same modalities."""
    names = given[0].keys() if given else ()
    parts = {
        name: [each[name] for each in given or ()] if name in names else encode_modality(encoders, name, clips, bf16)
        for name in MODALITIES
    }
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
    encoders: "AlignedEncoders | None",
    views: Sequence[DamagedView],
    clean: Sequence[FeatureSample],
    bf16: bool = False,
    given: Collection[str] = (),
) -> list[FeatureSample]:
    """Encode damaged views. Only the damaged modality is encoded; the others come from `clean`, the undamaged sample of
    each view. given: modalities with given features; a view lacks such a modality instead of damaging it."""
    samples = [replace(sample, view=view.view, damage=view.damage) for view, sample in zip(views, clean, strict=True)]
    for name in MODALITIES:
        rows = [i for i, view in enumerate(views) if view.damage[name]]
        if name in given:
            for i in rows:
                samples[i] = samples[i].without(name)
            continue
        for i, part in zip(rows, encode_modality(encoders, name, [views[i].clip for i in rows], bf16), strict=True):
            setattr(samples[i], name, part)
    return samples


def encode_modality(
    encoders: "AlignedEncoders | None", name: str, clips: Sequence[ClipSample], bf16: bool
) -> list[ModalityFeatures]:
    """Encode one modality of clips in one forward pass; without a tower, the modality is missing."""
    if not clips:
        return []
    if encoders is None:
        return [missing_features(name, clip, 1) for clip in clips]
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
    """A missing modality: T = 0."""
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
