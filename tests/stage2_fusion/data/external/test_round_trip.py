"""Features of other tools, in the formats in which they write them, through `emit encode --external`."""

import csv

import numpy as np
import pytest
from helpers import tool_files

from shared.dataset.clip_dataset import ClipDataset
from shared.media.quality import AUDIO_QUALITY, VISION_QUALITY
from stage2_fusion.commands import encode
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.data.features import FeatureDataset


def encoded(clips, out, *external, more=()):
    words = [word for each in external for word in ("--external", each)]
    arguments = [*words, "--data", str(clips), "--out", str(out), "--damaged_views", "0", *map(str, more)]
    assert encode.main(arguments) == 0
    return {sample.id: sample for sample in FeatureDataset.open(out, views=(0,)).samples}


def listing(out):
    with (out / "external.csv").open() as file:
        return [tuple(row.values()) for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def ids(clips):
    """The ids of the first clips, and all durations."""
    data = ClipDataset.open(clips)
    return data.column("id"), data.column("duration")


def test_openface_keeps_values_times_and_confidence(clips, ids, tmp_path, capsys):
    rng, (names, _) = np.random.default_rng(0), ids
    folder = tmp_path / "openface"
    whole = tool_files.openface(folder / f"{names[0]}.csv", 30, rng)
    part = tool_files.openface(folder / f"{names[1]}.csv", 20, rng, rate=29.97, lost=(0, 7))
    tool_files.openface(folder / f"{names[2]}.csv", 5, rng, lost=range(5))
    tool_files.openface(folder / "stranger.csv", 5, rng)
    (folder / f"{names[3]}.csv").write_text("frame, face_id, timestamp, confidence, success, AU01_r\n")
    samples = encoded(clips, tmp_path / "features", f"vision={folder}")

    first = samples[names[0]].vision
    expected = np.stack([whole[name] for name in tool_files.OPENFACE], axis=1)
    np.testing.assert_array_equal(first.sequence, expected.astype(np.float32))
    np.testing.assert_allclose(first.times, np.arange(30) / 25, atol=1e-6)
    np.testing.assert_allclose(first.quality[:, -1], whole["confidence"], atol=1e-6)
    kept = [i for i in range(20) if i not in (0, 7)]
    np.testing.assert_array_equal(samples[names[1]].vision.sequence[:, 14], part["AU01_r"][kept].astype(np.float32))
    np.testing.assert_allclose(samples[names[1]].vision.times, part["timestamp"][kept], atol=1e-6)
    assert {name for name, sample in samples.items() if sample.vision.steps} == {names[0], names[1]}
    assert not any(sample.audio.steps or sample.text.steps for sample in samples.values())

    info = read_info(tmp_path / "features")
    assert info.quality["vision"] == [*VISION_QUALITY, "confidence"] and info.quality["audio"] == list(AUDIO_QUALITY)
    assert info.encoders.external["vision"].columns == tool_files.OPENFACE and info.widths["vision"] == 49
    assert info.external["vision"].clips == 2 and 25 <= info.external["vision"].rate <= 30
    rows = listing(tmp_path / "features")
    reasons = {(clip, source.rpartition("/")[2]): reason for _, clip, source, reason in rows}
    assert reasons["", "stranger.csv"] == "no clip is called stranger"
    assert reasons["", f"{names[3]}.csv"] == "a header without rows; make it again"
    assert reasons[names[1], f"{names[1]}.csv"] == "2 of 20 rows left out: 2 without success"
    assert reasons[names[2], f"{names[2]}.csv"] == "all rows left out: 5 without success"
    assert reasons[names[4], ""] == "no features; the modality is missing"
    assert len([row for row in rows if row[1] and not row[2]]) == len(names) - 3
    said = capsys.readouterr().out
    assert "vision: 49 channels of OpenFace (gaze_0_x, gaze_0_y, gaze_0_z and 46 more)" in said
    assert (
        "1 file not read, 1 source without a clip, 37 clips without features, 2 clips with rows left out, 7 of" in said
    )


def test_opensmile_descriptors_and_functionals_of_both_writers(clips, ids, tmp_path):
    rng, (names, durations) = np.random.default_rng(1), ids
    wide = {name: np.abs(rng.normal(0, [1, 9, 40, 3e6], (50, 4))).astype(np.float32) for name in names[:2]}
    for name in names[:2]:  # one file a clip, without -instname; variances exceed half precision
        tool_files.smilextract(tmp_path / "lld" / f"{name}.csv", {"unknown": wide[name]}, tool_files.LLD)
    samples = encoded(clips, tmp_path / "a", f"audio={tmp_path / 'lld'}")
    for name in names[:2]:
        np.testing.assert_allclose(samples[name].audio.sequence, wide[name], rtol=1e-6)
        np.testing.assert_allclose(samples[name].audio.times, np.arange(50) * 0.01, atol=1e-6)
    info = read_info(tmp_path / "a")
    assert info.external["audio"].rate == pytest.approx(100) and info.encoders.external["audio"].title == "openSMILE"

    one = {name: rng.normal(20, 5, (1, 3)).astype(np.float32) for name in names[:4]}
    tool_files.smilextract(tmp_path / "all.csv", one, tool_files.FUNCTIONALS)  # appended to one file
    samples = encoded(clips, tmp_path / "b", f"audio={tmp_path / 'all.csv'}")
    for name, duration in zip(names[:4], durations, strict=False):
        held = 1 if duration <= 2 else 2  # the row stands for all seconds of the clip
        np.testing.assert_allclose(samples[name].audio.sequence, np.repeat(one[name], held, axis=0), rtol=1e-6)
        np.testing.assert_allclose(samples[name].audio.times, (np.arange(held) + 0.5) * duration / held, rtol=1e-6)
    assert sum(sample.audio.steps > 0 for sample in samples.values()) == 4
    assert read_info(tmp_path / "b").external["audio"].rate is None

    paths = {f"/data/wav/{name}.wav": wide[name] for name in names[:2]}
    tool_files.opensmile_package(tmp_path / "package.csv", paths, tool_files.LLD, hop=0.01, size=0.02)
    samples = encoded(clips, tmp_path / "c", f"audio={tmp_path / 'package.csv'}")
    for name in names[:2]:
        np.testing.assert_allclose(samples[name].audio.sequence, wide[name], rtol=1e-6)
        np.testing.assert_allclose(samples[name].audio.times, 0.01 + np.arange(50) * 0.01, atol=1e-6)


def test_pyfeat_rows_are_timed_by_their_frames(clips, ids, tmp_path):
    rng, (names, _) = np.random.default_rng(2), ids
    made = tool_files.pyfeat(tmp_path / "feat" / "one.csv", f"videos/{names[0]}.mp4", 80, 29.97, rng, lost=(3, 4))
    samples = encoded(clips, tmp_path / "features", f"vision={tmp_path / 'feat'}")
    part = samples[names[0]].vision
    kept = [i for i in range(80) if i not in (3, 4)]
    columns = read_info(tmp_path / "features").encoders.external["vision"].columns
    assert columns[:4] == ["Pitch", "Roll", "Yaw", "AU01"] and columns[-1] == "neutral" and len(columns) == 29
    np.testing.assert_allclose(part.sequence, made.loc[kept, columns].to_numpy(np.float32), rtol=1e-5)
    np.testing.assert_allclose(part.quality[:, -1], made.loc[kept, "FaceScore"], rtol=1e-5)
    np.testing.assert_allclose(part.times, np.array(kept) / 29.97, rtol=0.01)  # approx_time is in whole seconds


@pytest.mark.parametrize("lengths", [True, False], ids=["unaligned", "aligned"])
@pytest.mark.parametrize("front", [False, True], ids=["padded_behind", "padded_in_front"])
def test_mmsa_pickle_gives_every_modality_without_its_padding(lengths, front, clips, ids, tmp_path):
    rng, (names, durations) = np.random.default_rng(3), ids
    widths = {"vision": 20, "audio": 5, "text": 16}
    made = {
        name: {
            each: rng.normal(size=(count + i, width))
            for (each, width), count in zip(widths.items(), (9, 30, 4), strict=True)
        }
        for i, name in enumerate(names[:6])
    }
    keys = {name: f"{name}" if i < 4 else f"folder$_${name}" for i, name in enumerate(names[:6])}
    parts = [names[:3], names[3:4], names[4:6]]
    splits = {
        split: {keys[name]: made[name] for name in part}
        for split, part in zip(("train", "valid", "test"), parts, strict=True)
    }
    tool_files.mmsa(tmp_path / "unaligned_50.pkl", splits, lengths, front)
    pickle = tmp_path / "unaligned_50.pkl"
    samples = encoded(clips, tmp_path / "f", *(f"{name}={pickle}" for name in widths))
    info = read_info(tmp_path / "f")
    for name, duration in zip(names[:6], durations, strict=False):
        for each in widths:
            part, values = samples[name].modality(each), made[name][each].astype(np.float32)
            np.testing.assert_array_equal(part.sequence, values)
            if each != "text":
                spread = (np.arange(len(values)) + 0.5) * duration / len(values)
                np.testing.assert_allclose(part.times, spread, rtol=1e-5)
    assert info.widths == {**widths, "embed": 1}
    assert sum(sample.vision.steps > 0 for sample in samples.values()) == 6


def test_table_with_a_row_a_clip_leaves_its_labels_out(clips, ids, tmp_path, capsys):
    names, durations = ids
    rows = [f"some/where/{name}.mp4,3,{i}.5,{i * 2},0.{i},0.4" for i, name in enumerate(names[:5])]
    rows[3] = rows[3].replace(",6,", ",,")
    path = tmp_path / "units.csv"
    path.write_text("path,actor,AU01_r,AU02_r,Joy,start\n" + "\n".join([*rows, "nobody.mp4,1,1,1,0.1,0"]) + "\n")
    samples = encoded(clips, tmp_path / "f", f"vision={path}")
    assert read_info(tmp_path / "f").encoders.external["vision"].columns == ["AU01_r", "AU02_r"]
    for i, name in enumerate(names[:5]):
        assert np.unique(samples[name].vision.sequence, axis=0).tolist() == [[i + 0.5, i * 2]][: int(i != 3)]
    reasons = [reason for *_, reason in listing(tmp_path / "f")]
    assert "no clip is called nobody.mp4" in reasons and "all rows left out: 1 not finite" in reasons
    assert "columns that are labels of the clips are no features: Joy" in reasons
    wide = encoded(clips, tmp_path / "g", f"vision={path}", more=["--external_columns", "{vision: [AU02_r]}"])
    steps = wide[names[1]].vision
    assert np.unique(steps.sequence).tolist() == [2.0] and steps.times.mean() == pytest.approx(durations[1] / 2)


def test_arrays_keep_the_times_that_stand_beside_them(clips, ids, tmp_path):
    import torch
    from safetensors.torch import save_file

    rng, (names, durations) = np.random.default_rng(4), ids
    folder = tmp_path / "arrays"
    folder.mkdir()
    values = [rng.normal(size=(6, 7)).astype(np.float32) for _ in range(5)]
    values[0][2, 3] = np.inf
    np.save(folder / f"{names[0]}.npy", values[0])
    times = np.array([0.0, 0.2, 0.1, 0.9, 1.5, 0.7])
    score = np.linspace(0.5, 1, 6)
    np.savez(folder / f"{names[1]}.npz", features=values[1].astype(">f8"), times=times)
    np.savez(folder / f"{names[2]}.npz", embeddings=values[2][None], fps=np.int64(10))
    save_file({"x": torch.tensor(values[3]).bfloat16()}, folder / f"{names[3]}.safetensors")
    np.savez(folder / f"{names[4]}.npz", features=values[4], confidence=score)
    samples = encoded(clips, tmp_path / "f", f"audio={folder}")
    finite = [0, 1, 3, 4, 5]
    np.testing.assert_array_equal(samples[names[0]].audio.sequence, values[0][finite])
    np.testing.assert_allclose(samples[names[0]].audio.times, (np.array(finite) + 0.5) * durations[0] / 6, rtol=1e-5)
    np.testing.assert_array_equal(samples[names[1]].audio.sequence, values[1][np.argsort(times)])
    np.testing.assert_allclose(samples[names[1]].audio.times, np.sort(times), rtol=1e-6)
    np.testing.assert_allclose(samples[names[2]].audio.times, np.arange(6) / 10 + 0.05, rtol=1e-6)
    np.testing.assert_allclose(samples[names[3]].audio.sequence, values[3], rtol=0.01)
    assert samples[names[4]].audio.steps == 6 and samples[names[4]].audio.quality.shape == (6, len(AUDIO_QUALITY))

    np.savez(tmp_path / "all.npz", **{name: values[i][:, :2] for i, name in enumerate(names[1:4], 1)})
    samples = encoded(clips, tmp_path / "g", f"text={tmp_path / 'all.npz'}")
    np.testing.assert_array_equal(samples[names[2]].text.sequence, values[2][:, :2])
    assert samples[names[2]].text.times.shape == (0,) and samples[names[2]].text.quality.shape == (6, 2)
