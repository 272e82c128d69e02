"""`emit serve`: a web page and an API that score clips with one model."""

import contextlib
import ipaddress
import signal
import socket
import sys
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from shared import config as configuration
from shared.errors import UserError
from shared.options.ranges import CheckedOptions, PositiveInt, Processes, Range, Seconds
from shared.terminal.messages import note

Port = Annotated[int, Range(0, 65535)]
Megabytes = Annotated[int, Range(1, 100_000)]


@dataclass
class ServeConfig(CheckedOptions):
    """Serve a web page that scores clips, and the same as an API. Ctrl-C or SIGTERM ends it with status 0."""

    model: Path
    """Model folder (RUN/model)."""
    host: str = "127.0.0.1"
    """Address to listen on. 0.0.0.0 admits other machines, without password or encryption."""
    port: Port = 7860
    """0: any free port."""
    max_upload: Megabytes = 200
    """Megabytes of all files of one request together."""
    max_seconds: Seconds = 1800.0
    """Seconds of a clip that are scored; the rest of a longer clip is left out, and the answer says so."""
    max_clips: PositiveInt = 50
    """Most clips in one request."""
    max_waiting: PositiveInt = 20
    """Most requests that wait; more are refused."""
    workers: Processes = 0
    """Processes that read files; 0: one per core."""
    encoders: Path | None = None
    """Aligned encoders; by default those inside the model folder."""
    blendshapes: Path | None = None
    """MediaPipe's face_landmarker.task, for a model that reads action units; by default the one inside its folder."""
    detector: str | None = None
    """Face detector, as in `emit prepare`; by default as for the training clips."""
    transcribe: str | None = None
    """Whisper folder, as in `emit prepare`; by default as for the training clips, "" for none."""


def main(argv: list[str] | None = None) -> int:
    config = configuration.parse(
        ServeConfig, argv, prog="emit serve", example="emit serve --model runs/demo/fuse/model --port 7860"
    )
    return run(config)


def run(config: ServeConfig) -> int:
    """Load the model and serve until SIGINT or SIGTERM; leaves no files and no processes. UserError if Gradio is
    missing, the model cannot be loaded or the address is in use."""
    import importlib.util

    if importlib.util.find_spec("gradio") is None:
        raise UserError("emit serve needs Gradio: pip install emit-toolkit[app]")
    from stage2_fusion.app.server import address, listen

    listener = listen(config.host, config.port)
    if not _is_loopback(config.host):
        note(f"warning: --host {config.host} lets other machines in: there is no password, and nothing is encrypted")
    url = address(listener, config.host)
    note(f"loading the model {config.model} ...")
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # also during loading
    try:
        with listener:
            _serve(config, listener, url)
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _serve(config: ServeConfig, listener: socket.socket, url: str) -> None:
    from stage2_fusion.app.results import trained_on
    from stage2_fusion.app.scoring import Scorer
    from stage2_fusion.app.server import build_app, serve
    from stage2_fusion.app.service import Limits, Service
    from stage2_fusion.predictor import Predictor, SyntheticModelWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntheticModelWarning)  # the page and the line below say so
        predictor = Predictor.from_pretrained(
            config.model,
            encoders=config.encoders,
            blendshapes=config.blendshapes,
            detector=config.detector,
            transcribe=config.transcribe,
        )
    note(f"note: {trained_on(predictor.config)}")
    limits = Limits(config.max_upload * 10**6, config.max_seconds, config.max_clips, config.max_waiting)
    with contextlib.closing(Service(Scorer(predictor, config.max_seconds, config.workers), limits)) as service:
        serve(build_app(service, url), listener, f"open {url} (Ctrl-C ends the server)")
    note("ended; all uploads are deleted")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


if __name__ == "__main__":
    from shared.cli import run_main

    run_main(main)
