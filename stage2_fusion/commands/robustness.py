"""`emit robustness`: how a score falls as more and more clips lose a modality, or have it damaged."""

from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from stage2_fusion.commands.evidence_config import RobustnessConfig
from stage2_fusion.evaluation.results import named

COLUMNS = ("model", "modality", "how", "share", "clips", "pcc", "low", "high", "fall", "fall_low", "fall_high")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        RobustnessConfig,
        argv,
        prog="emit robustness",
        example="emit robustness learned=runs/a/model uniform=runs/b/model --data runs/features",
        positional=("models",),
    )
    print(table(robustness(config)))
    return 0


def robustness(config: RobustnessConfig) -> dict:
    """Score every model, write JSON and CSV, return what the JSON holds.

    Returns {"data", "split", "shares", "orders", "seed", "bootstrap", "rows"}. A row: "model", "modality", "how"
    (damaged or missing), "share" of the "clips" that were so, mean "pcc" over all "clips" (and over orders in which
    they were made worse) with "low" and "high" of its 95 % interval, its "fall" from the clips as they are with
    "fall_low" and "fall_high", and "per_dimension". The clips of a modality are those that have it and, for damaged, a
    view in which it alone is damaged: at share 0 they are as they are, at 1 all are worse.
    """
    from shared.files import write_csv, write_json
    from stage2_fusion.data.features import FeatureDataset, read_info
    from stage2_fusion.models.base import FusionModel

    rows, features = [], read_info(config.data)
    for name, path in _named(config.models):
        model = FusionModel.from_pretrained(path)
        model.config.check_features(features, config.data)
        data = FeatureDataset.open(config.data, config.split, max_sequence_steps=model.config.max_sequence_steps)
        rows += [{"model": name, **row} for row in one_model(model, data, config)]
    result = {"data": features["digest"]}
    result |= {key: getattr(config, key) for key in ("split", "shares", "orders", "seed", "bootstrap")}
    result["rows"] = rows
    names = features["label_names"]
    plain = [[*(row[key] for key in COLUMNS), *(row["per_dimension"][name] for name in names)] for row in rows]
    write_csv(config.out.with_suffix(".csv"), [*COLUMNS, *names], [["" if v is None else v for v in r] for r in plain])
    write_json(config.out, result)
    return result


def one_model(model, data, config: RobustnessConfig) -> list[dict]:
    """The rows of one model. UserError when no clip is labelled."""
    from stage2_fusion.commands.evaluate import groups_of
    from stage2_fusion.evaluation.inference import best_device, run_model

    clips = [views for views in data.by_clip() if 0 in views and not np.isnan(views[0]["labels"]).all()]
    if not clips:
        raise UserError(f"{config.data}: no clip of split {config.split!r} is labelled")
    clean = [views[0] for views in clips]
    labels = np.stack([sample["labels"] for sample in clean])  # (N, K)
    groups = np.array(groups_of(clean, config.groups, list(data.info["group_names"]))[1])  # (N,)
    names, model = list(data.info["label_names"]), model.to(best_device())

    def predict(samples: list[dict]) -> np.ndarray:
        return run_model(model, samples, config.batch_size).predictions

    whole, rows = predict(clean), []  # (N, K)
    for modality in MODALITIES:
        for how, versions in (
            ("damaged", [_damaged(views, modality) for views in clips]),
            ("missing", [without(sample, modality) for sample in clean]),
        ):
            usable = [i for i, sample in enumerate(versions) if sample is not None]
            if not usable:
                continue
            pair = whole[usable], predict([versions[i] for i in usable])  # (M, K) each: as they are, and worse
            orders = [
                np.argsort([_turn(config.seed, order, modality, clean[i]["id"]) for i in usable])
                for order in range(config.orders)
            ]
            about = {"modality": modality, "how": how, "clips": len(usable)}
            rows += [about | row for row in _curve(*pair, labels[usable], names, groups[usable], orders, config)]
    return rows


def without(sample, modality: str):
    """The sample without one modality; None when it has none of it."""
    return sample.without(modality) if sample.modality(modality).steps else None


def _damaged(views: dict[int, dict], modality: str) -> dict | None:
    """The first view in which this modality alone was damaged, if there is one."""
    for number in sorted(views):
        if [name for name in MODALITIES if views[number]["damage"][name]] == [modality]:
            return views[number]
    return None


def _turn(seed: int, order: int, modality: str, name: str) -> int:
    """When a clip's turn comes to be damaged: a smaller share is part of a larger one."""
    from shared.training.sampling import derive_seed

    return derive_seed("robustness", seed, order, modality, name)


def _curve(clean, worse, labels, names: list[str], groups, orders: list[np.ndarray], config) -> list[dict]:
    """A row for each share: clean, worse, labels (M, K), groups (M,); orders of (M,), by which clips become worse."""
    from shared.metrics import bootstrap_pcc, interval, mean_over_dimensions, pcc

    known = [k for k in range(len(names)) if not np.isnan(labels[:, k]).all()]

    def scored(share: float) -> tuple[np.ndarray, np.ndarray]:
        """PCC (K',) of the dimensions that are labelled, and bootstrap samples (R,) of their mean."""
        count = round(share * len(labels))
        values, draws = [], []
        for order in orders if 0 < count < len(labels) else orders[:1]:
            mixed = clean.copy()
            mixed[order[:count]] = worse[order[:count]]
            values.append([pcc(mixed[:, k], labels[:, k]) for k in known])
            drawn = bootstrap_pcc(mixed[:, known], labels[:, known], groups, config.bootstrap, config.seed)
            draws.append(mean_over_dimensions(drawn))
        return np.mean(values, axis=0), np.mean(draws, axis=0)

    whole, before = scored(0.0)
    rows = []
    for share in config.shares:
        values, draws = scored(share)
        ends = [*(interval(draws) or (None, None)), *(interval(before - draws) or (None, None))]
        row = {"share": share, "pcc": float(values.mean()), "fall": float((whole - values).mean())}
        row |= dict(zip(("low", "high", "fall_low", "fall_high"), ends, strict=True))
        each = dict.fromkeys(names) | {names[k]: float(value) for k, value in zip(known, values, strict=True)}
        rows.append({**row, "per_dimension": each})
    return rows


def _named(given: list[str]) -> list[tuple[str, Path]]:
    """(name, folder) of PATH or NAME=PATH; a folder called `model` is called after its run."""
    found = []
    for name, path in map(named, given):
        found.append((name or (path.resolve().parent.name if path.name == "model" else path.name), path))
    if len({name for name, _ in found}) < len(found):
        raise UserError("two models have one name; give them as NAME=PATH")
    return found


def table(result: dict) -> str:
    """PCC at each share, a line for each model, modality and kind of loss."""
    shares = list(dict.fromkeys(row["share"] for row in result["rows"]))
    lines: dict[tuple, dict[float, float]] = {}
    for row in result["rows"]:
        lines.setdefault((row["model"], row["modality"], row["how"], row["clips"]), {})[row["share"]] = row["pcc"]
    wide = max([5, *(len(model) for model, *_ in lines)])
    text = [f"{'model':<{wide}}  {'modality':<8} {'is':<8} {'clips':>5}  " + "".join(f"{s:>8.0%}" for s in shares)]
    for (model, modality, how, clips), values in lines.items():
        each = "".join(f"{values[share]:>8.3f}" for share in shares)
        text.append(f"{model:<{wide}}  {modality:<8} {how:<8} {clips:>5}  {each}")
    return "\n".join(text)


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
