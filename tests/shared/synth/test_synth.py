"""The synthetic corpus: real files, tables that state the truth, and the same bytes on every machine."""

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import av
import numpy as np
import pytest

from shared.commands.synth import main
from shared.dataset.clip import EMI
from shared.errors import UserError
from shared.synth import clip, face, words
from shared.synth.config import SynthConfig
from shared.synth.corpus import build
from shared.synth.truth import (
    LABEL_RATES,
    Envelope,
    clip_truth,
    draw_labels,
    expected_labels,
    subject_count,
    subject_splits,
)

CLIPS = 12


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """A finished corpus in which every clip is damaged, made by one process."""
    config = SynthConfig(out=tmp_path_factory.mktemp("synth") / "corpus", clips=CLIPS, seed=1, damage=1.0, workers=1)
    build(config)
    return config


@pytest.fixture(scope="module")
def many():
    """The truth of a large corpus, without its media."""
    config = SynthConfig(out=Path("unused"), clips=6000)
    return [clip_truth(config, index) for index in range(6000)]


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def media_of(config):
    return [config.out / row["Filename"] for row in table(config.out / "labels.csv")]


def decode(path):
    """Frames (T, H, W, 3), their times (T,), the waveform (channels, S) or None, its rate."""
    with av.open(str(path)) as container:
        pictures = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound, rate = None, 0
        if container.streams.audio:
            rate = container.streams.audio[0].rate
            sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    return np.stack([p for _, p in pictures]), np.array([t for t, _ in pictures]), sound, rate


