"""Convert frames and sound from a caller's arrays or tensors in any usual form to the form used here.

Every function takes `where`, the start of its error messages: the name of the argument or the method.
"""

import warnings
from numbers import Real
from typing import Any

import numpy as np

from shared.errors import UserError
from shared.media.channels import mix_of
from shared.media.waveform import to_channels
from shared.text import one_line

MAX_CHANNELS = 8
MAX_LEVEL = 16.0
"""Float samples beyond this are not a waveform in [-1, 1]. Clipped sound in AAC decodes to values up to 4; samples on
the scale of 8-bit integers reach 127."""
RATES = (1000, 768000)
"""Plausible sample rates, Hz."""

PIXEL_CHANNELS = (1, 3, 4)
SHAPES = "(T, H, W, C) or (T, C, H, W) for a clip, (H, W), (H, W, C) or (C, H, W) for an image; C is 1, 3 or 4"
OVERSHOOT = 0.01
"""Float values up to this far outside [0, 1], as after resampling, are clipped."""


def to_array(item: Any) -> np.ndarray | None:
    """The values of a NumPy array or a torch tensor on any device, in the byte order of this machine; None for anything
    else. UserError for an array with masked values, and for a tensor without a NumPy equivalent (sparse, quantized)."""
    if isinstance(item, np.ndarray):
        if np.ma.is_masked(item):
            raise UserError("got a masked array with masked values: fill them in, as in array.filled(0)")
        array = np.asarray(item)
        return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    if type(item).__module__.partition(".")[0] == "torch" and hasattr(item, "detach"):
        try:
            item = item.detach().cpu()
            return (item.float() if str(item.dtype) == "torch.bfloat16" else item).numpy()
        except (TypeError, RuntimeError) as error:  # NotImplementedError, of a tensor without data, is a RuntimeError
            raise UserError(f"got a tensor without a NumPy form ({one_line(error, 100)}): give a dense one") from None
    return None


def describe(item: Any) -> str:
    """Type, shape, dtype and range of an array; otherwise the type, with the beginning of a text."""
    array, kind = to_array(item), f"{type(item).__module__}.{type(item).__qualname__}".removeprefix("builtins.")
    if array is None:
        return f"{kind} {str(item)[:60]!r}" if isinstance(item, str) else kind
    text = f"{kind} of shape {array.shape}, {array.dtype}"
    if array.size and array.dtype.kind in "iuf":
        if not np.isfinite(array).all():
            return f"{text}, with NaN or infinite values"
        text += f", values {array.min():.4g} to {array.max():.4g}"
    return text


def reject(where: str, item: Any, problem: str) -> UserError:
    """The error for an item that cannot be read."""
    return UserError(f"{where}: got {describe(item)}: {problem}")


def check_number(where: str, name: str, value: Any, most: float = np.inf) -> None:
    """UserError unless `value` is a number above 0, finite and at most `most`."""
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    if not (is_number and 0 < value <= most and value < np.inf):
        limit = "" if most == np.inf else f" and at most {most:g}"
        raise UserError(f"{where}: {name} is {value!r}; give a finite number above 0{limit}")


