"""The config.json of a model folder: the architecture of a fusion model, its inputs, and its training data."""

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from shared.dataset.clip import MODALITIES
from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.layouts.used import UsedLayout
from shared.saved.checksum import FUSION, read_description
from shared.saved.typed import read_typed
from stage2_fusion.data.feature_info import ActionUnitInfo, EncoderInfo, FeatureInfo, check_shape

FORMAT = FUSION.format
AGAIN = "train the model again"
LANDMARKER = "face_landmarker.task"
PLAIN = re.compile(r"(?!(true|false|null|none)$)[a-z]\w{3,}", re.IGNORECASE)
"""Names that YAML reads as plain strings: not y, 1, mfcc[1]."""


@dataclass
class TrainedOn:
    """The training data of a model, so that scores on the same clips can be told apart. None = not recorded."""

    features: str = ""
    """Digest of the feature dataset."""
    data: str = ""
    """Digest of the clip dataset."""
    other_data: list[str] | None = None
    """Digests of the other clip datasets that trained the models of its initial encoders."""
    seed: int | None = None
    clips: list[str] | None = None
    """Ids of the training clips; the model folder also holds their fingerprints, because other datasets may have the
    same ids."""
    chosen_on: list[str] | None = None
    """Ids of the validation clips that selected the epoch."""
    mean_labels: dict[str, float] | None = None
    """The mean label of the training clips by dimension, on the scale of the labels: the best guess for an unknown
    clip."""
    synthetic: bool = False
    """Whether `emit synth` drew the clips: such a model has never seen a person."""


