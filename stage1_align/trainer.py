"""The training loop of stage 1."""

import contextlib
import math
from dataclasses import dataclass, field, replace

import torch
from torch import nn

from shared.dataset.training_clips import TrainingClips
from shared.errors import UserError
from shared.files import write_json
from shared.terminal.messages import note, say
from shared.terminal.progress import progress as terminal_progress
from shared.terminal.results import result
from shared.text import counted
from shared.training.checkpoint import TrainState
from shared.training.distributed import any_process
from shared.training.ema import Ema
from shared.training.optimizer import set_learning_rates
from shared.training.run_folder import Progress, RunFolder
from shared.training.sampling import seed_everything, shrink_note
from shared.training.schedule import cosine_with_warmup, count_warmup_steps
from shared.training.signals import SigtermHandler
from shared.training.startup import settle_precision, start_run
from stage1_align.config import AlignConfig
from stage1_align.contrast import check_contrast, check_validation, leave_out_unused
from stage1_align.data.pairs import PairData, ValidationSet
from stage1_align.evaluation.retrieval import Halted, embed, retrieval
from stage1_align.evaluation.zero_shot import prompts, zero_shot
from stage1_align.meter import Meter
from stage1_align.model import ContrastiveModel
from stage1_align.setup import build_encoders, crop_lines, parameter_groups, random_lines, text_notes, training_record
from stage1_align.step import StepResult, train_step

MUTABLE_ON_RESUME = (
    "loss.tile",
    "max_optimizer_steps",
    "train.batch_size",
    "train.checkpoint_every",
    "train.chunk_size",
    "train.compile",
    "train.keep_last",
    "train.timeout_minutes",
    "train.trackers",
    "train.workers",
)
"""Options that may change when a run resumes."""


@dataclass
class AlignProgress(Progress):
    """The progress of a stage-1 run."""

    samples: int = 0
    """Samples done in the current epoch, over all processes."""
    loss_sum: float = 0.0
    """Sum over the steps of the current epoch."""
    loss_steps: int = 0
    best_recall: float = -1.0
    """Highest mean recall of an epoch."""
    best_metrics: dict[str, float] = field(default_factory=dict)
    """Validation metrics of the best epoch."""
    last_metrics: dict[str, float] = field(default_factory=dict)
    """Validation metrics of the last epoch."""
    batch_size: int = 0
    world: int = 0
    """Number of processes."""


def start_trainer(config: AlignConfig, sigterm: SigtermHandler) -> "Trainer | None":
    """Do everything that can fail early, then build the trainer; None for a finished run."""
    if not config.data and not config.pairs.sources:
        raise UserError("nothing to train on: give --data, or --pairs.sources")
    options = config.train
    data = PairData(config.pairs, options.batch_size, config.seed, config.data or "", options.shrink_batch)
    shrunk = data.mixture.batch_size != options.batch_size
    fit_notes = [shrink_note(data.mixture.count, options.batch_size)] if shrunk else []
    options = replace(options, batch_size=data.mixture.batch_size)
    config = replace(config, train=options)
    if config.towers.leave_out_unused:
        config, left_out = leave_out_unused(config, data)
        fit_notes += left_out
    valid = data.valid()
    notes = check_contrast(config, data) + check_validation(
        valid, config.pairs.captions, config.train.require_validation
    )
    run = start_run(config, MUTABLE_ON_RESUME, options.keep_last, options.timeout_minutes, data=data.digest)
    if options.chunk_size and run.accelerator.state.deepspeed_plugin:  # its backward pass runs an optimizer step
        raise UserError(
            "--train.chunk_size: DeepSpeed steps after every chunk; launch with accelerate_configs/fsdp2.yaml"
        )
    if run.finished:
        say(f"{run.path}: this run is finished; nothing to do")
        return None
    for line in fit_notes:
        note(f"note: {line}")
    for line in notes:
        note(f"warning: {line}")
    return Trainer(config, data, valid, run, sigterm)


