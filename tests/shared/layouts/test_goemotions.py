"""GoEmotions in the files of its repository."""

import json
import math

import pytest

from shared.commands.prepare import main as prepare
from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from shared.layouts.registry import read_source

NAMES = "joy\nanger\nsurprise\nneutral\n"


def write(folder, prefix="", **texts):
    folder.mkdir(exist_ok=True)
    (folder / f"{prefix}emotions.txt").write_text(NAMES)
    for name, text in texts.items():
        (folder / f"{prefix}{name}.tsv").write_bytes(text.encode())
    return folder


def test_emotions_and_sentiments_of_every_split(tmp_path):
    folder = write(
        tmp_path,
        "goemotions_",
        train="I can't wait!\t0,2\tc1\nWhat\u2028now?\t2\tc2\n",
        dev="No.\t1\tc3\r\n",
        test="Ok\t3\tc4",
    )
    source = read_source(folder, "goemotions")
    assert source.label_names == ("joy", "anger", "surprise", "neutral", "positive", "negative")
    assert [(c.id, c.split, c.transcript, c.labels) for c in source.clips] == [
        ("c1", "train", "I can't wait!", (1, 0, 1, 0, 1, 0)),
        ("c2", "train", "What\u2028now?", (0, 0, 1, 0, 0, 0)),
        ("c3", "valid", "No.", (0, 1, 0, 0, 0, 1)),
        ("c4", "test", "Ok", (0, 0, 0, 1, 0, 0)),
    ]
    assert all(clip.words_alone and clip.media is None for clip in source.clips) and source.notes == []
    emotions = read_source(folder, "goemotions", {"sentiments": False})
    assert emotions.label_names == ("joy", "anger", "surprise", "neutral") and emotions.clips[0].labels == (1, 0, 1, 0)


def test_lines_that_are_no_text_are_left_out_and_unknown_emotions_are_not_labels(tmp_path):
    source = read_source(
        write(tmp_path, train="a\t0\tc1\n\nno numbers here\nb\t0,4\tc2\nc\t\tc3\n\t1\tc4\n"), "goemotions"
    )
    assert [left.row for left in source.left_out] == ["train.tsv line 3"]
    assert source.notes == ["1 line without text, emotions and comment left out"]
    by_id = {clip.id: clip for clip in source.clips}
    assert list(by_id) == ["c1", "c2", "c3", "c4"]
    for name, shown in (("c2", "'0,4'"), ("c3", "''")):
        assert all(map(math.isnan, by_id[name].labels))
        assert by_id[name].problems == (f"its emotions {shown} are not numbers below 4",)
    assert by_id["c4"].transcript is None and by_id["c4"].labels[1] == 1


def test_what_is_no_goemotions_is_refused_in_a_line(tmp_path):
    with pytest.raises(UserError, match=r"it lacks train.tsv, dev.tsv, test.tsv \(they are in goemotions/data"):
        read_source(write(tmp_path / "names"), "goemotions")
    folder = write(tmp_path / "bare", train="a\t0\tc1\n")
    (folder / "emotions.txt").unlink()
    with pytest.raises(UserError, match=r"it lacks emotions.txt, the names of the emotions \(they are in "):
        read_source(folder, "goemotions")
    twice = write(tmp_path / "twice", train="a\t0\tc1\n")
    (twice / "old_train.tsv").write_text("a\t0\tc1\n")
    with pytest.raises(UserError, match=r"old_train.tsv and train.tsv both match"):
        read_source(twice, "goemotions")
    (folder / "emotions.txt").write_text(NAMES)
    (folder / "train.tsv").write_bytes(b"caf\xe9\t0\tc1\n")
    with pytest.raises(UserError, match=r"train.tsv: not UTF-8 at byte 3: save it as UTF-8$"):
        read_source(folder, "goemotions")


def test_prepared_texts_have_their_labels(tmp_path, capsys):
    folder = write(tmp_path / "texts", train="good\t0\tc1\nbad\t1\tc2\n", dev="hm\t3\tc3\n")
    assert prepare([str(folder), "--layout", "goemotions", "--out", str(tmp_path / "clips")]) == 0
    clips = ClipDataset.open(tmp_path / "clips")
    assert clips.column("split") == ["train", "train", "valid"]
    assert clips.labels().tolist() == [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, 1], [0, 0, 0, 1, 0, 0]]
    assert json.loads((tmp_path / "clips/dataset.json").read_text())["label_names"][-1] == "negative"
