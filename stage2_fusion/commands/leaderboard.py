"""`emit leaderboard`: systems in a table, the best first."""

import statistics

from shared import config as configuration
from shared.errors import UserError
from shared.files import digest
from stage2_fusion.commands.ensemble import LEARNED_HERE
from stage2_fusion.commands.evidence_config import LeaderboardConfig
from stage2_fusion.evaluation.bootstrap import clip_sets, joint_draws
from stage2_fusion.evaluation.results import Evaluation

REFERENCES = {"ceiling": "(ceiling of the labels)", "leak_probe": "(labels of the nearest training transcript)"}
"""What an evaluation may hold besides its system's scores, and what it is called in the table."""

PLAIN = ("system", "seeds", "clips", "pcc", "sd", "low", "high", "difference", "difference_low", "difference_high")
"""Columns of the .csv before the dimensions."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        LeaderboardConfig,
        argv,
        prog="emit leaderboard",
        example="emit leaderboard ours=runs/0/metrics.json ours=runs/1/metrics.json runs/ridge.json --out [board.md]",
        positional=("evaluations",),
    )
    print("\n".join(leaderboard(config)[1]))
    return 0


def leaderboard(config: LeaderboardConfig) -> tuple[list[dict], list[str]]:
    """The rows of the table, best first, and the table as lines of text; writes the files of `config.out`.

    A row: "system", "seeds", "clips" (of each seed), "pcc" (mean over seeds), "sd" over seeds or None, "low" and "high"
    of its 95 % interval or None, "per_dimension", "note"; with `against`, the "difference" of its pcc from that of the
    system so called and the "difference_interval" or None. Intervals of several seeds: see joint_bootstrap.py.
    """
    from shared.files import write_csv, write_text

    for path in config.out:
        if path.suffix not in (".md", ".csv"):
            raise UserError(f"--out {path}: a table is written as .md or .csv")
    systems = gather(config.evaluations)
    if config.against is not None and config.against not in systems:
        raise UserError(f"--against {config.against}: no such system; there are {', '.join(systems)}")
    rows = [_row(name, parts, config) for name, parts in systems.items()]
    if config.against is not None:
        reference = next(row["pcc"] for row in rows if row["system"] == config.against)
        for row in rows:
            if row["system"] != config.against:
                row["difference"] = row["pcc"] - reference
                row["difference_interval"] = _against(systems[row["system"]], systems[config.against], config)
    rows += _references([part for parts in systems.values() for part in parts])
    rows.sort(key=lambda row: -row["pcc"])
    names = next(iter(systems.values()))[0].names
    extra = [] if config.against is None else [f"less {config.against}"]
    columns = ["system", "seeds", "PCC", "95 % interval", *extra, *names]
    cells = [_cells(row, names, bool(extra)) for row in rows]
    clips = {frozenset(part.metrics["clips"]["labels_digest"] for part in parts) for parts in systems.values()}
    notes = ["Not all systems were scored on the same clips: their rows do not compare."] if len(clips) > 1 else []
    notes += [f"{row['system']}: {row['note']}" for row in rows if row["note"]]
    for path in config.out:
        if path.suffix == ".md":
            write_text(path, "\n".join([*_markdown([columns, *cells]), *(f"\n{note}" for note in notes)]) + "\n")
        else:
            header = [*PLAIN, *names, "note"]
            write_csv(path, header, [_plain(row, names) for row in rows])
    return rows, [*_aligned([columns, *cells]), *notes]


def gather(given: list[str]) -> dict[str, list[Evaluation]]:
    """{name: its evaluations} of PATH or NAME=PATH, in the order given. Those without a name are called after their
    model, with the options in which models of that name differ. UserError when two of these are called the same and yet
    are no seeds, nor folds, of one system: same clips, same seed (another loss, say, or other features or members)."""
    from stage2_fusion.evaluation import results as evaluation

    named = [evaluation.named(text) for text in given]
    found = evaluation.read_all([path for _, path in named])
    options: dict[str, list[dict]] = {}
    for part in found:
        options.setdefault(part.metrics["model"], []).append(part.metrics.get("configuration") or {})
    systems: dict[str, list[Evaluation]] = {}
    first: dict[str, Evaluation] = {}
    for (name, _), part in zip(named, found, strict=True):
        if not name:
            name = _called(part.metrics, options[part.metrics["model"]])
            key = digest([name, part.metrics["clips"]["labels_digest"], part.metrics["seeds"]["training"]])
            other = first.setdefault(key, part)
            if other is not part:
                raise UserError(
                    f"{other.path} and {part.path}: both {name}, of the same seed on the same clips, so not seeds of "
                    "one system; give them names (NAME=PATH)"
                )
        systems.setdefault(name, []).append(part)
    return systems


def _called(metrics: dict, others: list[dict]) -> str:
    mine = metrics.get("configuration") or {}
    keys = sorted({key for other in others for key in other})
    differing = [key for key in keys if any(other.get(key) != mine.get(key) for other in others)]
    return " ".join([metrics["model"], *(f"{key}={_short(mine.get(key))}" for key in differing)])


def _short(value) -> str:
    return "+".join(map(str, value)) if isinstance(value, list) else str(value)


def _row(name: str, parts: list[Evaluation], config: LeaderboardConfig) -> dict:
    means = [part.metrics["pcc"]["mean"] for part in parts]
    low_high = parts[0].metrics["pcc"]["interval"] if len(parts) == 1 else _interval(parts, config)
    each = {}
    for dimension in parts[0].names:
        values = [part.metrics["pcc"]["per_dimension"][dimension] for part in parts]
        each[dimension] = None if None in values else statistics.mean(values)
    return {
        "system": name,
        "seeds": len(parts),
        "clips": len(parts[0].ids),
        "pcc": statistics.mean(means),
        "sd": statistics.stdev(means) if len(means) > 1 else None,
        "low": low_high[0] if low_high else None,
        "high": low_high[1] if low_high else None,
        "per_dimension": each,
        "note": _note(parts),
    }


def _interval(parts: list[Evaluation], config: LeaderboardConfig) -> list[float] | None:
    """Of the mean PCC of several seeds."""
    from shared.metrics import interval

    draws = joint_draws(parts, config.bootstrap, config.seed)
    return None if draws is None else interval(draws)


def _against(parts: list[Evaluation], others: list[Evaluation], config: LeaderboardConfig) -> list[float] | None:
    """The 95 % interval of the mean PCC of `parts` less that of `others`, paired; None where their clips differ, or the
    shares that each set of clips has in them."""
    from shared.metrics import interval

    sets = [clip_sets(some) for some in (parts, others)]
    if None in sets:
        return None
    shares = [
        {key: len(same) / len(some) for key, same in found.items()}
        for found, some in zip(sets, (parts, others), strict=True)
    ]
    if shares[0] != shares[1]:
        return None
    ours, theirs = (joint_draws(some, config.bootstrap, config.seed) for some in (parts, others))
    return interval(ours - theirs)


def _note(parts: list[Evaluation]) -> str:
    """What makes a score look better than it is."""
    seen = [part.metrics.get("seen") or {} for part in parts]
    for key, words in (("in_training", "was trained on"), ("in_choosing", "was chosen by")):
        if any(counts.get(key) for counts in seen):
            return f"{words} clips it is scored on"
    if any(part.metrics.get("seen_by_encoders") for part in parts):
        return "its encoders were aligned on clips it is scored on"
    if any((part.metrics["made_from"].get("weights") or {}).get("fit") == LEARNED_HERE for part in parts):
        return "its weights were learned on the clips it is scored on, each group's on the others"
    if any("seen_by_encoders" in part.metrics and part.metrics["seen_by_encoders"] is None for part in parts):
        return "whether its encoders have met clips it is scored on is not known"
    return ""


def _references(parts: list[Evaluation]) -> list[dict]:
    """Rows of what is no system: the mean over the different sets of clips, each counted once."""
    rows = []
    for key, called in REFERENCES.items():
        found = {}
        for part in parts:
            value = part.metrics.get(key)
            value = value.get("pcc") if key == "leak_probe" and value else value
            if value:
                found[part.metrics["clips"]["labels_digest"]] = value
        if found:
            each = {
                name: None if None in values else statistics.mean(values)
                for name in parts[0].names
                for values in [[value["per_dimension"][name] for value in found.values()]]
            }
            pcc = statistics.mean(value["mean"] for value in found.values())
            empty = dict.fromkeys(("seeds", "clips", "sd", "low", "high"))
            rows.append({"system": called, **empty, "pcc": pcc, "per_dimension": each, "note": ""})
    return rows


def _cells(row: dict, names: list[str], against: bool) -> list[str]:
    pcc = f"{row['pcc']:.3f}" + (f" ± {row['sd']:.3f}" if row["sd"] is not None else "")
    low_high = f"{row['low']:.3f} to {row['high']:.3f}" if row["low"] is not None else ""
    less = [_difference(row)] if against else []
    each = ["-" if row["per_dimension"][name] is None else f"{row['per_dimension'][name]:.3f}" for name in names]
    return [row["system"], str(row["seeds"] or ""), pcc, low_high, *less, *each]


def _difference(row: dict) -> str:
    if row.get("difference") is None:
        return ""
    between = row["difference_interval"]
    return f"{row['difference']:+.3f}" + (" ({:+.3f} to {:+.3f})".format(*between) if between else "")


def _plain(row: dict, names: list[str]) -> list:
    def cell(value):
        return "" if value is None else f"{value:.6f}" if isinstance(value, float) else value

    low_high = dict(zip(("difference_low", "difference_high"), row.get("difference_interval") or (), strict=False))
    return [
        *(cell((row | low_high).get(key)) for key in PLAIN),
        *(cell(row["per_dimension"][name]) for name in names),
        row["note"],
    ]


def _markdown(table: list[list[str]]) -> list[str]:
    rule = ["---", *("---:" for _ in table[0][1:])]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in [table[0], rule, *table[1:]]]


def _aligned(table: list[list[str]]) -> list[str]:
    wide = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = []
    for first, *rest in table:
        lines.append("  ".join([first.ljust(wide[0]), *(c.rjust(w) for c, w in zip(rest, wide[1:], strict=True))]))
    return lines


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
