"""Towers that train end to end with the fusion model: which weights change, what they learn, what is saved."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from helpers import stage1_tiny, synthetic_features
from safetensors.torch import load_file

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.dataset.clip_dataset import ClipDataset, ClipDatasetInfo, schema
from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.media.quality import AUDIO_QUALITY, TEXT_QUALITY, VISION_QUALITY
from shared.media.storage import encode_jpeg, to_int16
from shared.metrics import Scores
from shared.saved.checksum import CLIPS, write_description
from stage1_align import Encoded
from stage2_fusion import trainer
from stage2_fusion.commands.encode import EncodeConfig, encode
from stage2_fusion.commands.evaluate import EvaluateConfig, evaluate
from stage2_fusion.config import FuseConfig, TrainConfig
from stage2_fusion.data.batches import Batch, ModalityBatch, PackedSamples, collate
from stage2_fusion.data.encoding import encode_samples, load_clip
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.finetune import EndToEndModel, MakeBatch, RawInputs, interpolated, one_per_part
from stage2_fusion.inference import run_model
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.setup import parameter_groups
from stage2_fusion.train import train

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["--model", "concat", "--options", "{width: 16, dropout: 0.0, modality_dropout: 0.0}", "--train.trackers", "[]"]


def write_clips(path: Path, count: int = 48) -> Path:
    """Clips of noise that say one of four words; the labels are two of the words. Every seventh clip has no text."""
    rng = np.random.default_rng(0)
    quality = {"vision": list(VISION_QUALITY), "audio": list(AUDIO_QUALITY), "text": list(TEXT_QUALITY)}
    recipe = Recipe(sample_rates=[16000], frame_size=32, frame_rate=4)
    info = ClipDatasetInfo(["a", "b"], ["subject"], recipe, quality, digest="c" * 16)
    rows = []
    for i in range(count):
        word = str(rng.choice(["funny", "sad", "dog", "today"]))
        frames = [encode_jpeg(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) for _ in range(2)]
        row = {"id": f"clip{i:02d}", "split": "valid" if i % 3 == 0 else "train", "duration": 1.0}
        row |= {"transcript": "" if i % 7 == 6 else " ".join([word] * (2 + i % 5)), "group_subject": f"s{i % 5}"}
        row |= {"labels": [float(word == "funny"), float(word == "sad")]}
        row |= {"frames": frames, "frame_times": [0.25, 0.75]}
        row |= {"vision_quality": rng.random((2, len(VISION_QUALITY)), np.float32).tobytes()}
        row |= {"waveform_16000": to_int16(rng.uniform(-0.3, 0.3, 16000 + 500 * i).astype(np.float32)).tobytes()}
        row |= {"audio_quality": rng.random((10, len(AUDIO_QUALITY)), np.float32).tobytes()}
        rows.append(row | {"text_quality": [1.0] * len(TEXT_QUALITY)})
    datasets.Dataset(pa.Table.from_pylist(rows, schema=schema(info))).save_to_disk(str(path / "data"))
    write_description(path, CLIPS, info.to_json())
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, encoders whose text tower of two layers maps every text to the same output, and the features of both."""
    folder = tmp_path_factory.mktemp("made")
    write_clips(folder / "clips")
    towers = copy.deepcopy(stage1_tiny.TOWERS)
    net = towers["text"]["options"]["model_cfg"]
    net |= {"num_hidden_layers": 2, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage1_tiny, "TOWERS", towers)
        encoders = stage1_tiny.encoders()
    norm = encoders.text.net.encoder.layer[1].output.LayerNorm
    norm.weight.data.zero_()
    norm.bias.data.normal_()
    encoders.save_pretrained(folder / "encoders", {"data": "nothing"})
    datasets.disable_progress_bars()
    options = {"data": folder / "clips", "out": folder / "features", "damaged_views": 2, "mixed_precision": "no"}
    encode(EncodeConfig(encoders=folder / "encoders", **options))
    return folder


def config(made: Path, run: Path, *more: Any) -> FuseConfig:
    words = ["--data", made / "features", "--run", run, *SMALL, "--train.batch_size", 8, "--train.lr", 1e-2]
    argv = [str(word) for word in (*words, "--train.epochs", 2, "--train.finetune_lr", 1.0, *more)]
    return configuration.parse(FuseConfig, argv, prog="emit fuse", example="")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def changed(made: Path, folder: Path) -> set[str]:
    """Names of the encoder parameters that training changed."""
    before, after = weights(made / "encoders"), weights(folder / "encoders")
    assert before.keys() == after.keys()
    return {name for name in before if not torch.equal(before[name], after[name])}


