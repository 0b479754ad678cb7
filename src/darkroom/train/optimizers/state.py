"""What a run does with any optimizer: keeps its state as tensors and numbers (never a pickle), sets its rates, shows its weights as they will be used."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from darkroom.errors import RunError

Facts = dict[str, Any]
ON_HOST = {"step"}  # torch counts its steps on the CPU, wherever the weights are
RECIPES = {"params", "lr"}  # a group's entries that the recipe sets anew


def state_of(optimizer: torch.optim.Optimizer, copied: bool = True) -> tuple[dict[str, torch.Tensor], Facts]:
    """All that another process needs to go on: tensors by "3.exp_avg" (parameter 3) and "group.0.name", and plain numbers for JSON.

    The tensors are copies in main memory, or else the optimizer's own.
    Of a group those numbers are kept that are no longer what the optimizer was made with: Prodigy's d, schedule-free's k, weight_sum and lr_max.
    """
    tensors: dict[str, torch.Tensor] = {}
    numbers: dict[str, float] = {}
    for index, parameter in enumerate(_parameters(optimizer)):
        for key, value in optimizer.state.get(parameter, {}).items():
            _keep(tensors, numbers, f"{index}.{key}", value)
    for index, group in enumerate(optimizer.param_groups):
        for key, value in group.items():
            if key not in RECIPES and (isinstance(value, torch.Tensor) or value != optimizer.defaults.get(key)):
                _keep(tensors, numbers, f"group.{index}.{key}", value)
    tensors = {name: tensor.cpu().clone().contiguous() for name, tensor in tensors.items()} if copied else tensors
    return tensors, {"optimizer": type(optimizer).__name__, "parameters": len(_parameters(optimizer)), "numbers": numbers}


def _keep(tensors: dict[str, torch.Tensor], numbers: dict[str, float], name: str, value: Any) -> None:
    if isinstance(value, torch.Tensor):
        tensors[name] = value.detach()
    elif isinstance(value, bool | int | float):
        numbers[name] = value
    elif value is not None and not isinstance(value, tuple | str):  # those are arguments, which the recipe brings
        raise AssertionError(f"{name} of an optimizer's state is a {type(value).__name__}, which no checkpoint can hold")


def load_into(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], facts: Facts) -> None:
    """Put back what `state_of` gave, into one that was built by the same recipe. Raises RunError where it is another's."""
    parameters = _parameters(optimizer)
    if (facts["optimizer"], facts["parameters"]) != (type(optimizer).__name__, len(parameters)):
        raise RunError(
            f"the checkpoint holds the state of {facts['optimizer']} over {facts['parameters']} tensors, and the recipe has {type(optimizer).__name__} over "
            f"{len(parameters)}: it belongs to another recipe or base. Start a new run."
        )
    for parameter in parameters:
        optimizer.state[parameter] = {}
    for name, value in {**tensors, **facts["numbers"]}.items():
        if name.startswith("group."):
            _, place, key = name.split(".", 2)
            optimizer.param_groups[int(place)][key] = value.to(parameters[0].device, copy=True) if isinstance(value, torch.Tensor) else value
        else:
            place, key = name.split(".", 1)
            parameter = parameters[int(place)]
            moved = isinstance(value, torch.Tensor)
            optimizer.state[parameter][key] = value.to("cpu" if key in ON_HOST else parameter.device, copy=True) if moved else value


def _parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


def set_rates(optimizer: torch.optim.Optimizer, rates: list[float | None], factor: float) -> None:
    """Each group's rate is its own times `factor`; None is one that the optimizer sets itself (Adafactor's relative step)."""
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = None if rate is None else rate * factor


def effective_rate(optimizer: torch.optim.Optimizer) -> float:
    """The rate that the first group last learned with, for the log: what an optimizer that sets its own has found."""
    group: dict[str, Any] = optimizer.param_groups[0]
    if group.get("relative_step"):
        state = optimizer.state[group["params"][0]]
        return float(optimizer._get_lr(group, state)) if state else 0.0  # type: ignore[attr-defined]  # as transformers' AdafactorSchedule asks for it
    return float(group["lr"] * group.get("d", 1.0))


@contextlib.contextmanager
def settled(optimizer: torch.optim.Optimizer) -> Iterator[None]:
    """Within the block the weights are those to draw with and to save; afterwards they are, bit for bit, those to learn on with.

    Only schedule-free has two sets. Its own way back from the average is exact but for rounding, so that a preview would change the training: the weights
    are therefore kept on the host and put back.
    """
    free: Any = optimizer
    if not any("train_mode" in group for group in optimizer.param_groups):
        yield
        return
    kept = [parameter.detach().to("cpu", copy=True) for parameter in _parameters(optimizer)]
    free.eval()
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, value in zip(_parameters(optimizer), kept, strict=True):
                parameter.copy_(value)
        for group in optimizer.param_groups:
            group["train_mode"] = True
