"""What a prediction rests on: a row by hand, also of features and of a model of an earlier version."""

import csv
import io

import numpy as np
import pytest

from shared.media.quality import AUDIO_QUALITY, TEXT_QUALITY, VISION_QUALITY
from stage2_fusion.inference import StepExplanation
from stage2_fusion.prediction.basis import COLUMNS, NOT_KNOWN, unlike_line
from stage2_fusion.prediction.familiarity import ClipFamiliarity, Familiarity
from stage2_fusion.prediction.result import Window
from stage2_fusion.prediction.window_basis import basis_of

SIGNALS = {"vision": list(VISION_QUALITY), "audio": list(AUDIO_QUALITY), "text": list(TEXT_QUALITY)}


def window(start: float, transcript: str = "so very good", **values) -> Window:
    """Of 2 s, with a face in one of two pictures, speech half of the time at 20 dB, and three words."""
    vision = np.zeros((2, 5), np.float32)
    vision[0, 0] = 1
    audio = np.zeros((4, 5), np.float32)
    audio[:, SIGNALS["audio"].index("snr")] = 0.5
    audio[:2, SIGNALS["audio"].index("speech")] = 1
    text = np.array([[1, 2 / 6]], np.float32)  # log2(1 + 3) / 6
    steps = StepExplanation(np.array([[0.5, 0.25, 0.25], [0.7, 0.0, 0.3]], np.float32), None, None)
    quality = {"vision": vision, "audio": audio, "text": text}
    return Window("a", start, start + 2, np.zeros(2), steps, quality, transcript, **values)


def row(*windows: Window, transcribed: bool = False) -> dict[str, str]:
    return dict(zip(COLUMNS, basis_of(windows, SIGNALS, None, transcribed).row("a"), strict=True))


def test_row_counts_what_was_read_over_all_windows():
    cells = row(window(0), window(2))
    expected = {"Filename": "a", "seconds": "4.000", "frames": "4", "frames_with_face": "2", "speech": "0.500"}
    expected |= {"snr_db": "20.0", "words": "3", "transcribed": "no", "weight_vision": "0.600", "weight_audio": "0.250"}
    assert {name: cells[name] for name in expected} == expected
    assert cells["unlike"] == "not known" and cells["percentile"] == cells["distance_vision"] == ""
    assert row(window(0), transcribed=True)["transcribed"] == "yes"
    assert next(csv.reader(io.StringIO(",".join(COLUMNS))))[0] == "Filename"


def test_number_of_words_of_encoded_clips_is_not_known():
    cells = row(window(0, transcript=""))
    assert cells["words"] == cells["transcribed"] == ""


def test_absent_modalities_are_empty_cells():
    clip = window(0)
    clip.quality = {"text": clip.quality["text"]}
    clip.steps.weights[:, :2] = 0
    cells = row(clip)
    assert cells["frames"] == "0" and cells["speech"] == cells["snr_db"] == cells["frames_with_face"] == ""
    assert cells["weight_vision"] == "" and cells["weight_text"] != ""


@pytest.mark.parametrize(("count", "words"), [(0, ""), (1, "1 of 5 clips is unlike"), (4, "c0 (picture), c1")])
def test_unlike_clips_are_named_in_a_line(count, words):
    known, few = (
        Familiarity({}, {}, np.zeros((0, 6)), np.zeros(0, int), np.zeros((people, 6)), np.arange(people))
        for people in (60, 3)
    )
    bases = {}
    for i in range(5):
        about = ClipFamiliarity({}, 99.0, ["picture"] if i < count else [])
        part = basis_of([window(0)], SIGNALS, None, False)
        bases[f"c{i}"] = type(part)(**{**vars(part), "familiarity": about})
    line = unlike_line(bases, known)
    assert words in line and bool(line) == bool(count) and ("and 1 more" in line) == (count == 4)
    assert not count or "2%" in line
    assert unlike_line(bases, None) == NOT_KNOWN
    assert "not known (3 people or groups in validation; 19 are needed)" in unlike_line(bases, few)
