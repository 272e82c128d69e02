"""Items to training pairs: selected frames, a crop of the sound, texts; augmented. A sample is a pure function of
(seed, epoch, position), so workers, processes and resumption change nothing."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from shared.dataset.training_clips import TrainingClips, TrainingSource
from shared.errors import UserError
from shared.files import digest
from shared.terminal.messages import note
from shared.training.loader import SigtermSafeDataLoader, to_device
from shared.training.sampling import derive_seed
from stage1_align.config import PairConfig, SourceConfig
from stage1_align.data.augment import augment_frames, augment_waveform
from stage1_align.data.captions import TextAnnotations, check_template, degree_phrases, draw_text, text_key
from stage1_align.data.mixture import Mixture, SampleIndex
from stage1_align.data.sources import open_source
from stage1_align.data.sources.base import DamageCounter, FrameSelector, PairSource, Sample, TableSource
from stage1_align.encoders import AlignedEncoders

MAX_CORPUS_RECORDS = 20_000
"""Most records of a stream to train the tokenizer on."""


class PairBatch(NamedTuple):
    """A collated batch of b clips with n texts each. A NamedTuple, so that memory pinning and wrapped models handle its
    tensors."""

    inputs: dict[str, dict[str, Tensor]]
    """Modality -> keyword arguments of its tower. Rows are clips; "text" has n * b rows, ordered by kind of text."""
    text_id: Tensor
    """int64 (n, b), equal for texts that mean the same."""
    labels: Tensor | None = None
    """float32 (b, K), NaN = not labeled; None when no source has labels."""
    damage: tuple[tuple[str, str], ...] = ()
    """(source, reason) of media that could not be decoded."""

    def to(self, device: torch.device) -> "PairBatch":
        return self._replace(
            inputs=to_device(self.inputs, device),
            text_id=to_device(self.text_id, device),
            labels=to_device(self.labels, device),
        )


@dataclass
class PairSample:
    """One clip of a training batch."""

    frames: np.ndarray
    """RGB uint8 (T, H, W, 3); T = 0 without pictures."""
    waveform: np.ndarray
    """float32 (S,); S = 0 without sound."""
    texts: list[str]
    """One per kind of text, "" if the item has none."""
    keys: list[str]
    """One per kind of text; equal keys are positives."""
    labels: np.ndarray
    """float32 (K,), NaN = not labeled."""
    damage: tuple[tuple[str, str], ...] = ()
    """(source, reason) of media that could not be decoded."""


class PairData:
    """All data of a run.

    >>> data = PairData(PairConfig(), batch_size=64, seed=0, clips="runs/demo/clips")
    >>> batches = data.loader(epoch=0, first_step=0, rank=0, world=1, encoders=encoders, workers=2)
    """

    def __init__(self, config: PairConfig, batch_size: int, seed: int, clips: Path | str = "", shrink: bool = False):
        """batch_size: rows of all processes together; clips: the clip dataset to use if `config` names no sources;
        shrink: limit the batch to the size of an epoch.
        UserError if a source cannot be opened, or has no text of the kinds in `config`."""
        check_template(config.label_template)
        self.config, self.seed = config, seed
        specs = self._specs = config.sources or [SourceConfig("clips", str(clips))]
        self.sources = [open_source(spec, spec.split) for spec in specs]
        self._valid = [(spec, spec.valid_split) for spec in specs if spec.valid_split]
        for source in self.sources:
            if not source.text_kinds & set(config.captions):
                has, wanted = " and ".join(sorted(source.text_kinds)), ", ".join(config.captions)
                raise UserError(f"{source.name}: has only {has}, but pairs.captions is [{wanted}]; add it there")
        weights = [_weight(spec, source) for spec, source in zip(specs, self.sources, strict=True)]
        self.mixture = Mixture(
            self.sources, weights, batch_size, config.samples_per_epoch, seed, shrink, config.batch_by
        )
        self._note_shuffled()
        self.label_names = list(dict.fromkeys(name for source in self.sources for name in source.label_names))
        self.digest = self.sources[0].digest
        if config.sources:
            self.digest = digest(
                [[spec.kind, spec.weight, s.digest] for spec, s in zip(specs, self.sources, strict=True)]
            )
        self.damage = DamageCounter()

    def _note_shuffled(self) -> None:
        """Print which sources lack the group of `batch_by`."""
        name = self.config.batch_by
        for source in self.sources if name else []:
            if source.groups(name) is None:
                note(f"note: {source.name}: its items have no group {name!r} (pairs.batch_by): they are shuffled")

    @property
    def steps_per_epoch(self) -> int:
        return self.mixture.steps_per_epoch

    def __len__(self) -> int:
        """Total items of all tables; stream records are not counted."""
        return sum(len(source) for source in self.sources if isinstance(source, TableSource))

    def loader(
        self, epoch: int, first_step: int, rank: int, world: int, encoders: AlignedEncoders, workers: int = 0
    ) -> "PairLoader":
        """This process's share of each global batch, collated, from `first_step` to the end of the epoch."""
        sample_rate = encoders.audio.sample_rate if encoders.audio is not None else None
        pairs = Pairs(self.sources, self.label_names, self.config, sample_rate, self.seed)

        def report(k: int, reason: str) -> None:
            if rank == 0:  # every process reads every stream
                self.damage.add(self.sources[k].name, reason)

        indices = self.mixture.sample_indices(epoch, first_step, rank, world, report)
        steps = _BatchSampler(indices, self.steps_per_epoch - first_step)
        return PairLoader(pairs, steps, encoders, workers, self.damage)

    def corpus(self) -> list[str]:
        """Every kind of text that training shows; the tokenizer is trained on it."""
        rng, config = np.random.default_rng(0), self.config
        texts: list[str] = []
        for source in self.sources:
            items = source.first(len(source) if isinstance(source, TableSource) else MAX_CORPUS_RECORDS)
            annotations = [source.annotations(item) for item in items]
            names, template = source.label_names, config.label_template
            for kind in config.captions:
                texts += [text for each in annotations for text in _texts(kind, each, names, rng, template)]
        return texts + (degree_phrases(self.label_names) if "labels" in config.captions else [])

    def waveforms(self, sample_rate: int, count: int = 256) -> list[np.ndarray]:
        """The sound of the first `count` items of each source: float32 (S,) each, S = 0 without sound."""
        length = int(self.config.max_seconds * sample_rate)
        return [
            source.sample(item, sample_rate, None).waveform[:length]
            for source in self.sources
            for item in source.first(count)
        ]

    @cached_property
    def training_clips(self) -> TrainingClips:
        """Fingerprints of the clips of all sources, labeled or not. Reads all their media."""
        opened = [open_source(spec, split) for spec, split in self._valid]
        trained, chosen = ([source.fingerprints() for source in each] for each in (self.sources, opened))
        sources = [
            TrainingSource(
                source.name,
                spec.kind,
                spec.split,
                len(source) if isinstance(source, TableSource) else None,
                "" if own is not None else "loose media are not compared; prepare them with `emit prepare`",
            )
            for spec, source, own in zip(self._specs, self.sources, trained, strict=True)
        ]
        empty = np.zeros((0, 3), np.uint64)
        known, checked = ([prints for prints in each if prints is not None] for each in (trained, chosen))
        return TrainingClips.of(np.concatenate([empty, *known]), np.concatenate([empty, *checked]), sources)

    def valid(self) -> "ValidationSet":
        """The validation items of all sources. UserError if no source has any."""
        if not self._valid:
            raise UserError("no source has a validation split: set valid_split of one of them")
        return ValidationSet([open_source(spec, split) for spec, split in self._valid], self.config)


