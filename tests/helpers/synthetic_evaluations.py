"""Evaluations written without a model, from the predictions and labels that a test wants."""

import hashlib
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
    fingerprints: np.ndarray | None = None,
    **info: Any,
) -> Path:
    """predictions, labels: (N, K) or (N,); crossed: groups of a second kind; fingerprints: uint64 (N, 3), by default
    the same for the same id; `info` are fields of EvaluationInfo."""
    labels = np.asarray(labels, dtype=float)
    labels = labels.reshape(len(labels), -1)
    predictions = np.asarray(predictions, dtype=float).reshape(labels.shape)
    ids = [f"c{i:03d}" for i in range(len(labels))] if ids is None else list(ids)
    groups = [f"s{i % 5}" for i in range(len(ids))] if groups is None else list(groups)
    fields = {"split": "test", "group": "subject", "model": "synthetic", "configuration": {}, "made_from": {}}
    fields |= {"seen": results.SeenClips(0, 0), "seen_by_encoders": 0, **info}
    fields |= {} if crossed is None else {"crossed_group": "seed"}
    names = [f"d{k}" for k in range(labels.shape[1])]
    prints = np.stack([fingerprint(name) for name in ids]) if fingerprints is None else fingerprints  # (N, 3)
    about = results.EvaluationInfo(**fields)
    scored = names, ids, groups, predictions, labels
    result_files.write_evaluation(path, results.score_predictions(about, *scored, 50, 0, crossed, unmet, prints))
    return path


def fingerprint(content: str) -> np.ndarray:
    """Three numbers of a clip with this content: uint64 (3,)."""
    return np.frombuffer(hashlib.blake2b(content.encode(), digest_size=24).digest(), np.uint64)
