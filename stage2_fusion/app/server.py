"""The server: the page and the API, with their security headers, on one address."""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from shared.errors import UserError
from shared.terminal.results import result
from stage2_fusion.app.gradio_loading import load_gradio
from stage2_fusion.app.http_api import STALL_SECONDS, HttpApi
from stage2_fusion.app.page import MONO_FONTS, STATIC, SYSTEM_FONTS, build_page
from stage2_fusion.app.service import Service

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTENT_POLICY = "; ".join(
    [
        "default-src 'self' data: blob:",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",  # Gradio's page needs both
        "style-src 'self' 'unsafe-inline'",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'self'",
    ]
)
"""Browsers send no requests from this page to other hosts."""
HEADERS = [
    (b"content-security-policy", CONTENT_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]
MAX_CONNECTIONS = 500
CLEANING_SECONDS = 60.0
"""Seconds between two searches for unused uploads."""


class SecurityHeaders:
    """Adds HEADERS to every answer."""

    def __init__(self, app: "ASGIApp"):
        self.app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        async def send_with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
            await send(message)

        await self.app(scope, receive, send_with_headers)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. UserError if the address is not available."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(256)
    except OSError as error:
        raise UserError(f"{host}:{port}: {error.strerror or error}; choose another --host or --port") from None
    return listener


def address(listener: socket.socket, host: str) -> str:
    """The URL under which a browser on this machine finds the page."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    return f"http://{shown}:{listener.getsockname()[1]}"


def build_app(service: Service, url: str) -> "Starlette":
    """The application: our routes, then Gradio's page."""
    load_gradio(service.store.folder)
    import gradio as gr
    from fastapi import FastAPI
    from starlette.staticfiles import StaticFiles

    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lambda _: _cleaning(service))
    app.router.routes += HttpApi(service).routes()
    app.mount("/emit", StaticFiles(directory=STATIC))
    app.add_middleware(SecurityHeaders)
    gr.mount_gradio_app(
        app,
        build_page(service, url),
        path="/",
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        pwa=False,
        enable_monitoring=False,
        max_file_size=service.limits.bytes,
        theme=gr.themes.Base(font=SYSTEM_FONTS, font_mono=MONO_FONTS),
        css_paths=STATIC / "page.css",
        head='<script src="/emit/page.js"></script>',
    )
    return app


@contextlib.asynccontextmanager
async def _cleaning(service: Service) -> Any:
    async def clean() -> None:
        while True:
            await asyncio.sleep(CLEANING_SECONDS)
            service.store.delete_unused()

    task = asyncio.create_task(clean())
    try:
        yield
    finally:
        task.cancel()


def serve(app: "Starlette", listener: socket.socket, ready: str) -> None:
    """Serve until SIGINT or SIGTERM, then finish running responses, for a few seconds. ready: line to print when the
    page can be opened."""
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class Protocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.loop.call_later(STALL_SECONDS, self.close_unasked)

        def close_unasked(self) -> None:
            """Disconnect a client that has not sent request headers: many such clients would fill MAX_CONNECTIONS."""
            if self.cycle is None:
                self.transport.close()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            result(ready)

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Both signals end the server in the same way; uvicorn would send them to the process again."""
            before = {number: signal.signal(number, self.stop) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def stop(self, number: int, frame: FrameType | None) -> None:
            self.force_exit = self.should_exit
            self.should_exit = True

    config = uvicorn.Config(
        app,
        http=Protocol,
        log_level="warning",
        access_log=False,
        limit_concurrency=MAX_CONNECTIONS,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=3,
        server_header=False,
    )
    Server(config).run(sockets=[listener])
