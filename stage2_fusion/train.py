"""Stage 2: train a fusion model on the features of frozen encoders.

    accelerate launch stage2_fusion/train.py --config stage2_fusion/configs/dual_stage.yaml --data DIR --run RUN
    accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml stage2_fusion/train.py --config ...
    accelerate launch -m stage2_fusion.train --config ...
    emit fuse --config ...

An unfinished run in RUN goes on where it stopped, to the bit; a finished one is left as it is. The best model is in
RUN/model (see models/saving.py).

Several processes: each holds its share of the global batch. The loss is computed by every process on the rows of all of
them, its own rows with gradient, times the number of processes; the mean over processes that DDP takes is then exactly
the gradient of one process holding the whole batch (dropout aside, which is drawn per process).
"""

import math
import sys
import time
from pathlib import Path

if __name__ == "__main__":  # started as a file: the repository, not this folder, is where imports begin
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from shared import config as configuration
from shared.errors import UserError
from stage2_fusion.config import FuseConfig
from stage2_fusion.models import MODELS


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        FuseConfig,
        argv,
        prog="emit fuse",
        example="emit fuse --config stage2_fusion/configs/dual_stage.yaml --data runs/demo/features --run runs/demo/f",
    )
    train(config)
    return 0


def train(config: FuseConfig) -> Path:
    """Train to the end, or to a SIGTERM; returns the model folder."""
    from shared.training.distributed import peer_failure_guard
    from shared.training.signals import SigtermHandler

    with SigtermHandler() as sigterm, peer_failure_guard(config.run):
        return _train(config, sigterm)


