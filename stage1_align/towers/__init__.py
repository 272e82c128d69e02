"""The encoders that can be aligned. A new one needs one file here and one line in its registry."""

from shared.registry import Registry

TOWERS = {
    "vision": Registry("vision tower", {"open_clip": "stage1_align.towers.vision_open_clip:OpenClipVision"}),
    "audio": Registry(
        "audio tower",
        {
            "htsat": "stage1_align.towers.htsat:Htsat",
            "clap": "stage1_align.towers.clap_audio:Clap",
            "wav2vec2": "stage1_align.towers.wav2vec2:Wav2vec2",
            "whisper": "stage1_align.towers.whisper:Whisper",
            "audeering": "stage1_align.towers.audeering:Audeering",
            "mel_cnn": "stage1_align.towers.mel_cnn:MelCnn",
        },
    ),
    "text": Registry(
        "text tower",
        {
            "transformer": "stage1_align.towers.text_transformer:TransformerText",
            "open_clip": "stage1_align.towers.text_open_clip:OpenClipText",
        },
    ),
}
