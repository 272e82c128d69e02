"""Action units beside the output of a vision tower, from reading to prediction. MediaPipe is replaced by a stand-in."""

import csv
import dataclasses
import sys
import types

import numpy as np
import pytest
import torch
from helpers import stage1_tiny, synthetic_features
from helpers.mediapipe_stand_in import stand_in

from shared import config as configuration
from shared.dataset.clip_dataset import ClipDataset
from shared.errors import UserError
from stage2_fusion import train as trainer
from stage2_fusion.commands import predict as prediction
from stage2_fusion.commands.encode import EncodeConfig, encode
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.action_units import BLENDSHAPES, CHANNELS, ActionUnits, add_action_units
from stage2_fusion.data.batches import PackedSamples, collate
from stage2_fusion.data.damaged_views import damaged_view
from stage2_fusion.data.encoding import load_clip, widths
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.finetune import RawInputs
from stage2_fusion.inference import run_model
from stage2_fusion.models.base import FusionModel
from stage2_fusion.models.model_config import LANDMARKER


def unit_scores(frame: np.ndarray) -> np.ndarray:
    """The scores (52,) that the stand-in gives for a frame; it finds no face in a dark one."""
    return (0.3 * frame.mean() / 255 + np.arange(52) / 100).astype(np.float32)


def expected(frames: np.ndarray) -> np.ndarray:
    rows = [np.append(1, unit_scores(frame)) if frame.mean() > 40 else np.zeros(53) for frame in frames]
    return np.array(rows, np.float32).reshape(-1, 53)


class Net:
    lacking = ""

    def __init__(self, options):
        assert options.output_face_blendshapes is True
        with open(options.base_options.model_asset_path, "rb") as file:
            if file.read() == b"noise":
                raise ValueError("Unable to open\nzip archive.")

    def detect(self, image):
        if image.data.mean() <= 40:
            return types.SimpleNamespace(face_blendshapes=[])
        shapes = [
            types.SimpleNamespace(category_name=name, score=float(score))
            for name, score in zip(BLENDSHAPES, unit_scores(image.data), strict=True)
            if name != self.lacking
        ]
        return types.SimpleNamespace(face_blendshapes=[shapes[::-1]])


@pytest.fixture
def landmarker(monkeypatch, tmp_path):
    stand_in(monkeypatch, "FaceLandmarker", Net)
    path = tmp_path / "given.task"
    path.write_bytes(b"model")
    return path


def test_scores_are_read_by_name_and_are_zero_without_a_face(landmarker, monkeypatch):
    assert len(BLENDSHAPES) == 52 and len(set(CHANNELS)) == 53
    frames = np.stack([np.full((8, 8, 3), gray, np.uint8) for gray in (51, 0, 204)])
    values = ActionUnits(landmarker).read(frames)
    smile = CHANNELS.index("mouthSmileLeft")
    np.testing.assert_allclose(values[:, smile], [0.06 + 0.44, 0, 0.24 + 0.44], atol=1e-6)
    assert values[:, 0].tolist() == [1, 0, 1] and not values[1].any() and values.dtype == np.float32
    assert ActionUnits(landmarker).read(frames[:0]).shape == (0, 53)
    monkeypatch.setattr(Net, "lacking", "jawOpen")
    with pytest.raises(UserError, match="gives no score jawOpen"):
        ActionUnits(landmarker).read(frames)


def test_errors_are_one_line(landmarker, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="no such file; --blendshapes"):
        ActionUnits(tmp_path / "nowhere.task")
    (tmp_path / "noise.task").write_bytes(b"noise")
    with pytest.raises(UserError, match=r"MediaPipe's FaceLandmarker cannot load this file \(Unable to open zip"):
        ActionUnits(tmp_path / "noise.task")
    encoders = stage1_tiny.encoders()
    encoders.vision = None
    with pytest.raises(UserError, match="have none"):
        add_action_units(encoders, landmarker)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(UserError, match="pip install mediapipe"):
        ActionUnits(landmarker)
    with pytest.raises(ValueError, match="leave out precomputed"):
        EncodeConfig(tmp_path, tmp_path, precomputed=tmp_path, blendshapes=landmarker)


