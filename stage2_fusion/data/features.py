"""The feature dataset: the output of frozen encoders for each clip, undamaged (view 0) and deliberately damaged.

DIR/features.json holds a FeatureInfo; DIR/data holds one row per FeatureSample (Hugging Face datasets, binary columns).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.dataset.label_scale import require_fractions
from shared.dataset.rows import load_rows
from shared.dataset.shards import read_shard, save_table, write_shard
from shared.errors import UserError
from shared.files import atomic_folder
from shared.saved.checksum import FEATURES, write_description
from shared.terminal.progress import track
from shared.text import counted, one_line
from stage2_fusion.data.feature_info import HOW, FeatureInfo, read_info
from stage2_fusion.data.packing import PackedSteps, Place

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

FINGERPRINTS = "fingerprints"
"""The column that features of earlier versions lack."""


def _no_fingerprints() -> np.ndarray:
    return np.zeros(3, np.uint64)


# --- one sample ----------------------------------------------------------------------------------------------------


@dataclass(eq=False, frozen=True)
class ModalityFeatures:
    """One modality of a clip, as its encoder represents it. T = 0 when the modality is missing."""

    sequence: np.ndarray
    """float16 (T, C); float32 for features of another tool."""
    times: np.ndarray
    """float32 (T,), seconds of the steps; (0,) for text, which has no times."""
    pooled: np.ndarray
    """float16 (D,), the embedding in the shared space; zeros when the modality is missing."""
    quality: np.ndarray
    """float32 (T, Q), quality signals of the input at each step."""
    place: Place | None = field(default=None, init=False, repr=False)
    """Where the steps are stored, if they are packed with other samples; `replace` sets None."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"place": None}  # a pickled sample must not include all others

    @property
    def steps(self) -> int:
        """T."""
        return len(self.sequence)


@dataclass(eq=False)
class FeatureSample:
    """The features of one view of a clip."""

    id: str
    view: int
    """0: the undamaged clip; 1, 2, ...: copies with one modality damaged on purpose."""
    split: str
    duration: float
    """Seconds."""
    labels: np.ndarray
    """float32 (K,), NaN = not labeled."""
    groups: dict[str, str]
    """Group name to the clip's group, such as {"subject": "s03"}; "" = unknown."""
    damage: dict[str, str]
    """Modality to the kind of damage done on purpose; "" = none."""
    vision: ModalityFeatures
    audio: ModalityFeatures
    text: ModalityFeatures
    fingerprints: np.ndarray = field(default_factory=_no_fingerprints)
    """uint64 (3,), of the clip (shared/dataset/training_clips.py), 0 = none."""

    def modality(self, name: str) -> ModalityFeatures:
        """The features of "vision", "audio" or "text"."""
        return getattr(self, name)

    def without(self, name: str) -> "FeatureSample":
        """The same sample with one modality missing."""
        part = self.modality(name)
        empty = ModalityFeatures(part.sequence[:0], part.times[:0], np.zeros_like(part.pooled), part.quality[:0])
        parts: dict[str, Any] = {name: empty}
        return replace(self, **parts)


@dataclass(eq=False)
class ClipLabels:
    """A clip without its features."""

    id: str
    split: str
    labels: np.ndarray
    """float32 (K,), NaN = not labeled."""
    groups: dict[str, str]
    fingerprints: np.ndarray = field(default_factory=_no_fingerprints)
    """uint64 (3,), 0 = none; features of earlier versions have none."""


# --- files ---------------------------------------------------------------------------------------------------------


def write(out: Path, samples: Iterable[FeatureSample], info: FeatureInfo) -> FeatureInfo:
    """Write a feature dataset. The folder appears once all samples are written. Returns `info` with its digest."""
    info = info.with_digest()
    with atomic_folder(out) as folder:
        shard = folder / "rows.arrow"
        write_samples(shard, samples, info)
        save_table(read_samples([shard]), folder / "data", info.digest)
        shard.unlink()
        write_description(folder, FEATURES, info.to_json())
    return info


