"""An epoch of stage 2, after the first one of a run.

ours      `emit fuse` on a feature dataset with everything it does: averaged weights, validation, checkpoints, the model
          folder
baseline  the same model in a loop as published systems write it: a Dataset that loads a pickle for each clip and
          modality, a DataLoader with its defaults, fp32, AdamW with its defaults, validation after each epoch, and
          PyTorch's own layers where ours are faster: packed sequences into nn.LSTM, nn.Conv1d, nn.Dropout

Both have the same clips, batch size, loss, learning rates and clipping, and compute the same function.
"""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from benchmarks.bench import limits
from benchmarks.bench.pickled_clips import NAMES, STEPS, PickledClips, feature_info, make_batch, write_clips
from benchmarks.bench.row import Bench, Measured, Row, Watch, watch, with_limit
from torch import Tensor, nn
from torch.utils.data import DataLoader

from shared import config as configuration
from shared.metrics import score
from shared.training.schedule import cosine_with_warmup
from stage2_fusion import trainer
from stage2_fusion.config import FuseConfig, LossConfig
from stage2_fusion.data.batches import Batch
from stage2_fusion.inference import best_device
from stage2_fusion.losses import FusionLoss, LossInputs
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.temporal import TCN, GatedBiLSTM
from stage2_fusion.report.speed_file import Timing
from stage2_fusion.train import train

LR, DECAY, CLIP = 1e-3, 0.05, 1.0
EPOCHS, BATCH = 3, 32
MODEL = {"width": 64, "dropout": 0.3, "normalizer": "sigmoid", "pooled": False}


def folder_of(bench: Bench) -> Path:
    return write_clips(bench.folder / "pickled", bench.size.train_clips)


def ours(bench: Bench) -> Measured:
    run = bench.folder / "fuse"
    shutil.rmtree(run, ignore_errors=True)
    values = {"data": folder_of(bench) / "features", "run": run, "model": "dual_stage", "options": json.dumps(MODEL)}
    values |= {"train.epochs": EPOCHS, "train.batch_size": BATCH, "train.patience": EPOCHS, "train.trackers": []}
    values |= {"train.mixed_precision": "no", "train.warmup_fraction": 1 / EPOCHS, "train.damaged_views": "false"}
    values |= {"train.lr": LR, "train.weight_decay": DECAY, "train.max_grad_norm": CLIP}
    words = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    epochs, validate = Epochs(), trainer.validate

    def timed(*args: Any) -> Any:
        metrics = validate(*args)
        epochs.end()
        return metrics

    trainer.validate = timed
    try:
        model = train(configuration.parse(FuseConfig, words, prog="emit fuse", example=""))
    finally:
        trainer.validate = validate
    pcc = json.loads((model / "metrics.json").read_text())["valid"]["pcc"]["mean"]
    return with_limit(epochs.timing(bench, pcc), products_and_lstm(bench))


def baseline(bench: Bench) -> Measured:
    torch.manual_seed(0)
    valid_clips, train_clips = (PickledClips(folder_of(bench), split) for split in ("valid", "train"))
    model = FusionModel.build("dual_stage", MODEL, FeatureSpec.of(feature_info()))
    model.init_output_bias(torch.tensor(train_clips.labels().mean(axis=0)).clamp(0.01, 0.99))
    use_stock_layers(model)
    model.to(best_device())
    train_loader = DataLoader(train_clips, BATCH, shuffle=True, drop_last=True)
    valid_loader = DataLoader(valid_clips, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)
    per_epoch = len(train_loader)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_with_warmup(step, per_epoch * EPOCHS, per_epoch)
    )
    criterion, epochs, best = FusionLoss(LossConfig(), len(NAMES)).to(best_device()), Epochs(), -1.0
    for epoch in range(EPOCHS):
        model.train()
        for step, items in enumerate(train_loader):
            loss = loss_of(model, criterion, items, epoch + step / per_epoch)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            scheduler.step()
            loss.item()
        model.eval()
        with torch.no_grad():
            predictions = torch.cat([model(batch_of(items)).prediction.cpu() for items in valid_loader])  # (N, K)
        best = max(best, score(predictions.numpy(), valid_clips.labels(), NAMES, resamples=0).pcc.mean)
        epochs.end()
    return Measured(epochs.timing(bench, best))


class Epochs:
    """A watch over the epochs after the first one: from the end of a validation to that of the last."""

    def __init__(self) -> None:
        self.clock, self.ended = Watch(), 0

    def end(self) -> None:
        if self.ended:
            self.clock.stop()
        self.clock.start()
        self.ended += 1

    def timing(self, bench: Bench, pcc: float) -> Timing:
        return self.clock.timing((self.ended - 1) * bench.size.train_clips, note=f"best PCC {pcc:.4f}")


def loss_of(model: FusionModel, criterion: FusionLoss, items: dict[str, Tensor], epoch: float) -> Tensor:
    batch = batch_of(items)
    output = model(batch)
    inputs = LossInputs(output.prediction, batch.labels, output.clip_weights(), batch.damaged.bool())
    return criterion(inputs, paired=False, epoch=epoch)["loss"]


def batch_of(items: dict[str, Tensor]) -> Batch:
    return make_batch(items).to(best_device())


def products_and_lstm(bench: Bench) -> Timing:
    """What a batch's products, forward and backward, take at the rate of torch.mm, and nn.LSTM alone."""
    model = FusionModel.build("dual_stage", MODEL, FeatureSpec.of(feature_info())).to(best_device())
    clips = PickledClips(folder_of(bench), "train")
    items = torch.utils.data.default_collate([clips[i % len(clips)] for i in range(BATCH)])
    criterion = FusionLoss(LossConfig(), len(NAMES)).to(best_device())
    flops = limits.count_flops(lambda: loss_of(model, criterion, items, 0.0).backward())
    timing = limits.products(bench, flops, BATCH, bf16=False)
    for lstm in (module for module in model.modules() if isinstance(module, nn.LSTM)):
        x = torch.randn(BATCH, STEPS, lstm.input_size, device=best_device(), requires_grad=True)  # (B, T, d)
        lstm(x)[0].sum().backward()
        with watch() as clock:
            for _ in range(3):
                lstm(x)[0].sum().backward()
        timing.wall += clock.wall / 3
        timing.cpu += clock.cpu / 3
    return timing


class StockTCN(TCN):
    """The TCN with nn.Conv1d."""

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        real = mask[..., None].to(x.dtype)
        x = x * real
        for norm, conv, pointwise in zip(self.norms, self.convs, self.pointwise, strict=True):
            y = conv((norm(x) * real).transpose(1, 2)).transpose(1, 2)
            x = (x + self.dropout(pointwise(nn.functional.gelu(y)))) * real
        return x


class StockBiLSTM(GatedBiLSTM):
    """The BiLSTM with packed sequences."""

    def _states(self, x: Tensor, mask: Tensor) -> Tensor:
        lengths = mask.sum(dim=1).clamp(min=1)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]


def use_stock_layers(model: FusionModel) -> None:
    """Replace the layers of stage2_fusion.models.layers that are faster on a CPU by PyTorch's own."""
    model.tcn.__class__, model.bilstm.__class__ = StockTCN, StockBiLSTM
    for module in model.modules():
        if isinstance(module, Dropout):
            module.__class__ = nn.Dropout


ROW = Row(
    "stage-2 epoch",
    "clips/s",
    ours,
    baseline,
    "the model with PyTorch's layers in a plain loop over pickles",
    "its products at the rate of torch.mm and nn.LSTM alone; without validation",
    folder_of,
)
