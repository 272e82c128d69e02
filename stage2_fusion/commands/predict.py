"""`emit predict`: intensities of media files, from a model folder alone."""

import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared import config as configuration
from shared.files import write_csv
from shared.media.remarks import Remarks, all_lines, summarize
from shared.options.outputs import OutputPredictions
from shared.options.ranges import BatchSize, CheckedOptions, Seconds

if TYPE_CHECKING:
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
    """Write predictions (sorted by Filename, values on the scale of the training labels) and, beside them,
    OUT_timeline.csv, OUT_failures.csv and OUT_remarks.csv, what was repaired, chosen or left out; returns the number of
    clips predicted. A clip that cannot be read, or has neither picture nor sound nor words, is a failure; one that
    cannot be read to its end is both.

    A clip is predicted in windows as long as the longest clip in training; the timeline has a row for each, and the
    prediction of the clip is their mean, weighted by their lengths. Files are read in isolated processes, so that one
    that crashes or hangs its reader loses that file only.
    """
    from shared.dataset.prepare_dataset import prepare_each
    from stage2_fusion.evaluation.explain import write_explanations
    from stage2_fusion.prediction.preparing import collect_failures
    from stage2_fusion.prediction.result import NOTHING, UNKNOWN_WORDS, average_windows
    from stage2_fusion.prediction.sources import read_clips

    clips, failures = read_clips(config.clips)
    predictor = _load(config)
    unreadable: dict[str, str] = {}
    remarks: dict[str, Remarks] = {}
    prepared = collect_failures(prepare_each(clips, predictor.recipe), unreadable, remarks)
    windows = sorted(predictor.predict_windows(prepared, config.batch_size), key=lambda w: (w.clip, w.start))
    failures += unreadable.items()
    if predictor.encoders.text is not None:
        failures += [(name, UNKNOWN_WORDS) for name in dict.fromkeys(w.clip for w in windows if w.has_unknown_words())]
    unused = {clip.id for clip in clips} - {window.clip for window in windows} - set(unreadable)
    failures += [(name, NOTHING) for name in sorted(unused)]
    rows = [[name, *_format(values)] for name, values in average_windows(windows).items()]
    timeline = [[w.clip, f"{w.start:.3f}", f"{w.end:.3f}", *_format(w.values)] for w in windows]
    for name, reason in failures:
        print(f"{name}: {reason}", file=sys.stderr)
    for line in summarize(remarks):
        print(line, file=sys.stderr)
    out, names = config.out, predictor.config.label_names
    write_csv(out, ["Filename", *names], rows)
    write_csv(out.with_name(f"{out.stem}_timeline.csv"), ["Filename", "start", "end", *names], timeline)
    if config.explain:
        path = out.with_name(f"{out.stem}_explained.jsonl")
        write_explanations(path, [window.clip for window in windows], [window.steps for window in windows], names)
    write_csv(out.with_name(f"{out.stem}_failures.csv"), ["Filename", "reason"], [list(pair) for pair in failures])
    remark_rows = [[name, line] for name in sorted(remarks) for line in all_lines(remarks[name])]
    write_csv(out.with_name(f"{out.stem}_remarks.csv"), ["Filename", "remark"], remark_rows)
    print(f"{out}: {len(rows)} clips predicted, {len(failures)} failed")
    return len(rows)


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


def _format(values: np.ndarray) -> list[str]:
    return [f"{value:.6f}" for value in values]


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
