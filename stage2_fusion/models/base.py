"""What every fusion model shares: its inputs, their normalisation, hiding of modalities, and its output."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, NamedTuple

import torch
from torch import Tensor, nn

from shared.dataset.clip import MODALITIES
from shared.errors import UserError


@dataclass
class FusionOptions:
    """What every fusion model can be told."""

    dropout: float = 0.2
    """As strong as small data needs."""
    modality_dropout: float = 0.1
    """Chance that a modality (never the last) is hidden from a training clip, so that none is indispensable."""
    modalities: list[Literal["vision", "audio", "text"]] = field(default_factory=lambda: list(MODALITIES))
    """Which of vision, audio, text the model may see; the others count as missing."""

    def __post_init__(self):
        if not self.modalities:
            raise UserError("modalities is empty: give at least one of vision, audio, text")


class Output(NamedTuple):
    """prediction (B, K) in [0, 1]; weights (B, S, 3) of vision, audio, text at each step, exactly 0 where a modality is
    absent; step_mask bool (B, S), True where any modality is there.

    Models that have them add: attention (B, K, S) of each dimension over the steps; branches (B, 3, K), what each
    modality predicts alone, NaN where it is absent; penalty (B,), what the model asks of itself, for loss.penalty;
    times (B, S), seconds of the steps."""

    prediction: Tensor
    weights: Tensor
    step_mask: Tensor
    attention: Tensor | None = None
    branches: Tensor | None = None
    penalty: Tensor | None = None
    times: Tensor | None = None

    def clip_weights(self) -> Tensor:
        """Mean weight of each modality over the steps at which it is there, 0 for an absent one: (B, 3) float32."""
        weights = self.weights.float()
        return weights.sum(dim=1) / (weights > 0).sum(dim=1).clamp(min=1)


@dataclass(frozen=True)
class Spec:
    """What the data decides about a model: names of the K dimensions, channels of each modality's sequence ("vision",
    "audio", "text") and of the shared space ("embed"), names of each modality's quality signals."""

    label_names: list[str]
    widths: dict[str, int]
    quality: dict[str, list[str]]

    @classmethod
    def of(cls, info: dict) -> "Spec":
        """From a features.json or a model's config.json."""
        return cls(list(info["label_names"]), dict(info["widths"]), {k: list(v) for k, v in info["quality"].items()})


