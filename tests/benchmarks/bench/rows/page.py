"""A request to `emit serve`: one clip uploaded over HTTP, and its answer."""

import urllib.request
import uuid
from pathlib import Path

from benchmarks.bench import limits, material
from benchmarks.bench.row import Bench, Measured, Row, watch, with_limit
from benchmarks.bench.rows import predict_warm


def ours(bench: Bench) -> Measured:
    from helpers.serving import Server

    film = material.film(bench)
    (bench.folder / "tmp").mkdir(exist_ok=True)
    server = Server(material.model(bench), bench.folder / "tmp")
    try:
        request(server.url, film)
        with watch() as clock:
            for _ in range(bench.size.repeats):
                request(server.url, film)
    finally:
        server.stop()
    timing = clock.timing(bench.size.repeats)
    timing.cpu = 0.0  # the server's is not seen
    return with_limit(timing, limits.decode_alone(film, 1, bench.threads))


def request(url: str, film: Path) -> bytes:
    """POST /predict with the film as a form file."""
    mark = uuid.uuid4().hex
    head = f'--{mark}\r\nContent-Disposition: form-data; name="clips"; filename="{film.name}"\r\n\r\n'
    body = head.encode() + film.read_bytes() + f"\r\n--{mark}--\r\n".encode()
    headers = {"Content-Type": f"multipart/form-data; boundary={mark}"}
    with urllib.request.urlopen(urllib.request.Request(f"{url.rstrip('/')}/predict", body, headers)) as answer:
        return answer.read()


ROW = Row(
    "page, a request",
    "s",
    ours,
    predict_warm.ours,
    "the loaded Predictor without a server",
    "decoding alone by PyAV",
    material.model,
)
