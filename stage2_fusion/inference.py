"""A fusion model over many samples: what validation, evaluation and prediction have in common."""

from collections.abc import Callable

import numpy as np


def best_device():
    """The GPU when there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def run_model(
    model, samples: list[dict], batch_size: int, batch_of: Callable[[range, object], dict] | None = None
) -> dict[str, np.ndarray]:
    """Predictions of all samples, in their order, without gradients, in evaluation mode, on the model's device.
    `batch_of(rows, device)` gives batches of them where they are not to be collated here.

    Returns "predictions" float32 (N, K) in [0, 1] and "weights" float32 (N, 3): the mean weight of vision, audio, text
    over a clip's steps, 0 where absent.
    """
    import torch

    from stage2_fusion.features import collate

    model.eval()
    device = next(model.parameters()).device
    predictions, weights = [], []
    with torch.no_grad():
        for start in range(0, len(samples), batch_size):
            rows = range(start, min(start + batch_size, len(samples)))
            batch = batch_of(rows, device) if batch_of else collate([samples[row] for row in rows], device)
            output = model(batch)
            predictions.append(output.prediction.float().cpu().numpy())  # (B, K)
            weights.append(output.clip_weights().cpu().numpy())  # (B, 3)
    return {"predictions": np.concatenate(predictions), "weights": np.concatenate(weights)}
