"""From a configuration to the parts of a run: encoders, and the parameter groups of the optimiser."""

import shlex
import sys
from pathlib import Path

from shared import config as configuration
from shared.errors import UserError
from shared.registry import nearest
from stage1_align.config import AlignConfig, TrainConfig
from stage1_align.encoders import AlignedEncoders
from stage1_align.towers import TOWERS

GROUPS = (*TOWERS, "temperature")


def build_encoders(config: AlignConfig, data) -> AlignedEncoders:
    """Towers, frozen and recomputing as asked, with their tokenizer trained on the texts of the training data, unless
    the text tower brings one, and their mel statistics taken from the sound of the first 256 items of each source."""
    towers = {name: spec for name, spec in configuration.to_dict(config.towers).items() if spec and name in TOWERS}
    text = towers["text"]
    tokenizer = TOWERS["text"].get(text["name"]).corpus_tokenizer(text["options"], data.corpus())
    if tokenizer is not None:
        text["options"]["vocab_size"] = len(tokenizer)
    encoders = AlignedEncoders.build(towers, config.towers.embed_dim)
    encoders.text.tokenizer = tokenizer or encoders.text.tokenizer
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
        parameter.data = parameter.data.contiguous()  # FSDP shards no transposed ones, as filter banks are
    return encoders


def parameter_groups(model, config: AlignConfig) -> list[dict]:
    """One group for each learning rate and kind of parameter: matrices decay; biases, norms and temperatures do not.
    "peak" is the group's highest learning rate: that of the run, of its tower, and of its depth in it."""
    options: TrainConfig = config.train
    for name in options.tower_lr:
        if name not in GROUPS:
            raise UserError(f"--train.tower_lr: no {name!r}; {nearest(name, GROUPS)}")
    factors = {
        f"encoders.{name}.{parameter}": factor * options.tower_lr.get(name, 1.0)
        for name, tower in model.encoders.towers().items()
        for parameter, factor in tower.lr_factors(getattr(config.towers, name).layer_decay).items()
    }
    groups: dict[tuple[float, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            factor = factors.get(name, options.tower_lr.get("temperature", 1.0))
            groups.setdefault((factor, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": options.lr * factor,
            "peak": options.lr * factor,
            "weight_decay": options.weight_decay if decays else 0.0,
        }
        for (factor, decays), parameters in groups.items()
    ]


def training_record(config: AlignConfig, data_digest: str, metrics: dict) -> dict:
    """What the exported folder says of its origin."""
    sources = [source.path for source in config.pairs.sources] or [str(config.data)]
    return {
        "data": f"{', '.join(map(str, map(Path, sources)))} (digest {data_digest}), seed {config.seed}",
        "data_digest": data_digest,
        "command": shlex.join(["emit", "align", *(w for i, w in enumerate(sys.argv[1:]) if i or w != "align")]),
        "metrics": metrics,
        "config": configuration.to_dict(config),
    }
