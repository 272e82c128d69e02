"""How far a clip is from the clips that a model was trained on.

What the model sees of a modality, averaged over time, is compared with the training clips in two views: its features,
and its quality signals, which few channels of many would drown. The distance is that of Mahalanobis under probabilistic
principal components (Tipping and Bishop 1999): the variance of the first components, and one
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
EXPLAINED = 0.9999
"""Share of the variance that the components explain: what is new often lies in directions that hardly varied."""
MAX_COMPONENTS = 256
CLIPS_PER_COMPONENT = 5
"""Training clips that a component needs."""
SMALLEST_VARIANCE = 1e-4
"""Of normalized channels: what never varied in training may vary a little."""
VIEWS = ("features", "signals")
KEYS = tuple(f"{name}.{view}" for name in MODALITIES for view in VIEWS)
"""The V = 6 views of a clip."""
MODALITY_OF = np.repeat(np.arange(len(MODALITIES)), len(VIEWS))
"""int (V,), the modality of each view."""
WORDS = {"vision": "picture", "audio": "sound", "text": "words"}
"""What messages call a modality of a clip."""


@dataclass(eq=False)
class ViewReference:
    """The training clips' distribution of one view, d numbers."""

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


@dataclass(frozen=True)
class ClipFamiliarity:
    """How far a clip is from the training clips."""

    distances: dict[str, float]
    """Modality to its distance from the training clips, that of its farther view, in that of the median validation
    clip: 1 is usual. Only of modalities that the clip has and the model reads."""
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

    references: dict[str, ViewReference]
    """By key of the view; without modalities that no training clip has, or that the model does not read."""
    distances: np.ndarray
    """float32 (N, V), NaN where a modality is absent."""
    groups: np.ndarray
    """int32 (N,): groups of the validation clips."""

    @classmethod
    def fit(cls, training: "Summaries", validation: "Summaries", groups: Sequence[str]) -> Self:
        """groups: of the validation clips."""
        present = {name: ~np.isnan(values).any(axis=1) for name, values in training.items()}
        references = {
            name: ViewReference.fit(values[present[name]]) for name, values in training.items() if present[name].any()
        }
        fitted = cls(references, np.zeros((0, len(KEYS)), np.float32), number_groups(groups))
        fitted.distances = fitted.measure(validation).astype(np.float32)
        return fitted

    def measure(self, summaries: "Summaries") -> np.ndarray:
        """Distances float64 (N, V) of summaries (N, d), NaN where a modality is absent or was never seen."""
        count = len(next(iter(summaries.values())))
        columns = [
            self.references[name].distances(summaries[name]) if name in self.references else np.full(count, np.nan)
            for name in KEYS
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
        """distances: (N, V) of `measure`. present: bool (N, 3), modalities that the model reads of the clips, by
        default those with a distance."""
        present = ~np.isnan(distances[:, :: len(VIEWS)]) if present is None else present
        return [self._usual.judge(row, has) for row, has in zip(distances, present, strict=True)]


Summaries = dict[str, np.ndarray]
"""Key of a view to float32 (N, d), what a model sees of N clips, NaN where the modality is absent."""


def present_in(summaries: Summaries) -> np.ndarray:
    """bool (N, 3): modalities that the clips have and the model reads."""
    return np.stack([~np.isnan(summaries[f"{name}.{VIEWS[0]}"]).any(axis=1) for name in MODALITIES], axis=1)


@dataclass(frozen=True)
class _Usual:
    """What is usual for validation clips."""

    centers: np.ndarray
    """(V,): medians of the logarithm of the distances, NaN for a modality that no validation clip has."""
    deviations: np.ndarray
    """(V,): from there to the 95th percentile, which makes views with different tails comparable."""
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
        logs = np.log(np.maximum(familiarity.distances.astype(np.float64), 1e-6))  # (N, V)
        has = ~np.isnan(logs)
        centers, deviations = np.full(len(KEYS), np.nan), np.full(len(KEYS), np.nan)
        for v in np.flatnonzero(has.any(axis=0)):
            centers[v], far = np.quantile(logs[has[:, v], v], [0.5, 0.95])
            deviations[v] = max(far - centers[v], 0.02)
        weights = group_weights(familiarity.groups)
        scores = _farthest((logs - centers) / deviations)  # (N,)
        # Of too few groups, the farthest clip is the limit: a clip of a further group passes it once in groups + 1.
        threshold = min(group_quantile(scores, familiarity.groups, 1 - FALSE_ALARMS), scores.max())
        expected = weights @ has[:, :: len(VIEWS)] >= 1 - familiarity.false_alarms
        known = np.array([f"{name}.{VIEWS[0]}" in familiarity.references for name in MODALITIES])
        return cls(centers, deviations, weights, scores, threshold, expected, known)

    def judge(self, distances: np.ndarray, present: np.ndarray) -> ClipFamiliarity:
        """Of one clip: distances (V,) and bool (3,)."""
        logs = np.log(np.maximum(distances.astype(np.float64), 1e-6)) - self.centers  # (V,)
        scores, relative, unlike = logs / self.deviations, {}, []
        for m, name in enumerate(MODALITIES):
            views = m == MODALITY_OF
            if scores[views].max() > self.threshold:
                unlike.append(WORDS[name])
            if self.expected[m] and not present[m]:
                unlike.append(f"no {WORDS[name]}")
            if present[m] and not self.known[m]:
                unlike.append(f"has {WORDS[name]}")
            if np.isfinite(logs[views]).all():
                relative[name] = float(np.exp(logs[views].max()))
        nearer = float(self.weights[self.scores <= _farthest(scores[None])[0]].sum())
        return ClipFamiliarity(relative, 100 * min(nearer, 1.0), unlike)


def _farthest(scores: np.ndarray) -> np.ndarray:
    """The highest of (N, V) in each row, ignoring NaN; -inf where there is none: (N,)."""
    return np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
