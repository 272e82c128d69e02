"""Kernel ridge regression on plain statistics of clips: the cheapest strong baseline on the inputs of the encoders.

It has no encoders and no time axis: statistics over time of the pixels of the face crops, of their histograms of
oriented gradients (Dalal and Triggs 2005) and of a log-mel spectrogram; and words, pairs of words and pieces of words
with their frequencies. A trained model should be compared with it.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from shared.dataset.clip_dataset import ClipSample
from shared.media.spectrogram import MELS, log_mel
from shared.metrics import score
from stage2_fusion.evaluation.ridge_baseline import standardize

FACE_SIDE = 24
GRADIENT_SIDE = 64
"""Side of the face crops for histograms of gradients: 8 x 8 cells of 8 pixels, 9 directions."""
PIECES = (3, 4, 5)
"""Lengths of the pieces of words, in characters."""
MOST_TERMS = 8192
"""Most terms, the most frequent ones; others are rare, and memory is limited."""
WIDTHS = (2.0, 4.0)
"""Widths of the kernels to try, in median distances between training clips."""
PENALTIES = (0.03, 0.06, 0.1, 0.2, 0.4, 1.0, 3.0)
AUDIO_SHARES = (0.25, 1.0)
TEXT_SHARES = (0.05, 0.2, 1.0)
"""Weights to try for the kernels of sound and words, with 1 for faces. Texts differ from each other far more than
faces, so a large weight hides the others: 0.5 instead of 0.05 costs 0.04 of PCC on synthetic corpora."""


@dataclass
class ClipStatistics:
    """Statistics of N clips. Rows of NaN, and texts without words, represent absent modalities."""

    pixels: np.ndarray
    """float64 (N, 2880)."""
    gradients: np.ndarray
    """float64 (N, 5292)."""
    audio: np.ndarray
    """float64 (N, 200)."""
    words: list[list[str]]

    @classmethod
    def of(cls, clips: Iterable[ClipSample], rate: int, modalities: Sequence[str]) -> "ClipStatistics":
        """Read the clips one by one. rate: of their sound, Hz."""
        rows = []
        for clip in clips:
            frames = clip.frames if "vision" in modalities else clip.frames[:0]
            waveform = clip.waveform if "audio" in modalities else clip.waveform[:0]
            words = clip.transcript.lower().split() if "text" in modalities else []
            rows.append((_over_time(_faces(frames)), _gradients(frames), _over_time(_mel(waveform, rate)), words))
        pixels, gradients, audio, all_words = zip(*rows, strict=True)
        return cls(np.stack(pixels), np.stack(gradients), np.stack(audio), list(all_words))

    def present(self) -> np.ndarray:
        """Whether each clip has vision, audio, text: bool (N, 3)."""
        return np.stack(
            [~np.isnan(self.pixels[:, 0]), ~np.isnan(self.audio[:, 0]), np.array([bool(w) for w in self.words])], axis=1
        )


@dataclass
class KernelFit:
    predictions: np.ndarray
    """float64 (N, K) in [0, 1], of the scored clips."""
    options: dict[str, float]
    """The options with the best mean PCC on the validation clips: width, penalty, and the shares of audio and text if
    there are any."""


def fit_kernel_ridge(parts: Sequence[ClipStatistics], train_labels: np.ndarray, valid_labels: np.ndarray) -> KernelFit:
    """Fit on the first part (n clips) and its labels (n, K), select on the second (m) and its labels (m, K), predict
    the third (N). Kernels of the modalities are added; a modality that either clip lacks adds nothing.

        K(a, b) = (k(p_a, p_b) + k(g_a, g_b)) / 2 + s_a k(u_a, u_b) + s_t (cos(t_a, t_b) + cos(c_a, c_b)) / 2
        k(x, y) = exp(-|x - y|^2 / (2 w D))

    with standardized statistics p of pixels, g of gradients and u of sound, their median squared distances D between
    training clips, and TF-IDF vectors t of words and pairs of words, and c of pieces of words.
    """
    names = [str(k) for k in range(train_labels.shape[1])]
    pixels, gradients, sound = (
        distances([getattr(part, name) for part in parts]) for name in ("pixels", "gradients", "audio")
    )
    words = _text_kernels([[_pairs(clip) for clip in part.words] for part in parts])
    pieces = _text_kernels([[_pieces(clip) for clip in part.words] for part in parts])
    best, best_pcc = None, -math.inf
    # Without pictures and sound, the other widths and shares give the same kernel.
    seen, heard = np.isfinite(pixels[0]).any(), np.isfinite(sound[0]).any()
    for width in WIDTHS if seen or heard else WIDTHS[:1]:
        faces = [(rbf(p, width) + rbf(g, width)) / 2 for p, g in zip(pixels, gradients, strict=True)]
        voices = [rbf(d, width) for d in sound]
        for audio, text in itertools.product(AUDIO_SHARES if heard else AUDIO_SHARES[:1], TEXT_SHARES):
            kernels = [faces[i] + audio * voices[i] + text * (words[i] + pieces[i]) / 2 for i in range(3)]
            for penalty, (valid, scored) in zip(PENALTIES, solve(kernels, train_labels), strict=True):
                pcc = score(valid, valid_labels, names, resamples=0).pcc.mean
                if best is None or (pcc is not None and pcc > best_pcc):
                    options = {"width": width, "penalty": penalty, "audio": audio, "text": text}
                    best, best_pcc = KernelFit(scored, options), best_pcc if pcc is None else pcc
    assert best is not None
    return best


def solve(kernels: Sequence[np.ndarray], labels: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """kernels: of the training clips (n, n), the validation clips (m, n) and the scored clips (N, n) with the training
    clips. Returns the predictions (m, K) and (N, K) in [0, 1] for each penalty. A clip without a label in a dimension
    is left out there; a dimension without any training label is predicted as 0."""
    shape = [(len(kernel), labels.shape[1]) for kernel in kernels[1:]]
    results = [tuple(np.zeros(size) for size in shape) for _ in PENALTIES]
    known = ~np.isnan(labels)  # (n, K)
    patterns = np.unique(known, axis=1).T
    for rows in patterns[patterns.any(axis=1)]:
        columns = (known == rows[:, None]).all(axis=0)
        targets = labels[rows][:, columns].astype(np.float64)  # (n', k)
        mean = targets.mean(axis=0)
        values, vectors = np.linalg.eigh(kernels[0][rows][:, rows])
        projected = vectors.T @ (targets - mean)  # (n', k)
        for penalty, result in zip(PENALTIES, results, strict=True):
            weights = vectors @ (projected / (np.maximum(values, 0) + penalty)[:, None])  # (n', k)
            for predictions, kernel in zip(result, kernels[1:], strict=True):
                predictions[:, columns] = np.clip(kernel[:, rows] @ weights + mean, 0, 1)
    return [(valid, scored) for valid, scored in results]


def _faces(frames: np.ndarray) -> np.ndarray:
    """RGB uint8 (T, H, W, 3) to gray in [0, 1], (T, 576)."""
    import cv2

    small = [cv2.resize(frame, (FACE_SIDE, FACE_SIDE), interpolation=cv2.INTER_AREA) for frame in frames]
    if not small:
        return np.zeros((0, FACE_SIDE * FACE_SIDE))
    return np.stack(small).mean(axis=3).reshape(len(small), -1) / 255.0  # (T, 576)


def _gradients(frames: np.ndarray) -> np.ndarray:
    """RGB uint8 (T, H, W, 3) to mean, deviation and maximum over time of histograms of oriented gradients, (5292,);
    NaN for T = 0."""
    import cv2

    side = GRADIENT_SIDE
    histograms = cv2.HOGDescriptor((side, side), (16, 16), (8, 8), (8, 8), 9)
    if not len(frames):
        return np.full(3 * histograms.getDescriptorSize(), np.nan)
    small = (cv2.resize(frame, (side, side), interpolation=cv2.INTER_AREA) for frame in frames)
    gray = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in small)
    x = np.stack([np.asarray(histograms.compute(picture)).ravel() for picture in gray])  # (T, 1764)
    return np.concatenate([x.mean(axis=0), x.std(axis=0), x.max(axis=0)]).astype(np.float64)


def _mel(waveform: np.ndarray, rate: int) -> np.ndarray:
    """float32 (S,) to log-mel bands (T, 40)."""
    return log_mel(waveform, rate) if len(waveform) else np.zeros((0, MELS))


def _over_time(x: np.ndarray) -> np.ndarray:
    """(T, C) to mean, deviation, maximum, minimum and mean absolute difference over time, (5 C,); NaN for T = 0."""
    if not len(x):
        return np.full(5 * x.shape[1], np.nan)
    steps = np.abs(np.diff(x, axis=0)).mean(axis=0) if len(x) > 1 else np.zeros(x.shape[1])
    return np.concatenate([x.mean(axis=0), x.std(axis=0), x.max(axis=0), x.min(axis=0), steps])


def distances(parts: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Squared distances of the clips of each part (N_i, F) from the first part (n, F), in units of the median of the
    first: (N_i, n). Infinite if either clip lacks the modality."""
    standard = standardize(list(parts))
    present = [~np.isnan(part[:, 0]) for part in parts]
    squared = []
    for x, has in zip(standard, present, strict=True):
        d = (x**2).sum(axis=1)[:, None] + (standard[0] ** 2).sum(axis=1) - 2 * x @ standard[0].T  # (N_i, n)
        squared.append(np.where(has[:, None] & present[0], np.maximum(d, 0), np.inf))
    off = squared[0][np.triu_indices(len(squared[0]), k=1)]
    finite = off[np.isfinite(off) & (off > 0)]
    return [d / np.median(finite) if len(finite) else d for d in squared]


