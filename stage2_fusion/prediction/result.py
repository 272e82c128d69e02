"""The prediction of one clip."""

from dataclasses import dataclass, field

import numpy as np

from shared.dataset.clip import MODALITIES
from stage2_fusion.inference import StepExplanation
from stage2_fusion.prediction.basis import Basis

NOTHING = "neither picture, sound nor words could be used"
UNKNOWN_WORDS = "its words are left out: the text encoder does not know half of their letters or more"


@dataclass
class Window:
    """The prediction for one window of a clip."""

    clip: str
    """Id of the clip."""
    start: float
    """Seconds from the start of the clip, like `end`."""
    end: float
    values: np.ndarray
    """float64 (K,) on the scale of the training labels, as everywhere here: in [0, 1], or in their `label_range`."""
    steps: StepExplanation
    """Weights of the modalities over time, and the attention of each dimension; times from the start of the clip."""
    quality: dict[str, np.ndarray]
    """Modality to its quality signals (T, Q); absent modalities are left out."""
    transcript: str = ""
    distances: np.ndarray | None = None
    """float64 (V,), distances of its views from the training clips, relative to their usual spread
    (prediction/familiarity.py), NaN for modalities that are absent or that no training clip has; None if the model has
    no calibration."""
    read: tuple[str, ...] = ()
    """Modalities of the window that the model reads."""

    def has_unknown_words(self) -> bool:
        """Whether the window has words that the text encoder could not read."""
        return bool(self.transcript.strip()) and "text" not in self.quality


@dataclass
class Timeline:
    """Predictions of the W windows of a clip."""

    times: np.ndarray
    """float64 (W, 2): start and end in seconds."""
    values: np.ndarray
    """float32 (W, K)."""


@dataclass
class ModalityWeights:
    """The weight of each modality over time."""

    times: np.ndarray
    """float64 (S,) in seconds; the middle of each window for a model without a time axis."""
    weights: np.ndarray
    """float32 (S, 3) of vision, audio, text; 0 if a modality is absent."""
    attention: np.ndarray | None = None
    """float32 (K, S) of each dimension over the steps of its window; None for a model without attention."""


@dataclass
class ModalityPresence:
    """Whether a clip has a modality, and how good it is."""

    present: bool
    quality: dict[str, float] = field(default_factory=dict)
    """Means of its quality signals (shared/media/quality.py), such as face_found, the share of pictures with a face, or
    speech, the share of the time with speech. Empty if it is absent."""


@dataclass
class Prediction:
    """The prediction of one clip.

    >>> result = predictor("clip.mp4")
    >>> result.intensities
    {'Admiration': 0.44, 'Amusement': 0.08, ...}
    """

    id: str
    intensities: dict[str, float] = field(default_factory=dict)
    """Dimension to its value, in [0, 1] or in the `label_range` of the training labels: the mean over the windows,
    weighted by their length. Empty after an error."""
    timeline: Timeline | None = None
    """None after an error, like `weights`."""
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    """Dimension to an interval (lowest, highest) that contains its label with the requested probability (`coverage`),
    for people like those in the training data. Empty if the model has no calibration."""
    basis: Basis | None = None
    """What the prediction is based on, and whether the clip is unlike the training clips; None after an error."""
    weights: ModalityWeights | None = None
    found: dict[str, ModalityPresence] = field(default_factory=dict)
    """By modality: vision, audio, text."""
    transcript: str = ""
    """The words that were used: given, read from a file beside the clip, or transcribed."""
    error: str | None = None
    """Why there is no prediction; only in a list of clips, since a single clip raises UserError instead."""
    incomplete: str | None = None
    """Why part of the clip is not in the prediction, such as a damaged rest."""
    remarks: list[str] = field(default_factory=list)
    """What was repaired, chosen, left out or missing when its files were read, one line each, as in the verdicts of
    `emit prepare`; and why intervals cover the whole range."""


def average_windows(windows: list[Window]) -> dict[str, np.ndarray]:
    """The mean over the windows of each clip, weighted by their length: {clip: float64 (K,)}, in their order."""
    clips: dict[str, list[Window]] = {}
    for window in windows:
        clips.setdefault(window.clip, []).append(window)
    return {name: _average(parts) for name, parts in clips.items()}


def _average(windows: list[Window]) -> np.ndarray:
    lengths = [max(window.end - window.start, 1e-3) for window in windows]  # a clip with only text has no duration
    return np.average([window.values for window in windows], axis=0, weights=lengths)


def merge_windows(
    clip: str, windows: list[Window], label_names: list[str], signals: dict[str, list[str]], incomplete: str | None
) -> Prediction:
    """The prediction of a clip from its windows in order (at least one). signals: names of the quality signals."""
    return Prediction(
        id=clip,
        intensities=dict(zip(label_names, _average(windows).tolist(), strict=True)),
        timeline=Timeline(
            np.array([[window.start, window.end] for window in windows]),
            np.stack([window.values for window in windows]).astype(np.float32),
        ),
        weights=_merge_weights(windows),
        found={name: _presence(name, windows, signals[name]) for name in MODALITIES},
        transcript=windows[0].transcript,
        incomplete=incomplete,
    )


def _merge_weights(windows: list[Window]) -> ModalityWeights:
    times, attention = [], []
    for window in windows:
        steps, count = window.steps, len(window.steps.weights)
        times.append(np.full(count, (window.start + window.end) / 2) if steps.times is None else steps.times)
        attention += [] if steps.attention is None else [steps.attention]
    return ModalityWeights(
        np.concatenate(times).astype(np.float64),
        np.concatenate([window.steps.weights for window in windows]),
        np.concatenate(attention, axis=1) if attention else None,
    )


def _presence(name: str, windows: list[Window], signals: list[str]) -> ModalityPresence:
    parts = [window.quality[name] for window in windows if name in window.quality]
    if not parts:
        return ModalityPresence(False)
    means = np.concatenate(parts).astype(np.float64).mean(axis=0)  # (Q,)
    return ModalityPresence(True, dict(zip(signals, means.tolist(), strict=True)))
