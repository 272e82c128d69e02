"""Clips in memory: what is taken, what is refused and why, and windows equal to those of a file."""

import numpy as np
import pytest
import torch
from helpers.media_files import clock, decode_every_frame, voice, write_video

from shared.errors import UserError
from shared.media.decode import decode, decode_windows
from shared.media.inputs import ClipArrays, array_windows

FRAMES = np.zeros((4, 32, 48, 3), np.uint8)


def test_arrays_are_converted_to_one_form():
    clip = ClipArrays(frames=FRAMES, frame_rate=25, waveform=np.zeros(9), rate=16000.0, text=" a ")
    np.testing.assert_allclose(clip.frame_times, [0, 0.04, 0.08, 0.12])
    assert clip.waveform.dtype == np.float32 and clip.rate == 16000 and clip.text == "a"
    planes = torch.from_numpy(FRAMES.transpose(0, 3, 1, 2) / 255)
    tensors = ClipArrays(frames=planes, frame_times=torch.arange(4), waveform=torch.zeros(2, 99), rate=8000)
    assert tensors.frames.shape == FRAMES.shape and tensors.frames.dtype == np.uint8
    assert tensors.waveform.shape == (99,) and tensors.frame_times.tolist() == [0, 1, 2, 3]
    assert ClipArrays().frames is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            {"frames": FRAMES.astype(np.int32), "frame_rate": 25},
            r"frames: got numpy.ndarray of shape .*, int32.* uint8",
        ),
        ({"frames": FRAMES + 0.5 + FRAMES.max() + 1, "frame_rate": 25}, "float pixels lie in"),
        ({"frames": FRAMES[:, :, :, :2], "frame_rate": 25}, "no axis can be the channels"),
        ({"frames": [FRAMES[0], FRAMES[0, :5]], "frame_rate": 25}, "frames: got list: a clip is a NumPy array"),
        ({"frames": FRAMES[:0], "frame_rate": 25}, "no pixels; give None"),
        ({"frames": FRAMES}, "neither is given"),
        ({"frames": FRAMES, "frame_rate": 25, "frame_times": range(4)}, "both is given"),
        ({"frames": FRAMES, "frame_rate": 0}, "frame_rate is 0"),
        ({"frames": FRAMES, "frame_times": [0, 1, 2]}, r"seconds of shape \(4,\)"),
        ({"frames": FRAMES[:3, ..., 0], "frame_rate": 8}, "a gray clip or one RGB image"),
        ({"frames": FRAMES[..., 0], "frame_rate": 8}, "a gray clip or one RGBA image"),
        ({"frames": FRAMES, "frame_times": "abcd"}, "frame_times: got str 'abcd': give seconds"),
        ({"frames": FRAMES, "frame_times": [0, 2, 1, 3]}, "each later than the one before"),
        ({"frame_rate": 25}, "without frames"),
        ({"waveform": np.zeros(9, np.int64), "rate": 16000}, "samples are float in"),
        ({"waveform": np.zeros((9, 9)), "rate": 16000}, "which axis holds the channels"),
        ({"waveform": np.full(9, 3000.0), "rate": 16000}, "values 3000 to 3000: float samples lie in"),
        ({"waveform": np.full(9, np.nan), "rate": 16000}, "must be finite"),
        ({"waveform": np.zeros(9)}, "rate is None"),
        ({"waveform": np.zeros(9), "rate": 16}, "rate is 16"),
        ({"rate": 16000}, "without a waveform"),
        ({"text": ["a"]}, "text: got list: give a string"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:30],
)
def test_input_without_meaning_is_refused_by_name(given, words):
    with pytest.raises(UserError, match=words) as error:
        ClipArrays(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("seconds", "rate"), [(20.0, 8.0), (1.5, 8.0), (1.0, 3.0)])
def test_windows_equal_those_of_the_file(tmp_path, seconds, rate):
    times = np.delete(np.arange(80) / 25, [7, 8, 9, 40])  # 3.2 seconds with gaps
    path = write_video(tmp_path / "a.mp4", clock(times), times, voice(3.5)[None])
    whole = decode(path, 25.0, 100.0)
    frames, at = decode_every_frame(path)
    clip = ClipArrays(frames=frames, frame_times=at, waveform=whole.waveform, rate=whole.sample_rate)
    expected = list(decode_windows(path, rate, seconds))
    windows = list(array_windows(clip, rate, seconds, 480))
    assert len(windows) == len(expected)
    for window, other in zip(windows, expected, strict=True):
        np.testing.assert_array_equal(window.frames, other.frames)
        np.testing.assert_array_equal(window.frame_times, other.frame_times)
        np.testing.assert_array_equal(window.waveform, other.waveform)
        assert window.start == other.start and window.duration == pytest.approx(other.duration, abs=1e-3)
        assert window.more == other.more and window.absence_reasons.keys() == other.absence_reasons.keys()


def test_large_frames_are_reduced_and_missing_parts_are_named():
    clip = ClipArrays(frames=np.zeros((2, 600, 1200, 3), np.uint8), frame_rate=2)
    (window,) = array_windows(clip, 8.0, 20.0, 480)
    assert window.frames.shape[1:] == (240, 480, 3) and window.absence_reasons == {"audio": "no waveform is given"}
    assert window.duration == 1.0 and len(window.frames) == 8
    assert list(array_windows(ClipArrays(text="a"), 8.0, 20.0, 480)) == []
