"""`emit predict`: intensities of media files, from a model folder alone."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from shared import config as configuration
from shared.media.remarks import summarize
from shared.options.outputs import OutputPredictions
from shared.options.ranges import BatchSize, CheckedOptions, Coverage, Seconds

if TYPE_CHECKING:
    import numpy as np

    from stage2_fusion.prediction.predicting import Predictions
    from stage2_fusion.predictor import Predictor


@dataclass
class PredictConfig(CheckedOptions):
    """Predict the intensities of media files."""

    clips: list[str]
    """Media files, folders of them and tables that list them, one or more of each. A clip that occurs twice is
    predicted once."""
    model: Path
    """Model folder (RUN/model)."""
    out: OutputPredictions = Path("predictions.csv")
    """One row per clip: Filename, then one column per dimension, in [0, 1] or in the `label_range` of the training
    clips."""
    encoders: Path | None = None
    """Aligned encoders; by default those inside the model folder."""
    blendshapes: Path | None = None
    """MediaPipe's face_landmarker.task, for a model that reads action units; by default the one inside its folder."""
    batch_size: BatchSize = 16
    """Windows per forward pass; the predictions do not depend on it."""
    window: Seconds | None = None
    """Seconds per window of the timeline; by default the longest that a training clip could be."""
    detector: str | None = None
    """Face detector, as in `emit prepare`; by default that of the training clips."""
    transcribe: str | None = None
    """Whisper folder, as in `emit prepare`; by default that of the training clips, "" for none."""
    coverage: Coverage | None = None
    """Also write an interval for each value, NAME_low and NAME_high: the label lies in it with this probability, such
    as 0.9, for people like those of the training data."""
    explain: bool = False
    """Also write OUT_explained.jsonl, as `emit evaluate` does, with a line for each window."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        PredictConfig,
        argv,
        prog="emit predict",
        example="emit predict --model runs/demo/fuse/model clip.mp4 another.webm --out predictions.csv",
        positional=("clips",),
    )
    return 0 if predict(config) else 1


def predict(config: PredictConfig) -> int:
    """Write predictions and the files beside them (prediction/writing.py); returns the number of clips predicted.

    A clip is predicted in windows as long as the longest clip in training; the timeline has a row for each, and the
    prediction of the clip is their mean, weighted by their lengths.
    """
    from stage2_fusion.prediction.basis import unlike_line
    from stage2_fusion.prediction.predicting import predict_clips
    from stage2_fusion.prediction.sources import read_clips
    from stage2_fusion.prediction.window_basis import bases_of
    from stage2_fusion.prediction.writing import write_predictions

    clips, failures = read_clips(config.clips)
    predictor = _load(config)
    if config.coverage is not None:
        predictor.require_calibration()
    predictions = predict_clips(predictor, clips, config.batch_size, failures)
    for name, reason in predictions.failures:
        print(f"{name}: {reason}", file=sys.stderr)
    for line in summarize(predictions.remarks):
        print(line, file=sys.stderr)
    signals, familiarity = predictor.config.quality, predictor.familiarity
    bases = bases_of(predictions.windows, signals, familiarity, predictions.given_words)
    if line := unlike_line(bases, familiarity):
        print(line, file=sys.stderr)
    bounds = _bounds(predictor, predictions, config.coverage) if config.coverage is not None else None
    write_predictions(config.out, predictions, config.explain, bases, bounds)
    count = len(predictions.by_clip())
    print(f"{config.out}: {count} clips predicted, {len(predictions.failures)} failed")
    return count


def _bounds(
    predictor: "Predictor", predictions: "Predictions", coverage: float
) -> "tuple[np.ndarray, np.ndarray] | None":
    """The intervals of the clips; says which dimensions have none."""
    import numpy as np

    from stage2_fusion.evaluation.conformal import unbounded_line

    intervals = predictor.require_calibration().intervals
    if line := unbounded_line(intervals, coverage, predictions.names):
        print(line, file=sys.stderr)
    values = list(predictions.by_clip().values())
    return predictor.bounds(np.stack(values), coverage) if values else None


def _load(config: PredictConfig) -> "Predictor":
    from stage2_fusion.predictor import Predictor, SyntheticModelWarning

    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always", SyntheticModelWarning)
        predictor = Predictor.from_pretrained(
            config.model,
            encoders=config.encoders,
            blendshapes=config.blendshapes,
            window=config.window,
            detector=config.detector,
            transcribe=config.transcribe,
        )
    for note in notes:
        if issubclass(note.category, SyntheticModelWarning):
            print(f"note: {note.message}", file=sys.stderr)
    return predictor


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
