"""Tables of other tools that somebody has stored in another way, or named by numbers: read as the tools wrote them."""

import pickle

import datasets
import numpy as np
import pandas as pd
import pytest
from helpers import tool_files
from helpers.tool_files import Clips, read

from shared.errors import UserError

RNG = np.random.default_rng(0)


def as_parquet(folder):
    for path in folder.glob("*.csv"):
        pd.read_csv(path, skipinitialspace=True).to_parquet(path.with_suffix(".parquet"))
        path.unlink()


def steps(features, row, modality):
    return features.read(row)[modality]


@pytest.mark.parametrize("tool", ["openface", "pyfeat"])
def test_parquet_of_a_tool_is_read_as_its_csv(tool, tmp_path):
    for name in "ab":
        if tool == "openface":
            tool_files.openface(tmp_path / f"{name}.csv", 8, RNG, lost=(2,))
            tool_files.openface(tmp_path / f"{name}.csv", 5, RNG, face=1, append=True)
        else:
            tool_files.pyfeat(tmp_path / f"{name}.csv", f"/videos/{name}.mp4", 40, 25, RNG, lost=(3, 4))
    expected = read(tmp_path, "vision")
    as_parquet(tmp_path)
    found = read(tmp_path, "vision")
    assert found.title == expected.title and found.columns == expected.columns
    assert found.signals == expected.signals and found.masked == expected.masked
    for row in (0, 1):
        mine, theirs = steps(found, row, "vision"), steps(expected, row, "vision")
        np.testing.assert_allclose(mine.values, theirs.values, rtol=1e-6)
        np.testing.assert_allclose(mine.times, theirs.times, rtol=1e-6)
        np.testing.assert_allclose(mine.signals, theirs.signals, rtol=1e-6)


@pytest.mark.parametrize("index", [True, False])
def test_durations_of_the_opensmile_package_are_times_in_parquet_too(index, tmp_path):
    start = pd.to_timedelta(np.arange(20) * 0.01, unit="s")
    parts = []
    for name in "ab":
        levels = [[f"{name}.wav"] * 20, start, start + pd.to_timedelta(0.02, unit="s")]
        rows = pd.MultiIndex.from_arrays(levels, names=["file", "start", "end"])
        parts.append(pd.DataFrame(RNG.random((20, 4)), index=rows, columns=tool_files.LLD))
    frame = pd.concat(parts)
    (frame if index else frame.reset_index()).to_parquet(tmp_path / "all.parquet", index=index)
    features = read(tmp_path / "all.parquet")
    assert features.title == "openSMILE" and features.columns == tuple(tool_files.LLD)
    np.testing.assert_allclose(steps(features, 1, "audio").times, 0.01 + np.arange(20) * 0.01, atol=1e-6)
    np.testing.assert_allclose(steps(features, 1, "audio").values, frame.to_numpy()[20:], rtol=1e-6)


