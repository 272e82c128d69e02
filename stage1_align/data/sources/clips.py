"""Source "clips": a clip dataset written by `emit prepare`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.dataset.clip_dataset import ClipDataset
from stage1_align.data.captions import Words
from stage1_align.data.sources.base import Choose, Sample, Table


@dataclass
class NoOptions:
    """A clip dataset says all about itself."""


class Clips(Table):
    """Frames are face crops, sound is at one of the stored rates; texts are transcripts and labels."""

    def __init__(self, path: Path, split: str):
        self.clips = ClipDataset.open(path, split)
        self.name, self.digest = str(path), self.clips.digest
        self.label_names = self.clips.label_names
        self.kinds = {"transcript", "labels"} if self.label_names else {"transcript"}

    def __len__(self) -> int:
        return len(self.clips)

    def words(self, item: int) -> Words:
        return Words(self._transcripts[item], [], self._labels[item])

    def sample(self, item: int, rate: int | None, choose: Choose | None) -> Sample:
        frames = self.clips.clip(item, choose or (lambda count: []))["frames"]  # (T, H, W, 3)
        waveform = np.zeros(0, np.float32) if rate is None else self.clips.waveform(item, rate)  # (S,)
        return Sample(frames, waveform, self.words(item))

    @cached_property
    def _transcripts(self) -> list[str]:
        return self.clips.column("transcript")

    @cached_property
    def _labels(self) -> np.ndarray:
        return self.clips.labels()  # (N, K)


def open_clips(path: str, split: str, options: dict) -> Clips:
    configuration.build(NoOptions, options, path)
    return Clips(Path(path), split)
