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
    assert "2 sources without a clip" in said and "7 of 55 rows left out" in said
