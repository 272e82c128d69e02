"""A Transformer decoder with one learned query per dimension.

arXiv 2503.10603 decodes the fused features with a Transformer decoder and leaves its queries open. Here each dimension
(Joy, ...) has a query, which adds a summary of the clip and attends to its steps. Its attention shows which part of the
clip the prediction used.
"""

import torch
from torch import Tensor, nn

from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.temporal import masked_mean


class DecoderLayer(nn.Module):
    """Self-attention among the queries, cross-attention to the memory, feed-forward; pre-norm."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.self_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.cross_attn = nn.MultiheadAttention(width, heads, dropout, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), Dropout(dropout), nn.Linear(2 * width, width))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor, padding: Tensor) -> tuple[Tensor, Tensor]:
        y = self.norms[0](x)  # (B, K, d)
        x = x + self.dropout(self.self_attn(y, y, y, need_weights=False)[0])
        y, attention = self.cross_attn(self.norms[1](x), memory, memory, key_padding_mask=padding)
        x = x + self.dropout(y)  # (B, K, d); attention (B, K, S)
        return x + self.dropout(self.mlp(self.norms[2](x))), attention


class DimensionDecoder(nn.Module):
    """forward(memory (B, S, d), mask bool (B, S), summary (B, d) or None) -> logits float32 (B, K), attention (B, K,
    S).

    With `conditioned`, a linear projection of `summary` is added to the queries; the default summary is the mean of the
    memory. Attention comes from the last layer, averaged over heads, and is exactly 0 on masked steps; None without
    layers: the output then depends only on the summary. A row without any real step attends to all steps: its memory
    holds missing-modality tokens, and its prediction is the model's prior.
    """

    def __init__(self, width: int, dimensions: int, layers: int, heads: int, dropout: float, conditioned: bool = True):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(dimensions, width) * 0.5)
        self.summary = nn.Linear(width, width) if conditioned else None
        self.layers = nn.ModuleList(DecoderLayer(width, heads, dropout) for _ in range(layers))
        self.memory_norm, self.norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.head_weight = nn.Parameter(torch.randn(dimensions, width) * width**-0.5 * 0.1)
        self.head_bias = nn.Parameter(torch.zeros(dimensions))

    def forward(self, memory: Tensor, mask: Tensor, summary: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        padding = ~(mask | ~mask.any(dim=1, keepdim=True))  # (B, S)
        memory, attention = self.memory_norm(memory), None
        x = self.queries.expand(len(memory), -1, -1)  # (B, K, d)
        if self.summary is not None:
            summary = masked_mean(memory, ~padding) if summary is None else summary  # (B, d)
            x = x + self.summary(summary)[:, None]  # (B, K, d)
        for layer in self.layers:
            x, attention = layer(x, memory, padding)
        logits = (self.norm(x) * self.head_weight).sum(dim=-1).float() + self.head_bias  # (B, K)
        return logits, attention