@dataclass(kw_only=True)
class FusionConfig:
    """The config.json of a model folder."""

    model: str
    """Registered name, or "package.module:Class"."""
    options: dict[str, Any]
    """Options of the model, as in its `Options`."""
    max_sequence_steps: int
    """Longer sequences are averaged over time to this many steps."""
    label_names: list[str]
    """The K dimensions."""
    widths: dict[str, int]
    """Channels of each modality's sequence and of the shared space ("embed")."""
    quality: dict[str, list[str]]
    """Names of each modality's quality signals."""
    encoders: EncoderInfo
    precision: Literal["fp32", "bf16"]
    """How the encoders ran."""
    prepare: dict[str, Any] = field(default_factory=dict)
    """Settings of `emit prepare` behind the training clips."""
    layout: UsedLayout | None = None
    """How the source of the training clips was read."""
    action_units: ActionUnitInfo | None = None
    label_ranges: dict[str, list[float]] | None = None
    """Lowest and highest value of each dimension; the model predicts fractions of this range. None means [0, 1]."""
    finetune: dict[str, int | None] = field(default_factory=dict)
    """Towers that trained end to end, with the number of trained last blocks."""
    training: dict[str, Any] = field(default_factory=dict)
    """The options under loss and train."""
    trained_on: TrainedOn = field(default_factory=TrainedOn)

    def __post_init__(self) -> None:
        check_shape(self.label_names, self.widths, self.quality)
        LabelScale.of(self.label_names, self.label_ranges)
        if not self.label_names:
            raise UserError("label_names is []: a model predicts at least one dimension")
        if self.max_sequence_steps < 1:
            raise UserError(f"max_sequence_steps is {self.max_sequence_steps}: it must be 1 or more")

    @classmethod
    def from_features(cls, features: FeatureInfo, **values: Any) -> Self:
        """The fields that follow from a features.json, and `values` for the others."""
        shared_names = ("label_names", "widths", "quality", "encoders", "precision", "action_units", "label_ranges")
        shared_values = {name: getattr(features, name) for name in shared_names}
        return cls(**shared_values, prepare=features.data.prepare, layout=features.data.layout, **values)

    @classmethod
    def from_json(cls, content: dict[str, Any], where: str = "config.json") -> Self:
        """From the content of a config.json. UserError, beginning with `where`, for a missing or unknown key, or a
        value of another type or outside its range."""
        values = {name: value for name, value in content.items() if name not in ("format", "files", "checksum")}
        return read_typed(cls, values, where)

    def to_json(self) -> dict[str, Any]:
        """The content of a config.json."""
        content = {"format": FORMAT, **dataclasses.asdict(self)}
        for name in ("encoders", "trained_on"):
            content[name] = {key: value for key, value in content[name].items() if value is not None}
        return {name: value for name, value in content.items() if value is not None}

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The config.json of a model folder. UserError if it is missing, damaged, changed or of another format."""
        return cls.from_json(read_description(folder, FUSION, AGAIN), f"{folder}/config.json")

    @property
    def scale(self) -> LabelScale:
        """The range of each dimension; predictions are on this scale."""
        return LabelScale.of(self.label_names, self.label_ranges)

    @property
    def landmarker_digest(self) -> str | None:
        """Digest of the file behind the action units, None for a model that reads none."""
        return self.action_units.digest if self.action_units else None

    def check_features(self, features: FeatureInfo, path: Path) -> None:
        """UserError for features at `path` that the model cannot read, or with labels of other dimensions or ranges."""
        self.check_inputs(features, path)
        unknown = [name for name in self.label_names if name not in features.label_names]
        if unknown:
            raise UserError(
                f"{path}: labels {', '.join(features.label_names) or 'none'}, but the model was trained on "
                f"{', '.join(unknown)} too"
            )
        for name in self.label_names:
            ours, theirs = self.scale.ranges[name], features.scale.ranges[name]
            if ours != theirs:
                raise UserError(
                    f"{path}: {name} runs from {theirs[0]:g} to {theirs[1]:g}, but the model was trained on labels "
                    f"from {ours[0]:g} to {ours[1]:g}; prepare the clips with --label_range={ours[0]:g},{ours[1]:g}"
                )

    def check_inputs(self, features: FeatureInfo, path: Path) -> None:
        """UserError for features at `path` that the model cannot read: of other encoders, preparation or quality
        signals. Their labels do not matter."""
        if self.encoders.digest != features.encoders.digest:
            self._check_tools(features, path)
            kept = "the encoders kept in the model folder"
            way = "--precomputed, as for its training clips" if self.encoders.precomputed else kept
            raise UserError(
                f"{path}: features of encoders {features.encoders.digest}, but the model was trained on those of "
                f"{self.encoders.digest}; run `emit encode` with {way}"
            )
        landmarker = features.action_units.digest if features.action_units else None
        if self.landmarker_digest != landmarker:
            with_file = f"with --blendshapes, for which the model folder has {LANDMARKER}"
            raise UserError(
                f"{path}: action units of {landmarker or 'no file'}, but the model was trained on those of "
                f"{self.landmarker_digest or 'none'}; run `emit encode` "
                f"{with_file if self.landmarker_digest else 'without --blendshapes'}"
            )
        self._check_preparation(features.data.prepare, path)
        for name in ("quality", "widths"):
            if getattr(self, name) != getattr(features, name):
                raise UserError(
                    f"{path}: {name} {getattr(features, name)}, but the model was trained with {getattr(self, name)}"
                )

    def _check_tools(self, features: FeatureInfo, path: Path) -> None:
        """UserError for a modality with features of another tool, or other columns, than the model reads."""
        ours, theirs = self.encoders.external or {}, features.encoders.external or {}
        for name in MODALITIES:
            mine, other = ours.get(name), theirs.get(name)
            if (mine and mine.identity) == (other and other.identity):
                continue
            found = other.describe(features.widths[name]) if other else "no other tool"
            wanted = mine.describe(self.widths[name]) if mine else "the encoders that the model was trained with"
            way = f"run `emit encode` with --external {name}=PATH" if mine else "run `emit encode` without --external"
            if mine and other and mine.format == other.format and mine.columns:
                names = ", ".join(each if PLAIN.fullmatch(each) else json.dumps(each) for each in mine.columns)
                way = f"run `emit encode` with --external_columns '{{{name}: [{names}]}}'"
            raise UserError(f"{path}: {name} features of {found}, but the model reads those of {wanted}; {way}")

    def _check_preparation(self, prepare: dict[str, Any], path: Path) -> None:
        for name, value in self.prepare.items():
            # Quality signals and encoders resample sound to their own rates; transcripts may come from anywhere.
            if name not in ("sample_rates", "transcribe") and prepare.get(name) != value:
                raise UserError(
                    f"{path}: clips prepared with {name} {prepare.get(name)}, but the model was trained with {value}; "
                    f"prepare them again with --{name} {value}"
                )
