"""What tools, spreadsheets and people do to files of features: read as it is meant, or refused in one line."""

import numpy as np
import pytest
import torch
from helpers import tool_files
from helpers.tool_files import GOOD, Clips, read, reasons, refused

from shared.errors import UserError
from stage2_fusion.data.external.times import begins_late, repeats, timing
from stage2_fusion.models.layers.temporal import grid_times, grid_weights

FACES = "frame, face_id, timestamp, confidence, success, pose_Rx, AU01_r, AU45_c"
DESCRIPTORS = "name;frameTime;mfcc_sma[1];mfcc_sma[2];F0final_sma"


def faces(times):
    """Rows of OpenFace at these times, each with a value of its own."""
    return "".join(f"{i + 1}, 0, {time:.3f}, 0.98, 1, 0.250, {i:.2f}, 1.00\n" for i, time in enumerate(times))


# --- numbers and headers ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", ["; ", ";", ", ", "\t"])
def test_decimal_commas_are_points(delimiter, encoding, tmp_path):
    text = FACES.replace(", ", delimiter) + "\n"
    for row in faces([0, 0.04, 0.08]).splitlines():
        text += delimiter.join(cell.replace(".", ",") for cell in row.split(", ")) + "\n"
    (tmp_path / "a.csv").write_text(text, encoding=encoding)
    features = read(tmp_path, "vision")
    steps = features.read(0)["vision"]
    assert features.tool().title == "OpenFace"
    np.testing.assert_allclose(steps.values, [[0.25, v, 1] for v in range(3)], rtol=1e-6)
    np.testing.assert_allclose(steps.times, [0, 0.04, 0.08], atol=1e-6)
    np.testing.assert_allclose(steps.signals, [[0.98]] * 3, rtol=1e-6)


def test_numbers_of_openface_without_spaces_between_are_refused(tmp_path):
    """0,040,0,98: nobody can tell the commas apart."""
    (tmp_path / "a.csv").write_text(FACES.replace(", ", ",") + "\n1,0,0,040,0,98,1,0,250,1,00,1,00\n")
    assert "line 2 has 13 cells, its header 8" in refused(tmp_path, modality="vision")


@pytest.mark.parametrize("tool", ["openface", "descriptors", "functionals", "openface with its header"])
def test_rows_of_a_tool_that_ran_twice_count_once(tool, tmp_path):
    bodies = {
        "openface": (FACES, faces([0, 0.04, 0.08])),
        "openface with its header": (FACES, faces([0, 0.04, 0.08]) + FACES + "\n"),
        "descriptors": (DESCRIPTORS, "".join(f"'a';{i / 100:f};{i}.0;1.5;2.0\n" for i in range(3))),
        "functionals": (DESCRIPTORS, "'a';0.000000;1.0;2.0;3.0\n'b';0.000000;4.0;5.0;6.0\n"),
    }
    modality = "vision" if "openface" in tool else "audio"
    header, body = bodies[tool]
    (tmp_path / "once").mkdir()
    (tmp_path / "twice").mkdir()
    (tmp_path / "once" / "a.csv").write_text(f"{header}\n{body}")
    (tmp_path / "twice" / "a.csv").write_text(f"{header}\n{body}{body}")
    once, twice = (read(tmp_path / name, modality) for name in ("once", "twice"))
    for row in range(2):
        for part in ("values", "times", "signals"):
            first, second = (getattr(each.read(row)[modality], part) for each in (once, twice))
            np.testing.assert_array_equal(first, second)
    assert (once.rate, once.digest) == (twice.rate, twice.digest)
    assert "was the tool run twice?" in reasons(twice)["rows"] and "rows" not in reasons(once)


def write_renamed(path, rename):
    """The CSV of a tool with other names of its columns."""
    header, body = path.read_text().split("\n", 1)
    path.write_text(",".join(rename(name.strip()) for name in header.split(",")) + "\n" + body)


