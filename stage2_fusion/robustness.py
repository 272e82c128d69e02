"""`emit robustness`: how a score falls as more and more clips lose a modality, or have it damaged."""

from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.clips import MODALITIES
from shared.errors import UserError
from stage2_fusion.evaluation import named
from stage2_fusion.evidence_config import RobustnessConfig

COLUMNS = ("model", "modality", "how", "share", "clips", "pcc", "low", "high")


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

    Returns {"data", "split", "seed", "bootstrap", "rows"}. A row: "model", "modality", "how" (damaged or missing),
    "share" of the "clips" that were so, mean "pcc" over all "clips" with "low" and "high" of its 95 % interval, and
    "per_dimension". The clips of a modality are those that have it and, for damaged, a view in which it alone is
    damaged: at share 0 they are as they are, at 1 all are worse.
    """
    from shared.files import write_csv, write_json
    from stage2_fusion import model_folder
    from stage2_fusion.features import FeatureDataset, read_info

    rows, features = [], read_info(config.data)
    for name, path in _named(config.models):
        model, info = model_folder.load(path)
        model_folder.check_features(info, features, config.data)
        data = FeatureDataset.open(config.data, config.split, max_steps=info["max_steps"])
        rows += [{"model": name, **row} for row in one_model(model, data, config)]
    result = {"data": features["digest"], "split": config.split, "seed": config.seed, "bootstrap": config.bootstrap}
    result["rows"] = rows
    names = features["label_names"]
    plain = [[*(row[key] for key in COLUMNS), *(row["per_dimension"][name] for name in names)] for row in rows]
    write_csv(config.out.with_suffix(".csv"), [*COLUMNS, *names], [["" if v is None else v for v in r] for r in plain])
    write_json(config.out, result)
    return result


def one_model(model, data, config: RobustnessConfig) -> list[dict]:
    """The rows of one model. UserError when no clip is labelled."""
    from stage2_fusion.evaluate import groups_of
    from stage2_fusion.inference import best_device, run_model

    clips = [views for views in data.by_clip() if 0 in views and not np.isnan(views[0]["labels"]).all()]
    if not clips:
        raise UserError(f"{config.data}: no clip of split {config.split!r} is labelled")
    clean = [views[0] for views in clips]
    labels = np.stack([sample["labels"] for sample in clean])  # (N, K)
    groups = np.array(groups_of(clean, config.groups, list(data.info["group_names"]))[1])  # (N,)
    names, model = list(data.info["label_names"]), model.to(best_device())

    def predict(samples: list[dict]) -> np.ndarray:
        return run_model(model, samples, config.batch_size)["predictions"]

    whole, rows = predict(clean), []  # (N, K)
    for modality in MODALITIES:
        for how, versions in (
            ("damaged", [_damaged(views, modality) for views in clips]),
            ("missing", [without(sample, modality) for sample in clean]),
        ):
            usable = [i for i, sample in enumerate(versions) if sample is not None]
            if not usable:
                continue
            usable.sort(key=lambda i: _turn(config.seed, modality, clean[i]["id"]))
            worse = whole.copy()
            worse[usable] = predict([versions[i] for i in usable])
            for share in config.shares:
                hit = usable[: round(share * len(usable))]
                mixed = whole.copy()
                mixed[hit] = worse[hit]
                scores = _scores(mixed[usable], labels[usable], names, groups[usable], config)
                rows.append({"modality": modality, "how": how, "share": share, "clips": len(usable), **scores})
    return rows


def without(sample: dict, modality: str) -> dict | None:
    """The sample without one modality; None when it has none of it."""
    part = sample[modality]
    if not len(part["sequence"]):
        return None
    empty = {key: part[key][:0] for key in ("sequence", "times", "quality")}
    return {**sample, modality: {**empty, "pooled": np.zeros_like(part["pooled"])}}


def _damaged(views: dict[int, dict], modality: str) -> dict | None:
    """The first view in which this modality alone was damaged, if there is one."""
    for number in sorted(views):
        if [name for name in MODALITIES if views[number]["damage"][name]] == [modality]:
            return views[number]
    return None


def _turn(seed: int, modality: str, name: str) -> int:
    """When a clip's turn comes to be damaged: a smaller share is part of a larger one."""
    from shared.order import derive_seed

    return derive_seed("robustness", seed, modality, name)


def _scores(predictions: np.ndarray, labels: np.ndarray, names: list[str], groups: np.ndarray, config) -> dict:
    from shared.metrics import score

    pcc = score(predictions, labels, names, groups, config.bootstrap, config.seed)["pcc"]
    low, high = pcc["interval"] or (None, None)
    return {"pcc": pcc["mean"], "low": low, "high": high, "per_dimension": pcc["per_dimension"]}


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
