"""`emit split`: whole groups, every clip tested once, the same rows."""

import json
import os

import pytest

from shared.commands.prepare import main as prepare
from shared.commands.split import SplitConfig, main
from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.splits import assign_folds, fold_splits
from shared.errors import UserError
from shared.saved.checksum import seal


def test_every_clip_is_tested_once_and_groups_are_whole():
    group_of = {f"c{i}": f"s{i % 11}" if i < 80 else "" for i in range(90)}
    tested = []
    for fold in range(4):
        splits = fold_splits(group_of, 4, fold, 0.2, seed=1)
        assert set(splits) == set(group_of) and set(splits.values()) == {"train", "valid", "test"}
        for group in {*group_of.values()} - {""}:
            assert len({splits[name] for name, other in group_of.items() if other == group}) == 1
        tested += [name for name, part in splits.items() if part == "test"]
        rest = sum(part != "test" for part in splits.values())
        assert 0.2 * rest <= sum(part == "valid" for part in splits.values()) <= 0.2 * rest + 8
        assert fold_splits(dict(reversed(group_of.items())), 4, fold, 0.2, seed=1) == splits
    assert sorted(tested) == sorted(group_of)
    counts = list(assign_folds(group_of, 4, 1).values())
    assert max(map(counts.count, range(4))) - min(map(counts.count, range(4))) <= 8
    assert fold_splits(group_of, 4, 0, 0.2, seed=2) != fold_splits(group_of, 4, 0, 0.2, seed=1)


def test_folds_of_small_groups():
    # sizes 3, 2, 2, 1 into two folds: 3 to the first, 2 and 2 to the second, 1 to the first
    group_of = {"a1": "a", "a2": "a", "a3": "a", "b1": "b", "b2": "b", "c1": "c", "c2": "c", "d1": "d"}
    fold_of = assign_folds(group_of, 2, 0)
    assert [fold_of[name] for name in ("a1", "b1", "c1", "d1")] == [0, 1, 1, 0]
    with pytest.raises(UserError, match="4 groups are too few for 4 folds that leave"):
        fold_splits({"a": "a", "b": "b"} | {"c": "a", "d": "b", "e": "c", "f": "c", "g": "d"}, 4, 9, 0.5, 0)
    with pytest.raises(UserError, match="2 groups are too few"):
        fold_splits({"a": "", "b": ""}, 2, 0, 0.5, 0)
    with pytest.raises(UserError, match="3 groups are too few for 4 folds"):  # at the first fold, before any training
        fold_splits({"a": "", "b": "", "c": ""}, 4, 0, 0.5, 0)


def test_split_dataset_shares_the_rows(corpus, clips, tmp_path, capsys):
    argv = [str(clips), "--by", "subject", "--folds", "3", "--fold", "1", "--out", str(tmp_path / "fold")]
    assert main(argv) == 0
    before, after = ClipDataset.open(clips), ClipDataset.open(tmp_path / "fold")
    assert before.digest != after.digest and before.column("id") == after.column("id")
    assert (before[3].frames == after[3].frames).all() and before[3].groups == after[3].groups
    of = {}
    for i, (subject, part) in enumerate(zip(after.column("group_subject"), after.column("split"), strict=True)):
        assert of.setdefault(subject, part) == part == after[i].split
    assert set(of.values()) == {"train", "valid", "test"}
    test = ClipDataset.open(tmp_path / "fold", "test")
    assert [clip.split for clip in test] == ["test"] * len(test)
    info = json.loads((tmp_path / "fold" / "dataset.json").read_text())
    assert info["counts"]["splits"]["test"] == len(test)
    stored = next((clips / "data").glob("*.arrow"))
    assert os.stat(stored).st_ino == os.stat(tmp_path / "fold" / "data" / stored.name).st_ino  # not copied
    assert main(argv) == 0
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="holds something else"):
        main([*argv, "--fold", "2"])
    with pytest.raises(UserError, match="other clips or labels"):
        prepare([str(corpus), "--out", str(tmp_path / "fold")])


def test_invalid_split_is_an_error(clips, tmp_path):
    def split(data, *options):
        return main([str(data), "--out", str(tmp_path / "fold"), *options])

    with pytest.raises(UserError, match="did you mean 'subject'"):
        split(clips, "--by", "subjct")
    with pytest.raises(UserError, match="neither a clip dataset nor a feature dataset"):
        split(tmp_path)
    with pytest.raises(UserError, match="--within tran"):
        split(clips, "--within", "[tran]")
    with pytest.raises(UserError, match="counted from 0"):
        SplitConfig(clips, tmp_path / "x", folds=3, fold=3)
    split(clips, "--folds", "2")
    (tmp_path / "fold" / "splits.csv").write_text("id,split\nsomebody,train\n")
    with pytest.raises(UserError, match=r"splits\.csv changed since"):
        ClipDataset.open(tmp_path / "fold")
    seal(tmp_path / "fold")
    with pytest.raises(UserError, match=r"splits\.csv: damaged, or for other clips"):
        ClipDataset.open(tmp_path / "fold")