class Trainer:
    """A stage-1 run in one process.

    model is the wrapped model (DDP, FSDP, DeepSpeed) used in training steps; unwrapped_model has the same
    parameters.
    """

    def __init__(
        self, config: AlignConfig, data: PairData, valid: ValidationSet, run: RunFolder, sigterm: SigtermHandler
    ):
        self.config, self.data, self.valid, self.run, self.sigterm = config, data, valid, run, sigterm
        self.accelerator = accelerator = run.accelerator
        self.rank, self.world = accelerator.process_index, accelerator.num_processes
        self.total_steps = data.steps_per_epoch * config.train.epochs
        self.warmup_steps = count_warmup_steps(self.total_steps, config.train.warmup_fraction)

        seed_everything(config.seed, "weights")
        self.encoders = build_encoders(config, data)
        if accelerator.is_main_process:
            for line in text_notes(self.encoders, data):
                note(f"note: {line}")
            for line in [*crop_lines(self.encoders, data), *random_lines(config)]:
                note(line)
        self.unwrapped_model = ContrastiveModel(
            self.encoders, config.loss, config.pairs.captions, learns=config.train.epochs > 0
        )
        settle_precision(run, config.train.mixed_precision, self.unwrapped_model)
        optimizer = torch.optim.AdamW(parameter_groups(self.unwrapped_model, config), fused=True)
        self.model, self.optimizer = accelerator.prepare(self.unwrapped_model, optimizer)
        if accelerator.is_fsdp2:  # Accelerate adds no autocast there
            self.model.forward = accelerator.autocast()(self.model.forward)
        self.ema = Ema(self.unwrapped_model, config.train.ema) if config.train.ema else None
        parts = {"averages": self.ema} if self.ema else {}
        self.state = TrainState(accelerator, self.model, self.unwrapped_model, self.optimizer, parts)
        self.contrasted: set[str] = set()
        """Pairs with two or more clips in a batch since this process started."""
        self.steps_taken, self.warned = 0, False
        self.warn_of_batch_norm()
        self.progress = self.resume()
        steps = min(self.total_steps, config.max_optimizer_steps or self.total_steps)
        self.bar = terminal_progress("align", steps, "steps", done=self.progress.step)

    def warn_of_batch_norm(self) -> None:
        batch_norm = nn.modules.batchnorm._BatchNorm
        trains = any(isinstance(module, batch_norm) and module.training for module in self.unwrapped_model.modules())
        if trains and (self.world > 1 or self.config.train.chunk_size):
            note("warning: a tower's batch norm sees only part of the batch; freeze it, or choose another tower")

    def resume(self) -> AlignProgress:
        """Load the newest checkpoint. Warn about changes that make the run differ from an uninterrupted one."""
        progress = self.run.resume(AlignProgress, self.state)
        batch_size, world = self.config.train.batch_size, self.world
        if progress.step:
            say(f"{self.run.path}: continuing in epoch {progress.epoch + 1}, after step {progress.step}")
            for name, before, now in (
                ("the batch size", progress.batch_size, batch_size),
                ("the number of processes", progress.world, world),
            ):
                if before != now:
                    note(
                        f"warning: {name} was {before} and is {now} now: the run continues at the nearest sample, "
                        "but differs from an uninterrupted one"
                    )
        progress.batch_size, progress.world = batch_size, world
        return progress

    # --- the loop ----------------------------------------------------------------------------------------------------

    def train(self) -> None:
        """Train until the last epoch is done, or save a checkpoint and return early."""
        try:
            if self.progress.step == 0:
                self.validate_untrained()
            with self.bar:
                for epoch in range(self.progress.epoch, self.config.train.epochs):
                    self.bar.describe(f"align, epoch {epoch + 1} of {self.config.train.epochs}")
                    self.train_epoch(epoch)
        except Halted:
            self.pause()
        else:
            self.finish()

    def train_epoch(self, epoch: int) -> None:
        """The remaining steps of an epoch, then its validation. Raises Halted at `max_optimizer_steps`, and after any
        process received SIGTERM."""
        config, options, progress = self.config, self.config.train, self.progress
        first = progress.samples // options.batch_size
        meter = Meter(options.batch_size, self.world, self.accelerator.device)
        loader = self.data.loader(epoch, first, self.rank, self.world, self.encoders, options.workers)
        self.model.train()
        for index, batch in enumerate(meter.iterate(loader), first):
            seed_everything(config.seed, epoch, index, self.rank)  # dropout and stochastic depth
            step = epoch * self.data.steps_per_epoch + index
            set_learning_rates(self.optimizer, cosine_with_warmup(step, self.total_steps, self.warmup_steps))
            batch = batch.to(self.accelerator.device)
            result = train_step(self.accelerator, self.model, self.unwrapped_model, self.optimizer, batch, options)
            if self.ema:
                self.ema.update(self.unwrapped_model, step)

            losses, sigterm = self.reduce_losses(result)
            loss = sum(self.unwrapped_model.pairs[pair] * value for pair, value in losses.items())
            if not math.isfinite(loss):
                raise UserError(f"{self.run.path}: the loss is {loss} at step {step}; lower --train.lr, or use fp32")
            progress.step += 1
            self.steps_taken += 1
            progress.samples = (index + 1) * options.batch_size
            progress.loss_sum += loss
            progress.loss_steps += 1
            self.log_step(loss, losses, result, meter)
            self.bar.update()

            self.sigterm.requested |= sigterm
            if sigterm or progress.step == config.max_optimizer_steps:
                raise Halted
            is_last = index + 1 == self.data.steps_per_epoch  # saved after the validation
            if not is_last and options.checkpoint_every and progress.step % options.checkpoint_every == 0:
                self.run.save(progress, self.state)
        self.finish_epoch(epoch, meter)

    def reduce_losses(self, result: StepResult) -> tuple[dict[str, float], bool]:
        """Losses of the global batch, and whether any process received SIGTERM, in one all-reduce. Records the pairs
        with two or more clips in the batch."""
        sigterm = torch.tensor(float(self.sigterm.requested), device=self.accelerator.device)
        values = torch.stack([*result.losses.values(), *result.rows.values(), sigterm])  # (2 pairs + 1,)
        *means, requested = self.accelerator.reduce(values, "mean").tolist()
        losses, rows = means[: len(result.losses)], means[len(result.losses) :]
        self.contrasted |= {pair for pair, row in zip(result.rows, rows, strict=True) if row * self.world > 1.5}
        return dict(zip(result.losses, losses, strict=True)), requested > 0

    def log_step(self, loss: float, losses: dict[str, float], result: StepResult, meter: Meter) -> None:
        norm = result.grad_norm
        self.run.log(
            self.progress.step,
            loss=loss,
            **{f"loss_{pair}": value for pair, value in losses.items()},
            **{name: value.item() for name, value in result.temperatures.items()},
            grad_norm=float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm),
            lr=self.optimizer.param_groups[0]["lr"],
            **meter.measurements(),
        )

    def finish_epoch(self, epoch: int, meter: Meter) -> None:
        """Validate, keep the best encoders, write a checkpoint. If halted during validation, the resumed run has no
        steps left in this epoch and validates again."""
        self.require_contrast()
        metrics, progress = self.validate(), self.progress
        train_loss = progress.loss_sum / max(1, progress.loss_steps)
        self.run.log(progress.step, epoch=epoch + 1, train_loss=train_loss, **metrics)
        say(
            f"epoch {epoch + 1}/{self.config.train.epochs}  loss {train_loss:.3f}  "
            f"valid mean recall {_shown(metrics)}  {meter.seconds:.1f} s"
        )
        recall = metrics.get("mean_recall", progress.best_recall)  # without a score, the last epoch is the best
        if recall > progress.best_recall or "mean_recall" not in metrics:
            progress.best_recall, progress.best_metrics = recall, metrics
            self.save_encoders("best", metrics)
        progress.last_metrics = metrics
        progress.epoch, progress.samples, progress.loss_sum, progress.loss_steps = epoch + 1, 0, 0.0, 0
        self.run.save(progress, self.state)

    def require_contrast(self) -> None:
        """UserError if no batch so far had two clips for any pair; a warning for the individual pairs. Data decoded
        late, such as streams, can be checked only here."""
        missing = [pair for pair in self.unwrapped_model.pairs if pair not in self.contrasted]
        if not self.steps_taken or not missing or self.warned:
            return
        if not self.contrasted:
            raise UserError(
                f"{self.run.path}: no batch had two clips with both sides of {', '.join(missing)}: nothing was learned"
            )
        self.warned = True
        note(f"warning: no batch had two clips with both sides of {', '.join(missing)}")

    # --- validation and saving ---------------------------------------------------------------------------------------

    def averaged_weights(self) -> contextlib.AbstractContextManager[None]:
        """Inside this block, the model has the averaged weights, if there are any."""
        return self.ema.applied_to(self.unwrapped_model) if self.ema else contextlib.nullcontext()

    def validate(self) -> dict[str, float]:
        """Retrieval and zero-shot metrics of the validation items. Raises Halted after any process received SIGTERM."""
        with self.averaged_weights():
            texts = prompts(self.valid.label_names, self.config.pairs.label_template)
            embedded = embed(self.model, self.accelerator, self.valid, texts, halt=self.halt_requested)
        metrics = retrieval(embedded, self.valid, self.config.pairs.captions)
        return {**metrics, **zero_shot(embedded, self.valid.labels, self.valid.label_names)}

    def halt_requested(self) -> bool:
        self.sigterm.requested = any_process(self.accelerator, self.sigterm.requested)
        return self.sigterm.requested

    def validate_untrained(self) -> None:
        metrics = self.validate()
        if "mean_recall" not in metrics and self.config.train.require_validation and self.config.train.epochs:
            raise UserError("no two validation items with a picture or sound have different texts")
        say(f"untrained: valid mean recall {_shown(metrics)}; {counted(len(self.data), 'training clip')}")
        self.run.log(0, **metrics)
        if self.config.train.epochs == 0:  # untrained towers, for comparison
            self.save_encoders("best", metrics)
            self.progress.best_metrics = self.progress.last_metrics = metrics

    def save_encoders(self, folder: str, metrics: dict[str, float]) -> None:
        """Write the encoders to RUN/<folder>."""
        with self.averaged_weights():
            state = self.accelerator.get_state_dict(self.model)  # complete on the main process for any sharding
            weights = {  # copies, because the averaged weights leave the model after this block
                name.removeprefix("encoders."): value.cpu().clone()
                for name, value in state.items()
                if name.startswith("encoders.")
            }
        if self.accelerator.is_main_process:
            record = training_record(self.config, self.data.digest, metrics)
            learned = self.config.train.epochs > 0  # without an epoch, they have seen none of these clips
            clips = self.data.training_clips if learned else TrainingClips()
            self.encoders.save_pretrained(self.run.path / folder, record, weights, clips)

    def pause(self) -> None:
        """Save a checkpoint, if there is anything to save."""
        if self.progress.step == 0:
            say(f"{self.run.path}: stopped before the first step; the same command starts it")
            return
        self.run.save(self.progress, self.state)
        say(f"{self.run.path}: stopped after step {self.progress.step}; the same command continues from here")

    def finish(self) -> None:
        """Write the last encoders and metrics.json, which marks the run as finished."""
        progress = self.progress
        self.save_encoders("last", progress.last_metrics)
        summary = {"best": progress.best_metrics, "last": progress.last_metrics, "steps": progress.step}
        if self.accelerator.is_main_process:
            write_json(self.run.path / "metrics.json", summary)
        self.accelerator.wait_for_everyone()
        self.run.close()
        result(f"{self.run.path / 'best'}: best valid mean recall {_shown(progress.best_metrics)}", summary)


def _shown(metrics: dict[str, float]) -> str:
    recall = metrics.get("mean_recall")
    return "n/a" if recall is None else f"{recall:.3f}"
