"""Predictions of encoded clips: no media are read and no encoder runs."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import MODALITIES
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.data.features import FeatureDataset, FeatureSample
from stage2_fusion.inference import run_model
from stage2_fusion.prediction.familiarity import present_in
from stage2_fusion.prediction.predicting import Predictions
from stage2_fusion.prediction.result import NOTHING, Window
from stage2_fusion.prediction.summaries import SummaryRecorder

if TYPE_CHECKING:
    from stage2_fusion.models.base import FusionModel


def predict_features(
    model: "FusionModel", data: str | Path, split: str | None = None, batch_size: int = 64
) -> Predictions:
    """Predict the clips of a feature dataset, or of one split of it, like `emit evaluate`: each clip is one window,
    whatever its length. Damaged views are left out, and labels are not read.

    A clip without any features is predicted, as in an evaluation, and also listed as a failure. UserError when there is
    no such split, or when the model cannot read the features.
    """
    config = model.config
    assert config is not None
    config.check_inputs(read_info(Path(data)), Path(data))
    dataset = FeatureDataset.open(data, split, views=(0,), max_sequence_steps=config.max_sequence_steps)
    samples = sorted(dataset.samples, key=lambda sample: sample.id)
    with SummaryRecorder(model) as recorder:
        result = run_model(model, samples, batch_size, explain=True)
    values = config.scale.values(np.clip(result.predictions, 0, 1))  # (N, K)
    windows = [
        Window(sample.id, 0.0, sample.duration, row, steps, _present_quality(sample))
        for sample, row, steps in zip(samples, values, result.steps, strict=True)
    ]
    seen = recorder.summaries()
    distances = model.calibration.familiarity.measure(seen) if model.calibration else None  # (N, V)
    reads = present_in(seen)  # (N, 3)
    for row, window in enumerate(windows):
        window.distances = None if distances is None else distances[row]
        window.read = tuple(name for name, read in zip(MODALITIES, reads[row], strict=True) if read)
    failures = [(window.clip, f"{NOTHING}; predicted without input") for window in windows if not window.quality]
    return Predictions(config, model.calibration, windows, failures)


def _present_quality(sample: FeatureSample) -> dict[str, np.ndarray]:
    return {name: sample.modality(name).quality for name in MODALITIES if sample.modality(name).steps}
