"""Initialize encoders from other models (`emit fuse --init`), for systems with parts that are trained one by one."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from shared.errors import UserError
from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.models.base import FusionModel

Starts = dict[str, FusionModel]
"""Modality to the model that its encoder comes from."""


def load_starts(init: Mapping[str, Path], features: FeatureInfo, where: Path) -> Starts:
    """The models that encoders come from. UserError for a folder without a model, and for a model that reads other
    features than those at `where` or does not read its modality."""
    starts = {}
    for modality, folder in init.items():
        other = FusionModel.from_pretrained(folder)
        other.config.check_inputs(features, where)
        if modality not in set(other.reads) & set(other.options.modalities):
            raise UserError(f"--init: {folder} does not read {modality}; give a model that does")
        starts[modality] = other
    return starts


@torch.no_grad()
def start_from(model: FusionModel, starts: Starts) -> set[str]:
    """Copy the encoder of each modality and its input statistics from another model of the same architecture. Returns
    the names of the copied parameters. UserError when an encoder does not fit."""
    own, copied = model.state_dict(), set()
    for modality, other in starts.items():
        given, names = other.state_dict(), encoder_names(model, modality)
        if type(other) is not type(model) or not names:
            raise UserError(
                f"--init: {other.folder} is of {type(other).__name__}, and this model, {type(model).__name__}, has no "
                f"encoder of {modality} like that"
            )
        ours, theirs = model.spec.label_names, other.spec.label_names
        if model.encoder_parts_predict and ours != theirs:
            raise UserError(
                f"--init: {other.folder} predicts {', '.join(theirs)}, and this model {', '.join(ours)}; train it on "
                "the same labels"
            )
        if further := sorted(encoder_names(other, modality) - names):
            raise UserError(
                f"--init: {other.folder} has other options (its {further[0]} has no place here); train it with those "
                "of this model"
            )
        for name in names:
            if name not in given or given[name].shape != own[name].shape:
                raise UserError(
                    f"--init: {other.folder} has other options (its {name} has another size); train it with those of "
                    "this model"
                )
            own[name].copy_(given[name])
        copied |= names
    return copied & {name for name, _ in model.named_parameters()}


def freeze(model: FusionModel, started: Collection[str], towers_train: bool = False) -> None:
    """Freeze these parameters; their gradients then do not count in gradient clipping. towers_train: whether towers
    train end to end. UserError when nothing is left to train."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in started)
    if not towers_train and not any(parameter.requires_grad for parameter in model.parameters()):
        raise UserError("--train.init_lr 0 leaves nothing to train: --init sets every part of this model")


def encoder_names(model: FusionModel, modality: str) -> set[str]:
    """Names of the encoder of a modality in the state_dict; empty without one."""
    parts = tuple(f"{part}.{modality}." for part in model.encoder_parts)
    encoder = {name for name in model.state_dict() if name.startswith(parts)} if parts else set()
    statistics = {name for name, _ in model.named_buffers() if name.startswith(f"{modality}_")}
    return encoder | statistics if encoder else set()
