"""Precomputed features: the values and times of the pickles, and what is left out."""

import csv
import pickle
import shutil

import cv2
import numpy as np
import pytest
from helpers import tool_files

from shared import config as configuration
from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from shared.media.precomputed_crops import frame_times
from stage2_fusion.commands import encode
from stage2_fusion.commands.encode import EncodeConfig
from stage2_fusion.data.feature_info import read_info
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.data.precomputed import PrecomputedFeatures, feature_names, vision_times

RNG = np.random.default_rng(0)


def write_pickle(root, folder, name, value):
    path = root / folder / f"{name}.pkl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value))


def write_crops(root, name, numbers):
    (root / "face_images" / name).mkdir(parents=True)
    for number in numbers:
        cv2.imwrite(str(root / "face_images" / name / f"{number}.jpg"), np.zeros((8, 8, 3), np.uint8))


@pytest.fixture(scope="module")
def whole(clips):
    """A clip dataset, and the rows of its clips with all modalities."""
    data = ClipDataset.open(clips)
    rows = [i for i in range(len(data)) if len(data[i].frames) > 3 and len(data[i].audio_quality) > 3]
    return data, [row for row in rows if data[row].duration < 15]


@pytest.fixture(scope="module")
def made(clips, whole, tmp_path_factory):
    """The root, {case: clip id}, the pickled arrays, and the feature dataset."""
    root, (data, rows) = tmp_path_factory.mktemp("precomputed") / "root", whole
    names = dict(zip(("both", "test", "huge", "broken", "long"), (data[row].id for row in rows), strict=False))
    values = {
        "vit": RNG.standard_normal((5, 384)).astype(np.float32),
        "wav2vec2": RNG.standard_normal((30, 768)).astype(np.float32),
    }
    for folder, array in values.items():
        write_pickle(root, folder, names["both"], array)
        write_pickle(root / "test_data", folder, names["test"], array + 1)
        write_pickle(root, folder, names["test"], array + 2)
    write_crops(root, names["both"], (0, 2, 3, 7, 9))
    huge = values["vit"].copy()
    huge[3, 7] = 1e5
    write_pickle(root, "vit", names["huge"], huge)
    write_pickle(root, "vit", names["broken"], b"not a pickle")
    write_pickle(root, "wav2vec2", names["broken"], values["wav2vec2"])
    write_pickle(root, "wav2vec2", names["long"], np.zeros((1500, 768), np.float32))  # 30 s
    out = root.parent / "features"
    assert encode.main(["--precomputed", str(root), "--data", str(clips), "--out", str(out)]) == 0
    return root, names, values, out


def test_clip_has_the_values_times_and_quality_of_its_pickles(made, clips):
    _, names, values, out = made
    sample = {s.id: s for s in FeatureDataset.open(out, views=(0,)).samples}[names["both"]]
    data = ClipDataset.open(clips)
    clip = data[data.column("id").index(names["both"])]
    np.testing.assert_array_equal(sample.vision.sequence, values["vit"].astype(np.float16))
    np.testing.assert_array_equal(sample.audio.sequence, values["wav2vec2"].astype(np.float16))
    np.testing.assert_allclose(sample.audio.times, 0.01 + 0.02 * np.arange(30), rtol=1e-6)
    # The clip has ten frames, five of them with crops.
    row_times = np.array([0, 2, 3, 7, 9]) * clip.duration / 10
    np.testing.assert_allclose(sample.vision.times, row_times, rtol=1e-6)
    for t, row in zip(row_times, sample.vision.quality, strict=True):
        times, signals = clip.frame_times, clip.vision_quality
        after = int(np.searchsorted(times, t))
        expected = signals[min(after, len(times) - 1)]
        if 0 < after < len(times):
            share = (t - times[after - 1]) / (times[after] - times[after - 1])
            expected = (1 - share) * signals[after - 1] + share * signals[after]
        np.testing.assert_allclose(row, expected, atol=1e-5)
    # Step 12 of 20 ms is centered on 0.25 s, as signal 2 of 100 ms is; step 14 is two fifths of the way to the next.
    signals = clip.audio_quality
    np.testing.assert_allclose(sample.audio.quality[12], signals[2], atol=1e-5)
    np.testing.assert_allclose(sample.audio.quality[14], 0.6 * signals[2] + 0.4 * signals[3], atol=1e-5)
    assert read_info(out).widths == {"vision": 384, "audio": 768, "text": 1, "embed": 1}
    assert not sample.vision.pooled.any() and sample.text.steps == 0
    np.testing.assert_array_equal(sample.labels, clip.labels)


def test_unusable_pickles_are_masked_and_listed(made, clips):
    _, names, values, out = made
    samples = {s.id: s for s in FeatureDataset.open(out, views=(0,)).samples}
    steps = {k: [samples[name].modality(m).steps for m in ("vision", "audio")] for k, name in names.items()}
    assert steps == {"both": [5, 30], "test": [5, 30], "huge": [0, 0], "broken": [0, 30], "long": [0, 1000]}
    assert samples[names["test"]].vision.sequence[0, 0] == np.float16(values["vit"][0, 0] + 1)
    with (out / "precomputed.csv").open() as file:
        rows = list(csv.DictReader(file))
    reasons = {(row["id"], row["reason"].split(".pkl: ")[0].split("/")[-2]): row["reason"] for row in rows}
    assert "beyond 65504" in reasons[names["huge"], "vit"] and "No such file" in reasons[names["huge"], "wav2vec2"]
    assert "not a readable pickle" in reasons[names["broken"], "vit"]
    assert len(rows) == len(reasons) == 2 * len(samples) - 6


