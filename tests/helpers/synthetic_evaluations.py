"""Evaluations written without a model, from the predictions and labels that a test wants."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from stage2_fusion.evaluation import result_files, results


def write_evaluation(
    path: Path,
    predictions: ArrayLike,
    labels: ArrayLike,
    ids: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    crossed: Sequence[str] | None = None,
    unmet: results.Unmet | None = None,
    **info: Any,
) -> Path:
    """predictions, labels: (N, K) or (N,); crossed: groups of a second kind; `info` are fields of EvaluationInfo."""
    labels = np.asarray(labels, dtype=float)
    labels = labels.reshape(len(labels), -1)
    predictions = np.asarray(predictions, dtype=float).reshape(labels.shape)
    ids = [f"c{i:03d}" for i in range(len(labels))] if ids is None else list(ids)
    groups = [f"s{i % 5}" for i in range(len(ids))] if groups is None else list(groups)
    fields = {"split": "test", "group": "subject", "model": "synthetic", "configuration": {}, "made_from": {}}
    fields |= {"seen": results.SeenClips(0, 0), "seen_by_encoders": 0, **info}
    fields |= {} if crossed is None else {"crossed_group": "seed"}
    names = [f"d{k}" for k in range(labels.shape[1])]
    about = results.EvaluationInfo(**fields)
    result_files.write_evaluation(
        path, results.score_predictions(about, names, ids, groups, predictions, labels, 50, 0, crossed, unmet)
    )
    return path
