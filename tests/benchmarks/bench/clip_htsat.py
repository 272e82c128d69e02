"""Stage 1 as it is used at full size: an image tower of open_clip, HTSAT, and open_clip's text tower, from random
weights; vision-text and audio-text pairs of clips with up to ten seconds of sound at 48 kHz and one picture."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.bench import limits, material
from benchmarks.bench.clip_step import bf16, build, model_config, outputs
from benchmarks.bench.row import Bench, Measured, Watch, with_limit

SECONDS, RATE = 10.0, 48000


def frame_size(bench: Bench) -> int:
    return model_config(bench)["vision_cfg"]["image_size"]


def clips(bench: Bench) -> Path:
    return material.clip_dataset(bench, max(32, frame_size(bench)), RATE)


def pair_data(bench: Bench, batch: int) -> Any:
    """The clips of this size, each as often as it takes for the steps that are measured."""
    from stage1_align.config import PairConfig
    from stage1_align.data.pairs import PairData

    samples = batch * (bench.size.warmup + bench.size.steps)
    config = PairConfig(frames=1, captions=["transcript"], max_seconds=SECONDS, samples_per_epoch=samples)
    return PairData(config, batch, 0, clips(bench))


def align_config(bench: Bench, batch: int, chunk: int, audio: bool = True) -> Any:
    from helpers.stage1_tiny import TOWERS

    from stage1_align.config import AlignConfig, LossConfig, TowerConfig, TowersConfig, TrainConfig

    htsat = {"size": bench.size.audio} if bench.size.audio else TOWERS["audio"]["options"] | {"sample_rate": RATE}
    return AlignConfig(
        run=Path(),
        towers=TowersConfig(
            vision=TowerConfig("open_clip", {"model": bench.size.model}),
            audio=TowerConfig("htsat", htsat) if audio else None,
            text=TowerConfig("open_clip", {"model": bench.size.model}),
            embed_dim=model_config(bench)["embed_dim"],
        ),
        loss=LossConfig(pairs={"vision_text": 1.0, **({"audio_text": 1.0} if audio else {})}),
        train=TrainConfig(batch_size=batch, chunk_size=chunk, compile=bench.size.compile),
    )


def measure(bench: Bench, from_disk: bool) -> Measured:
    """Steps on batches of the loader, or on one of them again and again; the limit is the rate of torch.mm."""
    from shared.training.distributed import start_accelerator
    from stage1_align.step import train_step

    size = bench.size
    data = pair_data(bench, size.batch)
    align = align_config(bench, size.batch, 0)
    accelerator = start_accelerator("bf16" if bf16() else "no", option="")
    bare, model, optimizer = build(align, accelerator, data)
    clock, batch = Watch(), None
    for step, batch in enumerate(_batches(bench, data, bare.encoders, from_disk)):
        if step == size.warmup:
            clock.start()
        batch = batch.to(accelerator.device)
        train_step(accelerator, model, bare, optimizer, batch, align.train).losses["vision_text"].item()
    clock.stop()
    assert batch is not None
    flops = limits.count_flops(lambda: sum(value.sum() for value in outputs(model, batch)).backward())
    timing = clock.timing(size.batch * size.steps, note="bf16" if bf16() else "fp32")
    return with_limit(timing, limits.products(bench, flops, size.batch, bf16()))


def _batches(bench: Bench, data: Any, encoders: Any, from_disk: bool) -> Iterator[Any]:
    workers = bench.threads - 1 if bench.threads > 2 else 0  # two cores compute
    loader = iter(data.loader(0, 0, 0, 1, encoders, workers))
    if from_disk:
        yield from loader
    else:
        batch = next(loader)
        yield from (batch for _ in range(bench.size.warmup + bench.size.steps))


def search_largest(bench: Bench) -> Measured:
    """Double the global batch, at one chunk, until it does not fit or is as large as asked; samples a second of the
    largest. Vision and text alone, one picture a clip: sound of so many clips would not fit in memory."""
    from argparse import Namespace

    from shared.training.distributed import start_accelerator
    from stage1_align.step import train_step

    size, chunk = bench.size, bench.size.chunk
    align = align_config(bench, chunk, chunk, audio=False)
    accelerator = start_accelerator("bf16" if bf16() else "no", option="")
    bare, model, optimizer = build(align, accelerator, Namespace(corpus=list))
    best: Measured | None = None
    batch_size = chunk
    while batch_size <= size.largest:
        try:
            batch = _pictures_and_words(bare.encoders, batch_size).to(accelerator.device)
            train_step(accelerator, model, bare, optimizer, batch, align.train)
            clock = Watch()
            clock.start()
            train_step(accelerator, model, bare, optimizer, batch, align.train).losses["vision_text"].item()
            clock.stop()
        except (torch.OutOfMemoryError, MemoryError):
            batch = None
            optimizer.zero_grad()
            break
        best = Measured(clock.timing(batch_size, note=f"batch {batch_size:,}, chunk {chunk:,}"))
        batch_size *= 2
    if best is None:
        raise MemoryError(f"not even a chunk of {chunk} fits")
    best.timing.note += "" if batch_size > size.largest else f"; {batch_size:,} does not fit"
    part = _pictures_and_words(bare.encoders, chunk).to(accelerator.device)
    flops = limits.count_flops(lambda: sum(value.sum() for value in outputs(model, part)).backward())
    return with_limit(best.timing, limits.products(bench, flops, chunk, bf16()))


def _pictures_and_words(encoders: Any, count: int) -> Any:
    from stage1_align.data.pairs import PairBatch

    side = encoders.tower("vision").options.image_size
    rng = np.random.default_rng(0)
    pictures = torch.from_numpy(rng.integers(0, 256, (min(count, 256), 1, 3, side, side), dtype=np.uint8))
    frames = pictures[torch.arange(count) % len(pictures)]  # (B, 1, 3, S, S)
    text = encoders.tower("text").collate([material.caption(number) for number in range(count)])
    vision = {"frames": frames, "mask": torch.ones(count, 1, dtype=torch.bool)}
    return PairBatch({"vision": vision, "text": text}, torch.arange(count)[None])
