"""All options of a stage-1 run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args

from shared.errors import UserError
from shared.options.outputs import OutputFolder
from shared.options.placeholders import Placeholder
from shared.options.ranges import (
    BatchSize,
    Bias,
    CheckedOptions,
    CropSeconds,
    Decibels,
    Fraction,
    FrameCount,
    LayerDecay,
    LayersOrNone,
    LearningRate,
    LearningRateFactor,
    Minutes,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Processes,
    ProperFraction,
    Scale,
    Seed,
    Weight,
    WeightDecay,
    Width,
)

TextKind = Literal["transcript", "labels", "caption"]
CAPTIONS: tuple[TextKind, ...] = get_args(TextKind)
"""Kinds of text that a clip can have."""


@dataclass
class TowerConfig(CheckedOptions):
    """One encoder."""

    name: str
    """Which tower; `python -m stage1_align.towers` lists them with their options."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this tower; the error for an unknown one names the nearest."""
    unfreeze: LayersOrNone | None = None
    """Number of last trunk blocks to train, together with everything after them. 0: only the layers added on top of the
    trunk; null: everything. A few thousand clips can degrade a pretrained tower before they improve it."""
    layer_decay: LayerDecay = 1.0
    """Factor on the learning rate for each block further from the output: early layers learn general features."""
    checkpointing: bool = False
    """Activation checkpointing: recompute the blocks' activations in the backward pass. Less memory, more time."""


@dataclass
class TowersConfig(CheckedOptions):
    """The three encoders and their shared space."""

    vision: TowerConfig | None = field(default_factory=lambda: TowerConfig("open_clip"))
    """Encodes the frames of a clip; null for corpora without images."""
    audio: TowerConfig | None = field(default_factory=lambda: TowerConfig("htsat"))
    """Encodes its sound; null for corpora without sound."""
    text: TowerConfig = field(default_factory=lambda: TowerConfig("transformer"))
    """Encodes its texts. Vision-text and audio-text pairs share this encoder, because stage 2 has one text feature."""
    embed_dim: Width = 64
    """D, the width of the shared space."""
    leave_out_unused: bool = False
    """Leave out the vision or audio tower, with a note, if no training clip has images or sound. If false, such a run
    is refused."""


@dataclass
class SourceConfig(CheckedOptions):
    """One corpus of pairs. Corpora are independent: one can have images and text, another audio and text."""

    kind: str = "clips"
    """clips (written by `emit prepare`), csv, hf or webdataset: a name from stage1_align/data/sources."""
    path: str = ""
    """Its folder, table or shards. {split} is replaced by the name of a split; hf and webdataset also expand braces
    ({000..012}) and wildcards."""
    weight: PositiveFloat | None = 1.0
    """Share of each global batch, relative to the other weights. null, for all sources: the number of items, so that an
    epoch shows each item once."""
    split: str = "train"
    """Split to train on. A source without splits and without {split} in its path is used entirely for training."""
    valid_split: str = "valid"
    """Split for validation; "" if it has none and another source has one."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this kind of source, such as {caption: text}; the error for an unknown one names the nearest."""


@dataclass
class PairConfig(CheckedOptions):
    """Training pairs."""

    sources: list[SourceConfig] = field(default_factory=list)
    """Corpora to mix batches from; empty: the clip dataset in `data`."""
    samples_per_epoch: NonNegativeInt = 0
    """Length of an epoch; 0: the number of items in all sources, which is unknown for streams. A source smaller than
    its share is repeated in a new order; from a larger one, each epoch uses a different part."""
    batch_by: str = ""
    """A group of the clips, such as subject: an epoch shows the clips of one subject after another, in a new order. In
    a batch with few people, identity does not tell the clips apart. "": all clips are shuffled."""
    frames: FrameCount = 6
    """Frames per clip and step: the clip is split into this many equal parts, and each epoch draws a frame from
    each."""
    captions: list[TextKind] = field(default_factory=lambda: ["transcript", "labels"])
    """The texts to pair a clip with, each in its own loss: the transcript, a text generated from its labels ("strong
    amusement, a little joy"), and a written caption (a random one each epoch if there are several). A clip that lacks a
    kind of text is left out of that loss. With ["transcript"], loss.soft 0 and no pair of labels, stage 1 does not use
    labels.
    """
    label_template: str = "{emotions}"
    """Sentence around the text generated from labels, such as "a person showing {emotions}": pretrained text encoders
    know sentences better than lists."""
    word_dropout: ProperFraction = 0.15
    """Fraction of a transcript's words dropped in a step: a few hundred sentences are quickly memorized."""
    augment: bool = True
    """Shift, flip and relight faces; change the gain of sound within `gain_db` and add noise."""
    gain_db: Decibels = 3.0
    """Largest change of gain in dB. Loudness carries intensity, so it stays small."""
    max_seconds: CropSeconds = 20.0
    """Longer sound is cropped to this length, at a random position in training and to the start in validation: memory
    grows with the longest clip of a batch."""
    valid_limit: PositiveInt = 2000
    """Most validation items per source, evenly spaced: recall among more items adds little information at quadratic
    cost."""

    def __post_init__(self):
        super().__post_init__()
        for place, source in enumerate(self.sources):
            if source in self.sources[:place]:
                raise UserError(f"--pairs.sources: {source.path} is listed twice; list it once, with a higher weight")
        if len({source.weight is None for source in self.sources}) > 1:
            raise UserError("--pairs.sources: some weights are null: give all sources a weight, or none")
        if not self.captions:
            raise UserError("--pairs.captions is empty: name transcript, labels or caption")


