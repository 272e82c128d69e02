"""A trained fusion model on disk: everything needed to predict, in one folder.

config.json          model name and options, label names, widths, quality signals, digests of what it was made from,
                     the settings that clips were prepared with
model.safetensors    averaged weights; input statistics of the training split among them
metrics.json         scores of the epoch it is from
encoders/            the aligned encoders it was trained on, or with, end to end; none where features came with the
                     dataset
face_landmarker.task of a model that reads action units: the file they are from
"""

import shutil
from pathlib import Path

from shared import config as configuration
from shared.errors import UserError
from shared.files import atomic_folder, digest, link_or_copy, read_json, write_json
from shared.text import one_line

FORMAT = "emit-fusion/1"
LANDMARKER = "face_landmarker.task"


def save(path: Path, model, info: dict, metrics: dict) -> None:
    """Write the folder whole or not at all. `info` goes into config.json; the encoders are taken from
    info["encoders"]["path"] (hard links where the disk allows), or from the folder that is replaced, and only when they
    are those of info["encoders"]["digest"]. Of a model with live towers (finetune.py) the encoders are written as they
    are now, and config.json names those. The file of action units is copied where it still is what it was."""
    from safetensors.torch import save_file

    path = Path(path)
    fusion, encoders = getattr(model, "fusion", model), getattr(model, "encoders", None)
    source = find_encoders(info, path / "encoders", Path(info["encoders"]["path"])) if encoders is None else None
    landmarker = find_landmarker(info, path / LANDMARKER, Path(info.get("action_units", {}).get("path", "")))
    with atomic_folder(path) as folder:
        if landmarker:
            shutil.copyfile(landmarker, folder / LANDMARKER)  # not linked: it is the user's own file
        save_file(
            {name: value.detach().cpu().contiguous() for name, value in fusion.state_dict().items()},
            folder / "model.safetensors",
        )
        if encoders is not None:
            encoders.save_pretrained(folder / "encoders", _history(encoders.config, info))
            made = read_json(folder / "encoders" / "config.json", "encoders", "train again")
            info = {**info, "encoders": {"path": str(path / "encoders"), "digest": made["digest"], "config": made}}
        elif source is not None:
            shutil.copytree(source, folder / "encoders", copy_function=link_or_copy)
        write_json(folder / "config.json", {"format": FORMAT, **info})
        write_json(folder / "metrics.json", metrics)


def _history(encoders: dict, info: dict) -> dict:
    """What encoders that were tuned in stage 2 say of their training; `encoders` is their config.json from before."""
    before = encoders.get("training", {})
    blocks = ", ".join(f"last {count} blocks of {name}" for name, count in info["finetune"].items())
    data = f"{before.get('data', 'not recorded')}; then in stage 2 ({blocks}) on {info['trained_on']['data']}"
    return {**before, "data": data, "finetune": info["finetune"], "began_from": encoders["digest"]}


def find_encoders(info: dict, *folders: Path) -> Path | None:
    """The first of `folders` that holds the aligned encoders of info["encoders"]["digest"]."""
    for folder in folders:
        config = folder / "config.json"
        if (
            config.is_file()
            and read_json(config, "encoders", "export them").get("digest") == info["encoders"]["digest"]
        ):
            return folder
    return None


def action_units(info: dict) -> str | None:
    """The digest of the file behind the action units of a features.json or a model's config.json, if there are any."""
    return info.get("action_units", {}).get("digest")


def find_landmarker(info: dict, *paths: Path) -> Path | None:
    """The first of `paths` that is the file of info["action_units"]["digest"]."""
    return next((path for path in paths if path.is_file() and digest(path) == action_units(info)), None)


def load(path: Path):
    """The model, in evaluation mode, and its config.json. UserError when the folder is not one, or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    path = Path(path)
    info = read_json(path / "config.json", "fusion model", "give the `model` folder of an `emit fuse` run")
    if info.get("format") != FORMAT:
        raise UserError(
            f"{path}: format {info.get('format')!r} where {FORMAT!r} is read; give the `model` folder of a run"
        )
    model = build(info["model"], info["options"], info)
    try:
        model.load_state_dict(load_file(path / "model.safetensors"))
    except (OSError, SafetensorError, RuntimeError) as error:
        reason = one_line(error, 200)
        raise UserError(f"{path}/model.safetensors: missing or damaged ({reason}); train it again") from None
    return model.eval().requires_grad_(False), info


def build(name: str, options: dict, info: dict):
    """An untrained model of this name; `info` (a features.json or config.json) gives label names, widths, signals."""
    from stage2_fusion.models import MODELS
    from stage2_fusion.models.base import Spec

    family = MODELS.get(name)
    return family(configuration.build(family.Options, options, f"fusion model {name}"), Spec.of(info))


def check_features(info: dict, features: dict, path: Path) -> None:
    """Refuse features that the model `info` cannot read: other encoders, preparation, quality signals, dimensions."""
    if info["encoders"]["digest"] != features["encoders"]["digest"]:
        kept = "the encoders kept in the model folder"
        way = "--precomputed, as for its training clips" if info["encoders"].get("precomputed") else kept
        raise UserError(
            f"{path}: features of encoders {features['encoders']['digest']}, but the model was trained on those of "
            f"{info['encoders']['digest']}; run `emit encode` with {way}"
        )
    if action_units(info) != action_units(features):
        way = (
            f"with --blendshapes, for which the model folder has {LANDMARKER}"
            if action_units(info)
            else "without --blendshapes"
        )
        raise UserError(
            f"{path}: action units of {action_units(features) or 'no file'}, but the model was trained on those of "
            f"{action_units(info) or 'none'}; run `emit encode` {way}"
        )
    theirs = features["data"].get("prepare", {})
    for key, value in info["prepare"].items():
        # Sound is judged and heard at rates of its own, and words are words, whoever wrote them down.
        if key not in ("sample_rates", "transcribe") and theirs.get(key) != value:
            raise UserError(
                f"{path}: clips prepared with {key} {theirs.get(key)}, but the model was trained with {value}; "
                f"prepare them again with --{key} {value}"
            )
    for key in ("label_names", "quality", "widths"):
        if info[key] != features[key]:
            raise UserError(f"{path}: {key} {features[key]}, but the model was trained with {info[key]}")
