"""A real HTTP server on this machine that hands out files, well or badly, and remembers what it was asked."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Served:
    """A file and how it is served. Lists are used up, one entry for each answer.

    cuts: bytes after which the connection is closed. statuses: answers without a file. length: what Content-Length
    says, if not the truth; stated: what Content-Range says, likewise. rate: bytes per second.
    """

    content: bytes
    ranges: bool = True
    tag: str | None = None
    cuts: list[int] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    length: int | None = None
    has_length: bool = True
    kind: str = "application/octet-stream"
    rate: float | None = None
    stated: str | None = None


class FileServer:
    """files: by path. asked: (path, Range, If-Range) of each request so far."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.address = ""

    def serve(self, name: str, content: bytes, **how) -> Served:
        self.files[f"/{name}"] = Served(content, **how)
        return self.files[f"/{name}"]

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"

    @property
    def ranges(self) -> list[str | None]:
        return [asked for _, asked, _ in self.asked]


@contextmanager
def running_server() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            _answer(self, state)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(handler: BaseHTTPRequestHandler, state: FileServer) -> None:
    wanted, condition = handler.headers.get("Range"), handler.headers.get("If-Range")
    state.asked.append((handler.path, wanted, condition))
    served = state.files.get(handler.path)
    if served is None or served.statuses:
        handler.send_error(404 if served is None else served.statuses.pop(0))
        return
    start = 0
    if wanted and served.ranges and (condition is None or condition == served.tag):
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1])  # type: ignore[index]
        if start >= len(served.content):
            handler.send_response(416)
            handler.send_header("Content-Range", served.stated or f"bytes */{len(served.content)}")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        handler.send_response(206)
        end = len(served.content)
        handler.send_header("Content-Range", served.stated or f"bytes {start}-{end - 1}/{end}")
    else:
        handler.send_response(200)
    body = served.content[start:]
    if served.has_length:
        handler.send_header("Content-Length", str(len(body) if served.length is None else served.length))
    handler.send_header("Content-Type", served.kind)
    if served.tag:
        handler.send_header("ETag", served.tag)
    handler.end_headers()
    if served.cuts:
        body = body[: served.cuts.pop(0)]
    with suppress(BrokenPipeError, ConnectionResetError):  # the client was stopped, as some tests do
        _send(handler, body, served.rate)


def _send(handler: BaseHTTPRequestHandler, body: bytes, rate: float | None) -> None:
    if rate is None:
        handler.wfile.write(body)
        return
    step = 4096
    for place in range(0, len(body), step):
        handler.wfile.write(body[place : place + step])
        time.sleep(step / rate)
