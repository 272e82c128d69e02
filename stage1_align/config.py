"""Everything that decides a stage-1 run."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from shared.errors import UserError

CAPTIONS = ("transcript", "labels", "caption")
"""Kinds of texts a clip may have."""


@dataclass
class TowerConfig:
    """One encoder."""

    name: str
    """Which tower, by its name in the registry."""
    options: dict[str, Any] = field(default_factory=dict)
    """The tower's own options; an unknown one is an error that names the nearest."""
    unfreeze: int | None = None
    """Last blocks of the trunk that train, with what follows them; 0: only what was added to it; None: everything. A
    few thousand clips can spoil a pretrained tower sooner than improve it."""
    layer_decay: float = 1.0
    """Factor on the learning rate for each block further from the output: early layers hold what is general."""
    checkpointing: bool = False
    """Recompute the blocks' activations in the backward pass: less memory, more time."""


@dataclass
class TowersConfig:
    """The three encoders and the space they share."""

    vision: TowerConfig | None = field(default_factory=lambda: TowerConfig("open_clip"))
    """Sees the frames of a clip; null for corpora without pictures."""
    audio: TowerConfig | None = field(default_factory=lambda: TowerConfig("htsat"))
    """Hears its sound; null for corpora without sound."""
    text: TowerConfig = field(default_factory=lambda: TowerConfig("transformer"))
    """Reads its words, for both pairs: stage 2 has one text feature, so there is one text encoder."""
    embed_dim: int = 64
    """D, the width of the shared space."""


@dataclass
class SourceConfig:
    """One corpus of pairs; image-text and audio-text corpora need not share anything."""

    kind: str = "clips"
    """clips (written by `emit prepare`), csv, hf or webdataset: a name from stage1_align/sources."""
    path: str = ""
    """Its folder, table or shards. {split} in it is replaced by a split's name; hf and webdataset know braces
    ({000..012}) and wildcards as well."""
    weight: float = 1.0
    """Its share of each global batch, relative to the other weights."""
    split: str = "train"
    """The part that is trained on. Sources without splits of their own, and without {split} in the path, are all
    training data."""
    valid_split: str = "valid"
    """The part for validation; "" when there is none, and other sources validate."""
    options: dict[str, Any] = field(default_factory=dict)
    """The source's own options, such as {caption: text}; an unknown one is an error that names the nearest."""


@dataclass
class PairConfig:
    """Training pairs."""

    sources: list[SourceConfig] = field(default_factory=list)
    """What batches are mixed from; empty: the clip dataset that `data` names."""
    samples_per_epoch: int = 0
    """Length of an epoch; 0: as many as all sources hold together, which streams do not know. A source smaller than
    its share is repeated in a new order, of a larger one each epoch sees another part."""
    frames: int = 6
    """Frames of a clip in one step; drawn anew each epoch, one from each equal stretch."""
    captions: list[Literal[CAPTIONS]] = field(default_factory=lambda: ["transcript", "labels"])
    """The texts a clip is paired with, each in a loss of its own: what was said, words made of its labels ("strong
    amusement, a little joy"), and a caption somebody wrote, drawn anew each epoch where there are several. A clip
    without a text of a kind takes no part in its loss. ["transcript"], with loss.soft 0 and no pair of labels, leaves
    them out of stage 1.
    """
    label_template: str = "{emotions}"
    """The sentence that words made of labels are set in, as in "a person showing {emotions}": pretrained text encoders
    know sentences better than lists."""
    word_dropout: float = 0.15
    """Share of a transcript's words left out in a step: a few hundred sentences are soon known by heart."""
    augment: bool = True
    """Move, mirror and relight faces; change gain and add noise to sound within `gain_db`."""
    gain_db: float = 3.0
    """Largest change of level, dB. Loudness carries intensity, so it stays small."""
    max_seconds: float = 20.0
    """Of longer sound a stretch of this length is heard, drawn anew each epoch (in validation the first): memory grows
    with the longest of a batch."""
    valid_limit: int = 2000
    """Validation items of each source at most, evenly spaced: recall among more tells little more, and costs their
    square."""

    def __post_init__(self):
        for name in ("frames", "max_seconds", "valid_limit"):
            if not getattr(self, name) > 0:
                raise UserError(f"--pairs.{name} is {getattr(self, name)}: it must be above 0")
        if not self.captions:
            raise UserError("--pairs.captions is empty: name transcript, labels or caption")


