"""`emit submit`: write a submission for a challenge's split, or check whether one will be accepted."""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from shared import config as configuration
from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.files import write_csv, write_text
from shared.options.outputs import OutputSubmission, check_output_file
from shared.terminal.closing import closing, given
from shared.terminal.messages import note
from shared.terminal.results import result
from shared.text import counted
from stage2_fusion.models.model_config import FusionConfig
from stage2_fusion.prediction.run import MediaOptions, model_folder, predict_encoded, predict_media
from stage2_fusion.prediction.sources import Reading, read_folder_or_table, select_split, source_notes
from stage2_fusion.prediction.submission import Asked, Submission, check_submission, make_submission
from stage2_fusion.prediction.tables import read_prediction_table


@dataclass(kw_only=True)
class SubmitConfig(MediaOptions):
    """Write the predictions of all clips of a split in the format of a challenge: the ids and columns of the dataset,
    sorted, in the range of the labels. Or check such a file."""

    COMMON: ClassVar[tuple[str, ...]] = ("model", "data", "predictions", "check", "split", "out", "layout")

    source: Path = field()
    """The dataset as distributed, or a table of its clips."""
    model: Path | None = None
    """Model folder (RUN/model)."""
    data: Path | None = None
    """Feature dataset with the clips of the split, to predict from features instead of media."""
    predictions: Path | None = None
    """Predictions to submit (`emit predict`, `emit ensemble`), instead of a model."""
    check: Path | None = None
    """Submission to check; nothing is written."""
    split: str = "test"
    """Split to submit. "" takes every clip."""
    out: OutputSubmission | None = None
    """CSV file to write, by default submission.csv; OUT_filled.csv lists the clips that got a fallback."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.check is None and (self.model is None) == (self.predictions is None):
            raise ValueError(
                "model: give --model, or --predictions with a file of predictions, or --check with a submission"
            )
        if self.check is not None and self.out is not None:
            raise ValueError("out: --check writes nothing; leave out --out, or --check")
        if self.data is not None and self.model is None:
            raise ValueError("data: features need the --model that predicts from them")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        SubmitConfig,
        argv,
        prog="emit submit",
        example="emit submit Hume-Vidmimic2 --model runs/fuse/model --data runs/features --out submission.csv",
        positional=("source",),
    )
    if config.model is not None:
        config.model = model_folder(config.model)
    about = None if config.model is None else FusionConfig.read(config.model)
    asked = read_asked(config, about)
    if config.check is not None:
        return 0 if _check(config.check, asked, config.split) else 1
    out = config.out or Path("submission.csv")
    submit(config, asked, about, out)
    layout = given(config, "layout", "layout_options", "split")
    closing([out], [("submit", config.source, "--check", out, *layout)])
    return 0


def read_asked(config: SubmitConfig, about: FusionConfig | None) -> Asked:
    """What a submission for this split of the source must contain."""
    layout = about.layout if about else None
    reading = Reading(config.layout, config.layout_options, config.split, layout, config.model)
    read, name = read_folder_or_table(config.source, reading)
    read = select_split(read, name, reading, config.source)
    for line in source_notes(read, config.source):
        note(line)
    if about is None and config.predictions is not None:
        table = read_prediction_table(config.predictions)
        return Asked.of(read, table.names, table.scale.to_json() if table.scale else None)
    return Asked.of(read, about.label_names if about else (), about.label_ranges if about else None)


def submit(config: SubmitConfig, asked: Asked, about: FusionConfig | None, out: Path) -> Submission:
    """Write the submission. UserError when no clip of the split is predicted."""
    check_output_file(out)
    names, predictions, reasons = _predict(config, asked, about)
    submission = make_submission(asked, names, predictions, about.trained_on.mean_labels if about else None)
    for line in submission.notes:
        note(line)
    write_text(out, submission.text())
    filled = [[name, reasons.get(name, "not among the predictions")] for name in submission.filled]
    write_csv(out.with_name(f"{out.stem}_filled.csv"), ["Filename", "reason"], filled)
    checked = check_submission(out, asked)
    if checked.problems:
        raise UserError(f"{out}: {'; '.join(checked.problems)}")
    scored = asked.mean_pcc(submission.values)
    text = (
        f"{out}: {counted(len(asked.clips), 'clip')} of split {config.split!r}, {len(submission.filled)} without a "
        f"prediction, {counted(submission.clipped, 'value')} clipped{_score_text(scored)}"
    )
    document = {"file": out, "clips": len(asked.clips), "filled": submission.filled}
    result(text, document | ({"mean_pcc": scored[0], "labeled_clips": scored[1]} if scored else {}))
    return submission


def _predict(
    config: SubmitConfig, asked: Asked, about: FusionConfig | None
) -> tuple[list[str], dict[str, np.ndarray], dict[str, str]]:
    """The dimensions, {id: float64 (K,)}, and why clips have no prediction."""
    if config.predictions is not None:
        table = read_prediction_table(config.predictions)
        if table.scale is not None:
            _check_scale(config.predictions, table.scale, asked)
        return table.names, table.by_clip(), {}
    assert config.model is not None and about is not None
    _check_scale(config.model, about.scale, asked)
    if config.data is not None:
        split = _split_of_features(config.data, asked, config.split)
        predictions = predict_encoded(config.model, config.data, split, config.batch_size)
    else:
        clips = [replace(clip, labels=()) for clip in asked.clips]
        predictions = predict_media(clips, config.model, config, about)
    return predictions.names, predictions.by_clip(), dict(predictions.failures)


def _split_of_features(data: Path, asked: Asked, split: str) -> str | None:
    """The split of a feature dataset that holds the clips; None for all, if `emit split` has moved some of them."""
    from stage2_fusion.data.features import read_clips

    elsewhere = {clip.id for clip in read_clips(data) if clip.split != split}
    return None if elsewhere & set(asked.ids) else split


def _check_scale(where: Path, scale: LabelScale, asked: Asked) -> None:
    """UserError when predictions are not on the scale of the labels of the split."""
    for name, ends in asked.scale.ranges.items():
        if scale.ranges.get(name, ends) != ends:
            raise UserError(
                f"{where}: {name} is predicted from {scale.describe([name])}, but the clips are labeled in "
                f"{asked.scale.describe([name])}"
            )


def _check(path: Path, asked: Asked, split: str) -> bool:
    """Print what is wrong with a submission. Returns whether it is valid."""
    checked = check_submission(path, asked)
    for line in asked.notes:
        note(line)
    document = {"file": str(path), "accepted": not checked.problems, "problems": checked.problems}
    if checked.values is None:
        lines = [f"{path}: not a submission of split {split!r}", *(f"  {line}" for line in checked.problems)]
        result("\n".join(lines), document)
        return False
    scored = asked.mean_pcc(checked.values)
    result(
        f"{path}: a submission of split {split!r}, {counted(len(asked.clips), 'clip')} and "
        f"{counted(len(asked.names), 'dimension')}"
        f"{_score_text(scored)}",
        document | ({"mean_pcc": scored[0], "labeled_clips": scored[1]} if scored else {}),
    )
    return True


def _score_text(scored: tuple[float, int] | None) -> str:
    return f"; mean PCC {scored[0]:.4f} on {counted(scored[1], 'labeled clip')}" if scored else ""


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
