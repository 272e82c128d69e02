"""A real `emit serve` with a tiny model, and a headless Chromium.

Screenshots of the tests are kept in $EMIT_SCREENSHOTS, by default in pytest's temporary folder.
"""

import os
import re
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from helpers import stage1_tiny, synthetic_features
from helpers.media_files import face, voice, write_video, write_wav

from shared.cli import emit_command
from shared.commands.prepare import main as prepare
from stage2_fusion import FeatureDataset, FusionModel
from stage2_fusion.commands.encode import EncodeConfig, encode
from stage2_fusion.models.base import FeatureSpec
from stage2_fusion.models.model_config import FusionConfig, TrainedOn

ROOT = Path(__file__).parents[2]
CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream"),
    "--use-fake-device-for-media-stream",
]


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that people send: a talking face, a voice, a film that browsers do not play, and text called a video."""
    folder = tmp_path_factory.mktemp("media")
    film = np.stack([face(mouth=m) for m in np.abs(np.sin(np.arange(75) / 4))])
    write_video(folder / "talking.webm", film, sound=voice(3.0, 48000)[None], rate=48000, codec="libvpx")
    write_video(folder / "old.mpg", film, sound=voice(3.0, 44100)[None], rate=44100, codec="mpeg1video")
    write_wav(folder / "voice.wav", voice(1.5)[None])
    (folder / "notes.mp4").write_text("not a video")
    return folder


@pytest.fixture(scope="session")
def model_folder(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained model on tiny encoders, which says that it was trained on drawn faces."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "source").mkdir()
    for name in ("talking.webm", "voice.wav"):
        shutil.copy(media / name, folder / "source")
    assert prepare([str(folder / "source"), "--out", str(folder / "clips"), "--workers", "1"]) == 0
    stage1_tiny.encoders().save_pretrained(folder / "encoders", {"data": "nothing"})
    settings = {"damaged_views": 0, "mixed_precision": "no"}
    encode(EncodeConfig(data=folder / "clips", out=folder / "features", encoders=folder / "encoders", **settings))
    features = FeatureDataset.open(folder / "features")
    features.info.label_names[:] = ["Joy", "Empathic Pain"]
    options = synthetic_features.SMALL["dual_stage"]
    trained_on = TrainedOn(data="d" * 16, clips=["a", "b", "c"], synthetic=True)
    config = FusionConfig.from_features(
        features.info, model="dual_stage", options=options, max_sequence_steps=128, trained_on=trained_on
    )
    model = FusionModel.build("dual_stage", options, FeatureSpec.of(features.info))
    model.save_pretrained(folder / "model", config)
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


@pytest.fixture(scope="session")
def server(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Small limits: 3 MB and 8 clips a request, 20 s a clip."""
    server = Server(
        model_folder, tmp_path_factory.mktemp("tmp"), *("--max_upload", 3, "--max_clips", 8, "--max_seconds", 20)
    )
    assert "loading the model" in "".join(server.lines) and "never met a person" in "".join(server.lines)
    yield server
    files = {"files": ("left.wav", b"an upload that nobody scores")}
    assert httpx.post(f"{server.url}/gradio_api/upload", files=files).status_code == 200 and len(server.uploads()) == 1
    assert server.stop(signal.SIGINT) == 0, server.lines
    assert not [*server.tmp.iterdir()], "files are left behind"


@pytest.fixture(scope="session")
def browser() -> Iterator["object"]:
    """Chromium. Where there is none, tests skip; in CI they fail."""
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        assert not os.environ.get("CI"), "CI needs Chromium: apt-get install chromium"
        pytest.skip("no Chromium on PATH (Debian: apt-get install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def screenshots(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = Path(os.environ.get("EMIT_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
