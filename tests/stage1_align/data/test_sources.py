"""Sources on real files: what they give, what they skip, what they refuse."""

import io
import tarfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.media_files import clock, write_video
from helpers.stage1_corpora import RATE, dump, number_of, png, shade, wav, write_shard, write_shards, write_sounds

from shared import config as configuration
from shared.dataset.clip import EMI
from shared.errors import UserError
from shared.layouts.registry import read_source
from stage1_align.config import AlignConfig, SourceConfig
from stage1_align.data.sources import open_source


def opened(kind, path, split="train", **options):
    return open_source(SourceConfig(kind, str(path), options=options), split)


def first(source, count):
    return list(source.first(count))


def everything(count):
    return list(range(count))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    datasets.disable_progress_bars()


# --- webdataset ----------------------------------------------------------------------------------------------------


def test_members_with_one_base_name_are_one_item(tmp_path):
    values = {"caption": ["loud", " a tone "], "joy": 0.5, "said": "hello"}
    records = {
        "a/1.x": {"png": png(3), "txt": b"gray \n"},
        "b/1": {"JPEG": png(5), "wav": wav(7, tmp_path), "json": dump(values)},
        "b/2": {"txt": b"no media"},
    }
    records["a/1"] = {
        f"x.{suffix}": data for suffix, data in records.pop("a/1.x").items()
    }  # suffix "x.png": not a picture
    path = write_shard(tmp_path / "s.tar", {"b/1": records["b/1"], "a/1": records["a/1"], "b/2": records["b/2"]})
    source = opened("webdataset", path, transcript="said", labels=["joy"])
    items = first(source, 10)
    sample = source.sample(items[0], RATE, everything)
    assert sample.frames.shape == (1, 8, 8, 3) and tuple(sample.frames[0, 2, 5]) == shade(5)
    assert len(sample.waveform) == 1607 and sample.damage == ""
    assert 0.09 < np.abs(sample.waveform).max() < 0.11
    assert sample.annotations.captions == ["loud", "a tone"] and sample.annotations.transcript == "hello"
    assert sample.annotations.labels.tolist() == [0.5]
    bare = source.sample(items[1], RATE, everything)
    assert bare.frames.shape[0] == 0 and len(bare.waveform) == 0 and np.isnan(bare.annotations.labels).all()
    assert source.annotations(items[2]).captions == ["no media"]
    assert source.text_kinds == {"caption", "transcript", "labels"}


def test_records_that_a_tar_tears_apart_are_counted(tmp_path):
    """Names with dots, members that are not neighbors, two of one name, and files that macOS adds."""
    names = {"a": ["png", "txt"], "._a": ["png"], "S.01": ["png", "txt"], "S.02": ["png", "txt"], "b": ["png", "png"]}
    members = [(key, suffix) for key, several in names.items() for suffix in several]
    members += [("c", "png"), ("d", "png"), ("c", "txt"), ("d", "txt")]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for key, suffix in members:
            info, data = tarfile.TarInfo(f"{key}.{suffix}"), png(3) if suffix == "png" else b"gray"
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    source = opened("webdataset", tmp_path / "s.tar")
    damage = [source.sample(item, None, everything).damage for item in first(source, 20)]
    assert damage[0] == damage[3] == damage[4] == ""
    assert damage[1].startswith("a record with neither picture, sound nor words: .01.png, .01.txt, .02.png, .02.txt")
    assert damage[2] == "b.png: twice in one record; the last one is used"
    assert [text.partition(":")[0] for text in damage[5:]] == ["c.txt", "d.txt"] and "sort the tar" in damage[5]


def test_media_that_are_not_requested_are_not_decoded(tmp_path):
    source = opened("webdataset", write_shard(tmp_path / "s.tar", {"1": {"png": b"junk", "wav": b"junk", "txt": b"a"}}))
    item = first(source, 1)[0]
    assert source.sample(item, None, None).damage == ""
    damage = source.sample(item, RATE, everything).damage
    assert "not a readable picture" in damage and "not a readable media file" in damage
    assert source.sample(item, RATE, everything).annotations.captions == ["a"]


