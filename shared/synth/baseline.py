"""The score of simple statistics and ridge regression on a corpus: a trained model has to exceed it.

The statistics are the mean frame, means and deviations of a mel spectrogram, and a bag of words. They contain who a
person is and which words occur, but not how features move, when the voice leaves its baseline, or what "not" refers to.
"""

from collections import Counter
from typing import Any

import cv2
import numpy as np

from shared.metrics import DimensionScores, pcc
from shared.ridge import PENALTIES, ridge_predict

FACE_SIDE = 16
MELS = 40


def statistics(frames: np.ndarray, waveform: np.ndarray | None, rate: int) -> np.ndarray:
    """Frames and sound of a clip in 336 numbers: the mean gray frame at 16 x 16, then mean and standard deviation over
    time of 40 log-mel bands; zeros without a sound track.

    frames RGB uint8 (T, H, W, 3), waveform float32 (S,) at `rate` Hz or None -> float32 (336,).
    """
    small = [cv2.resize(frame, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA) for frame in frames]
    gray = np.mean(small, axis=(0, 3)).reshape(-1)  # (256,)
    sound = np.zeros(2 * MELS)
    if waveform is not None:
        mel = log_mel(waveform, rate)  # (T, 40)
        sound = np.concatenate([mel.mean(axis=0), mel.std(axis=0)])  # (80,)
    return np.concatenate([gray, sound]).astype(np.float32)


def bag_of_words(transcripts: list[str], train: np.ndarray) -> np.ndarray:
    """Counts (N, V) of the words that at least two training transcripts contain; train: bool (N,)."""
    tokens = [text.lower().split() for text in transcripts]
    documents = Counter(word for row in np.flatnonzero(train) for word in set(tokens[row]))
    column = {word: i for i, word in enumerate(sorted(word for word, count in documents.items() if count > 1))}
    counts = np.zeros((len(tokens), len(column)))  # (N, V)
    for row, transcript in enumerate(tokens):
        for word in transcript:
            if word in column:
                counts[row, column[word]] += 1
    return counts


def evaluate(features: np.ndarray, labels: np.ndarray, splits: list[str], names: tuple[str, ...]) -> dict[str, Any]:
    """Fit on train, choose the penalty on valid, score on test. features (N, F), labels (N, K).

    Returns {"pcc": mean over dimensions, "per_dimension": {name: PCC}, "strength": the penalty}; None where a small
    corpus has too few clips for a score or a choice.
    """
    train, valid, test = (np.flatnonzero(np.asarray(splits) == name) for name in ("train", "valid", "test"))
    center, spread = features[train].mean(axis=0), features[train].std(axis=0)
    x = np.where(spread > 1e-6, (features - center) / np.maximum(spread, 1e-6), 0)  # (N, F)
    best_score, strength, predictions = -np.inf, None, np.zeros(labels.shape)
    for penalty in PENALTIES:
        candidate = ridge_predict(x[train], labels[train], x, penalty)  # (N, K)
        score = _scores(candidate[valid], labels[valid], names).mean
        if score is not None and score > best_score:
            best_score, strength, predictions = score, penalty, candidate
    scores = DimensionScores(None, dict.fromkeys(names))
    if strength is not None:
        scores = _scores(predictions[test], labels[test], names)
    return {"pcc": scores.mean, "per_dimension": scores.per_dimension, "strength": strength}


def _scores(predictions: np.ndarray, labels: np.ndarray, names: tuple[str, ...]) -> DimensionScores:
    return DimensionScores.from_values({name: pcc(predictions[:, k], labels[:, k]) for k, name in enumerate(names)})


def log_mel(waveform: np.ndarray, rate: int) -> np.ndarray:
    """Natural logarithm of mel power (T, 40), 25 ms windows every 10 ms, 60 Hz to 7600 Hz."""
    size, step = int(0.025 * rate), int(0.010 * rate)
    waveform = np.pad(waveform, (0, max(0, size - len(waveform))))
    windows = np.lib.stride_tricks.sliding_window_view(waveform, size)[::step]  # (T, size)
    power = np.abs(np.fft.rfft(windows * np.hanning(size).astype(np.float32), axis=1)) ** 2  # (T, bins)
    edges = 700 * (np.exp(np.linspace(np.log1p(60 / 700), np.log1p(7600 / 700), MELS + 2)) - 1)  # (42,) Hz
    hertz = np.fft.rfftfreq(size, 1 / rate)  # (bins,)
    rising = (hertz - edges[:-2, None]) / np.diff(edges[:-1])[:, None]  # (40, bins)
    falling = (edges[2:, None] - hertz) / np.diff(edges[1:])[:, None]  # (40, bins)
    return np.log(power @ np.clip(np.minimum(rising, falling), 0, None).T + 1e-6)
