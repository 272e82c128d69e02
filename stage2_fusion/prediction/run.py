"""Load a model and predict the clips of a command: media, or encoded clips."""

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared import hub
from shared.dataset.clip import Clip
from shared.dataset.media_files import is_media
from shared.dataset.prepare_dataset import ClipReader
from shared.dataset.worker_pool import cores
from shared.errors import UserError
from shared.options.ranges import BatchSize, CheckedOptions, Seconds
from shared.terminal.messages import note
from stage2_fusion.models.model_config import FusionConfig, TrainedOn
from stage2_fusion.prediction.recipes import expected_recipe

if TYPE_CHECKING:
    from stage2_fusion.models.base import FusionModel
    from stage2_fusion.prediction.predicting import Predictions
    from stage2_fusion.predictor import Predictor


@dataclass(kw_only=True)
class MediaOptions(CheckedOptions):
    """How media are read and encoded for a model."""

    layout: str | None = None
    """Layout of folders and tables, as in `emit prepare`; by default that of the model's training clips if it fits,
    otherwise guessed from the files."""
    layout_options: dict[str, Any] = field(default_factory=dict)
    """Options of the layout, as in `emit prepare`; by default as for the training clips."""
    encoders: Path | None = None
    """Aligned encoders; by default those inside the model folder."""
    blendshapes: Path | None = None
    """MediaPipe's face_landmarker.task, for a model that reads action units; by default the one inside its folder."""
    window: Seconds | None = None
    """Seconds per window of the timeline; by default the maximum length of a training clip."""
    detector: str | None = None
    """Face detector, as in `emit prepare`; by default as for the training clips."""
    transcribe: str | None = None
    """Whisper folder, as in `emit prepare`; by default as for the training clips, "" for none."""
    batch_size: BatchSize = 16
    """Windows per forward pass; does not change the predictions."""

    def changes(self) -> dict[str, Any]:
        """How the preparation of media differs from that of the training clips."""
        return {"max_seconds": self.window, "detector": self.detector, "transcribe": self.transcribe}

    def refuse_with_features(self) -> None:
        """ValueError for an option about reading media: features are already encoded."""
        for name in MediaOptions.__dataclass_fields__:
            if name != "batch_size" and getattr(self, name) not in (None, {}):
                raise ValueError(f"data: features are read, not media, so {name} has no effect; leave it out")


def model_folder(source: Path) -> Path:
    """The folder of a model, or of hf-hub:OWNER/NAME. UserError when there is none."""
    if not hub.is_hub(source):
        return source
    from stage2_fusion.models.saving import FILES

    return hub.resolve(source, FILES)


def load_predictor(model: Path, options: MediaOptions) -> "Predictor":
    """The model with its encoders. Prints a warning for a model trained on synthetic faces."""
    from stage2_fusion.predictor import Predictor, SyntheticModelWarning

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", SyntheticModelWarning)
        predictor = Predictor.from_pretrained(
            model,
            encoders=options.encoders,
            blendshapes=options.blendshapes,
            window=options.window,
            detector=options.detector,
            transcribe=options.transcribe,
        )
    for warning in caught:
        if issubclass(warning.category, SyntheticModelWarning):
            note(f"note: {warning.message}")
    return predictor


def predict_sources(
    sources: Sequence[str | Path], model: Path, options: MediaOptions, split: str | None
) -> "Predictions":
    """Predict the clips of files, folders and tables. UserError when there are none."""
    from stage2_fusion.prediction.sources import Reading, read_clips

    about = FusionConfig.read(model)
    reading = Reading(options.layout, options.layout_options, split, about.layout, model)
    found = read_clips(sources, reading)  # before torch is loaded
    for line in [*found.notes, *seen_notes((clip.id for clip in found.clips), about.trained_on)]:
        note(line)
    return predict_media(found.clips, model, options, about, found.failures)


def predict_media(
    clips: Sequence[Clip],
    model: Path,
    options: MediaOptions,
    about: FusionConfig,
    failures: Sequence[tuple[str, str]] = (),
) -> "Predictions":
    """Predict clips from their files. about: the config.json of the model; failures: of the sources, which come
    first."""
    with contextlib.ExitStack() as stack:
        begun = _begin_reading(list(clips), model, options, about)  # while torch is loaded
        if begun is not None:
            stack.callback(begun.close)
        from stage2_fusion.prediction.predicting import predict_clips

        return predict_clips(load_predictor(model, options), clips, options.batch_size, failures, begun)


def _begin_reading(clips: list[Clip], model: Path, options: MediaOptions, about: FusionConfig) -> ClipReader | None:
    """A reader that has started on the clips; None on an error, which loading the model reports better."""
    try:
        reader = ClipReader(expected_recipe(about, model, options.changes()), min(cores(), len(clips)))
    except UserError:
        return None
    reader.begin(clips)
    return reader


def predict_encoded(model: Path, data: Path, split: str | None, batch_size: int) -> "Predictions":
    """Predict the clips of a feature dataset. UserError when the model cannot read it."""
    from stage2_fusion.inference import best_device
    from stage2_fusion.models.base import FusionModel
    from stage2_fusion.prediction.from_features import predict_features

    loaded = FusionModel.from_pretrained(model).to(best_device())
    predictions = predict_features(loaded, data, split, batch_size)
    ids = list(predictions.by_clip())
    for line in _training_notes(loaded, data, ids):
        note(line)
    return predictions


def _training_notes(model: "FusionModel", data: Path, ids: list[str]) -> list[str]:
    """Notes if the model or its encoders were trained on the encoded clips, or if that is unknown."""
    from stage2_fusion.data.feature_info import read_info
    from stage2_fusion.evaluation.known_clips import known_to_model
    from stage2_fusion.evaluation.unknown_training import meet_encoders

    info = read_info(data)
    known = known_to_model(data, info, model.config.trained_on, model.training_clips)
    met, seen = meet_encoders(data, info, ids), known.count(ids)
    return [
        *([f"it is not known whether the model was trained on these clips: {known.unknown}"] if known.unknown else []),
        *([_seen_line(seen.in_training, seen.in_choosing)] if seen and (seen.in_training or seen.in_choosing) else []),
        *([f"it is not known whether the encoders were trained on these clips: {met.unknown}"] if met.unknown else []),
        *([f"seen in training: the encoders were trained on {met.seen} of the clips"] if met.seen else []),
    ]


def seen_notes(ids: Iterable[str], trained_on: TrainedOn) -> list[str]:
    """A note if clips were in training: predictions for these look better than they are. Ids are compared with and
    without the extension of a media file."""
    names = {name for given in ids for name in (given, Path(given).stem if is_media(Path(given)) else given)}
    learned, chosen = (len(names & set(clips or ())) for clips in (trained_on.clips, trained_on.chosen_on))
    return [_seen_line(learned, chosen, ", going by their names")] if learned or chosen else []


def _seen_line(learned: int, chosen: int, how: str = "") -> str:
    return (
        f"seen in training: {learned} of the clips trained this model and {chosen} chose its epoch{how}; do not "
        "judge it by them (--split takes the clips of one split)"
    )
