"""Every option of stage 2. A default without a reason here is a mistake."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from shared.dataset.clip import MODALITIES
from shared.errors import UserError
from shared.registry import nearest


@dataclass
class LossConfig:
    """loss = mse * MSE + ramp * (pcc * (1 - PCC) + ccc * (1 - CCC)) + quality * ranking + branch losses + penalty."""

    mse: float = 1.0
    """Keeps predictions on the scale of the labels."""
    pcc: float = 0.2
    """1 - PCC is about ten times the MSE of labels in [0, 1]: at 0.2 both pull about as hard."""
    ccc: float = 0.0
    """1 - CCC (Lin 1989) asks for scale and offset as well; in place of MSE rather than beside it."""
    ramp_epochs: int = 4
    """Epochs over which the correlation terms grow from 0: at first their direction is noise."""
    memory: int = 512
    """Recent rows whose predictions are remembered for the correlation terms: one batch of labels that are mostly zero
    says little about correlation. 0 uses the batch alone."""
    quality: float = 0.1
    """Weight of the ranking: a modality damaged on purpose must weigh less than the same one intact."""
    margin: float = 0.5
    """How much less, in log weight: 0.5 is a factor of 1.6."""
    branches: dict[str, float] = field(default_factory=dict)
    """Weight of the smooth L1 loss of each modality's own prediction, such as {audio: 0.01}, for models that make
    them."""
    penalty: float = 0.0
    """Weight of the penalty that a model puts on itself (concat_vad's prior)."""

    def __post_init__(self):
        for name in self.branches:
            if name not in MODALITIES:
                raise UserError(f"--loss.branches: no modality {name!r}: {nearest(name, MODALITIES)}")


@dataclass
class TrainConfig:
    """The schedule."""

    RENAMED: ClassVar[dict[str, str]] = {
        "warmup_epochs": "warmup_fraction, a fraction of all steps: warm-up epochs / epochs",
        "clip": "max_grad_norm",
        "max_steps": "max_sequence_steps",
    }

    epochs: int = 40
    """At most; `patience` usually ends it earlier."""
    batch_size: int = 32
    """Clips per step over all processes together; with damaged views each clip brings two rows."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    finetune_lr: float = 0.02
    """Learning rate of towers that train along (`finetune`), as a share of `lr`: what they know is easily lost."""
    weight_decay: float = 0.05
    """Of matrices only, not of biases, norms and tokens."""
    warmup_fraction: float = 0.025
    """Fraction of all optimizer steps in which the learning rate rises; one of 40 epochs."""
    max_grad_norm: float = 1.0
    """The gradient is clipped to this norm."""
    ema: float = 0.99
    """Decay of the weight average that is validated and kept; grows to this over the first steps."""
    patience: int = 8
    """Epochs without a better validation PCC after which training ends."""
    mixed_precision: Literal["no", "bf16", "auto"] = "no"
    """no, bf16 or auto. The models are small: bf16 gains little and costs digits of PCC."""
    damaged_views: bool = True
    """Train on damaged views too, when the features hold them."""
    feature_damage: float = 0.0
    """Share of the clips of a step that bring, in place of a damaged view of their media, one of their features: for
    features that came with a dataset (`emit encode --precomputed`), 0.5. Damage to media is closer to what happens."""
    trackers: list[str] = field(default_factory=lambda: ["tensorboard"])
    """Where curves go, by Accelerate's names; log.jsonl is written whatever stands here."""
    max_sequence_steps: int = 128
    """Longer sequences are averaged over time to this many steps on loading, which bounds memory and time."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "lr", "max_grad_norm", "patience", "max_sequence_steps"):
            if not getattr(self, name) > 0:
                raise UserError(f"--train.{name} is {getattr(self, name)}: it must be above 0")
        if not 0 <= self.warmup_fraction <= 1:
            raise UserError(f"--train.warmup_fraction is {self.warmup_fraction}: a fraction lies in [0, 1]")
        if not 0 <= self.feature_damage <= 1:
            raise UserError(f"--train.feature_damage is {self.feature_damage}: it is a share, from 0 to 1")


@dataclass
class FuseConfig:
    """Train a fusion model on features of frozen encoders."""

    data: Path
    """Feature dataset (`emit encode`)."""
    run: Path
    """Run folder. An unfinished run in it goes on where it stopped."""
    model: str = "dual_stage"
    """A name from the registry; `python -m stage2_fusion.models` lists them with their options."""
    options: dict[str, Any] = field(default_factory=dict)
    """The model's own options, such as {width: 64}; an unknown one is an error that names the nearest."""
    loss: LossConfig = field(default_factory=LossConfig)
    """Weights of the parts of the loss."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The schedule."""
    finetune: dict[str, int] = field(default_factory=dict)
    """Towers that train along, end to end, with the number of their last blocks that do, such as {text: 2}; 0 trains
    only what sits on top of them. They run on the clips at every step, which takes as long as it does."""
    encoders: Path | None = None
    """With `finetune`: the aligned encoders, by default where the features were made with them."""
    clips: Path | None = None
    """With `finetune`: the clip dataset, by default where the features were made from it."""
    seed: int = 0
    """Decides initial weights, order, dropout."""
    train_split: str = "train"
    """Split to train on. "" takes every clip, for data without splits."""
    valid_split: str = "valid"
    """Split that chooses the best epoch."""

    def __post_init__(self):
        for name, blocks in self.finetune.items():
            if name not in MODALITIES:
                raise UserError(f"--finetune: no modality {name!r}: {nearest(name, MODALITIES)}")
            if blocks < 0:
                raise UserError(f"--finetune: {blocks} blocks of {name}; 0 trains only what sits on top of them")


@dataclass
class EvaluateConfig:
    """Score a fusion model on a split: PCC with intervals, CCC, MAE, and how well its weights find damage."""

    model: Path
    """Model folder (RUN/model)."""
    data: Path
    """Feature dataset made with the same encoders."""
    split: str = "test"
    """Split to score. "" takes every clip."""
    out: Path | None = None
    """JSON file to write; its predictions go beside it (OUT_predictions.csv). By default
    MODEL/evaluation/metrics_SPLIT.json."""
    truth: Path | None = None
    """truth.csv of a synthetic corpus: adds the highest score its labels allow, and how well its damage was found."""
    groups: str | None = None
    """Group that the bootstrap draws, by default the first the clips have: those of one person are not independent."""
    bootstrap: int = 1000
    """Bootstrap samples behind the 95 % interval."""
    batch_size: int = 64
    """Clips per forward pass; the scores do not depend on it."""
    seed: int = 0
    """Seed of the bootstrap."""
    explain: bool = False
    """Also write OUT_explained.jsonl: for each clip when in it which modality counted, and what each dimension attended
    to."""


@dataclass
class PredictConfig:
    """Predict intensities of clips nobody labelled, from the files themselves."""

    clips: list[str]
    """Media files, folders of them, or one CSV that lists them."""
    model: Path
    """Model folder (RUN/model)."""
    out: Path = Path("predictions.csv")
    """One row per clip: Filename, then one column per dimension in [0, 1]."""
    encoders: Path | None = None
    """Aligned encoders; by default those kept inside the model folder."""
    blendshapes: Path | None = None
    """MediaPipe's face_landmarker.task, for a model that reads action units; by default that kept inside its folder."""
    batch_size: int = 16
    """Windows per forward pass; the predictions do not depend on it."""
    window: float | None = None
    """Seconds per window of the timeline; by default the longest that a training clip could be."""
    detector: str | None = None
    """What finds faces, as of `emit prepare`; by default what found those of the training clips."""
    transcribe: str | None = None
    """Whisper folder, as of `emit prepare`; by default that of the training clips, "" for none."""
    explain: bool = False
    """Also write OUT_explained.jsonl, as `emit evaluate` does, with a line for each window."""
