"""Blocks of the U-Net that wait in host memory and come to the device when their turn comes, forwards and backwards; and parts that come for a while.

diffusers' group offloading was weighed first, and is for drawing alone: it has hooks for the forward pass only. `linear` keeps a view of its weight for the
backward pass, so that a block that was sent away stays on the device all the same, and a convolution keeps the parameter itself, whose data by then lie in
host memory. Here autograd keeps neither (`sdxl.quantised.lend`): the backward pass brings the block again. What is computed is the same to the last bit.

Two blocks are on the device at a time, the one whose turn it is and the one that comes next; with gradient checkpointing a third, while autograd needs it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import accumulate, zip_longest
from typing import Any

import torch
from torch import Tensor, nn

from darkroom.errors import RecipeError
from darkroom.sdxl.model import SDXL
from darkroom.sdxl.quantised import Rounded, Scheme, lend, quantised, remembering

ALIGNED = 256
"""Bytes that a tensor begins at a multiple of, as CUDA's own allocations do."""


def blocks(unet: Any) -> list[tuple[str, nn.Module]]:
    """ResNets, transformer blocks and samplers of a U-Net in the order in which it runs them: (path, module)."""
    found: list[nn.Module] = []
    for block in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        resnets, attentions = list(block.resnets), list(getattr(block, "attentions", None) or [])
        if block is unet.mid_block:
            found.append(resnets.pop(0))
            pairs = zip_longest(attentions, resnets)
        else:
            pairs = zip_longest(resnets, attentions)
        for pair in pairs:
            for module in pair:
                found += list(getattr(module, "transformer_blocks", None) or [module] if module is not None else [])
        found += [sampler for kind in ("downsamplers", "upsamplers") for sampler in getattr(block, kind, None) or []]
    names = {id(module): path for path, module in unet.named_modules()}
    return [(names[id(module)], module) for module in found]


