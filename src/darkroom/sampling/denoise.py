"""THE sampling loop, and the predictions that go into it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from darkroom.sampling.guide import Guide
from darkroom.sdxl.conditioning import Conditioning
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.text import Text

Predict = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""x (B, 4, h, w) as the sampler scaled it, timestep, index of the step -> the model's prediction (B, 4, h, w)."""
Hold = Callable[[torch.Tensor, int], torch.Tensor]
Peek = Callable[[Any, torch.Tensor, int], None]


def denoise(predict: Predict, sampler: Any, x: torch.Tensor, timesteps: torch.Tensor | None = None, hold: Hold | None = None,
            chance: Callable[[int], Any] | None = None, first: int = 0, peek: Peek | None = None) -> torch.Tensor:  # fmt: skip
    """From noise x (B, 4, h, w), already at the sampler's first sigma, to latents.

    `timesteps` is the part of the schedule to walk (None: all of it) and `first` the index of its first step. `hold` may put parts back
    after each step (inpainting). `chance` gives the generators of a step for samplers that draw noise. `peek` is shown what each step gave.
    """
    walked = sampler.timesteps if timesteps is None else timesteps
    draws = chance is not None and "generator" in inspect.signature(sampler.step).parameters
    for index, t in enumerate(walked):
        noise = predict(sampler.scale_model_input(x, t), t, first + index // sampler.order)
        stepped = sampler.step(noise, t, x, **({"generator": chance(index)} if draws and chance else {}))
        x = stepped.prev_sample
        x = x if hold is None else hold(x, index)
        if peek is not None:
            peek(stepped, x, index)
    return x


@dataclass(frozen=True)
class Guided:
    """The prediction under classifier-free guidance: u + g sum_i w_i (c_i - u) (Ho and Salimans 2022, eq. 6; several c_i: Liu et al. 2022, eq. 11).

    `ids` (1, 6 or 5) are the size ids of what is wanted, `unwanted_ids` of what is not. g <= 1 leaves u out. All rows go as one batch, unless
    the two sides wear different adapters: then `turn` is called with "unconditional" and "conditional". `beside` (1, 5, h, w) are channels that
    an inpainting U-Net reads beside the latents.
    """

    model: SDXL
    wanted: Conditioning
    unwanted: Conditioning
    ids: torch.Tensor
    unwanted_ids: torch.Tensor
    guidance: float
    rescale: float = 0.0
    guide: Guide = field(default_factory=Guide)
    turn: Callable[[str], None] | None = None
    beside: torch.Tensor | None = None

    def __call__(self, x: torch.Tensor, t: torch.Tensor, step: int) -> torch.Tensor:
        wanted = self.wanted.at(step)
        texts, weights = [text for _, text in wanted], [weight for weight, _ in wanted]
        if self.guidance <= 1 and len(texts) == 1:
            return self._rows(x, t, step, texts, [self.ids])[0]
        (_, unwanted), *more = self.unwanted.at(step)
        assert not more
        ids = [self.ids] * len(texts)
        if self.turn is not None:
            self.turn("unconditional")
            without = self._rows(x, t, step, [unwanted], [self.unwanted_ids])[0]
            self.turn("conditional")
            each = self._rows(x, t, step, texts, ids)
        else:
            without, *each = self._rows(x, t, step, [unwanted, *texts], [self.unwanted_ids, *ids])
        return self._combine(without, each, weights)

    def _combine(self, without: torch.Tensor, each: Sequence[torch.Tensor], weights: Sequence[float]) -> torch.Tensor:
        if len(each) == 1 and weights[0] == 1:
            out = without + self.guidance * (each[0] - without)
        else:
            out = without + self.guidance * sum((w * (c - without) for w, c in zip(weights, each, strict=True)), torch.zeros_like(without))
        return rescaled(out, each[0], self.rescale) if self.rescale > 0 else out

    def _rows(self, x: torch.Tensor, t: torch.Tensor, step: int, texts: Sequence[Text], ids: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """One prediction (B, 4, h, w) for each text, all of them as one batch."""
        count, model = x.shape[0], self.model
        text = Text.stack([repeat(text, count) for text in texts])
        rows = torch.cat([row.expand(count, -1) for row in ids])
        extra = {"text_embeds": text.pooled, "time_ids": rows.to(model.device, text.pooled.dtype)}
        inputs = torch.cat([x] * len(texts)).to(model.dtype)
        control = self.guide(inputs, t, step, text.states, extra)
        if self.beside is not None:
            inputs = torch.cat([inputs, self.beside.to(inputs).expand(len(inputs), -1, -1, -1)], dim=1)
        out: torch.Tensor = model.unet(inputs, t, text.states, added_cond_kwargs=extra, return_dict=False, **control)[0]
        return list(out.chunk(len(texts)))


def rescaled(guided: torch.Tensor, plain: torch.Tensor, amount: float) -> torch.Tensor:
    """`guided` with `plain`'s standard deviation, mixed in by `amount` (Lin et al. 2023, eq. 15 and 16)."""
    spread = plain.std(dim=list(range(1, plain.ndim)), keepdim=True) / guided.std(dim=list(range(1, guided.ndim)), keepdim=True)
    return amount * (guided * spread) + (1 - amount) * guided


def repeat(text: Text, count: int) -> Text:
    """The same text for `count` pictures."""
    return text if count == 1 else Text(text.states.repeat(count, 1, 1), text.pooled.repeat(count, 1))


def size_ids(rows: Sequence[Sequence[float]]) -> torch.Tensor:
    """(B, 6) float32: original height, width, crop top, left, target height, width (Podell et al. 2023, section 2.2).

    A refiner's are (B, 5): original height, width, crop top, left, aesthetic score.
    """
    return torch.tensor(rows, dtype=torch.float32)