def _weight(spec: SourceConfig, source: PairSource) -> float:
    """The weight of a source; by default its number of items."""
    if spec.weight is not None:
        return spec.weight
    if not isinstance(source, TableSource):
        raise UserError(f"{source.name}: a stream has no length; give the sources weights")
    return float(len(source))


class PairLoader(SigtermSafeDataLoader):
    """Collated batches. Media that could not be decoded are counted and reported."""

    def __init__(
        self,
        pairs: "Pairs",
        steps: "_BatchSampler",
        encoders: AlignedEncoders,
        workers: int,
        damage: DamageCounter,
    ):
        self.damage = damage
        super().__init__(
            pairs,
            batch_sampler=steps,
            collate_fn=partial(collate, encoders),
            num_workers=workers,
            pin_memory=torch.cuda.is_available(),  # pinned tensors are copied while the GPU computes
        )

    def __iter__(self) -> Iterator[PairBatch]:  # type: ignore[override]
        for batch in super().__iter__():
            for source, reason in batch.damage:
                self.damage.add(source, reason)
            yield batch


class Pairs(torch.utils.data.Dataset):
    """Training samples by their SampleIndex."""

    def __init__(
        self, sources: list[PairSource], label_names: list[str], config: PairConfig, sample_rate: int | None, seed: int
    ):
        """label_names: of all sources; a sample's labels are in this order. sample_rate: None without sound."""
        self.sources, self.label_names = sources, label_names
        self.config, self.sample_rate, self.seed = config, sample_rate, seed

    def __getitem__(self, index: SampleIndex) -> PairSample:
        epoch, k, position, item = index
        rng = np.random.default_rng(derive_seed("pairs", self.seed, epoch, k, position))
        config, source = self.config, self.sources[k]
        sample = source.sample(item, self.sample_rate, lambda count: _one_frame_per_segment(count, config.frames, rng))
        frames = sample.frames  # (T, H, W, 3)
        length = int(config.max_seconds * (self.sample_rate or 0))
        waveform = _random_crop(sample.waveform, length, rng)  # (S,)
        if config.augment:
            frames = augment_frames(frames, rng)
            waveform = augment_waveform(waveform, rng, config.gain_db)
        names, template, annotations = source.label_names, config.label_template, sample.annotations
        labels = np.full(len(self.label_names), np.nan, np.float32)  # (K,)
        labels[[self.label_names.index(name) for name in names]] = annotations.labels
        return PairSample(
            frames,
            waveform,
            [draw_text(kind, annotations, names, rng, template, config.word_dropout) for kind in config.captions],
            # A clip without this kind of text matches no other: two silent clips are not positives of each other.
            [text_key(kind, annotations, names) or f"none {epoch} {k} {position}" for kind in config.captions],
            labels,
            ((source.name, sample.damage),) if sample.damage else (),
        )


