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
"""Kinds of text that a clip may have."""


@dataclass
class TowerConfig(CheckedOptions):
    """One encoder."""

    name: str
    """Which tower; `python -m stage1_align.towers` lists them with their options."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this tower; an unknown one is an error that names the nearest."""
    unfreeze: LayersOrNone | None = None
    """Number of last blocks of the trunk that train, together with everything after them. 0: only the layers added on
    top of the trunk; null: everything. A few thousand clips can degrade a pretrained tower before they improve it."""
    layer_decay: LayerDecay = 1.0
    """Factor on the learning rate for each block further from the output: early layers hold general features."""
    checkpointing: bool = False
    """Activation checkpointing: recompute the blocks' activations in the backward pass. Less memory, more time."""


@dataclass
class TowersConfig(CheckedOptions):
    """The three encoders and their shared space."""

    vision: TowerConfig | None = field(default_factory=lambda: TowerConfig("open_clip"))
    """Encodes the frames of a clip; null for corpora without pictures."""
    audio: TowerConfig | None = field(default_factory=lambda: TowerConfig("htsat"))
    """Encodes its sound; null for corpora without sound."""
    text: TowerConfig = field(default_factory=lambda: TowerConfig("transformer"))
    """Encodes its texts, for vision-text and audio-text pairs alike: stage 2 has one text feature, so there is one text
    encoder."""
    embed_dim: Width = 64
    """D, the width of the shared space."""
    leave_out_unused: bool = False
    """Leave out the vision or the audio tower where no training clip has pictures, or sound, and say so; such a run is
    refused otherwise."""


@dataclass
class SourceConfig(CheckedOptions):
    """One corpus of pairs. Corpora are independent: one may have images and text, another audio and text."""

    kind: str = "clips"
    """clips (written by `emit prepare`), csv, hf or webdataset: a name from stage1_align/data/sources."""
    path: str = ""
    """Its folder, table or shards. {split} is replaced by the name of a split; hf and webdataset also expand braces
    ({000..012}) and wildcards."""
    weight: PositiveFloat | None = 1.0
    """Its share of each global batch, relative to the other weights. null, for all sources: its number of items, so
    that an epoch shows each item once."""
    split: str = "train"
    """Split to train on. A source without splits, and without {split} in its path, is training data as a whole."""
    valid_split: str = "valid"
    """Split for validation; "" if it has none and other sources validate."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of this kind of source, such as {caption: text}; an unknown one is an error that names the nearest."""


