"""Synthetic features of clips, twice: as a feature dataset of ours, and as pickles, one for each clip and modality.

Vision and audio of 64 steps x 512, text of 512, half precision, labels partly hidden in noise."""

import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from shared.dataset.clip import MODALITIES
from stage2_fusion.data.batches import Batch, ModalityBatch
from stage2_fusion.data.feature_info import DataInfo, EncoderInfo, FeatureInfo
from stage2_fusion.data.features import FeatureSample, ModalityFeatures, write

STEPS, WIDTH, NAMES = 64, 512, ["a", "b", "c", "d", "e", "f"]
DURATION = 6.4


def held_out(clips: int) -> int:
    """Clips that both sides are scored on after each epoch."""
    return clips // 8


def write_clips(folder: Path, clips: int) -> Path:
    """folder/features for ours; folder/pickles/<id>_<modality>.pkl and folder/labels.pkl for the plain loop."""
    if (folder / "labels.pkl").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "pickles").mkdir(parents=True)
    table: list[tuple[str, str, np.ndarray]] = []

    def samples() -> Iterator[FeatureSample]:
        for sample in synthetic_samples(clips, held_out(clips)):
            table.append((sample.id, sample.split, sample.labels))
            for name in MODALITIES:
                path = folder / "pickles" / f"{sample.id}_{name}.pkl"
                path.write_bytes(pickle.dumps(sample.modality(name).sequence))
            yield sample

    write(folder / "features", samples(), feature_info())
    (folder / "labels.pkl").write_bytes(pickle.dumps(table))
    return folder


def synthetic_samples(train: int, valid: int) -> Iterator[FeatureSample]:
    rng = np.random.default_rng(0)
    directions = {name: rng.normal(0, 0.12, (len(NAMES), WIDTH)).astype(np.float32) for name in MODALITIES}
    for i in range(train + valid):
        latent = np.clip(rng.normal(0.2, 0.3, len(NAMES)), 0, 1).astype(np.float32)  # (K,)
        labels = np.clip(latent + rng.normal(0, 0.1, len(NAMES)), 0, 1).astype(np.float32)  # (K,)
        parts = {}
        for name, direction in directions.items():
            steps = 1 if name == "text" else STEPS
            active = rng.random((steps, 1), np.float32) > 0.5  # an expression comes and goes
            noise = rng.standard_normal((steps, WIDTH), np.float32)
            sequence = (noise + active * (latent @ direction)).astype(np.float16)  # (T, C)
            times = np.zeros(0, np.float32) if name == "text" else (np.arange(steps, dtype=np.float32) + 0.5) / 10
            parts[name] = ModalityFeatures(sequence, times, np.zeros(1, np.float16), np.ones((steps, 1), np.float32))
        split = "train" if i < train else "valid"
        yield FeatureSample(f"{i:05d}", 0, split, DURATION, labels, {}, dict.fromkeys(MODALITIES, ""), **parts)


def feature_info() -> FeatureInfo:
    return FeatureInfo(
        label_names=NAMES,
        group_names=[],
        encoders=EncoderInfo("none", "none", {}),
        data=DataInfo("none", "none"),
        widths={**dict.fromkeys(MODALITIES, WIDTH), "embed": 1},
        quality={name: ["one"] for name in MODALITIES},
        views=0,
        seed=0,
        precision="fp32",
    )


class PickledClips(Dataset):
    """One pickle per clip and modality, loaded on every access."""

    def __init__(self, folder: Path, split: str):
        table = pickle.loads((folder / "labels.pkl").read_bytes())
        self.folder = folder
        self.rows = [(name, labels) for name, row_split, labels in table if row_split == split]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        name, labels = self.rows[index]
        item = {"labels": torch.from_numpy(labels)}  # (K,)
        for modality in MODALITIES:
            with (self.folder / "pickles" / f"{name}_{modality}.pkl").open("rb") as file:
                item[modality] = torch.from_numpy(pickle.load(file)).float()  # (T, C)
        return item

    def labels(self) -> np.ndarray:
        return np.stack([labels for _, labels in self.rows])  # (N, K)


def make_batch(items: dict[str, Tensor]) -> Batch:
    count, parts = len(items["labels"]), {}
    for modality in MODALITIES:
        x = items[modality]  # (B, T, C)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        times = ((torch.arange(x.shape[1]) + 0.5) / 10).expand(x.shape[:2])
        quality = torch.zeros(*x.shape[:2], 1)
        parts[modality] = ModalityBatch(x, mask, times, torch.zeros(count, 1), quality, mask[:, 0])
    return Batch([""] * count, torch.full((count,), DURATION), items["labels"], torch.zeros(count, 3), **parts)
