"""Alignment of clips that have nothing to contrast: refused or named, instead of a loss of 0."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from helpers.media_files import clock, voice, write_video, write_wav
from helpers.stage1_corpora import png, write_shard
from helpers.stage1_tiny import TOWERS

from shared import config as configuration
from shared.commands.prepare import main as prepare
from shared.errors import UserError
from stage1_align.config import AlignConfig
from stage1_align.train import train

SENTENCES = ["that was so funny", "what a lovely day", "please be quiet now", "nobody came to the party"]


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Eight silent videos and eight sounds."""
    folder = tmp_path_factory.mktemp("media")
    for i in range(8):
        write_video(folder / f"v{i}.mp4", clock(np.arange(4) / 8 + i), rate=8)
        write_wav(folder / f"a{i}.wav", voice(0.3, seed=i)[None])
    return folder


def clips(media: Path, out: Path, row: Callable[[int], tuple[str, str, str]]) -> Path:
    """A clip dataset: file, words and label of training clip i; four of the eight validate too."""
    table = media / f"{out.name}.csv"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "id", "text", "Joy", "split"])
        for split, count in (("train", 8), ("valid", 4)):
            writer.writerows([row(i)[0], f"{split}{i}", *row(i)[1:], split] for i in range(count))
    assert prepare([str(table), "--out", str(out), "--frame_size", "32", "--workers", "1"]) == 0
    return out


def align(data: Path, run: Path, *options: str, **train_options: int) -> Path:
    values = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 1}}
    values["train"] = {"epochs": 1, "batch_size": 4, "mixed_precision": "no", "trackers": []} | train_options
    settings = run.with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(values))
    given = [] if "--pairs.sources" in options else ["--data", str(data)]
    return train(configuration.load(AlignConfig, settings, [*given, "--run", str(run), *options]))


def whole(i: int) -> tuple[str, str, str]:
    return f"v{i}.mp4", SENTENCES[i % 4], str(i / 8)


@pytest.fixture(scope="module")
def pictures(media, tmp_path_factory) -> Path:
    """Pictures, words and labels, but no sound."""
    return clips(media, tmp_path_factory.mktemp("data") / "pictures", whole)


NO_AUDIO = ("--towers.audio", "null")


def test_a_batch_of_one_is_refused(pictures, tmp_path):
    with pytest.raises(UserError, match="batch_size 1: a contrastive loss compares the clips of a batch; give 2"):
        align(pictures, tmp_path / "r", *NO_AUDIO, batch_size=1)
    assert not (tmp_path / "r").exists()
    align(pictures, tmp_path / "r", *NO_AUDIO, batch_size=2)


def test_a_tower_without_anything_to_learn_is_refused(pictures, tmp_path):
    with pytest.raises(UserError, match=r"the audio tower cannot learn: no training clip has sound; leave it out with"):
        align(pictures, tmp_path / "r")


def test_a_tower_without_input_is_left_out_when_asked(pictures, tmp_path, capsys):
    align(pictures, tmp_path / "r", "--towers.leave_out_unused", "true")
    assert "note: the audio tower is left out: no training clip has sound" in capsys.readouterr().err
    assert json.loads((tmp_path / "r" / "best" / "config.json").read_text())["towers"].keys() == {"vision", "text"}


def test_a_single_training_clip_is_named_as_the_reason(media, tmp_path):
    table = media / "alone.csv"
    table.write_text("file,text,Joy,split\nv0.mp4,hello,0.5,train\nv1.mp4,bye,0.1,valid\nv2.mp4,no,0.2,valid\n")
    assert prepare([str(table), "--out", str(tmp_path / "alone"), "--frame_size", "32", "--workers", "1"]) == 0
    with pytest.raises(UserError, match=r"^only 1 clip to train on: a contrastive loss"):
        align(tmp_path / "alone", tmp_path / "r", *NO_AUDIO, "--train.shrink_batch", "true")


def test_a_batch_shrinks_to_the_training_clips_when_asked(pictures, tmp_path, capsys):
    with pytest.raises(UserError, match="batch"):
        align(pictures, tmp_path / "r", *NO_AUDIO, batch_size=500)
    align(pictures, tmp_path / "s", *NO_AUDIO, "--train.shrink_batch", "true", batch_size=500)
    shown = capsys.readouterr().err
    held = int(re.search(r"a batch holds (\d+) clips, not --train.batch_size 500", shown)[1])
    assert f"there are {held} to train on" in shown and 2 <= held < 500
    assert yaml.safe_load((tmp_path / "s" / "config.yaml").read_text())["train"]["batch_size"] == held


