"""features.json: the shape of a feature dataset, and everything that its features depend on."""

import dataclasses
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from shared.dataset.clip import MODALITIES, check_names
from shared.dataset.label_scale import LabelScale
from shared.errors import UserError
from shared.files import digest, is_digest
from shared.layouts.used import UsedLayout
from shared.options.ranges import Seed, Views, require
from shared.saved.checksum import FEATURES, read_description
from shared.saved.typed import read_typed
from shared.text import counted, first_few
from stage2_fusion.data.encoder_training import EncoderTraining

FORMAT = FEATURES.format
HOW = FEATURES.how
MAX_WIDTH = 2**20


@dataclass
class ExternalTool:
    """The tool that computed the features of a modality, as far as its files tell."""

    format: str
    """Name in the registry of formats (data/external/formats.py), or "package.module:Class"."""
    title: str
    """The usual name of the tool."""
    columns: list[str]
    """The channels, in order; [] when they have no names."""
    signals: list[str] = dataclasses.field(default_factory=list)
    """Its quality signals, which follow those of the clips."""
    how: str = ""
    """The command that computes such features."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """What a model depends on."""
        return self.format, tuple(self.columns), tuple(self.signals)

    def describe(self, width: int) -> str:
        """A short description, for messages."""
        names = f", {first_few(self.columns)}" if self.columns else ""
        return f"{self.title} ({counted(width, 'channel')}{names})"


@dataclass
class EncoderInfo:
    """The aligned encoders behind a feature dataset, or the sources of its features in their place."""

    path: str
    digest: str
    config: dict[str, Any]
    """Their config.json."""
    precomputed: list[str] | None = None
    """Modalities with features that came with the dataset."""
    external: dict[str, ExternalTool] | None = None
    """Modalities with features of another tool."""
    aligned: str | None = None
    """If features are given: the digest of the aligned encoders that computed the others, None without any."""

    @property
    def given(self) -> list[str]:
        """The modalities that no aligned encoder computed."""
        return sorted({*(self.precomputed or []), *(self.external or {})}, key=MODALITIES.index)

    @property
    def titles(self) -> dict[str, str]:
        """{modality: the name of its tool}, for features of other tools."""
        return {name: tool.title for name, tool in (self.external or {}).items()}

    @property
    def kept(self) -> str | None:
        """The digest of the aligned encoders that a model folder holds; None without any."""
        return self.aligned if self.given else self.digest

    def how_to_make(self) -> str:
        """How to compute the given features for other clips, in words that follow "make them: "."""
        external = self.external or {}
        made = [
            f"`{tool.how}`" if tool.how else f"{name} features like those of the training clips"
            for name, tool in external.items()
        ]
        options = [f"--external {name}={tool.format if tool.how else 'PATH'}" for name, tool in external.items()]
        options += ["--precomputed ROOT"] if self.precomputed else []
        options += ["--encoders MODEL/encoders"] if self.aligned else []
        return ", ".join([*made, "`emit prepare`", f"`emit encode {' '.join(options)} --data CLIPS --out FEATURES`"])


@dataclass
class DataInfo:
    """The clip dataset behind a feature dataset."""

    path: str
    digest: str
    prepare: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The settings of `emit prepare`."""
    synthetic: bool | None = None
    """True if `emit synth` made the clips."""
    layout: UsedLayout | None = None
    """How the source of the clips was read."""


@dataclass
class ActionUnitInfo:
    """The face landmarker behind the action units of the vision sequence."""

    path: str
    digest: str
    names: list[str]
    """The channels it adds, in order."""


@dataclass
class PrecomputedInfo:
    """The files behind features that came with their dataset."""

    path: str
    digest: str


@dataclass
class ExternalInfo:
    """The files behind another tool's features of one modality."""

    path: str
    digest: str
    clips: int
    """Clips that have such features."""
    rate: float | None = None
    """Steps per second (median); None for one step per clip, and for text."""
    format: str = ""
    """The requested format; "" = recognized from the files."""
    columns: list[str] = dataclasses.field(default_factory=list)
    """The requested columns, by name or pattern; [] = the columns that the format treats as features."""
    made_by: str = ""
    """The tool, as the user named it."""

    def options(self, modality: str) -> dict[str, Any]:
        """The options of `emit encode` that read them again."""
        options: dict[str, Any] = {"external": f"{modality}={self.format}{':' * bool(self.format)}{self.path}"}
        options |= {"external_columns": self.columns} if self.columns else {}
        return options | ({"external_made_by": self.made_by} if self.made_by else {})


