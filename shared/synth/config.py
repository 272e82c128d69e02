"""The options of a synthetic corpus."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shared.errors import UserError
from shared.options.outputs import OutputFolder
from shared.options.ranges import CheckedOptions, ClipCount, Fraction, Processes, Seed


@dataclass
class SynthConfig(CheckedOptions):
    """Generate a corpus of talking-face clips with known emotional intensities."""

    out: OutputFolder = field()
    """Folder of the corpus; an unfinished one is resumed."""
    clips: ClipCount = 2000
    """Number of clips. 2000 take a minute or two on two cores and suffice to train the small default models."""
    seed: Seed = 0
    """Seed of people, seed videos, words and damage."""
    damage: Fraction = 0.3
    """Share of clips with one damaged or missing modality, so that quality weights can be scored."""
    dynamics: bool = False
    """Encode intensities only in order and timing (shared/synth/timing.py): in clips of six seconds, every face and
    every voice shows the same expressions for the same time, and words say nothing. For systems that claim to model
    time."""
    damage_spans: bool = False
    """Intermittent damage: in a damaged clip, face and sound are damaged in turn, some tenths of a second each, so that
    neither is reliable for the whole clip, but one of them always is."""
    unmet_videos: Fraction = 0.0
    """Share of the test clips with new seed videos that no training or validation subject mimics. By default only the
    people of the test split are new, and nearly all of its seed videos occur in training."""
    workers: Processes = 0
    """Number of processes; 0 means one per core. It does not change the files."""
    labels: Literal["given", "withheld"] = "given"
    """withheld: labels.csv has no labels, and all clips are training clips: many clips for stage 1, which needs no
    labels, in addition to a few labeled ones from another seed."""
    layout: str = "csv"
    """csv: clips/ and labels.csv. vidmimic2: the files, names and features of Hume-Vidmimic2, to test code written for
    it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels == "withheld" and self.layout != "csv":
            raise UserError(f"labels withheld: layout {self.layout} has labels by definition; use layout csv")
        if self.labels == "withheld" and self.unmet_videos:
            raise UserError("labels withheld: there are no test clips, so none for unmet_videos")
        self.out = Path(self.out)
