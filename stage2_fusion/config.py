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
    """1 - CCC (Lin 1989) also demands the right scale and offset; use it instead of MSE rather than with it."""
    ramp_epochs: NonNegativeInt = 4
    """Epochs over which the weights of the correlation terms grow from 0: their first gradients are noise."""
    memory: MemoryRows = 512
    """Recent predictions that the correlation terms include: labels are mostly zero, so that one batch says little
    about correlation. 0 uses the batch alone."""
    quality: Weight = 0.1
    """Weight of the ranking: a modality damaged on purpose must have a lower weight than the same one undamaged, by the
    margin; how much lower it becomes is for the other terms to decide."""
    margin: NonNegativeFloat = 0.5
    """How much lower, in log weight: 0.5 is a factor of 1.6."""
    branches: dict[str, Weight] = field(default_factory=dict)
    """Weight of the loss of each modality's own prediction, such as {audio: 0.01}, for models that make such
    predictions."""
    branch_loss: Literal["smooth_l1", "pcc"] = "smooth_l1"
    """What that loss is; pcc is 1 - PCC over the batch, for predictions whose scale does not matter."""
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
    """Where fewer clips than a batch are there to train on, use a batch of those, and say so."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW."""
    finetune_lr: LearningRateFactor = 0.02
    """Factor on `lr` for towers that train end to end (`finetune`): a high rate destroys pretrained features."""
    init_lr: LearningRateFactor = 1.0
    """Factor on `lr` for the encoders that come from other models (`init`); 0 keeps them as they are."""
    finetune_frames: NonNegativeInt = 0
    """In training, a vision tower that trains end to end runs on this many frames of each clip: one, drawn anew in each
    step, of as many equal parts. The steps between them are interpolated, so that their number, times and quality
    signals stay. Validation runs on all frames, which 0 asks for in training too."""
    weight_decay: WeightDecay = 0.05
    """Of matrices; biases, norms, queries and missing-modality tokens have none."""
    warmup_fraction: Fraction = 0.025
    """Fraction of all optimizer steps in which the learning rate rises: one of 40 epochs."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient is clipped to this norm."""
    ema: ProperFraction = 0.99
    """Decay of the exponential moving average of the weights, which is validated and saved; it grows to this value over
    the first steps."""
    patience: PositiveInt = 8
    """Training ends after this many epochs without a better validation PCC."""
    mixed_precision: Literal["no", "bf16", "auto"] = "no"
    """auto: as the launcher says, else bf16 where the hardware is fast at it for a model of this width. The models are
    small: bf16 gains little and costs digits of PCC."""
    damaged_views: bool = True
    """Also train on damaged views, if the features have them."""
    leave_out_damage: list[str] = field(default_factory=list)
    """Kinds of damage whose views are not trained on, such as [blur, noise]: how well do weights find what they never
    met? `emit evaluate` marks them."""
    passing_damage: Fraction = 0.0
    """Share of the damaged views whose damage comes and goes: all other steps are those of the undamaged clip. Weights
    then learn to fall and rise within a clip."""
    feature_damage: Fraction = 0.0
    """Fraction of a step's clips whose damaged view is replaced by a copy with damaged features. For features that came
    with a dataset (`emit encode --precomputed`), 0.5; damage to media, where it is possible, is more realistic."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves go besides log.jsonl, by Accelerate's names."""
    max_sequence_steps: Steps = 128
    """Longer sequences are averaged over time to this many steps when they are loaded, which limits memory and time."""


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
    """Towers that train end to end, with the number of their last blocks that train, such as {text: 2}; 0 trains only
    the layers on top of the blocks, all (or null) the whole tower. They run on the clips in every step, which is slow.
    """
    init: dict[str, Path] = field(default_factory=dict)
    """Model folders whose encoder of a modality this model begins with, such as {text: runs/text/model}: of the same
    architecture, on the same features. Their heads are left behind."""
    encoders: Path | None = None
    """With `finetune`: the aligned encoders, by default those at the path they had when the features were made."""
    clips: Path | None = None
    """With `finetune`: the clip dataset, by default that at the path it had when the features were made."""
    seed: Seed = 0
    """Decides initial weights, order, dropout."""
    max_train_clips: NonNegativeInt = 0
    """Learn from this many of the labeled training clips at most, whole groups (subjects) at a time: what a smaller
    annotation budget would give. A smaller number takes a part of what a larger one takes; 0: all."""
    train_split: str = "train"
    """Split to train on. "" takes every clip, for data without splits."""
    valid_split: str = "valid"
    """Split that chooses the best epoch."""

    def __post_init__(self):
        super().__post_init__()
        for option in ("finetune", "init"):
            for name in getattr(self, option):
                if name not in MODALITIES:
                    raise UserError(f"--{option}: no modality {name!r}: {nearest(name, MODALITIES)}")
        if self.train.finetune_frames and "vision" not in self.finetune:
            raise UserError("--train.finetune_frames is of a vision tower that trains along: add vision to --finetune")
        self.finetune = {name: None if count == "all" else count for name, count in self.finetune.items()}

    @property
    def tuned_blocks(self) -> dict[str, int | None]:
        """Modality to the number of last blocks of its tower that train, None for all of it."""
        return {name: None if count == "all" else count for name, count in self.finetune.items()}
