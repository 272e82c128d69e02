"""Which clips a file or a folder holds, and what is theirs."""

import pickle
from collections import OrderedDict, defaultdict

import numpy as np
import pytest
from helpers import tool_files
from helpers.tool_files import GOOD, Clips, read, reasons, refused


@pytest.mark.parametrize(
    "content",
    [
        {"a": GOOD, "b": GOOD[:2]},
        {"a": {"audio": GOOD, "vision": GOOD[:, :2]}, "b": {"audio": GOOD[:2]}},
        {"train": {"id": [b"a"], "audio": GOOD[None]}, "test": {"id": ["v$_$b"], "audio": GOOD[None, :2]}},
        {"a": GOOD.tolist(), "b": [*GOOD[:2]]},
        OrderedDict(a=GOOD, b=GOOD[:2]),
        defaultdict(list, a=[*GOOD], b=[*GOOD[:2]]),
        defaultdict(dict, a={"audio": GOOD}, b={"audio": GOOD[:2]}),
        [{"id": "b", "audio": GOOD[:2], "label": 1}, {"id": "a", "audio": GOOD}, {"id": "c", "vision": GOOD}],
        {"train": [{"name": "a", "features": GOOD}], "dev": [{"name": "b", "features": GOOD[:2]}]},
        {"id": ["a", "b"], "features": [GOOD, GOOD[:2]]},
        {"a": {"features": GOOD}, "b": {"features": GOOD[:2]}},
    ],
    ids=[
        *("arrays", "modalities", "ids in bytes", "lists of rows", "ordered", "collected rows", "collected modalities"),
        *("list", "lists of splits", "any modality", "any modality by clip"),
    ],
)
def test_pickled_dictionaries_of_clips(content, tmp_path):
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(content))
    features = read(tmp_path / "f.pkl")
    np.testing.assert_array_equal(features.read(0)["audio"].values, GOOD)
    np.testing.assert_array_equal(features.read(1)["audio"].values, GOOD[:2])


@pytest.mark.parametrize(
    "text",
    [
        ",x\n00012,1\n00007,2\n",  # an index of pandas
        "id,Filename,x\n0,00012.mp4,1\n1,00007.mp4,2\n",  # a count of the rows beside the names
        "Filename,id,x\nvideos/00012.mp4,1,1\nvideos/00007.mp4,2,2\n",
        "clip,x,label,class\n12,1,5,3\n7,2,6,4\n",  # what somebody wants to be predicted
        "id,x\n012.0,1\n7,2\n",
    ],
    ids=["index", "counted", "counted behind", "labels", "numbers"],
)
def test_column_that_names_the_clips_is_found(text, tmp_path):
    (tmp_path / "t.csv").write_text(text)
    features = read(tmp_path / "t.csv", clips=Clips("00000", "00001", "00007", "00012"))
    assert features.columns == ("x",) and features.present["audio"].tolist() == [False, False, True, True]
    assert [features.read(row)["audio"].values.tolist() for row in (2, 3)] == [[[2]], [[1]]]


def test_index_of_frames_names_no_clips(tmp_path):
    """What remains of a count when somebody has left rows out."""
    (tmp_path / "a.csv").write_text(",x\n3,1\n5,2\n9,3\n")
    assert read(tmp_path, clips=Clips("a", "3", "5")).present["audio"].tolist() == [True, False, False]


def test_archives_of_several_clips_lie_in_a_folder(tmp_path):
    np.savez(tmp_path / "first.npz", a=GOOD, b=GOOD[:2])
    np.savez(tmp_path / "second.npz", c=GOOD[:3], d=GOOD[:1])
    features = read(tmp_path)
    assert [len(features.read(row)["audio"].values) for row in range(4)] == [4, 2, 3, 1]


@pytest.mark.parametrize("shape", [(2, 3), (2, 4, 3)])
def test_arrays_with_a_row_for_each_id(shape, tmp_path):
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    np.savez(tmp_path / "f.npz", features=values, ids=np.array(["b", "a.wav"]))
    features = read(tmp_path / "f.npz")
    for row, place in ((0, 1), (1, 0)):
        np.testing.assert_array_equal(features.read(row)["audio"].values, values[place].reshape(-1, 3))
    np.savez(tmp_path / "f.npz", features=values, ids=np.array(["b"]))
    assert f"1 names for an array of shape {shape}" in refused(tmp_path / "f.npz")


@pytest.mark.parametrize("lengths", [None, [4, 2], [3, 1]])
def test_padding_of_arrays_with_a_row_for_each_id_is_none(lengths, tmp_path):
    values = np.stack([GOOD + 1, np.pad(GOOD[:2] + 1, ((0, 2), (0, 0)))])
    more = {} if lengths is None else {"lengths": np.array(lengths)}
    np.savez(tmp_path / "f.npz", X=values, clip_ids=np.array(["a", "b"]), **more)
    features = read(tmp_path / "f.npz")
    for row, count in enumerate(lengths or [4, 2]):
        np.testing.assert_array_equal(features.read(row)["audio"].values, values[row, :count])


@pytest.mark.parametrize("tool", ["openface", "arrays"])
def test_folder_of_each_clip_names_it(tool, tmp_path):
    rng = np.random.default_rng(0)
    for i, name in enumerate(["clip01", "clip02"]):
        if tool == "openface":
            tool_files.openface(tmp_path / name / "openface.csv", 4 + i, rng)
        else:
            (tmp_path / name).mkdir()
            np.save(tmp_path / name / "features.npy", np.ones((4 + i, 3), np.float32))
    features = read(tmp_path, "vision", Clips("clip02", "clip01"))
    assert [len(features.read(row)["vision"].values) for row in (0, 1)] == [5, 4]
    assert reasons(features)["remark"].startswith("2 clips found by other zeros or separators, or without an ending")


