"""Batches of a split that is in memory: each modality is gathered by one indexing operation instead of clip by clip."""

import numpy as np
import torch
from torch import Tensor

from shared.dataset.clip import MODALITIES
from shared.training.loader import to_device


class Batches:
    """Samples laid end to end. Their sequences become views of that memory, which is therefore not taken twice.

    batches(rows, device) gives for the samples of these rows what `features.collate` gives, to the bit.
    """

    def __init__(self, samples: list[dict]):
        self.samples = samples
        self.durations = torch.tensor([sample["duration"] for sample in samples], dtype=torch.float32)  # (N,)
        self.labels = torch.from_numpy(np.stack([sample["labels"] for sample in samples]).astype(np.float32))  # (N, K)
        self.modalities = {name: _Modality([sample[name] for sample in samples]) for name in MODALITIES}
        hurt = torch.tensor([[bool(sample["damage"][name]) for name in MODALITIES] for sample in samples])  # (N, 3)
        there = torch.stack([self.modalities[name].lengths > 0 for name in MODALITIES], dim=1)  # (N, 3)
        self.damaged = hurt & there

    def __call__(self, rows: np.ndarray, device=None) -> dict:
        index = torch.as_tensor(np.asarray(rows), dtype=torch.long)  # (B,)
        batch = {
            "ids": [self.samples[row]["id"] for row in rows],
            "duration": self.durations[index],  # (B,)
            "labels": self.labels[index],  # (B, K)
            "damaged": self.damaged[index],  # (B, 3)
            **{name: part.gather(index) for name, part in self.modalities.items()},
        }
        return batch if device is None else to_device(batch, device)


class _Modality:
    """The steps of all samples one after the other, behind one step of zeros that stands for padding."""

    def __init__(self, parts: list[dict]):
        self.lengths = torch.tensor([len(part["sequence"]) for part in parts])  # (N,)
        self.starts = 1 + self.lengths.cumsum(0) - self.lengths  # (N,)
        self.steps = {}  # name: (1 + sum of lengths, ...)
        for key in ("sequence", "times", "quality"):
            first = parts[0][key]
            flat = np.zeros((1 + int(self.lengths.sum()), *first.shape[1:]), first.dtype)
            for part, start, length in zip(parts, self.starts.tolist(), self.lengths.tolist(), strict=True):
                if len(part[key]):  # words have no times
                    flat[start : start + length] = part[key]
                    part[key] = flat[start : start + length]
            self.steps[key] = torch.from_numpy(flat)
        self.pooled = torch.from_numpy(np.stack([part["pooled"] for part in parts]))  # (N, D)

    def gather(self, rows: Tensor) -> dict[str, Tensor]:
        lengths = self.lengths[rows]  # (B,)
        steps = torch.arange(max(1, int(lengths.max())))  # (T,)
        mask = steps < lengths[:, None]  # (B, T)
        where = torch.where(mask, self.starts[rows, None] + steps, 0).flatten()  # (B T,)
        x, times, quality = (
            self.steps[key].index_select(0, where).float().unflatten(0, mask.shape)
            for key in ("sequence", "times", "quality")
        )  # (B, T, C), (B, T), (B, T, Q)
        pooled = self.pooled[rows].float()  # (B, D)
        return {"x": x, "mask": mask, "times": times, "pooled": pooled, "quality": quality, "present": mask.any(1)}
