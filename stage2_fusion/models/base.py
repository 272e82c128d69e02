"""What all fusion models share: inputs and their normalization, modality dropout, the output, saving and loading."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from shared import config as configuration
from shared import hub
from shared.dataset.clip import MODALITIES
from shared.dataset.training_clips import TrainingClips
from shared.errors import UserError, options_of
from shared.files import saved_folder
from shared.options.ranges import CheckedOptions, Fraction, ProperFraction
from shared.saved.typed import read_typed
from shared.training.batch_norm import repair_gradients
from stage2_fusion.data.batches import Batch, ModalityBatch, within_spans
from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import FeatureSample
from stage2_fusion.models import MODELS, saving
from stage2_fusion.models.calibration import Calibration
from stage2_fusion.models.loading import load_model
from stage2_fusion.models.model_config import AGAIN, FusionConfig

if TYPE_CHECKING:
    from stage1_align.encoders import AlignedEncoders

SMALLEST_DEVIATION = 1e-3
"""Lowest divisor of an input: a constant channel carries no information and stays small."""
SMALLEST_SHARE = 1e-6
"""Features in single precision come from other tools, in their own units (an energy of 1e-5): such a channel counts as
constant if it varies by less than this share of its mean."""
FOLLOW = 0.05
"""Weight of a batch in the statistics of features that change in training: they adapt within about twenty steps."""


@dataclass
class FusionOptions(CheckedOptions):
    """Options of every fusion model."""

    dropout: ProperFraction = 0.2
    """Strong enough for small data."""
    modality_dropout: Fraction = 0.1
    """Probability that a present modality of a training clip is hidden (never the last one), so that the model does not
    depend on any modality."""
    modalities: list[Literal["vision", "audio", "text"]] = field(default_factory=lambda: ["vision", "audio", "text"])
    """Modalities the model may use; the others count as missing."""

    def __post_init__(self):
        super().__post_init__()
        if not self.modalities:
            raise UserError("modalities is empty: give at least one of vision, audio, text")


class Output(NamedTuple):
    """What `forward` returns for B clips, S steps, K dimensions."""

    prediction: Tensor
    """float32 (B, K): in [0, 1] in evaluation mode; a linear output may leave the range in training."""
    weights: Tensor
    """(B, S, 3) of vision, audio, text at each step; exactly 0 if a modality is absent."""
    step_mask: Tensor
    """bool (B, S), True where any modality is present."""
    attention: Tensor | None = None
    """(B, K, S) of each dimension over the steps, in models with attention."""
    branches: Tensor | None = None
    """(B, 3, K), the prediction from each modality alone, NaN if it is absent, in models with such predictions."""
    penalty: Tensor | None = None
    """(B,), a loss term of the model itself, weighted by loss.penalty."""
    times: Tensor | None = None
    """(B, S) seconds of the steps, in models with a time axis."""

    def clip_weights(self, spans: Tensor | None = None) -> Tensor:
        """Mean weight of each modality over the steps with it, 0 if it is absent: float32 (B, 3).

        spans (B, P, 2): count only the steps in these seconds, if a row has such steps and the model has times."""
        weights = self.weights.float()
        if spans is not None and self.times is not None:
            inside = within_spans(self.times, spans)  # (B, S)
            weights = weights * (inside | ~inside.any(dim=1, keepdim=True))[..., None]  # (B, S, 3)
        return weights.sum(dim=1) / (weights > 0).sum(dim=1).clamp(min=1)


class ModalityInput(NamedTuple):
    """Normalized input of one modality; all zeros if the modality is absent or hidden."""

    x: Tensor
    """(B, T, C) features of the steps."""
    quality: Tensor
    """(B, T, Q) quality signals of the steps."""
    pooled: Tensor
    """(B, D) embedding in the shared space."""
    mask: Tensor
    """bool (B, T), True = real step."""
    times: Tensor
    """(B, T) seconds."""
    present: Tensor
    """bool (B,)."""


@dataclass(frozen=True)
class FeatureSpec:
    """What a model needs to know about the features: names of the K dimensions; channels of each modality's sequence
    ("vision", "audio", "text") and of the shared space ("embed"); names of each modality's quality signals."""

    label_names: list[str]
    widths: dict[str, int]
    quality: dict[str, list[str]]

    @classmethod
    def of(cls, info: FeatureInfo | FusionConfig) -> "FeatureSpec":
        """From a features.json or from the config.json of a model."""
        return cls(info.label_names, info.widths, info.quality)


