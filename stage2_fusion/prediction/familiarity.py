"""How far a clip is from the clips that a model was trained on.

What the model sees of a modality, averaged over time, is compared with the training clips by the Mahalanobis distance
under probabilistic principal components (Tipping and Bishop 1999): the variance of the first components, and one
variance for all other directions, which shrinks a covariance of many channels. Distances of the validation clips, which
were not fitted, say what is usual: a clip is unlike the training clips if one of its modalities is farther than those
of nearly all validation clips, each group counting once (evaluation/conformal.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from shared.dataset.clip import MODALITIES
from stage2_fusion.evaluation.conformal import fewest_groups, group_quantile, group_weights, number_groups

FALSE_ALARMS = 0.02
"""Share of clips like the training ones that are called unlike them all the same."""
EXPLAINED = 0.99
"""Share of the variance that the components explain."""
MAX_COMPONENTS = 64
SMALLEST_VARIANCE = 1e-4
"""Of normalized channels: what never varied in training may vary a little."""
WORDS = {"vision": "picture", "audio": "sound", "text": "words"}
"""What messages call a modality of a clip."""


@dataclass(eq=False)
class ModalityReference:
    """The training clips' distribution of one modality's summary, d numbers."""

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
        rank = max(0, min(enough, MAX_COMPONENTS, count // 10, width - 1))
        parts = (mean, vectors[:, :rank].T, values[:rank], values[rank:].mean(keepdims=True))
        return cls(*(np.ascontiguousarray(part, dtype=np.float32) for part in parts))

    def distances(self, summaries: np.ndarray) -> np.ndarray:
        """Mahalanobis distance of summaries (N, d) over sqrt(d), about 1 for training clips: float64 (N,)."""
        centered = summaries.astype(np.float64) - self.mean  # (N, d)
        along = centered @ self.components.T.astype(np.float64)  # (N, r)
        across = np.maximum((centered**2).sum(axis=1) - (along**2).sum(axis=1), 0)  # (N,)
        squares = (along**2 / self.variances).sum(axis=1) + across / self.rest[0]
        return np.sqrt(squares / len(self.mean))


@dataclass(frozen=True)
class ClipFamiliarity:
    """How far a clip is from the training clips."""

    distances: dict[str, float]
    """Modality to its distance from the training clips, in that of the median validation clip: 1 is usual. Only of
    modalities that the clip has and the model reads."""
    percentile: float
    """Percentage of the validation clips, each group counting once, that are no farther: 0 to 100."""
    unlike: list[str] = field(default_factory=list)
    """What is unlike the training clips, such as "picture" or "no sound"; empty for a clip like them."""

    @property
    def reasons(self) -> str:
        """What is unlike, in words; "" for a clip like the training clips."""
        return ", ".join(self.unlike)


@dataclass(eq=False)
class Familiarity:
    """The distributions of the training clips, and the distances of the N validation clips."""

    references: dict[str, ModalityReference]
    """By modality; without those that no training clip has, or that the model does not read."""
    distances: np.ndarray
    """float32 (N, 3), NaN where a modality is absent."""
    groups: np.ndarray
    """int32 (N,): groups of the validation clips."""

    @classmethod
    def fit(cls, training: "Summaries", validation: "Summaries", groups: Sequence[str]) -> Self:
        """groups: of the validation clips."""
        present = {name: ~np.isnan(values).any(axis=1) for name, values in training.items()}
        references = {
            name: ModalityReference.fit(values[present[name]])
            for name, values in training.items()
            if present[name].any()
        }
        fitted = cls(references, np.zeros((0, len(MODALITIES)), np.float32), number_groups(groups))
        fitted.distances = fitted.measure(validation).astype(np.float32)
        return fitted

    def measure(self, summaries: "Summaries") -> np.ndarray:
        """Distances float64 (N, 3) of summaries (N, d) by modality, NaN where it is absent or was never seen."""
        count = len(next(iter(summaries.values())))
        columns = [
            self.references[name].distances(summaries[name]) if name in self.references else np.full(count, np.nan)
            for name in MODALITIES
        ]
        return np.stack(columns, axis=1)

    @property
    def false_alarms(self) -> float:
        """The share of clips like the training ones that is called unlike them: at most 1 / (groups + 1) if there are
        too few groups for FALSE_ALARMS."""
        count = len(np.unique(self.groups))
        return FALSE_ALARMS if count >= fewest_groups(1 - FALSE_ALARMS) else 1 / (count + 1)

    @cached_property
    def _usual(self) -> "_Usual":
        return _Usual.of(self)

    def judge(self, distances: np.ndarray, present: np.ndarray | None = None) -> list[ClipFamiliarity]:
        """distances: (N, 3) of `measure`. present: bool (N, 3), modalities that the model reads of the clips, by
        default those with a distance."""
        present = ~np.isnan(distances) if present is None else present
        return [self._usual.judge(row, has) for row, has in zip(distances, present, strict=True)]


Summaries = dict[str, np.ndarray]
"""Modality to float32 (N, d), what a model sees of N clips, NaN where it is absent."""


@dataclass(frozen=True)
class _Usual:
    """What is usual for validation clips."""

    centers: np.ndarray
    """(3,): medians of the logarithm of the distances, NaN for a modality that no validation clip has."""
    deviations: np.ndarray
    """(3,) of the logarithm of the distances."""
    weights: np.ndarray
    scores: np.ndarray
    """(N,) each."""
    threshold: float
    expected: np.ndarray
    """bool (3,): nearly all clips have the modality."""
    known: np.ndarray
    """bool (3,): some training clips have it."""

    @classmethod
    def of(cls, familiarity: Familiarity) -> Self:
        logs = np.log(np.maximum(familiarity.distances.astype(np.float64), 1e-6))  # (N, 3)
        has = ~np.isnan(logs)
        centers, deviations = np.full(3, np.nan), np.full(3, np.nan)
        for m in range(len(MODALITIES)):
            if has[:, m].any():
                centers[m] = np.median(logs[has[:, m], m])
                deviations[m] = max(1.4826 * np.median(np.abs(logs[has[:, m], m] - centers[m])), 0.02)
        weights = group_weights(familiarity.groups)
        scores = _farthest((logs - centers) / deviations)  # (N,)
        # Of too few groups, the farthest clip is the limit: a clip of a further group passes it once in groups + 1.
        threshold = min(group_quantile(scores, familiarity.groups, 1 - FALSE_ALARMS), scores.max())
        expected = weights @ has >= 1 - familiarity.false_alarms
        known = np.array([name in familiarity.references for name in MODALITIES])
        return cls(centers, deviations, weights, scores, threshold, expected, known)

    def judge(self, distances: np.ndarray, present: np.ndarray) -> ClipFamiliarity:
        """Of one clip: distances (3,) and bool (3,)."""
        logs = np.log(np.maximum(distances.astype(np.float64), 1e-6))  # (3,)
        scores = (logs - self.centers) / self.deviations  # (3,)
        unlike = [WORDS[name] for m, name in enumerate(MODALITIES) if scores[m] > self.threshold]
        unlike += [f"no {WORDS[name]}" for m, name in enumerate(MODALITIES) if self.expected[m] and not present[m]]
        unlike += [f"has {WORDS[name]}" for m, name in enumerate(MODALITIES) if present[m] and not self.known[m]]
        nearer = float(self.weights[self.scores <= _farthest(scores[None])[0]].sum())
        relative = {
            name: float(np.exp(logs[m] - self.centers[m]))
            for m, name in enumerate(MODALITIES)
            if np.isfinite(logs[m] - self.centers[m])
        }
        return ClipFamiliarity(relative, 100 * min(nearer, 1.0), unlike)


def _farthest(scores: np.ndarray) -> np.ndarray:
    """The highest of (N, 3) in each row, ignoring NaN; -inf where there is none: (N,)."""
    return np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
