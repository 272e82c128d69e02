"""Whether a model was trained on scored clips is decided by their content, not by ids that other clips may have."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers import synthetic_features
from helpers.synthetic_features import config, train_interrupted

from shared.dataset.shards import save_table
from shared.dataset.splits import split_dataset
from shared.dataset.training_clips import FILE, TrainingClips
from shared.errors import UserError
from shared.saved.checksum import FEATURES, seal, write_description
from shared.training.signals import SigtermHandler
from stage2_fusion.commands.baseline import BaselineConfig, baseline
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.commands.robustness import RobustnessConfig, robustness
from stage2_fusion.data.feature_info import DataInfo, read_info
from stage2_fusion.data.features import FINGERPRINTS, FeatureDataset, feature_table, read_clips, write
from stage2_fusion.evaluation.known_clips import known_to_model
from stage2_fusion.evaluation.results import MARK, SeenClips
from stage2_fusion.evaluation.scoring import score_table
from stage2_fusion.models.base import FusionModel
from stage2_fusion.models.model_config import TrainedOn
from stage2_fusion.prediction.run import predict_encoded
from stage2_fusion.train import train

COUNTS = {"train": 32, "valid": 16, "test": 20}
ONE_EPOCH = ["--model", "quality_gated", "--train.epochs", 1]
ELSEWHERE = DataInfo("elsewhere", "a" * 16, {"frame_rate": 4})


def copied(sample):
    """The same clip under another id, whose pictures were prepared in another way."""
    changed = np.array([sample.fingerprints[0], sample.fingerprints[1] + 1, 7], np.uint64)
    return replace(sample, id=f"copy of {sample.id}", fingerprints=changed)


def without_column(path):
    """The feature dataset as an earlier version would have written it."""
    info = read_info(path)
    table = feature_table(path, info).remove_columns(FINGERPRINTS).data.table
    shutil.rmtree(path / "data")
    save_table(table, path / "data", info.digest)
    write_description(path, FEATURES, info.to_json())
    return path


def without_record(model, path):
    """The model as an earlier version would have saved it."""
    shutil.copytree(model, path)
    (path / FILE).unlink()
    seal(path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Features `a` and a model of them; `b`, other clips with the same ids; `copy`, the clips of `a` under other ids in
    another order; `old`, the features `a` of an earlier version, and a model of them."""
    folder = tmp_path_factory.mktemp("known")
    a = synthetic_features.samples(COUNTS)
    info = synthetic_features.info()
    write(folder / "a", a, info)
    write(folder / "old", a, info)
    without_column(folder / "old")
    write(folder / "b", synthetic_features.samples(COUNTS, seed=1), replace(info, data=ELSEWHERE))
    write(folder / "copy", [copied(sample) for sample in a][::-1], replace(info, data=ELSEWHERE))
    for name in ("a", "old"):
        train(config(folder / name, folder / f"run_{name}", *ONE_EPOCH))
    without_record(folder / "run_a" / "model", folder / "old_model")
    return folder


def scored(folder, tmp_path, data, split="test", model="run_a/model", **options):
    return evaluate(EvaluateConfig(folder / model, folder / data, split, tmp_path / "m.json", bootstrap=0, **options))


def test_other_clips_with_the_same_ids_are_not_training_clips(folder, tmp_path):
    for split in ("train", "valid", "test"):
        evaluation = scored(folder, tmp_path, "b", split)
        assert evaluation.info.seen == SeenClips(0, 0) and "not unseen" not in score_table(evaluation)
    assert evaluation.unmet is None
    assert evaluation.info.leak_probe.why == "the feature dataset holds no labeled training clips"
    detectors = evaluation.info.damage_detectors
    assert detectors and all(each.regression is None for each in detectors)
    for split, seen in (("train", SeenClips(32, 0)), ("valid", SeenClips(0, 16)), ("test", SeenClips(0, 0))):
        own = scored(folder, tmp_path, "a", split)
        assert own.info.seen == seen
    assert own.unmet.rows == [True] * 20 and all(each.regression for each in own.info.damage_detectors)


def test_training_clips_are_known_under_other_ids(folder, tmp_path):
    for split, seen in (("train", SeenClips(32, 0)), ("valid", SeenClips(0, 16)), ("test", SeenClips(0, 0))):
        copy = scored(folder, tmp_path, "copy", split)
        assert copy.info.seen == seen
    own = scored(folder, tmp_path, "a")
    auc = [{each.modality: each.regression.auc for each in e.info.damage_detectors} for e in (own, copy)]
    assert auc[0] and auc[0] == pytest.approx(auc[1])  # fitted to the same training clips
    assert copy.info.leak_probe.shared_groups == own.info.leak_probe.shared_groups == {"subject": 0}
    assert copy.unmet is None  # whether it holds all clips that were met is not known, after another preparation
    split_dataset(folder / "copy", tmp_path / "fold", folds=2)
    test = [clip.id for clip in read_clips(tmp_path / "fold") if clip.split == "test"]
    fold = scored(folder, tmp_path, tmp_path / "fold")
    in_test = [sum(name.startswith(f"copy of {split}") for name in test) for split in ("train", "valid")]
    assert fold.info.seen == SeenClips(*in_test) and min(in_test) > 0


