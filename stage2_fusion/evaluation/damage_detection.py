"""Do low weights find damaged modalities? Scored against known damage: in a synthetic corpus, or deliberate.

Weights are compared only between clips with the same modalities: the weights of a clip sum to 1, so the weight of one
modality depends on which others are present.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.metrics import DimensionScores, pcc, roc_auc
from shared.tables.formats import read_records
from shared.text import counted, first_few
from stage2_fusion.data.external.matching import match
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.inference import StepExplanation

ABSENT = ("no_track", "missing")
"""Kinds of damage that leave nothing to weight: the modality is masked."""


@dataclass(frozen=True)
class DamageDetection:
    """ROC AUC of low weight as a detector of damage to one modality."""

    auc: float
    clips: int
    """Damaged clips."""
    by_kind: dict[str, float | None]
    """AUC of each kind of damage against undamaged clips; None if no clips can be compared."""


@dataclass(frozen=True)
class DamageReport:
    """Damage detection in each modality; None if no clips can be compared."""

    mean_auc: float | None
    """Mean over the modalities with an AUC."""
    vision: DamageDetection | None
    audio: DamageDetection | None
    text: DamageDetection | None

    @classmethod
    def of(cls, vision: DamageDetection | None, audio: DamageDetection | None, text: DamageDetection | None):
        scores = [detection.auc for detection in (vision, audio, text) if detection]
        return cls(float(np.mean(scores)) if scores else None, vision, audio, text)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "DamageReport":
        detections = {name: DamageDetection(**values[name]) if values[name] else None for name in MODALITIES}
        return cls(values["mean_auc"], **detections)

    def __str__(self) -> str:
        detections = {name: getattr(self, name) for name in MODALITIES}
        parts = [f"{name} {detection.auc:.3f}" for name, detection in detections.items() if detection]
        return f"AUC {', '.join(parts)}" if parts else "nothing to find"


@dataclass(frozen=True)
class DamagedPcc:
    """Mean PCC of the same clips before and after damage."""

    pcc_undamaged: float | None
    pcc_damaged: float | None
    """None if the labels of these clips allow no PCC."""
    views: int
    """Damaged views."""


@dataclass(frozen=True)
class DamagedViewScores(DamagedPcc):
    """Scores of the views with one deliberately damaged modality (`emit encode --damaged_views`)."""

    by_modality: dict[str, DamagedPcc]
    damage: DamageReport

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "DamagedViewScores":
        by_modality = {name: DamagedPcc(**part) for name, part in values["by_modality"].items()}
        report = DamageReport.from_json(values["damage"])
        return cls(**{**values, "by_modality": by_modality, "damage": report})


def detect_damage(weights: np.ndarray, m: int, kinds: np.ndarray) -> DamageDetection | None:
    """How well a low weight of modality m finds damage to it; None if no clips can be compared.

    weights (N, 3), 0 where absent; kinds (N,): kind of damage to the modality, "" for none.
    """
    present = (weights[:, m] > 0) & ~np.isin(kinds, ABSENT)  # (N,)
    weight, kinds = weights[present, m], kinds[present]
    shown = (weights[present] > 0) @ [1, 2, 4]  # the modalities of a clip, as one number
    damaged = kinds != ""

    def auc(rows: np.ndarray) -> float | None:
        value = roc_auc(-weight[rows], damaged[rows], shown[rows])
        return None if np.isnan(value) else value

    overall = auc(np.full(len(weight), True))
    if overall is None:
        return None
    by_kind = {str(kind): auc(~damaged | (kinds == kind)) for kind in sorted(set(kinds[damaged]))}
    return DamageDetection(overall, int(damaged.sum()), by_kind)


def score_damaged_views(
    samples: list[FeatureSample],
    predictions: np.ndarray,
    weights: np.ndarray,
    came_damaged: dict[str, set[str]] | None = None,
) -> DamagedViewScores:
    """Score the damaged views (view > 0) among N samples against the undamaged view of the same clips.

    predictions (N, K), weights (N, 3); came_damaged: modality to the ids of clips in which it was already damaged: they
    are not undamaged, so their low weights are not false alarms.
    """
    view = np.array([sample.view for sample in samples])  # (N,)
    labels = np.stack([sample.labels for sample in samples])  # (N, K)
    clean, damaged = np.flatnonzero(view == 0), np.flatnonzero(view > 0)
    row_of = {samples[row].id: row for row in clean}
    undamaged = np.array([row_of[samples[row].id] for row in damaged])

    def mean_pcc(rows: np.ndarray) -> float | None:
        values = [pcc(predictions[rows, k], labels[rows, k]) for k in range(labels.shape[1])]
        return float(np.nanmean(values)) if not np.isnan(values).all() else None

    def before_and_after(chosen: np.ndarray) -> tuple[float | None, float | None, int]:
        return mean_pcc(undamaged[chosen]), mean_pcc(damaged[chosen]), int(chosen.sum())

    detections, by_modality = [], {}
    for m, modality in enumerate(MODALITIES):
        kinds = np.array([samples[row].damage[modality] for row in damaged])  # (Nd,)
        hit = kinds != ""
        if hit.any():
            by_modality[modality] = DamagedPcc(*before_and_after(hit))
        came = (came_damaged or {}).get(modality, set())
        negatives = clean[[samples[row].id not in came for row in clean]]
        compared = np.concatenate([weights[damaged[hit]], weights[negatives]])
        detections.append(detect_damage(compared, m, np.concatenate([kinds[hit], np.full(len(negatives), "")])))
    overall = before_and_after(np.full(len(damaged), True))
    return DamagedViewScores(*overall, by_modality, DamageReport.of(*detections))


def read_truth(path: Path, ids: list[str]) -> list[dict[str, str]]:
    """The rows of a synthetic corpus's truth.csv for the clips `ids`; its ids may be paths or have other zeros, see
    `match`. UserError when two rows have the same id, or a clip does not have its own row."""
    try:
        rows = read_records(Path(path))
        names = [row["id"] for row in rows]
    except (KeyError, UserError) as error:
        raise UserError(f"{path}: not a truth.csv ({error}); give the one in the corpus folder") from None
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        several = counted(len(repeated), "id", "stands", "stand")
        raise UserError(f"{path}: {several} in more than one row, such as {repeated[0]!r}; leave one")
    row_of = match([[name] for name in names], ids).track_of
    if missing := [name for i, name in enumerate(ids) if i not in row_of]:
        lacking = f"{len(missing):,} of {counted(len(ids), 'clip')} have no row of their own, such as {missing[0]!r}"
        raise UserError(f"{path}: {lacking}; its ids look like {first_few(names, 2)}; give the corpus's truth.csv")
    return [rows[row_of[i]] for i in range(len(ids))]


def label_ceiling(path: Path, truth: list[dict[str, str]], labels: np.ndarray, names: list[str]) -> DimensionScores:
    """PCC of a perfect model, which predicts the expected labels given the true intensities, against labels (N, K) with
    rating noise. The expected labels are the columns expected_NAME, or follow from true_NAME."""
    from shared.synth.truth import expected_labels  # it imports OpenCV

    try:
        if all(f"expected_{name}" in truth[0] for name in names):
            best = np.array([[float(row[f"expected_{name}"]) for name in names] for row in truth])  # (N, K)
        else:
            best = expected_labels(np.array([[float(row[f"true_{name}"]) for name in names] for row in truth]))
    except KeyError as error:
        raise UserError(f"{path}: no column {error}; give the truth.csv of the corpus of these labels") from None
    except ValueError as error:
        raise UserError(f"{path}: a cell is not a number ({error}); give the truth.csv of the corpus") from None
    return DimensionScores.from_values({name: pcc(best[:, k], labels[:, k]) for k, name in enumerate(names)})


def damaged_in_corpus(truth: list[dict[str, str]], ids: list[str]) -> dict[str, set[str]]:
    """Modality to the clips among `ids` in which a synthetic corpus damaged it; truth: the rows of these clips."""
    return {
        name: {clip_id for clip_id, row in zip(ids, truth, strict=True) if row.get(f"{name}_damage")}
        for name in MODALITIES
    }


def detect_corpus_damage(truth: list[dict[str, str]], weights: np.ndarray) -> DamageReport:
    """How well weights (N, 3) find the damage in the clips of a synthetic corpus."""
    kinds = [np.array([row.get(f"{name}_damage") or "" for row in truth]) for name in MODALITIES]
    return DamageReport.of(*(detect_damage(weights, m, of_modality) for m, of_modality in enumerate(kinds)))


def has_passing_damage(truth: list[dict[str, str]]) -> bool:
    """Whether the corpus has damage that comes and goes (`emit synth --damage_spans`)."""
    return any(row.get(_span_column(name)) for row in truth for name in MODALITIES)


def detect_passing_damage(truth: list[dict[str, str]], steps: Sequence[StepExplanation]) -> DamageReport:
    """How well low weights find when a modality is damaged: the steps of all clips are compared with each other.

    steps: of each clip of `truth`. A model without a time axis finds nothing."""
    if any(clip.times is None for clip in steps):
        return DamageReport.of(None, None, None)
    weights = np.concatenate([clip.weights for clip in steps])  # (N, 3), of the steps of all clips
    detections = []
    for m, name in enumerate(MODALITIES):
        kinds = []
        for row, clip in zip(truth, steps, strict=True):
            assert clip.times is not None
            damaged = np.zeros(len(clip.times), bool)  # (S,)
            for span in (row.get(_span_column(name)) or "").split():
                start, end = (float(seconds) for seconds in span.split("-"))
                damaged |= (clip.times >= start) & (clip.times < end)
            kinds.append(np.where(damaged, row.get(f"{name}_damage") or "", ""))
        found = detect_damage(weights, m, np.concatenate(kinds))
        clips = sum(bool(of_clip.any()) for of_clip in (k != "" for k in kinds))
        detections.append(found and replace(found, clips=clips))
    return DamageReport.of(*detections)


def _span_column(modality: str) -> str:
    return f"{modality}_damage_spans"
