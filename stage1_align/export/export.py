"""`emit export RUN --out DIR`: a stage-1 run, or a fusion model with encoders, to a folder of frozen encoders."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from shared import config as configuration
from shared.config import load_yaml
from shared.dataset.training_clips import TrainingClips, TrainingSource, fingerprints
from shared.errors import UserError
from shared.options.outputs import OutputFolder
from shared.options.ranges import CheckedOptions
from shared.terminal.closing import closing, unused
from shared.terminal.messages import note, say

if TYPE_CHECKING:
    from stage1_align.encoders import AlignedEncoders

TOLERANCE = 1e-6


@dataclass
class ExportConfig(CheckedOptions):
    """Write the aligned encoders of a stage-1 run as a folder that loads anywhere."""

    run: Path
    """Run folder of `emit align`. Also a run folder of `emit fuse`, a fusion model or exported encoders: their encoders
    are copied unchanged."""
    out: OutputFolder
    """Folder to write; existing encoders in it are replaced."""
    which: Literal["best", "last"] = "best"
    """best: the epoch of stage 1 with the highest mean recall on the validation split."""
    onnx: bool = False
    """Also write each tower as an ONNX file, OUT/onnx/vision.onnx and so on, checked against the tower. Needs the
    packages onnx and onnxscript; onnxruntime makes the check fast."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        ExportConfig,
        argv,
        prog="emit export",
        example="emit export runs/demo/align --out runs/demo/encoders",
        positional=("run",),
    )
    export(config)
    file = config.run / "config.yaml"
    is_run = file.exists() and (config.run / config.which).is_dir()
    data = (load_yaml(file, "run `emit align` again").get("data") if is_run else None) or "CLIPS"
    features = unused(config.out.parent / "features")
    closing([config.out], [("encode", "--encoders", config.out, "--data", data, "--out", features)])
    return 0


def export(config: ExportConfig) -> Path:
    """Write the encoders, load them again, and check that both give the same embeddings. UserError for a folder without
    encoders, and if the output folder holds something else."""
    from stage1_align.encoders import AlignedEncoders
    from stage1_align.export import onnx

    if config.onnx:
        onnx.require_onnx()
    trained = AlignedEncoders.from_pretrained(_source(config))
    if trained.training_clips is None:
        trained.training_clips = find_training_clips(trained.config.get("training", {}))
    holds_encoders = (config.out / "config.json").is_file()
    if config.out.exists() and not holds_encoders and (config.out.is_file() or any(config.out.iterdir())):
        raise UserError(f"{config.out}: holds something other than encoders; choose another --out")
    if trained.training_clips is None:
        note(f"{config.out}: training clips not recorded: they are no longer where {config.run} found them")
    if holds_encoders and _is_complete(AlignedEncoders.from_pretrained(config.out), trained):
        say(f"{config.out}: already holds these encoders ({trained.digest}); nothing to do")
    else:
        trained.save_pretrained(config.out)
        exported = AlignedEncoders.from_pretrained(config.out)
        difference = parity(trained, exported)
        if difference > TOLERANCE:
            raise UserError(
                f"{config.out}: the exported encoders differ from the trained ones by {difference:.2e}; export again"
            )
        say(f"{config.out}: aligned encoders {exported.digest} (largest difference from training {difference:.1e})")
    if config.onnx:
        for modality, difference in onnx.export_towers(trained.towers(), config.out / "onnx").items():
            say(f"{config.out}/onnx/{modality}.onnx: largest difference from the tower {difference:.1e}")
    return config.out


def _source(config: ExportConfig) -> Path:
    """The folder of the encoders to write. UserError if there are none yet."""
    from stage1_align.saved_encoders import encoders_within, holds_encoders

    chosen = config.run / config.which
    inner = config.run if holds_encoders(config.run) else encoders_within(config.run)
    if inner is not None and not chosen.is_dir():
        if config.which != "best":
            raise UserError(f"{config.run}: not a stage-1 run, so --which {config.which} does not apply; leave it out")
        return inner
    if not (config.run / "metrics.json").exists():
        raise UserError(
            f"{config.run}: no finished stage-1 run here; run `emit align --run {config.run} ...` to its end"
        )
    return chosen


def _is_complete(exported: "AlignedEncoders", trained: "AlignedEncoders") -> bool:
    """Whether a folder exported before is complete."""
    recorded = exported.training_clips is not None or trained.training_clips is None
    return exported.digest == trained.digest and recorded


def find_training_clips(training: dict[str, Any]) -> TrainingClips | None:
    """The training clips for encoders of an earlier version, which do not record them: the clips of the run's dataset,
    if it still exists unchanged; else None. training: from the config.json of the encoders."""
    from shared.dataset.clip_dataset import ClipDataset

    config = training.get("config", {})
    if config.get("pairs", {}).get("sources") or not config.get("data"):
        return None
    try:
        parts = [ClipDataset.open(Path(config["data"]), split) for split in ("train", "valid")]
    except UserError:
        return None
    if parts[0].digest != training.get("data_digest"):
        return None
    source = TrainingSource(config["data"], "clips", "train", len(parts[0]))
    return TrainingClips.of(fingerprints(parts[0]), fingerprints(parts[1]), [source])


def parity(a: "AlignedEncoders", b: "AlignedEncoders") -> float:
    """Largest absolute difference between the pooled embeddings of two sets of encoders for the same random clips."""
    rng = np.random.default_rng(0)
    items: dict[str, list] = {
        "vision": [rng.integers(0, 256, (3, 48, 48, 3), dtype=np.uint8) for _ in range(2)],
        "audio": [rng.uniform(-0.3, 0.3, 9000 * n).astype(np.float32) for n in (1, 2)],
        "text": ["that was so funny", "no"],
    }
    return max(
        float((tower.encode_prepared(items[m]).pooled - b.tower(m).encode_prepared(items[m]).pooled).abs().max())
        for m, tower in a.towers().items()
    )
