"""Stage 1: align a vision, an audio and a text encoder by contrastive training.

    accelerate launch stage1_align/train.py --config stage1_align/configs/tiny.yaml --data DIR --run RUN
    accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml stage1_align/train.py --config ...
    accelerate launch -m stage1_align.train --config ...
    emit align --config ...

An unfinished run in RUN is continued to the bit; a finished one is left as it is.
"""

import contextlib
import math
import sys
from pathlib import Path

if __name__ == "__main__":  # started as a file: the repository, not this folder, is where imports begin
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from shared import config as configuration
from stage1_align.config import AlignConfig

FREE = (
    "train.batch_size",
    "train.chunk_size",
    "train.workers",
    "train.checkpoint_every",
    "train.keep_last",
    "train.trackers",
)
FREE += ("train.compile", "train.timeout_minutes", "loss.tile", "max_optimizer_steps")
"""Options that may change between the parts of one run."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        AlignConfig,
        argv,
        prog="emit align",
        example="emit align --config stage1_align/configs/tiny.yaml --data runs/demo/clips --run runs/demo/align",
    )
    train(config)
    return 0


def train(config: AlignConfig) -> Path:
    """Train to the end, to `max_optimizer_steps` or to a SIGTERM. Returns the run folder; when the run is finished, it
    holds the encoders best/ and last/."""
    from shared.training.distributed import peer_failure_guard
    from shared.training.signals import SigtermHandler

    with SigtermHandler() as sigterm, peer_failure_guard(config.run):
        return _train(config, sigterm)


def _train(config: AlignConfig, sigterm) -> Path:
    import torch

    from shared.errors import UserError
    from shared.files import write_json
    from shared.training.distributed import start_accelerator
    from shared.training.ema import Ema
    from shared.training.run_folder import RunFolder
    from shared.training.sampling import local_rows, seed_everything
    from shared.training.schedule import cosine_with_warmup, count_warmup_steps
    from stage1_align.data.pairs import PairData
    from stage1_align.evaluation.retrieval import Halted, embed, retrieval
    from stage1_align.evaluation.zero_shot import prompts, zero_shot
    from stage1_align.meter import Meter
    from stage1_align.model import ContrastiveModel
    from stage1_align.setup import build_encoders, parameter_groups, training_record
    from stage1_align.step import train_step

    # --- everything that can fail early ---
    options = config.train
    if not config.data and not config.pairs.sources:
        raise UserError("nothing to train on: give --data, or --pairs.sources")
    data = PairData(config.pairs, options.batch_size, config.seed, config.data or "")
    valid = data.valid()
    per_epoch = data.steps_per_epoch
    total = per_epoch * options.epochs
    warmup = count_warmup_steps(total, options.warmup_fraction)
    accelerator = start_accelerator(options.mixed_precision, options.trackers, config.run, options.timeout_minutes)
    if options.chunk_size and accelerator.state.deepspeed_plugin:  # its backward pass is a whole step
        raise UserError(
            "--train.chunk_size: DeepSpeed steps after every chunk; launch with accelerate_configs/fsdp2.yaml"
        )
    rank, world = accelerator.process_index, accelerator.num_processes
    local_rows(options.batch_size, rank, world)  # has to come out even
    run = RunFolder(config.run, accelerator, options.keep_last)
    if run.claim(config, FREE, data=data.digest):
        accelerator.print(f"{run.path}: this run is finished; nothing to do")
        return run.path

    # --- model, optimiser ---
    seed_everything(config.seed, "weights")
    encoders = build_encoders(config, data)
    bare = ContrastiveModel(encoders, config.loss, config.pairs.captions)
    optimizer = torch.optim.AdamW(parameter_groups(bare, config), fused=True)
    model, optimizer = accelerator.prepare(bare, optimizer)
    if accelerator.is_fsdp2:  # where Accelerate leaves autocast out
        model.forward = accelerator.autocast()(model.forward)
    ema = Ema(bare, options.ema) if options.ema else None
    norms = any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) and m.training for m in bare.modules())
    if norms and (world > 1 or options.chunk_size):
        accelerator.print("warning: a tower's batch norm sees a share of the batch only; freeze it, or choose another")
    if ema:
        accelerator.register_for_checkpointing(ema)
    progress = {"step": 0, "epoch": 0, "samples": 0, "best": -1.0, "metrics": {}, "batch_size": 0, "world": 0}
    progress |= {"losses": [0.0, 0]}  # sum and number of the epoch's
    progress |= run.resume() or {}
    here = {"batch_size": options.batch_size, "world": world}
    if progress["step"]:
        accelerator.print(f"{run.path}: continuing in epoch {progress['epoch'] + 1}, after step {progress['step']}")
        for name, value in here.items():
            if progress[name] != value:
                what = {"batch_size": "the batch size", "world": "the number of processes"}[name]
                accelerator.print(
                    f"warning: {what} was {progress[name]} and is {value} now: the run goes on at the nearest sample, "
                    "but not as it would have"
                )
    progress |= here

    def anyone_asked() -> bool:
        asked = torch.tensor(float(sigterm.requested), device=accelerator.device)
        return accelerator.reduce(asked, "sum").item() > 0

    def pause() -> Path:
        run.save(progress)
        accelerator.print(f"{run.path}: stopped after step {progress['step']}; the same command goes on from here")
        return run.path

    def validate() -> dict:
        with ema.applied_to(bare) if ema else contextlib.nullcontext():
            more = prompts(valid.label_names, config.pairs.label_template)
            embedded = embed(model, accelerator, valid, more, halt=anyone_asked)
        model.train()
        found = retrieval(embedded, valid, config.pairs.captions)
        return {**found, **zero_shot(embedded, valid.labels, valid.label_names)}

    def save_encoders(name: str, metrics: dict) -> None:
        with ema.applied_to(bare) if ema else contextlib.nullcontext():
            weights = accelerator.get_state_dict(model)  # whole on the main process, however the model is spread
            weights = {  # copies: the averages leave the model with this block
                k.removeprefix("encoders."): v.cpu().clone() for k, v in weights.items() if k.startswith("encoders.")
            }
        if accelerator.is_main_process:
            record = training_record(config, data.digest, metrics)
            encoders.save_pretrained(run.path / name, record, weights)

    # --- the loop ---
    if progress["step"] == 0:
        try:
            metrics = validate()
        except Halted:  # nothing is there to be saved yet
            accelerator.print(f"{run.path}: stopped before the first step; the same command starts it")
            return run.path
        accelerator.print(f"untrained: valid mean recall {metrics['mean_recall']:.3f}; {len(data)} training clips")
        run.log(0, **metrics)
        if options.epochs == 0:  # frozen random towers, for comparison
            save_encoders("best", metrics)
            progress["metrics"] = metrics
    model.train()
    metrics = progress.get("last", progress["metrics"])
    for epoch in range(progress["epoch"], options.epochs):
        first = progress["samples"] // options.batch_size
        meter = Meter(options.batch_size, world, accelerator.device)
        loader = data.loader(epoch, first, rank, world, encoders, options.workers)
        for index, batch in enumerate(meter.watch(loader), first):
            seed_everything(config.seed, epoch, index, rank)  # dropout and stochastic depth
            done = epoch * per_epoch + index
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * cosine_with_warmup(done, total, warmup)

            batch = batch.to(accelerator.device)
            parts, temperatures, norm = train_step(accelerator, model, bare, optimizer, batch, options)
            if ema:
                ema.update(bare, done)

            # One exchange: the losses of the whole batch, and whether any process was asked to stop.
            mine = torch.stack(
                [*parts.values(), torch.tensor(float(sigterm.requested), device=accelerator.device)]
            ).detach()
            *values, asked = accelerator.reduce(mine, "mean").tolist()
            loss = sum(bare.pairs[pair] * value for pair, value in zip(parts, values, strict=True))
            if not math.isfinite(loss):
                raise UserError(f"{run.path}: the loss is {loss} at step {done}; lower --train.lr, or use fp32")
            progress |= {"step": progress["step"] + 1, "samples": (index + 1) * options.batch_size}
            progress["losses"] = [progress["losses"][0] + loss, progress["losses"][1] + 1]
            run.log(
                progress["step"],
                loss=loss,
                **{f"loss_{pair}": value for pair, value in zip(parts, values, strict=True)},
                **{name: value.item() for name, value in temperatures.items()},
                grad_norm=float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm),
                lr=optimizer.param_groups[0]["lr"],
                **meter.figures(),
            )
            if asked > 0 or progress["step"] == config.max_optimizer_steps:
                return pause()
            if index + 1 < per_epoch and options.checkpoint_every and progress["step"] % options.checkpoint_every == 0:
                run.save(progress)  # an epoch's last step is saved after its validation

        # --- after each epoch: validate, keep the best, write a checkpoint ---
        try:
            metrics = validate()
        except Halted:  # to be done again: this epoch has no steps left
            return pause()
        mean = progress["losses"][0] / max(1, progress["losses"][1])
        run.log(progress["step"], epoch=epoch + 1, train_loss=mean, **metrics)
        accelerator.print(
            f"epoch {epoch + 1}/{options.epochs}  loss {mean:.3f}  valid mean recall {metrics['mean_recall']:.3f}  "
            f"{meter.seconds:.1f} s"
        )
        if metrics["mean_recall"] > progress["best"]:
            progress |= {"best": metrics["mean_recall"], "metrics": metrics}
            save_encoders("best", metrics)
        progress |= {"epoch": epoch + 1, "samples": 0, "losses": [0.0, 0], "last": metrics}
        run.save(progress)

    save_encoders("last", metrics)
    if accelerator.is_main_process:
        summary = {"best": progress["metrics"], "last": metrics, "steps": progress["step"]}
        write_json(run.path / "metrics.json", summary)
    accelerator.wait_for_everyone()
    run.close()
    return run.path


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
