"""The layout vidmimic2 on small generated tables and folders: counts, spellings, seed videos, damaged rows."""

import math

import numpy as np
import pytest
from helpers.media_files import clock, face, prepared_here, voice, write_video, write_wav

from shared.dataset.clip import Clip
from shared.dataset.decode_clip import decode_clip
from shared.dataset.near_duplicates import join_near_duplicates
from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.layouts.registry import read_source
from shared.layouts.vidmimic2.seeds import common_denominator
from shared.media.precomputed_crops import crop_times, read_crops

HEADER = "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"


def make(root, train, valid="", header=HEADER, test=None):
    root.mkdir(parents=True, exist_ok=True)
    (root / "train_split.csv").write_text(f"{header}\n{train}", encoding="utf-8")
    (root / "valid_split.csv").write_text(f"{header}\n{valid}" if valid else f"{header}\n00900,0,0,0,0,0,0\n")
    if test:
        (root / "test_split.csv").write_text(test)
    return root


def clips_of(root, **options):
    source = read_source(root, "vidmimic2", options)
    return {clip.id: clip for clip in source.clips}, "\n".join(source.notes)


def put(path, data=b"x"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def test_rows_files_and_transcripts_are_matched_by_five_digits(tmp_path):
    root = make(tmp_path, "00000,0.5,0,0,0,0,1\n00001,0,0.3333333432674408,0,0,0,0\n")
    put(root / "raw" / "00000.mp4")
    put(root / "audio" / "00000.mp3")
    put(root / "face_images" / "00000" / "0.jpg")
    put(root / "face_images" / "00001" / "Thumbs.db")
    put(root / "text" / "00000.txt", b" what a day \n")
    put(root / "raw" / "00077.mp4")
    put(root / "test_data" / "raw" / "09000.mp4")
    put(root / "test_data" / "audio" / "09001.mp3")
    clips, notes = clips_of(root)
    first = clips["00000"]
    assert first.labels == (0.5, 0, 0, 0, 0, 1) and first.split == "train" and first.transcript == "what a day"
    assert first.media == root / "raw/00000.mp4" and first.audio == root / "audio/00000.mp3" and first.crops is None
    assert (
        clips["00001"].media == root / "raw/00001.mp4" and clips["00001"].audio is None
    )  # preparing reports that it is missing
    assert clips["00001"].labels[1] == 0.3333333432674408
    assert [clips[name].split for name in ("00900", "09000", "09001")] == ["valid", "test", "test"]
    assert clips["09001"].audio == root / "test_data/audio/09001.mp3" and math.isnan(clips["09001"].labels[0])
    table = {line.split()[0]: line.split()[1:] for line in notes.splitlines() if line.startswith("  ")}
    assert table["clips"] == ["2", "of", "8072", "1", "of", "4588", "2", "of", "4586"]
    assert table["raw"] == ["1", "absent", "1", "absent", "1", "absent"]
    assert table["face_images"] == ["1", "absent", "1", "absent", "2", "absent"]  # Thumbs.db is no crop
    assert table["vit"] == ["no", "folder", "no", "folder", "no", "folder"]
    assert "1 in raw/ are in no table and left out: 00077" in notes
    assert "rows of only zeros: 1 of 1 in valid" in notes
    raw, _ = clips_of(root, audio="raw", crops="precomputed")
    assert raw["00000"].audio is None and raw["00000"].crops == root / "face_images/00000"
    with pytest.raises(UserError, match="layout 'vidmimic2'"):
        clips_of(root, crops="none")


@pytest.mark.parametrize("names", [("0", "1"), ("0.0", "1.0"), ("00000.mp4", "raw/00001.mp4"), (" 00000", "00001 ")])
@pytest.mark.parametrize(
    "header",
    [HEADER, HEADER.replace("F", "f"), HEADER.replace("Empathic Pain", "empathic_pain"), HEADER.upper()],
)
def test_copies_of_the_table_are_read_the_same_way(tmp_path, names, header):
    text = f"{header}\n{names[0]},0.5,0,0,0.25,0,1\n{names[1]},0,0,0,0,0.1,0\n"
    variants = {
        "plain": text.encode(),
        "mark": text.encode("utf-8-sig"),
        "windows": text.replace("\n", "\r\n").encode(),
        "semicolons": text.replace(",", ";").replace("0.5", "0,5").encode(),
        "tabs": text.replace(",", "\t").encode(),
        "utf16": text.encode("utf-16"),
        "trailing": text.replace("\n", ",\n").replace("Joy,", "Joy").encode(),
    }
    for name, data in variants.items():
        root = make(tmp_path / name, "")
        (root / "train_split.csv").write_bytes(data)
        clips, _ = clips_of(root)
        assert clips["00000"].labels == (0.5, 0, 0, 0.25, 0, 1) and not clips["00000"].problems, name
        assert clips["00001"].labels == (0, 0, 0, 0, 0.1, 0), name


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("00001,0,0,0\n", "4 cells instead of 7"),
        ("00001,0,0,0,0,0,0,0\n", "8 cells instead of 7"),
        ("00001,1.5,0,0,0,0,0\n", "Admiration is '1.5'"),
        ("00001,0,-0.25,0,0,0,0\n", "Amusement is '-0.25'"),
        ("00001,0,0,0,0,great,0\n", "Excitement is 'great'"),
        ("00001,0,0,0,0,inf,0\n", "Excitement is 'inf'"),
        ("00001,0,0,,0,0,0\n", "Determination is empty"),
        ('00001,0,0,0,"0,0,0\n', "cells instead of 7"),
        ("00001,0,0,0,0,0,0\n00001,0,0,0,0,0,0.5\n", "2 times in train_split.csv with different labels"),
        ("00001,0,0,0,0,0,1\n00001,0,0,0,0,0,1\n", "is 2 times in train_split.csv"),
        ("00001,0,0,0,0,0,1\n00900,0,0,0,0,0,1\n", "is in valid_split.csv as well"),
        (",0,0,0,0,0,0\n", "line 3: names no clip"),
        ("nan,0,0,0,0,0,0\n", "line 3: names no clip"),
        ("-----\n", "line 3: names no clip"),
        ("00001;0;0;0;0;0;0,5\n", "00001 train_split.csv line 3: separated by ';'"),
        ("00001,0,0,0,0,0,0\x00\n", "Joy is '0\\x00'"),
    ],
)
def test_damaged_row_is_named_and_affects_itself_only(tmp_path, row, message):
    good = "00000,0.5,0,0,0,0,1\n"
    clips, notes = clips_of(make(tmp_path, f"{good}{row}00002,0,1,0,0,0,0\n"))
    assert message in notes
    assert clips["00000"].labels == (0.5, 0, 0, 0, 0, 1) and clips["00002"].labels == (0, 1, 0, 0, 0, 0)
    assert not clips["00000"].problems and not clips["00002"].problems
    if "separated" in message:
        assert clips["00001"].labels == (0, 0, 0, 0, 0, 0.5)
    if "cells" in message or "different" in message:
        assert all(math.isnan(value) for value in clips["00001"].labels)


