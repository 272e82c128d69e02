"""Training on synthetic features: it learns, it resumes bit for bit, and it refuses what does not fit."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from helpers import synthetic_features
from helpers.pickled_code import plant
from helpers.synthetic_features import config, small
from safetensors.torch import load_file

import stage2_fusion
from shared import config as configuration
from shared.errors import UserError
from shared.metrics import Scores, score
from shared.training.checkpoint import TrainState
from shared.training.ema import Ema
from shared.training.run_folder import Progress, RunFolder
from shared.training.schedule import count_warmup_steps
from stage2_fusion import trainer
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.feature_info import EncoderInfo
from stage2_fusion.data.features import FeatureDataset, shorten, write
from stage2_fusion.inference import run_model
from stage2_fusion.models import MODELS
from stage2_fusion.models.base import FusionModel
from stage2_fusion.train import train

CONFIGS = sorted((Path(stage2_fusion.__file__).parent / "configs").glob("*.yaml"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory):
    return synthetic_features.write_features(
        tmp_path_factory.mktemp("features") / "f", {"train": 96, "valid": 40, "test": 40}
    )


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_shipped_configuration_trains(path: Path, data: Path, tmp_path: Path):
    loaded = configuration.load(
        FuseConfig,
        path,
        ["--data", str(data), "--run", str(tmp_path / "r"), "--train.epochs", "1", "--train.batch_size", "32"],
    )
    model = FusionModel.from_pretrained(train(small(loaded)))
    assert model.config.model == loaded.model and not model.training


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_published_systems_keep_the_sequence_lengths_of_their_sources(path: Path):
    loaded = configuration.load(FuseConfig, path, ["--data", "d", "--run", "r"])
    sample = synthetic_features.sample(np.random.default_rng(0), steps=(400, 602, 4))  # frames; 12 seconds of 50 steps
    short = shorten(sample, loaded.train.max_sequence_steps)
    counts = [short.modality(name).steps for name in ("vision", "audio")]
    if loaded.model in ("concat", "dual_stage"):
        assert counts == [128, 128]
    else:
        assert counts[0] >= 398 and counts[1] >= 600


def test_unlabeled_training_clips_are_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    samples = synthetic_features.samples({"train": 40, "valid": 16})
    unlabeled = sorted({sample.id for sample in samples if sample.split == "train"})[:5]
    for sample in samples:
        if sample.id in unlabeled:
            sample.labels = np.full(2, np.nan, np.float32)
    write(tmp_path / "f", samples, synthetic_features.info())
    train(config(tmp_path / "f", tmp_path / "r", "--model", "concat", "--train.epochs", 1))
    assert capsys.readouterr().err.count("5 of 40 training clips have no label: left out\n") == 1


@pytest.mark.parametrize("model", MODELS.names())
def test_every_model_learns(model: str, data: Path, tmp_path: Path):
    folder = train(config(data, tmp_path, "--model", model, "--train.epochs", 15, "--train.lr", 2e-3))
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["valid"]["pcc"]["mean"] > 0.5  # a constant, the mean label, scores 0
    info = json.loads((folder / "config.json").read_text())
    assert info["label_names"] == ["d0", "d1"] and info["encoders"]["digest"] == "e" * 16
    assert info["prepare"] == {"frame_rate": 4}


def test_training_keeps_the_best_epoch_and_stops_early(tmp_path: Path):
    samples, rng = synthetic_features.samples({"train": 64, "valid": 40}), np.random.default_rng(0)
    for sample in samples:
        sample.labels = rng.random(2).astype(np.float32)  # nothing to learn: validation goes up and down
    write(tmp_path / "f", samples, synthetic_features.info())
    options = ["--model", "concat", "--train.epochs", 60, "--train.patience", 3, "--train.ema", 0.5]
    folder = train(config(tmp_path / "f", tmp_path / "r", *options))
    log = [json.loads(line) for line in (tmp_path / "r" / "log.jsonl").read_text().splitlines()]
    best = max(log, key=lambda line: line["valid_pcc"])
    kept = json.loads((folder / "metrics.json").read_text())
    assert kept["epoch"] == best["epoch"] and kept["valid"]["pcc"]["mean"] == best["valid_pcc"]
    assert len(log) < 60 and len(log) == best["epoch"] + 3


def test_saved_model_has_the_reported_score(data: Path, tmp_path: Path):
    folder = train(config(data, tmp_path, "--train.epochs", 3))
    model = FusionModel.from_pretrained(folder)
    valid = FeatureDataset.open(data, "valid", (0,), model.config.max_sequence_steps)
    again = score(run_model(model, valid.samples, 7).predictions, valid.labels(), model.config.label_names, resamples=0)
    expected = json.loads((folder / "metrics.json").read_text())["valid"]["pcc"]["mean"]
    assert again.pcc.mean == pytest.approx(expected, abs=1e-6)


def test_averaged_weights_are_validated_and_saved(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    update, validate, raw, expected, validated = Ema.update, trainer.validate, {}, {}, {}

    def record_update(ema: Ema, model: torch.nn.Module, step: int):  # the decay is min(0.3, (1 + step) / (10 + step))
        if step == 0:
            expected.update({name: value.double() for name, value in ema.averages.items()})
        raw.update({name: value.detach().clone() for name, value in model.state_dict().items()})
        decay = [1 / 10, 2 / 11, 3 / 12, 0.3, 0.3, 0.3][step]
        expected.update({name: decay * expected[name] + (1 - decay) * value.double() for name, value in raw.items()})
        update(ema, model, step)

    def record_validation(model: torch.nn.Module, *rest: Any) -> Scores:
        validated.update({name: value.detach().clone() for name, value in model.state_dict().items()})
        return validate(model, *rest)

    monkeypatch.setattr(Ema, "update", record_update)
    monkeypatch.setattr(trainer, "validate", record_validation)
    options = ["--model", "concat", "--train.epochs", 1, "--train.ema", 0.3]
    kept = load_file(train(config(data, tmp_path, *options)) / "model.safetensors")
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    averaged = load_file(checkpoint / "averages.safetensors")
    unaveraged = load_file(checkpoint / "model.safetensors")
    assert kept.keys() == averaged.keys() == unaveraged.keys() == expected.keys() == validated.keys()
    for name, value in kept.items():
        assert torch.equal(value, averaged[name]) and torch.equal(value, validated[name]), name
        assert torch.equal(unaveraged[name], raw[name]), name  # training continues with these
        torch.testing.assert_close(value.double(), expected[name], atol=1e-6, rtol=0)
        if name.startswith("mlp."):
            assert not torch.equal(value, raw[name]), name


def test_run_folder_of_somebody_else_executes_nothing(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save = RunFolder.save

    def save_and_plant(run: RunFolder, progress: Progress, state: TrainState):
        save(run, progress, state)
        assert {path.suffix for path in run.latest().rglob("*")} == {".safetensors", ".json"}
        plant(run.latest(), tmp_path / "executed")

    monkeypatch.setattr(RunFolder, "save", save_and_plant)
    options = ["--model", "concat", "--train.epochs", 3]
    assert synthetic_features.train_interrupted(monkeypatch, config(data, tmp_path / "run", *options)).exists()
    (tmp_path / "run" / "metrics.json").unlink()
    (RunFolder(tmp_path / "run", Accelerator(cpu=True)).latest() / "checkpoint.json").unlink()
    with pytest.raises(UserError, match="a checkpoint of an earlier version, which holds pickles"):
        train(config(data, tmp_path / "run", *options))
    assert not (tmp_path / "executed").exists()


def test_resumed_run_equals_uninterrupted_run(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    options = ["--train.epochs", 4, "--loss.memory", 40]
    whole = train(config(data, tmp_path / "whole", *options))
    parts = synthetic_features.train_interrupted(monkeypatch, config(data, tmp_path / "parts", *options))

    a, b = load_file(whole / "model.safetensors"), load_file(parts / "model.safetensors")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    logs = [
        [{k: v for k, v in json.loads(line).items() if k != "time"} for line in (run / "log.jsonl").open()]
        for run in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert logs[0] == logs[1]


def test_finished_run_is_left_as_it_is(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    options = ["--model", "concat", "--train.epochs", 1]
    folder = train(config(data, tmp_path, *options))
    before = (folder / "model.safetensors").stat().st_mtime_ns
    assert train(config(data, tmp_path, *options)) == folder
    assert "finished" in capsys.readouterr().out
    assert (folder / "model.safetensors").stat().st_mtime_ns == before
    with pytest.raises(UserError, match="another configuration"):
        train(config(data, tmp_path, *options, "--train.lr", 1e-5))


def test_seed_decides_the_weights(data: Path, tmp_path: Path):
    def weights(name: str, seed: int):
        folder = train(config(data, tmp_path / name, "--train.epochs", 1, "--seed", seed))
        return load_file(folder / "model.safetensors")

    a, b, c = weights("a", 1), weights("b", 1), weights("c", 2)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not all(torch.equal(a[name], c[name]) for name in a)


def test_quality_loss_lowers_the_weight_of_damaged_modalities(data: Path, tmp_path: Path):
    folder = train(config(data, tmp_path, "--train.epochs", 12, "--train.lr", 2e-3, "--loss.quality", 1.0))
    info = evaluate(EvaluateConfig(model=folder, data=data)).info
    assert info.damaged_on_purpose.damage.mean_auc > 0.9


def test_model_folder_holds_the_encoders(tmp_path: Path):
    encoders = tmp_path / "encoders"
    encoders.mkdir()
    (encoders / "config.json").write_text('{"digest": "x"}')
    info = synthetic_features.info(encoders=EncoderInfo(str(encoders), "x", {}))
    write(tmp_path / "f", synthetic_features.samples({"train": 32, "valid": 8}), info)
    folder = train(config(tmp_path / "f", tmp_path / "r", "--model", "concat", "--train.epochs", 3))
    shutil.rmtree(encoders)
    assert (folder / "encoders" / "config.json").read_text() == '{"digest": "x"}'


def test_encoders_that_changed_since_are_not_copied(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    encoders = tmp_path / "encoders"
    encoders.mkdir()
    (encoders / "config.json").write_text('{"digest": "y"}')  # exported again since the features were made
    info = synthetic_features.info(encoders=EncoderInfo(str(encoders), "x", {}))
    write(tmp_path / "f", synthetic_features.samples({"train": 32, "valid": 8}), info)
    folder = train(config(tmp_path / "f", tmp_path / "r", "--model", "concat", "--train.epochs", 1))
    assert not (folder / "encoders").exists()
    assert "will ask for --encoders" in capsys.readouterr().err


def test_clips_without_some_or_all_labels_do_not_harm_training(tmp_path: Path):
    samples = synthetic_features.samples({"train": 40, "valid": 10}, k=3)
    for i, sample in enumerate(samples):
        sample.labels[i % 3] = np.nan
        if i % 8 < 2:
            sample.labels[:] = np.nan
    write(tmp_path / "f", samples, synthetic_features.info(3))
    folder = train(config(tmp_path / "f", tmp_path / "r", "--train.epochs", 2))
    assert all(torch.isfinite(value).all() for value in load_file(folder / "model.safetensors").values())


@pytest.mark.parametrize(
    "old, new",
    [
        ("clip", "--train.max_grad_norm"),
        ("max_steps", "--train.max_sequence_steps"),
        ("warmup_epochs", "--train.warmup_fraction, a fraction of all steps: warm-up epochs / epochs"),
    ],
)
def test_renamed_option_names_the_new_one(old: str, new: str, capsys: pytest.CaptureFixture[str], tmp_path: Path):
    (tmp_path / "old.yaml").write_text(f"train:\n  {old}: 1\n")
    for words in (["--config", str(tmp_path / "old.yaml")], [f"--train.{old}", "1"]):
        with pytest.raises(SystemExit):
            configuration.parse(FuseConfig, ["--data", "d", "--run", "r", *words], prog="emit fuse", example="")
        assert f"--train.{old} was renamed: use {new} (" in capsys.readouterr().err


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_shipped_configurations_warm_up_for_one_epoch_or_not_at_all(path: Path):
    options = configuration.load(FuseConfig, path, ["--data", "d", "--run", "r"]).train
    none = ("concat_vad", "late_fusion", "quality_gated", "staged_concat", "statistics_mlp")
    epochs = 0 if path.stem in none else 1
    for per_epoch in (1, 43, 500):  # 43 steps of 32 in the 1,400 training clips of the demo
        assert count_warmup_steps(per_epoch * options.epochs, options.warmup_fraction) == epochs * per_epoch


def test_mistakes_are_one_line(data: Path, tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'dual_stage'"):
        train(config(data, tmp_path, "--model", "dual_stag"))
    with pytest.raises(UserError, match="no clips of split 'dev'"):
        train(config(data, tmp_path, "--valid_split", "dev"))
    with pytest.raises(UserError, match="fewer than one batch of 500"):
        train(config(data, tmp_path, "--train.batch_size", 500))
