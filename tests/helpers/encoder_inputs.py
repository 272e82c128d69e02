"""Inputs of the encoders, and whether two outputs are the same."""

import numpy as np
import torch

RATE = 16000
"""Of the tiny audio tower, Hz."""


def same(a, b, tolerance: float = 0.0) -> None:
    torch.testing.assert_close(a.pooled, b.pooled, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.sequence, b.sequence, rtol=0, atol=tolerance)
    assert torch.equal(a.mask, b.mask)


def tone(rate: int, seconds: float = 1.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def pixels(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
