"""What the encoders of a feature dataset were trained on: which of its clips, and what is not known about it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    from shared.dataset.clip_dataset import ClipDataset
    from stage1_align import AlignedEncoders

OLDER = (
    "its encoders do not record their training clips: `emit export` adds them where the run and its clips are still "
    "there; then encode again"
)


@dataclass
class EncoderTraining:
    """In features.json, because clips keep what encoders know of them, whatever `emit split` calls them later."""

    seen: list[str] = field(default_factory=list)
    """Ids of the clips that the encoders were trained on."""
    chosen: list[str] = field(default_factory=list)
    """Ids of the clips that chose the encoders' epoch."""
    unknown: str = ""
    """Why they may have been trained on further clips of this dataset; "" if they were not."""
    notes: list[str] = field(default_factory=list)
    """What else they began from, which is not these clips but is not recorded either."""


def find_encoder_training(
    encoders: "AlignedEncoders | None",
    clips: "ClipDataset",
    fingerprints: "np.ndarray",
    precomputed: list[str] | None = None,
    external: Mapping[str, str] | None = None,
) -> EncoderTraining:
    """Compare the clips with those that the encoders were trained on. encoders: None if all features are given;
    fingerprints: those of the clips, uint64 (N, 3); precomputed: modalities whose features came with the dataset;
    external: modalities whose features another tool made, with its name."""
    notes = []
    if precomputed:
        notes.append(f"the features of {' and '.join(precomputed)} came with the dataset: their training is not known")
    for name, title in (external or {}).items():
        notes.append(f"the features of {name} are those of {title}, whose training is not known")
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
    """Of encoders without a record: known if their clip dataset is this one, with these splits."""
    if training.get("data_digest") != clips.digest or training.get("config", {}).get("pairs", {}).get("sources"):
        return EncoderTraining(unknown=OLDER, notes=notes)
    in_split: dict[str, list[str]] = {name: [] for name in ("train", "valid")}
    for name, split in zip(clips.column("id"), clips.column("split"), strict=True):
        in_split.setdefault(split, []).append(name)
    return EncoderTraining(in_split["train"], in_split["valid"], notes=notes)


def _published(training: dict[str, Any]) -> list[str]:
    """A note on each tower that began from weights of others."""
    towers = training.get("config", {}).get("towers", {})
    began = {
        modality: (spec.get("options") or {}).get("pretrained")
        for modality, spec in towers.items()
        if isinstance(spec, dict)
    }
    return [
        f"the {modality} tower began from {source}, whose training data are not compared"
        for modality, source in began.items()
        if source
    ]
