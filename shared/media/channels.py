"""One waveform from several channels, as loud as a person hears them: their mean, or a mix named in a remark.

The mean of two equal channels keeps their level, the mean of two independent ones loses 3 dB; the mean is used up to
MAX_LOSS. It would lose 6 dB of sound in one of two channels, 14 dB of speech in the center of 5.1, and everything of a
channel and its inverse. What is heard is the louder channel at each moment: the sum over blocks of the largest channel
energy in the block. One decision applies to a whole sound, so that its windows are cut from the same waveform. The
low-frequency channel carries no voice and is left out.
"""

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from shared.media.remarks import Remark
from shared.media.waveform import to_channels

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

MAX_LOSS = 5.0
"""Most dB that the plain mean may lose: more than independent channels of similar level lose."""
MAX_SILENT = -30.0
"""dB, relative to the loudest channel: a quieter channel counts as silent."""
INVERTED = -0.5
"""Correlation with the loudest channel; with a lower one, a channel counts as inverted."""
CANCELLING = -1.0
"""dB, relative to independent channels: with a mean below this, channels cancel each other."""
DOMINANT = 1.5
"""Ratio of what is heard to the channels' mean; above it, one channel leads at a time and the mix is raised."""
BLOCK = 16384
"""Samples per block; the louder channel in a block is what is heard."""
PARTLY = 0.03
"""Share of the heard sound that may lie, without a remark, in blocks where the mean loses more than MAX_LOSS."""
ALONE = 0.9
"""Least share of the heard sound in one channel to use only this channel if the mean loses part of the time."""
MEASURED_SECONDS = 600.0
"""The mix is decided from the first ten minutes of a file."""
MIN_POWER = 1e-10
"""Mean square of full scale, -100 dB: a quieter sound is silence."""
LOW_FREQUENCY = ("LFE", "LFE2")


@dataclass(frozen=True)
class Mix:
    """How the channels become one. The default is their mean."""

    weights: tuple[float, ...] = ()
    """One weight per channel; () for the plain mean."""
    remark: Remark | None = None

    def apply(self, channels: np.ndarray) -> np.ndarray:
        """float32 (C, S) to float32 (S,)."""
        if len(channels) == 1:
            return channels[0]
        if len(self.weights) != len(channels):
            return channels.mean(axis=0, dtype=np.float32)
        used = np.flatnonzero(self.weights)
        weights = np.array(self.weights, np.float32)[used]
        if (weights == np.float32(1 / len(used))).all():
            return channels[used].mean(axis=0, dtype=np.float32)
        return np.clip(weights @ channels[used], -1, 1)