def write_samples(path: Path, samples: Iterable[FeatureSample], info: FeatureInfo) -> None:
    """Write samples to an Arrow shard one by one."""
    from datasets.arrow_writer import ArrowWriter

    columns = _columns(info)
    with write_shard(path) as file, ArrowWriter(path=str(file), features=columns, writer_batch_size=256) as writer:
        for sample in samples:
            writer.write(_to_row(sample, info))
        writer.finalize()


def read_samples(shards: list[Path]) -> "pa.Table":
    """The rows of all shards, memory-mapped, with the columns that all have: an earlier version may have written
    some."""
    import pyarrow as pa

    tables = [pa.ipc.open_stream(read_shard(shard)).read_all() for shard in shards]
    common = [name for name in tables[0].column_names if all(name in table.column_names for table in tables)]
    return pa.concat_tables([table.select(common) for table in tables])


def read_clips(path: Path, stored: bool = False) -> list[ClipLabels]:
    """The clips without their features. stored: with the splits at the time of encoding, not those of `emit split`."""
    info = read_info(path)
    table = feature_table(Path(path), info, stored)
    columns = ["id", "split", "labels", "view", *(f"group_{name}" for name in info.group_names)]
    columns += [FINGERPRINTS] if FINGERPRINTS in table.column_names else []
    return [
        ClipLabels(
            id=row["id"],
            split=row["split"],
            labels=np.array(row["labels"], dtype=np.float32),  # (K,)
            groups={name: row[f"group_{name}"] for name in info.group_names},
            fingerprints=_fingerprints(path, row),
        )
        for row in table.select_columns(columns).to_list()
        if row["view"] == 0
    ]


def feature_table(path: Path, info: FeatureInfo, stored: bool = False) -> "datasets.Dataset":
    """The rows with the splits of `emit split`, or with the stored ones. UserError when the files are damaged."""
    from shared.dataset.splits import with_splits

    table = load_rows(path, _columns(info).arrow_schema, f"delete {path} and {HOW}", (FINGERPRINTS,))
    return table if stored else with_splits(table, path)


