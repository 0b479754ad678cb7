"""The loop. What a step does is a pure function of (recipe, pictures, model, step, weights): that is why a resume is exact."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from darkroom.errors import RecipeError, RunError
from darkroom.methods.attached import Attached
from darkroom.methods.sharded import Rows, Sharded
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.schedule import Schedule
from darkroom.train.crew import Crew
from darkroom.train.feed import Feed, Shown
from darkroom.train.fused import OneByOne, clip_each
from darkroom.train.health import Vitals
from darkroom.train.noise import Draws, draw_batch
from darkroom.train.objective import Batch
from darkroom.train.optimizers.state import effective_rate, load_into, set_rates, state_of
from darkroom.train.preflight import Plan
from darkroom.train.recipe import Recipe
from darkroom.train.sharding import clip_rows, starts_of


class Trainer:
    """Holds what a step needs; `step(n)` takes it. State in, state out: `state` and `load_state`."""

    def __init__(self, recipe: Recipe, plan: Plan, model: SDXL, attached: Attached, crew: Crew | None = None) -> None:
        self.recipe, self.plan, self.model, self.attached, self.crew = recipe, plan, model, attached, crew or Crew()
        self.feed = Feed(recipe, plan, model, attached)
        attached.expect(plan.steps, recipe.train.accumulate)
        self.schedule = recipe.objective.schedule(Schedule.from_config(model.scheduler_config))
        self.optimizer = recipe.optimizer.build(attached.groups(recipe.optimizer.rate))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        self.vitals = Vitals(recipe.health, recipe.optimizer.rate, self.crew.add_up if attached.split else None)
        self.vitals.begin(self.parameters)
        half = torch.float16 if model.dtype == torch.float16 else None
        self.scaler = torch.amp.GradScaler(model.device.type, enabled=half is not None)
        each = recipe.train.max_grad_norm if recipe.train.clip == "each" else 0.0
        self.one_by_one = OneByOne(self.optimizer, recipe.train.seed, each, starts_of(attached))
        self.rounds = any(parameter.dtype == torch.bfloat16 for parameter in self.parameters)
        if recipe.train.fused and (half or self.crew.size > 1):
            why = "in fp16 all gradients are needed to find out which overflowed" if half else "several processes add their gradients up first"
            raise RecipeError(f"train.fused = true steps each tensor within the backward pass, and {why}. Set train.fused = false.")

    def predict(self, noisy: torch.Tensor, t: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The U-Net on a noisy batch."""
        added = {"text_embeds": batch.text.pooled, "time_ids": batch.ids}
        with self._autocast():
            x, t = noisy.to(self.model.dtype), t.to(noisy.device)
            extra = self.attached.extra(x, t, batch.text, batch.ids, batch.condition)
            out: torch.Tensor = self.attached.learning(self.model).unet(x, t, batch.text.states, added_cond_kwargs=added, return_dict=False, **extra)[0]
        return out

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.model.dtype == torch.float32:
            return contextlib.nullcontext()
        # each weight is used once in a pass: autocast's cache would only keep a second copy of all that learn until the pass ends (5 GiB of a whole SDXL)
        return torch.autocast(self.model.device.type, self.model.dtype, cache_enabled=False)

    def step(self, number: int) -> dict[str, float]:
        """Optimizer step `number`, counted from 0. Raises RunError where it cannot be learning (`health.Vitals`)."""
        accumulate = self.recipe.train.accumulate
        self.optimizer.zero_grad(set_to_none=True)
        set_rates(self.optimizer, self.rates, self.recipe.optimizer.factor(number, self.plan.steps))
        fused = self.recipe.train.fused
        with self.one_by_one.within(number) if fused else contextlib.nullcontext():
            losses = [self._learn(number * accumulate + part) for part in range(accumulate)]
        loss = self._shared(sum(losses, torch.zeros((), device=self.model.device)))
        norm = self.one_by_one.norm() if fused else self._clipped()
        if self.vitals.may_step(number, loss, norm, self.scaler.is_enabled()) and not fused:
            self._move(number)
        self.scaler.update()
        self.attached.prepare(None)
        self.attached.after_step()
        self.vitals.after(number, self.plan.steps, self.parameters)
        return {"loss": loss, "grad_norm": norm, "rate": effective_rate(self.optimizer)}

    def _clipped(self) -> float:
        """Scale the gradients down, or none; their norm before."""
        self.scaler.unscale_(self.optimizer)
        most, each = self.recipe.train.max_grad_norm, self.recipe.train.clip == "each"
        if self.attached.split:
            return clip_rows(self.parameters, most, each, self.crew)
        if each:
            return clip_each(self.parameters, most)
        return float(torch.nn.utils.clip_grad_norm_(self.parameters, most or math.inf))

    def _move(self, number: int) -> None:
        """Change the weights by their gradients."""
        if self.rounds:
            self.one_by_one.after(number)
        else:
            self.scaler.step(self.optimizer)

    def _learn(self, index: int) -> torch.Tensor:
        """Add the gradients of this process's share of batch `index`; its part of the batch's loss, ()."""
        self.attached.prepare(index)
        shown = self.feed.shown(index)
        mine, counted = self.crew.share(shown), 1
        if not mine and self.attached.split:
            mine, counted = shown[:1], 0  # weights are gathered from all, and by all
        if not mine:
            return torch.zeros((), device=self.model.device)
        batch = self.feed.assembled(mine, self.recipe.train.seed, index)
        losses = self.recipe.objective.losses(self.predict, self.schedule, batch, *self._draw(index, mine, batch.latents))
        # a mean over the subject's pictures, to which those of the class are added: diffusers' loss of prior preservation
        loss = losses.mean() * (counted * len(mine) / sum(not each.prior for each in shown)) / self.recipe.train.accumulate
        self.attached.backward(self.scaler.scale(loss))
        return loss.detach()

    def _shared(self, loss: torch.Tensor) -> float:
        """The loss of the whole batch; every process then has the gradients of the whole batch too."""
        if self.attached.split:
            self.crew.add_up([loss])
            self.attached.collect()
        elif self.crew.size > 1:
            for parameter in self.parameters:
                if parameter.grad is None and parameter.requires_grad:  # a frozen word keeps none, and is left out by the optimizer
                    parameter.grad = torch.zeros_like(parameter)
            self.crew.add_up([loss, *[parameter.grad for parameter in self.parameters if parameter.grad is not None]])
        return float(loss)

    def _draw(self, index: int, shown: Sequence[Shown], latents: torch.Tensor) -> Draws:
        """Noise (B, 4, h, w) and timesteps (B,) of pictures of batch `index`: each picture's own draw."""
        return draw_batch(self.recipe.objective, self.recipe.train.seed, index, [each.photo.sample for each in shown], latents)

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Everything a resume needs: weights, and the optimizer's numbers as tensors (never a pickle). Rows know the whole they belong to."""
        tensors = {f"weights.{name}": tensor.contiguous() for name, tensor in self.attached.state().items()}
        kept, facts = state_of(self.optimizer, copied=not self.attached.split)
        tensors |= {name: self._laid(name, tensor) for name, tensor in ((f"optimizer.{name}", tensor) for name, tensor in kept.items())}
        return tensors, {"scaler": self.scaler.state_dict(), "optimizer": facts, "health": self.vitals.state()}

    def rows_of(self, name: str) -> Rows | None:
        """Whose rows a tensor of `state` may be: "weights.unet.conv_in.weight", "optimizer.3.exp_avg"."""
        if not isinstance(self.attached, Sharded):
            return None
        kind, _, rest = name.partition(".")
        if kind == "weights":
            return self.attached.named.get(rest.removeprefix("ema."))
        index = rest.partition(".")[0]
        return self.attached.rows[self.parameters[int(index)]] if index.isdigit() else None

    def _laid(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        rows = self.rows_of(name)
        return rows.lay(tensor) if rows is not None and tensor.shape == rows.parameter.shape else tensor

    def _taken(self, name: str, tensor: torch.Tensor) -> torch.Tensor:
        rows = self.rows_of(name)
        return rows.taken(tensor) if rows is not None and tensor.shape[1:] == rows.shape[1:] and tensor.dim() else tensor

    def load_state(self, tensors: dict[str, torch.Tensor], facts: dict[str, Any]) -> None:
        """Put back what `state` gave, or `parted.read_rows` read of it. Raises RunError where it belongs to another recipe."""
        tensors = {name: self._taken(name, tensor) for name, tensor in tensors.items()}
        weights = {name.removeprefix("weights."): tensor for name, tensor in tensors.items() if name.startswith("weights.")}
        if self.attached.shapes() != {name: tensor.shape for name, tensor in weights.items()}:
            raise RunError("the checkpoint belongs to another recipe or base: its tensors are not this method's. Start a new run.")
        self.attached.load_state(weights)
        optimizer = {name.removeprefix("optimizer."): tensor for name, tensor in tensors.items() if name.startswith("optimizer.")}
        load_into(self.optimizer, optimizer, facts["optimizer"])
        self.scaler.load_state_dict(facts.get("scaler", {}))
        self.vitals.load_state(facts.get("health", {}))
        self.vitals.begin(self.parameters)


@contextlib.contextmanager
def checkpointing(recipe: Recipe, model: SDXL, own: Sequence[Any] = ()) -> Iterator[None]:
    """Within the block activations are computed twice instead of kept, where the recipe asks for it; afterwards the model is as it was.

    The model outlives the run (`open_base` keeps it): what a run turns on it must turn off. `own` are networks of the method's own.
    """
    encoders: list[Any] = [model.text_encoder, model.text_encoder_2] if recipe.method.trains_text else []
    asked = recipe.train.gradient_checkpointing
    encoders = [encoder for encoder in encoders if encoder is not None and asked]
    try:
        if asked:
            for network in (model.unet, *own):
                network.enable_gradient_checkpointing()
        for encoder in encoders:
            encoder.train().gradient_checkpointing_enable()  # transformers checkpoints in training mode only; CLIP has no dropout
        yield
    finally:
        if asked:
            for network in (model.unet, *own):
                network.disable_gradient_checkpointing()
        for encoder in encoders:
            encoder.eval().gradient_checkpointing_disable()


def fit(trainer: Trainer, start: int, stop: int) -> Iterator[tuple[int, dict[str, float]]]:
    """Take steps start..stop-1; after each yield the number of steps done and its figures, seconds included."""
    for number in range(start, stop):
        began = time.perf_counter()
        figures = trainer.step(number)
        yield number + 1, figures | {"seconds": time.perf_counter() - began}
