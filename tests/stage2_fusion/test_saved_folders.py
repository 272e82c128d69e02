"""Fusion models and datasets that somebody else made, or that changed: one line each, and no other numbers."""

import json
import shutil
import sys

import numpy as np
import pytest
from helpers import mutations, synthetic_features
from helpers.saved_folders import edit

from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.saved.checksum import FEATURES, seal, write_description
from stage2_fusion import FeatureDataset, FusionModel
from stage2_fusion.data.batches import collate
from stage2_fusion.data.feature_info import DataInfo
from stage2_fusion.models.base import FeatureSpec
from stage2_fusion.models.model_config import FusionConfig
from stage2_fusion.prediction.recipes import prediction_recipe


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    info = synthetic_features.info(data=DataInfo("nowhere", "d" * 16, Recipe().to_json()))
    options = synthetic_features.SMALL["dual_stage"]
    config = FusionConfig.from_features(info, model="dual_stage", options=options, max_sequence_steps=128)
    model = FusionModel.build("dual_stage", options, FeatureSpec.of(config))
    folder = tmp_path_factory.mktemp("model") / "model"
    model.save_pretrained(folder, config, {"epoch": 1})
    assert predict(folder)  # imports what child processes need
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


def predict(folder) -> list[list[float]]:
    """What a person gets of a model folder: the settings its clips are prepared with, and predictions."""
    model = FusionModel.from_pretrained(folder)
    prediction_recipe(model.config, folder, {})
    return model(collate(synthetic_features.samples({"test": 3}, views=0))).prediction.tolist()


EDITS = [
    (("max_sequence_steps",), 0, "max_sequence_steps is 0"),
    (("prepare", "frame_rate"), 1e-9, "frame_rate is 1e-09"),
    (("prepare", "max_side"), 1, "max_side is 1"),
    (("prepare", "face_every"), 10**9, "face_every is 1000000000"),
    (("prepare", "face_every"), 0.5, "face_every is 0.5"),
    (("prepare", "frame_size"), 10**6, "frame_size is 1000000"),
    (("prepare", "max_seconds"), 1e-9, "max_seconds is 1e-09"),
    (("prepare", "surprise"), 1, "surprise"),
    (("prepare", "detector"), "yunet:/etc/passwd", "give --detector with that file again"),
    (("prepare", "detector"), "subprocess:Popen:/bin/true", "give --detector with that file again"),
    (("prepare", "transcribe"), "/elsewhere", "give --transcribe with that file again"),
    (("precision",), "bf32", "did you mean 'fp32'"),
    (("label_names",), ["d0", "d0"], "label_names"),
    (("label_names",), ["d0", "d1", "d2"], "where the configuration gives F32 [3"),
    (("label_ranges",), {"d0": [1, 1]}, "label_ranges of d0"),
    (("widths", "vision"), 10**9, "widths.vision is 1000000000"),
    (("widths", "embed"), 2**20 - 1, "where the configuration gives"),
    (("options", "width"), 10**9, "width is 1000000000"),
    (("options", "width"), 2**14, "asks for"),
    (("options", "tcn_layers"), 10**6, "tcn_layers is 1000000"),
    (("options", "dropout"), 5, "dropout is 5"),
    (("model",), "antigravity:Model", "EMIT_IMPORT=antigravity"),
    (("model",), None, "model is null"),
    (("encoders", "path"), 3, "encoders: path is 3"),
]


@pytest.mark.parametrize(("keys", "value", "words"), EDITS, ids=str)
def test_edited_model_is_refused_and_when_sealed_checked(saved, folder, keys, value, words):
    edit(folder, *keys, value=value, sealed=False)
    with pytest.raises(UserError, match=r"config\.json changed since the folder was saved"):
        predict(folder)
    seal(folder)
    outcome = mutations.in_child(lambda: predict(folder), memory=2**30)
    assert words in outcome.error and "\n" not in outcome.error, outcome
    assert "antigravity" not in sys.modules


def test_missing_keys_are_named(folder):
    content = json.loads((folder / "config.json").read_text())
    for name in ("options", "label_names", "widths", "quality", "encoders", "precision", "model", "max_sequence_steps"):
        (folder / "config.json").write_text(json.dumps({k: v for k, v in content.items() if k != name}))
        seal(folder)
        with pytest.raises(UserError, match=f"{name} is missing"):
            predict(folder)


@pytest.fixture
def features(tmp_path):
    return synthetic_features.write_features(tmp_path / "features", {"train": 4, "valid": 3})


