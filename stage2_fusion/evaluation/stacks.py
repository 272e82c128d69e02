"""What several systems predict of the same clips, side by side, and what combines it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np


@dataclass(frozen=True)
class Stack:
    """Predictions of M systems of N clips and K dimensions."""

    predictions: np.ndarray
    """float64 (N, K, M), as fractions of the range of each dimension."""
    quality: Sequence[np.ndarray] = field(default_factory=list)
    """Of each system the mean quality signals of what it reads of each clip, float64 (N, Q); empty if nobody asks."""
    present: np.ndarray | None = None
    """bool (N, M), whether a clip has what the system reads; None if nobody asks."""

    def rows(self, chosen: np.ndarray) -> Self:
        """These clips alone."""
        present = None if self.present is None else self.present[chosen]
        return type(self)(self.predictions[chosen], [part[chosen] for part in self.quality], present)


class Combiner(Protocol):
    """What a learner has learned."""

    weights: np.ndarray
    """float64 (K, M): the weight of each system, the mean over the clips where it differs between them."""

    def __call__(self, stack: Stack) -> np.ndarray:
        """Predictions (N, K) in [0, 1]."""
        ...


Learner = Callable[[Stack, np.ndarray, list[str]], Combiner]
"""Learns from a stack, its labels (N, K), fractions, NaN = not labeled, and the group of each clip."""


@dataclass
class WeightedSum:
    """The same weights for all clips."""

    weights: np.ndarray
    """(K, M)."""
    offsets: np.ndarray
    """(K,)."""

    def __call__(self, stack: Stack) -> np.ndarray:
        return np.clip(np.einsum("nkm,km->nk", stack.predictions, self.weights) + self.offsets, 0, 1)
