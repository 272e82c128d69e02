"""The model folder on disk: everything needed to predict.

config.json            a FusionConfig
model.safetensors      averaged weights, with the input statistics of the training split
metrics.json           scores of the epoch the weights are from
README.md              the model card
encoders/              the aligned encoders the model was trained on, or end to end with; absent for features that came
                       with their dataset
face_landmarker.task   for a model that reads action units: the file that computes them
"""

import dataclasses
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.errors import UserError
from shared.files import atomic_folder, digest, link_or_copy, read_json, write_json, write_text
from shared.text import one_line
from shared.training.weights import separate_tensors
from stage2_fusion.data.feature_info import EncoderInfo
from stage2_fusion.models.card import model_card
from stage2_fusion.models.model_config import LANDMARKER, FusionConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

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
) -> None:
    """Write a model folder, completely or not at all; see `FusionModel.save_pretrained`.

    Without `encoders`, their folder is copied (hard links where the disk allows) from the first place that holds
    config.encoders.digest: the replaced folder, the folder `loaded_from`, config.encoders.path. The face landmarker is
    copied likewise.
    """
    from safetensors.torch import save_file

    folders = [path, *([loaded_from] if loaded_from else [])]
    places = [*(folder / "encoders" for folder in folders), Path(config.encoders.path)]
    source = find_encoders(config.encoders.digest, *places) if encoders is None else None
    landmarker = None
    if config.action_units:
        places = [*(folder / LANDMARKER for folder in folders), Path(config.action_units.path)]
        landmarker = find_landmarker(config.action_units.digest, *places)
    with atomic_folder(path) as folder:
        if landmarker:
            shutil.copyfile(landmarker, folder / LANDMARKER)  # not a link: the file belongs to the user
        save_file(separate_tensors(state), folder / "model.safetensors")
        if encoders is not None:
            encoders.save_pretrained(folder / "encoders", _tuned_record(encoders.config, config))
            saved = read_json(folder / "encoders" / "config.json", "encoders", "train again")
            config = dataclasses.replace(config, encoders=EncoderInfo(str(path / "encoders"), saved["digest"], saved))
        elif source is not None:
            shutil.copytree(source, folder / "encoders", copy_function=link_or_copy)
        write_json(folder / "config.json", config.to_json())
        write_json(folder / "metrics.json", metrics)
        write_text(folder / "README.md", model_card(config, metrics))


def _tuned_record(encoders: dict[str, Any], config: FusionConfig) -> dict[str, Any]:
    """The training record of encoders that were tuned in stage 2. encoders: their config.json from before."""
    before = encoders.get("training", {})
    blocks = ", ".join(f"last {count} blocks of {name}" for name, count in config.finetune.items())
    data = f"{before.get('data', 'not recorded')}; then in stage 2 ({blocks}) on {config.trained_on.data}"
    return {**before, "data": data, "finetune": config.finetune, "began_from": encoders["digest"]}


def find_encoders(encoders_digest: str, *folders: Path) -> Path | None:
    """The first of `folders` that holds the aligned encoders with this digest."""
    for folder in folders:
        config = folder / "config.json"
        if config.is_file() and read_json(config, "encoders", "export them").get("digest") == encoders_digest:
            return folder
    return None


def find_landmarker(file_digest: str, *paths: Path) -> Path | None:
    """The first of `paths` that is the face landmarker with this digest."""
    return next((path for path in paths if path.is_file() and digest(path) == file_digest), None)


def load_weights(model: "nn.Module", folder: Path) -> None:
    """Load model.safetensors. UserError if it is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = one_line(error, 200)
        raise UserError(f"{folder}/model.safetensors: missing or damaged ({reason}); train it again") from None


def read_metrics(folder: Path) -> dict[str, Any]:
    """The metrics.json of a model folder, {} if there is none."""
    path = folder / "metrics.json"
    return read_json(path, "metrics of a model", "delete it") if path.exists() else {}
