"""Options of the commands that compare systems. They read what `emit evaluate` wrote, or a feature dataset."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shared.dataset.clip import MODALITIES
from shared.errors import UserError


@dataclass
class CompareConfig:
    """Is A better than B? Paired bootstrap over groups of two evaluations of the same clips."""

    a: Path
    """Evaluation (the JSON file of `emit evaluate`)."""
    b: Path
    """Evaluation of the same clips by another system."""
    out: Path | None = None
    """JSON file for the differences."""
    bootstrap: int = 10000
    """Bootstrap samples; both systems are scored on the same ones."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass
class LeaderboardConfig:
    """A table of systems; evaluations of one name are seeds of one system."""

    evaluations: list[str]
    """JSON files of `emit evaluate`, each PATH or NAME=PATH. Without a name a system is called after its model and the
    options in which it differs from the others of that model; what differs otherwise (loss, features) needs a name."""
    out: list[Path] = field(default_factory=list)
    """Files to write the table to, .md or .csv, as in [board.md, board.csv]."""
    against: str | None = None
    """Name of a system: every other row tells how far it is from that one, with a paired interval."""
    bootstrap: int = 1000
    """Bootstrap samples behind the interval of several seeds; one seed keeps that of its evaluation."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass
class PoolConfig:
    """Put evaluations of disjoint clips (the folds of `emit split`) together and score them as one."""

    evaluations: list[Path]
    """JSON files of `emit evaluate`, one a fold."""
    out: Path = field()
    """JSON file of the evaluation to write."""
    bootstrap: int = 1000
    """Bootstrap samples behind the 95 % interval."""
    seed: int = 0
    """Seed of the bootstrap."""


@dataclass
class EnsembleConfig:
    """Combine evaluations of the same clips by several systems into one."""

    members: list[Path]
    """JSON files of `emit evaluate` on the clips to be scored."""
    out: Path = field()
    """JSON file of the evaluation to write."""
    method: Literal["average", "rank", "ridge"] = "average"
    """average: the mean prediction; rank: the mean rank among these clips, which ignores each member's scale (CCC and
    MAE then mean nothing); ridge: weights for each dimension, pulled towards the average, that have to be learned from
    clips no member was trained on."""
    fit: list[Path] = field(default_factory=list)
    """ridge: evaluations of the same systems, in the same order, on the clips that decide the weights (valid, or pooled
    folds). Without them the weights for each fifth of the groups are those that the other four fifths choose."""
    bootstrap: int = 1000
    """Bootstrap samples behind the 95 % interval."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self):
        if len(self.members) < 2:
            raise UserError("an ensemble needs two evaluations or more")
        if self.fit and self.method != "ridge":
            raise UserError(f"--fit is for --method ridge; {self.method} has no weights to learn")
        if self.fit and len(self.fit) != len(self.members):
            raise UserError(f"--fit names {len(self.fit)} evaluations for {len(self.members)} members")


@dataclass
class RobustnessConfig:
    """PCC against the share of clips in which one modality is damaged, or missing."""

    models: list[str]
    """Model folders (RUN/model), each PATH or NAME=PATH."""
    data: Path = field()
    """Feature dataset; its damaged views are what damage means here (`emit encode --damaged_views`)."""
    split: str = "test"
    """Split to score. "" takes every clip."""
    out: Path = Path("robustness.json")
    """JSON file to write; the same as a table goes beside it (.csv)."""
    shares: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    """Shares of the clips; the clips of a smaller share are among those of a larger one."""
    orders: int = 10
    """Orders in which clips may lose it, over which each share's PCC is averaged: which half it hits is chance."""
    groups: str | None = None
    """Group that the bootstrap draws, by default the first the clips have."""
    bootstrap: int = 1000
    """Bootstrap samples behind the 95 % intervals."""
    batch_size: int = 64
    """Clips per forward pass; the scores do not depend on it."""
    seed: int = 0
    """Decides which clips are damaged first, and the bootstrap."""

    def __post_init__(self):
        if not self.shares or any(not 0 <= share <= 1 for share in self.shares):
            raise UserError(f"--shares {self.shares}: one or more numbers from 0 to 1")
        if self.orders < 1:
            raise UserError(f"--orders is {self.orders}: it must be at least 1")


@dataclass
class BaselineConfig:
    """Ridge regression on the mean and spread of each modality's features: the bar for every fusion model."""

    data: Path
    """Feature dataset (`emit encode`)."""
    out: Path
    """JSON file of the evaluation to write."""
    modalities: list[Literal["vision", "audio", "text"]] = field(default_factory=lambda: list(MODALITIES))
    """What it may see, as in ["text"]."""
    split: str = "test"
    """Split to score."""
    train_split: str = "train"
    """Split to fit on."""
    valid_split: str = "valid"
    """Split that chooses the penalty."""
    max_steps: int = 128
    """Longer sequences are averaged over time to this many steps on loading, as in training."""
    groups: str | None = None
    """Group that the bootstrap draws, by default the first the clips have."""
    bootstrap: int = 1000
    """Bootstrap samples behind the 95 % interval."""
    seed: int = 0
    """Seed of the bootstrap."""

    def __post_init__(self):
        if not self.modalities:
            raise UserError("--modalities is empty: give at least one of vision, audio, text")