@pytest.mark.parametrize("max_steps", [128, 3])
def test_live_towers_give_the_stored_features_of_every_view(made: Path, tmp_path: Path, max_steps: int):
    features = FeatureDataset.open(made / "features", max_sequence_steps=max_steps)
    settings = config(
        made, tmp_path, "--finetune", "{vision: 0, audio: 0, text: 0}", "--train.max_sequence_steps", max_steps
    )
    raw = RawInputs(settings, features.info)
    model = raw.wrap(PassThrough()).eval()
    rows = np.arange(len(features))
    with torch.no_grad():
        live = model(raw.batches(PackedSamples(features.samples))(rows))
    cached = collate(features.samples)
    damage = {name: {sample.damage[name] for sample in features.samples} for name in MODALITIES}
    assert all(len(kinds) > 1 for kinds in damage.values())  # every modality is damaged somewhere
    for name in MODALITIES:
        part, expected = live.modality(name), cached.modality(name)
        torch.testing.assert_close(part.x, expected.x, atol=3e-3, rtol=3e-3)
        torch.testing.assert_close(part.pooled, expected.pooled, atol=3e-3, rtol=3e-3)


class PassThrough(torch.nn.Module):
    """A fusion model that returns its input."""

    dimensions = 2

    def follow_statistics(self, name: str, part: ModalityBatch) -> None:
        pass

    def forward(self, batch: Batch) -> Batch:
        return batch


def test_only_the_last_blocks_change(made: Path, tmp_path: Path):
    top = train(config(made, tmp_path / "0", "--finetune", "{text: 0}"))
    assert changed(made, top) == {"text.project.weight", "text.project.bias"}
    last = changed(made, train(config(made, tmp_path / "1", "--finetune", "{text: 1}")))
    assert {name.split("layer.")[1][0] for name in last if "layer." in name} == {"1"}
    assert all("layer.1." in name or name.startswith("text.project") for name in last)
    assert "text.net.encoder.layer.1.output.LayerNorm.weight" in last and len(last) > 12
    untouched = train(config(made, tmp_path / "none"))
    assert changed(made, untouched) == set()


class NoDecay(torch.nn.ModuleDict):
    def no_weight_decay(self) -> set[str]:
        return set()


def test_towers_have_a_learning_rate_of_their_own():
    model = NoDecay({"fusion": torch.nn.Linear(2, 2), "towers": torch.nn.Linear(3, 3)})
    groups = parameter_groups(model, TrainConfig(lr=0.5, finetune_lr=0.1, weight_decay=0.3))
    sizes = {(group["peak_lr"], group["weight_decay"]): sum(p.numel() for p in group["params"]) for group in groups}
    assert sizes == {(0.5, 0.3): 4, (0.5, 0.0): 2, (0.05, 0.3): 9, (0.05, 0.0): 3}
    model["towers"].requires_grad_(False)
    assert len(parameter_groups(model, TrainConfig())) == 2


def test_tuned_tower_learns_what_a_frozen_one_lacks(made: Path, tmp_path: Path):
    alone = "{width: 16, dropout: 0.0, modality_dropout: 0.0, modalities: [text]}"  # others are noise to memorize
    options = ["--options", alone, "--train.epochs", 25, "--train.patience", 25, "--loss.ramp_epochs", 0]
    frozen = train(config(made, tmp_path / "frozen", *options))
    tuned = train(config(made, tmp_path / "tuned", *options, "--finetune", "{text: 1}"))
    pcc = [json.loads((f / "metrics.json").read_text())["valid"]["pcc"]["mean"] for f in (frozen, tuned)]
    assert pcc[0] < 0.3 and pcc[1] > 0.6

    info = json.loads((tuned / "config.json").read_text())
    there = json.loads((tuned / "encoders" / "config.json").read_text())
    assert info["encoders"]["digest"] == there["digest"] != info["finetune"]
    assert "last 1 blocks of text" in there["training"]["data"] and there["training"]["began_from"] != there["digest"]

    # As `emit encode` and `emit evaluate` see it, and as `emit predict` does.
    with pytest.raises(UserError, match="encoders kept in the model folder"):
        evaluate(EvaluateConfig(model=tuned, data=made / "features", split="valid"))
    again = EncodeConfig(encoders=tuned / "encoders", data=made / "clips", out=tmp_path / "f", mixed_precision="no")
    encode(again)
    found = evaluate(EvaluateConfig(model=tuned, data=tmp_path / "f", split="valid", bootstrap=0))
    assert found.mean_pcc == pytest.approx(pcc[1], abs=1e-4)


