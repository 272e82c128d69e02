"""Features in the exact formats of other tools, made here: OpenFace, openSMILE (both writers), Py-Feat and MMSA."""

import pickle
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from shared.errors import UserError
from stage2_fusion.data.external.features import ExternalFeatures

GOOD = np.arange(12, dtype=np.float32).reshape(4, 3)

UNITS = (1, 2, 4, 5, 6, 7, 9, 10, 12, 14, 15, 17, 20, 23, 25, 26, 45)
INTENSITIES = [f"AU{unit:02d}_r" for unit in UNITS]
OCCURRENCES = [f"AU{unit:02d}_c" for unit in sorted({*UNITS, 28})]
GAZE = [f"gaze_{eye}_{axis}" for eye in (0, 1) for axis in "xyz"] + ["gaze_angle_x", "gaze_angle_y"]
POSE = [f"pose_T{axis}" for axis in "xyz"] + [f"pose_R{axis}" for axis in "xyz"]
OPENFACE = [*GAZE, *POSE, *INTENSITIES, *OCCURRENCES]
"""What is read of an OpenFace CSV by default."""


def openface(
    path: Path,
    rows: int,
    rng: np.random.Generator,
    rate: float = 25.0,
    lost: Sequence[int] = (),
    face: int = 0,
    append: bool = False,
) -> dict[str, np.ndarray]:
    """Write the CSV of FeatureExtraction, version 2.2, with all its 714 columns, as RecorderCSV.cpp does. lost: rows
    without success. Returns the columns as they are written."""
    landmarks = [f"eye_lmk_{axis}_{i}" for axis in "xyXYZ" for i in range(56)]
    points = [f"{axis}_{i}" for axis in "xyXYZ" for i in range(68)]
    shape = ["p_scale", "p_rx", "p_ry", "p_rz", "p_tx", "p_ty", *(f"p_{i}" for i in range(34))]
    places = {**dict.fromkeys(GAZE[:6], 6), **dict.fromkeys(GAZE[6:], 3), **dict.fromkeys(landmarks, 1)}
    places |= {**dict.fromkeys(POSE[:3], 1), **dict.fromkeys(POSE[3:], 3), **dict.fromkeys(points, 1)}
    places |= {**dict.fromkeys(shape, 3), **dict.fromkeys(INTENSITIES, 2), **dict.fromkeys(OCCURRENCES, 1)}
    written: dict[str, list[str]] = {name: [] for name in ("frame", "face_id", "timestamp", "confidence", "success")}
    written |= {name: [] for name in places}
    for i in range(rows):
        ok = i not in lost
        written["frame"].append(str(i + 1))
        written["face_id"].append(str(face))
        written["timestamp"].append(f"{i / rate:.3f}")
        written["confidence"].append(f"{rng.uniform(0.7, 0.98) if ok else 0.02:.2f}")
        written["success"].append(str(int(ok)))
        for name, digits in places.items():
            high = 700.0 if name in (*landmarks, *points) else 5.0
            value = float(name in OCCURRENCES and rng.integers(2)) if name in OCCURRENCES else rng.uniform(0, high)
            written[name].append(f"{value if ok else 0.0:.{digits}f}")
    assert len(written) == 714
    lines = [] if append else [", ".join(written)]
    lines += [", ".join(cells) for cells in zip(*written.values(), strict=True)]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a" if append else "w") as file:
        file.write("\n".join(lines) + "\n")
    (path.parent / f"{path.stem}_of_details.txt").write_text(
        f"Input:{path.stem}.mp4\nOutput csv:{path.name}\nGaze: 1\n"
    )
    return {name: np.array(cells, np.float64) for name, cells in written.items()}


LLD = ["Loudness_sma3", "alphaRatio_sma3", "F0semitoneFrom27.5Hz_sma3nz", "pcm_fftMag_spectralVariance_sma"]
FUNCTIONALS = ["F0semitoneFrom27.5Hz_sma3nz_amean", "loudness_sma3_amean", "pcm_fftMag_spectralVariance_sma_amean"]


