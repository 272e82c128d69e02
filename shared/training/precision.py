"""The precision for `auto`: the launcher's, otherwise what is fast on this hardware for the model's widths."""

from typing import NamedTuple

import torch
from torch import nn

from shared.errors import UserError
from shared.training.launcher import PRECISIONS, check_environment, choose_precision, launcher_precision

WIDE = 256
"""From this matrix width on, bf16 is faster on CPUs with AVX512-BF16 but without AMX: a training step of ViT-S-32, 384
wide, takes 0.53 of its time in fp32, but 1.15 with the towers of `tiny`, 48 to 96 wide, where small operations
dominate."""


class Hardware(NamedTuple):
    """This machine's hardware for bf16 matrix multiplication."""

    gpu: bool
    """Training runs on a GPU of any kind."""
    gpu_bf16: bool
    amx: bool
    """Tile instructions of Intel CPUs."""
    avx512_bf16: bool
    """Dot products of bf16 vectors: twice as fast as fp32 at best."""

    @classmethod
    def here(cls) -> "Hardware":
        """The hardware of this machine. Features that an earlier PyTorch cannot detect count as absent."""
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

    The width of a matrix is its shorter side; of a convolution, the smaller number of channels. Embedding tables do not
    count, because they are looked up; 0 without any matrix."""
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
    """The option's precision; with auto, the launcher's, otherwise bf16 if the hardware is fast at it.

    model: the model that will run. Without one, bf16 must be faster at any width. UserError for fp16 without a GPU."""
    check_environment()
    fast_from = Hardware.here().fast_from
    fast = fast_from is not None and (matrix_width(model) if model is not None else 0) >= fast_from
    precision = choose_precision(option, value, supported, "bf16" if fast else "no")
    if precision == "fp16" and not torch.cuda.is_available():
        raise UserError(f"{option} fp16 needs a GPU; use bf16, or no")
    return precision


def depends_on_model(value: str) -> bool:
    """Whether the precision for this option value depends on the model's widths."""
    return value == "auto" and launcher_precision() not in PRECISIONS and bool(Hardware.here().fast_from)