@pytest.mark.parametrize("harm", ["cut", "header", "gone"])
def test_rest_of_a_damaged_shard_is_skipped_and_reported(tmp_path, harm):
    pattern = write_shards(tmp_path, 3, 4)
    middle = tmp_path / "001.tar"
    data = bytearray(middle.read_bytes())
    member = 512 + 512  # a header, and data padded to a block
    if harm == "cut":
        data = data[: 5 * member - 100 - 400]  # in the picture of the third record: two are whole
    elif harm == "header":
        data[4 * member : 4 * member + 512] = b"\xff" * 512
    else:
        data = data[:300]
    middle.write_bytes(data)
    source = opened("webdataset", pattern, buffer=2)
    reports = []
    numbers = [
        number_of(source.sample(item, None, everything))
        for item in source.records(np.random.default_rng(0), reports.append)
    ]
    assert sorted(numbers) == [0, 1, 2, 3, *([] if harm == "gone" else [4, 5]), 8, 9, 10, 11]
    assert len(reports) == 1 and "001.tar" in reports[0]


def test_stream_gives_every_record_once_in_shuffled_order(tmp_path):
    source = opened("webdataset", write_shards(tmp_path, 4, 8), buffer=6)

    def order(seed):
        records = source.records(np.random.default_rng(seed), pytest.fail)
        return [number_of(source.sample(item, None, everything)) for item in records]

    assert order(0) == order(0) != order(1)
    assert sorted(order(0)) == list(range(32))
    assert {number // 8 for number in order(0)[:8]} != {order(0)[0] // 8}  # the buffer mixes adjacent shards
    source.buffer = 1
    assert {order(seed)[0] // 8 for seed in range(20)} == {0, 1, 2, 3}  # any shard may be the first


# --- hf ------------------------------------------------------------------------------------------------------------


def table_of(count, tmp_path):
    import datasets

    columns = {
        "image": [{"bytes": png(i), "path": None} for i in range(count)],
        "sound": [{"array": [0.0] * (1600 + i), "sampling_rate": RATE} for i in range(count)],
        "caption": [[f"color {i}", f"shade {i}"] for i in range(count)],
        "joy": [i / 10 for i in range(count)],
    }
    return datasets.Dataset.from_dict(columns).cast_column("image", datasets.Image())


def test_saved_folders_files_and_streams_give_the_same_items(tmp_path):
    import datasets

    table = table_of(6, tmp_path)
    datasets.DatasetDict({"train": table, "dev": table.select([4, 2])}).save_to_disk(str(tmp_path / "saved"))
    table.select(range(3)).to_parquet(str(tmp_path / "a.parquet"))
    table.select(range(3, 6)).to_parquet(str(tmp_path / "b.parquet"))
    sources = [
        opened("hf", tmp_path / "saved", labels=["joy"]),
        opened("hf", tmp_path / "saved", labels=["joy"], streaming=True),
        opened("hf", tmp_path / "?.parquet", labels=["joy"]),
        opened("hf", tmp_path / "{a,b}.parquet", labels=["joy"], streaming=True),
    ]
    for source in sources:
        items = first(source, 10)
        samples = [source.sample(item, RATE, everything) for item in items]
        assert [number_of(sample) for sample in samples] == list(range(6))
        assert [len(sample.waveform) for sample in samples] == list(range(1600, 1606))
        assert [source.annotations(item).captions for item in items] == [[f"color {i}", f"shade {i}"] for i in range(6)]
        assert np.allclose([sample.annotations.labels for sample in samples], np.arange(6)[:, None] / 10)
    dev = opened("hf", tmp_path / "saved", "dev")
    assert [number_of(dev.sample(item, None, everything)) for item in first(dev, 9)] == [4, 2]
    valid = opened("hf", tmp_path / "saved", "valid")  # dev is another name of valid
    assert [number_of(valid.sample(item, None, everything)) for item in first(valid, 9)] == [4, 2]
    with pytest.raises(UserError, match="no split 'test'; splits here: train, valid"):
        opened("hf", tmp_path / "saved", "test")


def test_json_lines_name_files_beside_them(tmp_path):
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "1.wav").write_bytes(wav(1, tmp_path))
    lines = [
        '{"img": "1.png", "wav": "1.wav", "description": "one"}',
        '{"img": "2.png", "wav": null, "description": "two"}',
    ]
    (tmp_path / "train.jsonl").write_text("\n".join(lines))
    for streaming in (False, True):
        source = opened("hf", tmp_path / "{split}.jsonl", streaming=streaming)
        one, two = (source.sample(item, RATE, everything) for item in first(source, 2))
        assert tuple(one.frames[0, 0, 0]) == shade(1) and len(one.waveform) == 1601 and one.damage == ""
        assert len(two.frames) == len(two.waveform) == 0 and two.damage.endswith("2.png: no such file")
        assert two.annotations.captions == ["two"]


def test_damaged_file_is_skipped_by_a_stream_and_refused_by_a_table(tmp_path):
    table = table_of(4, tmp_path)
    table.to_parquet(str(tmp_path / "b.parquet"))
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and nothing else")
    source = opened("hf", tmp_path, streaming=True)
    reports = []
    assert len(list(source.records(np.random.default_rng(0), reports.append))) == 4
    assert len(reports) == 1 and "a.parquet" in reports[0]
    with pytest.raises(UserError, match="cannot be read"):
        opened("hf", tmp_path)


def test_file_names_and_folders_say_the_split_of_hf_files(tmp_path):
    table = table_of(4, tmp_path)
    (tmp_path / "data").mkdir()
    for name, rows in (("train-00000-of-00001", [0, 1]), ("validation-00000-of-00001", [2, 3])):
        table.select(rows).to_parquet(str(tmp_path / "data" / f"{name}.parquet"))
    for split, numbers in (("train", [0, 1]), ("valid", [2, 3])):
        source = opened("hf", tmp_path / "data", split)
        assert [number_of(source.sample(item, None, everything)) for item in first(source, 9)] == numbers
    with pytest.raises(UserError, match="no split 'test'; splits here: train, valid"):
        opened("hf", tmp_path / "data", "test")


def test_numeric_columns_between_0_and_1_are_labels_of_hf_rows(tmp_path, capsys):
    lines = [f'{{"image": "{i}.png", "text": "x {i}", "calm": 0.5, "width": 640, "code": "1"}}' for i in range(2)]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    for streaming in (False, True):
        source = opened("hf", tmp_path / "a.jsonl", streaming=streaming)
        item = next(source.first(1))
        assert source.label_names == ["calm"] and source.annotations(item).labels.tolist() == [0.5]
        assert source.annotations(item).transcript == "x 0" and source.text_kinds == {"transcript", "labels"}
    assert "not labels, since their values are not in [0, 1]: width" in capsys.readouterr().err


# --- csv -----------------------------------------------------------------------------------------------------------


def test_rows_naming_one_file_are_one_item_with_several_captions(tmp_path):
    (tmp_path / "media").mkdir()
    for i in range(2):
        (tmp_path / "media" / f"{i}.wav").write_bytes(wav(i, tmp_path))
    rows = ["file;Caption_1;caption_2;joy;split", "0.wav;a dog;a bark, loud;0.5;train"]
    rows += ["1.wav;a cat;;;train", "0.wav;woof;;0.5;train", "1.wav;not read;;;test"]
    (tmp_path / "t.csv").write_text("\n".join(rows))
    options = {
        "audio": "file",
        "caption": ["Caption_1", "caption_2"],
        "labels": ["joy"],
        "root": str(tmp_path / "media"),
    }
    source = opened("csv", tmp_path / "t.csv", **options)
    assert [source.annotations(i).captions for i in range(len(source))] == [
        ["a dog", "a bark, loud", "woof"],
        ["a cat"],
    ]
    assert source.annotations(0).labels.tolist() == [0.5] and np.isnan(source.annotations(1).labels[0])
    assert len(source.sample(1, RATE, everything).waveform) == 1601
    assert len(source.sample(1, 2 * RATE, everything).waveform) == 3202
    assert len(opened("csv", tmp_path / "t.csv", "test", **options)) == 1
    with pytest.raises(UserError, match="no rows of split 'valid'; splits here: test, train"):
        opened("csv", tmp_path / "t.csv", "valid", **options)


def test_damaged_rows_are_skipped_and_reported(tmp_path, capsys):
    (tmp_path / "0.wav").write_bytes(wav(0, tmp_path))
    (tmp_path / "t.csv").write_text('audio,caption\n0.wav,"a dog\n0.wav,woof\n0.wav,a bark, loud\n')
    assert opened("csv", tmp_path / "t.csv").annotations(0).captions == ["woof"]
    assert "2 rows left out, the first in line 2: a quotation mark is left open" in capsys.readouterr().err


def test_json_lines_are_a_table_of_pairs(tmp_path, capsys):
    (tmp_path / "0.wav").write_bytes(wav(0, tmp_path))
    rows = ['{"audio": "0.wav", "caption": "a dog", "valence": 0.5}', '{"audio": "0.wav", "caption": "woof"}', "{"]
    (tmp_path / "t.jsonl").write_text("\n".join(rows))
    source = opened("csv", tmp_path / "t.jsonl")
    assert len(source) == 1 and source.annotations(0).captions == ["a dog", "woof"]
    assert source.label_names == ["valence"] and source.annotations(0).labels.tolist() == [0.5]
    assert "1 row left out, the first in line 3: not a JSON object" in capsys.readouterr().err


def test_videos_give_pictures_and_sound(tmp_path):
    frames = clock(np.arange(25) / 25)
    write_video(tmp_path / "v.mp4", frames, sound=0.1 * np.ones((1, RATE), np.float32))
    (tmp_path / "t.csv").write_text(f"video,caption\nv.mp4,{'very ' * 20_000}long\n")
    source = opened("csv", tmp_path / "t.csv", frame_rate=5)
    sample = source.sample(0, RATE, lambda count: [0, count - 1])
    assert sample.frames.shape == (2, 64, 96, 3) and 0.9 * RATE < len(sample.waveform) < 1.1 * RATE
    alone = source.sample(0, RATE, None)
    assert len(alone.frames) == 0 and np.array_equal(alone.waveform, sample.waveform)
    assert len(source.annotations(0).captions[0]) == 5 * 20_000 + 4


def test_large_pictures_are_reduced_and_missing_files_are_named(tmp_path):
    (tmp_path / "1.png").write_bytes(png(1, side=1500))
    (tmp_path / "t.csv").write_text("image,audio,caption\n1.png,,big\n,gone.wav,no file\n")
    source = opened("csv", tmp_path / "t.csv")
    assert source.sample(0, RATE, everything).frames.shape == (1, 512, 512, 3)
    assert source.sample(0, RATE, everything).damage == ""
    assert "gone.wav: no such file" in source.sample(1, RATE, everything).damage


def test_labels_csv_of_a_synthetic_corpus_is_a_source_of_pairs(corpus):
    """With the labels, transcripts and splits that the csv layout reads from it."""
    clips = read_source(corpus / "labels.csv").clips
    for split in ("train", "valid"):
        source = opened("csv", corpus / "labels.csv", split)
        wanted = [clip for clip in clips if clip.split == split]
        annotations = [source.annotations(item) for item in range(len(source))]
        assert source.label_names == list(EMI) and source.text_kinds == {"transcript", "labels"}
        np.testing.assert_array_equal([a.labels for a in annotations], np.float32([clip.labels for clip in wanted]))
        assert [a.transcript for a in annotations] == [clip.transcript or "" for clip in wanted]
    sample = source.sample(0, RATE, everything)
    assert len(sample.frames) and len(sample.waveform) and sample.damage == ""


def test_a_column_of_paths_holds_files_of_any_kind(tmp_path):
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "1.wav").write_bytes(wav(1, tmp_path))
    write_video(tmp_path / "v.mp4", clock(np.arange(25) / 25), sound=0.1 * np.ones((1, RATE), np.float32))
    (tmp_path / "t.csv").write_text("File_Name,description,text,valence\n1.png,a,,1\n1.wav,b,hello,0\nv,c,you,0.5\n")
    source = opened("csv", tmp_path / "t.csv")
    assert source.text_kinds == {"caption", "transcript", "labels"} and source.label_names == ["valence"]
    picture, sound, video = (source.sample(i, RATE, everything) for i in range(3))
    assert picture.frames.shape == (1, 8, 8, 3) and len(picture.waveform) == 0
    assert len(sound.frames) == 0 and len(sound.waveform) == 1601 and sound.annotations.transcript == "hello"
    assert len(video.frames) == 8 and len(video.waveform) > 0.9 * RATE and video.annotations.captions == ["c"]


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind, path, options, message",
    [
        ("hff", "sounds.csv", {}, "did you mean 'hf'"),
        ("csv", "", {}, "has no path"),
        ("csv", "gone.csv", {}, "no such table"),
        ("csv", "sounds.csv", {"audio": "audoi"}, "no column 'audoi': did you mean 'audio'"),
        ("csv", "sounds.csv", {"caption": ["caption", "captoin"]}, "no column 'captoin': did you mean 'caption'"),
        ("csv", "sounds.csv", {"labels": ["joy"]}, "no column 'joy'"),
        ("csv", "sounds.csv", {"labels": ["caption"]}, "line 2, column caption: 'tone 0' is not a number"),
        ("csv", "sounds.csv", {"captoin": "caption"}, "no option 'captoin': did you mean 'caption'"),
        ("csv", "sounds.csv", {"frame_rate": "fast"}, "frame_rate is fast: expected a number"),
        ("csv", "sounds.csv", {"root": "/nowhere"}, "files are missing .the first row names /nowhere/0.wav"),
        ("csv", "bare.csv", {}, "which column holds pictures or sound.* one of: a, b"),
        ("csv", "bare.csv", {"image": "a"}, "which column holds the words.* one of: a, b"),
        ("hf", "gone/{0..3}.parquet", {}, "no file .*gone/0.parquet"),
        ("hf", "*.arrow", {}, r"no file matches .*\*.arrow"),
        ("hf", "sounds.csv", {}, "use kind: csv for tables"),
        ("hf", "rows.jsonl", {"image": "imgae"}, "no column 'imgae': did you mean 'image'"),
        ("webdataset", "000.tar", {"caption": "captoin"}, "no key 'captoin' in the .json: did you mean 'caption'"),
        ("webdataset", "sounds.csv", {}, "none of its 1 shards has a readable record"),
        ("webdataset", "mute.tar", {}, "no words in the first record; set caption to a key of its .json: said"),
        ("clips", "gone", {}, "no clip dataset here"),
        ("clips", "gone", {"captions": 1}, "no option 'captions'"),
    ],
)
def test_errors_are_one_line_that_says_what_to_do(tmp_path, kind, path, options, message):
    write_sounds(tmp_path, 2)
    (tmp_path / "bare.csv").write_text("a,b\n1,2\n")
    (tmp_path / "rows.jsonl").write_text('{"image": "1.png", "caption": "one"}')
    write_shard(tmp_path / "000.tar", {"1": {"png": png(1), "json": dump({"caption": "one"})}})
    write_shard(tmp_path / "mute.tar", {"1": {"png": png(1), "json": dump({"said": "one"})}})
    with pytest.raises(UserError, match=message) as caught:
        opened(kind, tmp_path / path if path else "", **options)
    assert "\n" not in str(caught.value)