@pytest.mark.parametrize("kind", ["openface", "pyfeat", "libreface"])
@pytest.mark.parametrize(
    "rename",
    [str.upper, str.lower, lambda name: f" {name.capitalize()} ", lambda name: name.replace("_", " "), "X.{}".format],
    ids=["upper", "lower", "capitalized", "spaces", "R"],
)
def test_columns_of_a_tool_are_its_own_in_any_capitals(rename, kind, tmp_path):
    path, rng = tmp_path / "a.csv", np.random.default_rng(0)
    if kind == "openface":
        tool_files.openface(path, 6, rng, lost=(2,))
    elif kind == "pyfeat":
        tool_files.pyfeat(path, "a.mp4", 60, 25, rng, lost=(2,))
    else:
        path.write_text("frame_idx,frame_time_in_ms,pitch,yaw,roll,au_1\n0,0,1,2,3,4\n1,40,5,6,7,8\n")
    expected = read(tmp_path, "vision")
    write_renamed(path, rename)
    found = read(tmp_path, "vision")
    assert found.tool().title == expected.tool().title and found.signals == expected.signals
    assert [name.lower() for name in found.columns] == [name.lower() for name in expected.columns]
    assert found.digest == expected.digest
    np.testing.assert_array_equal(found.read(0)["vision"].times, expected.read(0)["vision"].times)


def test_times_of_descriptors_are_found_in_any_capitals(tmp_path):
    tool_files.smilextract(tmp_path / "a.csv", {"unknown": np.ones((5, 4)) * np.arange(5)[:, None]}, tool_files.LLD)
    expected = read(tmp_path).read(0)["audio"]
    path = tmp_path / "a.csv"
    path.write_text(path.read_text().replace("frameTime", "frametime"))
    np.testing.assert_array_equal(read(tmp_path).read(0)["audio"].times, expected.times)


def test_two_columns_that_are_one_in_other_capitals_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text(f"{FACES}, au01_r\n1, 0, 0.0, 0.9, 1, 0.1, 0.2, 1, 0.3\n")
    assert "two columns are called 'AU01_r'; rename one" in refused(tmp_path, modality="vision")


def test_column_names_with_brackets_name_one_column(tmp_path):
    (tmp_path / "a.csv").write_text(f"{DESCRIPTORS}\n'a';0.00;1;2;3\n'a';0.01;4;5;6\n")
    assert read(tmp_path, patterns=["mfcc_sma[2]", "F0*"]).columns == ("mfcc_sma[2]", "F0final_sma")
    assert read(tmp_path, patterns=["mfcc_sma*"]).columns == ("mfcc_sma[1]", "mfcc_sma[2]")
    assert "no column 'mfcc_sma[3]'" in refused(tmp_path, patterns=["mfcc_sma[3]"])


# --- times -----------------------------------------------------------------------------------------------------------


def test_times_that_do_not_move_are_not_believed():
    """A file of 0 frames per second, in any modality; one row may well be at 0."""
    for of_camera in (True, False):
        seconds, remark, held = timing(np.zeros(4), 4, 2.0, of_camera)
        assert held == 0.5
        np.testing.assert_allclose(seconds, [0.25, 0.75, 1.25, 1.75])
        assert remark == "all its times are 0 s; the rows are spread over the clip"
    assert timing(np.zeros(1), 1, 2.0, True) == (np.zeros(1), "", 0.0)
    seconds, remark, _ = timing(np.full(2, np.nan), 2, 2.0, True)
    np.testing.assert_allclose(seconds, [0.5, 1.5])
    assert "none of its times is a number" in remark


def test_irregular_times_stay():
    times = np.array([0.0, 0.5, 0.5, 0.51, np.nan, 1.9])
    seconds, remark, _ = timing(times, 6, 2.0, of_camera=True)
    np.testing.assert_array_equal(seconds, times)
    assert not remark and "go backwards" in timing(times[::-1], 6, 2.0, of_camera=True).remark


def test_rows_that_only_look_alike_are_no_repeats():
    """Whole seconds, and a face that does not move."""
    times, values = np.array([0.0, 0, 0, 1, 1]), np.ones((5, 2), np.float32)
    assert not repeats(times, values).any()
    assert repeats(np.array([0.0, 1, 0, 1, 0]), values).tolist() == [False, False, True, True, True]
    values[2] = 7
    assert repeats(np.array([0.0, 1, 0, 1, 0]), values).tolist() == [False, False, False, True, True]


