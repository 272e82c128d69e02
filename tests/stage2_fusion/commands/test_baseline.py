"""`emit baseline`: clip statistics, missing modalities, and the evaluation it writes."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic_features

from stage2_fusion.commands.baseline import main
from stage2_fusion.data import features
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.data.usable_clips import within_budget
from stage2_fusion.evaluation.result_files import read_evaluation
from stage2_fusion.evaluation.results import SeenClips
from stage2_fusion.evaluation.ridge_baseline import clip_statistics, standardize


def test_missing_modality_is_standardized_to_mean():
    rng = np.random.default_rng(0)
    samples = [synthetic_features.sample(rng, missing=missing) for missing in ((), (), ("text",))]
    rows = clip_statistics(samples, ["text"])
    sequence = samples[0].text.sequence.astype(float)
    np.testing.assert_allclose(rows[0], [*sequence.mean(0), *sequence.std(0), *samples[0].text.pooled, 1])
    assert np.isnan(rows[2, :-1]).all() and rows[2, -1] == 0
    x, y = standardize([rows, rows[2:]])
    np.testing.assert_allclose(x[:2].mean(axis=0)[:-1], 0, atol=1e-9)
    assert not x[2, :-1].any() and (y == x[2:]).all()
    assert x[2, -1] < 0 < x[0, -1]  # absence itself is a feature


def test_baseline_learns_and_writes_evaluation(tmp_path, capsys):
    data = synthetic_features.write_features(tmp_path / "f", {"train": 96, "valid": 40, "test": 40})
    scores = {}
    for modalities in ("[vision]", "[vision, audio, text]"):
        out = tmp_path / f"{len(modalities)}.json"
        assert main(["--data", str(data), "--out", str(out), "--modalities", modalities, "--bootstrap", "20"]) == 0
        evaluation = read_evaluation(out)
        scores[modalities] = evaluation.mean_pcc
        assert evaluation.info.model == "ridge" and evaluation.info.seen == SeenClips(0, 0)
        assert len(evaluation.ids) == 40 and evaluation.predictions.min() >= 0 and evaluation.predictions.max() <= 1
    assert scores["[vision, audio, text]"] > scores["[vision]"] > 0.4
    assert main(["--data", str(data), "--out", str(tmp_path / "v.json"), "--split", "valid", "--bootstrap", "0"]) == 0
    assert "chosen by 40" in capsys.readouterr().out


def test_clips_beyond_the_label_budget_change_nothing(tmp_path):
    """Neither the fit nor the standardization: garbage in the other training clips leaves every prediction."""
    samples = list(synthetic_features.samples({"train": 30, "valid": 20, "test": 20}, 2, 0, 0))
    train = [sample for sample in samples if sample.split == "train"]
    beyond = ~within_budget([s.id for s in train], [s.groups for s in train], np.ones((30, 1)), 12)  # (30,)
    assert beyond.sum() == 18
    left_out = {sample.id for sample in itertools.compress(train, beyond)}

    def spoiled(sample: FeatureSample) -> FeatureSample:
        return replace(sample, text=replace(sample.text, pooled=sample.text.pooled * 50 + 9))

    for name, change in (("plain", lambda sample: sample), ("spoiled", spoiled)):
        changed = [change(sample) if sample.id in left_out else sample for sample in samples]
        features.write(tmp_path / name, changed, synthetic_features.info(2, views=0))
    for budget, equal in (("12", True), ("0", False)):
        found = []
        for name in ("plain", "spoiled"):
            out = tmp_path / f"{name}_{budget}.json"
            words = ["--data", str(tmp_path / name), "--out", str(out), "--max_train_clips", budget, "--bootstrap", "0"]
            assert main(words) == 0
            found.append(read_evaluation(out).predictions)
        assert np.array_equal(*found) == equal


def test_old_option_name_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--data", str(tmp_path), "--out", str(tmp_path / "o.json"), "--max_steps", "8"])
    assert "--max_steps was renamed: use --max_sequence_steps" in capsys.readouterr().err
