"""Source "clips": a clip dataset written by `emit prepare`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from shared import config as configuration
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.label_scale import require_fractions
from shared.dataset.training_clips import fingerprints
from shared.options.ranges import CheckedOptions
from stage1_align.data.captions import TextAnnotations
from stage1_align.data.sources.base import FrameSelector, Sample, TableSource


@dataclass
class NoOptions(CheckedOptions):
    """A clip dataset describes itself."""


class Clips(TableSource):
    """Frames are face crops, sound is at one of the stored rates; texts are transcripts and labels."""

    def __init__(self, path: Path, split: str):
        self.clips = ClipDataset.open(path, split)
        self.name, self.digest = str(path), self.clips.digest
        self.label_names = self.clips.label_names
        require_fractions(self.clips.labels(), self.label_names, self.clips.column("id"), self.name)
        self.text_kinds = {"transcript", "labels"} if self.label_names else {"transcript"}

    def __len__(self) -> int:
        return len(self.clips)

    def annotations(self, item: int) -> TextAnnotations:
        return TextAnnotations(self._transcripts[item], [], self._labels[item])

    def present(self, modality: str) -> np.ndarray:
        return self.clips.present(modality)  # (N,)

    def groups(self, name: str) -> list[str] | None:
        return self.clips.column(f"group_{name}") if name in self.clips.info.group_names else None

    def fingerprints(self) -> np.ndarray:
        return fingerprints(self.clips)  # (N, 3)

    def sample(self, item: int, sample_rate: int | None, select: FrameSelector | None) -> Sample:
        frames = self.clips.clip(item, select or (lambda count: [])).frames  # (T, H, W, 3)
        waveform = np.zeros(0, np.float32) if sample_rate is None else self.clips.waveform(item, sample_rate)  # (S,)
        return Sample(frames, waveform, self.annotations(item))

    @cached_property
    def _transcripts(self) -> list[str]:
        return self.clips.column("transcript")

    @cached_property
    def _labels(self) -> np.ndarray:
        return self.clips.labels()  # (N, K)


def open_clips(path: str, split: str, options: dict[str, Any]) -> Clips:
    configuration.build(NoOptions, options, path)
    return Clips(Path(path), split)
