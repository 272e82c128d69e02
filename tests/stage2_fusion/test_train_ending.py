"""What `emit fuse` proposes next."""

import numpy as np
import pytest

from stage2_fusion.config import FuseConfig
from stage2_fusion.data import features
from stage2_fusion.data.features import ClipLabels
from stage2_fusion.train import _scored_split


@pytest.mark.parametrize(("label", "split"), [(0.5, "test"), (np.nan, "valid")])
def test_the_split_to_score_next_has_labels(monkeypatch, tmp_path, label, split):
    clips = [ClipLabels("a", "valid", np.array([0.1, 0.2]), {}), ClipLabels("b", "test", np.array([np.nan, label]), {})]
    monkeypatch.setattr(features, "read_clips", lambda path: clips)
    assert _scored_split(FuseConfig(data=tmp_path, run=tmp_path / "run")) == split
