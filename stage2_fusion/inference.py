"""Run a fusion model over many samples: shared by validation, evaluation and prediction."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shared.terminal.progress import track
from stage2_fusion.data.features import FeatureSample

if TYPE_CHECKING:
    import torch

    from stage2_fusion.data.batches import Batch
    from stage2_fusion.models.base import Output


@dataclass
class StepExplanation:
    """How a model used one clip, at the S steps with at least one modality."""

    weights: np.ndarray
    """float32 (S, 3) of vision, audio, text; 0 if a modality is absent."""
    times: np.ndarray | None
    """float32 (S,) in seconds; None for a model without a time axis."""
    attention: np.ndarray | None
    """float32 (K, S) of each dimension over the steps; None for a model without attention."""


@dataclass
class ModelPredictions:
    """Predictions of N samples, in their order."""

    predictions: np.ndarray
    """float32 (N, K) in [0, 1]."""
    weights: np.ndarray
    """float32 (N, 3): mean weight of vision, audio, text over the steps of a clip; 0 if a modality is absent."""
    steps: list[StepExplanation] = field(default_factory=list)
    """One per sample; empty unless requested."""


def best_device() -> "torch.device":
    """The GPU if there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_model(
    model: "torch.nn.Module",
    samples: list[FeatureSample],
    batch_size: int,
    make_batch: Callable[[range, "torch.device"], "Batch"] | None = None,
    explain: bool = False,
) -> ModelPredictions:
    """Predictions of all samples without gradients, in evaluation mode, on the device of the model (a FusionModel,
    or an EndToEndModel with its own `make_batch`).

    make_batch(rows, device) builds the batch of `samples[rows]`; by default the samples are collated. explain: fill
    `ModelPredictions.steps`.
    """
    import torch

    from stage2_fusion.data.batches import collate

    model.eval()
    device = next(model.parameters()).device
    predictions: list[np.ndarray] = []
    weights: list[np.ndarray] = []
    steps: list[StepExplanation] = []
    with torch.no_grad():
        for start in track(range(0, len(samples), batch_size), "score", "batches"):
            rows = range(start, min(start + batch_size, len(samples)))
            batch = make_batch(rows, device) if make_batch else collate([samples[row] for row in rows], device)
            output = model(batch)
            predictions.append(output.prediction.float().cpu().numpy())  # (B, K)
            weights.append(output.clip_weights().cpu().numpy())  # (B, 3)
            if explain:
                steps += _explanations(output)
    return ModelPredictions(np.concatenate(predictions), np.concatenate(weights), steps)


def _explanations(output: "Output") -> list[StepExplanation]:
    step_mask = output.step_mask.cpu().numpy()  # (B, S)
    weights = output.weights.float().cpu().numpy()  # (B, S, 3)
    times, attention = (None if x is None else x.float().cpu().numpy() for x in (output.times, output.attention))
    return [
        StepExplanation(
            weights[b, mask],
            None if times is None else times[b, mask],
            None if attention is None else attention[b][:, mask],
        )
        for b, mask in enumerate(step_mask)
    ]
