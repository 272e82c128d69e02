"""`emit merge-folds`: evaluations of disjoint clips, such as the folds of a cross-validation, as one."""

import numpy as np

from shared import config as configuration
from shared.errors import UserError
from stage2_fusion.commands.evidence_config import PoolConfig


def main(argv: list[str] | None = None) -> int:
    from stage2_fusion.commands.evaluate import table

    config = configuration.parse(
        PoolConfig,
        argv,
        prog="emit merge-folds",
        example="emit merge-folds runs/fold0/metrics.json runs/fold1/metrics.json --out runs/folds.json",
        positional=("evaluations",),
    )
    metrics = pool(config)
    print(table(metrics))
    parts = [part["pcc"] for part in metrics["parts"]]
    print(f"mean PCC of the {len(parts)} parts alone: {np.mean(parts):.3f} ({', '.join(f'{p:.3f}' for p in parts)})")
    return 0


def pool(config: PoolConfig) -> dict:
    """Score all clips of all parts at once and write the evaluation; its "parts" say how each scored alone. Returns the
    metrics. UserError when a clip is in two parts, or the parts are of different models, options of them, or kinds of
    groups."""
    from stage2_fusion.evaluation import results as evaluation

    parts = evaluation.read_all(config.evaluations)
    owner: dict[str, evaluation.Evaluation] = {}
    for part in parts:
        for name in part.ids:
            if owner.setdefault(name, part) is not part:
                raise UserError(f"{part.path} and {owner[name].path}: both score clip {name!r}; give disjoint folds")
        for what, mine, first in (
            ("model", part.metrics["model"], parts[0].metrics["model"]),
            ("configuration", part.metrics.get("configuration"), parts[0].metrics.get("configuration")),
            ("kind of group", part.metrics["clips"]["group"], parts[0].metrics["clips"]["group"]),
        ):
            if mine != first:
                raise UserError(f"{part.path}: {what} {mine}, but that of {parts[0].path} is {first}")
    metrics = [part.metrics for part in parts]
    kind = metrics[0]["clips"]["group"]
    about = {
        "split": "+".join(dict.fromkeys(m["split"] or "all" for m in metrics)),
        "group": kind,
        "model": metrics[0]["model"],
        "configuration": metrics[0].get("configuration"),
        "seeds": {"training": _seeds([m["seeds"]["training"] for m in metrics])},
        **evaluation.add_seen(metrics, sum),
        "training": _same([m.get("training") for m in metrics]),
        "made_from": {"pooled": [str(part.path) for part in parts]},
        "parts": [
            {
                "path": str(part.path),
                "n": len(part.ids),
                "pcc": part.metrics["pcc"]["mean"],
                "made_from": part.metrics["made_from"],
            }
            for part in parts
        ],
    }
    pooled = evaluation.evaluation(
        parts[0].names,
        [name for part in parts for name in part.ids],
        [group for part in parts for group in part.groups],
        np.concatenate([part.predictions for part in parts]),
        np.concatenate([part.labels for part in parts]),
        about,
        config.bootstrap,
        config.seed,
    )
    evaluation.write(config.out, pooled)
    return pooled.metrics


def _same(parts: list[dict | None]) -> dict | None:
    """How all parts were trained, with the seconds of all; None where they were trained differently, or do not say."""
    recipes = [None if part is None else {**part, "seconds": None} for part in parts]
    if None in recipes or any(recipe != recipes[0] for recipe in recipes):
        return None
    seconds = [part["seconds"] for part in parts]
    return {**recipes[0], "seconds": None if None in seconds else round(sum(seconds), 1)}


def _seeds(parts: list[int | list[int] | None]) -> list[int] | None:
    """All seeds there are, of parts that may be pooled themselves; None when no part knows its own."""
    known = [part if isinstance(part, list) else [part] for part in parts if part is not None]
    return sorted({seed for part in known for seed in part}) or None


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
