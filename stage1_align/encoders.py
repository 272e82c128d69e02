"""Aligned encoders: what stage 1 exports, in one folder that loads anywhere.

config.json          towers with their preprocessing, widths, rates and licenses; digests of the training data
model.safetensors    weights, keys starting with vision. audio. text.
training_clips.safetensors
                     fingerprints of the training clips (shared/dataset/training_clips.py)
tokenizer/           the text tower's tokenizer
README.md            the model card
"""

import os
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from shared import hub
from shared.dataset.training_clips import TrainingClips
from shared.errors import UserError
from shared.files import atomic_folder, saved_folder, write_text
from shared.media.arrays import reject
from shared.registry import nearest
from shared.saved.checksum import ENCODERS, encoder_digest, file_digests, write_description
from shared.training.weights import separate_tensors
from stage1_align.export.card import model_card
from stage1_align.saved_encoders import SavedEncoders, find_tower, load_towers
from stage1_align.towers import TOWERS
from stage1_align.towers.audio_tower import AudioTower
from stage1_align.towers.base import Tower
from stage1_align.towers.inputs import is_path
from stage1_align.towers.text_tower import TextTower
from stage1_align.towers.vision_tower import VisionTower

HUB_FILES = ["*.json", "*.safetensors", "*.md", "tokenizer/*"]


class RawClip(NamedTuple):
    """One clip; None for an absent modality."""

    frames: Any = None
    """A clip that `encoders.vision.encode` accepts."""
    waveform: Any = None
    """A sound that `encoders.audio.encode` accepts."""
    rate: float | None = None
    """Sample rate of the waveform in Hz, if it is an array."""
    text: str | None = None
    """The transcript."""


