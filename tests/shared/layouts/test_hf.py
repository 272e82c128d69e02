"""The layout hf: saved datasets and parquet files."""

import math
from pathlib import Path

import numpy as np
import pytest
from helpers.media_files import face, prepared_here, voice, write_video, write_wav

from shared.dataset.clip import StoredMedia
from shared.errors import UserError
from shared.layouts.registry import guess_layout, read_source


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "v.mp4", np.stack([face()] * 10), sound=voice(0.4)[None])
    write_wav(folder / "s.wav", voice(0.5, seed=3)[None])
    return folder


def rows_of(media):
    film, sound = (media / "v.mp4").read_bytes(), (media / "s.wav").read_bytes()
    cells = (film, "v.mp4"), (None, "v.mp4"), (sound, "s.wav")
    return {
        "video": [{"bytes": data, "path": name} for data, name in cells],
        "sentence": ["one", "two", None],
        "joy": [0.5, None, 1.0],
        "speaker": [7, 8, 9],
    }


def content(dataset, row):
    clip = dataset[row]
    return clip.transcript, clip.labels.tolist(), clip.groups, len(clip.frames), len(clip.waveform)


def test_saved_dataset_gives_the_clips_of_its_files(media, tmp_path):
    import datasets

    table = datasets.Dataset.from_dict(rows_of(media))
    splits = {"train": table.select([0, 1]), "validation": table.select([2])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "saved" / "v.mp4").write_bytes((media / "v.mp4").read_bytes())
    source = read_source(tmp_path / "saved")
    assert guess_layout(tmp_path / "saved") == "hf"
    assert [clip.split for clip in source.clips] == ["train", "train", "valid"]
    assert isinstance(source.clips[0].media, StoredMedia) and source.clips[1].media == tmp_path / "saved" / "v.mp4"
    assert source.clips[0].media.read() == (media / "v.mp4").read_bytes()

    dataset = list(prepared_here(source)[0].values())
    assert content(dataset, 0) == ("one", [0.5], {"speaker": "7"}, 4, 7168)
    assert content(dataset, 2)[3:] == (0, 8000) and content(dataset, 2)[0] == ""
    assert math.isnan(dataset[1].labels[0])
    np.testing.assert_array_equal(dataset[0].frames, dataset[1].frames)  # inside and beside: one file


def test_parquet_files_are_read_and_damaged_ones_left_out(media, tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    film, sound = (media / "v.mp4").read_bytes(), (media / "s.wav").read_bytes()
    columns = {"clip_id": ["a", "b", "c"], "blob": [film, sound, None], "joy": [0.0, 1.0, 0.5], "said": ["x", "y", ""]}
    (tmp_path / "data").mkdir()
    pq.write_table(pa.table(columns), tmp_path / "data" / "train-00000-of-00002.parquet", row_group_size=1)
    (tmp_path / "data" / "train-00001-of-00002.parquet").write_bytes(b"PAR1 cut off")
    options = {"id": "clip_id", "transcript": "said", "media": "blob"}
    source = read_source(tmp_path, options=options)
    assert [(clip.id, clip.split, clip.transcript) for clip in source.clips] == [
        ("a", "train", "x"),
        ("b", "train", "y"),
        ("c", "train", None),
    ]
    assert [clip.media and clip.media.read() for clip in source.clips] == [film, sound, None]
    assert "train-00001" in source.notes[0] and "left out" in source.notes[0]
    nameless = read_source(tmp_path, options={"transcript": "said"})  # the only column of bytes holds the media
    assert [clip.id for clip in nameless.clips] == ["train-000000", "train-000001", "train-000002"]


def test_folders_without_a_readable_dataset_raise(tmp_path):
    with pytest.raises(UserError, match="neither parquet nor arrow"):
        read_source(tmp_path, "hf")
    (tmp_path / "a.parquet").write_bytes(b"no")
    with pytest.raises(UserError, match="cannot be read"):
        read_source(tmp_path)
    for state in ("{}", "[]", '{"_data_files": 1}', '{"_data_files": [{}]}'):
        (tmp_path / "state.json").write_text(state)
        with pytest.raises(UserError, match="names no files, unlike that of a saved dataset"):
            read_source(tmp_path)


def test_embedded_bytes_are_read_when_paths_lead_nowhere(media, tmp_path):
    """As in corpora of speech: path, where the file lay once, and audio, the file itself."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sound = (media / "s.wav").read_bytes()
    columns = {"path": ["/gone/s.wav", "s.wav"], "audio": [{"bytes": sound, "path": "s.wav"}] * 2, "joy": [0.0, 1.0]}
    pq.write_table(pa.table(columns), tmp_path / "T.PARQUET")
    for clip in read_source(tmp_path / "T.PARQUET").clips:
        assert isinstance(clip.media, StoredMedia) and clip.media.read() == sound and clip.audio is None
    (tmp_path / "s.wav").write_bytes(sound)
    first, second = read_source(tmp_path / "T.PARQUET").clips
    assert second.media == tmp_path / "s.wav" and isinstance(first.audio, StoredMedia)


def test_among_media_columns_video_comes_first_then_sound(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Audio, ClassLabel, Features, Image, Value, Video

    kinds = {
        "image": Image(decode=False),
        "speech": Audio(decode=False),
        "clip": Video(decode=False),
        "path": Value("string"),
        "emotion": ClassLabel(names=["calm", "happy"]),
        "valence": Value("float32"),
    }
    cells = {name: [{"bytes": name.encode(), "path": f"{name}.x"}] for name in ("image", "speech", "clip")}
    cells |= {"path": ["/gone/1.mp4"], "emotion": [1], "valence": [0.5]}

    def read(*names, **options):
        picked = Features({name: kinds[name] for name in names})
        table = pa.table({name: cells[name] for name in names}, schema=picked.arrow_schema)
        file = tmp_path / f"{'-'.join([*names, *options])}.parquet"
        pq.write_table(table, file)
        return read_source(file, options=options)

    source = read("image", "speech", "clip", "emotion", "valence")
    (clip,) = source.clips
    assert clip.media.read() == b"clip" and source.label_names == ("valence",)
    assert any("kinds: emotion" in note for note in source.notes)
    # Not an id, though it is called as one.
    assert not any("id 'clip'" in note for note in source.notes) and clip.id == "clip.x"
    assert read("image", "speech", "valence").clips[0].media.read() == b"speech"
    assert read("path", "image", "speech").clips[0].media.read() == b"speech"
    assert read("path", "image").clips[0].media == Path("/gone/1.mp4")
    assert read("image", "clip", "emotion", labels=["emotion"]).clips[0].labels == (1.0,)
    assert read("clip", "speech", "image", media="image").clips[0].media.read() == b"image"
