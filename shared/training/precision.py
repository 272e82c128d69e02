"""What precision `auto` means: the launcher's; else what the hardware is fast at, for a model of these widths."""

from typing import NamedTuple

import torch
from torch import nn

from shared.errors import UserError
from shared.training.launcher import PRECISIONS, check_environment, choose_precision, launcher_precision

WIDE = 256
"""From this matrix width on, bf16 pays on CPUs with AVX512-BF16 but without AMX: a training step of ViT-S-32, 384 wide,
takes 0.53 of its time in fp32, but 1.15 with the towers of `tiny`, 48 to 96 wide, whose time goes into small
operations."""


class Hardware(NamedTuple):
    """What this machine multiplies bf16 matrices with."""

    gpu: bool
    """A GPU trains, whatever it can do."""
    gpu_bf16: bool
    amx: bool
    """Tile instructions of Intel CPUs."""
    avx512_bf16: bool
    """Dot products of bf16 vectors: twice as fast as fp32 at best."""

    @classmethod
    def here(cls) -> "Hardware":
        """Of this machine. What an earlier PyTorch cannot tell counts as absent."""
        gpu = torch.cuda.is_available()
        amx, avx512 = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("amx_tile", "avx512_bf16"))
        return cls(gpu, gpu and torch.cuda.is_bf16_supported(), bool(amx and amx()), bool(avx512 and avx512()))

    @property
    def fast_from(self) -> int | None:
        """The matrix width from which bf16 is faster than fp32: 0 for any; None if it never is."""
        if self.gpu:
            return 0 if self.gpu_bf16 else None
        if self.amx:
            return 0
        return WIDE if self.avx512_bf16 else None


def matrix_width(model: nn.Module) -> int:
    """The typical width of a model's matrices: half of its weights are in matrices that are at least this wide.

    The width of a matrix is its shorter side, that of a convolution its fewer channels. Tables of embeddings, which
    are looked up, do not count; 0 without any matrix."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding | nn.EmbeddingBag)}
    sizes = [
        (min(parameter.shape[:2]), parameter.numel())
        for parameter in model.parameters()
        if parameter.ndim >= 2 and id(parameter) not in tables
    ]
    half, seen = sum(count for _, count in sizes) / 2, 0
    for width, count in sorted(sizes, reverse=True):
        seen += count
        if seen >= half:
            return width
    return 0


def resolve_precision(
    option: str, value: str, supported: tuple[str, ...] = PRECISIONS, model: nn.Module | None = None
) -> str:
    """The precision that an option asks for; with auto, the launcher's, else bf16 where the hardware is fast at it.

    model: what is going to run. Without one, bf16 must be faster at any width. UserError for fp16 without a GPU."""
    check_environment()
    fast_from = Hardware.here().fast_from
    fast = fast_from is not None and (matrix_width(model) if model is not None else 0) >= fast_from
    precision = choose_precision(option, value, supported, "bf16" if fast else "no")
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError(f"{option} fp16 needs a GPU; use bf16, or no")
    return precision


def depends_on_model(value: str) -> bool:
    """Whether the precision that an option of this value asks for depends on the widths of the model."""
    return value == "auto" and launcher_precision() not in PRECISIONS and bool(Hardware.here().fast_from)
