"""What the prediction of a clip is based on, from its windows."""

from collections.abc import Collection, Sequence

import numpy as np

from shared.dataset.clip import MODALITIES
from stage2_fusion.prediction.basis import Basis
from stage2_fusion.prediction.familiarity import ClipFamiliarity, Familiarity
from stage2_fusion.prediction.result import Window

SNR_DECIBELS = 40
"""Decibels of a signal-to-noise ratio of 1 (shared/media/quality.py)."""


def basis_of(
    windows: Sequence[Window], signals: dict[str, list[str]], familiarity: Familiarity | None, transcribed: bool
) -> Basis:
    """The Basis of a clip from its windows, one or more. signals: names of the quality signals. transcribed: the words,
    if any, come from speech recognition."""

    def values(modality: str, signal: str) -> np.ndarray | None:
        """(T,) over all windows; None without the modality or the signal."""
        parts = [window.quality[modality] for window in windows if modality in window.quality]
        if signal not in signals[modality] or not sum(map(len, parts)):
            return None
        return np.concatenate(parts)[:, signals[modality].index(signal)]

    faces, speech, snr = values("vision", "face_found"), values("audio", "speech"), values("audio", "snr")
    weights = np.concatenate([window.steps.weights for window in windows])  # (S, 3)
    texts = list(dict.fromkeys(window.transcript for window in windows if "text" in window.quality))
    words = None if "" in texts else sum(len(text.split()) for text in texts)
    return Basis(
        seconds=sum(window.end - window.start for window in windows),
        frames=sum(len(window.quality.get("vision", ())) for window in windows),
        frames_with_face=None if faces is None else int((faces > 0.5).sum()),
        speech=None if speech is None else float(speech.mean()),
        snr_db=None if snr is None else float(SNR_DECIBELS * snr.mean()),
        words=words,
        transcribed=transcribed and bool(words),
        weights={
            name: float(weights[weights[:, m] > 0, m].mean())
            for m, name in enumerate(MODALITIES)
            if (weights[:, m] > 0).any()
        },
        familiarity=_familiarity(windows, familiarity),
    )


def _familiarity(windows: Sequence[Window], familiarity: Familiarity | None) -> ClipFamiliarity | None:
    """From the mean distance of the windows with each modality, weighted by their lengths."""
    if familiarity is None or any(window.distances is None for window in windows):
        return None
    distances = np.stack([window.distances for window in windows if window.distances is not None])  # (W, V)
    lengths = np.array([[max(window.end - window.start, 1e-3)] for window in windows])  # (W, 1)
    known = ~np.isnan(distances)  # (W, V)
    shares = (known * lengths).sum(axis=0)  # (V,)
    total = (np.nan_to_num(distances) * lengths).sum(axis=0)  # (V,)
    mean = np.where(shares > 0, total / np.maximum(shares, 1e-9), np.nan)  # (V,)
    present = np.array([any(name in window.read for window in windows) for name in MODALITIES])
    return familiarity.judge(mean[None], present[None])[0]


def bases_of(
    windows: Sequence[Window],
    signals: dict[str, list[str]],
    familiarity: Familiarity | None,
    given_words: Collection[str],
) -> dict[str, Basis]:
    """{id: Basis} of each clip, in the order of their windows. given_words: ids of the clips with given words; other
    arguments as for `basis_of`."""
    clips: dict[str, list[Window]] = {}
    for window in windows:
        clips.setdefault(window.clip, []).append(window)
    return {name: basis_of(parts, signals, familiarity, name not in given_words) for name, parts in clips.items()}
