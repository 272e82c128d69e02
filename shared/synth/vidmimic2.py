"""A synthetic corpus in the layout of Hume-Vidmimic2 (layouts/vidmimic2/layout.py), to run code written for that
dataset. Its features are simple functions of the media, not the outputs of ViT and wav2vec 2.0.

As in the original, clips that repeat the line of their seed video have the labels of the seed video, from more than a
hundred raters; ids count through train, valid and test; the test split is in test_data/, without labels.
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
from shared.media.spectrogram import log_mel
from shared.media.waveform import resample
from shared.synth import media
from shared.synth.clip import make_clip, mark_complete, media_format
from shared.synth.config import SynthConfig
from shared.synth.tables import CsvWriter, rounded, truth_table
from shared.synth.truth import (
    ClipTruth,
    clip_truth,
    draw_labels,
    expected_labels,
    seed_propensities,
    subject_count,
    subject_splits,
    to_intensities,
)
from shared.training.sampling import derive_seed

SPLITS = ("train", "valid", "test")
FOLDERS = ("raw", "audio", "face_images", "vit", "wav2vec2", "text")
SEED_RATERS = (110, 128)
"""Smallest and largest number of raters of a seed video."""
CROP_SIDE = 160
AUDIO_RATE = 16000
FEATURE_SIDE = 16
"""Side of the crops that are projected to the vision features."""


class Vidmimic2Writer(CsvWriter):
    """Writes a corpus in the layout of Hume-Vidmimic2."""

    def prepare_folders(self) -> None:
        for test in (False, True):
            for name in FOLDERS:
                self._folder(test, name).mkdir(parents=True, exist_ok=True)

    def write_clip(self, index: int) -> None:
        truth = clip_truth(self.config, index)
        form = replace(media_format(self.config, index), suffix=".mp4")
        clip = make_clip(self.config, truth, form)
        partial = self.progress / truth.id
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        media.write_video(
            partial / "raw", clip.frames, clip.times, form.frame_rate, clip.channels, form.audio_rate, ".mp4"
        )
        if clip.channels is not None:
            waveform = resample(clip.channels.mean(axis=1), form.audio_rate, AUDIO_RATE)  # (S,)
            media.write_mp3(partial / "audio", waveform, AUDIO_RATE)
            _pickle(partial / "wav2vec2", audio_features(waveform))
        crops = _crops(clip.frames)
        (partial / "face_images").mkdir()
        for number, crop in crops.items():
            cv2.imwrite(str(partial / "face_images" / f"{number}.jpg"), crop[..., ::-1])
        if crops:
            _pickle(partial / "vit", vision_features(np.stack(list(crops.values()))))
        if clip.transcript is not None:
            (partial / "text").write_text(clip.transcript + "\n")
        self._move_into_place(partial, truth)
        mark_complete(self.progress, truth.id)

    def _move_into_place(self, partial: Path, truth: ClipTruth) -> None:
        """Move the files of a clip from its partial folder to the folders of its split."""
        suffixes = {"raw": ".mp4", "audio": ".mp3", "face_images": "", "text": ".txt"}
        for part in partial.iterdir():
            name = f"{self.name(truth)}{suffixes.get(part.name, '.pkl')}"
            target = self._folder(truth.split == "test", part.name) / name
            if target.is_dir():
                shutil.rmtree(target)
            part.replace(target)
        partial.rmdir()

    def name(self, truth: ClipTruth) -> str:
        """Five digits: the position of the clip, train before valid before test."""
        return f"{_positions(self.config.seed, self.config.clips)[truth.index]:05d}"

    def labels(self, truth: ClipTruth) -> np.ndarray:
        """The labels (6,): the seed video's if the clip repeats its line."""
        return _labels(self.config, truth)[0]

    def expected_labels(self, truth: ClipTruth) -> np.ndarray:
        if not truth.repeats_line:
            return super().expected_labels(truth)
        return expected_labels(to_intensities(seed_propensities(self.config.seed, truth.seed_video)))

    def write_tables(self, truths: list[ClipTruth]) -> None:
        truths = sorted(truths, key=self.name)
        for split in SPLITS:
            # Teams write zeros for the labels that the organizers withhold.
            rows = [
                [self.name(t), *(np.zeros(6) if split == "test" else _as_float32(self.labels(t)))]
                for t in truths
                if t.split == split
            ]
            write_csv(self.config.out / f"{split}_split.csv", ["Filename", *EMI], rows)
        columns, rows = truth_table(truths, [self.name(t) for t in truths])
        columns += [*(f"label_{name}" for name in EMI), "subject", "seed", "split"]
        columns += [f"expected_{name}" for name in EMI]  # those of the seed video when the clip repeats its line
        more = [
            [
                *(*rounded(self.labels(t)), f"subject{t.subject:03d}", f"seed{t.seed_video:04d}", t.split),
                *rounded(self.expected_labels(t)),
            ]
            for t in truths
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
def _positions(seed: int, clips: int) -> tuple[int, ...]:
    """The position of each clip in the order train, valid, test."""
    subjects = subject_count(clips)
    splits = subject_splits(seed, subjects)
    order = sorted(range(clips), key=lambda index: (SPLITS.index(splits[index % subjects]), index))
    return tuple(np.argsort(order).tolist())


def _labels(config: SynthConfig, truth: ClipTruth) -> tuple[np.ndarray, int]:
    """Labels (6,) and the number of raters."""
    if not truth.repeats_line:
        return truth.labels, truth.raters
    rng = np.random.default_rng(derive_seed("synth", config.seed, "seed raters", truth.seed_video))
    return draw_labels(to_intensities(seed_propensities(config.seed, truth.seed_video)), rng, SEED_RATERS)


def _as_float32(labels: np.ndarray) -> list[float]:
    """The labels as printed in float32: a third is 0.3333333432674408."""
    return np.float32(labels).astype(float).tolist()


def _crops(frames: np.ndarray) -> dict[int, np.ndarray]:
    """{frame number: face crop RGB uint8 (160, 160, 3)} for the frames with a detected face."""
    from shared.media.faces import crop_faces, load_detector, track_face

    faces = track_face(frames, 3, load_detector("haar"))
    upright = np.rot90(frames, faces.quarter_turns, axes=(1, 2))  # (T, H, W, 3)
    crops = crop_faces(upright, faces.boxes, CROP_SIDE)  # (T, 160, 160, 3)
    return {int(i): crops[i] for i in np.flatnonzero(faces.detected)}


def vision_features(crops: np.ndarray) -> np.ndarray:
    """A fixed random projection of small crops. RGB uint8 (T, H, W, 3) -> float32 (T, 384)."""
    small = [cv2.resize(crop, (FEATURE_SIDE, FEATURE_SIDE), interpolation=cv2.INTER_AREA) for crop in crops]
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
