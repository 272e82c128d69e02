"""Fusion models by name. Adding one: a file here, a line below."""

from shared.registry import Registry

MODELS = Registry(
    "fusion model",
    {
        "dual_stage": "stage2_fusion.models.dual_stage:DualStage",
        "concat": "stage2_fusion.models.concat:Concat",
    },
)
