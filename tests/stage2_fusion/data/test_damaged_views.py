"""Damaged views: what their quality signals say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shared.dataset.clip_dataset import ClipSample
from shared.dataset.recipe import Recipe
from shared.media.damage import VISION_DAMAGE, damage_frames
from shared.media.faces import FaceDetector, crop_clip, load_detector
from shared.media.quality import AUDIO_QUALITY, VISION_QUALITY, audio_quality, text_quality, vision_quality
from shared.synth.clip import clean_frames, media_format
from shared.synth.config import SynthConfig
from shared.synth.truth import clip_truth
from stage2_fusion.data import damaged_views
from stage2_fusion.data.damaged_views import damaged_view, still_found

RECIPE = Recipe(face_every=1)


class Bright(FaceDetector):
    """Sees a face in the middle of every picture that is bright in the middle."""

    def detect(self, frame: np.ndarray, thorough: bool = False) -> np.ndarray:
        x = len(frame) / 2
        bright = frame[len(frame) // 2, len(frame) // 2].mean() > 100
        return np.array([[x, x, x]] * bright, np.float32).reshape(-1, 3)


@pytest.fixture
def bright(monkeypatch) -> None:
    monkeypatch.setattr(damaged_views, "load_detector", lambda name: Bright())


def crops(middles: list[int]) -> np.ndarray:
    """Gray crops of this brightness, uint8 (T, 16, 16, 3)."""
    return np.stack([np.full((16, 16, 3), value, np.uint8) for value in middles])


def test_face_is_lost_where_the_detector_loses_it(bright):
    every = np.ones(8, bool)
    clean = crops([200] * 6 + [0, 0])  # in the last two crops the detector finds none, whoever made them did
    damaged = crops([200, 200, 200, 0, 0, 0, 0, 0])
    expected = np.array([1, 1, 1, 0, 0, 0, 1, 1], bool)
    np.testing.assert_array_equal(still_found(every, clean, damaged, RECIPE), expected)
    np.testing.assert_array_equal(still_found(every, clean, clean, RECIPE), every)
    before = np.array([0, 1] * 4, bool)  # a face that was not found before is not found after
    np.testing.assert_array_equal(still_found(before, clean, damaged, RECIPE), before & expected)


def test_the_detector_loses_drawn_faces_behind_damage_and_in_no_clean_crop():
    config, recipe, rng = SynthConfig(out=Path(), clips=12), Recipe(frame_size=64), np.random.default_rng(0)
    frames, _ = clean_frames(config, clip_truth(config, 3), media_format(config, 3))
    clean, track = crop_clip(frames[:24], recipe.face_every, load_detector(recipe.detector), 8.0, 64)
    assert track.detected.all()
    np.testing.assert_array_equal(still_found(track.detected, clean, clean, recipe), track.detected)
    for kind in VISION_DAMAGE:
        hidden = damage_frames(clean, kind, rng, 1.0)
        assert still_found(track.detected, clean, hidden, recipe).mean() < 0.2, kind
    assert still_found(track.detected, clean, damage_frames(clean, "darkness", rng, 0.05), recipe).all()


@pytest.fixture
def clip() -> ClipSample:
    frames, waveform = crops([200] * 6), np.random.default_rng(0).normal(0, 0.1, 16000).astype(np.float32)
    return ClipSample(
        id="c",
        split="train",
        transcript="so so",
        duration=1.0,
        labels=np.zeros(2, np.float32),
        groups={},
        frames=frames,
        frame_times=np.arange(6, dtype=np.float32) / 6,
        waveform=waveform,
        vision_quality=vision_quality(frames, np.ones(6, bool)),
        audio_quality=audio_quality(waveform, 16000),
        text_quality=text_quality("so so"),
    )


def test_quality_signals_are_those_of_the_damaged_input(clip, bright):
    kinds = set()
    for number in range(1, 60):
        view = damaged_view(clip, number, 16000, 0, RECIPE)
        kinds |= {view.damage["vision"], view.damage["audio"], view.damage["text"]}
        if view.damage["vision"]:
            found = still_found(np.ones(6, bool), clip.frames, view.clip.frames, RECIPE)
            np.testing.assert_array_equal(view.clip.vision_quality, vision_quality(view.clip.frames, found))
        if view.damage["vision"] == "darkness":
            assert not view.clip.vision_quality[:, VISION_QUALITY.index("face_found")].any()
        if view.damage["audio"] == "silence":
            assert not view.clip.audio_quality[:, AUDIO_QUALITY.index("level")].any()
        if view.damage["text"]:
            assert view.clip.transcript == "" and not view.clip.text_quality.any()
        raw = damaged_view(clip, number, 16000, 0, None).clip  # the same damage without the search for faces
        np.testing.assert_array_equal(raw.frames, view.clip.frames)
        np.testing.assert_array_equal(raw.waveform, view.clip.waveform)
    assert {"darkness", "silence", "missing"} <= kinds
    assert clip.transcript and clip.waveform.any() and (clip.frames == 200).all()  # the clip itself is not changed


def test_words_alone_are_left_alone(clip, bright):
    """Without them nothing would be left of the clip."""
    alone = replace(clip, frames=clip.frames[:0], waveform=clip.waveform[:0])
    for number in range(1, 9):
        view = damaged_view(alone, number, 16000, 0, RECIPE)
        assert view.clip is alone and not any(view.damage.values())
