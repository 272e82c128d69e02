"""`emit serve` without a page: what keeps it from starting, how it ends, and who is cut off."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from types import SimpleNamespace

import httpx
import pytest
from helpers import synthetic_features

from shared.dataset.recipe import Recipe
from shared.errors import UserError
from stage2_fusion import Predictor
from stage2_fusion.app import server
from stage2_fusion.commands.serve import ServeConfig, run
from stage2_fusion.models.model_config import FusionConfig, TrainedOn


def test_missing_gradio_is_one_line_that_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(UserError, match=r"emit serve needs Gradio: pip install emit-toolkit\[app\]"):
        run(ServeConfig(model=tmp_path))


def test_sigterm_while_it_loads_leaves_no_folder(monkeypatch, tmp_path):
    config = FusionConfig.from_features(
        synthetic_features.info(), model="dual_stage", options={}, max_sequence_steps=8, trained_on=TrainedOn()
    )
    predictor = SimpleNamespace(config=config, recipe=Recipe())
    made = []

    def terminated(service, url):
        made.append(service.store.folder)
        assert service.store.folder.parent == tmp_path.resolve() and service.store.folder.is_dir()
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(Predictor, "from_pretrained", lambda *_, **__: predictor)
    monkeypatch.setattr(server, "build_app", terminated)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stopped:
        run(ServeConfig(model=tmp_path, port=0))
    assert stopped.value.code == 143 and signal.getsignal(signal.SIGTERM) == before
    assert made and not [*tmp_path.iterdir()]


SERVER = """
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from stage2_fusion.app import server

server.STALL_SECONDS = 1.0
listener = server.listen("127.0.0.1", 0)
app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("alive"))])
server.serve(app, listener, server.address(listener, "127.0.0.1"))
"""


def test_sender_who_does_not_finish_the_head_of_a_request_is_cut_off():
    with subprocess.Popen([sys.executable, "-u", "-c", SERVER], stdout=subprocess.PIPE, text=True) as process:
        try:
            url = httpx.URL(process.stdout.readline().strip())
            with socket.create_connection((url.host, url.port), timeout=60) as slow:
                slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
                assert slow.recv(100) == b""
            assert httpx.get(url, timeout=60).text == "alive"
            process.terminate()
            assert process.wait(60) == 0
        finally:
            process.kill()
