"""calibration.safetensors of a model folder: what the validation clips say about intervals and unusual clips.

It holds numbers about clips without their names: residuals and distances of the validation clips with the number of
their group, and the mean and main directions of what the model sees of the training clips.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.saved.checksum import inside
from shared.text import one_line
from stage2_fusion.evaluation.conformal import ConformalIntervals
from stage2_fusion.prediction.familiarity import KEYS, Familiarity, ViewReference

FILE = "calibration.safetensors"
PARTS = ("mean", "components", "variances", "rest")


@dataclass(eq=False)
class Calibration:
    """Of one model."""

    intervals: ConformalIntervals
    familiarity: Familiarity

    def tensors(self) -> dict[str, np.ndarray]:
        """The content of the file."""
        names = ("centers", "spreads", "scores", "groups")
        tensors = {f"intervals.{name}": getattr(self.intervals, name) for name in names}
        tensors |= {f"familiarity.{name}": getattr(self.familiarity, name) for name in ("distances", "groups")}
        for view, reference in self.familiarity.references.items():
            tensors |= {f"familiarity.{view}.{name}": getattr(reference, name) for name in PARTS}
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
    def read(cls, folder: Path, dimensions: int, how: str) -> "Calibration | None":
        """The calibration in a model folder of K dimensions; None for a model of an earlier version. UserError if it is
        damaged; `how` says what to do then."""
        if not (folder / FILE).exists():
            return None
        from safetensors import SafetensorError
        from safetensors.numpy import load_file

        path = inside(folder, FILE)
        try:
            return _from_tensors(load_file(path), dimensions)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise UserError(f"{path}: damaged ({one_line(error, 200)}); {how}") from None


def require_calibration(calibration: Calibration | None, model: Path | None) -> Calibration:
    """The calibration of a model. UserError if it has none."""
    if calibration is None:
        raise UserError(
            f"{model}: its intervals are not known: the model is of an earlier version; train it again (`emit fuse`), "
            "or predict without --coverage"
        )
    return calibration


def _from_tensors(tensors: dict[str, np.ndarray], dimensions: int) -> Calibration:
    """ValueError or KeyError unless the tensors fit each other."""

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
    references = {}
    for view in KEYS:
        prefix = f"familiarity.{view}"
        if f"{prefix}.mean" in tensors:
            mean = take(f"{prefix}.mean", np.float32, None)  # (d,)
            variances = take(f"{prefix}.variances", np.float32, None)  # (r,)
            components = take(f"{prefix}.components", np.float32, len(variances), len(mean))
            references[view] = ViewReference(mean, components, variances, take(f"{prefix}.rest", np.float32, 1))
    distances = take("familiarity.distances", np.float32, None, len(KEYS), finite=False)  # (M, V)
    groups = take("familiarity.groups", np.int32, len(distances))
    return Calibration(intervals, Familiarity(references, distances, groups))
