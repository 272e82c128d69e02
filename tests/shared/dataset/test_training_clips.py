"""Clips are recognized by their content: under other ids, in other folders, after other splits and preparations."""

import csv
import shutil

import numpy as np
import pytest

from shared.commands.prepare import main as prepare
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.splits import split_dataset
from shared.dataset.training_clips import FILE, TrainingClips, TrainingSource, fingerprints
from shared.errors import UserError


def part_of(corpus, folder, keep_names):
    """A corpus of the first eight clips; under other ids, in another order and without words, unless `keep_names`."""
    (folder / "clips").mkdir(parents=True)
    table = []
    for i, old in enumerate(sorted(p for p in (corpus / "clips").iterdir() if p.suffix != ".txt")[:8]):
        name = old.name if keep_names else f"other{9 - i}{old.suffix}"
        shutil.copy(old, folder / "clips" / name)
        if keep_names and old.with_suffix(".txt").exists():
            shutil.copy(old.with_suffix(".txt"), folder / "clips")
        table.append([f"clips/{name}", "train"])
    with (folder / "labels.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["Filename", "split"], *sorted(table)])
    return folder


def test_clips_are_recognized_under_other_names(corpus, clips, tmp_path):
    original = ClipDataset.open(clips)
    prints = fingerprints(original)
    assert prints.shape == (40, 3) and prints.dtype == np.uint64
    assert ((prints > 0).any(axis=1)).all()
    train = np.array(original.column("split")) == "train"
    record = TrainingClips.of(prints[train], prints[~train], [])
    record.write(tmp_path)
    record = TrainingClips.read(tmp_path)

    np.testing.assert_array_equal(record.met(prints).trained, train)
    np.testing.assert_array_equal(record.met(prints).chosen, ~train)
    split_dataset(clips, tmp_path / "fold", folds=2, fold=1)
    fold = ClipDataset.open(tmp_path / "fold", "test")
    met = record.met(fingerprints(fold)).trained
    trained = set(np.array(original.column("id"))[train])
    assert met.tolist() == [name in trained for name in fold.column("id")] and 0 < met.sum() < len(met)

    # Other ids, no words and no labels; then the same ids and words with another size of the crops.
    for name, kept, options in (("renamed", False, []), ("small", True, ["--frame_size", "32"])):
        source = part_of(corpus, tmp_path / "sources" / name, kept)
        assert prepare([str(source), "--out", str(tmp_path / name), "--workers", "1", *options]) == 0
        other = ClipDataset.open(tmp_path / name)
        assert bool(set(other.column("id")) & set(original.column("id"))) == kept
        seen = record.met(fingerprints(other)).trained
        assert seen.tolist() == (train[:8] if kept else train[7::-1]).tolist() and 0 < seen.sum() < 8


def test_other_clips_of_the_same_names_are_not_recognized(clips, tmp_path):
    from shared.commands.synth import main as synth

    assert synth(["--out", str(tmp_path / "corpus"), "--clips", "4", "--seed", "5", "--workers", "1"]) == 0
    assert prepare([str(tmp_path / "corpus"), "--out", str(tmp_path / "clips"), "--workers", "1"]) == 0
    other, own = ClipDataset.open(tmp_path / "clips"), ClipDataset.open(clips)
    assert set(other.column("id")) < set(own.column("id"))
    assert not TrainingClips.of(fingerprints(own), fingerprints(own), []).met(fingerprints(other)).trained.any()


def test_large_records_keep_a_random_sample():
    """Of 60 clips with three fingerprints each, the 30 smallest are kept, and the record says which clips it covers."""
    rng = np.random.default_rng(0)
    prints = rng.integers(1, 2**63, (60, 3)).astype(np.uint64)
    prints[:5, 1:] = 0
    record = TrainingClips.of(prints, prints[:0], [], kept=30)
    smallest = np.sort(prints[prints > 0])[:30]
    np.testing.assert_array_equal(record.trained, smallest)
    covered = [any(0 < value <= smallest[-1] for value in row) for row in prints]
    assert record.compared(prints) == pytest.approx(np.mean(covered)) and 0 < np.mean(covered) < 1
    assert record.met(prints).trained.tolist() == covered
    assert not record.met(prints[:5] * 0).trained.any()  # 0 is no fingerprint
    assert TrainingClips().compared(prints) == 1 and not TrainingClips().met(prints).trained.any()
    whole = TrainingClips.of(prints[:2], prints[:0], [])
    assert whole.compared(prints) == 1 and whole.join(record).limit == record.limit
    assert whole.join(record).met(prints[:2]).trained.all()


def test_record_keeps_sources_and_damage_is_one_line(tmp_path):
    assert TrainingClips.read(tmp_path) is None
    sources = [TrainingSource("a", "clips", "train", 3), TrainingSource("b.tar", "webdataset", "train", None, "loose")]
    TrainingClips.of(np.arange(1, 7, dtype=np.uint64), np.arange(7, 9, dtype=np.uint64), sources).write(tmp_path)
    record = TrainingClips.read(tmp_path)
    assert record.sources == sources and record.not_compared == ["b.tar (loose)"]
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-4])
    with pytest.raises(UserError, match=r"training_clips\.safetensors: damaged .*; export the encoders again"):
        TrainingClips.read(tmp_path)