@pytest.mark.parametrize(
    "start, has, said", [(0.0, 5, ""), (2.5, 5, ""), (12.3, 0, "begin at 12.3 s, after the clip of 2")]
)
def test_times_of_another_cut_are_masked(start, has, said, tmp_path):
    """Those of a whole recording, of which the clip is a part."""
    (tmp_path / "a.csv").write_text(f"{FACES}\n{faces(start + np.arange(5) / 25)}")
    (tmp_path / "b.csv").write_text(f"{FACES}\n{faces(np.arange(5) / 25)}")
    features = read(tmp_path, "vision")
    assert len(features.read(0)["vision"].values) == has and features.present["vision"][1]
    assert said in reasons(features).get("unusable", "")
    assert not begins_late(12.3, duration=0.0)  # of a clip without media, nobody knows


def test_rows_before_the_clip_are_left_out_and_called_so(tmp_path):
    np.savez(tmp_path / "a.npz", features=GOOD, times=np.arange(4) - 2.0)
    features = read(tmp_path)
    assert features.read(0)["audio"].times.tolist() == [0, 1]
    assert reasons(features)["rows"] == "2 of 4 rows left out: 2 before the beginning"


def test_time_columns_in_other_units_and_without_numbers(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("id,time_ms,x\na,0,1\na,40,2\nb,500,3\nb,1000.5,4\n")
    np.testing.assert_allclose(read(table).read(0)["audio"].times, [0, 0.04], atol=1e-7)
    np.testing.assert_allclose(read(table).read(1)["audio"].times, [0.5, 1.0005], rtol=1e-6)
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "a.csv").write_text("time,x\nnoon,1\nlater,2\n")
    features = read(tmp_path / "one")
    assert reasons(features)["remark"] == "time: no numbers of seconds, so that the rows have no times"
    assert features.read(0)["audio"].times.tolist() == [0.5, 1.5]


# --- channels --------------------------------------------------------------------------------------------------------


def test_a_channel_that_is_never_finite_is_left_out_also_without_a_name(tmp_path):
    """-inf, as COVAREP writes it."""
    for name in "ab":
        np.save(tmp_path / f"{name}.npy", np.where(np.arange(3) == 1, -np.inf, GOOD))
    features = read(tmp_path)
    np.testing.assert_array_equal(features.read(0)["audio"].values, GOOD[:, [0, 2]])
    assert features.width == 2 and "left out: channel 1" in reasons(features)["remark"]


def test_files_that_all_differ_are_refused_instead_of_the_first_winning(tmp_path):
    """Such as loudness over time, (T,) each."""
    for i, name in enumerate("abcd"):
        np.save(tmp_path / f"{name}.npy", np.arange(3.0 + i))
    assert "only 1 of 4 clips have features alike, such as b: " in refused(tmp_path)
    np.save(tmp_path / "b.npy", np.arange(3.0))
    np.save(tmp_path / "d.npy", np.arange(5.0))
    assert read(tmp_path).present["audio"].tolist() == [True, True, False, False]


@pytest.mark.parametrize("lengths", [(5, 6, 7, 8), (5, 5, 5, 7, 8)])
def test_arrays_with_channels_first_are_refused_where_clips_differ_in_length(lengths, tmp_path):
    ids = "abcde"[: len(lengths)]
    for name, length in zip(ids, lengths, strict=True):
        np.save(tmp_path / f"{name}.npy", np.ones((3, length)))
    assert "all have 3 rows: save them as (T, channels), not (channels, T)" in refused(tmp_path, clips=Clips(*ids))


def test_confidence_that_is_none_is_refused(tmp_path):
    for name, score in {"a": [0, 50, 98, 100], "b": [0, 0.5, 1.0000001, 1]}.items():
        np.savez(tmp_path / f"{name}.npz", features=GOOD, confidence=np.array(score))
    features = read(tmp_path)
    assert features.present["audio"].tolist() == [False, True, False, False]
    assert reasons(features)["unread"] == "its confidence is from 0 to 100; give it from 0 to 1, or leave it out"


