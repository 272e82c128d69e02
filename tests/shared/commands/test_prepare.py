"""From files to a clip dataset: unusual files, resuming, any number of processes."""

import csv
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from helpers.media_files import clock, face, voice, write_video, write_wav

from shared.commands.prepare import main
from shared.dataset import prepare_dataset
from shared.dataset.clip import Clip
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.prepare_clip import prepare_clip
from shared.dataset.prepare_dataset import ClipReader
from shared.dataset.recipe import Recipe
from shared.dataset.worker_pool import JobResult, WorkerPool
from shared.errors import UserError


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """Clips of every kind, with a table and transcripts."""
    folder = tmp_path_factory.mktemp("source")
    (folder / "clips").mkdir()
    faces = np.stack([face(mouth=m) for m in np.linspace(0, 1, 25)])
    write_video(folder / "clips" / "whole.mp4", faces, sound=voice(1)[None])
    write_video(folder / "clips" / "silent.mp4", faces)
    write_wav(folder / "clips" / "audio_only.wav", voice(1)[None])
    write_video(folder / "clips" / "faceless.webm", clock(np.arange(25) / 25), sound=voice(1)[None], codec="libvpx")
    (folder / "clips" / "empty.mp4").write_bytes(b"")
    (folder / "clips" / "page.mp4").write_text("<html>not found</html>")
    (folder / "clips" / "whole.txt").write_text("that was so funny\n")
    (folder / "clips" / "faceless.txt").write_text("hello")
    names = ("whole.mp4", "silent.mp4", "audio_only.wav", "faceless.webm", "empty.mp4", "page.mp4", "gone.mp4")
    lines = [f"clips/{name},0.5,,s{i},{'train' if i < 3 else 'test'}" for i, name in enumerate(names)]
    (folder / "labels.csv").write_text("\n".join(["Filename,Joy,Amusement,subject,split", *lines]) + "\n")
    return folder


def prepare(source, out, *options):
    assert main([str(source), "--out", str(out), *map(str, options)]) == 0
    return ClipDataset.open(out)


@pytest.fixture(scope="module")
def prepared(source, tmp_path_factory) -> ClipDataset:
    return prepare(source, tmp_path_factory.mktemp("out") / "clips", "--workers", 1)


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_clip_has_a_verdict(prepared):
    verdicts = {row["id"]: row for row in rows(prepared.path / "verdicts.csv")}
    found = {name: (row["verdict"], row["missing"]) for name, row in verdicts.items()}
    assert found == {
        "whole": ("ok", ""),
        "silent": ("partial", "audio text"),
        "audio_only": ("partial", "vision text"),
        "faceless": ("partial", ""),
        **{name: ("failed", "vision audio text") for name in ("empty", "page", "gone")},
    }
    assert "no face" in verdicts["faceless"]["detail"]
    assert verdicts["silent"]["detail"] == "no audio track; no transcript"
    assert verdicts["audio_only"]["detail"] == "no video track; no transcript"
    reasons = {row["id"]: row["reason"] for row in rows(prepared.path / "failures.csv")}
    assert list(reasons) == ["empty", "page", "gone"]
    assert "empty" in reasons["empty"] and "readable" in reasons["page"] and "no such file" in reasons["gone"]
    assert prepared.info.counts["clips"] == 4 and prepared.info.counts["splits"] == {"test": 1, "train": 3}


def test_missing_modalities_are_empty(prepared):
    whole, silent, audio_only, faceless = (prepared[i] for i in range(4))
    assert whole.transcript == "that was so funny" and silent.transcript == ""
    assert whole.frames.shape == (8, 96, 96, 3) and whole.vision_quality[:, 0].all()
    assert silent.waveform.shape == (0,) and silent.audio_quality.shape[0] == 0 and len(silent.frames) == 8
    assert audio_only.frames.shape == (0, 96, 96, 3) and audio_only.vision_quality.shape[0] == 0
    assert len(audio_only.waveform) == 16000 and audio_only.duration == 1.0
    assert len(faceless.frames) == 8 and not faceless.vision_quality[:, 0].any()
    assert prepared.label_names == ["Amusement", "Joy"] and whole.labels[1] == 0.5
    assert whole.groups == {"subject": "s0"}


