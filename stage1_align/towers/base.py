"""The base of all towers: pooled and sequence embeddings, freezing, layer-wise learning rates, recomputation."""

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from shared import config as configuration
from shared.errors import UserError, options_of
from shared.saved.typed import read_typed
from shared.training.batch_norm import repair_gradients


@dataclass
class Encoded:
    """The output of a tower for B items. All on the tower's device except `truncated`."""

    pooled: Tensor
    """float32 (B, D), unit length, in the shared space; zeros where the item is absent."""
    sequence: Tensor
    """float32 (B, T, C), features over time before the projection to the shared space; zeros where masked."""
    mask: Tensor
    """bool (B, T), True where a step is real; all False where the item is absent."""
    rate: float | None
    """Steps per second (audio); None if a step is a frame (vision) or a token (text)."""
    times: Tensor | None = None
    """float32 (B, T), seconds of each step, NaN where masked or unknown; set by `encode`, None for texts."""
    truncated: Tensor | None = None
    """bool (B,), whether the end of an item was cut off; set by `encode`."""


class Tower(nn.Module):
    """Base of all towers. A tower owns its preprocessing: frame size, mean, standard deviation, sample rate and text
    length are only in its `options`.

    collate(items) turns a list of prepared items into a dictionary of tensors, and forward(**tensors) returns an
    Encoded.

    Fine-tuning relies only on `blocks()`. With N blocks, every parameter has a depth: 0 before the first block
    (patches, embeddings, convolutions), i for block i = 1 .. N and for modules between it and the next, N + 1 after the
    last block (final norms), N + 2 for HEADS.
    """

    Options: ClassVar[type]
    project: nn.Module
    """The layer from the pooled features to the shared space."""
    query: nn.Parameter | None
    """The query (C,) of a tower that pools by attention."""
    HEADS: tuple[str, ...] = ("project", "query")
    """Modules on top of the trunk that no checkpoint contains; freezing leaves them trainable."""
    ELSEWHERE: ClassVar[tuple[str, ...]] = ("pretrained",)
    """Options that name weights, models or tokenizers outside the folder: null in `config()`."""
    LATE: tuple[str, ...] = ()
    """Full names of modules that act after the last block although they are registered before it."""

    def __init__(self, options: Any, embed_dim: int):
        super().__init__()
        self.options = options
        self.embed_dim = embed_dim
        self.register_parameter("query", None)
        self._frozen: set[str] = set()
        self._min_trained_depth = 0

    @classmethod
    def from_options(cls, values: dict[str, Any], embed_dim: int) -> Self:
        """Build a tower from plain values (YAML, JSON), in training mode; UserError names the nearest option for an
        unknown one, and says which values conflict."""
        options: Any = configuration.build(cls.Options, values, cls.__name__)
        for name in cls.ELSEWHERE:  # a variable of the shell that is not set
            if getattr(options, name, None) == "":
                raise UserError(f"{cls.__name__}: {name} is empty; give a name or a folder, or null for none")
        with options_of(cls.__name__, "python -m stage1_align.towers explains them"):
            return cls(options, embed_dim).train()

    @classmethod
    def from_saved(cls, values: dict[str, Any], embed_dim: int, where: str) -> Self:
        """Build a tower from its `config()` in a saved folder, which is self-contained. UserError, beginning with
        `where`, for a value of the wrong type, and for an option that leads out of the folder."""
        options: Any = read_typed(cls.Options, values, where)
        for name in cls.ELSEWHERE:
            if getattr(options, name, None) is not None:
                shown = f"{getattr(options, name)!r:.60}"
                raise UserError(f"{where}: {name} is {shown}, which is outside the folder; it must be null here")
        return cls(options, embed_dim).train()

    @property
    def width(self) -> int:
        """C, the width of `sequence`."""
        raise NotImplementedError

    @property
    def pooled_width(self) -> int:
        """Number of pooled channels, the first ones of `sequence`."""
        return self.width

    def config(self) -> dict[str, Any]:
        """Options that rebuild this tower. `pretrained` is None: the weights come from the exported file."""
        values = dataclasses.asdict(self.options)
        return {name: None if name == "pretrained" else value for name, value in values.items()}

    def collate(self, items: list) -> dict[str, Tensor]:
        """Prepared items to the arguments of `forward`."""
        raise NotImplementedError

    def blocks(self) -> list[nn.Module]:
        """The trunk's repeated blocks, from input to output; [] if it has none."""
        return []

    @torch.no_grad()
    def encode_prepared(self, items: list) -> Encoded:
        """Items prepared for `collate` to an Encoded, without gradient, on the tower's device. This is the internal
        path; `encode` checks and converts user input and then calls it."""
        device = next(self.parameters()).device
        batch = {name: value.to(device) for name, value in self.collate_whole(items).items()}
        return self.forward_whole(**batch)

    def collate_whole(self, items: list) -> dict[str, Tensor]:
        """As `collate`, but without truncation: the arguments of `forward_whole`."""
        return self.collate(items)

    def forward_whole(self, **inputs: Tensor) -> Encoded:
        """As `forward`, for the output of `collate_whole`."""
        return self(**inputs)

    def freeze(self, unfreeze: int | None) -> None:
        """None: everything trains. 0: only HEADS train. n: the last n blocks and everything after them train too.

        Frozen modules stay in evaluation mode after train(), so that dropout and batch statistics do not change them.
        Parameters that are never trained (fixed filters) stay unchanged. UserError if there are fewer blocks.
        """
        count = len(self.blocks())
        if unfreeze is not None and not 0 <= unfreeze <= count:
            raise UserError(f"unfreeze {unfreeze}: {type(self).__name__} has {count} blocks; choose 0 to {count}")
        self._min_trained_depth = 0 if unfreeze is None else count + (2 if unfreeze == 0 else 1 - unfreeze)
        depths = self._depths()
        for name, parameter in self.named_parameters():
            if name in self._frozen:
                parameter.requires_grad_(True)
                self._frozen.discard(name)
            if depths[name] < self._min_trained_depth and parameter.requires_grad:
                parameter.requires_grad_(False)
                self._frozen.add(name)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        repair_gradients(self)
        if mode and self._min_trained_depth:
            depths = self._depths()
            for name, module in self.named_modules():
                if name and depths[name] < self._min_trained_depth:
                    module.training = False
        return self

    def lr_factors(self, decay: float) -> dict[str, float]:
        """{parameter name: factor on the learning rate}, BEiT's layer-wise decay (Bao et al. 2021, arXiv 2106.08254):
        decay ** (N + 1 - depth), at most 1: 1 after the blocks, decay in the last block, decay ** N in the first, and
        decay ** (N + 1) before it. UserError for a decay other than 1 without blocks."""
        count = len(self.blocks())
        if decay != 1 and not count:
            raise UserError(f"layer_decay {decay}: {type(self).__name__} has no blocks; leave it at 1")
        depths = self._depths()
        return {name: decay ** max(0, count + 1 - depths[name]) for name, _ in self.named_parameters()}

    def set_checkpointing(self, enabled: bool) -> None:
        """Recompute each block in the backward pass instead of storing its activations (Chen et al. 2016, arXiv
        1604.06174). Gradients stay the same, even with dropout: the random state is restored. UserError without blocks.
        """
        if enabled and not self.blocks():
            raise UserError(f"checkpointing: {type(self).__name__} has no blocks to recompute; set it to false")
        for block in self.blocks():
            block.__dict__.pop("forward", None)
            if enabled:
                block.forward = functools.partial(_checkpointed, block, block.forward)

    def _depths(self) -> dict[str, int]:
        """{full name of a parameter or module: depth}. A module that contains blocks has the depth after its last
        block, so that it counts as frozen only if all its blocks are."""
        blocks = self.blocks()
        block_depths = {id(block): i for i, block in enumerate(blocks, 1)}
        depths: dict[str, int] = {}

        def walk(module: nn.Module, prefix: str, depth: int) -> int:
            for name, _ in module.named_parameters(recurse=False):
                depths[prefix + name] = len(blocks) + 2 if prefix + name in self.HEADS else depth
            for name, child in module.named_children():
                full_name = prefix + name
                if full_name in self.HEADS or full_name in self.LATE:
                    depths[full_name] = len(blocks) + (2 if full_name in self.HEADS else 1)
                    walk(child, f"{full_name}.", depths[full_name])
                elif id(child) in block_depths:
                    depths[full_name] = block_depths[id(child)]
                    walk(child, f"{full_name}.", depths[full_name])
                    depth = depths[full_name] + (depths[full_name] == len(blocks))
                else:
                    depth = depths[full_name] = walk(child, f"{full_name}.", depth)
            return depth

        walk(self, "", 0)
        return depths

    def _projection(self) -> nn.Module:
        """A new layer from the pooled features of `_finish` to the shared space."""
        return nn.Linear(self.pooled_width * (2 if self.options.max_pool else 1), self.embed_dim)

    def _finish(self, sequence: Tensor, mask: Tensor, rate: float | None) -> Encoded:
        """Pool over time (also the maximum with `max_pool`), project and normalize to unit length, all in fp32."""
        sequence = sequence.float() * mask[..., None]  # (B, T, C)
        with torch.autocast(sequence.device.type, enabled=False):
            summary = self._mean(sequence, mask)  # (B, C)
            if self.options.max_pool:
                summary = torch.cat([summary, masked_max(sequence, mask)], 1)  # (B, 2 C)
            pooled = self.project(summary)  # (B, D)
        pooled = nn.functional.normalize(pooled.float(), dim=-1)  # (B, D)
        return Encoded(pooled * mask.any(1, keepdim=True), sequence, mask, rate)

    def _mean(self, sequence: Tensor, mask: Tensor) -> Tensor:
        """The masked mean over time of a sequence (B, T, C), or, in a tower with a `query`, the mean weighted by
        softmax(query . layer_norm(step)) (attention pooling, Ilse et al. 2018, arXiv 1802.04712): (B, C). A query of
        zeros gives the plain mean, so that a pretrained tower starts unchanged."""
        if self.query is None:
            return sequence.sum(1) / mask.sum(1, keepdim=True).clamp(min=1)  # (B, C)
        score = nn.functional.layer_norm(sequence, sequence.shape[-1:]) @ self.query  # (B, T)
        score = score.masked_fill(~mask, torch.finfo(score.dtype).min)  # (B, T); not -inf: a row may be fully masked
        return (score.softmax(1)[..., None] * sequence).sum(1)  # (B, C)


def _checkpointed(block: nn.Module, forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if block.training and torch.is_grad_enabled():
        return checkpoint(forward, *args, use_reentrant=False, **kwargs)
    return forward(*args, **kwargs)


def masked_max(sequence: Tensor, mask: Tensor) -> Tensor:
    """The maximum over the real steps of (B, T, C), zeros without any: (B, C)."""
    highest = sequence.masked_fill(~mask[..., None], -torch.inf).amax(1)  # (B, C)
    return torch.where(mask.any(1, keepdim=True), highest, 0.0)  # (B, C)


def pad(items: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Items of shapes (T_i, ...), padded with zeros, as one tensor (B, T, ...), and a bool mask (B, T); T >= 1."""
    length = max(1, *(len(item) for item in items))
    shape = next((item.shape[1:] for item in items if len(item)), items[0].shape[1:])
    padded = torch.zeros(len(items), length, *shape, dtype=items[0].dtype)  # (B, T, ...)
    mask = torch.zeros(len(items), length, dtype=torch.bool)  # (B, T)
    for row, item in enumerate(items):
        if len(item):
            padded[row, : len(item)] = item
            mask[row, : len(item)] = True
    return padded, mask
