"""Tables of texts alone: rows without files, and often without names, are clips like any others."""

import json
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shared.errors import UserError
from shared.layouts.registry import read_source

ROWS = [("so happy, really", "2.5", "train", "p1"), ("it is\nterrible", "", "dev", "p2"), ("hm", "4", "test", "p1")]
"""Text, valence, split and person; a comma, a line break, and a text without a label."""


def write_table(folder: Path, kind: str, ids: list[str] | None = None) -> Path:
    header = ["text", "valence", "split", "person"] + (["id"] if ids else [])
    rows = [[*row, *([ids[i]] if ids else [])] for i, row in enumerate(ROWS)]
    path = folder / f"reviews.{kind}"
    if kind == "jsonl":
        path.write_text("\n".join(json.dumps(dict(zip(header, row, strict=True))) for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist([dict(zip(header, row, strict=True)) for row in rows]), path)
    else:
        mark = "\t" if kind == "tsv" else ","
        lines = [mark.join(f'"{cell}"' for cell in row) for row in [header, *rows]]
        path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "parquet"])
def test_rows_of_texts_are_clips_named_by_the_table_and_the_line(kind, tmp_path):
    source = read_source(write_table(tmp_path, kind))
    names = {
        "jsonl": ["reviews-000001", "reviews-000002", "reviews-000003"],
        "parquet": ["reviews-000000", "reviews-000001", "reviews-000002"],
    }
    # The second text has two lines.
    assert [clip.id for clip in source.clips] == names.get(kind, ["reviews-000002", "reviews-000003", "reviews-000005"])
    assert [clip.transcript for clip in source.clips] == [row[0] for row in ROWS]
    assert source.label_names == ("valence",) and source.group_names == ("person",)
    assert source.clips[0].labels == (2.5,) and math.isnan(source.clips[1].labels[0])
    assert [clip.split for clip in source.clips] == ["train", "valid", "test"]
    assert all(clip.words_alone and clip.media is None and not clip.problems for clip in source.clips)
    assert "only texts: no column of media files" in source.notes


def test_texts_with_ids_are_alone_unless_a_file_is_called_like_one_of_them(tmp_path):
    path = write_table(tmp_path, "csv", ["a1", "a2", "a3"])
    alone = read_source(path)
    assert [clip.id for clip in alone.clips] == ["a1", "a2", "a3"] and all(clip.words_alone for clip in alone.clips)
    assert "only texts: no column of media files, and no file is called like an id" in alone.notes
    (tmp_path / "a2.mp4").write_bytes(b"x")
    recorded = read_source(path)
    assert [clip.media for clip in recorded.clips] == [None, tmp_path / "a2.mp4", None]
    assert not any(clip.words_alone for clip in recorded.clips)


def test_text_with_a_comma_outside_quotes_is_left_out_by_its_line(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("text,joy\nso happy,1\nhappy, really,1\nsad,0\n")
    source = read_source(path)
    assert [clip.id for clip in source.clips] == ["t-000002", "t-000004"]
    assert [(row.row, row.media) for row in source.left_out] == [("t.csv line 3", "")]
    assert any(note.startswith("1 row left out: line 3 (") for note in source.notes)


def test_table_of_neither_files_nor_texts_says_how_either_is_named(tmp_path):
    (tmp_path / "t.csv").write_text("essay,joy\nso happy,1\n")
    with pytest.raises(
        UserError, match=r"no column for the media files.*text-only table has a column transcript or text"
    ):
        read_source(tmp_path / "t.csv")
    (clip,) = read_source(tmp_path / "t.csv", "csv", {"transcript": "essay"}).clips
    assert clip.words_alone and clip.transcript == "so happy" and clip.labels == (1.0,)
