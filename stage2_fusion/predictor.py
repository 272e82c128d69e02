"""Predict intensities from clips in Python: files, or arrays of frames, sound and text.

    from stage2_fusion import Predictor

    predictor = Predictor.from_pretrained("runs/demo/fuse/model")  # or "hf-hub:OWNER/NAME"
    result = predictor("clip.mp4")
    print(result.intensities, result.found["vision"].quality["face_found"])
    results = predictor(["a.mp4", "b.webm"])
    result = predictor(frames=frames, frame_rate=25, waveform=waveform, rate=16000, text="that is so funny")

Everything runs in this process and nothing is printed. `emit predict` gives the same numbers, and reads files in
isolated processes, which survive a file that crashes or hangs a decoder.
"""

import dataclasses
import itertools
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch

from shared.dataset.clip import MODALITIES, Clip
from shared.dataset.clip_dataset import ClipSample
from shared.dataset.recipe import Recipe
from shared.errors import UserError
from shared.media.inputs import ClipArrays
from shared.media.quality import AUDIO_QUALITY, TEXT_QUALITY, VISION_QUALITY
from shared.media.remarks import Remarks, all_lines
from shared.options.ranges import BatchSize, Coverage, Seconds, require
from shared.text import has_words, one_line
from stage1_align.encoders import AlignedEncoders
from stage2_fusion.data.batches import collate
from stage2_fusion.data.encoding import encode_samples, waveform_rate
from stage2_fusion.data.features import shorten
from stage2_fusion.evaluation.conformal import unbounded_line
from stage2_fusion.inference import StepExplanation, best_device, run_model
from stage2_fusion.models.base import FusionModel
from stage2_fusion.models.calibration import Calibration, require_calibration
from stage2_fusion.models.card import SYNTHETIC
from stage2_fusion.models.model_config import LANDMARKER, FusionConfig
from stage2_fusion.models.saving import find_landmarker
from stage2_fusion.prediction.familiarity import Familiarity, present_in
from stage2_fusion.prediction.preparing import collect_failures, prepare_here
from stage2_fusion.prediction.recipes import make_recipe, prediction_recipe
from stage2_fusion.prediction.result import NOTHING, UNKNOWN_WORDS, Prediction, Window, merge_windows
from stage2_fusion.prediction.sources import Reading, media_clip, read_clips
from stage2_fusion.prediction.summaries import summarize
from stage2_fusion.prediction.window_basis import basis_of

Given = str | os.PathLike | ClipArrays
"""A clip to predict: a media file, or a clip in memory."""


SIGNALS = {"vision": list(VISION_QUALITY), "audio": list(AUDIO_QUALITY), "text": list(TEXT_QUALITY)}
"""Names of the quality signals that prepared clips have."""


class SyntheticModelWarning(UserWarning):
    """A model of synthetic faces and voices is about to score a clip."""


