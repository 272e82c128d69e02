"""End to end: towers of the aligned encoders that train along with the fusion model.

A tuned modality takes mask, times and quality signals from the feature dataset, like any other, but its sequence and
its embedding from its tower, run on the raw input of the clip dataset that the features were made from. What was
damaged on purpose is damaged again in the same way (encode.damaged_view).
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from shared.errors import UserError
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.batches import PackedSamples
from stage2_fusion.data.damaged_views import RAW, damaged_view
from stage2_fusion.models.model_config import FusionConfig


class Tuned(nn.Module):
    """A fusion model on top of live towers. forward(batch of `RawInputs`) -> Output of the fusion model.

    In evaluation mode a tower runs, and its output is rounded, as `emit encode` would do it, so that validation gives
    what `emit predict` gives.
    """

    def __init__(self, fusion: nn.Module, encoders, blocks: dict[str, int], info: dict, max_steps: int):
        super().__init__()
        self.fusion, self.dimensions = fusion, fusion.dimensions
        self.towers = nn.ModuleDict({name: encoders.tower(name) for name in blocks})
        self.info, self.max_steps = info, max_steps
        self.__dict__["encoders"] = encoders  # the towers that do not train are no part of this model
        for tower in encoders.towers().values():
            if tower not in self.towers.values():
                tower.requires_grad_(False)
        for name, tower in self.towers.items():
            tower.freeze(blocks[name])
            for parameter in tower.parameters():
                parameter.data = parameter.data.contiguous()

    def forward(self, batch: dict):
        live = {name: self._live(tower, batch[name], **batch["raw"][name]) for name, tower in self.towers.items()}
        return self.fusion(replace(batch, **live))

    def save_pretrained(self, folder: Path, config: FusionConfig, metrics: dict[str, Any]) -> None:
        """Write the model folder with the encoders as they are now."""
        self.fusion.save_pretrained(folder, config, metrics, self.encoders)

    def freeze_unread(self, batch: dict) -> None:
        """Freeze what no gradient reaches, such as the way into the shared space under a model that does not read
        embeddings: DDP waits for every parameter that trains."""
        output = self.eval()(batch)
        sum(part.nan_to_num().sum() for part in (output.prediction, output.weights)).backward()
        for parameter in self.towers.parameters():
            parameter.requires_grad_(parameter.grad is not None)
        self.zero_grad()

    def _live(self, tower, part: dict, inputs: dict[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
        """`part` of a batch with the tower's own x (B, T, C) and pooled (B, D). inputs: of E distinct items; rows int64
        (B,): which of them each clip has."""
        if self.training:
            encoded = tower(**inputs)
        else:
            with torch.autocast(rows.device.type, torch.bfloat16, enabled=self.info["precision"] == "bf16"):
                encoded = tower(**inputs)
        mask = encoded.mask[rows]  # (B, T')
        steps, pooled = self._rounded(encoded.sequence[rows][mask]), self._rounded(encoded.pooled[rows])  # (N, C)
        found, wanted = mask.sum(1), part["mask"].sum(1)  # (B,)
        if not torch.equal(found.clamp(max=self.max_steps), wanted):
            raise UserError(
                f"a tower gives {found.tolist()} steps where the features hold {wanted.tolist()}; "
                "run `emit encode` again with these encoders and clips"
            )
        if int(found.max()) > self.max_steps:
            steps = self._rounded(averaged(steps, found.tolist(), self.max_steps))
        x = steps.new_zeros(*part["mask"].shape, steps.shape[1])  # (B, T, C)
        x = x.masked_scatter(part["mask"][..., None], steps)
        # What follows the tower's channels in the features, action units, is as it is.
        return replace(part, x=torch.cat([x, part["x"][..., steps.shape[1] :]], dim=-1), pooled=pooled)

    def _rounded(self, x: Tensor) -> Tensor:
        return x.float() if self.training else x.half().float()


def averaged(steps: Tensor, lengths: list[int], max_steps: int) -> Tensor:
    """Rows of these lengths, one after the other (N, C), as `features.shorten` leaves them: (M, C)."""
    runs, first = [], 0
    for length in lengths:
        count = min(length, max_steps)
        edges = np.linspace(0, length, count + 1).round().astype(int)[:-1]
        runs.append(first + np.searchsorted(edges, np.arange(length), side="right") - 1)
        first += count
    run = torch.from_numpy(np.concatenate(runs)).to(steps.device)  # (N,)
    total = steps.new_zeros(first, steps.shape[1]).index_add(0, run, steps)  # (M, C)
    return total / torch.bincount(run, minlength=first)[:, None]


class RawInputs:
    """Encoders to tune, and the clips they hear and read. UserError when either is not that of the features."""

    def __init__(self, config: FuseConfig, info: dict):
        from shared.dataset.clip_dataset import ClipDataset
        from stage1_align.encoders import AlignedEncoders

        self.blocks, self.info, self.max_steps = config.finetune, info, config.train.max_sequence_steps
        self.encoders = AlignedEncoders.from_pretrained(config.encoders or Path(info["encoders"]["path"]), frozen=False)
        self.clips = ClipDataset.open(config.clips or Path(info["data"]["path"]))
        for what, mine, theirs, option in (
            ("encoders", self.encoders.digest, info["encoders"]["digest"], "--encoders"),
            ("clips", self.clips.digest, info["data"]["digest"], "--clips"),
        ):
            if mine != theirs:
                raise UserError(f"{config.data}: made with other {what} ({theirs}, these are {mine}); give {option}")
        self.row = {name: row for row, name in enumerate(self.clips.column("id"))}
        self.texts = self.clips.column("transcript") if "text" in self.blocks else []

    def under(self, fusion: nn.Module) -> Tuned:
        """The fusion model with its towers."""
        return Tuned(fusion, self.encoders, self.blocks, self.info, self.max_steps)

    def of(self, batches: PackedSamples) -> Callable[[np.ndarray, object], dict]:
        """The same batches with {"raw": {modality: {"inputs": what the tower collates, "rows": int64 (B,)}}}. Rows that
        share an input, as a clip and a view damaged elsewhere do, share its encoding."""

        def batch_of(rows: np.ndarray, device=None) -> dict:
            batch = replace(batches(rows), raw={})
            samples = [batches.samples[row] for row in rows]
            for name in self.blocks:
                keys = [(sample["id"], sample["view"] if sample["damage"][name] else 0) for sample in samples]
                place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
                inputs = self.encoders.tower(name).collate([self._item(name, *key) for key in place])
                batch["raw"][name] = {"inputs": inputs, "rows": torch.tensor([place[key] for key in keys])}
            return batch if device is None else batch.to(device)

        return batch_of

    def _item(self, name: str, clip: str, view: int):
        """The raw input of one modality of a clip as it is (view 0), or of a view in which it was damaged."""
        row = self.row[clip]
        if not view and name == "text":
            return self.texts[row]
        rate = self.encoders.audio.sample_rate
        if not view and name == "audio":
            return self.clips.waveform(row, rate)
        # Which modality was damaged, and how, was drawn from those that were there: one picture says that some were.
        whole = self.clips.clip(row, None if name == "vision" else lambda count: range(min(1, count)))
        whole = replace(whole, waveform=self.clips.waveform(row, rate))
        return getattr(damaged_view(whole, view, rate, self.info["seed"]).clip if view else whole, RAW[name])
