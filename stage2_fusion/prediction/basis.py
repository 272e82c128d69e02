"""What a prediction is based on: how much of a clip can be seen, heard and read, and how usual the clip is.

`emit predict` writes OUT_basis.csv, a row per clip with the columns COLUMNS. An empty cell means unknown.
"""

from dataclasses import dataclass, field

from shared.dataset.clip import MODALITIES
from shared.text import counted
from stage2_fusion.prediction.familiarity import ClipFamiliarity, Familiarity

COLUMNS = (
    "Filename",
    "seconds",
    "frames",
    "frames_with_face",
    "speech",
    "snr_db",
    "words",
    "transcribed",
    *(f"weight_{name}" for name in MODALITIES),
    *(f"distance_{name}" for name in MODALITIES),
    "percentile",
    "unlike",
)
"""Columns of OUT_basis.csv; the fields of Basis explain them."""
NAMED_CLIPS = 3
"""Most unusual clips that the line on the terminal names."""
NOT_KNOWN = "how far the clips are from the training data is not known: the model is of another version; train it again"


@dataclass(frozen=True)
class Basis:
    """What the prediction of a clip is based on; None = unknown."""

    seconds: float
    """Seconds that were read."""
    frames: int
    """Pictures that were read."""
    frames_with_face: int | None
    """Pictures in which a face was found."""
    speech: float | None
    """Share of the time with speech, in [0, 1]; None without sound."""
    snr_db: float | None
    """Signal-to-noise ratio, mean over time, from 0 to 40 dB; None without sound."""
    words: int | None
    """Words that were read: given or transcribed; None for encoded clips, which do not store the number of words."""
    transcribed: bool
    """Whether the words come from speech recognition."""
    weights: dict[str, float] = field(default_factory=dict)
    """Modality to its mean weight over the steps with it; only modalities that the clip has."""
    familiarity: ClipFamiliarity | None = None
    """How far the clip is from the training clips; None for a model of another version."""

    def row(self, name: str) -> list[str]:
        """The cells of a clip in OUT_basis.csv."""
        about = self.familiarity
        cells: list[str] = [name, f"{self.seconds:.3f}", str(self.frames), _cell(self.frames_with_face, "d")]
        cells += [_cell(self.speech, ".3f"), _cell(self.snr_db, ".1f"), _cell(self.words, "d")]
        cells.append(("yes" if self.transcribed else "no") if self.words else "")
        cells += [_cell(self.weights.get(name), ".3f") for name in MODALITIES]
        distances = about.distances if about else {}
        cells += [_cell(distances.get(name), ".2f") for name in MODALITIES]
        return [*cells, _cell(about.percentile if about else None, ".1f"), about.reasons if about else "not known"]


def _cell(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def unlike_line(bases: dict[str, Basis], familiarity: Familiarity | None) -> str:
    """A line about clips that are unlike the training clips, or that this is unknown; "" if there are none."""
    if familiarity is None:
        return NOT_KNOWN
    if familiarity.not_known:
        return f"unlike the training data: {familiarity.not_known}; the model says nothing about it"
    clips = [(name, part.familiarity) for name, part in bases.items()]
    found = [(name, about.reasons) for name, about in clips if about and about.unlike]
    if not found:
        return ""
    named = ", ".join(f"{name} ({reasons})" for name, reasons in found[:NAMED_CLIPS])
    more = f" and {len(found) - NAMED_CLIPS} more" if len(found) > NAMED_CLIPS else ""
    which = f"{len(found)} of {counted(len(bases), 'clip')} {'is' if len(found) == 1 else 'are'}"
    return (
        f"{which} unlike the training data, so the predictions mean little: {named}{more}; "
        f"of clips like the training clips, at most {familiarity.false_alarms:.0%} are called so too"
    )
