"""Reading clip datasets."""

import pickle

import numpy as np
import pytest
from helpers.media_files import face, voice, write_video, write_wav

from shared.commands.prepare import main
from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from shared.media.quality import vision_quality


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("dataset")
    (place / "in").mkdir()
    for i in range(4):
        write_wav(place / "in" / f"{i}.wav", voice(0.5 + i / 10, seed=i)[None])
    write_video(place / "in" / "4.mp4", np.stack([face(mouth=m) for m in np.linspace(0, 1, 20)]), sound=voice(1)[None])
    table = ["file,valence,actor,split", *(f"{i}.wav,{i / 4 if i else ''},p{i % 2},train" for i in range(4))]
    (place / "in" / "labels.csv").write_text("\n".join([*table, "4.mp4,1,p0,valid"]))
    assert main([str(place / "in"), "--out", str(place / "out"), "--sample_rates", "[16000, 48000]"]) == 0
    return place / "out"


def test_splits_are_opened_by_name(folder):
    everything, train, valid = (ClipDataset.open(folder, split) for split in (None, "train", "valid"))
    assert (len(everything), len(train), len(valid)) == (5, 4, 1) and len(ClipDataset.open(folder, "")) == 5
    assert valid[0].id == "4" and valid.column("id") == ["4"] and train.column("id") == list("0123")
    assert [clip.id for clip in train] == list("0123") and train[-1].id == "3"
    with pytest.raises(UserError, match="splits here: train, valid"):
        ClipDataset.open(folder, "tset")
    with pytest.raises(IndexError):
        train[4]


def test_labels_and_columns_are_read(folder):
    clips = ClipDataset.open(folder)
    assert clips.label_names == ["valence"] and clips.labels().dtype == np.float32
    np.testing.assert_array_equal(clips.labels(), np.float32([[np.nan], [0.25], [0.5], [0.75], [1]]))
    np.testing.assert_array_equal(clips[3].labels, np.float32([0.75]))
    assert clips.column("group_actor") == ["p0", "p1", "p0", "p1", "p0"] and clips[1].groups == {"actor": "p1"}
    with pytest.raises(UserError, match="no column 'actor'"):
        clips.column("actor")


def test_waveform_is_stored_exactly(folder):
    clips = ClipDataset.open(folder)
    for i in range(4):
        sound = np.round(voice(0.5 + i / 10, seed=i) * 32768) / 32768
        np.testing.assert_array_equal(clips[i].waveform, sound.astype(np.float32))
        np.testing.assert_array_equal(clips.waveform(i, 16000), clips[i].waveform)
        assert len(clips.waveform(i, 48000)) == 3 * len(sound)
    with pytest.raises(UserError, match="not at 44100"):
        clips.waveform(0, 44100)


def test_frames_and_their_quality_are_stored(folder):
    clip = ClipDataset.open(folder)[4]
    assert clip.frames.shape == (7, 96, 96, 3) and clip.frames.dtype == np.uint8
    np.testing.assert_allclose(clip.frame_times, np.arange(7) / 8)
    assert clip.vision_quality[:, 0].all()
    # The drawn face fills the middle of the crop: skin there, red first, and the mouth opens over time.
    nose = clip.frames[:, 40:56, 40:56].mean(axis=(1, 2))  # (T, 3)
    assert (np.abs(nose - (225, 180, 150)) < 45).all()
    again = vision_quality(clip.frames, clip.vision_quality[:, 0] > 0.5)
    np.testing.assert_array_equal(again, clip.vision_quality)  # computed from the stored crops


def test_dataset_is_pickled_by_reference(folder):
    clips = ClipDataset.open(folder, "valid")
    copy = pickle.loads(pickle.dumps(clips))
    np.testing.assert_array_equal(copy[0].frames, clips[0].frames)
    assert len(pickle.dumps(clips)) < 100_000


def test_other_folder_is_an_error(folder, tmp_path):
    with pytest.raises(UserError, match="emit prepare"):
        ClipDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": "other/1"}')
    with pytest.raises(UserError, match="other/1"):
        ClipDataset.open(tmp_path)
    (tmp_path / "dataset.json").write_text((folder / "dataset.json").read_text())
    with pytest.raises(UserError, match="arrow is missing since the folder was saved"):
        ClipDataset.open(tmp_path)