class ChannelMeter:
    """Measures the channels of one sound, given in pieces of any length."""

    def __init__(self, count: int):
        self.products = np.zeros((count, count))
        """Sums of products of all pairs of channels, (C, C)."""
        self.heard = 0.0
        self._finished: list[np.ndarray] = []
        self._block = np.zeros((count, count))
        self._in_block = self.samples = 0

    def add(self, channels: np.ndarray) -> None:
        """channels: float32 (C, S)."""
        channels = np.nan_to_num(channels, posinf=1.0, neginf=-1.0)
        self.products += channels @ channels.T
        self.samples += channels.shape[1]
        while channels.shape[1]:
            part, channels = np.split(channels, [BLOCK - self._in_block], axis=1)
            self._block += part.astype(np.float64) @ part.T.astype(np.float64)
            self._in_block += part.shape[1]
            if self._in_block == BLOCK:
                self._end_block()

    def _end_block(self) -> None:
        self._finished.append(self._block)
        self._block, self._in_block = np.zeros_like(self._block), 0

    def mix(self, names: tuple[str, ...] = ()) -> Mix:
        """names: of the channels, as in FFmpeg."""
        energies = self.products.diagonal()
        count = len(energies)
        numbers = tuple(str(index + 1) for index in range(count))
        low = np.array([name in LOW_FREQUENCY for name in names] or [False] * count)
        used = np.flatnonzero(~low) if energies[~low].sum() > MIN_POWER * self.samples else np.arange(count)
        blocks = np.array([*self._finished, self._block])  # (N, C, C)
        energies = np.diagonal(blocks, axis1=1, axis2=2)[:, used]  # (N, U)
        heard = float(energies.max(axis=1).sum())
        if heard <= MIN_POWER * self.samples:
            return Mix()
        plain = np.zeros(count)
        plain[used] = 1 / len(used)
        loss = self._loss(plain, heard)
        if loss <= MAX_LOSS:
            return self._repair_part(blocks, used, plain, names or numbers)
        return self._repair(used, heard, loss, names or numbers)

    def _repair_part(self, blocks: np.ndarray, used: np.ndarray, plain: np.ndarray, names: tuple[str, ...]) -> Mix:
        """The mix of a sound where the mean loses little overall, but maybe much at times. blocks: (N, C, C)."""
        energies = np.diagonal(blocks, axis1=1, axis2=2)  # (N, C)
        heard = energies[:, used].max(axis=1)  # (N,)
        power = np.einsum("i,nij,j->n", plain, blocks, plain)
        loses = power < heard * 10 ** (-MAX_LOSS / 10)
        mean = Mix() if len(used) == len(names) else Mix(tuple(plain.tolist()))
        lost = float(heard[loses].sum() / heard.sum())
        if lost < PARTLY:
            return mean
        loudest = used[energies[:, used].sum(axis=0).argmax()]
        cancels = power < energies @ np.square(plain) * 10 ** (CANCELLING / 10)
        is_problem = bool(heard[loses & cancels].sum() >= PARTLY * heard.sum())
        text = f"the mean of the audio channels loses more than {MAX_LOSS:g} dB in a part of the sound ({lost:.0%})"
        if energies[loses, loudest].sum() >= ALONE * heard[loses].sum() and (
            energies[:, loudest].sum() >= ALONE * heard.sum()
        ):
            return Mix(tuple(np.eye(len(names))[loudest].tolist()), Remark(f"{text}: {names[loudest]} alone is used"))
        why = "channels cancel each other there" if is_problem else "only some of them have sound there"
        return Mix(mean.weights, Remark(f"{text}: {why}; they are averaged all the same", is_problem))

    def _repair(self, used: np.ndarray, heard: float, loss: float, names: tuple[str, ...]) -> Mix:
        """The mix of a sound where the mean loses too much."""
        energies = self.products.diagonal()
        loudest = used[energies[used].argmax()]
        with_sound = used[energies[used] > energies[loudest] * 10 ** (MAX_SILENT / 10)]
        correlation = self.products[loudest] / np.sqrt(np.maximum(energies * energies[loudest], 1e-30))  # (C,)
        inverted = [index for index in with_sound if correlation[index] < INVERTED]
        weights = np.zeros(len(energies))
        weights[with_sound] = 1 / len(with_sound)
        weights[inverted] *= -1
        words, is_problem = [], bool(inverted)
        independent = float((np.square(weights) * energies).sum())
        if len(with_sound) < len(used):
            verb = "has" if len(with_sound) == 1 else "have"
            words.append(f"of {len(energies)} channels only {_list(with_sound, names)} {verb} sound")
        if inverted:
            words.append(f"out of phase, turned over: {_list(inverted, names)}")
        if weights @ self.products @ weights < independent * 10 ** (CANCELLING / 10):
            weights, is_problem = np.eye(len(energies))[loudest], True
            words = [f"channels cancel each other: {names[loudest]} alone is used"]
        gain = self._loss(weights, heard)
        if gain > MAX_LOSS and heard >= DOMINANT * energies[used].mean():
            weights *= 10 ** (gain / 20)
            words.append(f"the mix is raised by {gain:.1f} dB to the louder channel")
        elif gain > MAX_LOSS:
            words.append(f"{len(with_sound)} channels of similar level are averaged all the same")
        text = f"the mean of the audio channels loses {min(loss, 99):.1f} dB; {'; '.join(words)}"
        return Mix(tuple(weights.tolist()), Remark(text, is_problem))

    def _loss(self, weights: np.ndarray, heard: float) -> float:
        """dB that a mix loses relative to what is heard."""
        power = float(weights @ self.products @ weights)
        return 10 * np.log10(heard / max(power, 1e-15 * heard))


def _list(indices: Iterable[int], names: tuple[str, ...]) -> str:
    return " and ".join(names[index] for index in indices)


def mix_of(channels: np.ndarray) -> Mix:
    """The mix of a whole sound, float32 (C, S)."""
    meter = ChannelMeter(len(channels))
    meter.add(channels)
    return meter.mix()


def measure_frames(frames: "Iterable[AudioFrame]") -> dict[str, Mix]:
    """The mixes of a stream by layout name; the layout may change within the stream."""
    meters: dict[str, ChannelMeter] = {}
    names: dict[str, tuple[str, ...]] = {}
    seconds = 0.0
    for frame in frames:
        count = frame.layout.nb_channels
        if count > 1:
            key = layout_key(frame)
            if key not in meters:
                meters[key], names[key] = ChannelMeter(count), channel_names(key, count)
            meters[key].add(frame_channels(frame))
        seconds += frame.samples / frame.sample_rate
        if seconds >= MEASURED_SECONDS:
            break
    return {key: meter.mix(names[key]) for key, meter in meters.items()}


def layout_key(frame: "AudioFrame") -> str:
    return frame.layout.name


def frame_channels(frame: "AudioFrame") -> np.ndarray:
    """float32 (C, S) in [-1, 1]."""
    return to_channels(frame.to_ndarray(), frame.format.is_packed, frame.layout.nb_channels)


@functools.cache
def channel_names(layout: str, count: int) -> tuple[str, ...]:
    """Names of the channels of a layout: FL, FR, FC, LFE, ...; numbers if it has none."""
    import av

    try:
        names = tuple(channel.name for channel in av.AudioLayout(layout).channels)
    except ValueError:
        names = ()
    return names if len(names) == count == len(set(names)) and "NONE" not in names else ()
