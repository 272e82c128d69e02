"""Synthetic features that can be learned: the labels are a function of each modality's sequence."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from stage2_fusion import trainer
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.encoder_training import EncoderTraining
from stage2_fusion.data.feature_info import DataInfo, EncoderInfo, FeatureInfo
from stage2_fusion.data.features import FeatureSample, ModalityFeatures, write
from stage2_fusion.train import train

QUALITY = {"vision": ["face_found", "sharpness"], "audio": ["level", "snr", "clipping"], "text": ["present"]}
WIDTHS = {"vision": 8, "audio": 6, "text": 5, "embed": 4}
SMALL = {
    "dual_stage": {"width": 16, "steps": 8, "tcn_layers": 2, "decoder_layers": 2},
    "concat": {"width": 32},
    "concat_lstm": {"width": 32},
    "concat_vad": {"width": 32, "steps": 16},
    "late_fusion": {"width": 16, "tcn_layers": 2, "layers": 1, "heads": 2},
    "lstm_vad": {},
    "quality_gated": {"width": 16, "tcn_layers": 2, "text_width": 32, "gate_width": 8},
    "staged_concat": {"width": 32},
    "statistics_mlp": {"width": 16},
    "text_anchored": {"width": 32},
}
"""Options that make each model small."""


def train_interrupted(monkeypatch: pytest.MonkeyPatch, config: FuseConfig) -> Path:
    """Train, stop at the third validation, and resume; the model folder."""
    validate, calls = trainer.validate, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(*args)

    monkeypatch.setattr(trainer, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config)
    monkeypatch.setattr(trainer, "validate", validate)
    torch.rand(7)  # the generator's state on resuming must not matter
    return train(config)


def sample(
    rng: np.random.Generator,
    k: int = 2,
    steps: Sequence[int] = (3, 9, 4),
    missing: Sequence[str] = (),
    id: str = "clip",
    split: str = "train",
    group: str = "",
) -> FeatureSample:
    """One undamaged view. The latent (K,) is spread over the modalities: each shows it with noise of its own."""
    latent = rng.random(k)
    duration = float(rng.uniform(2, 6))
    parts = {}
    for name, count in zip(MODALITIES, steps, strict=True):
        count = 0 if name in missing else max(1, count + int(rng.integers(-2, 3)))
        parts[name] = modality(rng, name, count, latent, duration)
    return FeatureSample(
        id=id,
        view=0,
        split=split,
        duration=duration,
        labels=latent.astype(np.float32),
        groups={"subject": group},
        damage=dict.fromkeys(MODALITIES, ""),
        **parts,
        fingerprints=np.frombuffer(hashlib.blake2b(latent.tobytes(), digest_size=24).digest(), np.uint64),
    )


def modality(
    rng: np.random.Generator, name: str, count: int, latent: np.ndarray, duration: float, noise: float = 0.3
) -> ModalityFeatures:
    """`count` steps that carry the latent (K,) under noise."""
    carried = np.resize(latent, WIDTHS[name])
    pooled = np.resize(latent, WIDTHS["embed"]) + rng.normal(0, noise, WIDTHS["embed"])
    quality = rng.normal(0.8, 0.05, (count, len(QUALITY[name])))
    times = (np.arange(count) + 0.5) / max(1, count) * duration
    return ModalityFeatures(
        sequence=(carried + rng.normal(0, noise, (count, WIDTHS[name]))).astype(np.float16),
        times=np.zeros(0, np.float32) if name == "text" else times.astype(np.float32),
        pooled=(pooled if count else 0 * pooled).astype(np.float16),
        quality=quality.astype(np.float32),
    )


def damaged(rng: np.random.Generator, clean: FeatureSample, name: str, view: int) -> FeatureSample:
    """A view in which one modality carries nothing of the latent and has low quality signals."""
    count = clean.modality(name).steps
    part = modality(rng, name, count, rng.random(len(clean.labels)), clean.duration, noise=2.0)
    part.quality[:] -= 0.6
    return replace(clean, view=view, damage={**clean.damage, name: "synthetic"}, **{name: part})


def info(k: int = 2, **changes: Any) -> FeatureInfo:
    """A features.json of K dimensions; `changes` are fields of it."""
    fields = {
        "label_names": [f"d{i}" for i in range(k)],
        "group_names": ["subject"],
        "encoders": EncoderInfo("nowhere", "e" * 16, {}),
        "data": DataInfo("nowhere", "d" * 16, {"frame_rate": 4}),
        "widths": WIDTHS,
        "quality": QUALITY,
        "views": 1,
        "seed": 0,
        "precision": "fp32",
        "encoder_training": EncoderTraining(),
    }
    return FeatureInfo(**{**fields, **changes})


def samples(
    counts: dict[str, int], k: int = 2, seed: int = 0, views: int = 1, zeros: float = 0.0
) -> list[FeatureSample]:
    """{split: number of clips} to samples, each clip followed by its damaged views. zeros: share of clips whose labels
    are all zero."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, count in counts.items():
        for i in range(count):
            missing = [name for name in MODALITIES if rng.random() < 0.1][:2]
            clean = sample(rng, k, missing=missing, id=f"{split}{i:03d}", split=split, group=f"{split}{i % 7}")
            if rng.random() < zeros:
                clean.labels = np.zeros(k, np.float32)
            present = [name for name in ("vision", "audio") if name not in missing] or ["text"]
            rows += [clean, *(damaged(rng, clean, present[i % len(present)], 1 + view) for view in range(views))]
    return rows


def write_features(
    path: Path, counts: dict[str, int] | None = None, k: int = 2, seed: int = 0, views: int = 1, **options: Any
) -> Path:
    """A feature dataset of `samples`."""
    counts = counts or {"train": 64, "valid": 24, "test": 24}
    write(path, samples(counts, k, seed, views, **options), info(k, views=views, seed=seed))
    return path


def config(data: Path, run: Path, *overrides: Any) -> FuseConfig:
    """A small training run; `overrides` as on the command line."""
    argv = ["--data", str(data), "--run", str(run), "--train.batch_size", "16", *map(str, overrides)]
    return small(configuration.parse(FuseConfig, argv, prog="emit fuse", example=""))


def small(config: FuseConfig) -> FuseConfig:
    """The same run of a small model."""
    return replace(config, options={**config.options, **SMALL.get(config.model, {})})