@dataclass
class PairConfig(CheckedOptions):
    """Training pairs."""

    sources: list[SourceConfig] = field(default_factory=list)
    """Corpora that batches are mixed from; empty: the clip dataset that `data` names."""
    samples_per_epoch: NonNegativeInt = 0
    """Length of an epoch; 0: the number of items of all sources, which streams do not know. A source that is smaller
    than its share is repeated in a new order; of a larger one, each epoch uses another part."""
    batch_by: str = ""
    """A group of the clips, such as subject: an epoch shows the clips of one value after another, in a new order. In a
    batch of few people, who it is does not tell the clips apart. "": all clips shuffled."""
    frames: FrameCount = 6
    """Frames of a clip per step; a random one from each of as many equal parts of the clip, drawn anew each epoch."""
    captions: list[TextKind] = field(default_factory=lambda: ["transcript", "labels"])
    """The texts that a clip is paired with, each in a loss of its own: the transcript, words made of its labels
    ("strong amusement, a little joy"), and a written caption (a random one each epoch if there are several). A clip
    that lacks a kind of text is left out of that loss. With ["transcript"], loss.soft 0 and no pair of labels, stage 1
    does not use labels.
    """
    label_template: str = "{emotions}"
    """Sentence around the words made of labels, such as "a person showing {emotions}": pretrained text encoders know
    sentences better than lists."""
    word_dropout: ProperFraction = 0.15
    """Fraction of a transcript's words that is dropped in a step: a few hundred sentences are soon memorized."""
    augment: bool = True
    """Shift, flip and relight faces; change the gain of sound within `gain_db` and add noise."""
    gain_db: Decibels = 3.0
    """Largest change of gain in dB. Loudness carries intensity, so it stays small."""
    max_seconds: CropSeconds = 20.0
    """Longer sound is cropped to this length, at random in training, to the start in validation: memory grows with the
    longest clip of a batch."""
    valid_limit: PositiveInt = 2000
    """Most validation items of each source, evenly spaced: recall among more items tells little more, and its cost is
    quadratic."""

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
    """info_nce (CLIP), or sigmoid (SigLIP), which judges every pair on its own and suits noisy pairs."""
    pairs: dict[str, Weight] = field(default_factory=lambda: {"vision_text": 1.0, "audio_text": 1.0, "text_text": 1.0})
    """Weight of each pair's loss: vision_text, audio_text, text_text, vision_audio; pairs that are not named have none.
    vision_text uses every kind of text in `pairs.captions`; vision_transcript, vision_labels and vision_caption use
    one; likewise for audio. text_text aligns the texts of a clip with each other, if it has several: a transcript with
    what it expresses. Every pair has its own temperature."""
    soft: Fraction = 0.0
    """Of pairs with words made of labels: fraction of the target that goes to clips with near labels, because a smile
    is not a negative of a grin. 0: only clips with equal texts are positives."""
    soft_width: PositiveFloat = 0.1
    """What near means: standard deviation of the Gaussian kernel over label vectors, whose entries lie in [0, 1]."""
    initial_scale: Scale = 14.3
    """Initial inverse temperature (CLIP: 1 / 0.07; SigLIP: 10)."""
    initial_bias: Bias = -10.0
    """Initial bias of the sigmoid loss: nearly all pairs are negatives."""
    tile: PositiveInt = 1024
    """Side of the blocks of the similarity matrix that are in memory at once; the result does not depend on it."""


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
    """Whether a run ends at once if its validation items have no two different texts, by which no epoch can be chosen.
    false: it says so, and the last epoch is kept."""
    shrink_batch: bool = False
    """Where fewer clips than a batch are there to train on, use a batch of those, and say so."""
    chunk_size: NonNegativeInt = 0
    """Clips that a process encodes at once. A larger share of the batch goes through the gradient cache: two forward
    passes, for a batch of any size. 0: the whole share at once."""
    lr: LearningRate = 1e-3
    """Peak learning rate of AdamW."""
    tower_lr: dict[str, LearningRateFactor] = field(default_factory=dict)
    """Factor on `lr` for single towers or the temperature, such as {audio: 0.5}; 1 by default."""
    weight_decay: WeightDecay = 0.05
    """Of matrices; biases, norms and temperatures have none."""
    warmup_fraction: Fraction = 0.1
    """Fraction of all optimizer steps in which the learning rate rises."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient is clipped to this norm."""
    ema: ProperFraction = 0.0
    """Decay of an exponential moving average of the weights, which is then validated and exported; 0: none. In short
    runs it lags too far behind."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto: as the launcher says, else bf16 where the hardware is fast at it for towers of this width (CPUs with
    AVX512-BF16 but no AMX: from 256 on), else full precision. Written down in RUN/made_from.json: a resumed run repeats
    it."""
    compile: bool = False
    """torch.compile of the towers' blocks: minutes at the start, then faster steps on GPUs."""
    workers: Processes = 0
    """Data loading processes; they never change the results."""
    checkpoint_every: NonNegativeInt = 0
    """Steps between checkpoints, in addition to the one after each epoch; 0: none."""
    keep_last: PositiveInt = 2
    """Checkpoints that stay on disk."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves go besides log.jsonl, by Accelerate's names."""
    timeout_minutes: Minutes = 30.0
    """How long a process waits for another one: longer than the slowest validation."""


@dataclass
class AlignConfig(CheckedOptions):
    """Stage 1: train vision-text and audio-text encoders by contrast."""

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
    """Decides initial weights, order, augmentation and dropout."""
    max_optimizer_steps: NonNegativeInt = 0
    """Stop after this many steps, as if interrupted; 0: never. For trials and tests."""
