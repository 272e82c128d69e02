"""How PCC falls as a modality is damaged or missing in more clips."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.metrics import bootstrap_pcc, interval, mean_over_dimensions, pcc, scorable
from shared.terminal.progress import track
from shared.training.sampling import derive_seed
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.evaluation.scoring import format_pcc

SMALLEST_FALL = 1e-6
"""A smaller fall is rounding: losing a modality that a model does not read costs nothing, and is no reference."""
Predict = Callable[[list[FeatureSample]], np.ndarray]
"""Samples to predictions (N, K)."""


@dataclass(frozen=True)
class Protocol:
    """Which clips get worse, and how scores are averaged."""

    shares: list[float]
    """Shares of the clips that get worse; a larger share includes the clips of a smaller one."""
    orders: int
    """Random orders in which clips get worse; PCC is averaged over them."""
    resamples: int
    """Bootstrap samples behind the intervals."""
    seed: int


@dataclass(frozen=True)
class RobustnessRow:
    """PCC when a share of the clips is worse."""

    model: str
    """One model, or several seeds of one."""
    modality: str
    how: str
    """damaged or missing."""
    share: float
    clips: int
    """Clips with the modality and, for damaged, a view in which only this modality is damaged."""
    pcc: float | None
    """PCC over all these clips, mean over dimensions and orders; None if their labels allow no PCC."""
    low: float | None
    high: float | None
    """95 % interval of `pcc`; None without bootstrap samples, or if all clips are of one group."""
    fall: float | None
    """PCC of the undamaged clips minus `pcc`."""
    fall_low: float | None
    fall_high: float | None
    """95 % interval of `fall`, paired."""
    per_dimension: dict[str, float | None]
    """None for a dimension with labels that allow no PCC."""
    seeds: int = 1
    """Number of models over which the PCC is averaged."""
    relative: float | None = None
    """`fall` divided by the fall of the reference model; None without one, or if the reference does not fall."""
    relative_low: float | None = None
    relative_high: float | None = None
    """95 % interval of `relative`, paired; None if the reference may not fall."""


@dataclass(frozen=True)
class Score:
    """PCC (K',) of the dimensions with labels that allow one, and bootstrap samples (R,) of its mean over
    dimensions."""

    values: np.ndarray
    draws: np.ndarray

    @classmethod
    def mean(cls, scores: "Sequence[Score]") -> "Score":
        return cls(np.mean([s.values for s in scores], axis=0), np.mean([s.draws for s in scores], axis=0))

    def __sub__(self, other: "Score") -> "Score":
        return Score(self.values - other.values, self.draws - other.draws)


@dataclass(frozen=True)
class Curve:
    """Predictions of the same clips before and after one modality got worse."""

    clean: np.ndarray
    worse: np.ndarray
    labels: np.ndarray
    """(M, K) each; labels with NaN = not labeled."""
    groups: np.ndarray
    ids: np.ndarray
    """(M,) each."""
    modality: str

    @classmethod
    def join(cls, parts: "Sequence[Curve]") -> "Curve":
        """The curve of all clips of several, such as the folds of a cross-validation."""

        def joined(name: str) -> np.ndarray:
            return np.concatenate([getattr(part, name) for part in parts])

        arrays = {name: joined(name) for name in ("clean", "worse", "labels", "groups", "ids")}
        return cls(**arrays, modality=parts[0].modality)

    def score(self, share: float, protocol: Protocol) -> Score:
        """The PCC if `share` of the clips is worse, mean over orders."""
        known = scorable(self.labels)
        labels, count = self.labels[:, known], round(share * len(self.labels))
        values, draws = [], []
        for number in range(protocol.orders if 0 < count < len(labels) else 1):
            order = damage_order(protocol.seed, number, self.modality, self.ids)
            mixed = self.clean.copy()
            mixed[order[:count]] = self.worse[order[:count]]
            mixed = mixed[:, known]  # (M, K')
            values.append([pcc(mixed[:, k], labels[:, k]) for k in range(len(known))])
            drawn = bootstrap_pcc(mixed, labels, self.groups, protocol.resamples, protocol.seed)
            draws.append(mean_over_dimensions(drawn))
        return Score(np.mean(values, axis=0), np.mean(draws, axis=0))


Curves = dict[tuple[str, str], list[Curve]]
"""(modality, how) to the curve of each seed."""
Scores = dict[tuple[str, str, float], tuple[Score, Score]]
"""(modality, how, share) to the PCC and its fall."""


def model_curves(seeds: Sequence[Predict], clips: list[dict[int, FeatureSample]], groups: list[str]) -> Curves:
    """For each modality, the predictions of the seeds of one model if it is damaged or missing.

    clips: {view: sample} of each clip, view 0 undamaged; groups: of each clip.
    """
    clean = [views[0] for views in clips]
    labels = np.stack([sample.labels for sample in clean])  # (N, K)
    predictions = [predict(clean) for predict in seeds]  # of (N, K)
    curves: Curves = {}
    for modality in MODALITIES:
        present = [sample.modality(modality).steps > 0 for sample in clean]
        versions: dict[str, list[FeatureSample | None]] = {
            "damaged": [damaged_view(views, modality) for views in clips],
            "missing": [s.without(modality) if has else None for s, has in zip(clean, present, strict=True)],
        }
        for how, samples in versions.items():
            worse = {i: sample for i, sample in enumerate(samples) if sample is not None}
            if not worse:
                continue
            used = list(worse)
            about = labels[used], np.array(groups)[used], np.array([clean[i].id for i in used]), modality
            curves[modality, how] = [
                Curve(undamaged[used], predict(list(worse.values())), *about)
                for predict, undamaged in zip(seeds, predictions, strict=True)
            ]
    return curves


def join_folds(folds: Sequence[Curves]) -> Curves:
    """The curves of the same seeds in several folds, each over the clips of all folds."""
    kinds = dict.fromkeys(kind for curves in folds for kind in curves)
    of_kind = {kind: [curves[kind] for curves in folds if kind in curves] for kind in kinds}
    return {kind: [Curve.join(seed) for seed in zip(*parts, strict=True)] for kind, parts in of_kind.items()}


def score_curves(model: str, curves: Curves, protocol: Protocol) -> Scores:
    """The PCC at each share, mean over seeds, and by how much it fell."""
    scores: Scores = {}
    for (modality, how), seeds in curves.items():
        clean = Score.mean([curve.score(0.0, protocol) for curve in seeds])
        for share in track(protocol.shares, f"robustness: {model}, {modality} {how}", "shares"):
            score = Score.mean([curve.score(share, protocol) for curve in seeds])
            scores[modality, how, share] = score, clean - score
    return scores


def robustness_rows(
    model: str, curves: Curves, scores: Scores, names: list[str], reference: Scores | None = None
) -> list[RobustnessRow]:
    """The rows of one model. names: the K dimensions; reference: the scores of the reference model, on the same
    clips."""
    rows = []
    for (modality, how, share), (score, fall) in scores.items():
        seeds = curves[modality, how]
        low, high = interval(score.draws) or (None, None)
        fall_low, fall_high = interval(fall.draws) or (None, None)
        each: dict[str, float | None] = dict.fromkeys(names)
        each |= {names[k]: float(value) for k, value in zip(scorable(seeds[0].labels), score.values, strict=True)}
        rows.append(
            RobustnessRow(
                model=model,
                modality=modality,
                how=how,
                share=share,
                clips=len(seeds[0].labels),
                pcc=float(score.values.mean()) if len(score.values) else None,
                low=low,
                high=high,
                fall=float(fall.values.mean()) if len(score.values) else None,
                fall_low=fall_low,
                fall_high=fall_high,
                per_dimension=each,
                seeds=len(seeds),
                **({} if reference is None else _relative(fall, reference[modality, how, share][1])),
            )
        )
    return rows


def _relative(fall: Score, other: Score) -> dict[str, float | None]:
    """The fields of a row that compare `fall` with the fall of another model on the same clips."""
    if not len(other.values) or other.values.mean() <= SMALLEST_FALL:
        return {}
    bounds, low, high = interval(other.draws), None, None
    if bounds and bounds[0] > SMALLEST_FALL:
        low, high = interval(fall.draws / other.draws) or (None, None)
    relative = float(fall.values.mean() / other.values.mean())
    return {"relative": relative, "relative_low": low, "relative_high": high}


def damaged_view(views: dict[int, FeatureSample], modality: str) -> FeatureSample | None:
    """The first view in which only this modality is damaged, if there is one."""
    for number in sorted(views):
        if [name for name in MODALITIES if views[number].damage[name]] == [modality]:
            return views[number]
    return None


def damage_order(seed: int, order: int, modality: str, ids: Sequence[str] | np.ndarray) -> np.ndarray:
    """The order (N,) in which the clips get worse: a function of seed, order, modality and ids."""
    return np.argsort([derive_seed("robustness", seed, order, modality, name) for name in ids])


def robustness_table(rows: list[RobustnessRow]) -> str:
    """PCC at each share, one line for each model, modality and kind of loss."""
    return _table(rows, {(_line(row), row.share): format_pcc(row.pcc) for row in rows})


def relative_table(rows: list[RobustnessRow], against: str) -> str:
    """The fall of each model and, in brackets, as a multiple of the fall of the model `against`."""
    cells = {}
    for row in rows:
        multiple = f" ({row.relative:.2f})" if row.relative is not None else ""
        cells[_line(row), row.share] = format_pcc(row.fall) + multiple
    return f"what it costs, in brackets as a multiple of {against}:\n" + _table(rows, cells)


Line = tuple[str, str, str, int]


def _line(row: RobustnessRow) -> Line:
    return row.model, row.modality, row.how, row.clips


def _table(rows: list[RobustnessRow], cells: dict[tuple[Line, float], str]) -> str:
    shares = list(dict.fromkeys(row.share for row in rows))
    width, column = max([5, *(len(row.model) for row in rows)]), max([6, *map(len, cells.values())]) + 2
    text = [
        f"{'model':<{width}}  {'modality':<8} {'is':<8} {'clips':>5}  " + "".join(f"{s:>{column}.0%}" for s in shares)
    ]
    for line in dict.fromkeys(map(_line, rows)):
        model, modality, how, clips = line
        each = "".join(f"{cells[line, share]:>{column}}" for share in shares)
        text.append(f"{model:<{width}}  {modality:<8} {how:<8} {clips:>5}  {each}")
    return "\n".join(text)