def test_source_without_splits_has_training_data_only(tmp_path):
    for kind, path in (("csv", write_sounds(tmp_path / "s", 2)), ("webdataset", write_shards(tmp_path / "w", 1, 2))):
        with pytest.raises(UserError, match=r"no split 'valid' here: put \{split\} into the path"):
            opened(kind, path, "valid")


def test_sources_are_configured_by_yaml_and_command_line(tmp_path, capsys):
    path = tmp_path / "c.yaml"
    path.write_text(
        "pairs: {captions: [caption], sources: [{kind: csv, path: t.csv, weight: 2, options: {caption: text}}]}"
    )
    config = configuration.load(AlignConfig, path, ["--data", "x", "--run", "y"])
    assert config.pairs.sources == [SourceConfig("csv", "t.csv", 2.0, options={"caption": "text"})]
    other = configuration.load(AlignConfig, path, ["--data", "x", "--run", "y", "--pairs.sources", "[{path: z}]"])
    assert other.pairs.sources == [SourceConfig("csv", "z", 2.0, options={"caption": "text"})]  # the rest is kept
    path.write_text("pairs: {sources: [{kind: csv, pathh: t.csv}]}")
    with pytest.raises(SystemExit):
        configuration.load(AlignConfig, path, ["--data", "x", "--run", "y"])
    assert capsys.readouterr().err.count("\n") == 1


