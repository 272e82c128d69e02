"""Wrong, damaged and hostile files of other tools: one line each says what, where and what to do."""

import os
import pickle

import numpy as np
import pandas as pd
import pytest
from helpers import tool_files
from helpers.pickled_code import Code
from helpers.tool_files import GOOD, Clips, read

from shared import config as configuration
from shared.errors import UserError
from stage2_fusion.commands.encode import EncodeConfig
from stage2_fusion.data.external.features import ExternalFeatures

RNG = np.random.default_rng(0)


def problems(features):
    """{name of the file or id of the clip: reason}, of what is no plain absence."""
    return {
        (os.path.basename(each.source) or each.clip): each.reason
        for each in features.problems
        if each.kind != "missing"
    }


def test_each_unusable_array_is_one_line_and_the_others_are_read(tmp_path):
    np.save(tmp_path / "a.npy", GOOD)
    np.save(tmp_path / "b.npy", np.array([{"x": 1}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "c.npy", np.ones((2, 3, 4)))
    np.save(tmp_path / "d.npy", np.array([["x", "y"]]))
    np.save(tmp_path / "e.npy", np.ones((4, 5), np.float32))
    np.savez(tmp_path / "f.npz", left=GOOD, right=GOOD)
    np.savez(tmp_path / "g.npz", features=GOOD, times=np.arange(3))
    np.savez(tmp_path / "h.npz", features=GOOD, rate=-1.0)
    np.savez(tmp_path / "n.npz", features=GOOD, fps="fast")
    (tmp_path / "i.npz").write_bytes(b"PK\x03\x04 cut off")
    (tmp_path / "j.safetensors").write_bytes(b"\xff" * 64)
    np.save(tmp_path / "k.npy", np.full((4, 3), 1e300))
    np.save(tmp_path / "l.npy", np.zeros((0, 3)))
    np.save(tmp_path / "m.npy", GOOD)
    features = read(tmp_path, clips=Clips(*"abcdefghijklmn"))
    assert [name for name, has in zip("abcdefghijklmn", features.present["audio"], strict=True) if has] == ["a", "m"]
    said = problems(features)
    assert said == {
        "b.npy": "holds Python objects, which are not read; save it again as numbers (T, channels)",
        "c.npy": "an array of shape (2, 3, 4); save it as (T, channels)",
        "d.npy": "an array of <U1, not of numbers; save it again as numbers (T, channels)",
        "e.npy": "5 channels, where most others have 3; make it like the others",
        "f.npz": "holds left, right; call the one with the features 'features'",
        "g.npz": "times holds 3 values for 4 rows; give one number for each row",
        "h.npz": "its rate is [-1.0]; give one number of Hz above 0",
        "i.npz": said["i.npz"],
        "n.npz": "its rate is ['fast']; give one number of Hz above 0",
        "j.safetensors": said["j.safetensors"],
        "k.npy": "all rows left out: 4 not finite",
    }
    assert all(said[name].startswith("not a readable file (") for name in ("i.npz", "j.safetensors"))
    assert not any("\n" in reason for reason in said.values())


def test_pickles_run_no_code(tmp_path):
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(GOOD))
    (tmp_path / "b.pkl").write_bytes(pickle.dumps({"train": {"id": ["b"], "audio": Code(tmp_path / "made")}}))
    part = {"id": np.array(["c"], dtype=object), "audio": np.array([Code(tmp_path / "made")], dtype=object)}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"train": part}))
    (tmp_path / "d.pkl").write_bytes(pickle.dumps(GOOD)[:-20])
    features = read(tmp_path)
    assert features.present["audio"].tolist() == [True, False, False, False] and not (tmp_path / "made").exists()
    said = problems(features)
    assert said["b.pkl"].endswith("; save arrays with NumPy, and tables as CSV or parquet")
    assert "refused: pickle references" in said["b.pkl"] and "refused: pickle references" in said["c.pkl"]
    assert "not a readable pickle" in said["d.pkl"]


class Misshapen:
    """Pickles as an array of objects whose shape claims more than its list holds."""

    def __reduce__(self):
        rebuild = np.array([None], dtype=object).__reduce__()[0]
        return rebuild, (np.ndarray, (0,), b"b"), (1, (9,), np.dtype(object), False, ["a"])