def check_text(where: str, text: str) -> None:
    """UserError for a text that is not valid Unicode: halves of characters, as left by a broken decoder."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise reject(where, text, "it is not valid Unicode (a lone surrogate); decode it again") from None


def to_waveform(where: str, sound: Any) -> np.ndarray:
    """Samples (S,), (S, channels) or (channels, S) to mono float32 (S,) in [-1, 1]: the mean of the channels, or, with
    a warning, another mix (see channels.py). UserError for anything else."""
    array = to_array(sound)
    if array is None:
        raise reject(where, sound, "a sound is a NumPy array or a tensor")
    if array.dtype not in (np.uint8, np.int16, np.int32) and array.dtype.kind != "f":
        raise reject(where, sound, "samples are float in [-1, 1], int16, int32 or uint8")
    if array.ndim not in (1, 2):
        raise reject(where, sound, "a sound is (S,), (S, channels) or (channels, S); give several as a list")
    if not array.size:
        raise reject(where, sound, "it has no samples; give None for an absent sound")
    if array.dtype.kind == "f":
        level = np.abs(array).max()
        if not np.isfinite(level):
            raise reject(where, sound, "samples must be finite")
        if level > MAX_LEVEL:
            raise reject(where, sound, "float samples lie in [-1, 1]; divide them by their full scale")
    if array.ndim == 1:
        channels = array[None]  # (1, S)
    else:
        few = [axis for axis in (0, 1) if array.shape[axis] <= MAX_CHANNELS]
        if len(few) != 1:
            shapes = f"(S, channels) or (channels, S) with at most {MAX_CHANNELS} channels and more samples than that"
            raise reject(where, sound, f"it is not clear which axis holds the channels; give {shapes}")
        channels = array if few == [0] else array.T  # (channels, S)
    samples = to_channels(channels, False, len(channels))  # (channels, S)
    mix = mix_of(samples)
    if mix.remark:
        warnings.warn(f"{where}: {mix.remark.say(1)}", stacklevel=3)
    return mix.apply(samples)


def to_sample_rate(where: str, rate: Any) -> int:
    """A number, or an array or tensor with one, to Hz. UserError for anything else."""
    array = to_array(rate)
    value = rate.item() if isinstance(rate, np.generic) or (array is not None and array.ndim == 0) else rate
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not RATES[0] <= value <= RATES[1]:
        raise UserError(f"{where}: rate is {value!r}; give the sample rate in Hz, such as 44100")
    return round(value)


def to_frames(where: str, clip: Any) -> np.ndarray:
    """A clip or an image to RGB uint8 (T, H, W, 3). UserError for anything else."""
    array = to_array(clip)
    if array is None:
        raise reject(where, clip, "a clip is a NumPy array or a tensor")
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise reject(where, clip, "pixels are uint8 in [0, 255] or float in [0, 1]")
    if array.ndim not in (2, 3, 4):
        raise reject(where, clip, f"the shape must be {SHAPES}")
    if not array.size:
        raise reject(where, clip, "it has no pixels; give None for an absent clip")
    if array.ndim == 3 and array.shape[0] == 4 and array.shape[2] not in PIXEL_CHANNELS:
        raise reject(where, clip, "a gray clip or one RGBA image? Give (T, H, W, 1) or (1, C, H, W)")
    frames = {2: array[None, ..., None], 3: array[None]}.get(array.ndim, array)  # (T, H, W, C) or (T, C, H, W)
    is_last, is_first = frames.shape[3] in PIXEL_CHANNELS, frames.shape[1] in PIXEL_CHANNELS
    if array.ndim > 2 and is_last == is_first:
        which = "more than one axis" if is_last else "no axis"
        raise reject(where, clip, f"{which} can be the channels; the shape must be {SHAPES}")
    if not is_last:
        frames = frames.transpose(0, 2, 3, 1)  # (T, H, W, C)
    if frames.dtype != np.uint8:
        frames = _to_uint8(where, frames, clip)
    if frames.shape[3] == 1:
        frames = frames.repeat(3, axis=3)
    return np.ascontiguousarray(frames[..., :3])


def _to_uint8(where: str, frames: np.ndarray, clip: Any) -> np.ndarray:
    """Float in [0, 1] to uint8. UserError for other values, with a description of `clip`."""
    low, high = frames.min(), frames.max()
    if not np.isfinite(frames).all():
        raise reject(where, clip, "pixels must be finite")
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        hint = "convert [0, 255] to uint8" if low >= 0 else "leave normalization to the tower"
        raise reject(where, clip, f"float pixels lie in [0, 1]; {hint}")
    return np.round(frames.clip(0, 1).astype(np.float32) * 255).astype(np.uint8)