def test_units_are_appended_to_the_channels_of_the_tower(landmarker):
    encoders, frames = stage1_tiny.encoders(), stage1_tiny.items()["vision"]
    frames[0][1] = 0  # one frame without a face
    alone, width = encoders.vision.encode_prepared(frames), encoders.vision.width
    add_action_units(encoders, landmarker)
    both = encoders.vision.encode_prepared(frames)
    assert widths(encoders)["vision"] == width + 53 == both.sequence.shape[2]
    torch.testing.assert_close(both.sequence[..., :width], alone.sequence)
    torch.testing.assert_close(both.pooled, alone.pooled)
    for row, mask, shown in zip(both.sequence[..., width:], both.mask, frames, strict=True):
        np.testing.assert_allclose(row[mask], expected(shown), atol=1e-6)
        assert not row[~mask].any()
    rest = types.SimpleNamespace(encode_prepared=lambda items: alone, width=width)
    encoders.vision.tower = torch.nn.Identity()
    encoders.vision.tower.encode_prepared = rest.encode_prepared
    with pytest.raises(UserError, match="one step per frame"):
        encoders.vision.encode_prepared([frames[0][:2], *frames[1:]])


class IdentityModel(torch.nn.Module):
    """In place of a fusion model: returns the batch."""

    dimensions = 6

    def forward(self, batch):
        return batch


def test_units_go_from_encoding_to_prediction(landmarker, clips, corpus, tmp_path):
    stage1_tiny.encoders().save_pretrained(tmp_path / "encoders", {"data": "nothing"})
    made = {"data": clips, "out": tmp_path / "features", "encoders": tmp_path / "encoders", "damaged_views": 2}
    made["mixed_precision"] = "no"
    encode(EncodeConfig(**made, blendshapes=landmarker))
    with pytest.raises(UserError, match=r"made with other action units \w+ \(now None\)"):
        encode(EncodeConfig(**made))

    # They are read from the clip as each view shows it.
    features, prepared = FeatureDataset.open(tmp_path / "features"), ClipDataset.open(clips)
    assert features.info.action_units.names == list(CHANNELS)
    kinds = set()
    for number, views in enumerate(features.by_clip()):
        clip = load_clip(prepared, number, 16000)
        assert views[0].id == clip.id
        for view, sample in views.items():
            shown = damaged_view(clip, view, 16000, 0, None).clip if view else clip
            kinds.add(sample.damage["vision"])
            units = sample.vision.sequence[:, -53:]
            np.testing.assert_allclose(units, expected(shown.frames), atol=1e-3)
    assert len(kinds) > 3

    words = {"--data": tmp_path / "features", "--run": tmp_path / "run", "--model": "late_fusion"}
    words |= {"--options": synthetic_features.SMALL["late_fusion"], "--train.epochs": 1, "--train.batch_size": 8}
    argv = [str(word) for pair in words.items() for word in pair] + ["--train.trackers", "[]"]
    settings = configuration.parse(FuseConfig, argv, prog="emit fuse", example="")
    folder = trainer.train(settings)
    assert (folder / LANDMARKER).read_bytes() == b"model"
    landmarker.unlink()  # the model folder is enough

    model = FusionModel.from_pretrained(folder)
    test = FeatureDataset.open(tmp_path / "features", "test", (0,), max_sequence_steps=model.config.max_sequence_steps)
    known = run_model(model, test.samples, 16).predictions
    chosen = next(i for i, sample in enumerate(test.samples) if sample.vision.steps)
    name = test.samples[chosen].id
    media = next(path for path in (corpus / "clips").glob(f"{name}.*") if path.suffix != ".txt")
    out = tmp_path / "predictions.csv"
    assert prediction.predict(prediction.PredictConfig(clips=[str(media)], model=folder, out=out)) == 1
    with out.open() as file:
        (row,) = csv.DictReader(file)
    np.testing.assert_allclose([float(row[name]) for name in model.config.label_names], known[chosen], atol=2e-3)

    # Towers that train along do not change them.
    landmarker.write_bytes(b"other")
    settings.finetune = {"vision": 0}
    raw = RawInputs(settings, features.info)
    rows = np.arange(12)
    with torch.no_grad():
        live = raw.wrap(IdentityModel()).eval()(raw.batches(PackedSamples(features.samples))(rows))
    stored = collate(features.samples[:12])
    torch.testing.assert_close(live.vision.x, stored.vision.x, atol=3e-3, rtol=3e-3)

    # Units of another file, or none, are refused.
    with pytest.raises(UserError, match="not the file behind the model's action units"):
        prediction.predict(prediction.PredictConfig(clips=[str(media)], model=folder, out=out, blendshapes=landmarker))
    plain = dataclasses.replace(features.info, action_units=None)
    with pytest.raises(UserError, match="action units of no file"):
        model.config.check_features(plain, tmp_path)
    with pytest.raises(UserError, match="trained on those of none"):
        dataclasses.replace(model.config, action_units=None).check_features(features.info, tmp_path)
