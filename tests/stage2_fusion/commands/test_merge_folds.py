"""A fold of a feature dataset, from the split to the pooled score."""

import json

from helpers import synthetic_features

from shared.dataset.splits import split_dataset
from stage2_fusion import train as trainer
from stage2_fusion.commands.evaluate import evaluate
from stage2_fusion.commands.evidence_config import PoolConfig
from stage2_fusion.commands.merge_folds import pool
from stage2_fusion.config import EvaluateConfig
from stage2_fusion.data.features import FeatureDataset, read_clips


def test_a_feature_dataset_trains_and_is_evaluated_on_its_fold(tmp_path):
    data = synthetic_features.write_features(tmp_path / "f", {"train": 30, "valid": 10, "hidden": 10})
    found = []
    for fold in range(2):
        out = tmp_path / f"fold{fold}"
        split_dataset(data, out, folds=2, fold=fold, within=["train", "valid"])
        parts = {clip["id"]: clip["split"] for clip in read_clips(out)}
        assert all((part == "") == name.startswith("hidden") for name, part in parts.items())
        test = FeatureDataset.open(out, "test")
        assert {s["split"] for s in test.samples} == {"test"} and len(test) == 2 * sum(
            p == "test" for p in parts.values()
        )
        argv = ["--data", str(out), "--run", str(tmp_path / f"r{fold}"), "--model", "concat", "--train.epochs", "1"]
        assert trainer.main([*argv, "--train.batch_size", "4", "--seed", "5"]) == 0
        model = tmp_path / f"r{fold}" / "model"
        known = json.loads((model / "config.json").read_text())["trained_on"]
        assert known["clips"] == sorted(name for name, part in parts.items() if part == "train")
        assert known["chosen_on"] == sorted(name for name, part in parts.items() if part == "valid")
        found.append(model / "evaluation" / "metrics_test.json")
        metrics = evaluate(EvaluateConfig(model, out, bootstrap=10))
        assert metrics["seen"] == {"in_training": 0, "in_choosing": 0} and metrics["seeds"]["training"] == 5
        assert metrics["made_from"]["fold"]["fold"] == fold
        inside = evaluate(EvaluateConfig(model, out, "train", out=tmp_path / "train.json", bootstrap=10))
        assert inside["seen"] == {"in_training": inside["n"], "in_choosing": 0}
    pooled = pool(PoolConfig(found, tmp_path / "all.json"))
    assert pooled["n"] == 40 and pooled["seen"]["in_training"] == 0
