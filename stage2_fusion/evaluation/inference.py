"""A fusion model over many samples: what validation, evaluation and prediction have in common."""

from collections.abc import Callable

import numpy as np


def best_device():
    """The GPU when there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_model(
    model,
    samples: list[dict],
    batch_size: int,
    batch_of: Callable[[range, object], dict] | None = None,
    explain: bool = False,
) -> dict:
    """Predictions of all samples, in their order, without gradients, in evaluation mode, on the model's device.
    `batch_of(rows, device)` gives batches of them where they are not to be collated here.

    Returns "predictions" float32 (N, K) in [0, 1] and "weights" float32 (N, 3): the mean weight of vision, audio, text
    over a clip's steps, 0 where absent. With `explain` also "steps": for each sample its S' steps at which any modality
    is there, {"weights" (S', 3), "times" (S',) in seconds or None, "attention" (K, S') or None}.
    """
    import torch

    from stage2_fusion.data.features import collate

    model.eval()
    device = next(model.parameters()).device
    predictions, weights, steps = [], [], []
    with torch.no_grad():
        for start in range(0, len(samples), batch_size):
            rows = range(start, min(start + batch_size, len(samples)))
            batch = batch_of(rows, device) if batch_of else collate([samples[row] for row in rows], device)
            output = model(batch)
            predictions.append(output.prediction.float().cpu().numpy())  # (B, K)
            weights.append(output.clip_weights().cpu().numpy())  # (B, 3)
            steps += _steps(output) if explain else []
    found = {"predictions": np.concatenate(predictions), "weights": np.concatenate(weights)}
    return {**found, "steps": steps} if explain else found


def _steps(output) -> list[dict]:
    mask = output.step_mask.cpu().numpy()  # (B, S)
    weights = output.weights.float().cpu().numpy()  # (B, S, 3)
    times, attention = (None if x is None else x.float().cpu().numpy() for x in (output.times, output.attention))
    return [
        {
            "weights": weights[b, there],
            "times": None if times is None else times[b, there],
            "attention": None if attention is None else attention[b][:, there],
        }
        for b, there in enumerate(mask)
    ]
