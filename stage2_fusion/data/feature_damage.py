"""Damage to features, for datasets that came with features: their media cannot be damaged.

A failing sensor damages a sequence in few ways: noise covers it, it freezes, or it drops out for a while. The quality
signals stay, since they describe the media.
"""

import dataclasses

import numpy as np
import torch
from torch import Tensor

from shared.dataset.clip import MODALITIES
from shared.training.sampling import derive_seed
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import FusionModel

KINDS = ("noise", "frozen", "blank")
"""noise    normal noise of one to three standard deviations of each channel
frozen   all steps are copies of one of them
blank    60 % of the steps or more, in one run, hold the channel means; a sequence of one step becomes its mean"""
DAMAGED_MODALITIES = ("vision", "audio")


class FeatureDamage:
    """Replaces every second row of a batch by a damaged copy of the row before it; see `__call__`."""

    def __init__(self, model: FusionModel, share: float, seed: int):
        """model: has the mean and scale of the channels, so its statistics must be fitted. share: of damaged pairs."""
        self.share, self.seed = share, seed
        self.statistics: dict[str, tuple[Tensor, Tensor]] = {}  # mean and standard deviation (C,)
        for name in DAMAGED_MODALITIES:
            self.statistics[name] = getattr(model, f"{name}_x_mean"), 1 / getattr(model, f"{name}_x_scale")
        self.pooled_means = {name: getattr(model, f"{name}_pooled_mean") for name in DAMAGED_MODALITIES}

    def __call__(self, batch: Batch, rows: np.ndarray, epoch: int) -> None:
        """Change `batch` in place. Its rows are pairs: 2i is an undamaged clip, 2i + 1 another view of it. For a share
        of the pairs, the second row becomes a copy of the first with one damaged modality, and `damaged` says so.

        rows: (B,), the indices of the samples; the damage is a function of (seed, epoch, row). A clip without vision
        and audio stays as it is.
        """
        for i in range(0, len(rows), 2):
            rng = np.random.default_rng(derive_seed("feature damage", self.seed, epoch, int(rows[i])))
            present = [name for name in DAMAGED_MODALITIES if batch.modality(name).present[i]]
            if rng.random() >= self.share or not present:
                continue
            for name in MODALITIES:
                for field in dataclasses.fields(batch.modality(name)):
                    values = getattr(batch.modality(name), field.name)
                    values[i + 1] = values[i]
            name, kind = str(rng.choice(present)), str(rng.choice(KINDS))
            part = batch.modality(name)
            steps = int(part.mask[i].sum())
            part.x[i + 1, :steps] = damage(part.x[i, :steps], kind, *self.statistics[name], rng)  # (T, C)
            part.pooled[i + 1] = self.pooled_means[name]  # the embedding of the damaged sequence is unknown
            batch.damaged[i + 1] = torch.tensor([other == name for other in MODALITIES])


def damage(x: Tensor, kind: str, mean: Tensor, deviation: Tensor, rng: np.random.Generator) -> Tensor:
    """A damaged copy of the sequence x (T, C). mean, deviation: (C,), of the channels over all clips."""
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
