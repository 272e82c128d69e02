"""`emit check` on sources with known faults."""

import json
import os

import numpy as np
import pytest
from helpers import stage1_tiny
from helpers.media_files import clock, voice, write_video, write_wav

from shared.commands.check import main
from shared.dataset import equal_files
from shared.dataset.check_report import bars
from shared.errors import UserError
from shared.media.headers import evenly_spaced, read_header


@pytest.mark.parametrize("name", ["labels.csv", "clips", "/dev/zero"])
@pytest.mark.parametrize("layout", [(), ("--layout", "csv")])
def test_pipes_and_devices_are_refused_instead_of_waited_for(name, layout, tmp_path):
    if name != "/dev/zero":
        os.mkfifo(tmp_path / name)
    with pytest.raises(UserError, match="no file but a pipe or a device; write its content to a file"):
        main([str(tmp_path / name), *layout])


def test_pipes_in_a_folder_are_not_waited_for(tmp_path, capsys):
    for name in ("a.txt", "b.wav"):
        os.mkfifo(tmp_path / name)
    write_wav(tmp_path / "a.wav", voice(0.5)[None])
    assert main([str(tmp_path)]) == 0
    assert "1 clip" in capsys.readouterr().out
    os.mkfifo(tmp_path / "labels.csv")
    with pytest.raises(UserError, match="no file but a pipe or a device"):
        main([str(tmp_path), "--layout", "csv"])


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    write_wav(folder / "a.wav", voice(1.0)[None])
    write_wav(folder / "b.wav", voice(2.0, seed=1)[None], rate=8000)
    (folder / "c.wav").write_bytes((folder / "a.wav").read_bytes())
    data = bytearray((folder / "a.wav").read_bytes())
    data[-1] ^= 1
    (folder / "d.wav").write_bytes(bytes(data))  # as large as a.wav, with different content
    write_video(folder / "e.mp4", clock(np.arange(25) / 25))
    (folder / "f.mp4").write_bytes(b"")
    (folder / "g.mp4").write_bytes(b"no film at all")
    rows = [
        "a.wav,0,0,p,train,what a lovely day this is",
        "b.wav,0.05,0,p,train,something else was said by somebody",
        "c.wav,1,0,q,valid,",
        "d.wav,0.5,0,q,valid,What a lovely day this was!",
        "e.mp4,0,0,r,test,short",
        "f.mp4,0,0,s,test,",
        "g.mp4,,0,p,test,",
        "h.mp4,0.99,0,t,train,",
    ]
    (folder / "labels.csv").write_text("\n".join(["file,glad,fear,speaker,split,text", *rows]) + "\n")
    return folder


def run(source, tmp_path, *options):
    assert main([str(source), "--out", str(tmp_path / "report.json"), *options]) == 0
    return json.loads((tmp_path / "report.json").read_text())


@pytest.fixture(scope="module")
def report(source, tmp_path_factory):
    return run(source, tmp_path_factory.mktemp("report"))


def test_files_and_headers_are_counted(report, source):
    assert (
        report["clips"] == 8 and report["layout"] == "csv" and report["splits"] == {"test": 3, "train": 3, "valid": 2}
    )
    files, headers = report["files"], report["headers"]
    assert files["there"] == 7 and files["missing"] == ["h"] and files["empty"] == ["f"]
    assert files["kinds"] == {".wav": 4, ".mp4": 4}
    assert headers["looked_at"] == headers["of"] == 7
    assert headers["seconds"]["least"] == headers["seconds"]["median"] == pytest.approx(1.0, abs=0.05)
    assert headers["seconds"]["most"] == pytest.approx(4.0) and headers["frame_rate"]["most"] == pytest.approx(25)
    assert headers["sample_rates"] == {"16000": 3, "8000": 1} and headers["no_sound"] == 1 == 5 - headers["no_picture"]
    assert {path.rsplit("/", 1)[1] for path in headers["unreadable"]} == {"f.mp4", "g.mp4"}
    # five readable files of 8 s in all, seven files
    assert headers["hours"] == pytest.approx(8 / 5 * 7 / 3600, rel=0.03)


