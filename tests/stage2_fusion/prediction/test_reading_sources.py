"""Sources of clips to predict: read as the training clips of the model were, and never less safely."""

from pathlib import Path

import pytest

from shared.dataset.clip import EMI
from shared.errors import UserError
from shared.layouts.used import UsedLayout
from stage2_fusion.models.model_config import TrainedOn
from stage2_fusion.prediction.run import seen_notes
from stage2_fusion.prediction.sources import Reading, read_clips

TRAINED = UsedLayout("vidmimic2", {"crops": "precomputed"})


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"media")


@pytest.fixture
def root(tmp_path) -> Path:
    """Two clips of each split in the layout of Hume-Vidmimic2, test in test_data/; one more test clip in no table."""
    root, number = tmp_path / "root", 0
    for split in ("train", "valid", "test"):
        place = "test_data/" if split == "test" else ""
        lines = [",".join(("Filename", *EMI))]
        for _ in range(2):
            name = f"{number:05d}"
            touch(root, f"{place}raw/{name}.mp4", f"{place}audio/{name}.mp3", f"{place}face_images/{name}/0.jpg")
            lines.append(f"{name}{',0' * 6 if split == 'test' else ',0.5' * 6}")
            number += 1
        (root / f"{split}_split.csv").write_text("\n".join(lines) + "\n")
    touch(root, "test_data/raw/00099.mp4")
    return root


def test_dataset_is_read_as_the_training_clips_were(root):
    found = read_clips([root], Reading(split="valid", trained_with=TRAINED))
    assert [clip.id for clip in found.clips] == ["00002", "00003"] and not found.failures
    assert found.clips[0].crops == root / "face_images" / "00002" and not found.clips[0].labels
    how = "read with layout vidmimic2 {crops: precomputed}, as the training clips of the model"
    assert found.notes[0] == f"{root}: {how}"
    assert not any("\n" in note for note in found.notes)


def test_options_override_the_layout_of_the_model(root):
    own = read_clips([root], Reading(layout_options={"crops": "own"}, split="valid", trained_with=TRAINED))
    assert own.clips[0].crops is None and "as the training clips" not in "".join(own.notes)
    assert all(clip.media.suffix == ".mp3" for clip in read_clips([root / "audio"], Reading(layout="folder")).clips)


def test_folders_of_one_dataset_give_one_clip_for_picture_and_sound(root):
    """test_data/ alone has no table; without the layout it would be two files for each clip."""
    found = read_clips([root / "test_data"], Reading(trained_with=TRAINED))
    assert [clip.id for clip in found.clips] == ["00004", "00005", "00099"]
    assert found.clips[0].audio.name == "00004.mp3" and found.clips[0].crops.name == "00004"
    assert len(read_clips([root / "test_data"]).clips) == 5


def test_media_that_no_layout_describes_are_read_alone_and_it_is_said(root, tmp_path):
    touch(tmp_path / "mine", "a.mp4", "sub/b.webm")
    found = read_clips([tmp_path / "mine"], Reading(trained_with=TRAINED))
    assert [clip.id for clip in found.clips] == ["a.mp4", "sub/b.webm"]
    assert "read as media alone, unlike the training clips (layout vidmimic2" in found.notes[0]
    one = read_clips([tmp_path / "mine" / "a.mp4"], Reading(trained_with=TRAINED))
    assert [clip.id for clip in one.clips] == ["a.mp4"] and "1 file read as media alone" in one.notes[0]
    assert not read_clips([tmp_path / "mine"], Reading(trained_with=UsedLayout("csv"))).notes


def test_columns_of_the_training_table_are_found_again_without_its_labels(tmp_path):
    touch(tmp_path, "a.mp4", "b.mp4")
    (tmp_path / "new.csv").write_text("clip,words,name\na.mp4,so good,A\nb.mp4,no,B\n")
    trained = UsedLayout("csv", {"media": "clip", "transcript": "words", "labels": ["joy"], "id": "name"})
    found = read_clips([tmp_path / "new.csv"], Reading(trained_with=trained))
    assert [(clip.id, clip.transcript) for clip in found.clips] == [("A", "so good"), ("B", "no")]
    other = tmp_path / "other.csv"
    other.write_text("path,text\na.mp4,hm\n")
    found = read_clips([other], Reading(trained_with=trained))
    assert [clip.transcript for clip in found.clips] == ["hm"]
    assert "not read with layout csv" in found.notes[0] and "no column 'clip'" in found.notes[0]


