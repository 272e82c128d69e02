"""The feature dataset: what frozen encoders say about each clip, as it is (view 0) and damaged on purpose (view 1, 2).

A sample, in memory, is a dictionary:
    id str; view int; split str; duration float (seconds); labels float32 (K,), NaN = not labelled;
    groups {name: value}; damage {modality: kind or ""}; and per modality a dictionary of
        sequence float16 (T, C); times float32 (T,) seconds, (0,) for text; pooled float16 (D,); quality float32 (T, Q)
    A missing modality has T = 0.

On disk, DIR/features.json describes and DIR/data holds one row per sample (Hugging Face datasets, binary columns).
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.files import atomic_folder, digest, read_json, write_json
from shared.dataset.shards import read_shard, save_table, write_shard
from shared.text import one_line

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = "emit-features/1"
HOW = "make it with `emit encode`"


def write(out: Path, samples: Iterable[dict], info: dict) -> dict:
    """Write samples as they come; the folder appears when all are written. Returns the features.json."""
    info = describe(info)
    with atomic_folder(out) as folder:
        shard = folder / "rows.arrow"
        write_samples(shard, samples, info)
        save_table(read_samples([shard]), folder / "data", info["digest"])
        shard.unlink()
        write_json(folder / "features.json", info)
    return info


def describe(info: dict) -> dict:
    """The features.json of features made from `info`: the digests and settings behind them, which its own digest is a
    function of, wherever they lie."""
    info = {"format": FORMAT, **info}
    content = {
        key: {name: part for name, part in value.items() if name != "path"} if isinstance(value, dict) else value
        for key, value in info.items()
        if key != "digest"
    }
    return {**info, "digest": digest(content)}


def write_samples(path: Path, samples: Iterable[dict], info: dict) -> None:
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


def read_info(path: Path) -> dict:
    """The features.json of a feature dataset; UserError when there is none or it is of another format."""
    info = read_json(Path(path) / "features.json", "feature dataset", HOW)
    if info.get("format") != FORMAT:
        raise UserError(f"{path}: format {info.get('format')!r} where {FORMAT!r} is read; {HOW}")
    return info


def read_clips(path: Path, stored: bool = False) -> list[dict]:
    """id, split, labels (K,) and groups of every clip, without its sequences; with `stored` the split that it had when
    it was encoded, whatever `emit split` made of it since."""
    info = read_info(path)
    table = _load(path, stored)
    columns = ["id", "split", "labels", "view", *(f"group_{name}" for name in info["group_names"])]
    return [
        {
            **{key: row[key] for key in ("id", "split")},
            "labels": np.array(row["labels"], dtype=np.float32),  # (K,)
            "groups": {name: row[f"group_{name}"] for name in info["group_names"]},
        }
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

    info: the features.json; samples: list of dictionaries as above, in stored order.
    """

    def __init__(self, info: dict, samples: list[dict]):
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

    def __getitem__(self, index: int) -> dict:
        return self.samples[index]

    def labels(self) -> np.ndarray:
        """float32 (N, K), NaN = not labelled."""
        return np.stack([sample["labels"] for sample in self.samples])

    def by_clip(self) -> list[dict[int, dict]]:
        """One {view: sample} per clip, in stored order."""
        clips: dict[str, dict[int, dict]] = {}
        for sample in self.samples:
            clips.setdefault(sample["id"], {})[sample["view"]] = sample
        return list(clips.values())


def shorten(sample: dict, max_steps: int | None) -> dict:
    """Average each sequence longer than `max_steps` over equal runs of steps; the rest is left alone."""
    for name in MODALITIES:
        part = sample[name]
        steps = len(part["sequence"])
        if max_steps is None or steps <= max_steps:
            continue
        edges = np.linspace(0, steps, max_steps + 1).round().astype(int)[:-1]
        counts = np.diff([*edges, steps])[:, None]
        for key in ("sequence", "quality", "times"):
            values = part[key]
            if len(values):
                mean = np.add.reduceat(values.reshape(steps, -1).astype(np.float32), edges, axis=0) / counts
                part[key] = mean.reshape(max_steps, *values.shape[1:]).astype(values.dtype)
    return sample