def test_labels_and_zero_rows_are_counted(report):
    glad, fear = report["labels"]["glad"], report["labels"]["fear"]
    assert glad["missing"] == 1 and glad["above_zero"] == pytest.approx(4 / 7) and glad["bins"] == [0, 1]
    assert glad["histogram"] == [4, 0, 0, 0, 0, 1, 0, 0, 0, 2] and glad["mean"] == pytest.approx(2.54 / 7)
    assert fear["constant"] and not glad["constant"]
    assert report["zero_rows"] == {
        "test": {"rows": 2, "zero": 2},
        "train": {"rows": 3, "zero": 1},
        "valid": {"rows": 2, "zero": 0},
    }


def test_labels_that_teach_or_score_nothing_are_named(report, source, tmp_path, capsys):
    reasons = report["useless_labels"]
    assert reasons["train"] == {"fear": "all labels are 0"}
    assert reasons["valid"]["glad"] == "2 labeled clips, where a correlation needs 3"
    assert reasons["test"] == {"glad": "2 labeled clips, where a correlation needs 3", "fear": "all labels are 0"}
    run(source, tmp_path)
    assert "labels       of train that teach nothing: fear (all labels are 0)" in capsys.readouterr().out


def test_duplicates_and_leakage_are_found(report):
    assert report["duplicates"] == {"files": [["a", "c"]], "sounds": [], "transcripts": [["a", "d"]]}
    leakage = report["leakage"]
    assert leakage["speaker"] == {"sets": 1, "clips": 3, "examples": ["a (train) and g (test)"]}
    assert leakage["same file"]["examples"] == ["a (train) and c (valid)"]
    assert leakage["nearly the same words"]["clips"] == 2
    assert report["groups"]["speaker"]["values"] == 5 and report["transcripts"]["there"] == 4


def test_files_that_differ_in_the_middle_are_no_duplicates(tmp_path, capsys):
    """Files longer than the parts that are compared first."""
    sound = bytearray(np.random.default_rng(0).bytes(3 << 20))
    for name in ("a.wav", "b.wav", "c.wav"):
        (tmp_path / name).write_bytes(bytes(sound))
        sound[len(sound) // 2] ^= name == "a.wav"
    rows = ("1,x.mp4,a.wav,0,train", "2,y.mp4,b.wav,1,train", "3,z.mp4,c.wav,0,test")
    (tmp_path / "t.csv").write_text("\n".join(["id,video,audio,joy,split", *rows]) + "\n")
    report = run(tmp_path / "t.csv", tmp_path)
    assert report["duplicates"] == {"files": [], "sounds": [["2", "3"]], "transcripts": []}
    assert report["leakage"]["same sound"]["examples"] == ["2 (train) and 3 (test)"]
    assert "2 clips in 1 set with sound files with equal content: 2 = 3" in capsys.readouterr().out
    assert run(tmp_path, tmp_path, "--layout", "folder")["duplicates"]["files"] == [["b", "c"]]


def test_media_in_small_tables_are_compared(tmp_path, monkeypatch, capsys):
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {"id": ["a", "b", "c", "d"], "video": [b"film", b"cinema", b"film", None], "joy": [0.0, 1.0, 0.5, 0.0]}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet")
    assert run(tmp_path / "t.parquet", tmp_path)["duplicates"]["files"] == [["a", "c"]]
    monkeypatch.setattr(equal_files, "MAX_TABLE_BYTES", 10)
    assert run(tmp_path / "t.parquet", tmp_path)["duplicates"]["files"] == []
    assert "are not read to be compared" in capsys.readouterr().out


def test_report_fits_on_a_screen(source, tmp_path, capsys):
    run(source, tmp_path, "--headers", "3")
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 40
    for words in ("media 'file'", "h", "headers of 3 of 7 files", "CONSTANT", "LEAKAGE", "a = c"):
        assert words in text
    assert "1 of 3 in train (33%)" in text


def test_report_says_that_there_is_no_leakage(tmp_path, capsys):
    write_wav(tmp_path / "a.wav", voice(0.2)[None])
    (tmp_path / "labels.csv").write_text("file,joy,split\na.wav,0,train\nb.wav,1,test\n")
    assert run(tmp_path, tmp_path)["leakage"] == {}
    assert "none found" in capsys.readouterr().out


def test_unreadable_source_is_an_error(tmp_path):
    (tmp_path / "labels.csv").write_text("file,joy\na.wav,0\n")
    with pytest.raises(UserError, match="none of its 1 clip "):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="no such file"):
        main([str(tmp_path / "x")])
    with pytest.raises(UserError, match="no column 'jo'"):
        main([str(tmp_path), "--layout_options.labels", "[jo]"])


