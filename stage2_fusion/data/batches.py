"""Batches of feature samples: what fusion models read."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from shared.dataset.clip import MODALITIES
from shared.training.loader import to_device
from stage2_fusion.data.features import FeatureSample, ModalityFeatures
from stage2_fusion.data.packing import PackedSteps


@dataclass(eq=False)
class ModalityBatch:
    """One modality of B clips, float32, padded with zeros to the longest: T >= 1."""

    x: Tensor
    """(B, T, C), the sequences."""
    mask: Tensor
    """bool (B, T), True = real step."""
    times: Tensor
    """(B, T), seconds; zeros for text."""
    pooled: Tensor
    """(B, D), the embeddings in the shared space."""
    quality: Tensor
    """(B, T, Q), the quality signals."""
    present: Tensor
    """bool (B,), False = the modality is missing."""

    def to(self, device: torch.device | str) -> "ModalityBatch":
        return ModalityBatch(**{name: to_device(tensor, torch.device(device)) for name, tensor in vars(self).items()})


@dataclass(eq=False)
class Batch:
    """B clips."""

    ids: list[str]
    duration: Tensor
    """float32 (B,), seconds."""
    labels: Tensor
    """float32 (B, K), NaN = not labeled."""
    damaged: Tensor
    """bool (B, 3), True = the modality (vision, audio, text) is present but was deliberately damaged."""
    vision: ModalityBatch
    audio: ModalityBatch
    text: ModalityBatch
    damage_spans: Tensor | None = None
    """(B, P, 2), seconds (start, end) of damage that comes and goes; see passing_damage.py."""
    raw: dict[str, Any] | None = None
    """Modality to the input of its tower, if towers train end to end (stage2_fusion/finetune.py)."""

    def modality(self, name: str) -> ModalityBatch:
        """The part of "vision", "audio" or "text"."""
        return getattr(self, name)

    def to(self, device: torch.device | str) -> "Batch":
        """The same batch with every tensor on `device`; pinned memory is copied asynchronously."""
        values = to_device(vars(self), torch.device(device))
        return Batch(**{**values, **{name: self.modality(name).to(device) for name in MODALITIES}})


def within_spans(times: Tensor, spans: Tensor) -> Tensor:
    """Which times (B, S) lie in one of the spans (B, P, 2) of their row, start and end in seconds: bool (B, S)."""
    return ((times[..., None] >= spans[:, None, :, 0]) & (times[..., None] < spans[:, None, :, 1])).any(dim=-1)


def collate(samples: Sequence[FeatureSample], device: torch.device | str | None = None) -> Batch:
    """A batch of these samples."""
    return PackedSamples(samples)(range(len(samples)), device)


class PackedSamples:
    """Samples in memory with their sequences concatenated, so that a batch takes one indexing operation per tensor.
    `packed(rows, device)` is the batch of the samples with these indices."""

    def __init__(self, samples: Sequence[FeatureSample]):
        self.samples = samples
        self.durations = torch.tensor([sample.duration for sample in samples], dtype=torch.float32)  # (N,)
        self.labels = torch.from_numpy(np.stack([sample.labels for sample in samples]).astype(np.float32))  # (N, K)
        self.modalities = {name: _PackedModality([s.modality(name) for s in samples]) for name in MODALITIES}
        damaged = torch.tensor([[bool(sample.damage[name]) for name in MODALITIES] for sample in samples])  # (N, 3)
        present = torch.stack([self.modalities[name].lengths > 0 for name in MODALITIES], dim=1)  # (N, 3)
        self.damaged = damaged & present

    def __call__(self, rows: Sequence[int] | np.ndarray, device: torch.device | str | None = None) -> Batch:
        index = torch.as_tensor(np.asarray(rows), dtype=torch.long)  # (B,)
        batch = Batch(
            ids=[self.samples[row].id for row in rows],
            duration=self.durations[index],  # (B,)
            labels=self.labels[index],  # (B, K)
            damaged=self.damaged[index],  # (B, 3)
            vision=self.modalities["vision"].gather(index),
            audio=self.modalities["audio"].gather(index),
            text=self.modalities["text"].gather(index),
        )
        return batch if device is None else batch.to(device)


class _PackedModality:
    """One modality of all samples."""

    def __init__(self, parts: list[ModalityFeatures]):
        packed = PackedSteps.of(parts)
        self.lengths, self.starts = torch.from_numpy(packed.lengths), torch.from_numpy(packed.starts)  # (N,), (N,)
        self.steps = {key: torch.from_numpy(array) for key, array in packed.arrays.items()}  # (1 + steps, ...) each
        self.pooled = torch.from_numpy(np.stack([part.pooled for part in parts]))  # (N, D)

    def gather(self, rows: Tensor) -> ModalityBatch:
        lengths = self.lengths[rows]  # (B,)
        steps = torch.arange(max(1, int(lengths.max())))  # (T,)
        mask = steps < lengths[:, None]  # (B, T)
        place = torch.where(mask, self.starts[rows, None] + steps, 0).flatten()  # (B T,)
        x, times, quality = (
            self.steps[key].index_select(0, place).float().unflatten(0, mask.shape)
            for key in ("sequence", "times", "quality")
        )  # (B, T, C), (B, T), (B, T, Q)
        return ModalityBatch(x, mask, times, self.pooled[rows].float(), quality, mask.any(dim=1))
