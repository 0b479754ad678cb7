"""Arms that share the beginning of their work share it: the states of the last walks, to go on from where two requests part."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from darkroom.prompt import read
from darkroom.sampling.denoise import Predict, denoise
from darkroom.sampling.request import Request

AFTER_BASE = ("refiner", "upscale", "feather", "tiling", "seed")  # what the base's walk does not depend on
BY_STEP = ("prompt", "negative")  # and what it depends on step by step


@dataclass
class Memo:
    """The walks of the last few requests. A state is some latents and a sampler: 0.3 MB a step for a picture of 1024 pixels."""

    size: int = 4
    walks: OrderedDict[Any, list[tuple[Any, torch.Tensor, Any]]] = field(default_factory=OrderedDict)
    reused: int = 0
    """Steps that were not drawn again."""

    def bind(self, request: Request, seeds: Sequence[int], length: int) -> Callable[..., torch.Tensor]:
        """`denoise` for this request, with its memory. `length` is the number of tokens that its texts are padded to."""
        key = (request.model_copy(update={"prompt": "", "negative": None}).model_dump_json(exclude=set(AFTER_BASE)), tuple(seeds), length)
        said = spoken(request)

        def walk(predict: Predict, sampler: Any, x: torch.Tensor, timesteps: torch.Tensor, hold: Any, chance: Any, first: int, peek: Any) -> torch.Tensor:
            known = self.walks.setdefault(key, [])
            self.walks.move_to_end(key)
            while len(self.walks) > self.size:
                self.walks.popitem(last=False)
            signs = [(float(t), said(first + index // sampler.order)) for index, t in enumerate(timesteps)]
            begun = 0
            while begun < min(len(known), len(signs)) and known[begun][0] == signs[begun]:
                begun += 1
            if begun < len(signs):
                del known[begun:]
            if begun:
                _, x, before = known[begun - 1]
                sampler.__dict__.update(copy.deepcopy(before.__dict__))
            self.reused += begun
            for index in range(begun, len(timesteps)):
                step = timesteps[index : index + 1]
                x = denoise(predict, sampler, x, step, None, _later(chance, index), first + index // sampler.order, _at(peek, index))
                known.append((signs[index], x, copy.deepcopy(sampler)))
            return x

        return walk


def _later(chance: Any, index: int) -> Any:
    return None if chance is None else lambda _: chance(index)


def _at(peek: Any, index: int) -> Any:
    return None if peek is None else lambda stepped, x, _: peek(stepped, x, index)


def spoken(request: Request) -> Callable[[int], Any]:
    """What the prompts say in a step, as something that can be compared."""
    stages = [read(text or "", request.language).timeline(request.walked) for text in (request.prompt, request.negative)]

    def at(step: int) -> Any:
        said = [next(subs for begin, subs in reversed(stage) if begin <= step) for stage in stages]
        return (*said, request.negative is None)

    return at