def test_header_of_any_file_is_read_without_an_error(tmp_path):
    (tmp_path / "t.mp4").write_text("text")
    assert "no such file" in read_header(tmp_path / "none").reason and read_header(tmp_path / "t.mp4").reason
    assert evenly_spaced(list(range(10)), 3) == [0, 3, 6] and evenly_spaced([1, 2], 5) == [1, 2]
    assert bars([0, 1, 100, 50]) == " ▁█▄"


def test_sound_files_alone_are_a_source(tmp_path, capsys):
    write_wav(tmp_path / "a.wav", voice(0.5)[None])
    (tmp_path / "t.csv").write_text("video,audio,joy\ngone.mp4,a.wav,0\ngone2.mp4,gone.wav,1\n")
    report = run(tmp_path / "t.csv", tmp_path)
    assert report["files"]["there"] == 0 and report["files"]["sound_of_its_own"] == 1
    assert report["headers"]["of"] == 1 and report["headers"]["sample_rates"] == {"16000": 1}


def test_words_that_encoders_do_not_read_are_counted(tmp_path, capsys):
    texts = ["that is so funny", "I am sad about the dog", "Привет, мир!", "...", "the dog " * 40]
    rows = [f'{i}.mp4,{"test" if i in (2, 3) else "train"},"{text}"' for i, text in enumerate(texts)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,split,text", *rows]))
    transcripts = run(tmp_path / "labels.csv", tmp_path)["transcripts"]
    assert (transcripts["unknown"], transcripts["silent"], transcripts["longer"]) == (["2"], ["3"], ["4"])
    out = capsys.readouterr().out
    assert "1 transcript (2) mostly of letters that the words for training lack" in out
    assert "1 transcript (4) of more than 48 words, 32 words beyond" in out and "letters of Latin 3, Cyrillic 1" in out
    encoders = stage1_tiny.encoders()  # its tokenizer knows no "?", its context is 16 tokens
    encoders.save_pretrained(tmp_path / "encoders", {"data": "nothing"})
    tokens = len(encoders.text.tokenizer(texts[4]))
    run(tmp_path / "labels.csv", tmp_path, "--encoders", str(tmp_path / "encoders"))
    out = capsys.readouterr().out
    assert "2 of 5 texts count as missing, such as '2', '3'" in out
    assert "longer than context_length 16, such as" in out and "'4'" in out and "48 words" not in out
    assert tokens > 16


def test_what_a_pipeline_needs_is_missed_at_once(tmp_path):
    for name in "ab":
        (tmp_path / f"{name}.wav").write_bytes(name.encode())

    def refused(rows: str, message: str) -> None:
        (tmp_path / "t.csv").write_text(rows)
        with pytest.raises(UserError, match=message):
            main([str(tmp_path / "t.csv"), "--needs", "[train,valid,test]"])
        assert main([str(tmp_path / "t.csv")]) == 0

    refused("file,split,Joy\na.wav,train,1\nb.wav,valid,0\n", "no clips of split 'test'; found: train, valid")
    refused("file\na.wav\n", "labels none: `emit run own` and `emit fuse` need a table")
    (tmp_path / "t.csv").write_text("file,Joy\na.wav,1\n")
    assert main([str(tmp_path / "t.csv"), "--needs", "[train,valid,test]"]) == 0  # the splits are drawn later
