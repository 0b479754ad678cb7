"""Captions by a vision-language model that a server on this machine runs (Ollama, llama.cpp, vLLM, LM Studio): OpenAI's chat completions, over HTTP."""

from __future__ import annotations

import base64
import http.client
import io
import ipaddress
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from PIL import Image
from pydantic import Field, model_validator

from darkroom.captioning.exhibit import Exhibit
from darkroom.captioning.vlm import PROMPT, unquoted
from darkroom.data.manifest import Row
from darkroom.errors import DatasetError, ModelError
from darkroom.spec import Spec


class Server(Spec):
    """Pictures leave Darkroom as JPEG, and this machine only where you say so."""

    kind: Literal["server"] = "server"
    url: str = Field("http://127.0.0.1:11434/v1", description="Where the server answers, up to /v1 (Ollama's: port 11434, llama.cpp's 8080, vLLM's 8000).")
    model: str = Field("", description="The model's name there, as it lists them.")
    prompt: str = Field(PROMPT, description="What it is asked.")
    longest: int = Field(120, ge=1, le=4096, description="Tokens of an answer at most.")
    side: int = Field(1024, ge=64, le=8192, description="Larger pictures are reduced to this longer side, in pixels.")
    seconds: float = Field(300.0, gt=0, description="How long one answer may take.")
    elsewhere: bool = Field(False, description="Whether the pictures may leave this machine.")
    batch: int = Field(1, ge=1, description="Pictures between two saves.")

    @model_validator(mode="after")
    def _stays_here(self) -> Self:
        if not self.model.strip():
            raise ValueError("no model is named: give the one that the server has with --model NAME")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f'url "{self.url}" is no address: write it as http://127.0.0.1:11434/v1')
        if not self.elsewhere and not is_here(parts.hostname):
            raise ValueError(f"{parts.hostname} is not this machine, and your pictures would go there. If that is meant: --set elsewhere=true")
        return self

    def open(self, device: str, rows: Sequence[Row]) -> ServerWriter:
        """Opens nothing yet: the first picture shows whether somebody answers."""
        return ServerWriter(self)


def is_here(host: str) -> bool:
    """Whether a host is this machine by its name or number; no name is looked up."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ServerWriter:
    """Asks for one picture after another."""

    looks = True

    def __init__(self, spec: Server) -> None:
        self.spec, self.batch = spec, spec.batch
        direct = urllib.request.ProxyHandler({})  # what is on this machine is not asked for by way of a proxy
        self.opener = urllib.request.build_opener() if spec.elsewhere else urllib.request.build_opener(direct)

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        """Raises ModelError where nobody answers or the model is unknown, DatasetError where a picture is refused."""
        return [self._answer(exhibit) for exhibit in exhibits]

    def _answer(self, exhibit: Exhibit) -> str:
        spec = self.spec
        content = [{"type": "text", "text": spec.prompt}, {"type": "image_url", "image_url": {"url": data_url(exhibit.seen, spec.side)}}]
        asked = {"model": spec.model, "messages": [{"role": "user", "content": content}], "max_tokens": spec.longest, "temperature": 0, "seed": 0}
        request = urllib.request.Request(
            f"{spec.url.rstrip('/')}/chat/completions", json.dumps(asked).encode(), {"Content-Type": "application/json"}, method="POST"
        )
        try:
            with self.opener.open(request, timeout=spec.seconds) as reply:
                return unquoted(str(json.load(reply)["choices"][0]["message"]["content"] or ""))
        except urllib.error.HTTPError as error:
            raise _refusal(error, exhibit.row.file, spec) from None
        except TimeoutError:
            raise DatasetError(f"{exhibit.row.file}: no answer within {spec.seconds:g} seconds. Give it longer with --set seconds=...") from None
        except (urllib.error.URLError, ConnectionError, http.client.HTTPException) as error:
            raise ModelError(f"{spec.url}: nobody answers there ({_reason(error)}). Start the server, or name its address with --set url=...") from None
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ModelError(
                f"{spec.url}: does not answer as OpenAI's chat completions do ({type(error).__name__}: {error}). Is it the address up to /v1?"
            ) from None


def _refusal(error: urllib.error.HTTPError, file: str, spec: Server) -> Exception:
    """Who is to blame for a status: an unknown model or address is everybody's, the rest this picture's."""
    said = " ".join(error.read(400).decode(errors="replace").split())
    if error.code in (401, 403, 404, 405):
        return ModelError(f'{spec.url}: answers {error.code} for the model "{spec.model}": {said}')
    return DatasetError(f"{file}: the server answers {error.code}: {said}")


def _reason(error: Exception) -> Any:
    return getattr(error, "reason", None) or type(error).__name__


def data_url(picture: Image.Image, side: int) -> str:
    """The picture as a JPEG of at most `side` pixels a side, inside an address."""
    small = picture.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=95)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
