"""Load the towers of exported encoders: a folder is self-contained, and its models are limited by its weights' size."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from shared.errors import UserError
from shared.files import read_object
from shared.saved.building import bounded
from shared.saved.checksum import ENCODERS, encoder_digest, read_description
from shared.saved.typed import read_typed
from shared.saved.weights import WeightFile
from stage1_align.towers import TOWERS
from stage1_align.towers.audio_tower import AudioTower
from stage1_align.towers.base import Encoded, Tower
from stage1_align.towers.text_tower import TextTower
from stage1_align.towers.tokenizers import TOKENIZERS, Tokenizer
from stage1_align.towers.vision_tower import VisionTower

BASES = {"vision": VisionTower, "audio": AudioTower, "text": TextTower}
AGAIN = "export the encoders again"
MAX_RATE = 1000.0
"""Most steps per second of an audio tower; memory grows with them."""
TRIAL_TEXT = "that is so funny"


@dataclass
class SavedTower:
    """A tower in the config.json of exported encoders."""

    name: str
    options: dict[str, Any]
    width: int
    rate: float | None = None
    tokenizer: str | None = None
    """Kind of the tokenizer of a text tower."""


@dataclass
class SavedEncoders:
    """The config.json of exported encoders."""

    format: str
    embed_dim: int
    towers: dict[str, SavedTower]
    training: dict[str, Any]
    digest: str
    files: dict[str, str]
    checksum: str

    def __post_init__(self) -> None:
        if not self.towers or not self.towers.keys() <= BASES.keys():
            raise UserError(f"towers are {', '.join(self.towers) or 'none'}: expected some of {', '.join(BASES)}")

    @classmethod
    def read(cls, folder: Path) -> "SavedEncoders":
        """UserError if the folder is missing, damaged or changed, or its config.json makes no sense."""
        inner = encoders_within(folder)
        if inner is not None and not holds_encoders(Path(folder)):
            raise UserError(f"{folder}: no exported encoders here; give {inner}")
        content = read_description(folder, ENCODERS, AGAIN)
        saved = read_typed(cls, content, f"{folder}/config.json")
        if saved.digest != encoder_digest(content["towers"], saved.files):
            raise UserError(f"{folder}/config.json: digest {saved.digest:.20} does not match its towers; {AGAIN}")
        return saved

    def to_json(self) -> dict[str, Any]:
        """The content of the config.json, without the fields about the folder itself."""
        content = dataclasses.asdict(self)
        del content["files"], content["checksum"]
        for tower in content["towers"].values():
            if tower["tokenizer"] is None:
                del tower["tokenizer"]
        return content


def encoders_within(folder: str | Path) -> Path | None:
    """The encoders in the folder of a fusion model or of a stage-2 run's model; None if there are none."""
    places = (Path(folder) / "encoders", Path(folder) / "model" / "encoders")
    return next((place for place in places if (place / "config.json").is_file()), None)


def holds_encoders(folder: Path) -> bool:
    """Whether its config.json describes exported encoders."""
    path = folder / "config.json"
    return path.is_file() and str(read_object(path, ENCODERS.what, AGAIN).get("format")).startswith("emit-encoders/")


def find_tower(modality: str, name: str, saved_in: Path | None = None) -> type[Tower]:
    """The class of a registered or imported tower. UserError unless it is a tower of this modality. saved_in: the
    folder that names it; see `Registry.get`."""
    tower, base = TOWERS[modality].get(name, saved_in), BASES[modality]
    if not (isinstance(tower, type) and issubclass(tower, base)):
        raise UserError(f"{name}: not a tower for {modality}; it must be a subclass of stage1_align.{base.__name__}")
    return tower


def load_towers(folder: Path, saved: SavedEncoders, modalities: Iterable[str]) -> dict[str, Tower]:
    """The towers of these modalities with their weights, in evaluation mode. UserError if the weights do not match, or
    if a tower fails on a short trial input."""
    weights = WeightFile.read(folder, AGAIN)
    stray = [name for name in weights.shapes if name.partition(".")[0] not in saved.towers]
    if stray:
        raise UserError(f"{weights.path}: {stray[0]} belongs to no tower of its configuration; {AGAIN}")
    return {modality: _load_tower(folder, saved, modality, weights) for modality in modalities}


def _load_tower(folder: Path, saved: SavedEncoders, modality: str, weights: WeightFile) -> Tower:
    spec, prefix = saved.towers[modality], f"{modality}."
    tower_class = find_tower(modality, spec.name, folder)
    where = f"{folder}/config.json: {modality} tower"
    part = weights.part(prefix)
    with bounded(where, part):
        tower = tower_class.from_saved(spec.options, saved.embed_dim, where)
    weights.load_into(tower, f"{modality} tower", prefix)
    if isinstance(tower, TextTower):
        tower.tokenizer = _load_tokenizer(folder, spec, where)
        if len(tower.tokenizer) > tower.embedding_rows:
            pieces, rows = len(tower.tokenizer), tower.embedding_rows
            raise UserError(f"{folder}/tokenizer: {pieces} pieces for the tower's {rows} embeddings; {AGAIN}")
    with bounded(where, part):
        _try_out(tower.eval(), spec, saved.embed_dim)
    return tower


def _load_tokenizer(folder: Path, spec: SavedTower, where: str) -> Tokenizer:
    kind = spec.tokenizer or "sentencepiece"
    if kind not in TOKENIZERS.parts:
        raise UserError(f"{where}: tokenizer is {kind!r:.60}; expected one of {', '.join(TOKENIZERS.names())}")
    return TOKENIZERS.get(kind).load(folder / "tokenizer")


@torch.no_grad()
def _try_out(tower: Tower, spec: SavedTower, embed_dim: int) -> None:
    """Encode a short input. UserError unless the result is finite and of the described shape."""
    if isinstance(tower, AudioTower):
        if not 0 < tower.rate <= MAX_RATE or spec.rate != tower.rate:
            raise UserError(f"gives {tower.rate:g} steps per second; its configuration says {spec.rate}")
        item: Any = (0.1 * np.sin(np.arange(tower.sample_rate // 2) / 7)).astype(np.float32)  # (S,)
    elif isinstance(tower, TextTower):
        item = TRIAL_TEXT
    else:
        item = np.arange(2 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 32, 3)  # (T, H, W, 3)
    encoded: Encoded = tower.encode_prepared([item])
    shapes = list(encoded.pooled.shape), encoded.sequence.shape[-1]
    if shapes != ([1, embed_dim], spec.width) or tower.width != spec.width:
        raise UserError(
            f"gives embeddings {shapes[0]} and a sequence of width {shapes[1]}; its configuration says "
            f"{[1, embed_dim]} and {spec.width}"
        )
    if not (torch.isfinite(encoded.pooled).all() and torch.isfinite(encoded.sequence).all()):
        raise UserError("gives values that are not finite")
