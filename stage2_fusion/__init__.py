"""Stage 2: fusion models on the features of frozen encoders. Public names are imported on first use."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shared.media.inputs import ClipArrays
    from stage2_fusion.data.features import FeatureDataset
    from stage2_fusion.models.base import FusionModel
    from stage2_fusion.prediction.result import Prediction
    from stage2_fusion.predictor import Predictor

__all__ = ["ClipArrays", "FeatureDataset", "FusionModel", "Prediction", "Predictor"]

_MODULES = {
    "ClipArrays": "shared.media.inputs",
    "FeatureDataset": "stage2_fusion.data.features",
    "FusionModel": "stage2_fusion.models.base",
    "Prediction": "stage2_fusion.prediction.result",
    "Predictor": "stage2_fusion.predictor",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
