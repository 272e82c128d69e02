"""What a vision tower sees of a clip's frames, relative to the clip itself: so that lighting, skin, camera and person
differ less between clips than expressions do."""

import torch
from torch import Tensor

DARK = 0.05
"""Added to the deviation that frames are divided by, so that dark clips stay dark."""
MOVING = 3.0
"""Factor on differences over time: a moving face changes a pixel by about a third of the deviation of its picture."""


def standardize(x: Tensor, mask: Tensor) -> Tensor:
    """The real frames (N, 3, S, S), in [0, 1], of the clips in mask (B, T), scaled to mean 0 and about unit standard
    deviation in each clip."""
    x = x - _over_clip(x.mean((1, 2, 3), keepdim=True), mask)  # (N, 3, S, S)
    return x / (_over_clip(x.square().mean((1, 2, 3), keepdim=True), mask).sqrt() + DARK)


def motion(x: Tensor, mask: Tensor) -> Tensor:
    """Three channels that show what moves, instead of the colors of the real frames (N, 3, S, S), in [0, 1], of the
    clips in mask (B, T): the gray frame, standardized over the clip; its difference from the clip's mean picture; and
    how much each pixel varies over the clip. A person's face at rest is in the mean picture, so that only the first
    channel shows who it is."""
    gray = x.mean(1, keepdim=True)  # (N, 1, S, S)
    difference = gray - _over_clip(gray, mask)  # (N, 1, S, S)
    deviation = _over_clip(difference.square(), mask).sqrt()  # (N, 1, S, S)
    centered = gray - _over_clip(gray.mean((2, 3), keepdim=True), mask)  # (N, 1, S, S)
    unit = _over_clip(centered.square().mean((2, 3), keepdim=True), mask).sqrt() + DARK  # (N, 1, 1, 1)
    return torch.cat([centered, MOVING * difference, MOVING * deviation], dim=1) / unit  # (N, 3, S, S)


def _over_clip(x: Tensor, mask: Tensor) -> Tensor:
    """The mean of x (N, ...) over the frames of each clip, repeated for each frame: (N, ...)."""
    clip = mask.nonzero()[:, 0]  # (N,)
    count = mask.sum(1).clamp(min=1).to(x.dtype).view(-1, *[1] * (x.ndim - 1))  # (B, 1, ...)
    return (x.new_zeros(len(mask), *x.shape[1:]).index_add(0, clip, x) / count)[clip]
