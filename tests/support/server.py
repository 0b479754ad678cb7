"""A real web server on 127.0.0.1 that misbehaves on request, and counts what it was asked.

    with Server() as server:
        server.url("/picture/7.png")          a small picture, other bytes for each number

Run as a program it serves until it is ended: `python -m support.server` prints its address first.
"""

from __future__ import annotations

import io
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

from PIL import Image


def png(number: int, size: int = 16) -> bytes:
    """A picture of its own for each number."""
    buffer = io.BytesIO()
    picture = Image.new("RGB", (size, size), (number % 251, number // 251 % 251, number // 63001))
    picture.putpixel((number % size, 0), (255, 255, 255))
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG that says it has 3.6 thousand million pixels, and holds a line of them."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(180_001))) + chunk(b"IEND", b"")


class Handler(BaseHTTPRequestHandler):
    """Answers by the first part of the path."""

    protocol_version = "HTTP/1.1"
    server: Listener
    here = False

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        number = self.server.owner.count(path, self.headers.get("User-Agent", ""))
        self.here = True
        _, first, *rest = path.split("/")
        try:
            ANSWERS.get(first, _missing)(self, rest[0] if rest else "", number)  # type: ignore[call-arg]
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.leave()

    def leave(self) -> None:
        """Once: before the answer is out, for whoever has it may ask for the next before this thread goes on."""
        if self.here:
            self.here = False
            self.server.owner.leave()

    def send(self, body: bytes, code: int = 200, kind: str = "image/png", **headers: str) -> None:
        self.leave()
        self.send_response(code)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def begin(self, **headers: str) -> None:
        """A head whose body comes as it comes."""
        self.send_response(200)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def _missing(to: Handler, rest: str, number: int) -> None:
    to.send(b"<html>not here</html>", 404, "text/html")


def _picture(to: Handler, rest: str, asked: int) -> None:
    """/picture/N.png, after half to one and a half times the server's delay."""
    number = int(rest.split(".")[0])
    time.sleep(to.server.owner.delay * (0.5 + number * 37 % 100 / 100))
    to.send(png(number))


def _code(to: Handler, rest: str, number: int) -> None:
    to.send(b"no", int(rest.split(".")[0]), "text/plain")


def _busy(to: Handler, rest: str, number: int) -> None:
    """/busy/SECONDS: the first time 429 with Retry-After in seconds, then a picture."""
    to.send(b"wait", 429, Retry_After=rest) if number == 1 else to.send(png(9000 + int(rest)))


def _date(to: Handler, rest: str, number: int) -> None:
    """/date/SECONDS: the first time 503 with Retry-After as an HTTP date, then a picture."""
    to.send(b"wait", 503, Retry_After=formatdate(time.time() + float(rest), usegmt=True)) if number == 1 else to.send(png(9100))


def _down(to: Handler, rest: str, number: int) -> None:
    """/down/K: K times 503, then a picture."""
    to.send(b"down", 503) if number <= int(rest) else to.send(png(9200 + int(rest)))


def _html(to: Handler, rest: str, number: int) -> None:
    to.send(b"<!DOCTYPE html><html>please log in</html>", kind="image/jpeg")


def _cut(to: Handler, rest: str, number: int) -> None:
    body = png(9300, 64)
    to.begin(Content_Length=str(len(body)))
    to.wfile.write(body[:-40])


def _half(to: Handler, rest: str, number: int) -> None:
    """A whole answer with half a picture in it."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 80).save(buffer, "JPEG")
    to.send(buffer.getvalue()[: len(buffer.getvalue()) // 2], kind="image/jpeg")


def _circle(to: Handler, rest: str, number: int) -> None:
    to.send(b"", 302, Location="/circle/b" if rest == "a" else "/circle/a")


def _far(to: Handler, rest: str, number: int) -> None:
    """/far/K: K redirects, then a picture."""
    to.send(b"", 301, Location=f"/far/{int(rest) - 1}") if int(rest) else to.send(png(9400))


def _to(to: Handler, rest: str, number: int) -> None:
    places = {"file": "file:///etc/passwd", "nowhere": "http://127.0.0.1:99999999/", "plain": "http://127.0.0.1:9/x.png", "script": "javascript:alert(1)"}
    to.send(b"", 302, Location=places[rest])


def _lead(to: Handler, rest: str, number: int) -> None:
    """/lead/HEX: a redirect to the address that is written in hexadecimal."""
    to.send(b"", 302, Location=bytes.fromhex(rest).decode())


def _endless(to: Handler, rest: str, number: int) -> None:
    to.begin()
    while True:
        to.wfile.write(bytes(65536))


def _large(to: Handler, rest: str, number: int) -> None:
    to.begin(Content_Length=str(10**10))


def _hang(to: Handler, rest: str, number: int) -> None:
    to.server.owner.closing.wait(30)


def _drip(to: Handler, rest: str, number: int) -> None:
    body = png(9500, 64)
    to.begin(Content_Length=str(len(body)))
    for at in range(len(body)):
        to.wfile.write(body[at : at + 1])
        if to.server.owner.closing.wait(0.1):
            return


def _odd(to: Handler, rest: str, number: int) -> None:
    """A JPEG that is called a text by its name and by the server."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "teal").save(buffer, "JPEG")
    to.send(buffer.getvalue(), kind="text/plain")


def _bytes(kind: str) -> Callable[[Handler, str, int], None]:
    made = {"bomb": bomb, "empty": bytes, "gif": lambda: b"GIF89a" + bytes(40), "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>'}
    return lambda to, rest, number: to.send(made[kind]())


ANSWERS: dict[str, Callable[[Handler, str, int], None]] = {
    "picture": _picture, "code": _code, "busy": _busy, "date": _date, "down": _down, "html": _html, "cut": _cut, "half": _half, "circle": _circle, "far": _far,
    "to": _to, "endless": _endless, "large": _large, "hang": _hang, "drip": _drip, "odd": _odd, "same": lambda to, rest, number: to.send(png(77)),
    "noai": lambda to, rest, number: to.send(png(9600), X_Robots_Tag="noindex, noai"),
    "lead": _lead, **{kind: _bytes(kind) for kind in ("bomb", "empty", "gif", "svg")},
}  # fmt: skip


class Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256
    owner: Server

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what many of the tests are about."""


class Server:
    """Serves while the block lasts; with `certificate` (a PEM of key and certificate) over TLS."""

    def __init__(self, certificate: Path | None = None, delay: float = 0.0) -> None:
        self.listener = Listener(("127.0.0.1", 0), Handler)
        self.listener.owner = self
        self.scheme, self.delay = "http", delay
        if certificate is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self.listener.socket = context.wrap_socket(self.listener.socket, server_side=True)
            self.scheme = "https"
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.now = self.most = 0
        self.guard, self.closing = threading.Lock(), threading.Event()

    def url(self, path: str) -> str:
        return f"{self.scheme}://127.0.0.1:{self.listener.server_port}{path}"

    def count(self, path: str, agent: str) -> int:
        """How often the path was asked for, this time included."""
        with self.guard:
            self.asked[path] += 1
            self.agents.add(agent)
            self.now += 1
            self.most = max(self.most, self.now)
            return self.asked[path]

    def leave(self) -> None:
        with self.guard:
            self.now -= 1

    def __enter__(self) -> Self:
        threading.Thread(target=self.listener.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self.listener.shutdown()
        self.listener.server_close()


def certificate(folder: Path) -> Path:
    """A key and a certificate for 127.0.0.1 that nobody signed but itself, in one PEM file."""
    key, cert, both = folder / "key.pem", folder / "cert.pem", folder / "both.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(key), "-out", str(cert),
            "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return both


if __name__ == "__main__":
    with Server() as running:
        print(running.url(""), flush=True)
        threading.Event().wait()
