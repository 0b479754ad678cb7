"""Seen once is enough: features of pictures by what is in them, so that five metrics look through one network once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

KEPT = 4096


class Memory(Protocol):
    """Bytes by key. What was given to `put` may be forgotten; it never comes back changed."""

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        ...

    def put(self, found: Mapping[str, bytes]) -> None:
        """Remember all of it, or nothing where the process is killed meanwhile."""
        ...


class Recent:
    """The last few thousand, in this process."""

    def __init__(self, kept: int = KEPT) -> None:
        self.kept, self.found = kept, OrderedDict[str, bytes]()

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        return self.found.get(key)

    def put(self, found: Mapping[str, bytes]) -> None:
        """Remember it; the oldest is forgotten."""
        self.found.update(found)
        while len(self.found) > self.kept:
            self.found.popitem(last=False)


class Notes:
    """What is known to one piece of work: features that were known when it began, and those that it makes. Nothing that others find out meanwhile.

    The last bits of a feature depend on how many pictures were seen at once, hence on which of them were known: with these notes that depends on no timing.
    """

    def __init__(self, known: Mapping[str, bytes] | None = None, behind: Memory | None = None) -> None:
        self.known = dict(known or {})
        """For every piece of work: what metrics learned when they were opened."""
        self.behind = behind
        """Where a piece of work that has not begun looks further, and writes: until `begin`."""
        self.given: Mapping[str, bytes] = {}
        self.new: dict[str, bytes] = {}
        self.asked: dict[str, None] = {}
        """The keys that were asked for, in order."""

    def begin(self, given: Mapping[str, bytes]) -> None:
        """The next piece of work, which is given this to know. What was found before the first one is known to all."""
        if self.behind is not None:
            self.known |= self.new
            self.behind.put(self.new)
            self.behind = None
        self.given, self.new, self.asked = given, {}, {}

    def get(self, key: str) -> bytes | None:
        """What is known, or None."""
        self.asked[key] = None
        for known in (self.new, self.known, self.given):
            if key in known:
                return known[key]
        if self.behind is not None and (found := self.behind.get(key)) is not None:
            self.known[key] = found
            return found
        return None

    def put(self, found: Mapping[str, bytes]) -> None:
        """Known from here on to this piece of work."""
        self.new.update(found)


def recall(memory: Memory, network: str, pictures: Sequence[Image.Image], look: Callable[[list[Image.Image]], torch.Tensor], batch: int = 32) -> torch.Tensor:
    """(N, D) float32 features: those in memory, and of the others `look`'s, asked in batches. `pictures` are read by slices, so that they may lie on a disk."""
    rows: list[npt.NDArray[np.float32]] = []
    for part in slices(pictures, batch):
        keys = [feature_key(network, pixels_key(picture)) for picture in part]
        known = {key: memory.get(key) for key in keys}
        new = {key: picture for key, picture in zip(keys, part, strict=True) if known[key] is None}
        if new:
            seen = look(list(new.values())).float().cpu().numpy()
            fresh = {key: row.astype("<f4").tobytes() for key, row in zip(new, seen, strict=True)}
            memory.put(fresh)
            known |= fresh
        rows += [np.frombuffer(known[key] or b"", "<f4") for key in keys]
    return torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, 0)


def feature_key(network: str, pixels: str) -> str:
    """The name of what a network sees in a picture; it ends in the picture's `pixels_key`."""
    return f"{network} {pixels}"


def slices(pictures: Sequence[Image.Image], batch: int) -> Iterator[Sequence[Image.Image]]:
    """The pictures, so many at a time."""
    for start in range(0, len(pictures), batch):
        yield pictures[start : start + batch]


def pixels_key(picture: Image.Image) -> str:
    """A hash of what is seen: the size and every pixel; not the file, its format or what else it carries."""
    rgb = picture.convert("RGB")
    return hashlib.sha256(f"{rgb.width} {rgb.height}\0".encode() + rgb.tobytes()).hexdigest()


def weights_key(model: torch.nn.Module) -> str:
    """A hash over every tensor of a model, its name, type and device: what comes out of it depends on nothing else but what goes in."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.device.type}\0".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def stamp(*parts: object) -> str:
    """One hash over parts by their text, in their order."""
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).hexdigest()
