"""A model whose own weights learn, laid over several processes by DeepSpeed's ZeRO (Rajbhandari et al. 2020): stage 2 divides gradients, averages and the
optimizer's state, stage 3 the weights too.

DeepSpeed's engine divides, gathers and reduces. What it would do in its own step, Darkroom's loop does as everywhere: the optimizer is the recipe's, over the
pieces of weights that this process has (views of DeepSpeed's flat memory); DeepSpeed is given one that does nothing, and its step then only hands out what
changed. So norms, clipping, health, averages and checkpoints are those of `Sharded`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed, nn
from torch.nn import functional

from darkroom.errors import RecipeError
from darkroom.methods.full import FullTuning
from darkroom.methods.sharded import Rows, Sharded, as_rows, twin_of
from darkroom.methods.tuned import Weight
from darkroom.sdxl.model import SDXL

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

BUCKET = 50_000_000
"""Numbers whose gradients are reduced at once, and that are gathered ahead: 200 MB. DeepSpeed's own 5e8 takes 2 GB."""

LIVE = 4 * BUCKET
"""Numbers of weights that stage 3 keeps whole at a time, and that are handed out at once after a step: 800 MB. DeepSpeed's own 1e9 take 4 GB."""

TRIED = "0.19."
"""Release of DeepSpeed."""


