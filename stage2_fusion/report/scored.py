"""The scored samples and model, ready to run again."""

from pathlib import Path

from shared.errors import UserError
from shared.files import digest
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.models.base import FusionModel
from stage2_fusion.report.content import NotFound
from stage2_fusion.report.inputs import Inputs

SPLITS = ("test", "valid", "")
"""Splits for a report without an evaluation: the first one with clips; "" is all clips."""


def scored_features(inputs: Inputs) -> FeatureDataset:
    """All views of the clips that the report's evaluation scored; without an evaluation, of the clips of a split.
    NotFound without the features."""
    cached = inputs.__dict__.get("_scored_features")
    if cached is None:
        cached = inputs.__dict__["_scored_features"] = _open_features(inputs)
    return cached


def scored_model(inputs: Inputs) -> FusionModel:
    """The scored model. NotFound when the run holds none, or another one."""
    cached = inputs.__dict__.get("_scored_model")
    if cached is None:
        cached = inputs.__dict__["_scored_model"] = _load_model(inputs)
    return cached


def _load_model(inputs: Inputs) -> FusionModel:
    try:
        wanted = inputs.evaluation.info.made_from.get("model_digest")
    except NotFound:
        return inputs.model
    if wanted is None:
        raise NotFound(
            f"the evaluation {inputs.evaluation.path} is not of one model: give one that `emit evaluate` wrote"
        )
    places = dict.fromkeys([*inputs.main.models, *([inputs.model_path] if inputs.main.models == [] else [])])
    for path in places:
        weights = Path(path) / "model.safetensors"
        if weights.is_file() and digest(weights) == wanted:
            return FusionModel.from_pretrained(path)
    raise NotFound(f"the model that was scored (weights {wanted}) is not here: give the folder of its run")


def _open_features(inputs: Inputs) -> FeatureDataset:
    steps = scored_model(inputs).config.max_sequence_steps if _has_model(inputs) else 512
    path = inputs.features_path
    try:
        splits: tuple[str, ...] = (inputs.evaluation.info.split,)
    except NotFound:
        splits = SPLITS
    for split in splits[:-1]:
        try:
            return FeatureDataset.open(path, split, max_sequence_steps=steps)
        except UserError:
            continue
    return FeatureDataset.open(path, splits[-1], max_sequence_steps=steps)


def _has_model(inputs: Inputs) -> bool:
    try:
        scored_model(inputs)
    except (NotFound, UserError):
        return False
    return True
