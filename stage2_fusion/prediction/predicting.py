"""Predictions of many clips: prepared in isolated processes, then scored by a model."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from shared.dataset.clip import Clip
from shared.dataset.prepare_dataset import ClipReader, prepare_each
from shared.media.remarks import Remarks
from shared.terminal.progress import Progress, progress
from shared.text import has_words
from stage2_fusion.models.calibration import Calibration
from stage2_fusion.models.model_config import FusionConfig
from stage2_fusion.prediction.basis import Basis
from stage2_fusion.prediction.preparing import Prepared, collect_failures
from stage2_fusion.prediction.result import NOTHING, UNKNOWN_WORDS, Window, average_windows
from stage2_fusion.prediction.window_basis import bases_of

if TYPE_CHECKING:
    from stage2_fusion.predictor import Predictor


@dataclass
class Predictions:
    """The results for the clips of one or several sources."""

    about: FusionConfig
    """The config.json of the model."""
    calibration: Calibration | None
    """Data for its intervals and for the distance from its training clips, if the model has it."""
    windows: list[Window]
    """Sorted by clip and start. A clip has one or more; a failed one may have none."""
    failures: list[tuple[str, str]]
    """(clip or source, reason) for what could not be read, or not to the end."""
    remarks: dict[str, Remarks] = field(default_factory=dict)
    """{id: what was repaired, chosen or left out}."""
    given_words: frozenset[str] = frozenset()
    """Ids of clips with given words; the words of other clips come from speech recognition."""

    @property
    def names(self) -> list[str]:
        """The K dimensions."""
        return self.about.label_names

    def bases(self) -> dict[str, Basis]:
        """{id: what its prediction is based on}."""
        familiarity = self.calibration.familiarity if self.calibration else None
        return bases_of(self.windows, self.about.quality, familiarity, self.given_words)

    def by_clip(self) -> dict[str, np.ndarray]:
        """{id: float64 (K,)} of each predicted clip, sorted by id, on the scale of the training labels: the mean over
        its windows, weighted by their lengths."""
        return average_windows(self.windows)


def predict_clips(
    predictor: "Predictor",
    clips: Sequence[Clip],
    batch_size: int,
    failures: Sequence[tuple[str, str]] = (),
    begun: ClipReader | None = None,
) -> Predictions:
    """Predict clips from their files. Files are read in isolated processes, so a file that crashes or hangs its reader
    does not affect other files.

    A clip that cannot be read, or has neither picture nor sound nor words, is a failure; a clip that cannot be read to
    its end is both predicted and a failure. failures: failures of reading the sources, which come first. begun: as for
    `prepare_each`.
    """
    unreadable: dict[str, str] = {}
    remarks: dict[str, Remarks] = {}
    with progress("predict", len(clips), "clips") as bar:
        each = _counted(prepare_each(list(clips), predictor.recipe, begun=begun), bar)
        prepared = collect_failures(each, unreadable, remarks)
        windows = sorted(predictor.predict_windows(prepared, batch_size), key=lambda w: (w.clip, w.start))
    all_failures = [*failures, *unreadable.items()]
    if predictor.encoders.text is not None:
        all_failures += [
            (name, UNKNOWN_WORDS) for name in dict.fromkeys(w.clip for w in windows if w.has_unknown_words())
        ]
    unused = {clip.id for clip in clips} - {window.clip for window in windows} - set(unreadable)
    all_failures += [(name, NOTHING) for name in sorted(unused)]
    given = frozenset(clip.id for clip in clips if has_words(clip.transcript))
    model = predictor.model
    return Predictions(predictor.config, model.calibration, windows, all_failures, remarks, given)


def _counted(prepared: Iterable[Prepared], bar: Progress) -> Iterator[Prepared]:
    """Pass on the output of `prepare_each`; a clip counts with its first window."""
    begun: set[str] = set()
    for item in prepared:
        if item[0].id not in begun:
            begun.add(item[0].id)
            bar.update()
        yield item
