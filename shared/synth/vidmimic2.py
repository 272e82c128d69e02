"""A synthetic corpus laid out as Hume-Vidmimic2 is distributed (layouts/vidmimic2/layout.py), so that code written for
the one runs on the other. Its features are simple functions of the media, not those of ViT and wav2vec 2.0.

As in the original, clips that repeat their seed video's line carry the labels of the seed video, rated by more than a
hundred people; ids count through train, valid and test; the test split lies in test_data/, without labels.
"""

import functools
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from shared.dataset.clip import EMI
from shared.files import write_csv
from shared.media.waveform import resample
from shared.synth import media
from shared.synth.baseline import log_mel
from shared.synth.clip import clip_format, film, note
from shared.synth.config import SynthConfig
from shared.synth.tables import PlainWriter, rounded, truth_table
from shared.synth.truth import (
    ClipTruth,
    clip_truth,
    rate,
    seed_propensities,
    subject_count,
    subject_splits,
    to_intensities,
)
from shared.training.sampling import derive_seed

SPLITS = ("train", "valid", "test")
FOLDERS = ("raw", "audio", "face_images", "vit", "wav2vec2", "text")
SEED_RATERS = (110, 128)
"""Fewest and most raters of a seed video."""
CROP_SIDE = 160
AUDIO_RATE = 16000
SMALL = 16
"""Side of the crops that the vision features are a projection of."""


class Vidmimic2Writer(PlainWriter):
    def begin(self) -> None:
        for test in (False, True):
            for name in FOLDERS:
                self._folder(test, name).mkdir(parents=True, exist_ok=True)

    def make(self, index: int) -> None:
        truth = clip_truth(self.config, index)
        how = replace(clip_format(self.config, index), suffix=".mp4")
        made = film(self.config, truth, how)
        name, unfinished = self.name(truth), self.config.out / "unfinished" / truth.id
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        media.write(unfinished / "raw", made.frames, made.times, how.frame_rate, made.channels, how.audio_rate, ".mp4")
        if made.channels is not None:
            waveform = resample(made.channels.mean(axis=1), how.audio_rate, AUDIO_RATE)  # (S,)
            media.write_mp3(unfinished / "audio", waveform, AUDIO_RATE)
            _pickle(unfinished / "wav2vec2", audio_features(waveform))
        crops = _crops(made.frames)
        (unfinished / "face_images").mkdir()
        for number, crop in crops.items():
            cv2.imwrite(str(unfinished / "face_images" / f"{number}.jpg"), crop[..., ::-1])
        if crops:
            _pickle(unfinished / "vit", vision_features(np.stack(list(crops.values()))))
        if made.words is not None:
            (unfinished / "text").write_text(made.words + "\n")
        suffixes = {"raw": ".mp4", "audio": ".mp3", "face_images": "", "text": ".txt"}
        for part in unfinished.iterdir():
            target = self._folder(truth.split == "test", part.name) / f"{name}{suffixes.get(part.name, '.pkl')}"
            if target.is_dir():
                shutil.rmtree(target)
            part.replace(target)
        unfinished.rmdir()
        note(self.config.out / "unfinished", truth.id, made.statistics(how.audio_rate))

    def name(self, truth: ClipTruth) -> str:
        """Five digits: the clip's place, train before valid before test."""
        return f"{_places(self.config.seed, self.config.clips)[truth.index]:05d}"

    def labels(self, truth: ClipTruth) -> np.ndarray:
        """Those of the seed video where the clip repeats its line."""
        return _labels(self.config, truth)[0]

    def transcript(self, truth: ClipTruth) -> Path:
        return self._folder(truth.split == "test", "text") / f"{self.name(truth)}.txt"

    def write_tables(self, truths: list[ClipTruth]) -> None:
        truths = sorted(truths, key=self.name)
        for split in SPLITS:
            # Teams write zeros where the organisers keep the labels.
            rows = [
                [self.name(t), *(np.zeros(6) if split == "test" else _as_float32(self.labels(t)))]
                for t in truths
                if t.split == split
            ]
            write_csv(self.config.out / f"{split}_split.csv", ["Filename", *EMI], rows)
        columns, rows = truth_table(truths, [self.name(t) for t in truths])
        columns += [*(f"label_{name}" for name in EMI), "subject", "seed", "split"]
        more = [
            [*rounded(self.labels(t)), f"subject{t.subject:03d}", f"seed{t.seed_video:04d}", t.split] for t in truths
        ]
        raters = columns.index("rater_count")
        for row, t, extra in zip(rows, truths, more, strict=True):
            row[raters] = _labels(self.config, t)[1]
            row += extra
        write_csv(self.config.out / "truth.csv", columns, rows)

    def files(self) -> list[str]:
        folders = [self._folder(test, name) for test in (False, True) for name in FOLDERS]
        paths = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
        paths += self.config.out.glob("*.csv")
        return sorted(path.relative_to(self.config.out).as_posix() for path in paths)

    def _folder(self, test: bool, name: str) -> Path:
        return self.config.out / ("test_data" if test else ".") / name


