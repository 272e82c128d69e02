"""Quality signals of each modality, step by step: numbers in [0, 1] unless stated otherwise.

They are computed only from stored crops and sound, so that damaged views of a clip get theirs in the same way.
"""

from typing import Any

import numpy as np

from shared.media.faces import FaceTrack

VISION_QUALITY = ("face_found", "sharpness", "brightness", "contrast", "texture")
"""face_found   1 if a face was detected, else 0
sharpness    log10(1 + variance of the Laplacian of the gray crop) / 4
brightness   mean of the gray crop / 255
contrast     standard deviation of the gray crop / 80
texture      share of the cells of a 6 x 6 grid over the crop in which gray values differ from their local mean by more
             than 3 levels (standard deviation): a face has detail everywhere, a hand or a wall has little"""

AUDIO_QUALITY = ("level", "snr", "clipping", "speech", "flatness")
"""level        root mean square of the step: dBFS mapped from [-80, 0] to [0, 1]
snr          level of the loudest step within a second above the noise floor of the clip (10th percentile): dB mapped
             from [0, 40] to [0, 1]
clipping     share of the samples above 0.7 of the peak of the clip: close to 1 for a clipped wave
speech       probability of speech (shared/media/speech.py)
flatness     geometric over arithmetic mean of the power spectrum (Wiener entropy): dB mapped from [-40, 0] to [0, 1];
             close to 1 for noise"""

TEXT_QUALITY = ("present", "length")
"""present      1 if there is a transcript, else 0
length       log2(1 + number of words) / 6"""

FACE_QUALITY = ("face_size", "face_travel", "frontal")
"""face_size    mean side of the face over the shorter side of the frame
face_travel  standard deviation of the center of the face, in sides
frontal      similarity of the gradients of a crop and of its mirror image (cosine, mean over some crops): decreases as
             the head turns away or tilts"""

CLIP_QUALITY = ("seconds", "face_found", *FACE_QUALITY, *VISION_QUALITY[1:], *AUDIO_QUALITY, "words")
"""Columns of quality.csv, one row per clip. face_found is a share of the frames and words a number; the others are
means of the signals above."""

QUALITY_STEPS_PER_SECOND = 10
"""Steps of the audio signals per second."""
QUALITY_SAMPLE_RATE = 16000
"""Hz to which sound is resampled first, so that its quality does not depend on the stored rate."""

GRID = 6
SYMMETRY_SIDE, SYMMETRY_SHIFT = 48, 6
"""Pixels: side of the downscaled crops to mirror, and largest shift of the mirror image: twice the distance between the
centers of face and crop."""
SILENCE = 1e-4
"""Root mean square (-80 dB) below which sound counts as silence."""


def vision_quality(frames: np.ndarray, face_found: np.ndarray) -> np.ndarray:
    """float32 (T, 5), columns VISION_QUALITY, of crops RGB uint8 (T, H, W, 3) and face_found bool (T,)."""
    import cv2

    out = np.zeros((len(frames), len(VISION_QUALITY)), np.float32)
    for index, frame in enumerate(frames):
        gray = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)  # (H, W)
        mean, std = (float(value[0, 0]) for value in cv2.meanStdDev(gray))
        laplacian_var = float(cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_32F))[1][0, 0]) ** 2
        out[index] = (
            float(face_found[index]),
            min(1.0, np.log10(1 + laplacian_var) / 4),
            mean / 255,
            min(1.0, std / 80),
            np.mean(_cell_detail(gray) > 3),
        )
    return out


