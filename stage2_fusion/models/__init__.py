"""Fusion models by name. To add one: a file in this folder and a line below, or your own "package.module:Class"."""

from shared.registry import Registry

MODELS = Registry(
    "fusion model",
    {
        "dual_stage": "stage2_fusion.models.dual_stage:DualStage",
        "concat": "stage2_fusion.models.concat:Concat",
        "concat_lstm": "stage2_fusion.models.concat_lstm:ConcatLSTM",
        "concat_vad": "stage2_fusion.models.concat_vad:ConcatVAD",
        "late_fusion": "stage2_fusion.models.late_fusion:LateFusion",
        "lstm_vad": "stage2_fusion.models.lstm_vad:LSTMVAD",
        "quality_gated": "stage2_fusion.models.quality_gated:QualityGated",
        "staged_concat": "stage2_fusion.models.staged_concat:StagedConcat",
        "statistics_mlp": "stage2_fusion.models.statistics_mlp:StatisticsMLP",
        "text_anchored": "stage2_fusion.models.text_anchored:TextAnchored",
    },
)
