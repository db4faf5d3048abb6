"""A server on loopback that stands in for Hugging Face, and misbehaves as it is told."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STALL_S = 30.0


@dataclass
class Shelf:
    """
    What is served.

    Attributes:
        files: The bytes of each file, by name.
        misdeeds: By name, what is done at each request for its bytes, in order; afterwards all is well.
        asked: Name and Range header of each request for bytes, in order.
        hashed: Whether the first answer says the sha256 and the size, as Hugging Face does, and redirects.
        released: Set at the end, so that no handler sleeps on.
    """

    files: dict[str, bytes]
    misdeeds: dict[str, list[Callable[[Handler, bytes, int], None]]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    hashed: bool = True
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""


class Handler(BaseHTTPRequestHandler):
    """`/resolve/NAME` says what the file is and where; `/bytes/NAME` has it."""

    protocol_version = "HTTP/1.1"
    shelf: Shelf

    def do_GET(self) -> None:
        _, kind, name = self.path.split("/")
        if self.shelf.hashed and kind == "resolve" and name in self.shelf.files:
            whole = self.shelf.files[name]
            digest = hashlib.sha256(whole).hexdigest()
            self.answer(302, b"", Location=f"/bytes/{name}", **linked(digest, len(whole)))
            return
        asked = self.headers.get("Range", "")
        self.shelf.asked.append((name, asked))
        whole = self.shelf.files.get(name, b"")
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        misdeeds = self.shelf.misdeeds.get(name)
        (misdeeds.pop(0) if misdeeds else give)(self, whole, start)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        """Send an answer. *length* is promised instead of that of *body*."""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for key, value in headers.items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def part(self, whole: bytes, start: int, sent: bytes, etag: str = '"v1"') -> None:
        """Promise all of *whole* from *start* on and send only *sent*."""
        if start:
            span = f"bytes {start}-{len(whole) - 1}/{len(whole)}"
            self.answer(206, sent, len(whole) - start, ETag=etag, Content_Range=span)
        else:
            self.answer(200, sent, len(whole), ETag=etag)
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet."""


def linked(digest: str, size: int) -> dict[str, str]:
    return {"X_Linked_Etag": f'"{digest}"', "X_Linked_Size": str(size)}


Misdeed = Callable[[Handler, bytes, int], None]


def give(handler: Handler, whole: bytes, start: int) -> None:
    """No misdeed."""
    if start >= len(whole) > 0:
        handler.answer(416, b"")
    elif not whole:
        handler.answer(404, b"")
    else:
        handler.part(whole, start, whole[start:])


def cut(after: int) -> Misdeed:
    """End the connection after so many bytes."""
    return lambda handler, whole, start: handler.part(whole, start, whole[start : start + after])


def stall(after: int) -> Misdeed:
    """Send so many bytes, then nothing more, and keep the connection open."""

    def misdeed(handler: Handler, whole: bytes, start: int) -> None:
        handler.part(whole, start, whole[start : start + after])
        handler.shelf.released.wait(STALL_S)

    return misdeed


def trickle(handler: Handler, whole: bytes, start: int) -> None:
    """Send a byte now and then: no read of it ever times out."""
    handler.part(whole, start, b"")
    for at in range(start, len(whole)):
        if handler.shelf.released.wait(0.02):
            return
        try:
            handler.wfile.write(whole[at : at + 1])
        except OSError:  # given up on, as it should be
            return


def corrupt(handler: Handler, whole: bytes, start: int) -> None:
    """The right length, and one wrong byte."""
    middle = len(whole) // 2
    broken = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    handler.part(broken, start, broken[start:])


def promise(more: int) -> Misdeed:
    """Promise *more* bytes than there are, or fewer; then send what fits."""

    def misdeed(handler: Handler, whole: bytes, start: int) -> None:
        length = len(whole) + more
        handler.answer(200, whole[start : max(start, length)], length - start, ETag='"v1"')
        handler.close_connection = True

    return misdeed


def promise_nothing(handler: Handler, whole: bytes, start: int) -> None:
    """No length at all: the end of the connection would be the end of the file."""
    handler.send_response(200)
    handler.send_header("Connection", "close")
    handler.end_headers()
    handler.wfile.write(whole[: len(whole) // 2])
    handler.close_connection = True


def from_the_start(handler: Handler, whole: bytes, start: int) -> None:
    """Pay no heed to the range."""
    handler.part(whole, 0, whole)


def elsewhere(handler: Handler, whole: bytes, start: int) -> None:
    """Send another range than the one asked for."""
    handler.answer(
        206, whole[start + 5 :], ETag='"v1"', Content_Range=f"bytes {start + 5}-{len(whole) - 1}/{len(whole)}"
    )


def refuse(status: int, retry_after: str = "") -> Misdeed:
    """Answer with an error."""
    more = {"Retry_After": retry_after} if retry_after else {}
    return lambda handler, whole, start: handler.answer(status, b"", **more)


def serve(shelf: Shelf) -> tuple[ThreadingHTTPServer, threading.Thread]:
    """Serve until `shutdown`; the address is in `shelf.url`."""
    handler = type("ShelfHandler", (Handler,), {"shelf": shelf})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = False  # closing waits for them, so that none is left behind
    shelf.url = f"http://127.0.0.1:{server.server_port}/resolve"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    return server, thread
