"""How clips are prepared for a model, before it is loaded."""

import pytest
from helpers import synthetic_features

from shared.dataset.recipe import Recipe
from stage2_fusion.data.feature_info import DataInfo, EncoderInfo
from stage2_fusion.models.model_config import FusionConfig
from stage2_fusion.prediction.recipes import expected_recipe


def config(rates, encoders):
    stored = Recipe(sample_rates=rates, face_every=2).to_json()
    features = synthetic_features.info(
        data=DataInfo("nowhere", "d" * 16, stored), encoders=EncoderInfo("nowhere", "e" * 16, encoders)
    )
    return FusionConfig.from_features(features, model="concat", options={}, max_sequence_steps=8)


@pytest.mark.parametrize(
    ("rates", "encoders", "expected"),
    [
        ([16000, 48000], {"towers": {"audio": {"options": {"sample_rate": 48000}}}}, 48000),
        ([16000, 48000], {"towers": {"audio": {"options": {"sample_rate": 8000}}}}, 16000),
        ([16000], {"towers": {"vision": {}}}, 16000),
        ([48000], {"towers": [1]}, 48000),
        ([48000], {"towers": {"audio": {"options": {"sample_rate": [48000]}}}}, 48000),
    ],
)
def test_sample_rate_is_that_of_the_audio_encoder_if_clips_have_it(rates, encoders, expected):
    changes = {"max_seconds": 5.0, "detector": None, "transcribe": None}
    recipe = expected_recipe(config(rates, encoders), "nowhere", changes)
    assert recipe == Recipe(sample_rates=[expected], face_every=2, max_seconds=5.0)