def test_all_clips_that_a_model_has_met_are_there_only_if_all_fingerprints_are(folder, tmp_path):
    model = FusionModel.from_pretrained(folder / "run_a" / "model")
    samples = [replace(sample, id=f"copy of {sample.id}") for sample in synthetic_features.samples(COUNTS)]
    info = synthetic_features.info(data=ELSEWHERE)
    for name, rows, whole in (("all", samples, True), ("most", samples[2:], False)):
        write(tmp_path / name, rows, info)
        known = known_to_model(tmp_path / name, info, model.config.trained_on, model.training_clips)
        assert known.whole == whole and not known.unknown and not known.notes
        assert len(known.trained) == len(rows) // 2 - 36 and len(known.chosen) == 16
        assert (scored(folder, tmp_path, tmp_path / name).unmet is not None) == whole
    empty = [replace(sample, fingerprints=np.zeros(3, np.uint64)) for sample in samples[:34]] + samples[34:]
    write(tmp_path / "empty", empty, info)
    known = known_to_model(tmp_path / "empty", info, model.config.trained_on, model.training_clips)
    assert known.notes == ["only 75.0% of these clips can be compared with the training clips of the model"]
    assert len(known.trained) == 15 and not known.whole


def test_the_same_clip_twice_in_a_dataset_is_met_twice(folder, tmp_path):
    twins = [replace(copied(sample), split="test") for sample in synthetic_features.samples({"train": 5})]
    write(tmp_path / "f", [*synthetic_features.samples(COUNTS), *twins], synthetic_features.info())
    assert scored(folder, tmp_path, tmp_path / "f").info.seen == SeenClips(5, 0)
    ridge = baseline(BaselineConfig(tmp_path / "f", tmp_path / "ridge.json", bootstrap=0))
    assert ridge.info.seen == SeenClips(5, 0) and len(ridge.ids) == 25
    clean = baseline(BaselineConfig(folder / "a", tmp_path / "ridge.json", bootstrap=0))
    assert clean.info.seen == SeenClips(0, 0) and clean.unmet.rows == [True] * 20
    assert baseline(BaselineConfig(folder / "old", tmp_path / "ridge.json", bootstrap=0)).unmet == clean.unmet


def test_features_and_models_of_earlier_versions_go_by_ids_within_a_clip_dataset(folder, tmp_path):
    old = FeatureDataset.open(folder / "old")
    assert old.info.digest == read_info(folder / "a").digest and not any(s.fingerprints.any() for s in old.samples)
    same = zip(old.samples, FeatureDataset.open(folder / "a").samples, strict=True)
    assert all(np.array_equal(one.audio.sequence, other.audio.sequence) for one, other in same)
    assert not (folder / "run_old" / "model" / FILE).exists()
    split_dataset(folder / "old", tmp_path / "fold", folds=2)
    for data in ("old", "a"):
        for model in ("run_old/model", "old_model", "run_a/model"):
            assert scored(folder, tmp_path, data, "train", model).info.seen == SeenClips(32, 0)
            assert scored(folder, tmp_path, data, "test", model).unmet.rows == [True] * 20
    test = [clip.id for clip in read_clips(tmp_path / "fold") if clip.split == "test"]
    seen = scored(folder, tmp_path, tmp_path / "fold", model="run_old/model").info.seen
    assert seen.in_training == sum(name.startswith("train") for name in test) > 0


def test_ids_of_another_clip_dataset_tell_nothing(folder, tmp_path, capsys):
    without_column(shutil.copytree(folder / "b", tmp_path / "old_b"))
    for data, model, why in (
        ("b", "run_old/model", "records its training clips only by ids"),
        ("copy", "old_model", "records its training clips only by ids"),
        (tmp_path / "old_b", "run_a/model", "hold no fingerprints"),
    ):
        with pytest.raises(UserError, match=f"it is not known .*{why}.*--allow_unknown_training"):
            scored(folder, tmp_path, data, model=model)
        marked = scored(folder, tmp_path, data, model=model, allow_unknown_training=True)
        assert marked.info.seen is None and marked.unmet is None and marked.info.leak_probe.why
        assert f"{MARK}: " in score_table(marked) and why in marked.info.unknown_training
        assert all(each.regression is None for each in marked.info.damage_detectors)
        curves = RobustnessConfig([str(folder / model)], folder / data, out=tmp_path / "r.json", bootstrap=0)
        with pytest.raises(UserError, match=why):
            robustness(curves)
        capsys.readouterr()
        predict_encoded(folder / model, folder / data, "train", 64)
        assert f"not known whether the model was trained on these clips: the{' model' * (model != 'run_a/model')}" in (
            capsys.readouterr().err
        )


def test_predictions_of_encoded_clips_say_which_were_seen(folder, capsys):
    for data, split, said in (("copy", "train", "32 of the clips"), ("b", "train", ""), ("copy", "test", "")):
        predict_encoded(folder / "run_a" / "model", folder / data, split, 64)
        lines = capsys.readouterr().err
        assert (f"seen in training: {said}" in lines and "names" not in lines) if said else "training:" not in lines


