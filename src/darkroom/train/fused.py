"""An optimizer's step, one tensor at a time: inside the backward pass, so that gradients are never all held, or after it, for weights in bf16.

The optimizer is the recipe's own, which sees one parameter at a time; so its state, and what a checkpoint keeps of it, are those of a step over all at once.
The way: torch's tutorial "How to save memory by fusing the optimizer step into the backward pass"; sd-scripts' --fused_backward_pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.values import seed_for

WORD = 0xFFFFFFFF


class OneByOne:
    """Takes the steps of an optimizer whose groups keep nothing that is summed up over several parameters (`rules.ALONE`)."""

    def __init__(self, optimizer: torch.optim.Optimizer, seed: int, most: float = 0.0, starts: Mapping[nn.Parameter, int] | None = None) -> None:
        """`most` is the norm that each gradient is scaled down to, 0: none. `seed` is for rounding. `starts`: of rows of a tensor, where in it they begin."""
        self.optimizer, self.seed, self.most, self.number = optimizer, seed, most, 0
        self.starts = starts or {}
        self._places: dict[nn.Parameter, tuple[int, int]] = {}
        for group, members in enumerate(optimizer.param_groups):
            for parameter in members["params"]:
                self._places[parameter] = group, len(self._places)
        self._norms: dict[int, Tensor] = {}
        self._changed: dict[int, dict[str, Any]] = {}

    @contextlib.contextmanager
    def within(self, number: int) -> Iterator[None]:
        """Within the block, which is step `number`, a backward pass steps every parameter as soon as its gradient is whole, and drops the gradient."""
        self._begin(number)
        hooks: list[Any] = [parameter.register_post_accumulate_grad_hook(self._clip_and_step) for parameter in self._places]  # type: ignore[no-untyped-call]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()
        self._end()

    def after(self, number: int) -> None:
        """Step `number` over gradients that are there, and clipped where they should be."""
        self._begin(number)
        for parameter in self._places:
            if parameter.grad is not None:
                self._step(parameter)
        self._end()

    def norm(self) -> float:
        """The norm of all gradients of the last step together, before any was scaled down."""
        norms = [self._norms[index] for index in sorted(self._norms)]
        return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0

    def _begin(self, number: int) -> None:
        self.number = number
        self._norms.clear()
        self._changed.clear()

    def _end(self) -> None:
        """What an optimizer counts in its groups has gone on once, however many parameters saw it."""
        for group, entries in self._changed.items():
            self.optimizer.param_groups[group].update(entries)

    def _clip_and_step(self, parameter: nn.Parameter) -> None:
        self._norms[self._places[parameter][1]] = clip(parameter, self.most)
        self._step(parameter)

    @torch.no_grad()
    def _step(self, parameter: nn.Parameter) -> None:
        group, index = self._places[parameter]
        if parameter.dtype == torch.bfloat16:
            self._rounded(parameter, group, index)
        else:
            self._alone(parameter, group)
        parameter.grad = None

    def _alone(self, parameter: nn.Parameter, group: int) -> None:
        groups = self.optimizer.param_groups
        alone = groups[group] | {"params": [parameter]}
        self.optimizer.param_groups = [alone]
        try:
            self.optimizer.step()
        finally:
            self.optimizer.param_groups = groups
        self._changed[group] = {key: value for key, value in alone.items() if key != "params"}

    def _rounded(self, parameter: nn.Parameter, group: int, index: int) -> None:
        """The step in float32 from a bf16 weight, and back by chance: a function of (seed, step, parameter)."""
        held, gradient = parameter.data, parameter.grad
        assert gradient is not None
        parameter.grad = None
        parameter.data = held.float()
        parameter.grad = gradient.float()
        try:
            self._alone(parameter, group)
        finally:
            stepped, parameter.grad = parameter.data, None
            parameter.data = held
        held.copy_(by_chance(stepped, seed_for(self.seed, "rounding", self.number, index), self.starts.get(parameter, 0)))


def clip(parameter: nn.Parameter, most: float) -> Tensor:
    """The norm () of a parameter's gradient, float32; the gradient itself is scaled down to the norm `most` (0: it stays), as torch's clip_grad_norm_ does."""
    assert parameter.grad is not None
    norm: Tensor = torch.linalg.vector_norm(parameter.grad, dtype=torch.float32)
    if most:
        parameter.grad.mul_((most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def clip_each(parameters: Sequence[nn.Parameter], most: float) -> float:
    """Scale each gradient down to the norm `most`; the norm of all together before."""
    norms = [clip(parameter, most) for parameter in parameters if parameter.grad is not None]
    return float(torch.linalg.vector_norm(torch.stack(norms))) if norms else 0.0


def by_chance(value: Tensor, seed: int, start: int = 0) -> Tensor:
    """float32 as bfloat16, rounded up or down by chance in proportion to how near each is, so that the mean is kept (Gupta et al. 2015, section 3.1).

    The draws are those of places `start` and following.
    Of the 32 bits bfloat16 keeps the first 16: a draw of 16 bits is added to the last 16, which are then dropped.
    """
    bits = value.contiguous().view(torch.int32) + draws(value.numel(), seed, value.device, start).view(value.shape)
    return (bits & ~0xFFFF).view(torch.float32).to(torch.bfloat16)


def draws(count: int, seed: int, device: torch.device, start: int = 0) -> Tensor:
    """`count` draws from 0 to 65535, int32, the same on every device: two rounds of a hash of 32 bits over the place, one for each half of the seed.

    Thousands of millions are wanted at every step, which is why they do not come from the CPU's generator as all other draws do.
    """
    found = torch.arange(start, start + count, dtype=torch.int32, device=device)
    for word in (seed & WORD, seed >> 32 & WORD):
        found = _mixed(found ^ _signed(word))
    return found & 0xFFFF


def _mixed(x: Tensor) -> Tensor:
    """lowbias32 (Wellons 2018, "Prospecting for hash functions"), of int32 as if it had no sign; it works in place."""
    x ^= (x >> 16) & 0xFFFF
    x *= _signed(0x7FEB352D)
    x ^= (x >> 15) & 0x1FFFF
    x *= _signed(0x846CA68B)
    x ^= (x >> 16) & 0xFFFF
    return x


def _signed(word: int) -> int:
    """32 bits as the int32 that has them."""
    return word - (1 << 32) if word >> 31 else word