def test_confidence_that_is_no_number_is_said(tmp_path):
    (tmp_path / "a.csv").write_text(f"{FACES}\n{faces([0, 0.04])}" + faces([0.08]).replace("0.98", "98%"))
    features = read(tmp_path, "vision")
    assert reasons(features)["rows"] == "1 of 3 rows left out: 1 whose confidence is no number"


def test_what_is_not_read_is_said(tmp_path):
    np.savez(tmp_path / "a.npz", features=GOOD, frame_times=np.arange(4.0), labels=np.ones(2))
    assert "arrays not read: frame_times, labels" in reasons(read(tmp_path))["remark"]
    np.savez(tmp_path / "a.npz", features=GOOD, times=np.arange(4) / 4)
    assert not reasons(read(tmp_path))
    table = tmp_path / "t.csv"
    table.write_text('id,time,x,units,frame\n1,0.5,2,"[[0.1, 0.2]]",7\n')
    said = [each.reason for each in read(table, clips=Clips("1")).problems]
    lists = "lists that differ in length, are cut off (...) or hold lists are not read: units"
    assert said == ["columns not read: frame", f"{lists}; write a column a number, or sequences as .npz or parquet"]


def test_rows_without_content_are_said(tmp_path):
    np.save(tmp_path / "a.npy", np.zeros((0, 3)))
    np.save(tmp_path / "b.npy", GOOD)
    assert ("a", "no rows; the modality is missing") in [(each.clip, each.reason) for each in read(tmp_path).problems]


# --- formats ---------------------------------------------------------------------------------------------------------


def test_libreface_is_read_by_its_own_columns(tmp_path):
    header = "frame_idx,frame_time_in_ms,pitch,yaw,roll,lm_mp_0_x,lm_mp_0_y,au_1,au_12_intensity,facial_expression"
    rows = "".join(f"{i},{i * 33.367:.3f},1.5,2.5,3.5,200,300,1,{i}.25,Happiness\n" for i in range(4))
    (tmp_path / "a.csv").write_text(f"{header}\n{rows}4,133.468,,,,,,,,\n")
    features = read(tmp_path, "vision")
    assert features.tool().title == "LibreFace" and "libreface --input_path" in features.tool().how
    assert features.columns == ("pitch", "yaw", "roll", "au_1", "au_12_intensity")
    steps = features.read(0)["vision"]
    np.testing.assert_allclose(steps.values, [[1.5, 2.5, 3.5, 1, i + 0.25] for i in range(4)])
    np.testing.assert_allclose(steps.times, np.arange(4) / 29.97, atol=1e-5)


def test_pyfeat_without_the_score_of_its_faces(tmp_path):
    path = tmp_path / "feat" / "one.csv"
    made = tool_files.pyfeat(path, "videos/a.mp4", 30, 10.0, np.random.default_rng(0), lost=(3,))
    made.drop(columns="FaceScore").to_csv(path, index=False)
    features = read(path, "vision")
    steps = features.read(0)["vision"]
    assert features.tool().title == "Py-Feat" and "x_0" not in features.columns and features.tool().signals == []
    kept = [i for i in range(30) if i != 3]
    np.testing.assert_allclose(steps.values, made.loc[kept, [*features.columns]], rtol=1e-6)
    np.testing.assert_allclose(steps.times, np.array(kept) / 10, rtol=0.06)
    assert reasons(features)["rows"] == "1 of 30 rows left out: 1 without a face"


def test_few_functionals_of_the_package_are_still_opensmile(tmp_path):
    paths = {"/x/a.wav": GOOD[:1], "/x/b.wav": GOOD[1:2]}
    tool_files.opensmile_package(tmp_path / "f.csv", paths, tool_files.FUNCTIONALS, hop=1, size=2)
    assert read(tmp_path / "f.csv").tool().title == "openSMILE"
    (tmp_path / "a.csv").write_text(  # of process_signal, which has no file
        "start,end,F0semitone_sma3nz,loudness_sma3\n"
        "0 days 00:00:00,0 days 00:00:00.020000,1,2\n0 days 00:00:00.010000,0 days 00:00:00.030000,3,4\n"
    )
    np.testing.assert_allclose(read(tmp_path / "a.csv").read(0)["audio"].times, [0.01, 0.02], atol=1e-7)


