"""A tiny model, and a real `emit serve` of it."""

import os
import re
import signal
import subprocess
import threading
from pathlib import Path

from helpers import stage1_tiny, synthetic_features

from shared.cli import emit_command
from shared.dataset.recipe import Recipe
from stage1_align import AlignedEncoders
from stage2_fusion import FusionModel
from stage2_fusion.data.encoding import widths
from stage2_fusion.data.feature_info import DataInfo, EncoderInfo
from stage2_fusion.models.base import FeatureSpec
from stage2_fusion.models.model_config import FusionConfig, TrainedOn
from stage2_fusion.predictor import SIGNALS

ROOT = Path(__file__).parents[2]


def write_served_model(folder: Path, given: Path | None = None, options: dict | None = None) -> Path:
    """The folder of an untrained model on tiny encoders, or the `given` ones, which says that it was trained on drawn
    faces."""
    if given is None:
        stage1_tiny.encoders().save_pretrained(folder / "encoders", {"data": "nothing"})
    path = given or folder / "encoders"
    encoders = AlignedEncoders.from_pretrained(path)
    recipe = Recipe(sample_rates=[encoders.audio.sample_rate]).to_json()
    features = synthetic_features.info(
        label_names=["Joy", "Empathic Pain"],
        encoders=EncoderInfo(str(path), encoders.digest, encoders.config),
        data=DataInfo("nowhere", "d" * 16, recipe, synthetic=True),
        widths=widths(encoders),
        quality=SIGNALS,
    )
    options = synthetic_features.SMALL["dual_stage"] if options is None else options
    trained_on = TrainedOn(data="d" * 16, clips=["a", "b", "c"], synthetic=True)
    config = FusionConfig.from_features(
        features, model="dual_stage", options=options, max_sequence_steps=128, trained_on=trained_on
    )
    FusionModel.build("dual_stage", options, FeatureSpec.of(features)).save_pretrained(folder / "model", config)
    return folder / "model"


class Server:
    """A running `emit serve`. `url` once it is ready; `lines` that it printed; its temporary files lie in `tmp`."""

    def __init__(self, model: Path, tmp: Path, *options: object):
        self.tmp, self.lines = tmp, []
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp), "OMP_NUM_THREADS": "1"}
        command = emit_command("serve", "--model", model, "--port", 0, "--workers", 2, *options)
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        ready = threading.Event()
        threading.Thread(target=self._read, args=(ready,), daemon=True).start()
        assert ready.wait(120), self.lines
        found = re.search(r"open (http://\S+)", "\n".join(self.lines))
        assert found, self.lines
        self.url = found[1]

    def _read(self, ready: threading.Event) -> None:
        for line in self.process.stdout or ():
            self.lines.append(line.rstrip())
            if "open http" in line:
                ready.set()
        ready.set()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End it; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(30)

    def uploads(self) -> list[Path]:
        """Files of people that are still stored."""
        return [path for folder in self.tmp.glob("emit-serve-*") for path in folder.rglob("*") if path.is_file()]
