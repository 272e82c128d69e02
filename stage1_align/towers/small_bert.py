"""BERT's encoder with the names and the numbers of transformers' BertModel, which takes three seconds to import.

Its random weights and outputs are bitwise identical to those of transformers. A tower that sets only fields of
BertSizes uses this encoder; others, and published weights, use transformers.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class BertSizes:
    """Fields of transformers' BertConfig, and their defaults there."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0

    def __post_init__(self) -> None:
        if self.num_attention_heads < 1 or self.hidden_size % self.num_attention_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of {self.num_attention_heads} heads")


class Hidden(NamedTuple):
    """The part of transformers' encoder output that is used."""

    last_hidden_state: Tensor
    """(B, L, C)."""


class SmallBert(nn.Module):
    """BERT (Devlin et al. 2018, arXiv 1810.04805) without its pooler: ids int64 (B, L) and an attention mask (B, L),
    1 = real, to hidden states (B, L, C)."""

    def __init__(self, config: BertSizes):
        super().__init__()
        self.config = config
        self.embeddings = _Embeddings(config)
        self.encoder = _Encoder(config)
        self.apply(self._draw)

    @torch.no_grad()
    def _draw(self, module: nn.Module) -> None:
        """Random weights, initialized as in BERT; `apply` has the order of transformers."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=self.config.initializer_range)
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Embedding) and module.padding_idx is not None:
            module.weight[module.padding_idx].zero_()

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings.word_embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Hidden:
        x = self.embeddings(input_ids)  # (B, L, C)
        mask = None
        # Attention without a mask has a faster kernel; while tracing a graph, the mask has no values.
        if torch.compiler.is_compiling() or not attention_mask.all():
            mask = attention_mask.bool()[:, None, None].expand(-1, 1, x.shape[1], -1)  # (B, 1, L, L)
        return Hidden(self.encoder(x, mask))


class _Embeddings(nn.Module):
    def __init__(self, config: BertSizes):
        super().__init__()
        width = config.hidden_size
        self.word_embeddings = nn.Embedding(config.vocab_size, width, padding_idx=config.pad_token_id)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, width)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, width)
        self.LayerNorm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, ids: Tensor) -> Tensor:
        positions = torch.arange(ids.shape[1], device=ids.device)[None]  # (1, L)
        x = self.word_embeddings(ids) + self.token_type_embeddings(torch.zeros_like(ids))  # (B, L, C)
        return self.dropout(self.LayerNorm(x + self.position_embeddings(positions)))  # (B, L, C)


class _Encoder(nn.Module):
    def __init__(self, config: BertSizes):
        super().__init__()
        self.layer = nn.ModuleList(_Layer(config) for _ in range(config.num_hidden_layers))

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        for layer in self.layer:
            x = layer(x, mask)  # (B, L, C)
        return x


class _Layer(nn.Module):
    def __init__(self, config: BertSizes):
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Intermediate(config)
        self.output = _Output(config.intermediate_size, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        x = self.attention(x, mask)  # (B, L, C)
        return self.output(self.intermediate(x), x)  # (B, L, C)


class _Attention(nn.Module):
    def __init__(self, config: BertSizes):
        super().__init__()
        self.self = _SelfAttention(config)
        self.output = _Output(config.hidden_size, config)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return self.output(self.self(x, mask), x)  # (B, L, C)


class _SelfAttention(nn.Module):
    def __init__(self, config: BertSizes):
        super().__init__()
        self.heads = config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(config.hidden_size, config.hidden_size) for _ in range(3))
        self.dropout = nn.Dropout(config.attention_probs_dropout_prob)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        query, key, value = (
            project(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)  # (B, H, L, C / H)
            for project in (self.query, self.key, self.value)
        )
        dropout, scale = self.dropout.p if self.training else 0.0, query.shape[-1] ** -0.5
        x = nn.functional.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)
        return x.transpose(1, 2).flatten(2)  # (B, L, C)


class _Intermediate(nn.Module):
    def __init__(self, config: BertSizes):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.dense(x))  # (B, L, inner)


class _Output(nn.Module):
    """The end of both halves of a layer."""

    def __init__(self, width: int, config: BertSizes):
        super().__init__()
        self.dense = nn.Linear(width, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def forward(self, x: Tensor, residual: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + residual)  # (B, L, C)