def test_quality_table_lists_every_clip(prepared):
    quality = {row["id"]: row for row in rows(prepared.path / "quality.csv")}
    assert list(quality) == ["whole", "silent", "audio_only", "faceless"]
    whole, audio_only, faceless = quality["whole"], quality["audio_only"], quality["faceless"]
    assert float(whole["face_found"]) == 1 and float(faceless["face_found"]) == 0
    assert 0.3 < float(whole["face_size"]) < 0.7  # drawn 110 pixels wide in 240
    assert (
        float(whole["face_travel"]) < 0.2
        and faceless["face_size"] == "" == faceless["frontal"] == audio_only["frontal"]
    )
    assert 0.6 < float(whole["frontal"]) < 1  # it looks straight ahead
    assert (
        whole["words"] == "4"
        and audio_only["words"] == "0"
        and audio_only["sharpness"] == ""
        and quality["silent"]["snr"] == ""
    )
    mean = prepared[0].audio_quality[:, 1].mean()
    assert float(whole["snr"]) == pytest.approx(mean, abs=1e-3)


def test_contact_sheet_shows_the_worst_clips_first(source, tmp_path, capsys):
    prepare(source, tmp_path / "clips", "--workers", 1)
    path = tmp_path / "clips" / "contact_sheet.html"
    assert f"look at {path}" in capsys.readouterr().out
    page = path.read_text()
    order = [page.index(f"<bdi>{name}<") for name in ("empty", "page", "gone", "audio_only", "faceless", "silent")]
    assert order == sorted(order) and page.index("<bdi>whole<") > order[-1]
    assert page.count("<img") == 3 * 4


def test_verdict_names_the_tracked_face_and_the_cut(tmp_path):
    two = np.stack([face(x=90, side=80, mouth=m) for m in np.linspace(0, 1, 50)])
    two[:, :, 200:] = np.stack([face(width=120, x=60, side=100, mouth=1 - m) for m in np.linspace(0, 1, 50)])
    path = write_video(tmp_path / "two.mp4", two)
    row, verdict = prepare_clip(Clip("two", path), Recipe(max_seconds=1.5))
    assert verdict.verdict == "partial" and verdict.missing == ["audio", "text"]  # there is no sound
    details = verdict.detail.split("; ")
    assert details[0] == "no audio track"
    where = re.fullmatch(r"2 faces: the one (\d+)% from the left and (\d+)% from the top is followed, .*", details[2])
    assert abs(int(where[1]) - 81) <= 3 and abs(int(where[2]) - 52) <= 6
    assert details[3] == "longer than 1.5 s: the rest is left out" and len(row["frames"]) == 12


