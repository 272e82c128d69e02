"""End-to-end training: towers of the aligned encoders train together with the fusion model.

A tuned modality takes its mask, times and quality signals from the feature dataset. Its sequence and its pooled
embedding come from its tower, which runs on the raw input in the clip dataset that the features were made from.
Damaged views are damaged again in the same way (data/damaged_views.py).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from shared.dataset.clip_dataset import ClipDataset
from shared.dataset.training_clips import TrainingClips, TrainingSource, fingerprints
from shared.errors import UserError
from stage1_align.encoders import AlignedEncoders
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.batches import Batch, ModalityBatch, PackedSamples
from stage2_fusion.data.damaged_views import damaged_view, raw_input
from stage2_fusion.data.encoding import waveform_rate
from stage2_fusion.data.feature_info import FeatureInfo
from stage2_fusion.data.features import read_clips
from stage2_fusion.models.base import FusionModel, Output
from stage2_fusion.models.model_config import FusionConfig

if TYPE_CHECKING:
    from stage1_align import Encoded


class MakeBatch(Protocol):
    """Builds the batch of the samples with these indices."""

    def __call__(self, rows: Sequence[int] | np.ndarray, device: torch.device | str | None = None) -> Batch: ...


class EndToEndModel(nn.Module):
    """A fusion model on top of trainable towers. `forward` takes batches of `RawInputs.batches`.

    In training, towers run in full precision. In evaluation mode, they run and their output is rounded as in `emit
    encode`, so validation gives the same results as `emit predict`.
    """

    encoders: AlignedEncoders

    def __init__(
        self,
        fusion: FusionModel,
        encoders: AlignedEncoders,
        blocks: Mapping[str, int | None],
        precision: str,
        max_sequence_steps: int,
        frames: int = 0,
    ):
        """blocks: modality to the number of last blocks of its tower that train, None for the whole tower. precision:
        fp32 or bf16, as `emit encode` ran the encoders. max_sequence_steps: longer sequences are averaged over time to
        this many steps. frames: frames of a clip for the vision tower in training, 0: all."""
        super().__init__()
        self.fusion, self.dimensions = fusion, fusion.dimensions
        self.precision, self.max_sequence_steps, self.frames = precision, max_sequence_steps, frames
        self.towers = nn.ModuleDict({name: encoders.tower(name) for name in blocks})
        self.__dict__["encoders"] = encoders  # not a submodule: its other towers do not belong to this model
        for name, tower in encoders.towers().items():
            if name in blocks:
                _unfreeze(name, tower, blocks[name])
            else:
                tower.requires_grad_(False)
        for parameter in self.towers.parameters():
            parameter.data = parameter.data.contiguous()

    def forward(self, batch: Batch) -> Output:
        assert batch.raw is not None
        live: dict[str, Any] = {}
        for name, tower in self.towers.items():
            live[name] = self._run_tower(tower, batch.modality(name), **batch.raw[name])
            if self.training:
                self.fusion.follow_statistics(name, live[name])
        return self.fusion(replace(batch, **live))

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that take no weight decay; see FusionModel."""
        return {f"fusion.{name}" for name in self.fusion.no_weight_decay()}

    def save_pretrained(self, folder: Path, config: FusionConfig, metrics: dict[str, Any]) -> None:
        """Write the model folder, with the encoders as they are now."""
        self.fusion.save_pretrained(folder, config, metrics, self.encoders)

    def with_saved(self, fusion: FusionModel) -> "EndToEndModel":
        """A frozen model of the same kind: a loaded fusion model on top of the encoders in its folder."""
        assert fusion.folder is not None
        encoders = AlignedEncoders.from_pretrained(fusion.folder / "encoders")
        blocks = dict.fromkeys(self.towers, 0)
        model = EndToEndModel(fusion, encoders, blocks, self.precision, self.max_sequence_steps)
        return model.eval().requires_grad_(False)

    def freeze_unread(self, batch: Batch) -> None:
        """Freeze tower parameters that get no gradient, such as the projection into the shared space if the model does
        not read pooled embeddings: DDP waits for a gradient of every parameter that requires one."""
        output = self.eval()(batch)
        sum(part.nan_to_num().sum() for part in (output.prediction, output.weights)).backward()
        for parameter in self.towers.parameters():
            parameter.requires_grad_(parameter.grad is not None)
        self.zero_grad()

    def _run_tower(self, tower: Any, part: ModalityBatch, inputs: dict[str, Tensor], rows: Tensor) -> ModalityBatch:
        """`part` with x (B, T, C) and pooled (B, D) of the tower. inputs: the tower inputs of the distinct items. rows:
        int64 (B,), the item of each clip."""
        if self.training and self.frames and "frames" in inputs:
            chosen = one_per_part(inputs["mask"], self.frames)  # (B', T')
            encoded = interpolated(tower.forward_whole(**inputs, chosen=chosen), inputs["mask"])
        elif self.training:
            encoded = tower.forward_whole(**inputs)
        else:
            with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
                encoded = tower.forward_whole(**inputs)
        mask = encoded.mask[rows]  # (B, T')
        steps = self._round(encoded.sequence[rows][mask])  # (N, C), N = real steps of all clips
        lengths, stored_lengths = mask.sum(1), part.mask.sum(1)  # (B,)
        if not torch.equal(lengths.clamp(max=self.max_sequence_steps), stored_lengths):
            raise UserError(
                f"a tower gives {lengths.tolist()} steps where the features hold {stored_lengths.tolist()}; "
                "run `emit encode` again with these encoders and clips"
            )
        if int(lengths.max()) > self.max_sequence_steps:
            steps = self._round(average_runs(steps, lengths.tolist(), self.max_sequence_steps))  # (N', C)
        x = steps.new_zeros(*part.mask.shape, steps.shape[1])  # (B, T, C)
        x = x.masked_scatter(part.mask[..., None], steps)  # (B, T, C)
        # The stored features may have more channels after the tower's: action units.
        x = torch.cat([x, part.x[..., steps.shape[1] :]], dim=-1)  # (B, T, C + U)
        return replace(part, x=x, pooled=self._round(encoded.pooled[rows]))

    def _round(self, x: Tensor) -> Tensor:
        """In evaluation mode, round to float16, as features are stored."""
        return x.float() if self.training else x.half().float()


