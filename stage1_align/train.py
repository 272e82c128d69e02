"""Stage 1: align a vision, an audio and a text encoder by contrastive training.

    accelerate launch stage1_align/train.py --config stage1_align/configs/tiny.yaml --data DIR --run RUN
    accelerate launch --config_file accelerate_configs/cpu_2_processes.yaml stage1_align/train.py --config ...
    accelerate launch -m stage1_align.train --config ...
    emit align --config ...

An unfinished run in RUN is continued to the bit; a finished one is left as it is.
"""

import sys
import time
from pathlib import Path

if __name__ == "__main__":  # started as a file: the repository, not this folder, is where imports begin
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from shared import config as configuration
from shared.errors import UserError
from shared.registry import nearest
from stage1_align.config import AlignConfig


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
    """Run to the end (or to `max_steps`); returns the run folder, which holds best/ and last/ encoders."""
    import torch

    from shared.files import write_json
    from shared.runs import RunFolder, cosine_with_warmup, seed_everything, start
    from stage1_align.model import PAIRS, ContrastiveModel
    from stage1_align.pairs import PairData
    from stage1_align.retrieval import embed, retrieval

    # --- everything that can fail early ---
    options = config.train
    known = {"pair_weights": (*PAIRS, "text_text"), "tower_lr": ("vision", "audio", "text", "temperature")}
    for option, names in known.items():
        for name in getattr(options, option):
            if name not in names:
                raise UserError(f"--train.{option}: no {name!r}; {nearest(name, names)}")
    data = PairData(config.pairs, options.batch_size, config.seed, config.data)
    valid = data.valid()
    per_epoch = data.steps_per_epoch
    total = per_epoch * options.epochs
    accelerator = start(options.mixed_precision)
    run = RunFolder(config.run, accelerator.is_main_process)
    if run.claim(config, data=data.digest):
        accelerator.print(f"{run.path}: this run is finished; nothing to do")
        return run.path

    # --- model, optimiser ---
    seed_everything(config.seed, "weights")
    encoders = build_encoders(config, data)
    model = ContrastiveModel(encoders, options.initial_scale)
    optimizer = torch.optim.AdamW(parameter_groups(model, options), lr=options.lr)
    model, optimizer = accelerator.prepare(model, optimizer)
    bare = accelerator.unwrap_model(model)
    progress = run.resume(accelerator) or {"step": 0, "best": -1.0, "metrics": {}}
    if progress["step"]:
        accelerator.print(f"{run.path}: continuing at step {progress['step']} of {total}")

    rank, world = accelerator.process_index, accelerator.num_processes

    def validate() -> dict:
        bare.eval()
        metrics = retrieval(embed(bare.encoders, valid, valid.texts), valid.keys, config.pairs.captions)
        bare.train()
        return metrics

    # --- the loop ---
    metrics = validate()
    if progress["step"] == 0:
        accelerator.print(f"untrained: valid mean recall {metrics['mean_recall']:.3f}; {len(data)} training clips")
        run.log(0, **metrics)
        if options.epochs == 0 and accelerator.is_main_process:  # frozen random towers, for comparison
            encoders.save_pretrained(run.path / "best", training_record(config, data.digest, metrics))
    model.train()
    for epoch in range(progress["step"] // per_epoch, options.epochs):
        first = progress["step"] - epoch * per_epoch
        loader = data.loader(epoch, first, rank, world, encoders, options.workers)
        began, losses = time.perf_counter(), []
        for batch in loader:
            step = progress["step"]
            seed_everything(config.seed, epoch, step, rank)  # dropout and stochastic depth
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * cosine_with_warmup(step, total, int(options.warmup_share * total))
            batch = to_device(batch, accelerator.device)

            out = model(batch)
            loss = bare.loss(out, batch["text_id"], options.pair_weights, options.tile)
            accelerator.backward(loss)
            norm = accelerator.clip_grad_norm_(model.parameters(), options.clip_norm)
            optimizer.step()
            optimizer.zero_grad()
            bare.clamp_scale()

            losses.append(accelerator.reduce(loss.detach(), "mean").item())
            if losses[-1] != losses[-1]:
                raise UserError(f"{run.path}: the loss is not a number at step {step}; lower --train.lr, or use fp32")
            progress["step"] = step + 1
            run.log(
                progress["step"],
                loss=losses[-1],
                grad_norm=float(norm),
                lr=optimizer.param_groups[0]["lr"],
                samples_per_second=len(losses) * options.batch_size / (time.perf_counter() - began),
                **{f"scale_{pair}": out[f"scale_{pair}"].item() for pair in PAIRS},
            )
            if progress["step"] % per_epoch == 0:
                break  # an epoch's last step is saved after its validation, so that nothing of the epoch is skipped
            if options.checkpoint_every and progress["step"] % options.checkpoint_every == 0:
                run.save(accelerator, progress)
            if progress["step"] == config.max_steps:
                run.save(accelerator, progress)
                return run.path

        # --- after each epoch: validate, keep the best, write a checkpoint ---
        metrics = validate()
        run.log(progress["step"], epoch=epoch, train_loss=sum(losses) / max(1, len(losses)), **metrics)
        accelerator.print(
            f"epoch {epoch + 1}/{options.epochs}  loss {sum(losses) / max(1, len(losses)):.3f}  "
            f"valid mean recall {metrics['mean_recall']:.3f}  {time.perf_counter() - began:.1f} s"
        )
        if metrics["mean_recall"] > progress["best"]:
            progress |= {"best": metrics["mean_recall"], "metrics": metrics}
            if accelerator.is_main_process:
                encoders.save_pretrained(run.path / "best", training_record(config, data.digest, metrics))
        run.save(accelerator, progress)
        if progress["step"] == config.max_steps:
            return run.path

    if accelerator.is_main_process:
        encoders.save_pretrained(run.path / "last", training_record(config, data.digest, metrics))
        write_json(run.path / "metrics.json", {"best": progress["metrics"], "last": metrics, "steps": total})
    accelerator.wait_for_everyone()
    run.close()
    return run.path


def build_encoders(config: AlignConfig, data):
    """Towers with their tokenizer trained on the texts of the training data, unless the text tower brings one, and
    their mel statistics taken from the sound of the first 256 items of each source."""
    from stage1_align.encoders import AlignedEncoders
    from stage1_align.towers import TOWERS

    towers = configuration.to_dict(config.towers)
    embed_dim = towers.pop("embed_dim")
    text = towers["text"]
    tokenizer = TOWERS["text"].get(text["name"]).corpus_tokenizer(text["options"], data.corpus())
    if tokenizer is not None:
        text["options"]["vocab_size"] = len(tokenizer)
    encoders = AlignedEncoders.build(towers, embed_dim)
    encoders.text.tokenizer = tokenizer or encoders.text.tokenizer
    encoders.audio.calibrate(data.sounds(encoders.audio.sample_rate))
    return encoders


def parameter_groups(model, options) -> list[dict]:
    """One group for each tower (and the temperatures) and kind of parameter: matrices decay; biases and norms do not.
    "peak" is the group's highest learning rate."""
    groups: dict[tuple[str, bool], list] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tower = name.split(".")[1] if name.startswith("encoders.") else "temperature"
            groups.setdefault((tower, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": options.weight_decay if decays else 0.0,
            "peak": options.lr * options.tower_lr.get(tower, 1.0),
        }
        for (tower, decays), parameters in groups.items()
    ]


def to_device(batch, device):
    if isinstance(batch, dict):
        return {name: to_device(value, device) for name, value in batch.items()}
    return batch.to(device, non_blocking=True)


def training_record(config: AlignConfig, data_digest: str, metrics: dict) -> dict:
    """What the exported folder says of its origin."""
    return {
        "data": f"{config.data} (digest {data_digest}), seed {config.seed}",
        "data_digest": data_digest,
        "command": " ".join(["emit align", *sys.argv[1:]]),
        "metrics": metrics,
        "config": configuration.to_dict(config),
    }


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
