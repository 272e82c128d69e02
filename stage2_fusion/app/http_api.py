"""The API for programs over plain HTTP, and how uploads arrive."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from starlette.concurrency import run_in_threadpool
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from stage2_fusion.app.jobs import QueueFull
from stage2_fusion.app.service import Service
from stage2_fusion.app.uploads import Upload, UploadError, megabytes

if TYPE_CHECKING:
    from starlette.datastructures import FormData

MULTIPART_OVERHEAD = 1 << 20
"""Bytes of a request in addition to the content of its files."""
STALL_SECONDS = 30.0
"""A sender that is silent for longer is disconnected."""


class HttpApi:
    """POST /predict, GET /model, GET /status; and the upload route of the page and Gradio's clients."""

    def __init__(self, service: Service):
        self.service = service
        self._uploading: set[str] = set()

    def routes(self) -> list[Route]:
        """The routes, which come before Gradio's."""
        return [
            Route("/predict", self.predict, methods=["POST"]),
            Route("/model", self.model, methods=["GET"]),
            Route("/status", self.status, methods=["GET"]),
            Route("/gradio_api/upload", self.upload, methods=["POST"]),
            Route("/gradio_api/upload_progress", self.upload_progress, methods=["GET"]),
        ]

    async def model(self, request: Request) -> Response:
        """The dimensions and training data of the model, and the limits of a request."""
        return JSONResponse(self.service.model())

    async def status(self, request: Request) -> Response:
        """How many requests wait, and how many may."""
        return JSONResponse({"waiting": self.service.queue.waiting, "max_waiting": self.service.queue.limit})

    async def predict(self, request: Request) -> Response:
        """Form fields: `clips`, one or more files; `transcript`, the words of a single clip. Returns JSON."""
        uploads: list[Upload] = []
        try:
            self.service.queue.check()  # before the files travel
            form = await self._read_form(request)
            uploads = await self._store(form)
            transcript = form.get("transcript", "")
            job = self.service.submit(uploads, transcript if isinstance(transcript, str) else "")
            async for _ in self.service.follow(job):
                if await request.is_disconnected():
                    return Response(status_code=499)
            return JSONResponse(self.service.answer(job))
        except (UploadError, QueueFull, ClientDisconnect) as error:
            self.service.store.delete(uploads)
            return refusal(error)

    async def upload(self, request: Request) -> Response:
        """Store files and return their paths, like Gradio's own route, but with limits and random names."""
        key = request.query_params.get("upload_id", "")
        self._uploading.add(key)
        try:
            uploads = await self._store(await self._read_form(request))
            return JSONResponse([str(upload.path) for upload in uploads])
        except UploadError as error:
            return PlainTextResponse(str(error), error.status)  # the page shows it
        except ClientDisconnect as error:
            return refusal(error)
        finally:
            self._uploading.discard(key)

    async def upload_progress(self, request: Request) -> Response:
        """Tells the page when an upload is done, as an event stream."""
        key = request.query_params.get("upload_id", "")

        async def events() -> AsyncGenerator[str, None]:
            await asyncio.sleep(0.5)  # the upload arrives on another connection
            while key in self._uploading and not await request.is_disconnected():
                yield 'data: {"msg": "heartbeat"}\n\n'
                await asyncio.sleep(0.5)
            yield 'data: {"msg": "done"}\n\n'

        return StreamingResponse(events(), media_type="text/event-stream")

    async def _read_form(self, request: Request) -> "FormData":
        """The form of a request. UploadError if it is not a form, is cut off, or is too large."""
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            raise UploadError("expected a form (multipart/form-data) with one or more files named `clips`", 415)
        length = request.headers.get("content-length", "")
        await run_in_threadpool(self.service.store.check_size, int(length) if length.isdigit() else 0)
        parser = MultiPartParser(
            request.headers,
            self._body(request),
            max_files=2 * self.service.limits.clips + 2,
            max_fields=10,
            max_part_size=MULTIPART_OVERHEAD,
        )
        try:
            return await parser.parse()
        except MultiPartException as error:
            raise UploadError(f"the form cannot be read ({error.message})") from None

    async def _body(self, request: Request) -> AsyncGenerator[bytes, None]:
        size, stream = 0, request.stream()
        while True:
            try:
                part = await asyncio.wait_for(anext(stream, None), STALL_SECONDS)
            except TimeoutError:
                raise UploadError(f"nothing arrived for {STALL_SECONDS:g} s; send the files again", 408) from None
            if part is None:
                return
            size += len(part)
            if size > self.service.store.max_bytes + MULTIPART_OVERHEAD:
                raise UploadError(f"more than {megabytes(self.service.store.max_bytes)} in one request", 413)
            yield part

    async def _store(self, form: "FormData") -> list[Upload]:
        """Store all files of a form; none of them if one is refused."""
        uploads: list[Upload] = []
        try:
            for _, value in form.multi_items():
                if isinstance(value, str):
                    continue
                size = value.size or 0
                uploads.append(
                    await run_in_threadpool(self.service.store.add, value.file, size, value.filename or "clip")
                )
        except BaseException:
            self.service.store.delete(uploads)
            raise
        finally:
            await form.close()
        return uploads


def refusal(error: Exception) -> Response:
    """One line as JSON, with an HTTP status."""
    content: dict[str, Any] = {"error": str(error) or "the connection was closed before the files had arrived"}
    if isinstance(error, QueueFull):
        return JSONResponse(content, 503, headers={"Retry-After": "10"})
    return JSONResponse(content, getattr(error, "status", 400))
