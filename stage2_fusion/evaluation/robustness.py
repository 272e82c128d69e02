"""How PCC falls as a modality is damaged or missing in more and more clips."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.metrics import bootstrap_pcc, interval, mean_over_dimensions, pcc, scorable
from shared.terminal.progress import track
from shared.training.sampling import derive_seed
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.evaluation.scoring import format_pcc


@dataclass(frozen=True)
class Protocol:
    """Which clips become worse, and how scores are averaged."""

    shares: list[float]
    """Shares of the clips that are worse; the clips of a smaller share are among those of a larger one."""
    orders: int
    """Random orders in which clips become worse, over which PCC is averaged."""
    resamples: int
    """Bootstrap samples behind the intervals."""
    seed: int


@dataclass(frozen=True)
class RobustnessRow:
    """PCC when a share of the clips is worse."""

    model: str
    modality: str
    how: str
    """damaged or missing."""
    share: float
    clips: int
    """Clips that have the modality and, for damaged, a view in which it alone is damaged."""
    pcc: float | None
    """Of all these clips, mean over dimensions and orders; None when their labels allow none."""
    low: float | None
    high: float | None
    """95 % interval of `pcc`; None without bootstrap samples, or for clips of one group alone."""
    fall: float | None
    """PCC of the undamaged clips less `pcc`."""
    fall_low: float | None
    fall_high: float | None
    """95 % interval of `fall`, paired."""
    per_dimension: dict[str, float | None]
    """None for a dimension whose labels allow no PCC."""


@dataclass(frozen=True)
class Curve:
    """Predictions of the same clips before and after one modality became worse."""

    clean: np.ndarray
    worse: np.ndarray
    labels: np.ndarray
    """(M, K) each; labels with NaN = not labeled."""
    groups: np.ndarray
    """(M,)."""
    orders: list[np.ndarray]
    """Permutations (M,) by which clips become worse."""

    def score(self, share: float, protocol: Protocol) -> tuple[np.ndarray, np.ndarray]:
        """PCC (K',) of the dimensions whose labels allow one when `share` of the clips is worse, mean over orders, and
        bootstrap samples (R,) of its mean over dimensions."""
        known = scorable(self.labels)
        labels, count = self.labels[:, known], round(share * len(self.labels))
        values, draws = [], []
        for order in self.orders if 0 < count < len(labels) else self.orders[:1]:
            mixed = self.clean.copy()
            mixed[order[:count]] = self.worse[order[:count]]
            mixed = mixed[:, known]  # (M, K')
            values.append([pcc(mixed[:, k], labels[:, k]) for k in range(len(known))])
            drawn = bootstrap_pcc(mixed, labels, self.groups, protocol.resamples, protocol.seed)
            draws.append(mean_over_dimensions(drawn))
        return np.mean(values, axis=0), np.mean(draws, axis=0)


def robustness_rows(
    model: str,
    predict: Callable[[list[FeatureSample]], np.ndarray],
    clips: list[dict[int, FeatureSample]],
    groups: list[str],
    names: list[str],
    protocol: Protocol,
) -> list[RobustnessRow]:
    """The rows of one model: for each modality, PCC when it is damaged or missing in a share of the clips.

    predict: samples to predictions (N, K); clips: {view: sample} of each clip, view 0 undamaged; groups: of each clip;
    names: the K dimensions.
    """
    clean = [views[0] for views in clips]
    labels = np.stack([sample.labels for sample in clean])  # (N, K)
    predictions, rows = predict(clean), []  # (N, K)
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
            ids = [clean[i].id for i in used]
            curve = Curve(
                predictions[used],
                predict(list(worse.values())),
                labels[used],
                np.array(groups)[used],
                [damage_order(protocol.seed, order, modality, ids) for order in range(protocol.orders)],
            )
            rows += _curve_rows(curve, model, modality, how, names, protocol)
    return rows


def damaged_view(views: dict[int, FeatureSample], modality: str) -> FeatureSample | None:
    """The first view in which this modality alone is damaged, if there is one."""
    for number in sorted(views):
        if [name for name in MODALITIES if views[number].damage[name]] == [modality]:
            return views[number]
    return None


def damage_order(seed: int, order: int, modality: str, ids: list[str]) -> np.ndarray:
    """The order (N,) in which the clips become worse: a function of seed, order, modality and ids."""
    return np.argsort([derive_seed("robustness", seed, order, modality, name) for name in ids])


def robustness_table(rows: list[RobustnessRow]) -> str:
    """PCC at each share, one line for each model, modality and kind of loss."""
    shares = list(dict.fromkeys(row.share for row in rows))
    lines: dict[tuple[str, str, str, int], dict[float, float | None]] = {}
    for row in rows:
        lines.setdefault((row.model, row.modality, row.how, row.clips), {})[row.share] = row.pcc
    width = max([5, *(len(model) for model, *_ in lines)])
    text = [f"{'model':<{width}}  {'modality':<8} {'is':<8} {'clips':>5}  " + "".join(f"{s:>8.0%}" for s in shares)]
    for (model, modality, how, clips), values in lines.items():
        each = "".join(f"{format_pcc(values[share]):>8}" for share in shares)
        text.append(f"{model:<{width}}  {modality:<8} {how:<8} {clips:>5}  {each}")
    return "\n".join(text)


def _curve_rows(
    curve: Curve, model: str, modality: str, how: str, names: list[str], protocol: Protocol
) -> list[RobustnessRow]:
    clean, clean_draws = curve.score(0.0, protocol)
    rows = []
    for share in track(protocol.shares, f"robustness: {model}, {modality} {how}", "shares"):
        values, draws = curve.score(share, protocol)
        low, high = interval(draws) or (None, None)
        fall_low, fall_high = interval(clean_draws - draws) or (None, None)
        each: dict[str, float | None] = dict.fromkeys(names)
        each |= {names[k]: float(value) for k, value in zip(scorable(curve.labels), values, strict=True)}
        rows.append(
            RobustnessRow(
                model=model,
                modality=modality,
                how=how,
                share=share,
                clips=len(curve.labels),
                pcc=float(values.mean()) if len(values) else None,
                low=low,
                high=high,
                fall=float((clean - values).mean()) if len(values) else None,
                fall_low=fall_low,
                fall_high=fall_high,
                per_dimension=each,
            )
        )
    return rows