def test_table_of_pairs_is_read_as_tables_of_clips_are(tmp_path, capsys):
    (tmp_path / "0.wav").write_bytes(wav(0, tmp_path))
    (tmp_path / "1.WAV").write_bytes(wav(0, tmp_path))
    text = "sep=;\naudio;caption;text;valence;split\n0.WAV;NaN;café;0,5;Train\n1.wav;None;\\N;1;TRAINING\n"
    (tmp_path / "t.csv").write_bytes(text.encode("cp1252"))
    source = opened("csv", tmp_path / "t.csv")
    first, second = source.annotations(0), source.annotations(1)
    assert (first.captions, first.transcript, first.labels.tolist()) == ([], "café", [0.5])
    assert (second.captions, second.transcript, second.labels.tolist()) == ([], "", [1.0])
    assert len(source.sample(0, RATE, everything).waveform) == len(source.sample(1, RATE, everything).waveform) > 0
    notes = capsys.readouterr().err
    for note in (
        "as its first line says",
        "read as Windows-1252",
        "decimal commas",
        "read as missing",
        "'0.WAV' is 0.wav",
    ):
        assert note in notes


@pytest.mark.parametrize("cell", ["0_6", "high", "50%"])
def test_bad_label_names_its_line(tmp_path, cell):
    (tmp_path / "0.wav").write_bytes(wav(0, tmp_path))
    (tmp_path / "t.csv").write_text(f"audio,caption,valence\n0.wav,a,0.5\n0.wav,b,{cell}\n")
    with pytest.raises(UserError, match=f"'valence' has numbers, but line 3: '{cell}'"):
        opened("csv", tmp_path / "t.csv")


def test_bad_label_of_a_dataset_names_its_row_and_a_stream_masks_it(tmp_path, capsys):
    rows = {"audio": ["0.WAV"] * 3, "text": ["hi", "NaN", "None"], "valence": ["0.5", "0.1", "high"]}
    (tmp_path / "0.wav").write_bytes(wav(0, tmp_path))
    pq.write_table(pa.table(rows), tmp_path / "t.parquet")
    with pytest.raises(UserError, match="row 2, column valence: 'high' is not a number"):
        opened("hf", tmp_path / "t.parquet", labels=["valence"])
    source = opened("hf", tmp_path / "t.parquet")
    assert "read as missing: NaN, None, NULL and others, 2 times in 'text'" in capsys.readouterr().err
    assert [source.annotations(i).transcript for i in range(3)] == ["hi", "", ""]
    assert len(source.sample(0, RATE, everything).waveform)
    stream = opened("hf", tmp_path / "t.parquet", labels=["valence"], streaming=True)
    items = list(stream.first(3))
    assert np.isnan(stream.annotations(items[2]).labels).all()
    assert "'high' is not a number" in stream.sample(items[2], RATE, everything).damage
