"""A real `emit serve` with a tiny model, and a headless Chromium.

Screenshots of the tests are kept in $EMIT_SCREENSHOTS, by default in pytest's temporary folder.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from helpers.media_files import face, voice, write_video, write_wav
from helpers.serving import Server, write_served_model

CHROMIUM = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream"),
    "--use-fake-device-for-media-stream",
]


@pytest.fixture(scope="session")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that people send: a talking face, a voice, a film that browsers do not play, text called a video, words."""
    folder = tmp_path_factory.mktemp("media")
    film = np.stack([face(mouth=m) for m in np.abs(np.sin(np.arange(75) / 4))])
    write_video(folder / "talking.webm", film, sound=voice(3.0, 48000)[None], rate=48000, codec="libvpx")
    write_video(folder / "old.mpg", film, sound=voice(3.0, 44100)[None], rate=44100, codec="mpeg1video")
    write_wav(folder / "voice.wav", voice(1.5)[None])
    (folder / "notes.mp4").write_text("not a video")
    (folder / "talking.txt").write_text("I am sad about the dog")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_served_model(tmp_path_factory.mktemp("served"))


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
