"""The feature dataset: the output of frozen encoders for each clip, undamaged (view 0) and damaged on purpose.

DIR/features.json holds a FeatureInfo; DIR/data holds one row per FeatureSample (Hugging Face datasets, binary columns).
"""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.dataset.shards import read_shard, save_table, write_shard
from shared.errors import UserError
from shared.files import atomic_folder, digest, read_json, write_json
from shared.text import one_line

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "emit-features/1"
HOW = "make it with `emit encode`"


class KeyAccess:
    """Temporary: `value["name"]` beside `value.name`, until every caller uses attributes."""

    def __getitem__(self, key: str) -> Any:
        return getattr(self, key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self, key, value)

    def __contains__(self, key: str) -> bool:
        return getattr(self, key, None) is not None

    def get(self, key: str, default: Any = None) -> Any:
        value = getattr(self, key, None)
        return default if value is None else value

    def keys(self) -> list[str]:
        return [field.name for field in dataclasses.fields(self) if field.name in self]

    def values(self) -> list[Any]:
        return [self[key] for key in self.keys()]

    def items(self) -> list[tuple[str, Any]]:
        return [(key, self[key]) for key in self.keys()]

    def __or__(self, changes: dict[str, Any]) -> Any:
        return dataclasses.replace(self, **changes)

    def __ior__(self, changes: dict[str, Any]) -> Any:
        for key, value in changes.items():
            self[key] = value
        return self


# --- one sample ----------------------------------------------------------------------------------------------------


@dataclass(eq=False)
class ModalityFeatures(KeyAccess):
    """One modality of a clip, as its encoder represents it. T = 0 when the modality is missing."""

    sequence: np.ndarray
    """float16 (T, C)."""
    times: np.ndarray
    """float32 (T,), seconds of the steps; (0,) for text, which has no times."""
    pooled: np.ndarray
    """float16 (D,), the embedding in the shared space; zeros when the modality is missing."""
    quality: np.ndarray
    """float32 (T, Q), quality signals of the input at each step."""

    @property
    def steps(self) -> int:
        """T."""
        return len(self.sequence)


@dataclass(eq=False)
class FeatureSample(KeyAccess):
    """The features of one view of a clip."""

    id: str
    view: int
    """0: the undamaged clip; 1, 2, ...: copies with one modality damaged on purpose."""
    split: str
    duration: float
    """Seconds."""
    labels: np.ndarray
    """float32 (K,), NaN = not labelled."""
    groups: dict[str, str]
    """Group name to the clip's group, such as {"subject": "s03"}; "" = unknown."""
    damage: dict[str, str]
    """Modality to the kind of damage done on purpose; "" = none."""
    vision: ModalityFeatures
    audio: ModalityFeatures
    text: ModalityFeatures

    def modality(self, name: str) -> ModalityFeatures:
        """The features of "vision", "audio" or "text"."""
        return getattr(self, name)

    def without(self, name: str) -> "FeatureSample":
        """The same sample with one modality missing."""
        part = self.modality(name)
        empty = ModalityFeatures(part.sequence[:0], part.times[:0], np.zeros_like(part.pooled), part.quality[:0])
        return dataclasses.replace(self, **{name: empty})


@dataclass(eq=False)
class ClipLabels(KeyAccess):
    """What a feature dataset says of a clip besides its features."""

    id: str
    split: str
    labels: np.ndarray
    """float32 (K,), NaN = not labelled."""
    groups: dict[str, str]


# --- features.json -------------------------------------------------------------------------------------------------


@dataclass
class EncoderInfo(KeyAccess):
    """The aligned encoders behind a feature dataset."""

    path: str
    digest: str
    config: dict[str, Any]
    """Their config.json."""
    precomputed: list[str] | None = None
    """Modalities whose features came with the dataset: no encoder of ours computed them."""

    @property
    def provided(self) -> list[str] | None:
        """Temporary: the old name."""
        return self.precomputed


@dataclass
class DataInfo(KeyAccess):
    """The clip dataset behind a feature dataset."""

    path: str
    digest: str
    prepare: dict[str, Any] = dataclasses.field(default_factory=dict)
    """The settings of `emit prepare`."""
    synthetic: bool | None = None
    """True if `emit synth` made the clips."""


@dataclass
class ActionUnitInfo(KeyAccess):
    """The face landmarker behind the action units of the vision sequence."""

    path: str
    digest: str
    names: list[str]
    """The channels it adds, in order."""


@dataclass
class PrecomputedInfo(KeyAccess):
    """The files behind features that came with their dataset."""

    path: str
    digest: str


