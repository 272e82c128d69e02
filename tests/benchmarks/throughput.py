"""Samples a second of a training step, against open_clip_train's, on the same towers, weights and data.

    OMP_NUM_THREADS=1 taskset -c 0 python tests/benchmarks/throughput.py                  one CPU core, bf16
    python tests/benchmarks/throughput.py --model ViT-S-32 --batch 16                     a slower machine
    python tests/benchmarks/throughput.py --batch 1024 --steps 50 --compile true          one GPU
    python tests/benchmarks/throughput.py --batch 65536 --chunk 1024 --batches 1 --steps 2 --sides [ours]

ours        stage1_align.step.train_step on what stage1_align.setup builds: the trainer's own step, whose loss is read
            each time, as the trainer logs it
open_clip   open_clip_train.train.train_one_epoch with its own AdamW, reading a loss every 100 steps, as it does

Both start from one checkpoint and train with the same batches, precision, learning rate, decay and clipping; their
first losses must agree. The last line is with --chunk: ours goes through the gradient cache (`--train.chunk_size`),
open_clip through its own (`--accum-freq`).

Data stand in memory, and decoding is not measured: pictures uint8 (B, 1, 3, S, S) for ours, which normalises them on
the device, normalised float32 (B, 3, S, S) for open_clip, which wants them so; captions of 10 to 20 words, tokenised by
open_clip's tokenizer, for open_clip padded to its 77 positions, for ours to the longest of the batch. On a GPU the
pictures of each side lie as its loader hands them over: in plain memory for ours, pinned for open_clip.

Every measurement is a process of its own, the sides in turns, so that a busy machine slows both. Wall time says what a
user waits for; CPU time, where there is no GPU, what was computed, whoever else wanted the machine.
"""

import json
import logging
import statistics
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from shared import config as configuration

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
LR, DECAY, CLIP = 1e-4, 0.2, 1.0
NAMES = {"bf16": ("bf16", "amp_bf16"), "fp32": ("no", "fp32")}  # Accelerate's and open_clip's
WORDS = """\
a the one two small big old young red blue wooden dark bright quiet man woman child girl boy dog cat bird horse car
street house river beach table window garden kitchen crowd stage smiles laughs speaks sings runs sits holds watches
waits cries shouts whispers slowly loudly again under over beside behind near with and while after before its their
angry happy surprised afraid voice camera morning evening music rain snow sun grass door chair book guitar"""


@dataclass
class ThroughputConfig:
    """Measure the training step on the GPU there is, or else on the CPU."""

    model: str = "ViT-B-32"
    """An open_clip model whose text tower is CLIP's."""
    batch: int = 32
    """Samples in a step."""
    chunk: int = 0
    """Samples encoded at once, on both sides; 0: the whole batch."""
    precision: Literal["bf16", "fp32"] = "bf16"
    """bf16 autocast over fp32 weights, or fp32."""
    compile: bool = False
    """torch.compile on both sides: our blocks, open_clip's model."""
    batches: int = 4
    """Different batches, taken in turn; 1 saves memory."""
    warmup: int = 2
    """Steps before the clock starts."""
    steps: int = 4
    """Steps on the clock."""
    turns: int = 3
    """Measurements of each side; the median and the range are shown."""
    sides: list[Literal["ours", "open_clip"]] = field(default_factory=lambda: ["ours", "open_clip"])
    """What is measured."""
    only: str = ""
    """One measurement, as ours:CHECKPOINT, printed as JSON: what the script starts itself with."""


