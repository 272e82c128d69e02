"""Which clips of a feature dataset trained and selected a model, whatever their ids.

Two datasets may have the same ids for different clips, as with `emit synth`, and different ids for the same clips, so
clips are compared by fingerprint. Ids count if model and features come from one clip dataset, as for earlier versions,
which have no fingerprints.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from shared.dataset.training_clips import Met, TrainingClips, TrainingSource
from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import FeatureSample, read_clips
from stage2_fusion.evaluation.results import SeenClips
from stage2_fusion.evaluation.unknown_training import OLD_MODEL
from stage2_fusion.models.model_config import TrainedOn

IDS_ALONE = (
    "the model records its training clips only by ids, which other clips in this clip dataset may have; encode its "
    "clips and train it again with this version"
)
OLD_FEATURES = (
    "these features hold no fingerprints of their clips, and come from another clip dataset than the training clips of "
    "the model; encode them again with this version"
)


@dataclass(frozen=True)
class KnownClips:
    """The clips of a feature dataset that a model has seen."""

    trained: list[str] = field(default_factory=list)
    """Ids of the clips that trained it."""
    chosen: list[str] = field(default_factory=list)
    """Ids of the clips that selected its epoch."""
    whole: bool = False
    """Whether it has seen no other clips; False if unknown."""
    unknown: str = ""
    """Why it is unknown which clips it has seen; "" if it is known."""
    notes: list[str] = field(default_factory=list)

    def count(self, ids: Collection[str]) -> SeenClips | None:
        """How many of the clips `ids` it has seen; None if unknown."""
        if self.unknown:
            return None
        return SeenClips(*(len(set(ids) & set(own)) for own in (self.trained, self.chosen)))


def known_to_model(features: Path, info: FeatureInfo, about: TrainedOn, record: TrainingClips | None) -> KnownClips:
    """The clips of the folder `features` that a model has seen. info: their features.json; about, record: the training
    data of the model, record None if it has no fingerprints."""
    clips = read_clips(features)
    own = np.stack([clip.fingerprints for clip in clips])  # (N, 3)
    ids_tell = about.clips is not None and about.data == info.data.digest and not about.other_data
    compared = record is not None and bool(own.any())
    if not ids_tell and not compared:
        no_record = OLD_MODEL if about.clips is None else IDS_ALONE
        return KnownClips(unknown=no_record if record is None else OLD_FEATURES)
    nothing = np.zeros(len(clips), bool)
    hits, whole, notes = Met(nothing, nothing), False, []
    if record is not None and compared:
        hits, whole = record.met(own), record.all_in(own)
        comparable = own.any(axis=1)  # (N,)
        share = record.compared(own[comparable]) * float(comparable.mean())
        if share < 1 and not ids_tell:
            notes.append(f"only {share:.1%} of these clips can be compared with the training clips of the model")
    named = (set(about.clips or ()), set(about.chosen_on or ())) if ids_tell else (set(), set())
    trained, chosen = (
        [clip.id for clip, hit in zip(clips, met, strict=True) if hit or clip.id in names]
        for met, names in zip(hits, named, strict=True)
    )
    whole = whole or (ids_tell and named[0] | named[1] <= {clip.id for clip in clips})
    return KnownClips(trained, chosen, whole, notes=notes)


def record_of(
    trained: Sequence[FeatureSample], chosen: Sequence[FeatureSample], source: TrainingSource
) -> TrainingClips | None:
    """The fingerprints of the clips of `source` that train and select a model; None for features without
    fingerprints."""
    of_trained, of_chosen = (np.stack([sample.fingerprints for sample in each]) for each in (trained, chosen))
    return TrainingClips.of(of_trained, of_chosen, [source]) if of_trained.any() else None  # (N, 3), (V, 3)