def collate(encoders: AlignedEncoders, samples: list[PairSample]) -> PairBatch:
    """The input of each tower in the encoders. All texts go through the text tower together."""
    texts = [text for kind in zip(*(sample.texts for sample in samples), strict=True) for text in kind]
    ids = [derive_seed(key) for kind in zip(*(sample.keys for sample in samples), strict=True) for key in kind]
    items = {
        "vision": [sample.frames for sample in samples],
        "audio": [sample.waveform for sample in samples],
        "text": texts,
    }
    labels = torch.from_numpy(np.stack([sample.labels for sample in samples]))  # (b, K)
    return PairBatch(
        {modality: tower.collate(items[modality]) for modality, tower in encoders.towers().items()},
        torch.tensor(ids).view(-1, len(samples)),  # (n, b)
        labels if labels.shape[1] else None,
        tuple(damage for sample in samples for damage in sample.damage),
    )


class ValidationSet:
    """Up to `valid_limit` items of each source, evenly spaced; the first items of a stream. Media are decoded on every
    access."""

    def __init__(self, sources: list[PairSource], config: PairConfig):
        self.max_seconds = config.max_seconds
        self.items = [(source, item) for source in sources for item in _evenly_spaced(source, config.valid_limit)]
        rng, template = np.random.default_rng(0), config.label_template
        annotations = [(source.annotations(item), source.label_names) for source, item in self.items]
        pairs = [
            [
                (text, i)
                for i, (each, names) in enumerate(annotations)
                for text in _texts(kind, each, names, rng, template)
            ]
            for kind in config.captions
        ]
        self.texts = [[text for text, _ in several] for several in pairs]
        """n lists of M_k: the texts of each kind; an item has no, one or several captions."""
        self.owners = [[owner for _, owner in several] for several in pairs]
        """n lists of M_k: the item of each text."""
        self.label_names = list(dict.fromkeys(name for source in sources for name in source.label_names))
        self.labels = np.full((len(annotations), len(self.label_names)), np.nan, np.float32)
        """float32 (N, K), NaN = not labeled."""
        for row, (each, names) in zip(self.labels, annotations, strict=True):
            row[[self.label_names.index(name) for name in names]] = each.labels
        self.keys = [[text_key(kind, each, names) for each, names in annotations] for kind in config.captions]
        """n lists of N: texts with the same key are correct answers to each other's items."""

    def __len__(self) -> int:
        return len(self.items)

    def frames(self, index: int, select: FrameSelector) -> np.ndarray:
        """The selected frames, uint8 (T, H, W, 3)."""
        return self._sample(index, None, select).frames

    def waveform(self, index: int, sample_rate: int) -> np.ndarray:
        """float32 (S,) at `sample_rate` Hz, at most `max_seconds` long."""
        return self._sample(index, sample_rate, None).waveform[: int(self.max_seconds * sample_rate)]

    def _sample(self, index: int, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        source, item = self.items[index]
        return source.sample(item, sample_rate, select)


class _BatchSampler:
    """A lazy batch sampler of known length: streams are read no further than needed."""

    def __init__(self, indices: Iterator[list[SampleIndex]], count: int):
        self.indices, self.count = indices, count

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        return self.indices

    def __len__(self) -> int:
        return self.count


def _evenly_spaced(source: PairSource, limit: int) -> list:
    if not isinstance(source, TableSource):
        return list(source.first(limit))
    return np.linspace(0, len(source) - 1, min(len(source), limit)).round().astype(int).tolist()


def _one_frame_per_segment(count: int, wanted: int, rng: np.random.Generator) -> list[int]:
    """A random frame from each of `wanted` equal segments of a clip of `count` frames; all if there are fewer."""
    if count <= wanted:
        return list(range(count))
    edges = np.linspace(0, count, wanted + 1)
    return [int(rng.uniform(a, b)) for a, b in itertools.pairwise(edges)]


def _random_crop(waveform: np.ndarray, length: int, rng: np.random.Generator) -> np.ndarray:
    """A random crop of `length` samples from a longer waveform (S,)."""
    if len(waveform) <= length:
        return waveform
    start = int(rng.integers(len(waveform) - length + 1))
    return waveform[start : start + length]  # (length,)


def _texts(
    kind: str, annotations: TextAnnotations, names: list[str], rng: np.random.Generator, template: str
) -> list[str]:
    """All captions, or the single text of another kind; [] if the item has none."""
    if kind == "caption":
        return [caption for caption in annotations.captions if caption]
    text = draw_text(kind, annotations, names, rng, template)
    return [text] if text else []