def test_texts_of_two_tables_are_kept_apart_and_need_no_column_of_the_training_table_but_the_text(tmp_path):
    trained = UsedLayout(
        "csv", {"transcript": "essay", "id": "number", "split": "part", "labels": ["joy"], "groups": ["who"]}
    )
    for folder, text in (("a", "so good"), ("b", "no")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.csv").write_text(f"essay,year\n{text},1999\nhm,2001\n")
    found = read_clips([tmp_path / "a" / "t.csv", tmp_path / "b" / "t.csv"], Reading(trained_with=trained))
    texts = {clip.id: clip.transcript for clip in found.clips}
    # A clip that occurs twice is predicted once: line 3 says the same in both.
    assert texts == {"t-000002": "so good", "t-000003": "hm", f"{tmp_path / 'b' / 't.csv'}/t-000002": "no"}
    assert all(clip.words_alone for clip in found.clips) and not found.failures


def test_splits_are_drawn_as_prepare_draws_them(tmp_path):
    from shared.dataset.splits import assign_splits
    from shared.layouts.registry import read_source

    names = [f"{i}.mp4" for i in range(20)]
    touch(tmp_path, *names)
    rows = [f"{name},s{i % 7},v{i % 5}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["path,subject,seed", *rows]) + "\n")
    expected = assign_splits(read_source(tmp_path), "seed").clips
    expected = [clip.id for clip in expected if clip.split == "test"]
    found = read_clips([tmp_path], Reading(split="test", trained_with=UsedLayout("csv", {}, "seed")))
    assert expected and [clip.id for clip in found.clips] == expected


@pytest.mark.parametrize(("split", "message"), [("tset", "no clips of split 'tset'; splits here: test, train, valid")])
def test_unknown_split_names_those_there_are(root, split, message):
    with pytest.raises(UserError, match=message):
        read_clips([root], Reading(split=split))
    touch(root, "mine/a.mp4")
    with pytest.raises(UserError, match="plain media have no splits"):
        read_clips([root / "mine"], Reading(split="test"))


def test_a_model_folder_of_somebody_else_names_no_place_and_imports_nothing(tmp_path):
    touch(tmp_path, "secret/a.mp4", "mine/b.mp4")
    (tmp_path / "mine" / "labels.csv").write_text("path\na.mp4\n")
    trained = UsedLayout("csv", {"media": "path", "root": str(tmp_path / "secret")})
    clip = read_clips([tmp_path / "mine"], Reading(trained_with=trained)).clips[0]
    assert not str(clip.media).startswith(str(tmp_path / "secret"))
    assert UsedLayout.of("csv", trained.options).options == {"media": "path"}
    (tmp_path / "plain").mkdir()
    touch(tmp_path, "plain/c.mp4")
    found = read_clips([tmp_path / "plain"], Reading(trained_with=UsedLayout("antigravity:X"), model=Path("model")))
    import sys

    assert [clip.id for clip in found.clips] == ["c.mp4"] and "antigravity" not in sys.modules


def test_what_a_model_folder_says_cannot_control_the_terminal():
    assert str(UsedLayout("folder")) == "folder"
    shown = str(UsedLayout("vidmimic2", {"crops\x1b[2J": "own\nline", "x": "y" * 999}))
    assert shown.isprintable() and len(shown) < 200


def test_clips_that_the_model_learned_from_are_counted_by_name():
    trained_on = TrainedOn(clips=["a", "b"], chosen_on=["v"])
    (line,) = seen_notes(["a.mp4", "b", "v", "z"], trained_on)
    assert "2 of the clips trained this model and 1 chose its epoch" in line
    assert not seen_notes(["z"], trained_on) and not seen_notes(["a"], TrainedOn())
