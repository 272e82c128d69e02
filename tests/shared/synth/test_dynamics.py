"""Corpora in which order, timing, and damage within a clip matter: what carries the intensity, and what must not."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.ridge_scores import ridge_pcc

from shared.dataset.clip import EMI
from shared.synth import clip
from shared.synth.config import SynthConfig
from shared.synth.corpus import _identity, build
from shared.synth.timing import CARRIED, draw_timing
from shared.synth.truth import clip_truth

RATES = {"vision": 8.0, "audio": 100.0}
"""Steps per second of prepared frames, and of a voice's controls."""


def timing(intensity, seed=0):
    return draw_timing(np.full(6, float(intensity)), np.random.default_rng(seed))


def occupancy(act):
    """Seconds, area, area of the square, way up and down, and strongest level of lines between knots: by hand."""
    width, low, high = np.diff(act.times), np.array(act.levels[:-1]), np.array(act.levels[1:])
    return (
        width[(low > 0) | (high > 0)].sum(),
        (width * (low + high) / 2).sum(),
        (width * (low**2 + low * high + high**2) / 3).sum(),
        np.abs(high - low).sum(),
        max(act.levels),
    )


def statistics(x):
    """What `emit baseline` computes over time: (T, C) to (5 C,)."""
    return np.concatenate([x.mean(0), x.std(0), x.max(0), x.min(0), np.abs(np.diff(x, axis=0)).mean(0)])


@pytest.mark.parametrize("seed", range(8))
def test_every_intensity_shows_the_same_levels_for_the_same_time(seed):
    """Also jointly: expressions of a modality never overlap, so the frames of a clip are the same set."""
    weak, strong = timing(0, seed), timing(1, seed)
    assert weak.duration == strong.duration
    for modality in ("vision", "audio"):
        by_expression = [{act.expression: occupancy(act) for act in t.acts[modality]} for t in (weak, strong)]
        assert by_expression[0].keys() == by_expression[1].keys()
        for expression, of_weak in by_expression[0].items():
            assert by_expression[1][expression] == pytest.approx(of_weak)
        grid = np.arange(0, weak.duration, 1e-3)
        levels = [t.levels(modality, grid) for t in (weak, strong)]  # (T, 6) each
        assert all(((x > 1e-6).sum(axis=1) <= 1).all() for x in levels)
        assert np.abs(levels[0] - levels[1]).max() > 0.7  # and yet other clips
        assert np.sort(levels[0], axis=0) == pytest.approx(np.sort(levels[1], axis=0), abs=0.03)  # frames in any order
        for t, x in zip((weak, strong), levels, strict=True):
            assert min(act.times[0] for act in t.acts[modality]) > 0
            assert max(act.times[-1] for act in t.acts[modality]) < t.duration
            assert x.max() > 0.7


def test_intensity_decides_onset_pause_order_and_lag():
    """By hand: 10 % of 1.2 s to the apex instead of 90 %; 0.14 s of pause instead of 0.55; ..."""
    weak, middle, strong = (timing(intensity) for intensity in (0, 0.5, 1))
    assert weak.cues == pytest.approx((1.08, 0.65, 0.55, 0.3, 1.26, -0.6))
    assert middle.cues == pytest.approx((0.6, 0.395, 0.345, 0.6, 0.7, 0.0))
    assert strong.cues == pytest.approx((0.12, 0.14, 0.14, 0.9, 0.14, 0.6))
    for t in (weak, middle, strong):
        face, voice = ({act.expression: act.times for act in t.acts[m]} for m in ("vision", "audio"))
        names = {name: k for k, name in enumerate(EMI)}
        rise = face[names["Admiration"]]
        assert rise[1] - rise[0] == pytest.approx(t.cues[0]) and rise[2] - rise[0] == pytest.approx(1.2)
        frowns, laughs = face[names["Determination"]], voice[names["Amusement"]]
        assert [frowns[4] - frowns[3], frowns[8] - frowns[7]] == pytest.approx([t.cues[2]] * 2)
        assert [laughs[4] - laughs[3], laughs[8] - laughs[7]] == pytest.approx([t.cues[1]] * 2)
        smile, sadness = face[names["Joy"]], face[names["Empathic Pain"]]
        assert smile[3] - smile[0] == pytest.approx(t.cues[3])
        assert sadness[0] == pytest.approx(smile[3]) and sadness[3] == pytest.approx(smile[4])
        leads = voice[names["Determination"]][0] - face[names["Excitement"]][0]
        assert leads == pytest.approx(t.cues[5])


