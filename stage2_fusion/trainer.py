"""The training loop of stage 2."""

import math
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list

from shared.errors import UserError
from shared.files import write_json
from shared.metrics import Scores, score
from shared.terminal.messages import note, say
from shared.terminal.progress import progress as terminal_progress
from shared.terminal.results import result
from shared.training.checkpoint import TrainState
from shared.training.distributed import any_process
from shared.training.ema import Ema
from shared.training.optimizer import set_learning_rates
from shared.training.run_folder import Progress, RunFolder
from shared.training.sampling import batch_indices, seed_everything
from shared.training.schedule import cosine_with_warmup, count_warmup_steps
from shared.training.signals import SigtermHandler
from shared.training.startup import settle_precision, start_run
from stage2_fusion.config import FuseConfig
from stage2_fusion.data.batches import PackedSamples
from stage2_fusion.data.feature_damage import FeatureDamage
from stage2_fusion.data.features import FeatureDataset
from stage2_fusion.data.passing_damage import PassingDamage
from stage2_fusion.evaluation.calibrate import calibrate, load_best
from stage2_fusion.finetune import EndToEndModel, MakeBatch, RawInputs
from stage2_fusion.inference import run_model
from stage2_fusion.losses import FusionLoss
from stage2_fusion.models.base import FeatureSpec, FusionModel, FusionOptions
from stage2_fusion.models.starting import Starts, freeze, load_starts, start_from
from stage2_fusion.setup import (
    TrainingData,
    build_options,
    fusion_config,
    load_training_data,
    parameter_groups,
    training_clips,
    warn_of_missing_files,
)
from stage2_fusion.step import train_step

MUTABLE_ON_RESUME = ("clips", "encoders", "train.trackers")
"""Options that may change when a run resumes."""


@dataclass
class FusionProgress(Progress):
    """The progress of a stage-2 run."""

    best_pcc: float = -math.inf
    """Highest validation PCC of any epoch."""
    best_metrics: dict[str, Any] = field(default_factory=dict)
    """The metrics.json of the model of that epoch."""
    epochs_since_best: int = 0
    seconds: float = 0.0
    """Seconds of training and validation so far."""


def start_trainer(config: FuseConfig, sigterm: SigtermHandler) -> "Trainer | None":
    """Check everything that can fail early, then build the trainer; None for a finished run."""
    if config.finetune and config.train.feature_damage:
        raise UserError("--train.feature_damage needs stored features: leave it out, or leave out --finetune")
    options = build_options(config)
    data = load_training_data(config)
    config = replace(config, train=replace(config.train, batch_size=data.batch_size))
    starts = load_starts(config.init, data.info, config.data)
    raw_inputs = RawInputs(config, data.info) if config.finetune else None
    run = start_run(config, MUTABLE_ON_RESUME, features=data.info.digest)
    if run.finished:
        say(f"{run.path}: this run is finished; its model is in {run.path / 'model'}")
        return None
    for line in data.notes:
        note(line)
    warn_of_missing_files(run.accelerator, data.info, bool(config.finetune))
    return Trainer(config, options, data, starts, raw_inputs, run, sigterm)


