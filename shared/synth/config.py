"""What a synthetic corpus is made from."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class SynthConfig:
    """Make a corpus of talking-face clips whose true emotional intensities are known."""

    out: Path = field()
    """Folder of the corpus. An unfinished one is continued."""
    clips: int = 2000
    """How many clips: they take a minute or two on two cores and suffice to train the small default models."""
    seed: int = 0
    """Another seed gives other people, seed videos, words and damage."""
    damage: float = 0.3
    """Share of the clips of which one modality is damaged or missing, so that weighting by quality can be scored."""
    workers: int = 0
    """Processes; 0 means one a core. The files do not depend on it."""
    layout: str = "csv"
    """csv: clips/ and labels.csv. vidmimic2: files, names and features as Hume-Vidmimic2 is distributed, to try code
    written for it."""

    def __post_init__(self):
        self.out = Path(self.out)
        if self.clips < 3:
            raise ValueError(f"clips is {self.clips}: at least 3 are needed, one for each split")
        if not 0 <= self.damage <= 1:
            raise ValueError(f"damage is {self.damage}: a share between 0 and 1 is needed")
        if self.workers < 0:
            raise ValueError(f"workers is {self.workers}: 0 (one a core) or more is needed")
