"""Seconds per epoch of stage 2, against a plain PyTorch loop, and the PCC that both reach.

    python tests/benchmarks/fusion_speed.py                          3 epochs, 3 rounds
    python tests/benchmarks/fusion_speed.py --epochs 30 --turns 1    a whole training

ours    stage2_fusion.train on a feature dataset with everything it does: averaged weights, validation, checkpoints, the
        model folder
plain   the same model in a loop as published systems write it: a Dataset that loads a pickle for each clip and
        modality, a DataLoader with its defaults, fp32, AdamW with its defaults, validation after each epoch
stock   as plain, with PyTorch's own layers where ours are faster: packed sequences into nn.LSTM, nn.Conv1d, nn.Dropout;
        it computes the same function

All have the same clips, batch size, loss, learning rates and clipping. Clips are synthetic: vision and audio of 64
steps x 512, text of 512, half precision, labels partly hidden in noise. Every measurement is a process of its own, and
the sides take turns, so that a busy machine slows all alike; imports are not counted. An epoch is the time between the
ends of two validations, so that one-time work (reading the feature dataset) counts in "whole run" only.
"""

import contextlib
import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.metrics import score
from shared.training.schedule import cosine_with_warmup
from stage2_fusion import trainer
from stage2_fusion.config import FuseConfig, LossConfig
from stage2_fusion.data.batches import Batch, ModalityBatch
from stage2_fusion.data.feature_info import DataInfo, EncoderInfo, FeatureInfo
from stage2_fusion.data.features import FeatureSample, ModalityFeatures, write
from stage2_fusion.losses import FusionLoss, LossInputs
from stage2_fusion.models.base import FeatureSpec, FusionModel
from stage2_fusion.models.layers.dropout import Dropout
from stage2_fusion.models.layers.temporal import TCN, GatedBiLSTM
from stage2_fusion.train import train

STEPS, WIDTH, NAMES = 64, 512, ["a", "b", "c", "d", "e", "f"]
DURATION = 6.4
SIDES = ("ours", "plain", "stock")
LR, DECAY, CLIP, WARMUP_EPOCHS = 1e-3, 0.05, 1.0, 1
MODEL = {"width": 64, "dropout": 0.3, "normalizer": "sigmoid", "pooled": False}

Clock = tuple[float, float]
"""Wall and CPU seconds."""


