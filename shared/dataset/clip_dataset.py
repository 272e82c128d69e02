"""The clip dataset on disk, written by `emit prepare`: a Hugging Face dataset, memory-mapped.

    dataset.json     see `ClipDatasetInfo`
    data/            one row per clip
    splits.csv       only in a folder written by `emit split`: replaces the stored splits
    failures.csv     clips that could not be prepared, with the reason
    verdicts.csv     every clip: ok, partial or failed, and what is missing
    quality.csv      quality signals of each clip
    contact_sheet.html   some of the clips to look at, the worst first

Columns: id, split, duration (s), transcript ("" = missing), labels (NaN = not labeled), group_<name>; frames (face
crops, JPEG), frame_times (s), vision_quality (float32, T rows); waveform_<rate> (int16, mono), audio_quality (float32);
text_quality.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from shared.dataset.clip import MODALITIES, check_names
from shared.dataset.recipe import Recipe
from shared.dataset.rows import load_rows
from shared.errors import UserError
from shared.files import digest, is_digest
from shared.layouts.used import UsedLayout
from shared.media.remarks import Remarks
from shared.media.storage import decode_jpeg, from_int16
from shared.saved.checksum import CLIPS, read_description
from shared.saved.typed import read_typed
from shared.text import one_line

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

FORMAT = CLIPS.format
HOW = CLIPS.how

OPTIONAL = ("digest", "counts", "split", "made_from", "synthetic", "label_ranges", "layout")
"""Fields of ClipDatasetInfo that dataset.json omits if they are empty."""

FrameSelector = Callable[[int], Sequence[int]]
"""Given the number of frames, returns the indices of the frames to decode."""


@dataclass
class ClipSample:
    """A prepared clip in memory. A missing modality has T = 0, S = 0 or an empty transcript."""

    id: str
    split: str
    transcript: str
    duration: float
    """Seconds."""
    labels: np.ndarray
    """float32 (K,), as fractions of their range, in [0, 1]; NaN = not labeled."""
    groups: dict[str, str]
    frames: np.ndarray
    """RGB uint8 (T, H, W, 3)."""
    frame_times: np.ndarray
    """float32 (T,), seconds."""
    waveform: np.ndarray
    """float32 (S,), at the first sample rate of the recipe."""
    vision_quality: np.ndarray
    """float32 (T, Qv)."""
    audio_quality: np.ndarray
    """float32 (Ta, Qa), at QUALITY_STEPS_PER_SECOND of shared/media/quality.py."""
    text_quality: np.ndarray
    """float32 (Qt,)."""
    start: float = 0.0
    """Start of the clip in seconds, if it is a window of a longer recording."""
    remarks: Remarks = field(default_factory=Remarks)
    """What was repaired, chosen or left out in preparation; empty for a stored clip, where the verdict says it."""


class StoredContent(NamedTuple):
    """A clip's media as stored in its row."""

    frames: list[bytes]
    """JPEG files."""
    sound: bytes
    """int16 samples at the lowest stored rate."""


