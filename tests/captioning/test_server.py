"""A model behind OpenAI's interface: pictures stay on this machine unless that is said, and every way to fail has a name."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from PIL import Image

from darkroom.captioning import Exhibit, Server, captioner
from darkroom.captioning.server import data_url, is_here
from darkroom.data.manifest import Row
from darkroom.errors import DatasetError, ModelError, RecipeError

PICTURE = [Exhibit(Row("a.png"), Image.new("RGB", (300, 200), "red"))]


@contextmanager
def answering(status: int, body: str) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address where everything is answered alike, and what was asked there."""
    asked: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked.append({"path": self.path} | json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/", asked
        server.shutdown()


def said(text: str) -> str:
    return json.dumps({"choices": [{"message": {"content": text}}]})


def test_what_is_asked() -> None:
    with answering(200, said("  A red\nsquare. ")) as (url, asked):
        assert Server(url=url, model="llava", prompt="What?", side=64).open("cpu", ()).write(PICTURE) == ["A red square."]
    (one,) = asked
    assert (one["path"], one["model"], one["temperature"], one["seed"]) == ("/v1/chat/completions", "llava", 0, 0)
    text, picture = one["messages"][0]["content"]
    assert text == {"type": "text", "text": "What?"}
    sent = Image.open(io.BytesIO(base64.b64decode(picture["image_url"]["url"].partition(",")[2])))
    assert (sent.format, sent.size) == ("JPEG", (64, 43)), "reduced"


def test_the_picture_itself_is_not_reduced() -> None:
    data_url(PICTURE[0].seen, 64)
    assert PICTURE[0].seen.size == (300, 200)


@pytest.mark.parametrize(
    ("status", "body", "kind", "message"),
    [
        (404, '{"error": "model not found"}', ModelError, 'answers 404 for the model "m".*not found'),
        (401, "who are you", ModelError, "answers 401"),
        (500, "out of memory", DatasetError, r"a\.png: the server answers 500: out of memory"),
        (400, "too large", DatasetError, "400"),
        (200, "<html>", ModelError, "does not answer as OpenAI's"),
        (200, '{"choices": []}', ModelError, "up to /v1"),
        (200, "[]", ModelError, "does not answer"),
    ],
)
def test_refusals(status: int, body: str, kind: type[Exception], message: str) -> None:
    with answering(status, body) as (url, _), pytest.raises(kind, match=message):
        Server(url=url, model="m").open("cpu", ()).write(PICTURE)


def test_nothing_said_is_nothing_said() -> None:
    with answering(200, json.dumps({"choices": [{"message": {"content": None}}]})) as (url, _):
        assert Server(url=url, model="m").open("cpu", ()).write(PICTURE) == [""]


def test_nobody_there() -> None:
    with answering(200, "") as (url, _):
        pass
    with pytest.raises(ModelError, match=r"nobody answers there.*Start the server"):
        Server(url=url, model="m").open("cpu", ()).write(PICTURE)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_here(host: str) -> None:
    assert is_here(host)


@pytest.mark.parametrize("host", ["example.com", "192.168.0.2", "10.0.0.1", "0.0.0.0", "localhost.example.com", "127.0.0.1.example.com", "::2"])
def test_elsewhere_wants_a_word(host: str) -> None:
    assert not is_here(host)
    url = f"http://[{host}]/v1" if ":" in host else f"http://{host}/v1"
    with pytest.raises(RecipeError, match="is not this machine, and your pictures would go there"):
        captioner("server", {"model": "m", "url": url})
    assert captioner("server", {"model": "m", "url": url, "elsewhere": True})


@pytest.mark.parametrize(("settings", "message"), [({}, "no model is named"), ({"model": "m", "url": "localhost:80"}, "is no address")])
def test_what_is_missing(settings: dict[str, str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        captioner("server", settings)
