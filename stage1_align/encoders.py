"""What stage 1 exports and everyone loads again: aligned encoders in one folder.

config.json          towers with their preprocessing, widths, rates, licenses; digests of what they were trained on
model.safetensors    weights, keys starting with vision. audio. text.
tokenizer/           the text tower's tokenizer
README.md            the model card
"""

import tempfile
from collections.abc import Iterable
from pathlib import Path

from torch import nn

from shared.errors import UserError
from shared.files import atomic_folder, digest, read_json, write_json, write_text
from shared.registry import nearest
from shared.text import one_line
from stage1_align.export.card import model_card
from stage1_align.towers import TOWERS
from stage1_align.towers.base import Tower
from stage1_align.towers.tokenizers import TOKENIZERS

FORMAT = "emit-encoders/1"
HUB = "hf-hub:"


class AlignedEncoders(nn.Module):
    """A vision, an audio and a text tower with one shared space. A tower that was not loaded, or not exported, is None.

    >>> encoders = AlignedEncoders.from_pretrained("runs/demo/encoders")
    >>> encoders.text.encode(["that is so funny"]).pooled.shape
    torch.Size([1, 64])
    """

    def __init__(
        self, vision: Tower | None = None, audio: Tower | None = None, text: Tower | None = None, *, embed_dim: int
    ):
        super().__init__()
        self.vision, self.audio, self.text = vision, audio, text
        self.embed_dim = embed_dim
        self.names: dict[str, str] = {}
        self.config: dict = {}
        self.digest = ""

    @classmethod
    def build(cls, towers: dict[str, dict], embed_dim: int) -> "AlignedEncoders":
        """From {"vision": {"name": ..., "options": {...}}, "audio": ..., "text": ...}, or some of them."""
        built = {
            modality: TOWERS[modality].get(spec["name"]).from_options(spec.get("options", {}), embed_dim)
            for modality, spec in towers.items()
        }
        encoders = cls(**built, embed_dim=embed_dim)
        encoders.names = {modality: spec["name"] for modality, spec in towers.items()}
        return encoders

    def towers(self) -> dict[str, Tower]:
        """Those that are here, by modality: vision, audio, text."""
        return {modality: getattr(self, modality) for modality in TOWERS if getattr(self, modality) is not None}

    def tower(self, modality: str) -> Tower:
        """One of them; UserError says which there are when it is missing."""
        here = self.towers()
        if modality not in here:
            raise UserError(f"these encoders have no {modality} tower: {nearest(modality, here)}")
        return here[modality]

    @classmethod
    def from_pretrained(
        cls, source: str | Path, only: Iterable[str] | None = None, *, frozen: bool = True
    ) -> "AlignedEncoders":
        """Load an exported folder, or "hf-hub:OWNER/NAME" from Hugging Face's hub: in evaluation mode and, unless told
        otherwise, frozen.

        `only` names the modalities wanted, as in ("audio",): the others are neither built nor read. A hub is asked only
        where the source says so. UserError for a folder that is missing, damaged or lacks a tower.
        """
        folder = _download(str(source).removeprefix(HUB)) if str(source).startswith(HUB) else Path(source)
        config = read_json(folder / "config.json", "exported encoders", "make them with `emit export RUN --out DIR`")
        if config.get("format") != FORMAT:
            raise UserError(
                f"{folder}: format {config.get('format')!r}, expected {FORMAT!r}; export the encoders again"
            )
        wanted = list(config["towers"]) if only is None else list(only)
        for modality in wanted:
            if modality not in config["towers"]:
                raise UserError(f"{folder}: has no {modality} tower: {nearest(modality, config['towers'])}")
        encoders = cls.build({modality: config["towers"][modality] for modality in wanted}, config["embed_dim"])
        encoders._read_weights(folder / "model.safetensors")
        if encoders.text is not None:
            kind = config["towers"]["text"].get("tokenizer", "sentencepiece")
            encoders.text.tokenizer = TOKENIZERS.get(kind).load(folder / "tokenizer")
        encoders.config = config
        encoders.digest = config["digest"]
        return encoders.eval().requires_grad_(False) if frozen else encoders.eval()

    def _read_weights(self, path: Path) -> None:
        """Those of the towers that are here; the others stay on disk."""
        from safetensors import SafetensorError, safe_open

        if not path.is_file():
            raise UserError(f"{path}: missing; export the encoders again")
        try:
            with safe_open(path, "pt") as file:
                for modality, tower in self.towers().items():
                    names = [name for name in file.keys() if name.startswith(f"{modality}.")]  # noqa: SIM118
                    tower.load_state_dict({name.removeprefix(f"{modality}."): file.get_tensor(name) for name in names})
        except (OSError, SafetensorError, RuntimeError) as error:
            reason = one_line(error, 200)
            raise UserError(f"{path}: damaged ({reason}); export the encoders again") from None

    def save_pretrained(self, folder: str | Path, training: dict | None = None, weights: dict | None = None) -> None:
        """Write the folder, whole or not at all. `training` (data, metrics, command) goes into config and card; None
        keeps what the encoders were loaded with. weights: a state dictionary gathered from a model that is spread over
        processes; None takes the encoders' own."""
        from safetensors.torch import save_file

        with atomic_folder(Path(folder)) as partial:
            weights = self.state_dict() if weights is None else weights
            weights = {name: value.detach().cpu().contiguous() for name, value in weights.items()}
            save_file(weights, partial / "model.safetensors")
            towers = {modality: self._describe(modality, tower) for modality, tower in self.towers().items()}
            files = [partial / "model.safetensors"]
            if self.text is not None:
                self.text.tokenizer.save(partial / "tokenizer")
                towers["text"]["tokenizer"] = self.text.tokenizer.kind
                files += sorted((partial / "tokenizer").iterdir())
            config = {
                "format": FORMAT,
                "embed_dim": self.embed_dim,
                "towers": towers,
                "training": self.config.get("training", {}) if training is None else training,
            }
            config["digest"] = digest([towers, [digest(file) for file in files]])
            write_json(partial / "config.json", config)
            write_text(partial / "README.md", model_card(config))

    def _describe(self, modality: str, tower: Tower) -> dict:
        return {
            "name": self.names[modality],
            "options": tower.config(),
            "width": tower.width,
            "rate": getattr(tower, "rate", None),
        }

    def push_to_hub(self, repo_id: str, private: bool = True) -> None:
        """Put the folder, card included, into a model repository ("OWNER/NAME") of Hugging Face's hub, which is made
        when it is not there; private unless said otherwise: faces and voices trained these encoders."""
        from huggingface_hub import HfApi

        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "encoders"
            self.save_pretrained(folder)
            api = HfApi()
            try:
                api.create_repo(repo_id, private=private, exist_ok=True)
                api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="Aligned encoders")
            except (OSError, ValueError) as error:  # every error of the hub is one of these
                reason = one_line(error, 200)
                raise UserError(f"{repo_id}: not uploaded ({reason}); check the name, and `hf auth login`") from None


def _download(repo_id: str) -> Path:
    """The repository's files, in the hub's own cache; what is there already is not fetched again."""
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repo_id, allow_patterns=["*.json", "*.safetensors", "*.md", "tokenizer/*"]))
    except (OSError, ValueError) as error:  # every error of the hub is one of these
        reason = one_line(error, 200)
        raise UserError(
            f"{HUB}{repo_id}: cannot be had from the hub ({reason}); download it elsewhere and give the folder"
        ) from None
