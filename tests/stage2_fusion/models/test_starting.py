"""`emit fuse --init`: encoders that were trained one by one begin the model that joins them."""

import dataclasses

import pytest
import torch
from helpers import synthetic_features
from helpers.synthetic_features import config

from shared.errors import UserError
from shared.training.signals import SigtermHandler
from stage2_fusion.config import TrainConfig
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.starting import freeze, start_from
from stage2_fusion.setup import parameter_groups
from stage2_fusion.train import train

SINGLE = ["--model", "staged_concat", "--train.epochs", 1, "--train.ema", 0]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Features, and a model of each of two modalities."""
    folder = tmp_path_factory.mktemp("one by one")
    data = synthetic_features.write_features(folder / "f", {"train": 32, "valid": 16}, views=0)
    single = {
        name: train(config(data, folder / name, *SINGLE, "--options", f"{{modalities: [{name}]}}"))
        for name in ("audio", "text")
    }
    return data, single


def test_frozen_encoders_stay_and_their_heads_are_left_behind(trained, tmp_path):
    data, single = trained
    folders = ", ".join(f"{name}: {folder}" for name, folder in single.items())
    joined = ["--options", "{modalities: [audio, text]}", "--init", f"{{{folders}}}", "--train.init_lr", 0]
    model = FusionModel.from_pretrained(train(config(data, tmp_path / "r", *SINGLE, *joined)))
    own = model.state_dict()
    for name, folder in single.items():
        before = FusionModel.from_pretrained(folder).state_dict()
        encoder = [key for key in before if key.startswith((f"encoders.{name}.", f"{name}_"))]
        assert len(encoder) > 8 and all(torch.equal(own[key], before[key]) for key in encoder)
    assert own["head.2.weight"].shape == (32, 64)
    assert model.config.trained_on.clips == sorted(f"train{i:03d}" for i in range(32))
    with pytest.raises(UserError, match="does not read text"):
        train(config(data, tmp_path / "w", *SINGLE, "--init", f"{{text: {single['audio']}}}"))


def test_started_parameters_have_a_learning_rate_of_their_own():
    spec = FeatureSpec.of(synthetic_features.info())
    small = synthetic_features.SMALL["staged_concat"]
    other = FusionModel.build("staged_concat", {**small, "modalities": ["audio"]}, spec)
    model = FusionModel.build("staged_concat", small, spec)
    started = start_from(model, {"audio": other})
    assert started == {name for name, _ in model.named_parameters() if name.startswith("encoders.audio.")}
    groups = parameter_groups(model, TrainConfig(lr=0.5, init_lr=0.1), started)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        assert rates[id(parameter)] == (0.05 if name in started else 0.5)


@pytest.mark.parametrize("own, other", [(2, 4), (4, 2)])
def test_more_or_fewer_layers_are_other_options(own, other):
    """The first levels of a deeper TCN would fit, and be another encoder."""
    spec = FeatureSpec.of(synthetic_features.info())
    small = {"width": 8, "text_width": 8, "gate_width": 4, "modalities": ["audio"]}
    model = FusionModel.build("quality_gated", {**small, "tcn_layers": own}, spec)
    with pytest.raises(UserError, match="has other options"):
        start_from(model, {"audio": FusionModel.build("quality_gated", {**small, "tcn_layers": other}, spec)})


@pytest.mark.parametrize(("name", "fits"), [("staged_concat", True), ("statistics_mlp", False)])
def test_encoders_that_end_in_other_labels_do_not_fit(name, fits):
    """Of statistics_mlp each modality predicts; staged_concat leaves its heads behind."""
    spec = FeatureSpec.of(synthetic_features.info())
    others = dataclasses.replace(spec, label_names=[f"other {label}" for label in spec.label_names])
    options = synthetic_features.SMALL[name]
    model, other = (FusionModel.build(name, options, each) for each in (spec, others))
    if fits:
        assert start_from(model, {"text": other})
        return
    with pytest.raises(UserError, match=r"predicts other .*; train it on the same labels"):
        start_from(model, {"text": other})


def test_frozen_parts_have_no_gradient_and_something_must_be_left():
    """A gradient of theirs would count in the norm by which those of the head are clipped."""
    spec = FeatureSpec.of(synthetic_features.info())
    options = synthetic_features.SMALL["statistics_mlp"]
    model, other = (FusionModel.build("statistics_mlp", options, spec) for _ in range(2))
    started = start_from(model, {"audio": other, "vision": other})
    freeze(model, started)
    left = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert started and left == {name for name, _ in model.named_parameters()} - started
    single = FusionModel.build("statistics_mlp", {**options, "modalities": ["audio"]}, spec)
    with pytest.raises(UserError, match="leaves nothing to train"):
        freeze(single, start_from(single, {"audio": other}))


def test_what_is_no_model_is_one_line(trained, tmp_path):
    data, _ = trained
    for folder, said in {data: "config.json", tmp_path / "nowhere": "nowhere"}.items():
        with pytest.raises(UserError, match=said) as caught:
            train(config(data, tmp_path / "r", *SINGLE, "--init", f"{{text: {folder}}}"))
        assert "\n" not in str(caught.value)


def test_a_started_run_continues_bit_for_bit_and_its_frozen_encoders_stay(trained, tmp_path):
    """From one model of both modalities: a run of two epochs, and one that stops after the first."""
    data, _ = trained
    options = ["--options", "{modalities: [audio, text]}", "--train.init_lr", 0, "--train.ema", 0]
    both = train(config(data, tmp_path / "both", "--model", "staged_concat", *options, "--train.epochs", 1))
    words = ["--model", "staged_concat", *options, "--train.epochs", 2, "--init", f"{{audio: {both}, text: {both}}}"]
    whole = FusionModel.from_pretrained(train(config(data, tmp_path / "whole", *words))).state_dict()
    broken = config(data, tmp_path / "broken", *words)
    stop = SigtermHandler()
    stop.requested = True
    train(broken, stop)
    assert not (tmp_path / "broken" / "metrics.json").exists()
    resumed = FusionModel.from_pretrained(train(broken)).state_dict()
    before = FusionModel.from_pretrained(both).state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    encoder = [name for name in before if name.startswith("encoders.")]
    assert all(torch.equal(whole[name], before[name]) for name in encoder)
    assert not torch.equal(whole["head.2.weight"], before["head.2.weight"])


def test_encoders_that_do_not_fit_are_one_line():
    spec = FeatureSpec.of(synthetic_features.info())
    model = FusionModel.build("staged_concat", synthetic_features.SMALL["staged_concat"], spec)
    with pytest.raises(UserError, match="has other options"):
        start_from(model, {"text": FusionModel.build("staged_concat", {"width": 8, "modalities": ["text"]}, spec)})
    for name in ("concat", "statistics_mlp"):
        with pytest.raises(UserError, match="this model, StagedConcat, has no encoder of text like that"):
            start_from(model, {"text": FusionModel.build(name, synthetic_features.SMALL[name], spec)})
    concat = FusionModel.build("concat", {}, spec)
    with pytest.raises(UserError, match="this model, Concat, has no encoder"):
        start_from(concat, {"text": FusionModel.build("concat", {}, spec)})
