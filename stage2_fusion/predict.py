"""`emit predict`: intensities of media files, with the model folder and nothing else."""

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.clips import MODALITIES, Clip, guess_layout, read_source, sidecar
from shared.errors import UserError
from stage2_fusion.config import PredictConfig


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        PredictConfig,
        argv,
        prog="emit predict",
        example="emit predict --model runs/demo/fuse/model clip.mp4 another.webm --out predictions.csv",
        positional=("clips",),
    )
    return 0 if predict(config) else 1


def predict(config: PredictConfig) -> int:
    """Write predictions (sorted by Filename, values in [0, 1]) and, beside them, OUT_failures.csv; returns the number
    of clips predicted. A clip that cannot be read, or has neither picture nor sound nor words, is a failure of its
    own."""
    from shared.files import write_csv
    from stage2_fusion import model_folder
    from stage2_fusion.inference import best_device

    clips, failures = read_clips(config.clips)
    model, info = model_folder.load(config.model)
    model, encoders = model.to(best_device()), load_encoders(config, info).to(best_device())
    rows: list[list] = []
    for batch in _batches(prepared(clips, info["prepare"], encoders.audio.sample_rate, failures), config.batch_size):
        rows += predict_batch(model, encoders, batch, info, failures)
    for name, reason in failures:
        print(f"{name}: {reason}", file=sys.stderr)
    write_csv(config.out, ["Filename", *info["label_names"]], sorted(rows))
    missed = config.out.with_name(f"{config.out.stem}_failures.csv")
    write_csv(missed, ["Filename", "reason"], [list(pair) for pair in failures])
    print(f"{config.out}: {len(rows)} clips predicted, {len(failures)} failed")
    return len(rows)


def predict_batch(model, encoders, batch: list[dict], info: dict, failures: list[tuple[str, str]]) -> list[list]:
    """Rows (name, K formatted numbers) of prepared clips, encoded as the training clips were (`info` is the model's
    config.json); a clip with nothing in it goes to `failures`."""
    from stage2_fusion.encode import encode_samples
    from stage2_fusion.features import shorten
    from stage2_fusion.inference import run_model

    samples = []
    for sample in encode_samples(encoders, batch, info["precision"] == "bf16"):
        if any(len(sample[name]["sequence"]) for name in MODALITIES):
            samples.append(shorten(sample, info["max_steps"]))
        else:
            failures.append((sample["id"], "neither picture, sound nor words could be used"))
    if not samples:
        return []
    values = np.clip(run_model(model, samples, len(samples))["predictions"], 0, 1)  # (B, K)
    return [[sample["id"], *(f"{v:.6f}" for v in row)] for sample, row in zip(samples, values, strict=True)]


def read_clips(sources: list[str]) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Clips of media files, folders and tables, and (name, reason) of sources that give none. A clip met twice is
    predicted once; two clips of one name in different folders are told apart by their paths."""
    clips: dict[str, Clip] = {}
    failures = []
    for source in map(Path, sources):
        try:
            is_media = source.is_file() and source.suffix.lower() != ".csv"
            found = [Clip(source.name, source, sidecar(source))] if is_media else _named(source)
        except UserError as error:
            failures.append((str(source), str(error)))
            continue
        for clip in found:
            known = clips.get(clip.id)
            if known is None:
                clips[clip.id] = clip
            elif known.media != clip.media:
                name = str(clip.media)
                clips[name] = replace(clip, id=name)
    if not clips:
        raise UserError(f"no clips to predict: {failures[0][1] if failures else 'none were given'}")
    return [replace(clip, labels=()) for clip in clips.values()], failures  # sources differ in labels; none are read


def _named(source: Path) -> list[Clip]:
    """Clips of a folder or table. Of a folder they are called as their files are, as files given one by one would be;
    a table has names of its own."""
    clips = read_source(source).clips
    if source.is_file() or guess_layout(source) != "folder":
        return clips
    return [replace(clip, id=str(clip.media.relative_to(source))) for clip in clips]


def load_encoders(config: PredictConfig, info: dict):
    """The aligned encoders the model was trained on; UserError when they are not to be found or are others."""
    from stage1_align.encoders import AlignedEncoders

    folder = config.encoders or config.model / "encoders"
    if not folder.is_dir():
        raise UserError(f"{folder}: no encoders here; give --encoders (digest {info['encoders']['digest']})")
    encoders = AlignedEncoders.from_pretrained(folder)
    if encoders.digest != info["encoders"]["digest"]:
        raise UserError(
            f"{folder}: encoders {encoders.digest}, but the model was trained on {info['encoders']['digest']}; "
            "give --encoders with those"
        )
    return encoders


def prepared(clips: list[Clip], settings: dict, rate: int, failures: list[tuple[str, str]]) -> Iterator[dict]:
    """Clips as `encode_samples` takes them, prepared as the training clips were, waveforms at `rate` Hz; those that
    cannot be read go to `failures`."""
    from shared.prepare import prepare_each
    from shared.rows import Recipe

    for clip, sample, reason in prepare_each(clips, Recipe(**{**settings, "sample_rates": [rate]})):
        if sample is None:
            failures.append((clip.id, reason))
        else:
            yield sample


def _batches(items: Iterator[dict], size: int) -> Iterator[list[dict]]:
    batch = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
