"""Learned weights, raw quality signals and a logistic regression on all of them as detectors of the same known damage.

The regression is the strongest cheap competitor: it is fitted to the same damaged views as the weights, without the
kinds of damage that were left out of training.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.metrics import interval, roc_auc
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.data.quality_samples import QualitySample
from stage2_fusion.evaluation.damage_detection import ABSENT
from stage2_fusion.evaluation.signal_regression import SignalRegression

ON_PURPOSE = "on purpose"
WEIGHT, REGRESSION = "learned weight", "regression on the signals"

RESAMPLES = 300
"""Bootstrap samples behind the intervals."""


@dataclass(frozen=True)
class Detector:
    """A score per clip that may tell damaged from undamaged clips."""

    name: str
    auc: float
    """ROC AUC, in the better of the two directions for a raw signal."""
    low_is_damaged: bool
    by_kind: dict[str, float]
    """AUC of each kind of damage against the undamaged clips."""


@dataclass(frozen=True)
class Comparison:
    """The detectors of damage to one modality, on the same clips."""

    modality: str
    known_from: str
    damaged: int
    undamaged: int
    weight: Detector
    weight_interval: list[float] | None
    """95 % bootstrap interval over groups."""
    signals: list[Detector]
    """Best first."""
    lead: float
    """AUC of the weight minus AUC of the best signal."""
    lead_interval: list[float] | None
    regression: Detector | None = None
    """On mean, minimum, maximum and deviation over time of all signals; None without training views to fit."""
    regression_lead: float | None = None
    """AUC of the weight minus AUC of the regression."""
    regression_lead_interval: list[float] | None = None
    unmet: list[str] = field(default_factory=list)
    """Kinds of damage on which neither the weights nor the regression were trained."""
    left_out: int | None = None
    """Clips that do not count as undamaged because they came damaged; None if unknown."""

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Comparison":
        """From the JSON of `asdict`."""
        regression = values["regression"] and Detector(**values["regression"])
        parts = {"weight": Detector(**values["weight"]), "signals": [Detector(**each) for each in values["signals"]]}
        return cls(**{**values, **parts, "regression": regression})


@dataclass(frozen=True)
class Rows:
    """Clips with a modality, damaged or not."""

    groups: np.ndarray
    """(N,), for the bootstrap: a damaged view and its undamaged clip have the same group."""
    kinds: np.ndarray
    """(N,), "" = undamaged."""
    weight: np.ndarray
    """(N,)."""
    shown: np.ndarray
    """(N,), the modalities of a clip as a number: weights are only comparable if it is equal."""
    signals: np.ndarray
    """(N, Q), means over the steps of a clip."""
    regression: np.ndarray
    """(N,), high if the regression finds damage; NaN without a regression."""

    def auc(self, values: np.ndarray, chosen: np.ndarray | None = None) -> float:
        """AUC of high `values` as a detector of damage, for all rows or those `chosen`; NaN if none can be compared."""
        rows = slice(None) if chosen is None else chosen
        return roc_auc(values[rows], (self.kinds != "")[rows], self.shown[rows])


def is_uniform(weights: np.ndarray) -> bool:
    """Whether weights (N, 3), 0 = absent, are the same for all present modalities of each clip."""
    present = weights > 0
    highest, lowest = weights.max(axis=1), np.where(present, weights, np.inf).min(axis=1)
    return bool((highest - lowest <= 1e-5)[present.any(axis=1)].all())


def compare_on_purpose(
    samples: Sequence[FeatureSample],
    weights: np.ndarray,
    groups: Sequence[str],
    names: dict[str, list[str]],
    training: Sequence[QualitySample] = (),
    unmet: Sequence[str] = (),
    came_damaged: dict[str, set[str]] | None = None,
) -> list[Comparison]:
    """Damaged views among N samples against the undamaged clips, for each modality in which they can be compared.

    weights (N, 3); groups: of each sample; names: modality to its quality signals; training: the clips and views that
    trained the weights, to fit the regression; unmet: kinds of damage left out of training; came_damaged: modality to
    the ids of clips in which it was already damaged, None if unknown.
    """
    found = []
    for name in MODALITIES:
        came = (came_damaged or {}).get(name, set())
        clean = [i for i, sample in enumerate(samples) if not sample.view]
        rows = [i for i, sample in enumerate(samples) if sample.view and sample.damage[name]]
        rows += [i for i in clean if samples[i].id not in came]
        kinds = [samples[i].damage[name] for i in rows]
        if not any(kinds):
            continue
        chosen, of_group = [samples[i] for i in rows], [groups[i] for i in rows]
        regression = SignalRegression.fit(training, name, unmet)
        each = compare(name, ON_PURPOSE, chosen, kinds, of_group, weights[rows], names[name], regression)
        if each is not None:
            met = [kind for kind in unmet if kind in kinds]
            left_out = None if came_damaged is None else sum(samples[i].id in came for i in clean)
            found.append(replace(each, unmet=met, left_out=left_out))
    return found


def compare(
    modality: str,
    known_from: str,
    samples: Sequence[FeatureSample],
    kinds: Sequence[str],
    groups: Sequence[str],
    weights: np.ndarray,
    names: Sequence[str],
    regression: SignalRegression | None = None,
    seed: int = 0,
) -> Comparison | None:
    """Compare the learned weight of a modality with its raw quality signals `names` on N samples. kinds: damage to the
    modality ("" = none); groups: for the bootstrap; weights (N, 3). None when there are no pairs of damaged and
    undamaged clips with the same modalities."""
    kinds_of, groups_of = np.array(kinds, dtype=object), np.array(groups, dtype=object)
    rows = _rows(modality, samples, kinds_of, groups_of, weights, regression)
    weight = _detector(WEIGHT, -rows.weight, rows, chosen=True)
    if weight is None:
        return None
    columns = [(name, rows.signals[:, q]) for q, name in enumerate(names) if np.ptp(rows.signals[:, q]) > 0]
    signals = [d for name, values in columns if (d := _detector(name, -values, rows, chosen=False)) is not None]
    signals.sort(key=lambda detector: -detector.auc)
    best = None
    if signals:
        values = rows.signals[:, list(names).index(signals[0].name)]
        best = -values if signals[0].low_is_damaged else values
    fitted = None if regression is None else _detector(REGRESSION, rows.regression, rows, chosen=True)
    draws = _bootstrap(rows, [-rows.weight, best, rows.regression if fitted else None], seed)
    damaged = int((rows.kinds != "").sum())
    return Comparison(
        modality,
        known_from,
        damaged,
        len(rows.kinds) - damaged,
        weight,
        interval(draws[:, 0]),
        signals,
        weight.auc - signals[0].auc if signals else float("nan"),
        interval(draws[:, 0] - draws[:, 1]) if signals else None,
        fitted,
        weight.auc - fitted.auc if fitted else None,
        interval(draws[:, 0] - draws[:, 2]) if fitted else None,
    )


def _rows(
    modality: str,
    samples: Sequence[FeatureSample],
    kinds: np.ndarray,
    groups: np.ndarray,
    weights: np.ndarray,
    regression: SignalRegression | None,
) -> Rows:
    m = MODALITIES.index(modality)
    keep = np.flatnonzero((weights[:, m] > 0) & ~np.isin(kinds, ABSENT))
    parts = [samples[i].modality(modality) for i in keep]
    width = samples[0].modality(modality).quality.shape[1] if len(samples) else 0
    signals = [part.quality.mean(axis=0, dtype=np.float64) for part in parts]
    return Rows(
        groups=groups[keep],
        kinds=kinds[keep],
        weight=weights[keep, m].astype(np.float64),
        shown=(weights[keep] > 0) @ np.array([1, 2, 4]),
        signals=np.array(signals).reshape(len(keep), width),
        regression=np.array([regression.score(part.quality) if regression else np.nan for part in parts]),
    )


def _detector(name: str, low: np.ndarray, rows: Rows, chosen: bool) -> Detector | None:
    """low: the negated values. chosen: the direction is fixed: low means damaged."""
    auc = rows.auc(low)
    if np.isnan(auc):
        return None
    low_is_damaged = chosen or auc >= 0.5
    values = low if low_is_damaged else -low
    clean, by_kind = rows.kinds == "", {}
    for kind in sorted(set(rows.kinds[~clean])):
        value = rows.auc(values, clean | (rows.kinds == kind))
        if not np.isnan(value):
            by_kind[str(kind)] = value
    return Detector(name, auc if low_is_damaged else 1 - auc, low_is_damaged, by_kind)


def _bootstrap(rows: Rows, detectors: Sequence[np.ndarray | None], seed: int) -> np.ndarray:
    """AUC of each of D detectors (N,), high for damage, in resamples of groups: (R, D), NaN if a resample has no pairs
    or there is no detector. A single group is the same in every resample and tells nothing about others: (0, D)."""
    _, group = np.unique(rows.groups, return_inverse=True)  # (N,)
    if group.max(initial=0) == 0:
        return np.zeros((0, len(detectors)))
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max(initial=-1) + 2))
    members = [order[a:b] for a, b in itertools.pairwise(starts)]
    rng, draws = np.random.default_rng(seed), []
    for _ in range(RESAMPLES):
        drawn = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        draws.append([np.nan if values is None else rows.auc(values, drawn) for values in detectors])
    return np.array(draws)


def detector_table(each: Comparison) -> list[str]:
    """The detectors of damage to one modality as lines of text: AUC for all kinds together and for each kind."""
    rows = [("learned weight", each.weight)]
    rows += [(f"{_direction(each.signals[0])} {each.signals[0].name.replace('_', ' ')}", each.signals[0])] * bool(
        each.signals
    )
    rows += [("regression", each.regression)] if each.regression else []
    kinds = sorted(each.weight.by_kind)
    heads = ["all", *(f"{kind}{'*' * (kind in each.unmet)}" for kind in kinds)]
    widths = [max(8, len(head) + 2) for head in heads]
    title = f"{each.modality} {each.known_from}, AUC"
    first = max(len(title), *(len(name) for name, _ in rows))
    lines = [f"{title:<{first}}" + "".join(f"{head:>{width}}" for head, width in zip(heads, widths, strict=True))]
    for name, detector in rows:
        values = [detector.auc, *(detector.by_kind.get(kind) for kind in kinds)]
        cells = ["n/a" if value is None else f"{value:.3f}" for value in values]
        lines.append(
            f"{name:<{first}}" + "".join(f"{cell:>{width}}" for cell, width in zip(cells, widths, strict=True))
        )
    negatives = (
        "what they came with is not known" if each.left_out is None else f"{each.left_out} that came damaged left out"
    )
    lines.append(f"  {each.damaged} damaged, {each.undamaged} undamaged clips ({negatives})")
    pairs = [
        ("best signal", each.lead, each.lead_interval),
        ("regression", each.regression_lead, each.regression_lead_interval),
    ]
    differences = [
        f"{value:+.3f} ({spread[0]:+.3f} to {spread[1]:+.3f}) over the {name}"
        for name, value, spread in pairs
        if value is not None and spread
    ]
    lines += [f"  learned weight: {', '.join(differences)}"] if differences else []
    lines += ["  * not among the damage in training of the weights and the regression"] if each.unmet else []
    return lines


def _direction(signal: Detector) -> str:
    return "low" if signal.low_is_damaged else "high"
