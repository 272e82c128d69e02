"""The answers of the page and the API: plain JSON, and a table."""

import csv
import io
from typing import Any

import numpy as np

from shared.dataset.clip import MODALITIES
from shared.text import counted
from stage2_fusion.app.scoring import COVERAGE, ScoredClip
from stage2_fusion.models.model_config import FusionConfig
from stage2_fusion.prediction.result import ModalityWeights, Prediction

WEIGHT_POINTS = 300
"""Most points of the weights over time; more are averaged."""


def clip_to_json(clip: ScoredClip) -> dict[str, Any]:
    """One clip, as documented in the README beside this file."""
    result = clip.prediction
    names = list(result.intensities)
    content: dict[str, Any] = {
        "name": clip.name,
        "error": result.error,
        "incomplete": result.incomplete,
        "intensities": {name: _rounded(value) for name, value in result.intensities.items()},
        "intervals": {name: [_rounded(end) for end in ends] for name, ends in result.intervals.items()},
        "unlike": _unlike(result),
        "seconds": 0.0,
        "windows": [],
        "curves": {"times": [_rounded(time) for time, _ in clip.curves], "values": {}},
        "weights": _weights(result.weights),
        "found": found_lines(result),
        "remarks": result.remarks,
        "transcript": result.transcript,
        "faces": [{"time": time, "jpeg": picture} for time, picture in clip.strip.pictures],
    }
    for k, name in enumerate(names):
        content["curves"]["values"][name] = [_rounded(values[k]) for _, values in clip.curves]
    if result.timeline is not None:
        content["seconds"] = _rounded(result.timeline.times[-1, 1])
        for (start, end), values in zip(result.timeline.times, result.timeline.values, strict=True):
            intensities = {name: _rounded(value) for name, value in zip(names, values, strict=True)}
            content["windows"].append({"start": _rounded(start), "end": _rounded(end), "intensities": intensities})
    return content


def model_to_json(config: FusionConfig) -> dict[str, Any]:
    """The dimensions and training data of the model."""
    return {
        "model": config.model,
        "dimensions": {name: list(config.scale.ranges[name]) for name in config.label_names},
        "modalities": list(config.options.get("modalities", MODALITIES)),
        "trained_on": trained_on(config),
        "synthetic": config.trained_on.synthetic,
        "coverage": COVERAGE,
    }


def trained_on(config: FusionConfig) -> str:
    """A sentence about the training data of the model."""
    about = config.trained_on
    clips = "clips" if about.clips is None else counted(len(about.clips), "clip")
    if about.synthetic:
        return (
            f"This model has never met a person: it was trained on {clips} of drawn faces and synthetic voices. "
            "Its scores of real people mean nothing."
        )
    source = f" of the dataset {about.data}" if about.data else ", which are not recorded"
    return (
        f"This model was trained on {clips}{source}. Expect worse scores for people, languages, cameras and "
        "microphones that they lack."
    )


def found_lines(result: Prediction) -> list[str]:
    """What was found in a clip, in words, one line per modality."""
    basis = result.basis
    if basis is None:
        return []
    face, speech, words = "no picture", "no sound", "none"
    if basis.frames:
        face = f"found in {basis.frames_with_face} of {basis.frames} pictures"
        face = face if basis.frames_with_face else f"none in {basis.frames} pictures; their middle was used"
    if basis.speech is not None:
        speech = f"{basis.speech:.0%} of the time; {basis.snr_db:.0f} dB above the noise"
    if basis.words:
        words = f"{basis.words}, {'recognized from speech' if basis.transcribed else 'from the transcript'}"
    return [f"Face: {face}", f"Speech: {speech}", f"Words: {words}"]


def _unlike(result: Prediction) -> str | None:
    """Why the clip is unlike the training clips; None if it is like them, or if unknown."""
    about = result.basis.familiarity if result.basis else None
    return about.reasons if about and about.unlike else None


def to_csv(clips: list[ScoredClip], names: list[str]) -> str:
    """A row per clip: Filename, the dimensions, and what is missing."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["Filename", *names, "problem"])
    for clip in clips:
        result = clip.prediction
        values = [f"{result.intensities[name]:.6f}" if result.intensities else "" for name in names]
        writer.writerow([_no_formula(clip.name), *values, _no_formula(result.error or result.incomplete or "")])
    return table.getvalue()


def _no_formula(cell: str) -> str:
    """A cell that spreadsheets do not run as a formula: the sender chose the name of the file."""
    return f"'{cell}" if cell[:1] in tuple("=+-@\t\r") else cell


def _weights(weights: ModalityWeights | None) -> dict[str, Any]:
    if weights is None or not len(weights.times):
        return {"times": [], "mean": {}, "values": {}}
    order = np.argsort(weights.times, kind="stable")
    parts = np.array_split(order, min(len(order), WEIGHT_POINTS))
    means = [weights.weights[part].mean(axis=0) for part in parts]  # (3,)
    return {
        "times": [_rounded(weights.times[part].mean()) for part in parts],
        "mean": {name: _rounded(weights.weights[:, m].mean()) for m, name in enumerate(MODALITIES)},
        "values": {name: [_rounded(mean[m]) for mean in means] for m, name in enumerate(MODALITIES)},
    }


def _rounded(value: Any) -> float:
    return round(float(value), 4)
