"""The trainer on real files: it learns, it resumes bit for bit, it exports what it trained."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from helpers.stage1_tiny import TOWERS
from safetensors.torch import load_file

import stage1_align
from shared import config as configuration
from shared.errors import UserError
from shared.training import precision
from shared.training.precision import Hardware, matrix_width
from stage1_align.config import AlignConfig
from stage1_align.data.pairs import PairData, ValidationSet
from stage1_align.encoders import AlignedEncoders
from stage1_align.export.export import main as export
from stage1_align.model import ContrastiveModel
from stage1_align.setup import build_encoders, parameter_groups, random_lines
from stage1_align.train import train


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    values = {"towers": {**TOWERS, "embed_dim": 8}, "pairs": {"frames": 2}}
    values["train"] = {"epochs": 2, "batch_size": 8, "mixed_precision": "no"}
    path.write_text(yaml.safe_dump(values))
    return path


def run(settings: Path, clips: Path, folder: Path, *overrides: str) -> Path:
    arguments = ["--data", str(clips), "--run", str(folder), *overrides]
    return train(configuration.load(AlignConfig, settings, arguments))


def losses(folder: Path) -> dict[int, float]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return {r["step"]: r["loss"] for r in records if "loss" in r}


def test_stopped_run_equals_uninterrupted_run(settings: Path, clips: Path, tmp_path: Path):
    whole = run(settings, clips, tmp_path / "whole")
    run(settings, clips, tmp_path / "stopped", "--max_optimizer_steps", "2")  # in the middle of the first epoch
    with (tmp_path / "stopped" / "log.jsonl").open("a") as log:  # as if killed after more steps
        log.write('{"step": 3, "loss": 9.0}\n{"step": 4, "lo')
    stopped = run(settings, clips, tmp_path / "stopped")
    run(settings, clips, tmp_path / "between", "--max_optimizer_steps", "3")  # at the end of the first epoch
    run(settings, clips, tmp_path / "between")
    assert len(losses(whole)) == 6
    assert losses(whole) == losses(stopped) == losses(tmp_path / "between")
    for which in ("best", "last"):
        folders = (whole, stopped, tmp_path / "between")
        assert len({AlignedEncoders.from_pretrained(folder / which).digest for folder in folders}) == 1


@pytest.mark.parametrize("name", ["tiny", "tiny_labels", "audio_text"])
def test_small_shipped_towers_stay_in_fp32_without_amx(name: str, tmp_path: Path):
    towers = configuration.to_dict(configuration.load(AlignConfig, name, ["--run", str(tmp_path / "run")]).towers)
    specs = {modality: towers[modality] for modality in ("vision", "audio", "text") if towers[modality]}
    assert matrix_width(AlignedEncoders.build(specs, towers["embed_dim"])) < precision.WIDE


def test_run_resumes_on_another_processor_in_the_precision_that_auto_chose(
    settings: Path, clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)
    explicit = run(settings, clips, tmp_path / "bf16", "--train.mixed_precision", "bf16", "--train.epochs", "1")
    auto = ("--train.mixed_precision", "auto", "--train.epochs", "1")
    monkeypatch.setattr(precision, "WIDE", 8)  # the tiny towers are wide
    monkeypatch.setattr(Hardware, "here", lambda: Hardware(False, False, amx=False, avx512_bf16=True))
    run(settings, clips, tmp_path / "auto", *auto, "--max_optimizer_steps", "2")
    monkeypatch.setattr(Hardware, "here", lambda: Hardware(False, False, amx=False, avx512_bf16=False))
    resumed = run(settings, clips, tmp_path / "auto", *auto)
    assert losses(resumed) == losses(explicit) and len(losses(resumed)) == 3
    assert losses(run(settings, clips, tmp_path / "old", *auto)) != losses(explicit)  # fp32


@pytest.mark.parametrize("validation", [1, 2, 3], ids=["untrained", "first epoch", "last epoch"])
def test_sigterm_stops_a_validation(
    settings: Path,
    clips: Path,
    tmp_path: Path,
    validation: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    whole, frames, calls = run(settings, clips, tmp_path / "whole"), ValidationSet.frames, []

    def frames_with_sigterm(self: ValidationSet, *arguments: Any) -> np.ndarray:
        calls.append(1)
        if len(calls) == (validation - 1) * len(self) + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return frames(self, *arguments)

    monkeypatch.setattr(ValidationSet, "frames", frames_with_sigterm)
    stopped = run(settings, clips, tmp_path / "stopped")
    where = f"after step {3 * (validation - 1)}" if validation > 1 else "before the first step"
    assert f"stopped {where}" in capsys.readouterr().out
    log = stopped / "log.jsonl"
    assert (log.read_text() if log.exists() else "").count("mean_recall") == validation - 1
    monkeypatch.setattr(ValidationSet, "frames", frames)
    run(settings, clips, stopped)
    assert losses(whole) == losses(stopped)
    for which in ("best", "last"):
        assert weights(whole / which).keys() == weights(stopped / which).keys()
        assert all(torch.equal(a, weights(stopped / which)[name]) for name, a in weights(whole / which).items())


def deterministic(settings: Path) -> Path:
    """Without dropout and stochastic depth, whose draws depend on how a batch is split."""
    values = yaml.safe_load(settings.read_text())
    values["towers"]["audio"]["options"]["drop_path"] = 0.0
    values["towers"]["text"]["options"]["model_cfg"] |= {"hidden_dropout_prob": 0, "attention_probs_dropout_prob": 0}
    values["train"] |= {"epochs": 1, "trackers": []}
    settings.write_text(yaml.safe_dump(values))
    return settings


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def trained(folder: Path) -> dict[str, torch.Tensor]:
    """Weights of the newest checkpoint."""
    return weights(sorted((folder / "checkpoints").iterdir())[-1])


VARIANTS = {
    "info_nce": ["--pairs.word_dropout", "0.3"],
    "sigmoid": ["--loss.kind", "sigmoid", "--loss.initial_scale", "10"],
    "vision_audio": ["--loss.pairs", "{vision_audio: 1.0, vision_text: 0.5}"],
    "soft": ["--loss.soft", "0.5"],
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradient_cache_changes_nothing(settings: Path, clips: Path, tmp_path: Path, variant: str):
    """A batch of 8 in chunks of 3: the last one is smaller."""
    more = [*VARIANTS[variant], "--max_optimizer_steps", "3"]
    whole = run(deterministic(settings), clips, tmp_path / "whole", *more)
    chunked = run(settings, clips, tmp_path / "chunked", *more, "--train.chunk_size", "3")
    assert len(losses(whole)) == 3 and losses(chunked) == pytest.approx(losses(whole), rel=1e-5)
    with (whole / "log.jsonl").open() as log:
        first = next(record for record in map(json.loads, log) if "loss" in record)
    pairs = yaml.safe_load((whole / "config.yaml").read_text())["loss"]["pairs"]
    assert first["loss"] == pytest.approx(sum(w * first[f"loss_{pair}"] for pair, w in pairs.items()))
    assert ("bias_vision_text" in first) == (variant == "sigmoid")


def test_kinds_of_loss_differ(settings: Path, clips: Path, tmp_path: Path):
    folders = [
        run(deterministic(settings), clips, tmp_path / v, *VARIANTS[v], "--max_optimizer_steps", "1") for v in VARIANTS
    ]
    assert len({losses(folder)[1] for folder in folders}) == len(VARIANTS)


def test_exported_weights_are_the_average(settings: Path, clips: Path, tmp_path: Path):
    """The average by hand, from the checkpoints of every step."""
    more = ["--train.checkpoint_every", "1", "--train.keep_last", "9"]
    plain = run(deterministic(settings), clips, tmp_path / "plain", *more)
    averaged = run(settings, clips, tmp_path / "averaged", *more, "--train.ema", "0.3")
    steps = [weights(path) for path in sorted((averaged / "checkpoints").iterdir())]
    assert len(steps) == 3 and losses(averaged) == losses(plain)  # averaging does not affect training
    start = run(settings, clips, tmp_path / "start", "--train.epochs", "0")
    average = {f"encoders.{n}": x for n, x in weights(start / "best").items() if x.is_floating_point()}
    for step, current in enumerate(steps):
        decay = min(0.3, (1 + step) / (10 + step))
        average = {name: decay * average[name] + (1 - decay) * current[name] for name in average}
    exported, raw = weights(averaged / "last"), weights(plain / "last")
    for name, value in average.items():
        torch.testing.assert_close(exported[name.removeprefix("encoders.")], value, atol=1e-6, rtol=1e-6)
    assert max(float((exported[name] - raw[name]).abs().max()) for name in exported) > 1e-4


@pytest.mark.parametrize("missing, other", [("vision", "audio"), ("audio", "vision")])
def test_tower_may_be_missing(settings: Path, clips: Path, tmp_path: Path, missing: str, other: str):
    folder = run(deterministic(settings), clips, tmp_path / "run", f"--towers.{missing}", "null")
    with (folder / "log.jsonl").open() as log:
        records = list(map(json.loads, log))
    assert f"loss_{other}_text" in records[1] and f"loss_{missing}_text" not in records[1]
    assert not any(name.startswith(missing) or name == f"zero_shot_{missing}" for name in records[0])
    assert list(AlignedEncoders.from_pretrained(folder / "last").towers()) == [other, "text"]


def test_weights_that_stay_random_are_warned_of(settings: Path):
    """As of a frozen Whisper without its folder, which trained without a word."""

    def lines(*overrides: str, path: Path | str = settings) -> list[str]:
        return random_lines(configuration.load(AlignConfig, path, ["--data", "x", "--run", "x", *overrides]))

    frozen = "frozen_voices"
    (line,) = lines(path=frozen)
    assert "the audio tower are random, and unfreeze 0 freezes them" in line and "audio.options.pretrained" in line
    assert not lines("--towers.audio.options.pretrained", "whisper", path=frozen)
    assert not lines()
    untrained = lines("--train.epochs", "0", "--towers.text.options.pretrained", "minilm")
    assert [line.split(" tower ")[0] for line in untrained] == [
        "note: the weights of the vision",
        "note: the weights of the audio",
    ]


def test_frozen_parameters_stay_and_early_ones_learn_slower(settings: Path, clips: Path, tmp_path: Path):
    """Vision and text have one block each, audio two; the trunk of vision and the first block of audio are frozen."""
    values = yaml.safe_load(deterministic(settings).read_text())
    values["towers"]["vision"]["unfreeze"] = 0
    values["towers"]["audio"] |= {"unfreeze": 1}
    values["towers"]["text"]["layer_decay"] = 0.5
    values["train"]["tower_lr"] = {"audio": 0.1, "temperature": 2.0}
    settings.write_text(yaml.safe_dump(values))
    start = weights(run(settings, clips, tmp_path / "start", "--train.epochs", "0") / "best")
    end = weights(run(settings, clips, tmp_path / "run") / "last")
    changed = {name for name in start if not torch.equal(start[name], end[name])}
    assert {name for name in changed if name.startswith("vision.")} <= {"vision.project.weight", "vision.project.bias"}
    assert "vision.project.weight" in changed and any(name.startswith("text.") for name in changed)

    config = configuration.load(AlignConfig, settings, ["--data", str(clips), "--run", "x"])
    model = ContrastiveModel(
        build_encoders(config, PairData(config.pairs, 8, 0, clips)), config.loss, config.pairs.captions
    )
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rate = {
        names[id(parameter)]: (group["peak_lr"] / config.train.lr, group["weight_decay"])
        for group in parameter_groups(model, config)
        for parameter in group["params"]
    }
    frozen = {name for name in start if f"encoders.{name}" in names.values() and f"encoders.{name}" not in rate}
    assert frozen and not frozen & changed
    assert {name.split(".")[0] for name in frozen} == {"vision", "audio"} and not any("project" in n for n in frozen)
    assert rate["log_scale.vision_text"] == (2.0, 0.0)
    audio = {value for name, value in rate.items() if name.startswith("encoders.audio.")}
    assert audio == {(0.1, 0.0), (0.1, config.train.weight_decay)}
    text = {factor for name, (factor, _) in rate.items() if name.startswith("encoders.text.")}
    assert text == {1.0, 0.5, 0.25}  # after the block, the block, before it
    assert rate["encoders.text.project.weight"] == (1.0, config.train.weight_decay)


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("g++"), reason="torch.compile needs a compiler")
def test_compiled_blocks_give_the_same_losses(settings: Path, clips: Path, tmp_path: Path):
    plain = run(deterministic(settings), clips, tmp_path / "plain", "--max_optimizer_steps", "2")
    compiled = run(settings, clips, tmp_path / "compiled", "--max_optimizer_steps", "2", "--train.compile", "true")
    assert losses(compiled) == pytest.approx(losses(plain), rel=1e-4)
    assert trained(compiled).keys() == trained(plain).keys()


def test_number_of_workers_may_change_on_resume(settings: Path, clips: Path, tmp_path: Path):
    whole = run(settings, clips, tmp_path / "whole", "--train.epochs", "1")
    run(settings, clips, tmp_path / "run", "--train.epochs", "1", "--max_optimizer_steps", "1")
    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "1", "--train.workers", "2")
    assert losses(folder) == losses(whole)
    digests = {AlignedEncoders.from_pretrained(path / "last").digest for path in (whole, folder)}
    assert len(digests) == 1


def test_curves_reach_the_trackers_and_an_unknown_one_is_refused(settings: Path, clips: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "1")
    (events,) = (folder / "emit").glob("events.out.tfevents.*")
    curves = EventAccumulator(str(events)).Reload()
    curve = {event.step: event.value for event in curves.Scalars("loss")}
    assert curve == pytest.approx(losses(folder), rel=1e-5) and curves.Scalars("mean_recall")
    with pytest.raises(UserError, match="no tracker called 'tensorbord': did you mean 'tensorboard'"):
        run(settings, clips, tmp_path / "other", "--train.trackers", "[tensorbord]")
    with pytest.raises(UserError, match=r"aim is not installed: install it, or leave it out of --train\.trackers"):
        run(settings, clips, tmp_path / "other", "--train.trackers", "[aim]")
    assert not (tmp_path / "other").exists()


def test_finished_run_is_left_alone_and_another_configuration_refused(
    settings: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "0")
    known = AlignedEncoders.from_pretrained(folder / "best").training_clips
    assert known is not None and not len(known.trained) and not len(known.chosen)  # not trained: no clip is known
    run(settings, clips, folder, "--train.epochs", "0")
    assert "nothing to do" in capsys.readouterr().out
    with pytest.raises(UserError, match="another configuration"):
        run(settings, clips, folder, "--train.epochs", "1")


def test_export_writes_the_trained_encoders(
    settings: Path, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "1")
    assert export([str(folder), "--out", str(tmp_path / "encoders")]) == 0
    exported = AlignedEncoders.from_pretrained(tmp_path / "encoders")
    assert exported.digest == AlignedEncoders.from_pretrained(folder / "best").digest
    assert "mean_recall" in exported.config["training"]["metrics"] and len(exported.training_clips.trained)
    assert export([str(folder), "--out", str(tmp_path / "encoders")]) == 0
    assert "nothing to do" in capsys.readouterr().out


def test_export_never_replaces_other_files(settings: Path, clips: Path, tmp_path: Path):
    folder = run(settings, clips, tmp_path / "run", "--train.epochs", "0")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="something other than encoders"):
        export([str(folder), "--out", str(tmp_path / "other")])
    assert (tmp_path / "other" / "thesis.txt").read_text() == "years of work"


def test_unknown_names_of_pairs_and_towers_are_refused(settings: Path, clips: Path, tmp_path: Path):
    with pytest.raises(UserError, match="did you mean 'audio'"):
        run(settings, clips, tmp_path / "run", "--train.tower_lr", "{audoi: 0.5}")
    with pytest.raises(UserError, match="did you mean 'vision_labels'"):
        run(settings, clips, tmp_path / "run", "--loss.pairs", "{vision_label: 1.0}")
    with pytest.raises(UserError, match=r"captions is \[transcript\]; add labels"):
        run(settings, clips, tmp_path / "run", "--loss.pairs", "{vision_labels: 1}", "--pairs.captions", "[transcript]")


def test_export_of_an_unfinished_run_is_refused(settings: Path, clips: Path, tmp_path: Path):
    folder = run(settings, clips, tmp_path / "run", "--max_optimizer_steps", "1")
    with pytest.raises(UserError, match="no finished stage-1 run"):
        export([str(folder), "--out", str(tmp_path / "encoders")])


def test_loss_falls(settings: Path, clips: Path, tmp_path: Path):
    """Sixty steps on the same few clips."""
    folder = run(
        settings, clips, tmp_path / "run", "--train.epochs", "20", "--train.lr", "3e-3", "--pairs.augment", "false"
    )
    curve = losses(folder)
    assert sum(list(curve.values())[-5:]) < 0.8 * sum(list(curve.values())[:5])


CONFIGS = sorted((Path(stage1_align.__file__).parent / "configs").glob("*.yaml"))


def test_there_are_configurations():
    assert CONFIGS


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_shipped_configuration_loads_and_builds(path: Path):
    config = configuration.load(AlignConfig, path, ["--data", "x", "--run", "y"])
    towers = configuration.to_dict(config.towers)
    AlignedEncoders.build({m: towers[m] for m in ("vision", "audio", "text") if towers[m]}, towers["embed_dim"])


@pytest.mark.parametrize(
    "old, new",
    [
        ("--max_steps", "--max_optimizer_steps"),
        ("--train.warmup_share", "--train.warmup_fraction"),
        ("--train.clip_norm", "--train.max_grad_norm"),
        ("--train.keep", "--train.keep_last"),
        ("--train.chunk", "--train.chunk_size"),
    ],
)
def test_renamed_option_names_the_new_one(old: str, new: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        configuration.parse(AlignConfig, ["--run", "x", old, "1"], prog="emit align", example="")
    assert f"{old} was renamed: use {new} " in capsys.readouterr().err