def rbf(squared: np.ndarray, width: float) -> np.ndarray:
    """The Gaussian kernel of squared distances; 0 for infinite distances."""
    return np.exp(-squared / (2 * width))


def _pairs(words: list[str]) -> Counter:
    """Words and pairs of neighbors."""
    return Counter([*words, *itertools.pairwise(words)])


def _pieces(words: list[str]) -> Counter:
    """Pieces of three to five characters, also across words."""
    text = f" {' '.join(words)} " if words else ""
    return Counter(text[start : start + size] for size in PIECES for start in range(len(text) - size + 1))


def _text_kernels(parts: Sequence[list[Counter]]) -> list[np.ndarray]:
    """Cosines of TF-IDF vectors of the terms: (N_i, n) with the clips of the first part. 0 without terms."""
    documents = Counter(term for counts in parts[0] for term in counts)
    known = sorted((term for term, count in documents.items() if count > 1), key=lambda t: (-documents[t], str(t)))
    column = {term: i for i, term in enumerate(known[:MOST_TERMS])}
    vectors = []
    for part in parts:
        x = np.zeros((len(part), len(column)), np.float32)  # (N, V)
        for row, counts in enumerate(part):
            for term, count in counts.items():
                if term in column:
                    x[row, column[term]] = (1 + math.log(count)) * math.log((1 + len(parts[0])) / documents[term])
        x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        vectors.append(x)
    return [(x @ vectors[0].T).astype(np.float64) for x in vectors]
