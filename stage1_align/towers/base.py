"""What every tower promises: a pooled vector in the shared space, and the sequence it was pooled from; and what every
tower can do in fine-tuning: freeze, train deep layers slower, recompute instead of remember."""

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shared import config as configuration
from shared.errors import UserError


@dataclass
class Encoded:
    """What a tower gives for B items. All on the tower's device but `truncated`."""

    pooled: Tensor
    """float32 (B, D), unit length, in the space all towers share; zeros where the item is absent."""
    sequence: Tensor
    """float32 (B, T, C), features over time before the projection to the shared space; zeros where masked."""
    mask: Tensor
    """bool (B, T), True where a step is real; all False where the item is absent."""
    rate: float | None
    """Steps per second (audio); None where a step is a frame (vision) or a token (text)."""
    times: Tensor | None = None
    """float32 (B, T), seconds of each step, NaN where masked or unknown; set by `encode`, None for texts."""
    truncated: Tensor | None = None
    """bool (B,), whether the end of an item was left out; set by `encode`."""


class Tower(nn.Module):
    """Base of all towers. A tower owns its preprocessing: size, mean, deviation, sample rate, text length stand in its
    `options` and nowhere else.

    collate(items) turns a list of raw items into a dictionary of tensors, and forward(**that) returns an Encoded.

    Fine-tuning stands on `blocks()` alone. With N blocks every parameter has a depth: 0 for what is registered before
    the first block (patches, embeddings, convolutions), i for block i = 1 .. N and what lies between it and the next,
    N + 1 for what follows the last block (final norms), N + 2 for ADDED.
    """

    Options: ClassVar[type]
    ADDED: tuple[str, ...] = ("project", "query")
    """Parts on top of the trunk that no checkpoint brings; freezing never touches them."""
    LATE: tuple[str, ...] = ()
    """Parts that act after the last block though they are registered before it, by their full names."""

    def __init__(self, options: Any, embed_dim: int):
        super().__init__()
        self.options = options
        self.embed_dim = embed_dim
        self.register_parameter("query", None)  # (C,) in a tower that pools by attention
        self._frozen: set[str] = set()
        self._first_trained = 0  # lowest depth that trains

    @classmethod
    def from_options(cls, values: dict, embed_dim: int) -> "Tower":
        """Build from plain values (YAML, JSON); UserError names the nearest option for an unknown one."""
        return cls(configuration.build(cls.Options, values, cls.__name__), embed_dim)

    @property
    def width(self) -> int:
        """C, the width of `sequence`."""
        raise NotImplementedError

    def config(self) -> dict:
        """What rebuilds this tower; its weights come from the exported file, not from where they once did."""
        values = dataclasses.asdict(self.options)
        return {name: None if name == "pretrained" else value for name, value in values.items()}

    def collate(self, items: list) -> dict[str, Tensor]:
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The trunk's repeated blocks, from input to output; [] for a trunk that has none."""
        return []

    @torch.no_grad()
    def encode_prepared(self, items: list) -> Encoded:
        """Raw items to an Encoded, without gradient, on the tower's own device."""
        device = next(self.parameters()).device
        batch = {name: value.to(device) for name, value in self.collate(items).items()}
        return self(**batch)

    def freeze(self, unfreeze: int | None) -> None:
        """None: everything trains. 0: only ADDED trains. n: also the last n blocks and what follows them.

        Frozen parts stay in evaluation mode through train(), so that neither dropout nor batch statistics disturb
        them. Parameters that never trained (fixed filters) are left alone. UserError when there are fewer blocks.
        """
        count = len(self.blocks())
        if unfreeze is not None and not 0 <= unfreeze <= count:
            raise UserError(f"unfreeze {unfreeze}: {type(self).__name__} has {count} blocks; choose 0 to {count}")
        self._first_trained = 0 if unfreeze is None else count + (2 if unfreeze == 0 else 1 - unfreeze)
        depths = self._depths()
        for name, parameter in self.named_parameters():
            if name in self._frozen:
                parameter.requires_grad_(True)
                self._frozen.discard(name)
            if depths[name] < self._first_trained and parameter.requires_grad:
                parameter.requires_grad_(False)
                self._frozen.add(name)
        self.train(self.training)

    def train(self, mode: bool = True) -> "Tower":
        super().train(mode)
        if mode and self._first_trained:
            depths = self._depths()
            for name, module in self.named_modules():
                if name and depths[name] < self._first_trained:
                    module.training = False
        return self

    def lr_factors(self, decay: float) -> dict[str, float]:
        """Parameter name to its factor on the learning rate: decay ** (N + 1 - depth), at most 1. What follows the
        blocks has 1, the last block decay, the first decay ** N, what stands before it decay ** (N + 1): BEiT's
        layer-wise decay (Bao et al. 2021, arXiv 2106.08254). UserError for a decay without blocks."""
        count = len(self.blocks())
        if decay != 1 and not count:
            raise UserError(f"layer_decay {decay}: {type(self).__name__} has no blocks; leave it at 1")
        depths = self._depths()
        return {name: decay ** max(0, count + 1 - depths[name]) for name, _ in self.named_parameters()}

    def set_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of keeping its activations (Chen et al. 2016, arXiv
        1604.06174). Gradients stay the same, dropout included: the random state is restored. UserError without blocks.
        """
        if enabled and not self.blocks():
            raise UserError(f"checkpointing: {type(self).__name__} has no blocks to recompute; set it to false")
        for block in self.blocks():
            block.__dict__.pop("forward", None)
            if enabled:
                block.forward = functools.partial(_recomputed, block, block.forward)

    def _depths(self) -> dict[str, int]:
        """Full name of each parameter and module to its depth. A module that contains blocks has the depth that stands
        after them, so that it counts as frozen only when they all are."""
        blocks = self.blocks()
        number = {id(block): i for i, block in enumerate(blocks, 1)}
        depths: dict[str, int] = {}

        def walk(module: nn.Module, prefix: str, depth: int) -> int:
            for name, _ in module.named_parameters(recurse=False):
                depths[prefix + name] = len(blocks) + 2 if prefix + name in self.ADDED else depth
            for name, child in module.named_children():
                full = prefix + name
                if full in self.ADDED or full in self.LATE:
                    walk(child, f"{full}.", len(blocks) + (2 if full in self.ADDED else 1))
                    depths[full] = len(blocks) + (2 if full in self.ADDED else 1)
                elif id(child) in number:
                    walk(child, f"{full}.", number[id(child)])
                    depths[full] = number[id(child)]
                    depth = depths[full] + (depths[full] == len(blocks))
                else:
                    depth = depths[full] = walk(child, f"{full}.", depth)
            return depth

        walk(self, "", 0)
        return depths

    def _projection(self) -> nn.Linear:
        """From what `_finish` pools to the shared space."""
        return nn.Linear(self.width * (2 if self.options.max_pool else 1), self.embed_dim)

    def _finish(self, sequence: Tensor, mask: Tensor, rate: float | None) -> Encoded:
        """Pool over time (with `max_pool` also the maximum), project, unit length; all in fp32."""
        sequence = sequence.float() * mask[..., None]  # (B, T, C)
        with torch.autocast(sequence.device.type, enabled=False):
            summary = self._summary(sequence, mask)  # (B, C)
            if self.options.max_pool:
                highest = sequence.masked_fill(~mask[..., None], -torch.inf).amax(1)  # (B, C)
                highest = torch.where(mask.any(1, keepdim=True), highest, 0.0)  # (B, C)
                summary = torch.cat([summary, highest], 1)  # (B, 2 C)
            pooled = self.project(summary)  # (B, D)
        pooled = nn.functional.normalize(pooled.float(), dim=-1)  # (B, D)
        return Encoded(pooled * mask.any(1, keepdim=True), sequence, mask, rate)

    def _summary(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """The masked mean over time of a sequence (B, T, C), or, where the tower has a `query`, the mean weighted by
        softmax(query . layer_norm(step)) (attention pooling, Ilse et al. 2018, arXiv 1802.04712): (B, C). A query of
        zeros gives the plain mean, so a pretrained tower starts from what it was."""
        if self.query is None:
            return sequence.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, C)
        score = nn.functional.layer_norm(sequence, sequence.shape[-1:]) @ self.query  # (B, T)
        score = score.masked_fill(~mask, torch.finfo(score.dtype).min)  # (B, T); not -inf: a row may be all masked
        return (score.softmax(1)[..., None] * sequence).sum(1)  # (B, C)


def _recomputed(block: nn.Module, forward, *args, **kwargs):
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)


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
