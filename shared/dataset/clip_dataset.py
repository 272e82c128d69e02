"""The clip dataset on disk, as `emit prepare` writes it: Hugging Face datasets, memory-mapped.

    dataset.json     format, label and group names, the recipe, the digest, counts, names of the quality signals
    data/            one row per clip
    splits.csv       only in a folder of `emit split`: splits in place of the stored ones
    failures.csv     clips that could not be prepared, with the reason
    verdicts.csv     every clip: ok, partial or failed, and what is missing

Columns: id, split, duration (s), transcript ("" = missing), labels (NaN = not labelled), group_<name>; frames (face
crops, JPEG), frame_times (s), vision_quality (float32, T rows); waveform_<rate> (int16, mono), audio_quality (float32);
text_quality.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared.dataset.prepare_clip import decode_jpeg, from_int16
from shared.errors import UserError
from shared.files import read_json
from shared.text import one_line

FORMAT = "emit-clips/1"
HOW = "make it with `emit prepare`"


class ClipDataset:
    """Clips of a dataset, or of one split, as dictionaries of NumPy arrays."""

    def __init__(self, path: Path, info: dict, table, rows: np.ndarray):
        """Use `open`. table: a datasets.Dataset; rows: int64 (N,), those of the split."""
        self.path, self.info, self._table, self._rows = Path(path), info, table, rows
        self.label_names: list[str] = list(info["label_names"])
        self.digest: str = info["digest"]
        self.sample_rates: list[int] = list(info["prepare"]["sample_rates"])

    @classmethod
    def open(cls, path: Path, split: str | None = None) -> "ClipDataset":
        """A dataset, or one split of it. UserError when there is none, or no clip in that split."""
        info = read_info(path)
        import datasets

        from shared.dataset.splits import with_splits

        try:
            table = with_splits(datasets.load_from_disk(str(Path(path) / "data"), keep_in_memory=False), Path(path))
        except UserError:
            raise
        except Exception as error:
            reason = one_line(error, 200)
            raise UserError(f"{path}: damaged clip dataset ({reason}); delete the folder and {HOW}") from None
        rows = np.arange(len(table))
        if split:
            splits = np.array(_values(table, "split"), dtype=object)
            rows = np.flatnonzero(splits == split)
            if not len(rows):
                there = ", ".join(sorted({str(name) for name in splits if name})) or "none"
                raise UserError(f"{path}: no clips in split {split!r}; splits here: {there}")
        return cls(path, info, table, rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """One clip; the keys are those of `decode_row`."""
        return self.clip(index)

    def clip(self, index: int, choose: Callable[[int], list[int]] | None = None) -> dict[str, Any]:
        """One clip with the pictures that `choose`, given their number, picks: decoding the others takes longest."""
        return decode_row(self._one(index).to_pylist()[0], self.info, choose)

    def waveform(self, index: int, rate: int) -> np.ndarray:
        """Sound float32 (S,) at one of the stored rates; S = 0 without sound. UserError when it is not stored."""
        if rate not in self.sample_rates:
            raise UserError(
                f"{self.path}: holds sound at {self.sample_rates} Hz, not at {rate}; "
                f"prepare it again with --sample_rates [{rate}]"
            )
        data = self._one(index).column(f"waveform_{rate}")[0].as_buffer()
        return from_int16(np.frombuffer(data, "<i2"))

    def labels(self) -> np.ndarray:
        """float32 (N, K), NaN = not labelled."""
        values = np.array(_values(self._table, "labels"), np.float32).reshape(len(self._table), len(self.label_names))
        return values[self._rows]

    def column(self, name: str) -> list:
        """A column as plain values. UserError when there is none of that name."""
        if name not in self._table.column_names:
            raise UserError(f"{self.path}: no column {name!r}; columns: {', '.join(self._table.column_names)}")
        values = _values(self._table, name)
        return [values[row] for row in self._rows]

    def _one(self, index: int):
        """The Arrow table of one row."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"clip {index} of {len(self)}")
        # Straight from the memory map: the formatting of `datasets` takes longer than reading a row.
        return self._table.data.fast_slice(int(self._rows[index]), 1)


def read_info(path: Path) -> dict:
    """The dataset.json of a clip dataset; UserError when there is none or it is of another format."""
    info = read_json(Path(path) / "dataset.json", "clip dataset", HOW)
    if not isinstance(info, dict) or info.get("format") != FORMAT:
        found = info.get("format") if isinstance(info, dict) else None
        raise UserError(f"{path}: not a clip dataset of format {FORMAT} (found {found}); {HOW}")
    return info


def decode_row(row: dict[str, Any], info: dict, choose: Callable[[int], list[int]] | None = None) -> dict[str, Any]:
    """A stored row to arrays, of all pictures or those that `choose` picks of their number:

    id, split, transcript str ("" = missing); duration float, seconds; labels float32 (K,), NaN = not labelled;
    groups {name: value}; frames RGB uint8 (T, H, W, 3) and frame_times float32 (T,), T = 0 without a picture;
    waveform float32 (S,) at the first sample rate, S = 0 without sound; vision_quality float32 (T, Qv),
    audio_quality float32 (Ta, Qa) at 10 Hz, text_quality float32 (Qt,).
    """
    size, rate = info["prepare"]["frame_size"], info["prepare"]["sample_rates"][0]
    widths = {name: len(names) for name, names in info["quality"].items()}
    picked = range(len(row["frames"])) if choose is None else choose(len(row["frames"]))
    frames = [decode_jpeg(row["frames"][i]) for i in picked]
    return {
        "id": row["id"],
        "split": row["split"],
        "duration": row["duration"],
        "transcript": row["transcript"],
        "labels": np.array(row["labels"], np.float32),  # (K,)
        "groups": {name: row[f"group_{name}"] for name in info["group_names"]},
        "frames": np.stack(frames) if frames else np.zeros((0, size, size, 3), np.uint8),  # (T, H, W, 3)
        "frame_times": np.array([row["frame_times"][i] for i in picked], np.float32),  # (T,)
        "waveform": from_int16(np.frombuffer(row[f"waveform_{rate}"], "<i2")),  # (S,)
        "vision_quality": np.frombuffer(row["vision_quality"], "<f4").reshape(-1, widths["vision"])[picked],  # (T, Qv)
        "audio_quality": np.frombuffer(row["audio_quality"], "<f4").reshape(-1, widths["audio"]),  # (Ta, Qa)
        "text_quality": np.array(row["text_quality"], np.float32),  # (Qt,)
    }


def schema(info: dict):
    """The Arrow schema of the rows. Large types: a shard of long clips outgrows 2 GiB."""
    import pyarrow as pa

    floats = pa.list_(pa.float32())
    columns = {"id": pa.string(), "split": pa.string(), "duration": pa.float64(), "transcript": pa.string()}
    columns |= {"labels": floats} | {f"group_{name}": pa.string() for name in info["group_names"]}
    columns |= {"frames": pa.list_(pa.large_binary()), "frame_times": floats, "vision_quality": pa.binary()}
    columns |= {f"waveform_{rate}": pa.large_binary() for rate in info["prepare"]["sample_rates"]}
    columns |= {"audio_quality": pa.binary(), "text_quality": floats}
    return pa.schema(list(columns.items()))


def _values(table, name: str) -> list:
    return table.data.column(name).to_pylist()
