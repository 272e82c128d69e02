"""Options of stage 2. Every default has a reason."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.options.outputs import OutputFolder
from shared.options.placeholders import Placeholder
from shared.options.ranges import (
    BatchSize,
    CheckedOptions,
    Fraction,
    LayersOrNone,
    LearningRate,
    LearningRateFactor,
    MemoryRows,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ProperFraction,
    Seed,
    Steps,
    Weight,
    WeightDecay,
)
from shared.registry import nearest


@dataclass
class LossConfig(CheckedOptions):
    """loss = mse * MSE + ramp * (pcc * (1 - PCC) + ccc * (1 - CCC)) + quality * ranking + branch losses + penalty."""

    mse: Weight = 1.0
    """Keeps predictions on the scale of the labels."""
    pcc: Weight = 0.2
    """1 - PCC is about ten times the MSE of labels in [0, 1]: with 0.2, their gradients are about as large."""
    ccc: Weight = 0.0
    """1 - CCC (Lin 1989) also penalizes a wrong scale and offset; use it instead of MSE, not with it."""
    ramp_epochs: NonNegativeInt = 4
    """Epochs over which the weights of the correlation terms grow from 0: their first gradients are noise."""
    memory: MemoryRows = 512
    """Recent predictions that the correlation terms include: labels are mostly zero, so one batch says little about
    correlation. 0 uses only the batch."""
    quality: Weight = 0.1
    """Weight of the ranking loss: a deliberately damaged modality must have a lower weight than the same modality
    undamaged, by the margin; the other terms determine how much lower it gets."""
    margin: NonNegativeFloat = 0.5
    """Margin in log weight: 0.5 is a factor of 1.6."""
    branches: dict[str, Weight] = field(default_factory=dict)
    """Weight of the loss of each modality's own prediction, such as {audio: 0.01}, for models that make such
    predictions."""
    branch_loss: Literal["smooth_l1", "pcc"] = "smooth_l1"
    """The loss of the branches; pcc is 1 - PCC over the batch, if the scale of their predictions does not matter."""
    penalty: Weight = 0.0
    """Weight of a loss term that the model itself computes (the prior of concat_vad)."""

    def __post_init__(self):
        super().__post_init__()
        for name in self.branches:
            if name not in MODALITIES:
                raise UserError(f"--loss.branches: no modality {name!r}: {nearest(name, MODALITIES)}")


@dataclass
class TrainConfig(CheckedOptions):
    """Optimization."""

    RENAMED: ClassVar[dict[str, str]] = {
        "warmup_epochs": "warmup_fraction, a fraction of all steps: warm-up epochs / epochs",
        "clip": "max_grad_norm",
        "max_steps": "max_sequence_steps",
    }

    epochs: PositiveInt = 40
    """Most passes over the training clips; `patience` usually ends training earlier."""
    batch_size: BatchSize = 32
    """Clips per step, over all processes; with damaged views, each clip brings two rows."""
    shrink_batch: bool = False
    """If there are fewer training clips than `batch_size`, use one batch of all of them, and say so."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW."""
    finetune_lr: LearningRateFactor = 0.02
    """Factor on `lr` for towers that train end to end (`finetune`): a high rate destroys pretrained features."""
    init_lr: LearningRateFactor = 1.0
    """Factor on `lr` for encoders from other models (`init`); 0 freezes them."""
    finetune_frames: NonNegativeInt = 0
    """In training, a vision tower that trains end to end runs on this many frames of each clip: the clip is cut into as
    many equal parts, and each step draws one frame from each part. The steps between are interpolated, so their number,
    times and quality signals stay. Validation runs on all frames; 0: training too."""
    weight_decay: WeightDecay = 0.05
    """Applies to matrices; biases, norms, queries and missing-modality tokens have none."""
    warmup_fraction: Fraction = 0.025
    """Fraction of all optimizer steps for warm-up: one of 40 epochs."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient is clipped to this norm."""
    ema: ProperFraction = 0.99
    """Decay of the exponential moving average of the weights, which is validated and saved; the decay grows to this
    value over the first steps."""
    patience: PositiveInt = 8
    """Training ends after this many epochs without a better validation PCC."""
    mixed_precision: Literal["no", "bf16", "auto"] = "no"
    """auto: the launcher's setting, otherwise bf16 if the hardware is fast at it for a model of this width. The models
    are small: bf16 gains little and costs digits of PCC."""
    damaged_views: bool = True
    """Also train on damaged views, if the features have them."""
    leave_out_damage: list[str] = field(default_factory=list)
    """Kinds of damage left out of training, such as [blur, noise], to measure how well weights detect unseen damage.
    `emit evaluate` marks them."""
    passing_damage: Fraction = 0.0
    """Share of the damaged views with damage that comes and goes: all other steps come from the undamaged clip. Weights
    then learn to fall and rise within a clip."""
    feature_damage: Fraction = 0.0
    """Fraction of a step's clips with a copy with damaged features in place of the damaged view. Use 0.5 for features
    that came with a dataset (`emit encode --precomputed`); damage to media, if possible, is more realistic."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Trackers for the curves besides log.jsonl, by Accelerate's names."""
    max_sequence_steps: Steps = 128
    """Longer sequences are averaged over time to this many steps on loading, which limits memory and time."""