def opens(path) -> list[float]:
    return [float(sample.audio.sequence.astype(np.float32).sum()) for sample in FeatureDataset.open(path).samples]


def test_files_that_datasets_reads_are_not_believed(features):
    """state.json and dataset_info.json name files and types of media to open."""
    expected = opens(features)
    (features / "data" / "state.json").write_text(json.dumps({"_data_files": [{"filename": "/etc/passwd"}]}))
    (features / "data" / "dataset_info.json").write_text(json.dumps({"features": {"id": {"_type": "Image"}}}))
    (features / "data" / "cache-1.arrow").write_bytes(b"of a library")
    assert opens(features) == expected


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_changed_rows_are_refused(features, place):
    file = next((features / "data").glob("data-*.arrow"))
    content = bytearray(file.read_bytes())
    content[int(place * len(content))] ^= 0xFF
    file.write_bytes(content)
    with pytest.raises(UserError, match="arrow changed since"):
        FeatureDataset.open(features)
    seal(features)
    outcome = mutations.in_child(lambda: opens(features))  # a sealed change may be other numbers, but never a crash
    assert not outcome.crash, outcome


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("widths", "audio"), 7, "is damaged"),
        (("widths", "audio"), 10**9, "widths.audio is 1000000000"),
        (("widths", "embed"), 9, "is damaged"),
        (("label_names",), ["a"], "is damaged (2 labels)"),
        (("group_names",), ["nobody"], "no column group_nobody"),
        (("quality", "text"), [], "is damaged"),
        (("views",), "x", "views is 'x'"),
        (("data",), None, "data: null"),
        (("surprise",), 1, "no option 'surprise'"),
        (("views",), -1, "views is -1"),
        (("seed",), -1, "seed is -1"),
        (("seed",), 2**63, "seed is 9223372036854775808"),
        (("precision",), "fp8", "precision is 'fp8'"),
        (("views",), None, "views is null"),
        (("digest",), None, "digest is None"),
        (("digest",), -1, "digest is -1"),
        (("digest",), "", "digest is ''"),
        (("encoders", "digest"), "", "digest of its encoders"),
        (("label_names",), ["d0", "=1+1"], "'=1+1' begins like a spreadsheet formula"),
        (("group_names",), ["a\nb"], "contains the control character '\\n'"),
    ],
    ids=str,
)
def test_edited_features_are_one_line(features, keys, value, words):
    edit(features, *keys, value=value, sealed=False)
    content = json.loads((features / "features.json").read_text())
    write_description(features, FEATURES, content)  # as `emit seal` does, but with this digest
    with pytest.raises(UserError) as error:
        FeatureDataset.open(features)
    assert words in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["views", "seed", "precision", "digest"])
def test_features_without_what_decides_them_are_refused(features, name):
    content = json.loads((features / "features.json").read_text())
    del content[name]
    write_description(features, FEATURES, content)
    with pytest.raises(UserError, match=rf"{name} is (missing|None)"):
        FeatureDataset.open(features)
    if name == "digest":
        with pytest.raises(UserError, match="digest is None"):
            seal(features)


@pytest.mark.parametrize("name", ["encoders", "encoders/README.md", "encoders/tokenizer", "face_landmarker.task"])
def test_link_out_of_a_model_folder_is_refused(folder, tmp_path, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (tmp_path / "private").mkdir()
    (folder / name).symlink_to(tmp_path / "private")
    with pytest.raises(UserError, match=f"{name} leads out of the folder, to {tmp_path}/private"):
        predict(folder)


@pytest.mark.parametrize(
    ("keys", "value", "words"),
    [
        (("prepare", "frame_rate"), 1e-9, "frame_rate is 1e-09"),
        (("prepare", "frame_size"), 48, "frames are not of 48"),
        (("prepare", "sample_rates"), [8000], "no column waveform_8000"),
        (("label_names",), ["a", "a"], "label_names"),
        (("quality",), {"vision": []}, "quality is of vision"),
        (("prepare",), None, "recipe: null"),
        (("label_names",), ["\ud800"], "control character '\\ud800'"),
    ],
    ids=str,
)
def test_edited_clips_are_one_line(clips, tmp_path, keys, value, words):
    folder = shutil.copytree(clips, tmp_path / "clips")
    edit(folder, *keys, value=value, sealed=False)
    with pytest.raises(UserError, match=r"dataset\.json changed since"):
        ClipDataset.open(folder)
    seal(folder)
    with pytest.raises(UserError) as error:
        ClipDataset.open(folder)[0]
    assert words in str(error.value) and "\n" not in str(error.value)
