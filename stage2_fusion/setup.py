"""From a configuration to the parts of a run: labelled clips, what the model folder says, groups of parameters."""

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from stage2_fusion.config import FuseConfig, TrainConfig
from stage2_fusion.data.features import FeatureInfo, FeatureSample
from stage2_fusion.models.base import FusionOptions
from stage2_fusion.models.model_config import FusionConfig, TrainedOn


def labelled(clips: list[dict], where: str) -> list[dict]:
    """Of clips as `FeatureDataset.by_clip` gives them, those with a label; UserError when there is none, or one outside
    [0, 1]."""
    found = [clip for clip in clips if 0 in clip and not np.isnan(clip[0]["labels"]).all()]
    if not found:
        raise UserError(f"{where}: no labelled clips; give another split, or labels to `emit prepare`")
    values = np.stack([clip[0]["labels"] for clip in found])  # (N, K)
    if np.nanmin(values) < 0 or np.nanmax(values) > 1:
        run = f"{np.nanmin(values):g} to {np.nanmax(values):g}"
        raise UserError(f"{where}: labels run from {run}; intensities lie in [0, 1]: rescale them and prepare again")
    return found


def describe(
    config: FuseConfig,
    options: FusionOptions,
    features: FeatureInfo,
    clips: list[dict[int, FeatureSample]],
    valid: list[dict[int, FeatureSample]],
) -> FusionConfig:
    """The config.json of the model folder. It names the clips that the model learns from and is chosen by, so that
    scores on them can be told apart."""
    train = {key: value for key, value in configuration.to_dict(config.train).items() if key != "trackers"}
    return FusionConfig.from_features(
        features,
        model=config.model,
        options=configuration.to_dict(options),
        max_sequence_steps=config.train.max_sequence_steps,
        finetune=config.finetune,
        training={"loss": configuration.to_dict(config.loss), "train": train},
        trained_on=TrainedOn(
            features=features.digest,
            data=features.data.digest,
            seed=config.seed,
            clips=sorted(clip[0].id for clip in clips),
            chosen_on=sorted(clip[0].id for clip in valid),
            synthetic=bool(features.data.synthetic),
        ),
    )


def parameter_groups(model, options: TrainConfig) -> list[dict]:
    """One group for each learning rate and kind of parameter: matrices decay; biases, norms, queries and
    missing-modality tokens do not. "peak" is the group's highest learning rate; towers that train along have their own.
    """
    groups: dict[tuple[bool, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            free = parameter.ndim < 2 or name.removeprefix("fusion.") in ("missing", "decoder.queries")
            groups.setdefault((name.startswith("towers."), not free), []).append(parameter)
    rates = {False: options.lr, True: options.lr * options.finetune_lr}
    return [
        {
            "params": parameters,
            "lr": rates[tower],
            "peak": rates[tower],
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (tower, decays), parameters in groups.items()
    ]
