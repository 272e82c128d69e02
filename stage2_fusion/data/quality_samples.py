"""The quality signals of a feature dataset, read without its features, which are a hundred times as large."""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shared.dataset.clip import MODALITIES
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.data.features import feature_table, stored_rows


@dataclass(frozen=True)
class QualitySample:
    """The quality signals of one view of a clip."""

    id: str
    view: int
    damage: dict[str, str]
    """Modality to the kind of damage done on purpose; "" = none."""
    quality: dict[str, np.ndarray]
    """Modality to its signals, float32 (T, Q)."""


def read_quality(path: Path, ids: Collection[str]) -> list[QualitySample]:
    """All views of these clips; clips that are not in the dataset are skipped."""
    info, wanted = read_info(path), set(ids)
    columns = ["id", "view", *(f"damage_{name}" for name in MODALITIES), *(f"{name}_quality" for name in MODALITIES)]
    table = feature_table(Path(path), info).select_columns(columns)
    rows = [i for i, name in enumerate(table["id"][:]) if name in wanted]
    return [
        QualitySample(
            id=row["id"],
            view=row["view"],
            damage={name: row[f"damage_{name}"] for name in MODALITIES},
            quality={
                name: np.frombuffer(row[f"{name}_quality"], np.float32).reshape(-1, len(info.quality[name]))
                for name in MODALITIES
            },
        )
        for row in stored_rows(table, rows)
    ]
