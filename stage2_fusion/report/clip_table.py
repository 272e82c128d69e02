"""The clips of a run without their content: splits, labels, groups and modalities."""

from dataclasses import dataclass

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.data.features import read_clips
from stage2_fusion.report.content import NotFound
from stage2_fusion.report.inputs import Inputs


@dataclass(frozen=True)
class ClipTable:
    """N clips with K labels."""

    ids: list[str]
    splits: list[str]
    """"" = in no split."""
    names: list[str]
    """The K dimensions."""
    labels: np.ndarray
    """float32 (N, K), fractions of their range, NaN = not labeled."""
    groups: dict[str, list[str]]
    """{kind: the group of each clip}; "" = unknown."""
    seconds: np.ndarray
    """float64 (N,)."""
    present: dict[str, np.ndarray]
    """{modality: bool (N,)}."""

    def in_split(self, split: str) -> np.ndarray:
        """bool (N,)."""
        return np.array([each == split for each in self.splits], dtype=bool)

    def split_names(self) -> list[str]:
        """The splits: train, valid, test, then others by name; clips without a split last."""
        usual = ["train", "valid", "test"]
        known = set(self.splits)
        return [name for name in usual if name in known] + sorted(known - {*usual, ""}) + [""] * ("" in known)


def read_clip_table(inputs: Inputs) -> ClipTable:
    """The clips of the clip dataset with the splits of the features; without a clip dataset, the clips of the features.
    NotFound when there is neither."""
    try:
        clips = inputs.clips
    except (NotFound, UserError):
        return _from_features(inputs)
    ids, splits = clips.column("id"), clips.column("split")
    try:
        split_of = {clip.id: clip.split for clip in read_clips(inputs.features_path)}
        splits = [split_of.get(name, split) for name, split in zip(ids, splits, strict=True)]
    except (NotFound, UserError):
        pass
    return ClipTable(
        ids=ids,
        splits=splits,
        names=clips.label_names,
        labels=clips.labels(),
        groups={kind: clips.column(f"group_{kind}") for kind in clips.info.group_names},
        seconds=np.array(clips.column("duration"), dtype=np.float64),
        present={
            "vision": clips.present("vision"),
            "audio": clips.present("audio"),
            "text": np.array([bool(text) for text in clips.column("transcript")], dtype=bool),
        },
    )


def _from_features(inputs: Inputs) -> ClipTable:
    try:
        data = inputs.features
    except NotFound:
        raise NotFound("no clip dataset and no features: give the folder of the whole run, which holds them") from None
    clean = [sample for sample in data.samples if sample.view == 0]
    return ClipTable(
        ids=[sample.id for sample in clean],
        splits=[sample.split for sample in clean],
        names=data.info.label_names,
        labels=np.stack([sample.labels for sample in clean]),
        groups={kind: [sample.groups.get(kind, "") for sample in clean] for kind in data.info.group_names},
        seconds=np.array([sample.duration for sample in clean], dtype=np.float64),
        present={
            name: np.array([sample.modality(name).steps > 0 for sample in clean], dtype=bool) for name in MODALITIES
        },
    )
