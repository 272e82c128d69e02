"""What every tower promises: a pooled vector in the shared space, and the sequence it was pooled from."""

import dataclasses
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from shared.errors import UserError
from shared.registry import nearest


@dataclass
class Encoded:
    """pooled: float32 (B, D), unit length, zeros where the item is absent. sequence: float32 (B, T, C) before the
    projection into the shared space, zeros where masked. mask: bool (B, T), True = real. rate: steps a second, or None
    where steps are the given frames (vision) or tokens (text)."""

    pooled: Tensor
    sequence: Tensor
    mask: Tensor
    rate: float | None


class Tower(nn.Module):
    """Base of all towers. A tower owns its preprocessing: size, mean, deviation, sample rate, text length stand in its
    `options` and nowhere else.

    collate(items) turns a list of raw items into a dictionary of tensors, and forward(**that) returns an Encoded.
    """

    Options: ClassVar[type]

    def __init__(self, options: Any, embed_dim: int):
        super().__init__()
        self.options = options
        self.embed_dim = embed_dim

    @classmethod
    def from_options(cls, values: dict, embed_dim: int) -> "Tower":
        """Build from plain values (YAML, JSON); UserError names the nearest option for an unknown one."""
        known = [f.name for f in dataclasses.fields(cls.Options)]
        for name in values:
            if name not in known:
                raise UserError(f"{cls.__name__} has no option {name!r}: {nearest(name, known)}")
        return cls(cls.Options(**values), embed_dim)

    @property
    def width(self) -> int:
        """C, the width of `sequence`."""
        raise NotImplementedError

    def collate(self, items: list) -> dict[str, Tensor]:
        raise NotImplementedError

    @torch.no_grad()
    def encode(self, items: list, **kwargs) -> Encoded:
        """Raw items to an Encoded, without gradient, on the tower's own device."""
        device = next(self.parameters()).device
        batch = {name: value.to(device) for name, value in self.collate(items, **kwargs).items()}
        return self(**batch)

    def _projection(self) -> nn.Linear:
        """From what `_finish` pools to the shared space."""
        return nn.Linear(self.width * (2 if self.options.peak else 1), self.embed_dim)

    def _finish(self, sequence: Tensor, mask: Tensor, rate: float | None) -> Encoded:
        """Masked mean over time (with `peak` also the maximum), projection, unit length; all in fp32."""
        sequence = sequence.float() * mask[..., None]  # (B, T, C)
        summary = sequence.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, C)
        if self.options.peak:
            highest = sequence.masked_fill(~mask[..., None], -torch.inf).amax(1)  # (B, C)
            highest = torch.where(mask.any(1, keepdim=True), highest, 0.0)  # (B, C)
            summary = torch.cat([summary, highest], 1)  # (B, 2 C)
        with torch.autocast(summary.device.type, enabled=False):
            pooled = self.project(summary)  # (B, D)
        pooled = nn.functional.normalize(pooled.float(), dim=-1)  # (B, D)
        return Encoded(pooled * mask.any(1, keepdim=True), sequence, mask, rate)


def pad(items: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Stack items of shapes (T_i, ...) into (B, T, ...) with zeros, and a bool mask (B, T); T is at least 1."""
    length = max(1, *(len(item) for item in items))
    shape = next((item.shape[1:] for item in items if len(item)), items[0].shape[1:])
    padded = torch.zeros(len(items), length, *shape, dtype=items[0].dtype)  # (B, T, ...)
    mask = torch.zeros(len(items), length, dtype=torch.bool)  # (B, T)
    for row, item in enumerate(items):
        if len(item):
            padded[row, : len(item)] = item
            mask[row, : len(item)] = True
    return padded, mask
