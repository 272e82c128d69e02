"""Load and abuse of `emit serve`: many requests at once, slow and broken senders. It stays alive, and loses none."""

import asyncio
import contextlib
import socket
import time
from pathlib import Path

import httpx
import numpy as np
import psutil
import pytest
from helpers.media_files import face, voice, write_video
from helpers.serving import Server, write_served_model

pytestmark = pytest.mark.slow
CLIPS = 50


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> Path:
    """Two short clips of a talking face."""
    folder = tmp_path_factory.mktemp("media")
    film = np.stack([face(mouth=m) for m in np.linspace(0, 1, 12)])
    write_video(folder / "talking.mp4", film, sound=voice(0.5)[None])
    write_video(folder / "talking.webm", film, sound=voice(0.5, 48000)[None], rate=48000, codec="libvpx")
    return folder


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    server = Server(
        write_served_model(tmp_path_factory.mktemp("load")),
        tmp_path_factory.mktemp("tmp"),
        "--max_upload",
        2,
        "--max_waiting",
        CLIPS,
    )
    yield server
    assert server.stop() == 0 and not [*server.tmp.iterdir()]


def memory(server) -> float:
    """Resident bytes of the server and its processes."""
    process = psutil.Process(server.process.pid)
    return sum(part.memory_info().rss for part in [process, *process.children(recursive=True)])


def alive(server, clip: Path) -> None:
    response = httpx.post(f"{server.url}/predict", files={"clips": ("a.mp4", clip.read_bytes())}, timeout=120)
    assert response.status_code == 200 and response.json()["clips"][0]["error"] is None, response.text[:300]
    assert server.uploads() == []


async def post_all(server, clips: list[bytes]) -> list[httpx.Response]:
    async with httpx.AsyncClient(timeout=600, limits=httpx.Limits(max_connections=len(clips))) as client:
        posts = [
            client.post(f"{server.url}/predict", files={"clips": (f"{i}.mp4", clip)}) for i, clip in enumerate(clips)
        ]
        return await asyncio.gather(*posts)


def test_fifty_clips_at_once_are_all_scored_in_bounded_memory(server, media):
    clip = media / "talking.mp4"
    alive(server, clip)
    before = memory(server)
    started = time.monotonic()
    responses = asyncio.run(post_all(server, [clip.read_bytes()] * CLIPS))
    print(f"{CLIPS} clips in {time.monotonic() - started:.1f} s; {before / 1e6:.0f} -> {memory(server) / 1e6:.0f} MB")
    assert [response.status_code for response in responses] == [200] * CLIPS
    clips = [response.json()["clips"][0] for response in responses]
    assert [clip["name"] for clip in clips] == [f"{i}.mp4" for i in range(CLIPS)]
    assert len({str(clip["intensities"]) for clip in clips}) == 1 and not any(clip["error"] for clip in clips)
    assert memory(server) < before + 300e6
    assert server.uploads() == []


def test_requests_beyond_the_queue_are_refused_in_one_line_and_the_others_scored(server, media):
    clip = (media / "talking.mp4").read_bytes()
    responses = asyncio.run(post_all(server, [clip] * (2 * CLIPS)))
    statuses = [response.status_code for response in responses]
    refused = [response.json()["error"] for response in responses if response.status_code == 503]
    assert {*statuses} <= {200, 503} and statuses.count(200) >= CLIPS
    assert all("queue is full: 50 waiting; try again" in line for line in refused)
    alive(server, media / "talking.mp4")


def test_slow_senders_of_headers_and_bodies_do_not_keep_others_waiting(server, media):
    port = int(server.url.rsplit(":", 1)[1])
    with contextlib.ExitStack() as stack:
        for i in range(100):
            slow = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            head = b"POST /predict HTTP/1.1\r\nHost: x\r\n"
            body = b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n--b\r\n"
            slow.sendall(head if i % 2 else head + body)
        alive(server, media / "talking.mp4")
    alive(server, media / "talking.mp4")


@pytest.mark.parametrize("part", [0.3, 0.7])
def test_upload_that_is_cut_off_leaves_nothing(server, media, part):
    data = (media / "talking.mp4").read_bytes()
    head = b'--b\r\nContent-Disposition: form-data; name="clips"; filename="a.mp4"\r\n\r\n'
    body = head + data + b"\r\n--b--\r\n"
    port = int(server.url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port)) as sender:
        start = (
            "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        sender.sendall(start.encode() + body[: int(part * len(body))])
    alive(server, media / "talking.mp4")


def test_file_cut_in_the_middle_is_scored_or_explained(server, media):
    data = (media / "talking.webm").read_bytes()
    response = httpx.post(f"{server.url}/predict", files={"clips": ("a.webm", data[: len(data) // 2])}, timeout=120)
    (clip,) = response.json()["clips"]
    assert clip["error"] or clip["intensities"]
    alive(server, media / "talking.mp4")


def test_oversize_without_a_length_is_cut_off(server, media):
    def parts():
        yield b'--b\r\nContent-Disposition: form-data; name="clips"; filename="a.mp4"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 100_000

    headers = {"content-type": "multipart/form-data; boundary=b"}
    with contextlib.suppress(httpx.WriteError, httpx.ReadError):  # the server may close before all is sent
        response = httpx.post(f"{server.url}/predict", content=parts(), headers=headers, timeout=60)
        assert response.status_code == 413 and "more than 2 MB" in response.json()["error"]
    alive(server, media / "talking.mp4")