@pytest.mark.parametrize(
    "content, said",
    [
        ({"train": {"audio": GOOD[None]}}, "has no id"),
        ({"train": {"id": ["a"], "vision": GOOD[None]}}, "holds no audio, but id, vision"),
        ({"train": {"id": ["a", "b"], "audio": GOOD[None]}}, "1 sequences of audio for 2 ids"),
        ({"train": {"id": ["a"], "audio": GOOD[None], "audio_lengths": [4, 4]}}, "2 lengths of audio for 1 ids"),
        ({"train": {"id": ["a"], "audio": ["x"]}}, "an array of <U1"),
        ([{"audio": GOOD}, {"audio": GOOD}], "has no id"),
        ({"train": [((GOOD, GOOD), 0.5, "a")], "test": [((GOOD, GOOD), 0.5, "b")]}, "no dictionary of id, audio, ..."),
        ({"train": GOOD[None], "test": GOOD[None]}, "no dictionary of id, audio, ..., nor a list of such; write one"),
        ({"valence": 1, "arousal": 2}, "holds no audio, but valence, arousal"),
        ([], "an array of shape (0,)"),
        ({"train": {"id": Misshapen(), "audio": GOOD[None]}}, "malformed array of objects"),
        ({"train": {"id": 5, "audio": GOOD[None]}}, "id is no list, with an entry for each clip"),
        ({"train": {"id": "a", "audio": GOOD[None]}}, "id is no list, with an entry for each clip"),
        ({"train": {"id": ["a"], "audio": np.float32(7)}}, "audio is no list, with an entry for each clip"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_wrong_pickles_are_refused_in_one_line(content, said, tmp_path):
    (tmp_path / "features.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(UserError) as caught:
        read(tmp_path / "features.pkl")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "pkl", "parquet"])
def test_features_of_one_modality_are_not_taken_for_those_of_another(kind, tmp_path):
    path = tmp_path / f"a.{kind}"
    if kind == "npz":
        np.savez(path, vision=GOOD)
    elif kind == "pkl":
        path.write_bytes(pickle.dumps({"vision": GOOD}))
    else:
        pd.DataFrame({"id": ["a"], "vision": [GOOD.tolist()]}).to_parquet(path)
    assert read(path, "vision").present["vision"][0]
    with pytest.raises(UserError, match=r"holds (no audio, but )?vision|sequences in vision"):
        read(path, "audio")


def test_token_numbers_are_no_features(tmp_path):
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({"train": {"id": ["a"], "text_bert": np.ones((1, 3, 4))}}))
    with pytest.raises(UserError, match="token numbers"):
        read(tmp_path / "f.pkl", "text")


def test_a_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(UserError, match=r"a\.csv: no file but a pipe or a device; write its content to a file"):
        read(tmp_path / "a.csv")


def test_files_in_formats_that_are_not_read_are_listed_among_others(tmp_path):
    np.save(tmp_path / "a.npy", GOOD)
    (tmp_path / "b.pt").write_bytes(b"PK")
    (tmp_path / "c.csv.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "d.mp4").write_bytes(b"")
    said = problems(read(tmp_path))
    assert said == {
        "b.pt": "not read; save its arrays as .npy, .npz or .safetensors",
        "c.csv.gz": "not read; unpack it",
    }


def test_wrong_csvs_of_tools_are_listed(tmp_path):
    for name in "abc":
        tool_files.openface(tmp_path / f"{name}.csv", 6, RNG)
    whole = (tmp_path / "b.csv").read_text()
    (tmp_path / "b.csv").write_text(whole[: len(whole) - 900])  # the disk was full: the last row is cut off
    (tmp_path / "c.csv").write_text("face, confidence, AU01_r\n0, 0.980, 1.20\n")
    (tmp_path / "d.csv").write_text(whole.replace("\n1, 0,", "\n1, 0, 5, 5,"))  # pandas would shift its cells
    (tmp_path / "e.csv").write_text(
        "frame, face_id, timestamp, confidence, success, pose_Rx\n1, 0, 0.000, 0.98, 1, 0.1\n"
    )
    (tmp_path / "f.csv").write_text("frame, timestamp, confidence, success, AU01_r, AU01_r\n1, 0, 0.9, 1, 0.1, 0.2\n")
    (tmp_path / "g.csv").write_text(whole.replace("1, 0, 0.000", "1, 0, -nan(ind)"))
    tool_files.smilextract(tmp_path / "h.csv", {"unknown": GOOD}, tool_files.LLD[:3])
    (tmp_path / "notes.txt").write_text("These are mine.\n")
    features = read(tmp_path, "vision", Clips(*"abcdefgh"))
    assert [each for each, has in zip("abcdefgh", features.present["vision"], strict=True) if has] == ["a", "b", "g"]
    said = problems(features)
    assert said["b.csv"] == "1 of 6 rows left out: 1 not finite" == said["g.csv"]
    assert "run FeatureExtraction" in said["c.csv"] and "line 2 has 716 cells, its header 714" in said["d.csv"]
    assert "lacks gaze_0_x, gaze_0_y, gaze_0_z and 45 more" in said["e.csv"]
    assert said["f.csv"] == "two columns are called 'AU01_r'; rename one"
    assert said["h.csv"].startswith("openSMILE makes features of audio, not of vision; write --external audio=")
    assert said["notes.txt"] and "details" not in " ".join(said)


def test_one_face_of_several_is_read(tmp_path):
    rng = np.random.default_rng(5)
    tool_files.openface(tmp_path / "a.csv", 6, rng, lost=(1, 2, 3))
    other = tool_files.openface(tmp_path / "a.csv", 6, rng, face=1, append=True)
    steps = read(tmp_path, "vision").read(0)["vision"]
    np.testing.assert_allclose(steps.values[:, 14], other["AU01_r"], rtol=1e-6)
    np.testing.assert_allclose(steps.times, np.arange(6) / 25, atol=1e-6)


def test_times_of_no_camera_are_not_believed(tmp_path):
    tool_files.openface(tmp_path / "a.csv", 50, RNG, rate=1000.0)
    features = read(tmp_path, "vision")
    np.testing.assert_allclose(features.read(0)["vision"].times, (np.arange(50) + 0.5) * 2 / 50, rtol=1e-5)
    assert features.rate == pytest.approx(25) and "too close together for a camera" in problems(features)["a.csv"]


def test_tables_say_what_they_lack(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("id,AU1,AU2\na,1,2\na,3,4\nb,5,6\nb;c,7\n")
    features = read(table)
    assert features.present["audio"].tolist() == [False, True, False, False]
    reasons = [each.reason for each in features.problems]
    assert "2 rows of one clip, and no column that says their times, in seconds" in reasons
    for content, said in {
        "id,name\na,x\n": "none of its columns (id, name) holds numbers that are features",
        "id,Joy,valence\na,0.1,0.2\n": "none of its columns",
        "id;AU1\nz;1\n": "none of 4 clips has features of audio here, such as",
        "": "needs a header",
    }.items():
        table.write_text(content)
        with pytest.raises(UserError) as caught:
            read(table)
        assert said in str(caught.value) and "\n" not in str(caught.value), content
    table.write_text("id,AU1,Joy\na,1,0.5\n")
    with pytest.raises(UserError, match="column 'Joy' is a label of the clips"):
        read(table, patterns=["Joy", "AU*"])
    with pytest.raises(UserError, match="no column 'AU7': did you mean 'AU1'"):
        read(table, patterns=["AU7"])


def test_sequences_in_one_table_keep_their_times(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("clip,time,x,confidence\nb,0.5,1,0.9\na,0.0,2,0.8\nb,0.1,3,0.7\na,1700000000,4,0.6\n")
    features = read(table)
    first, second = features.read(0)["audio"], features.read(1)["audio"]
    assert first.times.tolist() == [0.0] and second.values.ravel().tolist() == [3, 1]
    np.testing.assert_allclose(second.times, [0.1, 0.5], rtol=1e-6)
    np.testing.assert_allclose(second.signals.ravel(), [0.7, 0.9], rtol=1e-6)


def test_nothing_to_read_is_one_line(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "arff").mkdir()
    (tmp_path / "arff" / "a.arff").write_text("@relation openSMILE\n")
    for path, said in {
        "nowhere": "no such file or folder; --external audio=PATH",
        "empty": "holds no features of audio",
        "arff": "run SMILExtract with -csvoutput",
    }.items():
        with pytest.raises(UserError, match=said):
            read(tmp_path / path)


def test_a_misspelled_format_is_not_taken_for_a_folder(tmp_path):
    (tmp_path / "t.csv").write_text("id,x\na,1\n")
    with pytest.raises(UserError, match="no format is called 'tabel': did you mean 'table'"):
        read(f"tabel:{tmp_path / 't.csv'}")


@pytest.mark.parametrize("prefix", ["", "table:"])
def test_the_home_folder_is_found_in_shells_that_leave_it_alone(prefix, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "t.csv").write_text("id,x\na,1\n")
    assert read(f"{prefix}~/t.csv").path == tmp_path / "t.csv"


def test_arrays_without_names_say_how_they_get_them(tmp_path):
    np.savez(tmp_path / "all.npz", GOOD, GOOD)
    with pytest.raises(UserError, match=r"2 arrays without names; np\.savez\(path, \*\*{clip: array}\) gives them"):
        read(tmp_path / "all.npz")


@pytest.mark.parametrize(
    "words, said",
    [
        (["--external", "face=x"], "external is 'face=x': write NAME=PATH with NAME vision, audio or text"),
        (["--external", "vision"], "write NAME=PATH"),
        (["--external", "vision=a", "--external", "vision=b"], "external names vision twice: a and b"),
        (["--external", "vision=a", "--external_columns", "{audio: [x]}"], "give --external audio=PATH"),
        (["--external", "vision=a", "--external_columns", "{vision: []}"], "external_columns of vision is empty"),
        (["--external", "vision=a", "--encoders", "e", "--blendshapes", "f"], "leave out external vision features"),
    ],
    ids=["unknown_modality", "no_path", "twice", "columns_alone", "no_columns", "blendshapes"],
)
def test_wrong_options_are_refused(words, said, capsys):
    with pytest.raises(SystemExit):
        configuration.parse(EncodeConfig, [*words, "--data", "d", "--out", "o"], prog="emit encode", example="")
    assert said in capsys.readouterr().err


def test_option_is_repeated_or_a_list(tmp_path):
    for words in (
        ["--external", "vision=a", "--data", "d", "--external=audio=b"],
        ["--data", "d", "--external", '["vision=a", "audio=b"]'],
        ["--config", "{external: [vision=a, audio=b]}", "--data", "d"],
    ):
        parsed = configuration.parse(
            EncodeConfig, [*words, "--out", str(tmp_path / "o")], prog="emit encode", example=""
        )
        assert parsed.external_paths() == {"vision": "a", "audio": "b"}


def test_challenge_tables_are_read(tmp_path):
    """Of AVEC, whose action units look like openSMILE's, and of MuSe, whose times are milliseconds."""
    avec, muse = tmp_path / "avec", tmp_path / "muse"
    avec.mkdir()
    muse.mkdir()
    (avec / "one.csv").write_text("name;frameTime;confidence;AU01_r\n'b';0.00;0.9;1.5\n'b';0.04;0.8;2.5\n")
    steps = read(avec, "vision").read(1)["vision"]
    assert steps.values.ravel().tolist() == [1.5, 2.5]
    np.testing.assert_allclose(steps.times, [0, 0.04], atol=1e-7)
    np.testing.assert_allclose(steps.signals.ravel(), [0.9, 0.8], rtol=1e-6)
    rows = "".join(f"{250 * i},{3},{i / 4}\n" for i in range(8))
    (muse / "a.csv").write_text("timestamp,segment_id,feature_0\n" + rows)
    features = read(muse)
    np.testing.assert_allclose(features.read(0)["audio"].times, 0.25 * np.arange(8), rtol=1e-6)
    assert problems(features)["a.csv"] == "its times are read as milliseconds"


def test_arrays_beside_transcripts_are_the_features(tmp_path):
    for name in "abcd":
        (tmp_path / f"{name}.txt").write_text("so funny\n")
    np.save(tmp_path / "b.npy", GOOD)
    features = read(tmp_path)
    assert features.present["audio"].tolist() == [False, True, False, False]
    assert "among files in that of arrays; keep them" in problems(features)["a.txt"]


def test_format_can_be_named_and_be_a_persons_own(tmp_path, monkeypatch):
    (tmp_path / "own.py").write_text(
        "import numpy as np\n"
        "from stage2_fusion.data.external.tracks import Track\n"
        "class Words:\n"
        "    title, modalities = 'my tool', ('audio',)\n"
        "    def recognizes(self, file): return False\n"
        "    def read(self, path, name, wanted):\n"
        "        x = np.array([[float(v)] for v in path.read_text().split()])\n"
        "        return [Track([name], str(path), x, ['v'], None, np.ones(len(x), bool))]\n"
        "    def how(self, modality): return 'mytool clip.wav'\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "c.dat").write_text("1 2 3 4")
    features = read(f"own:Words:{folder}")
    assert features.read(2)["audio"].values.ravel().tolist() == [1, 2, 3, 4]
    assert features.tool().format == "own:Words" and features.tool().how == "mytool clip.wav"
    (folder / "c.txt").write_text("x,y\n1,2\n")
    assert read(f"table:{folder}").tool().columns == ["x", "y"]
    made_by = ExternalFeatures(f"table:{folder}", "audio", Clips(), (), "a program of mine")
    assert made_by.tool().title == "a program of mine" and made_by.tool().identity == read(folder).tool().identity


def test_tables_of_every_format_are_read(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    (tmp_path / "t.tsv").write_text("file\tx\ty\na.wav\t1\t2\n")
    (tmp_path / "t.jsonl").write_text('{"id": "a", "x": 1, "y": 2}\n')
    (tmp_path / "semicolons.csv").write_text("id;x;y\na;1,0;2,5\nb;1,25;2,75\n")
    table = pa.table({"id": ["a", "b"], "e": [[1.0, 2.0], None], "Joy": [0.5, 0.1]})
    pq.write_table(table, tmp_path / "t.parquet")
    for name in ("t.tsv", "t.jsonl", "t.parquet"):
        features = read(tmp_path / name)
        assert features.read(0)["audio"].values.tolist() == [[1, 2]], name
        assert features.present["audio"].tolist() == [True, False, False, False]
    assert read(tmp_path / "t.parquet").columns == ("e_0", "e_1")
    assert read(tmp_path / "semicolons.csv").read(1)["audio"].values.tolist() == [[1.25, 2.75]]
    for name, said in {"t.xlsx": "save it as CSV", "t.zip": "unpack it", "cut.parquet": "not a readable table"}.items():
        (tmp_path / name).write_bytes(b"PK\x03\x04")
        with pytest.raises(UserError, match=said):
            read(tmp_path / name)


def test_values_that_are_missing_are_never_filled_in(tmp_path):
    values = np.array([[1, 2], [np.nan, 2], [-np.inf, 2], [3, 4]], np.float32)
    padded = np.stack([values, np.zeros_like(values)])
    part = {"id": ["a", "b"], "audio": padded, "audio_lengths": np.array([4, 0])}
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({"valid": part}))
    features = read(tmp_path / "f.pkl")
    steps = features.read(0)["audio"]
    assert steps.values.tolist() == [[1, 2], [3, 4]] and features.present["audio"].tolist() == [True] + [False] * 3
    np.testing.assert_allclose(steps.times, [0.25, 1.75])  # the rows between keep their places
    assert (features.rows, features.masked) == (4, 2)


def test_column_without_any_number_is_left_out(tmp_path):
    (tmp_path / "t.csv").write_text("id,x,y,z\na,1,,3\nb,2,,4\nc,5,,\n")
    features = read(tmp_path / "t.csv")
    assert features.columns == ("x", "z") and features.present["audio"].tolist() == [True, True, False, False]


def test_csvs_of_clips_that_somebody_joined_are_told_apart(tmp_path):
    rng, parts = np.random.default_rng(6), []
    made = {name: tool_files.openface(tmp_path / "each" / f"{name}.csv", 5, rng) for name in "ab"}
    for name in "ab":
        header, *lines = (tmp_path / "each" / f"{name}.csv").read_text().splitlines()
        parts += [f"{name}.mp4, calm, 0.5, {line}" for line in lines]
    (tmp_path / "joined.csv").write_text("\n".join([f"video, mood, Joy, {header}", *parts]) + "\n")
    features = read(tmp_path / "joined.csv", "vision")
    assert features.tool().title == "OpenFace" and features.columns == tuple(tool_files.OPENFACE)
    with pytest.raises(UserError, match="column 'Joy' is a label of the clips"):
        read(tmp_path / "joined.csv", "vision", patterns=["AU*", "Joy"])
    for row, name in enumerate("ab"):
        np.testing.assert_allclose(features.read(row)["vision"].values[:, 14], made[name]["AU01_r"], rtol=1e-6)