def _train(config: FuseConfig, sigterm) -> Path:
    import numpy as np
    import torch

    from shared.files import write_json
    from shared.training.distributed import start_accelerator
    from shared.training.ema import Ema
    from shared.training.run_folder import RunFolder
    from shared.training.sampling import batch_indices, local_rows, seed_everything, steps_per_epoch
    from shared.training.schedule import cosine_with_warmup, count_warmup_steps
    from stage2_fusion.data.batches import PackedSamples
    from stage2_fusion.data.feature_damage import FeatureDamage
    from stage2_fusion.data.features import FeatureDataset
    from stage2_fusion.losses import FusionLoss, Rows
    from stage2_fusion.models.base import FeatureSpec, FusionModel
    from stage2_fusion.models.saving import find_encoders, find_landmarker
    from stage2_fusion.setup import describe, labelled, parameter_groups

    # --- everything that can fail early ---
    options = config.train
    model_options = configuration.build(
        MODELS.get(config.model).Options, config.options, f"fusion model {config.model}"
    )
    seen = None if options.damaged_views else (0,)
    features = FeatureDataset.open(config.data, config.train_split, seen, options.max_sequence_steps)
    valid = FeatureDataset.open(config.data, config.valid_split, (0,), options.max_sequence_steps)
    clips = labelled(features.by_clip(), f"{config.data}, split {config.train_split!r}")
    labelled(valid.by_clip(), f"{config.data}, split {config.valid_split!r}")
    views = min(len(clip) for clip in clips) - 1  # damaged views that every clip has
    towers = None
    if config.finetune and options.feature_damage:
        raise UserError("--train.feature_damage is done to features that are there: leave out --finetune, or this")
    if config.finetune:
        from stage2_fusion.finetune import RawInputs

        towers = RawInputs(config, features.info)
    per_epoch = steps_per_epoch(len(clips), options.batch_size)
    total = per_epoch * options.epochs
    warmup = count_warmup_steps(total, options.warmup_fraction)
    accelerator = start_accelerator(options.mixed_precision, options.trackers, config.run)
    rank, world = accelerator.process_index, accelerator.num_processes
    local_rows(options.batch_size, rank, world)  # has to come out even
    run = RunFolder(config.run, accelerator)
    if run.claim(config, ("train.trackers", "encoders", "clips"), features=features.info["digest"]):
        accelerator.print(f"{run.path}: this run is finished; its model is in {run.path / 'model'}")
        return run.path / "model"

    made_by = features.info.encoders
    kept = towers or made_by.precomputed or find_encoders(made_by.digest, Path(made_by.path))
    if kept is None:
        accelerator.print(
            f"the encoders {made_by.digest} are no longer at {made_by.path}: the model gets no copy of them, "
            "and `emit predict` will ask for --encoders"
        )

    # --- batches, model, optimiser, averages ---
    train_batch = PackedSamples([clip[view] for clip in clips for view in range(1 + views)])
    paired = views > 0 or options.feature_damage > 0
    valid_batch = PackedSamples(valid.samples)
    if towers:
        train_batch, valid_batch = towers.of(train_batch), towers.of(valid_batch)
    seed_everything(config.seed, "weights")
    info = describe(config, model_options, features.info, clips, valid.by_clip())
    units = info.action_units
    if units and find_landmarker(units.digest, Path(units.path)) is None:
        accelerator.print(
            f"warning: {units.path} is not, or no longer, the file that the action units are from: the "
            "model is saved without it, and `emit predict` will ask for --blendshapes"
        )
    bare = FusionModel.build(config.model, info.options, FeatureSpec.of(features.info))
    bare.fit_statistics([clip[0] for clip in clips])
    if towers:
        bare = towers.under(bare)
        bare.freeze_unread(train_batch(np.arange(2)))
    optimizer = torch.optim.AdamW(parameter_groups(bare, options), lr=options.lr, fused=True)
    model, optimizer = accelerator.prepare(bare, optimizer)
    bare = accelerator.unwrap_model(model)
    ema = Ema(bare, options.ema)
    hurt = FeatureDamage(bare, options.feature_damage, config.seed) if options.feature_damage else None
    criterion = FusionLoss(config.loss, bare.dimensions).to(accelerator.device)
    accelerator.register_for_checkpointing(ema, criterion)
    fresh = {"step": 0, "epoch": 0, "best": -math.inf, "waited": 0, "seconds": 0.0, "metrics": {}}
    progress = run.resume() or fresh
    if progress["step"]:
        accelerator.print(f"{run.path}: continuing after epoch {progress['epoch']} of {options.epochs}")

    def rows_of(epoch: int, step: int) -> np.ndarray:
        """This process's rows: each clip as it is, followed by one of its damaged views when there are any, or by
        itself for its features to be damaged."""
        rows = batch_indices(len(clips), options.batch_size, config.seed, epoch, step, rank, world)
        clean = rows * (1 + views)
        other = clean + 1 + (epoch + rows) % views if views else clean
        return np.stack([clean, other], axis=1).ravel() if paired else clean

    def everyones(mine: torch.Tensor) -> torch.Tensor:
        """(n, ...) of this process to (n x world, ...) of all, with gradient through this process's rows only."""
        if world == 1:
            return mine
        rows = list(accelerator.gather(mine.detach().contiguous()).split(len(mine)))
        return torch.cat([*rows[:rank], mine, *rows[rank + 1 :]])

    # --- the loop ---
    for epoch in range(progress["epoch"], options.epochs):
        if progress["waited"] >= options.patience:
            break
        model.train()
        began, sums = time.perf_counter(), {}
        for step in range(per_epoch):
            seed_everything(config.seed, epoch, step, rank)  # dropout and hidden modalities
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * cosine_with_warmup(progress["step"], total, warmup)
            mine = rows_of(epoch, step)
            batch = train_batch(mine, accelerator.device)
            if hurt is not None:
                hurt(batch, mine, epoch)
            output = model(batch)
            rows = Rows(
                output.prediction,
                batch["labels"],
                output.clip_weights(),
                batch["damaged"],
                output.branches,
                output.penalty,
            )
            rows = Rows(*(None if part is None else everyones(part) for part in rows))  # N = n x world
            parts = criterion(rows, paired=paired, epoch=epoch + step / per_epoch)
            accelerator.backward(parts["loss"] * world)
            norm = accelerator.clip_grad_norm_(model.parameters(), options.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
            ema.update(bare, progress["step"])
            progress["step"] += 1
            for name, value in {**parts, "grad_norm": norm}.items():
                sums[name] = sums.get(name, 0.0) + value.item() / per_epoch
            if not math.isfinite(sums["loss"]):
                raise UserError(f"{run.path}: the loss is not a number in epoch {epoch}; lower --train.lr")

        # --- after each epoch: validate the averaged weights, keep the best, write a checkpoint ---
        with ema.applied_to(bare):
            metrics = validate(bare, valid, valid_batch, accelerator)
            better = metrics["pcc"]["mean"] > progress["best"]
            progress["seconds"] += time.perf_counter() - began
            if better:
                progress |= {"best": metrics["pcc"]["mean"], "metrics": {"epoch": epoch + 1, "valid": metrics}}
                progress["metrics"]["seconds"] = round(progress["seconds"], 1)
                if accelerator.is_main_process:
                    bare.save_pretrained(run.path / "model", info, progress["metrics"])
        progress |= {"epoch": epoch + 1, "waited": 0 if better else progress["waited"] + 1}
        run.log(
            progress["step"],
            epoch=epoch + 1,
            valid_pcc=metrics["pcc"]["mean"],
            lr=optimizer.param_groups[0]["lr"],
            **sums,
        )
        accelerator.print(
            f"epoch {epoch + 1}/{options.epochs}  loss {sums['loss']:.4f}  valid PCC {metrics['pcc']['mean']:.4f}"
            f"{' *' if better else '  '}  {time.perf_counter() - began:.1f} s"
        )
        run.save(progress)
        if accelerator.reduce(torch.tensor(float(sigterm.requested), device=accelerator.device)) > 0:
            accelerator.print(f"{run.path}: stopped after epoch {epoch + 1}; the same command goes on from here")
            return run.path / "model"

    if accelerator.is_main_process:
        took = {"epochs": progress["epoch"], "seconds": round(progress["seconds"], 1)}
        write_json(run.path / "metrics.json", {**progress["metrics"], **took})
    accelerator.wait_for_everyone()
    run.close()
    accelerator.print(f"{run.path / 'model'}: best validation PCC {progress['best']:.4f}")
    return run.path / "model"


def validate(model, dataset, batch_of, accelerator) -> dict:
    """Scores of the whole split at once. The main process computes them and tells the others, so that all agree to the
    bit on what is best."""
    from dataclasses import asdict

    from accelerate.utils import broadcast_object_list

    from shared.metrics import score
    from stage2_fusion.evaluation.inference import run_model

    metrics = [None]
    if accelerator.is_main_process:
        predictions = run_model(model, dataset.samples, 64, batch_of).predictions
        metrics = [asdict(score(predictions, dataset.labels(), dataset.info["label_names"], resamples=0))]
    return broadcast_object_list(metrics)[0]


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
