"""Made-up features that can be learned: labels are a function of what each modality's sequence holds."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from shared import config as configuration
from stage2_fusion import train as trainer
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.features import write

QUALITY = {"vision": ["face_found", "sharpness"], "audio": ["level", "snr", "clipping"], "text": ["present"]}
WIDTHS = {"vision": 8, "audio": 6, "text": 5, "embed": 4}
SMALL = {
    "dual_stage": {"width": 16, "steps": 8, "tcn_layers": 2},
    "concat": {"width": 32},
    "concat_lstm": {"width": 32},
    "concat_vad": {"width": 32, "steps": 16},
    "late_fusion": {"width": 16, "tcn_layers": 2, "layers": 1, "heads": 2},
    "lstm_vad": {},
    "text_anchored": {"width": 32},
}
"""Options that make each model small."""


def train_in_two_parts(monkeypatch, config):
    """Train, stop at the third validation, and go on; the model folder."""
    validate, calls = trainer.validate, []

    def killed(*args):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return validate(*args)

    monkeypatch.setattr(trainer, "validate", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer.train(config)
    monkeypatch.setattr(trainer, "validate", validate)
    torch.rand(7)  # whatever the generator's state is on resuming must not matter
    return trainer.train(config)


def features(rng: np.random.Generator, k: int = 2, steps=(3, 9, 4), missing=()) -> dict:
    """One sample. The latent (K,) is spread over the modalities: each shows it with noise of its own."""
    latent = rng.random(k)
    sample = {"view": 0, "split": "train", "duration": float(rng.uniform(2, 6)), "labels": latent.astype(np.float32)}
    sample["damage"] = {"vision": "", "audio": "", "text": ""}
    for name, count in zip(("vision", "audio", "text"), steps, strict=True):
        count = 0 if name in missing else max(1, count + int(rng.integers(-2, 3)))
        sample[name] = part(rng, name, count, latent, sample["duration"])
    return sample


def part(rng, name: str, count: int, latent: np.ndarray, duration: float, noise: float = 0.3) -> dict:
    carried = np.resize(latent, WIDTHS[name])
    pooled = np.resize(latent, WIDTHS["embed"]) + rng.normal(0, noise, WIDTHS["embed"])
    quality = rng.normal(0.8, 0.05, (count, len(QUALITY[name])))
    return {
        "sequence": (carried + rng.normal(0, noise, (count, WIDTHS[name]))).astype(np.float16),
        "times": np.zeros(0, np.float32)
        if name == "text"
        else ((np.arange(count) + 0.5) / max(1, count) * duration).astype(np.float32),
        "pooled": (pooled if count else 0 * pooled).astype(np.float16),
        "quality": quality.astype(np.float32),
    }


def damaged(rng, sample: dict, name: str) -> dict:
    """The second view: one modality says nothing and its quality signals are low."""
    view = {**sample, "view": 1, "damage": {**sample["damage"], name: "made_up"}}
    count = len(sample[name]["sequence"])
    view[name] = part(rng, name, count, rng.random(len(sample["labels"])), sample["duration"], noise=2.0)
    view[name]["quality"] -= 0.6
    return view


def info(k: int = 2) -> dict:
    return {
        "label_names": [f"d{i}" for i in range(k)],
        "group_names": ["subject"],
        "encoders": {"path": "nowhere", "digest": "e" * 16, "config": {}},
        "data": {"path": "nowhere", "digest": "d" * 16, "prepare": {"frame_rate": 4}},
        "widths": WIDTHS,
        "quality": QUALITY,
        "views": 1,
        "precision": "fp32",
    }


def samples(counts: dict[str, int], k: int = 2, seed: int = 0, views: int = 1, zeros: float = 0.0) -> list[dict]:
    """Clips of every split, each followed by its damaged views."""
    rng = np.random.default_rng(seed)
    rows = []
    for split, count in counts.items():
        for i in range(count):
            missing = [name for name in ("vision", "audio", "text") if rng.random() < 0.1][:2]
            sample = features(rng, k, missing=missing)
            sample |= {"id": f"{split}{i:03d}", "split": split, "groups": {"subject": f"{split}{i % 7}"}}
            if rng.random() < zeros:
                sample["labels"] = np.zeros(k, np.float32)
            there = [name for name in ("vision", "audio") if name not in missing] or ["text"]
            rows += [sample, *(damaged(rng, sample, there[i % len(there)]) for _ in range(views))]
            for view in range(1, views + 1):
                rows[-views + view - 1]["view"] = view
    return rows


def write_features(path: Path, counts=None, k: int = 2, seed: int = 0, views: int = 1, **options) -> Path:
    counts = counts or {"train": 64, "valid": 24, "test": 24}
    write(path, samples(counts, k, seed, views, **options), info(k) | {"views": views, "seed": seed})
    return path


def config(data, run, *overrides) -> FuseConfig:
    argv = ["--data", str(data), "--run", str(run), "--train.batch_size", "16", *map(str, overrides)]
    return small(configuration.parse(FuseConfig, argv, prog="emit fuse", example=""))


def small(config: FuseConfig) -> FuseConfig:
    return replace(config, options={**config.options, **SMALL.get(config.model, {})})