@dataclass(eq=False)
class Piece(Rows):
    """A weight of which this process holds some numbers on end, of any rows. `laid` is the weight as DeepSpeed knows it."""

    whole_shape: torch.Size
    begins: int
    mesh: DeviceMesh

    @property
    def shape(self) -> torch.Size:
        """That of the whole weight."""
        return self.whole_shape

    @property
    def start(self) -> int:
        """The place of this process's first number in the whole weight."""
        return self.begins

    def lay(self, local: torch.Tensor) -> Any:
        """Numbers that belong to the weight as rows that know the whole: a copy, for a checkpoint. Every process calls it."""
        whole = self._placed(local)
        distributed.all_reduce(whole)
        each = -(-self.shape[0] // self.mesh.size())
        first, last = (min(each * (self.mesh.get_local_rank() + more), self.shape[0]) for more in (0, 1))
        return as_rows(whole.view(self.shape)[first:last].clone(), self.mesh, self.shape)

    def room(self, dtype: torch.dtype) -> tuple[torch.Tensor, Any]:
        """Rows, not this process's numbers: `taken` exchanges them."""
        each = -(-self.shape[0] // self.mesh.size())
        count = max(0, min(each, self.shape[0] - each * self.mesh.get_local_rank()))
        local = torch.empty(count, *self.shape[1:], dtype=dtype, device=self.parameter.device)
        return local, as_rows(local, self.mesh, self.shape)

    def taken(self, local: torch.Tensor) -> torch.Tensor:
        """This process's numbers of what all have read rows of. Every process calls it."""
        whole: torch.Tensor = as_rows(local, self.mesh, self.shape).full_tensor()
        return whole.reshape(-1)[self.begins : self.begins + self.parameter.numel()].clone()

    def gathered(self, local: torch.Tensor) -> torch.Tensor:
        """The whole of which all processes have pieces, in the first; elsewhere the piece. Every process calls it."""
        whole = self._placed(local)
        distributed.reduce(whole, 0)
        return local if distributed.get_rank() else whole.view(self.shape)

    def _placed(self, local: torch.Tensor) -> torch.Tensor:
        """Among zeros, which the others' numbers are added to."""
        whole = local.new_zeros(self.shape.numel())
        whole[self.begins : self.begins + local.numel()] = local
        return whole


class Zeroed(Sharded):
    """`Sharded` by DeepSpeed. Every process makes it, holds all that learns while it is laid, and computes as often as every other."""

    def __init__(self, spec: FullTuning, model: SDXL, stage: int, given: Mapping[str, Any] | None = None) -> None:
        """`given`: of DeepSpeed's zero_optimization, what somebody configured. Raises RecipeError where DeepSpeed is not installed."""
        self._stage, self._given, self._accumulate = stage, dict(given or {}), 1
        self._deepspeed = library(model.device.type)
        self._engine: Any = None
        self._linear = functional.linear
        super().__init__(spec, model, lambda part, network: ())
        self._learner = replace(self._learner, unet=_Through(self._engine, self._twins["unet"]))

    # ---- laying -----------------------------------------------------------------------------------------------------------------------------------------

    def _begin(self, part: str) -> Iterator[Weight]:
        """All parts are laid at once, before the first."""
        if self._engine is None:
            self._divide()
        learned = dict(self._twins[part].named_parameters()) if part in self._twins else {}
        for weight in self._chosen(part) if learned else ():
            if weight.learns:  # what computes beside stays the base's, and the twin's own
                yield self._piece(weight, learned[weight.key[1]])

    def _divide(self) -> None:
        rates: dict[float, list[nn.Parameter]] = {}
        for part in self.model.parts:
            if not (weights := {weight.key[1]: weight for weight in self._chosen(part)}):
                continue
            twin = self._twins[part] = twin_of(self.model.parts[part], self.model.device)
            self._fill(twin, {id(parameter): name for name, parameter in twin.named_parameters()}, weights)
            for name, parameter in twin.named_parameters():
                if parameter.requires_grad:
                    rates.setdefault(self.spec.rate((part, name)), []).append(parameter)
        network = _Learning(self._twins, self.model)
        still = _Still([{"params": members} for members in rates.values()])
        config = configured(self._stage, sum(parameter.numel() for parameter in network.parameters()), self.model.dtype, self._given)
        with contextlib.redirect_stdout(sys.stderr):  # standard output is for results
            self._engine, *_ = self._deepspeed.initialize(model=network, optimizer=still, config=config, dist_init_required=False)

    def _piece(self, weight: Weight, parameter: Any) -> Piece:
        """The numbers of a weight that this process has."""
        if self._stage == 3:
            each, shape = parameter.partition_numel(), torch.Size(parameter.ds_shape)
            first = min(each * distributed.get_rank(), shape.numel())
            held = self._local(parameter)[: min(each, shape.numel() - first)]
        else:
            place, shape = parameter._hp_mapping, parameter.shape
            first = place.lp_fragment_address.start if place else 0
            held = place.hp_fragment if place else parameter.new_empty(0)
        mine = nn.Parameter(held.detach())
        return Piece(weight.key, weight.owner, mine, weight.before, weight.home, True, parameter, weight.parameter, shape, first, self._mesh)

    def _local(self, parameter: Any) -> torch.Tensor:
        found: torch.Tensor = self._deepspeed.utils.safe_get_local_fp32_param(parameter)
        return found

    # ---- learning ---------------------------------------------------------------------------------------------------------------------------------------

    def expect(self, steps: int, accumulate: int) -> None:
        """Gradients are whole after so many batches."""
        self._accumulate = accumulate

    def prepare(self, batch: int | None) -> None:
        """DeepSpeed is told which batch is a step's last."""
        super().prepare(batch)
        if batch is not None:
            self._engine.set_gradient_accumulation_boundary((batch + 1) % self._accumulate == 0)

    def backward(self, loss: torch.Tensor) -> None:
        """DeepSpeed averages gradients over processes, and they are to be added up."""
        self._engine.backward(loss * distributed.get_world_size(), scale_wrt_gas=False)

    def collect(self) -> None:
        """Give the optimizer this process's numbers of the gradients."""
        for parameter, piece in self.rows.items():
            parameter.grad = self._gradient(piece.laid, parameter.numel())

    def _gradient(self, laid: Any, count: int) -> torch.Tensor:
        if not count:
            return torch.empty(0, device=self.model.device)
        if self._stage == 3:
            found: torch.Tensor = self._deepspeed.utils.safe_get_local_grad(laid)
        else:
            found = laid._hp_mapping.get_lp_grad_fragment(laid._index_in_param_group)
            assert found.numel() == count, "the gradient of the very numbers that are stepped"
        return found.reshape(-1)[:count].float()

    def after_step(self) -> None:
        """Every process gets what changed."""
        self._engine.step()
        super().after_step()

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        """Put back what `state` gave, in every process."""
        super().load_state(state)
        zero = self._engine.optimizer
        if self._stage == 2:
            zero.update_lp_params()
            return
        for flat, mine in zip(zero.fp16_partitioned_groups_flat, zero.fp32_partitioned_groups_flat, strict=True):
            flat.data.copy_(mine.data)
        if kept := zero.persistent_parameters:
            kept[0].all_gather(kept)

    def detach(self) -> None:
        """The engine goes with the twin."""
        super().detach()
        self._engine.destroy()
        self._engine = None
        functional.linear = self._linear  # stage 3 puts its own in torch's place, for every network


class _Learning(nn.Module):
    """The networks that learn as DeepSpeed sees them: one, which computes what the U-Net does."""

    def __init__(self, networks: Mapping[str, nn.Module], model: SDXL) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(networks)
        self._numbers = model.device.type, model.dtype

    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Within the loop's autocast, which DeepSpeed has its own idea of."""
        device, dtype = self._numbers
        with torch.autocast(device, dtype, cache_enabled=False) if dtype != torch.float32 else contextlib.nullcontext():
            return self.networks["unet"](*inputs, **named)


class _Through:
    """A U-Net that is called through DeepSpeed's engine, and is otherwise itself."""

    def __init__(self, engine: Any, network: nn.Module) -> None:
        self._engine, self._network = engine, network

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        return self._engine(*inputs, **named)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._network, name)


class _Still(torch.optim.Optimizer):
    """Changes nothing: the loop's optimizer has."""

    def __init__(self, groups: list[dict[str, Any]]) -> None:
        super().__init__(groups, {"lr": 0.0})

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Nothing."""


def configured(stage: int, numbers: int, dtype: torch.dtype, given: Mapping[str, Any]) -> dict[str, Any]:
    """DeepSpeed's configuration of a model of so many numbers. `given` goes first, but for what the loop does itself."""
    bucket = min(BUCKET, numbers)
    zero = {"overlap_comm": False, "reduce_bucket_size": bucket, "allgather_bucket_size": bucket, "stage3_prefetch_bucket_size": bucket}
    zero |= dict.fromkeys(("stage3_max_live_parameters", "stage3_max_reuse_distance", "sub_group_size"), LIVE)
    found: dict[str, Any] = {
        "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1, "gradient_clipping": 0.0, "zero_allow_untested_optimizer": True,
        "zero_optimization": {**zero, **given, "stage": stage, "contiguous_gradients": True},
    }  # fmt: skip
    if dtype != torch.float32:  # weights stay in float32, and so do gradients on their way
        word = str(dtype).removeprefix("torch.")
        found["torch_autocast"] = {"enabled": True, "dtype": word, "lower_precision_safe_modules": []}
    return found


def library(device: str) -> Any:
    """DeepSpeed, which says what it has to say on standard error. Raises RecipeError where it is not installed, or of a release that was not tried."""
    if device == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # its log keeps the stream that it finds
            deepspeed: Any = import_module("deepspeed")
    except ImportError as error:
        missing = f"is not installed ({error})" if isinstance(error, ModuleNotFoundError) else f"cannot be imported: {error}"
        raise RecipeError(f'train.sharding = "zero2" or "zero3" is DeepSpeed\'s, which {missing}. Install it: pip install "sdxl-darkroom[deepspeed]"') from None
    if not str(deepspeed.__version__).startswith(TRIED):
        raise RecipeError(
            f"DeepSpeed {deepspeed.__version__} is installed, and each release lays out as it likes the memory that train.sharding works on; {TRIED}x was "
            'tried. Install it: pip install "sdxl-darkroom[deepspeed]", or set train.sharding = "fsdp".'
        )
    warnings.filterwarnings("ignore", r"`torch\.distributed\.\w+` is deprecated", FutureWarning)  # it calls torch's collectives by their former names
    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)  # it warns of every optimizer that is not its own
    return deepspeed
