"""Damage that comes and goes, from views that are damaged throughout: each step of the result comes from either the
damaged view or the undamaged clip. For encoders that read one frame at a time, this equals damaging only some frames;
an audio encoder reads a little of both sides of a border.
"""

from dataclasses import replace

import numpy as np
import torch

from shared.training.sampling import derive_seed
from stage2_fusion.data.batches import Batch, within_spans

TIMED = (0, 1)
"""Columns of `Batch.damaged` for modalities with times: vision and audio. Damaged text is missing for the whole
clip."""
STRETCH = (0.3, 1.2)
"""Shortest and longest stretch with and without damage, seconds."""


def draw_stretches(duration: float, rng: np.random.Generator) -> list[tuple[float, float]]:
    """Stretches of damage (start, end) in seconds, with gaps of the same lengths between them; at least one."""
    lengths = rng.uniform(*STRETCH, 2 + 2 * int(duration / STRETCH[0]))
    edges = np.concatenate([[0.0], np.cumsum(lengths)])[int(rng.integers(2)) :]
    pairs = [(float(a), float(b)) for a, b in zip(edges[::2], edges[1::2], strict=False) if a < duration]
    return pairs or [(0.0, duration)]


class PassingDamage:
    """Makes the damage of a share of the damaged views come and go; see `__call__`."""

    def __init__(self, share: float, seed: int):
        self.share, self.seed = share, seed

    def __call__(self, batch: Batch, rows: np.ndarray, epoch: int) -> Batch:
        """The batch with the damage of a share of the pairs in stretches, and `damage_spans` of all rows.

        Its rows are pairs: 2i is an undamaged clip, 2i + 1 a damaged view of it. Both get the same spans, in which
        their weights are compared. The stretches are a function of (seed, epoch, row); rows: (B,), the indices of the
        samples.
        """
        spans = [[(-torch.inf, torch.inf)] for _ in rows]
        for i in range(0, len(rows), 2):
            rng = np.random.default_rng(derive_seed("passing damage", self.seed, epoch, int(rows[i + 1])))
            if rng.random() < self.share and batch.damaged[i + 1, list(TIMED)].any():
                stretches = draw_stretches(float(batch.duration[i]), rng)
                if _mix(batch, i, stretches):
                    spans[i] = spans[i + 1] = stretches
        most = max(map(len, spans))
        padded = [of_row + [(torch.inf, -torch.inf)] * (most - len(of_row)) for of_row in spans]
        return replace(batch, damage_spans=torch.tensor(padded, device=batch.duration.device))  # (B, P, 2)


def _mix(batch: Batch, clean: int, stretches: list[tuple[float, float]]) -> bool:
    """Restore the steps outside of the stretches in row clean + 1 of `batch`, in place. Returns whether that was
    possible: the view must have the same steps as the clip."""
    damaged = clean + 1
    part = (batch.vision, batch.audio)[int(batch.damaged[damaged, 1])]
    if not torch.equal(part.mask[clean], part.mask[damaged]):
        return False
    inside = within_spans(part.times[None, damaged], torch.tensor([stretches]).to(part.times))[0]  # (T,)
    if not (inside & part.mask[damaged]).any():
        return False
    for values in (part.x, part.quality):
        values[damaged] = torch.where(inside[:, None], values[damaged], values[clean])  # (T, C)
    share = (inside & part.mask[damaged]).sum() / part.mask[damaged].sum()
    part.pooled[damaged] = torch.lerp(part.pooled[clean], part.pooled[damaged], share)  # about the mean of both
    return True
