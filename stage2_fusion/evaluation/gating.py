"""A gate over the predictions of systems that read single modalities, as in the source of quality_gated.

Source: predictions are calibrated on the training clips, by a slope of at least 0 and an offset for each modality and
dimension; PredictionGate; 1 - PCC over 512 clips, AdamW with a weight decay of 0.01 and a learning rate of 5e-4 that
follows a cosine over 200 epochs, the best of which is chosen on the validation clips that are scored; a modality with
fewer than five steps is missing. Here the predictions are of clips that their systems were not trained on, the epoch
is chosen on a fifth of the groups of those clips, and one step is enough.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.metrics import pcc, scorable
from shared.text import counted
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.data.features import read_clips
from stage2_fusion.data.quality_samples import read_quality
from stage2_fusion.evaluation.ensembling import group_folds
from stage2_fusion.evaluation.same_clips import ClipSet, shared_clips
from stage2_fusion.evaluation.stacks import Stack

if TYPE_CHECKING:
    import torch

    from stage2_fusion.models.layers.gate import PredictionGate

WIDTH, LR, WEIGHT_DECAY, BATCH_SIZE, EPOCHS, PATIENCE = 32, 5e-4, 0.01, 512, 200, 30
SMALLEST_GAIN = 1e-4
"""All as published; an epoch whose PCC is higher by less is no better."""


@dataclass
class Calibration:
    """A slope and an offset for each dimension and system, (K, M) each, and the mean and deviation of the labels, (K,)
    each, for standardization."""

    slopes: np.ndarray
    offsets: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def fit(cls, predictions: np.ndarray, labels: np.ndarray, present: np.ndarray) -> "Calibration":
        """Least squares on the clips with a label and the modality of the system: (N, K, M), (N, K), (N, M)."""
        _, dimensions, systems = predictions.shape
        slopes, offsets = np.zeros((dimensions, systems)), np.zeros((dimensions, systems))
        mean, deviation = np.zeros(dimensions), np.ones(dimensions)
        for k in range(dimensions):
            known = ~np.isnan(labels[:, k])
            if known.any():
                mean[k], deviation[k] = labels[known, k].mean(), max(float(labels[known, k].std()), 1e-3)
            for m in range(systems):
                rows = known & present[:, m]
                x, y = predictions[rows, k, m], labels[rows, k]
                spread = float(((x - x.mean()) ** 2).sum()) if rows.any() else 0.0
                slope = max(0.0, float((x - x.mean()) @ (y - y.mean())) / spread) if spread > 1e-12 else 0.0
                slopes[k, m] = slope
                offsets[k, m] = y.mean() - slope * x.mean() if rows.any() else mean[k]
        return cls(slopes, offsets, mean, deviation)

    def standardized(self, predictions: np.ndarray) -> np.ndarray:
        """(N, K, M) -> (N, K, M)."""
        calibrated = predictions * self.slopes + self.offsets
        return (calibrated - self.mean[:, None]) / self.deviation[:, None]


class Gated:
    """Predictions weighted by a gate; `weights` are the means over its training clips, 0 for a missing modality."""

    def __init__(self, stack: Stack, labels: np.ndarray, groups: list[str], seed: int):
        import torch

        from stage2_fusion.models.layers.gate import PredictionGate

        assert stack.present is not None
        self.calibration = Calibration.fit(stack.predictions, labels, stack.present)
        self.centers, self.scales = zip(
            *(_center_and_scale(part[stack.present[:, m]]) for m, part in enumerate(stack.quality)), strict=True
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            gate = PredictionGate(labels.shape[1], [part.shape[1] for part in stack.quality], WIDTH)
            self.gate = self._train(gate, stack, labels, groups)
        _, weights = self._run(stack)  # (N, M, K)
        present = stack.present[..., None]  # (N, M, 1)
        self.weights = ((weights * present).sum(axis=0) / max(1, present.any(axis=1).sum())).T  # (K, M), rows sum to 1

    def __call__(self, stack: Stack) -> np.ndarray:
        standardized, _ = self._run(stack)  # (N, K)
        return np.clip(standardized * self.calibration.deviation + self.calibration.mean, 0, 1)

    def _inputs(self, stack: Stack) -> "tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]":
        import torch

        assert stack.present is not None
        predictions = torch.from_numpy(self.calibration.standardized(stack.predictions)).float().transpose(1, 2)
        quality = [
            torch.from_numpy((part - center) * scale * stack.present[:, m, None]).float().clamp(-10, 10)
            for m, (part, center, scale) in enumerate(zip(stack.quality, self.centers, self.scales, strict=True))
        ]
        return predictions.contiguous(), quality, torch.from_numpy(stack.present)

    def _run(self, stack: Stack) -> tuple[np.ndarray, np.ndarray]:
        """Standardized predictions (N, K) and weights (N, M, K)."""
        import torch

        with torch.no_grad():
            prediction, weights = self.gate(*self._inputs(stack))
        return prediction.double().numpy(), weights.double().numpy()

    def _train(self, gate: "PredictionGate", stack: Stack, labels: np.ndarray, groups: list[str]) -> "PredictionGate":
        """The gate of the epoch with the highest PCC on a fifth of the groups."""
        import torch

        from stage2_fusion.losses import correlations

        held_out = held_out_groups(groups)
        predictions, quality, present = self._inputs(stack.rows(~held_out))
        y = torch.from_numpy(labels[~held_out]).float()  # (N, K)
        optimizer = torch.optim.AdamW(gate.parameters(), lr=LR, weight_decay=WEIGHT_DECAY)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
        best, best_pcc, waited = copy.deepcopy(gate), -np.inf, 0
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(y)).split(BATCH_SIZE):
                fused, _ = gate(predictions[rows], [part[rows] for part in quality], present[rows])
                values, _, varies = correlations(fused, y[rows])  # (K,)
                optimizer.zero_grad()
                (((1 - values) * varies).sum() / varies.sum().clamp(min=1)).backward()
                optimizer.step()
            schedule.step()
            self.gate = gate
            reached = _mean_pcc(self._run(stack.rows(held_out))[0], labels[held_out])
            if reached > best_pcc + SMALLEST_GAIN:
                best, best_pcc, waited = copy.deepcopy(gate), reached, 0
            elif (waited := waited + 1) >= PATIENCE:
                break
        return best


def held_out_groups(groups: list[str]) -> np.ndarray:
    """The clips of a fifth of the groups, bool (N,)."""
    return group_folds(groups) == 0


def learn_gate(stack: Stack, labels: np.ndarray, groups: list[str], seed: int = 0) -> Gated:
    """A gate trained on these clips. UserError when no dimension has labels that allow a PCC, among the clips that
    train it or those that select the epoch."""
    held_out = held_out_groups(groups)
    for clips, part in (("teach the gate", ~held_out), ("choose the epoch of the gate", held_out)):
        if not scorable(labels[part]):
            raise UserError(f"the clips that {clips} have too few labels, or all equal ones; take --method average")
    return Gated(stack, labels, groups, seed)


def member_quality(
    path: Path, clips: ClipSet, modalities: Sequence[Sequence[str]]
) -> tuple[list[np.ndarray], np.ndarray]:
    """The mean quality signals of the modality that each system reads, M of float64 (N, Q), and whether each clip has
    it, bool (N, M).

    path: a feature dataset, in which the clips are found by content, otherwise by id. modalities: what each system
    reads. UserError for a clip that the dataset lacks."""
    found = shared_clips(clips, ClipSet.encoded(read_clips(path), read_info(path)))
    name_of = dict(zip(clips.ids, clips.ids, strict=True)) if found is None else found
    samples = {sample.id: sample for sample in read_quality(path, name_of.values()) if sample.view == 0}
    missing = [name for name in clips.ids if name_of.get(name) not in samples]
    if missing:
        raise UserError(
            f"{path}: lacks {counted(len(missing), 'clip')} of the predictions, such as {missing[0]}; give the "
            "features that hold them all"
        )
    signals, present = [], []
    for names in modalities:
        parts = [[samples[name_of[clip]].quality[name] for name in names] for clip in clips.ids]
        signals.append(np.array([np.concatenate([_mean(part) for part in row]) for row in parts], dtype=np.float64))
        present.append([any(len(part) for part in row) for row in parts])
    return signals, np.array(present).T


def read_modalities(model: str, configuration: dict | None, where: object) -> list[str]:
    """The modalities that a system reads, by its name and options. UserError if it is not a fusion model."""
    from stage2_fusion.models import MODELS

    allowed = (configuration or {}).get("modalities")
    if not isinstance(allowed, list) or (model not in MODELS.names() and ":" not in model):
        raise UserError(
            f"{where}: {model} is not a fusion model, and --method gate needs its inputs; take --method ridge"
        )
    return [name for name in MODALITIES if name in allowed and name in MODELS.get(model).reads]


def _mean(part: np.ndarray) -> np.ndarray:
    """(T, Q) -> (Q,), zeros without steps."""
    return part.mean(axis=0) if len(part) else np.zeros(part.shape[1])


def _center_and_scale(signals: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and 1 / deviation of signals (N, Q): (Q,) each."""
    if not len(signals):
        return np.zeros(signals.shape[1]), np.ones(signals.shape[1])
    return signals.mean(axis=0), 1 / signals.std(axis=0).clip(min=1e-3)


def _mean_pcc(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean PCC over the dimensions with labels that allow one; 0 if there are none."""
    values = [pcc(predictions[:, k], labels[:, k]) for k in range(labels.shape[1])]
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.mean(known)) if known else 0.0