class FusionModel(nn.Module):
    """Base of fusion models: `forward(batch)` takes what `features.collate` gives and returns an Output.

    `reads` names the modalities that the architecture has a place for; the others count as missing.
    """

    Options: ClassVar[type] = FusionOptions
    reads: ClassVar[tuple[str, ...]] = MODALITIES

    def __init__(self, options, spec: Spec):
        super().__init__()
        if not set(options.modalities) & set(self.reads):
            own = " and ".join(self.reads)
            raise UserError(f"modalities holds {', '.join(options.modalities)}, but this model reads {own} alone")
        self.options, self.spec = options, spec
        self.dimensions = len(spec.label_names)
        for name in MODALITIES:
            widths = {"x": spec.widths[name], "quality": len(spec.quality[name]), "pooled": spec.widths["embed"]}
            for key, width in widths.items():
                self.register_buffer(f"{name}_{key}_mean", torch.zeros(width))
                self.register_buffer(f"{name}_{key}_scale", torch.ones(width))

    @torch.no_grad()
    def fit_statistics(self, samples: list[dict]) -> None:
        """Store mean and deviation of every input channel over the real steps of `samples` (the training split), and
        let subclasses start from the mean label."""
        keys = {"x": "sequence", "quality": "quality", "pooled": "pooled"}
        for name in MODALITIES:
            for key, stored in keys.items():
                mean = getattr(self, f"{name}_{key}_mean")
                total, square, count = torch.zeros_like(mean).double(), torch.zeros_like(mean).double(), 0
                for sample in samples:
                    if not len(sample[name]["sequence"]):
                        continue
                    values = torch.tensor(sample[name][stored], dtype=torch.float64).reshape(-1, len(mean))  # (T, C)
                    total += values.sum(0)
                    square += values.square().sum(0)
                    count += len(values)
                if count:
                    centre = total / count
                    deviation = (square / count - centre.square()).clamp(min=0).sqrt()
                    mean.copy_(centre)
                    # A channel that never varies says nothing, so it is left small rather than blown up.
                    getattr(self, f"{name}_{key}_scale").copy_(1 / deviation.clamp(min=1e-3))
        labels = torch.tensor([sample["labels"].tolist() for sample in samples], dtype=torch.float64)  # (N, K)
        self.start_from(labels.nanmean(0).nan_to_num(0.5).clamp(0.01, 0.99).float())

    def start_from(self, mean_label: Tensor) -> None:
        """Set the output bias so that the untrained model predicts about `mean_label` (K,)."""

    def inputs(self, batch: dict) -> dict[str, dict[str, Tensor]]:
        """Per modality: x (B, T, C), quality (B, T, Q), pooled (B, D) normalised and zero where absent, mask (B, T),
        times (B, T), present (B,). Absent are modalities outside `options.modalities` or `reads` and, in training, some
        at random."""
        visible = self._visible(batch)  # (B, 3)
        result = {}
        for m, name in enumerate(MODALITIES):
            part = batch[name]
            present = visible[:, m]  # (B,)
            mask = part["mask"] & present[:, None]  # (B, T)
            result[name] = {
                "x": self._normalised(name, "x", part["x"], mask[..., None]),  # (B, T, C)
                "quality": self._normalised(name, "quality", part["quality"], mask[..., None]),  # (B, T, Q)
                "pooled": self._normalised(name, "pooled", part["pooled"], present[:, None]),  # (B, D)
                "mask": mask,
                "times": part["times"],
                "present": present,
            }
        return result

    def _normalised(self, name: str, key: str, values: Tensor, real: Tensor) -> Tensor:
        mean, scale = getattr(self, f"{name}_{key}_mean"), getattr(self, f"{name}_{key}_scale")
        # One broken channel must not drown the others. In place: these are the largest tensors of a step.
        return (values - mean).mul_(scale).clamp_(-10, 10).mul_(real)

    def _visible(self, batch: dict) -> Tensor:
        """bool (B, 3): present, read, allowed by the configuration, and not hidden by modality dropout."""
        present = torch.stack([batch[name]["present"] for name in MODALITIES], dim=1)  # (B, 3)
        seen = set(self.options.modalities) & set(self.reads)
        allowed = torch.tensor([name in seen for name in MODALITIES], device=present.device)  # (3,)
        present = present & allowed
        return drop_modalities(present, self.options.modality_dropout) if self.training else present


def even_weights(inputs: dict) -> tuple[Tensor, Tensor]:
    """What a model that weighs nothing reports of its `inputs`: weights (B, 1, 3), equal over the modalities present,
    and step_mask (B, 1)."""
    present = torch.stack([inputs[name]["present"] for name in MODALITIES], dim=1)  # (B, 3)
    weights = present / present.sum(dim=1, keepdim=True).clamp(min=1)  # (B, 3)
    return weights[:, None], present.any(dim=1, keepdim=True)


def clipped(x: Tensor) -> Tensor:
    """float32 x limited to [0, 1], with the gradient of x itself: for systems that learn a linear output and clip it
    afterwards. (Clamp alone has no gradient outside, and what has left [0, 1] would stay there.)"""
    x = x.float()
    return x.clamp(0, 1).detach() + (x - x.detach())


def drop_modalities(present: Tensor, rate: float) -> Tensor:
    """Hide each present modality of each row with chance `rate`, but never the last one: bool (B, 3) -> bool (B, 3).

    Draws from torch's generator, which the trainer seeds at every step.
    """
    if rate == 0:
        return present
    draw = torch.rand(present.shape, device=present.device)  # (B, 3)
    kept = present & (draw >= rate)
    luckiest = nn.functional.one_hot(draw.masked_fill(~present, -1).argmax(dim=1), 3).bool()  # (B, 3)
    return torch.where(kept.any(dim=1, keepdim=True), kept, present & luckiest)