def collate(samples: list[dict], device=None) -> dict:
    """A padded batch of float32 tensors; padding is zero and its mask False.

    {"ids": list of B, "duration": (B,), "labels": (B, K), "damaged": bool (B, 3) present but damaged on purpose,
     and per modality {"x": (B, T, C), "mask": bool (B, T), "times": (B, T), "pooled": (B, D), "quality": (B, T, Q),
     "present": bool (B,)}} with T >= 1 the longest of that modality in the batch.
    """
    import torch

    batch = {
        "ids": [sample["id"] for sample in samples],
        "duration": torch.tensor([sample["duration"] for sample in samples], dtype=torch.float32),  # (B,)
        "labels": torch.from_numpy(np.stack([sample["labels"] for sample in samples]).astype(np.float32)),  # (B, K)
        "damaged": torch.tensor(
            [[bool(s["damage"][m]) and len(s[m]["sequence"]) > 0 for m in MODALITIES] for s in samples]
        ),  # (B, 3)
    }
    for name in MODALITIES:
        parts = [sample[name] for sample in samples]
        lengths = [len(part["sequence"]) for part in parts]
        steps = max([1, *lengths])
        mask = torch.arange(steps)[None] < torch.tensor(lengths)[:, None]  # (B, T)
        times = [
            part["times"] if len(part["times"]) else np.zeros(n, np.float32)
            for part, n in zip(parts, lengths, strict=True)
        ]
        batch[name] = {
            "x": _pad([part["sequence"] for part in parts], steps),  # (B, T, C)
            "mask": mask,
            "times": _pad(times, steps),  # (B, T)
            "pooled": torch.from_numpy(np.stack([part["pooled"] for part in parts]).astype(np.float32)),  # (B, D)
            "quality": _pad([part["quality"] for part in parts], steps),  # (B, T, Q)
            "present": mask.any(dim=1),  # (B,)
        }
    if device is None:
        return batch
    from shared.training.loader import to_device

    return to_device(batch, device)


def _pad(arrays: list[np.ndarray], steps: int):
    import torch

    out = np.zeros((len(arrays), steps, *arrays[0].shape[1:]), dtype=np.float32)
    for row, array in zip(out, arrays, strict=True):
        row[: len(array)] = array
    return torch.from_numpy(out)


# --- rows on disk --------------------------------------------------------------------------------------------------


def _columns(info: dict):
    from datasets import Features, List, Value

    columns = {"id": Value("string"), "view": Value("int32"), "split": Value("string"), "duration": Value("float32")}
    columns["labels"] = List(Value("float32"))
    columns |= {f"group_{name}": Value("string") for name in info["group_names"]}
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


def _to_row(sample: dict) -> dict:
    row = {key: sample[key] for key in ("id", "view", "split", "duration")}
    row["labels"] = np.asarray(sample["labels"], dtype=np.float32)
    row |= {f"group_{name}": value for name, value in sample["groups"].items()}
    for name in MODALITIES:
        part = sample[name]
        row |= {
            f"damage_{name}": sample["damage"][name],
            f"{name}_sequence": np.ascontiguousarray(part["sequence"], dtype=np.float16).tobytes(),
            f"{name}_steps": len(part["sequence"]),
            f"{name}_times": np.asarray(part["times"], dtype=np.float32),
            f"{name}_pooled": np.asarray(part["pooled"], dtype=np.float16).tobytes(),
            f"{name}_quality": np.ascontiguousarray(part["quality"], dtype=np.float32).tobytes(),
        }
    return row


def _from_row(row: dict, info: dict) -> dict:
    sample = {key: row[key] for key in ("id", "view", "split", "duration")}
    sample["labels"] = np.array(row["labels"], dtype=np.float32)  # (K,)
    sample["groups"] = {name: row[f"group_{name}"] for name in info["group_names"]}
    sample["damage"] = {name: row[f"damage_{name}"] for name in MODALITIES}
    for name in MODALITIES:
        steps = row[f"{name}_steps"]
        sample[name] = {
            "sequence": np.frombuffer(row[f"{name}_sequence"], np.float16).reshape(steps, info["widths"][name]),
            "times": np.array(row[f"{name}_times"], dtype=np.float32),  # (T,)
            "pooled": np.frombuffer(row[f"{name}_pooled"], np.float16),  # (D,)
            "quality": np.frombuffer(row[f"{name}_quality"], np.float32).reshape(steps, len(info["quality"][name])),
        }
    return sample