@dataclass
class FeatureInfo:
    """What features.json holds: the shape of the features and everything they depend on."""

    label_names: list[str]
    group_names: list[str]
    encoders: EncoderInfo
    data: DataInfo
    widths: dict[str, int]
    """Channels of the sequence of "vision", "audio" and "text", and of the shared space ("embed")."""
    quality: dict[str, list[str]]
    """Modality to the names of its quality signals."""
    views: int
    """Damaged views of every clip."""
    seed: int
    """Decides the damage of the views."""
    precision: Literal["fp32", "bf16"]
    """How the encoders ran."""
    action_units: ActionUnitInfo | None = None
    precomputed: PrecomputedInfo | None = None
    external: dict[str, ExternalInfo] | None = None
    """Modality to the files behind another tool's features. Their sequences are in single precision: some tools write
    values that half precision cannot hold."""
    encoder_training: EncoderTraining | None = None
    """Which clips the encoders were trained on; None in features of earlier versions. Not part of the digest, since the
    features do not depend on it."""
    split: dict[str, Any] | None = None
    """The settings of `emit split`, when it assigned the splits."""
    label_ranges: dict[str, list[float]] | None = None
    """Lowest and highest value of each label on the scale of its source; stored labels are fractions of this range.
    None means [0, 1]."""
    view_generator: int | None = None
    """VIEW_GENERATOR of the code that damaged the views; None without such views, and for the first version."""
    digest: str = ""
    """Changes with anything the features depend on, except paths."""
    format: str = FORMAT

    def __post_init__(self) -> None:
        check_shape(self.label_names, self.widths, self.quality)
        check_names(self.group_names, "group_names")
        require(Views, self.views, "views")
        require(Seed, self.seed, "seed")
        if not (self.encoders.digest and self.data.digest):
            raise UserError("the digest of its encoders or of its clips is empty")
        LabelScale.of(self.label_names, self.label_ranges)

    @classmethod
    def from_json(cls, content: dict[str, Any], where: str = "features.json") -> "FeatureInfo":
        """From the content of a features.json. UserError, beginning with `where`, for a missing or unknown key, or a
        value of another type."""
        return read_typed(cls, {name: value for name, value in content.items() if name not in OUTER}, where)

    def to_json(self) -> dict[str, Any]:
        """The content of a features.json."""
        return _to_json(self)

    @property
    def scale(self) -> LabelScale:
        """The range of each dimension."""
        return LabelScale.of(self.label_names, self.label_ranges)

    def select(self, names: list[str]) -> "FeatureInfo":
        """The same description with only these dimensions, with its digest."""
        scale = LabelScale.of(names, self.label_ranges)
        return replace(self, label_names=list(names), label_ranges=scale.to_json())

    def with_digest(self) -> "FeatureInfo":
        """A copy with its digest, which does not depend on the paths of the encoders and the clips."""
        # What a layout read is in the digest of the clips.
        files = self.external and {name: replace(about, path="") for name, about in self.external.items()}
        described = replace(self, data=replace(self.data, layout=None), encoder_training=None, external=files)
        content = {
            key: {name: part for name, part in value.items() if name != "path"} if isinstance(value, dict) else value
            for key, value in described.to_json().items()
            if key != "digest"
        }
        content["format"] = FEATURES.unsealed
        return replace(self, digest=digest(content))


OUTER = ("files", "checksum")
"""Keys of a features.json that describe the folder, not the features."""


def check_shape(label_names: list[str], widths: dict[str, int], quality: dict[str, list[str]]) -> None:
    """UserError unless the names and widths of a description make sense."""
    check_names(label_names, "label_names")
    if len(set(label_names)) < len(label_names) or not all(label_names):
        raise UserError(f"label_names is {label_names!r:.60}: different names are needed")
    for what, given, keys in (("widths", widths, {*MODALITIES, "embed"}), ("quality", quality, {*MODALITIES})):
        if given.keys() != keys:
            raise UserError(f"{what} is of {', '.join(map(str, given))}: expected {', '.join(sorted(keys))}")
    for name, width in widths.items():
        if not 1 <= width <= MAX_WIDTH:
            raise UserError(f"widths.{name} is {width}: expected a whole number from 1 to {MAX_WIDTH}")


def _to_json(value: Any) -> Any:
    """A dataclass as a dictionary, without the fields that are None."""
    if isinstance(value, dict):
        return {key: _to_json(part) for key, part in value.items()}
    if not dataclasses.is_dataclass(value):
        return value
    content = {field.name: _to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {key: part for key, part in content.items() if part is not None}


def read_info(path: Path) -> FeatureInfo:
    """The features.json of a feature dataset. UserError when it is missing, damaged, changed or of another format."""
    again = f"delete {path} and {HOW}"
    content = read_description(Path(path), FEATURES, again)
    if not is_digest(content.get("digest")):
        raise UserError(f"{path}/features.json: digest is {content.get('digest')!r:.40}: no digest; {again}")
    return FeatureInfo.from_json(content, f"{path}/features.json")
