"""A synthetic corpus in the layout of Hume-Vidmimic2: it equals the distributed one in form, and each of many kinds of
damage is named and affects its own clip only."""

import csv
import json
import pickle
import shutil
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from shared.commands.prepare import main as prepare
from shared.dataset.clip import EMI
from shared.dataset.clip_dataset import ClipDataset
from shared.layouts.registry import read_source
from shared.layouts.vidmimic2.pickles import read_clip_features, read_features
from shared.media.decode import MediaError
from shared.synth.config import SynthConfig
from shared.synth.corpus import build
from shared.synth.vidmimic2 import audio_features, vision_features

CLIPS = 56


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    config = SynthConfig(
        out=tmp_path_factory.mktemp("vidmimic2") / "corpus", clips=CLIPS, seed=3, damage=0.0, layout="vidmimic2"
    )
    build(config)
    return config.out


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def sound(path):
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        samples = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
        return samples, stream.rate, stream.layout.name


@pytest.mark.slow
def test_corpus_has_the_form_of_the_dataset(corpus):
    truth = {row["id"]: row for row in table(corpus / "truth.csv")}
    assert list(truth) == [f"{i:05d}" for i in range(CLIPS)]
    listed = []
    for split in ("train", "valid", "test"):
        text = (corpus / f"{split}_split.csv").read_text()
        assert text.splitlines()[0] == "Filename,Admiration,Amusement,Determination,Empathic Pain,Excitement,Joy"
        rows = table(corpus / f"{split}_split.csv")
        listed += [(row["Filename"], split) for row in rows]
        for row in rows:
            labels = [row[name] for name in EMI]
            if split == "test":
                assert labels == ["0.0"] * 6
                continue
            # printed as float32, and equal to the truth
            assert labels == [repr(float(np.float32(value))) for value in labels]
            wanted = [float(truth[row["Filename"]][f"label_{name}"]) for name in EMI]
            np.testing.assert_allclose([float(value) for value in labels], wanted, atol=1e-6)
    assert [name for name, _ in listed] == list(truth)  # numbered through train, valid, test
    assert all(truth[name]["split"] == split for name, split in listed)
    for name, split in listed:
        root = corpus / "test_data" if split == "test" else corpus
        samples, rate, layout = sound(root / "audio" / f"{name}.mp3")
        assert rate == 16000 and layout == "mono"
        with av.open(str(root / "raw" / f"{name}.mp4")) as container:
            count = sum(1 for _ in container.decode(video=0))
        crops = sorted((root / "face_images" / name).iterdir(), key=lambda path: int(path.stem))
        assert {path.suffix for path in crops} <= {".jpg"} and len(crops) <= count
        features = read_clip_features(corpus, name, split)
        assert features.vision.shape == (len(crops), 384) and features.audio.shape[1] == 768
        assert abs(len(features.audio) / 50 - samples.shape[1] / 16000) < 0.1
        if crops:
            assert cv2.imread(str(crops[0])).shape == (160, 160, 3) and int(crops[-1].stem) < count
            pictures = np.stack([cv2.imread(str(path))[..., ::-1] for path in crops])
            np.testing.assert_allclose(vision_features(pictures), features.vision, atol=0.05)  # a function of the media
    name = next(name for name, split in listed if split == "train")
    recomputed = audio_features(sound(corpus / "audio" / f"{name}.mp3")[0].mean(axis=0))
    stored = pickle.loads((corpus / "wav2vec2" / f"{name}.pkl").read_bytes())
    assert stored.dtype == np.float32
    steps = min(len(recomputed), len(stored))
    assert np.corrcoef(recomputed[:steps].ravel(), stored[:steps].ravel())[0, 1] > 0.9
    assert json.loads((corpus / "corpus.json").read_text())["config"]["layout"] == "vidmimic2"
    # clips that repeat the line of a seed video carry its labels, from more than a hundred raters
    raters = {int(row["rater_count"]) for row in truth.values()}
    assert any(count >= 110 for count in raters) and any(count <= 24 for count in raters)
    source = read_source(corpus)
    names = {clip.id: clip.groups["seed"] for clip in source.clips if clip.groups["seed"]}
    for name, seed in names.items():
        same = [other for other, found in names.items() if found == seed]
        assert {truth[other]["seed"] for other in same} == {truth[name]["seed"]}
    assert len(set(names.values())) < len(names)


def rewrite(path: Path, change) -> None:
    lines = path.read_text().splitlines()
    found = change(lines)
    path.write_text("\n".join(found if found is not None else lines) + "\n")


def cell(lines, row, column, value):
    cells = lines[row].split(",")
    cells[column] = value
    lines[row] = ",".join(cells)


