"""`emit serve` without a page: what keeps it from starting, how it ends, and who is cut off."""

import os
import signal
import socket
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

import httpx
import pytest
from helpers import synthetic_features
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

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


def test_sender_who_does_not_finish_the_head_of_a_request_is_cut_off(monkeypatch):
    monkeypatch.setattr(server, "STALL_SECONDS", 0.2)
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("alive"))])
    listener = server.listen("127.0.0.1", 0)
    received = []

    def send():
        try:
            with socket.create_connection(listener.getsockname(), timeout=30) as slow:
                slow.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n")
                received.append(slow.recv(100))
            received.append(httpx.get(server.address(listener, "127.0.0.1")).text)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    sender = threading.Thread(target=send)
    sender.start()
    with listener:
        server.serve(app, listener, "ready")
    sender.join()
    assert received == [b"", "alive"]
