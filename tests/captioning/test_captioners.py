"""Every captioner keeps the contract: as many captions as pictures, the same in every batch, settings that come back from TOML."""

from __future__ import annotations

import json
import threading
import tomllib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom import pocket
from darkroom.captioning import KINDS, Exhibit, Writer, captioner
from darkroom.data.manifest import Row
from darkroom.errors import ModelError, RecipeError
from support.captioners import write_blip, write_llava
from support.onnx_file import write_tagger

TAGS = [("general", 9), ("reddish", 0), ("blueish", 0), ("a_picture", 0)]
WEIGHTS = np.array([[0, -1, 1, 0], [0, -1, -1, 0], [0, 1, -1, 0]]) / 20


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """Settings of each kind that work offline."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("models")
    return {
        "template": {"subject": "TOK cat", "template": "a photo of {subject}, {name}"},
        "blip": {"model": str(write_blip(folder / "blip")), "longest": 8},
        "wd": {"model": str(write_tagger(folder / "wd", TAGS, WEIGHTS, np.array([9.0, 1, 1, 2])))},
        "vlm": {"model": str(write_llava(folder / "llava")), "longest": 8, "prompt": "what is this"},
        "server": {"model": "tiny", "prompt": "what is this"},
        "pocket": {"model": str(pocket.folder("scorer")), "sure": 0.0},
    }


class Colour(BaseHTTPRequestHandler):
    """A vision-language model that sees the mean colour and nothing else, behind OpenAI's interface."""

    def do_POST(self) -> None:
        import base64
        import io

        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text, picture = asked["messages"][0]["content"]
        data = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
        red, green, blue = np.asarray(Image.open(io.BytesIO(data))).mean((0, 1)).round(-1).astype(int)
        said = f'"{asked["model"]}\n says {text["text"]}: {red} {green} {blue}"'
        body = json.dumps({"choices": [{"message": {"role": "assistant", "content": said}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Colour) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def exhibits() -> list[Exhibit]:
    noise = [np.random.default_rng(number).integers(0, 256, (24 + number, 30, 3), dtype=np.uint8) for number in range(3)]
    pictures = [Image.new("RGB", (20, 9), "red"), Image.new("RGB", (9, 20), "blue"), *map(Image.fromarray, noise)]
    return [Exhibit(Row(f"{number}.png"), picture) for number, picture in enumerate(pictures)]


@pytest.fixture(params=KINDS)
def writer(request: pytest.FixtureRequest, models: dict[str, dict[str, Any]], address: str) -> Writer:
    settings = models[request.param] | ({"url": address} if request.param == "server" else {})
    return captioner(request.param, settings).open("cpu", [exhibit.row for exhibit in exhibits()])


def test_a_caption_for_each_picture_and_of_that_picture(writer: Writer) -> None:
    told = writer.write(exhibits())
    assert len(told) == 5
    assert all(text and text == " ".join(text.split()) for text in told)
    assert len(set(told)) > 1, "different pictures are called the same: is the picture looked at?"


def test_batches_change_nothing(writer: Writer) -> None:
    shown = exhibits()
    whole = writer.write(shown)
    assert [writer.write([each])[0] for each in shown] == whole
    assert writer.write(shown[::-1]) == whole[::-1]
    assert writer.batch >= 1


@pytest.mark.parametrize("kind", KINDS)
def test_settings_come_back_from_toml(kind: str, models: dict[str, dict[str, Any]]) -> None:
    spec = captioner(kind, models[kind])
    assert captioner(kind, tomllib.loads(spec.to_toml())) == spec
    assert all(info.description for name, info in type(spec).model_fields.items() if name != "kind")


@pytest.mark.parametrize("kind", KINDS)
def test_a_misspelt_setting_is_named(kind: str) -> None:
    with pytest.raises(RecipeError, match=rf'--with {kind}: there is no key "bach"\. Did you mean "batch"\?'):
        captioner(kind, {"bach": 3} | ({"model": "x"} if kind == "server" else {}))


def test_an_unknown_captioner_is_named() -> None:
    with pytest.raises(RecipeError, match=r'"blib" is not known\. Did you mean "blip"\?'):
        captioner("blib", {})


@pytest.mark.parametrize("kind", ["blip", "wd", "vlm", "pocket"])
def test_a_folder_without_a_model_says_so(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=tmp_path.name):
        captioner(kind, {"model": str(tmp_path)}).open("cpu", ())
    with pytest.raises(ModelError, match="gone"):
        captioner(kind, {"model": str(tmp_path / "gone")}).open("cpu", ())
