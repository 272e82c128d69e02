"""The log-mel spectrogram, by its definition and on tones."""

import numpy as np
import pytest

from shared.media.spectrogram import MELS, log_mel

MEL_EDGES = np.linspace(1127 * np.log(1 + 60 / 700), 1127 * np.log(1 + 7600 / 700), MELS + 2)


def hertz(mel):
    return 700 * (np.exp(mel / 1127) - 1)


@pytest.mark.parametrize("rate", [16000, 24000])
def test_log_mel_is_the_logarithm_of_triangles_over_the_power_of_windows(rate):
    waveform = np.random.default_rng(0).uniform(-0.5, 0.5, rate // 10).astype(np.float32)
    made = log_mel(waveform, rate)
    size, step = round(0.025 * rate), round(0.01 * rate)
    assert made.shape == ((len(waveform) - size) // step + 1, MELS)
    for t in (0, 3):
        window = waveform[t * step : t * step + size] * (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / (size - 1)))
        for band in (0, 7, MELS - 1):
            low, middle, high = hertz(MEL_EDGES[band : band + 3])
            power = 0.0
            for k in range(size // 2 + 1):
                frequency = k * rate / size
                weight = min((frequency - low) / (middle - low), (high - frequency) / (high - middle))
                if weight > 0:
                    bin_value = window @ np.exp(-2j * np.pi * k * np.arange(size) / size)
                    power += weight * abs(bin_value) ** 2
            assert made[t, band] == pytest.approx(np.log(power + 1e-6), abs=1e-4)


def test_a_tone_is_loudest_in_its_band_and_silence_is_the_floor():
    for band in (12, 25, 38):
        tone = 0.5 * np.sin(2 * np.pi * hertz(MEL_EDGES[band + 1]) * np.arange(8000) / 16000)
        assert (log_mel(tone.astype(np.float32), 16000).argmax(axis=1) == band).all()
    assert log_mel(np.zeros(1600, np.float32), 16000) == pytest.approx(np.log(1e-6))


@pytest.mark.parametrize("samples", [0, 1, 399, 400])
def test_a_waveform_shorter_than_a_window_is_one_step(samples):
    waveform = np.full(samples, 0.1, np.float32)
    padded = np.pad(waveform, (0, 400 - samples))
    assert log_mel(waveform, 16000).shape == (1, MELS)
    assert np.array_equal(log_mel(waveform, 16000), log_mel(padded, 16000))