def damages(root: Path) -> dict[str, tuple[str, str]]:
    """Damage one clip in each way; {kind: (id, words that must name it)}. The n-th kind damages clip n."""
    train = root / "train_split.csv"
    done: dict[str, tuple[str, str]] = {}
    files = {
        "raw is empty": lambda i: (root / f"raw/{i}.mp4").write_bytes(b""),
        "raw is a web page": lambda i: (root / f"raw/{i}.mp4").write_text("<html>403</html>"),
        "raw is gone": lambda i: (root / f"raw/{i}.mp4").unlink(),
        "raw is a folder": lambda i: ((root / f"raw/{i}.mp4").unlink(), (root / f"raw/{i}.mp4").mkdir()),
        "raw is cut off": lambda i: (root / f"raw/{i}.mp4").write_bytes((root / f"raw/{i}.mp4").read_bytes()[:3000]),
        "raw is zeros": lambda i: (root / f"raw/{i}.mp4").write_bytes(bytes(5000)),
        "raw and audio are gone": lambda i: ((root / f"raw/{i}.mp4").unlink(), (root / f"audio/{i}.mp3").unlink()),
        "audio is empty": lambda i: (root / f"audio/{i}.mp3").write_bytes(b""),
        "audio is text": lambda i: (root / f"audio/{i}.mp3").write_text("no sound " * 50),
        "crops are gone": lambda i: shutil.rmtree(root / f"face_images/{i}"),
        "crops are none": lambda i: [path.unlink() for path in (root / f"face_images/{i}").iterdir()],
        "crops are Thumbs.db": lambda i: (
            [path.unlink() for path in (root / f"face_images/{i}").iterdir()],
            (root / f"face_images/{i}/Thumbs.db").write_bytes(b"x"),
        ),
        "crops are broken": lambda i: [path.write_bytes(b"jpg") for path in (root / f"face_images/{i}").iterdir()],
        "a crop is empty": lambda i: (root / f"face_images/{i}/0.jpg").write_bytes(b""),
        "vit is cut off": lambda i: (root / f"vit/{i}.pkl").write_bytes((root / f"vit/{i}.pkl").read_bytes()[:-9]),
        "vit is gone": lambda i: (root / f"vit/{i}.pkl").unlink(),
        "wav2vec2 is of another width": lambda i: (root / f"wav2vec2/{i}.pkl").write_bytes(
            pickle.dumps(np.zeros((4, 5), np.float32))
        ),
        "wav2vec2 runs code": lambda i: (root / f"wav2vec2/{i}.pkl").write_bytes(b"cos\nsystem\n(S'true'\ntR."),
    }
    files_say = {
        "raw is empty": "the file is empty",
        "raw is a web page": "not a readable media file",
        "raw is gone": "no such file",
        "raw is a folder": "no such file",
        "raw is cut off": "not a readable media file",
        "raw is zeros": "not a readable media file",
        "raw and audio are gone": "no such file",
        "audio is empty": "the file is empty",
        "audio is text": "mp3: ",
        "crops are gone": "no such folder of face crops",
        "crops are none": "no face crops in it",
        "crops are Thumbs.db": "no face crops in it",
        "crops are broken": "unreadable face crops",
        "a crop is empty": "1 unreadable face crops",
        "vit is cut off": "not a readable pickle",
        "vit is gone": "No such file",
        "wav2vec2 is of another width": "(4, 5)",
        "wav2vec2 runs code": "only NumPy arrays are allowed",
    }
    rows = {
        "too few cells": (lambda lines, row: lines.__setitem__(row, ",".join(lines[row].split(",")[:3])), "3 cells"),
        "too many cells": (lambda lines, row: lines.__setitem__(row, lines[row] + ",0,0"), "9 cells"),
        "another separator": (lambda lines, row: lines.__setitem__(row, lines[row].replace(",", ";")), "separated by"),
        "a label is text": (lambda lines, row: cell(lines, row, 2, "high"), "'high'"),
        "a label is above 1": (lambda lines, row: cell(lines, row, 3, "1.5"), "'1.5'"),
        "a label is below 0": (lambda lines, row: cell(lines, row, 4, "-0.1"), "'-0.1'"),
        "a label is infinite": (lambda lines, row: cell(lines, row, 5, "inf"), "'inf'"),
        "a label is empty": (lambda lines, row: cell(lines, row, 6, ""), "Joy is empty"),
        "a quotation mark": (lambda lines, row: lines.__setitem__(row, lines[row].replace(",", ',"', 2)), "cells"),
        "no id": (lambda lines, row: cell(lines, row, 0, ""), "names no clip"),
        "garbled id": (lambda lines, row: cell(lines, row, 0, "\ufffd\ufffd"), "names no clip"),
        "twice, differing": (
            lambda lines, row: lines.append(lines[row].split(",")[0] + ",0.125,0,0,0,0,0.875"),
            "with different labels",
        ),
        "twice, the same": (lambda lines, row: lines.append(lines[row]), "2 times"),
        "in valid as well": (
            lambda lines, row: rewrite(root / "valid_split.csv", lambda other: [*other, lines[row]]),
            "in valid_split.csv as well",
        ),
    }
    number = 0
    for kind, harm in files.items():
        name = f"{number:05d}"
        harm(name)
        done[kind] = (name, files_say[kind])
        number += 1
    lines = train.read_text().splitlines()
    for kind, (harm, words) in rows.items():
        row = number + 1
        # A row that names no clip is named by its line.
        done[kind] = (f"{number:05d}", f"line {row + 1}: {words}" if "names no" in words else words)
        harm(lines, row)
        number += 1
    # Windows line endings and a byte order mark do no harm.
    train.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode() + b"\r\n")
    (root / "raw" / "90000.mp4").write_bytes(b"x")
    done["a file in no table"] = ("90000", "in no table and left out")
    for part in ("text", "test_data/text"):
        shutil.rmtree(root / part)
    done["text is gone"] = ("", "no folder")
    (root / "test_split.csv").write_bytes(b"")
    done["the test table is empty"] = ("", "test_split.csv: empty")
    return done


