"""Explanations of predictions as JSON lines: weights of the modalities and attention of the dimensions over time."""

import json
from pathlib import Path

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.files import write_text
from stage2_fusion.inference import StepExplanation


def write_explanations(path: Path, ids: list[str], steps: list[StepExplanation], names: list[str]) -> None:
    """Write one line per clip, in the order of `ids`; names: the K dimensions.

    {"Filename": id, "times": seconds of the steps, "weights": {modality: one value per step},
     "attention": {dimension: one value per step}}; "times" and "attention" are null for a model without them.
    """
    lines = []
    for name, step in zip(ids, steps, strict=True):
        line = {
            "Filename": name,
            "times": None if step.times is None else _rounded(step.times),
            "weights": {modality: _rounded(step.weights[:, m]) for m, modality in enumerate(MODALITIES)},
            "attention": None,
        }
        if step.attention is not None:
            line["attention"] = {dimension: _rounded(step.attention[k]) for k, dimension in enumerate(names)}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]
