"""Calibrate a trained model on its validation split: its intervals, and which clips are unlike its training clips."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from shared.terminal.messages import note
from stage2_fusion.data.batches import Batch
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.evaluation.conformal import ConformalIntervals
from stage2_fusion.evaluation.doubts import flat_line
from stage2_fusion.evaluation.scoring import clip_groups
from stage2_fusion.finetune import EndToEndModel, MakeBatch
from stage2_fusion.inference import run_model
from stage2_fusion.models.base import FusionModel
from stage2_fusion.models.calibration import Calibration
from stage2_fusion.prediction.familiarity import Familiarity, Summaries
from stage2_fusion.prediction.summaries import SummaryRecorder

MAX_CLIPS = 4096
"""Most training clips to use, evenly spread: more take time and change neither curve nor covariance."""
BATCH_SIZE = 64


def calibrate(
    model: FusionModel | EndToEndModel,
    training: Sequence[FeatureSample],
    make_training_batch: MakeBatch,
    validation: Sequence[FeatureSample],
    make_validation_batch: MakeBatch,
    group_names: list[str],
    names: list[str],
) -> Calibration:
    """The calibration of a model, in evaluation mode. Prints a line if the model predicts nearly the same for all
    clips.

    training: its undamaged training clips; validation: clips of groups that it was not trained on, with labels of its
    dimensions. make_training_batch(rows), make_validation_batch(rows): the batch of these rows. group_names: kinds of
    groups; the first one counts. names: of the dimensions.

    The validation clips also selected the epoch, which makes their residuals smaller than those of other clips, but by
    far less than the differences between people (tests/benchmarks/interval_coverage.py).
    """
    chosen = np.unique(np.linspace(0, len(training) - 1, min(MAX_CLIPS, len(training))).round().astype(int))
    seen = [training[row] for row in chosen]

    def make_batch(rows: Sequence[int] | np.ndarray, device: torch.device | str | None = None) -> Batch:
        return make_training_batch(chosen[np.asarray(rows)], device)

    training_predictions, training_summaries = _run(model, seen, make_batch)
    predictions, summaries = _run(model, list(validation), make_validation_batch)
    groups, training_groups = (clip_groups(list(clips), None, group_names)[1] for clips in (validation, seen))
    labels, training_labels = (np.stack([clip.labels for clip in clips]) for clips in (validation, seen))
    if line := flat_line(predictions, names, labels):
        note(line)
    return Calibration(
        ConformalIntervals.fit(training_predictions, training_labels, predictions, labels, groups),
        Familiarity.fit(training_summaries, training_groups, summaries, groups),
    )


def _run(
    model: FusionModel | EndToEndModel, samples: list[FeatureSample], make_batch: MakeBatch
) -> tuple[np.ndarray, Summaries]:
    """Predictions (N, K) and summaries of the model's inputs."""
    with SummaryRecorder(model.fusion if isinstance(model, EndToEndModel) else model) as recorder:
        predictions = run_model(model, samples, BATCH_SIZE, make_batch).predictions
    return predictions, recorder.summaries()


def load_best(folder: Path, trained: FusionModel | EndToEndModel) -> FusionModel | EndToEndModel:
    """The model of a model folder, with the encoders in it if `trained`, the model of the same run, trains its
    towers."""
    device = next(trained.parameters()).device
    best = FusionModel.from_pretrained(folder)
    return (trained.with_saved(best) if isinstance(trained, EndToEndModel) else best).to(device)
