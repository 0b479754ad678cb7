"""A model whose own weights learn, laid over several processes: each holds its rows of every weight, gradient, average and optimizer state.

torch's FSDP2 (`fully_shard`; Zhao et al. 2023, Liang et al. 2024) gathers the weights of one unit at a time while it computes, and adds gradients up so that
each process gets its rows. It works on a twin of the model's networks, which shares their frozen tensors; the networks themselves keep the base's, and are
shown what was learned, whole, in the first process alone and only while it draws, measures or writes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from darkroom.methods.full import FullTuning
from darkroom.methods.tuned import Tuned, Weight
from darkroom.sdxl.model import SDXL

Units = Callable[[str, nn.Module], Sequence[nn.Module]]
"""From the name of a part and its network to the modules whose weights are gathered together, inner ones first; what is left is one unit."""
DONE = -1


@dataclass(eq=False)
class Rows(Weight):
    """A weight of which this process holds some rows. `parameter` is those, and the optimizer's; `laid` is the same memory as FSDP2 knows it."""

    laid: Any
    resting: nn.Parameter
    """The base's own tensor, which the module holds meanwhile."""

    @property
    def shape(self) -> torch.Size:
        """That of the whole weight."""
        found: torch.Size = self.laid.shape
        return found

    @property
    def start(self) -> int:
        """The place of this process's first number in the whole weight."""
        mesh: DeviceMesh = self.laid.device_mesh
        each = -(-self.shape[0] // mesh.size())
        return min(each * mesh.get_local_rank(), self.shape[0]) * self.shape[1:].numel()

    def show(self, value: torch.Tensor | None) -> None:
        """Let the module of the network compute with another tensor; None: with the base's own."""
        leaf = self.key[1].rpartition(".")[2]
        self.owner._parameters[leaf] = self.resting if value is None else nn.Parameter(value, requires_grad=False)

    def put_back(self) -> None:
        """The base's own tensor was never touched."""
        self.show(None)

    def lay(self, local: torch.Tensor) -> Any:
        """Rows that belong to the weight (its average, an optimizer's state) as a tensor that knows the whole's shape, over the same memory."""
        return as_rows(local, self.laid.device_mesh, self.shape)

    def room(self, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
        """Empty memory for what a checkpoint has of these rows, and the same as `lay` would give it."""
        local = torch.empty(self.parameter.shape, dtype=dtype, device=self.parameter.device)
        return local, self.lay(local)

    def taken(self, local: torch.Tensor) -> torch.Tensor:
        """What was read into `room`, as the optimizer holds it."""
        return local

    def gathered(self, local: torch.Tensor) -> torch.Tensor:
        """The whole of which all processes have rows, in the first; elsewhere the rows. Every process calls it."""
        mesh = self.laid.device_mesh
        each = -(-self.shape[0] // mesh.size())
        mine = local.new_zeros(each, *self.shape[1:])
        mine[: len(local)] = local
        parts = [torch.empty_like(mine) for _ in range(mesh.size())] if mesh.get_local_rank() == 0 else None
        distributed.gather(mine, parts, dst=0)
        return local if parts is None else torch.cat(parts)[: self.shape[0]]


class Sharded(Tuned):
    """`Tuned` over all processes of the crew. Every process makes it, and calls `whole`, `collect` and the U-Net in the same order."""

    split = True

    def __init__(self, spec: FullTuning, model: SDXL, units: Units, reshard: bool = True) -> None:
        """`reshard`: weights are dropped after the forward pass and gathered again for the backward pass, as ZeRO 3 does; else kept between, as ZeRO 2 does."""
        self._units, self._reshard = units, reshard
        self._mesh = init_device_mesh(model.device.type, (distributed.get_world_size(),))
        self._twins: dict[str, Any] = {}
        self._open = False
        self._moved: list[tuple[dict[str, Any], str, torch.Tensor]] = []
        self.weights: list[Weight]
        super().__init__(spec, model)
        self._learner = replace(model, **self._twins)

    @cached_property
    def rows(self) -> dict[nn.Parameter, Rows]:
        """By what the optimizer holds."""
        return {weight.parameter: weight for weight in self.weights if isinstance(weight, Rows)}

    @cached_property
    def named(self) -> dict[str, Rows]:
        """By "unet.conv_in.weight"."""
        return {rows.name: rows for rows in self.rows.values()}

    # ---- laying -----------------------------------------------------------------------------------------------------------------------------------------

    def _begin(self, part: str) -> Iterator[Weight]:
        """Unit by unit: no more than one of them is whole on the device."""
        weights = {weight.key[1]: weight for weight in self._chosen(part)}
        if not weights:
            return
        twin = self._twins[part] = twin_of(self.model.parts[part], self.model.device)
        names = {id(parameter): name for name, parameter in twin.named_parameters()}
        inner = list(self._units(part, twin))
        for unit in inner:
            self._lay(unit, names, weights, self._reshard)
        self._lay(twin, names, weights, False)  # what is left of it is used first and last
        laid: dict[str, Any] = dict(twin.named_parameters())
        for name, weight in weights.items():
            mine = nn.Parameter(laid[name].to_local().detach(), requires_grad=weight.learns)
            yield Rows(weight.key, weight.owner, mine, weight.before, weight.home, weight.learns, laid[name], weight.parameter)

    def _lay(self, unit: nn.Module, names: dict[int, str], weights: dict[str, Weight], reshard: bool) -> None:
        from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

        kind = type(unit)
        self._fill(unit, names, weights)
        found = fully_shard(unit, mesh=self._mesh, reshard_after_forward=reshard, mp_policy=MixedPrecisionPolicy(reduce_dtype=torch.float32))
        found.set_gradient_divide_factor(1.0)  # a share's loss is weighed by its size: its gradients are added up, not averaged
        found.set_force_sum_reduction_for_comms(True)
        unit.__class__ = kind  # transformers looks up by its class what a network may record; FSDP2 works by hooks

    def _fill(self, unit: nn.Module, names: dict[int, str], weights: dict[str, Weight]) -> None:
        """Parameters of a unit of the twin become its own."""
        for owner in unit.modules():
            for leaf, parameter in owner._parameters.items():
                if parameter is not None and (name := names.get(id(parameter))) is not None:
                    owner._parameters[leaf] = self._begun(weights.get(name), parameter)

    def _begun(self, weight: Weight | None, parameter: nn.Parameter) -> nn.Parameter:
        if weight is None:
            return nn.Parameter(parameter.data.to(self.model.device), requires_grad=False)
        return nn.Parameter(self._start(weight), requires_grad=weight.learns)

    # ---- learning ---------------------------------------------------------------------------------------------------------------------------------------

    def learning(self, model: SDXL) -> SDXL:
        """The twin while gradients are wanted; `model`, shown what was learned, while it is looked at."""
        return self._learner if torch.is_grad_enabled() and not self.looking else model

    def collect(self) -> None:
        """Give the optimizer this process's rows of the gradients."""
        for parameter, rows in self.rows.items():
            parameter.grad = None if rows.laid.grad is None else rows.laid.grad.to_local()
            rows.laid.grad = None

    # ---- looking ----------------------------------------------------------------------------------------------------------------------------------------

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Within the block the first process may ask for any weight whole, and the others give it their rows until it is done."""
        if distributed.get_rank():
            while (index := self._asked(DONE)) != DONE:
                self._gathered(index)
            yield
            return
        self._open = True
        try:
            yield
        finally:
            self._open = False
            self._hide()
            self._asked(DONE)

    def _look(self, module: nn.Module, arguments: Any) -> None:
        if self._open:
            super()._look(module, arguments)

    def _asked(self, index: int) -> int:
        """The first process's word, in every process."""
        said = torch.tensor([index], device=self.model.device)
        distributed.broadcast(said, 0)
        return int(said)

    def _gathered(self, index: int) -> torch.Tensor:
        weight = self.weights[index]
        assert isinstance(weight, Rows)
        return weight.gathered(self._averages.get(weight.key, weight.parameter).detach())

    def _value(self, weight: Weight) -> torch.Tensor:
        """Whole; in the first process, within `whole`."""
        return self._gathered(self._asked(self._places[weight.key]))

    @cached_property
    def _places(self) -> dict[Any, int]:
        return {weight.key: index for index, weight in enumerate(self.weights)}

    def _show(self) -> None:
        device, dtype = self.model.device, self.model.dtype
        for weight in self.weights:
            weight.show(self._value(weight).to(device, dtype))
        for part in self._twins:
            for owner in self.model.parts[part].modules():
                self._bring(owner._parameters, device)
                self._bring(owner._buffers, device)

    def _bring(self, kept: dict[str, Any], device: torch.device) -> None:
        """What did not learn and waits in main memory comes along."""
        for leaf, tensor in kept.items():
            if tensor is not None and tensor.device != device:
                self._moved.append((kept, leaf, tensor))
                kept[leaf] = nn.Parameter(tensor.data.to(device), requires_grad=False) if isinstance(tensor, nn.Parameter) else tensor.to(device)

    def _hide(self) -> None:
        super()._hide()
        while self._moved:
            kept, leaf, tensor = self._moved.pop()
            kept[leaf] = tensor

    # ---- checkpoints ------------------------------------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, torch.Tensor]:
        """This process's rows, no copies, each knowing the whole."""
        return {name: self.named[name.removeprefix("ema.")].lay(tensor) if name != "ema.steps" else tensor for name, tensor in self._held().items()}

    def detach(self) -> None:
        """The networks hold the base's own tensors; the twin goes."""
        super().detach()
        self._twins.clear()
        del self._learner


def twin_of(root: nn.Module, device: torch.device) -> nn.Module:
    """The same network around the same parameters; it has buffers of its own, on the device."""
    shared: dict[int, Any] = {id(parameter): parameter for parameter in root.parameters()}
    shared |= {id(buffer): buffer.to(device, copy=True) for buffer in root.buffers()}
    return copy.deepcopy(root, shared)


def as_rows(local: torch.Tensor, mesh: DeviceMesh, shape: torch.Size) -> Any:
    """This process's rows of a tensor as one that knows the whole's shape, over the same memory."""
    from torch.distributed.tensor import DTensor, Shard

    return DTensor.from_local(local, mesh, [Shard(0)], run_check=False, shape=shape, stride=_strides(shape))


def _strides(shape: torch.Size) -> tuple[int, ...]:
    """Of a contiguous tensor."""
    return tuple(shape[place + 1 :].numel() for place in range(len(shape)))