@functools.lru_cache
def _places(seed: int, clips: int) -> tuple[int, ...]:
    """The place of each clip when train, valid and test follow each other."""
    subjects = subject_count(clips)
    splits = subject_splits(seed, subjects)
    order = sorted(range(clips), key=lambda index: (SPLITS.index(splits[index % subjects]), index))
    return tuple(np.argsort(order).tolist())


def _labels(config: SynthConfig, truth: ClipTruth) -> tuple[np.ndarray, int]:
    """Labels (6,) and the number of raters."""
    if not truth.repeats_line:
        return truth.labels, truth.raters
    rng = np.random.default_rng(derive_seed("synth", config.seed, "seed raters", truth.seed_video))
    return rate(to_intensities(seed_propensities(config.seed, truth.seed_video)), rng, SEED_RATERS)


def _as_float32(labels: np.ndarray) -> list[float]:
    """As float32 prints: a third is 0.3333333432674408."""
    return np.float32(labels).astype(float).tolist()


def _crops(frames: np.ndarray) -> dict[int, np.ndarray]:
    """{frame number: face crop RGB uint8 (160, 160, 3)} for the frames in which a face was found."""
    from shared.media.faces import crop_faces, detector, find_faces

    faces = find_faces(frames, 3, detector("haar"))
    upright = np.rot90(frames, faces.turns, axes=(1, 2))  # (T, H, W, 3)
    crops = crop_faces(upright, faces.boxes, CROP_SIDE)  # (T, 160, 160, 3)
    return {int(i): crops[i] for i in np.flatnonzero(faces.found)}


def vision_features(crops: np.ndarray) -> np.ndarray:
    """A fixed random projection of small crops. RGB uint8 (T, H, W, 3) -> float32 (T, 384)."""
    small = [cv2.resize(crop, (SMALL, SMALL), interpolation=cv2.INTER_AREA) for crop in crops]
    pixels = np.stack(small).reshape(len(small), -1).astype(np.float32) / 255 - 0.5  # (T, 768)
    return np.tanh(pixels @ _projection("vit", pixels.shape[1], 384)).astype(np.float32)


def audio_features(waveform: np.ndarray) -> np.ndarray:
    """A fixed random projection of every second log-mel frame. float32 (S,) at 16 kHz -> float32 (T, 768), 50 Hz."""
    mel = log_mel(waveform, AUDIO_RATE)[::2].astype(np.float32)  # (T, 40)
    return np.tanh((mel + 5) / 5 @ _projection("wav2vec2", mel.shape[1], 768)).astype(np.float32)


@functools.lru_cache
def _projection(name: str, width: int, out: int) -> np.ndarray:
    rng = np.random.default_rng(derive_seed("projection", name))
    return (rng.standard_normal((width, out)) / np.sqrt(width)).astype(np.float32)


def _pickle(path: Path, values: np.ndarray) -> None:
    path.write_bytes(pickle.dumps(values, protocol=4))
