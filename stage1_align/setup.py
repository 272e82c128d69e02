"""Parts of a run built from its configuration: encoders, parameter groups, the training record."""

import dataclasses
import math
import shlex
import sys
from pathlib import Path
from typing import Any

from shared import config as configuration
from shared.errors import UserError
from shared.registry import nearest
from shared.training import optimizer
from stage1_align.config import AlignConfig
from stage1_align.data.pairs import PairData
from stage1_align.data.sources.clips import Clips
from stage1_align.encoders import AlignedEncoders
from stage1_align.model import ContrastiveModel
from stage1_align.towers import TOWERS
from stage1_align.towers.text_transformer import license_of

TOWER_LR_NAMES = (*TOWERS, "temperature")
MAX_TEXTS = 20_000
"""Most training texts to search for letters unknown to the tokenizer."""


def build_encoders(config: AlignConfig, data: PairData) -> AlignedEncoders:
    """Build the towers and prepare them for training: freezing, activation checkpointing, compilation.

    A text tower without a tokenizer gets one trained on the texts of the training data. Mel statistics of the
    audio tower come from the first 256 items of each source."""
    towers = {name: spec for name, spec in configuration.to_dict(config.towers).items() if spec and name in TOWERS}
    text = towers["text"]
    tokenizer = TOWERS["text"].get(text["name"]).corpus_tokenizer(text["options"], data.corpus())
    if tokenizer is not None:
        text["options"]["vocab_size"] = len(tokenizer)
    encoders = AlignedEncoders.build(towers, config.towers.embed_dim)
    if tokenizer is not None:
        encoders.tower("text").tokenizer = tokenizer
    if encoders.audio is not None:
        encoders.audio.calibrate(data.waveforms(encoders.audio.sample_rate))
    for name, tower in encoders.towers().items():
        spec = getattr(config.towers, name)
        tower.freeze(spec.unfreeze)
        tower.set_checkpointing(spec.checkpointing)
        if config.train.compile:
            for block in tower.blocks():
                block.compile()
    for parameter in encoders.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP does not shard transposed parameters (filter banks)
    return encoders


def random_lines(config: AlignConfig) -> list[str]:
    """Lines about towers that could load published weights but stay random, in full or in part."""
    lines = []
    for name in TOWERS:
        spec = getattr(config.towers, name)
        if spec is None or (config.train.epochs and spec.unfreeze is None) or spec.options.get("pretrained"):
            continue
        if any(field.name == "pretrained" for field in dataclasses.fields(TOWERS[name].get(spec.name).Options)):
            kind, why = "warning", f"unfreeze {spec.unfreeze} freezes them"
            if not config.train.epochs:
                kind, why = "note", "no epoch trains them"
            published = f"--towers.{name}.options.pretrained FOLDER names published ones"
            lines.append(f"{kind}: the weights of the {name} tower are random, and {why}: {published}")
    return lines


def crop_lines(encoders: AlignedEncoders, data: PairData) -> list[str]:
    """Lines about clip datasets with face crops smaller than the vision tower's input."""
    sizes = {source.clips.info.recipe.frame_size for source in data.sources if isinstance(source, Clips)}
    lines = [encoders.vision.crop_line(size) for size in sorted(sizes)] if encoders.vision is not None else []
    return [line for line in lines if line]


def text_notes(encoders: AlignedEncoders, data: PairData) -> list[str]:
    """What the text tower cannot read in the training texts; of more than MAX_TEXTS, an evenly spaced sample."""
    texts = data.corpus()
    some = texts[:: math.ceil(len(texts) / MAX_TEXTS) or 1]
    cut = "training cuts them there; raise towers.text.options.context_length"
    return encoders.text.coverage(some).notes(some, cut) if encoders.text is not None else []


def parameter_groups(model: ContrastiveModel, config: AlignConfig) -> list[dict[str, Any]]:
    """Parameter groups for AdamW. The peak learning rate of a parameter is the run's rate, times the factor of its
    tower, times the factor of its depth in the tower."""
    options = config.train
    for name in options.tower_lr:
        if name not in TOWER_LR_NAMES:
            raise UserError(f"--train.tower_lr: no {name!r}; {nearest(name, TOWER_LR_NAMES)}")
    factors = {
        f"encoders.{name}.{parameter}": factor * options.tower_lr.get(name, 1.0)
        for name, tower in model.encoders.towers().items()
        for parameter, factor in tower.lr_factors(getattr(config.towers, name).layer_decay).items()
    }

    def lr_factor(name: str) -> float:
        return factors.get(name, options.tower_lr.get("temperature", 1.0))

    return optimizer.parameter_groups(model, options.lr, options.weight_decay, lr_factor)


def training_record(config: AlignConfig, data_digest: str, metrics: dict[str, float]) -> dict[str, Any]:
    """The origin of exported encoders: the "training" entry of their config.json."""
    sources = [source.path for source in config.pairs.sources] or [str(config.data)]
    words = sys.argv[1:]
    command = ["emit", *words] if words[:1] in (["align"], ["run"], ["demo"]) else ["emit", "align", *words]
    towers = {name: getattr(config.towers, name) for name in TOWERS if getattr(config.towers, name)}
    started_from = {name: tower.options.get("pretrained") for name, tower in towers.items()}
    return {
        "data": f"{', '.join(map(str, map(Path, sources)))} (digest {data_digest}), seed {config.seed}",
        "data_digest": data_digest,
        "command": shlex.join(command),
        "licenses": {name: license_of(Path(folder)) for name, folder in started_from.items() if folder},
        "metrics": metrics,
        "config": configuration.to_dict(config),
    }
