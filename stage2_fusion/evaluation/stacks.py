"""The predictions of several systems for the same clips, and the interface of their combiners."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

import numpy as np


@dataclass(frozen=True)
class Stack:
    """Predictions of M systems for N clips and K dimensions."""

    predictions: np.ndarray
    """float64 (N, K, M), as fractions of the range of each dimension."""
    quality: Sequence[np.ndarray] = field(default_factory=list)
    """For each system, the mean quality signals of its input of each clip, float64 (N, Q); empty if not needed."""
    present: np.ndarray | None = None
    """bool (N, M), whether a clip has the input of the system; None if not needed."""

    def rows(self, chosen: np.ndarray) -> Self:
        """Only these clips."""
        present = None if self.present is None else self.present[chosen]
        return type(self)(self.predictions[chosen], [part[chosen] for part in self.quality], present)


class Combiner(Protocol):
    """The result of a learner."""

    weights: np.ndarray
    """float64 (K, M): the weight of each system, or its mean over the clips if it differs between clips."""

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
