"""Seconds an epoch of stage 2, against a plain PyTorch loop, and the PCC both reach.

    python tests/benchmarks/fusion_speed.py                          3 epochs, 3 turns
    python tests/benchmarks/fusion_speed.py --epochs 30 --turns 1    a whole training

ours    stage2_fusion.train on a feature dataset, with everything it does: average of the weights, validation,
        checkpoints, the model folder
plain   the same model in a loop as published systems write it: a Dataset that loads a pickle for each clip and
        modality, a DataLoader with its defaults, fp32, AdamW as it comes, validation after each epoch
stock   as plain, with PyTorch's own parts in the model where ours has faster ones: packed sequences into nn.LSTM,
        nn.Conv1d, nn.Dropout. It computes the same function

All have the same clips, batch size, loss, learning rates and clipping. Clips are made up: vision and audio of 64 steps
x 512, text of 512, half precision, labels that noise hides in part. Every measurement is a process of its own, the
sides in turns, so that a busy machine slows all alike; imports are not counted. An epoch is the time between the ends
of two validations, so that what is done once (reading the feature dataset) is in "whole run" alone.
"""

import json
import pickle
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from shared import config as configuration

if TYPE_CHECKING:
    from stage2_fusion.data.feature_info import FeatureInfo

STEPS, WIDTH, NAMES = 64, 512, ["a", "b", "c", "d", "e", "f"]
SIDES = ("ours", "plain", "stock")
LR, DECAY, CLIP, WARMUP = 1e-3, 0.05, 1.0, 1
MODEL = {"width": 64, "dropout": 0.3, "normalizer": "sigmoid", "pooled": False}


@dataclass
class FusionSpeedConfig:
    """Measure the training of stage 2 on this machine's CPU."""

    clips: int = 8072
    """Training clips: as many as Hume-Vidmimic2 has."""
    held_out: int = 1024
    """Clips that both are scored on after each epoch."""
    epochs: int = 3
    """Epochs of a run; the first is not counted. 30 for a whole training."""
    turns: int = 3
    """Runs of each side, in turns."""
    batch: int = 32
    """Clips in a step."""
    precision: Literal["auto", "no", "bf16"] = "auto"
    """--train.mixed_precision of ours; auto is bf16 where the hardware multiplies it."""
    threads: int = 0
    """Threads of each run; 0: as many as there are cores."""
    folder: Path | None = None
    """Where the clips go, and are found again; by default a temporary folder (2.5 GB)."""
    only: str = ""
    """One side, printed as JSON: what the script starts itself with."""


def main(argv: list[str] | None = None) -> int:
    example = "python tests/benchmarks/fusion_speed.py --epochs 3"
    config = configuration.parse(FusionSpeedConfig, argv, prog="fusion_speed.py", example=example)
    if config.only:
        print(json.dumps(measure(config)))
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        folder = config.folder or Path(temporary)
        make(folder, config.clips, config.held_out)
        turns = []
        for turn in range(config.turns):
            turns.append({side: start(config, folder, side) for side in SIDES})
            print(f"turn {turn + 1}: {json.dumps(turns[-1])}", file=sys.stderr, flush=True)
    print(f"{config.clips} clips, {config.epochs} epochs, {config.turns} turns: median (lowest to highest)\n")
    print("| side | seconds an epoch | / ours | CPU seconds an epoch | whole run / ours | best PCC |")
    print("|---|---|---|---|---|---|")
    for side in SIDES:
        cells = [shown([turn[side]["epoch"] for turn in turns], 1)]
        cells.append(shown([turn[side]["epoch"] / turn["ours"]["epoch"] for turn in turns], 2))
        cells.append(shown([turn[side]["cpu"] for turn in turns], 1))
        cells.append(shown([turn[side]["whole"] / turn["ours"]["whole"] for turn in turns], 2))
        cells.append(shown([turn[side]["pcc"] for turn in turns], 4))
        print(f"| {side} | {' | '.join(cells)} |")
    return 0


