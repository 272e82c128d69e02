"""`emit baseline`: ridge regression on pooled features, in the same form as the evaluation of a fusion model."""

import time

import numpy as np

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.commands.evidence_config import BaselineConfig


def main(argv: list[str] | None = None) -> int:
    from stage2_fusion.commands.evaluate import table

    config = configuration.parse(
        BaselineConfig,
        argv,
        prog="emit baseline",
        example='emit baseline --data runs/demo/features --modalities ["text"] --out runs/demo/ridge_text.json',
    )
    print(table(baseline(config)))
    return 0


def baseline(config: BaselineConfig) -> dict:
    """Fit on train, choose the penalty on valid, score and write the evaluation; returns the metrics."""
    from shared.metrics import score
    from shared.ridge import PENALTIES, ridge_predict
    from stage2_fusion.commands.evaluate import groups_of, seen
    from stage2_fusion.data.features import FeatureDataset
    from stage2_fusion.evaluation import leak
    from stage2_fusion.evaluation import results as evaluation
    from stage2_fusion.models.model_config import TrainedOn

    began = time.perf_counter()
    parts = [
        FeatureDataset.open(config.data, split, (0,), config.max_steps)
        for split in (config.train_split, config.valid_split, config.split)
    ]
    for part, split in zip(parts, (config.train_split, config.valid_split, config.split), strict=True):
        if np.isnan(part.labels()).all():
            raise UserError(f"{config.data}: no clip of split {split!r} is labelled")
    info, names = parts[0].info, list(parts[0].info["label_names"])
    ids = [[sample["id"] for sample in part.samples] for part in parts]
    train, valid, test = standardised([pooled(part.samples, config.modalities) for part in parts])

    def predicted(x: np.ndarray, strength: float) -> np.ndarray:
        return np.clip(ridge_predict(train, parts[0].labels().astype(np.float64), x, strength), 0, 1)  # (N, K)

    def validated(strength: float) -> float:
        return score(predicted(valid, strength), parts[1].labels(), names, resamples=0).pcc.mean

    strength = max(PENALTIES, key=validated)
    kind, groups = groups_of(parts[2].samples, config.groups, list(info["group_names"]))
    about = {
        "split": config.split,
        "group": kind,
        "model": "ridge",
        "configuration": {"modalities": [name for name in MODALITIES if name in config.modalities]},
        "strength": strength,
        "seen": seen(ids[2], TrainedOn(clips=ids[0], chosen_on=ids[1])),
        "seen_by_encoders": leak.seen_by_encoders(config.data, info, ids[2]),
        "made_from": {
            "model": None,
            "features": info["digest"],
            "encoders": info["encoders"]["digest"],
            "fold": info.get("split"),
        },
        "leak_probe": leak.probe(config.data, info, ids[2], parts[2].labels(), ids[0]),
    }
    scored = evaluation.evaluation(
        names, ids[2], groups, predicted(test, strength), parts[2].labels(), about, config.bootstrap, config.seed
    )
    scored.metrics["seconds"] = round(time.perf_counter() - began, 2)
    evaluation.write(config.out, scored)
    return scored.metrics


def pooled(samples: list[dict], modalities: list[str]) -> np.ndarray:
    """Mean and deviation over time of each modality's sequence, its embedding, and whether it is there: float64 (N, F);
    NaN where a modality is missing, but for the last."""
    rows = []
    for sample in samples:
        row = []
        for name in modalities:
            sequence = np.asarray(sample[name]["sequence"], dtype=np.float64)  # (T, C)
            embedding = np.asarray(sample[name]["pooled"], dtype=np.float64)  # (D,)
            there = len(sequence) > 0
            values = np.concatenate([sequence.mean(0), sequence.std(0), embedding]) if there else None
            row += [
                np.full(2 * sequence.shape[1] + len(embedding), np.nan) if values is None else values,
                [float(there)],
            ]
        rows.append(np.concatenate(row))
    return np.stack(rows)


def standardised(parts: list[np.ndarray]) -> list[np.ndarray]:
    """Every part (N, F) with the mean and deviation of the first; what is missing, or never varies, becomes 0."""
    known = ~np.isnan(parts[0])  # (n, F)
    count = np.maximum(known.sum(axis=0), 1)
    mean = np.where(known, parts[0], 0).sum(axis=0) / count  # (F,)
    spread = np.sqrt((np.where(known, parts[0] - mean, 0) ** 2).sum(axis=0) / count)  # (F,)
    scale = np.where(spread > 1e-6, 1 / np.maximum(spread, 1e-6), 0)
    return [np.nan_to_num((part - mean) * scale) for part in parts]


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
