"""`emit report`: the results of runs as one HTML file and figures for papers."""

from dataclasses import dataclass
from pathlib import Path

from shared import config as configuration
from shared.options.outputs import OutputFile, OutputFolder
from shared.options.ranges import CheckedOptions, ClipsShown
from shared.terminal.closing import closing
from shared.terminal.messages import note
from shared.terminal.results import result


@dataclass
class ReportConfig(CheckedOptions):
    """Write a report: one HTML file that opens anywhere, and its figures as SVG and PNG."""

    runs: list[Path]
    """Folders of runs (runs/demo, a stage-2 run, a model), or JSON files of evaluations or of `make bench`. The report
    describes the first and compares all."""
    out: OutputFile = Path("report.html")
    """HTML file to write."""
    figures: OutputFolder | None = None
    """Folder for the figures as SVG and PNG, by default OUT_figures beside the HTML file."""
    clips_shown: ClipsShown = 3
    """Clips of each kind (worst, least certain, best) that are shown with faces, sound and words; 0 shows none, for
    data that others may not see."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.out.suffix.lower() not in (".html", ".htm"):
            raise ValueError(f"out is {str(self.out)!r}: a report is an HTML file; give a name that ends in .html")


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        ReportConfig,
        argv,
        prog="emit report",
        example="emit report runs/demo --out runs/demo/report.html",
        positional=("runs",),
    )
    from stage2_fusion.report.write import write_report

    report = write_report(config.runs, config.out, config.figures, clips_shown=config.clips_shown)
    for line in report.missing:
        note(f"not shown: {line}")
    document = {"report": report.path, "figures": report.figures, "not_shown": report.missing}
    result(f"{report.path}: the report; figures as SVG and PNG in {report.figures}", document)
    closing([report.path, report.figures])
    return 0


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
