"""Model folders: saved, loaded, on the hub, refused when they are others, with a card."""

import dataclasses
import json
import shutil

import pytest
import torch
from helpers import stage1_tiny, synthetic_features

from shared.errors import UserError
from shared.saved.checksum import seal
from stage2_fusion import FusionModel
from stage2_fusion.data.batches import collate
from stage2_fusion.data.feature_info import EncoderInfo
from stage2_fusion.models.base import FeatureSpec, Output, uniform_weights
from stage2_fusion.models.concat import Concat
from stage2_fusion.models.dual_stage import DualStage
from stage2_fusion.models.model_config import FORMAT, FusionConfig, TrainedOn

METRICS = {"epoch": 3, "valid": {"n": 24, "pcc": {"mean": 0.5, "per_dimension": {"d0": 0.5, "d1": None}}}}


class OwnModel(FusionModel):
    """A model outside the registry."""

    def forward(self, batch) -> Output:
        weights, step_mask = uniform_weights(self.inputs(batch))
        return Output(torch.zeros(len(weights), self.dimensions), weights, step_mask)


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoders") / "encoders"
    stage1_tiny.encoders().save_pretrained(folder, {"data": "made-up clips"})
    return folder


def describe(encoders, model="dual_stage", **values) -> FusionConfig:
    content = json.loads((encoders / "config.json").read_text())
    info = dataclasses.replace(
        synthetic_features.info(), encoders=EncoderInfo(str(encoders), content["digest"], content)
    )
    options = synthetic_features.SMALL.get(model, {})
    return FusionConfig.from_features(info, model=model, options=options, max_sequence_steps=128, **values)


@pytest.fixture
def folder(encoders, tmp_path):
    """The folder of an untrained model."""
    trained_on = TrainedOn(features="f", data="d", seed=0, clips=["a", "b"], chosen_on=["c"])
    config = describe(encoders, trained_on=trained_on)
    model = FusionModel.build(config.model, config.options, FeatureSpec.of(config))
    model.fit_statistics(synthetic_features.samples({"train": 8}, views=0))
    model.save_pretrained(tmp_path / "model", config, METRICS)
    return tmp_path / "model"


def same_predictions(one, other) -> bool:
    batch = collate(synthetic_features.samples({"train": 4}, views=0))
    return torch.equal(one(batch).prediction, other(batch).prediction)