def test_unreadable_tables_are_noted(tmp_path):
    clips, notes = clips_of(make(tmp_path / "a", "", valid="0,0,0,0,0,0,1\n"))
    assert "train_split.csv: no rows" in notes and list(clips) == ["00000"]
    root = make(tmp_path / "b", "")
    (root / "train_split.csv").write_bytes(b"")
    assert "train_split.csv: empty" in clips_of(root)[1]
    (root / "train_split.csv").unlink()
    (root / "train_split.csv").mkdir()
    assert "train_split.csv: cannot be read" in clips_of(root)[1]
    (root / "train_split.csv").rmdir()
    assert "train_split.csv: missing" in clips_of(root)[1]
    nameless = make(tmp_path / "c", "3,0,0,0,0,0,1\n", header="4,0,0,0,0,1,0")
    clips, notes = clips_of(nameless)
    assert clips["00004"].labels[4] == 1 and clips["00003"].labels[5] == 1 and "official order" in notes
    other = make(tmp_path / "d", "3,0,0,0,0,0,1\n", header="a,b,c")
    (other / "valid_split.csv").unlink()
    with pytest.raises(UserError, match="no column Filename"):
        clips_of(other)
    partly = make(tmp_path / "e", "3,0.5\n", header="Filename,Joy")
    clips, notes = clips_of(partly)
    assert clips["00003"].labels[5] == 0.5 and math.isnan(clips["00003"].labels[0]) and "no column for Adm" in notes


def test_zeros_of_the_test_split_are_not_labels(tmp_path):
    rows = "8,0,0,0,0,0,0\n9,0,0,0,0,0,0\n"
    root = make(tmp_path, "1,0,0,0,0,0,0\n", test=f"{HEADER.lower()}\n{rows}")
    clips, notes = clips_of(root)
    assert all(math.isnan(value) for value in clips["00008"].labels) and "not labels" in notes
    assert clips["00001"].labels == (0,) * 6
    make(root, "1,0,0,0,0,0,0\n", test=f"{HEADER}\n{rows}10,0,0,0,0,0,0.5\n")
    assert clips_of(root)[0]["00008"].labels == (0,) * 6


# --- seed videos ---------------------------------------------------------------------------------------------------


def slow_denominator(labels):
    for n in range(1, 151):
        if all(abs(value * n - round(value * n)) < 0.005 for value in labels):
            return n
    return None


