"""The page: clips are dropped or recorded here, and results appear here."""

import html
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.text import counted
from stage2_fusion.app.jobs import Progress, QueueFull
from stage2_fusion.app.service import Service
from stage2_fusion.app.uploads import Upload, UploadError

if TYPE_CHECKING:
    import gradio as gr

STATIC = Path(__file__).parent / "static"
SYSTEM_FONTS = ("system-ui", "sans-serif")
MONO_FONTS = ("ui-monospace", "monospace")

API_HELP = """
Plain HTTP, answered with JSON (`clips` may be repeated; `transcript` is optional, for a single clip; of several clips,
send `clip.txt` beside each `clip.mp4`):

```bash
curl -F clips=@clip.mp4 -F transcript="that is so funny" {url}/predict
curl {url}/model
```

Gradio's client for Python:

```python
from gradio_client import Client, handle_file

answer = Client("{url}").predict(clips=[handle_file("clip.mp4")], transcript="", api_name="/predict")
print(answer["clips"][0]["intensities"])
```

A refusal is `{{"error": "..."}}` with status 400 (cannot be answered), 413 (too large) or 503 (the queue is full).
"""


def build_page(service: Service, url: str) -> "gr.Blocks":
    """The page as Gradio blocks, and the endpoint /predict of Gradio's API. url: where the page is served."""
    import gradio as gr

    with gr.Blocks(title="EMIT", analytics_enabled=False, fill_width=False) as page:
        gr.HTML(_intro(service), elem_id="emit-intro", padding=False)
        with gr.Tabs():
            with gr.Tab("Files"):
                files = gr.File(
                    label="Video or audio files",
                    file_count="multiple",
                    height=150,
                    elem_id="emit-files",
                    type="filepath",
                )
            with gr.Tab("Record"):
                recording = gr.Video(
                    label="Recording",
                    sources=["webcam"],
                    webcam_options=gr.WebcamOptions(mirror=False),
                    include_audio=True,
                    height=320,
                    elem_id="emit-recording",
                )
        transcript = gr.Textbox(
            label="What is said (optional)",
            placeholder="The words of a single clip; or drop clip.txt beside clip.mp4",
            lines=1,
            max_lines=6,
            elem_id="emit-transcript",
        )
        button = gr.Button("Score", variant="primary", elem_id="emit-score")
        status = gr.HTML(_status(""), elem_id="emit-status", padding=False)
        results = gr.HTML("", elem_id="emit-results", padding=False, apply_default_css=False)
        with gr.Accordion("For programs", open=False):
            gr.Markdown(API_HELP.format(url=url))
        button.click(
            _handler(service),
            [files, recording, transcript],
            [status, results],
            js="(...inputs) => window.emitFreshUploads(...inputs)",
            preprocess=False,
            concurrency_limit=None,
            show_progress="hidden",
            api_visibility="private",
        )
        gr.api(_endpoint(service), api_name="predict", concurrency_limit=None)
    _open_nothing(page, service)
    return page


def _open_nothing(page: "gr.Blocks", service: Service) -> None:
    """Stop components from copying, reading or downloading paths in a request, except uploads: Gradio would fetch a
    URL."""
    import gradio as gr

    async def resolve(path: str) -> str:
        return str(service.store.get(path).path)

    for block in page.blocks.values():
        if isinstance(block, gr.components.Component):
            block.async_move_resource_to_block_cache = resolve  # type: ignore[method-assign,assignment]


def _intro(service: Service) -> str:
    card = service.model()
    kind = "warning" if card["synthetic"] else "note"
    names = ", ".join(card["dimensions"])
    return (
        f"<header><h1>EMIT</h1><p>How intensely the person in a clip mimics an emotion: {html.escape(names)}.</p>"
        f'<p class="emit-{kind}">{html.escape(card["trained_on"])}</p>'
        f'<p class="emit-small">{html.escape(service.limits.text())} Files are deleted as soon as they are scored. '
        "Not for decisions about people.</p></header>"
    )


def _status(text: str, share: float | None = None, error: bool = False) -> str:
    """The line under the button, read aloud by screen readers."""
    bar = ""
    if share is not None:
        bar = f'<progress max="1" value="{share:.3f}" aria-label="clips finished"></progress>'
    role = 'role="alert" class="emit-error"' if error else 'role="status"'
    return f"<p {role}>{html.escape(text)}</p>{bar}"


def _progress(progress: Progress) -> str:
    if progress.ahead:
        requests = counted(progress.ahead, "request")
        return _status(f"Waiting: {requests} first.")
    if not progress.total:
        return _status("Starting.")
    what = "the clip" if progress.total == 1 else f"clip {progress.clips or 1} of {progress.total}"
    seconds = f"; {progress.seconds:.0f} s done" if progress.seconds else ""
    return _status(f"Scoring {what}{seconds}.", progress.clips / (progress.total + 1) if progress.total > 1 else None)


def _handler(service: Service) -> Any:
    async def score(files: Any, recording: Any, transcript: Any) -> AsyncIterator[tuple[str, str]]:
        try:
            uploads = _uploads(service, [*_as_list(files), *_as_list(recording)])
            job = service.submit(uploads, str(transcript or ""))
            async for progress in service.follow(job):
                yield _progress(progress), ""
            answer, table = service.answer(job), service.table(job)
        except (UploadError, QueueFull) as error:
            yield _status(_sentence(str(error)), error=True), ""
            return
        failed = sum(bool(clip["error"]) for clip in answer["clips"])
        scored = len(answer["clips"]) - failed
        text = f"{counted(scored, 'clip')} scored" + (f", {failed} failed" if failed else "") + "."
        places = {
            "paths": [clip.path for clip in service.clips(job)],
            "spent": [str(upload.path) for upload in uploads],
        }
        data = html.escape(json.dumps(answer | places | {"csv": table}))
        yield _status(text), f'<emit-results data-answer="{data}"></emit-results>'

    return score


def _endpoint(service: Service) -> Any:
    import gradio as gr

    async def predict(clips: list[gr.FileData], transcript: str = "") -> dict[str, Any]:
        """Score clips. clips: video or audio files; transcript: the words of a single clip. The answer is the same as
        for POST /predict."""
        try:
            job = service.submit(_uploads(service, _as_list(clips)), str(transcript or ""))
            async for _ in service.follow(job):
                pass
            return service.answer(job)
        except (UploadError, QueueFull) as error:
            raise gr.Error(str(error), print_exception=False) from None

    return predict


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]


def _uploads(service: Service, files: list[Any]) -> list[Upload]:
    """The uploads named in a Gradio request. UploadError for anything else."""
    uploads = []
    for file in files:
        if isinstance(file, dict):
            file = file.get("video") or file
        path = file.get("path") if isinstance(file, dict) else getattr(file, "path", None)
        if not isinstance(path, str):
            raise UploadError("a clip is not an uploaded file; send it as a file")
        uploads.append(service.store.get(path))
    return uploads


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."
