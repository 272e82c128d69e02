"""Damage done to features, for clips whose media nobody can damage: features that came with their dataset.

A sensor that fails leaves its mark on a sequence in few ways: noise covers it, it stands still, or for a while it shows
nothing of the clip. Quality signals stay as they are: of the media nothing has changed.
"""

import numpy as np
import torch
from torch import Tensor

from shared.dataset.clip import MODALITIES
from shared.training.sampling import derive_seed
from stage2_fusion.data.batches import Batch

KINDS = ("noise", "frozen", "blank")
"""noise    normal noise of one to three times each channel's deviation
frozen   all steps are one of them
blank    a stretch of 60 % of the steps or more holds the channels' mean; of a single step, that step"""
DAMAGED = ("vision", "audio")


class FeatureDamage:
    """Puts damaged copies of clean rows in place of every second row of a batch; see `__call__`."""

    def __init__(self, model, share: float, seed: int):
        """model: a FusionModel that has its statistics (mean and scale of every channel); share: of the pairs that are
        drawn for damage."""
        self.share, self.seed = share, seed
        self.usual = {
            name: (getattr(model, f"{name}_x_mean"), 1 / getattr(model, f"{name}_x_scale")) for name in DAMAGED
        }
        self.pooled = {name: getattr(model, f"{name}_pooled_mean") for name in DAMAGED}

    def __call__(self, batch: Batch, rows: np.ndarray, epoch: int) -> None:
        """Rows of `batch` come in pairs: 2i is a clip as it is, 2i + 1 another view of it. For a share of the pairs the
        second becomes a copy of the first with one of its modalities damaged, and says so in "damaged" (B, 3). What is
        done is a function of (seed, epoch, rows), rows (B,) being numbers of samples; a clip without pictures and sound
        stays as it is."""
        for i in range(0, len(rows), 2):
            rng = np.random.default_rng(derive_seed("feature damage", self.seed, epoch, int(rows[i])))
            present = [name for name in DAMAGED if batch.modality(name).present[i]]
            if rng.random() >= self.share or not present:
                continue
            for name in MODALITIES:
                for values in batch.modality(name).values():
                    values[i + 1] = values[i]
            name, kind = str(rng.choice(present)), str(rng.choice(KINDS))
            part = batch.modality(name)
            length = int(part.mask[i].sum())
            damaged = damage(part.x[i, :length], kind, *self.usual[name], rng)  # (T, C)
            part.x[i + 1, :length] = damaged
            part.pooled[i + 1] = self.pooled[name]  # of the damaged sequence nobody knows it
            batch.damaged[i + 1] = torch.tensor([other == name for other in MODALITIES])


def damage(x: Tensor, kind: str, mean: Tensor, deviation: Tensor, rng: np.random.Generator) -> Tensor:
    """x (T, C) of one clip to a damaged copy; mean and deviation (C,) of the channels over all clips."""
    if kind == "noise":
        noise = torch.from_numpy(rng.standard_normal(x.shape, np.float32)).to(x)  # (T, C)
        return x + rng.uniform(1, 3) * deviation.to(x) * noise
    if kind == "frozen" and len(x) > 1:
        return x[int(rng.integers(len(x)))].expand_as(x)
    count = max(1, round(rng.uniform(0.6, 1.0) * len(x)))
    start = int(rng.integers(len(x) - count + 1))
    out = x.clone()
    out[start : start + count] = mean.to(x)
    return out