@dataclass(frozen=True)
class ClipDatasetInfo:
    """The content of dataset.json."""

    label_names: list[str]
    group_names: list[str]
    recipe: Recipe
    """How the clips were prepared."""
    quality_names: dict[str, list[str]]
    """{modality: names of its quality signals, in column order}."""
    digest: str = ""
    """Changes with the rows and everything above."""
    counts: dict[str, Any] = field(default_factory=dict)
    """Numbers of clips: in total, and by verdict, missing modality and split."""
    split: dict[str, Any] = field(default_factory=dict)
    """The options of `emit split`, if the splits were replaced."""
    made_from: dict[str, str] = field(default_factory=dict)
    """Digests of the source and the recipe, to check whether a dataset is up to date."""
    synthetic: bool = False
    """Whether the clips come from `emit synth`: their faces are drawn."""
    label_ranges: dict[str, list[float]] | None = None
    """Lowest and highest value of each label on the scale of its source; the stored labels are fractions of this range.
    None stands for [0, 1]."""
    layout: UsedLayout | None = None
    """How the source was read; the digest depends only on what was read."""

    def to_json(self) -> dict[str, Any]:
        values = {
            "format": FORMAT,
            "label_names": self.label_names,
            "group_names": self.group_names,
            "prepare": self.recipe.to_json(),
            "quality": self.quality_names,
        }
        optional = {name: getattr(self, name) for name in OPTIONAL}
        optional["layout"] = self.layout and asdict(self.layout)
        return values | {name: value for name, value in optional.items() if value}

    @property
    def is_texts_alone(self) -> bool:
        """Whether no clip has pictures or sound."""
        counts = self.counts
        return bool(counts) and min(counts["missing"]["vision"], counts["missing"]["audio"]) == counts["clips"]

    @property
    def align_options(self) -> list[str]:
        """The options of `emit align` that start stage 1; none for texts without labels, which have nothing to be
        aligned with."""
        if self.is_texts_alone:
            return ["--config", "tiny_labels", "--towers.leave_out_unused", "true"] if self.label_names else []
        return ["--config", "tiny" if self.has_transcripts else "tiny_labels"]

    @property
    def has_transcripts(self) -> bool:
        """Whether any clip has words."""
        counts = self.counts
        return not counts or counts["missing"]["text"] < counts["clips"]

    def __post_init__(self) -> None:
        if len({*self.label_names}) < len(self.label_names) or not all(self.label_names):
            raise UserError(f"label_names is {self.label_names!r:.60}: expected different names")
        check_names(self.label_names, "label_names")
        check_names(self.group_names, "group_names")
        if self.quality_names.keys() != {*MODALITIES}:
            raise UserError(f"quality is of {', '.join(self.quality_names)}: expected {', '.join(MODALITIES)}")

    @classmethod
    def from_json(cls, values: dict[str, Any], where: str = "dataset.json") -> "ClipDatasetInfo":
        """From the content of a dataset.json. UserError, beginning with `where`, for a missing key or one that this
        version does not know, and for a value of the wrong type or outside its range."""
        own = {"prepare": "recipe", "quality": "quality_names"}
        outer = ("format", "files", "checksum")
        values = {own.get(name, name): value for name, value in values.items() if name not in outer}
        return read_typed(cls, values, where)

    @classmethod
    def read(cls, path: Path) -> "ClipDatasetInfo":
        """Read dataset.json of the folder `path`. Raises UserError if there is none, or it is damaged, changed or of
        another format."""
        again = f"delete the folder and {HOW}"
        content = read_description(Path(path), CLIPS, again)
        if not is_digest(content.get("digest")):
            raise UserError(f"{path}/dataset.json: digest is {content.get('digest')!r:.40}: no digest; {again}")
        return cls.from_json(content, f"{path}/dataset.json")

    def with_digest(self, row_digests: Iterable[tuple[str, str]]) -> "ClipDatasetInfo":
        """The description of a dataset with these rows, given as (id, digest of the content)."""
        content = {**replace(self, layout=None).to_json(), "format": CLIPS.unsealed}
        return replace(self, digest=digest([content, [list(pair) for pair in row_digests]]))


