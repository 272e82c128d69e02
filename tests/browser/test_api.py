"""The API of `emit serve`, over plain HTTP and by Gradio's client, against a real server."""

import socket

import httpx
import pytest

from shared.errors import UserError
from stage2_fusion import Predictor
from stage2_fusion.app.server import listen

DIMENSIONS = ("Joy", "Empathic Pain")


def post(server, *paths, **fields) -> httpx.Response:
    files = [("clips", (name, data)) for name, data in paths]
    return httpx.post(f"{server.url}/predict", files=files, data=fields, timeout=60)


def sent(path, name=None):
    return name or path.name, path.read_bytes()


@pytest.mark.filterwarnings("ignore::stage2_fusion.predictor.SyntheticModelWarning")
def test_answer_is_the_prediction_of_the_library(server, media, model_folder):
    words = "I am sad about the dog"
    answer = post(server, sent(media / "talking.webm"), transcript=words).json()
    expected = Predictor.from_pretrained(model_folder)(media / "talking.webm")  # with the words of talking.txt
    (clip,) = answer["clips"]
    assert clip["name"] == "talking.webm" and clip["error"] is None and clip["transcript"] == words
    assert clip["intensities"] == pytest.approx(expected.intensities, abs=1e-4)
    assert clip["seconds"] == pytest.approx(3.0, abs=0.1)
    times, values = clip["curves"]["times"], clip["curves"]["values"]
    assert times == sorted(times) and len(times) == 12 and all(len(values[name]) == 12 for name in DIMENSIONS)
    assert set(clip["weights"]["mean"]) == {"vision", "audio", "text"} and all(clip["weights"]["mean"].values())
    assert clip["found"][0].startswith("Face: found in ") and clip["found"][2] == "Words: 6, from the transcript"
    assert len(clip["faces"]) >= 8
    assert "never met a person" in answer["model"]["trained_on"] and "3 clips" in answer["model"]["trained_on"]
    beside = post(server, sent(media / "talking.txt"), sent(media / "talking.webm")).json()["clips"]
    assert beside == [clip] and server.uploads() == []


def test_one_bad_file_loses_that_file_only_and_names_are_only_shown(server, media):
    names = ("../../x<b>y\u202e.webm", "notes.mp4", "=1+1.wav")
    paths = [
        sent(media / name, shown) for name, shown in zip(("talking.webm", "notes.mp4", "voice.wav"), names, strict=True)
    ]
    first, second, third = post(server, *paths).json()["clips"]
    assert first["name"] == "x<b>y.webm" and not first["error"]
    assert "not a readable media file" in second["error"] and second["intensities"] == {}
    assert third["found"] == ["Face: no picture", third["found"][1], "Words: none"] and not third["faces"]
    assert server.uploads() == []


@pytest.mark.parametrize(
    ("files", "fields", "status", "told"),
    [
        ([], {"transcript": "words"}, 400, "no clip: send one or more video or audio files"),
        ([("a.wav", b"x")] * 2, {"transcript": "words"}, 400, "a transcript belongs to one clip"),
        ([("a.wav", b"x")] * 9, {}, 413, "9 clips: at most 8 in one request"),
        ([("a.wav", b"x" * 5_000_000)], {}, 413, "more than 3 MB in one request"),
        ([("a.wav", b"x")], {"transcript": "x" * 30_000}, 413, "the transcript has 30000 characters"),
    ],
)
def test_refusal_is_one_line_with_a_status(server, files, fields, status, told):
    response = httpx.post(
        f"{server.url}/predict", files=[("clips", file) for file in files] or {"note": (None, "")}, data=fields
    )
    assert response.status_code == status and told in response.json()["error"]
    assert server.uploads() == []


def test_request_that_is_no_form_is_refused(server):
    response = httpx.post(f"{server.url}/predict", content=b"{}", headers={"content-type": "application/json"})
    assert response.status_code == 415 and "multipart/form-data" in response.json()["error"]


def test_gradio_client_gets_the_same_answer(server, media):
    from gradio_client import Client, handle_file

    client = Client(server.url, verbose=False, analytics_enabled=False)
    (endpoint,) = client.view_api(return_format="dict", print_info=False)["named_endpoints"].items()
    assert endpoint[0] == "/predict"
    assert [parameter["parameter_name"] for parameter in endpoint[1]["parameters"]] == ["clips", "transcript"]
    answer = client.predict(clips=[handle_file(media / "voice.wav")], api_name="/predict")
    expected = post(server, sent(media / "voice.wav")).json()["clips"][0]
    assert answer["clips"][0]["intensities"] == expected["intensities"]
    assert answer["clips"][0]["name"] == "voice.wav" and server.uploads() == []


@pytest.mark.parametrize("path", ["/etc/passwd", "http://127.0.0.1:9/a.mp4"])
def test_endpoint_opens_nothing_but_uploads(server, path):
    data = [[{"path": path, "meta": {"_type": "gradio.FileData"}}], ""]
    event = httpx.post(f"{server.url}/gradio_api/call/predict", json={"data": data}).json()["event_id"]
    with httpx.stream("GET", f"{server.url}/gradio_api/call/predict/{event}", timeout=30) as stream:
        text = "".join(stream.iter_text())
    assert "event: error" in text and "root:" not in text


def test_port_in_use_is_one_line():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(UserError, match="Address already in use; choose another --host or --port"):
            listen("127.0.0.1", other.getsockname()[1])
