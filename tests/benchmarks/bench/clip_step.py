"""A training step of CLIP's two towers: ours, and that of open_clip_train, on the same weights and data.

ours      stage1_align.step.train_step on what stage1_align.setup builds: the trainer's own step, whose loss is read
          each time, as the trainer logs it
baseline  open_clip_train.train.train_one_epoch with its own AdamW, reading a loss every 100 steps, as it does

Both start from one checkpoint and train with the same batches, precision, learning rate, decay and clipping; their
first losses must agree. With a chunk, ours goes through the gradient cache (`--train.chunk_size`), open_clip through
its own (`--accum-freq`). Precision is bf16 where this machine is fast at it for wide matrices, otherwise fp32.

Data stand in memory, and decoding is not measured: pictures uint8 (B, 1, 3, S, S) for ours, which normalizes them on
the device, normalized float32 (B, 3, S, S) for open_clip, which wants them so; captions of 10 to 20 words, tokenized by
open_clip's tokenizer, for open_clip padded to its 77 positions, for ours to the longest of the batch. On a GPU the
pictures of each side lie as its loader hands them over: in plain memory for ours, pinned for open_clip.
"""

import json
import logging
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.bench import limits
from benchmarks.bench.material import caption
from benchmarks.bench.row import Bench, Measured, Watch, with_limit
from benchmarks.bench.sizes import Size

