"""`emit predict`: intensities of media files, with the model folder and nothing else."""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shared import config as configuration
from shared.dataset.clip import MODALITIES, Clip, sidecar_transcript
from shared.errors import UserError
from shared.layouts.registry import guess_layout, read_source
from stage2_fusion.config import PredictConfig
from stage2_fusion.evaluation.inference import StepExplanation

NOTHING = "neither picture, sound nor words could be used"


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
    """Write predictions (sorted by Filename, values in [0, 1]) and, beside them, OUT_timeline.csv and OUT_failures.csv;
    returns the number of clips predicted. A clip that cannot be read, or has neither picture nor sound nor words, is a
    failure of its own; one that cannot be read to its end is both.

    A clip is seen in windows as long as the longest clip of the training; the timeline has a row for each, and the
    clip's prediction is their mean, weighted by their lengths."""
    from shared.dataset.recipe import Recipe
    from shared.files import write_csv
    from stage2_fusion.data.encoding import sound_rate
    from stage2_fusion.evaluation import explain
    from stage2_fusion.evaluation.inference import best_device
    from stage2_fusion.models import model_folder

    clips, failures = read_clips(config.clips)
    model, info = model_folder.load(config.model)
    recipe = _recipe(config, info["prepare"])
    model, encoders = model.to(best_device()), load_encoders(config, info).to(best_device())
    windows: list[Window] = []
    rate = sound_rate(encoders, Recipe.from_json(recipe).sample_rates)
    for batch in _batches(prepared(clips, recipe, rate, failures), config.batch_size):
        windows += predict_batch(model, encoders, batch, info, config.explain)
    seen = {window.clip for window in windows}
    failures += [
        (name, NOTHING) for name in sorted({clip.id for clip in clips} - seen - {name for name, _ in failures})
    ]
    windows.sort(key=lambda window: (window.clip, window.start))
    rows = [[name, *_numbers(values)] for name, values in over_time(windows).items()]
    for name, reason in failures:
        print(f"{name}: {reason}", file=sys.stderr)
    write_csv(config.out, ["Filename", *info["label_names"]], rows)
    timeline = [[w.clip, f"{w.start:.3f}", f"{w.end:.3f}", *_numbers(w.values)] for w in windows]
    write_csv(
        config.out.with_name(f"{config.out.stem}_timeline.csv"),
        ["Filename", "start", "end", *info["label_names"]],
        timeline,
    )
    if config.explain:
        explained = config.out.with_name(f"{config.out.stem}_explained.jsonl")
        explain.write_explanations(
            explained, [w.clip for w in windows], [w.steps for w in windows], info["label_names"]
        )
    missed = config.out.with_name(f"{config.out.stem}_failures.csv")
    write_csv(missed, ["Filename", "reason"], [list(pair) for pair in failures])
    print(f"{config.out}: {len(rows)} clips predicted, {len(failures)} failed")
    return len(rows)


@dataclass
class Window:
    """What the model says about a stretch of a clip."""

    clip: str
    start: float
    """Seconds, as `end`."""
    end: float
    values: np.ndarray
    """float32 (K,) in [0, 1]."""
    steps: StepExplanation | None = None
    """What it went by, as `inference.run_model` gives it, with times from the start of the clip."""


def predict_batch(model, encoders, batch: list[dict], info: dict, explain: bool = False) -> list[Window]:
    """Windows of prepared clips, encoded as the training clips were (`info` is the model's config.json); one with
    nothing in it is left out."""
    from stage2_fusion.data.encoding import encode_samples
    from stage2_fusion.data.features import shorten
    from stage2_fusion.evaluation.inference import run_model

    encoded = encode_samples(encoders, batch, info["precision"] == "bf16")
    usable = [i for i, sample in enumerate(encoded) if any(len(sample[name]["sequence"]) for name in MODALITIES)]
    if not usable:
        return []
    samples = [shorten(encoded[i], info["max_steps"]) for i in usable]
    found = run_model(model, samples, len(samples), explain=explain)
    values = np.clip(found.predictions, 0, 1)  # (B, K)
    windows = []
    for row, i in enumerate(usable):
        start = batch[i]["start"]
        window = Window(samples[row]["id"], start, start + batch[i]["duration"], values[row])
        if explain:
            window.steps = found.steps[row]
            if window.steps.times is not None:
                window.steps.times = window.steps.times + start
        windows.append(window)
    return windows