def smilextract(path: Path, clips: dict[str, np.ndarray], columns: Sequence[str], hop: float = 0.01) -> None:
    """Write what csvSink.cpp does: {instance name: values (T, C)} under each other, a semicolon between."""
    lines = [";".join(["name", "frameTime", *columns])]
    for name, values in clips.items():
        for i, row in enumerate(values):
            cells = [f"{value:.0f}" if value == np.floor(value) else f"{value:e}" for value in row]
            lines.append(";".join([f"'{name}'", f"{i * hop:f}", *cells]))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def opensmile_package(
    path: Path, clips: dict[str, np.ndarray], columns: Sequence[str], hop: float, size: float
) -> None:
    """Write what `opensmile.Smile.process_files(...).to_csv()` does: the index file, start, end."""
    import pandas as pd

    parts = []
    for name, values in clips.items():
        start = pd.to_timedelta(np.arange(len(values)) * hop, unit="s")
        index = pd.MultiIndex.from_arrays(
            [[name] * len(values), start, start + pd.to_timedelta(size, unit="s")], names=["file", "start", "end"]
        )
        parts.append(pd.DataFrame(values, index=index, columns=[*columns]))
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.concat(parts).to_csv(path)


def pyfeat(path: Path, video: str, rows: int, rate: float, rng: np.random.Generator, lost: Sequence[int] = ()) -> Any:
    """Write what `Detector.detect_video(...).to_csv(index=False)` does (version 0.6); returns the DataFrame."""
    import pandas as pd

    names = ["FaceRectX", "FaceRectY", "FaceRectWidth", "FaceRectHeight", "FaceScore"]
    names += [f"{axis}_{i}" for axis in "xy" for i in range(68)] + ["Pitch", "Roll", "Yaw"]
    names += [f"AU{i:02d}" for i in (*UNITS[:14], 24, 25, 26, 28, 43)]
    names += ["anger", "disgust", "fear", "happiness", "sadness", "surprise", "neutral"]
    frame = pd.DataFrame(rng.random((rows, len(names))), columns=names)
    frame.loc[[*lost]] = np.nan
    frame.insert(0, "frame", np.arange(rows))
    frame["input"] = video
    frame["approx_time"] = [f"{int(i / rate // 60):02d}:{int(i / rate % 60):02d}" for i in range(rows)]
    frame["Identity"] = ["" if i in lost else "Person_0" for i in range(rows)]
    path.parent.mkdir(parents=True, exist_ok=True)
    frame.to_csv(path, index=False)
    return frame


def mmsa(
    path: Path, splits: dict[str, dict[str, dict[str, np.ndarray]]], lengths: bool = True, front: bool = False
) -> None:
    """Write an MMSA pickle of {split: {id: {modality: (T, C)}}}, padded with zeros to the longest clip of each
    modality, with lengths unless it is aligned. front: with the padding in front, as MMSA-FET can."""
    longest = {
        name: max(len(parts[name]) for clips in splits.values() for parts in clips.values())
        for name in ("vision", "audio", "text")
    }
    content: dict[str, dict[str, Any]] = {}
    for split, clips in splits.items():
        part: dict[str, Any] = {
            "raw_text": np.array([f"words of {name}" for name in clips], dtype=object),
            "id": [*clips],
            "annotations": ["Neutral"] * len(clips),
            "classification_labels": np.zeros(len(clips)),
            "regression_labels": np.linspace(-1, 1, len(clips), dtype=np.float32),
        }
        for name, most in longest.items():
            padded = np.zeros((len(clips), most, next(iter(clips.values()))[name].shape[1]), np.float32)
            for row, parts in zip(padded, clips.values(), strict=True):
                count = len(parts[name])
                row[slice(most - count, None) if front else slice(0, count)] = parts[name]
            part[name] = padded
            if lengths and name != "text":
                part[f"{name}_lengths"] = [len(parts[name]) for parts in clips.values()]
        masks = np.array([[i < len(parts["text"]) for i in range(longest["text"])] for parts in clips.values()])
        part["text_bert"] = np.stack([masks * 101.0, masks * 1.0, masks * 0.0], axis=1)  # (N, 3, T)
        content[split] = part
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))


class Clips:
    """In place of a clip dataset: four clips of two seconds."""

    label_names = ("Joy", "valence")
    info = SimpleNamespace(recipe=SimpleNamespace(max_seconds=20.0))

    def __init__(self, *ids):
        self.columns = {"id": [*(ids or "abcd")], "duration": [2.0] * (len(ids) or 4)}

    def column(self, name):
        return self.columns[name]


def read(path, modality="audio", clips=None, patterns=()):
    return ExternalFeatures(str(path), modality, clips or Clips(), patterns)


def reasons(features):
    """The reasons of what is no plain absence, by their kind."""
    return {each.kind: each.reason for each in features.problems if each.kind != "missing"}


def refused(path, **options):
    with pytest.raises(UserError) as caught:
        read(path, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)