def test_common_denominator_is_the_number_of_raters(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(200):
        n = int(rng.integers(2, 129))
        labels = tuple(float(np.float32(k / n)) for k in rng.integers(0, n + 1, 6))
        assert common_denominator(labels) == slow_denominator(labels) and n % common_denominator(labels) == 0
    assert common_denominator((1 / 110, 9 / 110, 0, 0, 0, 0)) == 110 and common_denominator((0.0,) * 6) == 1
    assert common_denominator((0.12345, 0.98761, 0.31415, 0.27182, 0.5, 0.1)) is None
    assert common_denominator((math.nan,) * 6) is None and common_denominator(()) is None


def test_seed_videos_are_found_by_labels_and_words(tmp_path):
    shared = ",".join(str(float(np.float32(k / 122))) for k in (11, 3, 0, 1, 45, 60))
    other = ",".join(str(float(np.float32(k / 117))) for k in (11, 3, 0, 1, 45, 61))
    few = "0.5,0,0,0,0,0.25"  # 4 raters: many clips share it by chance
    train = f"0,{shared}\n1,{few}\n2,{few}\n3,{other}\n4,0.2,0,0,0,0,0\n5,0,0,0.1,0,0,0\n6,0,0,0,0,0,0\n"
    root = make(tmp_path, train, valid=f"10,{shared}\n11,0.75,0,0,0,0,0\n")
    transcripts = {
        4: "I really never thought, that you would make it in the end.",
        11: "i really never thought that you would make it in the and",
        5: "oh my god",
        6: "oh my god",
        3: "somebody else says something else about other things today",
    }
    for number, text in transcripts.items():
        put(root / "text" / f"{number:05d}.txt", text.encode())
    clips, notes = clips_of(root)
    seed = {int(name): clip.groups["seed"] for name, clip in clips.items()}
    assert seed[0] == seed[10] != "" and seed[4] == seed[11] != "" and len({seed[0], seed[3], seed[4]}) == 3
    assert seed[1] == seed[2] == seed[5] == seed[6] == ""
    assert "4 clips share 2 of them" in notes and "2 across splits" in notes
    # A name depends on what is shared, not on other rows.
    alone, _ = clips_of(make(tmp_path / "again", f"77,{shared}\n"))
    assert alone["00077"].groups["seed"] == seed[0]


def test_near_duplicates_are_those_of_an_exhaustive_comparison():
    rng = np.random.default_rng(1)
    words = [f"w{i}" for i in range(40)]
    base = [[str(rng.choice(words)) for _ in range(rng.integers(5, 14))] for _ in range(25)]
    texts = []
    for tokens in base:
        texts.append(" ".join(tokens))
        misheard = list(tokens)
        misheard[int(rng.integers(len(tokens)))] = "misheard"
        texts.append(" ".join(misheard).upper() + "!")
    groups = join_near_duplicates([*texts, None, "", "w1 w2"])
    import difflib

    for i, a in enumerate(texts):
        for j, b in enumerate(texts):
            pair = sorted((a.strip("!").lower().split(), b.strip("!").lower().split()))
            if difflib.SequenceMatcher(None, *pair, autojunk=False).ratio() >= 0.85 and a != b:
                assert groups.find(i) == groups.find(j), (a, b)
    assert all(groups.find(2 * i) == groups.find(2 * i + 1) for i in range(25))
    assert len({groups.find(i) for i in range(50)}) == 25 and [groups.find(i) for i in (50, 51, 52)] == [50, 51, 52]


# --- precomputed crops ---------------------------------------------------------------------------------------------


def test_crops_have_the_times_of_their_frames():
    uneven = np.array([0.0, 0.1, 0.5, 0.9])
    times, end = crop_times(np.array([0, 2, 3]), uneven, 0.0)
    assert times.tolist() == [0.0, 0.5, 0.9] and end == pytest.approx(1.3)
    # another frame rate: spread over the video
    times, end = crop_times(np.arange(30), np.arange(10) / 10, 0.0)
    np.testing.assert_allclose(times, np.arange(30) / 30, atol=1e-9)
    assert end == pytest.approx(1.0)
    times, end = crop_times(np.array([0, 3]), None, 2.0)  # the duration is that of the sound
    assert times.tolist() == [0.0, 1.5] and end == 2.0
    assert crop_times(np.array([0, 30]), None, 0.0)[0].tolist() == [0.0, 1.0]


def write_crops(folder, shades):
    """One crop per frame, as bright as its number."""
    import cv2

    folder.mkdir(parents=True)
    for number, shade in shades.items():
        cv2.imwrite(str(folder / f"{number}.jpg"), np.full((40, 30, 3), shade, np.uint8))


def test_crops_are_read_in_the_order_of_their_numbers(tmp_path):
    write_crops(tmp_path / "f", {number: 2 * number for number in range(0, 100)})
    (tmp_path / "f" / "Thumbs.db").write_bytes(b"x")
    (tmp_path / "f" / "9.jpg").write_bytes(b"broken")
    frames, times, end, problem = read_crops(tmp_path / "f", None, 0.0, 10.0, 2.0, 16)
    assert frames.shape == (19, 16, 16, 3) and "1 unreadable" in problem and end == pytest.approx(100 / 30)
    numbers = [n for n in range(0, 60, 3) if n != 9]
    np.testing.assert_allclose(times, np.array(numbers) / 30, atol=1e-6)
    np.testing.assert_allclose(frames[:, 8, 8, 0], 2 * np.array(numbers), atol=2)
    for folder in ("none", "f2"):
        (tmp_path / "f2").mkdir(exist_ok=True)
        assert len(read_crops(tmp_path / folder, None, 0.0, 10.0, 2.0, 16)[0]) == 0


def test_precomputed_crops_and_sound_become_the_clip(tmp_path):
    root = make(tmp_path / "in", "".join(f"{i},0,0,0,0,0,0.5\n" for i in range(5)))
    (root / "valid_split.csv").unlink()
    (root / "raw").mkdir()
    (root / "audio").mkdir()
    for number in range(3):
        write_video(root / "raw" / f"{number:05d}.mp4", clock(np.arange(25) / 25), sound=voice(1)[None])
    write_video(root / "raw" / "00004.mp4", clock(np.arange(25) / 25))
    for name in ("00000", "00003", "00004"):
        write_crops(root / "face_images" / name, {n: 8 * n for n in range(25)})
    (root / "face_images" / "00001").mkdir()
    for name in ("00000", "00003"):
        write_wav(root / "audio" / f"{name}.wav", np.full((1, 16000), 0.25, np.float32))
    clips, verdicts = prepared_here(read_source(root, options={"crops": "precomputed"}))
    shown = clips["00000"]
    np.testing.assert_allclose(shown.frame_times, np.arange(8) / 8)
    nearest = np.round(np.arange(8) / 8 * 25 - 1e-9)  # the first of two equally near ones
    np.testing.assert_allclose(shown.frames[:, 48, 48, 0], 8 * nearest, atol=3)
    assert shown.vision_quality[:, 0].all()
    for name in ("00000", "00003"):
        np.testing.assert_array_equal(clips[name].waveform, np.full(16000, 0.25, np.float32))
    assert len(clips["00003"].frames) == 8  # without a video, the sound gives the duration
    assert [len(clips[name].frames) for name in ("00001", "00002", "00004")] == [0, 0, 8]
    assert len(clips["00004"].waveform) == 0
    details = {name: verdict.detail for name, verdict in verdicts.items()}
    assert "no face crops in it" in details["00001"] and "no such folder of face crops" in details["00002"]
    assert "no such file" in details["00003"] and verdicts["00000"].verdict == "ok"
    assert details["00004"] == "no audio track; no transcript"


def test_faces_of_raw_are_used_unless_crops_are_requested(tmp_path):
    root = make(tmp_path / "in", "0,0,0,0,0,0,0.5\n")
    (root / "valid_split.csv").unlink()
    (root / "raw").mkdir()
    write_video(root / "raw" / "00000.mp4", np.stack([face()] * 25))
    write_crops(root / "face_images" / "00000", {0: 255})
    frames = prepared_here(read_source(root))[0]["00000"].frames
    assert len(frames) == 8 and frames.std() > 20


def test_crops_keep_their_times_when_the_sound_is_longer(tmp_path):
    write_crops(tmp_path / "crops", {n: 2 * n for n in range(120)})
    sound = write_wav(tmp_path / "a.wav", voice(4.0)[None])
    clip = Clip("a", None, audio=sound, crops=tmp_path / "crops")
    found = decode_clip(clip, Recipe(frame_rate=10, max_seconds=2, frame_size=16))
    np.testing.assert_allclose(found.media.frame_times, np.arange(20) / 10)
    np.testing.assert_allclose(found.media.frames[:, 8, 8, 0], 2 * 3 * np.arange(20), atol=2)  # 30 per second
    assert found.media.more and found.media.duration == 2.0 and len(found.media.waveform) == 32000
    assert not decode_clip(clip, Recipe(frame_rate=10, max_seconds=4, frame_size=16)).media.more


def test_file_in_test_data_does_not_list_a_clip_twice(tmp_path):
    root = make(tmp_path, "1,0,0,0,0,0,0.5\n")
    put(root / "test_data" / "raw" / "00001.mp4")
    clips, _ = clips_of(root)
    assert clips["00001"].split == "train" and not clips["00001"].problems
