"""Open models by name, once, and keep open what the next picture wants too."""

from __future__ import annotations

import functools
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from darkroom import pocket
from darkroom.device import Precision, pick_device, pick_dtype
from darkroom.errors import AdapterError, ModelError
from darkroom.places import at_hand
from darkroom.sampling.request import Request

if TYPE_CHECKING:
    from darkroom.sampling.draw import Kit
    from darkroom.sampling.memory import Memory
    from darkroom.sdxl.model import SDXL


def open_base(base: str, device: str = "auto", precision: Precision = "auto", config: str = "", memory: Memory = "full") -> SDXL:
    """The model, kept while the next job wants the same one. Raises ModelError."""
    return _base(base, device, precision, config, memory)


@functools.lru_cache(maxsize=1)  # of a function without defaults: the cache takes f(x) and f(x, default) for two things
def _base(base: str, device: str, precision: Precision, config: str, memory: Memory) -> SDXL:
    from darkroom.sdxl.model import load

    chosen = pick_device(device)
    model = load(pocket.resolve(at_hand(base)), _host(chosen, memory), pick_dtype(precision, chosen), Path(at_hand(config)) if config else None)
    model.source, model.device = base, chosen
    return model


def open_refiner(refiner: str, base: str, device: str = "auto", precision: Precision = "auto", memory: Memory = "full") -> SDXL:
    """A refiner beside its base, with which it shares the parts that are the same. Raises ModelError."""
    return _refiner(refiner, base, device, precision, memory)


@functools.lru_cache(maxsize=1)
def _refiner(refiner: str, base: str, device: str, precision: Precision, memory: Memory) -> SDXL:
    from darkroom.sdxl.model import load

    beside = open_base(base, device, precision, memory=memory)
    model = load(pocket.resolve(at_hand(refiner)), _host(beside.device, memory), beside.dtype, share=beside)
    model.source, model.device = refiner, beside.device
    if model.pixel_factor != beside.pixel_factor:
        raise ModelError(f"{refiner}: has {model.pixel_factor} pixels a latent and {base} has {beside.pixel_factor}: they cannot work on one picture.")
    return model


def _host(device: Any, memory: Memory) -> Any:
    import torch

    return device if memory == "full" else torch.device("cpu")


class Easel:
    """What the last request wanted stays open while the next one wants it too. A context: adapters are taken off at its end."""

    def __init__(self, device: str = "auto", precision: Precision = "auto", memory: Memory = "full") -> None:
        self.device, self.precision, self.memory = device, precision, memory
        self._stack = ExitStack()
        self._wants: Any = None
        self._kit: Kit | None = None
        self._filled: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def kit(self, request: Request) -> tuple[Kit, Request]:
        """Everything open for the request, and the request completed. Raises a DarkroomError."""
        from darkroom.sampling.draw import complete

        wants = (request.base, request.adapters, request.embeddings, request.refiner and request.refiner.model, tuple(c.model for c in request.controls))
        if wants != self._wants or self._kit is None:
            self._stack.close()
            self._wants, self._kit = None, None
            self._kit, self._filled = self._open(request)
            self._wants = wants
        whole = complete(self._kit.model, request)
        whole = whole.model_copy(update=self._updates(whole))
        if request.base_sha256 and whole.base_sha256 != request.base_sha256:
            raise ModelError(f"{request.base}: is not the model that was used then (its weights changed). Give the old one with --base.")
        return self._kit, whole

    def _updates(self, request: Request) -> dict[str, Any]:
        """The hashes of what was opened."""
        found = {key: value for key, value in self._filled.items() if key in ("adapters", "embeddings")}
        if request.refiner is not None:
            found["refiner"] = request.refiner.model_copy(update={"sha256": self._filled["refiner"]})
        pairs = zip(request.controls, self._filled["controls"], strict=True)
        return found | {"controls": tuple(control.model_copy(update={"model_sha256": digest}) for control, digest in pairs)}

    def _open(self, request: Request) -> tuple[Kit, dict[str, Any]]:
        from darkroom.methods.stack import Wear, worn
        from darkroom.sampling.draw import Kit
        from darkroom.sampling.memory import lean
        from darkroom.sdxl.controlnet import load_control
        from darkroom.sdxl.formats import read_adapter
        from darkroom.sdxl.inversion import read_embedding, read_embeddings

        model = open_base(request.base, self.device, self.precision, memory=self.memory)
        if model.text_encoder is None:
            raise ModelError(f"{request.base}: is a refiner, which draws over what a base has begun. Give a base with --base, and this one with --refiner.")
        files = [_unchanged(read_adapter(Path(w.file), model), w.sha256) for w in request.adapters]
        words = [_unchanged(read_embedding(Path(w.file), model), w.sha256) for w in request.embeddings]
        bundled = [word for file in files if file.embeddings for word in read_embeddings(file.path, model)]
        refiner = None
        if request.refiner is not None:
            refiner = open_refiner(request.refiner.model, request.base, self.device, self.precision, self.memory)
            _same_model(request.refiner.model, refiner.hash, request.refiner.sha256)
        networks = [load_control(c.model, model) for c in request.controls]
        for control, (_, digest) in zip(request.controls, networks, strict=True):
            _same_model(control.model, digest, control.model_sha256)
        wears = [Wear(file, w.weight, w.text_weight, w.branch) for file, w in zip(files, request.adapters, strict=True)]
        wearing = self._stack.enter_context(worn(model, wears))
        open_ = tuple(network for network, _ in networks)
        self._stack.enter_context(lean([model, *([refiner] if refiner else [])], open_, self.memory))
        kit = Kit(model, refiner, open_, (*words, *bundled), wearing.turn, wearing.splits)
        return kit, {
            "adapters": tuple(w.model_copy(update={"sha256": f.sha256, "short": f.short}) for w, f in zip(request.adapters, files, strict=True)),
            "embeddings": tuple(w.model_copy(update={"sha256": f.sha256, "name": f.name}) for w, f in zip(request.embeddings, words, strict=True)),
            "refiner": refiner.hash if refiner else "",
            "controls": [digest for _, digest in networks],
        }


def _unchanged(found: Any, then: str) -> Any:
    if then and then != found.sha256:
        raise AdapterError(f"{found.path}: is not the file that was used then (its content changed). Put the old one back.")
    return found


def _same_model(name: str, now: str, then: str) -> None:
    if then and now and then != now:
        raise ModelError(f"{name}: is not the model that was used then (its weights changed). Put the old one back.")