@dataclass
class LossConfig:
    """The contrastive loss."""

    kind: Literal["info_nce", "sigmoid"] = "info_nce"
    """info_nce (CLIP), or sigmoid (SigLIP), which judges each pair alone and suits noisy pairs."""
    pairs: dict[str, float] = field(default_factory=lambda: {"vision_text": 1.0, "audio_text": 1.0, "text_text": 1.0})
    """Weight of each pair's loss: vision_text, audio_text, text_text, vision_audio; a pair that is not named has none.
    vision_text is with all kinds of `pairs.captions`, vision_transcript, vision_labels and vision_caption with one of
    them, and so for audio. text_text is between the texts of a clip, where it has several: what was said is drawn to
    what it means. A pair has a temperature of its own."""
    soft: float = 0.0
    """Share of the target that goes to clips of near labels instead of the clip itself: a smile is no negative of a
    grin. 0: positives are equal texts alone."""
    soft_width: float = 0.1
    """How near: the standard deviation of the kernel over label vectors, whose entries lie in [0, 1]."""
    initial_scale: float = 14.3
    """First inverse temperature (CLIP's 1 / 0.07; SigLIP starts at 10)."""
    initial_bias: float = -10.0
    """First bias of the sigmoid loss: nearly all pairs are negatives."""
    tile: int = 1024
    """Side of the blocks of the similarity matrix held at once; the result does not depend on it."""

    def __post_init__(self):
        for name in ("soft_width", "initial_scale", "tile"):
            if not getattr(self, name) > 0:
                raise UserError(f"--loss.{name} is {getattr(self, name)}: it must be above 0")
        if not 0 <= self.soft <= 1:
            raise UserError(f"--loss.soft is {self.soft}: a share lies in [0, 1]")


@dataclass
class TrainConfig:
    """Optimization."""

    RENAMED: ClassVar[dict[str, str]] = {
        "warmup_share": "warmup_fraction",
        "clip_norm": "max_grad_norm",
        "keep": "keep_last",
        "chunk": "chunk_size",
    }

    epochs: int = 20
    """Passes over the training clips."""
    batch_size: int = 64
    """Clips in a step, over all processes together: the number of candidates of the loss."""
    chunk_size: int = 0
    """Clips a process encodes at once; a larger share of the batch goes through the gradient cache, twice as many
    forward passes for a batch of any size. 0: the whole share at once."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    tower_lr: dict[str, float] = field(default_factory=dict)
    """Factors on it for single towers, as in {audio: 0.5}; 1 where nothing is said."""
    weight_decay: float = 0.05
    """Decay of matrices; biases, norms and temperatures have none."""
    warmup_fraction: float = 0.1
    """Fraction of all optimizer steps in which the learning rate rises."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    ema: float = 0.0
    """Decay of an average of the weights, which is then validated and exported; 0: none. Short runs are over before it
    has caught up."""
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    """auto: what the launcher says, else bf16 where the hardware multiplies it, else full precision."""
    compile: bool = False
    """torch.compile of the towers' blocks: minutes at the start, faster steps on GPUs."""
    workers: int = 0
    """Loader processes; they never change the results."""
    checkpoint_every: int = 0
    """Steps between checkpoints besides the one after each epoch; 0: none."""
    keep_last: int = 2
    """Checkpoints that stay on disk."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves go, by Accelerate's names; log.jsonl is written whatever stands here."""
    timeout_minutes: float = 30.0
    """A process that waits so long for another one gives up: longer than the slowest validation on one process."""

    def __post_init__(self):
        for name in ("batch_size", "lr", "max_grad_norm", "timeout_minutes", "keep_last"):
            if not getattr(self, name) > 0:
                raise UserError(f"--train.{name} is {getattr(self, name)}: it must be above 0")
        if not 0 <= self.warmup_fraction <= 1:
            raise UserError(f"--train.warmup_fraction is {self.warmup_fraction}: a fraction lies in [0, 1]")
        if not 0 <= self.ema < 1:
            raise UserError(f"--train.ema is {self.ema}: a decay lies in [0, 1), such as 0.999")


@dataclass
class AlignConfig:
    """Stage 1: train vision-text and audio-text encoders by contrast."""

    RENAMED: ClassVar[dict[str, str]] = {"max_steps": "max_optimizer_steps"}

    run: Path
    """Run folder; an unfinished run in it is continued."""
    data: Path | None = None
    """Clip dataset written by `emit prepare`; not needed where `pairs.sources` names other data."""
    towers: TowersConfig = field(default_factory=TowersConfig)
    pairs: PairConfig = field(default_factory=PairConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    seed: int = 0
    """Decides initial weights, order, augmentation and dropout."""
    max_optimizer_steps: int = 0
    """Stop after so many steps, as if interrupted; 0: never. For trying things out and for tests."""