class Predictor:
    """A fusion model with its encoders and the preparation settings of its training clips.

    >>> predictor = Predictor.from_pretrained("runs/demo/fuse/model")
    >>> predictor("clip.mp4").intensities
    {'Admiration': 0.44, 'Amusement': 0.08, ...}
    >>> predictor(["a.mp4", ClipArrays(text="so sad")])
    >>> predictor(frames=frames, frame_rate=25, waveform=waveform, rate=16000, text="that is so funny")

    Faces are found, cropped and resampled as for training. The transcript of a file is <stem>.txt beside it, if that
    exists. A missing modality is masked. Everything runs in this process, and nothing is printed.
    """

    def __init__(self, model: FusionModel, encoders: AlignedEncoders, recipe: Recipe):
        """Use `from_pretrained` instead. recipe: how clips are prepared, with the sample rate of the encoders."""
        self.model, self.encoders, self.recipe = model, encoders, recipe
        self.config: FusionConfig = model.config

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        *,
        device: str | torch.device | None = None,
        encoders: str | Path | None = None,
        blendshapes: str | Path | None = None,
        window: float | None = None,
        detector: str | None = None,
        transcribe: str | None = None,
    ) -> Self:
        """Load a model folder (RUN/model) or "hf-hub:OWNER/NAME" with its encoders.

        device: by default the GPU if there is one. encoders, blendshapes: by default those in the model folder. window:
        longest window in seconds; detector, transcribe: as in `emit prepare`; by default as for the training clips.
        UserError if something is missing or differs from training. Warns if the model was trained on synthetic faces.
        """
        require(Seconds | None, window, "window")
        model = FusionModel.from_pretrained(source)
        config = model.config
        loaded = load_encoders(model, encoders, blendshapes)
        changes = {"max_seconds": window, "detector": detector, "transcribe": transcribe}
        if config.quality != SIGNALS:
            raise UserError(f"{source}: reads quality signals of another version; train it again on new features")
        recipe = prediction_recipe(config, source, changes)
        recipe = dataclasses.replace(recipe, sample_rates=[waveform_rate(loaded, recipe.sample_rates)])
        recipe.file_digests()
        if config.trained_on.synthetic:
            warnings.warn(f"{source}: {SYNTHETIC}", SyntheticModelWarning, stacklevel=2)
        return cls(model, loaded, recipe).to(device)

    def to(self, device: str | torch.device | None) -> Self:
        """Move model and encoders; None: to the GPU if there is one. UserError if there is no such device."""
        try:
            device = best_device() if device is None else torch.device(device)
            self.model.to(device)
            self.encoders.to(device)
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            raise UserError(f"device {device}: {one_line(error, 200)}") from None
        return self

    @overload
    def __call__(self, clips: list[Given] | tuple[Given, ...]) -> list[Prediction]: ...

    @overload
    def __call__(self, clips: Given | None = None, **arrays: Any) -> Prediction: ...

    def __call__(self, clips: Any = None, **arrays: Any) -> Prediction | list[Prediction]:
        """Same as `predict`."""
        return self.predict(clips, **arrays)

    def predict(
        self,
        clips: Given | list[Given] | tuple[Given, ...] | None = None,
        *,
        frames: Any = None,
        frame_times: Any = None,
        frame_rate: float | None = None,
        waveform: Any = None,
        rate: int | None = None,
        text: str | None = None,
        batch_size: int = 16,
        window: float | None = None,
        coverage: float = 0.9,
    ) -> Prediction | list[Prediction]:
        """Predict a media file, or a list of files and ClipArrays, or one clip in memory (see ClipArrays for `frames`
        to `text`). `text` beside a file is its transcript.

        batch_size: windows per forward pass; does not change the numbers. window: longest window in seconds. coverage:
        probability that an interval contains the label, for people like those in the training data
        (evaluation/conformal.py).

        A single clip that cannot be read raises UserError. In a list, its result has `error` set instead, so that the
        others are not lost. Invalid arguments always raise UserError.
        """
        arrays = {"frames": frames, "frame_times": frame_times, "frame_rate": frame_rate}
        arrays |= {"waveform": waveform, "rate": rate, "text": text}
        single = not isinstance(clips, list | tuple)
        items = _several(clips, arrays) if isinstance(clips, list | tuple) else [_single(clips, arrays)]
        require(BatchSize, batch_size, "batch_size")
        require(Seconds | None, window, "window")
        require(Coverage, coverage, "coverage")
        recipe = self.recipe if window is None else make_recipe(self.recipe.to_json() | {"max_seconds": window})
        results = self._predict_items(items, recipe, batch_size, coverage)
        if single and results[0].error:
            raise UserError(f"{results[0].id}: {results[0].error}")
        return results[0] if single else results

    def predict_source(
        self,
        source: str | os.PathLike,
        *,
        split: str | None = None,
        layout: str | None = None,
        layout_options: dict[str, Any] | None = None,
        batch_size: int = 16,
        coverage: float = 0.9,
    ) -> list[Prediction]:
        """Predict the clips of a folder or a table, like `emit predict SOURCE`. They are read with the layout of the
        model's training clips if possible; `layout` and `layout_options` select another one.

        split: predict only the clips of this split. coverage: as for `predict`. A clip that cannot be read has `error`
        set; UserError when there are no clips.
        """
        require(BatchSize, batch_size, "batch_size")
        require(Coverage, coverage, "coverage")
        found = read_clips([Path(source)], self.reading(split, layout, layout_options))
        items: list[tuple[str, Clip, ClipArrays | None]] = [(clip.id, clip, None) for clip in found.clips]
        return self._predict_items(items, self.recipe, batch_size, coverage)

    def reading(
        self, split: str | None = None, layout: str | None = None, layout_options: dict[str, Any] | None = None
    ) -> Reading:
        """The settings for reading sources for this model."""
        return Reading(layout, layout_options or {}, split, self.config.layout, self.model.folder)

    def _predict_items(
        self, items: list[tuple[str, Clip, ClipArrays | None]], recipe: Recipe, batch_size: int, coverage: float
    ) -> list[Prediction]:
        """items: name of the result, clip, arrays. coverage: of the intervals."""
        clips = [(dataclasses.replace(clip, id=str(i)), arrays) for i, (_, clip, arrays) in enumerate(items)]
        failures: dict[str, str] = {}
        windows: dict[str, list[Window]] = {clip.id: [] for clip, _ in clips}
        remarks: dict[str, Remarks] = {}
        prepared = collect_failures(prepare_here(clips, recipe), failures, remarks)
        for window in self.predict_windows(prepared, batch_size):
            windows[window.clip].append(window)
        results = []
        for (name, _, _), (clip, _) in zip(items, clips, strict=True):
            failure, parts = failures.get(clip.id), windows[clip.id]
            if parts and self.encoders.text is not None and parts[0].has_unknown_words():
                failure = "; ".join(filter(None, [failure, UNKNOWN_WORDS]))
            if parts:
                config = self.config
                results.append(merge_windows(name, parts, config.label_names, config.quality, failure))
                self.add_trust(results[-1], parts, not has_words(clip.transcript), coverage)
            else:
                results.append(Prediction(name, error=failure or NOTHING))
            results[-1].remarks[:0] = all_lines(remarks.get(clip.id, Remarks()))
        return results

    @property
    def familiarity(self) -> Familiarity | None:
        """Detects clips that are unlike the training clips; None for a model of another version."""
        return self.model.calibration.familiarity if self.model.calibration else None

    def add_trust(self, result: Prediction, windows: list[Window], transcribed: bool, coverage: float) -> None:
        """Add to a result what it is based on, and its intervals; without a calibration, a remark instead of
        intervals."""
        result.basis = basis_of(windows, self.config.quality, self.familiarity, transcribed)
        if self.model.calibration:
            low, high = self.bounds(np.array([list(result.intensities.values())]), coverage)
            ends = zip(low[0].tolist(), high[0].tolist(), strict=True)
            result.intervals = dict(zip(self.config.label_names, ends, strict=True))
            if line := unbounded_line(self.model.calibration.intervals, coverage, self.config.label_names):
                result.remarks.append(line)

    def bounds(self, values: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper bounds of the intervals of predictions (N, K), on their scale: float64 (N, K) each. UserError
        for a model without a calibration."""
        return self.require_calibration().bounds(self.config.scale, values, coverage)

    def require_calibration(self) -> Calibration:
        """The calibration of the model. UserError if it has none."""
        return require_calibration(self.model.calibration, self.model.folder)

    def predict_windows(self, prepared: Iterable[ClipSample], batch_size: int) -> Iterator[Window]:
        """Predict prepared windows (from `prepare_here` or `prepare_each`), encoded like the training clips. A window
        without any modality is left out."""
        prepared = iter(prepared)
        while batch := list(itertools.islice(prepared, batch_size)):
            yield from self._predict_batch(batch)

    def _predict_batch(self, samples: list[ClipSample]) -> Iterator[Window]:
        encoded = encode_samples(self.encoders, samples, self.config.precision == "bf16")
        usable = [i for i, sample in enumerate(encoded) if any(sample.modality(name).steps for name in MODALITIES)]
        if not usable:
            return
        features = [shorten(encoded[i], self.config.max_sequence_steps) for i in usable]
        result = run_model(self.model, features, len(features), explain=True)
        values = self.config.scale.values(np.clip(result.predictions, 0, 1))  # (B, K)
        seen = summarize(self.model, collate(features, next(self.model.parameters()).device))
        distances = self.familiarity.measure(seen) if self.familiarity else None  # (B, V)
        reads = present_in(seen)  # (B, 3)
        for row, (i, steps) in enumerate(zip(usable, result.steps, strict=True)):
            present = [name for name in MODALITIES if encoded[i].modality(name).steps]
            window = _window(samples[i], present, values[row], steps)
            window.distances = None if distances is None else distances[row]
            window.read = tuple(name for name, read in zip(MODALITIES, reads[row], strict=True) if read)
            yield window


def _window(sample: ClipSample, present: list[str], values: np.ndarray, steps: StepExplanation) -> Window:
    start = sample.start
    if steps.times is not None:
        steps = dataclasses.replace(steps, times=steps.times + start)
    quality = {
        name: np.atleast_2d(np.asarray(getattr(sample, f"{name}_quality"), dtype=np.float32))  # (T, Q)
        for name in present
    }
    return Window(sample.id, start, start + sample.duration, values, steps, quality, sample.transcript)


def _single(clip: Given | None, arrays: dict[str, Any]) -> tuple[str, Clip, ClipArrays | None]:
    given = {name: value for name, value in arrays.items() if value is not None}
    if clip is None:
        if not given:
            raise UserError("nothing to predict: give a file, a list of files, or frames=, waveform=, text=")
        return _item(ClipArrays(**given), "arrays")
    text = given.pop("text", None)
    if given:
        raise UserError(f"a clip and {', '.join(given)} are given; give either a file or arrays")
    name, item, stored = _item(clip, "arrays")
    if text is not None:
        if stored is not None:
            raise UserError("text is given beside ClipArrays; give it inside, ClipArrays(text=...)")
        item = dataclasses.replace(item, transcript=ClipArrays(text=text).text)
    return name, item, stored


def _several(clips: Sequence[Given], arrays: dict[str, Any]) -> list[tuple[str, Clip, ClipArrays | None]]:
    given = [name for name, value in arrays.items() if value is not None]
    if given:
        raise UserError(f"a list of clips and {', '.join(given)} are given; put arrays into the list as ClipArrays")
    return [_item(clip, f"arrays {i}") for i, clip in enumerate(clips)]


def _item(clip: Any, name: str) -> tuple[str, Clip, ClipArrays | None]:
    if isinstance(clip, ClipArrays):
        return name, Clip(name, None, clip.text or None), clip
    if isinstance(clip, str | os.PathLike):
        path = os.fsdecode(clip)
        if os.path.isdir(path or "."):
            raise UserError(f"{path!r}: is a folder; give a media file, or a list of them, or use predict_source")
        return path, media_clip(Path(path)), None
    raise UserError(
        f"a clip is {type(clip).__name__}; expected the path of a media file, ClipArrays, or frames=, waveform=, text="
    )


def load_encoders(
    model: FusionModel, encoders: str | Path | None = None, blendshapes: str | Path | None = None
) -> AlignedEncoders:
    """The aligned encoders that a model was trained on, from its folder unless given. UserError if they are missing or
    differ."""
    config, home = model.config, model.folder or Path()
    if config.encoders.precomputed and not config.encoders.external:
        raise UserError(
            f"{home}: trained on features that came with its clips (`emit encode --precomputed`), which nothing "
            "here can compute for other media; give features of the clips, `emit predict --data FEATURES`"
        )
    if config.encoders.external:
        tools = config.encoders.external.items()
        needed = " and ".join(f"{name} features of {tool.describe(config.widths[name])}" for name, tool in tools)
        raise UserError(
            f"{home}: reads {needed}, which nothing here computes; make them, {config.encoders.how_to_make()}, and "
            f"`emit predict --data FEATURES --model {home}`"
        )
    for name, path in (("encoders", encoders), ("blendshapes", blendshapes)):
        if not isinstance(path, str | os.PathLike | None):
            raise UserError(f"{name} is {path!r}; give a path")
    folder = Path(encoders or home / "encoders")
    if not folder.is_dir():
        raise UserError(f"{folder}: no encoders here; give --encoders (digest {config.encoders.digest})")
    loaded = AlignedEncoders.from_pretrained(folder)
    if loaded.digest != config.encoders.digest:
        raise UserError(
            f"{folder}: encoders {loaded.digest}, but the model was trained on {config.encoders.digest}; "
            "give --encoders with those"
        )
    if config.action_units:
        _add_action_units(loaded, config, Path(blendshapes) if blendshapes else home / LANDMARKER)
    elif blendshapes:
        raise UserError(f"{home}: reads no action units; leave out --blendshapes")
    return loaded


def _add_action_units(encoders: AlignedEncoders, config: FusionConfig, path: Path) -> None:
    from stage2_fusion.data.action_units import add_action_units

    if find_landmarker(config.landmarker_digest or "", path) is None:
        raise UserError(
            f"{path}: missing, or not the file behind the model's action units; "
            f"give --blendshapes (digest {config.landmarker_digest})"
        )
    add_action_units(encoders, path)
