"""What the encoders of a feature dataset were trained on: which of its clips, and what is unknown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from shared.dataset.clip_dataset import ClipDataset
    from stage1_align import AlignedEncoders

OLDER = (
    "its encoders do not record their training clips: `emit export` adds them if the run and its clips still exist; "
    "then encode again"
)


@dataclass
class EncoderTraining:
    """In features.json, because encoders have seen a clip whatever split `emit split` assigns it to later."""

    seen: list[str] = field(default_factory=list)
    """Ids of the clips that the encoders were trained on."""
    chosen: list[str] = field(default_factory=list)
    """Ids of the clips that chose the encoders' epoch."""
    unknown: str = ""
    """Why they may have been trained on more clips of this dataset; "" if they were not."""
    notes: list[str] = field(default_factory=list)
    """What else they were initialized from: not these clips, but not recorded either."""


def find_encoder_training(
    encoders: "AlignedEncoders | None",
    clips: "ClipDataset",
    fingerprints: "np.ndarray",
    precomputed: list[str] | None = None,
    external: Mapping[str, str] | None = None,
) -> EncoderTraining:
    """Compare the clips with the training clips of the encoders. encoders: None if all features are given;
    fingerprints: of the clips, uint64 (N, 3); precomputed: modalities with features that came with the dataset;
    external: modalities with features of another tool, with its name."""
    notes = []
    if precomputed:
        notes.append(f"the features of {' and '.join(precomputed)} came with the dataset: their training is not known")
    for name, title in (external or {}).items():
        notes.append(f"the features of {name} come from {title}: its training is not known")
    if encoders is None:
        return EncoderTraining(notes=notes)
    training = encoders.config.get("training", {})
    notes += _published(training)
    ids, record = clips.column("id"), encoders.training_clips
    if record is None:
        return _of_older(training, clips, notes)
    met = record.met(fingerprints)
    if (share := record.compared(fingerprints)) < 1:
        notes.append(f"training clips of the encoders are a sample: only {share:.1%} of these clips are compared")
    trained, chosen = ([name for name, hit in zip(ids, hits, strict=True) if hit] for hits in met)
    unknown = f"its encoders were also trained on {', '.join(record.not_compared)}" if record.not_compared else ""
    return EncoderTraining(trained, chosen, unknown, notes)


def _of_older(training: dict[str, Any], clips: "ClipDataset", notes: list[str]) -> EncoderTraining:
    """For encoders without a record: known if their clip dataset is this one, with these splits."""
    if training.get("data_digest") != clips.digest or training.get("config", {}).get("pairs", {}).get("sources"):
        return EncoderTraining(unknown=OLDER, notes=notes)
    in_split: dict[str, list[str]] = {name: [] for name in ("train", "valid")}
    for name, split in zip(clips.column("id"), clips.column("split"), strict=True):
        in_split.setdefault(split, []).append(name)
    return EncoderTraining(in_split["train"], in_split["valid"], notes=notes)


def _published(training: dict[str, Any]) -> list[str]:
    """A note on each tower that began from published weights."""
    towers = training.get("config", {}).get("towers", {})
    began = {
        modality: (spec.get("options") or {}).get("pretrained")
        for modality, spec in towers.items()
        if isinstance(spec, dict)
    }
    return [
        f"the {modality} tower began from {source}: its training data are not compared"
        for modality, source in began.items()
        if source
    ]