@pytest.mark.parametrize(
    ("row", "options", "words"),
    [
        (lambda i: (f"v{i}.mp4", SENTENCES[i % 4], ""), ["--pairs.captions", "[labels]"], "has text of kind labels"),
        (lambda i: (f"v{i}.mp4", "", str(i / 8)), ["--pairs.captions", "[transcript]"], "has text of kind transcript"),
        (lambda i: (f"v{i}.mp4", "Hello!" if i % 2 else "hello", "0.5"), [], "all 8 training clips have the same text"),
        (lambda i: (f"v{i}.mp4", SENTENCES[0] if i == 3 else "", ""), [], "one training clip alone has pictures and"),
    ],
)
def test_texts_that_do_not_tell_clips_apart_are_refused(media, tmp_path, row, options, words):
    data = clips(media, tmp_path / "data", row)
    with pytest.raises(UserError, match="the text tower cannot learn") as error:
        align(data, tmp_path / "r", *NO_AUDIO, *options)
    assert words in str(error.value) and "--pairs.captions" in str(error.value)


def test_a_loss_that_teaches_nothing_beside_others_is_named(media, tmp_path, capsys):
    data = clips(media, tmp_path / "data", lambda i: (f"v{i}.mp4", SENTENCES[i % 4], ""))
    align(data, tmp_path / "r", *NO_AUDIO, "--loss.soft", "0.5")
    printed = "".join(capsys.readouterr())
    for loss in ("vision_labels", "transcript_labels"):
        assert f"warning: the loss {loss} teaches nothing: no training clip has text of kind labels" in printed
    assert "the loss vision_transcript" not in printed
    assert "warning: --loss.soft has no effect: no training clip has all labels" in printed


def test_clips_with_either_pictures_or_sound_train_both_towers_but_not_their_pair(media, tmp_path, capsys):
    data = clips(media, tmp_path / "data", lambda i: (f"{'va'[i % 2]}{i}.{('mp4', 'wav')[i % 2]}", *whole(i)[1:]))
    pairs = "{vision_text: 1, audio_text: 1, vision_audio: 1}"
    align(data, tmp_path / "r", "--loss.pairs", pairs)
    assert "the loss vision_audio teaches nothing: no training clip has pictures and sound" in capsys.readouterr().err


def test_validation_needs_two_different_texts(media, pictures, tmp_path, capsys):
    data = clips(media, tmp_path / "data", lambda i: (f"v{i}.mp4", "hello" if i < 4 else "bye", "0.5"))
    with pytest.raises(UserError, match=r"the 4 validation items have no two different texts.*: give more") as caught:
        align(data, tmp_path / "r", *NO_AUDIO)
    assert "transcribe" not in str(caught.value)
    align(data, tmp_path / "last", *NO_AUDIO, "--train.require_validation", "false")
    printed = capsys.readouterr()
    assert "recall means nothing, and the last epoch is kept: give more" in printed.err
    assert "valid mean recall n/a" in printed.out
    best, last = (tmp_path / "last" / name / "model.safetensors" for name in ("best", "last"))
    assert best.read_bytes() == last.read_bytes()
    silent = clips(media, tmp_path / "silent", lambda i: (f"v{i}.mp4", "hello" if i >= 4 else "", "0.5"))
    with pytest.raises(UserError, match=r"\(0 of kind transcript.*transcribe the clips \(emit prepare --transcribe"):
        align(silent, tmp_path / "t", *NO_AUDIO, epochs=0)
    align(pictures, tmp_path / "s", *NO_AUDIO)
    assert "validation has 4 different texts of kind transcript: R@5 among them is always 1" in capsys.readouterr().err


def test_streams_whose_media_cannot_be_decoded_end_after_an_epoch(tmp_path):
    for split in ("train", "valid"):
        texts = [f"{SENTENCES[i % 4]} {SENTENCES[i // 4]}".encode() for i in range(8)]
        pictures = [b"broken" if split == "train" else png(i) for i in range(8)]
        records = {f"{i:03d}": {"png": pictures[i], "txt": texts[i]} for i in range(8)}
        write_shard(tmp_path / f"{split}.tar", records)
    sources = f"[{{kind: webdataset, path: '{tmp_path}/{{split}}.tar'}}]"
    options = ["--pairs.sources", sources, "--pairs.samples_per_epoch", "8", "--pairs.captions", "[caption]"]
    with pytest.raises(UserError, match="no batch had two clips with both sides of vision_text: nothing was learned"):
        align(tmp_path, tmp_path / "r", *NO_AUDIO, *options)
    assert not (tmp_path / "r" / "last").exists()
