"""`emit predict`: intensities of clips, from media files and only a model folder, or from encoded clips."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from shared import config as configuration
from shared.files import digest
from shared.media.remarks import summarize
from shared.options.outputs import OutputPredictions
from shared.options.ranges import Coverage
from shared.terminal.closing import closing
from shared.terminal.messages import note
from shared.terminal.results import result
from shared.text import counted
from stage2_fusion.prediction.run import MediaOptions, model_folder, predict_encoded, predict_sources

if TYPE_CHECKING:
    import numpy as np

    from stage2_fusion.prediction.predicting import Predictions


@dataclass(kw_only=True)
class PredictConfig(MediaOptions):
    """Predict the intensities of clips."""

    COMMON: ClassVar[tuple[str, ...]] = ("model", "data", "split", "out", "layout", "coverage", "explain")

    clips: list[str] = field(default_factory=list)
    """One or more media files, folders of media files, or tables that list them. A clip that occurs twice is predicted
    once."""
    model: Path
    """Model folder (RUN/model)."""
    data: Path | None = None
    """Feature dataset (`emit encode`) with the clips to predict, in place of media; damaged views are left out."""
    split: str | None = None
    """Predict only the clips of this split, such as test; by default all."""
    out: OutputPredictions = Path("predictions.csv")
    """One row per clip: Filename, then one column per dimension, in [0, 1] or in the `label_range` of the training
    clips."""
    coverage: Coverage | None = None
    """Also write an interval for each value, NAME_low and NAME_high, that contains the label with this probability,
    such as 0.9, for people like those in the training data."""
    explain: bool = False
    """Also write OUT_explained.jsonl, like `emit evaluate`, with a line per window."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.clips and self.data is None:
            raise ValueError("clips are missing: give media files, folders or tables, or --data with encoded clips")
        if self.data is not None:
            if self.clips:
                raise ValueError("data: give media or --data, not both")
            self.refuse_with_features()


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        PredictConfig,
        argv,
        prog="emit predict",
        example="emit predict --model runs/demo/fuse/model clip.mp4 another.webm --out predictions.csv",
        positional=("clips",),
    )
    count = predict(config)
    closing([config.out])
    return 0 if count else 1


def predict(config: PredictConfig) -> int:
    """Write predictions and the files beside them (prediction/writing.py); returns the number of clips predicted.

    A clip is predicted in windows as long as the longest clip in training. The timeline has a row per window, and the
    prediction of the clip is the mean of its windows, weighted by length.
    """
    from stage2_fusion.models.calibration import FILE, require_calibration
    from stage2_fusion.prediction.basis import unlike_line
    from stage2_fusion.prediction.writing import write_predictions

    model = model_folder(config.model)
    if config.coverage is not None and (model / "config.json").exists() and not (model / FILE).exists():
        require_calibration(None, model)
    if config.data is not None:
        predictions = predict_encoded(model, config.data, config.split, config.batch_size)
    else:
        predictions = predict_sources(config.clips, model, config, config.split)
    for name, reason in predictions.failures:
        note(f"{name}: {reason}")
    for line in summarize(predictions.remarks):
        note(line)
    if flat := _flat_line(predictions):
        note(flat)
    bases = predictions.bases()
    if line := unlike_line(bases, predictions.calibration.familiarity if predictions.calibration else None):
        note(line)
    bounds = _bounds(predictions, config.coverage, model) if config.coverage is not None else None
    made_from = {
        "model": str(config.model),
        "model_digest": digest(model / "model.safetensors"),
        "system": predictions.about.model,
        "configuration": predictions.about.options,
        "clips": config.clips,
        "data": str(config.data) if config.data else None,
        "split": config.split,
    }
    write_predictions(config.out, predictions, config.explain, bases, bounds, made_from)
    values = predictions.by_clip()
    result(
        f"{config.out}: {counted(len(values), 'clip')} predicted, {len(predictions.failures)} failed",
        {
            "clips": {name: dict(zip(predictions.names, row, strict=True)) for name, row in values.items()},
            "failures": [{"clip": name, "reason": reason} for name, reason in predictions.failures],
        },
    )
    return len(values)


def _flat_line(predictions: "Predictions") -> str | None:
    """A line if the model predicts nearly the same for all clips."""
    import numpy as np

    from stage2_fusion.evaluation.doubts import flat_line

    values = list(predictions.by_clip().values())
    scale = predictions.about.scale
    return flat_line(np.stack(values), predictions.names, span=scale.highest - scale.lowest) if values else None


def _bounds(predictions: "Predictions", coverage: float, model: Path) -> "tuple[np.ndarray, np.ndarray] | None":
    """The intervals of the clips; says which dimensions have none."""
    import numpy as np

    from stage2_fusion.evaluation.conformal import unbounded_line
    from stage2_fusion.models.calibration import require_calibration

    calibration = require_calibration(predictions.calibration, model)
    if line := unbounded_line(calibration.intervals, coverage, predictions.names):
        note(line)
    values = list(predictions.by_clip().values())
    return calibration.bounds(predictions.about.scale, np.stack(values), coverage) if values else None


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
