"""What a run derives from its configuration: training data, config.json, parameter groups."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared import config as configuration
from shared.dataset.training_clips import TrainingClips, TrainingSource
from shared.errors import UserError
from shared.registry import nearest
from shared.terminal.messages import note
from shared.text import counted
from shared.training import optimizer
from shared.training.sampling import shrink_note, shrunken_batch, steps_per_epoch
from stage2_fusion.config import FuseConfig, TrainConfig
from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import FeatureDataset, FeatureSample
from stage2_fusion.data.usable_clips import (
    learnable_dimensions,
    left_out_note,
    not_scored_note,
    require_modality,
    scorable_dimensions,
    within_budget,
)
from stage2_fusion.evaluation.doubts import few_validation_line
from stage2_fusion.evaluation.known_clips import record_of
from stage2_fusion.models import MODELS
from stage2_fusion.models.base import FusionModel, FusionOptions
from stage2_fusion.models.model_config import FusionConfig, TrainedOn
from stage2_fusion.models.saving import find_encoders, find_landmarker
from stage2_fusion.models.starting import Starts

if TYPE_CHECKING:
    from accelerate import Accelerator

    from stage2_fusion.finetune import EndToEndModel

Views = dict[int, FeatureSample]
"""The views of one clip: 0 is undamaged."""


@dataclass(frozen=True)
class TrainingData:
    """The labeled training clips and the validation split, with the labels of the dimensions that can be learned."""

    clips: list[Views]
    damaged_views: int
    """Damaged views of every clip; 0 if the run does not train on them."""
    valid: FeatureDataset
    info: FeatureInfo
    """Describes only the dimensions that can be learned."""
    batch_size: int
    """Clips per step: as in the options, or smaller with `shrink_batch`."""
    steps_per_epoch: int
    notes: list[str]
    """What the user should know: dimensions and clips that are left out."""

    @property
    def samples(self) -> list[FeatureSample]:
        """The samples of all clips, each followed by its damaged views."""
        return [clip[view] for clip in self.clips for view in range(1 + self.damaged_views)]


def load_training_data(config: FuseConfig) -> TrainingData:
    """Load the features of both splits. UserError when a split is empty, when nothing can be learned or scored from its
    labels or modalities, or when there are too few clips for a batch.

    Dimensions that cannot be learned from the training labels are left out: the model has no output for them."""
    options = config.train
    views = None if options.damaged_views else (0,)
    features = FeatureDataset.open(config.data, config.train_split, views, options.max_sequence_steps)
    valid = FeatureDataset.open(config.data, config.valid_split, (0,), options.max_sequence_steps)
    train_where, valid_where = (f"{config.data}, split {s!r}" for s in (config.train_split, config.valid_split))
    whole = labeled_clips(features.by_clip(), train_where)
    first = [clip[0] for clip in whole]
    kept = within_budget([s.id for s in first], [s.groups for s in first], labels_of(whole), config.max_train_clips)
    labels = labels_of(whole)[kept]  # (N, K)
    labeled_clips(valid.by_clip(), valid_where)
    names, left_out = learnable_dimensions(labels, features.info.label_names, train_where)
    features, valid = features.select(names), valid.select(names)
    all_clips = features.by_clip()
    budget = {sample.id for sample, keep in zip(first, kept, strict=True) if keep}
    clips = labeled_clips([clip for clip in all_clips if 0 in clip and clip[0].id in budget], train_where)
    clips = leave_out_damage(clips, options.leave_out_damage, train_where)
    unlabeled = len(all_clips) - len(whole)
    not_scored = scorable_dimensions(valid.labels(), names, valid_where)
    notes = [left_out_note(left_out)] if left_out else []
    notes += [not_scored_note(not_scored, config.valid_split)] if not_scored else []
    modalities = usable_modalities(config)
    notes += require_modality([clip[0] for clip in clips], modalities, train_where)
    notes += require_modality(valid.samples, modalities, valid_where)
    notes += (
        [f"{unlabeled} of {counted(len(all_clips), 'training clip', 'has', 'have')} no label: left out"]
        if unlabeled
        else []
    )
    notes += filter(None, [few_validation_line(len(labeled_clips(valid.by_clip(), valid_where)), config.valid_split)])
    batch_size = options.batch_size
    if options.shrink_batch and (batch_size := shrunken_batch(len(clips), batch_size)) != options.batch_size:
        notes.append(f"note: {shrink_note(len(clips), options.batch_size)}")
    return TrainingData(
        clips=clips,
        damaged_views=min(len(clip) for clip in clips) - 1,
        valid=valid,
        info=features.info,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch(len(clips), batch_size),
        notes=notes,
    )


def labeled_clips(clips: list[Views], where: str) -> list[Views]:
    """The clips that have a label. UserError when there are none."""
    labeled = [clip for clip in clips if 0 in clip and not np.isnan(clip[0].labels).all()]
    if not labeled:
        raise UserError(f"{where}: no labeled clips; give another split, or labels to `emit prepare`")
    return labeled


def leave_out_damage(clips: list[Views], kinds: list[str], where: str) -> list[Views]:
    """The clips with undamaged features in place of the views with these kinds of damage. UserError for a kind that no
    view has."""
    there = sorted({kind for views in clips for sample in views.values() for kind in sample.damage.values() if kind})
    for kind in kinds:
        if kind not in there:
            raise UserError(f"--train.leave_out_damage {kind}: no view of {where} has it; {nearest(kind, there)}")
    left_out = set(kinds)
    return [
        {
            n: replace(views[0], view=n) if left_out & set(sample.damage.values()) else sample
            for n, sample in views.items()
        }
        for views in clips
    ]


def labels_of(clips: list[Views]) -> np.ndarray:
    """The labels of the clips: float32 (N, K), NaN = not labeled."""
    return np.stack([clip[0].labels for clip in clips])


def build_options(config: FuseConfig) -> FusionOptions:
    """The options of the model. UserError for an unknown model or option."""
    return configuration.build(MODELS.get(config.model).Options, config.options, f"fusion model {config.model}")


def usable_modalities(config: FuseConfig) -> list[str]:
    """The modalities that the model reads and its options allow."""
    allowed = build_options(config).modalities
    return [name for name in MODELS.get(config.model).reads if name in allowed]


def fusion_config(config: FuseConfig, options: FusionOptions, data: TrainingData, starts: Starts) -> FusionConfig:
    """The config.json of the model folder. It records the clips that trained and selected the model and the models of
    its initial encoders, so that scores on these clips can be told apart."""
    before = [start.config.trained_on for start in starts.values()]
    further = {digest for each in before for digest in (each.data, *(each.other_data or []))} - {data.info.data.digest}
    clips, chosen_on = (
        _all_of([sorted(own), *others])
        for own, others in (
            ({clip[0].id for clip in data.clips}, [each.clips for each in before]),
            ({sample.id for sample in data.valid.samples}, [each.chosen_on for each in before]),
        )
    )
    means = np.nanmean(labels_of(data.clips).astype(np.float64), axis=0)  # (K,)
    train = {key: value for key, value in configuration.to_dict(config.train).items() if key != "trackers"}
    return FusionConfig.from_features(
        data.info,
        model=config.model,
        options=configuration.to_dict(options),
        max_sequence_steps=config.train.max_sequence_steps,
        finetune=config.tuned_blocks,
        training={"loss": configuration.to_dict(config.loss), "train": train},
        trained_on=TrainedOn(
            features=data.info.digest,
            data=data.info.data.digest,
            other_data=sorted(further) or None,
            seed=config.seed,
            clips=clips,
            chosen_on=chosen_on,
            mean_labels=dict(zip(data.info.label_names, data.info.scale.values(means).tolist(), strict=True)),
            synthetic=bool(data.info.data.synthetic),
        ),
    )


def training_clips(config: FuseConfig, data: TrainingData, starts: Starts) -> TrainingClips | None:
    """The fingerprints of the clips that train and select the model, and of the clips behind its initial encoders; None
    if some are not recorded: features and models of earlier versions have none."""
    source = TrainingSource(str(config.data), "features", config.train_split, len(data.clips))
    record = record_of([clip[0] for clip in data.clips], data.valid.samples, source)
    for start in starts.values():
        record = record.join(start.training_clips) if record and start.training_clips else None
    return record


def _all_of(lists: Sequence[list[str] | None]) -> list[str] | None:
    """The distinct ids of all lists, sorted; None if a list is unknown."""
    known = [ids for ids in lists if ids is not None]
    return sorted({name for ids in known for name in ids}) if len(known) == len(lists) else None


def warn_of_missing_files(accelerator: "Accelerator", info: FeatureInfo, finetune: bool) -> None:
    """Warn of files that the model folder will lack because they were moved or changed after encoding."""
    encoders, units = info.encoders, info.action_units
    if not finetune and encoders.kept and find_encoders(encoders.kept, Path(encoders.path)) is None:
        note(
            f"warning: the encoders {encoders.kept} are no longer at {encoders.path}: the model is saved without "
            "them, and `emit predict` will ask for --encoders"
        )
    if units and find_landmarker(units.digest, Path(units.path)) is None:
        note(
            f"warning: {units.path} is not, or no longer, the file behind the action units: the model is saved "
            "without it, and `emit predict` will ask for --blendshapes"
        )


def parameter_groups(
    model: "FusionModel | EndToEndModel", options: TrainConfig, started: Collection[str] = ()
) -> list[dict[str, Any]]:
    """Parameter groups for AdamW; towers that train end to end have their own learning rate, and so do parameters of
    the fusion model that come from other models, named in `started`."""

    def lr_factor(name: str) -> float:
        if name.startswith("towers."):
            return options.finetune_lr
        return options.init_lr if name.removeprefix("fusion.") in started else 1.0

    return optimizer.parameter_groups(model, options.lr, options.weight_decay, lr_factor, model.no_weight_decay())