def test_damaged_parquet_is_one_line(tmp_path):
    for name in "ab":
        tool_files.openface(tmp_path / f"{name}.csv", 8, RNG)
    as_parquet(tmp_path)
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[: len(whole) // 2])
    features = read(tmp_path, "vision")
    assert features.present["vision"].tolist() == [True, False, False, False]
    assert any(each.source.endswith("b.parquet") and "\n" not in each.reason for each in features.problems)


@pytest.mark.parametrize("kind", ["lists", "array", "saved"])
def test_sequences_of_a_dataset_are_read(kind, tmp_path):
    values = [np.arange(12, dtype=np.float32).reshape(4, 3), np.ones((2, 3), np.float32)]
    if kind == "array":
        features = datasets.Features(id=datasets.Value("string"), features=datasets.Array2D((None, 3), "float32"))
        made = datasets.Dataset.from_dict({"id": ["b", "a"], "features": values}, features=features)
    else:
        held = {
            "path": ["x/b.wav", "x/a.wav"],
            "X": [*map(np.ndarray.tolist, values)],
            "label": [1, 2],
            "score": ["high", "low"],
        }
        made = datasets.Dataset.from_dict({**held, "times": [[0.0, 0.5, 1.0, 1.5], [0.25, 0.75]]})
    if kind == "saved":
        made.save_to_disk(tmp_path / "saved")
    else:
        made.to_parquet(tmp_path / "saved.parquet")
    features = read(next(tmp_path.glob("saved*")))
    for row, expected in ((1, values[0]), (0, values[1])):
        np.testing.assert_array_equal(steps(features, row, "audio").values, expected)
    assert steps(features, 0, "audio").times.tolist() == ([0.5, 1.5] if kind == "array" else [0.25, 0.75])


def test_sequences_beside_numbers_are_read_where_they_are_called_features(tmp_path):
    held = {"id": ["a", "b"], "x": [1.5, 2.5], "Joy": [0.1, 0.2]}
    pd.DataFrame({**held, "landmarks": [[[1.0, 2.0]]] * 2}).to_parquet(tmp_path / "table.parquet")
    assert read(tmp_path / "table.parquet").columns == ("x",)
    pd.DataFrame({**held, "features": [[[1.0, 2.0]]] * 2}).to_parquet(tmp_path / "sequences.parquet")
    features = read(tmp_path / "sequences.parquet")
    assert steps(features, 1, "audio").values.tolist() == [[1, 2]]
    assert [each.reason for each in features.problems if each.kind == "remark"] == ["columns not read: x"]


def test_wrong_sequences_of_a_table_are_told(tmp_path):
    path = tmp_path / "f.parquet"
    held = {"id": ["a", "b", "c", "d"], "features": [[[1.0, 2.0]], [[1.0], [1.0, 2.0]], None, [[3.0, None]]]}
    pd.DataFrame(held).to_parquet(path)
    features = read(path)
    assert features.present["audio"].tolist() == [True, False, False, False]
    said = {(each.clip, each.source.rpartition(" ")[2]): each.reason for each in features.problems}
    assert said["", "b"] == "rows of different lengths; write (T, channels)"
    assert said["", "c"] == "holds nothing"
    assert said["d", "d"] == "all rows left out: 1 not finite"
    for columns, expected in {
        ("left", "right", "id"): "sequences in left, right; name the column of features 'features'",
        ("left",): "2 sequences and no column of ids; add one",
    }.items():
        cells = {name: ["a", "b"] if name == "id" else [[[1.0]], [[2.0]]] for name in columns}
        path = tmp_path / f"{'_'.join(columns)}.parquet"
        pd.DataFrame(cells).to_parquet(path)
        with pytest.raises(UserError, match=expected):
            read(path)


def functionals(path, names):
    lines = ["name;frameTime;F0_sma_amean;loudness_sma_amean"]
    path.write_text("\n".join([*lines, *(f"{name};0;{i};{-i}" for i, name in enumerate(names))]) + "\n")


@pytest.mark.parametrize(
    "names, ids",
    [
        (["12e4", "13e5"], ["120000", "12e4", "13e5"]),
        (["7012345678901234567", "7012345678901234568", ""], ["7012345678901234567", "7012345678901234568"]),
        (["NA", "None", "True", "null"], ["NA", "None", "True", "null"]),
        (["1_0", "007"], ["1_0", "10", "7"]),
    ],
)
def test_names_of_clips_stay_as_they_are_written(names, ids, tmp_path):
    functionals(tmp_path / "all.csv", names)
    features = read(tmp_path / "all.csv", clips=Clips(*ids))
    found = {
        name: steps(features, row, "audio").values[0].tolist()
        for row, name in enumerate(ids)
        if features.present["audio"][row]
    }
    expected = {name if name in ids else name.lstrip("0"): [i, -i] for i, name in enumerate(names) if name}
    assert found == expected


def test_numbers_that_name_clips_and_people_are_no_features(tmp_path):
    path = tmp_path / "all.csv"
    path.write_text("id,speaker,F0_sma_amean,loudness_sma_amean,jitter_sma_amean\n7,1,1,2,3\n8,1,2,3,4\n")
    features = read(path, clips=Clips("7", "8"))
    assert features.title == "openSMILE"
    assert features.columns == ("F0_sma_amean", "loudness_sma_amean", "jitter_sma_amean")


def test_functionals_of_the_package_hold_for_the_whole_clip(tmp_path):
    values = {f"/wav/{name}.wav": RNG.random((1, 3)).astype(np.float32) for name in "ab"}
    tool_files.opensmile_package(tmp_path / "all.csv", values, tool_files.FUNCTIONALS, hop=1.0, size=8.0)
    clips = Clips()
    clips.columns["duration"] = [8.0] * 4
    part = steps(read(tmp_path / "all.csv", clips=clips), 0, "audio")
    assert part.times.tolist() == [1.0, 3.0, 5.0, 7.0]
    np.testing.assert_allclose(part.values, np.repeat(values["/wav/a.wav"], 4, axis=0), rtol=1e-6)


@pytest.mark.parametrize("before", ["sep=;\n", "# OpenFace 2.2, run by hand\n\n", "\n# "])
def test_lines_before_the_header_of_a_tool_are_no_header(before, tmp_path):
    names = "frame;face_id;timestamp;confidence;success;x_0;AU01_r"
    rows = "".join(f"{i + 1};{k};{i / 25:.3f};0.{9 - k};1;300.5;{k}.{i}\n" for i in range(6) for k in (0, 1))
    (tmp_path / "a.csv").write_text(f"{before}{names}\n{rows}")
    features = read(tmp_path, "vision")
    assert features.title == "OpenFace" and features.columns == ("AU01_r",)
    np.testing.assert_allclose(steps(features, 0, "vision").values.ravel(), np.arange(6) / 10, rtol=1e-6)


def test_one_file_a_clip_holds_an_array_for_each_modality(tmp_path):
    for i, name in enumerate("ab"):
        np.savez(tmp_path / f"{name}.npz", audio=np.full((4, 3), i), vision=np.full((5, 2), 9.0), audio_rate=1)
    for modality, width, value in (("audio", 3, 1.0), ("vision", 2, 9.0)):
        features = read(tmp_path, modality)
        assert features.width == width and np.unique(steps(features, 1, modality).values).tolist() == [value]


def test_a_pickle_without_splits_is_one_split(tmp_path):
    content = {"id": ["a", "b"], "audio": RNG.random((2, 6, 3)), "audio_lengths": [6, 2]}
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(content))
    features = read(tmp_path / "f.pkl")
    assert [len(steps(features, row, "audio").values) for row in (0, 1)] == [6, 2]
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"id": "b", "audio": np.ones((4, 3))}))
    assert steps(read(tmp_path / "b.pkl"), 1, "audio").values.shape == (4, 3)