def test_statistics_over_time_learn_nothing_and_the_timing_everything():
    config = SynthConfig(out=Path("unused"), clips=1200, dynamics=True)
    truths = [clip_truth(config, index) for index in range(config.clips)]
    labels, splits = np.array([t.labels for t in truths]), [t.split for t in truths]
    plain = np.zeros((len(truths), 60))
    for row, t in zip(plain, truths, strict=True):
        parts = [statistics(t.timing.levels(m, np.arange(0, t.duration, 1 / rate))) for m, rate in RATES.items()]
        row[:] = np.concatenate(parts)
    assert abs(ridge_pcc(plain, labels, splits).mean()) < 0.1
    cues = np.array([t.timing.cues for t in truths])
    assert ridge_pcc(cues, labels, splits).mean() > 0.88


def test_face_and_voice_follow_the_acts_and_words_say_nothing():
    config = SynthConfig(out=Path("unused"), clips=40, dynamics=True)
    truth = clip_truth(config, 3)
    form = replace(clip.media_format(config, 3), frame_rate=25.0, variable=False, audio_rate=16000)
    frames, times = clip.clean_frames(config, truth, form)
    at_rest = replace(truth, timing=replace(truth.timing, acts={"vision": (), "audio": ()}))
    rest = clip.clean_frames(config, at_rest, form)[0]
    level = truth.timing.levels("vision", times).max(axis=1)  # (T,)
    assert (frames[level == 0] == rest[level == 0]).all()
    change = np.abs(frames.astype(int) - rest).mean(axis=(1, 2, 3))  # (T,)
    assert change[level > 0.6].min() > 0.3
    sound = clip.clean_waveform(config, truth, 16000)
    levels = truth.timing.levels("audio", np.arange(len(sound)) / 16000)  # (S, 6)
    loud, calm = levels[:, EMI.index("Excitement")] > 0.4, levels.max(axis=1) == 0
    power = [np.mean(sound[rows] ** 2) for rows in (loud, calm)]
    assert power[0] > 1.3 * power[1]
    assert set(CARRIED["text"]) == set() and not truth.text.any() and not truth.repeats_line
    other = replace(truth, intensities=np.ones(6), timing=timing(1))
    assert clip.clean_transcript(config, other) == clip.clean_transcript(config, truth)


def test_options_that_are_not_used_leave_the_identity_of_a_corpus_alone():
    plain, dynamic = (_identity(SynthConfig(out=Path("unused"), dynamics=on)) for on in (False, True))
    assert set(plain) == {"version", "clips", "seed", "damage"} and dynamic == plain | {"dynamics": True}


def test_damage_in_turns_leaves_one_of_face_and_voice_intact_at_any_time():
    config = SynthConfig(out=Path("unused"), clips=40, damage=1.0, damage_spans=True)
    plain = replace(config, damage_spans=False)
    for index in range(0, 40, 8):
        truth, form = clip_truth(config, index), clip.media_format(config, index)
        grid = np.arange(0, truth.duration - 1e-6, 0.01)
        hit = {m: sum(s.holds(grid).astype(int) for s in truth.damage_spans if s.modality == m) for m in CARRIED}
        assert (hit["vision"] + hit["audio"] == 1).all() and truth.damage["text"] == ""
        assert truth.envelope == clip_truth(plain, index).envelope  # the same clip otherwise
        made, (frames, times) = clip.make_clip(config, truth, form), clip.clean_frames(config, truth, form)
        damaged = np.interp(times, grid, hit["vision"]) > 0.5
        assert (made.frames != frames).any(axis=(1, 2, 3)).tolist() == damaged.tolist()
        sound = clip.clean_waveform(config, truth, form.audio_rate)
        changed = made.channels[:, 0] != sound  # (S,)
        inside = np.interp(np.arange(len(sound)) / form.audio_rate, grid, hit["audio"])  # (S,)
        assert changed[inside == 1].mean() > 0.9 and not changed[inside == 0].any()


def test_truth_states_timing_and_spans(tmp_path):
    config = SynthConfig(out=tmp_path / "corpus", clips=3, damage=1.0, dynamics=True, damage_spans=True, workers=1)
    build(config)
    with (config.out / "truth.csv").open() as file:
        rows = list(csv.DictReader(file))
    for index, row in enumerate(rows):
        truth = clip_truth(config, index)
        assert [float(row[f"timing_{name}"]) for name in EMI] == pytest.approx(truth.timing.cues, abs=1e-6)
        assert float(row["duration"]) == truth.duration and row["apex_time"] == ""
        spans = [tuple(map(float, part.split("-"))) for part in row["vision_damage_spans"].split()]
        expected = [(s.start, s.end) for s in truth.damage_spans if s.modality == "vision"]
        assert np.array(spans) == pytest.approx(np.array(expected), abs=6e-4)
