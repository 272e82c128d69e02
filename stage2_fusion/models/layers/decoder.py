"""A Transformer decoder with one learned query per dimension.

arXiv 2503.10603 decodes the fused features with a Transformer decoder and leaves its queries open. Ours: each dimension
(Joy, ...) has a query, to which a hint of the clip is added, and which then reads the steps of the clip: its attention
shows when in the clip the dimension was read.
"""

import torch
from torch import Tensor, nn

from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.temporal import masked_mean


class Block(nn.Module):
    """Self-attention among the queries, attention over the memory, feed-forward; normalised before each (pre-norm)."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.among = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.over = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.forth = nn.Sequential(
            nn.Linear(width, 2 * width), nn.GELU(), Dropout(dropout), nn.Linear(2 * width, width)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norms[0](x)  # (B, K, d)
        x = x + self.dropout(self.among(y, y, y, need_weights=False)[0])
        y, attention = self.over(self.norms[1](x), memory, memory, key_padding_mask=padding)  # (B, K, d), (B, K, S)
        x = x + self.dropout(y)
        return x + self.dropout(self.forth(self.norms[2](x))), attention


class DimensionDecoder(nn.Module):
    """forward(memory (B, S, d), mask bool (B, S), hint (B, d) or None) -> logits float32 (B, K), attention (B, K, S).

    The queries are told `hint` through a linear layer, or without one the mean of the memory; with `hinted` False they
    are told nothing. Attention is that of the last layer, averaged over heads, exactly 0 on masked steps; None without
    layers, where the hint alone decides. A row whose mask is all False is read whole: its memory holds
    missing-modality tokens, and its prediction is what the model expects of nothing.
    """

    def __init__(self, width: int, dimensions: int, layers: int, heads: int, dropout: float, hinted: bool = True):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(dimensions, width) * 0.5)
        self.summary = nn.Linear(width, width) if hinted else None
        self.blocks = nn.ModuleList(Block(width, heads, dropout) for _ in range(layers))
        self.memory_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head_weight = nn.Parameter(torch.randn(dimensions, width) * width**-0.5 * 0.1)
        self.head_bias = nn.Parameter(torch.zeros(dimensions))

    def forward(self, memory: Tensor, mask: Tensor, hint: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        padding = ~(mask | ~mask.any(dim=1, keepdim=True))  # (B, S)
        memory, attention = self.memory_norm(memory), None
        x = self.queries.expand(len(memory), -1, -1)  # (B, K, d)
        if self.summary is not None:
            x = x + self.summary(masked_mean(memory, ~padding) if hint is None else hint)[:, None]  # (B, K, d)
        for block in self.blocks:
            x, attention = block(x, memory, padding)
        logits = (self.norm(x) * self.head_weight).sum(dim=-1).float() + self.head_bias  # (B, K)
        return logits, attention
