"""`emit prepare`: media files to a clip dataset. Parallel, resumable, and independent of the number of processes.

emit prepare my_videos/ --out runs/clips
emit prepare my_videos/ --out runs/clips --shard 3/8     one of eight jobs, on any machine that sees both folders
emit prepare my_videos/ --out runs/clips --merge         when all eight are done
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar

from shared import config as configuration
from shared.dataset.clip_dataset import ClipDatasetInfo
from shared.dataset.label_scale import LabelOptions, scale_labels
from shared.dataset.prepare_dataset import prepare_dataset
from shared.dataset.recipe import Recipe
from shared.dataset.splits import assign_splits
from shared.layouts.registry import guess_layout, read_source
from shared.layouts.used import UsedLayout
from shared.options.outputs import OutputFolder
from shared.options.placeholders import Placeholder
from shared.options.ranges import Processes, Timeout
from shared.terminal.closing import closing, unused


@dataclass(kw_only=True)
class PrepareConfig(Recipe, LabelOptions):
    """Turn media files, transcripts and labels into a clip dataset."""

    COMMON: ClassVar[tuple[str, ...]] = (
        "layout",
        "layout_options",
        "label_range",
        "frame_size",
        "sample_rates",
        "max_seconds",
        "transcribe",
        "split_by",
        "workers",
    )

    source: Path = field()
    """A folder of media files, or a table of them (.csv, .tsv, .txt or .jsonl, or a folder with a labels.csv)."""
    out: OutputFolder = field()
    """Folder of the dataset; an unfinished one is resumed."""
    layout: Annotated[str | None, Placeholder("NAME", names="shared.layouts.registry:LAYOUTS")] = None
    """How the source is laid out: csv, folder, hf, ravdess or vidmimic2; by default guessed from its files."""
    layout_options: dict[str, Any] = field(default_factory=dict)
    """Options of the layout, such as {media: path, labels: [valence, arousal]} for csv, or {crops: precomputed} for
    vidmimic2; each is a field of its class in shared/layouts/."""
    split_by: str | None = None
    """Group to keep whole when splits are drawn for a source without them; by default the first group."""
    workers: Processes = 0
    """Number of processes; 0 means one per core. It does not change the dataset."""
    file_timeout: Timeout = 120.0
    """Most seconds to spend on a file."""
    shard: str | None = None
    """I/N: prepare only the I-th of N shares, as one job of an array. Any N gives the same dataset."""
    merge: bool = False
    """Combine the shares prepared by the jobs of an array into the dataset; an error names what is missing."""
    transcripts: OutputFolder | None = None
    """Cache folder for the transcripts of --transcribe, by default OUT.transcripts. Each sound is transcribed once,
    whatever --out is."""

    def __post_init__(self):
        super().__post_init__()
        if self.shard is not None:
            share, _, count = self.shard.partition("/")
            if not (share.isdigit() and count.isdigit() and 1 <= int(share) <= int(count)):
                raise ValueError(f"shard is {self.shard!r}: write it as I/N, with I from 1 to N")
            if self.merge:
                raise ValueError("shard and merge exclude each other: merge when all shards are done")

    def share(self) -> tuple[int, int] | None:
        """(I - 1, N) of `shard`."""
        if self.shard is None:
            return None
        number, _, count = self.shard.partition("/")
        return int(number) - 1, int(count)


def main(argv: list[str] | None = None) -> int:
    """Run `emit prepare`; 0 if the dataset is complete."""
    config = configuration.parse(
        PrepareConfig,
        argv,
        prog="emit prepare",
        example="emit prepare my_videos/ --out runs/clips",
        positional=("source",),
    )
    source = read_source(config.source, config.layout, config.layout_options)
    layout = config.layout or guess_layout(config.source)
    source = assign_splits(scale_labels(source, config, str(config.source)), config.split_by)
    prepare_dataset(
        source,
        config.source,
        config.out,
        Recipe(**config.to_json()),
        workers=config.workers,
        file_timeout=config.file_timeout,
        share=config.share(),
        merge=config.merge,
        transcripts=config.transcripts,
        layout=UsedLayout.of(layout, config.layout_options, config.split_by),
    )
    if config.shard is None:
        options = ClipDatasetInfo.read(config.out).align_options
        then = ("align", *options, "--data", config.out, "--run", unused(config.out.parent / "align"))
        closing([config.out], [then] if options else [])
    return 0


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