def main(argv: list[str] | None = None) -> int:
    example = "python tests/benchmarks/throughput.py --model ViT-S-32 --batch 16"
    config = configuration.parse(ThroughputConfig, argv, prog="throughput.py", example=example)
    if config.only:
        side, weights = config.only.split(":", 1)
        print(json.dumps(measure(config, side, weights)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        weights = write_weights(config, Path(folder))
        turns = []
        for turn in range(config.turns):
            order = config.sides if turn % 2 == 0 else config.sides[::-1]
            turns.append({side: start(config, side, weights) for side in order})
            print(f"turn {turn + 1}: {json.dumps(turns[-1])}", flush=True)
    report(config, turns)
    return 0


def start(config: ThroughputConfig, side: str, weights: Path) -> dict | None:
    """One measurement in a process of its own; None when it fails, as with too little memory."""
    values = configuration.to_dict(config) | {"only": f"{side}:{weights}"}
    options = [word for name, value in values.items() for word in (f"--{name}", json.dumps(value).strip('"'))]
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True)
    if done.returncode:
        print(f"{side} failed: {(done.stderr.strip().splitlines() or ['no message'])[-1][:200]}", flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def report(config: ThroughputConfig, turns: list[dict]) -> None:
    def shown(values: list[float]) -> str:
        return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"

    how = f"{config.precision}, compile {config.compile}, chunk {config.chunk or 'none'}"
    print(f"\n{config.model}, batch {config.batch}, {how}; {config.turns} turns: median (lowest to highest)")
    for side in config.sides:
        runs = [turn[side] for turn in turns if turn[side]]
        if not runs:
            continue
        print(f"{side:<10} samples/s {shown([run['rate'] for run in runs])}", end="")
        print(f"   peak memory {max(run['mib'] for run in runs):.0f} MiB   first loss {runs[0]['loss']:.4f}", end="")
        print(f"   CPU seconds a step {shown([run['cpu'] for run in runs])}" if runs[0]["cpu"] else "")
    both = [turn for turn in turns if turn.get("ours") and turn.get("open_clip")]
    if not both:
        return
    apart = abs(both[0]["ours"]["loss"] / both[0]["open_clip"]["loss"] - 1)
    print(f"ours / open_clip_train, samples/s: {shown([t['ours']['rate'] / t['open_clip']['rate'] for t in both])}")
    if both[0]["ours"]["cpu"]:
        print(f"the same by CPU time: {shown([t['open_clip']['cpu'] / t['ours']['cpu'] for t in both])}")
    print(f"first losses differ by {apart:.1e}, relatively")
    if apart > (1e-2 if config.precision == "bf16" else 1e-4):
        sys.exit("error: the two sides do not compute the same loss; the comparison means nothing")


# --- data and weights, the same for both -----------------------------------------------------------------------------


def write_weights(config: ThroughputConfig, folder: Path) -> Path:
    """Random weights in open_clip's layout."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # that the weights are random
    state = open_clip.create_model(config.model).state_dict()
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    return folder / "open_clip_model.safetensors"


def pictures_and_captions(config: ThroughputConfig, size: int) -> Iterator[tuple]:
    """`batches` of uint8 (B, 3, S, S) and B captions."""
    import numpy as np
    import torch

    for number in range(config.batches):
        rng = np.random.default_rng(number)
        pictures = torch.from_numpy(rng.integers(0, 256, (config.batch, 3, size, size), dtype=np.uint8))
        yield pictures, [" ".join(rng.choice(WORDS.split(), rng.integers(10, 21))) for _ in range(config.batch)]


class Timed:
    """The batches over and over, for the warm-up and the steps, with the clock in between."""

    def __init__(self, config: ThroughputConfig, parts: list):
        """parts: the batches, or the chunks of all batches in a row."""
        self.config, self.parts, self.chunks = config, parts, len(parts) // config.batches
        self.num_batches = (config.warmup + config.steps) * self.chunks  # open_clip's name

    def __iter__(self) -> Iterator:
        for index in range(self.num_batches):
            if index == self.config.warmup * self.chunks:
                before = self._clocks()
            yield self.parts[index % len(self.parts)]
        after = self._clocks()
        self.wall, self.cpu = (b - a for a, b in zip(before, after, strict=True))

    def _clocks(self) -> tuple[float, float]:
        import torch

        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter(), time.process_time()


def measure(config: ThroughputConfig, side: str, weights: str) -> dict:
    """Samples a second, peak memory, CPU seconds a step (0 with a GPU), and the loss of the first step."""
    import resource

    import torch

    timed, losses = {"ours": ours, "open_clip": open_clip_train}[side](config, weights)
    gpu = torch.cuda.is_available()
    peak = torch.cuda.max_memory_allocated() if gpu else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "rate": config.batch * config.steps / timed.wall,
        "cpu": 0 if gpu else timed.cpu / config.steps,
        "mib": peak / 2**20,
        "loss": losses[0],
    }


# --- the two sides ---------------------------------------------------------------------------------------------------


def ours(config: ThroughputConfig, weights: str) -> tuple[Timed, list[float]]:
    import torch

    from shared.training.distributed import start_accelerator
    from stage1_align.config import AlignConfig, LossConfig, TowerConfig, TowersConfig, TrainConfig
    from stage1_align.data.pairs import PairBatch
    from stage1_align.model import ContrastiveModel
    from stage1_align.setup import build_encoders, parameter_groups
    from stage1_align.step import train_step

    tower = {"model": config.model, "pretrained": weights, "projection": "own"}
    width = _open_clip_config(config)["embed_dim"]
    align = AlignConfig(
        run=Path(),
        towers=TowersConfig(
            vision=TowerConfig("open_clip", {**tower, "mean": MEAN, "std": STD}),
            audio=None,
            text=TowerConfig("open_clip", tower),
            embed_dim=width,
        ),
        loss=LossConfig(pairs={"vision_text": 1.0}, initial_scale=1 / 0.07),
        train=TrainConfig(
            lr=LR, weight_decay=DECAY, max_grad_norm=CLIP, chunk_size=config.chunk, compile=config.compile
        ),
    )
    accelerator = start_accelerator(NAMES[config.precision][0])
    encoders = build_encoders(align, Namespace(corpus=list))
    bare = ContrastiveModel(encoders, align.loss, align.pairs.captions)
    optimizer = torch.optim.AdamW(parameter_groups(bare, align), fused=True)
    model, optimizer = accelerator.prepare(bare, optimizer)
    model.train()
    batches = [
        PairBatch(
            {
                "vision": {"frames": pictures[:, None], "mask": torch.ones(config.batch, 1, dtype=torch.bool)},
                "text": encoders.text.collate(captions),
            },
            torch.arange(config.batch)[None],
        )
        for pictures, captions in pictures_and_captions(config, encoders.vision.options.image_size)
    ]
    timed, losses = Timed(config, batches), []
    for batch in timed:
        batch = batch.to(accelerator.device)
        result = train_step(accelerator, model, bare, optimizer, batch, align.train)
        losses.append(result.losses["vision_text"].item())
    return timed, losses


def open_clip_train(config: ThroughputConfig, weights: str) -> tuple[Timed, list[float]]:
    import open_clip
    import torch
    from open_clip_train.train import train_one_epoch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = open_clip.create_model(config.model, pretrained=weights, device=device, output_dict=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))  # (3, 1, 1)
    tokenize = open_clip.get_tokenizer(config.model)
    parts = []
    for pictures, captions in pictures_and_captions(config, _open_clip_config(config)["vision_cfg"]["image_size"]):
        size = config.chunk or config.batch
        for images, texts in zip(pictures.split(size), tokenize(captions).split(size), strict=True):
            images = (images.float() / 255 - mean) / std  # (b, 3, S, S)
            parts.append((images.pin_memory(), texts.pin_memory()) if device == "cuda" else (images, texts))
    timed = Timed(config, parts)
    timed.num_samples = config.batch * config.batches

    # main.py's two groups and optimiser.
    exempt = [p for name, p in model.named_parameters() if p.ndim < 2 or any(w in name for w in ("bn", "ln", "bias"))]
    known = {id(p) for p in exempt}
    decayed = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": exempt, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    args = Namespace(device=device, precision=NAMES[config.precision][1], distill=False, accum_freq=timed.chunks)
    args.skip_scheduler, args.grad_clip_norm, args.horovod, args.wandb = True, CLIP, False, False
    args.log_every_n_steps, args.rank, args.local_rank, args.world_size = 100, 0, 0, 1
    args.batch_size = config.chunk or config.batch
    losses, loss = [], open_clip.ClipLoss()

    def remember(module, inputs, output) -> None:
        if not losses:
            losses.append(output["contrastive_loss"].item())

    loss.register_forward_hook(remember)
    data = {"train": Namespace(set_epoch=lambda epoch: None, dataloader=timed)}
    model = torch.compile(model) if config.compile else model
    train_one_epoch(model, data, loss, 0, optimizer, None, None, None, args)
    return timed, losses


def _open_clip_config(config: ThroughputConfig) -> dict:
    import open_clip

    return open_clip.get_model_config(config.model)


if __name__ == "__main__":
    sys.exit(main())