from shared.training.precision import Hardware
from stage2_fusion.report.speed_file import Timing

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # OpenAI's
LR, DECAY, CLIP = 1e-4, 0.2, 1.0
TINY: dict[str, Any] = {
    "embed_dim": 32,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def bf16() -> bool:
    """Whether bf16 pays here for wide matrices."""
    return Hardware.here().fast_from is not None


def model_config(bench: Bench) -> dict[str, Any]:
    """open_clip's description of the model."""
    import open_clip

    if bench.size.model not in open_clip.list_models():
        path = bench.folder / f"{bench.size.model}.json"
        path.write_text(json.dumps(TINY))
        open_clip.add_model_config(path)
    return open_clip.get_model_config(bench.size.model)


def weights(bench: Bench) -> Path:
    """Random weights in open_clip's layout."""
    import open_clip
    from safetensors.torch import save_file

    path = bench.folder / f"{bench.size.model}.safetensors"
    model_config(bench)
    if not path.exists():
        torch.manual_seed(0)
        logging.disable(logging.WARNING)  # that the weights are random
        state = open_clip.create_model(bench.size.model).state_dict()
        logging.disable(logging.NOTSET)
        save_file({name: value.contiguous() for name, value in state.items()}, path)
    return path


def pictures_and_captions(size: Size, side: int, batches: int = 1) -> Iterator[tuple[torch.Tensor, list[str]]]:
    """uint8 (B, 3, S, S) and B captions."""
    for number in range(batches):
        rng = np.random.default_rng(number)
        pictures = torch.from_numpy(rng.integers(0, 256, (size.batch, 3, side, side), dtype=np.uint8))
        yield pictures, [caption(number * size.batch + i) for i in range(size.batch)]


class Timed:
    """The parts over and over, for the warm-up and the steps, with the clock in between."""

    def __init__(self, size: Size, parts: list, steps_each: int = 1):
        """steps_each: parts of one step."""
        self.parts, self.clock, self.start = parts, Watch(), size.warmup * steps_each
        self.num_batches = (size.warmup + size.steps) * steps_each  # open_clip's name

    def __iter__(self) -> Iterator:
        for index in range(self.num_batches):
            if index == self.start:
                self.clock.start()
            yield self.parts[index % len(self.parts)]
        self.clock.stop()


def ours(bench: Bench, chunk: int) -> Measured:
    """The trainer's step; its limit are the products of a plain step at the rate of torch.mm in the same precision."""
    from shared.training.distributed import start_accelerator
    from stage1_align.data.pairs import PairBatch
    from stage1_align.step import train_step

    size, align = bench.size, align_config(bench, chunk)
    accelerator = start_accelerator("bf16" if bf16() else "no", option="")
    bare, model, optimizer = build(align, accelerator)
    encoders = bare.encoders

    def batch_of(pictures: torch.Tensor, captions: list[str]) -> PairBatch:
        mask = torch.ones(len(captions), 1, dtype=torch.bool)
        vision = {"frames": pictures[:, None], "mask": mask}  # (B, 1, 3, S, S), (B, 1)
        return PairBatch(
            {"vision": vision, "text": encoders.tower("text").collate(captions)}, torch.arange(len(captions))[None]
        )

    side = encoders.tower("vision").options.image_size
    parts = list(pictures_and_captions(size, side))
    timed, losses = Timed(size, [batch_of(*part) for part in parts]), []
    for batch in timed:
        batch = batch.to(accelerator.device)
        result = train_step(accelerator, model, bare, optimizer, batch, align.train)
        losses.append(result.losses["vision_text"].item())
    timing = timing_of(timed, size)
    part = min(chunk or size.batch, size.batch)
    sample = batch_of(parts[0][0][:part], parts[0][1][:part]).to(accelerator.device)
    flops = limits.count_flops(lambda: sum(value.sum() for value in outputs(model, sample)).backward())
    return with_limit(timing, limits.products(bench, flops, part, bf16()), check=losses[:1])


def outputs(model: torch.nn.Module, batch: Any) -> list[torch.Tensor]:
    """The embeddings of a batch, which carry a gradient."""
    return [value for name, value in model(batch).items() if name in ("vision", "audio", "text")]


def timing_of(timed: Timed, size: Size) -> Timing:
    return timed.clock.timing(size.batch * size.steps, note="bf16" if bf16() else "fp32")


def align_config(bench: Bench, chunk: int) -> Any:
    from stage1_align.config import AlignConfig, LossConfig, TowerConfig, TowersConfig, TrainConfig

    tower = {"model": bench.size.model, "pretrained": str(weights(bench)), "projection": "own"}
    vision = {**tower, "mean": MEAN, "std": STD}
    train = TrainConfig(lr=LR, weight_decay=DECAY, max_grad_norm=CLIP, chunk_size=chunk, compile=bench.size.compile)
    return AlignConfig(
        run=Path(),
        towers=TowersConfig(
            vision=TowerConfig("open_clip", vision),
            audio=None,
            text=TowerConfig("open_clip", tower),
            embed_dim=model_config(bench)["embed_dim"],
        ),
        loss=LossConfig(pairs={"vision_text": 1.0}, initial_scale=1 / 0.07),
        train=train,
    )


def build(align: Any, accelerator: Any, data: Any = None) -> tuple[Any, Any, Any]:
    """Model, prepared model and optimizer, as the trainer builds them."""
    from stage1_align.model import ContrastiveModel
    from stage1_align.setup import build_encoders, parameter_groups

    encoders = build_encoders(align, data or Namespace(corpus=list))
    bare = ContrastiveModel(encoders, align.loss, align.pairs.captions)
    optimizer = torch.optim.AdamW(parameter_groups(bare, align), fused=True)
    model, optimizer = accelerator.prepare(bare, optimizer)
    model.train()
    return bare, model, optimizer


def open_clip_train(bench: Bench, chunk: int) -> Measured:
    import open_clip
    from open_clip_train.train import train_one_epoch

    size, device = bench.size, "cuda" if torch.cuda.is_available() else "cpu"
    side = model_config(bench)["vision_cfg"]["image_size"]
    model = open_clip.create_model(size.model, pretrained=str(weights(bench)), device=device, output_dict=True)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))  # (3, 1, 1)
    tokenize = open_clip.get_tokenizer(size.model)
    parts, part = [], min(chunk or size.batch, size.batch)
    for pictures, captions in pictures_and_captions(size, side):
        for images, texts in zip(pictures.split(part), tokenize(captions).split(part), strict=True):
            images = (images.float() / 255 - mean) / std  # (b, 3, S, S)
            parts.append((images.pin_memory(), texts.pin_memory()) if device == "cuda" else (images, texts))
    timed = Timed(size, parts, size.batch // part)
    timed.num_samples = size.batch * len(parts)  # type: ignore[attr-defined]

    # main.py's two groups and optimizer.
    exempt = [p for name, p in model.named_parameters() if p.ndim < 2 or any(w in name for w in ("bn", "ln", "bias"))]
    known = {id(p) for p in exempt}
    decayed = [p for p in model.parameters() if id(p) not in known]
    groups = [{"params": exempt, "weight_decay": 0.0}, {"params": decayed, "weight_decay": DECAY}]
    optimizer = torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.999), eps=1e-8)
    losses, loss = [], open_clip.ClipLoss()

    def remember(module: Any, inputs: Any, output: Any) -> None:
        if not losses:
            losses.append(output["contrastive_loss"].item())

    loss.register_forward_hook(remember)
    data = {"train": Namespace(set_epoch=lambda epoch: None, dataloader=timed)}
    model = torch.compile(model) if size.compile else model
    train_one_epoch(model, data, loss, 0, optimizer, None, None, None, _arguments(device, part, size.batch // part))
    return Measured(timing_of(timed, size), check=losses[:1])


def _arguments(device: str, batch: int, chunks: int) -> Namespace:
    """What open_clip_train reads of its command line."""
    return Namespace(
        device=device,
        precision="amp_bf16" if bf16() else "fp32",
        distill=False,
        accum_freq=chunks,
        skip_scheduler=True,
        grad_clip_norm=CLIP,
        horovod=False,
        wandb=False,
        log_every_n_steps=100,
        rank=0,
        local_rank=0,
        world_size=1,
        batch_size=batch,
    )
