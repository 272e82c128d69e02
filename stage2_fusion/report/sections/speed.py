"""The speed of each part on the machine of `make bench`, with its baseline and a physical limit."""

from stage2_fusion.report.content import Group, Section, Table
from stage2_fusion.report.inputs import Inputs
from stage2_fusion.report.speed_file import COMPARED, HEADER, SpeedFile, compare, read_speed, table

EXPLAINED = (
    "Median of the turns, lowest and highest in parentheses. Ours and the baseline took turns on the same machine; "
    "times as fast is above 1 if ours is faster. CPU time does not depend on other work on the "
    "machine. The limit was measured in the same run as ours: a share of 1 would reach it. MiB: peak of ours, then "
    "of the baseline."
)


def speed(inputs: Inputs) -> Section | None:
    """The table of the first file of `make bench`, and its comparison with the second; None without a file."""
    paths = list(dict.fromkeys(path for run in inputs.runs for path in run.benches))
    if not paths:
        return None
    files = [read_speed(path) for path in paths[:2]]
    section = Section("Speed", _lead(files[0]), notes=[EXPLAINED])
    caption = f"Measured on {files[0].where}; {files[0].turns} turns."
    section.blocks.append(Table(caption, HEADER, table(files[0].rows), range(1, 7)))
    if len(files) > 1:
        caption = (
            f"Before: {paths[0]} on {files[0].where}. After: {paths[1]} on {files[1].where}. Above 1: after is faster."
        )
        compared = Table(caption, COMPARED, compare(*files), range(1, len(COMPARED)))
        section.blocks.append(Group("Before and after", [compared]))
    if len(paths) > 2:
        section.missing.append(f"the speed in {', '.join(map(str, paths[2:]))}: two files are compared")
    return section


def _lead(file: SpeedFile) -> str:
    """How many rows are faster than their baseline, and which is slowest."""
    ratios = [(ratio.median, row.figure) for row in file.rows if (ratio := row.ratio("baseline")) is not None]
    if not ratios:
        return "How fast each part is."
    slowest, figure = min(ratios)
    faster = sum(ratio > 1 for ratio, _ in ratios)
    return (
        f"{faster} of {len(ratios)} parts are faster than their baselines, at the median; "
        f"the slowest is {figure}, {slowest:.2f} times as fast."
    )