@pytest.mark.parametrize("place", ["{clip}/{name}.npy", "{name}/{clip}.npy", "{clip}/{clip}_{name}.npy"])
def test_files_that_are_called_as_another_modality_are_of_that(place, tmp_path):
    for value, name in enumerate(["audio", "vision", "text"]):
        for clip in "ab":
            path = tmp_path / place.format(clip=clip, name=name)
            path.parent.mkdir(exist_ok=True)
            np.save(path, np.full((4, 3), value, np.float32))
    for value, name in enumerate(["audio", "vision", "text"]):
        features = read(tmp_path, name)
        assert features.present[name].tolist() == [True, True, False, False]
        assert np.unique(features.read(1)[name].values).tolist() == [value]
    assert "4 files left out: their paths name another modality" in [each.reason for each in features.problems]


@pytest.mark.parametrize("kind", ["list", "dictionary", "one"])
def test_times_and_confidence_of_pickled_clips_are_theirs(kind, tmp_path):
    clip = {"features": GOOD, "times": [0.0, 0.5, 1.0, 1.5], "confidence": [0.5, 0.25, 1.0, 1.0], "score": 2.4}
    other = {"features": GOOD[:2], "times": [0.25, 0.75], "confidence": [0.5, 1.0]}
    content = {
        "list": [{"id": "a", **clip}, {"id": "b", **other}],
        "dictionary": {"a": clip, "b": other},
        "one": clip,
    }
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(content[kind]))
    features = read(tmp_path / "a.pkl")
    assert features.read(0)["audio"].times.tolist() == clip["times"]
    assert features.read(0)["audio"].signals.ravel().tolist() == clip["confidence"]
    if kind != "one":
        assert features.read(1)["audio"].times.tolist() == other["times"]


def test_clip_without_anything_leaves_the_others(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"a": GOOD, "b": None, "c": GOOD}))
    features = read(tmp_path / "a.pkl")
    assert features.present["audio"].tolist() == [True, False, True, False]
    assert reasons(features)["unread"] == "holds nothing"


@pytest.mark.parametrize("ids", [("v1/1", "v1/2", "v2/1"), ("v1$_$01", "v1$_$02", "v2$_$01"), ("v1_1", "v1_2", "v2_1")])
def test_video_and_segment_name_a_clip(ids, tmp_path):
    (tmp_path / "t.csv").write_text("video_id,clip_id,x\nv1,1,5\nv1,2,6\nv2,1,7\n")
    features = read(tmp_path / "t.csv", clips=Clips(*ids))
    assert [features.read(row)["audio"].values.tolist() for row in range(3)] == [[[5]], [[6]], [[7]]]
    assert features.columns == ("x",)
    (tmp_path / "u.csv").write_text("video_id,clip_id,time,x\nv1,1,0,5\nv2,1,0,6\n")
    assert "2 features fit clip 1 equally well" in refused(tmp_path / "u.csv", clips=Clips("1", "2"))


def test_split_that_lacks_the_modality_leaves_the_others(tmp_path):
    splits = {"train": {"id": ["a"], "audio": GOOD[None]}, "test": {"id": ["b", "c"], "vision": GOOD[None, :2]}}
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({**splits, "valid": {"id": ["d"], "audio": GOOD[None, :2]}}))
    features = read(tmp_path / "f.pkl")
    assert features.present["audio"].tolist() == [True, False, False, True]
    assert reasons(features)["unread"] == "holds no audio, but id, vision (for 2 clips)"
    assert [each.clip for each in features.problems if each.kind == "missing"] == ["b", "c"]


@pytest.mark.parametrize("suffix", ["npz", "pkl"])
def test_clips_that_are_called_as_features_are_clips(suffix, tmp_path):
    path, clips = tmp_path / f"all.{suffix}", {"x": GOOD, "audio": GOOD[:2], "features": GOOD[:3]}

    def write(content):
        if suffix == "npz":
            np.savez(path, **content)
        else:
            path.write_bytes(pickle.dumps(content))
        return path

    features = read(write(clips), clips=Clips("audio", "features", "x"))
    assert [len(features.read(row)["audio"].values) for row in range(3)] == [2, 3, 4]
    features = read(write({"x": GOOD, "labels": GOOD[:, 0]}), clips=Clips("x", "all"))
    assert features.present["audio"].tolist() == [False, True]


@pytest.mark.parametrize("kind", ["split", "dictionary", "archive"])
def test_one_wrong_clip_of_a_file_leaves_the_others(kind, tmp_path):
    clips = {"a": GOOD, "b": GOOD[None].repeat(2, axis=0), "c": GOOD[:2]}
    path = tmp_path / ("f.npz" if kind == "archive" else "f.pkl")
    if kind == "archive":
        np.savez(path, **clips)
    else:
        split = {"train": {"id": [*clips], "audio": [*clips.values()]}}
        path.write_bytes(pickle.dumps(split if kind == "split" else clips))
    features = read(path)
    assert features.present["audio"].tolist() == [True, False, True, False]
    assert reasons(features)["unread"] == "an array of shape (2, 4, 3); save it as (T, channels)"
