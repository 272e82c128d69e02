"""A fusion model's input of a clip, averaged over time: the numbers that tell familiar clips from others."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import FusionModel, ModalityInput
from stage2_fusion.prediction.familiarity import KEYS, Summaries


class SummaryRecorder:
    """Records a summary of every clip that a model predicts in a `with` block, in their order.

    >>> with SummaryRecorder(model) as recorder:
    ...     run_model(model, samples, 64)
    >>> recorder.summaries()["vision.features"].shape
    (300, 160)

    model: a fusion model, in evaluation mode, alone or inside a model that runs it, such as an EndToEndModel.
    """

    def __init__(self, model: FusionModel):
        self.model = model
        self.parts: list[dict[str, np.ndarray]] = []

    def __enter__(self) -> Self:
        self.handle = self.model.register_forward_pre_hook(self._record)
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()

    def _record(self, model: nn.Module, arguments: tuple) -> None:
        self.parts.append(summarize(self.model, arguments[0]))

    def summaries(self) -> Summaries:
        """For all clips so far: view to float32 (N, d), NaN for a modality that is absent or that the model does not
        read."""
        return {name: np.concatenate([part[name] for part in self.parts]) for name in KEYS}


def summarize(model: FusionModel, batch: Batch) -> Summaries:
    """Summaries of the inputs of a model, in evaluation mode, for a batch; see `SummaryRecorder.summaries`."""
    with torch.no_grad():
        inputs = model.inputs(batch)
        parts = [part for name in MODALITIES for part in _summarize(inputs[name])]
        return {name: part.cpu().numpy() for name, part in zip(KEYS, parts, strict=True)}


def _summarize(part: ModalityInput) -> tuple[Tensor, Tensor]:
    """Features: the embedding and the mean of the sequence (B, D + C). Signals: means of the quality signals, and how
    much the sequence changes over time (B, Q + 1). NaN if the modality is absent."""
    steps = part.mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
    mean = part.x.sum(dim=1) / steps  # (B, C)
    variance = (part.x.square().sum(dim=1) / steps - mean.square()).clamp(min=0)  # (B, C)
    change = variance.sqrt().mean(dim=1, keepdim=True)  # (B, 1)
    features = torch.cat([part.pooled, mean], dim=1)  # (B, D + C)
    signals = torch.cat([part.quality.sum(dim=1) / steps, change], dim=1)  # (B, Q + 1)
    absent = ~part.present[:, None]  # (B, 1)
    return features.float().masked_fill(absent, torch.nan), signals.float().masked_fill(absent, torch.nan)