def test_saved_model_loads_with_everything_it_was_saved_with(folder, tmp_path):
    model = FusionModel.from_pretrained(folder)
    assert isinstance(model, DualStage) and not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model.metrics == METRICS and model.config.trained_on.clips == ["a", "b"] and model.folder == folder
    names = {"README.md", "config.json", "encoders", "metrics.json", "model.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    model.save_pretrained(tmp_path / "copy")
    copy = DualStage.from_pretrained(tmp_path / "copy")
    assert copy.config == model.config and copy.metrics == METRICS and same_predictions(copy, model)
    assert (tmp_path / "copy" / "encoders" / "model.safetensors").exists()


def test_configuration_survives_json(encoders):
    config = describe(encoders, finetune={"text": 2}, trained_on=TrainedOn(synthetic=True))
    content = json.loads(json.dumps(config.to_json()))
    assert content["format"] == FORMAT and "clips" not in content["trained_on"] and "action_units" not in content
    assert FusionConfig.from_json(content) == config


def test_card_tells_what_the_model_is_and_is_not(folder, encoders, tmp_path):
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: emit-toolkit\ntags: [vision, audio, text, emotion")
    for words in (
        "2 clips of a clip dataset with digest `d`, 1 clip to choose the epoch",
        "made-up clips",
        "| d0 | 0.500 |\n| d1 | n/a |\n| mean | 0.500 |",
        "Not for decisions about people",
        "That is not felt emotion",
        "| vision | open_clip |",
        'Predictor.from_pretrained("DIR")',
    ):
        assert words in card
    assert "never met a person" not in card and max(map(len, card.splitlines())) <= 120
    model = FusionModel.from_pretrained(folder)
    model.save_pretrained(tmp_path / "x", describe(encoders, trained_on=TrainedOn(synthetic=True)), {})
    synthetic = (tmp_path / "x" / "README.md").read_text()
    assert "never met a person" in synthetic and "Not recorded." in synthetic


def test_card_names_licenses_of_pretrained_weights(folder, encoders, tmp_path):
    config = describe(encoders)
    towers = {"text": {"options": {"pretrained": "models/roberta-base"}}, "audio": {"options": {"hop": 8}}}
    config.encoders.config = config.encoders.config | {"training": {"config": {"towers": towers}}}
    config.encoders.config["towers"]["text"]["options"]["license"] = "mit"
    FusionModel.from_pretrained(folder).save_pretrained(tmp_path / "x", config)
    card = (tmp_path / "x" / "README.md").read_text()
    assert "| text | transformer | roberta-base (mit) |" in card and "| audio | htsat | random |" in card


def test_own_class_is_built_and_loaded_by_its_import_path(encoders, tmp_path):
    name = f"{__name__}:OwnModel"
    config = describe(encoders, model=name)
    FusionModel.build(name, {}, FeatureSpec.of(config)).save_pretrained(tmp_path / "m", config)
    assert isinstance(FusionModel.from_pretrained(tmp_path / "m"), OwnModel)
    with pytest.raises(UserError, match="is not a FusionModel"):
        FusionModel.build("json:JSONDecoder", {}, FeatureSpec.of(config))


def test_subclass_refuses_the_folder_of_another_model(folder):
    with pytest.raises(UserError, match="fusion model dual_stage is not a Concat"):
        Concat.from_pretrained(folder)


def test_built_model_cannot_be_saved_without_a_config(encoders, tmp_path):
    model = FusionModel.build("concat", {}, FeatureSpec.of(describe(encoders)))
    with pytest.raises(UserError, match="give config="):
        model.save_pretrained(tmp_path / "m")
    assert not hasattr(model, "config")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"format": "emit-fusion/1"}, "format 'emit-fusion/1' where 'emit-fusion/3' is read"),
        ({"surprise": 1}, "no option 'surprise'"),
        ({"encoders": None}, "encoders: null; expected an object"),
        ({"options": {"normaliser": "softmax"}}, "normaliser was renamed: use normalizer"),
        ({"model": "dual_stag"}, "did you mean 'dual_stage'"),
    ],
    ids=str,
)
def test_config_of_another_version_is_one_line(folder, changes, words):
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(content))
    if "format" not in changes:
        seal(folder)
    with pytest.raises(UserError, match=words) as error:
        FusionModel.from_pretrained(folder)
    assert "\n" not in str(error.value)


def test_hub_is_contacted_only_for_a_hub_source(folder, tmp_path, monkeypatch):
    """A real cache as the library of the hub lays it out, offline."""
    import huggingface_hub.constants as constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    cached = tmp_path / "models--some--model"
    (cached / "refs").mkdir(parents=True)
    (cached / "refs" / "main").write_text("a" * 40)
    shutil.copytree(folder, cached / "snapshots" / ("a" * 40))
    model = FusionModel.from_pretrained("hf-hub:some/model")
    assert same_predictions(model, FusionModel.from_pretrained(folder)) and (model.folder / "encoders").is_dir()
    with pytest.raises(UserError, match="download it elsewhere"):
        FusionModel.from_pretrained("hf-hub:some/other")
    with pytest.raises(UserError, match="no fusion model here"):
        FusionModel.from_pretrained("some/model")


def test_pushed_folder_is_private_and_loads(folder, tmp_path, monkeypatch):
    import huggingface_hub

    calls = []

    class Hub:
        def create_repo(self, repo_id, private, exist_ok):
            calls.append((repo_id, private, exist_ok))

        def upload_folder(self, repo_id, folder_path, commit_message):
            shutil.copytree(folder_path, tmp_path / "uploaded")

    monkeypatch.setattr(huggingface_hub, "HfApi", Hub)
    model = FusionModel.from_pretrained(folder)
    model.push_to_hub("some/model")
    assert calls == [("some/model", True, True)]
    assert same_predictions(FusionModel.from_pretrained(tmp_path / "uploaded"), model)
    assert (tmp_path / "uploaded" / "encoders" / "model.safetensors").exists()
    assert "Limits" in (tmp_path / "uploaded" / "README.md").read_text()


def test_names_of_parameters_without_weight_decay_exist(encoders):
    spec = FeatureSpec.of(describe(encoders))
    for name, options in synthetic_features.SMALL.items():
        model = FusionModel.build(name, options, spec)
        assert model.no_weight_decay() <= dict(model.named_parameters()).keys()
