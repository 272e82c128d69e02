"""The input of a vision tower relative to its clip, so that lighting, skin, camera and person differ less between clips
than expressions do."""

import torch
from torch import Tensor

DARK = 0.05
"""Added to the standard deviation that frames are divided by, so that dark clips stay dark."""
MOVING = 3.0
"""Factor on differences over time: a moving face changes a pixel by about a third of its frame's deviation."""


def standardize(x: Tensor, mask: Tensor) -> Tensor:
    """The real frames (N, 3, S, S), in [0, 1], of the clips in mask (B, T), scaled to mean 0 and approximately unit
    standard deviation per clip."""
    clip = mask.nonzero()[:, 0]  # (N,)
    x = x - _clip_means(x.mean((1, 2, 3), keepdim=True), mask)[clip]  # (N, 3, S, S)
    return x / (_clip_means(x.square().mean((1, 2, 3), keepdim=True), mask).sqrt() + DARK)[clip]


def motion(x: Tensor, mask: Tensor, shown: Tensor | None = None) -> Tensor:
    """Three channels that show motion instead of the colors of the real frames (N, 3, S, S), in [0, 1], of the clips in
    mask (B, T): the gray frame, standardized over the clip; its difference from the clip's mean frame; and how much
    each pixel varies over the clip. The mean frame contains the person's neutral face, so only the first channel shows
    who it is. shown: bool (N,), the frames to return, all by default."""
    clip = mask.nonzero()[:, 0]  # (N,)
    gray = x.mean(1, keepdim=True)  # (N, 1, S, S)
    difference = gray - _clip_means(gray, mask)[clip]  # (N, 1, S, S)
    deviation = _clip_means(difference.square(), mask).sqrt()  # (B, 1, S, S)
    centered = gray - _clip_means(gray.mean((2, 3), keepdim=True), mask)[clip]  # (N, 1, S, S)
    unit = _clip_means(centered.square().mean((2, 3), keepdim=True), mask).sqrt() + DARK  # (B, 1, 1, 1)
    if shown is not None:
        clip, difference, centered = clip[shown], difference[shown], centered[shown]
    return torch.cat([centered, MOVING * difference, MOVING * deviation[clip]], dim=1) / unit[clip]  # (N, 3, S, S)


def _clip_means(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x (N, ...) over the frames of each clip of mask (B, T): (B, ...)."""
    clip = mask.nonzero()[:, 0]  # (N,)
    count = mask.sum(1).clamp(min=1).to(x.dtype).view(-1, *[1] * (x.ndim - 1))  # (B, 1, ...)
    return x.new_zeros(len(mask), *x.shape[1:]).index_add(0, clip, x) / count
