"""What stage 1 exports and everyone loads again: three aligned encoders in one folder.

config.json          towers with their preprocessing, widths, rates; digests of what they were trained on
model.safetensors    weights, keys starting with vision. audio. text.
tokenizer/           the sentencepiece model
README.md            the model card
"""

from pathlib import Path

from torch import nn

from shared.errors import UserError
from shared.files import atomic_folder, digest, read_json, write_json, write_text
from stage1_align.towers import TOWERS
from stage1_align.towers.base import Tower
from stage1_align.towers.text import SentencePieceTokenizer

FORMAT = "emit-encoders/1"


class AlignedEncoders(nn.Module):
    """A vision, an audio and a text tower with one shared space.

    >>> encoders = AlignedEncoders.from_pretrained("runs/demo/encoders")
    >>> encoders.text.encode(["that is so funny"]).pooled.shape
    torch.Size([1, 64])
    """

    def __init__(self, vision: Tower, audio: Tower, text: Tower, embed_dim: int):
        super().__init__()
        self.vision, self.audio, self.text = vision, audio, text
        self.embed_dim = embed_dim
        self.config: dict = {}
        self.digest = ""

    @classmethod
    def build(cls, towers: dict[str, dict], embed_dim: int) -> "AlignedEncoders":
        """From {"vision": {"name": ..., "options": {...}}, "audio": ..., "text": ...}."""
        built = {
            modality: TOWERS[modality].get(spec["name"]).from_options(spec.get("options", {}), embed_dim)
            for modality, spec in towers.items()
        }
        encoders = cls(**built, embed_dim=embed_dim)
        encoders.names = {modality: spec["name"] for modality, spec in towers.items()}
        return encoders

    @classmethod
    def from_pretrained(cls, folder: str | Path) -> "AlignedEncoders":
        """Load an exported folder: frozen, in evaluation mode. Builds nothing that needs a hub."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        folder = Path(folder)
        config = read_json(folder / "config.json", "exported encoders", "make them with `emit export RUN --out DIR`")
        if config.get("format") != FORMAT:
            raise UserError(
                f"{folder}: format {config.get('format')!r}, expected {FORMAT!r}; export the encoders again"
            )
        encoders = cls.build(config["towers"], config["embed_dim"])
        encoders.text.tokenizer = SentencePieceTokenizer.load(folder / "tokenizer")
        weights = folder / "model.safetensors"
        if not weights.is_file():
            raise UserError(f"{weights}: missing; export the encoders again")
        try:
            encoders.load_state_dict(load_file(weights))
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{weights}: damaged ({reason}); export the encoders again") from None
        encoders.config = config
        encoders.digest = config["digest"]
        return encoders.eval().requires_grad_(False)

    def save_pretrained(self, folder: str | Path, training: dict | None = None) -> None:
        """Write the folder, whole or not at all. `training` (data, metrics, command) goes into config and card."""
        from safetensors.torch import save_file

        with atomic_folder(Path(folder)) as partial:
            weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
            save_file(weights, partial / "model.safetensors")
            self.text.tokenizer.save(partial / "tokenizer")
            towers = {
                modality: {
                    "name": self.names[modality],
                    "options": getattr(self, modality).config(),
                    "width": getattr(self, modality).width,
                    "rate": getattr(getattr(self, modality), "rate", None),
                }
                for modality in TOWERS
            }
            config = {"format": FORMAT, "embed_dim": self.embed_dim, "towers": towers, "training": training or {}}
            files = [digest(partial / "model.safetensors"), digest(partial / "tokenizer" / SentencePieceTokenizer.FILE)]
            config["digest"] = digest([config["towers"], files])
            write_json(partial / "config.json", config)
            write_text(partial / "README.md", _model_card(config))


def _model_card(config: dict) -> str:
    training = config["training"]
    towers = "\n".join(
        f"| {modality} | {spec['name']} | {spec['width']} | {_rate(spec['rate'])} |"
        for modality, spec in config["towers"].items()
    )
    metrics = "\n".join(f"| {name} | {value:.3f} |" for name, value in training.get("metrics", {}).items())
    return f"""# Aligned encoders

Vision, audio and text encoders in one space of {config["embed_dim"]} dimensions, trained with symmetric InfoNCE
(vision-text and audio-text). Digest `{config["digest"]}`.

| modality | tower | sequence width | steps a second |
|---|---|---|---|
{towers}

Trained on: {training.get("data", "not recorded")}

Command: `{training.get("command", "not recorded")}`

| validation retrieval | recall |
|---|---|
{metrics}

```python
from stage1_align.encoders import AlignedEncoders

encoders = AlignedEncoders.from_pretrained("DIR")
encoded = encoders.text.encode(["that is so funny"])  # pooled (1, D), sequence (1, T, C), mask (1, T)
```
"""


def _rate(rate: float | None) -> str:
    return f"{rate:.2f}" if rate else "one a frame or token"