def over_time(windows: list[Window]) -> dict[str, np.ndarray]:
    """The mean over the windows of each clip, weighted by their lengths: {clip: float64 (K,)}, in their order."""
    clips: dict[str, list[Window]] = {}
    for window in windows:
        clips.setdefault(window.clip, []).append(window)
    # Words alone last no time at all.
    weights = {name: [max(part.end - part.start, 1e-3) for part in parts] for name, parts in clips.items()}
    return {
        name: np.average([part.values.astype(np.float64) for part in parts], axis=0, weights=weights[name])
        for name, parts in clips.items()
    }


def _numbers(values: np.ndarray) -> list[str]:
    return [f"{value:.6f}" for value in values]


def _recipe(config: PredictConfig, settings: dict) -> dict:
    """How the training clips were prepared, with what the command says otherwise."""
    given = {"max_seconds": config.window, "detector": config.detector, "transcribe": config.transcribe}
    return {**settings, **{name: value for name, value in given.items() if value is not None}}


def read_clips(sources: list[str]) -> tuple[list[Clip], list[tuple[str, str]]]:
    """Clips of media files, folders and tables, and (name, reason) of sources that give none. A clip met twice is
    predicted once; two clips of one name in different folders are told apart by their paths."""
    clips: dict[str, Clip] = {}
    failures = []
    for source in map(Path, sources):
        try:
            is_media = source.is_file() and guess_layout(source) == "folder"
            found = [Clip(source.name, source, sidecar_transcript(source))] if is_media else _named(source)
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
    """Clips of a folder or table; how it was read goes to stderr. Of a folder they are called as their files are, as
    files given one by one would be; a table has names of its own."""
    read = read_source(source)
    for note in read.notes:
        print(f"{source}: {note}", file=sys.stderr)
    if guess_layout(source) != "folder":
        return read.clips
    return [replace(clip, id=str(clip.media.relative_to(source))) for clip in read.clips]


def load_encoders(config: PredictConfig, info: dict):
    """The aligned encoders the model was trained on; UserError when they are not to be found or are others."""
    from stage1_align.encoders import AlignedEncoders
    from stage2_fusion.models.model_folder import LANDMARKER, action_units, find_landmarker

    if info["encoders"].get("precomputed"):
        raise UserError(
            f"{config.model}: trained on features that came with its clips (`emit encode --precomputed`), which "
            "nothing here can make of other media; train on features of encoders to predict, or `emit evaluate` this"
        )
    folder = config.encoders or config.model / "encoders"
    if not folder.is_dir():
        raise UserError(f"{folder}: no encoders here; give --encoders (digest {info['encoders']['digest']})")
    encoders = AlignedEncoders.from_pretrained(folder)
    if encoders.digest != info["encoders"]["digest"]:
        raise UserError(
            f"{folder}: encoders {encoders.digest}, but the model was trained on {info['encoders']['digest']}; "
            "give --encoders with those"
        )
    if action_units(info):
        from stage2_fusion.data.action_units import add_action_units

        given = config.blendshapes or config.model / LANDMARKER
        if find_landmarker(info, given) is None:
            raise UserError(
                f"{given}: missing, or not the file that the model's action units are from; "
                f"give --blendshapes (digest {action_units(info)})"
            )
        add_action_units(encoders, given)
    elif config.blendshapes:
        raise UserError(f"{config.model}: reads no action units; leave out --blendshapes")
    return encoders


def prepared(clips: list[Clip], settings: dict, rate: int, failures: list[tuple[str, str]]) -> Iterator[dict]:
    """Windows of clips as `encode_samples` takes them, prepared by the recipe `settings`, waveforms at `rate` Hz; clips
    that cannot be read, or not to their end, go to `failures`."""
    from shared.commands.prepare import prepare_each
    from shared.dataset.recipe import Recipe

    read: dict[str, float] = {}
    for clip, sample, reason in prepare_each(clips, Recipe.from_json({**settings, "sample_rates": [rate]})):
        if sample is None:
            until = read.get(clip.id)  # 0 of words alone
            before = "" if until is None else f"from {until:.1f} s on: " if until else "predicted by its words alone: "
            failures.append((clip.id, before + reason))
        else:
            read[clip.id] = sample["start"] + sample["duration"]
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