class Trainer:
    """A stage-2 run in one process.

    model is the wrapped model (DDP) for training steps; unwrapped_model has the same parameters.
    """

    unwrapped_model: FusionModel | EndToEndModel
    train_batches: MakeBatch
    valid_batches: MakeBatch

    def __init__(
        self,
        config: FuseConfig,
        options: FusionOptions,
        data: TrainingData,
        starts: Starts,
        raw_inputs: RawInputs | None,
        run: RunFolder,
        sigterm: SigtermHandler,
    ):
        self.config, self.data, self.run, self.sigterm = config, data, run, sigterm
        self.accelerator = accelerator = run.accelerator
        self.total_steps = data.steps_per_epoch * config.train.epochs
        self.warmup_steps = count_warmup_steps(self.total_steps, config.train.warmup_fraction)
        self.paired = data.damaged_views > 0 or config.train.feature_damage > 0

        self.train_batches, self.valid_batches = PackedSamples(data.samples), PackedSamples(data.valid.samples)
        if raw_inputs:
            self.train_batches = raw_inputs.batches(self.train_batches)
            self.valid_batches = raw_inputs.batches(self.valid_batches)
        seed_everything(config.seed, "weights")
        self.fusion_config = fusion_config(config, options, data, starts)
        fusion = FusionModel.build(config.model, self.fusion_config.options, FeatureSpec.of(data.info))
        fusion.training_clips = self.training_clips = training_clips(config, data, starts)
        fusion.fit_statistics([clip[0] for clip in data.clips])
        started = start_from(fusion, starts)
        if started and config.train.init_lr == 0:
            freeze(fusion, started, raw_inputs is not None)
        self.unwrapped_model = fusion
        if raw_inputs:
            self.unwrapped_model = raw_inputs.wrap(fusion)
            self.unwrapped_model.freeze_unread(self.train_batches(np.arange(2)))
        settle_precision(run, config.train.mixed_precision, self.unwrapped_model)
        groups = parameter_groups(self.unwrapped_model, config.train, started)
        optimizer = torch.optim.AdamW(groups, lr=config.train.lr, fused=True)
        self.model, self.optimizer = accelerator.prepare(self.unwrapped_model, optimizer)
        self.ema = Ema(self.unwrapped_model, config.train.ema)
        self.feature_damage = None
        if config.train.feature_damage:
            self.feature_damage = FeatureDamage(fusion, config.train.feature_damage, config.seed)
        self.passing_damage = None
        if config.train.passing_damage and self.paired:
            self.passing_damage = PassingDamage(config.train.passing_damage, config.seed)
        self.criterion = FusionLoss(config.loss, fusion.dimensions).to(accelerator.device)
        parts = {"averages": self.ema, "loss": self.criterion}
        self.state = TrainState(accelerator, self.model, self.unwrapped_model, self.optimizer, parts)
        self.progress = run.resume(FusionProgress, self.state)
        self.bar = terminal_progress("fuse", self.total_steps, "steps", done=self.progress.step)
        if self.progress.step:
            say(f"{run.path}: continuing after epoch {self.progress.epoch} of {self.config.train.epochs}")

    def train(self) -> None:
        """Train until the last epoch, or until the validation PCC has not improved for `patience` epochs. Returns early
        after a SIGTERM to any process."""
        options = self.config.train
        with self.bar:
            for epoch in range(self.progress.epoch, options.epochs):
                if self.progress.epochs_since_best >= options.patience:
                    break
                self.bar.describe(f"fuse, epoch {epoch + 1} of {options.epochs}")
                started = time.perf_counter()
                terms = self.train_epoch(epoch)
                self.finish_epoch(epoch, terms, started)
                self.sigterm.requested = any_process(self.accelerator, self.sigterm.requested)
                if self.sigterm.requested:
                    say(f"{self.run.path}: stopped after epoch {epoch + 1}; the same command continues from here")
                    return
        self.finish()

    def train_epoch(self, epoch: int) -> dict[str, float]:
        """Returns the loss, its terms and the norm of the gradient, averaged over the steps."""
        config, steps = self.config, self.data.steps_per_epoch
        self.model.train()
        averages: dict[str, float] = {}
        for step in range(steps):
            # Dropout and modality dropout.
            seed_everything(config.seed, epoch, step, self.accelerator.process_index)
            factor = cosine_with_warmup(self.progress.step, self.total_steps, self.warmup_steps)
            set_learning_rates(self.optimizer, factor)
            rows = self.sample_batch(epoch, step)  # (n,)
            batch = self.train_batches(rows, self.accelerator.device)
            if self.feature_damage:
                self.feature_damage(batch, rows, epoch)
            if self.passing_damage:
                batch = self.passing_damage(batch, rows, epoch)
            terms = train_step(
                self.accelerator,
                self.model,
                self.optimizer,
                self.criterion,
                batch,
                paired=self.paired,
                epoch=epoch + step / steps,
                max_grad_norm=config.train.max_grad_norm,
            )
            self.ema.update(self.unwrapped_model, self.progress.step)
            self.progress.step += 1
            self.bar.update()
            for name, value in terms.items():
                averages[name] = averages.get(name, 0.0) + value.item() / steps
            if not math.isfinite(averages["loss"]):
                raise UserError(f"{self.run.path}: the loss is not a number in epoch {epoch}; lower --train.lr")
        return averages

    def sample_batch(self, epoch: int, step: int) -> np.ndarray:
        """Samples of this process in a step, as indices into `data.samples`. If rows are paired, each undamaged clip is
        followed by one of its damaged views or, if its features are to be damaged, by itself."""
        views = self.data.damaged_views
        rank, world = self.accelerator.process_index, self.accelerator.num_processes
        batch_size, seed = self.config.train.batch_size, self.config.seed
        clips = batch_indices(len(self.data.clips), batch_size, seed, epoch, step, rank, world)  # (batch_size / W,)
        clean = clips * (1 + views)
        if not self.paired:
            return clean
        other = clean + 1 + (epoch + clips) % views if views else clean
        return np.stack([clean, other], axis=1).ravel()  # (2 batch_size / W,)

    def finish_epoch(self, epoch: int, terms: dict[str, float], started: float) -> None:
        """Validate the averaged weights, keep the best model, write a checkpoint."""
        progress = self.progress
        with self.ema.applied_to(self.unwrapped_model):
            scores = validate(self.unwrapped_model, self.data.valid, self.valid_batches, self.accelerator)
            pcc = scores.pcc.mean
            assert pcc is not None  # load_training_data refuses labels without a PCC
            improved = pcc > progress.best_pcc
            progress.seconds += time.perf_counter() - started
            if improved:
                seconds = round(progress.seconds, 1)
                progress.best_pcc = pcc
                progress.best_metrics = {"epoch": epoch + 1, "valid": asdict(scores), "seconds": seconds}
                if self.accelerator.is_main_process:
                    self.unwrapped_model.save_pretrained(
                        self.run.path / "model", self.fusion_config, progress.best_metrics
                    )
        progress.epoch = epoch + 1
        progress.epochs_since_best = 0 if improved else progress.epochs_since_best + 1
        lr = max(group["lr"] for group in self.optimizer.param_groups)  # parameters from other models have a lower one
        self.run.log(progress.step, epoch=epoch + 1, valid_pcc=pcc, lr=lr, **terms)
        say(
            f"epoch {epoch + 1}/{self.config.train.epochs}  loss {terms['loss']:.4f}  valid PCC {pcc:.4f}"
            f"{' *' if improved else '  '}  {time.perf_counter() - started:.1f} s"
        )
        self.run.save(progress, self.state)

    def finish(self) -> None:
        """Calibrate the best model, then write metrics.json, which marks the run as finished."""
        progress = self.progress
        duration = {"epochs": progress.epoch, "seconds": round(progress.seconds, 1)}
        if self.accelerator.is_main_process:
            self.calibrate()
            write_json(self.run.path / "metrics.json", {**progress.best_metrics, **duration})
        self.accelerator.wait_for_everyone()
        self.run.close()
        where = self.run.path / "model"
        result(f"{where}: best validation PCC {progress.best_pcc:.4f}", {**progress.best_metrics, **duration})

    def calibrate(self) -> None:
        """Write the predictions of the best epoch's model for the validation split into its folder."""
        folder, step = self.run.path / "model", 1 + self.data.damaged_views
        model = load_best(folder, self.unwrapped_model)
        fusion = model.fusion if isinstance(model, EndToEndModel) else model
        fusion.calibration = calibrate(
            model,
            [clip[0] for clip in self.data.clips],
            lambda rows, device=None: self.train_batches(np.asarray(rows) * step, device),
            self.data.valid.samples,
            self.valid_batches,
            self.data.info.group_names,
            self.data.valid.info.label_names,
        )
        fusion.training_clips = self.training_clips  # an earlier version may have saved the best epoch
        fusion.save_pretrained(folder)


def validate(
    model: FusionModel | EndToEndModel, dataset: FeatureDataset, make_batch: MakeBatch, accelerator: Accelerator
) -> Scores:
    """Scores of the whole split. The main process computes and broadcasts them, so that all processes agree on the best
    epoch, bit for bit."""
    scores: list[Any] = [None]
    if accelerator.is_main_process:
        predictions = run_model(model, dataset.samples, 64, make_batch).predictions
        scores = [score(predictions, dataset.labels(), dataset.info.label_names, resamples=0)]
    return broadcast_object_list(scores)[0]
