"""Distances of clips from training clips in one view, and how large they usually are.

The distance is the Mahalanobis distance under probabilistic PCA (Tipping and Bishop 1999): the variances of the first
components, and one variance for all other directions, which shrinks a covariance of many channels.

Damaged training clips lie far from the others, and would make large distances look usual for every clip. A distance is
therefore compared with training clips with the most similar quality signals: a clear picture of a face has to be as
near as other clear pictures of faces. Distances of training clips are measured out of fold, from training clips of
other groups, so that they are comparable with distances of new clips.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

EXPLAINED = 0.999
"""Share of the variance that the components explain: novelty often lies in directions that hardly varied."""
MAX_COMPONENTS = 256
CLIPS_PER_COMPONENT = 5
"""Training clips needed per component."""
SMALLEST_VARIANCE = 1e-4
"""For normalized channels: a channel that never varied in training may vary a little."""
FOLDS = 5
NEIGHBORS = 150
"""Training clips with the most similar signals; spreads are measured up to their FAR quantile."""
FAR = 0.9
SMALLEST_SPREAD = 0.05
CHUNK = 512
"""Clips that are compared with all training clips in one step."""


@dataclass(eq=False)
class ViewReference:
    """The distribution of the training clips in one view of d numbers."""

    mean: np.ndarray
    """float32 (d,)."""
    components: np.ndarray
    """float32 (r, d), orthonormal."""
    variances: np.ndarray
    """float32 (r,), along the components."""
    rest: np.ndarray
    """float32 (1,): variance along each other direction."""

    @classmethod
    def fit(cls, summaries: np.ndarray) -> Self:
        """From summaries (N, d) of N >= 1 clips."""
        count, width = summaries.shape
        mean = summaries.mean(axis=0, dtype=np.float64)  # (d,)
        centered = summaries - mean  # (N, d)
        values, vectors = np.linalg.eigh(centered.T @ centered / count)  # ascending
        values, vectors = np.maximum(values[::-1], SMALLEST_VARIANCE), vectors[:, ::-1]
        enough = int(np.searchsorted(np.cumsum(values) / values.sum(), EXPLAINED)) + 1
        rank = max(0, min(enough, MAX_COMPONENTS, count // CLIPS_PER_COMPONENT, width - 1))
        parts = (mean, vectors[:, :rank].T, values[:rank], values[rank:].mean(keepdims=True))
        return cls(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))

    def distances(self, summaries: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of summaries (N, d) over sqrt(d), about 1 for training clips: float64 (N,)."""
        centered = summaries.astype(np.float64) - self.mean  # (N, d)
        along = centered @ self.components.T.astype(np.float64)  # (N, r)
        across = np.maximum((centered**2).sum(axis=1) - (along**2).sum(axis=1), 0)  # (N,)
        squares = (along**2 / self.variances).sum(axis=1) + across / self.rest[0]
        return np.sqrt(squares / len(self.mean))

    def logs(self, summaries: np.ndarray) -> np.ndarray:
        """Logarithms of the distances: float64 (N,), NaN where summaries are."""
        return np.log(np.maximum(self.distances(summaries), 1e-6))


def out_of_fold(summaries: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Logarithm of the distance of each clip (N, d) from the clips of other groups, int (N,): float64 (N,). If there is
    only one group, from all clips."""
    names, index = np.unique(groups, return_inverse=True)
    if len(names) < 2:
        return ViewReference.fit(summaries).logs(summaries)
    folds = min(FOLDS, len(names))
    fold = np.random.default_rng(0).permutation(len(names))[index] % folds  # (N,)
    distances = np.empty(len(summaries))
    for i in range(folds):
        distances[fold == i] = ViewReference.fit(summaries[fold != i]).logs(summaries[fold == i])
    return distances


@dataclass(eq=False)
class UsualDistances:
    """Distances of M training clips from the training clips of other groups, by their quality signals."""

    signals: np.ndarray
    """float32 (M, q), divided by their standard deviations `scale`; q = 0 if usual distances do not depend on
    signals."""
    scale: np.ndarray
    """float32 (q,)."""
    distances: np.ndarray
    """float32 (M,), logarithms."""

    @classmethod
    def fit(cls, signals: np.ndarray, distances: np.ndarray) -> Self:
        """From signals (M, q) and logarithms of distances (M,)."""
        scale = np.maximum(signals.std(axis=0, dtype=np.float64), 1e-3)  # (q,)
        return cls(*(part.astype(np.float32) for part in (signals / scale, scale, distances)))

    def scores(self, distances: np.ndarray, signals: np.ndarray, groups: np.ndarray | None = None) -> np.ndarray:
        """Logarithms of distances (N,) relative to their usual spread: float64 (N,), 0 for the median of training clips
        with such signals (N, q), 1 for their FAR quantile. groups: int (M,) if the clips are the training clips; a clip
        is then not compared with its own group."""
        parts = range(0, len(distances), CHUNK)
        usual = [self._usual(signals[i : i + CHUNK], groups, i) for i in parts]
        median, far = np.concatenate([*usual, np.zeros((0, 2))]).T  # (N,) each
        return (distances - median) / np.maximum(far - median, SMALLEST_SPREAD)

    def _usual(self, signals: np.ndarray, groups: np.ndarray | None, start: int) -> np.ndarray:
        """Median and FAR quantile (B, 2) for clips with signals (B, q); with groups, of training clips from `start`."""
        known = self.distances.astype(np.float64)
        if not len(self.scale):
            return np.broadcast_to(np.quantile(known, [0.5, FAR]), (len(signals), 2))
        x, y = signals / self.scale.astype(np.float64), self.signals.astype(np.float64)  # (B, q), (M, q)
        apart = (x**2).sum(axis=1)[:, None] + (y**2).sum(axis=1) - 2 * x @ y.T  # (B, M)
        count = len(known)
        if groups is not None:
            own = groups[start : start + len(signals), None] == groups  # (B, M)
            apart[own] = np.inf
            count = max(1, len(known) - int(own.sum(axis=1).max()))
        count = min(NEIGHBORS, count)
        nearest = np.argpartition(apart, count - 1, axis=1)[:, :count]  # (B, k)
        return np.quantile(known[nearest], [0.5, FAR], axis=1).T
