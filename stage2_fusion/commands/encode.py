"""`emit encode`: run frozen encoders over a clip dataset once.

    emit encode --encoders DIR --data DIR --out DIR
    emit encode --precomputed ROOT --data DIR --out DIR        features distributed with Hume-Vidmimic2
    emit encode --external vision=openface/ --data DIR --out DIR    features of other tools
    accelerate launch --config_file accelerate_configs/multi_gpu.yaml -m stage2_fusion.commands.encode ...

OUT/.partial holds finished shards until all are written, so a stopped run continues where it stopped. Several
processes, also on several machines that share OUT, divide the shards among them.
"""

import contextlib
import os
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from shared import config as configuration
from shared.dataset.clip import MODALITIES
from shared.dataset.shards import ShardWriter
from shared.dataset.worker_pool import cores
from shared.options.outputs import OutputFolder
from shared.options.placeholders import Placeholder, WithCommas
from shared.options.ranges import BatchSize, CheckedOptions, Processes, Seed, Views
from shared.saved.checksum import FEATURES
from shared.terminal.closing import closing, fuse_options, unused
from shared.terminal.messages import say
from shared.terminal.progress import Progress, progress
from shared.text import counted

if TYPE_CHECKING:
    import numpy as np
    import torch
    from accelerate import Accelerator

    from shared.dataset.clip_dataset import ClipDataset
    from stage1_align import AlignedEncoders
    from stage2_fusion.data.feature_info import FeatureInfo
    from stage2_fusion.data.features import FeatureSample
    from stage2_fusion.data.given_sources import GivenSources

SHARD_SIZE = 32
"""Clips in a shard. Fixed, because the clips in a forward pass affect the last bits of each other's features; the
number of processes and interruptions must not."""