def content(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- reproducible -----------------------------------------------------------------------------------------------------


def test_two_workers_and_an_interruption_give_the_same_bytes_as_one(corpus, tmp_path):
    other = SynthConfig(out=tmp_path / "corpus", clips=CLIPS, seed=1, damage=1.0, workers=2)
    clips, notes = other.out / "clips", other.out / "unfinished"
    clips.mkdir(parents=True)
    notes.mkdir()
    shutil.copy(corpus.out / "synth.json", other.out)
    for index in (0, 5):
        clip.write_clip(other, index, clips, notes)
    (notes / "00005.done").unlink()
    np.save(notes / "00005.npy", np.zeros(336, np.float32))  # the mark of an earlier version
    (clips / ".00003.mp4").write_bytes(b"partial file")
    times = {path: path.stat().st_mtime_ns for path in clips.glob("0*")}
    build(other)
    assert content(other.out) == content(corpus.out)
    assert len({path.stem for path in times}) == 2 and {path: path.stat().st_mtime_ns for path in times} == times


def test_other_seed_gives_other_clips(corpus, tmp_path):
    other = SynthConfig(out=tmp_path, clips=CLIPS, seed=2)
    notes = tmp_path / "notes"
    notes.mkdir()
    clip.write_clip(other, 0, tmp_path, notes)
    made = next(path for path in tmp_path.glob("00000.*") if path.suffix != ".txt")
    assert made.read_bytes() != media_of(corpus)[0].read_bytes()


def test_complete_corpus_is_not_touched(corpus, capsys):
    before = content(corpus.out)
    times = {path: path.stat().st_mtime_ns for path in corpus.out.rglob("*")}
    argv = ["--out", str(corpus.out), "--clips", str(CLIPS), "--seed", "1", "--damage", "1.0"]
    assert main(argv) == 0
    assert "already complete" in capsys.readouterr().out
    assert content(corpus.out) == before
    assert {path: path.stat().st_mtime_ns for path in corpus.out.rglob("*")} == times


def test_folder_of_another_configuration_is_refused(corpus, tmp_path):
    with pytest.raises(UserError, match=r"seed 1 instead of 9: choose another --out"):
        build(SynthConfig(out=corpus.out, clips=CLIPS, seed=9, damage=1.0))
    (tmp_path / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(UserError, match=r"files that are not a synthetic corpus; choose another --out"):
        build(SynthConfig(out=tmp_path, clips=CLIPS))
    assert (tmp_path / "holiday.jpg").read_bytes() == b"precious"


@pytest.mark.parametrize("wrong", [{"clips": 2}, {"damage": 1.5}, {"workers": -1}])
def test_impossible_options_are_refused(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        SynthConfig(out=Path("unused"), **wrong)


# --- the truth -------------------------------------------------------------------------------------------------------


def test_labels_have_the_rates_and_skew_of_the_real_dataset(many):
    labels = np.array([t.labels for t in many])
    assert (labels > 0).mean(axis=0) == pytest.approx(LABEL_RATES, abs=0.03)
    present = labels[labels > 0]
    assert np.median(present) < present.mean() < 0.55 and labels.max() <= 1
    for t in many[:200]:
        assert np.allclose(t.labels * t.raters, np.round(t.labels * t.raters)) and 10 <= t.raters <= 24


def test_each_modality_shows_a_part_of_the_truth_and_nothing_absent(many):
    truth = np.array([t.intensities for t in many])
    for name in ("vision", "audio", "text"):
        own = [t for t in many if name != "text" or not t.repeats_line]
        shown, true = (np.array([getattr(t, field) for t in own]) for field in (name, "intensities"))
        assert not shown[true == 0].any()
        suppressed = (shown < 0.3 * true)[true > 0].mean()
        assert 0.03 < suppressed < 0.5
    assert all(0.75 < np.corrcoef(truth[:, k], np.array([t.labels[k] for t in many]))[0, 1] < 0.95 for k in range(6))


def test_clips_of_a_seed_video_resemble_each_other(many):
    truth = np.array([t.intensities for t in many])
    same_seed = np.corrcoef(truth[0::4, 0], truth[1::4, 0])[0, 1]
    other_seed = np.corrcoef(truth[3:-1:4, 0], truth[4::4, 0])[0, 1]
    assert same_seed > 0.3 and abs(other_seed) < 0.1


def test_damage_affects_the_stated_share_and_one_modality_per_clip(many):
    hits = [[bool(kind) for kind in t.damage.values()] for t in many]
    assert np.mean(np.any(hits, axis=1)) == pytest.approx(0.3, abs=0.02) and np.sum(hits, axis=1).max() == 1


@pytest.mark.parametrize("clips", [3, 6, 24, 100, 1000])
def test_every_split_has_subjects_of_its_own(clips):
    splits = subject_splits(0, subject_count(clips))
    assert {"train", "valid", "test"} == set(splits)
    config = SynthConfig(out=Path("unused"), clips=clips)
    truths = [clip_truth(config, i) for i in range(min(clips, 100))]
    assert all(t.split == splits[t.subject] for t in truths)
    if clips <= 100:
        assert {t.split for t in truths} == {"train", "valid", "test"}
    if clips == 1000:
        assert splits.count("train") / len(splits) == pytest.approx(0.7, abs=0.02)


def test_unmet_videos_change_the_test_clips_that_mimic_them_and_no_other():
    plain = SynthConfig(out=Path("unused"), clips=120, seed=3)
    before, after = (
        [clip_truth(config, i) for i in range(120)] for config in (plain, replace(plain, unmet_videos=0.3))
    )
    changed = [i for i in range(120) if before[i].seed_video != after[i].seed_video]
    test = [i for i in range(120) if before[i].split == "test"]
    assert len(test) == 18 and len(changed) == 5 and set(changed) <= set(test)  # round(0.3 x 18)
    assert [before[i].seed_video for i in range(120)] == [i // 4 for i in range(120)]
    assert [after[i].seed_video for i in changed] == [30, 30, 30, 30, 31]  # 30 seed videos are numbered 0 to 29
    for i in range(120):
        assert after[i].split == before[i].split and after[i].subject == before[i].subject
        assert np.array_equal(after[i].intensities, before[i].intensities) == (i not in changed)
        if i not in changed:
            assert np.array_equal(after[i].labels, before[i].labels) and after[i].envelope == before[i].envelope
            assert after[i].damage == before[i].damage and after[i].repeats_line == before[i].repeats_line
    everything = [clip_truth(replace(plain, unmet_videos=1.0), i) for i in range(120)]
    assert not {everything[i].seed_video for i in test} & {t.seed_video for t in everything if t.split != "test"}
    with pytest.raises(UserError, match="no test clips"):
        SynthConfig(out=Path("unused"), unmet_videos=0.3, labels="withheld")


def test_corpus_counts_clips_of_unmet_videos_and_keeps_the_bytes_of_others(tmp_path, capsys):
    for name, more in (("plain", []), ("unmet", ["--unmet_videos", "0.5"])):
        assert main(["--out", str(tmp_path / name), "--clips", "12", "--workers", "1", *more]) == 0
    assert "2 test clips with people and videos in no other split" in capsys.readouterr().out
    plain, unmet = (json.loads((tmp_path / name / "corpus.json").read_text()) for name in ("plain", "unmet"))
    assert "unmet_videos" not in plain["config"] and "unmet_test" not in plain["counts"]
    assert unmet["config"]["unmet_videos"] == 0.5 and unmet["counts"]["unmet_test"] == 2
    old, new = (content(tmp_path / name / "clips") for name in ("plain", "unmet"))
    differ = {name.split(".")[0] for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
    rows = {Path(row["Filename"]).stem: row for row in table(tmp_path / "unmet" / "labels.csv")}
    assert len(differ) == 2 and {rows[name]["split"] for name in differ} == {"test"}
    assert {rows[name]["seed"] for name in differ} == {"seed0003"}


def test_envelope_rises_and_falls():
    envelope = Envelope(duration=3.0, onset=0.5, apex=1.0, offset=2.0, residual=0.2)
    assert envelope.at(np.array([0.0, 0.5, 0.75, 1.0, 2.0, 2.5, 3.0])) == pytest.approx([0, 0, 0.5, 1, 1, 0.6, 0.2])


# --- the files -------------------------------------------------------------------------------------------------------


def test_files_decode_to_the_stated_durations_and_formats(corpus):
    truths = {row["id"]: row for row in table(corpus.out / "truth.csv")}
    suffixes = set()
    for path in media_of(corpus):
        form, row = clip.media_format(corpus, int(path.stem)), truths[path.stem]
        frames, times, sound, rate = decode(path)
        duration = float(row["duration"])
        assert frames.shape[1:3] == form.size[::-1] and (np.diff(times) > 0).all()
        assert duration - 0.5 < times[-1] < duration and times[0] == pytest.approx(0, abs=0.05)
        assert 0 < float(row["onset_time"]) < float(row["apex_time"]) < float(row["offset_time"]) < duration
        if form.variable:
            assert np.ptp(np.diff(times)) > 0.5 / form.frame_rate
        else:
            assert np.diff(times) == pytest.approx(1 / form.frame_rate, abs=0.0015)
        assert (sound is None) == (row["audio_damage"] == "no_track")
        if sound is not None:
            assert sound.shape[1] / rate == pytest.approx(duration, abs=0.1)
        suffixes.add(path.suffix)
    assert suffixes == {".mp4", ".webm"}


def test_recorded_damage_is_in_the_files(corpus):
    counted = 0
    for path, row in zip(media_of(corpus), table(corpus.out / "truth.csv"), strict=True):
        assert path.with_suffix(".txt").is_file() == (row["text_damage"] == "")
        frames, _, sound, _ = decode(path)
        counted += bool(row["vision_damage"]) + bool(row["audio_damage"]) + bool(row["text_damage"])
        if row["audio_damage"] == "silence":
            assert np.abs(sound).max() < 1e-3
        elif row["audio_damage"] == "clipping":
            assert (np.abs(sound) > 0.5).mean() > 0.5
        elif row["audio_damage"] == "":
            assert 1e-3 < np.sqrt(np.mean(sound**2)) < 0.5
        assert (frames.mean() < 16) == (row["vision_damage"] == "darkness")
        if row["vision_damage"] == "no_face":
            assert np.abs(frames[0].astype(int) - frames[-1]).mean() < 4
    assert counted == CLIPS


@pytest.mark.parametrize("kind", ["darkness", "blur", "occlusion", "no_face"])
def test_damage_hides_the_face_from_a_detector(kind):
    import cv2

    from shared.media.damage import damage_frames

    detector = cv2.CascadeClassifier(cv2.data.haarcascades + "haarcascade_frontalface_alt2.xml")
    config = SynthConfig(out=Path("unused"), clips=1000)

    def detection_rate(frames):
        gray = [cv2.cvtColor(f, cv2.COLOR_RGB2GRAY) for f in frames[:: len(frames) // 2]]
        return np.mean([len(detector.detectMultiScale(g, 1.1, 3, minSize=(50, 50))) > 0 for g in gray])

    clean, damaged = [], []
    for index in range(8):
        truth = clip_truth(config, index)
        frames, _ = clip.clean_frames(config, truth, clip.media_format(config, index))
        clean.append(detection_rate(frames))
        damaged.append(detection_rate(damage_frames(frames, kind, np.random.default_rng(index), 0.9)))
    assert np.mean(clean) > 0.85 and np.mean(damaged) < 0.3


def mean_labels(intensities):
    """The average label, by adding up 20,001 equally likely raters' readiness."""
    z = np.array([NormalDist().inv_cdf((i + 0.5) / 20001) for i in range(20001)])
    return np.array([np.clip(i * np.exp(0.35 * z), 0.001, 0.98).mean() for i in intensities])


def test_expected_labels_are_the_mean_of_drawn_ones():
    intensities = np.array([0.0, 0.001, 0.12, 0.5, 0.9, 1.0])
    np.testing.assert_allclose(expected_labels(intensities), mean_labels(intensities), atol=2e-5)
    rng = np.random.default_rng(0)
    drawn = np.mean([draw_labels(intensities, rng)[0] for _ in range(4000)], axis=0)
    np.testing.assert_allclose(drawn, expected_labels(intensities), atol=0.015)


def test_ceiling_of_an_older_corpus_is_brought_up_to_date(corpus, tmp_path):
    """Its clips stay as they are; a folder that cannot be written to is answered all the same."""
    figures = json.loads((corpus.out / "corpus.json").read_text())
    folder = tmp_path / "corpus"
    folder.mkdir()
    shutil.copy(corpus.out / "synth.json", folder)
    older = {key: value for key, value in figures.items() if key != "ceiling_of"}
    older["ceiling"] = {split: {"mean": 0.5, "per_dimension": {}} for split in figures["ceiling"]}
    older["baseline"] = {"pcc": 0.1, "per_dimension": dict.fromkeys(EMI, 0.1), "share_of_ceiling": 0.5}
    (folder / "corpus.json").write_text(json.dumps(older))
    assert build(replace(corpus, out=folder)) == figures
    assert json.loads((folder / "corpus.json").read_text()) == figures
    assert sorted(path.name for path in folder.iterdir()) == ["corpus.json", "synth.json"]


def test_score_of_a_ridge_regression_in_an_older_corpus_is_not_repeated(corpus, tmp_path, capsys):
    """Its corpus.json, whose ceiling is that of today, stays as it is."""
    figures = json.loads((corpus.out / "corpus.json").read_text())
    folder = tmp_path / "corpus"
    folder.mkdir()
    shutil.copy(corpus.out / "synth.json", folder)
    older = json.dumps({**figures, "baseline": {"pcc": None, "strength": None, "share_of_ceiling": None}})
    (folder / "corpus.json").write_text(older)
    argv = ["--out", str(folder), "--clips", str(CLIPS), "--seed", "1", "--damage", "1.0"]
    assert main(argv) == 0
    printed = capsys.readouterr().out
    assert "already complete" in printed and "ceiling: PCC" in printed and "baseline" not in printed
    assert build(replace(corpus, out=folder)) == figures and "baseline" not in figures
    assert (folder / "corpus.json").read_text() == older


def test_tables_match_each_other_and_the_ceiling(corpus):
    labels, truths = table(corpus.out / "labels.csv"), table(corpus.out / "truth.csv")
    figures = json.loads((corpus.out / "corpus.json").read_text())
    assert list(labels[0]) == ["Filename", *EMI, "subject", "seed", "split"]
    assert [Path(row["Filename"]).stem for row in labels] == [row["id"] for row in truths]
    assert figures["format"] == "emit-corpus/1" and figures["counts"]["clips"] == CLIPS == len(labels)
    by_split = {}
    for row in labels:
        by_split.setdefault(row["split"], set()).add(row["subject"])
    assert set(by_split) == {"train", "valid", "test"} and len(set.union(*by_split.values())) == sum(
        len(subjects) for subjects in by_split.values()
    )
    for split in ("all", "train", "valid", "test"):
        rows = [i for i, row in enumerate(labels) if split in ("all", row["split"])]
        for name in EMI:
            x = mean_labels(np.array([float(truths[i][f"true_{name}"]) for i in rows]))
            y = [float(labels[i][name]) for i in rows]
            by_hand = None
            if len(rows) >= 3 and np.std(y):
                by_hand = pytest.approx(np.corrcoef(x, y)[0, 1] if np.std(x) else 0.0, abs=1e-5)
            assert figures["ceiling"][split]["per_dimension"][name] == by_hand
        each = [value for value in figures["ceiling"][split]["per_dimension"].values() if value is not None]
        assert figures["ceiling"][split]["mean"] == (pytest.approx(sum(each) / len(each)) if each else None)


def test_withheld_labels_leave_media_as_they_are_and_give_every_clip_to_training(tmp_path, corpus):
    withheld = SynthConfig(out=tmp_path / "pool", clips=6, labels="withheld", workers=1)
    build(withheld)
    given = SynthConfig(out=tmp_path / "given", clips=6, workers=1)
    build(given)
    rows = table(withheld.out / "labels.csv")
    assert {row["split"] for row in rows} == {"train"} and not any(row[name] for row in rows for name in EMI)
    for path in (given.out / "clips").iterdir():
        assert path.read_bytes() == (withheld.out / "clips" / path.name).read_bytes()
    with pytest.raises(UserError, match="withheld"):
        SynthConfig(out=tmp_path / "other", labels="withheld", layout="vidmimic2")


# --- face and words --------------------------------------------------------------------------------------------------


def test_each_dimension_moves_a_combination_of_units():
    assert np.linalg.matrix_rank(face.ACTION) == 6
    shared_units = (np.abs(face.ACTION) > 0.05).sum(axis=0)
    assert (shared_units[:6] >= 2).all()  # no unit identifies a dimension


def test_only_clips_of_one_seed_video_repeat_a_line(many):
    config = SynthConfig(out=Path("unused"), clips=6000)
    repeating = [t for t in many[:400] if t.repeats_line]
    assert 0.12 < len(repeating) / 400 < 0.28
    lines = {}
    for t in repeating:
        lines.setdefault(t.seed_video, set()).add(clip.clean_transcript(config, t))
    assert all(len(texts) == 1 for texts in lines.values()) and len(lines) < len(repeating)


def test_lines_express_what_is_shown_and_negate_decoys():
    rng = np.random.default_rng(0)
    names = [set(words.THINGS[k]) | set(words.FEELINGS[k]) for k in range(6)]
    negations = ("not", "never", "hardly", "nothing", "nobody", "thought", "supposed", "expected", "should", "call")
    intensities = np.array([0, 0.9, 0, 0, 0, 0])
    lengths, decoys = [], 0
    for _ in range(300):
        text = words.write_line(intensities, ("dog", "on stage"), rng)
        tokens = text.split()
        lengths.append(len(tokens))
        assert any(word in names[1] for word in tokens)
        assert any(degree in text for degree in words.DEGREES[2])
        if any(word in names[k] for word in tokens for k in (0, 2, 3, 4, 5)):
            decoys += 1
            assert any(word in tokens for word in negations)
    assert decoys / 300 == pytest.approx(words.DECOYS, abs=0.1) and np.median(lengths) < 20 and max(lengths) < 35