def _unfreeze(name: str, tower: Any, count: int | None) -> None:
    total = len(tower.blocks())
    if count is not None and count > total:
        raise UserError(f"--finetune.{name} is {count}: this tower has {total} blocks; give 0 to {total}, or all")
    tower.freeze(count)


def average_runs(steps: Tensor, lengths: list[int], max_steps: int) -> Tensor:
    """Average consecutive steps of sequences longer than max_steps, like `features.shorten`. steps: (N, C),
    concatenated sequences of these lengths. Returns (N', C)."""
    runs, first = [], 0
    for length in lengths:
        count = min(length, max_steps)
        edges = np.linspace(0, length, count + 1).round().astype(int)[:-1]  # (count,)
        runs.append(first + np.searchsorted(edges, np.arange(length), side="right") - 1)
        first += count
    run = torch.from_numpy(np.concatenate(runs)).to(steps.device)  # (N,)
    total = steps.new_zeros(first, steps.shape[1]).index_add(0, run, steps)  # (N', C)
    return total / torch.bincount(run, minlength=first)[:, None]


def one_per_part(mask: Tensor, count: int) -> Tensor:
    """One random real step from each of `count` equal parts of every row; all steps of a row with no more than that.
    mask: bool (B, T), real steps first. Draws from torch's generator, which the trainer seeds at every step."""
    lengths = mask.sum(1, keepdim=True)  # (B, 1)
    edges = torch.arange(count + 1, device=mask.device) * lengths // count  # (B, count + 1)
    draw = torch.rand(len(mask), count, device=mask.device, dtype=torch.float64)  # (B, count)
    place = edges[:, :-1] + (draw * edges.diff(dim=1)).long()  # (B, count)
    chosen = torch.zeros_like(mask).scatter(1, place.clamp(max=mask.shape[1] - 1), True)  # (B, T)
    return torch.where(lengths > count, chosen, mask) & mask


def interpolated(encoded: "Encoded", mask: Tensor) -> "Encoded":
    """The sequence at all real steps of mask (B, T), interpolated linearly between the steps of `encoded.mask`, and
    constant before the first and after the last. `encoded.mask` has a step in every row with a real step."""
    known, count = encoded.mask, mask.shape[1]
    step = torch.arange(count, device=mask.device).expand_as(mask)  # (B, T)
    before = torch.where(known, step, -1).cummax(1).values  # (B, T), the known step at or before each; -1: none
    after = torch.where(known, step, count).flip(1).cummin(1).values.flip(1)  # (B, T), at or after; T: none
    before, after = before.where(before >= 0, after), after.where(after < count, before)  # (B, T), (B, T)
    weight = (step - before) / (after - before).clamp(min=1)  # (B, T), of the step after
    left, right = (
        encoded.sequence.gather(1, at.clamp(0, count - 1)[..., None].expand_as(encoded.sequence))
        for at in (before, after)
    )  # (B, T, C), (B, T, C)
    return replace(
        encoded, sequence=torch.lerp(left, right, weight[..., None].to(left.dtype)) * mask[..., None], mask=mask
    )


