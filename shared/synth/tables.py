"""The default layout of a synthetic corpus: clips/, labels.csv, truth.csv."""

from collections.abc import Iterable

import numpy as np

from shared.dataset.clip import EMI
from shared.files import write_csv
from shared.synth.clip import media_format, write_clip
from shared.synth.config import SynthConfig
from shared.synth.truth import ClipTruth, expected_labels


class CsvWriter:
    """Writes a corpus in one layout; other layouts override its methods. It is pickled for the worker processes."""

    def __init__(self, config: SynthConfig) -> None:
        self.config = config
        self.progress = config.out / "unfinished"
        """Folder of the files that mark complete clips."""

    def prepare_folders(self) -> None:
        """Create the folders, and remove partial files of an interrupted run."""
        clips = self.config.out / "clips"
        clips.mkdir(exist_ok=True)
        for leftover in clips.glob(".*"):
            leftover.unlink()

    def write_clip(self, index: int) -> None:
        """Write the files of a clip; at the end, mark it in `progress` (`mark_complete`)."""
        write_clip(self.config, index, self.config.out / "clips", self.progress)

    def labels(self, truth: ClipTruth) -> np.ndarray:
        """The labels (6,) of a clip in this layout."""
        return truth.labels

    def expected_labels(self, truth: ClipTruth) -> np.ndarray:
        """The expected labels (6,) of a clip, given everything except its raters."""
        return expected_labels(truth.intensities)

    def write_tables(self, truths: list[ClipTruth]) -> None:
        """Write the tables of labels, splits and truth."""
        names = [f"clips/{t.id}{media_format(self.config, t.index).suffix}" for t in truths]
        rows = [
            [name, *self._label_cells(t), f"subject{t.subject:03d}", f"seed{t.seed_video:04d}", t.split]
            for t, name in zip(truths, names, strict=True)
        ]
        write_csv(self.config.out / "labels.csv", ["Filename", *EMI, "subject", "seed", "split"], rows)
        write_csv(self.config.out / "truth.csv", *truth_table(truths, [t.id for t in truths]))

    def _label_cells(self, truth: ClipTruth) -> list[float | str]:
        """Six cells of labels.csv."""
        return [""] * len(EMI) if self.config.labels == "withheld" else [*rounded(truth.labels)]

    def files(self) -> list[str]:
        """The files of the complete corpus, relative to its folder."""
        clips = sorted(f"clips/{path.name}" for path in (self.config.out / "clips").iterdir())
        return [*clips, "labels.csv", "truth.csv"]


def truth_table(truths: list[ClipTruth], ids: list[str]) -> tuple[list[str], list[list]]:
    """Columns and rows of truth.csv."""
    columns = ["id", *(f"true_{name}" for name in EMI), "rater_count"]
    columns += ["vision_damage", "audio_damage", "text_damage", "duration", "onset_time", "apex_time", "offset_time"]
    columns += [f"{shown}_{name}" for shown in ("seen", "heard", "said") for name in EMI]
    if any(t.timing for t in truths):
        columns += [f"timing_{name}" for name in EMI]
    with_spans = any(t.damage_spans is not None for t in truths)
    if with_spans:
        columns += [f"{modality}_damage_spans" for modality in ("vision", "audio")]
    rows = []
    for t, identifier in zip(truths, ids, strict=True):
        envelope = [t.envelope.onset, t.envelope.apex, t.envelope.offset]
        times = [*rounded([t.duration]), *(["", "", ""] if t.timing else rounded(envelope))]
        shown = rounded([*t.vision, *t.audio, *t.text, *(t.timing.cues if t.timing else ())])
        rows.append([identifier, *rounded(t.intensities), t.raters, *t.damage.values(), *times, *shown])
        if with_spans:
            rows[-1] += [_spans(t, modality) for modality in ("vision", "audio")]
    return columns, rows


def _spans(truth: ClipTruth, modality: str) -> str:
    """The damaged spans of a modality: "0.000-0.512 1.040-1.600", in seconds."""
    spans = [span for span in truth.damage_spans or () if span.modality == modality]
    return " ".join(f"{span.start:.3f}-{span.end:.3f}" for span in spans)


def rounded(values: Iterable[float]) -> list[float]:
    """The values, rounded to six decimals."""
    return [round(float(value), 6) for value in values]
