"""What a fusion model sees of a clip, averaged over time: the numbers that tell familiar clips from others."""

from typing import Self

import numpy as np
import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from stage2_fusion.data.batches import Batch
from stage2_fusion.models.base import FusionModel, ModalityInput
from stage2_fusion.prediction.familiarity import Summaries


class SummaryRecorder:
    """Records a summary of every clip that a model predicts in a `with` block, in their order.

    >>> with SummaryRecorder(model) as recorder:
    ...     run_model(model, samples, 64)
    >>> recorder.summaries()["vision"].shape
    (300, 266)

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
        """Of all clips so far: modality to float32 (N, d), NaN where it is absent or the model does not read it."""
        return {name: np.concatenate([part[name] for part in self.parts]) for name in MODALITIES}


def summarize(model: FusionModel, batch: Batch) -> Summaries:
    """What a model, in evaluation mode, sees of the clips of a batch; see `SummaryRecorder.summaries`."""
    with torch.no_grad():
        inputs = model.inputs(batch)
        return {name: _summarize(inputs[name]).cpu().numpy() for name in MODALITIES}


def _summarize(part: ModalityInput) -> Tensor:
    """The embedding, means of the sequence and of the quality signals, and how much the sequence changes over time:
    (B, D + C + Q + 1), NaN where the modality is absent."""
    steps = part.mask.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 1)
    mean = part.x.sum(dim=1) / steps  # (B, C)
    variance = (part.x.square().sum(dim=1) / steps - mean.square()).clamp(min=0)  # (B, C)
    change = variance.sqrt().mean(dim=1, keepdim=True)  # (B, 1)
    summary = torch.cat([part.pooled, mean, part.quality.sum(dim=1) / steps, change], dim=1)  # (B, d)
    return summary.float().masked_fill(~part.present[:, None], torch.nan)