def shown(values: list[float], digits: int) -> str:
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def start(config: FusionSpeedConfig, folder: Path, side: str) -> dict:
    options = {"only": side, "folder": folder}
    options |= {
        name: getattr(config, name) for name in ("clips", "held_out", "epochs", "batch", "precision", "threads")
    }
    words = [str(word) for name, value in options.items() for word in (f"--{name}", value)]
    done = subprocess.run([sys.executable, __file__, *words], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# --- clips ---------------------------------------------------------------------------------------------------------


def make(folder: Path, clips: int, held_out: int) -> None:
    """folder/features for ours; folder/pickles/<id>_<modality>.pkl and folder/labels.pkl for the plain loop."""
    from stage2_fusion.data.features import FeatureSample, ModalityFeatures, write

    if (folder / "labels.pkl").exists():
        return
    (folder / "pickles").mkdir(parents=True)
    rng = np.random.default_rng(0)
    ways = {name: rng.normal(0, 0.12, (len(NAMES), WIDTH)).astype(np.float32) for name in ("vision", "audio", "text")}
    table = []

    def samples():
        for i in range(clips + held_out):
            latent = np.clip(rng.normal(0.2, 0.3, len(NAMES)), 0, 1).astype(np.float32)  # (K,)
            labels = np.clip(latent + rng.normal(0, 0.1, len(NAMES)), 0, 1).astype(np.float32)
            name, split = f"{i:05d}", "train" if i < clips else "valid"
            table.append((name, split, labels))
            parts = {}
            for modality, way in ways.items():
                steps = 1 if modality == "text" else STEPS
                when = rng.random((steps, 1), np.float32) > 0.5  # an expression comes and goes
                noise = rng.standard_normal((steps, WIDTH), np.float32)
                x = (noise + when * (latent @ way)).astype(np.float16)  # (T, C)
                (folder / "pickles" / f"{name}_{modality}.pkl").write_bytes(pickle.dumps(x))
                times = (
                    np.zeros(0, np.float32) if modality == "text" else (np.arange(steps, dtype=np.float32) + 0.5) / 10
                )
                quality = np.ones((steps, 1), np.float32)
                parts[modality] = ModalityFeatures(x, times, np.zeros(1, np.float16), quality)
            yield FeatureSample(name, 0, split, 6.4, labels, {}, dict.fromkeys(ways, ""), **parts)

    write(folder / "features", samples(), spec())
    (folder / "labels.pkl").write_bytes(pickle.dumps(table))


def spec() -> "FeatureInfo":
    from stage2_fusion.data.feature_info import DataInfo, EncoderInfo, FeatureInfo

    return FeatureInfo(
        label_names=NAMES,
        group_names=[],
        encoders=EncoderInfo("none", "none", {}),
        data=DataInfo("none", "none"),
        widths={"vision": WIDTH, "audio": WIDTH, "text": WIDTH, "embed": 1},
        quality={"vision": ["one"], "audio": ["one"], "text": ["one"]},
    )


# --- one run -------------------------------------------------------------------------------------------------------


def measure(config: FusionSpeedConfig) -> dict:
    """Seconds and CPU seconds of an epoch, seconds of the whole run, and the best PCC on the held-out clips."""
    import torch

    if config.threads:
        torch.set_num_threads(config.threads)
    with tempfile.TemporaryDirectory() as run:
        side = ours if config.only == "ours" else plain
        side(config, Path(run) / "warm-up", warm_up=True)  # what is imported late is there when the clock starts
        began = time.perf_counter()
        ends, pcc = side(config, Path(run) / "run", warm_up=False)
        whole = time.perf_counter() - began
    walls, cpus = zip(*ends, strict=True)
    epochs = max(1, len(ends) - 1)
    return {"epoch": (walls[-1] - walls[0]) / epochs, "cpu": (cpus[-1] - cpus[0]) / epochs, "whole": whole, "pcc": pcc}


def now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def ours(config: FusionSpeedConfig, run: Path, warm_up: bool) -> tuple[list[tuple[float, float]], float]:
    import contextlib

    from stage2_fusion import trainer
    from stage2_fusion.config import FuseConfig
    from stage2_fusion.train import train

    values = {"data": config.folder / "features", "run": run, "model": "dual_stage", "options": json.dumps(MODEL)}
    values |= {"train.epochs": config.epochs, "train.batch_size": config.batch, "train.patience": config.epochs}
    values |= {"train.mixed_precision": config.precision, "train.trackers": []}
    values |= {"train.warmup_fraction": WARMUP / config.epochs}
    values |= {"train.lr": LR, "train.weight_decay": DECAY, "train.max_grad_norm": CLIP, "train.damaged_views": "false"}
    if warm_up:
        values |= {"train_split": "valid", "train.epochs": 1, "train.batch_size": config.held_out}
    words = [str(word) for name, value in values.items() for word in (f"--{name}", value)]
    ends, validate = [], trainer.validate

    def timed(*args):
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


def plain(config: FusionSpeedConfig, run: Path, warm_up: bool) -> tuple[list[tuple[float, float]], float]:
    import torch
    from torch.utils.data import DataLoader, Dataset

    from shared.metrics import score
    from shared.training.schedule import cosine_with_warmup
    from stage2_fusion.config import LossConfig
    from stage2_fusion.data.batches import Batch, ModalityBatch
    from stage2_fusion.losses import FusionLoss, LossInputs
    from stage2_fusion.models.base import FeatureSpec, FusionModel

    table = pickle.loads((config.folder / "labels.pkl").read_bytes())

    class Clips(Dataset):
        def __init__(self, split: str):
            self.rows = [(name, labels) for name, its, labels in table if its == split]

        def __len__(self) -> int:
            return len(self.rows)

        def __getitem__(self, index: int) -> dict:
            name, labels = self.rows[index]
            item = {"labels": torch.from_numpy(labels)}
            for modality in ("vision", "audio", "text"):
                with (config.folder / "pickles" / f"{name}_{modality}.pkl").open("rb") as file:
                    item[modality] = torch.from_numpy(pickle.load(file)).float()  # (T, C)
            return item

    def batch_of(items: dict) -> Batch:
        count, parts = len(items["labels"]), {}
        for modality in ("vision", "audio", "text"):
            x = items[modality]  # (B, T, C)
            mask = torch.ones(x.shape[:2], dtype=torch.bool)
            times = ((torch.arange(x.shape[1]) + 0.5) / 10).expand(x.shape[:2])
            quality = torch.zeros(*x.shape[:2], 1)
            parts[modality] = ModalityBatch(x, mask, times, torch.zeros(count, 1), quality, mask[:, 0])
        return Batch([""] * count, torch.full((count,), 6.4), items["labels"], torch.zeros(count, 3), **parts)

    torch.manual_seed(0)
    train, valid = Clips("train"), Clips("valid")
    if warm_up:
        train = valid
    model = FusionModel.build("dual_stage", MODEL, FeatureSpec.of(spec()))
    model.init_output_bias(torch.tensor(np.mean([labels for _, labels in train.rows], axis=0)).clamp(0.01, 0.99))
    if config.only == "stock":
        make_stock(model)
    batch_size, epochs = (config.held_out, 1) if warm_up else (config.batch, config.epochs)
    train_loader = DataLoader(train, batch_size, shuffle=True, drop_last=True)
    valid_loader = DataLoader(valid, 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=DECAY)
    per_epoch = len(train_loader)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: cosine_with_warmup(step, per_epoch * epochs, per_epoch * WARMUP)
    )
    criterion, ends, best = FusionLoss(LossConfig(), len(NAMES)), [], -1.0
    for epoch in range(epochs):
        model.train()
        for step, items in enumerate(train_loader):
            output = model(batch_of(items))
            rows = LossInputs(
                output.prediction, items["labels"], output.clip_weights(), torch.zeros(batch_size, 3).bool()
            )
            loss = criterion(rows, paired=False, epoch=epoch + step / per_epoch)["loss"]
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            optimizer.step()
            schedule.step()
            loss.item()
        model.eval()
        with torch.no_grad():
            found = [model(batch_of(items)).prediction for items in valid_loader]
        labels = np.stack([labels for _, labels in valid.rows])
        best = max(best, score(torch.cat(found).numpy(), labels, NAMES, resamples=0).pcc.mean)
        ends.append(now())
    return ends, best


def make_stock(model) -> None:
    """PyTorch's own parts in place of those of stage2_fusion.models.layers that are faster on a CPU."""
    import torch
    from torch import nn

    from stage2_fusion.models.layers.dropout import Dropout
    from stage2_fusion.models.layers.temporal import TCN, GatedBiLSTM

    class StockTCN(TCN):
        def forward(self, x, mask):
            real = mask[..., None].to(x.dtype)
            x = x * real
            for norm, convolution, mix in zip(self.norms, self.convolutions, self.mixes, strict=True):
                y = convolution((norm(x) * real).transpose(1, 2)).transpose(1, 2)
                x = (x + self.dropout(mix(nn.functional.gelu(y)))) * real
            return x

    class StockBiLSTM(GatedBiLSTM):
        def _states(self, x, mask):
            lengths = mask.sum(dim=1).clamp(min=1)
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            return nn.utils.rnn.pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=x.shape[1])[0]

    model.tcn.__class__, model.bilstm.__class__ = StockTCN, StockBiLSTM
    for module in model.modules():
        if isinstance(module, Dropout):
            module.__class__ = torch.nn.Dropout


if __name__ == "__main__":
    sys.exit(main())