@dataclass
class FusionSpeedConfig:
    """Measure the training of stage 2 on this machine's CPU."""

    clips: int = 8072
    """Training clips: as many as Hume-Vidmimic2 has."""
    held_out: int = 1024
    """Clips that all sides are scored on after each epoch."""
    epochs: int = 3
    """Epochs of a run; the first is not counted. 30 for a whole training."""
    turns: int = 3
    """Runs of each side; the sides take turns."""
    batch: int = 32
    """Clips per step."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """--train.mixed_precision of ours; auto is bf16 where the hardware is fast at it."""
    threads: int = 0
    """Threads of each run; 0: as many as there are cores."""
    folder: Path | None = None
    """Folder for the clips, which are reused; by default a temporary folder (2.5 GB)."""
    only: str = ""
    """One side, printed as JSON: the script starts itself with this."""


def main(argv: list[str] | None = None) -> int:
    example = "python tests/benchmarks/fusion_speed.py --epochs 3"
    config = configuration.parse(FusionSpeedConfig, argv, prog="fusion_speed.py", example=example)
    if config.only:
        print(json.dumps(measure(config)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.folder or Path(temporary)
        write_clips(folder, config.clips, config.held_out)
        turns = []
        for turn in range(config.turns):
            turns.append({side: run_side(config, folder, side) for side in SIDES})
            print(f"turn {turn + 1}: {json.dumps(turns[-1])}", file=sys.stderr, flush=True)
    print(f"{config.clips} clips, {config.epochs} epochs, {config.turns} turns: median (lowest to highest)\n")
    print("| side | seconds per epoch | / ours | CPU seconds per epoch | whole run / ours | best PCC |")
    print("|---|---|---|---|---|---|")
    for side in SIDES:
        cells = [spread([turn[side]["epoch"] for turn in turns], 1)]
        cells.append(spread([turn[side]["epoch"] / turn["ours"]["epoch"] for turn in turns], 2))
        cells.append(spread([turn[side]["cpu"] for turn in turns], 1))
        cells.append(spread([turn[side]["whole"] / turn["ours"]["whole"] for turn in turns], 2))
        cells.append(spread([turn[side]["pcc"] for turn in turns], 4))
        print(f"| {side} | {' | '.join(cells)} |")
    return 0


def spread(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def run_side(config: FusionSpeedConfig, folder: Path, side: str) -> dict[str, float]:
    options = {"only": side, "folder": folder}
    options |= {
        name: getattr(config, name) for name in ("clips", "held_out", "epochs", "batch", "precision", "threads")
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# --- clips ---------------------------------------------------------------------------------------------------------


def write_clips(folder: Path, clips: int, held_out: int) -> None:
    """folder/features for ours; folder/pickles/<id>_<modality>.pkl and folder/labels.pkl for the plain loop."""
    if (folder / "labels.pkl").exists():
        return
    (folder / "pickles").mkdir(parents=True)
    table: list[tuple[str, str, np.ndarray]] = []

    def samples() -> Iterator[FeatureSample]:
        for sample in synthetic_samples(clips, held_out):
            table.append((sample.id, sample.split, sample.labels))
            for name in MODALITIES:
                path = folder / "pickles" / f"{sample.id}_{name}.pkl"
                path.write_bytes(pickle.dumps(sample.modality(name).sequence))
            yield sample

    write(folder / "features", samples(), feature_info())
    (folder / "labels.pkl").write_bytes(pickle.dumps(table))


def synthetic_samples(clips: int, held_out: int) -> Iterator[FeatureSample]:
    rng = np.random.default_rng(0)
    directions = {name: rng.normal(0, 0.12, (len(NAMES), WIDTH)).astype(np.float32) for name in MODALITIES}
    for i in range(clips + held_out):
        latent = np.clip(rng.normal(0.2, 0.3, len(NAMES)), 0, 1).astype(np.float32)  # (K,)
        labels = np.clip(latent + rng.normal(0, 0.1, len(NAMES)), 0, 1).astype(np.float32)  # (K,)
        parts = {}
        for name, direction in directions.items():
            steps = 1 if name == "text" else STEPS
            active = rng.random((steps, 1), np.float32) > 0.5  # an expression comes and goes
            noise = rng.standard_normal((steps, WIDTH), np.float32)
            sequence = (noise + active * (latent @ direction)).astype(np.float16)  # (T, C)
            times = np.zeros(0, np.float32) if name == "text" else (np.arange(steps, dtype=np.float32) + 0.5) / 10
            parts[name] = ModalityFeatures(sequence, times, np.zeros(1, np.float16), np.ones((steps, 1), np.float32))
        split = "train" if i < clips else "valid"
        yield FeatureSample(f"{i:05d}", 0, split, DURATION, labels, {}, dict.fromkeys(MODALITIES, ""), **parts)


def feature_info() -> FeatureInfo:
    return FeatureInfo(
        label_names=NAMES,
        group_names=[],
        encoders=EncoderInfo("none", "none", {}),
        data=DataInfo("none", "none"),
        widths={**dict.fromkeys(MODALITIES, WIDTH), "embed": 1},
        quality={name: ["one"] for name in MODALITIES},
        views=0,
        seed=0,
        precision="fp32",
    )


# --- one run -------------------------------------------------------------------------------------------------------


def measure(config: FusionSpeedConfig) -> dict[str, float]:
    """Seconds and CPU seconds of an epoch, seconds of the whole run, and the best PCC on the held-out clips."""
    if config.threads:
        torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory() as run:
        side = train_ours if config.only == "ours" else train_plain
        side(config, Path(run) / "warm-up", warm_up=True)  # lazy imports are done when the clock starts
        began = time.perf_counter()
        ends, pcc = side(config, Path(run) / "run", warm_up=False)
        whole = time.perf_counter() - began
    walls, cpus = zip(*ends, strict=True)
    epochs = max(1, len(ends) - 1)
    return {"epoch": (walls[-1] - walls[0]) / epochs, "cpu": (cpus[-1] - cpus[0]) / epochs, "whole": whole, "pcc": pcc}


def now() -> Clock:
    return time.perf_counter(), time.process_time()


def train_ours(config: FusionSpeedConfig, run: Path, warm_up: bool) -> tuple[list[Clock], float]:
    """The end of each epoch, and the best PCC."""
    values = {"data": config.folder / "features", "run": run, "model": "dual_stage", "options": json.dumps(MODEL)}
    values |= {"train.epochs": config.epochs, "train.batch_size": config.batch, "train.patience": config.epochs}
    values |= {"train.mixed_precision": config.precision, "train.trackers": []}
    values |= {"train.warmup_fraction": WARMUP_EPOCHS / config.epochs}
    values |= {"train.lr": LR, "train.weight_decay": DECAY, "train.max_grad_norm": CLIP, "train.damaged_views": "false"}
    if warm_up:
        values |= {"train_split": "valid", "train.epochs": 1, "train.batch_size": config.held_out}
    words = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    ends, validate = [], trainer.validate

    def timed(*args: Any) -> Any:
        metrics = validate(*args)
        ends.append(now())
        return metrics

    trainer.validate = timed
    try:
        with contextlib.redirect_stdout(sys.stderr):
            folder = train(configuration.parse(FuseConfig, words, prog="emit fuse", example=""))
    finally:
        trainer.validate = validate
    return ends, json.loads((folder / "metrics.json").read_text())["valid"]["pcc"]["mean"]


class PickledClips(Dataset):
    """One pickle per clip and modality, loaded on every access."""

    def __init__(self, folder: Path, split: str):
        table = pickle.loads((folder / "labels.pkl").read_bytes())
        self.folder = folder
        self.rows = [(name, labels) for name, row_split, labels in table if row_split == split]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        name, labels = self.rows[index]
        item = {"labels": torch.from_numpy(labels)}  # (K,)
        for modality in MODALITIES:
            with (self.folder / "pickles" / f"{name}_{modality}.pkl").open("rb") as file:
                item[modality] = torch.from_numpy(pickle.load(file)).float()  # (T, C)
        return item

    def labels(self) -> np.ndarray:
        return np.stack([labels for _, labels in self.rows])  # (N, K)


def make_batch(items: dict[str, Tensor]) -> Batch:
    count, parts = len(items["labels"]), {}
    for modality in MODALITIES:
        x = items[modality]  # (B, T, C)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        times = ((torch.arange(x.shape[1]) + 0.5) / 10).expand(x.shape[:2])
        quality = torch.zeros(*x.shape[:2], 1)
        parts[modality] = ModalityBatch(x, mask, times, torch.zeros(count, 1), quality, mask[:, 0])
    return Batch([""] * count, torch.full((count,), DURATION), items["labels"], torch.zeros(count, 3), **parts)


def train_plain(config: FusionSpeedConfig, run: Path, warm_up: bool) -> tuple[list[Clock], float]:
    """As `train_ours`; with --only stock on PyTorch's own layers."""
    torch.manual_seed(0)
    valid_clips = PickledClips(config.folder, "valid")
    train_clips = valid_clips if warm_up else PickledClips(config.folder, "train")
    model = FusionModel.build("dual_stage", MODEL, FeatureSpec.of(feature_info()))
    model.init_output_bias(torch.tensor(train_clips.labels().mean(axis=0)).clamp(0.01, 0.99))
    if config.only == "stock":
        use_stock_layers(model)
    batch_size, epochs = (config.held_out, 1) if warm_up else (config.batch, config.epochs)
    train_loader = DataLoader(train_clips, batch_size, shuffle=True, drop_last=True)
    valid_loader = DataLoader(valid_clips, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)
    per_epoch = len(train_loader)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_with_warmup(step, per_epoch * epochs, per_epoch * WARMUP_EPOCHS)
    )
    criterion, ends, best = FusionLoss(LossConfig(), len(NAMES)), [], -1.0
    for epoch in range(epochs):
        model.train()
        for step, items in enumerate(train_loader):
            output = model(make_batch(items))
            undamaged = torch.zeros(batch_size, 3).bool()
            inputs = LossInputs(output.prediction, items["labels"], output.clip_weights(), undamaged)
            loss = criterion(inputs, paired=False, epoch=epoch + step / per_epoch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            scheduler.step()
            loss.item()
        model.eval()
        with torch.no_grad():
            predictions = torch.cat([model(make_batch(items)).prediction for items in valid_loader])  # (N, K)
        best = max(best, score(predictions.numpy(), valid_clips.labels(), NAMES, resamples=0).pcc.mean)
        ends.append(now())
    return ends, best


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


if __name__ == "__main__":
    sys.exit(main())