@dataclass
class LossConfig(CheckedOptions):
    """The contrastive loss."""

    kind: Literal["info_nce", "sigmoid"] = "info_nce"
    """info_nce (CLIP), or sigmoid (SigLIP), which scores every pair independently and suits noisy pairs."""
    pairs: dict[str, Weight] = field(default_factory=lambda: {"vision_text": 1.0, "audio_text": 1.0, "text_text": 1.0})
    """Weight of each pair's loss: vision_text, audio_text, text_text, vision_audio; other pairs have no loss.
    vision_text uses every kind of text in `pairs.captions`; vision_transcript, vision_labels and vision_caption use
    one; likewise for audio. text_text aligns the texts of a clip with each other, if it has several: a transcript with
    what it expresses. Every pair has its own temperature."""
    soft: Fraction = 0.0
    """In pairs with texts generated from labels: fraction of the target that goes to clips with similar labels, because
    a smile is not a negative of a grin. 0: only clips with equal texts are positives."""
    soft_width: PositiveFloat = 0.1
    """What similar means: standard deviation of the Gaussian kernel over label vectors with entries in [0, 1]."""
    initial_scale: Scale = 14.3
    """Initial inverse temperature (CLIP: 1 / 0.07; SigLIP: 10)."""
    initial_bias: Bias = -10.0
    """Initial bias of the sigmoid loss: nearly all pairs are negatives."""
    tile: PositiveInt = 1024
    """Side of the blocks of the similarity matrix held in memory; the result does not depend on it."""


@dataclass
class TrainConfig(CheckedOptions):
    """Optimization."""

    RENAMED: ClassVar[dict[str, str]] = {
        "warmup_share": "warmup_fraction",
        "clip_norm": "max_grad_norm",
        "keep": "keep_last",
        "chunk": "chunk_size",
    }

    epochs: NonNegativeInt = 20
    """Passes over the training clips. 0 exports the untrained encoders, for comparison."""
    batch_size: BatchSize = 64
    """Clips per step, over all processes: the number of candidates in the loss."""
    require_validation: bool = True
    """Fail at the start if the validation items have no two different texts, so that no epoch can be selected. If
    false, print a note and keep the last epoch."""
    shrink_batch: bool = False
    """If there are fewer training clips than a batch, reduce the batch size to their number, with a note."""
    chunk_size: NonNegativeInt = 0
    """Clips that a process encodes at once. A larger share of the batch goes through the gradient cache: two forward
    passes, for any batch size. 0: the whole share at once."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW."""
    tower_lr: dict[str, LearningRateFactor] = field(default_factory=dict)
    """Factor on `lr` for individual towers or the temperature, such as {audio: 0.5}; 1 by default."""
    weight_decay: WeightDecay = 0.05
    """Weight decay of matrices; biases, norms and temperatures have none."""
    warmup_fraction: Fraction = 0.1
    """Fraction of all optimizer steps used for learning rate warmup."""
    max_grad_norm: PositiveFloat = 1.0
    """Maximum gradient norm, for clipping."""
    ema: ProperFraction = 0.0
    """Decay of an exponential moving average of the weights, which is then validated and exported; 0: none. In short
    runs the average lags too far behind."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto: as set by the launcher, else bf16 if the hardware is fast at it for towers of this width (CPUs with
    AVX512-BF16 but no AMX: from 256 on), else full precision. Recorded in RUN/made_from.json, so that a resumed run
    keeps it."""
    compile: bool = False
    """Run torch.compile on the towers' blocks: minutes at the start, then faster steps on GPUs."""
    workers: Processes = 0
    """Data loading processes; their number does not change the results."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints, in addition to the one after each epoch; 0: none."""
    keep_last: PositiveInt = 2
    """Number of checkpoints to keep on disk."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Trackers to log to besides log.jsonl, by Accelerate's names."""
    timeout_minutes: Minutes = 30.0
    """Time that a process waits for the others; must be longer than the slowest validation."""


@dataclass
class AlignConfig(CheckedOptions):
    """Stage 1: train vision-text and audio-text encoders with a contrastive loss."""

    RENAMED: ClassVar[dict[str, str]] = {"max_steps": "max_optimizer_steps"}
    SHIPPED: ClassVar[bool] = True
    COMMON: ClassVar[tuple[str, ...]] = (
        "data",
        "train.epochs",
        "train.batch_size",
        "train.chunk_size",
        "train.lr",
        "train.mixed_precision",
        "pairs.captions",
        "towers.vision.name",
        "towers.audio.name",
        "towers.text.name",
        "seed",
    )

    run: Annotated[OutputFolder, Placeholder("RUN")]
    """Run folder; an unfinished run in it is resumed."""
    data: Annotated[Path | None, Placeholder("CLIPS", usual=True)] = None
    """Clip dataset written by `emit prepare`; not needed if `pairs.sources` names other data."""
    towers: TowersConfig = field(default_factory=TowersConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: Seed = 0
    """Seed of the initial weights, order, augmentation and dropout."""
    max_optimizer_steps: NonNegativeInt = 0
    """Stop after this many steps, as if interrupted; 0: never. For trials and tests."""
