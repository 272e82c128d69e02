"""`emit merge-folds`: disjoint folds scored as one, from the split of a feature dataset to the merged score."""

import json

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_evaluations import write_evaluation

from shared.dataset.splits import split_dataset
from shared.errors import UserError
from stage2_fusion import train as training
from stage2_fusion.commands.compare import CompareConfig, compare
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.commands.merge_folds import MergeFoldsConfig, main, merge_folds
from stage2_fusion.data.features import FeatureDataset, read_clips
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import SeenClips

RNG = np.random.default_rng(0)
LABELS = RNG.random((40, 2))
PREDICTIONS = LABELS + RNG.normal(0, 0.3, LABELS.shape)
IDS, GROUPS = np.array([f"c{i:03d}" for i in range(40)]), np.array([f"s{i % 5}" for i in range(40)])
OTHER_IDS = [f"o{i}" for i in range(40)]


def write_folds(folder) -> list:
    """Two folds of 16 and 24 clips."""
    return [
        write_evaluation(
            folder / f"{i}.json",
            PREDICTIONS[rows],
            LABELS[rows],
            IDS[rows],
            GROUPS[rows],
            seen=SeenClips(i, 2),
            seen_by_encoders=2 + i,
            training_seed=7,
        )
        for i, rows in enumerate((GROUPS < "s2", GROUPS >= "s2"))
    ]


def test_folds_are_scored_as_one(tmp_path, capsys):
    parts = write_folds(tmp_path)
    merged = merge_folds(MergeFoldsConfig(parts, tmp_path / "all.json", bootstrap=30))
    whole = read_evaluation(write_evaluation(tmp_path / "whole.json", PREDICTIONS, LABELS))
    assert merged.mean_pcc == pytest.approx(whole.mean_pcc, abs=1e-5)
    assert merged.digests == whole.digests and merged.info.seen == SeenClips(1, 4)
    assert merged.info.training_seed == [7] and merged.info.seen_by_encoders == 5
    assert [part.n for part in merged.info.parts] == [16, 24]
    compare(CompareConfig(tmp_path / "all.json", tmp_path / "whole.json", bootstrap=5))  # the same clips
    assert main([*map(str, parts), "--out", str(tmp_path / "again.json"), "--bootstrap", "5"]) == 0
    each = [read_evaluation(part).mean_pcc for part in parts]
    assert f"of the 2 parts alone: {np.mean(each):.3f}" in capsys.readouterr().out
    more = write_evaluation(tmp_path / "m.json", PREDICTIONS, LABELS, OTHER_IDS, training_seed=9)
    assert merge_folds(MergeFoldsConfig([tmp_path / "all.json", more], tmp_path / "x.json")).info.training_seed == [
        7,
        9,
    ]


def test_folds_that_do_not_match_are_refused(tmp_path):
    first, _ = write_folds(tmp_path)

    def refused(match, *args, **info):
        other = write_evaluation(tmp_path / "other.json", PREDICTIONS, LABELS, *args, **info)
        with pytest.raises(UserError, match=match):
            merge_folds(MergeFoldsConfig([first, other], tmp_path / "x.json"))

    refused("both score clip 'c000'")
    refused("model another, but that of", OTHER_IDS, model="another")
    refused(r"configuration \{'width': 8\}, but that of", OTHER_IDS, configuration={"width": 8})


def test_feature_dataset_is_trained_and_scored_fold_by_fold(tmp_path):
    data = synthetic_features.write_features(tmp_path / "f", {"train": 30, "valid": 10, "hidden": 10})
    paths = []
    for fold in range(2):
        out = tmp_path / f"fold{fold}"
        split_dataset(data, out, folds=2, fold=fold, within=["train", "valid"])
        splits = {clip.id: clip.split for clip in read_clips(out)}
        assert all((split == "") == name.startswith("hidden") for name, split in splits.items())
        test = FeatureDataset.open(out, "test")
        assert {sample.split for sample in test.samples} == {"test"}
        assert len(test) == 2 * sum(split == "test" for split in splits.values())
        argv = ["--data", str(out), "--run", str(tmp_path / f"r{fold}"), "--model", "concat", "--train.epochs", "1"]
        assert training.main([*argv, "--train.batch_size", "4", "--seed", "5"]) == 0
        model = tmp_path / f"r{fold}" / "model"
        trained_on = json.loads((model / "config.json").read_text())["trained_on"]
        assert trained_on["clips"] == sorted(name for name, split in splits.items() if split == "train")
        assert trained_on["chosen_on"] == sorted(name for name, split in splits.items() if split == "valid")
        paths.append(model / "evaluation" / "metrics_test.json")
        info = evaluate(EvaluateConfig(model, out, bootstrap=10)).info
        assert info.seen == SeenClips(0, 0) and info.training_seed == 5
        assert info.made_from["fold"]["fold"] == fold
        inside = evaluate(EvaluateConfig(model, out, "train", out=tmp_path / "train.json", bootstrap=10))
        assert inside.info.seen == SeenClips(len(inside.ids), 0)
    merged = merge_folds(MergeFoldsConfig(paths, tmp_path / "all.json"))
    assert len(merged.ids) == 40 and merged.info.seen == SeenClips(0, 0)