def _cell_detail(gray: np.ndarray) -> np.ndarray:
    """Standard deviation of gray values minus their local mean, in each cell of a grid: float32 (GRID, GRID)."""
    import cv2

    side = GRID * max(2, min(gray.shape) // GRID)
    gray = cv2.resize(gray, (side, side), interpolation=cv2.INTER_LINEAR).astype(np.float32)
    kernel = 2 * (side // GRID // 2) + 1
    detail = gray - cv2.blur(gray, (kernel, kernel))  # (side, side)
    cells = detail.reshape(GRID, side // GRID, GRID, side // GRID)
    return cells.std(axis=(1, 3))


def frontal(crop: np.ndarray) -> float:
    """Similarity of the gradients of a crop RGB uint8 (H, W, 3) and of its mirror image at the best shift: the cosine,
    at least 0. It needs no landmarks, so crops of all detectors are comparable."""
    import cv2

    side, shift = SYMMETRY_SIDE, SYMMETRY_SHIFT
    gray = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (side, side), interpolation=cv2.INTER_AREA)
    small = cv2.GaussianBlur(gray, (0, 0), 1)
    gradients = np.stack([cv2.Sobel(small, cv2.CV_32F, *order) for order in ((1, 0), (0, 1))], axis=-1)
    mirrored: np.ndarray = np.ascontiguousarray(gradients[:, ::-1]) * np.array([-1, 1], np.float32)  # (side, side, 2)
    middle = np.ascontiguousarray(gradients[:, shift:-shift])  # (side, side - 2 shift, 2)
    product = cv2.matchTemplate(mirrored, middle, cv2.TM_CCORR)[0]  # (2 shift + 1,)
    power = np.convolve(np.square(mirrored).sum(axis=(0, 2)), np.ones(side - 2 * shift), "valid")  # (2 shift + 1,)
    return max(0.0, float(np.max(product / np.sqrt(power * np.square(middle).sum() + 1))))


def audio_quality(waveform: np.ndarray, rate: int) -> np.ndarray:
    """float32 (Ta, 5), columns AUDIO_QUALITY, Ta = ceil(S / rate * 10), of a waveform float32 (S,) at `rate` Hz."""
    from shared.media.speech import at_steps, speech_probability
    from shared.media.waveform import resample

    waveform, rate = resample(waveform, rate, QUALITY_SAMPLE_RATE), QUALITY_SAMPLE_RATE
    if len(waveform) == 0:
        return np.zeros((0, len(AUDIO_QUALITY)), np.float32)
    steps = int(np.ceil(len(waveform) * QUALITY_STEPS_PER_SECOND / rate - 1e-6))
    starts = np.round(np.arange(steps) * rate / QUALITY_STEPS_PER_SECOND).astype(int)  # (Ta,)
    lengths = np.diff(np.append(starts, len(waveform)))  # (Ta,)
    square = np.square(waveform, dtype=np.float64)  # (S,)
    rms = np.sqrt(np.add.reduceat(square, starts) / lengths)  # (Ta,)
    level_db = 20 * np.log10(np.maximum(rms, SILENCE))  # (Ta,) at least -80
    speech = at_steps(speech_probability(waveform, rate), steps, QUALITY_STEPS_PER_SECOND)  # (Ta,)

    loudest = np.max(np.lib.stride_tricks.sliding_window_view(np.pad(level_db, 5, mode="edge"), 11), axis=1)  # (Ta,)
    peak = np.quantile(np.abs(waveform), 0.999)
    near_peak = (np.abs(waveform) >= 0.7 * max(float(peak), SILENCE)).astype(np.float64)  # (S,)
    columns = (
        (level_db + 80) / 80,
        (loudest - _floor(square, rate)) / 40,
        np.add.reduceat(near_peak, starts) / lengths,
        speech,
        _flatness(waveform, rate, starts),
    )
    return np.clip(np.stack(columns, axis=1), 0, 1).astype(np.float32)


def _floor(square: np.ndarray, rate: int) -> float:
    """Noise floor of the clip in dB: the 10th percentile of the power of 20 ms windows."""
    size = max(1, min(len(square), round(0.02 * rate)))
    power = square[: len(square) // size * size].reshape(-1, size).mean(axis=1)
    return 10 * float(np.log10(max(np.quantile(power, 0.1), SILENCE**2)))


def _flatness(waveform: np.ndarray, rate: int, starts: np.ndarray) -> np.ndarray:
    """Spectral flatness of each step, scaled: (Ta,). Silence counts as flat."""
    size = max(2, int(rate / QUALITY_STEPS_PER_SECOND))
    padded = np.pad(waveform.astype(np.float32), (0, size))
    windows = padded[starts[:, None] + np.arange(size)]  # (Ta, size)
    power = np.abs(np.fft.rfft(windows * np.hanning(size + 2)[1:-1], axis=1)) ** 2 + 1e-9  # (Ta, size // 2 + 1)
    # Only the band of most voices, because codecs leave the highest frequencies empty.
    power = power[:, 1 : max(2, int(4000 / (rate / size)))]
    flatness_db = 10 * (np.mean(np.log10(power), axis=1) - np.log10(np.mean(power, axis=1)))  # (Ta,)
    return 1 + flatness_db / 40


def text_quality(transcript: str) -> np.ndarray:
    """float32 (2,), columns TEXT_QUALITY, of a transcript ("" if missing)."""
    words = len(transcript.split())
    return np.array([float(words > 0), min(1.0, np.log2(1 + words) / 6)], np.float32)


def clip_quality(
    row: dict[str, Any], shorter_side: int, face: FaceTrack | None, crops: list[np.ndarray]
) -> list[float | None]:
    """The columns CLIP_QUALITY of a row of the clip dataset; None for a value that cannot be computed.

    shorter_side: of the frames, in pixels; face: the tracked face, None for precomputed face crops; crops: some that
    show a face, to measure its pose.
    """
    vision = np.frombuffer(row["vision_quality"], "<f4").reshape(-1, len(VISION_QUALITY))  # (T, 5)
    audio = np.frombuffer(row["audio_quality"], "<f4").reshape(-1, len(AUDIO_QUALITY))  # (Ta, 5)
    boxes = np.zeros((0, 3)) if face is None else face.boxes[face.detected].astype(np.float64)  # (N, 3)
    side = boxes[:, 2].mean() if len(boxes) else None
    means = [part.mean(axis=0, dtype=np.float64) if len(part) else [None] * 5 for part in (vision, audio)]
    motion = [None, None] if side is None else [side / shorter_side, np.hypot(*boxes[:, :2].std(axis=0)) / side]
    pose = np.mean([frontal(crop) for crop in crops]) if crops else None
    values = [row["duration"], means[0][0], *motion, pose, *means[0][1:], *means[1]]
    return [*(None if value is None else round(float(value), 3) for value in values), len(row["transcript"].split())]
