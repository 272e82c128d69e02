"""`emit compare A B`: is one system better than another, or is it the choice of clips?"""

import numpy as np

from shared import config as configuration
from stage2_fusion.commands.evidence_config import CompareConfig


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        CompareConfig,
        argv,
        prog="emit compare",
        example="emit compare runs/a/metrics.json runs/b/metrics.json --out runs/a_against_b.json",
        positional=("a", "b"),
    )
    print(table(compare(config)))
    return 0


def compare(config: CompareConfig) -> dict:
    """The differences A - B, written to `config.out` when that is given.

    Returns {"a", "b": paths, "n", "groups", "bootstrap", "seed", "mean", "per_dimension"}; the last two hold, for the
    mean over dimensions and for each of them, the PCC of "a" and of "b", their "difference", its 95 % "interval", and
    "a_ahead": the share of bootstrap samples in which A is ahead, ties counting half. None where nothing is labelled.
    UserError when A and B are not of the same clips, labels and groups.
    """
    from shared.files import write_json
    from shared.metrics import bootstrap_pcc, mean_over_dimensions, pcc
    from stage2_fusion.evaluation import results as evaluation

    a, b = evaluation.read_all([config.a, config.b])
    evaluation.same_clips(a, b)
    known = [k for k in range(len(a.names)) if not np.isnan(a.labels[:, k]).all()]
    groups, labels = np.array(a.groups), a.labels[:, known]
    # One seed and the same groups: both are scored on the same bootstrap samples.
    draws = [bootstrap_pcc(x.predictions[:, known], labels, groups, config.bootstrap, config.seed) for x in (a, b)]
    scores = [[pcc(x.predictions[:, k], x.labels[:, k]) for k in known] for x in (a, b)]
    each = dict.fromkeys(a.names)
    for column, k in enumerate(known):
        each[a.names[k]] = _difference(*(s[column] for s in scores), draws[0][:, column] - draws[1][:, column])
    result = {
        "a": str(config.a),
        "b": str(config.b),
        "n": len(a.ids),
        "groups": len(set(a.groups)),
        "bootstrap": config.bootstrap,
        "seed": config.seed,
        "mean": _difference(*map(np.mean, scores), mean_over_dimensions(draws[0] - draws[1])) if known else None,
        "per_dimension": each,
    }
    if config.out is not None:
        write_json(config.out, result)
    return result


def _difference(a: float, b: float, draws: np.ndarray) -> dict:
    from shared.metrics import interval

    draws = draws[~np.isnan(draws)]
    ahead = float(((draws > 0) + 0.5 * (draws == 0)).mean()) if draws.size else None
    return {"a": float(a), "b": float(b), "difference": float(a - b), "interval": interval(draws), "a_ahead": ahead}


def table(result: dict) -> str:
    """The differences as a few lines of text."""
    rows = {**result["per_dimension"], "mean": result["mean"]}
    wide = max(map(len, rows))
    lines = [f"{'':<{wide}}       A       B    A - B   95 % interval      A ahead"]
    for name, row in rows.items():
        if row is None:
            lines.append(f"{name:<{wide}}   not labelled")
            continue
        low_high = "{:+.3f} to {:+.3f}".format(*row["interval"]) if row["interval"] else "-"
        ahead = f"{row['a_ahead']:.1%}" if row["a_ahead"] is not None else "-"
        lines.append(
            f"{name:<{wide}} {row['a']:7.3f} {row['b']:7.3f} {row['difference']:+8.3f}   {low_high:<18} {ahead:>7}"
        )
    lines.append(f"{result['n']} clips, {result['groups']} groups, {result['bootstrap']} paired bootstrap samples")
    return "\n".join(lines)


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