@dataclass
class FeatureInfo(KeyAccess):
    """What features.json holds: the shape of the features and everything they depend on."""

    label_names: list[str]
    group_names: list[str]
    encoders: EncoderInfo
    data: DataInfo
    widths: dict[str, int]
    """Channels of the sequence of "vision", "audio" and "text", and of the shared space ("embed")."""
    quality: dict[str, list[str]]
    """Modality to the names of its quality signals."""
    views: int = 0
    """Damaged views of every clip."""
    seed: int = 0
    """Decides the damage of the views."""
    precision: str = "fp32"
    """fp32 or bf16: how the encoders ran."""
    action_units: ActionUnitInfo | None = None
    precomputed: PrecomputedInfo | None = None
    split: dict[str, Any] | None = None
    """The settings of `emit split`, when it assigned the splits."""
    digest: str = ""
    """Changes with anything the features depend on, except paths."""
    format: str = FORMAT

    def __post_init__(self) -> None:
        for name, kind in _NESTED.items():
            value = getattr(self, name)
            if isinstance(value, dict):
                setattr(self, name, kind(**value))

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "FeatureInfo":
        """From the content of a features.json; TypeError when a key is missing."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in content.items() if key in known})

    def to_json(self) -> dict[str, Any]:
        """The content of a features.json."""
        return _to_json(self)

    def with_digest(self) -> "FeatureInfo":
        """A copy whose digest is computed from the rest, wherever the encoders and the clips lie."""
        content = {
            key: {name: part for name, part in value.items() if name != "path"} if isinstance(value, dict) else value
            for key, value in self.to_json().items()
            if key != "digest"
        }
        return dataclasses.replace(self, digest=digest(content))


_NESTED = {"encoders": EncoderInfo, "data": DataInfo, "action_units": ActionUnitInfo, "precomputed": PrecomputedInfo}


def _to_json(value: Any) -> Any:
    """A dataclass as a dictionary, without the fields that are None."""
    if not dataclasses.is_dataclass(value):
        return value
    content = {field.name: _to_json(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return {key: part for key, part in content.items() if part is not None}


# --- files ---------------------------------------------------------------------------------------------------------


def write(out: Path, samples: Iterable[FeatureSample], info: FeatureInfo) -> FeatureInfo:
    """Write samples as they come; the folder appears when all are written. Returns `info` with its digest."""
    info = info.with_digest()
    with atomic_folder(out) as folder:
        shard = folder / "rows.arrow"
        write_samples(shard, samples, info)
        save_table(read_samples([shard]), folder / "data", info.digest)
        shard.unlink()
        write_json(folder / "features.json", info.to_json())
    return info


def write_samples(path: Path, samples: Iterable[FeatureSample], info: FeatureInfo) -> None:
    """Write samples to an Arrow shard as they come."""
    from datasets.arrow_writer import ArrowWriter

    columns = _columns(info)
    with write_shard(path) as file, ArrowWriter(path=str(file), features=columns, writer_batch_size=256) as writer:
        for sample in samples:
            writer.write(_to_row(sample))
        writer.finalize()


def read_samples(shards: list[Path]) -> "pa.Table":
    """The rows of all shards, memory-mapped."""
    import pyarrow as pa

    return pa.concat_tables([pa.ipc.open_stream(read_shard(shard)).read_all() for shard in shards])


def read_info(path: Path) -> FeatureInfo:
    """The features.json of a feature dataset; UserError when it is missing, damaged or has another format."""
    content = read_json(Path(path) / "features.json", "feature dataset", HOW)
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: format {content.get('format')!r} where {FORMAT!r} is read; {HOW}")
    try:
        return FeatureInfo.from_json(content)
    except TypeError as error:
        raise UserError(f"{path}/features.json: damaged ({one_line(error, 200)}); delete {path} and {HOW}") from None


def read_clips(path: Path, stored: bool = False) -> list[ClipLabels]:
    """Every clip without its features; with `stored`, the split it had when it was encoded, whatever `emit split` made
    of it since."""
    info = read_info(path)
    table = _load(path, stored)
    columns = ["id", "split", "labels", "view", *(f"group_{name}" for name in info.group_names)]
    return [
        ClipLabels(
            id=row["id"],
            split=row["split"],
            labels=np.array(row["labels"], dtype=np.float32),  # (K,)
            groups={name: row[f"group_{name}"] for name in info.group_names},
        )
        for row in table.select_columns(columns).to_list()
        if row["view"] == 0
    ]


def _load(path: Path, stored: bool = False):
    """The stored rows, with the splits that stand beside them when there are any, unless the `stored` ones are asked
    for; UserError when they are damaged."""
    import datasets

    from shared.dataset.splits import with_splits

    try:
        table = datasets.load_from_disk(str(Path(path) / "data"))
        return table if stored else with_splits(table, Path(path))
    except UserError:
        raise
    except Exception as error:  # the library raises what its readers happen to raise
        reason = one_line(error, 200)
        raise UserError(f"{path}/data: missing or damaged ({reason}); delete {path} and {HOW}") from None


class FeatureDataset:
    """Samples of one split in memory.

    info: the features.json; samples: in stored order.
    """

    def __init__(self, info: FeatureInfo, samples: list[FeatureSample]):
        self.info, self.samples = info, samples

    @classmethod
    def open(
        cls, path: Path, split: str | None = None, views: tuple[int, ...] | None = None, max_steps: int | None = None
    ) -> "FeatureDataset":
        """Read `split` ("" or None: all) and `views` (None: all). Sequences above `max_steps` are averaged over time
        to that many steps, so a clip of an hour takes no more memory than one of seconds. UserError when nothing is
        left, naming the splits there are."""
        info, table = read_info(path), _load(path)
        splits, row_views = table["split"][:], table["view"][:]
        rows = [
            i
            for i, (name, view) in enumerate(zip(splits, row_views, strict=True))
            if (not split or name == split) and (views is None or view in views)
        ]
        if not rows:
            there = ", ".join(sorted(set(splits) - {""})) or "none; give clips a split column"
            raise UserError(f"{path}: no clips of split {split!r}; there are: {there}")
        return cls(info, [shorten(_from_row(table[i], info), max_steps) for i in rows])

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> FeatureSample:
        return self.samples[index]

    def labels(self) -> np.ndarray:
        """float32 (N, K), NaN = not labelled."""
        return np.stack([sample.labels for sample in self.samples])

    def by_clip(self) -> list[dict[int, FeatureSample]]:
        """One {view: sample} per clip, in stored order."""
        clips: dict[str, dict[int, FeatureSample]] = {}
        for sample in self.samples:
            clips.setdefault(sample.id, {})[sample.view] = sample
        return list(clips.values())


def shorten(sample: FeatureSample, max_steps: int | None) -> FeatureSample:
    """Average each sequence longer than `max_steps` over equal runs of steps; the rest is left alone."""
    for name in MODALITIES:
        part = sample.modality(name)
        steps = part.steps
        if max_steps is None or steps <= max_steps:
            continue
        edges = np.linspace(0, steps, max_steps + 1).round().astype(int)[:-1]
        counts = np.diff([*edges, steps])[:, None]
        for key in ("sequence", "quality", "times"):
            values = getattr(part, key)
            if len(values):
                mean = np.add.reduceat(values.reshape(steps, -1).astype(np.float32), edges, axis=0) / counts
                setattr(part, key, mean.reshape(max_steps, *values.shape[1:]).astype(values.dtype))
    return sample


# --- rows on disk --------------------------------------------------------------------------------------------------


def _columns(info: FeatureInfo):
    from datasets import Features, List, Value

    columns = {"id": Value("string"), "view": Value("int32"), "split": Value("string"), "duration": Value("float32")}
    columns["labels"] = List(Value("float32"))
    columns |= {f"group_{name}": Value("string") for name in info.group_names}
    for name in MODALITIES:
        columns |= {
            f"damage_{name}": Value("string"),
            f"{name}_sequence": Value("large_binary"),
            f"{name}_steps": Value("int32"),
            f"{name}_times": List(Value("float32")),
            f"{name}_pooled": Value("binary"),
            f"{name}_quality": Value("binary"),
        }
    return Features(columns)


def _to_row(sample: FeatureSample) -> dict[str, Any]:
    row = {key: getattr(sample, key) for key in ("id", "view", "split", "duration")}
    row["labels"] = np.asarray(sample.labels, dtype=np.float32)
    row |= {f"group_{name}": value for name, value in sample.groups.items()}
    for name in MODALITIES:
        part = sample.modality(name)
        row |= {
            f"damage_{name}": sample.damage[name],
            f"{name}_sequence": np.ascontiguousarray(part.sequence, dtype=np.float16).tobytes(),
            f"{name}_steps": part.steps,
            f"{name}_times": np.asarray(part.times, dtype=np.float32),
            f"{name}_pooled": np.asarray(part.pooled, dtype=np.float16).tobytes(),
            f"{name}_quality": np.ascontiguousarray(part.quality, dtype=np.float32).tobytes(),
        }
    return row


def _from_row(row: dict[str, Any], info: FeatureInfo) -> FeatureSample:
    parts = {}
    for name in MODALITIES:
        steps = row[f"{name}_steps"]
        parts[name] = ModalityFeatures(
            sequence=np.frombuffer(row[f"{name}_sequence"], np.float16).reshape(steps, info.widths[name]),
            times=np.array(row[f"{name}_times"], dtype=np.float32),  # (T,)
            pooled=np.frombuffer(row[f"{name}_pooled"], np.float16),  # (D,)
            quality=np.frombuffer(row[f"{name}_quality"], np.float32).reshape(steps, len(info.quality[name])),
        )
    return FeatureSample(
        **{key: row[key] for key in ("id", "view", "split", "duration")},
        labels=np.array(row["labels"], dtype=np.float32),  # (K,)
        groups={name: row[f"group_{name}"] for name in info.group_names},
        damage={name: row[f"damage_{name}"] for name in MODALITIES},
        **parts,
    )