@dataclass
class FuseConfig(CheckedOptions):
    """Train a fusion model on features of frozen encoders."""

    SHIPPED: ClassVar[bool] = True
    COMMON: ClassVar[tuple[str, ...]] = (
        "model",
        "options",
        "train.epochs",
        "train.patience",
        "train.batch_size",
        "train.lr",
        "train.mixed_precision",
        "finetune",
        "train_split",
        "valid_split",
        "seed",
    )

    data: Annotated[Path, Placeholder("FEATURES")]
    """Feature dataset (`emit encode`)."""
    run: Annotated[OutputFolder, Placeholder("RUN")]
    """Run folder; an unfinished run in it is resumed."""
    model: Annotated[str, Placeholder("NAME", names="stage2_fusion.models:MODELS")] = "dual_stage"
    """A registered name; `python -m stage2_fusion.models` lists them with their options."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this model, such as {width: 64}; an unknown one is an error that names the nearest."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the loss terms."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """Optimization."""
    finetune: dict[str, LayersOrNone | Literal["all"] | None] = field(default_factory=dict)
    """Towers that train end to end, with the number of last blocks to train, such as {text: 2}; 0 trains only the
    layers on top of the blocks, all (or null) the whole tower except parts that its own options freeze, such as
    train_features of wav2vec2. They run on the clips in every step, which is slow."""
    init: dict[str, Path] = field(default_factory=dict)
    """Model folders from which to initialize the encoder of a modality, such as {text: runs/text/model}: of the same
    architecture, on the same features. Their heads are not used."""
    encoders: Path | None = None
    """With `finetune`: the aligned encoders, by default at the path that they had when the features were written."""
    clips: Path | None = None
    """With `finetune`: the clip dataset, by default at the path that it had when the features were written."""
    seed: Seed = 0
    """Determines initial weights, order and dropout."""
    max_train_clips: NonNegativeInt = 0
    """Train on at most this many labeled training clips, in whole groups (subjects), to simulate a smaller annotation
    budget. A smaller number takes a subset of what a larger one takes; 0: all."""
    train_split: str = "train"
    """Split to train on. "" takes every clip, for data without splits."""
    valid_split: str = "valid"
    """Split that selects the best epoch."""

    def __post_init__(self):
        super().__post_init__()
        for option in ("finetune", "init"):
            for name in getattr(self, option):
                if name not in MODALITIES:
                    raise UserError(f"--{option}: no modality {name!r}: {nearest(name, MODALITIES)}")
        if self.train.finetune_frames and "vision" not in self.finetune:
            raise UserError(
                "--train.finetune_frames needs a vision tower that trains end to end: add vision to --finetune"
            )
        self.finetune = {name: None if count == "all" else count for name, count in self.finetune.items()}

    @property
    def tuned_blocks(self) -> dict[str, int | None]:
        """Modality to the number of last blocks of its tower that train, None for the whole tower."""
        return {name: None if count == "all" else count for name, count in self.finetune.items()}