def test_model_has_met_what_the_models_it_began_with_have_met(folder, tmp_path):
    options = ["--options", "{modalities: [audio, text]}"]
    single = ["--model", "staged_concat", "--train.epochs", 1, *options]
    first = train(config(folder / "b", tmp_path / "first", *single))
    begun = [*single, "--init", f"{{text: {first}}}"]
    both = train(config(folder / "a", tmp_path / "both", *begun))
    about = FusionModel.from_pretrained(both)
    assert about.config.trained_on.other_data == [ELSEWHERE.digest] and len(about.training_clips.sources) == 2
    for data in ("a", "b", "copy"):
        assert scored(folder, tmp_path, data, "train", both).info.seen == SeenClips(32, 0)
        assert scored(folder, tmp_path, data, "test", both).info.seen == SeenClips(0, 0)
        assert scored(folder, tmp_path, data, "test", both).unmet is None  # no dataset holds all of them
    # Without fingerprints, the ids of two clip datasets are told apart by nobody.
    first_of_old = without_record(first, tmp_path / "first_of_old")
    unknown = train(config(folder / "a", tmp_path / "unknown", *single, "--init", f"{{text: {first_of_old}}}"))
    assert not (unknown / FILE).exists()
    with pytest.raises(UserError, match="only by ids"):
        scored(folder, tmp_path, "a", model=unknown)
    again = train(config(folder / "a", tmp_path / "again", *single, "--init", f"{{text: {unknown}}}"))
    assert json.loads((again / "config.json").read_text())["trained_on"]["other_data"] == [ELSEWHERE.digest]


def test_record_survives_interruption_copy_and_is_sealed(folder, tmp_path, monkeypatch):
    options = ["--model", "quality_gated", "--train.epochs", 4]
    interrupted = train_interrupted(monkeypatch, config(folder / "a", tmp_path / "r", *options))
    FusionModel.from_pretrained(folder / "run_a" / "model").save_pretrained(tmp_path / "copy")
    samples = [sample for sample in synthetic_features.samples(COUNTS) if sample.view == 0]
    expected = [
        np.unique([sample.fingerprints for sample in samples if sample.split == split]) for split in ("train", "valid")
    ]
    for model in (folder / "run_a" / "model", interrupted, tmp_path / "copy"):
        record = TrainingClips.read(model)
        assert np.array_equal(record.trained, expected[0]) and np.array_equal(record.chosen, expected[1])
    run = config(folder / "a", tmp_path / "stopped", *ONE_EPOCH)
    stop = SigtermHandler()
    stop.requested = True
    model = train(run, stop)  # an earlier version stops after the last epoch, and this one calibrates
    (model / FILE).unlink()
    seal(model)
    assert np.array_equal(TrainingClips.read(train(run)).trained, expected[0])
    (tmp_path / "copy" / FILE).write_bytes(b"x" * 100)
    with pytest.raises(UserError, match=f"{FILE} changed"):
        FusionModel.from_pretrained(tmp_path / "copy")
    seal(tmp_path / "copy")
    with pytest.raises(UserError, match=f"{FILE}: damaged .*train the model again"):
        FusionModel.from_pretrained(tmp_path / "copy")


def test_model_without_any_record_is_not_known(folder):
    known = known_to_model(folder / "a", read_info(folder / "a"), TrainedOn(), None)
    assert known.unknown.startswith("the model does not record") and known.count(["test000"]) is None


@pytest.mark.parametrize("kind", ["ridge", "kernel"])
def test_baseline_scores_features_of_another_dataset(folder, tmp_path, kind):
    """Fitted to a; b has the ids of a and other clips, the copy has other ids and the clips of a."""

    def predict(other, split):
        options = {"kind": kind, "scored_data": other and folder / other, "split": split, "bootstrap": 0}
        return baseline(BaselineConfig(folder / "a", tmp_path / f"{other}.json", **options))

    for other, split, seen in (
        ("b", "train", SeenClips(0, 0)),
        ("copy", "train", SeenClips(32, 0)),
        ("copy", "valid", SeenClips(0, 16)),
        ("copy", "test", SeenClips(0, 0)),
    ):
        evaluation = predict(other, split)
        assert (
            evaluation.info.seen == seen and evaluation.info.made_from["features"] == read_info(folder / other).digest
        )
    assert evaluation.ids == [f"copy of {name}" for name in predict(None, "test").ids]
    np.testing.assert_allclose(evaluation.predictions, predict(None, "test").predictions)
    slower = replace(synthetic_features.info(), data=replace(ELSEWHERE, prepare={"frame_rate": 2}))
    write(tmp_path / "slower", synthetic_features.samples(COUNTS), slower)
    with pytest.raises(UserError, match=r"slower: clips prepared with frame_rate 2, but .* 4; prepare them again"):
        baseline(BaselineConfig(folder / "a", tmp_path / "c.json", scored_data=tmp_path / "slower"))
