"""Load a fusion model, limited to its folder and the size of its weights, and try it out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.saved.building import bounded
from shared.saved.weights import WeightFile
from stage2_fusion.data.batches import collate
from stage2_fusion.data.features import FeatureSample, ModalityFeatures
from stage2_fusion.models.model_config import AGAIN, FusionConfig

M = TypeVar("M", bound=nn.Module)


def load_model(folder: Path, config: FusionConfig, build: Callable[[], M]) -> M:
    """The model that `build` creates from `config`, with the weights of the folder. UserError if the weights do not fit
    the model, or if it fails on a short trial input."""
    weights, where = WeightFile.read(folder, AGAIN), f"{folder}/config.json"
    with bounded(where, weights):
        model = build()
    weights.load_into(model, "model")
    with bounded(where, weights):
        _try_out(model.eval(), config)
    return model


def _try_out(model: nn.Module, config: FusionConfig) -> None:
    """Predict two short clips. UserError unless the predictions are finite and of the described shape."""
    rng = np.random.default_rng(0)
    samples = [_trial_sample(rng, config, steps) for steps in (2, 5)]
    with torch.no_grad():
        prediction = model(collate(samples)).prediction  # (B, K)
    if list(prediction.shape) != [2, len(config.label_names)]:
        raise UserError(f"gives predictions {list(prediction.shape)} for 2 clips of {len(config.label_names)} labels")
    if not torch.isfinite(prediction).all():
        raise UserError("gives predictions that are not finite")


def _trial_sample(rng: np.random.Generator, config: FusionConfig, steps: int) -> FeatureSample:
    steps = min(steps, config.max_sequence_steps)
    parts: dict[str, Any] = {
        name: ModalityFeatures(
            sequence=rng.normal(size=(steps, config.widths[name])).astype(np.float16),
            times=np.arange(0 if name == "text" else steps, dtype=np.float32),
            pooled=rng.normal(size=config.widths["embed"]).astype(np.float16),
            quality=rng.random((steps, len(config.quality[name])), np.float32),
        )
        for name in MODALITIES
    }
    labels = np.full(len(config.label_names), np.nan, np.float32)
    return FeatureSample("trial", 0, "", float(steps), labels, {}, dict.fromkeys(MODALITIES, ""), **parts)
