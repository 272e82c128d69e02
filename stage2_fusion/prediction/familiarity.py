"""How far a clip is from the clips that a model was trained on.

The model's input of a modality, averaged over time, is compared with the training clips in two views: its features, and
its quality signals, which would be lost among the many feature channels (prediction/distances.py). The limit is a
conformal quantile over whole groups (evaluation/conformal.py) of training clips, out of fold, and validation clips
together. If validation clips exceed it too often, it is the quantile of the validation clips alone, because encoders
may know their training people too well. A clip is unlike the training clips if one of its modalities exceeds the limit.
With too few validation groups, no clip is judged.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import numpy as np

from shared.dataset.clip import MODALITIES
from stage2_fusion.evaluation.conformal import (
    fewest_groups,
    group_quantile,
    group_weights,
    independent_clips,
    number_groups,
)
from stage2_fusion.prediction.distances import UsualDistances, ViewReference, out_of_fold

FALSE_ALARMS = 0.02
"""Share of clips like the training clips that are nevertheless judged unlike them."""
ABSENT = 0.005
"""A missing modality is unlike the training clips if at most this share of clips like them lacks it."""
CHANCE = 1.645
"""Standard errors by which validation clips may exceed the limit more often than FALSE_ALARMS."""
MOST_FALSE_ALARMS = 0.05
"""Highest share at which clips are still judged: fewer validation groups cannot even promise this."""
VIEWS = ("features", "signals")
KEYS = tuple(f"{name}.{view}" for name in MODALITIES for view in VIEWS)
"""The V = 6 views of a clip."""
MODALITY_OF = np.repeat(np.arange(len(MODALITIES)), len(VIEWS))
"""int (V,), the modality of each view."""
WORDS = {"vision": "picture", "audio": "sound", "text": "words"}
"""The word for each modality in messages."""
NEEDED_GROUPS = fewest_groups(1 - MOST_FALSE_ALARMS)
"""Fewest validation groups with which clips are judged."""


@dataclass(frozen=True)
class ClipFamiliarity:
    """How far a clip is from the training clips."""

    distances: dict[str, float]
    """Modality to its distance from the training clips, in its farther view: 0 is usual for a clip with such quality
    signals, 1 is farther than 95 % of the clips like the training clips. Only modalities that the clip has and the
    model reads."""
    percentile: float
    """Percentage of the clips like the training clips that are no farther, with each group counting once: 0 to 100."""
    unlike: list[str] = field(default_factory=list)
    """The parts that are unlike the training clips, such as "picture" or "no sound"; empty for a clip like them."""
    known: bool = True
    """False if the model was validated on too few groups to tell; `unlike` is empty then."""

    @property
    def reasons(self) -> str:
        """The unlike parts, in words; "" for a clip like the training clips."""
        return ", ".join(self.unlike) if self.known else "not known"


@dataclass(eq=False)
class Familiarity:
    """The distributions of the M training clips, and the distances of these and of the N validation clips."""

    references: dict[str, ViewReference]
    """By key of the view; without modalities that no training clip has, or that the model does not read."""
    usual: dict[str, UsualDistances]
    """By key of the view, for the same views."""
    training: np.ndarray
    """float32 (M, V), scores of the training clips out of fold, NaN where a modality is absent."""
    training_groups: np.ndarray
    """int32 (M,)."""
    validation: np.ndarray
    """float32 (N, V)."""
    validation_groups: np.ndarray
    """int32 (N,), with the same number for the same group."""

    @classmethod
    def fit(
        cls,
        training: "Summaries",
        training_groups: Sequence[str],
        validation: "Summaries",
        validation_groups: Sequence[str],
    ) -> Self:
        """From the model's inputs for the training and the validation clips."""
        numbers = number_groups([*training_groups, *validation_groups])
        groups, others = np.split(numbers, [len(training_groups)])
        nothing = np.zeros((0, len(KEYS)), np.float32)
        fitted = cls({}, {}, np.full((len(groups), len(KEYS)), np.nan, np.float32), groups, nothing, others)
        for v, key in enumerate(KEYS):
            values = training[key]
            has = ~np.isnan(values).any(axis=1)  # (M,)
            if not has.any():
                continue
            signals, distances = _conditions(training, key)[has], out_of_fold(values[has], groups[has])
            usual = UsualDistances.fit(signals, distances)
            own = groups[has]  # (m,)
            fitted.training[has, v] = usual.scores(distances, signals, None if (own == own[0]).all() else own)
            fitted.references[key], fitted.usual[key] = ViewReference.fit(values[has]), usual
        fitted.validation = fitted.measure(validation).astype(np.float32)
        return fitted

    def measure(self, summaries: "Summaries") -> np.ndarray:
        """Scores float64 (N, V) of summaries (N, d): distances relative to their usual spread, NaN for a modality that
        is absent or was never seen in training."""
        scores = np.full((len(next(iter(summaries.values()))), len(KEYS)), np.nan)
        for v, key in enumerate(KEYS):
            has = ~np.isnan(summaries[key]).any(axis=1)  # (N,)
            if key in self.references and has.any():
                distances = self.references[key].logs(summaries[key][has])
                scores[has, v] = self.usual[key].scores(distances, _conditions(summaries, key)[has])
        return scores

    @property
    def people(self) -> int:
        """Validation groups."""
        return len(np.unique(self.validation_groups))

    @property
    def not_known(self) -> str:
        """Why clips cannot be judged; "" if they can."""
        groups = "person or group" if self.people == 1 else "people or groups"
        few = f"not known ({self.people} {groups} in validation; {NEEDED_GROUPS} are needed)"
        return few if self.people < NEEDED_GROUPS else ""

    @property
    def false_alarms(self) -> float:
        """The highest share of clips like the training clips that is judged unlike them: 1 / (groups + 1) if there are
        too few validation groups for FALSE_ALARMS."""
        return FALSE_ALARMS if self.people >= fewest_groups(1 - FALSE_ALARMS) else 1 / (self.people + 1)

    @cached_property
    def _limits(self) -> "_Limits":
        return _Limits.of(self)

    def judge(self, scores: np.ndarray, present: np.ndarray | None = None) -> list[ClipFamiliarity]:
        """scores: (N, V) of `measure`. present: bool (N, 3), the modalities of the clips that the model reads, by
        default those with a score."""
        present = ~np.isnan(scores[:, :: len(VIEWS)]) if present is None else present
        return [self._limits.judge(row, has) for row, has in zip(scores, present, strict=True)]


