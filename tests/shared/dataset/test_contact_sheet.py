"""The contact sheet: which clips are on it, what it says of them, and pages that stay small and harmless."""

import base64
import re

import numpy as np
import pyarrow as pa
import pytest

from shared.dataset.contact_sheet import CLIPS, CROP_SIDE, CROPS, SheetClip, choose, write_contact_sheet
from shared.dataset.verdicts import Verdict
from shared.media.quality import CLIP_QUALITY
from shared.media.storage import decode_jpeg, encode_jpeg


def verdict(name, word="ok", missing=(), detail="", **signals):
    values = {"seconds": 2.0, "face_found": 1.0, "sharpness": 0.5, "brightness": 0.4, "speech": 0.6, "words": 3}
    values |= signals | ({"face_found": None, "sharpness": None, "brightness": None} if "vision" in missing else {})
    quality = [] if word == "failed" else [values.get(column) for column in CLIP_QUALITY]
    return Verdict(name, "", word, list(missing), detail, quality=quality)


def rows(verdicts, side=16, frames=6):
    """A table of the prepared clips: gray crops, whose level is the number of the row; a face in every second frame."""
    kept = [v for v in verdicts if v.verdict != "failed"]
    jpegs = [encode_jpeg(np.full((side, side, 3), i % 250, np.uint8)) for i in range(min(250, len(kept)))]
    counts = [0 if "vision" in v.missing else frames for v in kept]
    quality = [np.tile([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0]], (n // 2, 1)).astype("<f4").tobytes() for n in counts]
    columns = {"frames": [[jpegs[i % 250]] * n for i, n in enumerate(counts)], "vision_quality": quality}
    return pa.table(columns, schema=pa.schema({"frames": pa.list_(pa.large_binary()), "vision_quality": pa.binary()}))


def sheet(tmp_path, verdicts, **options):
    return write_contact_sheet(tmp_path, "0123", verdicts, rows(verdicts, **options)).read_text()


def ids(page):
    return re.findall(r"<b class=\w+>\w+</b><bdi>(.*?)</bdi>", page)


def images(page):
    return [base64.b64decode(data) for data in re.findall(r'src="data:image/jpeg;base64,(.*?)"', page)]


def test_worst_clips_come_first(tmp_path):
    clips = [
        verdict("sharp", sharpness=0.9),
        verdict("blurred", sharpness=0.1),
        verdict("half", face_found=0.5),
        verdict("tenth", face_found=0.1),
        verdict("silent", "partial", ["audio"], "no audio track"),
        verdict("faceless", "partial", face_found=0.0),
        verdict("sound", "partial", ["vision"]),
        verdict("broken", "failed", ["vision", "audio", "text"], "empty file"),
    ]
    page = sheet(tmp_path, clips)
    assert ids(page) == ["broken", "sound", "faceless", "tenth", "half", "silent", "blurred", "sharp"]
    assert "All clips" in page and "empty file" in page and "no picture" in page and "no audio track" in page


def test_crops_are_those_of_the_clip_at_even_times(tmp_path):
    clips = [verdict("broken", "failed"), verdict("first"), verdict("second")]
    page = sheet(tmp_path, clips, frames=8)
    stored = rows(clips, frames=8)["frames"]
    assert images(page) == [stored[0][0].as_py()] * CROPS + [stored[1][0].as_py()] * CROPS
    assert page.count('alt="face"') == 4 and page.count('class=lost alt="no face"') == 4  # frames 0, 2, 5 and 7


def test_large_crops_are_reduced(tmp_path):
    page = sheet(tmp_path, [verdict("clip")], side=336)
    assert {decode_jpeg(data).shape for data in images(page)} == {(CROP_SIDE, CROP_SIDE, 3)}


def test_places_are_shared_between_problems():
    clips = [verdict(f"no face {i}", "partial", face_found=0.0) for i in range(3000)]
    clips += [verdict(f"silent {i}", "partial", ["audio"]) for i in range(7)]
    clips += [verdict(f"good {i}", sharpness=i / 1000, brightness=1 - i / 1000, speech=0.5) for i in range(1000)]
    sections = {section.title: section for section in choose([SheetClip(clip, i) for i, clip in enumerate(clips)])}
    counts = {title: len(section.shown) for title, section in sections.items()}
    assert sum(counts.values()) == CLIPS
    assert counts["Incomplete"] == 7 and counts["Least sharp"] == counts["Darkest"] == counts["Least speech"] == 12
    assert counts["No face found"] in (28, 29) and counts["For comparison"] in (28, 29)
    assert [clip.verdict.id for clip in sections["Least sharp"].shown] == [f"good {i}" for i in range(12)]
    assert [clip.verdict.id for clip in sections["Darkest"].shown] == [f"good {i}" for i in range(999, 987, -1)]
    shown = [clip for section in sections.values() for clip in section.shown]
    assert len(set(shown)) == CLIPS


@pytest.mark.parametrize("count", [1, CLIPS, CLIPS + 1, 5000])
def test_page_is_bounded(tmp_path, count):
    clips = [verdict(f"clip {i}") for i in range(count)]
    page = sheet(tmp_path, clips)
    assert len(ids(page)) == min(count, CLIPS) == len(set(ids(page)))
    assert page == sheet(tmp_path, clips)


def test_dataset_of_sound_says_so(tmp_path):
    page = sheet(tmp_path, [verdict(f"clip {i}", "partial", ["vision"]) for i in range(3)])
    assert "This dataset has no pictures" in page and not images(page)
    assert "No picture" not in page.replace("no pictures", "")  # that is no problem of a clip here


def test_names_cannot_change_the_page(tmp_path):
    hostile = ["<script>alert(1)</script>", "\u202egnp.exe", '"><img src=//evil>', "a" * 10000, "$body"]
    page = sheet(tmp_path, [verdict(name, "partial", detail="<b>&") for name in hostile])
    assert "<script" not in page and "//evil>" not in page and "a" * 500 not in page
    assert "&lt;b&gt;&amp;" in page and "$body" in ids(page)
    assert "default-src 'none'" in page
