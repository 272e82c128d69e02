"""`emit check`: what a source contains and what is wrong with it, in seconds. Nothing is decoded.

emit check my_videos/labels.csv --out report.json
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from shared import config as configuration
from shared.dataset.check_report import NO_LABELS, format_report
from shared.dataset.check_source import Report, TextReader, check_source
from shared.dataset.label_scale import LabelOptions
from shared.errors import UserError
from shared.files import write_json
from shared.options.outputs import OutputFile
from shared.options.placeholders import Placeholder
from shared.options.ranges import PositiveInt
from shared.registry import Registry
from shared.terminal.closing import closing, given, unused
from shared.terminal.results import result
from shared.text import counted

ENCODERS = Registry("encoders", {"aligned": "stage1_align.encoders:AlignedEncoders"})
"""Named by import path: this package imports no stage."""


@dataclass(kw_only=True)
class CheckConfig(LabelOptions):
    """Report how a source is read, what is missing, and what is in more than one split."""

    source: Path = field()
    """The source of `emit prepare`: a folder, or a table."""
    layout: Annotated[str | None, Placeholder("NAME", names="shared.layouts.registry:LAYOUTS")] = None
    """How the source is laid out: csv, folder, hf, ravdess or vidmimic2; by default guessed from its files."""
    layout_options: dict[str, Any] = field(default_factory=dict)
    """Options of the layout, as for `emit prepare`."""
    headers: PositiveInt = 200
    """Number of files, evenly spaced, to read durations and rates from: a header takes some milliseconds."""
    encoders: Path | None = None
    """Aligned encoders (`emit export`): report the transcripts with words unknown to their text encoder, and the
    transcripts longer than its context."""
    needs: list[str] = field(default_factory=list)
    """Splits that must exist if the source names any; labels are then required too. For pipelines, to fail early."""
    out: OutputFile | None = None
    """File for the full report, as JSON."""


def main(argv: list[str] | None = None) -> int:
    """Run `emit check`; UserError, after the report, if no clip has a file or words, labels lie outside their range,
    or something required is missing."""
    config = configuration.parse(
        CheckConfig, argv, prog="emit check", example="emit check my_videos/ --out report.json", positional=("source",)
    )
    read_texts = _text_reader(config.encoders) if config.encoders else None
    report = check_source(config.source, config.layout, config.layout_options, config.headers, config, read_texts)
    result(format_report(report), report)
    if config.out is not None:
        write_json(config.out, report)
    files = report["files"]
    usable = files["there"], files["sound_of_its_own"], files["crops_of_its_own"], report["transcripts"]["there"]
    if not any(usable):
        none = f"{config.source}: none of its {counted(report['clips'], 'clip')} has a file or words"
        table = "; --layout_options '{transcript: COLUMN}' names the column of words, '{root: FOLDER}' the media folder"
        raise UserError(none + (table if report["layout"] in ("csv", "hf") else ""))
    if report["outside"]:
        raise UserError(f"{config.source}: {report['outside']['what']}")
    _refuse_lacking(config.needs, report, config.source)
    options = given(config, "layout", "layout_options", "label_range", "missing_labels")
    then = ("prepare", config.source, *options, "--out", unused(Path("runs/clips")))
    closing([config.out] if config.out else [], [then])
    return 0


def _refuse_lacking(needs: list[str], report: Report, source: Path) -> None:
    """UserError for a source without labels, or with splits that lack a required one."""
    if not needs:
        return
    if not report["labels"]:
        raise UserError(f"{source}: labels {NO_LABELS}")
    present = [name for name in report["splits"] if name]
    missing = [name for name in needs if name not in present]
    if present and missing:
        raise UserError(
            f"{source}: no clips of split {missing[0]!r}; found: {', '.join(present)}; name other splits (in a recipe, "
            "valid_split= and test_split=), or remove the split column to draw splits"
        )


def _text_reader(folder: Path) -> TextReader:
    """Reports what the text encoder in a folder cannot read."""
    text = ENCODERS.get("aligned").from_pretrained(folder, ("text",)).text

    def read(ids: list[str], texts: list[str]) -> list[str]:
        return text.coverage(texts).notes(ids, "encoding reads them in windows")

    return read


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
