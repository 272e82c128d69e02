"""Given features, used in place of a tower's: they came with the dataset (precomputed.py) or from another tool
(external/).

Modalities with given features share no space, so their pooled embeddings are zeros. Their quality signals are those of
the prepared clip at the times of the steps, zeros if it has no frames or sound, followed by signals that came with the
features. They cannot be damaged like media: a damaged view lacks the modality.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipSample
from shared.media.quality import AUDIO_QUALITY, QUALITY_STEPS_PER_SECOND, TEXT_QUALITY, VISION_QUALITY
from stage2_fusion.data.features import ModalityFeatures

if TYPE_CHECKING:
    from stage1_align import AlignedEncoders

QUALITY = {"vision": VISION_QUALITY, "audio": AUDIO_QUALITY, "text": TEXT_QUALITY}


@dataclass(eq=False)
class GivenSteps:
    """The given features of one modality of a clip; T = 0 when it has none."""

    values: np.ndarray
    """float16 or float32 (T, C)."""
    times: np.ndarray
    """float32 (T,), seconds from the beginning of the clip."""
    signals: np.ndarray
    """float32 (T, S), additional quality signals in [0, 1]."""


class GivenSource(Protocol):
    """Where given features are read from."""

    @property
    def widths(self) -> Mapping[str, int]:
        """The modalities it has, with their channels."""
        ...

    @property
    def signals(self) -> Mapping[str, Sequence[str]]:
        """Their additional quality signals."""
        ...

    @property
    def present(self) -> Mapping[str, np.ndarray]:
        """Whether each clip has some: bool (N,)."""
        ...

    def read(self, row: int) -> Mapping[str, GivenSteps]:
        """The features of the clip in this row."""
        ...


class GivenFeatures:
    """The given features of a clip dataset, from one or more sources; if several have a modality, the last one counts.

    encoders: of the other modalities, or None.
    """

    def __init__(self, sources: Sequence[GivenSource], encoders: "AlignedEncoders | None" = None):
        self.sources = {name: source for source in sources for name in source.widths}
        self.names = tuple(name for name in MODALITIES if name in self.sources)
        self.present = {name: self.sources[name].present[name] for name in self.names}
        self.embed_dim = encoders.embed_dim if encoders else 1
        self._towers = {name: tower.width for name, tower in encoders.towers().items()} if encoders else {}

    def widths(self) -> dict[str, int]:
        """As `encoding.widths`."""
        own = {name: self.sources[name].widths[name] for name in self.names}
        return {name: own.get(name) or self._towers.get(name, 1) for name in MODALITIES} | {"embed": self.embed_dim}

    def quality(self) -> dict[str, list[str]]:
        """The names of the quality signals of each modality."""
        further = {name: self.sources[name].signals[name] for name in self.names}
        return {name: [*names, *further.get(name, ())] for name, names in QUALITY.items()}

    def parts(self, row: int, clip: ClipSample) -> dict[str, ModalityFeatures]:
        """The given modalities of the clip in this row. clip: has the times and signals of its frames."""
        read = {source: source.read(row) for source in dict.fromkeys(self.sources.values())}
        return {name: self._part(name, clip, read[self.sources[name]][name]) for name in self.names}

    def _part(self, name: str, clip: ClipSample, steps: GivenSteps) -> ModalityFeatures:
        return ModalityFeatures(
            sequence=steps.values,
            times=steps.times[:0] if name == "text" else steps.times,
            pooled=np.zeros(self.embed_dim, np.float16),
            quality=np.concatenate([quality_at(name, clip, steps.times), steps.signals], axis=1),  # (T, Q + S)
        )


def quality_at(name: str, clip: ClipSample, times: np.ndarray) -> np.ndarray:
    """The quality signals of a clip, interpolated to the times (T,) of steps: float32 (T, Q)."""
    values = np.asarray(getattr(clip, f"{name}_quality"), dtype=np.float32)
    if name == "text":
        return np.repeat(values[None], len(times), axis=0)  # (T, Q)
    if name == "vision" and np.array_equal(times, clip.frame_times):
        return values
    if not len(values):
        return np.zeros((len(times), values.shape[1]), np.float32)
    at = clip.frame_times if name == "vision" else (np.arange(len(values)) + 0.5) / QUALITY_STEPS_PER_SECOND
    return np.stack([np.interp(times, at, column) for column in values.T], axis=1).astype(np.float32)
