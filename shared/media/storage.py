"""How frames and waveforms are stored in a clip dataset: JPEG and int16."""

import numpy as np


def encode_jpeg(frame: np.ndarray) -> bytes:
    """RGB uint8 (H, W, 3) to JPEG of quality 95."""
    import cv2

    return cv2.imencode(".jpg", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


def decode_jpeg(data: bytes) -> np.ndarray:
    """JPEG to RGB uint8 (H, W, 3)."""
    import cv2

    return cv2.cvtColor(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def to_int16(waveform: np.ndarray) -> np.ndarray:
    """float32 in [-1, 1] to little-endian int16; values outside are clipped."""
    return np.clip(np.round(waveform * 32768.0), -32768, 32767).astype("<i2")


def from_int16(samples: np.ndarray) -> np.ndarray:
    """int16 to float32 in [-1, 1)."""
    return samples.astype(np.float32) / np.float32(32768)
