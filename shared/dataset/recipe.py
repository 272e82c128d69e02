"""The options that determine the content of a prepared clip."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shared.errors import UserError
from shared.files import digest
from shared.media.faces import DETECTORS, load_detector
from shared.media.transcribe import load_recognizer
from shared.options.ranges import CheckedOptions, FaceEvery, FrameRate, FrameSize, SampleRate, Seconds
from shared.registry import nearest


@dataclass(kw_only=True)
class Recipe(CheckedOptions):
    """The options that determine the content of a prepared clip. Datasets and models store them."""

    frame_size: FrameSize = 96
    """Side of the square face crops, in pixels. Small towers need no more; use 224 for pretrained ones."""
    frame_rate: FrameRate = 8.0
    """Frames per second. An expression takes a third of a second or longer; more frames only cost time."""
    max_seconds: Seconds = 20.0
    """Longer clips are cut to this length."""
    sample_rates: list[SampleRate] = field(default_factory=lambda: [16000])
    """Hz; the waveform is stored at each of these rates. 16000 suits speech models, laion-clap needs 48000."""
    detector: str = "haar"
    """The face detector: haar, which needs no file, yunet:/path/model.onnx, or mediapipe:/path/model.tflite
    (`pip install mediapipe --no-deps`; its usage reports to Google are blocked here)."""
    face_every: FaceEvery = 3
    """Detect faces in every n-th frame and interpolate in between: heads move slowly."""
    max_side: FrameSize = 480
    """Pixels. Larger frames are downscaled to this size for face detection, which bounds memory."""
    transcribe: str = ""
    """Folder of a Whisper model (for faster-whisper) that transcribes clips without a transcript; "" leaves them
    without one. Each process loads the model, in int8 on a CPU, and works in one thread."""

    def __post_init__(self):
        super().__post_init__()
        for name in ("detector", "transcribe"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must be a text")
        if not self.sample_rates:
            raise ValueError(f"sample_rates is {self.sample_rates}: expected one or more rates in Hz, such as [16000]")
        DETECTORS.get(self.detector.partition(":")[0])
        self.sample_rates = list(dict.fromkeys(self.sample_rates))

    def to_json(self) -> dict[str, Any]:
        """The options above, without the options of a subclass."""
        values = asdict(self)
        return {name: values[name] for name in Recipe.__dataclass_fields__}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Recipe":
        """The recipe stored in a dataset or a model. Raises UserError if another version of EMIT wrote it."""
        for name in values:
            if name not in Recipe.__dataclass_fields__:
                hint = nearest(name, Recipe.__dataclass_fields__)
                raise UserError(f"made by another version, with an option {name!r} ({hint}); make it again")
        return Recipe(**values)

    def file_digests(self) -> dict[str, str]:
        """Digests of the files that the recipe names. Raises UserError if one is missing or cannot be loaded."""
        load_detector(self.detector)
        _, _, weights = self.detector.partition(":")
        digests = {"detector": digest(Path(weights))} if weights else {}
        if self.transcribe:
            model = load_recognizer(self.transcribe)
            model.check()
            digests["transcribe"] = model.digest
        return digests
