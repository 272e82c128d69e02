"""When a voice rises and falls: loudness in bands of the spectrogram, step by step, in addition to a network's
features.

Contrastive training keeps what tells clips apart, and a network with a context of seconds spreads it over its steps:
they hardly show onset and rhythm, which a temporal model needs. Prosodic features of emotional speech are older than
neural networks (Eyben et al. 2016, the Geneva minimalistic acoustic parameter set: loudness and its variation).
"""

import torch
from torch import Tensor, nn

PARTS = 4
"""Equal parts of a step. Levels are averaged over them in bels, so that a half-silent step is not half as loud."""
MIN_POWER = 1e-6
"""-60 dB, far below a voice: quieter parts count as this level."""


def band_levels(mel: Tensor, inside: Tensor, steps: int, bands: int) -> Tensor:
    """Level and variation in each band and step, in bels: (N, steps, 2 * bands), first all levels.

    mel (N, F, M): power in dB of F frames and M mel bands; inside bool (N, F): frames that belong to the clip; others
    are ignored. The level of a part of a step is log10 of its mean power; a step has the mean of the levels of its
    PARTS parts, and their standard deviation. Steps without frames inside are 0.
    """
    with torch.autocast(mel.device.type, enabled=False):
        counted = inside[:, None, :, None].float()  # (N, 1, F, 1)
        power = 10 ** (mel.float()[:, None] / 10) * counted  # (N, 1, F, M)
        total = nn.functional.adaptive_avg_pool2d(power, (PARTS * steps, bands))  # (N, 1, steps * PARTS, bands)
        share = nn.functional.adaptive_avg_pool2d(counted, (PARTS * steps, 1))  # (N, 1, steps * PARTS, 1)
        level = (total / share.clamp(min=1e-6)).clamp(min=MIN_POWER).log10()  # (N, 1, steps * PARTS, bands)
        level = level[:, 0].unflatten(1, (steps, PARTS))  # (N, steps, PARTS, bands)
        real = (share > 0).float()[:, 0].unflatten(1, (steps, PARTS))  # (N, steps, PARTS, 1)
        count = real.sum(2).clamp(min=1)  # (N, steps, 1)
        mean = (level * real).sum(2) / count  # (N, steps, bands)
        variance = ((level - mean[:, :, None]).square() * real).sum(2) / count  # (N, steps, bands)
    return torch.cat([mean, variance.sqrt()], dim=-1)  # (N, steps, 2 * bands)