def test_saved_model_predicts_as_in_validation(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from stage1_align.encoders import AlignedEncoders

    validated = []
    validate = trainer.validate

    def record_predictions(model: EndToEndModel, dataset: FeatureDataset, make_batch: MakeBatch, *rest: Any) -> Scores:
        validated.append(run_model(model, dataset.samples, 64, make_batch).predictions)
        return validate(model, dataset, make_batch, *rest)

    monkeypatch.setattr(trainer, "validate", record_predictions)
    folder = train(config(made, tmp_path, "--finetune", "{text: 2, audio: 1}"))
    model = FusionModel.from_pretrained(folder)
    encoders = AlignedEncoders.from_pretrained(folder / "encoders")
    assert encoders.digest == model.config.encoders.digest
    clips = ClipDataset.open(made / "clips", "valid")
    samples = encode_samples(encoders, [load_clip(clips, row, 16000) for row in range(len(clips))])
    best = json.loads((folder / "metrics.json").read_text())["epoch"]
    np.testing.assert_allclose(run_model(model, samples, 5).predictions, validated[best - 1], atol=1e-4)


@pytest.mark.parametrize(
    "tuned", [["{text: 1}"], ["{vision: null}", "--train.finetune_frames", 1]], ids=["text", "a frame of two"]
)
def test_resumed_run_equals_uninterrupted_run(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tuned: list[Any]
):
    options = ["--finetune", *tuned, "--train.epochs", 3]
    whole = train(config(made, tmp_path / "whole", *options))
    parts = synthetic_features.train_interrupted(monkeypatch, config(made, tmp_path / "parts", *options))
    for folder in ("", "encoders"):
        a, b = weights(whole / folder), weights(parts / folder)
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_one_random_frame_of_each_part_is_drawn():
    lengths, count = torch.tensor([11, 3, 0, 4]), 3
    mask = torch.arange(12) < lengths[:, None]  # (4, 12)
    torch.manual_seed(0)
    drawn = torch.stack([one_per_part(mask, count) for _ in range(400)])  # (400, 4, 12)
    for row, parts in ((0, [[0, 1, 2], [3, 4, 5, 6], [7, 8, 9, 10]]), (3, [[0], [1], [2, 3]])):
        assert not drawn[:, row, lengths[row] :].any()
        for part in parts:
            assert (drawn[:, row, part].sum(1) == 1).all()
            torch.testing.assert_close(
                drawn[:, row, part].float().mean(0), torch.full((len(part),), 1 / len(part)), atol=0.1, rtol=0
            )
    assert (drawn[:, 1] == mask[1]).all() and not drawn[:, 2].any()


def test_steps_between_chosen_frames_are_interpolated():
    rng = np.random.default_rng(0)
    mask = np.arange(9) < np.array([[9], [5], [1], [0]])  # (4, 9)
    chosen = [[1, 4, 6], [2], [0], []]
    known, sequence = np.zeros_like(mask), np.zeros((4, 9, 3))
    for row, steps in enumerate(chosen):
        known[row, steps], sequence[row, steps] = True, rng.normal(size=(len(steps), 3))
    pooled = torch.ones(4, 2)
    found = interpolated(
        Encoded(pooled, torch.from_numpy(sequence), torch.from_numpy(known), None), torch.from_numpy(mask)
    )
    assert torch.equal(found.mask, torch.from_numpy(mask)) and found.pooled is pooled
    for row, steps in enumerate(chosen[:3]):
        length = mask[row].sum()
        expected = [np.interp(np.arange(length), steps, sequence[row, steps, c]) for c in range(3)]
        np.testing.assert_allclose(found.sequence[row, :length].T, expected, atol=1e-12)
        assert not found.sequence[row, length:].any()
    assert not found.sequence[3].any()


def test_only_training_runs_on_some_of_the_frames(made: Path, tmp_path: Path):
    features = FeatureDataset.open(made / "features")
    settings = config(made, tmp_path, "--finetune", "{vision: null}", "--train.finetune_frames", 1)
    raw = RawInputs(settings, features.info)
    model, batches = raw.wrap(PassThrough()), raw.batches(PackedSamples(features.samples))
    batch = batches(np.arange(6))
    ran = []
    model.towers["vision"].trunk.register_forward_hook(lambda trunk, given, out: ran.append(len(given[0])))
    with torch.no_grad():
        whole = model.eval()(batch).vision
        part = model.train()(batch).vision
    clips = len(batch.raw["vision"]["inputs"]["mask"])
    assert ran == [2 * clips, clips] and torch.equal(part.mask, whole.mask) and torch.equal(part.times, whole.times)
    assert torch.equal(part.quality, whole.quality) and (whole.x[:, 0] != whole.x[:, 1]).any()
    for row in range(6):
        assert torch.equal(part.x[row, 0], part.x[row, 1])  # both steps are those of the one frame that was drawn
        assert min((part.x[row, 0] - whole.x[row, step]).abs().max() for step in (0, 1)) < 3e-3


def test_statistics_of_inputs_follow_towers_that_train():
    """Against the mean and the variance of a mixture of what was there before, and 5 % of the batch."""
    torch.manual_seed(0)
    widths, quality = {"vision": 3, "audio": 2, "text": 2, "embed": 2}, {name: ["q"] for name in MODALITIES}
    model = FusionModel.build("concat", {"width": 8}, FeatureSpec(["a"], widths, quality))
    model.vision_x_mean.copy_(torch.tensor([1.0, -2.0, 0.0]))
    model.vision_x_scale.copy_(1 / torch.tensor([0.5, 2.0, 1.0]))
    x, mask = torch.randn(4, 5, 3) * 3 + 1, torch.arange(5) < torch.tensor([[5], [2], [0], [1]])
    x[..., 2] = 7.0  # does not vary
    present = mask.any(1)
    part = ModalityBatch(x, mask, mask.float(), torch.randn(4, 2), mask[..., None].float(), present)
    before = {name: value.clone() for name, value in model.named_buffers()}
    model.follow_statistics("vision", part)
    for key, values in (("x", x[mask]), ("pooled", part.pooled[present])):
        mean, deviation = before[f"vision_{key}_mean"].double(), 1 / before[f"vision_{key}_scale"].double()
        center = 0.95 * mean + 0.05 * values.double().mean(0)
        square = 0.95 * (deviation**2 + mean**2) + 0.05 * values.double().square().mean(0)
        found = getattr(model, f"vision_{key}_mean"), getattr(model, f"vision_{key}_scale")
        torch.testing.assert_close(found[0].double(), center, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(1 / found[1].double(), (square - center**2).sqrt(), rtol=1e-5, atol=1e-6)
    changed = {name for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert changed == {f"vision_{key}_{what}" for key in ("x", "pooled") for what in ("mean", "scale")}
    for _ in range(600):
        model.follow_statistics("vision", part)
    assert model.vision_x_scale[2].item() == pytest.approx(1000)  # the largest: the channel is constant


def test_unread_tower_output_is_frozen(made: Path, tmp_path: Path):
    more = ["--model", "dual_stage", "--options", "{width: 8, heads: 2, steps: 4, pooled: false}"]
    folder = train(config(made, tmp_path, *more, "--finetune", "{text: 1}", "--train.epochs", 1))
    assert changed(made, folder) and not any(name.startswith("text.project") for name in changed(made, folder))


def test_mistakes_are_one_line(made: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no modality 'texts': did you mean 'text'"):
        FuseConfig(made / "features", tmp_path, finetune={"texts": 1})
    with pytest.raises(UserError, match="needs a vision tower that trains end to end: add vision to --finetune"):
        config(made, tmp_path, "--finetune", "{text: 1}", "--train.finetune_frames", 4)
    with pytest.raises(UserError, match=r"--finetune\.text is 3: this tower has 2 blocks; give 0 to 2, or all"):
        train(config(made, tmp_path / "a", "--finetune", "{text: 3}"))
    stage1_tiny.encoders(seed=1).save_pretrained(tmp_path / "others")
    with pytest.raises(UserError, match=r"made with other encoders .*give --encoders"):
        train(config(made, tmp_path / "b", "--finetune", "{text: 1}", "--encoders", tmp_path / "others"))


@pytest.mark.slow
def test_two_processes_tune_like_one(made: Path, tmp_path: Path):
    logs = []
    for name in ("cpu", "cpu_2_processes"):
        launch = [
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--config_file",
            f"accelerate_configs/{name}.yaml",
        ]
        words = ["--data", made / "features", "--run", tmp_path / name, *SMALL, "--train.batch_size", 8]
        # Of the audio tower only what has no stochastic depth, which is drawn per process as dropout is.
        words += ["--train.epochs", 2, "--finetune", "{text: 1, audio: 0}", "--loss.pcc", 1.0]
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        command = [*launch, "stage2_fusion/train.py", *map(str, words)]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-2000:]
        logs.append([json.loads(line) for line in (tmp_path / name / "log.jsonl").open()])
    for one, two in zip(*logs, strict=True):
        for name in ("loss", "mse", "pcc", "grad_norm", "valid_pcc"):
            assert two[name] == pytest.approx(one[name], rel=1e-3, abs=1e-4), name


@pytest.mark.parametrize(("given", "blocks"), [("all", None), ("null", None), ("2", 2), ("0", 0)])
def test_all_and_null_are_the_whole_tower(given: str, blocks: int | None, capsys: pytest.CaptureFixture[str]):
    argv = ["--config", "words", "--data", "d", "--run", "r", "--finetune", f"{{text: {given}}}"]
    config = configuration.parse(FuseConfig, argv, prog="emit fuse", example="")
    assert config.tuned_blocks == config.finetune == {"text": blocks}
    with pytest.raises(SystemExit):
        configuration.parse(FuseConfig, [*argv[:-1], "{text: most}"], prog="emit fuse", example="")
    assert "--finetune is most: expected" in capsys.readouterr().err