Summaries = dict[str, np.ndarray]
"""Key of a view to float32 (N, d), summaries of the model's inputs for N clips, NaN if the modality is absent."""


def _conditions(summaries: Summaries, key: str) -> np.ndarray:
    """What a usual distance depends on (N, q): for features, the signals of the modality; for signals, nothing."""
    name, _, view = key.partition(".")
    signals = summaries[f"{name}.signals"]
    return signals if view == "features" else signals[:, :0]


def present_in(summaries: Summaries) -> np.ndarray:
    """bool (N, 3): modalities that the clips have and the model reads."""
    return np.stack([~np.isnan(summaries[f"{name}.{VIEWS[0]}"]).any(axis=1) for name in MODALITIES], axis=1)


@dataclass(frozen=True)
class _Limits:
    """The usual scores of clips of new groups."""

    centers: np.ndarray
    """(V,): medians of the scores, NaN for a modality that no clip has."""
    deviations: np.ndarray
    """(V,): from the median to the 95th percentile, which makes views with different tails comparable."""
    weights: np.ndarray
    scores: np.ndarray
    """(M + N,) each: the score of the farthest view of each clip."""
    limit: float
    expected: np.ndarray
    """bool (3,): nearly all clips have the modality."""
    seen: np.ndarray
    """bool (3,): some training clips have it."""
    known: bool

    @classmethod
    def of(cls, familiarity: Familiarity) -> Self:
        values = np.concatenate([familiarity.training, familiarity.validation]).astype(np.float64)  # (M + N, V)
        groups = np.concatenate([familiarity.training_groups, familiarity.validation_groups])
        has = ~np.isnan(values)
        centers, deviations = np.full(len(KEYS), np.nan), np.full(len(KEYS), np.nan)
        for v in np.flatnonzero(has.any(axis=0)):
            centers[v], far = np.quantile(values[has[:, v], v], [0.5, 0.95])
            deviations[v] = max(far - centers[v], 0.02)
        weights, scores = group_weights(groups), _farthest((values - centers) / deviations)
        absent = weights @ ~has[:, :: len(VIEWS)]  # (3,)
        expected = absent <= ABSENT
        limit = _limit(scores, groups, len(familiarity.training), FALSE_ALARMS - absent[expected].sum())
        seen = np.array([f"{name}.{VIEWS[0]}" in familiarity.references for name in MODALITIES])
        return cls(centers, deviations, weights, scores, limit, expected, seen, not familiarity.not_known)

    def judge(self, values: np.ndarray, present: np.ndarray) -> ClipFamiliarity:
        """One clip: scores (V,) and present bool (3,)."""
        scores, relative, unlike = (values - self.centers) / self.deviations, {}, []
        for m, name in enumerate(MODALITIES):
            views = m == MODALITY_OF
            if scores[views].max() > self.limit:
                unlike.append(WORDS[name])
            if self.expected[m] and not present[m]:
                unlike.append(f"no {WORDS[name]}")
            if present[m] and not self.seen[m]:
                unlike.append(f"has {WORDS[name]}")
            if np.isfinite(scores[views]).all():
                relative[name] = float(scores[views].max())
        nearer = float(self.weights[self.scores <= _farthest(scores[None])[0]].sum())
        return ClipFamiliarity(relative, 100 * min(nearer, 1.0), unlike if self.known else [], self.known)


def _limit(scores: np.ndarray, groups: np.ndarray, training: int, rate: float) -> float:
    """The score that a clip of a new group exceeds with probability `rate`. scores and groups: (M + N,), of `training`
    = M clips and of the validation clips."""
    # With too few groups, the farthest clip is the limit: a clip of a new group exceeds it once in groups + 1.
    pooled = min(group_quantile(scores, groups, 1 - rate), scores.max(initial=-np.inf))
    unmet, people = scores[training:], groups[training:]
    beyond = unmet > pooled  # (N,)
    if not beyond.any():
        return pooled
    chance = CHANCE * np.sqrt(rate * (1 - rate) / independent_clips(beyond, people))
    if group_weights(people) @ beyond <= rate + chance:
        return pooled
    return max(pooled, min(group_quantile(unmet, people, 1 - rate), unmet.max()))


def _farthest(scores: np.ndarray) -> np.ndarray:
    """The maximum of each row of (N, V), ignoring NaN; -inf for a row without values: (N,)."""
    return np.where(np.isnan(scores), -np.inf, scores).max(axis=1)
