"""Learning rate schedule."""

import numpy as np


def count_warmup_steps(total_steps: int, warmup_fraction: float) -> int:
    """Warm-up steps of a run, rounded down."""
    return int(warmup_fraction * total_steps)


def cosine_with_warmup(step: int, total_steps: int, warmup_steps: int) -> float:
    """Factor of the peak learning rate at `step`: linear from 1 / warmup_steps to 1, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / max(1, warmup_steps)
    progress = (step - warmup_steps) / max(1, total_steps - warmup_steps)
    return 0.5 * (1 + float(np.cos(np.pi * min(1.0, progress))))