def test_functionals_of_clips_without_names_are_refused(tmp_path):
    rows = "'unknown';0.000000;1.0;2.0;3.0\n'unknown';0.000000;4.0;5.0;6.0\n"
    (tmp_path / "all.csv").write_text(f"{DESCRIPTORS}\n{rows}")
    assert "2 clips without a name; run SMILExtract with -instname clip" in refused(tmp_path / "all.csv")


@pytest.mark.parametrize("name", ["unknown", "noname"])
def test_descriptors_of_clips_without_names_are_refused(name, tmp_path):
    """Times that begin again are of the next clip, unless its rows are the same: then the tool ran again."""
    once = "".join(f"'{name}';{i / 100:f};{i}.0;1.5;2.0\n" for i in range(3))
    (tmp_path / "all.csv").write_text(f"{DESCRIPTORS}\n{once}{once.replace(';1.5', ';1.7')}")
    assert "2 clips without a name; run SMILExtract with -instname clip" in refused(tmp_path / "all.csv")
    (tmp_path / "twice").mkdir()
    (tmp_path / "twice" / "a.csv").write_text(f"{DESCRIPTORS}\n{once}{once}")
    assert read(tmp_path / "twice").read(0)["audio"].values[:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize("named", ["a", "ab"])
def test_rows_without_a_name_are_of_no_clip(named, tmp_path):
    """They would be steps of the only clip that has one."""
    rows = "".join(f"'{name}';0.000000;{i}.0;1.5;2.0\n" for i, name in enumerate([*named, "unknown"]))
    (tmp_path / "a.csv").write_text(f"{DESCRIPTORS}\n{rows}")
    features = read(tmp_path)
    assert [features.read(row)["audio"].values[:, 0].tolist() for row in range(len(named))] == [[0], [1]][: len(named)]
    assert reasons(features)["remark"] == "1 row without a clip's name left out"


def test_two_tools_in_a_folder_are_told_apart(tmp_path):
    rng = np.random.default_rng(0)
    for name in "ab":
        tool_files.openface(tmp_path / f"{name}.csv", 4, rng)
        (tmp_path / f"{name}_aligned").mkdir()
        (tmp_path / f"{name}_aligned" / "frame_det_00_000001.bmp").write_bytes(b"BM")
        (tmp_path / f"{name}.hog").write_bytes(b"\0" * 8)
    tool_files.pyfeat(tmp_path / "feat_a.csv", "a.mp4", 4, 25, rng)
    features = read(tmp_path, "vision")
    assert features.tool().title == "OpenFace" and features.present["vision"].tolist() == [True, True, False, False]
    assert [each.source.rpartition("/")[2] for each in features.problems if each.kind == "unread"] == ["feat_a.csv"]


@pytest.mark.parametrize(
    "files, said",
    [
        ([], "; it is empty"),
        (["a.pt", "b.pt"], ", but 2 files .pt; save its arrays as .npy, .npz or .safetensors"),
        (["a.xlsx", "notes.md"], "save it as CSV"),
        (["a.bmp"], ", but 1 file .bmp; known are .csv"),
    ],
    ids=["empty", "torch", "spreadsheet", "pictures"],
)
def test_a_folder_without_features_says_what_it_holds(files, said, tmp_path):
    for name in files:
        (tmp_path / name).write_bytes(b"PK\x03\x04")
    assert said in refused(tmp_path)
    if files:
        assert "no" in refused(tmp_path / files[0]) and "\n" not in refused(tmp_path / files[0])


def test_what_openface_writes_beside_its_features_is_none(tmp_path):
    tool_files.openface(tmp_path / "a.csv", 3, np.random.default_rng(0))
    assert "give the CSV, or the folder" in refused(tmp_path / "a_of_details.txt", modality="vision")
    (tmp_path / "a.csv").write_text("timestamp,AU01_r\n0,1\n0.04,2\n")  # what somebody has kept of it
    features = read(tmp_path, "vision")
    assert features.read(0)["vision"].values.tolist() == [[1], [2]] and not reasons(features)


# --- which clip ------------------------------------------------------------------------------------------------------


def test_functionals_under_a_persons_own_names(tmp_path):
    (tmp_path / "f.csv").write_text("clip,F0semitone_sma3nz,loudness_sma3\na,1,2\nb,3,4\n")
    features = read(tmp_path / "f.csv")
    assert features.tool().title == "openSMILE" and features.columns == ("F0semitone_sma3nz", "loudness_sma3")
    assert features.read(1)["audio"].values.tolist() == [[3, 4]]


def test_means_over_clips_hold_for_the_whole_clip(tmp_path):
    """A frame of the second clip was lost, so that its mean success is 0.5."""
    names = "clip, frame, timestamp, confidence, success, AU01_r"
    (tmp_path / "f.csv").write_text(f"{names}\na, 2.5, 0.06, 0.9, 1, 1.5\nb, 1.5, 0.02, 0.5, 0.5, 2.5\n")
    features = read(tmp_path / "f.csv", "vision")
    for row, (value, confidence) in enumerate([(1.5, 0.9), (2.5, 0.5)]):
        steps = features.read(row)["vision"]
        assert steps.values.tolist() == [[value]] and steps.times.tolist() == [1.0]
        np.testing.assert_allclose(steps.signals, [[confidence]], rtol=1e-6)


def test_true_and_false_are_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("id,time,success,AU01_c\na,0,True,TRUE\na,1,False,FALSE\na,1.5,true,false\n")
    features = read(tmp_path / "t.csv")
    assert features.read(0)["audio"].values.tolist() == [[1], [0]]
    assert reasons(features)["rows"] == "1 of 3 rows left out: 1 without success"


@pytest.mark.parametrize(
    "file, said",
    [
        ("a.csv", "has no confidence, which FeatureExtraction writes; name no format"),
        ("a.npy", "has no confidence and no success"),
    ],
)
def test_a_format_that_is_named_wrongly_is_one_line(file, said, tmp_path):
    (tmp_path / "a.csv").write_text("frame, success, AU01_r\n1, 1, 0.5\n")
    np.save(tmp_path / "a.npy", GOOD)
    with pytest.raises(UserError) as caught:
        read(f"openface:{tmp_path / file}", "vision")
    assert said in str(caught.value) and "\n" not in str(caught.value)
    for name in ("opensmile", "pyfeat", "libreface", "mmsa", "table"):
        with pytest.raises(UserError) as caught:
            read(f"{name}:{tmp_path / 'a.npy'}", "vision")
        assert "\n" not in str(caught.value)


# --- rows without times ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rows", "times"),
    [
        ([3.0], [5 / 6, 2.5, 25 / 6]),  # of the whole clip
        ([3.0, 5.0], [0.625, 1.875, 3.125, 4.375]),
        ([3.0] * 40, (np.arange(40) + 0.5) / 8),
    ],
)
def test_rows_without_times_hold_for_their_share_of_the_clip(rows, times, tmp_path):
    clips = Clips("a")
    clips.columns["duration"] = [5.0]
    np.save(tmp_path / "a.npy", np.array(rows, np.float32)[:, None])
    steps = read(tmp_path, "vision", clips).read(0)["vision"]
    np.testing.assert_allclose(steps.times, times, rtol=1e-4)
    np.testing.assert_array_equal(steps.values[:, 0], np.repeat(rows, len(times) // len(rows)))
    features = torch.tensor(steps.times)[None], torch.ones(1, len(steps.times)).bool()  # (1, T), (1, T)
    grid = grid_times(torch.tensor([5.0]), 32)  # (1, S)
    assert grid_weights(*features, grid, torch.tensor([5.0]), max_gap=1.0)[1].all()  # nowhere missing


def test_a_row_of_words_is_one_step(tmp_path):
    np.save(tmp_path / "a.npy", GOOD[:1])
    assert len(read(tmp_path, "text", Clips("a")).read(0)["text"].times) == 1