def test_damaged_view_lacks_one_of_several_modalities(made):
    out = made[-1]
    lost = []
    for views in FeatureDataset.open(out).by_clip():
        clean, present = views[0], [m for m in ("vision", "audio") if views[0].modality(m).steps]
        assert sorted(views) == [0, 1, 2, 3] and not any(clean.damage.values())
        for view in (views[1], views[2], views[3]):
            gone = [m for m in present if not view.modality(m).steps]
            assert {m: kind for m, kind in view.damage.items() if kind} == dict.fromkeys(gone, "missing")
            assert len(gone) == (len(present) == 2)
            lost += gone
            for m in set(present) - set(gone):
                np.testing.assert_array_equal(view.modality(m).sequence, clean.modality(m).sequence)
                np.testing.assert_array_equal(view.modality(m).quality, clean.modality(m).quality)
    assert len(lost) == 6 and set(lost) == {"vision", "audio"}


def test_digest_changes_with_values_and_times_but_not_with_the_place(made, clips, tmp_path, capsys):
    root, names, values, out = made
    arguments = ["--data", str(clips), "--out", str(out)]
    copy = tmp_path / "elsewhere"
    shutil.copytree(root, copy)
    encode.main(["--precomputed", str(copy), *arguments])
    assert "nothing to do" in capsys.readouterr().out
    changed = values["wav2vec2"].copy()
    changed[7, 100] += 1  # the file is as large as before
    write_pickle(copy, "wav2vec2", names["both"], changed)
    with pytest.raises(UserError, match="made with other precomputed features"):
        encode.main(["--precomputed", str(copy), *arguments])
    write_pickle(copy, "wav2vec2", names["both"], values["wav2vec2"])
    (copy / "face_images" / names["both"] / "9.jpg").rename(copy / "face_images" / names["both"] / "19.jpg")
    with pytest.raises(UserError, match="made with other precomputed features"):  # other times
        encode.main(["--precomputed", str(copy), *arguments])


def test_crops_have_the_times_of_the_video_frames(corpus, tmp_path):
    video = next(path for path in sorted((corpus / "clips").iterdir()) if path.suffix == ".mp4")
    shown = frame_times(video)
    write_crops(tmp_path, "a", (1, 4, len(shown) - 1))
    folder = tmp_path / "face_images" / "a"
    np.testing.assert_allclose(vision_times(3, folder, video, 99.0), shown[[1, 4, -1]])
    gap = np.median(np.diff(shown))
    spread = np.arange(4) * (shown[-1] + gap) / 4  # four rows but three crops: it is unknown which
    np.testing.assert_allclose(vision_times(4, folder, video, 99.0), spread)
    np.testing.assert_allclose(vision_times(4, None, None, 8.0), [0, 2, 4, 6])


def test_folder_without_features_is_refused(clips, tmp_path):
    with pytest.raises(UserError, match=r"none of \d+ clips has features in vit/ or wav2vec2/ here"):
        PrecomputedFeatures(tmp_path, ClipDataset.open(clips))
    assert not list(tmp_path.iterdir())


def test_encoders_or_precomputed_features_are_required(capsys):
    with pytest.raises(SystemExit):
        configuration.parse(EncodeConfig, ["--data", "d", "--out", "o"], prog="emit encode", example="")
    assert "give --encoders DIR, --precomputed ROOT, or --external NAME=PATH" in capsys.readouterr().err


def test_ids_are_matched_with_the_numbers_of_files_when_one_fits():
    assert feature_names(["7", "8.0", "clips/00009", "ann"]) == ["00007", "00008", "00009", "ann"]
    assert feature_names(["a/1", "b/1", "00002"]) == ["a/1", "b/1", "00002"]


def test_another_tool_replaces_a_modality_that_came_with_the_dataset(made, clips, tmp_path):
    root, names, values, out = made
    for i, name in enumerate(names.values()):
        tool_files.openface(tmp_path / "openface" / f"{name}.csv", 4 + i, np.random.default_rng(i))
    arguments = ["--precomputed", str(root), "--external", f"vision={tmp_path / 'openface'}", "--data", str(clips)]
    assert encode.main([*arguments, "--out", str(tmp_path / "features")]) == 0
    data, before = FeatureDataset.open(tmp_path / "features", views=(0,)), read_info(out)
    samples = {sample.id: sample for sample in data.samples}
    assert [samples[name].vision.steps for name in names.values()] == [4, 5, 6, 7, 8]
    np.testing.assert_array_equal(samples[names["both"]].audio.sequence, values["wav2vec2"].astype(np.float16))
    about = data.info.encoders
    assert (about.precomputed, [*about.external], about.aligned) == (["audio"], ["vision"], None)
    assert data.info.widths == {"vision": 49, "audio": 768, "text": 1, "embed": 1}
    assert about.digest != before.encoders.digest and before.encoders.given == ["vision", "audio"]