def files(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_any_number_of_processes_gives_the_same_bytes(source, prepared, tmp_path):
    two = prepare(source, tmp_path / "two", "--workers", 2)
    assert two.digest == prepared.digest
    assert files(tmp_path / "two") == files(prepared.path)


def test_stopped_run_continues(source, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_dataset, "SHARD_SIZE", 2)
    done = []
    write = prepare_dataset._write_results

    def stop_after_two(path, results, info):
        if len(done) == 2:
            raise KeyboardInterrupt
        write(path, results, info)
        done.append(path)

    monkeypatch.setattr(prepare_dataset, "_write_results", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        prepare(source, tmp_path / "out", "--workers", 1)
    assert not (tmp_path / "out" / "dataset.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in done}

    written = []
    monkeypatch.setattr(
        prepare_dataset, "_write_results", lambda path, *rest: (written.append(path), write(path, *rest))
    )
    again = prepare(source, tmp_path / "out", "--workers", 1)
    assert not set(written) & set(kept) and len(written) == 2
    assert again.digest == prepared.digest and "4 of 7 clips are done" in capsys.readouterr().out
    assert not (tmp_path / "out" / ".partial").exists()


def test_jobs_of_an_array_equal_one_run(source, prepared, tmp_path, monkeypatch):
    """In any order, with different numbers of jobs, one of them without a shard."""
    monkeypatch.setattr(prepare_dataset, "SHARD_SIZE", 3)  # three shards
    out = tmp_path / "out"

    def job(*options):
        assert main([str(source), "--out", str(out), "--workers", "1", *options]) == 0

    job("--shard", "3/4")
    with pytest.raises(UserError, match="6 of 7 clips are not prepared yet, from 'whole' on"):
        job("--merge")
    job("--shard", "4/4")
    job("--shard", "1/2")
    job("--shard", "2/4")
    second = out / ".partial" / "000001.arrow"
    content = second.read_bytes()
    second.write_bytes((out / ".partial" / "000000.arrow").read_bytes())
    with pytest.raises(UserError, match="does not hold the clips of the source exactly once"):
        job("--merge")
    assert not (out / "dataset.json").exists()
    second.write_bytes(content)
    job("--merge")
    assert files(out) == files(prepared.path)


def damage(folder: Path) -> None:
    """Damage all but the last shard, as a power cut or a bad disk does."""
    shards = sorted(folder.glob("*.arrow"))
    for number, path in enumerate(shards[:-1]):
        content = path.read_bytes()
        middle = len(content) // 2
        versions = (b"", content[:10], content[:middle], content[:-1], bytes(len(content)))
        path.write_bytes([*versions, content[:middle] + bytes(64) + content[middle + 64 :]][number % 6])


def test_damaged_shards_are_prepared_again(source, prepared, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_dataset, "SHARD_SIZE", 1)
    out = tmp_path / "out"
    assert main([str(source), "--out", str(out), "--workers", "1", "--shard", "1/1"]) == 0
    damage(out / ".partial")
    with pytest.raises(UserError, match=r"6 of 7 .* yet \(what was prepared of 6 is damaged\), from 'whole' on"):
        main([str(source), "--out", str(out), "--merge"])
    # leftovers of killed runs
    (out / ".partial" / f".000002.arrow.{7:032x}.unfinished").write_bytes(b"half")
    (out / f".failures.csv.{7:032x}.partial").write_text("half")
    capsys.readouterr()
    prepare(source, out, "--workers", 1)
    output = capsys.readouterr().out
    assert "the shards of 6 of 7 clips are damaged and written again" in output
    assert "continuing; 1 of 7 clips are done" in output
    assert files(out) == files(prepared.path)


def test_leftover_shards_of_a_complete_dataset_are_removed(source, prepared, tmp_path):
    shutil.copytree(prepared.path, tmp_path / "out")
    (tmp_path / "out" / ".partial").mkdir()
    (tmp_path / "out" / ".partial" / "000000.arrow").write_bytes(b"x")
    prepare(source, tmp_path / "out", "--workers", 1)
    assert files(tmp_path / "out") == files(prepared.path)


def test_complete_dataset_is_not_replaced(source, prepared, capsys):
    before = (prepared.path / "dataset.json").stat().st_mtime_ns
    prepare(source, prepared.path, "--workers", 2)
    output = capsys.readouterr().out
    assert "nothing to do" in output and "columns: " in output  # the notes name the rows that a dataset lacks
    assert (prepared.path / "dataset.json").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="other options"):
        prepare(source, prepared.path, "--frame_rate", 5)
    with pytest.raises(UserError, match="other clips"):
        prepare(source / "clips", prepared.path)


def test_folder_with_other_files_is_an_error(source, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="holds files that are not a clip dataset"):
        prepare(source, tmp_path)


def test_source_without_a_readable_clip_is_an_error(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.mp4").write_bytes(b"")
    with pytest.raises(UserError, match=r"failures\.csv"):
        prepare(tmp_path / "in", tmp_path / "out", "--workers", 1)
    assert rows(tmp_path / "out" / "failures.csv")[0]["reason"] == "the file is empty"


def test_summary_counts_equal_and_long_clips(tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name, seconds, seed in (("a", 1.5, 0), ("b", 0.5, 1), ("c", 1.5, 0), ("d", 1.5, 2)):
        write_wav(tmp_path / "in" / f"{name}.wav", voice(seconds, seed=seed)[None])
    (tmp_path / "in" / "c.txt").write_text("said of one alone")
    (tmp_path / "in" / "e.mp4").write_bytes(b"")
    (tmp_path / "in" / "f.mp4").write_bytes(b"x")  # without frames and sound there is no content
    for name in "ef":
        (tmp_path / "in" / f"{name}.txt").write_text("said")
    prepare(tmp_path / "in", tmp_path / "out", "--workers", 1, "--max_seconds", 1)
    output = capsys.readouterr().out
    assert "  3 clips are longer than max_seconds; the rest is left out\n" in output
    assert "  1 pair of clips has equal content: a = c\n" in output
    prepare(tmp_path / "in" / "b.wav", tmp_path / "alone", "--workers", 1)
    output = capsys.readouterr().out
    assert "longer than" not in output and "equal content" not in output


def test_transcript_is_kept_without_readable_files(source, tmp_path):
    folder = tmp_path / "in"
    (folder / "crops").mkdir(parents=True)
    (folder / "page.mp4").write_text("<html>not found</html>")
    rows_of = (
        "page.mp4,0.5,well done",
        "gone.mp4,0.25,so it goes",
        "page.mp4,1,",
        ",0,words alone",
    )
    lines = [f"{i},{row}" for i, row in enumerate(rows_of)]
    (folder / "labels.csv").write_text("\n".join(["id,file,Joy,text", *lines]) + "\n")
    found = prepare(folder, tmp_path / "out", "--workers", 1)
    assert found.column("transcript") == ["well done", "so it goes", "words alone"]
    assert found.labels().ravel().tolist() == [0.5, 0.25, 0]
    first = found[0]
    assert first.frames.shape == (0, 96, 96, 3) and first.waveform.shape == (0,) and first.duration == 0
    verdicts = [(row["verdict"], row["missing"]) for row in rows(found.path / "verdicts.csv")]
    kept = ("partial", "vision audio")
    assert verdicts == [kept, kept, ("failed", "vision audio text"), kept]
    detail = rows(found.path / "verdicts.csv")[0]["detail"]
    assert detail.startswith(
        "no video: its file cannot be read; no audio: its file cannot be read; not a readable media"
    )

    crops = Clip("a", folder / "page.mp4", crops=folder / "crops", transcript="ha", problems=("odd",))
    row, verdict = prepare_clip(crops, Recipe())
    assert row["transcript"] == "ha" and verdict.missing == ["vision", "audio"] and verdict.verdict == "partial"
    assert "no face crops in it; odd" in verdict.detail and "page.mp4: not a readable media file" in verdict.detail


def test_transcript_is_kept_if_files_crash_the_process(tmp_path, monkeypatch):
    def die(pool, items):
        yield from (JobResult(i, None, "the process that read it died (SIGSEGV)") for i in range(len(items)))

    monkeypatch.setattr(WorkerPool, "run", die)
    (tmp_path / "t.csv").write_text("file,Joy,text\na.mp4,0.5,well done\nb.mp4,1,\n")
    found = prepare(tmp_path / "t.csv", tmp_path / "out")
    assert found.column("transcript") == ["well done"]
    assert "its file cannot be read; the process that read it died" in rows(found.path / "verdicts.csv")[0]["detail"]
    clips = [Clip("a", tmp_path / "a.mp4", "well done"), Clip("b", tmp_path / "b.mp4")]
    given = list(prepare_dataset.prepare_each(clips, Recipe()))
    assert [(clip.id, sample and sample.transcript, reason[:11]) for clip, sample, reason in given] == [
        ("a", "well done", ""),
        ("a", None, "the process"),
        ("b", None, "the process"),
    ]


def test_transcript_alone_is_a_window(source, tmp_path):
    page, whole = (source / "clips" / name for name in ("page.mp4", "whole.mp4"))
    clips = [Clip("page", page, "well done"), Clip("sound", None, "so", audio=page), Clip("no", page)]
    clips.append(Clip("whole", whole, "ha"))
    given = {clip.id: [] for clip in clips}
    for clip, sample, reason in prepare_dataset.prepare_each(clips, Recipe(), workers=1):
        words = sample and (sample.transcript, len(sample.frames), len(sample.waveform), sample.start)
        given[clip.id].append(words or reason)
    assert given["page"][0] == ("well done", 0, 0, 0) and "not a readable media file" in given["page"][1]
    assert given["sound"][0] == ("so", 0, 0, 0) and len(given["page"]) == len(given["sound"]) == 2
    assert len(given["no"]) == 1 and [window[1] for window in given["whole"]] == [8]


def test_clips_in_memory_equal_those_on_disk(source, prepared):
    names = ("whole.mp4", "empty.mp4", "audio_only.wav")
    clips = [Clip(id=Path(name).stem, media=source / "clips" / name) for name in names]
    recipe = prepared.info.recipe
    results = {
        clip.id: (sample, reason) for clip, sample, reason in prepare_dataset.prepare_each(clips, recipe, workers=2)
    }
    assert results["empty"] == (None, "the file is empty")
    assert [name for name, (sample, _) in sorted(results.items()) if sample is not None] == ["audio_only", "whole"]
    for key in ("frames", "frame_times", "waveform", "vision_quality", "audio_quality"):
        np.testing.assert_array_equal(getattr(results["whole"][0], key), getattr(prepared[0], key))


@pytest.mark.parametrize(("expected", "is_used"), [(16000, True), (8000, False)])
def test_what_was_read_early_counts_if_it_was_read_as_asked(source, prepared, expected, is_used):
    recipe = replace(prepared.info.recipe, sample_rates=[16000])
    clips = [Clip(id="whole", media=source / "clips" / "whole.mp4")]
    begun = ClipReader(replace(recipe, sample_rates=[expected]), 1)
    begun.begin(clips)
    (early,) = begun._pool._busy
    given = prepare_dataset.prepare_each(clips, recipe, begun=begun)
    sample = next(sample for _, sample, _ in given)
    assert early.process.is_alive() == is_used
    np.testing.assert_array_equal(sample.waveform, prepared.waveform(0, 16000))
    given.close()
    assert not early.process.is_alive()


def test_invalid_options_are_errors(source, tmp_path, capsys):
    with pytest.raises(UserError, match="face detector"):
        prepare(source, tmp_path / "x", "--detector", "hare")
    for option in (
        ("--shard", "0/4"),
        ("--shard", "5/4"),
        ("--shard", "2"),
        ("--frame_rate", "0"),
        ("--sample_rates", "[]"),
        ("--frame_sise", "9"),
    ):
        with pytest.raises(SystemExit):
            prepare(source, tmp_path / "x", *option)
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_description_records_the_recipe(prepared):
    info = json.loads((prepared.path / "dataset.json").read_text())
    assert info["format"] == "emit-clips/2" and info["prepare"] == Recipe().to_json()
    assert info["label_names"] == ["Amusement", "Joy"] and info["group_names"] == ["subject"]
    assert set(info["quality"]) == {"vision", "audio", "text"} and info["digest"] == prepared.digest


def test_undecodable_file_names_are_prepared(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    write_wav(folder / "a.wav", voice(0.5)[None])
    (folder / "a.wav").rename(os.fsdecode(os.fsencode(str(folder)) + b"/caf\xe9.wav"))
    (folder / os.fsdecode(b"gone\xe9.wav")).write_bytes(b"")
    found = prepare(folder, tmp_path / "out", "--workers", 1)
    assert found.column("id") == ["caf\\udce9"] and len(found[0].waveform) == 8000
    assert rows(found.path / "failures.csv")[0]["id"] == "gone\\udce9"


def test_unread_rest_of_a_clip_of_several_files_is_reported(source, tmp_path):
    long = write_wav(tmp_path / "long.wav", voice(2.5)[None])
    clips = [Clip("both", source / "clips" / "silent.mp4", audio=long), Clip("one", long)]
    given = {"both": [], "one": []}
    for clip, sample, reason in prepare_dataset.prepare_each(clips, Recipe(max_seconds=1.0), workers=1):
        given[clip.id].append(sample.start if sample else reason)
    assert given["one"] == [0, 1, 2]
    assert given["both"][0] == 0 and "read for one window" in given["both"][1] and len(given["both"]) == 2


def test_words_that_say_nothing_or_are_unknown_are_counted(tmp_path, capsys):
    """Clips of words alone: their files do not exist."""
    texts = {"a": "so funny", "b": "so sad", "c": "Привет, мир!", "d": "?!", "e": "sad " * 60, "f": "so fun \ud83d"}
    table = [
        {"file": f"{name}.mp4", "split": "test" if name in "cf" else "train", "text": text}
        for name, text in texts.items()
    ]
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, table)))
    clips = prepare(tmp_path / "labels.jsonl", tmp_path / "clips", "--workers", 1)
    assert dict(zip(clips.column("id"), clips.column("transcript"), strict=True)) == {
        name: text.strip().replace("\ud83d", "\ufffd") for name, text in texts.items() if name != "d"
    }
    out = capsys.readouterr().out
    assert "1 transcript (c) mostly of letters that the words for training lack" in out
    assert "1 transcript (e) of more than 48 words, 12 words beyond" in out
    details = {row["id"]: row["detail"] for row in rows(tmp_path / "clips" / "verdicts.csv")}
    assert "mostly of letters" in details["c"] and "mostly" not in details["a"]
    assert [row["id"] for row in rows(tmp_path / "clips" / "failures.csv")] == ["d"]


def test_another_recording_of_the_same_name_and_size_is_noticed(tmp_path):
    source, copy = tmp_path / "source", tmp_path / "copy"
    source.mkdir()
    for name, seed in (("a", 0), ("b", 1)):
        write_wav(source / f"{name}.wav", voice(0.5, seed=seed)[None])
    prepare(source, tmp_path / "clips", "--workers", 1)
    shutil.copytree(source, copy)  # elsewhere, with other dates
    prepare(copy, tmp_path / "clips", "--workers", 1)
    shutil.copy(source / "b.wav", source / "a.wav")
    with pytest.raises(UserError, match="clips or labels"):
        main([str(source), "--out", str(tmp_path / "clips"), "--workers", "1"])