class ClipDataset:
    """The clips of a dataset or of one of its splits."""

    def __init__(self, path: Path, info: ClipDatasetInfo, table: "datasets.Dataset", rows: np.ndarray):
        """Use `open`. rows: int64 (N,), the rows of the split."""
        self.path, self.info, self._table, self._rows = Path(path), info, table, rows
        self.label_names = info.label_names
        self.digest = info.digest
        self.sample_rates = info.recipe.sample_rates

    @classmethod
    def open(cls, path: Path, split: str | None = None) -> "ClipDataset":
        """Open a dataset, or one split of it. Raises UserError if there is none, or no clip in that split."""
        info = ClipDatasetInfo.read(path)
        from shared.dataset.splits import with_splits

        table = with_splits(load_rows(Path(path), schema(info), f"delete the folder and {HOW}"), Path(path))
        rows = np.arange(len(table))
        if split:
            splits = np.array(_values(table, "split"), dtype=object)
            rows = np.flatnonzero(splits == split)
            if not len(rows):
                names = ", ".join(sorted({str(name) for name in splits if name})) or "none"
                raise UserError(f"{path}: no clips in split {split!r}; splits here: {names}")
        return cls(path, info, table, rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> ClipSample:
        return self.clip(index)

    def clip(self, index: int, select_frames: FrameSelector | None = None) -> ClipSample:
        """One clip, with all frames or a selection by `select_frames`. Decoding frames takes most of the time."""
        row = self._one(index).to_pylist()[0]
        try:
            return decode_row(row, self.info, select_frames)
        except Exception as error:  # damaged media raise errors of many types
            what = f"{self.path}: clip {row['id']!r:.60} is damaged ({one_line(error, 160)})"
            raise UserError(f"{what}; delete the folder and {HOW}") from None

    def without_frames(self, index: int) -> ClipSample:
        """One clip with the times and quality signals of its frames, but without the frames."""
        clip, row = self.clip(index, lambda count: []), self._one(index).select(["frame_times", "vision_quality"])
        times, signals = (column[0] for column in row.columns)
        return replace(
            clip,
            frame_times=np.array(times.as_py(), np.float32),  # (T,)
            vision_quality=np.frombuffer(signals.as_py(), "<f4").reshape(-1, clip.vision_quality.shape[1]),  # (T, Qv)
        )

    def waveform(self, index: int, rate: int) -> np.ndarray:
        """float32 (S,) at one of the stored rates; S = 0 without sound. Raises UserError at any other rate."""
        if rate not in self.sample_rates:
            raise UserError(
                f"{self.path}: has sound at {self.sample_rates} Hz, not at {rate}; "
                f"prepare it again with --sample_rates [{rate}]"
            )
        data = self._one(index).column(f"waveform_{rate}")[0].as_buffer()
        return from_int16(np.frombuffer(data, "<i2"))

    def stored_media(self, index: int) -> StoredContent:
        """The stored media of a clip, not decoded."""
        row = self._one(index)
        sound = row.column(f"waveform_{min(self.sample_rates)}")[0].as_py()
        return StoredContent(row.column("frames")[0].as_py(), sound)

    def labels(self) -> np.ndarray:
        """float32 (N, K), NaN = not labeled."""
        values = np.array(_values(self._table, "labels"), np.float32)
        if not len(self._table):
            return np.zeros((0, len(self.label_names)), np.float32)
        if values.shape != (len(self._table), len(self.label_names)):
            raise UserError(f"{self.path}: its clips do not have {len(self.label_names)} labels each; {HOW}")
        return values[self._rows]

    def present(self, modality: str) -> np.ndarray:
        """Whether each clip has frames ("vision") or sound ("audio"): bool (N,). Reads only lengths."""
        import pyarrow.compute as pc

        if modality == "vision":
            lengths = pc.list_value_length(self._table.data.column("frames"))
        else:
            lengths = pc.binary_length(self._table.data.column(f"waveform_{self.sample_rates[0]}"))
        return np.asarray(lengths.to_numpy(zero_copy_only=False))[self._rows] > 0

    def column(self, name: str) -> list:
        """A column as plain values. Raises UserError if it does not exist."""
        if name not in self._table.column_names:
            raise UserError(f"{self.path}: no column {name!r}; columns: {', '.join(self._table.column_names)}")
        values = _values(self._table, name)
        return [values[row] for row in self._rows]

    def _one(self, index: int) -> "pa.Table":
        """The Arrow table of one row."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        # Straight from the memory map: formatting in `datasets` takes longer than reading a row.
        return self._table.data.fast_slice(int(self._rows[index]), 1)


def decode_row(
    row: dict[str, Any],
    info: ClipDatasetInfo,
    select_frames: FrameSelector | None = None,
    start: float = 0.0,
    remarks: Remarks | None = None,
) -> ClipSample:
    """Decode a stored row, with all frames or a selection by `select_frames`."""
    size, rate = info.recipe.frame_size, info.recipe.sample_rates[0]
    widths = {modality: len(names) for modality, names in info.quality_names.items()}
    selected = range(len(row["frames"])) if select_frames is None else select_frames(len(row["frames"]))
    frames = [decode_jpeg(row["frames"][i]) for i in selected]
    if any(frame.shape != (size, size, 3) for frame in frames):
        raise ValueError(f"its frames are not of {size} x {size} pixels")
    vision_quality = np.frombuffer(row["vision_quality"], "<f4").reshape(-1, widths["vision"])  # (T, Qv)
    return ClipSample(
        id=row["id"],
        split=row["split"],
        transcript=row["transcript"],
        duration=row["duration"],
        labels=np.array(row["labels"], np.float32),  # (K,)
        groups={name: row[f"group_{name}"] for name in info.group_names},
        frames=np.stack(frames) if frames else np.zeros((0, size, size, 3), np.uint8),  # (T, H, W, 3)
        frame_times=np.array([row["frame_times"][i] for i in selected], np.float32),  # (T,)
        waveform=from_int16(np.frombuffer(row[f"waveform_{rate}"], "<i2")),  # (S,)
        vision_quality=vision_quality[selected],
        audio_quality=np.frombuffer(row["audio_quality"], "<f4").reshape(-1, widths["audio"]),  # (Ta, Qa)
        text_quality=np.array(row["text_quality"], np.float32),  # (Qt,)
        start=start,
        remarks=Remarks() if remarks is None else remarks,
    )


def schema(info: ClipDatasetInfo) -> "pa.Schema":
    """The Arrow schema of the rows. Large types, because a shard of long clips may exceed 2 GiB."""
    import pyarrow as pa

    floats = pa.list_(pa.float32())
    columns = {"id": pa.string(), "split": pa.string(), "duration": pa.float64(), "transcript": pa.string()}
    columns |= {"labels": floats} | {f"group_{name}": pa.string() for name in info.group_names}
    columns |= {"frames": pa.list_(pa.large_binary()), "frame_times": floats, "vision_quality": pa.binary()}
    columns |= {f"waveform_{rate}": pa.large_binary() for rate in info.recipe.sample_rates}
    columns |= {"audio_quality": pa.binary(), "text_quality": floats}
    return pa.schema(list(columns.items()))


def _values(table: "datasets.Dataset", name: str) -> list:
    return table.data.column(name).to_pylist()