class AlignedEncoders(nn.Module):
    """A vision, an audio and a text tower that share an embedding space. A tower that was not exported or loaded is
    None.

    >>> encoders = AlignedEncoders.from_pretrained("runs/demo/encoders")
    >>> encoders.text.encode("that is so funny").pooled.shape
    torch.Size([1, 64])
    >>> encoders.audio.encode(waveform, rate=44100)  # and encoders.vision.encode("talk.mp4"); see their help
    >>> encoders.similarity("talk.mp4", ["much joy", "no emotion"])["mean"]
    tensor([0.31, 0.08])
    """

    def __init__(
        self,
        vision: VisionTower | None = None,
        audio: AudioTower | None = None,
        text: TextTower | None = None,
        *,
        embed_dim: int,
    ):
        super().__init__()
        self.vision, self.audio, self.text = vision, audio, text
        self.embed_dim = embed_dim
        self.names: dict[str, str] = {}
        """The registered name of each tower."""
        self.config: dict[str, Any] = {}
        """The config.json that these encoders were loaded with."""
        self.digest = ""
        self.training_clips: TrainingClips | None = None
        """The clips that they were trained on; None if not recorded."""

    @classmethod
    def build(cls, towers: dict[str, dict], embed_dim: int) -> "AlignedEncoders":
        """New encoders from {"vision": {"name": ..., "options": {...}}, "audio": ..., "text": ...}, or a part of this.

        A name is one of `stage1_align.towers.TOWERS` or a `package.module:Class` of your own. UserError for an unknown
        name or option."""
        built: dict[str, Any] = {}
        for modality, spec in towers.items():
            tower_class = find_tower(modality, spec["name"])
            built[modality] = tower_class.from_options(spec.get("options", {}), embed_dim)
        encoders = cls(**built, embed_dim=embed_dim)
        encoders.names = {modality: spec["name"] for modality, spec in towers.items()}
        encoders.training_clips = TrainingClips()
        return encoders

    def towers(self) -> dict[str, Tower]:
        """The towers of these encoders by modality: vision, audio, text."""
        return {modality: getattr(self, modality) for modality in TOWERS if getattr(self, modality) is not None}

    def tower(self, modality: str) -> Tower:
        """The tower of a modality; UserError names the existing towers if it is missing."""
        towers = self.towers()
        if modality not in towers:
            raise UserError(f"these encoders have no {modality} tower: {nearest(modality, towers)}")
        return towers[modality]

    @torch.no_grad()
    def similarity(self, clip: Any, prompts: str | list[str]) -> dict[str, Tensor]:
        """Cosine similarity of one clip to texts, for zero-shot classification.

        clip: a path of a video, audio or image file, or a RawClip, or the plain tuple (frames, waveform, rate, text).
        prompts: P texts, such as ["much joy", "no emotion"].

        Returns float32 (P,) for each modality that both the clip and the encoders have, and their "mean":
        {"vision": (P,), "audio": (P,), "mean": (P,)} for a video file. UserError if the clip has no such modality, a
        prompt has no known character, or the text tower is missing.
        """
        if not isinstance(prompts, Iterable) or isinstance(prompts, bytes):
            raise reject("similarity", prompts, "prompts are a text or a list of texts")
        prompts = [prompts] if isinstance(prompts, str) else list(prompts)
        texts: TextTower = self.tower("text")  # type: ignore[assignment]
        targets = texts.encode(prompts)
        for prompt, present in zip(prompts, targets.mask.any(1).tolist(), strict=True):
            if not present:
                raise UserError(f"similarity: the prompt {prompt!r} has no character that the tokenizer knows")
        similarities = {
            modality: (targets.pooled @ pooled.to(targets.pooled.device))  # (P,)
            for modality, pooled in self._embed_clip(_raw_clip(clip)).items()
        }
        if not similarities:
            raise UserError(f"similarity: the clip has none of the modalities {', '.join(self.towers())}")
        return similarities | {"mean": torch.stack(list(similarities.values())).mean(0)}

    def _embed_clip(self, clip: RawClip) -> dict[str, Tensor]:
        """The pooled embedding (D,) of each modality that both the clip and the encoders have."""
        encoded = {}
        if self.vision is not None and clip.frames is not None:
            encoded["vision"] = self.vision.encode(clip.frames)
        if self.audio is not None and clip.waveform is not None:
            encoded["audio"] = self.audio.encode(clip.waveform, clip.rate)
        if self.text is not None and clip.text is not None:
            encoded["text"] = self.text.encode(clip.text)
        for modality, value in encoded.items():
            if len(value.pooled) != 1:
                raise UserError(f"similarity: got {len(value.pooled)} clips for {modality}; give one")
        return {modality: value.pooled[0] for modality, value in encoded.items() if value.mask.any()}

    @classmethod
    def from_pretrained(
        cls, source: str | Path, only: Iterable[str] | None = None, *, frozen: bool = True
    ) -> "AlignedEncoders":
        """Load an exported folder, or "hf-hub:OWNER/NAME" from the Hugging Face hub, in evaluation mode and, unless
        `frozen` is False, without gradients.

        `only` names the modalities to load, as in ("audio",); the others are neither built nor read. The hub is used
        only for a source that starts with hf-hub:. UserError for a folder that is missing, damaged or lacks a tower.
        """
        folder = hub.resolve(source, HUB_FILES)
        saved = SavedEncoders.read(folder)
        if not (only is None or isinstance(only, Iterable)):
            raise UserError(f"only is {only!r}; name modalities, as in only=('audio',)")
        modalities = list(saved.towers) if only is None else [only] if isinstance(only, str) else list(only)
        for modality in modalities:
            if modality not in saved.towers:
                raise UserError(f"{folder}: has no {modality} tower: {nearest(str(modality), saved.towers)}")
        towers: dict[str, Any] = load_towers(folder, saved, modalities)
        encoders = cls(**towers, embed_dim=saved.embed_dim).eval()
        encoders.names = {modality: saved.towers[modality].name for modality in modalities}
        encoders.config = saved.to_json()
        encoders.digest = saved.digest
        encoders.training_clips = TrainingClips.read(Path(folder))
        return encoders.requires_grad_(False) if frozen else encoders

    def save_pretrained(
        self,
        folder: str | Path,
        training: dict | None = None,
        weights: dict[str, Tensor] | None = None,
        training_clips: TrainingClips | None = None,
    ) -> None:
        """Write the folder, completely or not at all. It replaces saved encoders; UserError for any other folder.

        training: the record of data, metrics and command for config and card; None keeps the record that these encoders
        were loaded with. weights: the gathered state dictionary of a sharded model; None uses the encoders' own.
        training_clips: the clips that they were trained on; None uses `self.training_clips`."""
        from safetensors.torch import save_file

        with atomic_folder(saved_folder(folder)) as partial:
            weights = separate_tensors(self.state_dict() if weights is None else weights)
            save_file(weights, partial / "model.safetensors")
            towers = {modality: self._describe(modality, tower) for modality, tower in self.towers().items()}
            if self.text is not None:
                self.text.loaded_tokenizer().save(partial / "tokenizer")
                towers["text"]["tokenizer"] = self.text.loaded_tokenizer().kind
            config = {
                "format": ENCODERS.format,
                "embed_dim": self.embed_dim,
                "towers": towers,
                "training": self.config.get("training", {}) if training is None else training,
                "digest": encoder_digest(towers, file_digests(partial, ENCODERS)),
            }
            if (clips := training_clips or self.training_clips) is not None:
                clips.write(partial)
            write_text(partial / "README.md", model_card(write_description(partial, ENCODERS, config)))

    def _describe(self, modality: str, tower: Tower) -> dict[str, Any]:
        return {
            "name": self.names[modality],
            "options": tower.config(),
            "width": tower.width,
            "rate": getattr(tower, "rate", None),
        }

    def push_to_hub(self, repo_id: str, private: bool = True) -> None:
        """Upload the folder, including the card, to the model repository "OWNER/NAME" on the Hugging Face hub. It is
        created if it does not exist, and private by default, because these encoders were trained on faces and voices.
        UserError if the hub refuses."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "encoders"
            self.save_pretrained(folder)
            hub.upload(folder, repo_id, private, "Aligned encoders")


def _raw_clip(clip: Any) -> RawClip:
    if is_path(clip):
        return RawClip(os.fspath(clip), os.fspath(clip))
    if isinstance(clip, tuple) and len(clip) <= len(RawClip._fields):
        return RawClip(*clip)
    raise reject("similarity", clip, "a clip is a path or the tuple (frames, waveform, rate, text)")
