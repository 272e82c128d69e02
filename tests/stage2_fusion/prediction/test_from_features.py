"""Predictions of encoded clips: those of the model, for undamaged clips alone."""

import numpy as np
import pytest
from helpers import synthetic_features

from shared.errors import UserError
from stage2_fusion.commands import predict as command
from stage2_fusion.data.batches import collate
from stage2_fusion.data.features import FeatureDataset, write
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.model_config import FusionConfig
from stage2_fusion.prediction.from_features import predict_features
from stage2_fusion.prediction.result import NOTHING


@pytest.fixture
def model(tmp_path):
    """An untrained model of two dimensions from 1 to 7."""
    info = synthetic_features.info(label_ranges={"d0": [1, 7], "d1": [1, 7]})
    config = FusionConfig.from_features(info, model="concat", options={"width": 8}, max_sequence_steps=4)
    FusionModel.build("concat", config.options, FeatureSpec.of(config)).save_pretrained(tmp_path / "model", config)
    return FusionModel.from_pretrained(tmp_path / "model")


def write_data(path, **changes):
    rng = np.random.default_rng(0)
    samples = [synthetic_features.sample(rng, id=f"c{i}", split="test" if i % 2 else "train") for i in range(6)]
    samples.append(synthetic_features.sample(rng, id="empty", split="test", missing=("vision", "audio", "text")))
    samples += [synthetic_features.damaged(rng, sample, "vision", 1) for sample in samples[:6]]
    write(path, samples, synthetic_features.info(**changes))
    return path


def test_values_are_those_of_the_model_on_the_scale_of_the_labels(model, tmp_path):
    data = write_data(tmp_path / "features", label_ranges={"d0": [1, 7], "d1": [1, 7]})
    predictions = predict_features(model, data, "test", batch_size=2)
    values = predictions.by_clip()
    assert list(values) == ["c1", "c3", "c5", "empty"]
    for sample in FeatureDataset.open(data, "test", (0,), 4).samples:
        expected = 1 + 6 * model(collate([sample])).prediction[0].numpy()
        np.testing.assert_allclose(values[sample.id], expected, atol=1e-5)
    assert predictions.failures == [("empty", f"{NOTHING}; predicted without input")]
    window = predictions.windows[0]
    assert window.start == 0 and window.end > 2 and set(window.quality) == {"vision", "audio", "text"}
    assert predictions.bases()["c1"].words is None and predictions.bases()["c1"].frames > 0


def test_labels_of_the_features_do_not_matter_but_their_encoders_do(model, tmp_path):
    other = write_data(tmp_path / "unlabeled", label_names=["x", "y"])
    assert len(predict_features(model, other).by_clip()) == 7
    info = synthetic_features.info()
    info.encoders.digest = "f" * 16
    write(tmp_path / "other", FeatureDataset.open(other).samples, info)
    with pytest.raises(UserError, match="features of encoders ffff"):
        predict_features(model, tmp_path / "other")


def test_options_of_media_have_no_effect_on_features_and_are_refused(tmp_path):
    for options, message in (
        ({"clips": ["a.mp4"]}, "give media or --data, not both"),
        ({"window": 2.0}, "window has no effect"),
        ({"layout_options": {"crops": "own"}}, "layout_options has no effect"),
    ):
        with pytest.raises(ValueError, match=message):
            command.PredictConfig(model=tmp_path, data=tmp_path, **options)
    with pytest.raises(ValueError, match="clips are missing"):
        command.PredictConfig(model=tmp_path)