def chosen(unet: Any, count: int) -> list[tuple[str, nn.Module]]:
    """The `count` blocks to be swapped: the largest, those of one size spread evenly so that the next can come while others compute.

    Raises RecipeError where there are fewer.
    """
    known = blocks(unet)
    if count > len(known):
        raise RecipeError(f"train.swap_blocks = {count}: this U-Net has {len(known)} blocks. Set {len(known)} at most.")
    sizes = [sum(tensor.numel() for tensor in module.parameters()) + sum(b.numel() for b in module.buffers()) for _, module in known]
    taken: list[int] = []
    for size in sorted(set(sizes), reverse=True):
        equal, wanted = [index for index, each in enumerate(sizes) if each == size], count - len(taken)
        taken += equal if len(equal) <= wanted else [equal[place * len(equal) // wanted] for place in range(wanted)]
    return [known[index] for index in sorted(taken)]


@contextmanager
def placed(model: SDXL, scheme: Scheme, count: int, parts: Sequence[str] = ("unet",)) -> Iterator[None]:
    """Within the block the U-Net is rounded by `scheme`, and `parts` are on the model's device but for the `count` blocks that `swapped` is going to bring.

    Enter it before the method is attached: what is learned then lies on the device, and DoRA's lengths are those of the rounded weights.
    """
    with quantised(model, scheme), lodged(model, *parts, but=[module for _, module in chosen(model.unet, count)]):
        yield


@contextmanager
def swapped(model: SDXL, count: int, parts: Sequence[str] = ("unet",)) -> Iterator[Swap]:
    """Within the block `parts` are on the model's device but for `count` blocks of the U-Net, which come when they are needed.

    Enter it after the method is attached: what is learned stays on the device, and frozen weights alone are moved. Afterwards they are, bit for bit, what
    and where they were. Raises RecipeError where the U-Net has fewer blocks, and where weights are learned that would have to be swapped.
    """
    swap = Swap([Unit(path, module, pin=model.device.type == "cuda") for path, module in chosen(model.unet, count)], model.device)
    with ExitStack() as stack:
        stack.callback(swap.go_home)
        stack.enter_context(lodged(model, *parts, but=[unit.module for unit in swap.units]))
        for index in range(count):
            stack.callback(swap.watch(index))
        if count:
            stack.enter_context(remembering())
        yield swap


@contextmanager
def lodged(model: SDXL, *parts: str, but: Sequence[nn.Module] = ()) -> Iterator[None]:
    """Within the block these parts ("unet", "vae", "text_encoder", ...) are on the model's device. Afterwards frozen weights are where they were."""
    modules = {**model.parts, "vae": model.vae}
    spared = {id(inner) for module in but for inner in module.modules()}
    moved = []
    for part in parts:
        for owner in modules[part].modules() if part in modules else ():
            learned = [p for p in owner.parameters(recurse=False) if p.requires_grad]
            for parameter in learned:  # adapters on weights that lie in host memory were made there
                parameter.data = parameter.data.to(model.device)
            moved += [held for held in _frozen([owner]) if id(owner) not in spared and held.home.device != model.device]
    try:
        for held in moved:
            held.put(held.home.to(model.device))
        yield
    finally:
        for held in moved:
            held.put(held.home)


@dataclass(frozen=True)
class _Held:
    """A frozen weight or buffer of a module."""

    owner: nn.Module
    name: str
    home: Tensor

    def put(self, tensor: Tensor) -> None:
        parameter = self.owner._parameters.get(self.name)
        if parameter is not None:
            parameter.data = tensor
        else:
            self.owner._buffers[self.name] = tensor


def _frozen(modules: Iterable[nn.Module]) -> list[_Held]:
    found = []
    for owner in modules:
        found += [_Held(owner, name, p.data) for name, p in owner._parameters.items() if p is not None and not p.requires_grad]
        found += [_Held(owner, name, b) for name, b in owner._buffers.items() if b is not None]
    return found


class Unit:
    """A block whose frozen weights lie in host memory, one behind the other: one copy brings them all."""

    def __init__(self, path: str, module: nn.Module, pin: bool) -> None:
        """`pin` keeps the system from moving that memory, so that a GPU can read it by itself. Raises RecipeError where nothing of it is frozen."""
        self.path, self.module = path, module
        found = _frozen(module.modules())
        if not found:
            raise RecipeError(f"train.swap_blocks: {path} is learned itself, and only frozen weights can be swapped. Set train.swap_blocks = 0.")
        self.starts = [0, *accumulate(-(-held.home.nbytes // ALIGNED) * ALIGNED for held in found)]
        self.host = torch.empty(self.starts[-1], dtype=torch.uint8, pin_memory=pin)
        self.devices = [held.home.device for held in found]
        self.held = found
        for view, held in zip(self._views(self.host), found, strict=True):
            view.copy_(held.home)
        here = [held.home.device.type == "cpu" for held in found]  # what lies in host memory already is not touched at all
        self.held = [h if kept else _Held(h.owner, h.name, v) for h, v, kept in zip(found, self._views(self.host), here, strict=True)]
        self.copy: Tensor | None = None
        self.ready: torch.cuda.Event | None = None
        self.leave()

    def _views(self, flat: Tensor) -> Iterator[Tensor]:
        """Each weight as a view of `flat`, which holds them all."""
        for held, start in zip(self.held, self.starts, strict=False):
            home = held.home
            yield flat[start : start + home.nbytes].view(home.dtype).as_strided(home.size(), home.stride())

    def start(self, lane: Lane) -> None:
        """Begin the copy to the device, where it has not begun."""
        if self.copy is None:
            self.copy, self.ready = lane.copy(self.host)

    def arrive(self, lane: Lane) -> Tensor:
        """From here on the block's weights are those on the device, which are returned as one."""
        assert self.copy is not None
        lane.wait(self.copy, self.ready)
        for held, view in zip(self.held, self._views(self.copy), strict=True):
            held.put(view)
        return self.copy

    def leave(self) -> None:
        """The copy is dropped: nothing comes back, for nothing changed."""
        self.copy = self.ready = None
        for held in self.held:
            held.put(held.home)

    def go_home(self) -> None:
        """Where the weights were before."""
        self.leave()
        for held, device in zip(self.held, self.devices, strict=True):
            held.put(held.home.to(device))


class Swap:
    """Whose turn it is."""

    def __init__(self, units: Sequence[Unit], device: torch.device) -> None:
        self.units, self.lane = list(units), Lane(device)
        self.now, self.way = -1, 1

    @property
    def held_bytes(self) -> int:
        """What the blocks take in host memory."""
        return sum(unit.host.nbytes for unit in self.units)

    def bring(self, index: int) -> None:
        """Block `index` is needed: it is waited for, all others leave, and the next one begins to come. Backwards the next one is the one before."""
        if index == self.now:
            return
        self.way, self.now = 1 if index > self.now else -1, index
        following = index + self.way if 0 <= index + self.way < len(self.units) else index - self.way  # the first and the last are where it turns
        for other, unit in enumerate(self.units):
            if other not in (index, following) and unit.copy is not None:
                unit.leave()
                self.lane.left()
        unit = self.units[index]
        unit.start(self.lane)
        lend(unit.arrive(self.lane), lambda: self._again(index))
        if 0 <= following < len(self.units):
            self.units[following].start(self.lane)

    def _again(self, index: int) -> Tensor:
        self.bring(index)
        copy = self.units[index].copy
        assert copy is not None
        return copy

    def watch(self, index: int) -> Callable[[], None]:
        """Bring a block when it computes, and when one of its rounded weights is asked for; the function that ends it."""
        module = self.units[index].module
        rounded = [inner for inner in module.modules() if isinstance(inner, Rounded)]
        hook = module.register_forward_pre_hook(lambda *_: self.bring(index))
        for inner in rounded:
            inner.before = lambda: self.bring(index)

        def end() -> None:
            hook.remove()
            for inner in rounded:
                del inner.before

        return end

    def go_home(self) -> None:
        """All weights are where they were before."""
        for unit in self.units:
            unit.go_home()


class Lane:
    """Copies to the device: on a GPU beside the computation, elsewhere at once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self.gone: deque[torch.cuda.Event] = deque()

    def copy(self, host: Tensor) -> tuple[Tensor, torch.cuda.Event | None]:
        """A copy on the device, and the event of its arrival."""
        if self.stream is None:
            return host.to(self.device, copy=True), None
        while len(self.gone) > 1:  # Python runs ahead of the GPU: without a rest the copies of blocks whose turn is long over would all be there at once
            self.gone.popleft().synchronize()
        with torch.cuda.stream(self.stream):
            return host.to(self.device, non_blocking=True), self.stream.record_event()

    def wait(self, copy: Tensor, ready: torch.cuda.Event | None) -> None:
        """What is computed from here on comes after the arrival, and the copy's memory is not given away before it is done."""
        if ready is not None:
            computing = torch.cuda.current_stream(self.device)
            computing.wait_event(ready)
            copy.record_stream(computing)

    def left(self) -> None:
        """A copy was dropped, which is free once what is queued now has been computed."""
        if self.stream is not None:
            self.gone.append(torch.cuda.current_stream(self.device).record_event())