class RawInputs:
    """The encoders to tune, and the clips that they encode. UserError when the features come from other ones."""

    def __init__(self, config: FuseConfig, info: FeatureInfo):
        self.blocks, self.info, self.max_sequence_steps = config.tuned_blocks, info, config.train.max_sequence_steps
        self.frames = config.train.finetune_frames
        if info.encoders.given:
            given = " and ".join(info.encoders.given)
            raise UserError(
                f"{config.data}: its features of {given} are given, not computed by encoders, so no tower can "
                "train; leave out --finetune"
            )
        if config.encoders is None and not Path(info.encoders.path).is_dir():
            raise UserError(f"{config.data}: its encoders are no longer at {info.encoders.path}; give --encoders")
        self.encoders = AlignedEncoders.from_pretrained(config.encoders or Path(info.encoders.path), frozen=False)
        if self.frames and "chosen" not in signature(self.encoders.tower("vision").forward).parameters:
            raise UserError("--train.finetune_frames: the vision tower has no argument `chosen`; leave the option out")
        self.clips = ClipDataset.open(config.clips or Path(info.data.path))
        for what, digest, expected, option in (
            ("encoders", self.encoders.digest, info.encoders.digest, "--encoders"),
            ("clips", self.clips.digest, info.data.digest, "--clips"),
        ):
            if digest != expected:
                raise UserError(
                    f"{config.data}: made with other {what} ({expected}, these are {digest}); give {option}"
                )
        self.row_of = {clip_id: row for row, clip_id in enumerate(self.clips.column("id"))}
        self.encoders.training_clips = self._with_tuning_clips(config)
        self.transcripts = self.clips.column("transcript") if "text" in self.blocks else []

    def _with_tuning_clips(self, config: FuseConfig) -> TrainingClips | None:
        """The training clips of the encoders after tuning; None if those before tuning are unknown."""
        if self.encoders.training_clips is None:
            return None
        split_of = {clip.id: clip.split for clip in read_clips(config.data)}
        splits, own = np.array([split_of.get(name, "") for name in self.row_of], dtype=object), fingerprints(self.clips)
        trained, chosen = (own[(splits == name) | (name == "")] for name in (config.train_split, config.valid_split))
        source = TrainingSource(str(self.clips.path), "clips", config.train_split, len(trained))
        return self.encoders.training_clips.join(TrainingClips.of(trained, chosen, [source]))

    def wrap(self, fusion: FusionModel) -> EndToEndModel:
        """The fusion model on top of its towers."""
        return EndToEndModel(
            fusion, self.encoders, self.blocks, self.info.precision, self.max_sequence_steps, self.frames
        )

    def batches(self, packed: PackedSamples) -> MakeBatch:
        """The batches of `packed` with `raw`: modality to {"inputs": collated for its tower, "rows": int64 (B,)}. Rows
        with the same input, such as a clip and a view with damage to another modality, share one encoding."""

        def make_batch(rows: Sequence[int] | np.ndarray, device: torch.device | str | None = None) -> Batch:
            samples = [packed.samples[row] for row in rows]
            raw = {}
            for name in self.blocks:
                keys = [(sample.id, sample.view if sample.damage[name] else 0) for sample in samples]
                index = {key: i for i, key in enumerate(dict.fromkeys(keys))}
                inputs = self.encoders.tower(name).collate_whole([self._raw_input(name, *key) for key in index])
                raw[name] = {"inputs": inputs, "rows": torch.tensor([index[key] for key in keys])}
            batch = replace(packed(rows), raw=raw)
            return batch if device is None else batch.to(device)

        return make_batch

    def _raw_input(self, name: str, clip_id: str, view: int) -> Any:
        """Frames, waveform or transcript of a clip: undamaged (view 0), or damaged in this view."""
        row = self.row_of[clip_id]
        if not view and name == "text":
            return self.transcripts[row]
        rate = waveform_rate(self.encoders, self.clips.sample_rates)
        if not view and name == "audio":
            return self.clips.waveform(row, rate)
        # The damaged modality was drawn from those present, so all are loaded; one frame shows that vision is present.
        clip = self.clips.clip(row, None if name == "vision" else lambda count: range(min(1, count)))
        clip = replace(clip, waveform=self.clips.waveform(row, rate))
        return raw_input(damaged_view(clip, view, rate, self.info.seed, None).clip if view else clip, name)
