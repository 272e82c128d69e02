"""The layout of a synthetic corpus that this project reads by default: clips/, labels.csv, truth.csv."""

from pathlib import Path

from shared.dataset.clip import EMI
from shared.files import write_csv
from shared.synth.clip import clip_format, make
from shared.synth.config import SynthConfig
from shared.synth.truth import ClipTruth


class PlainWriter:
    """Lays a corpus out. Pickled, it travels to the processes that make clips."""

    def __init__(self, config: SynthConfig):
        self.config = config

    def begin(self) -> None:
        """Make the folders, and remove what an interrupted process did not finish."""
        clips = self.config.out / "clips"
        clips.mkdir(exist_ok=True)
        for leftover in clips.glob(".*"):
            leftover.unlink()

    def make(self, index: int) -> None:
        """Write the files of a clip; last comes unfinished/<index>.npy, the plain statistics for the baseline."""
        make(self.config, index, folder=self.config.out / "clips", notes=self.config.out / "unfinished")

    def labels(self, truth: ClipTruth):
        """What raters said of the clip (6,)."""
        return truth.labels

    def transcript(self, truth: ClipTruth) -> Path:
        """Where its words are, unless they are missing."""
        return self.config.out / "clips" / f"{truth.id}.txt"

    def write_tables(self, truths: list[ClipTruth]) -> None:
        names = [f"clips/{t.id}{clip_format(self.config, t.index).suffix}" for t in truths]
        rows = [
            [name, *rounded(t.labels), f"subject{t.subject:03d}", f"seed{t.seed_video:04d}", t.split]
            for t, name in zip(truths, names, strict=True)
        ]
        write_csv(self.config.out / "labels.csv", ["Filename", *EMI, "subject", "seed", "split"], rows)
        write_csv(self.config.out / "truth.csv", *truth_table(truths, [t.id for t in truths]))

    def files(self) -> list[str]:
        """Every file of the finished corpus, inside its folder."""
        clips = sorted(f"clips/{path.name}" for path in (self.config.out / "clips").iterdir())
        return [*clips, "labels.csv", "truth.csv"]


def truth_table(truths: list[ClipTruth], ids: list[str]) -> tuple[list[str], list[list]]:
    """Columns and rows of truth.csv."""
    columns = ["id", *(f"true_{name}" for name in EMI), "rater_count"]
    columns += ["vision_damage", "audio_damage", "text_damage", "duration", "onset_time", "apex_time", "offset_time"]
    columns += [f"{m}_{name}" for m in ("seen", "heard", "said") for name in EMI]
    rows = []
    for t, identifier in zip(truths, ids, strict=True):
        course = [t.course.duration, t.course.onset, t.course.apex, t.course.offset]
        shown = [*rounded(t.seen), *rounded(t.heard), *rounded(t.said)]
        rows.append([identifier, *rounded(t.intensities), t.raters, *t.damage.values(), *rounded(course), *shown])
    return columns, rows


def rounded(values) -> list[float]:
    return [round(float(value), 6) for value in values]