class FeatureDataset:
    """The samples of a feature dataset, or of one split of it, in memory.

    >>> data = FeatureDataset.open("runs/demo/features", split="valid", views=(0,))
    >>> len(data), data.info.label_names[:2]
    (36, ['Admiration', 'Amusement'])
    >>> data[0].id, data[0].audio.sequence.shape  # float16 (T, C); see FeatureSample
    ('clip_0007', (42, 64))
    >>> data.labels().shape  # float32 (N, K), NaN = not labeled
    (36, 6)

    info: the features.json; samples: in stored order.
    """

    def __init__(self, info: FeatureInfo, samples: list[FeatureSample]):
        self.info, self.samples = info, samples

    @classmethod
    def open(
        cls,
        path: str | Path,
        split: str | None = None,
        views: Sequence[int] | None = None,
        max_sequence_steps: int | None = None,
    ) -> "FeatureDataset":
        """Read a feature dataset that `emit encode` wrote.

        split: "train", "valid", "test" or a name of your own; None or "" = all. views: numbers of the views, (0,) for
        undamaged clips only; None = all. max_sequence_steps: longer sequences are averaged over time to this many
        steps, so that a clip of an hour takes no more memory than one of seconds. Raises UserError when there is no
        such dataset or split, or when labels lie outside [0, 1].
        """
        views = None if views is None else list(views) if isinstance(views, Iterable) else [views]
        if max_sequence_steps is not None and not (isinstance(max_sequence_steps, int) and max_sequence_steps > 0):
            raise UserError(f"max_sequence_steps is {max_sequence_steps!r}; give a whole number above 0, or None")
        if not isinstance(path, str | os.PathLike):
            raise UserError(f"a feature dataset is a folder, but got {type(path).__name__}; {HOW}")
        path = Path(path)
        info = read_info(path)
        table = feature_table(path, info)
        splits, row_views = table["split"][:], table["view"][:]
        rows = [
            i
            for i, (name, view) in enumerate(zip(splits, row_views, strict=True))
            if (not split or name == split) and (views is None or view in views)
        ]
        if not rows:
            names = ", ".join(sorted(set(splits) - {""})) or "none; give clips a split column"
            wanted = f"split {split!r}" if views is None else f"split {split!r} and views {views}"
            kinds = "" if views is None else f"; views: {', '.join(map(str, sorted(set(row_views))))}"
            raise UserError(f"{path}: no clips of {wanted}; there are: {names}{kinds}")
        packed = {name: _room(table, rows, name, info, max_sequence_steps) for name in MODALITIES}
        samples: list[FeatureSample] = []
        for row in track(stored_rows(table, rows), f"read {path}", "rows", len(rows)):
            sample = shorten(_read_row(path, row, info), max_sequence_steps)
            for name, steps in packed.items():
                setattr(sample, name, steps.put(len(samples), sample.modality(name)))
            samples.append(sample)
        data = cls(info, samples)
        require_fractions(data.labels(), info.label_names, [sample.id for sample in data.samples], str(path))
        return data

    def select(self, names: Sequence[str]) -> "FeatureDataset":
        """The same samples with the labels of these dimensions alone, in this order."""
        columns = [self.info.label_names.index(name) for name in names]
        samples = [replace(sample, labels=sample.labels[columns]) for sample in self.samples]
        return FeatureDataset(self.info.select(list(names)), samples)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> FeatureSample:
        return self.samples[index]

    def __repr__(self) -> str:
        return (
            f"FeatureDataset({counted(len(self), 'sample')} of "
            f"{counted(len(self.by_clip()), 'clip')}, labels {self.info.label_names})"
        )

    def labels(self) -> np.ndarray:
        """float32 (N, K), fractions of their range (`info.scale`), NaN = not labeled."""
        labels = [sample.labels for sample in self.samples]
        return np.stack(labels) if labels else np.zeros((0, len(self.info.label_names)), np.float32)

    def by_clip(self) -> list[dict[int, FeatureSample]]:
        """{view: sample} of each clip, in stored order."""
        clips: dict[str, dict[int, FeatureSample]] = {}
        for sample in self.samples:
            clips.setdefault(sample.id, {})[sample.view] = sample
        return list(clips.values())


def shorten(sample: FeatureSample, max_sequence_steps: int | None) -> FeatureSample:
    """Average each longer sequence over equal runs of steps; shorter ones stay as they are."""
    if max_sequence_steps is None:
        return sample
    parts: dict[str, Any] = {name: _average_runs(sample.modality(name), max_sequence_steps) for name in MODALITIES}
    return replace(sample, **parts)


def _average_runs(part: ModalityFeatures, count: int) -> ModalityFeatures:
    steps = part.steps
    if steps <= count:
        return part
    starts = np.linspace(0, steps, count + 1).round().astype(int)[:-1]  # (count,)
    lengths = np.diff([*starts, steps])[:, None]  # (count, 1)

    def average(values: np.ndarray) -> np.ndarray:
        mean = np.add.reduceat(values.reshape(steps, -1).astype(np.float32), starts, axis=0) / lengths
        return mean.reshape(count, *values.shape[1:]).astype(values.dtype)

    times = average(part.times) if len(part.times) else part.times
    return ModalityFeatures(average(part.sequence), times, part.pooled, average(part.quality))


# --- rows on disk --------------------------------------------------------------------------------------------------


def _columns(info: FeatureInfo) -> "datasets.Features":
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
    columns[FINGERPRINTS] = List(Value("uint64"))
    return Features(columns)


def sequence_type(info: FeatureInfo, modality: str) -> type[np.floating]:
    """The precision in which the sequences of a modality are stored."""
    return np.float32 if modality in (info.external or {}) else np.float16


