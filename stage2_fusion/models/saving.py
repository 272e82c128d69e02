"""The model folder on disk: everything needed to predict.

config.json            a FusionConfig
model.safetensors      averaged weights, with the input statistics of the training split
metrics.json           scores of the epoch of these weights
calibration.safetensors
                       data for intervals and for the distance from the training clips; absent during training, and in
                       models of earlier versions
training_clips.safetensors
                       fingerprints of the clips that trained the model and selected its epoch
                       (shared/dataset/training_clips.py); absent in models of earlier versions
README.md              the model card
encoders/              the aligned encoders that the model was trained on, or end to end with; absent if all features
                       were given (from the dataset or another tool)
face_landmarker.task   for a model that reads action units: the file that computes them
"""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.dataset.training_clips import TrainingClips
from shared.files import atomic_folder, digest, link_or_copy, read_object, write_json, write_text
from shared.saved.checksum import ENCODERS, FUSION, read_description, write_description
from shared.training.weights import separate_tensors
from stage2_fusion.data.feature_info import EncoderInfo
from stage2_fusion.models.calibration import Calibration
from stage2_fusion.models.card import model_card
from stage2_fusion.models.model_config import LANDMARKER, FusionConfig

if TYPE_CHECKING:
    from torch import Tensor

    from stage1_align.encoders import AlignedEncoders

FILES = ["*.json", "*.safetensors", "*.md", "*.task", "encoders/tokenizer/*"]
"""Patterns of the files in a model folder."""


def write_folder(
    path: Path,
    state: "dict[str, Tensor]",
    config: FusionConfig,
    metrics: dict[str, Any],
    encoders: "AlignedEncoders | None" = None,
    loaded_from: Path | None = None,
    calibration: Calibration | None = None,
    training_clips: TrainingClips | None = None,
) -> None:
    """Write a model folder, completely or not at all; see `FusionModel.save_pretrained`.

    Without `encoders`, their folder is copied (hard links where the disk allows) from the first place that holds
    config.encoders.kept: the replaced folder, then the folder `loaded_from` or, for a model that was not loaded,
    config.encoders.path. The face landmarker is copied in the same way.
    """
    from safetensors.torch import save_file

    folders = [path, *([loaded_from] if loaded_from else [])]
    # A loaded folder may name any path, so only files inside it are copied.
    elsewhere = [] if loaded_from else [Path(config.encoders.path)]
    places = [*(folder / "encoders" for folder in folders), *elsewhere]
    source = find_encoders(config.encoders.kept, *places) if encoders is None and config.encoders.kept else None
    landmarker = None
    if config.action_units:
        elsewhere = [] if loaded_from else [Path(config.action_units.path)]
        places = [*(folder / LANDMARKER for folder in folders), *elsewhere]
        landmarker = find_landmarker(config.action_units.digest, *places)
    with atomic_folder(path) as folder:
        if landmarker:
            shutil.copyfile(landmarker, folder / LANDMARKER)  # not a link: the file belongs to the user
        save_file(separate_tensors(state), folder / "model.safetensors")
        if encoders is not None:
            encoders.save_pretrained(folder / "encoders", _tuned_record(encoders.config, config))
            described = read_description(folder / "encoders", ENCODERS)
            saved = {name: value for name, value in described.items() if name not in ("files", "checksum")}
            config = dataclasses.replace(config, encoders=EncoderInfo(str(path / "encoders"), saved["digest"], saved))
        elif source is not None:
            shutil.copytree(source, folder / "encoders", copy_function=link_or_copy)
        write_json(folder / "metrics.json", metrics)
        if calibration is not None:
            calibration.write(folder)
        if training_clips is not None:
            training_clips.write(folder)
        write_description(folder, FUSION, config.to_json())
        write_text(folder / "README.md", model_card(config, metrics))


def _tuned_record(encoders: dict[str, Any], config: FusionConfig) -> dict[str, Any]:
    """The training record of encoders that were tuned in stage 2. encoders: their config.json before tuning."""
    before = encoders.get("training", {})
    blocks = ", ".join(
        f"all of {name}" if count is None else f"last {count} blocks of {name}"
        for name, count in config.finetune.items()
    )
    data = f"{before.get('data', 'not recorded')}; then in stage 2 ({blocks}) on {config.trained_on.data}"
    return {**before, "data": data, "finetune": config.finetune, "began_from": encoders["digest"]}


def find_encoders(encoders_digest: str, *folders: Path) -> Path | None:
    """The first of `folders` that holds the aligned encoders with this digest."""
    for folder in folders:
        if (folder / ENCODERS.description).is_file():
            content = read_object(folder / ENCODERS.description, ENCODERS.what, ENCODERS.how)
            if content.get("digest") == encoders_digest:
                return folder
    return None


def find_landmarker(file_digest: str, *paths: Path) -> Path | None:
    """The first of `paths` that is the face landmarker with this digest."""
    return next((path for path in paths if path.is_file() and digest(path) == file_digest), None)


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics.json of a model folder, {} if there is none."""
    path = folder / "metrics.json"
    return read_object(path, "metrics of a model", "delete it") if path.exists() else {}
