"""calibration.safetensors of a model folder: data for intervals and for the detection of unusual clips.

It holds numbers about clips without their names: residuals of the validation clips; distances of training and
validation clips, with the numbers of their groups; and the mean, principal directions and mean quality signals of the
training clips as the model sees them.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.saved.checksum import inside
from shared.terminal.messages import note
from shared.text import one_line
from stage2_fusion.evaluation.conformal import ConformalIntervals
from stage2_fusion.prediction.distances import UsualDistances, ViewReference
from stage2_fusion.prediction.familiarity import KEYS, Familiarity

if TYPE_CHECKING:
    from stage2_fusion.models.model_config import FusionConfig

FILE = "calibration.safetensors"
PARTS = ("mean", "components", "variances", "rest")
USUAL = ("signals", "scale", "distances")
SCORES = ("training", "training_groups", "validation", "validation_groups")


@dataclass(eq=False)
class Calibration:
    """The calibration of one model."""

    intervals: ConformalIntervals
    familiarity: Familiarity

    def tensors(self) -> dict[str, np.ndarray]:
        """The content of the file."""
        names = ("centers", "spreads", "scores", "groups")
        tensors = {f"intervals.{name}": getattr(self.intervals, name) for name in names}
        tensors |= {f"familiarity.{name}": getattr(self.familiarity, name) for name in SCORES}
        for view, reference in self.familiarity.references.items():
            tensors |= {f"familiarity.{view}.{name}": getattr(reference, name) for name in PARTS}
            usual = self.familiarity.usual[view]
            tensors |= {f"familiarity.{view}.usual_{name}": getattr(usual, name) for name in USUAL}
        return tensors

    def bounds(self, scale: LabelScale, values: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of the intervals of predictions (N, K), on their scale: float64 (N, K) each."""
        low, high = self.intervals.bounds(scale.fractions(values), coverage)
        return scale.values(low), scale.values(high)

    def write(self, folder: Path) -> None:
        """Write the file."""
        from safetensors.numpy import save_file

        save_file({name: np.ascontiguousarray(value) for name, value in self.tensors().items()}, folder / FILE)

    @classmethod
    def read(cls, folder: Path, config: "FusionConfig") -> "Calibration | None":
        """The calibration in a model folder; None, with a printed line, if it has another version, since predictions do
        not depend on it. A file that changed after saving has already been refused."""
        if not (folder / FILE).exists():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = inside(folder, FILE)
        try:
            return _from_tensors(load_file(path), config)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            note(
                f"{path}: of another version ({one_line(error, 100)}): intervals, and which clips are unlike the "
                "training data, are not known; train the model again (`emit fuse`)"
            )
            return None


def require_calibration(calibration: Calibration | None, model: Path | None) -> Calibration:
    """The calibration of a model. UserError if it has none."""
    if calibration is None:
        raise UserError(
            f"{model}: its intervals are not known: the model is of another version; train it again (`emit fuse`), "
            "or predict without --coverage"
        )
    return calibration


def _from_tensors(tensors: dict[str, np.ndarray], config: "FusionConfig") -> Calibration:
    """ValueError or KeyError unless the tensors fit each other and the model."""
    dimensions = len(config.label_names)

    def take(name: str, kind: Any, *shape: int | None, finite: bool = True) -> np.ndarray:
        value = tensors[name]
        fits = len(shape) == value.ndim and all(s in (None, n) for s, n in zip(shape, value.shape, strict=True))
        if value.dtype != kind or not fits:
            raise ValueError(f"{name} is {value.dtype} {list(value.shape)}")
        if np.isinf(value).any() or (finite and np.isnan(value).any()):
            raise ValueError(f"{name} holds values that are not finite")
        return value

    centers = take("intervals.centers", np.float32, dimensions, None)  # (K, B)
    scores = take("intervals.scores", np.float32, None, dimensions, finite=False)  # (N, K)
    intervals = ConformalIntervals(
        centers,
        take("intervals.spreads", np.float32, dimensions, centers.shape[1]),
        scores,
        take("intervals.groups", np.int32, len(scores)),
    )
    views = [view for view in KEYS if f"familiarity.{view}.mean" in tensors]
    return Calibration(intervals, _familiarity(take, config, views))


def _familiarity(take: Callable[..., np.ndarray], config: "FusionConfig", views: Collection[str]) -> Familiarity:
    """ValueError or KeyError unless the tensors fit each other and the model. take(name, dtype, *shape) gives a
    tensor."""
    widths = {f"{name}.signals": len(config.quality[name]) + 1 for name in MODALITIES}
    widths |= {f"{name}.features": config.widths["embed"] + config.widths[name] for name in MODALITIES}
    references, usual = {}, {}
    for view in views:
        prefix = f"familiarity.{view}"
        mean = take(f"{prefix}.mean", np.float32, widths[view])  # (d,)
        variances = take(f"{prefix}.variances", np.float32, None)  # (r,)
        components = take(f"{prefix}.components", np.float32, len(variances), len(mean))
        rest = take(f"{prefix}.rest", np.float32, 1)
        references[view] = ViewReference(mean, components, variances, rest)
        if np.concatenate([variances, rest]).min() <= 0:
            raise ValueError(f"{prefix}.variances are not positive")
        distances = take(f"{prefix}.usual_distances", np.float32, None)  # (m,)
        if not len(distances):
            raise ValueError(f"{prefix}.usual_distances is empty")
        conditions = widths[view.replace("features", "signals")] if view.endswith("features") else 0
        scale = take(f"{prefix}.usual_scale", np.float32, conditions)  # (q,)
        signals = take(f"{prefix}.usual_signals", np.float32, len(distances), conditions)
        usual[view] = UsualDistances(signals, scale, distances)
    training = take("familiarity.training", np.float32, None, len(KEYS), finite=False)  # (M, V)
    training_groups = take("familiarity.training_groups", np.int32, len(training))
    validation = take("familiarity.validation", np.float32, None, len(KEYS), finite=False)  # (N, V)
    validation_groups = take("familiarity.validation_groups", np.int32, len(validation))
    return Familiarity(references, usual, training, training_groups, validation, validation_groups)