def prepared(root, out, crops):
    words = [str(root), "--out", str(out), "--layout_options.crops", crops]
    assert prepare(words) == 0
    dataset = ClipDataset.open(out)
    clips = {dataset[i].id: dataset[i] for i in range(len(dataset))}
    messages = "\n".join(
        ",".join(row.values()) for name in ("verdicts", "failures") for row in table(out / f"{name}.csv")
    )
    return clips, messages


@pytest.mark.slow
@pytest.mark.parametrize("crops", ["own", "precomputed"])
def test_each_damage_is_named_and_affects_its_clip_only(corpus, tmp_path, capsys, crops):
    whole = tmp_path / "whole"
    shutil.copytree(corpus, whole)
    for part in ("text", "test_data/text"):  # so that both have no transcripts
        shutil.rmtree(whole / part)
    before, _ = prepared(whole, tmp_path / "before", crops)
    assert len(before) == CLIPS
    broken = tmp_path / "broken"
    shutil.copytree(corpus, broken)
    done = damages(broken)
    assert len(done) >= 30
    capsys.readouterr()
    after, messages = prepared(broken, tmp_path / "after", crops)
    messages += capsys.readouterr().out

    lines = messages.splitlines()
    for kind, (name, words) in done.items():
        feature = kind.split()[0]
        if feature in ("vit", "wav2vec2"):
            with pytest.raises(MediaError) as caught:
                read_features(broken / feature / f"{name}.pkl", {"vit": 384, "wav2vec2": 768}[feature])
            assert words in str(caught.value), kind
            assert any(words in problem for problem in read_clip_features(broken, name).problems), kind
            continue
        if crops == "own" and "crop" in kind:
            continue  # crops are not read
        if crops == "precomputed" and kind in ("raw is a folder", "raw is cut off") and name in after:
            words = ""  # pictures and sound are read from other files
        by_line = words.startswith("line") or not name
        assert any(words in line and (by_line or name in line) for line in lines), (kind, words)

    harmed = {name for name, _ in done.values()}
    unharmed = set(before) - harmed
    assert len(unharmed) >= CLIPS - len(done) and unharmed <= set(after)
    for name in unharmed:
        same(before[name], after[name], name)
    # The parts that are not damaged are unchanged.
    for kind, (name, _) in done.items():
        if kind.startswith(("audio", "vit", "wav2vec2")):
            np.testing.assert_array_equal(after[name].frames, before[name].frames)
        if kind.startswith(("raw is", "crop", "vit", "wav2vec2")):
            np.testing.assert_array_equal(after[name].waveform, before[name].waveform, err_msg=kind)
        if kind.startswith("a label") and name in after:
            assert np.isnan(after[name].labels).sum() == 1
        if kind in ("too few cells", "too many cells", "a quotation mark", "twice, differing"):
            assert np.isnan(after[name].labels).all()
            np.testing.assert_array_equal(after[name].waveform, before[name].waveform)
        if kind in ("another separator", "twice, the same", "in valid as well"):
            same(before[name], after[name], name)
    gone = {"own": ("no id", "garbled id", "raw and audio are gone"), "precomputed": ("no id", "garbled id")}
    assert {name for name in before if name not in after} == {done[kind][0] for kind in gone[crops]}


def same(one, other, name):
    for key, value in vars(one).items():
        np.testing.assert_array_equal(value, getattr(other, key), err_msg=f"{name} {key}")