def _to_row(sample: FeatureSample, info: FeatureInfo) -> dict[str, Any]:
    row = {key: getattr(sample, key) for key in ("id", "view", "split", "duration")}
    row["labels"] = np.asarray(sample.labels, dtype=np.float32)
    row |= {f"group_{name}": value for name, value in sample.groups.items()}
    for name in MODALITIES:
        part = sample.modality(name)
        row |= {
            f"damage_{name}": sample.damage[name],
            f"{name}_sequence": np.ascontiguousarray(part.sequence, sequence_type(info, name)).tobytes(),
            f"{name}_steps": part.steps,
            f"{name}_times": np.asarray(part.times, dtype=np.float32),
            f"{name}_pooled": np.asarray(part.pooled, dtype=np.float16).tobytes(),
            f"{name}_quality": np.ascontiguousarray(part.quality, dtype=np.float32).tobytes(),
        }
    row[FINGERPRINTS] = np.asarray(sample.fingerprints, dtype=np.uint64)
    return row


def stored_rows(table: "datasets.Dataset", rows: Sequence[int], at_once: int = 32) -> Iterator[dict[str, Any]]:
    """The rows, read a few at a time: reading them one by one takes twice as long."""
    for start in range(0, len(rows), at_once):
        batch = table[list(rows[start : start + at_once])]
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _room(
    table: "datasets.Dataset", rows: Sequence[int], name: str, info: FeatureInfo, max_sequence_steps: int | None
) -> PackedSteps:
    """Allocate memory for the steps of a modality of these rows; the stored bytes tell how many there are."""
    import pyarrow.compute as pc

    width, kind = info.widths[name], sequence_type(info, name)
    stored = pc.binary_length(table.data.column(f"{name}_sequence")).to_numpy()[rows]  # (N,)
    steps = stored.astype(np.int64) // max(1, width * np.dtype(kind).itemsize)  # (N,)
    signals = len(info.quality[name])
    kinds = {"sequence": ((width,), kind), "times": ((), np.float32), "quality": ((signals,), np.float32)}
    return PackedSteps.empty(steps.clip(max=max_sequence_steps or steps.max()), kinds)


def _read_row(path: Path, row: dict[str, Any], info: FeatureInfo) -> FeatureSample:
    """The sample of a row. UserError when its values do not have the shapes that features.json gives, or are NaN."""
    problem = ""
    try:
        sample = _from_row(path, row, info)
        for name in MODALITIES:
            part = sample.modality(name)
            wrong = len(part.pooled) != info.widths["embed"] or len(part.times) != (0 if name == "text" else part.steps)
            if wrong or any(np.isnan(values).any() for values in (part.sequence, part.pooled, part.quality)):
                problem = f"the features of {name}"
        if len(sample.labels) != len(info.label_names):
            problem = f"{len(sample.labels)} labels"
    except ValueError as error:
        problem = one_line(error)
    if problem:
        raise UserError(f"{path}: {row['id']!r:.60} is damaged ({problem}); delete {path} and {HOW}")
    return sample


def _fingerprints(path: Path, row: dict[str, Any]) -> np.ndarray:
    """The fingerprints of a row, uint64 (3,). UserError if there are more or fewer."""
    values = row.get(FINGERPRINTS, [0, 0, 0])
    if len(values) != 3:
        raise UserError(f"{path}: {row['id']!r:.60} is damaged ({len(values)} fingerprints); delete {path} and {HOW}")
    return np.array(values, np.uint64)  # (3,)


def _from_row(path: Path, row: dict[str, Any], info: FeatureInfo) -> FeatureSample:
    parts: dict[str, Any] = {}
    for name in MODALITIES:
        steps = row[f"{name}_steps"]
        parts[name] = ModalityFeatures(
            sequence=np.frombuffer(row[f"{name}_sequence"], sequence_type(info, name)).reshape(
                steps, info.widths[name]
            ),
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
        fingerprints=_fingerprints(path, row),
    )
