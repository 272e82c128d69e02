"""`emit evaluate`: scores of a fusion model on one split of a feature dataset."""

import time
from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.registry import nearest
from stage2_fusion.config import EvaluateConfig
from stage2_fusion.models.model_config import TrainedOn

ABSENT = ("no_track", "missing")
"""Kinds of damage that leave nothing to weigh: the modality is masked."""

FEW_GROUPS = "; of fewer than 20 a bootstrap makes it too narrow"
"""Groups of 6 rows with effects of their own, simulated: 95 % intervals cover 94 % at 20 groups, 87 at 10, 80 at 4."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        EvaluateConfig,
        argv,
        prog="emit evaluate",
        example="emit evaluate --model runs/demo/fuse/model --data runs/demo/features --split test",
    )
    metrics = evaluate(config)
    print(table(metrics))
    return 0


def evaluate(config: EvaluateConfig) -> dict:
    """Score the model, write metrics, predictions and labels (see evaluation.py), return the metrics."""
    from shared.files import digest as file_digest
    from stage2_fusion.data.features import FeatureDataset, read_info
    from stage2_fusion.evaluation import explain, leak
    from stage2_fusion.evaluation import results as evaluation
    from stage2_fusion.evaluation.inference import best_device, run_model
    from stage2_fusion.models.base import FusionModel

    began = time.perf_counter()
    model = FusionModel.from_pretrained(config.model)
    model.config.check_features(read_info(config.data), config.data)
    data = FeatureDataset.open(config.data, config.split, max_sequence_steps=model.config.max_sequence_steps)
    names = model.config.label_names
    found = run_model(model.to(best_device()), data.samples, config.batch_size, explain=config.explain)
    view = np.array([sample["view"] for sample in data.samples])  # (N,)
    clean, labels = np.flatnonzero(view == 0), data.labels()  # (N, K)
    if np.isnan(labels[clean]).all():
        raise UserError(f"{config.data}: no clip of split {config.split!r} is labelled; `emit predict` needs no labels")
    samples = [data[row] for row in clean]
    ids = [sample["id"] for sample in samples]
    kind, groups = groups_of(samples, config.groups, list(data.info["group_names"]))
    trained = model.config.trained_on
    about = {
        "split": config.split,
        "group": kind,
        "model": model.config.model,
        "configuration": model.config.options,
        "training": {
            **model.config.training,
            "finetune": model.config.finetune,
            "seconds": model.metrics.get("seconds"),
        },
        "seeds": {"training": trained.seed},
        "seen": seen(ids, trained),
        "seen_by_encoders": leak.seen_by_encoders(config.data, data.info, ids),
        "made_from": {
            "model": str(config.model),
            "model_digest": file_digest(config.model / "model.safetensors"),
            "features": data.info["digest"],
            "encoders": model.config.encoders.digest,
            "fold": data.info.get("split"),
            "trained_on": trained.features or None,
        },
        "weights": _mean_weights(found.weights[clean]),
        "leak_probe": leak.probe(config.data, data.info, ids, labels[clean], trained.clips),
    }
    scored = evaluation.evaluation(
        names, ids, groups, found.predictions[clean], labels[clean], about, config.bootstrap, config.seed
    )
    metrics = scored.metrics
    if (view > 0).any():
        metrics["damaged_on_purpose"] = _damaged_views(found, data, labels, view, names)
    if config.truth is not None:
        metrics |= against_truth(config.truth, samples, labels[clean], found.weights[clean], names)
        ceiling = metrics["ceiling"]["mean"]
        metrics["share_of_ceiling"] = metrics["pcc"]["mean"] / ceiling if ceiling > 0 else None
    out = config.out or config.model / "evaluation" / f"metrics_{config.split or 'all'}.json"
    if config.explain:
        rows = clean[np.argsort(np.array(ids, dtype=object), kind="stable")]
        explain.write_explanations(
            out.with_name(f"{out.stem}_explained.jsonl"), scored.ids, [found.steps[row] for row in rows], names
        )
    metrics["seconds"] = round(time.perf_counter() - began, 2)
    evaluation.write(out, scored)
    return metrics


def seen(ids: list[str], trained: TrainedOn) -> dict | None:
    """How many of the clips a model was trained on and chosen by, None when that is not recorded."""
    if trained.clips is None:
        return None
    sets = {"in_training": trained.clips, "in_choosing": trained.chosen_on or []}
    return {name: len(set(ids) & set(clips)) for name, clips in sets.items()}


def against_truth(path: Path, samples: list[dict], labels: np.ndarray, weights: np.ndarray, names: list[str]) -> dict:
    """What only the truth of a synthetic corpus can say of a split: `ceiling`, the PCC of a perfect model (the latent
    intensities against the labels, which hold rating noise), and `damage`, how well low weights find the damaged
    modality of clips that were damaged when they were made.

    samples: N clips, labels (N, K), weights (N, 3). UserError when truth.csv does not hold these clips.
    """
    from shared.metrics import pcc

    truth = _read_truth(path)
    missing = [sample["id"] for sample in samples if _stem(sample["id"]) not in truth]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} clips are not in it, such as {missing[0]!r}; give the corpus's truth.csv"
        )
    rows = [truth[_stem(sample["id"])] for sample in samples]
    try:
        latent = {name: np.array([float(row[f"true_{name}"]) for row in rows]) for name in names}
    except KeyError as error:
        raise UserError(f"{path}: no column {error}; give the truth.csv of the corpus these labels are from") from None
    ceiling = {name: pcc(latent[name], labels[:, k]) for k, name in enumerate(names)}
    damage = {}
    for m, modality in enumerate(MODALITIES):
        kinds = [row.get(f"{modality}_damage") or "" for row in rows]
        damage[modality] = _found(weights, m, np.array(kinds))
    return {
        "ceiling": {"mean": float(np.mean(list(ceiling.values()))), "per_dimension": ceiling},
        "damage": _with_mean(damage),
    }


def _found(weights: np.ndarray, m: int, kinds: np.ndarray) -> dict | None:
    """ROC AUC that modality m weighs less where it is damaged than where it is not. Only clips that show the same
    modalities are compared: the weight of one depends on what it shares the clip with. None when nothing compares.

    weights (N, 3), kinds (N,) of damage to the modality, "" for none.
    """
    from shared.metrics import roc_auc

    there = (weights[:, m] > 0) & ~np.isin(kinds, ABSENT)  # (N,)
    weight, kinds, shown = weights[there, m], kinds[there], (weights[there] > 0) @ [1, 2, 4]
    damaged = kinds != ""

    def auc(rows: np.ndarray) -> float | None:
        value = roc_auc(-weight[rows], damaged[rows], shown[rows])
        return None if np.isnan(value) else value

    overall = auc(np.full(len(weight), True))
    if overall is None:
        return None
    by_kind = {str(kind): auc(~damaged | (kinds == kind)) for kind in sorted(set(kinds[damaged]))}
    return {"auc": overall, "clips": int(damaged.sum()), "by_kind": by_kind}


def _with_mean(damage: dict[str, dict | None]) -> dict:
    scores = [part["auc"] for part in damage.values() if part]
    return {"mean_auc": float(np.mean(scores)) if scores else None, **damage}


def _damaged_views(found, data, labels: np.ndarray, view: np.ndarray, names: list[str]) -> dict:
    """The same clips with one modality damaged on purpose: PCC before and after, and how often the damage is found."""
    from shared.metrics import pcc

    worse = np.flatnonzero(view > 0)
    of = {data[row]["id"]: row for row in np.flatnonzero(view == 0)}
    same = np.array([of[data[row]["id"]] for row in worse])

    def mean_pcc(rows) -> float:
        values = [pcc(found.predictions[rows, k], labels[rows, k]) for k in range(len(names))]
        return float(np.nanmean(values)) if not np.isnan(values).all() else 0.0

    def fall(part) -> dict[str, float]:
        return {"pcc_undamaged": mean_pcc(same[part]), "pcc_damaged": mean_pcc(worse[part]), "views": int(part.sum())}

    damage, falls = {}, {}
    for m, modality in enumerate(MODALITIES):
        kinds = np.array([data[row]["damage"][modality] for row in worse])  # (Nd,)
        if (kinds != "").any():
            falls[modality] = fall(kinds != "")
        rows = worse[kinds != ""]
        weights = np.concatenate([found.weights[rows], found.weights[view == 0]])
        damage[modality] = _found(weights, m, np.concatenate([kinds[kinds != ""], np.full((view == 0).sum(), "")]))
    return {**fall(np.full(len(worse), True)), "by_modality": falls, "damage": _with_mean(damage)}


def groups_of(samples: list[dict], kind: str | None, kinds: list[str]) -> tuple[str | None, list[str]]:
    """The kind of group, by default the first there is, and the group of each clip; a clip whose group is not known,
    or any where there are no groups (kind None), is one of its own."""
    if kind is not None and kind not in kinds:
        raise UserError(f"--groups {kind}: the clips have no such group; {nearest(kind, kinds)}")
    kind = kind or (kinds[0] if kinds else None)
    return kind, [sample["groups"].get(kind) or f"clip {sample['id']}" for sample in samples]


def _mean_weights(weights: np.ndarray) -> dict[str, float | None]:
    return {
        name: float(weights[weights[:, m] > 0, m].mean()) if (weights[:, m] > 0).any() else None
        for m, name in enumerate(MODALITIES)
    }


def _read_truth(path: Path) -> dict[str, dict[str, str]]:
    import csv

    try:
        with Path(path).open(newline="") as file:
            return {_stem(row["id"]): row for row in csv.DictReader(file)}
    except (OSError, KeyError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a truth.csv ({error}); give the one in the corpus folder") from None


def _stem(name: str) -> str:
    return Path(name).stem


def table(metrics: dict) -> str:
    """The scores as a few lines of text."""
    names = list(metrics["pcc"]["per_dimension"])
    wide = max(len(name) for name in [*names, "mean"])
    columns = [metrics["pcc"], metrics["pcc_nonzero"], metrics["ccc"], metrics["mae"]]
    lines = [f"{'':<{wide}}     PCC  PCC>0    CCC    MAE"]
    for name in [*names, "mean"]:
        values = [column["mean"] if name == "mean" else column["per_dimension"][name] for column in columns]
        text = "".join("      -" if value is None else f"{value:7.3f}" for value in values)
        lines.append(f"{name:<{wide}} {text}{'   constant prediction' if name in metrics['constant'] else ''}")
    interval = metrics["pcc"]["interval"]
    if interval:
        low, high = interval
        lines.append(
            f"{metrics['n']} clips; mean PCC {metrics['pcc']['mean']:.3f}, 95 % interval {low:.3f} to {high:.3f} "
            f"({metrics['groups']} groups{FEW_GROUPS if metrics['groups'] < 20 else ''})"
        )
    counts = metrics.get("seen")
    if counts and any(counts.values()):
        lines.append(
            f"not unseen: the model was trained on {counts['in_training']} of these clips and chosen by "
            f"{counts['in_choosing']}"
        )
    if metrics.get("seen_by_encoders"):
        lines.append(f"not unseen: the encoders were aligned on {metrics['seen_by_encoders']} of these clips")
    probe = metrics.get("leak_probe")
    if probe and probe["pcc"]:
        lines.append(
            f"leak probe: the labels of the nearest training transcript reach PCC {probe['pcc']['mean']:.3f}; "
            f"{probe['same_transcript']:.0%} of the clips share their words with one"
        )
    if "ceiling" in metrics:
        ceiling = metrics["ceiling"]["mean"]
        reached = f"; {metrics['pcc']['mean'] / ceiling:.1%} of it reached" if ceiling > 0 else ""
        lines.append(f"ceiling {ceiling:.3f}{reached}")
    if "damage" in metrics:
        lines.append("damage found in the clips: " + _auc_text(metrics["damage"]))
    if "damaged_on_purpose" in metrics:
        part = metrics["damaged_on_purpose"]
        lines.append(
            f"damaged on purpose: PCC {part['pcc_undamaged']:.3f} -> {part['pcc_damaged']:.3f}; found: "
            + _auc_text(part["damage"])
        )
    return "\n".join(lines)


def _auc_text(damage: dict) -> str:
    parts = [f"{name} {damage[name]['auc']:.3f}" for name in MODALITIES if damage.get(name)]
    return f"AUC {', '.join(parts)}" if parts else "nothing to find"


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
