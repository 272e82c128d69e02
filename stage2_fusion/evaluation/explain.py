"""What a fusion model went by, clip by clip and step by step, as JSON lines."""

import json
from pathlib import Path

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.files import write_text


def write(path: Path, ids: list[str], steps: list[dict], names: list[str]) -> None:
    """One line a clip, in the order of `ids`: Filename; times in seconds of the steps at which any modality is there
    (null when the model has none); weights of each modality at those steps, 0 where absent; attention of each dimension
    over them (null when the model has none). steps: as `inference.run_model` gives them."""
    lines = []
    for name, step in zip(ids, steps, strict=True):
        weights, times, attention = step["weights"], step["times"], step["attention"]
        line = {"Filename": name, "times": None if times is None else _rounded(times)}
        line["weights"] = {modality: _rounded(weights[:, m]) for m, modality in enumerate(MODALITIES)}
        line["attention"] = attention
        if attention is not None:
            line["attention"] = {dimension: _rounded(attention[k]) for k, dimension in enumerate(names)}
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    write_text(path, "".join(lines))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 5) for value in values]