@dataclass
class EncodeConfig(CheckedOptions):
    """Run frozen encoders over a clip dataset once, so that fusion models can train on their features."""

    RENAMED: ClassVar[dict[str, str]] = {"provided": "precomputed"}
    COMMON: ClassVar[tuple[str, ...]] = (
        "encoders",
        "precomputed",
        "external",
        "blendshapes",
        "damaged_views",
        "workers",
    )

    data: Annotated[Path, Placeholder("CLIPS")]
    """Clip dataset (`emit prepare`)."""
    out: OutputFolder
    """Folder for the feature dataset. An unfinished one is continued."""
    encoders: Annotated[Path | None, Placeholder("ENCODERS", usual=True)] = None
    """Folder of aligned encoders (`emit align` ... `emit export`)."""
    precomputed: Path | None = None
    """Hume-Vidmimic2 as distributed, the source of the clips: its vit/ and wav2vec2/ replace the vision and audio
    encoders. Text goes through the text encoder of `encoders`; without `encoders` it is missing."""
    external: Annotated[list[str], WithCommas(), Placeholder("NAME=PATH")] = field(default_factory=list)
    """Features of another tool in place of the vision, audio or text encoder; once per modality. PATH holds a file per
    clip (CSVs of OpenFace, openSMILE, Py-Feat, LibreFace; .npy, .npz, .safetensors), or is a table with a row per clip
    or MMSA's .pkl. Clips are matched by names, paths and ids. FORMAT:PATH names the format if the files do not tell
    it."""
    external_columns: dict[str, list[str]] = field(default_factory=dict)
    """Columns to read, such as {vision: [AU*_r]}, by name or with * and ?; by default all that describe behavior,
    without landmarks, face boxes and identities."""
    external_made_by: dict[str, str] = field(default_factory=dict)
    """The tool, such as {vision: "OpenFace 2, means over the clip"}, if the files do not tell it; models of these
    features record it."""
    blendshapes: Path | None = None
    """MediaPipe's face_landmarker.task (`pip install mediapipe --no-deps`; its usage reports to Google are blocked
    here): adds facial action units, 52 scores per frame, to the channels of the vision sequence, as in the source of
    late_fusion. One more channel says whether a face was found."""
    damaged_views: Views = 3
    """Copies of every clip with one modality deliberately damaged: quality weights learn from them what damage looks
    like, and are scored on them. 0 encodes only the undamaged clips."""
    batch_size: BatchSize = 32
    """Clips per forward pass, at most 32; does not change the features."""
    workers: Processes | None = None
    """Processes that read and damage clips while the encoders run, by default one per remaining core, at most 4. Each
    holds a batch or two. Does not change the features."""
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    """auto: the launcher's setting, otherwise bf16 if the hardware is fast at it for encoders of this width; features
    are stored in half precision anyway."""
    seed: Seed = 0
    """Determines which modality of each clip is damaged, how, and how much."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.encoders is None and self.precomputed is None and not self.external:
            raise ValueError("encoders is missing: give --encoders DIR, --precomputed ROOT, or --external NAME=PATH")
        external = self.external_paths()
        if self.blendshapes and (self.precomputed or self.encoders is None or "vision" in external):
            other = "precomputed" if self.precomputed else "external vision features"
            raise ValueError(f"blendshapes are read from the frames that encoders see: leave out {other}")
        for option in ("external_columns", "external_made_by"):
            for name in getattr(self, option):
                if name not in external:
                    raise ValueError(f"{option} names {name!r}: give --external {name}=PATH")
        if empty := next((name for name, columns in self.external_columns.items() if not columns), None):
            raise ValueError(f"external_columns of {empty} is empty: name columns, or leave {empty} out")

    def external_paths(self) -> dict[str, str]:
        """Modality to PATH or FORMAT:PATH. ValueError for anything else."""
        paths: dict[str, str] = {}
        for given in self.external:
            name, _, path = given.partition("=")
            if name not in MODALITIES or not path:
                raise ValueError(f"external is {given!r}: write NAME=PATH with NAME vision, audio or text")
            if name in paths:
                raise ValueError(f"external names {name} twice: {paths[name]} and {path}; leave one")
            paths[name] = path
        return paths


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        EncodeConfig,
        argv,
        prog="emit encode",
        example="emit encode --encoders runs/demo/encoders --data runs/demo/clips --out runs/demo/features",
    )
    info = encode(config)
    run = unused(config.out.parent / "fuse")
    closing([config.out], [("fuse", *fuse_options(info.widths), "--data", config.out, "--run", run)])
    return 0


def encode(config: EncodeConfig) -> "FeatureInfo":
    """Write the feature dataset, or continue an unfinished one. A complete one stays as it is; UserError when the
    folder holds other features. Returns the description of the dataset."""
    from shared.training.distributed import peer_failure_guard

    with peer_failure_guard(config.out, config.out / ShardWriter.FOLDER):
        return _encode(config)


def _encode(config: EncodeConfig) -> "FeatureInfo":
    from shared.dataset.clip_dataset import ClipDataset
    from shared.dataset.label_scale import require_fractions
    from shared.dataset.training_clips import fingerprints
    from shared.training.distributed import hold_together, start_accelerator
    from shared.training.memory import keep_freed_memory
    from stage2_fusion.data.features import write_samples
    from stage2_fusion.data.given_sources import GivenSources

    keep_freed_memory()
    # Autocast sets the precision. Processes wait for each other only at the end, until the slowest one is done.
    accelerator = start_accelerator("no", timeout_minutes=24 * 60, option="")
    clips = ClipDataset.open(config.data)
    require_fractions(clips.labels(), clips.label_names, clips.column("id"), str(config.data))
    given = GivenSources.read(
        clips, config.precomputed, config.external_paths(), config.external_columns, config.external_made_by
    )
    encoders = _load_encoders(config, given, accelerator.device)
    own = fingerprints(clips)  # (N, 3)
    info = _describe(config, clips, own, encoders, given)
    vision = encoders.vision if encoders is not None else None
    if vision is not None and (line := vision.crop_line(clips.info.recipe.frame_size)):
        accelerator.print(line)
    writer = ShardWriter(config.out, FEATURES, len(clips), SHARD_SIZE)
    with accelerator.main_process_first():
        complete = _claim(writer, config, info)
    if not complete:
        hold_together(accelerator, writer.folder, config.out)
    if complete or writer.is_complete():  # another process may have finished it in between
        say(f"{config.out}: already holds these features; nothing to do")
        return info
    missing = _missing_shards(writer, accelerator)
    notes = writer.progress_notes(range(len(writer.shards)), missing)
    accelerator.wait_for_everyone()  # no process writes before all have listed the missing shards
    for note in notes:
        say(note)
    local_numbers = missing[accelerator.process_index :: accelerator.num_processes]
    shards = [writer.shards[number] for number in local_numbers]
    samples = _samples(config, clips, encoders, given, shards, info, own, _workers(config, accelerator))
    views, clips_here = 1 + config.damaged_views, sum(map(len, shards))
    with (
        contextlib.closing(samples),  # stops the workers, also on errors
        progress("encode", clips_here, "clips") as bar,
    ):
        counted = _counted(samples, views, bar)
        for number, rows in zip(local_numbers, shards, strict=True):
            write_samples(writer.path(number), islice(counted, len(rows) * views), info)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        _finish(writer, config, info, given)
        if encoders is not None and encoders.text is not None:
            report = encoders.text.coverage(clips.column("transcript"))
            for note in report.notes(clips.column("id"), "they are read in windows"):
                say(f"  {note}")
    return info


def _load_encoders(config: EncodeConfig, given: "GivenSources", device: "torch.device") -> "AlignedEncoders | None":
    """The encoders to run, for the modalities without given features."""
    if config.encoders is None:
        return None
    from stage1_align import AlignedEncoders

    only = given.towers(config.encoders)
    return None if only == [] else AlignedEncoders.from_pretrained(config.encoders, only).to(device)


def _describe(
    config: EncodeConfig,
    clips: "ClipDataset",
    fingerprints: "np.ndarray",
    encoders: "AlignedEncoders | None",
    given: "GivenSources",
) -> "FeatureInfo":
    """The features.json of clips with these fingerprints (N, 3). Adds action units to the vision tower if requested."""
    from shared.training.precision import resolve_precision
    from stage2_fusion.data.action_units import add_action_units
    from stage2_fusion.data.damaged_views import VIEW_GENERATOR
    from stage2_fusion.data.encoder_training import find_encoder_training
    from stage2_fusion.data.encoding import widths
    from stage2_fusion.data.feature_info import DataInfo, FeatureInfo
    from stage2_fusion.data.given import QUALITY

    units = None
    if config.blendshapes:
        assert encoders is not None
        units = add_action_units(encoders, config.blendshapes)
    features = given.features(encoders)
    if features is not None:
        channels, quality = features.widths(), features.quality()
    else:
        assert encoders is not None
        channels, quality = widths(encoders), {name: list(names) for name, names in QUALITY.items()}
    made_by = given.encoder_info(config.encoders, encoders)
    media = encoders is not None and (features is None or any(name not in features.names for name in encoders.towers()))
    precision = resolve_precision("--mixed_precision", config.mixed_precision, ("no", "bf16"), encoders)
    info = FeatureInfo(
        label_names=list(clips.label_names),
        group_names=list(clips.info.group_names),
        encoders=made_by,
        widths=channels,
        action_units=units.describe() if units else None,
        precomputed=given.precomputed.describe() if given.precomputed else None,
        external={name: each.describe() for name, each in given.external.items()} or None,
        data=DataInfo(
            path=str(config.data.resolve()),
            digest=clips.digest,
            prepare=clips.info.recipe.to_json(),
            synthetic=clips.info.synthetic or None,
            layout=clips.info.layout,
        ),
        quality=quality,
        views=config.damaged_views,
        seed=config.seed,
        precision="bf16" if precision == "bf16" and encoders is not None else "fp32",
        label_ranges=clips.info.label_ranges,
        view_generator=VIEW_GENERATOR if config.damaged_views and media else None,
        encoder_training=find_encoder_training(encoders, clips, fingerprints, made_by.precomputed, made_by.titles),
    )
    return info.with_digest()


def _claim(writer: ShardWriter, config: EncodeConfig, info: "FeatureInfo") -> bool:
    """Whether the features of `info` are complete. If not, claim the folder; UserError if it holds something else."""
    from stage2_fusion.data.feature_info import read_info

    made_from = _made_from(info)
    stored = _made_from(read_info(config.out)) if writer.is_complete() else None
    if stored is not None and config.mixed_precision == "auto":
        made_from["precision"] = stored["precision"]
    return writer.claim(made_from, stored)


def _made_from(info: "FeatureInfo") -> dict[str, Any]:
    """What the features depend on, with the names for error messages."""
    return {
        "encoders": info.encoders.digest,
        "precomputed features": info.precomputed.digest if info.precomputed else None,
        "external features": {name: about.digest for name, about in (info.external or {}).items()} or None,
        "external_made_by": {n: about.made_by for n, about in (info.external or {}).items() if about.made_by} or None,
        "action units": info.action_units.digest if info.action_units else None,
        "clips": info.data.digest,
        "damaged views": info.views,
        "generator of damaged views": info.view_generator or 1,
        "seed": info.seed,
        "precision": info.precision,
    }


def _missing_shards(writer: ShardWriter, accelerator: "Accelerator") -> list[int]:
    """Indices of the missing and damaged shards, the same in all processes. Each process verifies its share of
    shards."""
    from accelerate.utils import gather_object

    share = range(accelerator.process_index, len(writer.shards), accelerator.num_processes)
    return sorted(gather_object(writer.missing(share)))


def _samples(
    config: EncodeConfig,
    clips: "ClipDataset",
    encoders: "AlignedEncoders | None",
    given: "GivenSources",
    shards: list[range],
    info: "FeatureInfo",
    fingerprints: "np.ndarray",
    workers: int,
) -> "Generator[FeatureSample, None, None]":
    """The samples of these shards, in order."""
    from stage2_fusion.data.encoding import encode_dataset

    return encode_dataset(
        encoders,
        clips,
        shards,
        damaged_views=config.damaged_views,
        batch_size=config.batch_size,
        seed=config.seed,
        bf16=info.precision == "bf16",
        workers=workers,
        given=given.features(encoders),
        fingerprints=fingerprints,
    )


def _workers(config: EncodeConfig, accelerator: "Accelerator") -> int:
    if config.workers is not None:
        return config.workers
    local_processes = int(os.environ.get("LOCAL_WORLD_SIZE", accelerator.num_processes))
    return max(0, min(4, cores() // local_processes - 1))


def _counted(samples: "Iterable[FeatureSample]", views: int, bar: Progress) -> "Iterator[FeatureSample]":
    """Pass the samples on; the bar advances after the last view of each clip."""
    for number, sample in enumerate(samples, 1):
        yield sample
        if number % views == 0:
            bar.update()


def _finish(writer: ShardWriter, config: EncodeConfig, info: "FeatureInfo", given: "GivenSources") -> None:
    """Combine the shards into the dataset and print a summary."""
    from stage2_fusion.data.features import read_samples

    given.write_problems(config.out)
    shards = [writer.path(number) for number in range(len(writer.shards))]
    writer.finish(read_samples(shards), info.digest, info.to_json())
    say(
        f"{config.out}: {counted(writer.total, 'clip')}, "
        f"{counted(1 + config.damaged_views, 'view')} each, encoders {info.encoders.digest}"
    )
    for line in given.closing_lines(config.damaged_views):
        say(f"  {line}")


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
