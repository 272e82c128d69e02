"""The options of a synthetic corpus."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class SynthConfig:
    """Make a corpus of talking-face clips with known emotional intensities."""

    out: Path = field()
    """Folder of the corpus. An unfinished corpus is continued."""
    clips: int = 2000
    """Number of clips. 2000 take a minute or two on two cores and suffice to train the small default models."""
    seed: int = 0
    """Decides people, seed videos, words and damage."""
    damage: float = 0.3
    """Share of clips with one damaged or missing modality, so that quality weights can be scored."""
    workers: int = 0
    """Processes; 0 means one per core. The files do not depend on it."""
    layout: str = "csv"
    """csv: clips/ and labels.csv. vidmimic2: the files, names and features of Hume-Vidmimic2, to try code written for
    it."""

    def __post_init__(self) -> None:
        self.out = Path(self.out)
        if self.clips < 3:
            raise ValueError(f"clips is {self.clips}: at least 3 are needed, one for each split")
        if not 0 <= self.damage <= 1:
            raise ValueError(f"damage is {self.damage}: a share between 0 and 1 is needed")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}: 0 (one per core) or more is needed")