class FusionModel(nn.Module):
    """Base class of fusion models: `forward(batch)` takes the output of `batches.collate` and returns an Output.

    >>> model = FusionModel.from_pretrained("runs/demo/fuse/model")
    >>> model.config.label_names[:2]
    ['Admiration', 'Amusement']

    metrics: scores of a loaded model, otherwise {}. folder: where it was loaded from, otherwise None. calibration: data
    for intervals and for the distance from the training clips; None if unknown. It belongs to these weights: set it to
    None if you change them. training_clips: fingerprints of the clips that trained the model and selected its epoch;
    None if they are not recorded.
    """

    Options: ClassVar[type[FusionOptions]] = FusionOptions
    reads: ClassVar[tuple[str, ...]] = MODALITIES
    """Modalities the architecture has an input for; the others count as missing."""
    encoder_parts: ClassVar[tuple[str, ...]] = ()
    """Attributes that hold a module per modality, by name: the parts that `emit fuse --init` takes from other
    models."""
    encoder_parts_predict: ClassVar[bool] = False
    """Whether these modules predict the labels themselves, so that they only suit the same labels."""
    config: FusionConfig
    """Only in a loaded model."""

    def __init__(self, options: FusionOptions, spec: FeatureSpec):
        super().__init__()
        if not set(options.modalities) & set(self.reads):
            own = " and ".join(self.reads)
            raise UserError(f"modalities holds {', '.join(options.modalities)}, but this model reads only {own}")
        self.options: Any = options  # an instance of Options
        self.spec = spec
        self.dimensions = len(spec.label_names)
        self.metrics: dict[str, Any] = {}
        self.folder: Path | None = None
        self.calibration: Calibration | None = None
        self.training_clips: TrainingClips | None = None
        for name in MODALITIES:
            widths = {"x": spec.widths[name], "quality": len(spec.quality[name]), "pooled": spec.widths["embed"]}
            for key, width in widths.items():
                self.register_buffer(f"{name}_{key}_mean", torch.zeros(width))
                self.register_buffer(f"{name}_{key}_scale", torch.ones(width))

    # --- building, saving, loading ---------------------------------------------------------------------------------

    @classmethod
    def build(cls, name: str, options: dict[str, Any], spec: FeatureSpec) -> Self:
        """An untrained model by its registered name or as "package.module:Class". UserError for an unknown name, an
        unknown option, or a class that is not a subclass of this one."""
        family = cls._family(name)
        what = f"fusion model {name}"
        values: Any = configuration.build(family.Options, options, what)
        with options_of(what, "python -m stage2_fusion.models explains them"):
            return family._ready(values, spec)

    @classmethod
    def _ready(cls, options: FusionOptions, spec: FeatureSpec) -> Self:
        model = cls(options, spec)
        repair_gradients(model)
        return model

    @classmethod
    def _from_saved(cls, config: FusionConfig, folder: Path) -> Self:
        """The model described by the config.json of a folder, with random weights."""
        family = cls._family(config.model, folder)
        where = f"{folder}/config.json: fusion model {config.model}"
        return family._ready(read_typed(family.Options, config.options, where), FeatureSpec.of(config))

    @classmethod
    def _family(cls, name: str, saved_in: Path | None = None) -> type[Self]:
        """The class of this name. saved_in: the folder that names it; see `Registry.get`."""
        family = MODELS.get(name, saved_in)
        if not (isinstance(family, type) and issubclass(family, cls)):
            raise UserError(f"fusion model {name} is not a {cls.__name__}")
        return family

    @classmethod
    def from_pretrained(cls, source: str | Path) -> Self:
        """Load a model folder (RUN/model), or "hf-hub:OWNER/NAME" from the Hugging Face Hub, in evaluation mode and
        frozen. UserError if the folder is missing, damaged or of another format."""
        folder = hub.resolve(source, saving.FILES)
        config = FusionConfig.read(folder)
        model = load_model(folder, config, lambda: cls._from_saved(config, folder))
        model.config, model.metrics, model.folder = config, saving.read_metrics(folder), folder
        model.calibration = Calibration.read(folder, config)
        model.training_clips = TrainingClips.read(folder, AGAIN)
        return model.eval().requires_grad_(False)

    def save_pretrained(
        self,
        folder: str | Path,
        config: FusionConfig | None = None,
        metrics: dict[str, Any] | None = None,
        encoders: "AlignedEncoders | None" = None,
    ) -> None:
        """Write the model folder, completely or not at all: config.json, weights, metrics, the aligned encoders and a
        model card.

        config, metrics: by default those the model was loaded with. encoders: AlignedEncoders that were trained end to
        end with the model; by default the folder of encoders named in the config is copied, if it still holds them. An
        existing model folder is replaced. UserError without a config, or for a folder of other files.
        """
        config = config or getattr(self, "config", None)
        if config is None:
            raise UserError("a model that was not loaded has no config.json: give config=FusionConfig(...)")
        metrics = self.metrics if metrics is None else metrics
        own = self.calibration, self.training_clips
        saving.write_folder(saved_folder(folder), self.state_dict(), config, metrics, encoders, self.folder, *own)

    def push_to_hub(self, repo_id: str, private: bool = True) -> None:
        """Upload the model folder, with its card and encoders, to the model repository "OWNER/NAME" of the Hugging Face
        Hub. Creates the repository if necessary, private by default: the model was trained on faces and voices."""
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "model"
            self.save_pretrained(folder)
            hub.upload(folder, repo_id, private, "Fusion model")

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that take no weight decay, in addition to those with fewer than two dimensions (biases,
        norms)."""
        return set()

    def linear_prediction(self, x: Tensor) -> Tensor:
        """The prediction of a system with a linear output x (B, K), clipped afterwards in its source: x in training, so
        that the loss sees how far it lies outside the range of the labels, and x clipped to [0, 1] in evaluation
        mode."""
        x = x.float()
        return x if self.training else x.clamp(0, 1)

    # --- inputs ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def fit_statistics(self, samples: Sequence[FeatureSample]) -> None:
        """Store mean and standard deviation of every input channel over the real steps of `samples` (the training
        split), and initialize the output bias from the mean label."""
        attributes = {"x": "sequence", "quality": "quality", "pooled": "pooled"}
        for name in MODALITIES:
            parts = [sample.modality(name) for sample in samples if sample.modality(name).steps]
            for key, attribute in attributes.items():
                self._fit_channel(f"{name}_{key}", (getattr(part, attribute) for part in parts))
        labels = torch.tensor([sample.labels.tolist() for sample in samples], dtype=torch.float64)  # (N, K)
        self.init_output_bias(labels.nanmean(0).nan_to_num(0.5).clamp(0.01, 0.99).float())

    def _fit_channel(self, prefix: str, arrays: Iterable[Any]) -> None:
        """Mean and 1 / standard deviation of arrays (T, C) or (C,), into the buffers of this prefix."""
        mean, any_unit = getattr(self, f"{prefix}_mean"), False
        total, square, count = torch.zeros_like(mean).double(), torch.zeros_like(mean).double(), 0
        for array in arrays:
            any_unit = prefix.endswith("_x") and array.dtype == np.float32
            values = torch.tensor(array, dtype=torch.float64).reshape(-1, len(mean))  # (T, C)
            total += values.sum(0)
            square += values.square().sum(0)
            count += len(values)
        if count:
            center = total / count
            deviation = (square / count - center.square()).clamp(min=0).sqrt()
            divisor = deviation.clamp(min=SMALLEST_DEVIATION)
            if any_unit:
                varies = deviation > (SMALLEST_SHARE * center.abs()).clamp(min=1e-30)
                divisor = torch.where(varies, deviation, divisor)
            mean.copy_(center)
            getattr(self, f"{prefix}_scale").copy_(1 / divisor)

    @torch.no_grad()
    def follow_statistics(self, name: str, part: ModalityBatch) -> None:
        """Move the mean and standard deviation of a modality's inputs towards those of the batch of all processes: the
        features of a tower that trains end to end soon change their scale, and the first statistics would clip them."""
        for key, values in (("x", part.x[part.mask]), ("pooled", part.pooled[part.present])):  # (N, C) each
            mean, scale = (getattr(self, f"{name}_{key}_{what}") for what in ("mean", "scale"))  # (C,), (C,)
            values = values.double()
            sums = torch.stack([values.sum(0), values.square().sum(0), torch.full_like(mean, len(values)).double()])
            if torch.distributed.is_initialized():
                torch.distributed.all_reduce(sums)
            if not sums[2, 0]:
                continue
            center, square = sums[:2] / sums[2]  # (C,), (C,)
            step = center - mean  # (C,)
            variance = (1 - FOLLOW) * (scale.double().pow(-2) + FOLLOW * step.square())  # (C,)
            variance += FOLLOW * (square - center.square()).clamp(min=0)
            mean += FOLLOW * step
            scale.copy_(1 / variance.sqrt().clamp(min=SMALLEST_DEVIATION))

    def init_output_bias(self, mean_label: Tensor) -> None:
        """Set the output bias so that the untrained model predicts about `mean_label` (K,)."""

    def inputs(self, batch: Batch) -> dict[str, ModalityInput]:
        """Normalized inputs of each modality. Modalities outside `options.modalities` or `reads` are absent, and in
        training some are hidden at random."""
        visible = self._visible(batch)  # (B, 3)
        inputs = {}
        for m, name in enumerate(MODALITIES):
            part = batch.modality(name)
            present = visible[:, m]  # (B,)
            mask = part.mask & present[:, None]  # (B, T)
            inputs[name] = ModalityInput(
                x=self._normalize(f"{name}_x", part.x, mask[..., None]),  # (B, T, C)
                quality=self._normalize(f"{name}_quality", part.quality, mask[..., None]),  # (B, T, Q)
                pooled=self._normalize(f"{name}_pooled", part.pooled, present[:, None]),  # (B, D)
                mask=mask,
                times=part.times,
                present=present,
            )
        return inputs

    def _normalize(self, prefix: str, values: Tensor, mask: Tensor) -> Tensor:
        mean, scale = getattr(self, f"{prefix}_mean"), getattr(self, f"{prefix}_scale")
        # Clamped, so that one broken channel cannot dominate the others. In place: these are the largest tensors of a
        # step.
        return (values - mean).mul_(scale).clamp_(-10, 10).mul_(mask)

    def _visible(self, batch: Batch) -> Tensor:
        """bool (B, 3): present, read by the model, allowed by its options, not hidden by modality dropout."""
        present = torch.stack([batch.modality(name).present for name in MODALITIES], dim=1)  # (B, 3)
        usable = set(self.options.modalities) & set(self.reads)
        allowed = torch.tensor([name in usable for name in MODALITIES], device=present.device)  # (3,)
        present = present & allowed
        return drop_modalities(present, self.options.modality_dropout) if self.training else present


def uniform_weights(inputs: dict[str, ModalityInput]) -> tuple[Tensor, Tensor]:
    """Weights for a model that does not weight modalities: (B, 1, 3), equal over the modalities present, and step_mask
    (B, 1)."""
    present = torch.stack([inputs[name].present for name in MODALITIES], dim=1)  # (B, 3)
    weights = present / present.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 3)
    return weights[:, None], present.any(dim=1, keepdim=True)


def spread_over_modalities(
    used: Sequence[str], branches: Tensor, weights: Tensor, present: Tensor
) -> dict[str, Tensor]:
    """The weights, step_mask and branches of an Output, for a model that weights predictions of the M modalities
    `used`: branches (B, M, K), weights (B, M, K), present bool (B, M)."""
    place = [MODALITIES.index(name) for name in used]
    all_branches = branches.new_full((len(branches), len(MODALITIES), branches.shape[2]), torch.nan)  # (B, 3, K)
    all_branches[:, place] = branches.masked_fill(~present[..., None], torch.nan)
    all_weights = weights.new_zeros(len(weights), len(MODALITIES))  # (B, 3)
    all_weights[:, place] = weights.mean(dim=2) * present
    return {
        "weights": all_weights[:, None],  # (B, 1, 3)
        "step_mask": present.any(dim=1, keepdim=True),  # (B, 1)
        "branches": all_branches,
    }


def set_bias(layer: nn.Module, bias: Tensor) -> None:
    """Set the bias of a linear layer."""
    assert isinstance(layer, nn.Linear)
    layer.bias.data.copy_(bias)


def drop_modalities(present: Tensor, rate: float) -> Tensor:
    """Hide each present modality of each row with probability `rate`, but never the last one: bool (B, 3) -> bool
    (B, 3). Draws from torch's generator, which the trainer seeds at every step."""
    if rate == 0:
        return present
    draw = torch.rand(present.shape, device=present.device)  # (B, 3)
    kept = present & (draw >= rate)
    fallback = nn.functional.one_hot(draw.masked_fill(~present, -1).argmax(dim=1), 3).bool()  # (B, 3)
    return torch.where(kept.any(dim=1, keepdim=True), kept, present & fallback)
